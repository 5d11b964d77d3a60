"""The only place that looks at the wall clock; everything else is handed a :class:`Clock`."""

import asyncio
import datetime
import time
from typing import Protocol

NS = 1_000_000_000
MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86400
SKEW_S = 15 * MINUTE_S
"""How far two machines' clocks may be apart for invites and enrolment orders (design: no deletion depends on it)."""


def day_of(time_ns: int) -> str:
    """Return the day of a time, in UTC."""
    return datetime.datetime.fromtimestamp(time_ns / NS, datetime.UTC).date().isoformat()


def moment_of(time_ns: int) -> str:
    """Return a time in ISO 8601, UTC; empty for 0."""
    return datetime.datetime.fromtimestamp(time_ns / NS, datetime.UTC).isoformat(timespec="seconds") if time_ns else ""


class Clock(Protocol):
    """Wall time for records, monotonic time for durations, and a way to wait."""

    def now_ns(self) -> int:
        """Return nanoseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; the origin means nothing."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        """Return nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait without blocking the loop."""
        await asyncio.sleep(seconds)
