"""Rows of what was swept: once no provider has an object that nobody waits for, its home need not know it either.

Only what a kept snapshot or a Forget still names keeps its row, so that every home goes on calling it gone and not
lost. What is dropped is learned from no chain again; should a provider come up with it all the same, it is one of the
objects that nothing names (:mod:`.unnamed`).
"""

from replicator.engine.dismissed import dismissed
from replicator.engine.home import Half
from replicator.ids import Identity

_PACKS, _RECORDS = ("data", "tree"), ("snapshot", "index", "references")


def drop_swept(half: Half) -> int:
    """Drop the rows of objects that nobody waits for and that every peer is known not to have; return how many.

    The caller holds the home's lock. What peers have is what they listed last: one that has not been asked since it
    deleted keeps the rows here.
    """
    unneeded = dismissed(half)
    if not unneeded:
        return 0
    objects = half.catalog.objects
    peers = {Identity(pin.identity) for pin in half.peers}
    holdings = objects.holdings()
    asked = {one.object_id for one in holdings if one.peer in peers}
    lying = {one.object_id for one in holdings if one.peer in peers and one.state in {"held", "released", "damaged"}}
    lying |= set().union(*(objects.claimed(peer) for peer in peers))
    # A pack that is cut goes with all its shards: as long as one lies somewhere, all are known.
    shards_of = {pack: {one.id for one in found.rows} for pack, found in objects.shards_in(unneeded).items()}
    asked |= {pack for pack, shards in shards_of.items() if shards & asked}
    lying |= {pack for pack, shards in shards_of.items() if shards & lying}
    parts = set().union(*shards_of.values())
    rows = {row.id: row for row in objects.all("NOT spooled") if row.id in unneeded - parts}
    gone = {
        row.id
        for row in rows.values()
        if row.id in asked - lying
        and (row.kind in _RECORDS or (row.kind in _PACKS and (row.index_id is None or row.index_id in rows)))
    }
    # An index stays as long as one of its packs does: without it nobody could tell which pack that is.
    stay = {row.index_id for row in objects.all("index_id IS NOT NULL") if row.id not in gone}
    stay |= {index for pack, indexes in objects.listings().items() if pack not in gone for index in indexes}
    gone -= {row_id for row_id in gone if row_id in stay}
    objects.forget(sorted(gone))
    return len(gone)
