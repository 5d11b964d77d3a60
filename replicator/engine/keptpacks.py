"""Packs that a restore has fetched and may need again, in a file without a name that goes when it ends.

Of a tree that changed over months, or holds things twice, many parts need a few chunks of the same packs. What is kept
are packs as providers hold them: sealed.
"""

import os
import tempfile
from collections import OrderedDict
from contextlib import suppress
from threading import Lock
from typing import Final

from replicator.engine.slots import SIZE

LIMIT: Final = 1 << 30
"""Bytes kept at most. 200,000 files in 72 packs took 218 fetches without, and take 74."""
SHARE: Final = 4
"""Of the room on the disk that nothing else is known to need, the part that may be taken."""


class KeptPacks:
    """A cache: what it cannot keep it does not have, and nobody's work ends because of it. For any threads."""

    def __init__(self, folder: str, *, needed: int) -> None:
        """Keep as much as the disk of ``folder`` has room for beside ``needed`` bytes."""
        self._lock = Lock()
        self._file = -1
        self._count = 0
        self._places: OrderedDict[int, tuple[int, int]] = OrderedDict()
        with suppress(OSError):
            found = os.statvfs(folder)
            spare = found.f_bavail * found.f_frsize - needed
            self._count = min(LIMIT, spare // SHARE) // SIZE
            if self._count > 0:
                self._file, path = tempfile.mkstemp(prefix="kept-", dir=folder)
                os.unlink(path)

    def __contains__(self, pack: int) -> bool:
        """Whether a pack is kept; it may be gone when it is asked for."""
        with self._lock:
            return self._places.get(pack, (0, -1))[1] >= 0

    def get(self, pack: int, memory: int) -> int | None:
        """Write a pack to memory, given as its descriptor, if it was kept; return its size."""
        with self._lock:
            found = self._places.get(pack)
            if found is None:
                return None
            place, size = found
            if size < 0:
                return None
            self._places.move_to_end(pack)
            try:
                _copy(self._file, place * SIZE, memory, 0, size)
            except OSError:
                self._end()
                return None
            return size

    def put(self, pack: int, memory: int, size: int) -> None:
        """Keep a pack that memory begins with; what was used longest ago makes room."""
        with self._lock:
            if self._file < 0 or pack in self._places:
                return
            place = len(self._places)
            if place >= self._count:
                _, (place, _) = self._places.popitem(last=False)
            try:
                _copy(memory, 0, self._file, place * SIZE, size)
            except OSError:  # the disk is full, or broken
                self._end()
                return
            self._places[pack] = place, size

    def drop(self, pack: int) -> None:
        """Do not give a pack any more, and keep it no second time."""
        with self._lock:
            if pack in self._places:
                self._places[pack] = self._places[pack][0], -1

    def close(self) -> None:
        """Give the room back; idempotent."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._places.clear()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _copy(source: int, begin: int, target: int, to: int, size: int) -> None:
    """Copy within the kernel."""
    os.lseek(target, to, os.SEEK_SET)
    done = 0
    while done < size:
        count = os.sendfile(target, source, begin + done, size - done)
        if not count:
            raise OSError("it has become shorter")
        done += count
