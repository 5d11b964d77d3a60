"""Programs of others that this one starts: in a session of their own, with a limit in time, and nothing left behind.

A program cannot ask on the terminal, gets no standard input but what it is given, and is ended with everything it
started that did not leave its process group. What only waits (a limit, somebody who wants to stop) is looked at every
:data:`TICK_S`.
"""

import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol, Self

from replicator.errors import SourceError

TICK_S: Final = 0.1
GRACE_S: Final = 10.0
"""Between the request to end (SIGTERM) and the end (SIGKILL)."""
TAIL: Final = 8 << 10
"""Bytes kept of the last that a program said."""
_PIPE: Final = 1 << 20
"""What the kernel may hold between a program and its reader: 64 KiB, its default, wakes both up too often."""

Stop = Callable[[], bool]
"""Says whether somebody wants the work to end."""
Heard = Callable[[bytes], None]
"""Told what a program says on standard error, as it comes; on the thread that runs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program with its arguments, its whole environment, its working folder, and what it finds on standard input."""

    argv: Sequence[str | bytes]
    environment: Mapping[str, str]
    folder: str = "/"
    given: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended: with an exit code, or by a signal (``code`` is its number below zero).

    ``by`` is who ended it: the program itself, the limit in time, or somebody who wanted to stop. ``tail`` is the last
    it said on standard output and standard error, ``out`` the first of its standard output, where that was asked for.
    """

    code: int
    by: Literal["itself", "limit", "stop"] = "itself"
    tail: bytes = b""
    out: bytes = b""

    @property
    def good(self) -> bool:
        """Whether it did what it was asked."""
        return self.by == "itself" and self.code == 0


class Output(Protocol):
    """The standard output of a program that runs."""

    def read_into(self, buffer: memoryview, /) -> int:
        """Read on; 0 is the end, or that the program was ended."""
        ...

    def finish(self) -> Ended:
        """Wait until the program has ended; to be called when its output has."""
        ...

    def close(self) -> None:
        """End the program if it still runs; idempotent."""
        ...


class Programs(Protocol):
    """Starts programs; SourceError if one cannot be started."""

    def run(self, command: Command, *, limit_s: float, stop: Stop, keep: int = 0, heard: Heard | None = None) -> Ended:
        """Run a program to its end, or end it. ``keep`` is how many bytes of its standard output are wanted."""
        ...

    def open(self, command: Command, *, limit_s: float, stop: Stop, heard: Heard | None = None) -> Output:
        """Start a program whose output is read. The limit is on the time that is spent waiting for it."""
        ...


class SystemPrograms:
    """The machine's programs."""

    def run(self, command: Command, *, limit_s: float, stop: Stop, keep: int = 0, heard: Heard | None = None) -> Ended:
        """Run a program to its end, or end it."""
        # What is said on both sides stays in its order, unless the answer has to be told from the rest.
        with _Child(command, stop, keep=keep, joined=not keep and heard is None, heard=heard) as child:
            deadline = time.monotonic() + limit_s
            while not child.has_ended(deadline - time.monotonic()):
                pass
            # What it left behind in the background may hold the pipes open: nobody waits for that.
            child.drain()
            return child.ended()

    def open(self, command: Command, *, limit_s: float, stop: Stop, heard: Heard | None = None) -> Output:
        """Start a program whose output is read."""
        return _Reading(_Child(command, stop, heard=heard), limit_s)


class _Reading:
    """A program's output, whose reader takes its time."""

    def __init__(self, child: "_Child", limit_s: float) -> None:
        self._child = child
        self._left_s = limit_s

    def read_into(self, buffer: memoryview, /) -> int:
        """Read on."""
        while True:
            before = time.monotonic()
            ready = self._child.wait_for_output(self._left_s)
            self._left_s -= time.monotonic() - before
            if ready:
                return self._child.read(buffer)
            if self._child.by != "itself":
                return 0

    def finish(self) -> Ended:
        """Wait until the program has ended."""
        deadline = time.monotonic() + self._left_s
        while not self._child.has_ended(deadline - time.monotonic()):
            pass
        self._child.drain()
        ended = self._child.ended()
        self.close()
        return ended

    def close(self) -> None:
        """End the program if it still runs."""
        self._child.close()


def _open_given(given: bytes) -> int:
    """Return what a program is to read: a file in memory, so that nobody has to feed it; or nothing."""
    if not given:
        return subprocess.DEVNULL
    descriptor = os.memfd_create("replicator")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(given)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class _Child:
    """A running program: its process group, its pipes, and a descriptor that tells of its end without reaping it."""

    def __init__(
        self, command: Command, stop: Stop, *, keep: int = 0, joined: bool = False, heard: Heard | None = None
    ) -> None:
        given = _open_given(command.given)
        try:
            self._process = subprocess.Popen(
                command.argv,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if joined else subprocess.PIPE,
                env=command.environment,
                cwd=command.folder,
                bufsize=0,
                # Also away from the terminal: in the background, whatever asks for a password there waits for ever.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise SourceError(
                f"{os.fsdecode(command.argv[0])!r} cannot be started: {reason}",
                hint="install it, or name it by its whole path",
            ) from error
        finally:
            if given >= 0:
                os.close(given)
        self.by: Literal["itself", "limit", "stop"] = "itself"
        self._stop = stop
        self._keep = keep
        self._heard = heard
        self._tail = bytearray()
        self._out = bytearray()
        self._pipes = [pipe for pipe in (self._process.stdout, self._process.stderr) if pipe is not None]
        self._stdout = self._pipes[0].fileno()
        self._open = {pipe.fileno() for pipe in self._pipes}
        self._pidfd = os.pidfd_open(self._process.pid)
        for fd in self._open:
            os.set_blocking(fd, False)
            with suppress(OSError):  # beyond what this user may have of it
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has_ended(self, left_s: float) -> bool:
        """Take in what is said for a tick; return whether the program has ended. It is made to, if time is up."""
        for fd in self._ready({*self._open, self._pidfd}, left_s):
            if fd == self._pidfd:
                return True
            self._take(fd)
        return self._is_due(left_s)

    def wait_for_output(self, left_s: float) -> bool:
        """Wait a tick for standard output, taking in what is said beside it; its end is output too."""
        for fd in self._ready(self._open | {self._stdout}, left_s):
            if fd == self._stdout:
                return True
            self._take(fd)
        self._is_due(left_s)
        return False

    def read(self, buffer: memoryview) -> int:
        """Read standard output, which is ready."""
        return os.readv(self._stdout, [buffer])

    def drain(self) -> None:
        """Take in what lies in the pipes, and no more: something in the background may go on writing for ever."""
        for fd in [*self._open] * 2:
            if self._ready({fd}, 0):
                self._take(fd)

    def ended(self) -> Ended:
        """Return how it ended, which it has."""
        return Ended(code=self._process.wait(), by=self.by, tail=bytes(self._tail), out=bytes(self._out))

    def close(self) -> None:
        """End it if it runs, and give everything back."""
        if self._pidfd < 0:
            return
        if not self._ready({self._pidfd}, 0):
            self._end("stop")
        os.close(self._pidfd)
        self._pidfd = -1
        self._process.wait()
        for pipe in self._pipes:
            pipe.close()

    def _ready(self, wanted: set[int], left_s: float) -> list[int]:
        poll = select.poll()
        for fd in wanted:
            poll.register(fd, select.POLLIN)
        return [fd for fd, _ in poll.poll(max(0, min(TICK_S, left_s)) * 1000)]

    def _take(self, fd: int) -> None:
        try:
            data = os.read(fd, _PIPE)
        except BlockingIOError:
            return
        if not data:
            self._open.discard(fd)
            return
        if fd == self._stdout:
            self._out += data[: max(0, self._keep - len(self._out))]
        elif self._heard is not None:
            self._heard(data)
        self._tail += data
        del self._tail[:-TAIL]

    def _is_due(self, left_s: float) -> bool:
        if self._stop():
            self._end("stop")
        elif left_s <= 0:
            self._end("limit")
        return self.by != "itself"

    def _end(self, by: Literal["limit", "stop"]) -> None:
        """Ask the whole group to end, and end it after the grace."""
        self.by = by
        group = self._process.pid
        deadline = time.monotonic() + GRACE_S
        self._signal(group, signal.SIGTERM)
        # The group's number is not given to anybody else as long as one process is in it, reaped leader or not.
        while time.monotonic() < deadline:
            for fd in self._ready(set(self._open), TICK_S / 4):
                self._take(fd)
            if self._process.poll() is not None and not self._signal(group, 0):
                return
            if not self._open:
                time.sleep(TICK_S / 4)
        self._signal(group, signal.SIGKILL)

    def _signal(self, group: int, number: int) -> bool:
        """Signal a group; return whether there is one."""
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # it has become another user's
            return True
        return True
