"""By when all that is marked is deleted, held against a provider that decides day by day."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.clock import DAY_S, NS
from replicator.engine import pruneplan
from replicator.engine.pruneplan import WEEK_NS, gone_by_ns
from replicator.format.sizes import LARGEST
from replicator.ids import ObjectName
from replicator.provider import sweep
from replicator.provider.days import Days
from replicator.provider.sweep import Limits, Marked, budget_of, plan_sweep

DAY, HOUR = DAY_S * NS, 3600 * NS
NOW = 1_790_000_000 * NS
SMALL = 4 * LARGEST
LIMITS = Limits(grace_s=14 * DAY_S, lock_s=30 * DAY_S, percent=10)


@pytest.fixture(autouse=True)
def _small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruneplan, "LEAST_BUDGET", SMALL)
    monkeypatch.setattr(sweep, "BUDGET_BYTES", SMALL)


def object_marked(number: int, size: int, days_ago: int) -> Marked:
    """Return an object that was marked so many days ago, and waits for nothing but grace."""
    since = NOW - days_ago * DAY
    return Marked(
        name=ObjectName(number.to_bytes(32, "big")),
        size=size,
        why="dead",
        marked_ns=since,
        marked_day=100 - days_ago,
        received_ns=since,
        received_day=100 - days_ago,
        lock_until_ns=since,
        unclaimed_ns=0,
        unclaimed_day=0,
        needed=False,
    )


def gone_ns(marked: list[Marked], swept: list[tuple[int, int]], used: int, hour: int, frozen_ns: int) -> int:
    """Return when a provider that looks at this hour of each day has deleted them all."""
    left = {one.name: one for one in marked}
    counted = 100
    for day in itertools.count():
        now = NOW + day * DAY + hour * HOUR
        counted += now >= frozen_ns
        days = Days(seen_ns=now, high_ns=now, day_ns=now, days=counted, frozen_until_ns=frozen_ns)
        lately = sum(size for at, size in swept if at > now - WEEK_NS)
        plan = plan_sweep(left.values(), limits=LIMITS, days=days, now_ns=now, held=used, swept=lately)
        used -= plan.size
        swept.append((now, plan.size))
        for one in plan.gone:
            del left[one.name]
        if not left:
            return now
    raise AssertionError


@given(
    marks=st.lists(st.tuples(st.integers(1, LARGEST), st.integers(0, 20)), min_size=1, max_size=40),
    lately=st.lists(st.tuples(st.integers(0, 6), st.integers(1, SMALL // 6)), max_size=6),
    others=st.integers(0, 100 * LARGEST),
    hour=st.integers(0, 23),
    frozen_h=st.integers(0, 24),
)
@settings(max_examples=150, deadline=None)
def test_nothing_is_there_after_the_day_that_is_named(
    marks: list[tuple[int, int]], lately: list[tuple[int, int]], others: int, hour: int, frozen_h: int
) -> None:
    marked = [object_marked(number, size, days) for number, (size, days) in enumerate(marks)]
    size, swept = sum(one.size for one in marked), sum(bytes_ for _, bytes_ in lately)
    used = size + others
    frozen_ns = NOW + frozen_h * HOUR if frozen_h else 0
    days = Days(seen_ns=NOW, high_ns=NOW, day_ns=NOW, days=100)
    by_ns = gone_by_ns(
        max(one.earliest_ns(LIMITS, days, NOW) for one in marked),
        now_ns=NOW,
        marked=size,
        swept=swept,
        used=used,
        budget=budget_of(LIMITS, used, swept),
        percent=LIMITS.percent,
        frozen_until_ns=frozen_ns,
    )
    before = [(NOW - ago * DAY - HOUR, bytes_) for ago, bytes_ in lately]
    assert gone_ns(marked, before, used, hour, frozen_ns) <= by_ns


def by(**changes: int) -> int:
    values = {"now_ns": NOW, "marked": LARGEST, "swept": 0, "used": 10 * LARGEST, "budget": SMALL, "percent": 10}
    return gone_by_ns(NOW + DAY, **{**values, **changes})


def test_what_went_this_week_counts_against_what_goes_next() -> None:
    assert by() == NOW + 2 * DAY
    assert by(swept=SMALL) == NOW + 2 * DAY + WEEK_NS


def test_a_frozen_clock_puts_it_off() -> None:
    assert by(frozen_until_ns=NOW + 20 * HOUR) == NOW + 2 * DAY + 20 * HOUR


def test_a_budget_that_shrinks_with_what_is_left_is_not_counted_on() -> None:
    much = 100 * LARGEST
    assert by(marked=much // 2, used=much, budget=much // 10) > by(marked=much // 2, used=8 * much, budget=much // 10)
