"""The first bytes of a connection, before anybody answers: for whom they are meant.

TLS 1.3 (RFC 8446, 4.1.2) begins with a ClientHello, in which the name of the server stands in the clear (RFC 6066, 3):

    offset  size  field
         0     1  22: handshake      1  2  version     3  2  length of the record
         5     1  1: ClientHello     6  3  its length  9  2  version    11  32  random
        43   1+n  session id, then 2+n cipher suites, 1+n compression methods, 2+n extensions
    an extension: 2 type (0: server name), 2 length; in that one 2 length, 1 type (0: host name), 2 length, name
"""

from typing import Final

from replicator.endpoints import relayed_identity
from replicator.ids import Identity

HANDSHAKE: Final = 22
MOST: Final = 5 + (1 << 14)
"""Bytes of the first record of a connection: who has not said by then whom it wants, wants whoever answers."""
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0


def needed(data: bytes) -> int:
    """Return how many bytes there must be before :func:`wanted` can say all; of what is no TLS those that are there."""
    if not data:
        return 1
    if data[0] != HANDSHAKE:
        return len(data)
    if len(data) < 5:
        return 5
    return min(5 + int.from_bytes(data[3:5], "big"), MOST)


def wanted(data: bytes) -> Identity | None:
    """Return which relayed provider a whole first record asks for; None: whoever answers here."""
    try:
        name = _server_name(_Cursor(data))
    except IndexError:
        return None
    return None if name is None else relayed_identity(name)


class _Cursor:
    """Bytes that are taken one piece after the other. IndexError: there are fewer."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, size: int) -> bytes:
        if size > len(self._data):
            raise IndexError(size)
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def part(self, size: int) -> "_Cursor":
        """Take what a length of ``size`` bytes says."""
        return _Cursor(self.take(self.number(size)))

    def __bool__(self) -> bool:
        return bool(self._data)


def _server_name(data: _Cursor) -> str | None:
    if data.number(1) != HANDSHAKE:
        return None
    data.take(2)
    record = data.part(2)
    if record.number(1) != _CLIENT_HELLO:
        return None
    hello = record.part(3)
    hello.take(2 + 32)
    for size in (1, 2, 1):
        hello.part(size)
    extensions = hello.part(2)
    while extensions:
        kind, content = extensions.number(2), extensions.part(2)
        if kind != _SERVER_NAME:
            continue
        names = content.part(2)
        while names:
            kind, name = names.number(1), names.take(names.number(2))
            if kind == 0:
                return name.decode("ascii", "replace")
    return None
