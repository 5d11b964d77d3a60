"""Copies beyond the promise: writers let go of them, maintenance releases them, providers delete them in the end."""

import os

import pytest

from replicator.engine.pruning import PruneReport
from tests.scenarios.conftest import Worlds
from tests.scenarios.test_forgetting import DAY_S
from tests.scenarios.test_pruning import days_pass, marked_at, marks_of, pruned
from tests.scenarios.world import PROMISE, World

PROVIDERS = 4
COPIES = PROMISE.copies


@pytest.fixture
def world(worlds: Worlds) -> World:
    """One provider more than copies."""
    return worlds(PROVIDERS)


def packs_of(world: World) -> set[str]:
    """Return the names of all packs of the node."""
    node = world.node()
    try:
        return {row.name.hex() for row in node.catalog.objects.all("kind IN ('data', 'tree')")}
    finally:
        node.close()


def holders(world: World) -> dict[str, set[int]]:
    """Return where each pack lies."""
    found: dict[str, set[int]] = {name: set() for name in packs_of(world)}
    for number in range(world.providers):
        for name in os.listdir(world.objects(number)):
            if name in found:
                found[name].add(number)
    return found


async def returned(world: World) -> str:
    """Back up, lose a provider, mend, and have it back: there is a copy more than promised of all that it held."""
    path = world.small_dataset()
    await world.backup()
    lost = next(number for number in range(PROVIDERS) if world.stored(number))
    world.silence(lost)
    await world.repair()
    world.answer(lost)
    world.clock.advance(9 * DAY_S)
    assert COPIES + 1 in {len(where) for where in holders(world).values()}
    return path


async def test_a_copy_too_many_is_let_go_released_and_deleted(world: World) -> None:
    path = await returned(world)
    report = await world.repair(by_hand=False)
    print(report)
    print((await pruned(world, dry_run=True)))
    report = await pruned(world)
    print(report)
    print([len(marked_at(world, n)) for n in range(PROVIDERS)])
    days_pass(world)
    print({len(where) for where in holders(world).values()})
    status = await world.status()
    print(status.problems, status.exit_code, status.datasets)
    print((await world.status(keeper=True)).problems)
    assert await world.differences(path) == []
    assert False
