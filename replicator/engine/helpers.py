"""Processes of this program that help the one that started them, each at the other end of a socket pair."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Generic, Self, TypeVar

import msgspec

from replicator import errors
from replicator.engine.mail import Failed, Inbox, Message, framed
from replicator.errors import ReplicatorError

M = TypeVar("M")
_RAISED: Final[Mapping[str, type[ReplicatorError]]] = {
    kind.__name__: kind
    for kind in (
        errors.SpaceError,
        errors.IntegrityError,
        errors.FormatError,
        errors.SourceError,
        errors.HomeError,
    )
}


class Helper(Generic[M]):
    """One process and this end of its socket pair, which does not block.

    ``what`` is what people call it: "a reading process"; ``hint`` what they do when it has died. ``load`` is its
    owner's count of what it has not answered; ``finished``: that it may end is known.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        sock: socket.socket,
        decoder: "msgspec.msgpack.Decoder[M]",
        what: str,
        hint: str,
    ) -> None:
        sock.settimeout(0)
        self.process = process
        self.load = 0
        self.finished = False
        self._sock = sock
        self._inbox = Inbox(decoder)
        self._what = what
        self._hint = hint

    @classmethod
    def start(cls, module: str, decoder: "msgspec.msgpack.Decoder[M]", what: str, hint: str) -> Self:
        """Start ``python -m MODULE FD``; to end it, :func:`close`."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                # -P: whatever lies in the working folder is not part of this program.
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        return cls(process, ours, decoder, what, hint)

    def fileno(self) -> int:
        """Return what becomes readable when it says something."""
        return self._sock.fileno()

    @property
    def has_said(self) -> bool:
        """Whether :meth:`next` has a message at hand."""
        return self._inbox.whole

    def say(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message, taking in what the process says meanwhile: two that only send would wait for ever.

        ``descriptors`` stay the caller's.

        Raises:
            ReplicatorError: the process has ended.
        """
        data = memoryview(framed(message))
        while data:
            try:
                if descriptors:
                    sent = socket.send_fds(self._sock, [data], descriptors)
                    descriptors = ()
                else:
                    sent = self._sock.send(data)
                data = data[sent:]
            except BlockingIOError:
                ready, _, _ = select.select([self._sock], [self._sock], [])
                if ready:
                    self.take_in()
            except (BrokenPipeError, ConnectionResetError):
                raise self._ended() from None

    def take_in(self) -> None:
        """Take what has come, if anything.

        Raises:
            ReplicatorError: the process has ended before it was finished.
        """
        try:
            alive = self._inbox.receive(self._sock)
        except BlockingIOError:
            return
        except ConnectionResetError:
            alive = False
        if not alive and not self.finished and not self._inbox.whole:
            raise self._ended()

    def next(self) -> M | None:
        """Return the next message that has come whole, None if there is none.

        Raises:
            ReplicatorError: the process says that it cannot go on.
        """
        message = self._inbox.next()
        if isinstance(message, Failed):
            raise failure(message)
        return message

    def kill(self) -> None:
        """Close the socket and end the process at once, unless it is finished; nobody waits for it yet."""
        self._sock.close()
        if not self.finished:
            self.process.kill()
        for fd in self._inbox.take(len(self._inbox.descriptors)):
            os.close(fd)

    def _ended(self) -> ReplicatorError:
        """Return why it has gone: what it said last, which may not have been listened to, or how it ended."""
        with suppress(BlockingIOError, ConnectionResetError):
            while self._inbox.receive(self._sock):
                pass
        while (message := self._inbox.next()) is not None:
            if isinstance(message, Failed):
                return failure(message)
        code = self.process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ReplicatorError(
            f"{self._what} {how}",
            hint=f"{self._hint}; signal 9 without a person behind it means that memory ran out",
        )


def close(helpers: Iterable[Helper[M]]) -> None:
    """End processes, whatever they are doing."""
    helpers = list(helpers)
    for helper in helpers:
        helper.kill()
    for helper in helpers:
        helper.process.wait()


def failure(message: Failed) -> ReplicatorError:
    """Return what a process could not go on for."""
    return _RAISED.get(message.kind, ReplicatorError)(message.text, hint=message.hint)
