"""The machine's file system with something happening at every step."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from replicator.format.tree import Hole, Xattr
from replicator.snapshot.walk import Folder, OpenFile, PosixSource, Source, Status

Hook = Callable[[str, bytes], None]
"""Told the step and the path before the step is done; may raise OSError or change the disk."""


def nothing(step: str, path: bytes) -> None:
    """Let it happen."""


def fails(step: str, name: bytes, error: int) -> Hook:
    """Make one step fail for one base name."""

    def hook(now: str, path: bytes) -> None:
        if (now, os.path.basename(path)) == (step, name):
            raise OSError(error, os.strerror(error))

    return hook


class FakeSource:
    """A source whose every step passes a hook; ``alter`` may change the fields of what is found.

    ``mounted`` is what it says of mounts; if not given, the machine's own.
    """

    def __init__(
        self,
        hook: Hook = nothing,
        alter: Callable[[bytes, dict[str, Any]], None] | None = None,
        mounted: bytes | None = None,
    ) -> None:
        self.hook = hook
        self.alter = alter
        self.mounted = mounted
        self.source: Source = PosixSource()
        self.open_handles = 0

    def locate(self, path: bytes) -> tuple[Folder, bytes]:
        self.hook("locate", path)
        folder, name = self.source.locate(path)
        return FakeFolder(self, folder, os.path.dirname(path)), name

    def mounts(self) -> bytes:
        return self.source.mounts() if self.mounted is None else self.mounted

    def changed(self, path: bytes, status: Status) -> Status:
        fields = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
        if self.alter is not None:
            self.alter(path, fields)
        return SimpleNamespace(**fields)


class FakeFolder:
    def __init__(self, owner: FakeSource, real: Folder, path: bytes) -> None:
        self.owner = owner
        self.real = real
        self.path = path
        self.closed = False
        owner.open_handles += 1

    def step(self, step: str, name: bytes) -> bytes:
        path = self.path if name in (b"", b".") else self.path.rstrip(b"/") + b"/" + name
        self.owner.hook(step, path)
        return path

    def names(self) -> list[bytes]:
        self.step("names", b"")
        return self.real.names()

    def here(self) -> Status:
        return self.owner.changed(self.step("here", b""), self.real.here())

    def status(self, name: bytes) -> Status:
        return self.owner.changed(self.step("status", name), self.real.status(name))

    def enter(self, name: bytes) -> "FakeFolder":
        path = self.step("enter", name)
        return FakeFolder(self.owner, self.real.enter(name), path)

    def parent(self) -> "FakeFolder":
        self.step("parent", b"")
        return FakeFolder(self.owner, self.real.parent(), os.path.dirname(self.path))

    def open(self, name: bytes) -> "FakeFile":
        path = self.step("open", name)
        return FakeFile(self.owner, self.real.open(name), path)

    def target(self, name: bytes) -> bytes:
        self.step("target", name)
        return self.real.target(name)

    def xattrs(self, name: bytes) -> list[Xattr]:
        self.step("xattrs", name)
        return self.real.xattrs(name)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.owner.open_handles -= 1
            self.real.close()


class FakeFile:
    def __init__(self, owner: FakeSource, real: OpenFile, path: bytes) -> None:
        self.owner = owner
        self.real = real
        self.path = path
        owner.open_handles += 1

    def status(self) -> Status:
        self.owner.hook("file status", self.path)
        return self.owner.changed(self.path, self.real.status())

    def read_into(self, buffer: memoryview, /) -> int:
        self.owner.hook("read", self.path)
        return self.real.read_into(buffer)

    def skip(self, count: int) -> None:
        self.owner.hook("skip", self.path)
        self.real.skip(count)

    def holes(self, size: int) -> list[Hole]:
        self.owner.hook("holes", self.path)
        return self.real.holes(size)

    def close(self) -> None:
        self.owner.open_handles -= 1
        self.real.close()
