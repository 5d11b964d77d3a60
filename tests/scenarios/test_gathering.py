"""Restores over lines whose speeds drift, in time that passes only while the restore waits."""

import asyncio
import math
import os
import select
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from replicator.engine import restore as module
from replicator.engine import writers as pool
from replicator.engine.gathering import EACH
from replicator.engine.restore import RestoreReport
from replicator.ids import Identity, ObjectName
from replicator.pack import packer
from replicator.transport.memory import MemoryConnection
from tests.compare import Rules, compare
from tests.fakes import FakeClock, SeededRng
from tests.scenarios.world import World, write
from tests.scheduler import readworld
from tests.scheduler.readworld import STEP, least

MIB = 1 << 20
PACKS = 72
RULES = Rules(owners=os.geteuid() == 0)


@dataclass(eq=False)
class Flow:
    """A pack on its way."""

    peer: str
    name: bytes
    left: float
    done: "asyncio.Future[None]"


@dataclass
class Lines:
    """The providers' lines: what is on its way on one shares it. ``slow``: a pack takes as long as 16 MiB would."""

    clock: FakeClock
    speeds: dict[str, list[float]]
    packs: dict[bytes, int]
    began: float
    flows: list[Flow] = field(default_factory=list)
    most: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    moved: float = 0.0
    """Bytes, also of what was given up."""
    threads: "set[asyncio.Future[Any]]" = field(default_factory=set)
    """What threads are at, the restore among them."""

    async def bring(self, identity: Identity, name: ObjectName) -> None:
        """Wait until a pack has come."""
        flow = Flow(identity.hex(), name, float(self.packs[name]), asyncio.get_running_loop().create_future())
        self.asked[flow.peer] += 1
        self.flows.append(flow)
        self.most = max(self.most, len(self.flows))
        assert max(Counter(one.peer for one in self.flows).values()) <= EACH
        try:
            await flow.done
        finally:
            self.flows.remove(flow)

    async def step(self) -> None:
        """Let time pass until something has come, or a moment."""
        if self.flows:
            now = self.clock.monotonic() - self.began
            shares = Counter(flow.peer for flow in self.flows)
            rates = {flow: self.speed(flow.peer, now) / shares[flow.peer] for flow in self.flows}
            until = (math.floor(now / STEP + 1e-9) + 1) * STEP - now
            wait = min(until, pool.MOMENT_S, *(flow.left / rate for flow, rate in rates.items()))
            self.clock.advance(wait + 1e-9)
            for flow, rate in rates.items():
                flow.left -= rate * wait
                self.moved += rate * wait
                if flow.left < 1:
                    flow.done.set_result(None)
        await self.settle()

    async def settle(self) -> None:
        """Let all run that can, which takes no time on this clock: copies of packs by threads, and refusals."""
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            if len(self.threads) <= 1:  # the restore itself
                return
            await asyncio.sleep(0.001)

    def speed(self, peer: str, now: float) -> float:
        row = self.speeds[peer]
        return row[min(int(now / STEP), len(row) - 1)]


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let packs be of 128 KiB, which on these lines take as long as large ones do elsewhere."""
    real = packer._OpenPack.fits
    monkeypatch.setattr(packer._OpenPack, "fits", lambda pack, stored, size=MIB // 8: real(pack, stored, size))


async def backed_up(world: World) -> str:
    """Back up what makes many packs of three copies each."""
    path = os.path.join(world.root, "source", "raw")
    for number in range(PACKS):
        write(os.path.join(path, f"{number:02}"), SeededRng(f"raw {number}").bytes(100_000))
    world.add_dataset("raw", path)
    await world.backup()
    return path


def holders(world: World) -> dict[bytes, tuple[int, frozenset[str]]]:
    """Return who holds each pack of data, and its size."""
    keeper = world.node()
    try:
        objects = keeper.catalog.objects
        rows = objects.all("kind = 'data'")
        return {row.name: (row.size, frozenset(one.peer.hex() for one in objects.holdings_of(row.id))) for row in rows}
    finally:
        keeper.close()


def lines(world: World, monkeypatch: pytest.MonkeyPatch, speeds: list[list[float]]) -> Lines:
    """Let the providers have such lines, a row of speeds for each."""
    found = holders(world)
    assert len(found) > PACKS * 3 // 4
    made = Lines(
        clock=world.clock,
        speeds={world.identity(number).hex(): row for number, row in enumerate(speeds)},
        began=world.clock.monotonic(),
        packs={name: size for name, (size, _) in found.items()},
    )
    get, poll = MemoryConnection.get, pool.Writers.poll
    loop = asyncio.get_running_loop()
    run_in_executor = loop.run_in_executor

    def run_there(executor: Any, work: Any, *args: Any) -> "asyncio.Future[Any]":
        done = run_in_executor(executor, work, *args)
        made.threads.add(done)
        done.add_done_callback(made.threads.discard)
        return done

    monkeypatch.setattr(loop, "run_in_executor", run_there)

    async def slow(connection: MemoryConnection, name: ObjectName, *rest: Any) -> bytes:
        if name in made.packs and connection.target.identity.hex() in found[name][1]:
            await made.bring(connection.target.identity, name)
        return await get(connection, name, *rest)

    def wait_for(writers: "pool.Writers[Any]", *others: Any, wait: bool = False) -> bool:
        if wait:
            asyncio.run_coroutine_threadsafe(made.settle(), loop).result()
            if not select.select(others, [], [], 0)[0]:  # or something has come already, a refusal as a rule
                asyncio.run_coroutine_threadsafe(made.step(), loop).result()
        return poll(writers, *others, wait=False)

    monkeypatch.setattr(MemoryConnection, "get", slow)
    monkeypatch.setattr(pool.Writers, "poll", wait_for)
    return made


async def restored(world: World, source: str) -> tuple[RestoreReport, float]:
    """Restore everything; return the seconds that it took."""
    target = os.path.join(world.root, "target")
    began = world.clock.monotonic()
    report = await world.restore(target)
    assert (report.gaps, report.lost, report.damaged) == ([], [], [])
    assert compare(source, os.path.join(target, "raw"), RULES) == []
    return report, world.clock.monotonic() - began


def drifting(seed: int) -> list[list[float]]:
    """Speeds of five lines: a pack of 128 KiB takes 2 to 16 seconds as a large one does on lines at home."""
    found = readworld.drifting(seed, peers=5, packs=1, copies=1)
    return [[speed / 128 for speed in row] for row in found.speeds.values()]


def best(world: World, made: Lines) -> float:
    """Return the time below which no choice of holders could come."""
    packs = {name.hex(): found for name, found in holders(world).items()}
    return least(readworld.World(packs, made.speeds))


async def test_a_restore_takes_hardly_more_than_the_least_possible_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await backed_up(world)
    made = lines(world, monkeypatch, drifting(1))
    monkeypatch.setattr(module, "WINDOW", 80)
    report, took = await restored(world, source)
    at_best = best(world, made)
    assert took >= at_best * (1 - 1e-6)
    assert took <= 1.25 * at_best
    assert made.moved <= 1.1 * sum(made.packs.values())
    assert made.most == 5
    assert report.packs >= len(made.packs)


@pytest.mark.parametrize(("silent", "ahead"), [(0, 3), (1, 2), (2, 2)])
async def test_a_fifth_place_for_packs_is_only_where_five_answer(
    silent: int, ahead: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await backed_up(world)
    given: list[int] = []
    begin = pool.Writers.__init__

    def note(writers: "pool.Writers[Any]", *others: Any, ahead: int) -> None:
        given.append(ahead)
        begin(writers, *others, ahead=ahead)

    monkeypatch.setattr(pool.Writers, "__init__", note)
    world.silence(*range(silent))
    await restored(world, source)
    assert given == [ahead]
