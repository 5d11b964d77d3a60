"""When an object may go, decided from values alone."""

import sqlite3
from contextlib import closing
from dataclasses import replace

from hypothesis import given, settings, strategies

from replicator.clock import DAY_S, NS
from replicator.ids import ObjectName
from replicator.provider.days import Days
from replicator.provider.sweep import (
    BUDGET_BYTES,
    EARLIEST,
    Limits,
    Marked,
    SweepPlan,
    budget_of,
    earliest_values,
    plan_sweep,
)

DAY = DAY_S * NS
NOW = 1_790_000_000 * NS
LIMITS = Limits(grace_s=14 * DAY_S, lock_s=30 * DAY_S, percent=10)
GB = 10**9


def _marked(number: int = 1, **changes: object) -> Marked:
    """Return an object that may go now: received, unclaimed and marked long ago."""
    values: dict[str, object] = {
        "name": ObjectName(bytes([number]) * 32),
        "size": GB,
        "why": "dead",
        "marked_ns": NOW - 14 * DAY,
        "marked_day": 86,
        "received_ns": NOW - 60 * DAY,
        "received_day": 40,
        "lock_until_ns": NOW - 30 * DAY,
        "unclaimed_ns": NOW - 30 * DAY,
        "unclaimed_day": 70,
        "needed": False,
    }
    return Marked(**(values | changes))  # type: ignore[arg-type]  # a test names the field it changes


def _plan(*marked: Marked, limits: Limits = LIMITS, days: int = 100, held: int = 0, swept: int = 0) -> SweepPlan:
    return plan_sweep(marked, limits=limits, days=Days(days=days, seen_ns=NOW), now_ns=NOW, held=held, swept=swept)


def test_what_has_waited_for_everything_goes() -> None:
    plan = _plan(_marked())
    assert (plan.gone, plan.size, plan.waiting) == ((_marked(),), GB, 0)


def test_each_wait_holds_alone_on_the_wall_and_in_counted_days() -> None:
    for changes in (
        {"marked_ns": NOW - 14 * DAY + 1},
        {"marked_day": 87},
        {"lock_until_ns": NOW + 1},
        {"received_day": 71, "received_ns": NOW - 60 * DAY},
        {"unclaimed_ns": NOW - 30 * DAY + 1},
        {"unclaimed_day": 71},
        {"needed": True},
    ):
        plan = _plan(_marked(**changes))
        assert (plan.gone, plan.waiting) == ((), 1), changes


def test_what_was_never_claimed_waits_for_its_lock_and_its_mark_alone() -> None:
    assert _plan(_marked(unclaimed_ns=0, unclaimed_day=0)).gone


def test_a_clock_that_leapt_holds_everything() -> None:
    for days in (Days(days=100, seen_ns=NOW, frozen_until_ns=NOW + 1), Days(days=100, seen_ns=NOW + DAY)):
        plan = plan_sweep([_marked()], limits=LIMITS, days=days, now_ns=NOW, held=0, swept=0)
        assert (plan.gone, plan.frozen) == ((), True)


def test_the_budget_is_a_tenth_or_20_gb_of_what_there_was_before_this_weeks_sweeps() -> None:
    assert budget_of(LIMITS, 0, 0) == budget_of(LIMITS, 200 * GB, 0) == BUDGET_BYTES == 20 * GB
    assert budget_of(LIMITS, 270 * GB, 30 * GB) == 30 * GB
    assert budget_of(replace(LIMITS, percent=100), 300 * GB, 0) == 300 * GB
    assert budget_of(replace(LIMITS, percent=0), 300 * GB, 0) == 20 * GB


def test_within_the_budget_the_longest_marked_goes_first() -> None:
    old = _marked(9, size=15 * GB, marked_ns=NOW - 20 * DAY)
    middle = _marked(2, size=6 * GB, marked_ns=NOW - 19 * DAY)
    new = _marked(3, size=5 * GB)
    plan = _plan(new, middle, old)
    assert [one.name for one in plan.gone] == [old.name, new.name], "what fits goes on"
    assert plan.over_budget == 1
    assert _plan(old, swept=6 * GB).gone == ()


def test_the_date_that_is_shown_is_the_later_of_wall_and_counted_days() -> None:
    days = Days(days=90, seen_ns=NOW)
    assert _marked().earliest_ns(LIMITS, days, NOW) == NOW + 10 * DAY
    late = _marked(marked_ns=NOW)
    assert late.earliest_ns(LIMITS, days, NOW) == NOW + 14 * DAY


_TIMES = strategies.integers(NOW - 90 * DAY, NOW + 90 * DAY)
_DAYS = strategies.integers(0, 200)


@given(
    marked_ns=_TIMES,
    marked_day=_DAYS,
    received_ns=_TIMES,
    received_day=_DAYS,
    lock_until_ns=_TIMES,
    unclaimed_ns=strategies.just(0) | _TIMES,
    unclaimed_day=_DAYS,
    grace_s=strategies.integers(0, 40 * DAY_S),
    lock_s=strategies.integers(0, 40 * DAY_S),
    days=_DAYS,
)
@settings(max_examples=200, deadline=None)
def test_the_database_reckons_the_same_date(grace_s: int, lock_s: int, days: int, **changes: int) -> None:
    limits, clock = Limits(grace_s=grace_s, lock_s=lock_s, percent=10), Days(days=days, seen_ns=NOW)
    columns = ", ".join(f":{name} AS {name}" for name in changes)
    with closing(sqlite3.connect(":memory:")) as connection:
        [found] = connection.execute(
            f"SELECT {EARLIEST} FROM (SELECT {columns})",  # noqa: S608 - own words
            changes | earliest_values(limits, clock, NOW),
        ).fetchone()
    assert found == _marked(**changes).earliest_ns(limits, clock, NOW)


def test_brakes_that_are_off_are_named() -> None:
    assert LIMITS.unbraked == []
    assert Limits(grace_s=0, lock_s=0, percent=100).unbraked == ["grace", "lock", "budget"]
