"""Looking at what lies in a restore's target, folder by folder: what is as the tree has it needs no more work.

Several processes may each look at a part, in any order; nothing here writes, or resolves a path through a link.
"""

import os
import stat
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from replicator.errors import FormatError, IntegrityError
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import Entry
from replicator.snapshot.metadata import Metadata
from replicator.snapshot.plan import has_content
from replicator.snapshot.tree import MAX_DEPTH, checked_entries

NESTED: Final = 64
"""Folders in folders that are looked at in one go: a descriptor is open for each."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Item(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One thing that was found; all of them stand in the order of the tree."""


class Enter(_Item, frozen=True):
    """A folder begins; ``needed``: it is not as it was, whatever is in it."""

    entry: Entry
    needed: bool


class Leave(_Item, frozen=True):
    """It ends."""


class Need(_Item, frozen=True):
    """Something in the folder that is not as it was, or of which that cannot be told here."""

    entry: Entry


class Rest(_Item, frozen=True):
    """A part of the folder that was not looked at: what follows on the name ``after``.

    ``plain``: it cannot be, here.
    """

    content: ChunkList
    after: bytes
    plain: bool


Item: TypeAlias = Enter | Leave | Need | Rest


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What is to be looked at: of the folder at a path below the target, what follows on the name ``after``.

    ``piece`` is what its first chunk holds, if that is not at hand.
    """

    path: list[bytes]
    content: ChunkList
    after: bytes = b""
    piece: bytes = b""


class Looked(msgspec.Struct, frozen=True, array_like=True):
    """What was found of one part. What is not named is as it was: so many folders and files with so many bytes."""

    items: list[Item]
    folders: int
    files: int
    bytes: int


class UnknownChunkError(Exception):
    """Whoever looks does not have it at hand."""


Source = Callable[[ChunkRef], bytes]
"""Returns a piece of a directory.

It raises UnknownChunkError if it is not at hand, IntegrityError or FormatError if it is not what it should be.
"""


class Looker:
    """Looks at parts of the target that a descriptor stands for. Moves the process's working folder."""

    def __init__(self, top: int, metadata: Metadata, source: Source) -> None:
        self._top = top
        self._metadata = metadata
        self._source = source
        self._left = 0
        self._given: tuple[ChunkRef | None, bytes] = None, b""

    def look(self, parts: list[Part], entries: int) -> list[Looked]:
        """Look at parts, and go into folders until so many ``entries`` were looked at in all."""
        self._left = entries
        return [self._part(part) for part in parts]

    def _part(self, part: Part) -> Looked:
        if self.is_tired:
            return Looked([Rest(part.content, part.after, plain=False)], 0, 0, 0)
        self._given = (part.content.chunks[0], part.piece) if part.piece else (None, b"")
        try:
            fd = self._opened(part.path)
        except OSError:
            return Looked([Rest(part.content, part.after, plain=True)], 0, 0, 0)
        found = _Found(self, len(part.path))
        found.go(fd, part.content, part.after)
        return Looked(found.items, found.folders, found.files, found.bytes)

    def _opened(self, path: list[bytes]) -> int:
        fd = os.dup(self._top)
        for name in path:
            outer = fd
            try:
                fd = os.open(name, _FOLDER, dir_fd=outer)
            finally:
                os.close(outer)
        return fd

    @property
    def is_tired(self) -> bool:
        """Whether no other folder is to be gone into."""
        return self._left <= 0

    def piece(self, ref: ChunkRef) -> list[Entry]:
        """Return a piece's entries, each checked."""
        given, data = self._given
        entries = checked_entries(data if ref == given else self._source(ref))
        self._left -= len(entries)
        return entries

    def is_right(self, entry: Entry) -> bool:
        """Return whether what lies under a name in the working folder is a folder or file that needs nothing."""
        try:
            status = os.lstat(entry.name)
            if entry.kind == "file":
                is_there = has_content(entry, status, by_time=True)
            else:
                is_there = entry.kind == "dir" and stat.S_ISDIR(status.st_mode)
            return is_there and self._metadata.is_like(status, entry) and self._metadata.is_bare(entry.name)
        except OSError:
            return False


class _Found:
    """What is found in one part. Of the folders that are open, one in another, each is the working one in turn."""

    def __init__(self, looker: Looker, depth: int) -> None:
        self._looker = looker
        self._depth = depth
        self._entered: list[Entry] = []
        """Folders that are as they were, and whose beginning is not told yet."""
        self.items: list[Item] = []
        self.folders = 0
        self.files = 0
        self.bytes = 0

    def go(self, fd: int, content: ChunkList, after: bytes) -> None:
        """Look at what is in the folder of a descriptor, which is closed."""
        try:
            os.fchdir(fd)
            self._folder(fd, content, after, 0)
        except OSError:  # it, or one below it on the way back, may not be gone into
            self.items = [Rest(content, after, plain=True)]
            self.folders = self.files = self.bytes = 0
        finally:
            os.close(fd)

    def _folder(self, fd: int, content: ChunkList, after: bytes, nested: int) -> None:
        looker = self._looker
        if content.depth:
            self._tell(Rest(content, after, plain=True))
            return
        for number, ref in enumerate(content.chunks):
            if number and looker.is_tired:
                self._tell(Rest(_from(content, number), after, plain=False))
                return
            try:
                entries = looker.piece(ref)
            except UnknownChunkError:
                # Whoever asked was sure of the first one.
                self._tell(Rest(_from(content, number), after, plain=not (number or nested)))
                return
            except (IntegrityError, FormatError):
                self._tell(Rest(_from(content, number), after, plain=True))
                return
            if not _rise(entries, after):
                self._tell(Rest(_from(content, number), after, plain=True))
                return
            after = entries[-1].name
            for entry in entries:
                right = looker.is_right(entry)
                if entry.kind == "dir":
                    self._enter(fd, entry, nested, right=right)
                elif right:
                    self.files += 1
                    self.bytes += entry.size
                else:
                    self._tell(Need(entry))

    def _enter(self, outer: int, entry: Entry, nested: int, *, right: bool) -> None:
        mark = len(self._entered)
        if right:
            self._entered.append(entry)
        else:
            self._tell(Enter(entry, needed=True))
        if entry.content is not None and (entry.content.chunks or entry.content.depth):
            self._inside(outer, entry, entry.content, nested)
        if len(self._entered) > mark:  # nothing in it was told
            self._entered.pop()
            self.folders += 1
        else:
            self.items.append(Leave())

    def _inside(self, outer: int, entry: Entry, content: ChunkList, nested: int) -> None:
        if self._depth + nested + 1 >= MAX_DEPTH:
            self._tell(Rest(content, b"", plain=True))
            return
        if self._looker.is_tired or nested >= NESTED:
            self._tell(Rest(content, b"", plain=False))
            return
        try:
            fd = os.open(entry.name, _FOLDER, dir_fd=outer)
        except OSError:
            self._tell(Rest(content, b"", plain=True))
            return
        try:
            os.fchdir(fd)
            self._folder(fd, content, b"", nested + 1)
        finally:
            os.close(fd)
        os.fchdir(outer)

    def _tell(self, item: Item) -> None:
        self.items += [Enter(entry, needed=False) for entry in self._entered]
        self._entered.clear()
        self.items.append(item)


def _from(content: ChunkList, number: int) -> ChunkList:
    """Return the pieces of a folder from one on."""
    refs = content.chunks[number:]
    return ChunkList(depth=0, length=sum(ref.length for ref in refs), chunks=refs)


def _rise(entries: list[Entry], after: bytes) -> bool:
    """Return whether names follow on one and on each other."""
    for entry in entries:
        if entry.name <= after:
            return False
        after = entry.name
    return True
