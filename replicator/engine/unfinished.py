"""What is to be put right if a run is killed: hooks that wait for their counterpart, snapshots of file systems.

It is on the disk before anything is done, and goes away when all of it is undone. It is the node's own file and cannot
be rebuilt from anywhere.
"""

from typing import Literal

from replicator.errors import FormatError, HomeError
from replicator.format.codec import Part, Record, decode, encode
from replicator.format.consistency import Consistency
from replicator.fs import Fs, write_atomic


class Volume(Part, frozen=True, kw_only=True):
    """A snapshot of a file system, to be made, read and removed.

    ``origin`` is a btrfs subvolume's folder, a ZFS file system, or an LVM volume as "group/volume"; ``name`` is what
    the snapshot is called; ``place`` where its files can be read. ``file_system`` is what lies on an LVM volume;
    ``thin``: it is in a pool, which gives its snapshot room.
    """

    kind: Literal["btrfs", "zfs", "lvm"]
    origin: bytes
    name: str
    place: bytes
    file_system: str = ""
    thin: bool = False


class Begun(Part, frozen=True, kw_only=True):
    """A dataset whose capture was begun, as it was to be done then."""

    dataset: str
    consistency: Consistency
    after: bool
    """Whether the after-hook is to run."""
    volumes: list[Volume]


class _File(Record, frozen=True, kw_only=True):
    begun: list[Begun]


class Unfinished:
    """The file, for whoever holds the home's lock.

    Raises:
        HomeError: the file is damaged.
    """

    def __init__(self, path: str, fs: Fs) -> None:
        self._path = path
        self._fs = fs

    def all(self) -> list[Begun]:
        """Return what was begun and is not undone."""
        if self._fs.size(self._path) is None:
            return []
        try:
            return decode(_File, self._fs.read(self._path)).begun
        except FormatError as error:
            raise HomeError(
                f"{self._path}: damaged ({error})",
                hint=error.hint
                or "look whether hooks of an interrupted run, or snapshots named replicator-..., are to be undone by "
                "hand, then remove the file",
            ) from error

    def put(self, begun: Begun) -> None:
        """Remember what is begun for a dataset, in place of what was known of it."""
        self._write([*self._others(begun.dataset), begun])

    def drop(self, dataset: str) -> None:
        """Forget a dataset: all is undone."""
        self._write(self._others(dataset))

    def _others(self, dataset: str) -> list[Begun]:
        return [one for one in self.all() if one.dataset != dataset]

    def _write(self, begun: list[Begun]) -> None:
        write_atomic(self._fs, self._path, encode(_File(begun=begun)))
