"""When to send, how fast, and whether it will be done in time. Moments are seconds since 1970, given as arguments."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from scheduler.errors import PolicyError

__all__ = ["Bucket", "Forecast", "Window", "backoff", "parse_window", "start_offset"]

_DAY: Final = datetime.timedelta(days=1)
_HOURS: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])\s*-\s*([01]?[0-9]|2[0-3]):([0-5][0-9])")
_BURST_S: Final = 0.5
"""What was not sent within so long is not made up for."""
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From ``begin`` to ``end`` by the wall clock in ``zone``, every day; over midnight if it ends before it begins.

    When clocks change it is what the wall clock says: it may be an hour longer or shorter. A time that a day
    does not have is the moment when the clock leaps over it, of one that a day has twice it is the first.
    """

    begin: datetime.time
    end: datetime.time
    zone: datetime.tzinfo

    def __post_init__(self) -> None:
        if self.begin == self.end:
            raise PolicyError(f"a window from {self.begin:%H:%M} to {self.end:%H:%M} is none: leave it out for always")

    def is_open(self, now: float) -> bool:
        """Whether ``now`` lies in it; its end does not."""
        return any(begins <= now < ends for begins, ends in self._around(now))

    def opens(self, now: float) -> float:
        """The moment at or after ``now`` from which it is open."""
        return min(max(begins, now) for begins, ends in self._around(now) if ends > now)

    def closes(self, now: float) -> float:
        """The moment at which it, open now or opening next, closes."""
        opens = self.opens(now)
        return min(ends for begins, ends in self._around(now) if begins <= opens < ends)

    def wall(self, moment: float) -> str:
        """A moment by the clock on the wall there, for people."""
        return f"{datetime.datetime.fromtimestamp(moment, self.zone):%H:%M} {self.zone}"

    def _around(self, now: float) -> list[tuple[float, float]]:
        today = datetime.datetime.fromtimestamp(now, self.zone).date()
        found = []
        for days in (-2, -1, 0, 1, 2):
            first = today + days * _DAY
            last = first if self.begin < self.end else first + _DAY
            found.append((self._moment(first, self.begin), self._moment(last, self.end)))
        return [(begins, ends) for begins, ends in found if begins < ends]  # both may fall into one leap

    def _moment(self, day: datetime.date, wall: datetime.time) -> float:
        local = datetime.datetime.combine(day, wall, self.zone)
        moment = local.timestamp()
        if datetime.datetime.fromtimestamp(moment, self.zone).replace(tzinfo=None) == local.replace(tzinfo=None):
            return moment
        # The clock leaps over it. Read by the offset before the leap (fold 0) it is too late, by the other too early:
        # the leap is where the offset changes between them.
        low, high = local.replace(fold=1).timestamp(), moment
        before = datetime.datetime.fromtimestamp(low, self.zone).utcoffset()
        while high - low > 0.5:
            middle = (low + high) / 2
            if datetime.datetime.fromtimestamp(middle, self.zone).utcoffset() == before:
                low = middle
            else:
                high = middle
        return float(round(high))


def parse_window(text: str, zone: datetime.tzinfo) -> Window:
    """The window that ``22:00-06:00`` means.

    Raises:
        PolicyError: it means none.
    """
    match = _HOURS.fullmatch(text.strip())
    if match is None:
        raise PolicyError(f"{text!r} is no window: write it like 22:00-06:00")
    hour, minute, last_hour, last_minute = map(int, match.groups())
    return Window(begin=datetime.time(hour, minute), end=datetime.time(last_hour, last_minute), zone=zone)


def start_offset(key: bytes, span: float) -> float:
    """Seconds below ``span``, the same for one key at all times: hosts that begin by one clock do not begin at once."""
    share = int.from_bytes(blake2b(key, digest_size=8, person=b"start offset").digest(), "big") / 2**64
    return share * span


def backoff(attempt: int, asked: float, draw: float) -> float:
    """Seconds to wait before attempt number ``attempt`` + 1; ``draw`` is a random number from 0 to below 1.

    Never less than was ``asked`` for, and on top of that a share of a span that doubles each time: who was
    turned away together does not come back together.
    """
    return asked + draw * min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**attempt)


class Bucket:
    """Bytes at a rate. Several may take from it at the same time: each waits its turn."""

    def __init__(self) -> None:
        self._paid = 0.0  # the moment up to which all that was taken has had its time

    def take(self, size: int, now: float, rate: float) -> float:
        """Take ``size`` bytes at ``rate`` bytes a second; return the seconds to wait before they are sent."""
        self._paid = max(self._paid, now - _BURST_S)
        wait = max(0.0, self._paid - now)
        self._paid += size / rate
        return wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """``left`` bytes at ``rate`` bytes a second, where sending stops at ``closes`` (None: never)."""

    left: int
    rate: float
    now: float
    closes: float | None

    @property
    def done(self) -> float:
        """The moment at which all is sent, if nothing stops it."""
        return self.now + self.left / self.rate

    @property
    def is_late(self) -> bool:
        return self.closes is not None and self.done > self.closes

    @property
    def unsent(self) -> int:
        """Bytes that will be left when sending stops."""
        if self.closes is None or not self.is_late:
            return 0
        return self.left - int(max(0.0, self.closes - self.now) * self.rate)
