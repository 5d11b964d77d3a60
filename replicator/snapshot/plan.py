"""What a restore will meet: order and names of the tree, and what lies in its way. Nothing here writes."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

from replicator.errors import FormatError, RestoreError
from replicator.format.tree import Entry
from replicator.snapshot.target import Identity, Place, Target, identity_of
from replicator.snapshot.tree import MAX_DEPTH, TreePath, check_entry, escape

Overwrite = Literal["never", "if-changed", "always"]

PREFIX: Final = b".replicator-"
"""Unfinished files are called this and 32 hex digits; what a killed restore leaves can be removed by this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Something in a folder of the target that the snapshot's folder does not have. ``folder``: the folder's path."""

    folder: TreePath
    name: bytes
    identity: Identity
    is_folder: bool

    @property
    def path(self) -> bytes:
        """The path below the target; a folder's ends in a slash."""
        return b"/".join((*self.folder, self.name)) + (b"/" if self.is_folder else b"")


@dataclass(slots=True)
class Survey:
    """What was found. ``new`` and ``changed`` files have ``bytes`` to be written, at most; ``kept`` ones look alike."""

    files: int = 0
    kept: int = 0
    bytes: int = 0
    kept_bytes: int = 0
    room: int = 0
    """Bytes of disk that are needed besides what is given back."""
    extras: list[Extra] = field(default_factory=list)


class Planner:
    """Follows a tree in its order through the target. The target is looked at when this is made."""

    def __init__(self, target: str, overwrite: Overwrite) -> None:
        """Look at the target, which need not exist.

        Raises:
            RestoreError: the target is not a folder.
        """
        self._overwrite: Overwrite = overwrite
        self._target = Target(target)
        self._stack = [self._target.top]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in the target, or no target is there: nothing can be in the way."""
        top = self._target.top
        return top.identity is None or not self._target.names(top)

    @property
    def may_replace(self) -> bool:
        """Whether what is in the way may go, but for folders."""
        return self._overwrite != "never"

    def free(self) -> int:
        """Return how many bytes this user may still write where the target is or will be."""
        found = os.statvfs(self._existing())
        return found.f_bavail * found.f_frsize

    def is_beside(self, path: str) -> bool:
        """Return whether the target is or will be on the disk that an existing path is on."""
        return os.stat(self._existing()).st_dev == os.stat(path).st_dev

    def _existing(self) -> str:
        path = self._target.path
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        return path

    def _place(self, path: TreePath, entry: Entry, *, checked: bool = False) -> tuple[Place, os.stat_result | None]:
        """Return the folder of an entry and what lies under its name there; entries come in tree order.

        ``checked``: by :func:`~replicator.snapshot.tree.check_entry`.

        Raises:
            FormatError: the entry, its path or the order is not allowed.
            RestoreError: it cannot be looked at.
        """
        if not checked:
            check_entry(entry)
        if not path or path[-1] != entry.name or len(path) > MAX_DEPTH:
            raise FormatError(f"tree: {escape(entry.name)} under the path {escape(b'/'.join(path))}")
        while self._stack and self._stack[-1].path != path[:-1]:
            self._leave(self._stack.pop())
        if not self._stack or entry.name <= self._stack[-1].last:
            raise FormatError(f"tree: {escape(b'/'.join(path))} is out of order")
        place = self._stack[-1]
        place.last = entry.name
        if place.is_new:
            return place, None
        try:
            return place, self._target.status(place, entry.name)
        except OSError as error:
            raise RestoreError(f"{place.shown(entry.name)}: {error.strerror}") from error

    def _leave(self, place: Place) -> None:
        """Take note that nothing more comes in a folder."""

    def _enter(self, place: Place, path: TreePath, entry: Entry, found: os.stat_result | None) -> Place:
        """Go into a folder of the tree.

        Raises:
            RestoreError: something else is in the way and the overwrite rule forbids to replace it.
        """
        folder = Place(place, path, entry)
        if found is not None and stat.S_ISDIR(found.st_mode):
            folder.identity = identity_of(found)
        elif found is not None:
            self._check_replaceable(place, entry, found)
            folder.replace = True
        self._stack.append(folder)
        return folder

    def _keeps(self, place: Place, entry: Entry, found: os.stat_result | None) -> bool:
        """Return whether what lies under an entry's name may stay as it is.

        Raises:
            RestoreError: it may not, and the overwrite rule forbids to replace it.
        """
        if found is None:
            return False
        self._check_replaceable(place, entry, found)
        return self._is_same(place, entry, found)

    def _check_replaceable(self, place: Place, entry: Entry, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            raise RestoreError(
                f"{place.shown(entry.name)} is a folder in the target and not in the snapshot",
                hint="move it away or choose another target; folders are never replaced",
            )
        if self._overwrite == "never":
            raise RestoreError(
                f"{place.shown(entry.name)} exists in the target",
                hint="choose another target, or go on with --overwrite if-changed (which also finishes a restore "
                "that was stopped)",
            )

    def _is_same(self, place: Place, entry: Entry, found: os.stat_result) -> bool:
        """Return whether what is there may stay, as far as a look tells, and is a file with this name only.

        By size and time, if the overwrite rule believes them.
        """
        if entry.kind == "link" and stat.S_ISLNK(found.st_mode) and entry.link is None and found.st_nlink == 1:
            with suppress(OSError):
                return os.readlink(entry.name, dir_fd=self._target.fd(place)) == entry.target
        return entry.kind == "file" and has_content(entry, found, by_time=self._overwrite == "if-changed")


class Surveyor(Planner):
    """Meets a whole tree without writing: conflicts are known before the first byte, and what is too many is named.

    ``whole`` are paths below which everything is met, and only there the names that the snapshot's folders do not
    have are asked for: what lies beside what is restored is not the snapshot's matter.
    """

    def __init__(self, target: str, overwrite: Overwrite, *, whole: Sequence[TreePath] = ()) -> None:
        super().__init__(target, overwrite)
        self.found = Survey()
        self._whole = whole
        self._present: dict[Place, Iterator[bytes]] = {}
        self._next: dict[Place, bytes | None] = {}
        self._firsts: set[tuple[int, int]] = set()

    def look(self, path: TreePath, entry: Entry, *, checked: bool = False) -> bool:
        """Meet one entry, which may be ``checked`` already; return whether it is a file with bytes to be written.

        Raises:
            FormatError: the entry, its path or the order is not allowed.
            RestoreError: something is in the way and the overwrite rule forbids to replace it.
        """
        place, found = self._place(path, entry, checked=checked)
        self._pass(place, entry.name)
        if entry.kind == "dir":
            folder = self._enter(place, path, entry, found)
            if folder.identity is not None and any(path[: len(top)] == top for top in self._whole):
                self._begin(folder)
            return False
        try:
            keeps = self._keeps(place, entry, found)
        except RestoreError:
            if self._overwrite == "never":
                raise
            return False  # a folder, which will be a gap
        if keeps:
            self.found.kept += 1
            self.found.kept_bytes += entry.size
            return False
        if entry.kind != "file":
            return False
        if entry.link is not None:
            key = (entry.link.device, entry.link.inode)
            if key in self._firsts:
                return False
            self._firsts.add(key)
        self.found.files += 1
        self.found.bytes += entry.size
        self.found.room += room_for(entry, found)
        return entry.size > 0

    def finish(self) -> Survey:
        """Return what was found; the surveyor is used up."""
        while self._stack:
            self._leave(self._stack.pop())
        self._target.close()
        return self.found

    def close(self) -> None:
        """Close every descriptor; idempotent."""
        self._target.close()

    def _leave(self, place: Place) -> None:
        self._pass(place, None)
        self._present.pop(place, None)
        self._next.pop(place, None)

    def _begin(self, folder: Place) -> None:
        try:
            names = sorted(self._target.names(folder))
        except OSError as error:
            raise RestoreError(f"{folder.shown()}: {error.strerror}") from error
        self._present[folder] = iter(names)
        self._next[folder] = next(self._present[folder], None)

    def _pass(self, place: Place, name: bytes | None) -> None:
        """Take note of the names before ``name`` (of all, if None) that the tree does not have."""
        present = self._present.get(place)
        if present is None:
            return
        here = self._next[place]
        while here is not None and (name is None or here < name):
            self._extra(place, here)
            here = next(present, None)
        if here == name:
            here = next(present, None)
        self._next[place] = here

    def _extra(self, place: Place, name: bytes) -> None:
        status = self._target.status(place, name)
        if status is not None:
            self.found.extras.append(
                Extra(
                    folder=place.path,
                    name=name,
                    identity=identity_of(status),
                    is_folder=stat.S_ISDIR(status.st_mode),
                )
            )


def has_content(entry: Entry, found: os.stat_result, *, by_time: bool) -> bool:
    """Return whether a file with one name only is there already, as far as its status tells.

    ``by_time``: size and time are believed.
    """
    if entry.link is not None or found.st_nlink != 1 or not stat.S_ISREG(found.st_mode):
        return False
    return found.st_size == entry.size and (entry.size == 0 or (by_time and found.st_mtime_ns == entry.mtime_ns))


def room_for(entry: Entry, found: os.stat_result | None) -> int:
    """Return how many bytes of disk a file takes more than what it replaces."""
    if found is None and not entry.holes:
        return entry.size
    freed = found.st_blocks * 512 if found is not None and found.st_nlink == 1 else 0
    return max(0, entry.size - sum(hole.length for hole in entry.holes) - freed)
