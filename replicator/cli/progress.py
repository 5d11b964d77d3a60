"""Where long work is: a bar on a terminal, a line now and then in a log, JSON lines for other programs."""

import math
import sys
import threading
import time
from collections import deque
from typing import Any, Final, Protocol

from replicator.cli.output import aside, plain, say_event
from replicator.clock import Clock
from replicator.config import format_size
from replicator.errors import UsageError

_LINE_EVERY_S: Final = 600
EVENT_EVERY_S: Final = 1.0
WINDOW_S: Final = 30.0
"""What a rate is the mean of: short enough to follow a line that slows down, long enough for several packs."""


class Shown(Protocol):
    """What a use case is handed as its progress, and is closed after it."""

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Begin a stage."""
        ...

    def advance(self, amount: int) -> None:
        """Report units done."""
        ...

    def note(self, text: str) -> None:
        """Say something now."""
        ...

    def close(self) -> None:
        """End it."""
        ...


def progress(wanted: str, clock: Clock) -> Shown:
    """Return what suits standard error, or what was asked for: "json"; "auto" asks for nothing.

    Raises:
        UsageError: neither.
    """
    if wanted == "json":
        return EventProgress(clock)
    if wanted != "auto":
        raise UsageError(f"'{wanted}' is no way to show progress", hint="REPLICATOR_PROGRESS is auto or json")
    return BarProgress() if sys.stderr.isatty() else LineProgress()


class Pace:
    """How fast one stage goes. Times are monotonic seconds and rise."""

    def __init__(self, total: int | None, now_s: float) -> None:
        self.total = total
        self.done = 0
        self._marks: deque[tuple[float, int]] = deque([(now_s, 0)])

    def mark(self, now_s: float) -> None:
        """Remember how far it is now, and forget what is older than the window but for one."""
        self._marks.append((now_s, self.done))
        while len(self._marks) > 1 and now_s - self._marks[1][0] >= WINDOW_S:
            self._marks.popleft()

    def rate(self, now_s: float) -> float | None:
        """Return units a second of late, None if there is nothing to tell it from."""
        at_s, done = self._marks[0]
        return (self.done - done) / (now_s - at_s) if now_s > at_s else None

    def seconds_left(self, now_s: float) -> int | None:
        """Return how long the rest takes at this rate, None if that cannot be said."""
        rate = self.rate(now_s)
        if self.total is None or not rate:
            return None
        return math.ceil(max(0, self.total - self.done) / rate)


class EventProgress:
    """For other programs: a line when a stage begins, at most one a second while it goes on, and where it ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._name = ""
        self._unit = ""
        self._pace: Pace | None = None
        self._said_at_s = 0.0
        self._is_said = True
        self._lock = threading.Lock()

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Begin a stage, and say so at once: it may be long before it has something to report."""
        with self._lock:
            self._say_rest()
            self._name, self._unit = name, unit
            self._pace = Pace(total, self._clock.monotonic())
            self._say(self._pace)

    def advance(self, amount: int) -> None:
        """Count, and say so if the last line is a second old."""
        with self._lock:
            if self._pace is None:
                return
            self._pace.done += amount
            self._is_said = False
            if self._clock.monotonic() - self._said_at_s >= EVENT_EVERY_S:
                self._say(self._pace)

    def note(self, text: str) -> None:
        """Say something now."""
        say_event("notice", text=text)

    def close(self) -> None:
        """Say where the last stage ended."""
        with self._lock:
            self._say_rest()

    def _say_rest(self) -> None:
        if self._pace is not None and not self._is_said:
            self._say(self._pace)

    def _say(self, pace: Pace) -> None:
        now_s = self._clock.monotonic()
        rate = pace.rate(now_s)
        say_event(
            "progress",
            stage=self._name,
            done=pace.done,
            total=pace.total,
            unit=self._unit,
            rate=None if rate is None else round(rate, 1),
            seconds_left=pace.seconds_left(now_s),
        )
        pace.mark(now_s)
        self._said_at_s, self._is_said = now_s, True


def _amount(count: int, unit: str) -> str:
    return format_size(count) if unit == "bytes" else f"{count} {unit}"


class LineProgress:
    """For logs: nothing but notices, and one line every ten minutes of a long stage."""

    def __init__(self) -> None:
        self._stage = ""
        self._unit = "bytes"
        self._total: int | None = None
        self._done = 0
        self._next = time.monotonic() + _LINE_EVERY_S
        self._lock = threading.Lock()

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Begin a stage."""
        with self._lock:
            self._stage, self._total, self._unit, self._done = name, total, unit, 0

    def advance(self, amount: int) -> None:
        """Count, and say so now and then."""
        with self._lock:
            self._done += amount
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _LINE_EVERY_S
            of = "" if self._total is None else f" of {_amount(self._total, self._unit)}"
            aside(f"{self._stage}: {_amount(self._done, self._unit)}{of} so far")

    def note(self, text: str) -> None:
        """Say something now."""
        aside(plain(text))

    def close(self) -> None:
        """Nothing is open."""


class BarProgress:
    """For a terminal: one bar on stderr, refreshed a few times a second."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only terminals pay for it
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=4,
        )
        self._task: Any = None
        self._unit = "bytes"
        self._done = 0
        self._of = ""
        self._lock = threading.Lock()

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Show a new bar. The first one begins the display: what is asked for before it is left alone."""
        with self._lock:
            self._progress.start()
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._unit, self._done = unit, 0
            self._of = "" if total is None else f" of {_amount(total, unit)}"
            self._task = self._progress.add_task(name, total=total, amount="")

    def advance(self, amount: int) -> None:
        """Move the bar."""
        with self._lock:
            if self._task is None:
                return
            self._done += amount
            shown = f"{_amount(self._done, self._unit)}{self._of}"
            self._progress.update(self._task, advance=amount, amount=shown)

    def note(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(plain(text), highlight=False, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()
