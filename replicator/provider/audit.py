"""What is on the disk now, compared with what was received: inventory, proofs, checks."""

import bisect

from replicator.format.merkle import Proof
from replicator.format.sizes import is_allowed
from replicator.ids import NAME_SIZE, ObjectName, TenantId
from replicator.provider.database import Database
from replicator.provider.objects import rows_after
from replicator.store.base import ObjectStore
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import Inventory


def inventory(
    database: Database, store: ObjectStore, tenant: TenantId, *, after: bytes, limit: int, incarnation: bytes
) -> Inventory:
    """Return one page, by name, of all that lies there or should.

    A page covers ``limit`` names of both kinds together, so that a disk that lost everything is paged too.
    """
    # Rows before quarantine before the disk: an object that is stored meanwhile must not look lost.
    expected = dict(rows_after(database, tenant, after, limit + 1))
    aside = store.quarantined()
    listing = store.list()
    start = bisect.bisect_right(listing, after, key=lambda entry: entry[0])
    found = dict(listing[start : start + limit + 1])
    page = sorted(expected.keys() | found.keys())
    names: list[ObjectName] = []
    missing: list[ObjectName] = []
    damaged: list[ObjectName] = []
    for name in page[:limit]:
        size = found.get(name)
        if size is None:
            (damaged if name in aside else missing).append(name)
        elif size != expected.get(name, size) or not is_allowed(size):
            damaged.append(name)
        else:
            names.append(name)
    return Inventory(
        incarnation=incarnation,
        names=b"".join(names),
        sizes=[found[name] for name in names],
        missing=b"".join(missing),
        damaged=b"".join(damaged),
        more=len(page) > limit,
    )


def prove_all(store: ObjectStore, names: list[ObjectName], leaves: list[int]) -> list[Proof | None]:
    """Return a proof for each pair; an object is read once, however many of its leaves are asked for."""
    wanted: dict[ObjectName, list[int]] = {}
    for at, name in enumerate(names):
        wanted.setdefault(name, []).append(at)
    proofs: list[Proof | None] = [None] * len(names)
    for name, places in wanted.items():
        found = store.prove(name, [leaves[at] for at in places])
        for at, proof in zip(places, found, strict=True):
            proofs[at] = proof
    return proofs


def names_in(run: bytes) -> list[ObjectName]:
    """Return the names in a run of 32 bytes each, in its order.

    Raises:
        RequestRefusedError: "bad-request", not that.
    """
    if len(run) % NAME_SIZE:
        raise RequestRefusedError("bad-request", "names are 32 bytes each")
    return [ObjectName(run[at : at + NAME_SIZE]) for at in range(0, len(run), NAME_SIZE)]
