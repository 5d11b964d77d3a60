"""Turns of many tenants: who waited longest comes first, and nobody keeps anybody from the line."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.turns import Active, Waiting, in_turn, next_of, share, slice_of, to_stop

HOUR = 3600.0


@dataclass
class Machine:
    """Turns taken by arithmetic: each tenant needs so many seconds, and loses ``cost`` of each turn."""

    needs: dict[str, float]
    lanes: int
    seconds: float = HOUR
    cost: float = 0.0
    now: float = 0.0
    ended: dict[str, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)

    def run(self, until: float = 1e9) -> None:
        fresh = in_turn([Waiting(id=name) for name in self.needs])
        again: list[Waiting] = []
        left = dict(self.needs)
        active: list[Active] = []
        while (fresh or again or active) and self.now < until:
            while (found := next_of(fresh, again, active, self.lanes)) is not None:
                (again if found in again else fresh).remove(found)
                self.began.setdefault(found.id, self.now)
                active.append(Active(waiting=found, since=self.now, until=self.now + slice_of(found, self.seconds)))
                assert len(active) <= self.lanes
            ends = [one.since + self.cost + left[one.waiting.id] for one in active]
            looks = [one.until for one in active if one.until > self.now] if fresh or again else []
            self.now = min([*ends, *looks])
            for one, end in zip(list(active), ends, strict=True):
                if end <= self.now:
                    active.remove(one)
                    self.ended[one.waiting.id] = self.now
            for one in to_stop(active, len(fresh) + len(again), self.now):
                active.remove(one)
                left[one.waiting.id] -= max(0.0, self.now - one.since - self.cost)
                again.append(replace(one.waiting, stopped=one.waiting.stopped + 1))


def test_who_waited_longest_comes_first_and_who_never_had_a_turn_before_all() -> None:
    waiting = [Waiting(id="b", ended=20.0), Waiting(id="a", ended=30.0), Waiting(id="d"), Waiting(id="c")]
    assert [one.id for one in in_turn(waiting)] == ["c", "d", "b", "a"]


def test_nobody_is_stopped_while_nobody_waits() -> None:
    active = [Active(waiting=Waiting(id="a"), since=0.0, until=1.0)]
    assert to_stop(active, 0, 100.0) == []
    assert to_stop(active, 1, 0.5) == []
    assert to_stop(active, 1, 1.0) == active
    assert to_stop([replace(active[0], stopping=True)], 1, 100.0) == []


def test_no_more_are_stopped_than_wait_and_the_longest_first() -> None:
    active = [Active(waiting=Waiting(id=str(since)), since=float(since), until=50.0) for since in (3, 1, 2)]
    assert [one.since for one in to_stop(active, 2, 100.0)] == [1.0, 2.0]


def test_two_first_uploads_of_weeks_hold_up_small_ones_for_a_slice_and_no_more() -> None:
    needs = {f"small {number:03}": 60.0 for number in range(198)} | {"a giant": 500 * HOUR, "another": 300 * HOUR}
    machine = Machine(needs, lanes=2)
    machine.run()
    assert set(machine.ended) == set(needs)
    small = [machine.ended[name] for name in needs if name.startswith("small")]
    assert max(small) <= 2 * HOUR + 198 * 60.0
    assert min(machine.began.values()) == 0.0


def test_a_giant_ends_although_each_start_costs_it_more_than_a_first_slice() -> None:
    machine = Machine({"giant": 10 * HOUR, "other": 10 * HOUR, "third": 10 * HOUR}, lanes=2, cost=2 * HOUR)
    machine.run(until=1000 * HOUR)
    assert len(machine.ended) == 3


def test_who_was_stopped_has_a_lane_while_many_small_ones_come() -> None:
    needs = {f"small {number:03}": 600.0 for number in range(200)} | {"a giant": 10 * HOUR, "b giant": 10 * HOUR}
    machine = Machine(needs, lanes=3)
    machine.run()
    assert max(machine.ended["a giant"], machine.ended["b giant"]) < 25 * HOUR


@settings(max_examples=60, deadline=None)
@given(
    needs=st.lists(st.floats(1.0, 40 * HOUR), min_size=1, max_size=25),
    lanes=st.integers(1, 4),
)
def test_everybody_ends_and_no_lane_is_idle_while_somebody_waits(needs: list[float], lanes: int) -> None:
    machine = Machine({str(number): need for number, need in enumerate(needs)}, lanes=lanes)
    machine.run()
    assert len(machine.ended) == len(needs)
    assert machine.now <= sum(needs) / lanes + max(needs) + 1.0


@pytest.mark.parametrize(("total", "lanes", "expected"), [(100, 3, 33), (None, 3, None), (5, 1, 5)])
def test_shares_come_to_no_more_than_there_is(total: int | None, lanes: int, expected: int | None) -> None:
    assert share(total, lanes) == expected
