"""Walking source folders by directory descriptors: no path is ever resolved twice, no symlink below a root followed.

Only a root itself may be a symbolic link (people name ``/data`` and mean what it points to). Names are bytes;
a folder's names are visited in byte order, so that two walks of the same tree agree.
"""

import errno
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, Self, TypeAlias

from replicator.errors import SourceError
from replicator.format.tree import Hole, Xattr
from replicator.snapshot.exclude import Excludes
from replicator.snapshot.gaps import Gap
from replicator.snapshot.mounts import Mounts
from replicator.snapshot.rules import Rules
from replicator.snapshot.tree import MAX_DEPTH, MAX_NAME, escape

OPEN_FOLDERS: Final = 128
"""Descriptors held at most; folders further up are closed and found again through ``..``."""
RUN: Final = 256
"""Names that are looked at before the first of them is captured."""

MOUNTINFO: Final = "/proc/self/mountinfo"
"""Where Linux says what this process sees mounted (proc(5))."""

SKIPPED_SOCKET: Final = "a socket, which only lives with its program"
SKIPPED_FILE_SYSTEM: Final = "another file system"
VANISHED: Final = "vanished while it was captured"
MOVED: Final = "was moved while it was captured; what follows in it is missing"
TOO_DEEP: Final = f"deeper than {MAX_DEPTH} folders"
NAME_TOO_LONG: Final = f"its name is longer than {MAX_NAME} bytes"


class Status(Protocol):
    """The fields of ``os.stat_result`` that are used."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...
    @property
    def st_uid(self) -> int: ...
    @property
    def st_gid(self) -> int: ...
    @property
    def st_dev(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_nlink(self) -> int: ...
    @property
    def st_rdev(self) -> int: ...
    @property
    def st_blocks(self) -> int: ...


class OpenFile(Protocol):
    """A file being read. Every method raises OSError when the file cannot be read."""

    def status(self) -> Status:
        """Return the state of the open file now."""
        ...

    def read_into(self, buffer: memoryview, /) -> int:
        """Read on from where the last call ended; 0 is the end."""
        ...

    def skip(self, count: int) -> None:
        """Let the next read begin so many bytes further on."""
        ...

    def holes(self, size: int) -> list[Hole]:
        """Return the ranges below ``size`` without data, in order; does not move the reading position."""
        ...

    def close(self) -> None:
        """Close; idempotent."""
        ...


class Folder(Protocol):
    """An open folder. Every method raises OSError when it cannot do its work; no name is followed if a link."""

    def names(self) -> list[bytes]:
        """Return all names but ``.`` and ``..``, in any order."""
        ...

    def here(self) -> Status:
        """Return the state of the folder itself."""
        ...

    def status(self, name: bytes) -> Status:
        """Return the state of what a name stands for."""
        ...

    def enter(self, name: bytes) -> "Folder":
        """Open a folder in it."""
        ...

    def parent(self) -> "Folder":
        """Open the folder it is in now."""
        ...

    def open(self, name: bytes) -> OpenFile:
        """Open a file in it without waiting (it may have become a fifo)."""
        ...

    def target(self, name: bytes) -> bytes:
        """Return where a symbolic link points."""
        ...

    def xattrs(self, name: bytes) -> list[Xattr]:
        """Return the extended attributes of what a name stands for, in byte order of their names."""
        ...

    def close(self) -> None:
        """Close; idempotent."""
        ...


class Source(Protocol):
    """Where folders come from: the machine, or a test."""

    def locate(self, path: bytes) -> tuple[Folder, bytes]:
        """Return the open folder that holds what ``path`` (links followed) stands for, and its name there.

        Raises:
            OSError: there is nothing, or the way to it is barred.
        """
        ...

    def mounts(self) -> bytes:
        """Return what is mounted now, as ``/proc/self/mountinfo`` says it."""
        ...


class Found(NamedTuple):
    """Something that is not a folder. ``folder`` is open until the walk goes on."""

    path: bytes
    name: bytes
    status: Status
    folder: Folder


class Run(NamedTuple):
    """At most :data:`RUN` neighbours that are no folders, in rising order of names; what is between them is left out.

    ``statuses`` belong to ``names`` one by one; ``prefix`` in front of a name gives its path. ``folder`` is open until
    the walk goes on.
    """

    prefix: bytes
    names: list[bytes]
    statuses: list[Status]
    folder: Folder

    def found(self, place: int) -> Found:
        """Return one of them."""
        name = self.names[place]
        return Found(self.prefix + name, name, self.statuses[place], self.folder)


class Entered(NamedTuple):
    """A folder; what it holds follows, then its :class:`Left`. ``folder`` is the one it is in."""

    path: bytes
    name: bytes
    status: Status
    folder: Folder


@dataclass(frozen=True, slots=True)
class Left:
    """Everything in the folder that was entered last has been visited."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Something could not be visited; the snapshot has a gap."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something was left out by rule."""

    gap: Gap


Event: TypeAlias = Found | Run | Entered | Left | Missed | Skipped


@dataclass(slots=True)
class _Frame:
    """A folder on the way down; ``folder`` is None while its descriptor is given up."""

    path: bytes
    folder: Folder | None
    names: Iterator[bytes]
    identity: tuple[int, int]
    prefix: bytes = field(init=False)
    """What its names are put behind."""

    def __post_init__(self) -> None:
        self.prefix = self.path.rstrip(b"/") + b"/"


class Walker:
    """Walks one root after the other with the same rules; ``roots`` are all there are.

    Network, pseudo and volatile file systems below a root are left out, but not those that a root lies on itself.

    Raises:
        SourceError: what is mounted cannot be found out.
    """

    def __init__(self, source: Source, rules: Rules, roots: Sequence[bytes] = ()) -> None:
        self._source = source
        self._rules = rules
        self._roots = roots
        self._mounts = Mounts(source.mounts())

    def walk(self, root: bytes) -> Generator[Event, None, None]:
        """Yield what lies at ``root``: one :class:`Found`, or an :class:`Entered` with all that belongs to it.

        What is in a folder and is none comes as :class:`Run`.

        Raises:
            SourceError: nothing is there, it is a socket, or it cannot be looked at.
            UsageError: a pattern means nothing.
        """
        excludes = Excludes(self._rules.exclude, root, self._roots)
        try:
            outside, name = self._source.locate(root)
        except OSError as error:
            raise _no_root(root, error) from error
        inside = None
        try:
            try:
                status = outside.status(name)
                if stat.S_ISDIR(status.st_mode):
                    inside = outside.enter(name)
                    status, names = inside.here(), inside.names()
            except OSError as error:
                raise _no_root(root, error) from error
            if inside is None:
                if stat.S_ISSOCK(status.st_mode):
                    raise SourceError(f"{escape(root)} is a socket, which cannot be backed up")
                yield Found(root, name, status, outside)
            else:
                yield Entered(root, name, status, outside)
                yield from self._below(_Frame(root, inside, _in_order(names), _identity(status)), excludes)
                yield Left()
        finally:
            outside.close()
            if inside is not None:
                inside.close()

    def _below(self, top: _Frame, excludes: Excludes) -> Iterator[Event]:
        frames = [top]
        device = top.identity[0]
        try:
            while frames:
                frame = frames[-1]
                if frame.folder is None:  # it was not found again
                    yield from self._leave(frames)
                    continue
                run, other = self._next_run(frame, frame.folder, excludes, len(top.prefix))
                if run.names:
                    yield run
                if isinstance(other, Left):
                    yield from self._leave(frames)
                elif isinstance(other, Entered):
                    if len(frames) >= MAX_DEPTH - 1:
                        yield Missed(Gap(other.path, TOO_DEEP))
                    elif other.status.st_dev != device and (reason := self._not_crossed(other.status.st_dev)):
                        yield other
                        yield Skipped(Gap(other.path, reason))
                        yield Left()
                    else:
                        yield from self._enter(frames, other)
                elif other is not None:
                    yield other
        finally:
            for frame in frames:
                if frame.folder is not None:
                    frame.folder.close()

    def _not_crossed(self, device: int) -> str:
        """Return why a folder on another device than the root's stays empty, or nothing."""
        return SKIPPED_FILE_SYSTEM if self._rules.one_file_system else self._mounts.on_device(device)

    def _next_run(
        self, frame: _Frame, inside: Folder, excludes: Excludes, top: int
    ) -> tuple[Run, Entered | Left | Missed | Skipped | None]:
        """Return what comes next in a folder, and what ended it: None is its length, :class:`Left` the folder's end.

        An :class:`Entered` is a folder that has not been opened yet. ``top`` is the length of the root's prefix.
        """
        look, prefix = inside.status, frame.prefix
        above, largest = prefix[top:], self._rules.largest
        run = Run(prefix, [], [], inside)
        for name in frame.names:
            try:
                status = look(name)
            except OSError as error:
                # A user's FUSE mount is closed even to root.
                if reason := self._mounts.at(prefix + name):
                    return run, Skipped(Gap(prefix + name, reason))
                return run, Missed(Gap(prefix + name, reason_of(error)))
            folder = stat.S_ISDIR(status.st_mode)
            if excludes and excludes.match(above, name, folder=folder):
                continue
            if len(name) > MAX_NAME:
                return run, Missed(Gap(prefix + name, NAME_TOO_LONG))
            if folder:
                return run, Entered(prefix + name, name, status, inside)
            if stat.S_ISSOCK(status.st_mode):
                return run, Skipped(Gap(prefix + name, SKIPPED_SOCKET))
            if largest is not None and status.st_size > largest and stat.S_ISREG(status.st_mode):
                return run, Skipped(Gap(prefix + name, self._rules.too_large))
            run.names.append(name)
            run.statuses.append(status)
            if len(run.names) == RUN:
                return run, None
        return run, Left()

    def _enter(self, frames: list[_Frame], folder: Entered) -> Iterator[Event]:
        path, name, status, outer = folder
        try:
            inner = outer.enter(name)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                yield Entered(path, name, status, outer)  # its own metadata is known, its content is not
                yield Missed(Gap(path, reason_of(error)))
                yield Left()
            else:
                yield Missed(Gap(path, VANISHED))
            return
        try:
            here, names = inner.here(), inner.names()
        except OSError as error:
            inner.close()
            yield Entered(path, name, status, outer)
            yield Missed(Gap(path, reason_of(error)))
            yield Left()
            return
        marker = self._rules.marker(inner, names)
        if marker is not None:
            names = [marker[0]]
        frames.append(_Frame(path, inner, _in_order(names), _identity(here)))
        yield Entered(path, name, here, outer)
        if marker is not None:
            yield Skipped(Gap(path, marker[1]))
        if len(frames) > OPEN_FOLDERS:
            far = frames[-1 - OPEN_FOLDERS]
            if far.folder is not None:
                far.folder.close()
                far.folder = None

    def _leave(self, frames: list[_Frame]) -> Iterator[Event]:
        """Close the folder on top and make sure that the one below it can be read on."""
        done = frames.pop()
        try:
            if frames and frames[-1].folder is None:
                yield from self._find_again(frames[-1], done)
        finally:
            if done.folder is not None:
                done.folder.close()
        if frames:  # the root's own end belongs to the caller
            yield Left()

    def _find_again(self, frame: _Frame, child: _Frame) -> Iterator[Event]:
        folder = None
        try:
            if child.folder is not None:
                folder = child.folder.parent()
                if _identity(folder.here()) == frame.identity:
                    frame.folder, folder = folder, None
        except OSError:
            pass  # what matters is whether we have it
        finally:
            if folder is not None:
                folder.close()
        if frame.folder is None:
            yield Missed(Gap(frame.path, MOVED))


def _in_order(names: list[bytes]) -> Iterator[bytes]:
    names.sort()
    return iter(names)


def _identity(status: Status) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _no_root(path: bytes, error: OSError) -> SourceError:
    return SourceError(
        f"{escape(path)} cannot be backed up: {os.strerror(error.errno or errno.EIO)}",
        hint="correct the dataset's paths, or mount what is missing; nothing was backed up",
    )


def reason_of(error: OSError) -> str:
    """Return the reason of a gap in words."""
    if error.errno in (errno.ENOENT, errno.ESTALE):
        return VANISHED
    return os.strerror(error.errno) if error.errno else str(error)


class PosixSource:
    """The machine's file systems (Linux).

    Raises:
        SourceError: ``/proc`` is not mounted; attributes of links and devices are reached through it.
    """

    def __init__(self, *, proc: str = "/proc/self/fd") -> None:
        if not os.path.isdir(proc):
            raise SourceError(f"{proc} is not there", hint="mount /proc before running a backup")
        self.proc = os.fsencode(proc)
        """Where the descriptors of this process are found as paths."""

    def locate(self, path: bytes) -> tuple["PosixFolder", bytes]:
        """Open the folder above what ``path`` stands for."""
        real = os.path.realpath(path, strict=True)
        above, name = os.path.split(real)
        folder = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return PosixFolder(folder, self.proc), name or b"."

    def mounts(self) -> bytes:
        """Read what is mounted."""
        try:
            with open(MOUNTINFO, "rb") as file:
                return file.read()
        except OSError as error:
            raise SourceError(
                f"{MOUNTINFO} cannot be read: {os.strerror(error.errno or errno.EIO)}",
                hint="mount /proc before running a backup; without it network file systems are not known",
            ) from error


class PosixFolder:
    """A folder's descriptor."""

    __slots__ = ("_fd", "_proc")

    def __init__(self, fd: int, proc: bytes) -> None:
        self._fd = fd
        self._proc = proc

    def fileno(self) -> int:
        """Return the descriptor, which stays this object's."""
        return self._fd

    def names(self) -> list[bytes]:
        """Return all names."""
        with os.scandir(self._fd) as entries:
            return [os.fsencode(entry.name) for entry in entries]

    def here(self) -> os.stat_result:
        """Return the state of the folder itself."""
        return os.fstat(self._fd)

    def status(self, name: bytes) -> os.stat_result:
        """Return the state of what a name stands for."""
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False)

    def enter(self, name: bytes) -> Self:
        """Open a folder in it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return type(self)(os.open(name, flags, dir_fd=self._fd), self._proc)

    def parent(self) -> Self:
        """Open the folder it is in now."""
        return self.enter(b"..")

    def open(self, name: bytes) -> "PosixFile":
        """Open a file in it, without changing its access time if that is allowed."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return PosixFile(os.open(name, flags | os.O_NOATIME, dir_fd=self._fd))
        except PermissionError:  # only a file's owner may ask for O_NOATIME
            return PosixFile(os.open(name, flags, dir_fd=self._fd))

    def target(self, name: bytes) -> bytes:
        """Return where a symbolic link points."""
        return os.readlink(name, dir_fd=self._fd)

    def xattrs(self, name: bytes) -> list[Xattr]:
        """Return the extended attributes; empty where the file system has none."""
        path = b"%s/%d/%s" % (self._proc, self._fd, name)
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return []
            raise
        found = []
        for attribute in sorted(map(os.fsencode, names)):
            try:
                value = os.getxattr(path, attribute, follow_symlinks=False)
            except OSError as error:
                if error.errno == errno.ENODATA:
                    continue  # removed since it was listed
                raise
            found.append(Xattr(name=attribute, value=value))
        return found

    def close(self) -> None:
        """Close; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PosixFile:
    """A file's descriptor."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def status(self) -> os.stat_result:
        """Return the state of the open file now."""
        return os.fstat(self._fd)

    def read_into(self, buffer: memoryview, /) -> int:
        """Read on."""
        return os.readv(self._fd, [buffer])

    def skip(self, count: int) -> None:
        """Read on further behind."""
        os.lseek(self._fd, count, os.SEEK_CUR)

    def holes(self, size: int) -> list[Hole]:
        """Return the ranges without data, as the file system knows them."""
        found: list[Hole] = []
        place = os.lseek(self._fd, 0, os.SEEK_CUR)
        end = 0
        try:
            while end < size and (start := os.lseek(self._fd, end, os.SEEK_HOLE)) < size:
                try:
                    end = min(os.lseek(self._fd, start, os.SEEK_DATA), size)
                except OSError as error:
                    if error.errno != errno.ENXIO:
                        raise
                    end = size  # no data up to the end
                found.append(Hole(offset=start, length=end - start))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                raise
            return []  # a file system that does not tell
        finally:
            os.lseek(self._fd, place, os.SEEK_SET)
        return found

    def close(self) -> None:
        """Close; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
