"""What a provider that is no peer any more holds: freed there if nobody needs it, and taken back in time."""

import os

from replicator.engine.members import remove_peer
from replicator.engine.parting import Parting, free_what_it_holds, look_at_parting
from replicator.format.charter import PeerPin
from tests.scenarios.joining import keeping
from tests.scenarios.test_pruning import days_pass, marked_at
from tests.scenarios.test_rebalance import move
from tests.scenarios.test_repair import holders, say
from tests.scenarios.world import World


async def part(world: World, number: int) -> tuple[Parting, PeerPin]:
    """`peer remove NAME`."""
    with keeping(world) as (keeper, siblings):
        pin = next(one for one in keeper.peers if one.identity == world.identity(number))
        found = await look_at_parting(keeper, world.edge, pin)
        await remove_peer(keeper, siblings, world.edge, pin.name)
        if not found.stays:
            await free_what_it_holds(keeper, world.edge, pin, found)
    return found, pin


async def emptied(world: World) -> int:
    """Have copies made elsewhere of all that one provider holds; return its number."""
    await world.backup()
    number = holders(world)[0]
    await say(world, number, "draining")
    assert (await move(world)).exit_code == 0
    return number


async def test_what_a_removed_peer_holds_is_freed_where_every_promise_holds_without_it(
    world: World, source: str
) -> None:
    number = await emptied(world)
    lying = set(os.listdir(world.objects(number)))
    others = {one: set(os.listdir(world.objects(one))) for one in range(5) if one != number}
    found, _ = await part(world, number)
    assert (found.stays, found.objects) == ("", len(lying))
    kept = lying - {name.hex() for name in marked_at(world, number)}
    assert found.marked == len(lying) - len(kept)
    assert len(kept) == 2, "the charter that is in force there, and its keybag"
    days_pass(world)
    assert set(os.listdir(world.objects(number))) == kept
    assert all(before <= set(os.listdir(world.objects(one))) for one, before in others.items())
    assert await world.differences(source) == []


async def test_what_a_removed_peer_holds_stays_while_a_promise_stands_on_it(world: World, source: str) -> None:
    await world.backup()
    number = holders(world)[0]
    found, _ = await part(world, number)
    assert "fewer copies than promised" in found.stays
    assert not marked_at(world, number)


async def test_what_a_removed_peer_holds_stays_while_a_record_has_too_few_other_copies(
    world: World, source: str
) -> None:
    number = await emptied(world)
    node = world.node()
    [index, *_] = node.catalog.objects.all("kind = 'index'")
    node.close()
    for other in range(world.providers):
        if other != number:
            os.unlink(os.path.join(world.objects(other), index.name.hex()))
    found, _ = await part(world, number)
    assert found.stays == "1 objects would have fewer copies than promised without it"
    assert not marked_at(world, number)


async def test_a_peer_that_is_taken_back_in_time_loses_nothing(world: World, source: str) -> None:
    number = await emptied(world)
    await part(world, number)
    assert marked_at(world, number)
    await world.add_peer(world.opened[number])
    days_pass(world, 5)
    await world.repair()
    await world.backup()
    node = world.node()
    claimed = {
        row.name for row in node.catalog.objects.all() if row.id in node.catalog.objects.claimed(world.identity(number))
    }
    node.close()
    assert claimed
    assert not claimed & marked_at(world, number)
    days_pass(world)
    assert {name.hex() for name in claimed} <= set(os.listdir(world.objects(number)))
