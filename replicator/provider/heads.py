"""Witnessed heads: for each writer the newest, its number only rises, and what speaks against it is kept."""

import sqlite3

from replicator.charter.verify import signed_hash
from replicator.clock import DAY_S, HOUR_S, NS
from replicator.format.claim import Shown, Witness
from replicator.format.snapshot import Head
from replicator.ids import Identity, TenantId
from replicator.provider.database import Database
from replicator.provider.marks import fence_of, must_claim_anew
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import MAX_TESTIMONY

MAX_FORKS = 16
"""Pairs kept for each writer: one proves it, and a broken writer must not fill the disk."""
MAX_AT_ONCE = 10_000
MAX_A_DAY = 400
"""Heads of one writer that are taken: so many at first, and so many for each day since its first one here. All are
kept, for none may push another out of sight; at 300 bytes each a broken writer fills 120 kB a day. Hourly backups of
16 datasets need 384."""


class ForkError(Exception):
    """A head contradicts one that was witnessed before; both are evidence."""

    def __init__(self, number: int, signed_a: bytes, signed_b: bytes) -> None:
        super().__init__(f"fork at {number}")
        self.number = number
        self.signed_a = signed_a
        self.signed_b = signed_b


def accept_head(connection: sqlite3.Connection, head: Head, signed: bytes, now_ns: int) -> int:
    """Record a head whose signature was checked and return when it was first seen.

    A number may jump: this provider may have been away. The same head again keeps its first time.

    Raises:
        RequestRefusedError: "conflict", an older number, one that is fenced off, or by a writer that must claim anew;
            "busy", more heads than a writer may have by now.
        ForkError: another head at its number, or one that does not name ours as previous.
    """
    row = connection.execute(
        "SELECT number, hash, signed, seen_ns FROM heads WHERE tenant = ? AND writer = ?", (head.tenant, head.writer)
    ).fetchone()
    digest = signed_hash(signed)
    if row is not None:
        number, known, known_signed, seen_ns = row
        if digest == known:
            return int(seen_ns)
        if head.number == number or (head.number == number + 1 and head.previous != known):
            raise ForkError(head.number, known_signed, signed)
        if head.number < number:
            raise RequestRefusedError("conflict", f"head {head.number} is older than {number}, which was seen here")
        _must_have_room(connection, head, now_ns)
    if must_claim_anew(connection, TenantId(head.tenant), head.writer):
        # A snapshot must not be published on a claim that does not protect any more.
        raise RequestRefusedError("conflict", f"claim anew before head {head.number}: the last claim holds no more")
    _, fenced = fence_of(connection, TenantId(head.tenant), head.writer)
    if head.number <= fenced:
        raise RequestRefusedError("conflict", f"head {head.number} comes too late: up to {fenced} they are fenced off")
    connection.execute(
        "INSERT INTO heads (tenant, writer, number, hash, signed, seen_ns) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (tenant, writer) DO UPDATE SET number = excluded.number, hash = excluded.hash, "
        "signed = excluded.signed, seen_ns = excluded.seen_ns",
        (head.tenant, head.writer, head.number, digest, signed, now_ns),
    )
    connection.execute(
        "INSERT INTO witnessed (tenant, writer, number, signed, seen_ns) VALUES (?, ?, ?, ?, ?)",
        (head.tenant, head.writer, head.number, signed, now_ns),
    )
    return now_ns


def _must_have_room(connection: sqlite3.Connection, head: Head, now_ns: int) -> None:
    count, first_ns = connection.execute(
        "SELECT count(*), min(seen_ns) FROM witnessed WHERE tenant = ? AND writer = ?", (head.tenant, head.writer)
    ).fetchone()
    days = max(0, now_ns - (now_ns if first_ns is None else first_ns)) // (DAY_S * NS)
    if count >= MAX_AT_ONCE + MAX_A_DAY * days:
        raise RequestRefusedError(
            "busy", f"{count} snapshots of this writer were seen here, more than {MAX_A_DAY} a day", after_s=HOUR_S
        )


def keep_testimony(connection: sqlite3.Connection, witness: Witness, provider: Identity, signed: bytes) -> None:
    """Keep what another provider signed for a writer, whose signature was checked; the last word of each is kept."""
    kept = connection.execute(
        "SELECT provider FROM testimony WHERE tenant = ? AND writer = ?", (witness.tenant, witness.writer)
    ).fetchall()
    if (provider,) not in kept and len(kept) >= MAX_TESTIMONY:
        return
    connection.execute(
        "INSERT OR REPLACE INTO testimony (tenant, writer, provider, number, signed) VALUES (?, ?, ?, ?, ?)",
        (witness.tenant, witness.writer, provider, witness.number, signed),
    )


def keep_fork(connection: sqlite3.Connection, tenant: TenantId, writer: bytes, fork: ForkError) -> None:
    """Keep the evidence, once."""
    rows = connection.execute(
        "SELECT signed_a, signed_b FROM forks WHERE tenant = ? AND writer = ?", (tenant, writer)
    ).fetchall()
    if len(rows) >= MAX_FORKS or (fork.signed_a, fork.signed_b) in rows:
        return
    connection.execute(
        "INSERT INTO forks (tenant, writer, number, signed_a, signed_b) VALUES (?, ?, ?, ?, ?)",
        (tenant, writer, fork.number, fork.signed_a, fork.signed_b),
    )


def newest_heads(database: Database, tenant: TenantId) -> list[tuple[Shown, bytes]]:
    """Return the newest head of each writer, by writer: what is said of it, and itself, signed."""
    rows = database.rows(
        "SELECT writer, number, hash, seen_ns, signed FROM heads WHERE tenant = ? ORDER BY writer", (tenant,)
    )
    return [
        (Shown(writer=writer, number=number, head=head, seen_ns=seen_ns), signed)
        for writer, number, head, seen_ns, signed in rows
    ]


def chain_page(database: Database, tenant: TenantId, writer: bytes, *, before: int, limit: int) -> list[bytes]:
    """Return signed heads of a writer with numbers below ``before`` (0: all), the newest first."""
    rows = database.rows(
        "SELECT signed FROM witnessed WHERE tenant = ? AND writer = ? AND (? = 0 OR number < ?) "
        "ORDER BY number DESC LIMIT ?",
        (tenant, writer, before, before, limit),
    )
    return [signed for (signed,) in rows]


def testimony(database: Database, tenant: TenantId) -> list[bytes]:
    """Return what other providers signed, as writers told it."""
    rows = database.rows("SELECT signed FROM testimony WHERE tenant = ? ORDER BY writer, provider", (tenant,))
    return [signed for (signed,) in rows]


def known_forks(database: Database, tenant: TenantId) -> list[tuple[bytes, bytes]]:
    """Return the evidence of forks."""
    rows = database.rows("SELECT signed_a, signed_b FROM forks WHERE tenant = ? ORDER BY id", (tenant,))
    return [(signed_a, signed_b) for signed_a, signed_b in rows]
