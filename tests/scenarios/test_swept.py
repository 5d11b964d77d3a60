"""What homes remember of what providers have deleted: nothing but what they need to tell gone from lost."""

import os

import pytest

from replicator.catalog.objects import ObjectRow
from replicator.engine.home import Half
from replicator.ids import ObjectName
from replicator.snapshot.retention import KeepRules
from replicator.transport.memory import MemoryConnection
from tests.fakes import SeededRng
from tests.scenarios.conftest import Worlds
from tests.scenarios.test_domains import added, dataset_in
from tests.scenarios.test_forgetting import forget, keep, library_of, remove
from tests.scenarios.test_prune import changing_nights, check_restores, planned
from tests.scenarios.test_pruning import days_pass, lose_catalog, pruned
from tests.scenarios.world import World, write

PROVIDERS = 3


@pytest.fixture
def world(worlds: Worlds) -> World:
    """As many providers as a copy needs, as days pass quicker at fewer."""
    return worlds(PROVIDERS)


def halves(world: World) -> list[Half]:
    return [world.keeper(), world.node()]


def rows(half: Half) -> dict[bytes, ObjectRow]:
    return {row.name: row for row in half.catalog.objects.all()}


def lying(world: World) -> set[bytes]:
    found = set().union(*(os.listdir(world.objects(number)) for number in range(PROVIDERS)))
    return {bytes.fromhex(name) for name in found}


async def test_rows_of_what_every_provider_has_deleted_go_on_every_machine_and_the_rest_is_as_before(
    world: World,
) -> None:
    copies = await changing_nights(world, 6)
    await keep(world, KeepRules(last=1))
    assert (await pruned(world)).exit_code == 0
    before = [rows(half) for half in halves(world)]
    days_pass(world)
    there = lying(world)
    assert (await pruned(world)).exit_code == 0
    await world.status()  # asks every peer what it has, as a night does
    await world.backup("docs")
    copies[7] = copies[6]
    for half, had in zip(halves(world), before, strict=True):
        swept = had.keys() - there
        assert len(swept) > 10
        named = {row.id for row in rows(half).values() if row.kind == "index"}
        left = swept & rows(half).keys()
        # of packs that an index lists still which lists needed ones too
        assert all(had[name].kind in {"data", "tree"} and had[name].index_id in named for name in left)
        assert len(left) < len(swept) / 2
        assert {name for name in had if name in there} <= rows(half).keys()
        assert half.catalog.database.rows("SELECT count(*) FROM pack_ids")[0][0] == sum(
            row.kind in {"data", "tree"} for row in rows(half).values()
        )
    known = await planned(world)
    lose_catalog(world)
    anew = await planned(world)
    assert (anew.gaps, known.gaps) == ([], [])
    assert {one.name for one in anew.dead} == {one.name for one in known.dead}
    await check_restores(world, copies)
    for keeper in (False, True):
        status = await world.status(keeper=keeper)
        assert [one for one in status.problems if "gone" in one or "missing" in one] == []


async def test_nothing_is_dropped_while_a_provider_may_have_it(world: World) -> None:
    await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    before = rows(world.keeper())
    days_pass(world)
    world.silence(2)
    await pruned(world)
    assert rows(world.keeper()).keys() >= before.keys()
    world.answer(2)
    await pruned(world)
    assert not rows(world.keeper()).keys() >= before.keys()


async def test_what_was_swept_is_asked_for_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    days_pass(world)
    await pruned(world)
    asked: list[str] = []
    get = MemoryConnection.get

    async def noted(self: MemoryConnection, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        asked.append(name.hex())
        return await get(self, name, offset, length)

    monkeypatch.setattr(MemoryConnection, "get", noted)
    await pruned(world, beside=False)
    assert not set(asked) - {name.hex() for name in lying(world)}


async def test_a_pack_whose_snapshot_is_gone_already_is_dead_in_a_tenant_of_several_domains(world: World) -> None:
    domain = await added(world)
    source = dataset_in(world, domain, "papers")
    await world.backup()
    for seed in ("goes", "stays"):
        write(os.path.join(source, "new"), SeededRng(seed).bytes(300_000))
        await world.backup()
    async with library_of(world) as library:
        second = (await library.snapshots())[1]
    await forget(world, second.id)
    before = await planned(world)
    assert any(one.kind == "data" for one in before.dead)
    remove(world, [second.row.name])
    after = await planned(world)
    assert {one.name for one in before.dead if one.kind == "data"} <= {one.name for one in after.dead}
