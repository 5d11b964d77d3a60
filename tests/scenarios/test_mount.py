"""Reading here and there for a long time: what is fetched how often, read ahead, kept; providers that come and go."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from replicator.engine.browse import ChunkFetcher, Library
from replicator.engine.mount import Mounted, MountReport, Node, Reading, Shown
from replicator.engine.mounting import Reach
from replicator.engine.packmemory import AHEAD, RETRY_S, Chunks, PackMemory, StoppedError
from replicator.errors import NotFoundError
from replicator.ids import Identity
from replicator.transport.memory import Phase
from tests.fakes import SeededRng
from tests.scenarios.test_browsing import damage, lose, opened
from tests.scenarios.test_vertical import second_node
from tests.scenarios.world import PROMISE, World, write

MB = 1 << 20


class Stand:
    """A mount without FUSE of a world's newest snapshot. ``said`` is what people were told."""

    def __init__(
        self, world: World, library: Library, mounted: Mounted, memory: PackMemory, report: MountReport
    ) -> None:
        self.world = world
        self.library = library
        self.mounted = mounted
        self.memory = memory
        self.report = report
        self.said: list[str] = []
        self.gets: list[tuple[Identity, str]] = []

    async def read(self, path: str, offset: int = 0, size: int = 100 * MB) -> bytes:
        """Read as a thread of libfuse does."""

        def work() -> bytes:
            return self.mounted.open(self.node(path)).read(offset, size)

        return await asyncio.to_thread(work)

    def node(self, path: str) -> Node:
        found = self.mounted.get(path.encode())
        assert found is not None
        return found

    async def open(self, path: str) -> Reading:
        return await asyncio.to_thread(lambda: self.mounted.open(self.node(path)))

    async def settled(self) -> None:
        """Wait for what was asked for ahead."""
        await asyncio.sleep(0)
        while self.memory._loading:
            await asyncio.wait(list(self.memory._loading.values()))
            await asyncio.sleep(0)


@asynccontextmanager
async def shown(world: World, *, packs: int = 6, chunk_bytes: int = 64 * MB) -> AsyncIterator[Stand]:
    async with opened(world) as library:
        found = await library.find("latest")
        stand: Stand

        def say(text: str) -> None:
            stand.said.append(text)

        report = MountReport(say)
        reach = Reach(library.federation, world.edge, report)
        memory = PackMemory(
            world.clock, redial=reach.redial, settled=reach.settle, packs=packs, chunk_bytes=chunk_bytes
        )
        source = Chunks(memory, ChunkFetcher(library, found.snapshot.domain), reach.told)
        mounted = Mounted([Shown(snapshot=found, source=source)], owner=(0, 0), direct=True)
        stand = Stand(world, library, mounted, memory, report)

        def count(identity: Identity, op: str, phase: Phase) -> None:
            if op == "get" and phase == "after":
                stand.gets.append((identity, op))

        world.network.faults = count
        try:
            yield stand
        finally:
            await memory.close()


@pytest.fixture
def large(world: World) -> tuple[World, bytes]:
    """A dataset with one file of several packs."""
    data = SeededRng("large").bytes(70 * MB)
    path = os.path.join(world.root, "source", "films")
    write(os.path.join(path, "film"), data)
    world.add_dataset("films", path)
    return world, data


async def test_threads_that_need_one_pack_fetch_it_once(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    async with shown(world) as stand:
        await asyncio.to_thread(stand.node, "docs/photos/one.raw")
        readers, came, fetched = 4, 0, 0
        all_wait = asyncio.Event()
        load, fetch = stand.memory._load, stand.library.federation.fetch

        def counted(*values: Any) -> Any:
            nonlocal came
            came += 1
            if came == readers:
                all_wait.set()
            return load(*values)

        async def slow(*values: Any) -> bytes:
            nonlocal fetched
            fetched += 1
            await all_wait.wait()
            return await fetch(*values)

        monkeypatch.setattr(stand.memory, "_load", counted)
        monkeypatch.setattr(stand.library.federation, "fetch", slow)
        parts = await asyncio.gather(*(stand.read("docs/photos/one.raw", 0, 40_000) for _ in range(readers)))
        assert parts == [SeededRng("docs").bytes(400_000)[:40_000]] * readers
        assert fetched == 1
        assert stand.said == []


async def test_a_keeper_that_knows_of_no_holder_asks_them_all_in_turn(world: World) -> None:
    write(os.path.join(world.root, "source", "films", "film"), SeededRng("all").bytes(70 * MB))
    policy = msgspec.structs.replace(PROMISE, copies=5)
    world.add_dataset("films", os.path.join(world.root, "source", "films"), policy=policy)
    await world.backup()
    async with shown(world) as stand:
        await stand.read("films/film")
        counts = Counter(identity for identity, _ in stand.gets)
        assert max(counts.values()) < len(stand.gets) / 2, counts


async def test_what_was_read_ahead_is_there_when_every_provider_falls_silent(large: tuple[World, bytes]) -> None:
    world, data = large
    await world.backup()
    async with shown(world) as stand:
        reading = await stand.open("films/film")
        for at in range(0, MB, MB // 8):
            assert await asyncio.to_thread(reading.read, at, MB // 8) == data[at : at + MB // 8]
        await stand.settled()
        world.silence(*range(5))
        ahead = 40 * MB
        assert await asyncio.to_thread(reading.read, MB, ahead) == data[MB : MB + ahead]


async def test_reading_from_one_end_to_the_other_fetches_each_pack_once(large: tuple[World, bytes]) -> None:
    world, data = large
    await world.backup()
    async with shown(world) as stand:
        reading = await stand.open("films/film")
        for at in range(0, len(data), MB):
            assert await asyncio.to_thread(reading.read, at, MB) == data[at : at + MB]
        await stand.settled()
        everywhere = {os.path.basename(path) for number in range(5) for path in world.stored(number)}
        assert 4 < len(stand.gets) <= len(everywhere)
        assert stand.memory._packs.weight <= 6
        assert stand.memory._chunks.weight <= 64 * MB


async def test_a_reader_that_went_away_does_not_stop_others_from_being_read_ahead_for(
    large: tuple[World, bytes],
) -> None:
    world, data = large
    await world.backup()
    async with shown(world, packs=2) as stand:
        for _ in range(2):  # the first one leaves three packs that nobody reads, of which two are kept
            reading = await stand.open("films/film")
            for at in range(0, MB, MB // 8):
                assert await asyncio.to_thread(reading.read, at, MB // 8) == data[at : at + MB // 8]
            await stand.settled()
            await stand.read("films/film", 69 * MB, 10)
            await stand.read("films/film", 0, 10)
        assert len(stand.memory._unread) <= AHEAD
        reading = await stand.open("films/film")
        before = len(stand.gets)
        for at in range(0, MB, MB // 8):
            await asyncio.to_thread(reading.read, at, MB // 8)
        await stand.settled()
        assert len(stand.gets) > before, "packs are fetched that nobody waits for yet"


async def test_what_was_read_ahead_for_who_went_away_makes_room_while_another_reads_on(
    large: tuple[World, bytes],
) -> None:
    world, _ = large
    await world.backup()
    async with shown(world, packs=3) as stand:
        reading = await stand.open("films/film")
        for at in range(0, MB, MB // 8):
            await asyncio.to_thread(reading.read, at, MB // 8)
        await stand.settled()
        left = set(stand.memory._unread)
        assert left
        fetcher = reading.node.shown.source._fetcher  # type: ignore[union-attr]
        others = [row.id for row in stand.library.keeper.catalog.objects.all("kind = 'data'") if row.id not in left]
        for pack in others:
            await asyncio.to_thread(stand.memory._reader, fetcher, pack)
            stand.memory.ahead(fetcher, [pack])
            await stand.settled()
        assert not left & stand.memory._unread


async def test_memory_stays_within_its_limits(large: tuple[World, bytes]) -> None:
    world, data = large
    await world.backup()
    async with shown(world, packs=2, chunk_bytes=3 * MB) as stand:
        for at in (60, 3, 44, 17, 60, 31, 9):
            assert await stand.read("films/film", at * MB, 2 * MB) == data[at * MB : (at + 2) * MB]
            assert stand.memory._packs.weight <= 2
            assert stand.memory._chunks.weight <= 3 * MB


async def test_what_nobody_has_is_asked_for_again_after_a_while_only(world: World, source: str) -> None:
    await world.backup()
    async with shown(world) as stand:
        await asyncio.to_thread(stand.node, "docs/photos/one.raw")
        world.silence(*range(5))
        for _ in range(5):
            with pytest.raises(NotFoundError, match="no reachable peer"):
                await stand.read("docs/photos/one.raw")
        world.answer(*range(5))
        with pytest.raises(NotFoundError):
            await stand.read("docs/photos/one.raw")
        world.clock.advance(RETRY_S)
        assert len(await stand.read("docs/photos/one.raw")) == 400_000


async def test_a_provider_that_comes_back_is_found_without_mounting_again(world: World, source: str) -> None:
    await world.backup()
    async with opened(world) as library:  # what is in the trees is known
        found = await library.find("latest")
        await ChunkFetcher(library, found.snapshot.domain).in_thread(
            lambda reader: list(reader.walk(found.details.tree))
        )
    world.silence(*range(5))
    async with shown(world) as stand:
        with pytest.raises(NotFoundError, match="no peer is reachable"):
            await stand.read("docs/letter.txt")
        world.answer(*range(5))
        world.clock.advance(RETRY_S)
        assert await stand.read("docs/letter.txt") == b"Dear reader,\n" * 300


async def test_a_damaged_copy_is_told_and_another_one_is_read(world: World, source: str) -> None:
    await world.backup()
    for number in range(4):
        for path in world.stored(number, ["data"]):
            damage(path)
    async with shown(world) as stand:
        async with asyncio.timeout(60):
            try:
                assert len(await stand.read("docs/photos/one.raw")) == 400_000
            except NotFoundError:
                assert not world.stored(4, ["data"])
        assert stand.report.damaged
        assert stand.said
        assert all(line.startswith("INTEGRITY: ") for line in stand.said)
        assert stand.library.federation.integrity == []


async def test_who_waits_for_a_pack_is_let_go_when_the_mount_ends(world: World, source: str) -> None:
    await world.backup()
    async with shown(world) as stand:
        await asyncio.to_thread(stand.node, "docs/letter.txt")
        asked, never = asyncio.Event(), asyncio.Event()

        async def stuck(*_: object) -> bytes:
            asked.set()
            await never.wait()
            raise AssertionError

        stand.library.federation.fetch = stuck  # type: ignore[assignment, method-assign] # a provider that never answers
        waiting = asyncio.ensure_future(stand.read("docs/letter.txt"))
        await asked.wait()
        await stand.memory.close()
        with pytest.raises(StoppedError):
            await waiting
        with pytest.raises(StoppedError):
            await stand.read("docs/letter.txt")


async def test_a_chunk_whose_first_pack_is_lost_is_taken_from_another(world: World, source: str) -> None:
    await world.backup()
    # A second node stores the same files: it does not know what the first one has.
    home = await second_node(world)
    world.add_dataset("docs", source, home=home)
    await world.backup(home=home)
    async with shown(world) as stand:
        content = (await asyncio.to_thread(stand.node, "docs/letter.txt")).content
        fetcher = ChunkFetcher(stand.library, stand.mounted.shown[0].snapshot.snapshot.domain)
        [packs] = fetcher.places([content.chunks[0].id])
        assert len(packs) == 2
        lose(world, {fetcher.row(packs[0]).name.hex()})
        assert await stand.read("docs/letter.txt") == b"Dear reader,\n" * 300
        assert len(stand.said) == 1
        assert "no reachable peer" in stand.said[0]
