"""Claims: which objects a writer relies on here, changed in one transaction each."""

import itertools
import sqlite3
from collections.abc import Iterator

from replicator.format.claim import Claim, set_root
from replicator.format.sizes import SMALLEST
from replicator.ids import ObjectName, TenantId
from replicator.provider.audit import names_in
from replicator.provider.database import Database
from replicator.transport.handler import RequestRefusedError

SPARE_NAMES = 10_000
_BATCH = 1000


def number_of(database: Database, tenant: TenantId, writer: bytes) -> int:
    """Return the number of a writer's last claim, 0 for none."""
    row = database.row("SELECT number FROM claims WHERE tenant = ? AND writer = ?", (tenant, writer))
    return 0 if row is None else int(row[0])


def apply_claim(connection: sqlite3.Connection, claim: Claim, *, quota: int, now_ns: int) -> None:
    """Record a claim whose signature was checked. The same claim again changes nothing.

    Raises:
        RequestRefusedError: "bad-request", "quota" (more names than could fit), or "conflict" when its base or
            number does not follow ours.
    """
    added, dropped = split_names(claim.added), split_names(claim.dropped)
    row = connection.execute(
        "SELECT number, root FROM claims WHERE tenant = ? AND writer = ?", (claim.tenant, claim.writer)
    ).fetchone()
    stored, stored_root = row if row is not None else (0, b"")
    if row is not None and claim.number == stored and claim.root == stored_root:
        return
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
        "INSERT INTO claims (tenant, writer, number, root, claimed_ns) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (tenant, writer) DO UPDATE SET number = excluded.number, root = excluded.root, "
        "claimed_ns = excluded.claimed_ns",
        (*keys, claim.number, claim.root, now_ns),
    )


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
