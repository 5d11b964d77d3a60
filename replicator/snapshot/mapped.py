"""Roots that are read elsewhere than where they live: in a snapshot of their file system."""

import os
from collections.abc import Mapping
from typing import Final, Self

from replicator.snapshot.walk import PosixFolder, PosixSource

LEFT_OUT: Final = "a btrfs subvolume of its own, which the snapshot does not hold; name it as a path, or exclude it"
_PLACEHOLDER: Final = 2
"""The inode of the empty folder that stands in a btrfs snapshot where another subvolume was."""


class MappedSource(PosixSource):
    """The machine's file systems, with some roots read at another place; everything keeps the paths it lives at."""

    def __init__(self, places: Mapping[bytes, bytes], *, btrfs_gaps: bool = False) -> None:
        """``places`` says where each root is read. ``btrfs_gaps``: what a btrfs snapshot leaves out is a gap."""
        super().__init__()
        self._places = places
        self._kind = _BtrfsFolder if btrfs_gaps else PosixFolder

    def place_of(self, root: bytes) -> bytes:
        """Return where a root is read."""
        return self._places.get(root, root)

    def locate(self, path: bytes) -> tuple[PosixFolder, bytes]:
        """Open the folder above the place where a root is read."""
        folder, name = super().locate(self.place_of(path))
        with_gaps = self._kind(os.dup(folder.fileno()), self.proc)
        folder.close()
        return with_gaps, name


class _BtrfsFolder(PosixFolder):
    """A folder that is not entered where a btrfs snapshot has nothing but a placeholder."""

    __slots__ = ()

    def enter(self, name: bytes) -> Self:
        """Open a folder in it."""
        folder = super().enter(name)
        if folder.here().st_ino == _PLACEHOLDER:
            folder.close()
            raise OSError(LEFT_OUT)
        return folder
