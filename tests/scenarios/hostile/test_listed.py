"""A node in wrong hands calls what lies at providers its own: nothing is deleted for that, and it is told."""

import os
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import pytest

from replicator.engine.federation import Federation
from replicator.engine.forgetting import records_in_force
from replicator.engine.members import revoke_node
from replicator.engine.sync import sync_all
from replicator.format.container import Kind
from replicator.format.merkle import name_of
from replicator.ids import ObjectName
from replicator.pack.sealed import seal_object
from replicator.snapshot.retention import KeepRules
from replicator.wire.messages import Heads
from tests.fakes import SeededRng
from tests.scenarios.conftest import Worlds
from tests.scenarios.hostile.specwriter import PROMISE, Chain, Writer, encoded, hashed
from tests.scenarios.hostile.stage import Stage, keys_of
from tests.scenarios.joining import keeping
from tests.scenarios.liars import Liar, changed
from tests.scenarios.test_forgetting import keep
from tests.scenarios.test_prune import changing_nights
from tests.scenarios.test_pruning import days_pass, marked_at, pruned
from tests.scenarios.test_unnamed import new_charters
from tests.scenarios.test_vertical import second_node
from tests.scenarios.world import World

PROVIDERS = 3
CODED = [*PROMISE[:3], [16, 2], *PROMISE[4:]]
WHOLE_ID = hashed(encoded(PROMISE))[:16]
CODED_ID = hashed(encoded(CODED))[:16]
CUT, SHARDS = 1 << 20, 18
"""Bytes of a pack that is cut into so many shards, each as large as a small object."""
Listed = list[Any]


@pytest.fixture
def world(worlds: Worlds) -> World:
    return worlds(PROVIDERS)


def as_packs(names: Sequence[bytes], size: int, policy: bytes) -> list[Listed]:
    """Return what an index says of whole packs."""
    return [[name, size, 1, policy, [], hashed(b"chunk in " + name)] for name in names]


def as_shards(names: Sequence[bytes]) -> list[Listed]:
    """Return what an index says of packs that nobody ever saw, cut into these and others."""
    found = []
    for at in range(0, len(names), SHARDS):
        few = list(names[at : at + SHARDS])
        shards = [*few, *(hashed(b"%d" % number) for number in range(SHARDS - len(few)))]
        found.append([hashed(b"".join(shards)), CUT, 1, CODED_ID, shards, hashed(b"chunk in " + few[0])])
    return found


class TakenOver:
    """A second node of the tenant whose key somebody has."""

    def __init__(self, world: World, home: str) -> None:
        self.world, self.home = world, home
        self.stage = Stage(world, keys_of(world, home), privileged=os.geteuid() == 0)
        self.chain = Chain()

    async def publish(self, listed: Sequence[Listed] = ()) -> None:
        """Publish a snapshot of nothing much, whose index lists that besides."""
        writer = Writer(self.stage.keys, random=Random(self.chain.number + 1))

        def more(index: list[Any]) -> list[Any]:
            return [*index[:5], [*index[5], CODED], [*index[6], *listed]]

        writer.bend = {"index": more} if listed else {}
        tree = writer.folder([writer.file(b"evil", b"evil %d" % self.chain.number)])
        await self.stage.publish(writer.finish(tree, self.chain, self.world.clock.now_ns()), self.home)


async def looked(world: World) -> list[str]:
    """Have the keeper learn what there is; return what it says is wrong."""
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            await sync_all(keeper, federation)
            return federation.integrity
    finally:
        keeper.close()


def lying(world: World) -> dict[bytes, int]:
    """Return names and sizes of all objects at the first provider."""
    return {bytes.fromhex(one.name): one.stat().st_size for one in os.scandir(world.objects(0))}


@pytest.mark.parametrize("called", ["packs", "packs of another size", "shards"])
async def test_only_what_shows_that_it_is_a_pack_goes_as_one(world: World, called: str) -> None:
    await changing_nights(world, 1)
    await new_charters(world, 3)
    node, rng = world.node(), SeededRng("of the tenant")
    unpublished = seal_object(Kind.SNAPSHOT, b"whose head is on its way", node.keys(), rng)
    lapsed = seal_object(Kind.FORGET, b"by a key that has no right any more", node.keys(), rng)
    async with Federation(node, world.edge) as federation:
        for link in federation.links.values():
            for data in (unpublished, lapsed):
                await link.connection.put(ObjectName(name_of(data)), data)
    node.close()
    await looked(world)
    keeper = world.keeper()
    victims = sorted(keeper.catalog.objects.unknown(set(lying(world))) - records_in_force(keeper))
    keeper.close()
    assert {name_of(unpublished), name_of(lapsed)} < set(victims)
    assert len(victims) >= 8, "and charters with their keybags"
    enemy = TakenOver(world, await second_node(world))
    size = 16 << 20 if called == "packs of another size" else 1 << 16
    listed = as_shards(victims) if called == "shards" else as_packs(victims, size, WHOLE_ID)
    await enemy.publish(listed)
    own = lying(world).keys() - set(victims)
    await enemy.publish()
    await keep(world, KeepRules(last=1))
    report = await pruned(world)
    assert report.plan.gaps == []
    for number in range(PROVIDERS):
        assert not marked_at(world, number) & set(victims)
        assert marked_at(world, number) & own, "what the node did write and nobody needs goes"
    assert any("not show that " in one for one in report.stays) == (size == lying(world)[victims[0]])
    await pruned(world)
    days_pass(world)
    assert set(victims) <= lying(world).keys()
    assert await world.differences(os.path.join(world.root, "source", "docs"), "latest:docs") == []


def only_heads_of(world: World, public: bytes) -> None:
    """Have every provider show the chain of one writer alone."""
    seen = changed(
        "heads",
        Heads,
        lambda reply: msgspec.structs.replace(reply, heads=[one for one in reply.heads if one[:32] == public]),
    )
    for service in world.services:
        world.network.add(Liar(service, ops=seen))


@pytest.mark.parametrize("called", ["packs", "shards"])
@pytest.mark.parametrize("first", ["honest", "hostile"])
async def test_two_nodes_that_call_the_same_their_own_are_told_until_one_is_revoked(
    world: World, called: str, first: str
) -> None:
    other = await second_node(world)
    await changing_nights(world, 2)
    await keep(world, KeepRules(last=1))
    enemy = TakenOver(world, other)
    node = world.node()
    rows = {row.name: row for row in node.catalog.objects.all()}
    node.close()
    names = sorted(rows)
    assert {row.kind for row in rows.values()} >= {"data", "tree", "index", "references", "snapshot"}
    if first == "honest":
        assert await looked(world) == []
    await enemy.publish(as_shards(names) if called == "shards" else as_packs(names, 1 << 16, WHOLE_ID))
    if first == "hostile":
        os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
        only_heads_of(world, enemy.stage.keys.public)
        await looked(world)
        world.answer(*range(PROVIDERS))
    [told] = await looked(world)
    assert "both list" in told
    assert "second" in told
    keeper = world.keeper()
    here = {row.name: row for row in keeper.catalog.objects.all()}
    packs = {row.name for row in rows.values() if row.kind in {"data", "tree"}}
    indexes = [row.name for row in rows.values() if row.kind == "index"]
    assert {row.name for row in keeper.catalog.objects.of_indexes(indexes)} == packs
    keeper.close()
    for name, row in rows.items():
        assert here[name].kind == row.kind or (row.kind == "tree" and here[name].kind == "data")
        if row.kind not in {"data", "tree"} or called == "shards" or first == "honest":
            assert here[name].writer == row.writer
    assert told in (await pruned(world)).plan.gaps
    assert not any(marked_at(world, number) for number in range(PROVIDERS))
    with keeping(world) as (opened, siblings):
        await revoke_node(opened, siblings, world.edge, "second")
    assert await looked(world) == []
    report = await pruned(world)
    assert (report.plan.gaps, report.exit_code) == ([], 0)
    days_pass(world)
    await pruned(world)
    assert await world.differences(os.path.join(world.root, "source", "docs"), "latest:docs") == []


async def test_a_node_that_lists_the_tenants_own_records_is_told(world: World) -> None:
    await changing_nights(world, 2)
    await keep(world, KeepRules(last=1))
    enemy = TakenOver(world, await second_node(world))
    keeper = world.keeper()
    records = sorted(records_in_force(keeper))
    keeper.close()
    assert len(records) == 3, "charter, keybag and a Forget"
    await enemy.publish(as_packs(records, 1 << 16, WHOLE_ID))
    [told] = await looked(world)
    assert "second lists records of the tenant itself" in told
    assert told in (await pruned(world)).plan.gaps
    with keeping(world) as (opened, siblings):
        await revoke_node(opened, siblings, world.edge, "second")
    assert await looked(world) == []
