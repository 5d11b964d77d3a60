"""Marks: what maintenance says may go, taken only from who has seen every claim and head that was accepted here.

Everything here happens inside one transaction of the provider's database, which is what orders claims, marks and
sweeps; docs/spec/protocol.md §10 has the rules and why they suffice.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from replicator.charter.verify import NO_PREVIOUS, VerifiedCharter, signed_hash
from replicator.clock import DAY_S, NS, SKEW_S
from replicator.crypto.sign import Context, signer_of, verify
from replicator.format.charter import Op
from replicator.format.claim import Receipt
from replicator.format.codec import decode
from replicator.format.mark import Fence, Holders, Mark, Retire, sorted_names
from replicator.ids import Identity, ObjectName, TenantId, identity_of
from replicator.provider.audit import names_in
from replicator.provider.days import Days
from replicator.provider.sweep import EARLIEST, Limits, Marked, Why, earliest_values
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import Claims, MarkReply, WriterState

RECEIPT_AGE_NS = 7 * DAY_S * NS
"""How old a receipt may be that a release stands on."""
RECEIPT_HOLD_NS = RECEIPT_AGE_NS + DAY_S * NS
"""How long a copy stays no surplus after its own receipt: longer than another release may stand on that receipt, so
that two copies never give way to each other."""
ENDLESS_NS = 2**62
"""A lock without end."""

_NEEDED = (
    "EXISTS (SELECT 1 FROM claims JOIN claimed USING (tenant, writer) WHERE claims.tenant = {0}.tenant "
    "AND claims.retired = 0 AND claimed.name = {0}.name)"
)
_MARKED = (
    "SELECT marks.name, objects.size, why, marked_ns, marked_day, received_ns, received_day, lock_until_ns, "  # noqa: S608 - constant text
    f"unclaimed_ns, unclaimed_day, {_NEEDED.format('marks')} "
    "FROM marks JOIN objects USING (tenant, name) WHERE marks.tenant = ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a mark is judged on besides rows: this provider, its clock, and the charter that was read for it."""

    identity: Identity
    charter: VerifiedCharter
    days: Days
    now_ns: int


def kept_names(charter_name: bytes, charter: VerifiedCharter) -> frozenset[bytes]:
    """Return the names that a tenant's recovery begins with: never deleted while they are in force."""
    return frozenset({charter_name, charter.charter.keybag})


def signers(charter: VerifiedCharter, op: Op) -> list[bytes]:
    """Return the keys to which the charter gives an operation."""
    return [right.holder_key for right in charter.charter.rights if op in right.ops and not right.revoked]


def claims_now(connection: sqlite3.Connection, tenant: TenantId, charter: VerifiedCharter | None) -> Claims:
    """Return all writers as they are known here, and the end of the chain of marks.

    In a store that was put back from an older copy, a node of the charter counts as not current until it claims
    anew, also one that is not remembered: what it relied on may be what was lost.
    """
    incarnation, lives = connection.execute("SELECT incarnation, lives FROM meta").fetchone()
    claims = {
        writer: (number, known == incarnation, bool(retired))
        for writer, number, known, retired in connection.execute(
            "SELECT writer, number, incarnation, retired FROM claims WHERE tenant = ?", (tenant,)
        )
    }
    heads = dict(connection.execute("SELECT writer, number FROM heads WHERE tenant = ?", (tenant,)).fetchall())
    fences = {
        writer: (claim, head)
        for writer, claim, head in connection.execute(
            "SELECT writer, claim, head FROM fences WHERE tenant = ?", (tenant,)
        )
    }
    nodes: set[bytes] = set()
    if lives and charter is not None:
        nodes = {
            identity_of(right.holder_key)
            for right in charter.charter.rights
            if right.role == "node" and not right.revoked
        }
    states = []
    for writer in sorted(claims.keys() | heads.keys() | fences.keys() | nodes):
        number, current, retired = claims.get(writer, (0, not lives or not (writer in heads or writer in nodes), False))
        fenced_claim, fenced_head = fences.get(writer, (0, 0))
        states.append(
            WriterState(
                writer=writer,
                claim=number,
                head=heads.get(writer, 0),
                current=current,
                retired=retired,
                fenced_claim=fenced_claim,
                fenced_head=fenced_head,
            )
        )
    end = connection.execute(
        "SELECT number, hash FROM mark_chain WHERE tenant = ? ORDER BY number DESC LIMIT 1", (tenant,)
    ).fetchone()
    number, digest = end if end is not None else (0, NO_PREVIOUS)
    return Claims(incarnation=incarnation, writers=states, mark=number, mark_hash=digest)


def covers(mark: Mark, now: Claims) -> bool:
    """Return whether a mark was made knowing all that was accepted here, and nothing that was not.

    A view with a later claim than ours is no better than one with an earlier: then this store has forgotten it. A
    retired writer's last claim and head must be covered too: its snapshots live on, and whoever had not seen them
    would take what they rely on for dead.
    """
    view = {seen.writer: seen for seen in mark.view}
    for one in now.writers:
        seen = view.get(one.writer)
        claim, head = (seen.claim, seen.head) if seen is not None else (0, 0)
        if not (one.current or one.retired) or claim != one.claim or head < one.head:
            return False
    known = {one.writer for one in now.writers}
    return all(seen.writer in known or seen.claim == 0 for seen in mark.view)


def proven(mark: Mark, ground: Ground) -> dict[bytes, int]:
    """Return how many other providers of the tenant's hold each surplus object, as their receipts show.

    Receipts that are too old, or of a provider that does not count, count nothing.

    Raises:
        RequestRefusedError: "bad-request": a signature does not hold, or the holders are not the owner's.
    """
    if not mark.surplus:
        return {}
    charter = ground.charter
    holders = decode(Holders, verify(mark.holders, Context.HOLDERS, [charter.root.owner_key]))
    if (holders.tenant, holders.charter) != (charter.charter.tenant, charter.number):
        raise RequestRefusedError(
            "conflict", f"the holders are of charter {holders.charter}; in force is {charter.number}"
        )
    others = set(sorted_names(holders.providers, "providers")) - {ground.identity}
    found: dict[bytes, set[bytes]] = {}
    for signed in mark.receipts:
        key = signer_of(signed)
        receipt = decode(Receipt, verify(signed, Context.RECEIPT, [key]))
        age_ns = ground.now_ns - receipt.received_ns
        if receipt.tenant == mark.tenant and identity_of(key) in others and -SKEW_S * NS <= age_ns <= RECEIPT_AGE_NS:
            found.setdefault(receipt.name, set()).add(key)
    return {name: len(keys) for name, keys in found.items()}


def accept_mark(
    connection: sqlite3.Connection, mark: Mark, signed: bytes, *, ground: Ground, copies: dict[bytes, int]
) -> MarkReply:
    """Judge a mark whose signature was checked, and take it into the chain if it stands.

    ``copies`` is what :func:`proven` found. The same mark again gets the same answer.

    Raises:
        RequestRefusedError: "conflict", the charter changed since ``ground`` was read.
    """
    tenant = TenantId(mark.tenant)
    number, charter_name = connection.execute(
        "SELECT charter_number, charter_name FROM tenants WHERE id = ?", (tenant,)
    ).fetchone()
    if number != ground.charter.number:
        raise RequestRefusedError("conflict", f"charter {number} came in between; ask again")
    now = claims_now(connection, tenant, ground.charter)
    digest = signed_hash(signed)
    row = connection.execute(
        "SELECT claimed, locked, short, absent FROM mark_chain WHERE tenant = ? AND number = ? AND hash = ?",
        (tenant, mark.number, digest),
    ).fetchone()
    if row is not None:
        return _reply("stands", now, *row)
    if (mark.number, mark.previous) != (now.mark + 1, now.mark_hash):
        return _reply("wrong previous", now)
    if mark.incarnation != now.incarnation or not covers(mark, now):
        return _reply("stale", now)
    kept = kept_names(charter_name, ground.charter)
    needed = max(mark.copies, ground.charter.root.floors.minimum_copies)
    refused: dict[str, list[bytes]] = {"claimed": [], "locked": [], "short": [], "absent": []}
    taken: list[tuple[bytes, Why]] = []
    for why, run in (("dead", mark.dead), ("surplus", mark.surplus)):
        for name in names_in(run):
            held = connection.execute(
                f"SELECT received_ns, lock_until_ns, {_NEEDED.format('objects')} FROM objects "  # noqa: S608 - constant text
                "WHERE tenant = ? AND name = ?",
                (tenant, name),
            ).fetchone()
            reason = _reason(held, why == "surplus", name in kept, copies.get(name, 0) >= needed, ground.now_ns)
            if reason is not None:
                refused[reason].append(name)
            else:
                taken.append((name, "dead" if why == "dead" else "surplus"))
    stamp_ns = ground.days.stamp_ns(ground.now_ns)
    # Marked before is marked since then.
    connection.executemany(
        "INSERT INTO marks (tenant, name, why, marked_ns, marked_day) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(tenant, name, why, stamp_ns, ground.days.days) for name, why in taken],
    )
    runs = [b"".join(sorted(names)) for names in refused.values()]
    connection.execute(
        "INSERT INTO mark_chain (tenant, number, hash, signed, accepted_ns, claimed, locked, short, absent) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (tenant, mark.number, digest, signed, ground.now_ns, *runs),
    )
    return _reply("stands", claims_now(connection, tenant, ground.charter), *runs)


def _reason(
    held: tuple[int, int, int] | None, surplus: bool, kept: bool, proven_enough: bool, now_ns: int
) -> Literal["claimed", "locked", "short", "absent"] | None:
    if held is None:
        return "absent"
    received_ns, lock_until_ns, claimed = held
    if claimed:
        return "claimed"
    if kept or lock_until_ns >= ENDLESS_NS:
        return "locked"
    if surplus and (not proven_enough or now_ns - received_ns < RECEIPT_HOLD_NS):
        return "short"
    return None


def _reply(
    state: Literal["stands", "stale", "wrong previous"],
    now: Claims,
    claimed: bytes = b"",
    locked: bytes = b"",
    short: bytes = b"",
    absent: bytes = b"",
) -> MarkReply:
    return MarkReply(state=state, now=now, claimed=claimed, locked=locked, short=short, absent=absent)


def accept_fence(connection: sqlite3.Connection, fence: Fence) -> None:
    """Refuse a writer's late claims and heads from now on; a fence never goes back."""
    connection.execute(
        "INSERT INTO fences (tenant, writer, claim, head) VALUES (?, ?, ?, ?) ON CONFLICT (tenant, writer) "
        "DO UPDATE SET claim = max(claim, excluded.claim), head = max(head, excluded.head)",
        (fence.tenant, fence.writer, fence.claim, fence.head),
    )


def accept_retire(connection: sqlite3.Connection, retire: Retire, *, days: Days, now_ns: int) -> None:
    """Stop waiting for a writer. Its set is kept, for the day that it comes back; a wait for each name begins.

    Raises:
        RequestRefusedError: "conflict", it has claimed since.
    """
    keys = (retire.tenant, retire.writer)
    row = connection.execute("SELECT number, retired FROM claims WHERE tenant = ? AND writer = ?", keys).fetchone()
    number, retired = row if row is not None else (0, 0)
    if number != retire.claim:
        raise RequestRefusedError("conflict", f"its last claim here is {number}, not {retire.claim}")
    if retired:
        return
    connection.execute(
        "INSERT INTO claims (tenant, writer, number, root, claimed_ns, retired) VALUES (?, ?, 0, x'', ?, 1) "
        "ON CONFLICT (tenant, writer) DO UPDATE SET retired = 1",
        (*keys, now_ns),
    )
    names = [name for (name,) in connection.execute("SELECT name FROM claimed WHERE tenant = ? AND writer = ?", keys)]
    end_of_claim(connection, TenantId(retire.tenant), names, days=days, now_ns=now_ns)


def end_of_claim(
    connection: sqlite3.Connection, tenant: TenantId, names: Iterable[bytes], *, days: Days, now_ns: int
) -> None:
    """Begin the wait that follows a claim's end."""
    stamp_ns = days.stamp_ns(now_ns)
    connection.executemany(
        "UPDATE objects SET unclaimed_ns = ?, unclaimed_day = ? WHERE tenant = ? AND name = ?",
        [(stamp_ns, days.days, tenant, name) for name in names],
    )


def clear_marks(connection: sqlite3.Connection, tenant: TenantId, names: Iterable[bytes]) -> None:
    """Take marks off objects that somebody needs after all."""
    if connection.execute("SELECT 1 FROM marks WHERE tenant = ? LIMIT 1", (tenant,)).fetchone() is not None:
        connection.executemany("DELETE FROM marks WHERE tenant = ? AND name = ?", [(tenant, name) for name in names])


def must_claim_anew(connection: sqlite3.Connection, tenant: TenantId, writer: bytes) -> bool:
    """Return whether what a writer claimed here may be gone: it was retired, or this store was put back since.

    A store may have forgotten the claim, and that it was retired.
    """
    incarnation, lives = connection.execute("SELECT incarnation, lives FROM meta").fetchone()
    row = connection.execute(
        "SELECT retired, incarnation FROM claims WHERE tenant = ? AND writer = ?", (tenant, writer)
    ).fetchone()
    if row is None:
        return bool(lives)
    return bool(row[0]) or row[1] != incarnation


def fence_of(connection: sqlite3.Connection, tenant: TenantId, writer: bytes) -> tuple[int, int]:
    """Return up to which claim and head a writer is fenced, 0 for not."""
    row = connection.execute(
        "SELECT claim, head FROM fences WHERE tenant = ? AND writer = ?", (tenant, writer)
    ).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def keep_order(connection: sqlite3.Connection, tenant: TenantId, kind: str, signed: bytes, now_ns: int) -> None:
    """Keep a signed fence or retirement, as evidence of who said it."""
    connection.execute(
        "INSERT INTO orders (tenant, kind, signed, accepted_ns) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (tenant, kind, signed, now_ns),
    )


def marked_page(
    connection: sqlite3.Connection, tenant: TenantId, kept: frozenset[bytes], *, after: bytes, limit: int
) -> list[Marked]:
    """Return a tenant's marked objects whose names sort after one, in that order."""
    rows = connection.execute(f"{_MARKED} AND marks.name > ? ORDER BY marks.name LIMIT ?", (tenant, after, limit))
    return [_marked(row, kept) for row in rows]


def marked_sums(
    connection: sqlite3.Connection, tenant: TenantId, limits: Limits, days: Days, now_ns: int
) -> tuple[int, int, int]:
    """Return how many objects are marked, their bytes, and when the first may go at the earliest (0: none is)."""
    values = {"tenant": tenant, **earliest_values(limits, days, now_ns)}
    count, size, first_ns = connection.execute(
        f"SELECT count(*), coalesce(sum(size), 0), coalesce(min({EARLIEST}), 0) "  # noqa: S608 - constant text
        "FROM marks JOIN objects USING (tenant, name) WHERE marks.tenant = :tenant",
        values,
    ).fetchone()
    return int(count), int(size), int(first_ns)


def marked_rows(
    connection: sqlite3.Connection, tenant: TenantId, kept: frozenset[bytes], names: list[ObjectName] | None = None
) -> list[Marked]:
    """Return a tenant's marked objects by name, or those of the given names."""
    if names is None:
        rows = connection.execute(f"{_MARKED} ORDER BY marks.name", (tenant,)).fetchall()
    else:
        rows = [row for name in names for row in connection.execute(f"{_MARKED} AND marks.name = ?", (tenant, name))]
    return [_marked(row, kept) for row in rows]


def _marked(row: tuple[object, ...], kept: frozenset[bytes]) -> Marked:
    keys = (
        "name",
        "size",
        "why",
        "marked_ns",
        "marked_day",
        "received_ns",
        "received_day",
        "lock_until_ns",
        "unclaimed_ns",
        "unclaimed_day",
    )
    values = dict(zip(keys, row, strict=False))
    return Marked(**values, needed=bool(row[-1]) or row[0] in kept)  # type: ignore[arg-type]  # sqlite rows
