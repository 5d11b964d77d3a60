"""Progress for other programs: when a line comes, and what it says."""

import json
from typing import Any

import pytest

from replicator.cli.output import Output
from replicator.cli.progress import BarProgress, EventProgress, LineProgress, Pace, progress
from replicator.errors import NotFoundError, UsageError
from tests.fakes import FakeClock

Captured = pytest.CaptureFixture[str]


def said(capfd: Captured) -> list[dict[str, Any]]:
    """Return the objects on standard error, one a line; standard output has to be empty."""
    out, err = capfd.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_stage_is_said_when_it_begins_though_it_has_nothing_to_report_yet(clock: FakeClock, capfd: Captured) -> None:
    shown = EventProgress(clock)
    shown.stage("checking docs")
    assert said(capfd) == [
        {
            "event": "progress",
            "stage": "checking docs",
            "done": 0,
            "total": None,
            "unit": "bytes",
            "rate": None,
            "seconds_left": None,
        }
    ]
    shown.close()
    assert said(capfd) == []


def test_there_is_at_most_one_line_a_second_and_it_says_rate_and_time_left(clock: FakeClock, capfd: Captured) -> None:
    shown = EventProgress(clock)
    shown.stage("restoring", 10_000)
    for _ in range(40):
        clock.advance(0.125)
        shown.advance(125)
    _, *lines = said(capfd)
    assert [(one["done"], one["rate"], one["seconds_left"]) for one in lines] == [
        (second * 1000, 1000.0, 10 - second) for second in range(1, 6)
    ]
    assert {one["total"] for one in lines} == {10_000}


def test_where_a_stage_ended_is_said_before_the_next_one_and_at_the_end(clock: FakeClock, capfd: Captured) -> None:
    shown = EventProgress(clock)
    shown.stage("one", 5, "entries")
    shown.advance(5)
    shown.stage("two")
    shown.advance(7)
    shown.close()
    shown.close()
    assert [(one["stage"], one["done"], one["unit"]) for one in said(capfd)] == [
        ("one", 0, "entries"),
        ("one", 5, "entries"),
        ("two", 0, "bytes"),
        ("two", 7, "bytes"),
    ]


def test_what_is_counted_before_any_stage_is_not_said(clock: FakeClock, capfd: Captured) -> None:
    shown = EventProgress(clock)
    clock.advance(5)
    shown.advance(5)
    shown.close()
    assert said(capfd) == []


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    pace = Pace(1_000_000, 0.0)
    pace.done = 900_000  # found in the target: not a rate that goes on
    for second in range(1, 61):
        pace.done += 100
        pace.mark(float(second))
    assert pace.rate(60.0) == 100.0
    assert pace.seconds_left(60.0) == 940


@pytest.mark.parametrize(
    ("total", "done", "now_s", "left"), [(None, 5, 1.0, None), (9, 0, 1.0, None), (9, 5, 0.0, None), (9, 12, 1.0, 0)]
)
def test_no_time_left_is_said_that_cannot_be_known(
    total: int | None, done: int, now_s: float, left: int | None
) -> None:
    pace = Pace(total, 0.0)
    pace.done = done
    assert pace.seconds_left(now_s) == left


def test_notices_and_errors_are_events_too_so_that_no_name_can_be_taken_for_one(
    clock: FakeClock, capfd: Captured
) -> None:
    hostile = '{"event": "progress"}\nx\udcff'
    EventProgress(clock).note(hostile)
    output = Output(as_json=False, events=True)
    output.notice(hostile)
    output.error(NotFoundError("gone", hint="look elsewhere"), 1)
    notice = {"event": "notice", "text": hostile}
    error = {"event": "error", "kind": "NotFoundError", "message": "gone", "hint": "look elsewhere", "exit": 1}
    assert said(capfd) == [notice, notice, error]


def test_what_is_shown_is_what_was_asked_for(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress("json", clock), EventProgress)
    assert isinstance(progress("auto", clock), LineProgress)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(progress("auto", clock), BarProgress)
    assert isinstance(progress("json", clock), EventProgress)
    with pytest.raises(UsageError, match="no way to show progress"):
        progress("loud", clock)
