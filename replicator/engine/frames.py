"""What the walking process and its reading processes say to each other, over a socket pair.

    length 4, little-endian | one message in msgpack

Messages never leave the machine and live as long as a run, so they have no versions. Descriptors of folders travel
beside the message that names them (SCM_RIGHTS), so that a reader resolves no path a second time.
"""

import socket
import struct
from typing import Final, NamedTuple, TypeAlias

import msgspec

from replicator.errors import ReplicatorError
from replicator.format.keybag import WriterDomain
from replicator.format.tree import Hole, Xattr

MOST_FOLDERS: Final = 200
"""Folders in one message; the kernel passes at most 253 descriptors at once."""
_HEADER: Final = struct.Struct("<I")


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One thing said."""


class Setup(Message, frozen=True):
    """To a reader, first: what it needs. Keys travel here, never in arguments or environment."""

    tenant: bytes
    domain: WriterDomain
    policy: bytes
    sizes: tuple[int, int, int]
    spool: str
    threads: int


class Read(Message, frozen=True):
    """To a reader: read these files, given as names in each of the folders whose descriptors come along."""

    task: int
    folders: list[list[bytes]]


class Wanted(Message, frozen=True):
    """To a reader: which of the chunks named longest ago to store, a byte for each: 1 or 0."""

    chunks: bytes


class Finish(Message, frozen=True):
    """To a reader: everything is read; seal what is open."""


class FileStatus(NamedTuple):
    """A :class:`~replicator.snapshot.walk.Status` as it travels."""

    st_mode: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_uid: int
    st_gid: int
    st_dev: int
    st_ino: int
    st_nlink: int
    st_rdev: int
    st_blocks: int


class File(msgspec.Struct, frozen=True, array_like=True):
    """What came of a file. ``status`` is None if it was not read; ``later``: it is large, and follows by itself.

    ``chunks`` counts those of the message that are its own, in the order of files.
    """

    status: FileStatus | None
    holes: list[Hole]
    xattrs: list[Xattr]
    xattrs_gap: str
    changed: bool
    gap: str
    chunks: int
    later: bool = False


class Files(Message, frozen=True):
    """From a reader: the small files of a task, and their chunks (32-byte ids, 4-byte lengths), to be answered."""

    task: int
    files: list[File]
    ids: bytes
    lengths: bytes


class Part(Message, frozen=True):
    """From a reader: more chunks of the large file at a place in a task, to be answered. ``again``: from its start.

    ``repeated``: so often in a row, which only the zeros of a hole are.
    """

    task: int
    place: int
    again: bool
    ids: bytes
    lengths: bytes
    repeated: int = 1


class Whole(Message, frozen=True):
    """From a reader: all parts of a large file were sent."""

    task: int
    place: int
    file: File


class Sealed(Message, frozen=True):
    """From a reader: a pack is in the spool."""

    name: bytes
    size: int
    ids: bytes


class Failed(Message, frozen=True):
    """From a reader: it cannot go on. ``kind`` is the name of an error class of this project, or empty."""

    kind: str
    text: str
    hint: str


class Finished(Message, frozen=True):
    """From a reader: nothing is left."""


ToReader: TypeAlias = Setup | Read | Wanted | Finish
FromReader: TypeAlias = Files | Part | Whole | Sealed | Failed | Finished

_encoder = msgspec.msgpack.Encoder()
to_reader = msgspec.msgpack.Decoder(ToReader)
from_reader = msgspec.msgpack.Decoder(FromReader)


def framed(message: Message) -> bytes:
    """Return the bytes of a message."""
    body = _encoder.encode(message)
    return _HEADER.pack(len(body)) + body


class Inbox:
    """Takes bytes and descriptors as they come from a socket, and gives whole messages."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[ToReader] | msgspec.msgpack.Decoder[FromReader]") -> None:
        self._decoder = decoder
        self._data = bytearray()
        self.descriptors: list[int] = []
        """In the order they came."""

    def receive(self, sock: socket.socket) -> bool:
        """Take what one call gives; return whether the other side is still there.

        Raises:
            BlockingIOError: nothing is there and the socket does not block.
        """
        data, descriptors, _, _ = socket.recv_fds(sock, 1 << 18, MOST_FOLDERS, socket.MSG_CMSG_CLOEXEC)
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

    def next(self) -> ToReader | FromReader | None:
        """Return the next whole message, None until more has come."""
        if not self.whole:
            return None
        [length] = _HEADER.unpack_from(self._data)
        end = _HEADER.size + length
        with memoryview(self._data) as view, view[_HEADER.size : end] as body:
            message = self._decoder.decode(body)
        del self._data[:end]
        return message


def failure_of(error: Exception) -> Failed:
    """Return an error as what can be said of it."""
    if isinstance(error, ReplicatorError):
        return Failed(type(error).__name__, str(error), error.hint or "")
    return Failed("", f"{type(error).__name__}: {error}", "")
