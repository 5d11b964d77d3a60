"""Where objects lie, often on another disk than the home's: is it there, and is it the one we left?

``.replicator-store`` holds the id of the store: without it the disk is not mounted, which is not the same as
objects that are missing. ``.generation`` is counted up together with a number in the database: if the two
differ, one of them was put back from an older copy.
"""

import errno
import os
from contextlib import suppress
from typing import Literal, Protocol, TypeAlias

from replicator.errors import HomeError
from replicator.fs import Fs, write_atomic
from replicator.ids import TenantId
from replicator.rng import Rng
from replicator.store.base import STORE_MARK, ObjectStore
from replicator.store.folder import FolderObjectStore

SENTINEL = STORE_MARK
GENERATION = ".generation"
TRIAL = ".replicator-probe"
TRIAL_SIZE = 16 << 20
"""One large object."""
_PARTS = _OBJECTS, _INCOMING, _QUARANTINE = ("objects", "incoming", "quarantine")


Presence: TypeAlias = Literal["there", "away", "silent"]
"""Whether our store lies in a place. Silent: that is not known now, and what was known holds on."""


class Data(Protocol):
    """Where a provider's objects lie: a folder, or a bucket (:mod:`replicator.provider.databucket`).

    Whatever asks may raise OSError.
    """

    @property
    def path(self) -> str:
        """How people call it."""
        ...

    def create(self) -> None:
        """Make it a store."""
        ...

    def in_use(self) -> bool:
        """Return whether any provider has ever started on it; what an interrupted init left is free."""
        ...

    def mounted(self) -> bool:
        """Return whether our store lies there now."""
        ...

    def presence(self) -> Presence:
        """Return whether it does, if that can be known now: nobody waits long for this."""
        ...

    def generation(self) -> int:
        """Return the counter there; -1 if it is not there or cannot be read as one."""
        ...

    def set_generation(self, number: int) -> None:
        """Store the counter, durably."""
        ...

    def free_bytes(self) -> int:
        """Return what there is left to be written."""
        ...

    def remove(self, tenant: TenantId) -> None:
        """Remove everything of a tenant, durably; no error if nothing is there."""
        ...

    def tenant(self, tenant: TenantId) -> ObjectStore:
        """Return the store of one tenant; nothing is asked for it."""
        ...

    def try_out(self, rng: Rng) -> int:
        """Write and read back as many bytes as are returned.

        Raises:
            HomeError: other bytes came back.
        """
        ...


class DataDir:
    """A provider's data folder."""

    def __init__(self, fs: Fs, path: str, store: bytes) -> None:
        self._fs = fs
        self.path = path
        self._store = store

    def create(self) -> None:
        """Make the folder a store."""
        self._fs.makedirs(self.path)
        self.set_generation(0)
        write_atomic(self._fs, os.path.join(self.path, SENTINEL), self._store.hex().encode() + b"\n")

    def in_use(self) -> bool:
        """Return whether any provider has ever started on this folder; what an interrupted init left is free."""
        return _read_store_id(self._fs, self.path) is not None and self.generation() != 0

    def mounted(self) -> bool:
        """Return whether our store lies there now."""
        return _read_store_id(self._fs, self.path) == self._store.hex()

    def presence(self) -> Presence:
        """Return whether it does: a folder is never silent."""
        return "there" if self.mounted() else "away"

    def generation(self) -> int:
        """Return the counter on the disk; -1 if it is not there or cannot be read as one."""
        try:
            return int(self._fs.read(os.path.join(self.path, GENERATION), 0, 32))
        except (FileNotFoundError, ValueError):
            return -1

    def set_generation(self, number: int) -> None:
        """Store the counter, durably."""
        write_atomic(self._fs, os.path.join(self.path, GENERATION), b"%d\n" % number)

    def free_bytes(self) -> int:
        """Return what the disk has left."""
        return self._fs.free_bytes(self.path)

    def remove(self, tenant: TenantId) -> None:
        """Remove everything of a tenant, durably; no error if nothing is there.

        Folders that somebody made folders in stay, without any file.
        """
        top = os.path.join(self.path, tenant.hex())
        for folder in (*(os.path.join(top, part) for part in _PARTS), top):
            for name, _ in self._fs.list_files(folder):
                with suppress(FileNotFoundError):
                    self._fs.unlink(os.path.join(folder, name))
            with suppress(FileNotFoundError):
                self._fs.fsync_dir(folder)
                if self._fs.list_files(folder):
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
                try:
                    self._fs.rmdir(folder)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
        self._fs.fsync_dir(self.path)

    def quarantine(self, tenant: TenantId) -> str:
        """Return the folder with what was set aside of one tenant."""
        return os.path.join(self.path, tenant.hex(), _QUARANTINE)

    def try_out(self, rng: Rng) -> int:
        """Write and read back as many bytes as are returned."""
        path = os.path.join(self.path, TRIAL)
        if self._fs.size(path) is not None:
            self._fs.unlink(path)  # an earlier proof was stopped
        block = rng.bytes(1 << 20)
        handle = self._fs.create(path)
        try:
            for _ in range(TRIAL_SIZE // len(block)):
                handle.write(block)
            handle.fsync()
            for offset in range(0, TRIAL_SIZE, len(block)):
                if self._fs.read(path, offset, len(block)) != block:
                    raise HomeError(
                        f"{path}: the disk gave back other bytes than were written", hint="replace the disk"
                    )
        finally:
            handle.close()
            self._fs.unlink(path)
        return TRIAL_SIZE

    def tenant(self, tenant: TenantId) -> FolderObjectStore:
        """Return the store of one tenant; the disk is not touched."""
        folder = os.path.join(self.path, tenant.hex())
        return FolderObjectStore(
            self._fs,
            folder=os.path.join(folder, _OBJECTS),
            incoming=os.path.join(folder, _INCOMING),
            quarantine=os.path.join(folder, _QUARANTINE),
        )


def _read_store_id(fs: Fs, path: str) -> str | None:
    """Return the id of the store in a folder, None if there is none that can be read."""
    try:
        return fs.read(os.path.join(path, SENTINEL), 0, 64).decode("ascii", "replace").strip()
    except OSError:
        return None
