"""Objects on a disk that somebody brought. Nothing on it is trusted, not even what kind of file a name is.

    DISK/<tenant>/objects/<name>     an object, by 64 hex digits; a folder that was copied off a provider is the same
    DISK/<tenant>/carried/<name>     signed: which of them are for which provider (:mod:`replicator.format.carried`)

Links are not followed, what is no regular file is not opened for reading, and no more is read than an object may have.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from replicator.errors import HomeError
from replicator.format.sizes import is_allowed
from replicator.fs import Fs, write_atomic
from replicator.ids import ObjectName, TenantId
from replicator.store.folder import parse_name
from replicator.store.incoming import space_errors

OBJECTS: Final = "objects"
STATEMENTS: Final = "carried"
MOST_STATEMENTS: Final = 1000
LARGEST_STATEMENT: Final = 4 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOT_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)
_TENANT_HEX: Final = 32


class CarriedDisk:
    """A folder with the objects of tenants, as it was brought.

    Raises:
        HomeError: there is no such folder.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        if not os.path.isdir(self.path):
            raise HomeError(f"{self.path}: no such folder", hint="is the disk mounted?")

    def tenants(self) -> list[TenantId]:
        """Return whose objects there may be, by id."""
        names = [name for name in os.listdir(self.path) if _is_tenant(name)]
        return [TenantId(bytes.fromhex(name)) for name in sorted(names)]

    def tenant(self, tenant: TenantId) -> "CarriedObjects":
        """Return one tenant's objects."""
        return CarriedObjects(os.path.join(self.path, tenant.hex()))


class CarriedObjects:
    """One tenant's objects on a disk that was brought."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: dict[str, int] = {}

    def size(self, name: ObjectName) -> int | None:
        """Return an object's size, None if there is none that could be one."""
        with suppress(OSError):
            status = os.stat(name.hex(), dir_fd=self._folder(OBJECTS), follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and is_allowed(status.st_size):
                return status.st_size
        return None

    def read(self, name: ObjectName, size: int) -> bytes:
        """Return up to ``size`` bytes of an object, unverified; fewer if there are fewer.

        Raises:
            OSError: the disk does not give them.
        """
        return self._read(OBJECTS, name.hex(), size)

    def names(self) -> Iterator[tuple[ObjectName, int]]:
        """Give names and sizes of what could be an object."""
        for text in self._listed(OBJECTS):
            name = parse_name(text)
            size = None if name is None else self.size(name)
            if name is not None and size is not None:
                yield name, size

    def statements(self) -> Iterator[bytes]:
        """Give what is signed, unverified and bounded."""
        for text in sorted(self._listed(STATEMENTS))[:MOST_STATEMENTS]:
            with suppress(OSError):
                yield self._read(STATEMENTS, text, LARGEST_STATEMENT)

    def close(self) -> None:
        """Let go of descriptors."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open = {}

    def _folder(self, name: str) -> int:
        if name not in self._open:
            top = os.open(self._path, _FOLDER)
            try:
                self._open[name] = os.open(name, _FOLDER, dir_fd=top)
            finally:
                os.close(top)
        return self._open[name]

    def _listed(self, folder: str) -> list[str]:
        try:
            return os.listdir(self._folder(folder))
        except OSError as error:
            if error.errno in _NOT_THERE:
                return []
            raise

    def _read(self, folder: str, name: str, most: int) -> bytes:
        descriptor = os.open(name, _FILE, dir_fd=self._folder(folder))
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            parts, left = [], most
            while left > 0 and (part := file.read(left)):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)


class CarriedWriter:
    """Writes one tenant's objects onto a disk, of whatever file system: no links are made, each file is whole."""

    def __init__(self, fs: Fs, disk: str, tenant: TenantId) -> None:
        self._fs = fs
        self._path = os.path.join(os.path.abspath(disk), tenant.hex())

    def size(self, name: ObjectName) -> int | None:
        """Return the size of an object that lies there."""
        return self._fs.size(os.path.join(self._path, OBJECTS, name.hex()))

    def read(self, name: ObjectName) -> bytes:
        """Return an object that lies there, unverified."""
        return self._fs.read(os.path.join(self._path, OBJECTS, name.hex()))

    def put(self, name: ObjectName, data: bytes) -> None:
        """Write an object, durably.

        Raises:
            SpaceError: the disk is full.
        """
        self._write(OBJECTS, name.hex(), data)

    def state(self, name: str, signed: bytes) -> None:
        """Write what is signed, in the place of what was called so.

        Raises:
            SpaceError: the disk is full.
        """
        self._write(STATEMENTS, name, signed)

    def _write(self, folder: str, name: str, data: bytes) -> None:
        where = os.path.join(self._path, folder)
        with space_errors(where):
            self._fs.makedirs(where)
            write_atomic(self._fs, os.path.join(where, name), data)


def _is_tenant(name: str) -> bool:
    return len(name) == _TENANT_HEX and not set(name) - set("0123456789abcdef")
