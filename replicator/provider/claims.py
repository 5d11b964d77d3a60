"""Claims: which objects a writer relies on here, changed in one transaction each."""

import itertools
import sqlite3
from collections.abc import Iterator

from replicator.format.claim import Claim, set_root
from replicator.format.sizes import SMALLEST
from replicator.ids import ObjectName, TenantId
from replicator.provider.audit import names_in
from replicator.provider.database import Database
from replicator.provider.days import Days
from replicator.provider.marks import clear_marks, end_of_claim, fence_of
from replicator.transport.handler import RequestRefusedError

SPARE_NAMES = 10_000
_BATCH = 1000


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
    connection: sqlite3.Connection, claim: Claim, *, quota: int, incarnation: bytes, days: Days, now_ns: int
) -> None:
    """Record a claim whose signature was checked. The same claim again changes nothing.

    Marks on what it names are gone; for what it drops, the wait after a claim begins.

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
        return
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
    before = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM claimed WHERE tenant = ? AND writer = ?", (claim.tenant, claim.writer)
        )
    }
    base: set[bytes] = before if claim.base else set()
    after = (base - set(dropped)) | set(added)
    if len(after) > quota // SMALLEST + SPARE_NAMES:
        raise RequestRefusedError("quota", f"a claim of {len(after)} objects cannot fit the quota of {quota} bytes")
    if set_root(after) != claim.root:
        if claim.base:
            raise RequestRefusedError(
                "conflict", f"claim {claim.number} gives another set than its root says; here it is {stored}"
            )
        raise RequestRefusedError("bad-request", "the root of the claim is not that of its names")
    keys = (claim.tenant, claim.writer)
    connection.executemany(
        "DELETE FROM claimed WHERE tenant = ? AND writer = ? AND name = ?", [(*keys, name) for name in before - after]
    )
    connection.executemany(
        "INSERT INTO claimed (tenant, writer, name) VALUES (?, ?, ?)", [(*keys, name) for name in after - before]
    )
    connection.execute(
        "INSERT INTO claims (tenant, writer, number, root, claimed_ns, incarnation, retired) "
        "VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT (tenant, writer) DO UPDATE SET number = excluded.number, "
        "root = excluded.root, claimed_ns = excluded.claimed_ns, incarnation = excluded.incarnation, retired = 0",
        (*keys, claim.number, claim.root, now_ns, incarnation),
    )
    tenant = TenantId(claim.tenant)
    end_of_claim(connection, tenant, before - after, days=days, now_ns=now_ns)
    # Of a change, only what it adds can be marked; unless the writer was retired, or this store was put back.
    trusted = claim.base and not retired and stored_in == incarnation
    clear_marks(connection, tenant, added if trusted else after)


def claimed_with_sizes(database: Database, tenant: TenantId, writer: bytes) -> Iterator[tuple[ObjectName, int | None]]:
    """Yield what a writer claims, by name, with the size it was received with (None: never). Read in batches."""
    after = b""
    while True:
        rows = database.rows(
            "SELECT claimed.name, objects.size FROM claimed LEFT JOIN objects USING (tenant, name) "
            "WHERE claimed.tenant = ? AND writer = ? AND claimed.name > ? ORDER BY claimed.name LIMIT ?",
            (tenant, writer, after, _BATCH),
        )
        if not rows:
            return
        for name, size in rows:
            yield ObjectName(name), size
        after = rows[-1][0]


def split_names(names: bytes) -> list[ObjectName]:
    """Return the names in a run of sorted, different names.

    Raises:
        RequestRefusedError: "bad-request", not such a run.
    """
    found = names_in(names)
    if any(one >= other for one, other in itertools.pairwise(found)):
        raise RequestRefusedError("bad-request", "names must be sorted and different")
    return found
