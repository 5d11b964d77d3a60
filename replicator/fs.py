"""The file system as everything durable sees it: one narrow interface, so that tests can stop at each step.

Every byte that must survive a power cut goes through :class:`Fs`: file data, links, renames, folder entries
and database commits. The crash tests replace it with one that counts steps and forgets what was not synced.
Reading the folders that are backed up is not its business (:mod:`replicator.snapshot.walk`).
"""

import errno
import os
import shutil
import sqlite3
import stat
from typing import Protocol

FILE_MODE = 0o600
DIR_MODE = 0o700


class WriteHandle(Protocol):
    """A new file being written; nothing is durable before :meth:`fsync` returns."""

    path: str

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all of ``data``."""
        ...

    def fsync(self) -> None:
        """Make the bytes durable. A failure is final for this file (fsyncgate): drop it, never retry."""
        ...

    def close(self) -> None:
        """Close; idempotent."""
        ...


class ReadHandle(Protocol):
    """A file that is read here and there: the same one whatever becomes of its name."""

    size: int
    """Bytes it had when it was opened."""

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes ``[offset, offset+length)``, short at the end of the file; from any thread."""
        ...

    def close(self) -> None:
        """Close; idempotent."""
        ...


class Fs(Protocol):
    """What stores, spool and databases need from a file system. Paths are absolute strings."""

    def create(self, path: str) -> WriteHandle:
        """Create a new file of mode 0600; FileExistsError if the name is taken."""
        ...

    def link(self, source: str, target: str) -> None:
        """Give a file a second name without replacing; FileExistsError if ``target`` exists."""
        ...

    def replace(self, source: str, target: str) -> None:
        """Rename over whatever is there."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a name; FileNotFoundError if there is none."""
        ...

    def overwrite(self, path: str, data: bytes) -> None:
        """Put other bytes in the place of a file's own and sync them; FileNotFoundError if there is none."""
        ...

    def rmdir(self, path: str) -> None:
        """Remove an empty folder; OSError if something is in it."""
        ...

    def fsync_file(self, path: str) -> None:
        """Make the bytes of a file that was written and closed durable; as final as :meth:`WriteHandle.fsync`."""
        ...

    def fsync_dir(self, path: str) -> None:
        """Make the entries of a folder durable."""
        ...

    def makedirs(self, path: str) -> None:
        """Make a folder and its parents with mode 0700; no error if it is there. Durable on return."""
        ...

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes ``[offset, offset+length)``, short at the end of the file."""
        ...

    def open(self, path: str) -> ReadHandle:
        """Open a regular file to read parts of it; FileNotFoundError if there is none."""
        ...

    def size(self, path: str) -> int | None:
        """Return the size of a regular file, None if there is none."""
        ...

    def list_files(self, path: str) -> list[tuple[str, int]]:
        """Return (name, size) of the regular files in a folder, unsorted; empty if there is no folder."""
        ...

    def free_bytes(self, path: str) -> int:
        """Return what an unprivileged process may still write on that file system."""
        ...

    def commit(self, database: sqlite3.Connection, what: str) -> None:
        """Commit the open transaction; durable on return. ``what`` names the step for tests."""
        ...


class _PosixWriteHandle:
    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def fsync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _PosixReadHandle:
    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        self.size = status.st_size

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PosixFs:
    """The machine's file system."""

    def create(self, path: str) -> WriteHandle:
        """Create a new file of mode 0600."""
        return _PosixWriteHandle(path)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name without replacing."""
        os.link(source, target, follow_symlinks=False)

    def replace(self, source: str, target: str) -> None:
        """Rename over whatever is there."""
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        os.unlink(path)

    def overwrite(self, path: str, data: bytes) -> None:
        """Put other bytes in the place of a file's own and sync them."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def fsync_file(self, path: str) -> None:
        """Make the bytes of a closed file durable."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def fsync_dir(self, path: str) -> None:
        """Make the entries of a folder durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def makedirs(self, path: str) -> None:
        """Make a folder and its parents; each new entry is synced in its parent."""
        if not os.path.isabs(path):
            raise ValueError(f"{path}: not an absolute path")
        missing = []
        current = path
        while not os.path.isdir(current):
            missing.append(current)
            current = os.path.dirname(current)
        for folder in reversed(missing):
            try:
                os.mkdir(folder, DIR_MODE)
            except FileExistsError:
                if not os.path.isdir(folder):
                    raise  # a file is in the way; else somebody else made the folder meanwhile
            self.fsync_dir(os.path.dirname(folder))

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file."""
        with open(path, "rb", buffering=0) as file:
            if offset:
                file.seek(offset)
            if length is None:
                return file.readall()
            parts = []
            while length > 0:
                part = file.read(length)
                if not part:
                    break
                parts.append(part)
                length -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def open(self, path: str) -> ReadHandle:
        """Open a regular file to read parts of it."""
        return _PosixReadHandle(path)

    def size(self, path: str) -> int | None:
        """Return the size of a regular file, None if there is none."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def list_files(self, path: str) -> list[tuple[str, int]]:
        """Return (name, size) of the regular files in a folder."""
        found = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    try:
                        if entry.is_file(follow_symlinks=False):
                            found.append((entry.name, entry.stat(follow_symlinks=False).st_size))
                    except FileNotFoundError:
                        continue  # removed while we looked
        except FileNotFoundError:
            return []
        return found

    def free_bytes(self, path: str) -> int:
        """Return what an unprivileged process may still write there."""
        return shutil.disk_usage(path).free

    def commit(self, database: sqlite3.Connection, what: str) -> None:  # noqa: ARG002 - named for tests
        """Commit; durable because every database here is opened with synchronous=FULL."""
        database.commit()


def exposure(mode: int, owner: int, user: int) -> str:
    """Return in words why a file is no place for a secret of ``user`` (both are user ids), empty if it is one.

    Root's files are trusted by everybody, and root reads everybody's.
    """
    if owner not in (user, 0) and user != 0:
        return f"it belongs to another user (uid {owner}, this is {user})"
    if stat.S_IMODE(mode) & 0o077:
        return f"others can read it (mode {stat.S_IMODE(mode):04o})"
    return ""


def way_out(owner: int, user: int) -> str:
    """Return the command that makes a file one's own and private."""
    return "chmod 600" if owner in (user, 0) or user == 0 else f"chown {user}"


def destroy(fs: Fs, path: str) -> None:
    """Overwrite a file's bytes and remove it, if it is there; the caller syncs the folder.

    A file system that copies on write, or a disk that spreads its wear, may keep the bytes that were there.
    """
    size = fs.size(path)
    if size is not None:
        fs.overwrite(path, bytes(size))
        fs.unlink(path)


def write_atomic(fs: Fs, path: str, data: bytes) -> None:
    """Make ``path`` hold exactly ``data``: after a crash it is the old content or the new, never between."""
    _write_beside(fs, path, data, durable=True)


def write_cached(fs: Fs, path: str, data: bytes) -> None:
    """Make ``path`` hold ``data`` for who checks what it reads there: after a crash it may hold anything.

    Nothing waits for the disk, where beside much that is written a sync takes a tenth of a second.
    """
    _write_beside(fs, path, data, durable=False)


def _write_beside(fs: Fs, path: str, data: bytes, *, durable: bool) -> None:
    temporary = f"{path}.new"
    if fs.size(temporary) is not None:
        fs.unlink(temporary)
    handle = fs.create(temporary)
    try:
        handle.write(data)
        if durable:
            handle.fsync()
    finally:
        handle.close()
    fs.replace(temporary, path)
    if durable:
        fs.fsync_dir(os.path.dirname(path))
