"""A node's home from yesterday, twice, or without its catalog: one chain, no fork unless two really write."""

import os
import shutil
import sqlite3
from collections.abc import Callable

import pytest

from replicator.engine.findings import Findings
from replicator.errors import ForkedError, HomeError, MinimumNotMetError
from tests.fakes import SeededRng
from tests.scenarios.world import World, write


def copied(world: World, name: str) -> str:
    """Copy the home as it is now; return the copy."""
    target = os.path.join(world.root, name)
    shutil.copytree(world.home, target)
    return target


def put_back(world: World, copy: str) -> None:
    """Make an earlier copy the home again."""
    shutil.rmtree(world.home)
    shutil.copytree(copy, world.home)


async def one_chain(world: World, source: str, snapshots: int) -> None:
    """Check that there is one chain without holes, that all is well, and that the newest is the source as it is."""
    found = await world.snapshots()
    assert [one.row.number for one in found] == list(range(1, snapshots + 1))
    assert (await world.status()).problems == []
    assert (await world.verify()).problems == []
    assert await world.differences(source) == []


def change(source: str, name: str) -> None:
    write(os.path.join(source, name), SeededRng(name).bytes(90_000))


async def fork(world: World, source: str) -> str:
    """Let a clone of the home write beside it where neither can know; return the clone."""
    await world.backup()
    clone = copied(world, "clone")
    world.silence(3, 4)
    change(source, "here")
    assert (await world.backup()).datasets[0].published
    world.silence(0, 1, 2)
    world.answer(3, 4)
    change(source, "there")
    assert (await world.backup(home=clone)).datasets[0].published, "neither could know"
    world.answer(*range(5))
    return clone


async def test_a_home_put_back_from_an_older_copy_goes_on_after_what_peers_have_seen(world: World, source: str) -> None:
    await world.backup()
    older = copied(world, "older")
    for name in ("two", "three"):
        change(source, name)
        await world.backup()
    put_back(world, older)
    change(source, "four")
    report = await world.backup()
    assert report.integrity == []
    assert any("2 snapshots of this node that its home did not know" in line for line in report.notices)
    [done] = report.datasets
    assert done.snapshot is not None
    assert (done.snapshot.number, done.published) == (4, True)
    assert done.new_bytes < 120_000, "what its later life stored is known from its indexes"
    assert (await world.status()).exit_code == 0
    await one_chain(world, source, 4)


async def test_a_home_put_back_beside_the_cache_of_its_later_life_loses_nothing(world: World, source: str) -> None:
    """The cache is on another disk, and its row numbers are those of packs that this home will number otherwise."""
    await world.backup()
    older = copied(world, "older")
    change(source, "two")
    await world.backup()
    cache = os.path.join(world.home, "node", "cache")
    shutil.copytree(cache, os.path.join(world.root, "later"))
    put_back(world, older)
    shutil.rmtree(cache)
    shutil.copytree(os.path.join(world.root, "later"), cache)
    change(source, "three")
    [done] = (await world.backup()).datasets
    assert (done.error, done.published) == (None, True)
    assert done.new_bytes < 120_000
    await one_chain(world, source, 3)


async def test_a_home_put_back_from_before_its_first_backup_goes_on(world: World, source: str) -> None:
    older = copied(world, "older")
    await world.backup()
    put_back(world, older)
    report = await world.backup()
    [done] = report.datasets
    assert (done.published, done.new_chunks) == (True, 0)
    await one_chain(world, source, 2)


async def test_what_a_home_adopted_is_watched_over_too(world: World, source: str) -> None:
    older = copied(world, "older")
    change(source, "once")
    await world.backup()
    os.unlink(os.path.join(source, "once"))
    put_back(world, older)
    await world.backup()
    assert (await world.status()).exit_code == 0
    first = (await world.snapshots())[0]
    for number in range(5):
        for path in world.stored(number, ["snapshot"]):
            if os.path.basename(path) == first.id:
                os.unlink(path)
    assert (await world.status()).exit_code == 5


async def test_a_home_put_back_with_a_waiting_snapshot_that_its_later_life_published(world: World, source: str) -> None:
    await world.backup()
    world.silence(*range(5))
    change(source, "two")
    await world.backup()
    older = copied(world, "older")
    world.answer(*range(5))
    await world.backup()
    put_back(world, older)
    report = await world.backup()
    assert report.integrity == []
    assert report.finished_before == []
    await one_chain(world, source, 4)


async def test_a_home_put_back_with_a_waiting_snapshot_that_its_later_life_made_anew(world: World, source: str) -> None:
    await world.backup()
    world.silence(*range(5))
    change(source, "two")
    await world.backup()
    older = copied(world, "older")
    folder = os.path.join(world.home, "node", "spool", "objects")
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    world.answer(*range(5))
    await world.backup()
    count = len(await world.snapshots())
    put_back(world, older)
    report = await world.backup()
    assert report.integrity == []
    assert report.datasets[0].published
    await one_chain(world, source, count + 1)


async def test_a_home_put_back_with_the_newest_snapshot_waiting_finishes_it(world: World, source: str) -> None:
    world.silence(*range(5))
    await world.backup()
    older = copied(world, "older")
    world.answer(*range(5))
    await world.backup()
    put_back(world, older)
    world.silence(0, 1)
    await world.backup()
    world.answer(0, 1)
    await world.backup()
    numbers = [one.row.number for one in await world.snapshots()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert (await world.status()).exit_code == 0


async def test_two_copies_of_a_home_that_take_turns_are_found_when_one_meets_the_other_again(
    world: World, source: str
) -> None:
    """Once is what a home that was put back looks like; a second time, after it wrote, there are two."""
    await world.backup()
    clone = copied(world, "clone")
    for home in (clone, world.home, clone):
        change(source, f"{home} {world.clock.now_ns()}")
        report = await world.backup(home=home)
        assert (report.datasets[0].published, report.integrity) == (True, [])
    assert [one.row.number for one in await world.snapshots()] == [1, 2, 3, 4]
    assert await world.differences(source) == []
    report = await world.backup()
    [done] = report.datasets
    assert isinstance(done.error, ForkedError)
    assert any("two machines take turns" in line for line in report.integrity)
    assert (await world.status()).exit_code == 4
    assert [one.row.number for one in await world.snapshots()] == [1, 2, 3, 4]
    node = world.node()
    for kept in Findings(node).all():
        Findings(node).note(kept, "two machines", world.clock.now_ns())
    node.close()
    report = await world.backup()
    assert (report.datasets[0].published, report.integrity) == (True, [])
    assert [one.row.number for one in await world.snapshots()] == [1, 2, 3, 4, 5]


async def test_two_copies_of_a_home_that_both_write_are_a_fork_and_it_is_said(world: World, source: str) -> None:
    clone = await fork(world, source)
    report = await world.backup()
    assert any("fork" in line for line in report.integrity)
    for home in (world.home, clone):
        found = await world.status(home)
        assert found.exit_code == 4
        assert any("fork" in line for line in found.problems)
    assert (await world.status(keeper=True)).exit_code == 4
    assert any("fork" in line for line in (await world.verify()).problems)


async def test_a_clone_whose_snapshot_waits_gives_it_up_when_the_other_was_first(world: World, source: str) -> None:
    """Nobody has seen the second one, so there need be no fork."""
    await world.backup()
    clone = copied(world, "clone")
    change(source, "there")
    world.silence(*range(5))
    await world.backup(home=clone)
    world.answer(*range(5))
    change(source, "here")
    await world.backup()
    report = await world.backup(home=clone)
    assert report.integrity == []
    assert report.datasets[0].published
    assert [one.row.number for one in await world.snapshots()] == [1, 2, 3]


async def test_a_fork_is_refused_by_who_saw_the_other_head(world: World, source: str) -> None:
    await world.backup()
    clone = copied(world, "clone")
    world.silence(4)
    change(source, "here")
    await world.backup()
    world.answer(4)
    world.silence(0, 1, 2, 3)
    change(source, "there")
    [done] = (await world.backup(home=clone)).datasets
    assert isinstance(done.error, MinimumNotMetError)
    world.answer(*range(5))
    report = await world.backup(home=clone)
    assert report.integrity == []
    assert report.datasets[0].published


# without a catalog


async def test_a_lost_catalog_is_rebuilt_from_the_federation(world: World, source: str) -> None:
    await world.backup()
    change(source, "two")
    await world.backup()
    for name in os.listdir(os.path.join(world.home, "node")):
        if name.startswith("catalog.db"):
            os.unlink(os.path.join(world.home, "node", name))
    report = await world.backup()
    assert [(one.dataset, one.error, one.published) for one in report.datasets] == [("docs", None, True)]
    assert report.datasets[0].new_chunks == 0
    assert report.sent_objects < 20, "what peers hold is asked for, not sent again"
    assert (await world.status()).exit_code == 0
    await one_chain(world, source, 3)


async def test_a_lost_catalog_and_a_full_spool_still_make_one_chain(world: World, source: str) -> None:
    await world.backup()
    world.silence(*range(5))
    change(source, "two")
    await world.backup()
    os.unlink(os.path.join(world.home, "node", "catalog.db"))
    world.answer(*range(5))
    report = await world.backup()
    assert report.datasets[0].published
    assert os.listdir(os.path.join(world.home, "node", "spool", "objects")) == []
    await one_chain(world, source, 2)


Hurt = Callable[[str], None]


def random_bytes(path: str) -> None:
    write(path, SeededRng("hurt").bytes(20_000))


def text(path: str) -> None:
    write(path, b"not a database")


def cut(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


@pytest.mark.parametrize("hurt", [random_bytes, text])
async def test_a_damaged_catalog_is_a_clear_error_and_moving_it_away_helps(
    hurt: Hurt, world: World, source: str
) -> None:
    await world.backup()
    path = os.path.join(world.home, "node", "catalog.db")
    hurt(path)
    with pytest.raises(HomeError, match="not a usable catalog") as caught:
        await world.backup()
    assert "move it away" in caught.value.hint
    os.rename(path, f"{path}.away")
    assert (await world.backup()).datasets[0].published
    await one_chain(world, source, 2)


async def test_a_catalog_that_is_damaged_inside_is_a_clear_error(world: World, source: str) -> None:
    await world.backup()
    path = os.path.join(world.home, "node", "catalog.db")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with open(path, "r+b") as file:  # noqa: ASYNC230 - a test's own file
        file.seek(4096)
        file.write(SeededRng("inside").bytes(os.fstat(file.fileno()).st_size - 4096))
    with pytest.raises(HomeError, match="catalog"):
        await world.backup()


async def test_a_keeper_rebuilds_its_catalog_too(world: World, source: str) -> None:
    await world.backup()
    await world.snapshots()
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    assert await world.differences(source) == []
