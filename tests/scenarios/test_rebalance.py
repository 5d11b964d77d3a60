"""Moving copies: only what must, copies first, and nothing twice."""

import os
import sqlite3
from pathlib import Path

import msgspec

from replicator.engine.members import set_peer
from replicator.engine.rebalance import RebalanceReport, rebalance
from tests.fakes import SeededRng
from tests.scenarios.test_repair import holders, say
from tests.scenarios.world import PROMISE, World

PACKS = ("data", "tree")


async def move(world: World, *, dry_run: bool = False) -> RebalanceReport:
    node = world.node()
    try:
        return await rebalance(node, world.edge, dry_run=dry_run)
    finally:
        node.close()


def write_noise(folder: str, seed: int) -> None:
    Path(folder, "noise").write_bytes(SeededRng(seed).bytes(1 << 20))


async def several(world: World) -> None:
    """Make packs that lie on different sets of providers."""
    for number in range(4):
        folder = world.small_dataset(f"more {number}")
        write_noise(folder, number)
        await world.backup(f"more {number}")


def everything(world: World) -> dict[int, list[str]]:
    return {number: world.stored(number, PACKS) for number in range(world.providers)}


def cut(world: World, number: int, quota: int) -> None:
    """Let an operator give the tenant less than lies there."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE tenants SET quota = ?", (quota,))

    world.opened[number]._database.write("quota", work)


async def test_where_all_lies_well_nothing_moves_nor_does_it_when_somebody_joins(world: World, source: str) -> None:
    await several(world)
    before = everything(world)
    assert (await move(world)).moves == []
    await world.add_peer(world.start_provider(5))
    found = await move(world)
    assert (found.moves, found.refused, found.exit_code) == ([], [], 0)
    assert {number: paths for number, paths in everything(world).items() if number != 5} == before


async def test_one_that_is_to_be_emptied_is_and_keeps_what_it_has_until_it_is_released(
    world: World, source: str
) -> None:
    await several(world)
    number = holders(world)[0]
    await say(world, number, "draining")
    before = everything(world)
    planned = await move(world, dry_run=True)
    assert everything(world) == before
    assert len(planned.moves) == len(before[number])
    assert {one.way for one in planned.moves} == {"pulled"}
    assert all(one.why and one.leaves for one in planned.moves)
    done = await move(world)
    assert (done.made, done.exit_code, done.surplus) == (len(planned.moves), 0, len(planned.moves))
    assert done.let_go == len(planned.moves)
    node = world.node()
    claimed = {row.id for row in node.catalog.objects.all() if row.kind in PACKS}
    claimed &= node.catalog.objects.claimed(world.identity(number))
    node.close()
    assert claimed == set(), "nobody relies on it there any more"
    after = everything(world)
    assert after[number] == before[number], "copies first; what is surplus is released by prune"
    assert sum(map(len, after.values())) == sum(map(len, before.values())) + len(planned.moves)
    assert (await move(world)).moves == []
    world.silence(number)
    assert (await world.repair()).made == 0, "it may go now"


async def test_a_grant_that_was_cut_moves_what_is_too_much_and_once(world: World, source: str) -> None:
    await several(world)
    number = max(range(5), key=world.used)
    lying = everything(world)[number]
    cut(world, number, world.used(number) - (1 << 20))
    planned = await move(world, dry_run=True)
    assert 0 < len(planned.moves) < len(lying)
    assert {one.leaves for one in planned.moves} == {_name(world, number)}
    done = await move(world)
    assert (done.made, done.exit_code) == (len(planned.moves), 0)
    for _ in range(2):
        again = await move(world)
        assert (again.moves, again.surplus, again.let_go) == ([], 0, 0)
    assert (await world.repair()).made == 0


def _name(world: World, number: int) -> str:
    node = world.node()
    try:
        return next(pin.name for pin in node.peers if pin.identity == world.identity(number))
    finally:
        node.close()


async def test_peers_that_turn_out_to_be_one_household_give_one_of_two_copies_up(world: World, source: str) -> None:
    await several(world)
    node, keeper = world.node(), world.keeper()
    try:
        await set_peer(keeper, [node], world.edge, _name(world, 1), {"owner": "alice"}, {})
    finally:
        keeper.close()
        node.close()
    here = everything(world)
    both = {os.path.basename(path) for path in here[0]} & {os.path.basename(path) for path in here[1]}
    found = await move(world)
    assert len(found.moves) == len(both)
    assert (found.made, found.exit_code) == (len(both), 0)
    assert (await move(world)).moves == []


async def test_what_has_no_place_is_named_and_stays(world: World, source: str) -> None:
    await several(world)
    number = holders(world)[0]
    await say(world, number, "draining")
    for other in range(5):
        if other != number:
            cut(world, other, world.used(other))
    found = await move(world)
    assert found.moves == []
    assert found.exit_code == 3
    assert any("would help" in text for text in found.refused)
    assert world.stored(number, PACKS)


async def test_packs_that_count_copies_at_home_move_like_others_and_onto_home_too(world: World) -> None:
    promise = msgspec.structs.replace(PROMISE, count_own=True, spread=["owner"])
    node, keeper = world.node(), world.keeper()
    try:
        await set_peer(keeper, [node], world.edge, _name(world, 0), {"own": True}, {})
    finally:
        node.close()
        keeper.close()
    for number in range(4):
        write_noise(world.small_dataset(f"home {number}", policy=promise), number)
        await world.backup(f"home {number}")
    lying = {number: {os.path.basename(path) for path in paths} for number, paths in everything(world).items()}
    number = max(range(1, 5), key=lambda one: len(lying[one] - lying[0]))
    lacking = lying[number] - lying[0]
    assert lacking, "a pack that is not at home yet"
    for other in {1, 2, 3, 4} - {number}:
        await say(world, other, "readonly")
    await say(world, number, "draining")
    done = await move(world)
    assert {one.peer for one in done.moves} == {"alice"}
    assert done.made == len(lacking)
    assert bool(done.refused) == (lacking != lying[number])
