"""What processes of one run say to each other over a socket pair.

    length 4, little-endian | one message in msgpack

Messages never leave the machine and live as long as a run, so they have no versions. Descriptors travel beside the
message that names them (SCM_RIGHTS), so that the other side resolves no path a second time.
"""

import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import msgspec

from replicator.engine.heap import settle_heap
from replicator.errors import ReplicatorError

MOST_DESCRIPTORS: Final = 200
"""In one message; the kernel passes at most 253 at once."""
_HEADER: Final = struct.Struct("<I")


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One thing said."""


class Failed(Message, frozen=True):
    """From a helping process: it cannot go on. ``kind`` is the name of an error class of this project, or empty."""

    kind: str
    text: str
    hint: str


M = TypeVar("M")
_encoder = msgspec.msgpack.Encoder()


def framed(message: Message) -> bytes:
    """Return the bytes of a message."""
    body = _encoder.encode(message)
    return _HEADER.pack(len(body)) + body


class Inbox(Generic[M]):
    """Takes bytes and descriptors as they come from a socket, and gives whole messages."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[M]") -> None:
        self._decoder = decoder
        self._data = bytearray()
        self.descriptors: list[int] = []
        """In the order they came."""

    def receive(self, sock: socket.socket) -> bool:
        """Take what one call gives; return whether the other side is still there.

        Raises:
            BlockingIOError: nothing is there and the socket does not block.
        """
        data, descriptors, _, _ = socket.recv_fds(sock, 1 << 18, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        self.descriptors += descriptors
        self._data += data
        return bool(data)

    @property
    def whole(self) -> bool:
        """Whether a whole message is there."""
        if len(self._data) < _HEADER.size:
            return False
        [length] = _HEADER.unpack_from(self._data)
        return len(self._data) >= _HEADER.size + int(length)

    def next(self) -> M | None:
        """Return the next whole message, None until more has come."""
        if not self.whole:
            return None
        [length] = _HEADER.unpack_from(self._data)
        end = _HEADER.size + length
        with memoryview(self._data) as view, view[_HEADER.size : end] as body:
            message = self._decoder.decode(body)
        del self._data[:end]
        return message

    def take(self, count: int) -> list[int]:
        """Return the descriptors that came with a message of so many; they are the caller's to close."""
        taken, self.descriptors = self.descriptors[:count], self.descriptors[count:]
        return taken


def failure_of(error: Exception) -> Failed:
    """Return an error as what can be said of it."""
    if isinstance(error, ReplicatorError):
        return Failed(type(error).__name__, str(error), error.hint or "")
    return Failed("", f"{type(error).__name__}: {error}", "")


def help_over_socket(serve: Callable[[socket.socket], None]) -> None:
    """Be a helping process: serve the inherited socket whose descriptor is the argument, until nobody is there.

    What ends it is told over the socket. Ctrl-C is the matter of the process that started this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settle_heap()
    with socket.socket(fileno=int(sys.argv[1])) as sock, suppress(BrokenPipeError, ConnectionResetError):
        try:
            serve(sock)
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            sock.sendall(framed(failure_of(error)))
