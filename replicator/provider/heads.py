"""Witnessed heads: for each writer the newest, its number only rises, and what speaks against it is kept."""

import sqlite3

from replicator.charter.verify import signed_hash
from replicator.format.snapshot import Head
from replicator.ids import TenantId
from replicator.provider.database import Database
from replicator.provider.marks import fence_of, must_claim_anew
from replicator.transport.handler import RequestRefusedError

MAX_FORKS = 16
"""Pairs kept for each writer: one proves it, and a broken writer must not fill the disk."""


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
        RequestRefusedError: "conflict", an older number, one that is fenced off, or by a writer that must claim anew.
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
    return now_ns


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


def newest_heads(database: Database, tenant: TenantId) -> list[bytes]:
    """Return the newest signed head of each writer."""
    return [
        signed for (signed,) in database.rows("SELECT signed FROM heads WHERE tenant = ? ORDER BY writer", (tenant,))
    ]


def known_forks(database: Database, tenant: TenantId) -> list[tuple[bytes, bytes]]:
    """Return the evidence of forks."""
    rows = database.rows("SELECT signed_a, signed_b FROM forks WHERE tenant = ? ORDER BY id", (tenant,))
    return [(signed_a, signed_b) for signed_a, signed_b in rows]
