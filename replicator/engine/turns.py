"""Runs of many homes on one machine, each in its turn (:mod:`scheduler.turns`): what one meets stops no other.

HOMES/turns.json remembers when each one's last turn ended and how often it was stopped since. It may be lost: then all
have waited equally long.
"""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from replicator.clock import NS, Clock
from replicator.fs import Fs, write_atomic
from scheduler.turns import Active, Waiting, in_turn, next_of, slice_of, to_stop

TURNS_FILE = "turns.json"
State = Literal["ended", "stopped", "not begun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """What a run came to: its exit code (below zero: a signal), its document, and the last that it said beside."""

    code: int
    document: Any = None
    said: tuple[str, ...] = ()


class Job(Protocol):
    """A run that has begun."""

    async def wait(self) -> Came:
        """Return how it ended. A cancelled wait leaves it running."""
        ...

    def stop(self) -> None:
        """Ask it to stop at the next safe border."""
        ...


Launch = Callable[[str], Job]
"""Begins the run of a home, given its name."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of a tenant in a pass.

    ``state``: its run ended; it was stopped and goes on in the next pass; or no time was left to begin it.
    """

    id: str
    state: State = "not begun"
    came: Came | None = None
    waited_s: float = 0.0
    """Since its last turn ended, -1 if it never had one."""
    took_s: float = 0.0
    turns: int = 0


class Memory:
    """When each one's last turn ended."""

    def __init__(self, fs: Fs, folder: str) -> None:
        self._fs = fs
        self._path = os.path.join(folder, TURNS_FILE)
        self._known = self._load()

    def _load(self) -> dict[str, tuple[int, int]]:
        try:
            found = json.loads(self._fs.read(self._path))
            return {str(name): (int(one["ended_ns"]), int(one["stopped"])) for name, one in found.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}

    def waiting(self, name: str) -> Waiting:
        """Return a tenant as it waits."""
        ended_ns, stopped = self._known.get(name, (0, 0))
        return Waiting(id=name, ended=ended_ns / NS, stopped=stopped)

    def note(self, name: str, *, ended_ns: int | None, names: Sequence[str]) -> None:
        """Note that a turn ended, or, with None, that it was stopped. Who is not among ``names`` is forgotten."""
        before_ns, stopped = self._known.get(name, (0, 0))
        self._known[name] = (before_ns, stopped + 1) if ended_ns is None else (ended_ns, 0)
        said = {
            one: {"ended_ns": ended, "stopped": stops}
            for one, (ended, stops) in sorted(self._known.items())
            if one in names
        }
        write_atomic(self._fs, self._path, json.dumps(said, indent=1).encode() + b"\n")


@dataclass(slots=True)
class _Running:
    active: Active
    job: Job
    ended: "asyncio.Task[Came]"


@dataclass(slots=True, kw_only=True)
class Pass:
    """One pass over all tenants.

    ``lanes`` run at a time, ``slice_s`` long before they make room for others; after ``limit_s`` all are stopped.
    """

    names: Sequence[str]
    launch: Launch
    clock: Clock
    memory: Memory
    lanes: int
    slice_s: float
    limit_s: float
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _running: dict[str, _Running] = field(default_factory=dict)
    _fresh: list[Waiting] = field(default_factory=list)
    _again: list[Waiting] = field(default_factory=list)

    async def go(self) -> list[Outcome]:
        """Give everybody turns until all have ended or the time is over. Cancelled, it stops all and waits for them."""
        waiting = [self.memory.waiting(name) for name in self.names]
        now_s = self.clock.now_ns() / NS
        for one in waiting:
            self.outcomes[one.id] = Outcome(id=one.id, waited_s=max(0.0, now_s - one.ended) if one.ended else -1.0)
        ordered = in_turn(waiting)
        self._fresh = [one for one in ordered if not one.stopped]
        self._again = [one for one in ordered if one.stopped]
        until = self.clock.monotonic() + self.limit_s
        try:
            while self._fresh or self._again or self._running:
                if self.clock.monotonic() >= until:
                    self._fresh, self._again = [], []
                    await self._stop_all()
                    break
                self._begin()
                await self._wait(until)
        except asyncio.CancelledError:
            await self._stop_all()
            raise
        return [self.outcomes[name] for name in self.names]

    def _begin(self) -> None:
        while True:
            found = next_of(self._fresh, self._again, [one.active for one in self._running.values()], self.lanes)
            if found is None:
                return
            (self._again if found in self._again else self._fresh).remove(found)
            now = self.clock.monotonic()
            self.outcomes[found.id].turns += 1
            try:
                job = self.launch(found.id)
            except Exception as error:  # whatever it is, the others have their turns
                self._end(found, now, Came(code=1, said=(str(error),)))
                continue
            active = Active(waiting=found, since=now, until=now + slice_of(found, self.slice_s))
            self._running[found.id] = _Running(active, job, asyncio.ensure_future(job.wait()))

    async def _wait(self, until: float) -> None:
        """Wait until somebody has ended, or has to make room."""
        if not self._running:
            return
        now = self.clock.monotonic()
        crowded = bool(self._fresh or self._again)
        ends = [one.active.until for one in self._running.values() if crowded and not one.active.stopping]
        nap = asyncio.ensure_future(self.clock.sleep(max(0.0, min([until, *ends]) - now)))
        try:
            await asyncio.wait([nap, *(one.ended for one in self._running.values())], return_when="FIRST_COMPLETED")
        finally:
            nap.cancel()
        for name, one in list(self._running.items()):
            if one.ended.done():
                del self._running[name]
                self._take(one)
        active = [one.active for one in self._running.values()]
        for due in to_stop(active, len(self._fresh) + len(self._again), self.clock.monotonic()):
            self._stop(self._running[due.waiting.id])

    def _stop(self, one: _Running) -> None:
        before = one.active
        one.active = Active(waiting=before.waiting, since=before.since, until=before.until, stopping=True)
        one.job.stop()

    async def _stop_all(self) -> None:
        for one in self._running.values():
            if not one.active.stopping:
                self._stop(one)
        if self._running:
            await asyncio.wait([one.ended for one in self._running.values()])
        for one in self._running.values():
            self._take(one, last=True)
        self._running.clear()

    def _take(self, one: _Running, *, last: bool = False) -> None:
        """Take in what a run came to. Who ended while being asked to stop has ended."""
        error = one.ended.exception()
        came = one.ended.result() if error is None else Came(code=1, said=(str(error),))
        if not (one.active.stopping and came.code < 0):
            self._end(one.active.waiting, one.active.since, came)
            return
        outcome = self.outcomes[one.active.waiting.id]
        outcome.state, outcome.came = "stopped", came
        outcome.took_s += self.clock.monotonic() - one.active.since
        self._note(one.active.waiting.id, None)
        if not last:
            self._again.append(self.memory.waiting(one.active.waiting.id))

    def _end(self, one: Waiting, since: float, came: Came) -> None:
        outcome = self.outcomes[one.id]
        outcome.state, outcome.came = "ended", came
        outcome.took_s += self.clock.monotonic() - since
        self._note(one.id, self.clock.now_ns())

    def _note(self, name: str, ended_ns: int | None) -> None:
        try:
            self.memory.note(name, ended_ns=ended_ns, names=self.names)
        except OSError as error:
            outcome = self.outcomes[name]
            came = outcome.came or Came(code=1)
            text = f"whose turn it was could not be written down: {error.strerror}"
            outcome.came = Came(code=came.code, document=came.document, said=(*came.said, text))
