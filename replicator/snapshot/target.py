"""Folders below a restore's target, reached by descriptors only.

Each folder is a :class:`Place` with a parent; it is opened from its parent's descriptor, never through a
symbolic link, and is the same inode as when it was first seen or made. So whatever happens to the target
meanwhile, nothing outside of the folders that this run knows is written to.
"""

import os
import stat
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from replicator.errors import RestoreError
from replicator.format.tree import Entry
from replicator.snapshot.tree import TreePath, escape

OPEN_PLACES: Final = 64
"""Descriptors of folders held at most."""

Identity = tuple[int, int]
"""Device and inode."""


@dataclass(slots=True, eq=False)
class Place:
    """One folder. ``entry`` is None for the target itself, ``identity`` while the folder is not there yet.

    ``replace`` says that something else lies in its way and may go. ``old_mode`` is that of an existing folder
    that was opened up for this run. ``is_new``: this run has made it, and nothing was in it.
    """

    parent: "Place | None"
    path: TreePath
    entry: Entry | None
    identity: Identity | None = None
    replace: bool = False
    old_mode: int | None = None
    last: bytes = b""
    is_new: bool = False

    def shown(self, name: bytes = b"") -> str:
        """Return the path of something in it, for people."""
        return escape(b"/".join((*self.path, name) if name else self.path))


class Target:
    """Opens places and keeps the latest descriptors."""

    def __init__(self, path: str, *, limit: int = OPEN_PLACES) -> None:
        """Look at the target; it need not be there, but what is there must be a folder.

        Raises:
            RestoreError: it cannot be looked at, or is no folder.
        """
        self.path = os.path.abspath(path)
        self.top = Place(None, (), None)
        self._limit = limit
        self._open: OrderedDict[Place, int] = OrderedDict()
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise RestoreError(f"{self.shown()}: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise RestoreError(f"{self.shown()} is not a folder", hint="choose another target")
        self.top.identity = identity_of(status)

    def shown(self) -> str:
        """Return the target's path for people."""
        return escape(os.fsencode(self.path))

    def make_top(self) -> None:
        """Make the target with its parents (mode 0700) if it is not there.

        Raises:
            OSError: it cannot be made.
        """
        if self.top.identity is None:
            above, name = os.path.split(self.path)
            os.makedirs(above, exist_ok=True)
            os.mkdir(os.path.join(above, name), 0o700)
            self.top.identity = identity_of(os.lstat(self.path))

    def fd(self, place: Place) -> int:
        """Return the descriptor of a folder that exists, valid until the next call.

        Raises:
            RestoreError: it is no longer the folder that it was.
            OSError: it cannot be opened.
        """
        known = self._open.get(place)
        if known is not None:
            self._open.move_to_end(place)
            return known
        chain = [place]
        while chain[-1].parent is not None and chain[-1].parent not in self._open:
            chain.append(chain[-1].parent)
        fd = -1
        for link in reversed(chain):
            fd = self._open_one(link)
        return fd

    def status(self, place: Place, name: bytes) -> os.stat_result | None:
        """Return the state of a name in a folder, None if the folder or the name is not there.

        Raises:
            RestoreError: the folder is no longer what it was.
            OSError: it cannot be looked at.
        """
        if place.identity is None:
            return None
        try:
            return os.stat(name, dir_fd=self.fd(place), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self, place: Place) -> list[bytes]:
        """Return the names in a folder that exists, in any order.

        Raises:
            RestoreError: it is no longer the folder that it was.
            OSError: it cannot be read.
        """
        return [os.fsencode(name) for name in os.listdir(self.fd(place))]

    def close(self) -> None:
        """Close every descriptor; idempotent."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _open_one(self, place: Place) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if place.parent is None:
            fd = os.open(self.path, flags)  # the caller's own words, links and all
        else:
            fd = os.open(place.path[-1], flags | os.O_NOFOLLOW, dir_fd=self._open[place.parent])
        found = identity_of(os.fstat(fd))
        if place.identity is None and place.is_new:
            place.identity = found  # it was made a moment ago
        if found != place.identity:
            os.close(fd)
            raise RestoreError(
                f"{place.shown() or self.shown()} was replaced by someone else during the restore",
                hint="restore to a folder that nothing else writes to",
            )
        self._open[place] = fd
        while len(self._open) > self._limit:
            os.close(self._open.popitem(last=False)[1])
        return fd


def identity_of(status: os.stat_result) -> Identity:
    """Return what tells one file from all others while it exists."""
    return status.st_dev, status.st_ino
