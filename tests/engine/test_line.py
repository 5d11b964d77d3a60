import asyncio

import pytest

from replicator.config import LineSettings, read_window
from replicator.engine.line import Line
from tests.fakes import NS, FakeClock

NOON_NS = 1_767_268_800 * NS  # 2026-01-01 12:00 UTC
NIGHT = read_window("22:00-06:00", "UTC")
MIB = 1 << 20


def line(clock: FakeClock, *, always_night: bool = False, **settings: object) -> Line:
    return Line(LineSettings(**settings), clock, always_night=always_night)  # type: ignore[arg-type] # each test's own


def waited(clock: FakeClock, work: Line, sizes: list[int], *, down: bool = False) -> float:
    async def take() -> None:
        for size in sizes:
            await (work.down(size) if down else work.up(size))

    before = clock.monotonic()
    asyncio.run(take())
    return clock.monotonic() - before


@pytest.mark.parametrize(("hour", "seconds"), [(0, 40.0), (12, 10.0)], ids=["by day", "by night"])
def test_bytes_are_sent_at_the_rate_of_the_hour(hour: int, seconds: float) -> None:
    clock = FakeClock(NOON_NS + hour * 3600 * NS)
    work = line(clock, night=NIGHT, up=MIB, up_day=MIB // 4)
    assert waited(clock, work, [MIB] * 11) == pytest.approx(seconds, abs=3)
    assert waited(clock, work, [MIB] * 11, down=True) == 0


def test_what_is_fetched_has_its_own_limit_and_the_nights_where_the_day_has_none() -> None:
    clock = FakeClock(NOON_NS)
    assert waited(clock, line(clock, night=NIGHT, down=MIB), [MIB] * 11, down=True) == pytest.approx(10, abs=1)
    work = line(clock, night=NIGHT, down=4 * MIB, down_day=MIB)
    assert waited(clock, work, [MIB] * 11, down=True) == pytest.approx(10, abs=1)


def test_without_limits_nothing_waits() -> None:
    clock = FakeClock(NOON_NS)
    work = line(clock)
    assert waited(clock, work, [MIB] * 100) == 0
    assert (work.is_closed, work.streams, work.forecast(10**9, 1.0)) == (False, None, None)


def test_by_day_nothing_is_begun_where_the_day_has_nothing() -> None:
    clock = FakeClock(NOON_NS)
    work = line(clock, night=NIGHT, up_day=0)
    assert work.is_closed
    assert work.opens == "22:00 UTC"
    assert not line(clock, night=NIGHT, up_day=0, always_night=True).is_closed
    clock.advance(10 * 3600)
    late = work.forecast(10**9, 1000.0)
    assert late is not None
    assert late.is_late
    assert late.closes is not None
    assert work.wall(late.closes) == "06:00 UTC"


def test_at_night_sending_goes_on() -> None:
    assert not line(FakeClock(NOON_NS + 10 * 3600 * NS), night=NIGHT, up_day=0).is_closed


def test_few_streams_share_a_slow_line() -> None:
    clock = FakeClock(NOON_NS)
    assert line(clock, up=128 << 10).streams == 2
    assert line(clock, night=NIGHT, up=10 * MIB, up_day=1 << 17).streams == 2
    assert line(clock, night=NIGHT, up=10 * MIB, up_day=0).streams == 160
