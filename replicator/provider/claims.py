"""Claims: which objects a writer relies on here, changed in one transaction each."""

import bisect
import itertools
import sqlite3
from collections.abc import Callable, Sequence

from replicator.format.claim import Claim, root_of
from replicator.format.sizes import SMALLEST
from replicator.ids import NAME_SIZE, ObjectName, TenantId
from replicator.lru import Lru
from replicator.provider.audit import names_in
from replicator.provider.database import Database
from replicator.provider.days import Days
from replicator.provider.marks import clear_marks, end_of_claim, fence_of
from replicator.provider.objects import sizes_of
from replicator.transport.handler import RequestRefusedError

SPARE_NAMES = 10_000
PART = 1000
ROUND = 100
"""A change is answered after a look at what it adds and at a part of the rest: 1000 names, or a hundredth if that is
more, so that a hundred claims have looked at all of it."""


def number_of(database: Database, tenant: TenantId, writer: bytes) -> int:
    """Return the number that a writer's next claim must be above: of its last one or its fence, 0 for neither."""
    row = database.row(
        "SELECT max(coalesce((SELECT number FROM claims WHERE tenant = ?1 AND writer = ?2), 0), "
        "coalesce((SELECT claim FROM fences WHERE tenant = ?1 AND writer = ?2), 0))",
        (tenant, writer),
    )
    assert row is not None, "a maximum is always a row"
    return int(row[0])


def apply_claim(
    connection: sqlite3.Connection,
    claim: Claim,
    *,
    quota: int,
    incarnation: bytes,
    days: Days,
    now_ns: int,
    recent: Lru[bytes, bytes],
) -> bytes:
    """Record a claim whose signature was checked; return the names to look for. The same claim again changes nothing.

    Marks on what it names are gone; for what it drops, the wait after a claim begins. To look for are all names, or
    of a change those that it adds and a part of the others: what is claimed here already cannot have been swept.
    ``recent`` has sets of names, sorted and joined, by their roots, and spares the reading of as many rows.

    Raises:
        RequestRefusedError: "bad-request", "quota" (more names than could fit), or "conflict" when its base or
            number does not follow ours, or it comes after a fence or a retirement.
    """
    added, dropped = split_names(claim.added), split_names(claim.dropped)
    row = connection.execute(
        "SELECT number, root, retired, incarnation FROM claims WHERE tenant = ? AND writer = ?",
        (claim.tenant, claim.writer),
    ).fetchone()
    stored, stored_root, retired, stored_in = row if row is not None else (0, b"", 0, b"")
    if row is not None and claim.number == stored and claim.root == stored_root and not retired:
        connection.execute(
            "UPDATE claims SET incarnation = ? WHERE tenant = ? AND writer = ?",
            (incarnation, claim.tenant, claim.writer),
        )
        return _claimed(connection, claim, stored_root, recent)
    fenced, _ = fence_of(connection, TenantId(claim.tenant), claim.writer)
    if stored < claim.number <= fenced:
        raise RequestRefusedError(
            "conflict", f"claim {claim.number} comes too late: up to {fenced} they are fenced off"
        )
    if claim.number <= stored:
        raise RequestRefusedError("conflict", f"claim {claim.number} does not follow claim {stored}, the last one here")
    if claim.base not in {0, stored}:
        raise RequestRefusedError("conflict", f"claim {claim.number} changes claim {claim.base}; here it is {stored}")
    if claim.base == 0 and dropped:
        raise RequestRefusedError("bad-request", "a claim from nothing cannot drop")
    before = _claimed(connection, claim, stored_root, recent)
    after, fresh, gone = _changed(before, added, dropped) if claim.base else _replaced(before, claim.added)
    count = len(after) // NAME_SIZE
    if count > quota // SMALLEST + SPARE_NAMES:
        raise RequestRefusedError("quota", f"a claim of {count} objects cannot fit the quota of {quota} bytes")
    if root_of(after) != claim.root:
        if claim.base:
            raise RequestRefusedError(
                "conflict", f"claim {claim.number} gives another set than its root says; here it is {stored}"
            )
        raise RequestRefusedError("bad-request", "the root of the claim is not that of its names")
    keys = (claim.tenant, claim.writer)
    connection.executemany(
        "DELETE FROM claimed WHERE tenant = ? AND writer = ? AND name = ?", [(*keys, name) for name in gone]
    )
    connection.executemany(
        "INSERT INTO claimed (tenant, writer, name) VALUES (?, ?, ?)", [(*keys, name) for name in fresh]
    )
    connection.execute(
        "INSERT INTO claims (tenant, writer, number, root, claimed_ns, incarnation, retired) "
        "VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (tenant, writer) DO UPDATE SET number = excluded.number, "
        "root = excluded.root, claimed_ns = excluded.claimed_ns, incarnation = excluded.incarnation, retired = 0",
        (*keys, claim.number, claim.root, now_ns, incarnation),
    )
    tenant = TenantId(claim.tenant)
    end_of_claim(connection, tenant, gone, days=days, now_ns=now_ns)
    # Of a change, only what it adds can be marked; unless the writer was retired, or this store was put back.
    trusted = claim.base and not retired and stored_in == incarnation
    clear_marks(connection, tenant, added if trusted else names_in(after))
    recent.put(claim.root, after, len(after))
    return b"".join(sorted({*added, *names_in(part_of(after, claim.number))})) if trusted else after


def part_of(names: bytes, number: int) -> bytes:
    """Return the part of a writer's names, sorted and joined, that its claim of this number looks at again."""
    count = len(names) // NAME_SIZE
    parts = max(1, min(ROUND, count // PART))
    turn = number % parts
    return names[turn * count // parts * NAME_SIZE : (turn + 1) * count // parts * NAME_SIZE]


def _claimed(connection: sqlite3.Connection, claim: Claim, root: bytes, recent: Lru[bytes, bytes]) -> bytes:
    """Return what the writer claims here now, whose root this is, sorted and joined."""
    known = recent.get(root)
    if known is not None:
        return known
    rows = connection.execute(
        "SELECT name FROM claimed WHERE tenant = ? AND writer = ? ORDER BY name", (claim.tenant, claim.writer)
    )
    return b"".join([name for (name,) in rows])


def _changed(
    before: bytes, added: list[ObjectName], dropped: list[ObjectName]
) -> tuple[bytes, list[ObjectName], list[ObjectName]]:
    """Return the set after a change, and what is new and gone; all sorted, as these are."""
    fresh = [name for name in added if _name_at(before, _place(before, name)) != name]
    kept = set(added)
    gone = [name for name in dropped if name not in kept and _name_at(before, _place(before, name)) == name]
    pieces, done = [], 0
    for name in sorted([*fresh, *gone]):
        place = _place(before, name)
        pieces.append(before[done:place])
        here = _name_at(before, place) == name
        pieces.append(b"" if here else name)
        done = place + NAME_SIZE * here
    return b"".join((*pieces, before[done:])), fresh, gone


def _replaced(before: bytes, after: bytes) -> tuple[bytes, list[ObjectName], list[ObjectName]]:
    old, new = set(names_in(before)), set(names_in(after))
    return after, sorted(new - old), sorted(old - new)


def _place(names: bytes, name: ObjectName) -> int:
    """Return the offset in sorted, joined names at which a name is, or belongs."""
    places = range(0, len(names), NAME_SIZE)
    return bisect.bisect_left(places, name, key=lambda at: _name_at(names, at)) * NAME_SIZE


def _name_at(names: bytes, at: int) -> ObjectName:
    return ObjectName(names[at : at + NAME_SIZE])


def lacking(
    database: Database,
    tenant: TenantId,
    names: bytes,
    sizes_on_disk: Callable[[Sequence[ObjectName]], Sequence[int | None]],
) -> list[ObjectName]:
    """Return which of these were never received here, or do not lie on the disk in the size they had then."""
    found = []
    for at in range(0, len(names), PART * NAME_SIZE):  # the lock is for others too
        part = names_in(names[at : at + PART * NAME_SIZE])
        expected = database.read(lambda connection, part=part: sizes_of(connection, tenant, part))  # type: ignore[misc]
        received = [name for name, size in zip(part, expected, strict=True) if size is not None]
        there = dict(zip(received, sizes_on_disk(received), strict=True))
        found += [name for name, size in zip(part, expected, strict=True) if size is None or there[name] != size]
    return found


def split_names(names: bytes) -> list[ObjectName]:
    """Return the names in a run of sorted, different names.

    Raises:
        RequestRefusedError: "bad-request", not such a run.
    """
    found = names_in(names)
    if any(one >= other for one, other in itertools.pairwise(found)):
        raise RequestRefusedError("bad-request", "names must be sorted and different")
    return found
