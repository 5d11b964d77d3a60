"""A file system that stops at a chosen step, forgets what was not synced, leaves a step out, or fails at one.

It works on a real folder. Each call that changes something is a step with a label (``fsync file incoming``,
``link objects``, ``commit claim``); the last word of a label is the folder that the step is about.

    life = CrashFs(graveyard); ...; life.stop_at(3); ...   raises Crash before step 3 of what follows
    life.power_loss(keep=..., torn=...)                    undoes what no sync made durable

A kill is a crash without :meth:`CrashFs.power_loss`. The model of a power loss: an entry of a folder that was not
synced may be as it was before, whichever entries the caller does not ``keep``; bytes of a file that were not
synced are gone (or zeros, ``torn``); a transaction is there if and only if its commit was.
"""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from replicator.fs import PosixFs, ReadHandle, WriteHandle


class Crash(BaseException):
    """The process ended here."""


@dataclass
class _File:
    descriptor: int
    size: int = 0
    synced: int = 0


class _CrashHandle:
    def __init__(self, fs: "CrashFs", path: str, inner: WriteHandle, file: _File) -> None:
        self.path = path
        self._fs = fs
        self._inner = inner
        self._file = file

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._fs.step(f"write {_folder(self.path)}"):
            self._inner.write(data)
            self._file.size += len(data)

    def fsync(self) -> None:
        if self._fs.step(f"fsync file {_folder(self.path)}"):
            self._file.synced = self._file.size

    def close(self) -> None:
        self._inner.close()


class CrashFs:
    """An :class:`~replicator.fs.Fs` for one life of a process. ``graveyard`` is on the same file system."""

    def __init__(self, graveyard: str, *, skip: str = "", errors: dict[str, BaseException] | None = None) -> None:
        self.steps: list[str] = []
        self.errors = errors if errors is not None else {}
        self.free: int | None = None
        self._graveyard = graveyard
        self._skip = skip
        self._posix = PosixFs()
        self._stop_at: int | None = None
        self._dead = False
        self._buried = 0
        self._files: dict[tuple[int, int], _File] = {}
        self._entries: dict[str, str | None] = {}

    def stop_at(self, step: int | None) -> None:
        """Count steps from here, and end the process before the given one."""
        self.steps = []
        self._stop_at = step

    def step(self, label: str) -> bool:
        """Count a step; return whether it is to be done."""
        if self._dead or len(self.steps) == self._stop_at:
            self._dead = True
            raise Crash(label)
        self.steps.append(label)
        if label in self.errors:
            raise self.errors[label]
        return label != self._skip

    def pending(self) -> list[str]:
        """Return the entries that a power loss now might undo."""
        return sorted(self._entries)

    def power_loss(self, *, keep: Callable[[str], bool], torn: bool) -> None:
        """Undo what is not durable, except for the entries to ``keep``. The life ends, if it has not yet."""
        self._dead = True
        for path, saved in self._entries.items():
            if keep(path):
                continue
            with suppress(FileNotFoundError):
                os.unlink(path)
            if saved is not None:
                os.makedirs(os.path.dirname(path), exist_ok=True)  # the folder is back with what was in it
                os.link(saved, path)
        for file in self._files.values():
            if file.synced < file.size:
                os.ftruncate(file.descriptor, file.synced)
                if torn:
                    os.ftruncate(file.descriptor, file.size)

    def close(self) -> None:
        """Let go of descriptors."""
        for file in self._files.values():
            os.close(file.descriptor)
        self._files = {}

    def create(self, path: str) -> WriteHandle:
        """Create a new file."""
        self.step(f"create {_folder(path)}")
        self._note(path)
        inner = self._posix.create(path)
        descriptor = os.open(path, os.O_RDWR)
        status = os.fstat(descriptor)
        file = self._files[status.st_dev, status.st_ino] = _File(descriptor)
        return _CrashHandle(self, path, inner, file)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name."""
        if self.step(f"link {_folder(target)}"):
            if not os.path.lexists(target):
                self._note(target)
            self._posix.link(source, target)

    def replace(self, source: str, target: str) -> None:
        """Rename."""
        if self.step(f"replace {_folder(target)}"):
            self._note(target)
            self._note(source)
            self._posix.replace(source, target)

    def overwrite(self, path: str, data: bytes) -> None:
        """Put other bytes in the place of a file's."""
        if self.step(f"overwrite {_folder(path)}"):
            self._posix.overwrite(path, data)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        if self.step(f"unlink {_folder(path)}"):
            self._note(path)
            self._posix.unlink(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        if self.step(f"remove folder {os.path.basename(path)}"):
            self._posix.rmdir(path)

    def fsync_file(self, path: str) -> None:
        """Make the bytes of a closed file durable."""
        if self.step(f"fsync file {_folder(path)}"):
            status = os.stat(path)
            file = self._files.get((status.st_dev, status.st_ino))
            if file is not None:  # else an earlier life wrote it
                file.synced = file.size

    def fsync_dir(self, path: str) -> None:
        """Make the entries of a folder durable."""
        if self.step(f"fsync folder {os.path.basename(path)}"):
            for entry in [entry for entry in self._entries if os.path.dirname(entry) == path]:
                del self._entries[entry]

    def makedirs(self, path: str) -> None:
        """Make a folder; durable on return, as the real one."""
        if not os.path.isdir(path):
            self.step(f"make folder {os.path.basename(path)}")
            os.makedirs(path, 0o700)

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file."""
        self._alive()
        label = f"read {_folder(path)}"
        if label in self.errors:
            raise self.errors[label]
        return self._posix.read(path, offset, length)

    def open(self, path: str) -> ReadHandle:
        """Open a file to read parts of it."""
        self._alive()
        return self._posix.open(path)

    def size(self, path: str) -> int | None:
        """Return the size of a regular file."""
        self._alive()
        return self._posix.size(path)

    def list_files(self, path: str) -> list[tuple[str, int]]:
        """Return (name, size) of the regular files in a folder."""
        self._alive()
        return self._posix.list_files(path)

    def free_bytes(self, path: str) -> int:
        """Return what the disk has left, or what a test says."""
        self._alive()
        return self._posix.free_bytes(path) if self.free is None else self.free

    def commit(self, database: sqlite3.Connection, what: str) -> None:
        """Commit."""
        if self.step(f"commit {what}"):
            database.commit()

    def _alive(self) -> None:
        if self._dead:
            raise Crash("after the end")

    def _note(self, path: str) -> None:
        if path in self._entries:
            return
        if not os.path.lexists(path):
            self._entries[path] = None
            return
        self._buried += 1
        saved = os.path.join(self._graveyard, f"{id(self)}-{self._buried}")
        os.makedirs(self._graveyard, exist_ok=True)
        os.link(path, saved, follow_symlinks=False)
        self._entries[path] = saved


def no_space() -> OSError:
    """Return the error of a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_database() -> sqlite3.OperationalError:
    """Return SQLite's error on a full disk."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    error.sqlite_errorname = "SQLITE_FULL"
    return error


def subsets(entries: list[str]) -> Iterator[frozenset[str]]:
    """Yield every set of entries that may survive a power loss by luck: none, all, and each between."""
    for mask in range(1 << len(entries)):
        yield frozenset(entry for at, entry in enumerate(entries) if mask >> at & 1)


def _folder(path: str) -> str:
    return os.path.basename(os.path.dirname(path))
