"""A restore over the whole way: in windows, over what is there, after a kill, and with a part of the tree lost."""

import asyncio
import errno
import os
import signal
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from replicator.engine import browse, fetchers, writing
from replicator.engine import restore as module
from replicator.engine import writers as pool
from replicator.engine.federation import get_whole
from replicator.engine.keptpacks import KeptPacks
from replicator.engine.packcache import CachedPack
from replicator.engine.slots import Held, Slots
from replicator.engine.writeframes import Saw
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError, SpaceError
from replicator.format.pack import CHUNK_TREE
from replicator.format.tree import Hole
from replicator.ids import ObjectName
from replicator.pack.reader import PackReader
from replicator.snapshot import apply, newfile, plan
from replicator.transport.base import Connection
from replicator.transport.memory import MemoryConnection
from tests.compare import Rules, compare
from tests.fakes import SeededRng
from tests.scenarios.test_forgetting import library_of
from tests.scenarios.world import World, read, write

RULES = Rules(owners=os.geteuid() == 0)
MIB = 1 << 20


@pytest.fixture
def wide(world: World) -> str:
    """A dataset of many small files, a large one, links between folders, and folders in folders."""
    path = os.path.join(world.root, "source", "wide")
    rng = SeededRng("wide")
    for number in range(60):
        write(os.path.join(path, f"{number % 7}", f"{number % 3}", f"{number}"), rng.bytes(5_000))
    write(os.path.join(path, "large"), rng.bytes(20 * MIB))
    os.link(os.path.join(path, "0", "0", "0"), os.path.join(path, "6", "link"))
    world.add_dataset("wide", path)
    return path


def restored(target: str) -> str:
    return os.path.join(target, "wide")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writing processes start after the first pack."""
    monkeypatch.setattr(pool, "ALONE_BYTES", 1)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("writers", [0, 2])
@pytest.mark.parametrize("window", [1, 7, 50_000])
async def test_neither_the_size_of_a_window_nor_who_writes_makes_a_difference(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch, window: int, writers: int
) -> None:
    await world.backup()
    monkeypatch.setattr(module, "WINDOW", window)
    monkeypatch.setattr(module, "BATCH", window)
    target = os.path.join(world.root, "target")
    report = await world.restore(target, writers=writers)
    assert compare(wide, restored(target), RULES) == []
    assert (report.files, report.links, report.gaps) == (61, 1, [])
    assert report.bytes == 60 * 5_000 + 20 * MIB
    again = await world.restore(target, overwrite="always", writers=writers)
    # A file with two names is made anew, and so is one that is planned in several parts.
    assert (again.files, again.reused_bytes) == (1 if window == 50_000 else 2, report.bytes)
    assert compare(wide, restored(target), RULES) == []


async def test_of_what_is_there_only_what_differs_is_fetched(world: World, wide: str) -> None:
    await world.backup()
    target = os.path.join(world.root, "target")
    whole = await world.restore(target)
    large = read(os.path.join(wide, "large"))
    write(os.path.join(restored(target), "large"), large[: 10 * MIB] + b"changed" + large[10 * MIB + 7 :])
    write(os.path.join(restored(target), "3", "0", "3"), b"other")
    os.unlink(os.path.join(restored(target), "4", "1", "4"))
    write(os.path.join(restored(target), "4", "new"), b"new")
    report = await world.restore(target, overwrite="if-changed", delete=True)
    assert compare(wide, restored(target), RULES) == []
    assert report.removed == ["wide/4/new"]
    assert 19 * MIB < report.reused_bytes < 20 * MIB
    assert report.fetched_bytes < whole.fetched_bytes
    assert report.files == 2 + 1 + 1, "what has two names is made anew"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Let any snapshot be large enough for several processes to look at; tells what they found."""
    monkeypatch.setattr(module, "MANY", 1)
    real = pool.Writers._saw
    found: Counter[str] = Counter()

    def count(writers: pool.Writers[Any], message: Saw) -> None:
        found.update(files=sum(one.files for one in message.found), tasks=1)
        real(writers, message)

    monkeypatch.setattr(pool.Writers, "_saw", count)
    return found


@pytest.mark.process
async def test_several_processes_look_at_what_is_there(world: World, wide: str, many: Counter[str]) -> None:
    await world.backup()
    target, other = os.path.join(world.root, "target"), os.path.join(world.root, "other")
    for one in (target, other):
        await world.restore(one)
        write(os.path.join(restored(one), "3", "0", "3"), b"other")
        os.unlink(os.path.join(restored(one), "4", "1", "4"))
    expected = await world.restore(other, overwrite="if-changed")
    assert not many
    report = await world.restore(target, overwrite="if-changed", writers=2)
    assert many["files"] == report.kept == expected.kept == 58, "all but what has two names and what differs"
    told = ("files", "folders", "links", "bytes", "packs", "fetched_bytes", "gaps", "reasons", "lost", "damaged")
    assert [getattr(report, name) for name in told] == [getattr(expected, name) for name in told]
    assert compare(wide, restored(target), RULES) == []


@pytest.mark.process
async def test_a_damaged_pack_of_directories_is_told_by_who_restores(
    world: World, wide: str, many: Counter[str]
) -> None:
    await world.backup()
    target = os.path.join(world.root, "target")
    await world.restore(target)
    [tree] = {os.path.basename(path) for number in range(5) for path in world.stored(number, ["tree"])}
    cached = os.path.join(world.home, "keeper", "cache", "trees", tree)
    real = browse.ChunkFetcher.begin

    def damage(fetcher: browse.ChunkFetcher, pack: int) -> Any:
        os.unlink(cached)
        begun: Future[bytes] = Future()
        begun.set_result(bytes(len(real(fetcher, pack).result())))
        return begun

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browse.ChunkFetcher, "begin", damage)
        report = await world.restore(target, overwrite="if-changed", writers=2)
    assert (report.kept, report.gaps, many["files"]) == (60, [], 0)
    assert many["tasks"] > 0


@pytest.mark.process
async def test_after_the_death_of_a_process_that_looks_the_same_again_finishes(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch, many: Counter[str]
) -> None:
    await world.backup()
    target = os.path.join(world.root, "target")
    await world.restore(target)
    os.unlink(os.path.join(restored(target), "4", "1", "4"))
    real = pool.Writers.look

    def kill(writers: pool.Writers[Any], *values: Any) -> None:
        real(writers, *values)
        for writer in writers._writers:
            os.kill(writer.process.pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(pool.Writers, "look", kill)
        with pytest.raises(ReplicatorError, match="signal 9"):
            await world.restore(target, overwrite="if-changed", writers=2)
    report = await world.restore(target, overwrite="if-changed", writers=2)
    assert (report.files, report.kept) == (2, 59)
    assert compare(wide, restored(target), RULES) == []


async def test_after_a_kill_the_same_again_finishes_and_fetches_only_the_rest(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    target = os.path.join(world.root, "target")
    real = newfile.write_part
    written = 0

    class Killed(BaseException):
        pass

    def write_some(fd: int, holes: Sequence[Hole], offset: int, data: bytes) -> None:
        nonlocal written
        if written > 10 * MIB:
            raise Killed
        written += len(data)
        real(fd, holes, offset, data)

    monkeypatch.setattr(writing, "write_part", write_some)
    monkeypatch.setattr(apply.Applier, "abort", lambda _: None)
    with pytest.raises(Killed):
        await world.restore(target)
    monkeypatch.undo()
    assert any(name.startswith(".replicator-") for name in os.listdir(restored(target)))
    report = await world.restore(target, overwrite="if-changed")
    assert report.reused_bytes > 9 * MIB
    assert compare(wide, restored(target), RULES) == []


async def test_a_disk_that_is_full_in_the_middle_is_said_and_what_is_whole_stays(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    target = os.path.join(world.root, "target")
    real = newfile.make_whole
    made = 0

    def make_some(*values: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if made > 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*values, **options)

    monkeypatch.setattr(writing, "make_whole", make_some)
    with pytest.raises(SpaceError, match="the disk is full") as raised:
        await world.restore(target)
    assert "--overwrite if-changed" in raised.value.hint
    monkeypatch.undo()
    files = [os.path.join(folder, name) for folder, _, names in os.walk(target) for name in names]
    whole = [path for path in files if ".replicator-" not in path]
    assert sum(not path.endswith("large") for path in whole) == 30, "which is of several packs, and may be whole too"
    for path in whole:
        assert read(path) == read(wide + path.removeprefix(restored(target)))
    linked = {os.path.join(restored(target), name) for name in ("0/0/0", "6/link")}  # made anew in any case
    assert (await world.restore(target, overwrite="if-changed")).kept == len({*whole} - linked)
    assert compare(wide, restored(target), RULES) == []


@pytest.mark.usefixtures("at_once")
@pytest.mark.process
async def test_after_the_death_of_a_writing_process_the_same_again_finishes(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    target = os.path.join(world.root, "target")
    real = pool.Writers._give

    def kill_second(writers: pool.Writers[Any], *values: Any) -> None:
        real(writers, *values)
        os.kill(writers._writers[1].process.pid, signal.SIGKILL)

    monkeypatch.setattr(pool.Writers, "_give", kill_second)
    with pytest.raises(ReplicatorError, match="signal 9"):
        await world.restore(target, writers=2)
    monkeypatch.undo()
    report = await world.restore(target, overwrite="if-changed")
    assert report.gaps == []
    assert compare(wide, restored(target), RULES) == []


@pytest.mark.usefixtures("at_once")
@pytest.mark.process
async def test_a_restore_that_is_cancelled_ends_its_processes_and_leaves_whole_files(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    target = os.path.join(world.root, "target")
    real = pool.Writers._give
    running = asyncio.current_task()
    loop = asyncio.get_running_loop()
    assert running is not None

    def cancel(writers: pool.Writers[Any], *values: Any) -> None:
        real(writers, *values)
        loop.call_soon_threadsafe(running.cancel)

    monkeypatch.setattr(pool.Writers, "_give", cancel)
    with pytest.raises(asyncio.CancelledError):
        await world.restore(target, writers=2)
    running.uncancel()
    monkeypatch.undo()
    report = await world.restore(target, overwrite="if-changed")
    assert report.gaps == []
    assert compare(wide, restored(target), RULES) == []


async def test_a_part_of_the_tree_that_is_lost_costs_that_part_alone(world: World, wide: str) -> None:
    await world.backup()
    trees = {os.path.basename(path) for number in range(5) for path in world.stored(number, ["tree"])}
    write(os.path.join(wide, "5", "later"), b"later")
    await world.backup()
    for number in range(5):
        for path in world.stored(number, ["tree"]):
            if os.path.basename(path) in trees:
                os.unlink(path)
    target = os.path.join(world.root, "target")
    report = await world.restore(target)
    assert report.lost
    assert ("wide/1/", module.LOST_FOLDER) in report.gaps
    assert read(os.path.join(restored(target), "5", "later")) == b"later"
    assert read(os.path.join(restored(target), "large")) == read(os.path.join(wide, "large"))
    with pytest.raises((NotFoundError, IntegrityError, FormatError)):
        await world.restore(target, overwrite="if-changed", delete=True)
    assert read(os.path.join(restored(target), "5", "later")) == b"later"


async def test_packs_come_from_several_providers(world: World, wide: str) -> None:
    rng = SeededRng("more")
    for number in range(4):
        write(os.path.join(wide, "more", f"{number}"), rng.bytes(16 * MIB))
    await world.backup()
    asked: Counter[bytes] = Counter()

    def count(identity: bytes, op: str, phase: str) -> None:
        if (op, phase) == ("get", "before"):
            asked[identity] += 1

    world.network.faults = count
    report = await world.restore(os.path.join(world.root, "target"))
    assert report.gaps == []
    assert report.packs > 6
    assert sum(asked.values()) >= report.packs
    assert sum(count > 1 for count in asked.values()) >= 3, "of the providers that hold a copy of one pack or another"


async def test_an_empty_target_without_room_is_said_before_anything_is_written(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    target = os.path.join(world.root, "target")
    monkeypatch.setattr(plan.Planner, "free", lambda _: 20 * MIB)
    with pytest.raises(SpaceError, match="20971520 are free"):
        await world.restore(target)
    assert "target" not in os.listdir(world.root)
    monkeypatch.setattr(plan.Planner, "free", lambda _: 21 * MIB)
    assert (await world.restore(target)).files == 61


async def test_a_restore_writes_down_in_which_order_it_used_what_the_keeper_keeps(world: World, wide: str) -> None:
    await world.backup()
    await world.restore(os.path.join(world.root, "target"))
    trees = os.path.join(world.home, "keeper", "cache", "trees")
    kept = set(os.listdir(trees))
    order = read(os.path.join(trees, "order"))
    assert {order[at : at + 32].hex() for at in range(0, len(order), 32)} == kept - {"order"}


async def test_a_pack_that_two_windows_need_counts_as_often_as_it_is_fetched(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    once = await world.restore(os.path.join(world.root, "once"))
    monkeypatch.setattr(module, "WINDOW", 5)
    monkeypatch.setattr(browse, "PACKS_IN_MEMORY", 1)
    often = await world.restore(os.path.join(world.root, "often"))
    assert often.fetched_bytes > once.fetched_bytes
    assert often.packs <= once.packs, "the directories were kept the first time"


class Fetching:
    """In place of the fetching process: what it would bring comes from the memory network."""

    def __init__(self, slots: Sequence[int]) -> None:
        self._slots = slots

    async def get_into(self, connection: Connection, name: ObjectName, slot: int) -> int:
        data = await get_whole(connection, name)
        return os.pwrite(self._slots[slot], data, 0)

    def close(self) -> None:
        """Nothing runs."""


@pytest.fixture
def into_slots(monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:
    """Let packs be fetched into the writers' memory, as over TLS."""
    monkeypatch.setattr(MemoryConnection, "reach", lambda _: "somewhere")
    monkeypatch.setattr(fetchers, "Fetchers", Fetching)


@pytest.mark.usefixtures("into_slots")
@pytest.mark.process
async def test_what_several_windows_need_is_fetched_once(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    monkeypatch.setattr(module, "WINDOW", 9)
    monkeypatch.setattr(pool.Writers, "keep", lambda *_: False)  # as if more were needed than there are slots
    filled: Counter[int] = Counter()
    real = browse.ChunkFetcher._fill

    async def count(fetcher: browse.ChunkFetcher, pack: int, slot: int, memory: Held, slots: Slots) -> int:
        filled[pack] += 1
        return await real(fetcher, pack, slot, memory, slots)

    monkeypatch.setattr(browse.ChunkFetcher, "_fill", count)
    target = os.path.join(world.root, "target")
    report = await world.restore(target, writers=2)
    assert compare(wide, restored(target), RULES) == []
    assert max(filled.values()) > 1
    once = await world.restore(os.path.join(world.root, "once"))
    assert report.fetched_bytes <= once.fetched_bytes
    assert not [name for name in os.listdir(os.path.join(world.home, "keeper", "cache")) if name.startswith("kept-")]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Damage every pack that was kept on the disk, and tell which were given."""
    monkeypatch.setattr(module, "WINDOW", 9)
    monkeypatch.setattr(pool.Writers, "keep", lambda *_: False)  # as if more were needed than there are slots
    real = KeptPacks.get
    given = []

    def damage(kept: KeptPacks, pack: int, memory: int) -> int | None:
        size = real(kept, pack, memory)
        if size is not None:
            given.append(pack)
            os.pwrite(memory, bytes(size), 0)
        return size

    monkeypatch.setattr(KeptPacks, "get", damage)
    return given


@pytest.mark.usefixtures("into_slots")
@pytest.mark.process
async def test_what_was_kept_and_is_damaged_is_fetched_anew(world: World, wide: str, given: list[int]) -> None:
    await world.backup()
    report = await world.restore(os.path.join(world.root, "target"), writers=2)
    assert given
    assert (report.gaps, report.damaged) == ([], [])
    assert compare(wide, restored(os.path.join(world.root, "target")), RULES) == []


@pytest.mark.usefixtures("into_slots")
@pytest.mark.process
@pytest.mark.timeout(60)
async def test_it_is_also_if_that_is_said_when_nothing_else_is_left_to_do(
    world: World, given: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.path.join(world.root, "source", "narrow")
    for number in range(30):  # all in one pack, so that nothing else comes while it is written
        write(os.path.join(path, f"{number}"), SeededRng(f"narrow {number}").bytes(5_000))
    world.add_dataset("narrow", path)
    await world.backup()
    poll = pool.Writers.poll

    def late(writers: "pool.Writers[Any]", *others: Any, wait: bool = False) -> bool:
        return wait and poll(writers, *others, wait=True)

    monkeypatch.setattr(pool.Writers, "poll", late)
    report = await world.restore(os.path.join(world.root, "target"), writers=2)
    assert len(set(given)) == 1
    assert (report.gaps, report.damaged) == ([], [])
    assert compare(path, os.path.join(world.root, "target", "narrow"), RULES) == []


@pytest.mark.usefixtures("into_slots")
@pytest.mark.process
async def test_other_bytes_than_a_pack_cost_another_question_and_are_told(world: World, wide: str) -> None:
    await world.backup()
    for path in world.stored(0, ["data"]):
        data = read(path)
        write(path, data[:100] + b"damaged" + data[107:])
    report = await world.restore(os.path.join(world.root, "target"), writers=2)
    assert report.gaps == []
    assert compare(wide, restored(os.path.join(world.root, "target")), RULES) == []


async def test_directories_are_read_from_the_keepers_disk_also_those_that_were_fetched_just_now(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    read_there: Counter[int] = Counter()
    read_part = CachedPack.__getitem__

    def count(pack: CachedPack, part: slice, /) -> bytes:
        read_there[id(pack)] += bool(part.start)
        return read_part(pack, part)

    monkeypatch.setattr(CachedPack, "__getitem__", count)
    fetched = await world.restore(os.path.join(world.root, "fetched"))
    first = read_there.total()
    kept = await world.restore(os.path.join(world.root, "kept"))
    assert fetched.fetched_bytes > kept.fetched_bytes, "the second one found the directories on its disk"
    assert first >= 22
    assert read_there.total() == 2 * first


@pytest.mark.parametrize("fault", ["other bytes", "an error", "too few"])
@pytest.mark.parametrize("after", [0, 9])
async def test_a_disk_that_gives_something_else_later_costs_a_fetch_and_is_nobody_elses_fault(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch, fault: str, after: int
) -> None:
    await world.backup()
    await world.restore(os.path.join(world.root, "once"))
    without = await world.restore(os.path.join(world.root, "again"))
    trees = os.path.join(world.home, "keeper", "cache", "trees")
    kept = set(os.listdir(trees))
    read_part = CachedPack.__getitem__
    parts = 0

    def fail(pack: CachedPack, part: slice, /) -> bytes:
        nonlocal parts
        data = read_part(pack, part)
        parts += bool(part.start)  # nothing but chunks begins later
        if not part.start or parts <= after:
            return data
        if fault == "an error":
            raise OSError(errno.EIO, "Input/output error")
        return data[:-1] if fault == "too few" else bytes([data[0] ^ 1]) + data[1:]

    monkeypatch.setattr(CachedPack, "__getitem__", fail)
    target = os.path.join(world.root, "target")
    async with library_of(world) as library:
        found = await library.find("latest")
        report = await module.restore(library, world.edge, found, target, privileged=os.geteuid() == 0)
        [said] = library.federation.notices
    assert "what this machine's cache gave is not right any more" in said
    assert parts > after
    assert (report.gaps, report.lost, report.damaged) == ([], [], [])
    assert report.fetched_bytes > without.fetched_bytes
    assert compare(wide, restored(target), RULES) == []
    assert set(os.listdir(trees)) == kept, "it was fetched anew and kept"


async def test_directories_that_are_wrong_wherever_they_come_from_end_a_restore(
    world: World, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    await world.restore(os.path.join(world.root, "once"))
    chunk = PackReader.chunk
    asked = 0

    def wrong(reader: PackReader, kind: int, chunk_id: bytes) -> bytes:
        nonlocal asked
        if kind != CHUNK_TREE:
            return chunk(reader, kind, chunk_id)
        asked += 1
        raise IntegrityError("chunk: its bytes are not the ones it is named for")

    monkeypatch.setattr(PackReader, "chunk", wrong)
    with pytest.raises(IntegrityError, match="not the ones it is named for"):
        await world.restore(os.path.join(world.root, "target"))
    assert asked == 2, "once from the disk, once from a provider"
