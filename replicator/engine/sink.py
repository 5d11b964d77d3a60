"""Where captured chunks go: identified, recognised, compressed, packed, spooled."""

from collections.abc import Callable, Mapping, Sequence

from chunker import ChunkHasher, Compressor
from replicator.catalog.objects import ObjectKind, Objects
from replicator.catalog.seen import SeenChunks
from replicator.engine.spool import Spool
from replicator.format.container import Kind
from replicator.format.pack import CHUNK_DATA
from replicator.format.policy import Policy, at_least_as_strong, policy_id
from replicator.format.snapshot import ChunkRef
from replicator.pack.keys import DomainKeys
from replicator.pack.packer import Packer, SealedPack
from replicator.rng import Rng

_KINDS: Mapping[Kind, ObjectKind] = {Kind.DATA_PACK: "data", Kind.TREE_PACK: "tree"}


class PackingSink:
    """The :class:`~replicator.snapshot.sink.ChunkSink` of a backup. For one thread.

    A chunk counts as seen only in a pack of this writer whose policy is at least as strong as this dataset's: an
    index of another writer may name chunks that its packs do not hold.
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
        writer: bytes,
        rng: Rng,
        now_ns: int,
        emitted: Callable[[int, int], None],
    ) -> None:
        self._hashers: dict[int, ChunkHasher] = keys.hashers()
        self._policy_id = policy_id(policy)
        self._objects = objects
        self._seen_chunks = seen
        self._spool = spool
        self._writer = writer
        self._now_ns = now_ns
        self._emitted = emitted
        self._compressor = Compressor()
        strong = {key for key, other in policies.items() if at_least_as_strong(other, policy)} - {self._policy_id}
        self._policies = [self._policy_id, *sorted(strong)]
        self._good_enough = {
            row.id
            for row in objects.all("kind IN ('data', 'tree') AND writer = ? AND NOT lost", (writer,))
            if row.policy in self._policies
            # One that waits for a stronger promise would make this dataset wait for it too.
            and (row.policy == self._policy_id or not row.spooled)
        }
        self._packers = {
            kind: Packer(kind, self._policy_id, keys, rng, self._spool_pack)
            for kind in (Kind.DATA_PACK, Kind.TREE_PACK)
        }
        self._fresh: set[bytes] = set()
        self.ids: set[bytes] = set()
        self.packs: set[int] = set()
        self.new_packs: list[int] = []
        self.new_chunks = 0
        self.new_bytes = 0
        self.stored_bytes = 0

    def put(self, kind: int, data: bytes | memoryview) -> ChunkRef:
        """Identify a chunk and pack it unless it is stored already."""
        chunk = self._hashers[kind](data)
        ref = ChunkRef(id=chunk, length=len(data))
        if chunk in self.ids:
            return ref
        if not self._seen([chunk]):
            encoding, stored = self._compressor.compress(data)
            packer = self._packers[Kind.DATA_PACK if kind == CHUNK_DATA else Kind.TREE_PACK]
            packer.add(chunk, kind, int(encoding), len(data), bytes(stored))
            self._fresh.add(chunk)
            self.new_chunks += 1
            self.new_bytes += len(data)
        self.ids.add(chunk)
        return ref

    def known(self, chunks: Sequence[ChunkRef]) -> bool:
        """Return whether all of these are stored or on their way; if so the snapshot relies on them."""
        ids = [ref.id for ref in chunks]
        wanted = [chunk for chunk in ids if chunk not in self.ids]
        if wanted and not self._seen(wanted):
            return False
        self.ids.update(wanted)
        return True

    def finish(self) -> None:
        """Seal what is open."""
        for packer in self._packers.values():
            packer.flush()

    def _seen(self, ids: Sequence[bytes]) -> bool:
        packs = set[int]()
        asked = [chunk for chunk in ids if chunk not in self._fresh]
        for pack in self._seen_chunks.lookup(asked, self._policies, self._good_enough):
            if pack is None:
                return False
            packs.add(pack)
        self.packs |= packs
        return True

    def _spool_pack(self, pack: SealedPack) -> None:
        self._spool.wait_for_room(len(pack.data))
        self._spool.put(pack.name, pack.data)
        row = self._objects.add(
            name=pack.name,
            writer=self._writer,
            kind=_KINDS[pack.kind],
            size=len(pack.data),
            policy=pack.policy,
            spooled=True,
            created_ns=self._now_ns,
            chunk_ids=b"".join(pack.ids),
        )
        self._seen_chunks.add(row, pack.policy)
        self._good_enough.add(row)
        self.new_packs.append(row)
        self.stored_bytes += len(pack.data)
        self._emitted(row, len(pack.data))
