"""Sealed objects on their way: a folder store with a limit, and a gate that makes capture wait for sending."""

import os
import threading
from collections.abc import Sequence

from replicator.errors import NotFoundError, SpaceError
from replicator.format.merkle import name_of
from replicator.fs import Fs
from replicator.ids import ObjectName, short
from replicator.store.folder import FolderObjectStore

SHARE_OF_FREE = 4
MOST = 32 * 10**9


def spool_store(path: str, fs: Fs) -> FolderObjectStore:
    """Return where a spool keeps its objects, for a process that puts some there while another counts them."""
    return FolderObjectStore(
        fs,
        folder=os.path.join(path, "objects"),
        incoming=os.path.join(path, "incoming"),
        quarantine=os.path.join(path, "quarantine"),
    )


class Spool:
    """Objects between sealing and enough copies. Putting is durable on return unless it is said not to be.

    A pack that peers take at once never has to reach this disk: it is put without, sent from the page cache and
    dropped. :meth:`sync` makes durable what is left when a snapshot comes to rely on it. Removing is not durable: what
    comes back after a power cut is called spooled by no catalog and goes when the spool is opened.

    The limit is a quarter of the free space when opened, at most 32 GB, unless set.
    """

    def __init__(self, path: str, fs: Fs, limit: int | None = None) -> None:
        self.path = path
        self._store = spool_store(path, fs)
        self._store.prepare()
        self.used = sum(size for _, size in self._store.list())
        self.limit = min(MOST, fs.free_bytes(path) // SHARE_OF_FREE) + self.used if limit is None else limit
        self._changed = threading.Condition()
        self._nobody_sends = True

    def put(self, name: ObjectName, data: bytes, *, durable: bool = True) -> None:
        """Store an object under the name that was computed from it.

        Raises:
            SpaceError: the disk is full; nothing of the object is left.
        """
        self._store.put_named(name, data, durable=durable)
        self.came(len(data))

    def sync(self, names: Sequence[ObjectName]) -> None:
        """Make durable what was put without.

        Raises:
            SpaceError: the disk is full.
            NotFoundError: one is not here any more.
        """
        self._store.sync(names)

    def came(self, size: int) -> None:
        """Count an object that another process has put here."""
        with self._changed:
            self.used += size

    def get(self, name: ObjectName) -> bytes:
        """Return an object.

        Raises:
            NotFoundError: not here, or no longer the bytes that were put.
        """
        data = self._store.read(name)
        if name_of(data) != name:
            raise NotFoundError(f"object {short(name)}: damaged in the spool")
        return data

    def has(self, name: ObjectName) -> bool:
        """Return whether the object is here, whole and as it was put."""
        try:
            self.get(name)
        except NotFoundError:
            return False
        return True

    def drop(self, name: ObjectName) -> None:
        """Remove an object that has enough copies elsewhere, or that nothing refers to."""
        size = self._store.size(name)
        if size is None:
            return
        self._store.remove(name, durable=False)
        with self._changed:
            self.used -= size
            self._changed.notify_all()

    def names(self) -> list[ObjectName]:
        """Return what is here."""
        return [name for name, _ in self._store.list()]

    def sending(self, active: bool) -> None:
        """Say whether somebody empties the spool: whoever waits for room learns of it."""
        with self._changed:
            self._nobody_sends = not active
            self._changed.notify_all()

    def wait_for_room(self, size: int) -> None:
        """Block a capturing thread until ``size`` bytes fit the limit.

        Raises:
            SpaceError: nobody is emptying the spool.
        """
        with self._changed:
            while self.used + size > self.limit:
                if self._nobody_sends:
                    raise SpaceError(
                        f"the spool is full: {self.used / 1e6:.0f} MB wait for peers, its limit is "
                        f"{self.limit / 1e6:.0f} MB",
                        hint="bring more peers within reach (`status` names them), then run again: what is sealed "
                        "is kept and not made twice",
                    )
                self._changed.wait(timeout=60)
