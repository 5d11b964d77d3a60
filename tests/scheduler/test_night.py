from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import PolicyError
from scheduler.night import Bucket, Forecast, backoff, parse_window, start_offset

STOCKHOLM = ZoneInfo("Europe/Stockholm")
HOUR = 3600.0


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def test_a_window_is_open_by_the_clock_on_the_wall_there() -> None:
    window = parse_window("22:00-06:00", STOCKHOLM)
    assert not window.is_open(at("2026-01-10T20:59:59+00:00"))
    assert window.is_open(at("2026-01-10T21:00:00+00:00"))
    assert window.is_open(at("2026-01-11T04:59:59+00:00"))
    assert not window.is_open(at("2026-01-11T05:00:00+00:00"))
    assert window.is_open(at("2026-07-10T20:00:00+00:00"))  # summer time
    noon = at("2026-01-10T12:00:00+01:00")
    assert window.opens(noon) == at("2026-01-10T22:00:00+01:00")
    assert window.closes(noon) == at("2026-01-11T06:00:00+01:00")
    midnight = at("2026-01-11T00:30:00+01:00")
    assert window.opens(midnight) == midnight
    assert window.closes(midnight) == at("2026-01-11T06:00:00+01:00")
    assert window.wall(midnight) == "00:30 Europe/Stockholm"


@pytest.mark.parametrize(
    ("hours", "day", "begins", "ends"),
    [
        # In the night to 2026-03-29 the clock goes from 02:00 to 03:00, on 2026-10-25 from 03:00 back to 02:00.
        ("01:00-05:00", "2026-03-29", "2026-03-29T01:00+01:00", "2026-03-29T05:00+02:00"),
        ("01:00-05:00", "2026-10-25", "2026-10-25T01:00+02:00", "2026-10-25T05:00+01:00"),
        ("02:30-05:00", "2026-03-29", "2026-03-29T03:00+02:00", "2026-03-29T05:00+02:00"),
        ("01:00-02:30", "2026-03-29", "2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00"),
        ("02:30-05:00", "2026-10-25", "2026-10-25T02:30+02:00", "2026-10-25T05:00+01:00"),
        ("01:00-02:30", "2026-10-25", "2026-10-25T01:00+02:00", "2026-10-25T02:30+02:00"),
    ],
)
def test_the_nights_in_which_clocks_change_have_the_hours_that_the_clock_shows(
    hours: str, day: str, begins: str, ends: str
) -> None:
    window = parse_window(hours, STOCKHOLM)
    before = at(f"{day}T00:10+00:00") - 2 * HOUR
    assert window.opens(before) == at(begins)
    assert window.closes(before) == at(ends)


def test_a_window_that_the_clock_leaps_over_is_not_open_that_night() -> None:
    window = parse_window("02:15-02:45", STOCKHOLM)
    before = at("2026-03-29T00:00+01:00")
    assert window.opens(before) == at("2026-03-30T02:15+02:00")


@settings(max_examples=150, deadline=None)
@given(
    st.floats(at("2026-03-20T00:00+00:00"), at("2026-11-05T00:00+00:00")),
    st.integers(0, 1439),
    st.integers(1, 1439),
    st.sampled_from(["Europe/Stockholm", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_a_window_opens_before_it_closes_and_is_open_in_between(now: float, begin: int, length: int, zone: str) -> None:
    end = (begin + length) % 1440
    window = parse_window(f"{begin // 60}:{begin % 60:02}-{end // 60}:{end % 60:02}", ZoneInfo(zone))
    opens, closes = window.opens(now), window.closes(now)
    assert now <= opens < closes
    assert closes - opens <= 25 * HOUR
    assert window.is_open(opens)
    assert window.is_open((opens + closes) / 2)
    assert window.is_open(now) == (opens == now)
    if closes - opens < 22 * HOUR:
        assert not window.is_open(closes)


@pytest.mark.parametrize("text", ["", "22-06", "24:00-06:00", "22:00", "22:60-06:00", "06:00-06:00", "22:00-06:00 CET"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="window"):
        parse_window(text, STOCKHOLM)


def test_hosts_begin_apart_and_each_always_at_its_own_time() -> None:
    offsets = [start_offset(b"host %d" % number, HOUR) for number in range(200)]
    assert offsets == [start_offset(b"host %d" % number, HOUR) for number in range(200)]
    assert all(0 <= offset < HOUR for offset in offsets)
    for quarter in range(4):
        assert 25 < sum(quarter * 900 <= offset < (quarter + 1) * 900 for offset in offsets) < 75


def test_who_is_turned_away_waits_as_asked_and_then_longer_each_time() -> None:
    assert backoff(0, 5.0, 0.0) == 5.0
    assert backoff(0, 5.0, 0.999) < 6.0
    assert backoff(3, 5.0, 0.5) == 9.0
    assert backoff(60, 5.0, 0.999) < 65.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 3)), min_size=5, max_size=40))
def test_a_bucket_never_gives_more_than_its_rate(takes: list[tuple[int, float]]) -> None:
    bucket, rate, now, sent = Bucket(), 100_000.0, 1000.0, []
    for size, pause in takes:
        now += pause
        sent.append((now + bucket.take(size, now, rate), size))
    for first in range(len(sent)):
        for last in range(first + 1, len(sent)):
            span = sent[last][0] - sent[first][0]
            # What begins at the end of a span is sent after it.
            assert sum(size for _, size in sent[first:last]) <= rate * (span + 0.5) + 1


def test_a_bucket_that_nobody_takes_from_keeps_no_burst() -> None:
    bucket = Bucket()
    assert bucket.take(1000, 100.0, 100.0) == 0.0
    assert bucket.take(1000, 100.0, 100.0) == pytest.approx(9.5)
    assert bucket.take(1000, 500.0, 100.0) == 0.0
    assert bucket.take(10, 500.0, 100.0) == pytest.approx(9.5)


def test_a_forecast_says_what_the_end_of_the_night_leaves() -> None:
    late = Forecast(left=1000, rate=10.0, now=0.0, closes=60.0)
    assert (late.done, late.is_late, late.unsent) == (100.0, True, 400)
    assert not Forecast(left=1000, rate=10.0, now=0.0, closes=100.0).is_late
    assert Forecast(left=1000, rate=10.0, now=0.0, closes=None).unsent == 0
