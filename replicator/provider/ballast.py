"""A file that takes up space, so that giving it up lets the database work on a full disk."""

import contextlib
import errno

from replicator.fs import Fs
from replicator.rng import Rng

SIZE = 16 << 20
"""Enough for the largest claim (8 MiB of names) in the write-ahead log."""


class Ballast:
    """The preallocated file. Its content is random, for file systems that store runs of zeros as nothing."""

    size = SIZE

    def __init__(self, fs: Fs, path: str, rng: Rng) -> None:
        self._fs = fs
        self._path = path
        self._rng = rng

    def fill(self) -> bool:
        """Take the space again if there is enough; return whether the ballast is in place."""
        if self._fs.size(self._path) == self.size:
            return True
        self.release()
        try:
            handle = self._fs.create(self._path)
        except OSError as error:
            return _full(error)
        try:
            block = self._rng.bytes(min(self.size, 1 << 20))
            for _ in range(self.size // len(block)):
                handle.write(block)
            handle.fsync()
        except OSError as error:
            handle.close()
            self.release()
            return _full(error)
        handle.close()
        return True

    def release(self) -> None:
        """Give the space up."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.unlink(self._path)


def _full(error: OSError) -> bool:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return False
    raise error
