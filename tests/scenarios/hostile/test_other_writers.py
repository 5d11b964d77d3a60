"""A node that means ill beside one that does not: what it says of the other's packs changes nothing for that one."""

import os
from random import Random

import msgspec
import pytest

from replicator.wire.messages import Heads
from tests.scenarios.hostile.specwriter import DATA, Chain, Writer
from tests.scenarios.hostile.stage import Stage, keys_of
from tests.scenarios.liars import Liar, changed
from tests.scenarios.test_vertical import second_node
from tests.scenarios.world import World, write

NEXT = b"what the honest node will back up next"


async def attack(world: World, home: str) -> None:
    """Publish an index that names the honest node's packs, and other chunks in them."""
    writer = Writer(keys_of(world, home), random=Random(1))
    node = world.node()
    packs = [(row.name, row.size, row.kind) for row in node.catalog.objects.all() if row.kind in ("data", "tree")]
    node.close()
    tree = writer.folder([writer.file(b"evil", b"evil")])
    lie = writer.chunk_id(DATA, NEXT)

    def claim_all(index: list[object]) -> list[object]:
        policy = index[6][0][3]  # type: ignore[index] # a list of packs
        stolen = [[name, size, 1 if kind == "data" else 2, policy, [], lie] for name, size, kind in packs]
        return [*index[:6], [*index[6], *stolen]]  # type: ignore[misc] # likewise

    writer.bend = {"index": claim_all}
    stage = Stage(world, writer.keys, privileged=os.geteuid() == 0)
    night = writer.finish(tree, Chain(), world.clock.now_ns())
    await stage.publish(night, home)
    assert packs != []


@pytest.mark.parametrize("keeper", ["knows the honest node", "is new", "met the other first"])
async def test_a_keeper_restores_what_the_honest_node_wrote(world: World, source: str, keeper: str) -> None:
    other = await second_node(world)
    await world.backup()
    if keeper == "knows the honest node":
        assert len(await world.snapshots()) == 1
    await attack(world, other)
    if keeper == "met the other first":
        public = keys_of(world, other).public
        seen = changed(
            "heads",
            Heads,
            lambda reply: msgspec.structs.replace(reply, heads=[one for one in reply.heads if one[:32] == public]),
        )
        for service in world.services:
            world.network.add(Liar(service, ops=seen))
        assert {one.details.dataset for one in await world.snapshots()} == {"evil"}
        world.answer(*range(5))
    assert {one.details.dataset for one in await world.snapshots()} == {"docs", "evil"}
    assert await world.differences(source, "latest:docs") == []


async def test_an_honest_node_relies_on_none_of_it(world: World, source: str) -> None:
    other = await second_node(world)
    await world.backup()
    await attack(world, other)
    await world.status()
    write(os.path.join(source, "next"), NEXT)
    [done] = (await world.backup()).datasets
    assert (done.error, done.published, done.new_chunks > 1) == (None, True, True)
    assert await world.differences(source, "latest:docs") == []
    assert (await world.verify()).absent == []
