"""What is on the disk now, compared with what was received: inventory, proofs, checks."""

from replicator.format.merkle import Proof
from replicator.format.sizes import is_allowed
from replicator.ids import NAME_SIZE, ObjectName, TenantId
from replicator.provider.database import Database
from replicator.provider.objects import rows_after, size_of
from replicator.store.base import ObjectStore
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import Inventory


def inventory(
    database: Database, store: ObjectStore, tenant: TenantId, *, after: bytes, limit: int, incarnation: bytes
) -> Inventory:
    """Return one page, by name, of all that was received; each object is looked up on the disk.

    The rows say where to look, so that a page costs as much as it holds, however much lies beside it. A file without
    a row is no object yet: a start makes it one, if it is what it is called.
    """
    rows = rows_after(database, tenant, after, limit + 1)
    names: list[ObjectName] = []
    sizes: list[int] = []
    missing: list[ObjectName] = []
    damaged: list[ObjectName] = []
    asked = rows[:limit]
    for (name, expected), size in zip(asked, store.sizes([name for name, _ in asked]), strict=True):
        if size is None:
            # Quarantine before the row: one that is set aside, or swept, meanwhile must not look lost.
            if store.aside(name):
                damaged.append(name)
            elif store.size(name) is None and size_of(database, tenant, name) is not None:
                missing.append(name)
        elif size != expected or not is_allowed(size):
            damaged.append(name)
        else:
            names.append(name)
            sizes.append(size)
    more = len(rows) > limit
    if more and not (names or missing or damaged):  # all of them were swept meanwhile
        return inventory(database, store, tenant, after=rows[limit - 1][0], limit=limit, incarnation=incarnation)
    return Inventory(
        incarnation=incarnation,
        names=b"".join(names),
        sizes=sizes,
        missing=b"".join(missing),
        damaged=b"".join(damaged),
        more=more,
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
