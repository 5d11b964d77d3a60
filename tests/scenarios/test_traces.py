"""A path is erased with every snapshot that holds it, and nothing is said to be done that is not."""

import os
import shutil

import pytest

from replicator.clock import DAY_S, NS
from replicator.engine.traces import Traces, find_traces, forget_traces
from replicator.errors import NotFoundError
from tests.fakes import SeededRng
from tests.scenarios.test_forgetting import library_of, nights
from tests.scenarios.test_pruning import days_pass, pruned
from tests.scenarios.world import World, write

SECRET = "people/secret.txt"


async def look(world: World, *paths: str, dataset: str = "docs") -> Traces:
    async with library_of(world) as library:
        return await find_traces(library, world.edge, dataset, paths)


async def erase(world: World, *paths: str) -> Traces:
    async with library_of(world) as library:
        found = await find_traces(library, world.edge, "docs", paths)
        await forget_traces(library, world.edge, found)
        return found


async def ids(world: World, *, forgotten: bool = False) -> list[str]:
    async with library_of(world) as library:
        return [one.id for one in await library.snapshots(forgotten=forgotten)]


async def secret_nights(world: World) -> str:
    """Make snapshots without, with, with (and tagged), and without the path; return the folder."""
    path = await nights(world, 1)
    write(os.path.join(path, SECRET), b"a person's data")
    await world.backup()
    write(os.path.join(path, "diary"), b"more")
    await world.backup(tags=["keep"])
    shutil.rmtree(os.path.join(path, "people"))
    await world.backup()
    return path


async def test_every_snapshot_with_the_path_goes_and_no_other(world: World) -> None:
    path = await secret_nights(world)
    before = await ids(world)
    found = await erase(world, SECRET)
    assert [one.id for one in found.holding] == before[1:3]
    assert (found.newest, found.gone, found.unread) == ([], [], [])
    assert await ids(world) == [before[0], before[3]]
    assert await ids(world, forgotten=True) == before[1:3]
    assert await world.differences(path) == []
    again = await look(world, SECRET)
    assert ([one.id for one in again.gone], again.holding) == (before[1:3], [])


async def test_a_folder_and_all_ways_to_write_a_path_mean_the_same(world: World) -> None:
    path = await secret_nights(world)
    for name in ("people", f"docs/{SECRET}", os.path.join(path, SECRET)):
        assert len((await look(world, name)).holding) == 2
    for name in ("peop", "people/secret", "nobody"):
        with pytest.raises(NotFoundError, match="no snapshot of 'docs' holds"):
            await look(world, name)
    with pytest.raises(NotFoundError, match="'nobody'"):
        await look(world, SECRET, "nobody")
    with pytest.raises(NotFoundError, match="no snapshot of dataset"):
        await look(world, SECRET, dataset="other")


async def test_the_newest_snapshot_is_told_if_it_still_has_it(world: World) -> None:
    path = await secret_nights(world)
    write(os.path.join(path, SECRET), b"back again")
    await world.backup()
    found = await look(world, SECRET)
    assert [one.id for one in found.newest] == [found.holding[-1].id] == [(await ids(world))[-1]]


async def test_copies_remain_for_the_longest_wait_of_any_provider(world: World) -> None:
    await secret_nights(world)
    assert (await look(world, SECRET)).until_ns == world.clock.now_ns() + 30 * DAY_S * NS
    world.opened[2].change_offer(lock_s=60 * DAY_S)
    assert (await look(world, SECRET)).until_ns == world.clock.now_ns() + 60 * DAY_S * NS
    world.opened[1].change_offer(grace_s=90 * DAY_S)
    assert (await look(world, SECRET)).until_ns == world.clock.now_ns() + 90 * DAY_S * NS


async def test_a_snapshot_that_cannot_be_looked_through_is_told_and_not_passed_over(world: World) -> None:
    await secret_nights(world)
    for number in range(5):
        for path in world.stored(number, ["tree"]):
            os.unlink(path)
    async with library_of(world) as library:
        found = await find_traces(library, world.edge, "docs", ["nobody"])
        assert (found.holding, len(found.unread)) == ([], 4)
        assert await forget_traces(library, world.edge, found) == []


async def test_after_the_waits_nobody_has_what_only_the_path_needed(world: World) -> None:
    path = await nights(world, 1)
    before = set().union(*(os.listdir(world.objects(number)) for number in range(5)))
    write(os.path.join(path, SECRET), SeededRng("a person").bytes(300_000))
    await world.backup()
    [snapshot] = [one for one in await world.snapshots() if one.row.number == 2]
    keeper = world.keeper()
    packs = {row.name.hex() for row in keeper.catalog.objects.all("kind = 'data'")} - before
    keeper.close()
    assert packs
    shutil.rmtree(os.path.join(path, "people"))
    await world.backup()

    def held() -> set[str]:
        return packs & set().union(*(os.listdir(world.objects(number)) for number in range(5)))

    found = await erase(world, SECRET)
    assert [one.id for one in found.holding] == [snapshot.id]
    await pruned(world)
    assert days_pass(world, 29) == 0
    assert held() == packs, "until then it can be taken back"
    days_pass(world, 17)
    assert world.clock.now_ns() >= found.until_ns
    assert held() == set()
    assert await world.differences(path) == []
