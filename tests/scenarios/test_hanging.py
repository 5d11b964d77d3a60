"""A session that hangs while its node is given up, wherever it hangs, publishes nothing onto what was deleted."""

import asyncio
from dataclasses import dataclass, replace

import pytest

from replicator.engine.backup import BackupReport, backup
from replicator.engine.pruning import PruneReport
from replicator.errors import MinimumNotMetError
from replicator.format.codec import Record
from replicator.snapshot.retention import KeepRules
from replicator.transport.base import Connection, Target
from tests.scenarios.conftest import Worlds
from tests.scenarios.test_forgetting import keep
from tests.scenarios.test_prune import changing_nights, check_restores
from tests.scenarios.test_pruning import days_pass, pruned
from tests.scenarios.world import World

PROVIDERS = 3


@pytest.fixture
def world(worlds: Worlds) -> World:
    return worlds(PROVIDERS)


@dataclass
class Hanging:
    """A network of one session, which stands still before the first request of a kind until it is let go."""

    network: object
    op: str
    reached: asyncio.Event
    go_on: asyncio.Event

    def __getattr__(self, name: str) -> object:
        return getattr(self.network, name)

    async def connect(self, target: Target) -> "HangingConnection":
        return HangingConnection(await self.network.connect(target), self)  # type: ignore[attr-defined]


@dataclass
class HangingConnection:
    connection: Connection
    hanging: Hanging

    def __getattr__(self, name: str) -> object:
        return getattr(self.connection, name)

    async def call(self, op: str, request: Record, answer: type[Record]) -> Record:
        if op == self.hanging.op:
            self.hanging.reached.set()
            await self.hanging.go_on.wait()
        return await self.connection.call(op, request, answer)


async def given_up_while_hanging(world: World, op: str) -> tuple[BackupReport, PruneReport]:
    """Back up, hang before the first ``op``, be retired and pruned, days go by; then go on where it hung."""
    hanging = Hanging(world.network, op, asyncio.Event(), asyncio.Event())
    world.clock.advance(60)
    node = world.node()
    edge = replace(world.edge, network=hanging)  # type: ignore[arg-type] # a network but for what it passes on as it is
    session = asyncio.ensure_future(backup(node, edge, ("docs",), overlap=False))
    try:
        await asyncio.wait(
            [asyncio.ensure_future(hanging.reached.wait()), session], return_when=asyncio.FIRST_COMPLETED
        )
        assert not session.done(), session.result()
        report = await pruned(world, beside=False, retiring=[world.node_name()])
        assert days_pass(world) > 0
        hanging.go_on.set()
        return await session, report
    finally:
        node.close()


# Of a number that a head was sent of somebody may have heard: only such a snapshot is not withdrawn.
@pytest.mark.parametrize(("op", "number"), [("claims", 5), ("claim", 5), ("head", 6)])
async def test_a_session_that_wakes_after_a_prune_publishes_nothing_onto_what_is_gone(
    world: World, op: str, number: int
) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    done, report = await given_up_while_hanging(world, op)
    assert report.retired == [world.node_name()]
    for service in world.opened:
        rows = service._database.rows("SELECT kind FROM orders ORDER BY kind")
        assert [kind for (kind,) in rows] == ["fence", "retire"]
    [one] = done.datasets
    # What it needs of what was deleted lies in this folder still: the next run reads it there and stores it anew.
    assert isinstance(one.error, MinimumNotMetError)
    assert not one.published
    again = await world.backup("docs")
    [one] = again.datasets
    assert one.published
    assert one.snapshot is not None
    assert one.snapshot.number == number
    await check_restores(world, copies | {5: copies[4], 6: copies[4]})
