"""A source that is one file, which comes from somewhere as a stream: its size is known when it has ended."""

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn

from replicator.format.tree import Hole, Xattr
from replicator.snapshot.capture import InlineReader
from replicator.snapshot.readfile import Attributes, Reader, ReadFile
from replicator.snapshot.walk import Folder, Found, OpenFile, Status

MODE: Final = 0o600
"""What a program writes, a database's content as a rule, is nobody else's business."""
ENDLESS: Final = 1 << 62


class PipedStatus(NamedTuple):
    """How the file looks: a regular one of the user who runs this, of a size that nobody knows yet."""

    st_mtime_ns: int
    st_ctime_ns: int
    st_uid: int
    st_gid: int
    st_mode: int = stat.S_IFREG | MODE
    st_size: int = 0
    st_dev: int = 0
    st_ino: int = 0
    st_nlink: int = 1
    st_rdev: int = 0
    st_blocks: int = 0


class PipedSource:
    """A source with one file at its root; ``begin`` starts the stream, once for each capture."""

    def __init__(self, name: bytes, begin: Callable[[], OpenFile], *, now_ns: int) -> None:
        self.root = b"/" + name
        """The one root that can be captured."""
        self._begin = begin
        self._status = PipedStatus(now_ns, now_ns, os.geteuid(), os.getegid())

    def locate(self, path: bytes) -> tuple[Folder, bytes]:
        """Return the folder around the file; nothing is started yet."""
        if path != self.root:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return _Around(path[1:], self._begin, self._status), path[1:]

    def mounts(self) -> bytes:
        """Nothing is mounted in a stream."""
        return b""


class _Around:
    """The folder around the file, which holds nothing else."""

    def __init__(self, name: bytes, begin: Callable[[], OpenFile], status: Status) -> None:
        self._name = name
        self._begin = begin
        self._status = status

    def names(self) -> list[bytes]:
        return [self._name]

    def here(self) -> NoReturn:
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def status(self, name: bytes) -> Status:  # noqa: ARG002 - there is one
        return self._status

    def enter(self, name: bytes) -> NoReturn:  # noqa: ARG002 - it is a file
        self.here()

    def parent(self) -> NoReturn:
        self.here()

    def open(self, name: bytes) -> OpenFile:  # noqa: ARG002 - there is one
        return self._begin()

    def target(self, name: bytes) -> NoReturn:  # noqa: ARG002 - it is no link
        self.here()

    def xattrs(self, name: bytes) -> list[Xattr]:  # noqa: ARG002 - a pipe has none
        return []

    def close(self) -> None:
        """Nothing is open."""


class PipedReader(InlineReader):
    """Reads a stream to its end, once. What its file raises, OSErrors too, ends the capture: half of it is nothing."""

    def read(self, event: Found, done: Callable[[ReadFile], None]) -> None:
        """Read the stream."""
        self._path = event.path
        file = event.folder.open(event.name)
        try:
            reader = Reader(file)
            reader.left = ENDLESS
            no_holes: list[Hole] = []
            self.begin()
            self.take(reader, ENDLESS, no_holes)
        finally:
            file.close()
        done(ReadFile(event.status, self._refs.finish(), [], Attributes([]), changed=False, gap=""))
