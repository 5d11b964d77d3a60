"""Putting needed chunks of packs that are mostly unneeded into new packs, and storing those, with index keys alone.

    old packs are fetched, their needed segments copied as they are  ->  new packs reach the copies they promise
    ->  their index reaches every provider  ->  the caller claims both and says so in a Forget

Stopped before that Forget, all of it is something that nothing names, and goes as the next prune finds it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Final

from replicator.catalog.objects import ObjectRow, split_ids
from replicator.config import counted
from replicator.crypto.sign import Context, SigningKey
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.home import Half
from replicator.engine.placing import Ground
from replicator.engine.prune import Look
from replicator.engine.pruneplan import PackUse, RepackGroup, needed_among
from replicator.engine.send import Sender
from replicator.engine.spool import Spool
from replicator.engine.sync import take_index
from replicator.errors import FormatError, IntegrityError, NotFoundError
from replicator.format.codec import encode
from replicator.format.container import Kind
from replicator.format.forget import MovedPacks
from replicator.format.index import Index, IndexedPack
from replicator.format.merkle import name_of
from replicator.ids import ObjectName, short
from replicator.pack.packer import SealedPack
from replicator.pack.repack import Repacker
from replicator.pack.sealed import seal_object
from replicator.pack.shards import stored_as

BATCH_BYTES: Final = 256 << 20
"""Of old packs that go into new ones, and into one index, together."""
MOST_BYTES: Final = 8 << 30
"""Of old packs that are fetched in one run: the rest is for the next."""
_KINDS: Final = {"data": Kind.DATA_PACK, "tree": Kind.TREE_PACK}


class Repacking:
    """One run's work of this kind."""

    def __init__(self, half: Half, federation: Federation, edge: Edge, key: SigningKey, found: Look) -> None:
        self._half = half
        self._federation = federation
        self._edge = edge
        self._key = key
        self._found = found
        half.fs.makedirs(half.file("spool"))
        self._spool = Spool(half.file("spool"), half.fs)

    async def carry_out(self) -> list[MovedPacks]:
        """Make and store new packs; return what took whose place. What cannot be done now is told and left."""
        self._tidy()
        made: list[MovedPacks] = []
        for group, batch in _batches(self._found.plan.groups):
            try:
                moved = await self._batch(group, batch)
            except (NotFoundError, IntegrityError, FormatError) as error:
                self._federation.notices.append(
                    f"{counted(len(batch), 'pack is', 'packs are')} not put together anew: {error}"
                )
                continue
            finally:
                self._tidy()
            if moved is not None:
                made.append(moved)
        return made

    def _tidy(self) -> None:
        """Let go of what lies in the spool, and of rows of what no provider ever got."""
        self._half.catalog.objects.settle_spooled()
        for name in self._spool.names():
            self._spool.drop(name)

    async def _batch(self, group: RepackGroup, batch: Sequence[PackUse]) -> MovedPacks | None:
        facts = group.packs[0].facts
        objects = self._half.catalog.objects
        keys = self._half.keys(facts.domain)
        ids = {use.facts.name: objects.chunk_ids(use.facts.number) for use in batch}
        needed = needed_among(self._found.kept, self._found.changes, facts.domain, b"".join(ids.values()))
        needed -= self._moved_before(group, ids)
        made: list[SealedPack] = []

        coding = self._half.catalog.datasets.policies()[facts.policy].coding if facts.kind == "data" else None

        def emit(pack: SealedPack) -> None:
            parts = stored_as(pack.name, pack.data, coding)
            for name, data in parts:
                # Not synced: nothing relies on it before providers have it, and a run that was stopped makes it anew.
                self._spool.put(name, data, durable=False)
            shards[pack.name] = [name for name, _ in parts] if len(parts) > 1 else []
            made.append(SealedPack(name=pack.name, data=b"", kind=pack.kind, policy=pack.policy, ids=pack.ids))
            sizes[pack.name] = len(pack.data)

        sizes: dict[bytes, int] = {}
        shards: dict[bytes, list[bytes]] = {}
        repacker = Repacker(_KINDS[facts.kind], facts.policy, keys, self._edge.rng, emit)
        left = set(needed)
        async with contextlib.aclosing(self._fetched(batch)) as packs:
            async for use, data in packs:
                live = left.intersection(split_ids(ids[use.facts.name]))
                await asyncio.to_thread(repacker.add, data, live)
                left -= live
        await asyncio.to_thread(repacker.flush)
        if sum(sizes.values()) >= sum(use.facts.size for use in batch):
            return None  # padding took what was gained
        return await self._store(group, batch, made, sizes, shards)

    async def _fetched(self, batch: Sequence[PackUse]) -> AsyncGenerator[tuple[PackUse, bytes], None]:
        """Yield packs with their bytes; while one is worked on the next is fetched."""
        names = [ObjectName(use.facts.name) for use in batch]
        coming = asyncio.ensure_future(self._federation.fetch(names[0], ()))
        try:
            for use, following in zip(batch, [*names[1:], None], strict=True):
                data = await coming
                if following is not None:
                    coming = asyncio.ensure_future(self._federation.fetch(following, ()))
                yield use, data
        finally:
            coming.cancel()

    def _moved_before(self, group: RepackGroup, ids: Mapping[bytes, bytes]) -> set[bytes]:
        """Return the chunks that packs which were put together anew before hold already."""
        facts = group.packs[0].facts
        asked = {chunk for joined in ids.values() for chunk in split_ids(joined)}
        found: set[bytes] = set()
        for one in self._found.packs.values():
            same = (one.writer, one.domain, one.kind, one.policy) == (
                facts.writer,
                facts.domain,
                facts.kind,
                facts.policy,
            )
            if one.moved and same:
                found |= asked.intersection(split_ids(self._half.catalog.objects.chunk_ids(one.number)))
        return found

    async def _store(
        self,
        group: RepackGroup,
        batch: Sequence[PackUse],
        made: Sequence[SealedPack],
        sizes: Mapping[bytes, int],
        shards: Mapping[bytes, list[bytes]],
    ) -> MovedPacks | None:
        """Bring new packs and their index to the copies that they promise; None if they do not reach the minimum."""
        facts = group.packs[0].facts
        catalog, now = self._half.catalog, self._edge.clock.now_ns()
        policy = catalog.datasets.policies()[facts.policy]
        index = Index(
            tenant=self._half.tenant,
            domain=facts.domain,
            writer=self._key.identity,
            created_ns=now,
            policies=[policy],
            packs=[
                IndexedPack(
                    name=pack.name,
                    size=sizes[pack.name],
                    kind=int(pack.kind),
                    policy=pack.policy,
                    shards=shards[pack.name],
                    ids=b"".join(pack.ids),
                )
                for pack in made
            ],
        )
        keys = self._half.keys(facts.domain)
        data = seal_object(Kind.INDEX, self._key.sign(Context.INDEX, encode(index)), keys, self._edge.rng)
        name = name_of(data)
        self._spool.put(name, data)
        with catalog.database.transaction("repacked rows"):
            take_index(self._half, name, index, len(data), facts.writer)
            rows = [self._spooled(one) for one in (name, *(pack.name for pack in made))]
        ground = Ground(self._half, self._federation)
        ground.refresh()
        sender = Sender(ground, self._edge, self._spool)
        plan = await sender.settle(rows[1:], "storing what was put together anew")
        await sender.everywhere(rows[:1], policy)
        if plan.refused or ground.copies(name, policy) < policy.minimum:
            self._federation.notices.append(
                f"{counted(len(batch), 'pack stays as it is', 'packs stay as they are')}: "
                "too few providers take what was put together anew"
            )
            return None
        packs = b"".join(sorted(use.facts.name for use in batch))
        return MovedPacks(writer=facts.writer, index=name, packs=packs)

    def _spooled(self, name: ObjectName) -> ObjectRow:
        objects = self._half.catalog.objects
        row = objects.by_name(name)
        assert row is not None, f"{short(name)} was just taken in"
        shards = objects.shards_of(row)
        objects.add(
            name=row.name,
            writer=row.writer,
            kind=row.kind,
            size=row.size,
            policy=row.policy,
            spooled=True,
            created_ns=row.created_ns,
            shards=[] if shards is None else [one.name for one in shards.rows],
            needed=0 if shards is None else shards.needed,
            synced=False,
        )
        found = objects.by_name(name)
        assert found is not None, "a row stays"
        return found


def _batches(groups: Sequence[RepackGroup]) -> Iterator[tuple[RepackGroup, list[PackUse]]]:
    """Yield packs to be taken together, the least needed of each group first, as far as one run goes."""
    left = MOST_BYTES
    for group in groups:
        batch: list[PackUse] = []
        size = 0
        for use in group.packs:
            if use.facts.size > left:
                break
            left -= use.facts.size
            batch.append(use)
            size += use.facts.size
            if size >= BATCH_BYTES:
                yield group, batch
                batch, size = [], 0
        if batch:
            yield group, batch
