"""Sources that vanish and change, disks that fill: a clear error, the rest goes on, nothing is lost."""

import errno
import os
import shutil

import pytest

from replicator.engine.backup import backup
from replicator.errors import HomeError, LockedError, ReplicatorError, SourceError, SpaceError, UsageError
from replicator.fs import PosixFs
from tests.crashfs import CrashFs, full_database, no_space
from tests.fakes import SeededRng
from tests.scenarios.world import World, small_tree, write
from tests.snapshot.fakesource import FakeSource, fails


async def test_a_dataset_whose_path_vanished_fails_alone(world: World, source: str) -> None:
    music = world.small_dataset("music")
    await world.backup()
    shutil.rmtree(music)
    report = await world.backup()
    docs, gone = report.datasets
    assert (docs.error, docs.published) == (None, True)
    assert isinstance(gone.error, SourceError)
    assert music in str(gone.error)
    assert gone.snapshot is None
    assert len(await world.snapshots()) == 3, "no empty snapshot takes the place of the last good one"


async def test_one_of_two_roots_that_vanished_is_a_gap_and_not_a_silence(world: World) -> None:
    one, other = (small_tree(os.path.join(world.root, "source", name), name) for name in ("one", "other"))
    world.add_dataset("both", one, other)
    await world.backup()
    shutil.rmtree(other)
    [done] = (await world.backup()).datasets
    assert done.error is not None or any("other" in path for path, _ in done.gaps)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
async def test_an_unreadable_file_is_a_named_gap_and_the_rest_is_published(
    error: int, world: World, source: str
) -> None:
    report = await world.backup(source=FakeSource(fails("open", b"letter.txt", error)))
    [done] = report.datasets
    assert (done.error, done.published) == (None, True)
    [(path, reason)] = done.gaps
    assert path.endswith("letter.txt")
    assert reason
    assert done.snapshot is not None
    assert done.snapshot.gaps == ((path, reason),)
    again = await world.backup()
    assert again.datasets[0].gaps == []
    assert await world.differences(source) == []


async def test_a_file_that_changes_while_it_is_read_is_named_and_read_again_next_time(
    world: World, source: str
) -> None:
    def growing(step: str, path: bytes) -> None:
        if step == "read" and os.path.basename(path) == b"one.raw":
            with open(path, "ab") as file:
                file.write(b"more")

    report = await world.backup(source=FakeSource(growing))
    [done] = report.datasets
    assert done.published
    assert any("one.raw" in path for path, _ in done.gaps)
    again = await world.backup()
    assert (again.datasets[0].gaps, again.datasets[0].published) == ([], True)
    assert await world.differences(source) == []


async def test_a_file_that_vanishes_during_the_walk_is_no_reason_to_stop(world: World, source: str) -> None:
    def vanish(step: str, path: bytes) -> None:
        if step == "open" and os.path.basename(path) == b"letter.txt":
            os.unlink(path)

    [done] = (await world.backup(source=FakeSource(vanish))).datasets
    assert (done.error, done.published) == (None, True)


@pytest.mark.parametrize("overlap", [False, True])
async def test_a_full_spool_stops_and_loses_nothing(overlap: bool, world: World, source: str) -> None:
    for number in range(4):
        write(os.path.join(source, f"large {number}"), SeededRng(f"large {number}").bytes(16_000_000))
    world.silence(*range(5))
    [done] = (await world.backup(overlap=overlap, spool_limit=20_000_000)).datasets
    assert isinstance(done.error, SpaceError)
    assert "the spool is full" in str(done.error)
    assert done.snapshot is None
    kept = os.listdir(os.path.join(world.home, "node", "spool", "objects"))
    assert kept != []
    world.answer(*range(5))
    [done] = (await world.backup(overlap=True, spool_limit=20_000_000)).datasets
    assert (done.error, done.published) == (None, True)
    assert os.listdir(os.path.join(world.home, "node", "spool", "objects")) == []
    assert set(kept) <= set().union(*(os.listdir(world.objects(number)) for number in range(5)))
    assert await world.differences(source) == []


@pytest.mark.parametrize("step", ["write incoming", "fsync file incoming", "create incoming", "link objects"])
async def test_a_full_disk_under_the_spool_stops_and_loses_nothing(step: str, world: World, source: str) -> None:
    await world.backup()
    write(os.path.join(source, "more"), SeededRng("more").bytes(100_000))
    fs = CrashFs(os.path.join(world.root, "graveyard"), errors={step: no_space()})
    node = world.node(fs=fs)
    try:
        [done] = (await backup(node, world.edge, overlap=False)).datasets
    finally:
        node.close()
        fs.close()
    assert isinstance(done.error, ReplicatorError)
    assert isinstance(done.error, SpaceError)
    assert (await world.status()).exit_code == 0, "the last good snapshot is as good as it was"
    [done] = (await world.backup()).datasets
    assert done.published
    assert await world.differences(source) == []


@pytest.mark.parametrize(
    "step",
    [
        "object row",
        "index row",
        "snapshot row",
        "holding row",
        "claim row",
        "published row",
        "spool row",
        "peer row",
        "meta row",
    ],
)
async def test_a_full_disk_under_the_catalog_stops_and_loses_nothing(step: str, world: World, source: str) -> None:
    await world.backup()
    write(os.path.join(source, "more"), SeededRng("more").bytes(100_000))
    fs = CrashFs(os.path.join(world.root, "graveyard"), errors={f"commit {step}": full_database()})
    node = world.node(fs=fs)
    try:
        problem = (await backup(node, world.edge, overlap=False)).datasets[0].error
    except SpaceError as error:
        problem = error
    finally:
        node.close()
        fs.close()
    assert isinstance(problem, SpaceError)
    assert "catalog.db" in str(problem)
    assert problem.hint
    [done] = (await world.backup()).datasets
    assert done.published
    assert (await world.status()).exit_code == 0
    assert (await world.verify()).problems == []
    assert await world.differences(source) == []


async def test_two_runs_do_not_work_in_one_home(world: World, source: str) -> None:
    node = world.node()
    with node.lock(), pytest.raises(LockedError, match="another run is working here"):
        await world.backup()
    node.close()
    assert (await world.backup()).datasets[0].published


async def test_a_home_without_datasets_says_what_to_do(world: World) -> None:
    with pytest.raises(UsageError, match="no dataset") as caught:
        await world.backup()
    assert "dataset add" in caught.value.hint


async def test_a_name_that_is_no_dataset_says_which_there_are(world: World, source: str) -> None:
    with pytest.raises(ReplicatorError, match="docs"):
        await world.backup("dcos")


@pytest.mark.parametrize("name", ["charter.obj", "member.bin", "identity.seed", "home.json", "datasets.bin"])
@pytest.mark.parametrize("how", ["empty", "cut", "random", "text"])
async def test_a_damaged_file_of_a_home_is_a_clear_error(name: str, how: str, world: World, source: str) -> None:
    path = os.path.join(world.home, "node", name)
    size = PosixFs().size(path)
    assert size is not None
    with open(path, "rb") as file:  # noqa: ASYNC230 - a test's own file
        data = file.read()
    write(
        path,
        {"empty": b"", "cut": data[: size // 2], "random": SeededRng(name).bytes(size + 1), "text": b"hello"}[how],
    )
    with pytest.raises(ReplicatorError) as caught:
        await world.backup()
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["charter.obj", "member.bin", "identity.seed"])
async def test_a_missing_file_of_a_home_is_a_clear_error(name: str, world: World, source: str) -> None:
    os.unlink(os.path.join(world.home, "node", name))
    with pytest.raises(HomeError, match=name):
        await world.backup()


async def test_a_damaged_keybag_is_fetched_again(world: World, source: str) -> None:
    path = os.path.join(world.home, "node", "keybag.obj")
    for data in (b"", b"rot", SeededRng("keybag").bytes(65536)):
        write(path, data)
        assert (await world.backup()).datasets[0].published
        node = world.node()
        assert node.keybag_object() is not None
        node.close()
