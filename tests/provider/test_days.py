"""Two counts of time, and clocks that leap."""

from replicator.clock import DAY_S, HOUR_S, NS
from replicator.provider.days import FREEZE_NS, Days, days_of, tick

HOUR, DAY = HOUR_S * NS, DAY_S * NS
START = 1_790_000_000 * NS


def _run(days: Days, now_ns: int, hours: int) -> tuple[Days, int]:
    for _ in range(hours):
        now_ns += HOUR
        days = tick(days, now_ns, HOUR)
    return days, now_ns


def test_a_day_is_counted_at_the_first_look_and_then_each_day_the_daemon_runs() -> None:
    days = tick(Days(), START, None)
    assert (days.days, days.leap_ns) == (1, 0)
    days, now_ns = _run(days, START, 21)
    assert days.days == 1
    days, now_ns = _run(days, now_ns, 1)
    assert days.days == 2
    days, _ = _run(days, now_ns, 22 * 5)
    assert days.days == 7


def test_time_while_it_was_stopped_counts_one_day_however_long_it_was() -> None:
    days = tick(tick(Days(), START, None), START + 60 * DAY, None)
    assert days.days == 2
    assert not days.frozen(START + 60 * DAY)


def test_a_clock_that_is_set_forward_counts_no_day_and_freezes_for_one() -> None:
    days = tick(Days(), START, None)
    later = START + 30 * DAY
    days = tick(days, later, HOUR)
    assert (days.days, days.leap_ns) == (1, 30 * DAY - HOUR)
    assert days.frozen(later)
    frozen, now_ns = _run(days, later, 23)
    assert frozen.frozen(now_ns)
    assert frozen.days == 1
    thawed, now_ns = _run(frozen, now_ns, 1)
    assert not thawed.frozen(now_ns)
    assert thawed.frozen_until_ns == 0
    assert thawed.days == 2


def test_a_clock_that_is_set_back_freezes_also_over_a_restart() -> None:
    days = tick(Days(), START, None)
    assert tick(days, START - 2 * HOUR, HOUR).frozen(START - 2 * HOUR)
    again = tick(days, START - 2 * HOUR, None)
    assert again.frozen(START - 2 * HOUR)
    assert again.leap_ns == -2 * HOUR
    assert days.frozen(START - 2 * HOUR), "before the first look it is not known yet"


def test_an_hour_either_way_is_no_leap() -> None:
    days = tick(Days(), START, None)
    for now_ns in (START + 2 * HOUR, START):
        assert not tick(days, now_ns, HOUR).frozen(now_ns)


def test_a_stamp_is_never_below_the_highest_time_seen_until_the_clock_was_calm_for_a_day() -> None:
    days = tick(tick(Days(), START, None), START + 400 * DAY, HOUR)
    days = tick(days, START, HOUR)
    assert days.stamp_ns(START) == START + 400 * DAY
    days, now_ns = _run(days, START, 24)
    assert now_ns == START + FREEZE_NS
    assert days.stamp_ns(now_ns) == now_ns


def test_a_wait_takes_whole_days() -> None:
    assert [days_of(ns) for ns in (0, 1, DAY, DAY + 1)] == [0, 1, 1, 2]
