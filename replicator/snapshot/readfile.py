"""Reading one file to its chunks: again if it changes meanwhile, never longer than it was when it was opened."""

import stat
from collections.abc import Sequence
from contextlib import closing
from typing import Final, NamedTuple, Protocol

from replicator.format.snapshot import ChunkList
from replicator.format.tree import Hole, Xattr
from replicator.snapshot.chunklist import EMPTY
from replicator.snapshot.tree import MAX_XATTR_VALUE
from replicator.snapshot.walk import VANISHED, Folder, OpenFile, Status, reason_of

READS: Final = 3
"""How often a file that changes under the reader is read before it is taken as it is."""
MAX_HOLES: Final = 4096
"""Holes kept per file, the largest ones; the others are restored as zeros."""
MAX_XATTRS: Final = 1 << 20
"""Bytes of extended attributes kept per entry."""

CHANGED: Final = "changed while it was read; what was read last is kept"
NO_LONGER_FILE: Final = "became something else while it was captured"
UNLISTED_XATTRS: Final = "extended attributes missing: "
LARGE_XATTRS: Final = "extended attributes missing: more than 1 MiB of them"


class Attributes(NamedTuple):
    """Extended attributes; ``gap`` says why some are missing, empty if none are."""

    xattrs: list[Xattr]
    gap: str = ""


class ReadFile(NamedTuple):
    """What came of reading a file. ``status`` is that of the open file before its first byte.

    Without ``status`` it could not be read, and ``gap`` says why. ``changed``: it did not hold still.
    """

    status: Status | None
    content: ChunkList
    holes: list[Hole]
    attributes: Attributes
    changed: bool
    gap: str


class Chunks(Protocol):
    """What takes the bytes of one file; :meth:`begin` may come again, and what came before then is void."""

    def begin(self) -> None:
        """Begin with the first byte of the file."""
        ...

    def take(self, reader: "Reader", size: int, holes: Sequence[Hole]) -> int:
        """Cut ``size`` bytes, or fewer if the file ends, into chunks; return how many bytes there were.

        ``holes`` are those of the file, which need not be read.
        """
        ...


class SourceReadError(Exception):
    """Reading the source failed; kept apart from whatever a sink raises."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Reader:
    """An open file that gives at most ``left`` more bytes, so that a file growing under the reader has an end."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self.left = 0

    def status(self) -> Status:
        """Return the state of the open file now."""
        try:
            return self._file.status()
        except OSError as error:
            raise SourceReadError(error) from error

    def holes(self, status: Status) -> list[Hole]:
        """Return the ranges without data."""
        if status.st_blocks * 512 >= status.st_size:
            return []
        try:
            return self._file.holes(status.st_size)
        except OSError as error:
            raise SourceReadError(error) from error

    def readinto(self, buffer: memoryview, /) -> int:
        """Read on; 0 is the end of the file or of what is left."""
        with buffer[: self.left] as room:
            if not room:
                return 0
            try:
                count = self._file.read_into(room)
            except OSError as error:
                raise SourceReadError(error) from error
        self.left -= count
        return count

    def skip(self, count: int) -> None:
        """Go on behind so many bytes that need not be read."""
        try:
            self._file.skip(count)
        except OSError as error:
            raise SourceReadError(error) from error
        self.left -= count

    def fill(self, buffer: memoryview) -> int:
        """Read until ``left`` is used up or the file ends; return how much was read."""
        filled = 0
        while count := self.readinto(buffer[filled:]):
            filled += count
        return filled


def read_file(folder: Folder, name: bytes, chunks: Chunks) -> ReadFile:
    """Read a file until it held still, at most :data:`READS` times.

    ``content`` of the answer is empty: what the chunks came to, whoever took them knows. What ``chunks`` raises is
    passed on.
    """
    before: Status | None = None
    holes: list[Hole] = []
    spare = bytearray(1)
    for _ in range(READS):
        try:
            file = folder.open(name)
        except OSError as error:
            return _unread(reason_of(error))
        with closing(file):
            reader = Reader(file)
            try:
                before = reader.status()
                if not stat.S_ISREG(before.st_mode):
                    return _unread(NO_LONGER_FILE)
                holes = reader.holes(before)
                chunks.begin()
                reader.left = before.st_size
                length = chunks.take(reader, before.st_size, holes)
                reader.left = 1
                behind = reader.readinto(memoryview(spare))
                after = reader.status()
            except SourceReadError as failed:
                return _unread(reason_of(failed.error))
        holes = kept_holes(holes, length)
        if length == before.st_size and not behind and same_content(before, after):
            return ReadFile(before, EMPTY, holes, read_attributes(folder, name), changed=False, gap="")
    return ReadFile(before, EMPTY, holes, read_attributes(folder, name), changed=True, gap=CHANGED)


def same_content(before: Status, after: Status) -> bool:
    """Return whether a file shows no sign of another content."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_ino,
    )


def read_attributes(folder: Folder, name: bytes) -> Attributes:
    """Return the extended attributes that are kept of what a name stands for."""
    try:
        found = folder.xattrs(name)
    except OSError as error:
        reason = reason_of(error)
        return Attributes([], UNLISTED_XATTRS + (reason if reason != VANISHED else "it vanished"))
    if not found:
        return Attributes(found)
    if sum(len(one.name) + len(one.value) for one in found) > MAX_XATTRS:
        return Attributes([], LARGE_XATTRS)
    return Attributes([one for one in found if len(one.value) <= MAX_XATTR_VALUE])


def kept_holes(holes: Sequence[Hole], size: int) -> list[Hole]:
    """Return the largest holes within ``size``, apart and in order."""
    kept: list[Hole] = []
    end = -1
    for hole in holes:
        stop = min(hole.offset + hole.length, size)
        if end < hole.offset < stop:
            kept.append(Hole(offset=hole.offset, length=stop - hole.offset))
            end = stop
    if len(kept) > MAX_HOLES:
        kept = sorted(sorted(kept, key=lambda hole: -hole.length)[:MAX_HOLES], key=lambda hole: hole.offset)
    return kept


def _unread(reason: str) -> ReadFile:
    return ReadFile(None, EMPTY, [], Attributes([]), changed=False, gap=reason)
