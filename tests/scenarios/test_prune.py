"""What a plan to prune says may go can go: all of it is taken away, and every kept snapshot restores as it was."""

import os
import shutil

import pytest

from replicator.catalog.objects import Objects
from replicator.engine import prune
from replicator.engine.federation import Federation
from replicator.engine.pruneplan import PrunePlan
from replicator.errors import NotFoundError
from replicator.format.container import Kind
from replicator.ids import ObjectName
from replicator.pack.packer import SealedPack
from replicator.pack.reader import PackReader
from replicator.pack.repack import Repacker
from replicator.snapshot.retention import KeepRules
from tests.compare import Rules, compare
from tests.fakes import SeededRng
from tests.scenarios.test_forgetting import DAY_S, forget, keep, library_of, remove
from tests.scenarios.world import World, read, write

ALL = frozenset(range(5))


async def planned(world: World, *, max_unused: float = 0.3) -> PrunePlan:
    """Plan on the keeper."""
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            return await prune.plan(keeper, federation, world.edge, max_unused=max_unused)
    finally:
        keeper.close()


async def changing_nights(world: World, count: int, name: str = "docs") -> dict[int, str]:
    """Back up a folder in which one file changes each night, and one is new every other night.

    Returns copies of the folder as it was, by snapshot number.
    """
    path = world.small_dataset(name)
    copies = {}
    for night in range(1, count + 1):
        write(os.path.join(path, "new"), SeededRng(f"{name} {night}").bytes(300_000))
        if night % 2:
            write(os.path.join(path, f"stays {night}"), SeededRng(f"{name} stays {night}").bytes(70_000))
        world.clock.advance(DAY_S)
        await world.backup(name)
        async with library_of(world) as library:
            number = (await library.snapshots())[-1].row.number
        copies[number] = shutil.copytree(path, os.path.join(world.root, "as it was", str(number), name), symlinks=True)
    return copies


async def check_restores(world: World, copies: dict[int, str]) -> None:
    """Restore every snapshot that is listed and compare it with the copy that was made then."""
    async with library_of(world) as library:
        found = {one.row.number: one.id for one in await library.snapshots()}
    assert found.keys() <= copies.keys()
    for number, snapshot in found.items():
        target = os.path.join(world.root, "restored", str(number))
        shutil.rmtree(target, ignore_errors=True)
        report = await world.restore(target, snapshot)
        assert (report.lost, report.damaged) == ([], [])
        base = os.path.basename(copies[number])
        assert compare(copies[number], os.path.join(target, base), Rules(owners=os.geteuid() == 0)) == []


async def test_without_forgetting_nothing_is_dead(world: World) -> None:
    await changing_nights(world, 2)
    plan = await planned(world)
    assert (plan.gaps, plan.dead) == ([], [])
    assert plan.needed > 0


@pytest.mark.parametrize("anew", [False, True])
async def test_all_that_is_dead_can_be_taken_away_and_every_kept_snapshot_restores(world: World, anew: bool) -> None:
    copies = await changing_nights(world, 5)
    await keep(world, KeepRules(last=2))
    plan = await planned(world)
    assert plan.gaps == []
    kinds = {one.kind for one in plan.dead}
    assert {"data", "snapshot"} <= kinds
    assert sum(one.kind == "snapshot" for one in plan.dead) == 3
    assert plan.dead_bytes == sum(one.size for one in plan.dead) > 0

    remove(world, [one.name for one in plan.dead])
    if anew:
        os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
        shutil.rmtree(os.path.join(world.home, "keeper", "cache"))
    await check_restores(world, copies)
    again = await planned(world)
    assert again.gaps == []
    assert {one.name for one in again.dead} <= {one.name for one in plan.dead}
    assert anew or again.dead == plan.dead


async def test_what_is_taken_back_in_time_is_not_dead(world: World) -> None:
    await changing_nights(world, 3)
    async with library_of(world) as library:
        first = (await library.snapshots())[0].id
    await forget(world, first)
    assert (await planned(world)).dead
    await forget(world, first, undo=True)
    assert (await planned(world)).dead == []


async def test_datasets_share_chunks_and_each_keeps_what_it_needs(world: World) -> None:
    copies = await changing_nights(world, 2, "docs")
    copies |= await changing_nights(world, 2, "photos")
    await keep(world, KeepRules(last=1))
    plan = await planned(world)
    assert plan.gaps == []
    remove(world, [one.name for one in plan.dead])
    await check_restores(world, copies)


async def test_packs_that_are_worth_it_are_repacked_with_index_keys_alone_and_hold_every_needed_chunk(
    world: World,
) -> None:
    await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    plan = await planned(world, max_unused=0.01)
    assert plan.gaps == []
    assert plan.groups
    keeper = world.keeper()
    made: list[SealedPack] = []
    try:
        async with Federation(keeper, world.edge) as federation:
            objects = keeper.catalog.objects
            needed = await _needed(world)
            for group in plan.groups:
                kind = Kind.DATA_PACK if group.packs[0].facts.kind == "data" else Kind.TREE_PACK
                policy = group.packs[0].facts.policy
                repacker = Repacker(kind, policy, keeper.keys(), world.rng, made.append)
                for use in group.packs:
                    data = await federation.fetch(ObjectName(use.facts.name), ())
                    live = needed & set(_split(objects.chunk_ids(use.facts.number)))
                    assert len(live) == use.live
                    repacker.add(data, live)
                repacker.flush()
            moving = {use.facts.name for group in plan.groups for use in group.packs}
            moved = {one for pack in made for one in pack.ids}
            assert moved == needed & {
                one for name in moving for one in _split(objects.chunk_ids(_row(keeper.catalog.objects, name)))
            }
        reader = keeper.reader(keeper.member.domains[0].id)
        for pack in made:
            opened = PackReader(pack.data, reader)
            for segment in opened.directory.segments:
                opened.chunk(segment.kind, segment.chunk_id)
    finally:
        keeper.close()
    assert sum(len(pack.data) for pack in made) < sum(group.old_bytes for group in plan.groups)


def _split(joined: bytes) -> list[bytes]:
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def _row(objects: Objects, name: bytes) -> int:
    row = objects.by_name(name)
    assert row is not None
    return int(row.id)


async def _needed(world: World) -> set[bytes]:
    """Return the ids that the newest snapshot needs, as its node remembers them."""
    node = world.node()
    try:
        folder = node.cache_path
        [file] = [one for one in os.listdir(folder) if one.startswith("refs-") and one.endswith(".ids")]
        return set(_split(read(os.path.join(folder, file))))
    finally:
        node.close()


# what is not known is a gap, and with a gap nothing is dead


async def empty_for(world: World, *said: str) -> None:
    """Check that nothing is planned, for a reason that says these words."""
    plan = await planned(world)
    assert (plan.dead, plan.groups) == ([], [])
    assert any(all(word in gap for word in said) for gap in plan.gaps), plan.gaps


async def prepared(world: World) -> dict[str, list[bytes]]:
    """Make snapshots of which some are forgotten; return the names of objects that kept ones need, by kind."""
    await changing_nights(world, 3)
    await keep(world, KeepRules(last=1))
    assert (await planned(world)).dead
    async with library_of(world) as library:
        [newest] = await library.snapshots()
        return {
            "snapshot": [newest.row.name],
            "index": list(newest.snapshot.indexes),
            "references": list(newest.snapshot.references),
        }


@pytest.mark.parametrize("kind", ["snapshot", "references"])
async def test_a_kept_record_that_nobody_gives_is_a_gap(world: World, kind: str) -> None:
    needed = await prepared(world)
    remove(world, needed[kind][-1:])
    await empty_for(world, "cannot be read")


async def test_an_index_that_cannot_be_read_is_a_gap(world: World) -> None:
    needed = await prepared(world)
    remove(world, needed["index"][-1:])
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    await empty_for(world, "out of sight")


async def test_a_provider_that_lost_a_needed_pack_is_a_gap(world: World) -> None:
    await prepared(world)
    plan = await planned(world)
    dead = {one.name.hex() for one in plan.dead}
    path = next(path for path in world.stored(0) if os.path.basename(path) not in dead)
    os.unlink(path)
    await empty_for(world, "lacks 1 needed object", "repair")


async def test_heads_that_went_back_are_a_gap(world: World) -> None:
    await prepared(world)
    for number in ALL:
        world.opened[number]._database.write("reset", lambda connection: connection.execute("DELETE FROM heads"))
    await empty_for(world, "no provider knows a head")


async def test_providers_that_do_not_answer_are_no_gap(world: World) -> None:
    await prepared(world)
    world.silence(0, 1)
    assert (await planned(world)).dead


async def test_a_snapshot_that_is_newer_than_what_this_home_can_read_is_a_gap(world: World) -> None:
    await prepared(world)
    await world.backup()
    node = world.node()
    newest = node.catalog.snapshots.all()[-1].name
    node.close()
    remove(world, [newest])
    with pytest.raises(NotFoundError):
        await world.restore(os.path.join(world.root, "nowhere"), newest.hex())
    await empty_for(world, "out of sight")
