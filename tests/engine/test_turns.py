"""A pass over many homes: turns in order, room for others, one's failure stops no other, a true account of it."""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from replicator.clock import NS
from replicator.engine.turns import TURNS_FILE, Came, Memory, Outcome, Pass
from replicator.fs import PosixFs
from tests.fakes import START_NS

HOUR = 3600.0
STOPPED = Came(code=-15)


class Timeline:
    """A clock on which those who sleep wake in order, as soon as nobody has anything else to do."""

    def __init__(self) -> None:
        self.at = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    def now_ns(self) -> int:
        return START_NS + round(self.at * NS)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.at + seconds, next(self._count), woken))
        await woken

    async def drive(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something to its end."""
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(20):
                await asyncio.sleep(0)
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if not task.done() and self._sleepers:
                moment, _, woken = heapq.heappop(self._sleepers)
                self.at = max(self.at, moment)
                woken.set_result(None)
        return task.result()


@dataclass
class Fleet:
    """Jobs that take so long, and end so."""

    clock: Timeline
    needs: dict[str, float]
    ends: dict[str, Came] = field(default_factory=dict)
    stubborn_s: float = 0.0
    """How long after it was asked to stop a job stops."""
    began: list[str] = field(default_factory=list)
    most: int = 0
    _now: int = 0

    def launch(self, name: str) -> "FakeJob":
        self.began.append(name)
        return FakeJob(self, name)

    async def work(self, name: str, asked: asyncio.Event) -> Came:
        self._now += 1
        self.most = max(self.most, self._now)
        began = self.clock.at
        done = asyncio.ensure_future(self.clock.sleep(self.needs[name]))
        told = asyncio.ensure_future(asked.wait())
        try:
            await asyncio.wait([done, told], return_when="FIRST_COMPLETED")
            if done.done():
                return self.ends.get(name, Came(code=0))
            await self.clock.sleep(self.stubborn_s)
            self.needs[name] -= self.clock.at - began
            return self.ends.get(name, Came(code=0)) if self.needs[name] <= 0 else STOPPED
        finally:
            self._now -= 1
            done.cancel()
            told.cancel()


class FakeJob:
    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self._name = name
        self._asked = asyncio.Event()

    async def wait(self) -> Came:
        return await self._fleet.work(self._name, self._asked)

    def stop(self) -> None:
        self._asked.set()


def go(
    tmp_path: str, fleet: Fleet, *, lanes: int = 2, slice_s: float = HOUR, limit_s: float = 1000 * HOUR
) -> list[Outcome]:
    async def work() -> list[Outcome]:
        made = make_pass(tmp_path, fleet, lanes=lanes, slice_s=slice_s, limit_s=limit_s)
        found: list[Outcome] = await fleet.clock.drive(made.go())
        return found

    return asyncio.run(work())


def make_pass(
    tmp_path: str,
    fleet: Fleet,
    *,
    lanes: int = 2,
    slice_s: float = HOUR,
    limit_s: float = 1000 * HOUR,
    launch: Callable[[str], FakeJob] | None = None,
) -> Pass:
    return Pass(
        names=sorted(fleet.needs),
        launch=launch or fleet.launch,
        clock=fleet.clock,
        memory=Memory(PosixFs(), str(tmp_path)),
        lanes=lanes,
        slice_s=slice_s,
        limit_s=limit_s,
    )


def states(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {one.id: one.state for one in outcomes}


def test_all_have_a_turn_and_no_more_run_at_a_time_than_there_are_lanes(tmp_path: str) -> None:
    fleet = Fleet(Timeline(), {f"t{number:03}": 60.0 for number in range(200)})
    outcomes = go(tmp_path, fleet, lanes=4)
    assert [one.state for one in outcomes] == ["ended"] * 200
    assert fleet.began == sorted(fleet.needs)
    assert (fleet.most, fleet.clock.at) == (4, 200 / 4 * 60.0)
    assert [one.waited_s for one in outcomes] == [-1.0] * 200


def test_the_next_pass_begins_with_who_waited_longest(tmp_path: str) -> None:
    clock = Timeline()
    go(tmp_path, Fleet(clock, {"a": 300.0, "b": 200.0, "c": 100.0}), lanes=3)
    clock.at += 10 * HOUR
    second = Fleet(clock, {"a": 1.0, "b": 1.0, "c": 1.0, "new": 1.0})
    outcomes = go(tmp_path, second, lanes=1)
    assert second.began == ["new", "c", "b", "a"]
    assert {one.id: round(one.waited_s - 10 * HOUR) for one in outcomes if one.waited_s > 0} == {
        "a": 0,
        "b": 100,
        "c": 200,
    }


def test_who_takes_long_makes_room_and_goes_on_until_it_has_ended(tmp_path: str) -> None:
    fleet = Fleet(Timeline(), {"a giant": 20 * HOUR, "b giant": 30 * HOUR} | {f"t{one:02}": 60.0 for one in range(30)})
    outcomes = go(tmp_path, fleet)
    assert set(states(outcomes).values()) == {"ended"}
    small = [one for one in outcomes if one.id.startswith("t")]
    assert all(one.turns == 1 for one in small)
    assert fleet.began[:3] == ["a giant", "b giant", "a giant"]
    assert fleet.began[3:33] == [one.id for one in small], "one lane is theirs after the first slice"
    assert outcomes[0].turns == 2
    assert outcomes[0].took_s == pytest.approx(20 * HOUR)


def test_one_alone_is_left_alone(tmp_path: str) -> None:
    fleet = Fleet(Timeline(), {"a": 100 * HOUR})
    [one] = go(tmp_path, fleet)
    assert (one.state, one.turns, one.took_s) == ("ended", 1, 100 * HOUR)


def test_when_the_time_is_over_who_runs_is_stopped_and_the_next_pass_goes_on(tmp_path: str) -> None:
    clock = Timeline()
    needs = {"a": 10 * HOUR, "b": HOUR, "c": HOUR}
    outcomes = go(tmp_path, Fleet(clock, needs), lanes=1, slice_s=20 * HOUR, limit_s=5 * HOUR)
    assert states(outcomes) == {"a": "stopped", "b": "not begun", "c": "not begun"}
    assert (outcomes[1].turns, clock.at) == (0, 5 * HOUR)
    second = Fleet(clock, needs)
    assert set(states(go(tmp_path, second, lanes=2)).values()) == {"ended"}
    assert set(second.began[:2]) == {"a", "b"}


def test_who_ends_while_it_is_asked_to_stop_has_ended(tmp_path: str) -> None:
    fleet = Fleet(Timeline(), {"a": 2 * HOUR, "b": 60.0}, stubborn_s=1.5 * HOUR)
    outcomes = go(tmp_path, fleet, lanes=1)
    assert states(outcomes) == {"a": "ended", "b": "ended"}
    assert outcomes[0].turns == 1


def test_what_one_meets_stops_no_other(tmp_path: str) -> None:
    fleet = Fleet(
        Timeline(),
        {"broken": 1.0, "failing": 1.0, "killed": 1.0, "well": 1.0},
        ends={"failing": Came(code=4, said=("damaged",)), "killed": Came(code=-9)},
    )

    def launch(name: str) -> FakeJob:
        if name == "broken":
            raise OSError("no process can be started")
        return fleet.launch(name)

    outcomes = asyncio.run(fleet.clock.drive(make_pass(tmp_path, fleet, launch=launch).go()))
    found = {one.id: (one.state, one.came.code if one.came else None) for one in outcomes}
    assert found == {
        "broken": ("ended", 1),
        "failing": ("ended", 4),
        "killed": ("ended", -9),
        "well": ("ended", 0),
    }


def test_a_cancelled_pass_stops_all_and_leaves_nobody_behind(tmp_path: str) -> None:
    fleet = Fleet(Timeline(), {"a": 10 * HOUR, "b": 10 * HOUR, "c": HOUR})

    async def work() -> None:
        task = asyncio.ensure_future(make_pass(tmp_path, fleet).go())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fleet.clock.drive(_settled(task))

    asyncio.run(work())
    assert fleet._now == 0
    assert [Memory(PosixFs(), str(tmp_path)).waiting(name).stopped for name in ("a", "b", "c")] == [1, 1, 0]


async def _settled(task: "asyncio.Task[list[Outcome]]") -> list[Outcome]:
    return await task


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"ended_ns": "x", "stopped": 0}}'])
def test_a_lost_memory_lets_all_have_waited_equally_long(tmp_path: str, text: str) -> None:
    with open(f"{tmp_path}/{TURNS_FILE}", "w", encoding="utf-8") as file:
        file.write(text)
    assert set(states(go(tmp_path, Fleet(Timeline(), {"a": 1.0, "b": 1.0}))).values()) == {"ended"}


def test_who_has_left_is_forgotten(tmp_path: str) -> None:
    clock = Timeline()
    go(tmp_path, Fleet(clock, {"a": 1.0, "b": 1.0}))
    go(tmp_path, Fleet(clock, {"b": 1.0}))
    assert Memory(PosixFs(), str(tmp_path)).waiting("a").ended == 0.0
    assert Memory(PosixFs(), str(tmp_path)).waiting("b").ended > 0.0
