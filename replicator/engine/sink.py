"""Where captured chunks go: identified, recognised, compressed, packed, spooled.

Nothing here grows with the repository: which chunks are stored is asked of the seen-index, in batches, and which ones
a snapshot needs is collected on disk. What an unchanged file or directory relies on is believed while the capture runs,
and all of it is looked up once, in order, at its end (:meth:`PackingSink.settle`): a look-up in a sorted batch costs a
tenth of one by itself, and a snapshot is not written before the answer.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from chunker import ChunkHasher, Compressor
from replicator.catalog.objects import ObjectKind, Objects, split_ids
from replicator.catalog.seen import SeenChunks
from replicator.engine.idfile import IdCollector, IdFile
from replicator.engine.spool import Spool
from replicator.format.container import Kind
from replicator.format.pack import CHUNK_DATA
from replicator.format.policy import Policy, at_least_as_strong, policy_id
from replicator.format.sizes import LARGEST, shard_size
from replicator.format.snapshot import ChunkRef
from replicator.ids import ObjectName
from replicator.pack.keys import DomainKeys
from replicator.pack.packer import Packer, SealedPack
from replicator.pack.shards import stored_as
from replicator.rng import Rng

_KINDS: Mapping[Kind, ObjectKind] = {Kind.DATA_PACK: "data", Kind.TREE_PACK: "tree"}
HELD_BYTES = 1 << 20
HELD_CHUNKS = 512
"""Chunks of trees wait for one another, so that they are looked up together."""
MOST_MISSING = 200_000
"""Missing chunks named one by one; of more it is only known that there are more."""


class PackingSink:
    """The :class:`~replicator.snapshot.sink.ChunkSink` of a backup, and what its reading processes ask.

    For one thread. A chunk counts as seen only in a pack of this writer whose policy is at least as strong as this
    dataset's: an index of another writer may name chunks that its packs do not hold.
    """

    def __init__(
        self,
        *,
        keys: DomainKeys,
        policy: Policy,
        policies: Mapping[bytes, Policy],
        objects: Objects,
        seen: SeenChunks,
        spool: Spool,
        needed: Callable[[], IdCollector],
        writer: bytes,
        rng: Rng,
        now_ns: int,
        emitted: Callable[[int, int], None],
        avoided: Collection[int] = (),
    ) -> None:
        """``needed`` makes what collects the ids that the snapshot needs; ``avoided`` packs are not relied on."""
        self._hashers: dict[int, ChunkHasher] = keys.hashers()
        self._policy_id = policy_id(policy)
        self._coding = policy.coding
        self._objects = objects
        self._seen = seen
        self._spool = spool
        self._writer = writer
        self._now_ns = now_ns
        self._emitted = emitted
        self._compressor = Compressor()
        strong = {key for key, other in policies.items() if at_least_as_strong(other, policy)} - {self._policy_id}
        self._policies = [self._policy_id, *sorted(strong)]
        # One that waits for a stronger promise would make this dataset wait for it too.
        self._good_enough = objects.usable_packs(writer, self._policy_id) | objects.usable_packs(
            writer, *sorted(strong), sent=True
        )
        self._good_enough -= set(avoided)
        self._packers = {
            kind: Packer(kind, self._policy_id, keys, rng, self._spool_pack)
            for kind in (Kind.DATA_PACK, Kind.TREE_PACK)
        }
        self._collector = needed
        self._needed = needed()
        self._held: list[tuple[bytes, int, bytes]] = []
        self._held_bytes = 0
        self._on_their_way: set[bytes] = set()
        self._distrusted: frozenset[bytes] = frozenset()
        self.packs: set[int] = set()
        self.new_packs: list[int] = []
        self.new_chunks = 0
        self.new_bytes = 0
        self.stored_bytes = 0

    # what the capture does

    def put(self, kind: int, data: bytes | memoryview) -> ChunkRef:
        """Identify a chunk; pack it, now or a little later, unless it is stored already."""
        chunk = self._hashers[kind](data)
        self._needed.add(chunk)
        self._held.append((chunk, kind, bytes(data)))
        self._held_bytes += len(data)
        if self._held_bytes >= HELD_BYTES or len(self._held) >= HELD_CHUNKS:
            self._settle_held()
        return ChunkRef(id=chunk, length=len(data))

    def known(self, chunks: Sequence[ChunkRef]) -> bool:
        """Return whether all of these may be relied on: they are, unless an earlier :meth:`settle` missed one."""
        if self._distrusted and not self._distrusted.isdisjoint([ref.id for ref in chunks]):
            return False
        self._needed.add(b"".join([ref.id for ref in chunks]))
        return True

    # what reading processes ask

    def wanted(self, ids: bytes, lengths: Sequence[int]) -> bytes:
        """Return for each chunk 1 if it is to be stored now, else 0; it counts as on its way from then on.

        Raises:
            SpaceError: the spool is full, and nobody empties it.
        """
        self._needed.add(ids)
        chunks = split_ids(ids)
        new = self._new(chunks)
        answer = bytearray(len(chunks))
        for place in new:
            answer[place] = 1
            self.new_bytes += lengths[place]
        if new:
            self._spool.wait_for_room(min(LARGEST, self._spool.limit))
        return bytes(answer)

    def sealed(self, name: bytes, size: int, ids: bytes, shards: bytes = b"") -> None:
        """Take note of a pack of wanted chunks that lies in the spool, as ``shards`` if it was cut."""
        names = split_ids(shards)
        self._spool.came(len(names) * self._shard_size(size) if names else size)
        self._note(ObjectName(name), size, Kind.DATA_PACK, self._policy_id, ids, names)

    # the end

    def finish(self) -> None:
        """Seal what is open."""
        self._settle_held()
        for packer in self._packers.values():
            packer.flush()

    def settle(self) -> tuple[IdFile, list[bytes]]:
        """Return all ids that the snapshot needs, and those of them that are stored nowhere, for all anyone knows.

        None should be. Where some are (a lost pack, a stronger policy), the capture is to be done again after
        :meth:`again`. Of many, only the first :data:`MOST_MISSING` + 1 are returned.
        """
        assert not self._on_their_way, "finished"
        needed = self._needed.finish()
        missing: list[bytes] = []
        for block in needed.blocks():
            ids = split_ids(block)
            for chunk, pack in zip(ids, self._seen.lookup(ids, self._policies, self._good_enough), strict=True):
                if pack is not None:
                    self.packs.add(pack)
                elif len(missing) <= MOST_MISSING:
                    missing.append(chunk)
        return needed, missing

    def again(self, distrusted: Sequence[bytes]) -> None:
        """Begin again with what a snapshot needs; nothing that holds one of these chunks is taken to be known.

        If there are more than :data:`MOST_MISSING`, the capture is to be done without anything that is known.
        """
        self._needed.close()
        self._needed = self._collector()
        self._distrusted = frozenset(distrusted)
        self.packs = set()

    def close(self) -> None:
        """Remove the files of what was collected; idempotent."""
        self._needed.close()

    def _settle_held(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        for place in self._new([chunk for chunk, _, _ in held]):
            chunk, kind, data = held[place]
            encoding, stored = self._compressor.compress(data)
            packer = self._packers[Kind.DATA_PACK if kind == CHUNK_DATA else Kind.TREE_PACK]
            packer.add(chunk, kind, int(encoding), len(data), stored)
            self.new_bytes += len(data)

    def _new(self, chunks: list[bytes]) -> list[int]:
        """Return the places of the chunks that are neither stored nor on their way; from now on they are."""
        unknown: dict[bytes, int] = {}
        for place, chunk in enumerate(chunks):
            if chunk not in self._on_their_way:
                unknown.setdefault(chunk, place)
        asked = list(unknown)
        found = self._seen.lookup(asked, self._policies, self._good_enough) if asked else []
        new = [unknown[chunk] for chunk, pack in zip(asked, found, strict=True) if pack is None]
        self._on_their_way.update(chunks[place] for place in new)
        self.new_chunks += len(new)
        return new

    def _spool_pack(self, pack: SealedPack) -> None:
        parts = stored_as(pack.name, pack.data, self._coding if pack.kind is Kind.DATA_PACK else None)
        self._spool.wait_for_room(sum(len(data) for _, data in parts))
        for name, data in parts:
            self._spool.put(name, data, durable=False)
        shards = [name for name, _ in parts] if len(parts) > 1 else []
        self._note(pack.name, len(pack.data), pack.kind, pack.policy, b"".join(pack.ids), shards)

    def _shard_size(self, size: int) -> int:
        assert self._coding is not None, "nothing is cut without"
        return shard_size(size, self._coding[0])

    def _note(
        self, name: ObjectName, size: int, kind: Kind, policy: bytes, ids: bytes, shards: Sequence[bytes]
    ) -> None:
        row = self._objects.add(
            name=name,
            writer=self._writer,
            kind=_KINDS[kind],
            size=size,
            policy=policy,
            spooled=True,
            created_ns=self._now_ns,
            chunk_ids=ids,
            shards=shards,
            needed=self._coding[0] if shards and self._coding else 0,
            synced=False,
        )
        self._seen.add(row, policy)
        self._good_enough.add(row)
        self._on_their_way.difference_update(split_ids(ids))
        self.new_packs.append(row)
        self.stored_bytes += size
        self._emitted(row, size)
