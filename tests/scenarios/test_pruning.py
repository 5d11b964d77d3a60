"""Pruning for real: what is marked, who lets go of it, what providers delete in the end, and what all see of it."""

import os
import shutil
from collections.abc import Collection

from replicator.catalog.objects import split_ids
from replicator.engine.dismissed import dismissed_packs
from replicator.engine.forgetting import Forgotten
from replicator.engine.pruning import PruneReport, prune
from replicator.engine.sync import knows_index
from replicator.snapshot.retention import KeepRules
from tests.fakes import NS
from tests.scenarios.test_forgetting import DAY_S, keep
from tests.scenarios.test_prune import changing_nights, check_restores
from tests.scenarios.world import World

WAIT_DAYS = 46
"""Longer than grace and lock, counted in days on which a provider ran."""


async def pruned(
    world: World, *, beside: bool = True, dry_run: bool = False, retiring: Collection[str] = (), max_unused: float = 0.3
) -> PruneReport:
    """Prune on the keeper; ``beside``: its node claims anew at once, as in one home."""
    keeper, node = world.keeper(), world.node()
    try:
        return await prune(
            keeper,
            world.edge,
            keeper.maintenance,
            ticket=lambda _: keeper.ticket(),
            order=keeper.ticket,
            nodes=[node] if beside else [],
            retiring=retiring,
            dry_run=dry_run,
            max_unused=max_unused,
        )
    finally:
        keeper.close()
        node.close()


def days_pass(world: World, count: int = WAIT_DAYS) -> int:
    """Let days go by on which every provider runs and looks once; return how many objects went."""
    gone = 0
    for _ in range(count):
        world.clock.advance(DAY_S)
        for service in world.services:
            gone += sum(len(one) for _, one in service.sweep())  # type: ignore[attr-defined,misc] # not on the wire
    return gone


def used(world: World) -> int:
    """Return the bytes of all objects at all providers."""
    return sum(world.used(number) for number in range(world.providers))


async def test_what_is_forgotten_is_freed_at_every_provider_after_its_waits_and_the_rest_restores(world: World) -> None:
    copies = await changing_nights(world, 5)
    await keep(world, KeepRules(last=2))
    before = used(world)
    report = await pruned(world)
    assert (report.exit_code, report.plan.gaps) == (0, [])
    assert all(one.marked == one.objects > 0 for one in report.at)
    freed = sum(one.bytes for one in report.at)
    wait_ns = 30 * DAY_S * NS
    assert all(world.clock.now_ns() + wait_ns - NS <= one.first_ns <= one.last_ns for one in report.at)
    assert used(world) >= before  # nothing goes at once

    assert days_pass(world, 29) == 0
    assert days_pass(world, 17) > 0
    assert used(world) <= before - freed + 5 * 4 * (1 << 16)  # but for what was said about it
    await check_restores(world, copies)
    status = await world.status()
    assert [one for one in status.problems if "gone" in one] == []
    again = await pruned(world)
    assert again.exit_code == 0


async def test_packs_that_are_put_together_anew_are_taken_over_by_their_node_and_the_old_ones_go(world: World) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    report = await pruned(world, max_unused=0.01)
    assert (report.exit_code, report.plan.gaps) == (0, [])
    node = world.node()
    try:
        moved = Forgotten.of(node).moved
        assert moved
        assert all(knows_index(node, one.index) for one in moved)
        assert {name for one in moved for name in split_ids(one.packs)} <= dismissed_packs(node)
    finally:
        node.close()
    done = await world.backup("docs")
    assert done.datasets[0].new_chunks == 0  # nothing is stored again: the node relies on the new packs
    assert days_pass(world) > 0
    await world.backup("docs")
    copies |= dict.fromkeys((5, 6), copies[4])
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    shutil.rmtree(os.path.join(world.home, "keeper", "cache"))
    await check_restores(world, copies)
    for keeper in (False, True):
        status = await world.status(keeper=keeper)
        assert [one for one in status.problems if "gone" in one or "missing" in one] == []
    assert (await pruned(world, max_unused=0.01)).exit_code == 0
