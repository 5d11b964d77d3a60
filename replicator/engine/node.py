"""The node half: writes snapshots, holds a write key, can read nothing older."""

import os

from replicator.catalog.seen import SeenChunks
from replicator.engine.home import Half
from replicator.engine.spool import Spool
from replicator.fs import Fs
from replicator.rng import Rng


class NodeHome(Half):
    """One node of a tenant. ``spool_path`` and ``cache_path`` may lie on other disks than the home."""

    def __init__(self, home: str, fs: Fs, *, spool_path: str | None = None, cache_path: str | None = None) -> None:
        super().__init__(home, "node", fs)
        self.spool_path = spool_path or self.file("spool")
        self.cache_path = cache_path or self.file("cache")

    def spool(self, limit: int | None = None) -> Spool:
        """Open the spool, removing what an interrupted run left half-written there."""
        self.fs.makedirs(self.spool_path)
        spool = Spool(self.spool_path, self.fs, limit)
        self._settle(spool)
        known = {row.name for row in self.catalog.objects.all("spooled")}
        for name in spool.names():
            if name not in known:
                # Sealed, and the run ended before its row: nothing refers to it and its chunks are read again.
                spool.drop(name)
        return spool

    def _settle(self, spool: Spool) -> None:
        """Make durable what an interrupted run wrote and did not sync, and forget what a power cut took of it.

        No snapshot relies on it yet, and no index names it.
        """
        objects = self.catalog.objects
        rows = objects.unsynced()
        whole = {row.id: row.name for row in rows if spool.has(row.name)}
        if whole:
            spool.sync(list(whole.values()))
            objects.set_synced(whole)
        for row in rows:
            if row.id in whole:
                continue
            spool.drop(row.name)
            if row.kind == "shard" or objects.holdings_of(row.id):
                objects.unspool(row.id)
            else:
                objects.forget([row.id])
        lacking = objects.packs_of({row.id for row in rows if row.kind == "shard" and row.id not in whole})
        for pack in lacking:
            self._settle_shards(spool, pack)

    def _settle_shards(self, spool: Spool, pack: int) -> None:
        """Forget a pack of which too few shards are left, here and at peers together."""
        objects = self.catalog.objects
        shards = objects.shards("s.pack_id = ?", (pack,))[pack]
        if sum(spool.has(row.name) or bool(objects.holdings_of(row.id)) for row in shards.rows) < shards.needed:
            objects.forget([pack])
            for row in shards.rows:
                spool.drop(row.name)

    def seen(self, rng: Rng) -> SeenChunks:
        """Open what this node has stored already, chunk by chunk; its loss costs time, never data."""
        folder = os.path.join(self.cache_path, "seen")
        return SeenChunks(self.catalog, folder, self.fs, writer=self.identity, rng=rng)

    def cache_file(self, *names: str) -> str:
        """Return the path of a cache file, whose folder is made; its loss costs time, never data."""
        path = os.path.join(self.cache_path, *names)
        self.fs.makedirs(os.path.dirname(path))
        return path
