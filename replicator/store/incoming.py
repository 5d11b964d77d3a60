"""What is on its way into a store: a file until all of it has come, held against the name it came under."""

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator

from replicator.errors import FormatError, IntegrityError, SpaceError
from replicator.format.merkle import NameHasher
from replicator.fs import Fs, WriteHandle
from replicator.ids import ObjectName

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def space_errors(where: str) -> Iterator[None]:
    """Turn "no space left" and "disk quota exceeded" into :class:`SpaceError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise SpaceError(f"{where}: {os.strerror(error.errno)}", hint="free some space on that disk") from error
        raise


class IncomingFolder:
    """The folder of such files. One process at a time writes there."""

    def __init__(self, fs: Fs, path: str) -> None:
        self.path = path
        self._fs = fs
        self._counter = itertools.count()

    def clear(self) -> None:
        """Remove what an interrupted write left. Only while nobody else writes here."""
        for name, _ in self._fs.list_files(self.path):
            self._fs.unlink(os.path.join(self.path, name))

    def create(self, name: ObjectName) -> WriteHandle:
        """Return a new file for an object."""
        while True:
            try:
                return self._fs.create(os.path.join(self.path, f"{name.hex()}.{next(self._counter)}"))
            except FileExistsError:
                continue  # left by an earlier process; clear() removes it


class IncomingFile:
    """What all stores do with an object on its way; without ``hasher`` its name is known to be right.

    A store's own class adds the commit, which calls :meth:`verify` and, whatever comes of it, :meth:`abort`.
    """

    def __init__(self, fs: Fs, name: ObjectName, size: int, handle: WriteHandle, hasher: NameHasher | None) -> None:
        self.name = name
        self.size = size
        self._fs = fs
        self._handle = handle
        self._hasher = hasher
        self._hashed = self._written = 0
        self._open = True

    def hash(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes into the name."""
        if self._hashed + len(piece) > self.size:
            raise FormatError(f"object: more than the {self.size} bytes that were announced")
        self._hashed += len(piece)
        if self._hasher is not None:
            self._hasher.update(piece)

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Append."""
        assert self._open, "write after commit or abort"
        self._written += len(piece)
        assert self._written <= self._hashed, "hashed before it is written"
        with space_errors(self._handle.path):
            self._handle.write(piece)

    def verify(self) -> None:
        """Hold what came against what was announced.

        Raises:
            FormatError: fewer bytes came.
            IntegrityError: they are not the object they are called.
        """
        assert self._open, "commit after commit or abort"
        if self._written != self.size:
            raise FormatError(f"object: {self._written} of {self.size} bytes came")
        if self._hasher is not None and self._hasher.name() != self.name:
            raise IntegrityError("object: its bytes are not the ones that its name stands for")

    def abort(self) -> None:
        """Leave no trace of the file, also after a commit."""
        if self._open:
            self._open = False
            self._handle.close()
            with contextlib.suppress(FileNotFoundError):
                self._fs.unlink(self._handle.path)
