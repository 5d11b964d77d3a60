"""Putting a tree back on a disk: plan, begin, write, finish.

    applier = Applier(target, rng=rng, rights=Rights(privileged=False))
    for path, entry in reader.walk(tree):
        applier.add(path, entry)            # looks, checks, writes nothing
    applier.begin()                         # folders, mode 0700
    for job in applier.jobs:                # in any order, chunk by chunk
        applier.write(job, offset, data)    # a complete file gets its name
    applied = applier.finish()              # links, devices, then folders' metadata from below

After any error, ``abort`` removes what is unfinished.

Nothing outside the target is touched, whatever the tree says or the target holds: names are single components,
folders are reached by descriptors and never through links, files are written under names of our own and given
theirs when complete, and only an ``overwrite`` rule lets anything be replaced. A folder is never replaced.
Owners, setuid bits, devices and guarded attributes need ``Rights.privileged``. Not for more than one thread.
"""

import errno
import os
import stat
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal

from replicator.errors import FormatError, RestoreError, SpaceError
from replicator.format.snapshot import ChunkList
from replicator.format.tree import Entry
from replicator.rng import Rng
from replicator.snapshot.gaps import Gap, Gaps
from replicator.snapshot.metadata import Metadata, Rights
from replicator.snapshot.target import Identity, Place, Target, identity_of
from replicator.snapshot.tree import MAX_DEPTH, TreePath, check_entry, escape

Overwrite = Literal["never", "if-changed", "always"]

OPEN_FILES: Final = 64
"""Descriptors of unfinished files held at most."""
PREFIX: Final = b".replicator-"
"""Unfinished files are called this and 32 hex digits; what a killed restore leaves can be removed by this name."""

IN_THE_WAY: Final = "something appeared under its name during the restore"
INCOMPLETE: Final = "not all of its bytes could be had"
NEEDS_PRIVILEGE: Final = "device nodes are only made by a privileged restore"
NO_FIRST_NAME: Final = "the file it is a further name of was not restored"
IMPOSSIBLE: Final = "a number in it is larger than this system takes"
NOT_OURS: Final = "was replaced by someone else during the restore"

_KIND_BITS: Final = {
    "file": stat.S_IFREG,
    "fifo": stat.S_IFIFO,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "link": stat.S_IFLNK,
}
_NO_LINKS_HERE: Final = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


@dataclass(slots=True)
class RestoreCounts:
    """What a restore did. ``kept`` files were there already with the same size and time."""

    folders: int = 0
    files: int = 0
    links: int = 0
    others: int = 0
    kept: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The outcome: ``gaps`` names what is not as it was (the first ten thousand), ``reasons`` counts all."""

    counts: RestoreCounts
    gaps: list[Gap]
    reasons: dict[str, int]


@dataclass(slots=True)
class _Written:
    """Which bytes of a file are there: apart, in order."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    total: int = 0

    def add(self, start: int, end: int) -> None:
        first, last = bisect_left(self.ends, start), bisect_right(self.starts, end)
        self.total -= sum(self.ends[first:last]) - sum(self.starts[first:last])
        if first < last:
            start, end = min(start, self.starts[first]), max(end, self.ends[last - 1])
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]
        self.total += end - start


@dataclass(slots=True, eq=False)
class Job:
    """A file to be written: ``size`` bytes, which are those of ``content``."""

    path: TreePath
    entry: Entry
    place: Place
    first: "_FirstName | None"
    replace: bool
    temporary: bytes = b""
    identity: Identity | None = None
    done: bool = False
    written: _Written = field(default_factory=_Written)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.entry.size

    @property
    def content(self) -> ChunkList:
        """The chunks that hold them."""
        assert self.entry.content is not None
        return self.entry.content


@dataclass(slots=True, eq=False)
class _FirstName:
    """The name under which an inode with several names is made; ``identity`` once it is."""

    place: Place
    entry: Entry
    identity: Identity | None = None


@dataclass(slots=True)
class _Other:
    """A link, fifo or device to be made, or a further name of ``first``."""

    place: Place
    entry: Entry
    first: _FirstName | None
    replace: bool
    further: bool


class Applier:
    """Restores one selection of one snapshot."""

    def __init__(
        self,
        target: str,
        *,
        rng: Rng,
        rights: Rights,
        overwrite: Overwrite = "never",
        open_files: int = OPEN_FILES,
    ) -> None:
        """Look at the target, which need not exist.

        Raises:
            RestoreError: the target is not a folder.
        """
        self.jobs: list[Job] = []
        self.counts = RestoreCounts()
        self.planned_bytes = 0
        self._rng = rng
        self._overwrite = overwrite
        self._metadata = Metadata(rights)
        self._target = Target(target)
        self._open_limit = open_files
        self._stack = [self._target.top]
        self._folders: list[Place] = []
        self._empty: list[Job] = []
        self._kept: list[tuple[Place, Entry, Identity]] = []
        self._others: list[_Other] = []
        self._firsts: dict[tuple[int, int], _FirstName] = {}
        self._open: OrderedDict[Job, int] = OrderedDict()
        self._begun: dict[Job, None] = {}
        self._gaps = Gaps()

    def add(self, path: TreePath, entry: Entry) -> Job | None:
        """Plan one entry; entries come in tree order, each after the folder it is in.

        The answer is the file's job if it has bytes to be written. Nothing is changed on the disk.

        Raises:
            FormatError: the entry, its path or the order is not allowed.
            RestoreError: something is in the way and the overwrite rule forbids to replace it.
        """
        check_entry(entry)
        if not path or path[-1] != entry.name or len(path) > MAX_DEPTH:
            raise FormatError(f"tree: {escape(entry.name)} under the path {escape(b'/'.join(path))}")
        while self._stack and self._stack[-1].path != path[:-1]:
            self._stack.pop()
        if not self._stack or entry.name <= self._stack[-1].last:
            raise FormatError(f"tree: {escape(b'/'.join(path))} is out of order")
        place = self._stack[-1]
        place.last = entry.name
        try:
            found = self._target.status(place, entry.name)
        except OSError as error:
            raise RestoreError(f"{place.shown(entry.name)}: {error.strerror}") from error
        if entry.kind == "dir":
            self._add_folder(place, path, entry, found)
            return None
        if found is not None:
            self._check_replaceable(place, entry, found)
            if self._overwrite == "if-changed" and self._is_same(place, entry, found):
                self._kept.append((place, entry, identity_of(found)))
                return None
        first, further = self._first_name(place, entry)
        if entry.kind != "file" or further:
            self._others.append(_Other(place, entry, first, replace=found is not None, further=further))
            return None
        job = Job(path, entry, place, first, replace=found is not None)
        if entry.size == 0:
            self._empty.append(job)
            return None
        freed = found.st_blocks * 512 if found is not None and found.st_nlink == 1 else 0
        self.planned_bytes += max(0, entry.size - sum(hole.length for hole in entry.holes) - freed)
        self.jobs.append(job)
        return job

    def begin(self) -> None:
        """Make the target and all folders, closed to others until they are complete.

        Raises:
            SpaceError: the planned bytes do not fit; nothing was written.
            RestoreError: a folder cannot be made.
        """
        self._check_space()
        shown = self._target.shown()
        try:
            self._target.make_top()
            for place in self._folders:
                shown = place.shown()
                self._make(place)
        except OSError as error:
            self._raise_if_full(error)
            raise RestoreError(f"{shown} cannot be made: {error.strerror}") from error

    def write(self, job: Job, offset: int, data: bytes | memoryview) -> None:
        """Write part of a file, in any order; the write that makes it complete gives it its name.

        A file that cannot be written becomes a gap, and further writes to it do nothing.

        Raises:
            FormatError: the part does not lie within the file.
            SpaceError: the disk is full.
        """
        end = offset + len(data)
        if not 0 <= offset <= end <= job.size:
            raise FormatError(
                f"{job.place.shown(job.entry.name)}: bytes {offset} to {end} of a file of {job.size} bytes"
            )
        if job.done:
            return
        try:
            self._write(self._file(job), job.entry, offset, data)
            job.written.add(offset, end)
            if job.written.total == job.size:
                self._complete(job)
        except (OSError, RestoreError) as error:
            self._fail(job, error)

    def finish(self) -> Applied:
        """Make what is left, set the folders' metadata from below, and tell what became of it all.

        Raises:
            SpaceError: the disk is full.
        """
        for job in self._empty:
            try:
                self._file(job)
                self._complete(job)
            except (OSError, RestoreError) as error:
                self._fail(job, error)
        for job in self.jobs:
            if not job.done:
                self._gap(job.place, job.entry, INCOMPLETE)
                self._drop(job)
        for other in self._others:  # in tree order: a further name comes after the first
            with self._naming(other.place, other.entry):
                (self._make_further if other.further else self._make_other)(other)
        for place, entry, identity in self._kept:
            with self._naming(place, entry):
                self._freshen(place, entry, identity)
        for place in reversed(self._folders):
            assert place.parent is not None
            assert place.entry is not None
            with self._naming(place.parent, place.entry):
                self._set_metadata(place.parent, place.entry, self._target.fd(place))
        self._target.close()
        return Applied(counts=self.counts, gaps=self._gaps.named, reasons=dict(self._gaps.by_reason))

    def abort(self) -> None:
        """Remove unfinished files and give opened-up folders their mode back; complete files stay."""
        for job in list(self._begun):
            self._drop(job)
        for place in reversed(self._folders):
            if place.old_mode is not None:
                with suppress(OSError, RestoreError):
                    os.fchmod(self._target.fd(place), place.old_mode)
        self._target.close()

    # -- planning --

    def _add_folder(self, place: Place, path: TreePath, entry: Entry, found: os.stat_result | None) -> None:
        folder = Place(place, path, entry)
        if found is not None and stat.S_ISDIR(found.st_mode):
            folder.identity = identity_of(found)
        elif found is not None:
            self._check_replaceable(place, entry, found)
            folder.replace = True
        self._folders.append(folder)
        self._stack.append(folder)

    def _check_replaceable(self, place: Place, entry: Entry, found: os.stat_result) -> None:
        shown = place.shown(entry.name)
        if stat.S_ISDIR(found.st_mode):
            raise RestoreError(
                f"{shown} is a folder in the target and not in the snapshot",
                hint="move it away or choose another target; folders are never replaced",
            )
        if self._overwrite == "never":
            raise RestoreError(
                f"{shown} exists in the target",
                hint="choose another target, or allow to replace it with --overwrite",
            )

    def _is_same(self, place: Place, entry: Entry, found: os.stat_result) -> bool:
        """Return whether what is there can stay: alike by size and time, and a file with this name only."""
        if entry.link is not None or found.st_nlink != 1:
            return False
        if entry.kind == "link" and stat.S_ISLNK(found.st_mode):
            with suppress(OSError):
                return os.readlink(entry.name, dir_fd=self._target.fd(place)) == entry.target
        if entry.kind == "file" and stat.S_ISREG(found.st_mode):
            return (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime_ns)
        return False

    def _first_name(self, place: Place, entry: Entry) -> tuple[_FirstName | None, bool]:
        """Return the first name of an entry's inode, and whether this entry is a further one."""
        if entry.link is None:
            return None, False
        key = (entry.link.device, entry.link.inode)
        first = self._firsts.get(key)
        if first is None:
            first = self._firsts[key] = _FirstName(place, entry)
            return first, False
        if _alike(first.entry, entry):
            return first, True
        return None, False  # it was captured twice and changed between: two files are what we have

    def _check_space(self) -> None:
        path = self._target.path
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        free = os.statvfs(path)
        if self.planned_bytes > free.f_bavail * free.f_frsize:
            raise SpaceError(
                f"{self._target.shown()}: {self.planned_bytes} bytes are to be restored, "
                f"{free.f_bavail * free.f_frsize} are free",
                hint="choose a target with more room, or restore a part",
            )

    # -- folders --

    def _make(self, place: Place) -> None:
        assert place.parent is not None
        name = place.path[-1]
        if place.identity is None:
            outer = self._target.fd(place.parent)
            if place.replace:
                os.unlink(name, dir_fd=outer)
            os.mkdir(name, 0o700, dir_fd=outer)
            place.identity = identity_of(os.stat(name, dir_fd=outer, follow_symlinks=False))
        else:
            inner = self._target.fd(place)
            status = os.fstat(inner)
            if status.st_uid == os.geteuid() and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                place.old_mode = stat.S_IMODE(status.st_mode)
                os.fchmod(inner, place.old_mode | stat.S_IRWXU)
        self.counts.folders += 1

    # -- files --

    def _file(self, job: Job) -> int:
        """Return the descriptor of a job's temporary file, valid until the next call."""
        fd = self._open.get(job)
        if fd is not None:
            self._open.move_to_end(job)
            return fd
        outer = self._target.fd(job.place)
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        if job.identity is None:
            job.temporary = self._temporary_name()
            fd = self._open[job] = os.open(job.temporary, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=outer)
            self._begun[job] = None
            job.identity = identity_of(os.fstat(fd))
            os.ftruncate(fd, job.size)
        else:
            fd = self._open[job] = os.open(job.temporary, flags | os.O_NONBLOCK, dir_fd=outer)
            if identity_of(os.fstat(fd)) != job.identity:
                raise RestoreError(f"{job.place.shown(job.temporary)} {NOT_OURS}")
        while len(self._open) > self._open_limit:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def _write(self, fd: int, entry: Entry, offset: int, data: bytes | memoryview) -> None:
        """Write all but the zeros that lie in holes."""
        with memoryview(data) as view:
            done, end = offset, offset + len(view)
            nearest = bisect_right(entry.holes, offset, key=lambda hole: hole.offset) - 1
            for hole in entry.holes[max(nearest, 0) :]:
                start, stop = max(hole.offset, offset), min(hole.offset + hole.length, end)
                if hole.offset >= end:
                    break
                if start < stop and bytes(view[start - offset : stop - offset]) == bytes(stop - start):
                    _write_all(fd, view[done - offset : start - offset], done)
                    done = stop
            _write_all(fd, view[done - offset :], done)

    def _complete(self, job: Job) -> None:
        fd = self._file(job)
        self._set_metadata(job.place, job.entry, fd)
        self._publish(job.place, job.temporary, job.entry.name, replace=job.replace)
        job.done = True
        del self._begun[job]
        os.close(self._open.pop(job))
        if job.first is not None:
            job.first.identity = job.identity
        self.counts.files += 1
        self.counts.bytes += job.size

    def _publish(self, place: Place, temporary: bytes, name: bytes, *, replace: bool) -> None:
        """Give a complete file its name; without ``replace`` only if nothing has it."""
        folder = self._target.fd(place)
        if not replace:
            try:
                os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINKS_HERE:
                    raise
                # A file system without hard links: take the name with an empty file, then replace that.
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))
            else:
                os.unlink(temporary, dir_fd=folder)
                return
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _fail(self, job: Job, error: OSError | RestoreError) -> None:
        self._drop(job)
        self._note(job.place, job.entry, error)

    def _drop(self, job: Job) -> None:
        """Give a job up and remove its temporary file, if we still can."""
        job.done = True
        fd = self._open.pop(job, None)
        if fd is not None:
            os.close(fd)
        if job in self._begun:
            del self._begun[job]
            with suppress(OSError, RestoreError):
                os.unlink(job.temporary, dir_fd=self._target.fd(job.place))

    # -- everything else --

    def _make_other(self, other: _Other) -> None:
        place, entry = other.place, other.entry
        if entry.kind in ("char", "block") and not self._metadata.rights.privileged:
            self._gap(place, entry, NEEDS_PRIVILEGE)
            return
        folder = self._target.fd(place)
        with self._as_temporary(other, folder) as name:
            if entry.kind == "link":
                os.symlink(entry.target, name, dir_fd=folder)
            elif entry.kind == "fifo":
                os.mkfifo(name, 0o600, dir_fd=folder)
            else:
                os.mknod(name, 0o600 | _KIND_BITS[entry.kind], entry.rdev, dir_fd=folder)
            identity = self._by_path(place, entry, name, None)
        if other.first is not None:
            other.first.identity = identity
        self.counts.others += 1

    def _make_further(self, other: _Other) -> None:
        first = other.first
        assert first is not None
        if first.identity is None:
            self._gap(other.place, other.entry, NO_FIRST_NAME)
            return
        source = os.dup(self._target.fd(first.place))
        try:
            folder = self._target.fd(other.place)
            with self._as_temporary(other, folder) as name:
                os.link(first.entry.name, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
                # Only an inode that was made in this run gets a name, whatever lies at the first name by now.
                if identity_of(os.stat(name, dir_fd=folder, follow_symlinks=False)) != first.identity:
                    os.unlink(name, dir_fd=folder)
                    raise RestoreError(f"{first.place.shown(first.entry.name)} {NOT_OURS}")
        finally:
            os.close(source)
        self.counts.links += 1

    @contextmanager
    def _as_temporary(self, other: _Other, folder: int) -> Iterator[bytes]:
        """Give the name to make something under: its own, or one that then replaces what is there."""
        if not other.replace:
            yield other.entry.name
            return
        name = self._temporary_name()
        try:
            yield name
            os.rename(name, other.entry.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            # It is still there after a failure, and where both names were one file (rename does nothing then).
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)

    def _freshen(self, place: Place, entry: Entry, identity: Identity) -> None:
        self._by_path(place, entry, entry.name, identity)
        self.counts.kept += 1

    def _by_path(self, place: Place, entry: Entry, name: bytes, identity: Identity | None) -> Identity:
        """Set metadata of what cannot be opened, through a handle that follows nothing; return its identity."""
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._target.fd(place))
        try:
            status = os.fstat(handle)
            found = identity_of(status)
            # Of another kind or with another name, it is not what was made or seen here a moment ago.
            strange = stat.S_IFMT(status.st_mode) != _KIND_BITS[entry.kind] or status.st_nlink != 1
            if strange or identity not in (None, found):
                raise RestoreError(f"{place.shown(name)} {NOT_OURS}")
            self._set_metadata(place, entry, f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
        return found

    def _set_metadata(self, place: Place, entry: Entry, handle: int | str) -> None:
        for problem in self._metadata.apply(handle, entry):
            self._gap(place, entry, problem)

    # -- bookkeeping --

    def _temporary_name(self) -> bytes:
        return PREFIX + self._rng.bytes(16).hex().encode()

    @contextmanager
    def _naming(self, place: Place, entry: Entry) -> Iterator[None]:
        """Turn what goes wrong with one entry into a gap."""
        try:
            yield
        except (OSError, OverflowError, RestoreError) as error:
            self._note(place, entry, error)

    def _note(self, place: Place, entry: Entry, error: Exception) -> None:
        if isinstance(error, FileExistsError):
            reason = IN_THE_WAY
        elif isinstance(error, OSError):
            self._raise_if_full(error)
            reason = os.strerror(error.errno or errno.EIO)
        else:
            reason = NOT_OURS if isinstance(error, RestoreError) else IMPOSSIBLE
        self._gap(place, entry, reason)

    def _raise_if_full(self, error: OSError) -> None:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceError(f"{self._target.shown()}: the disk is full", hint="make room and restore again") from error

    def _gap(self, place: Place, entry: Entry, reason: str) -> None:
        self._gaps.add(b"/".join((*place.path, entry.name)), reason)


def _alike(one: Entry, other: Entry) -> bool:
    """Return whether two names can be those of one inode."""
    return (one.kind, one.size, one.content, one.target, one.rdev) == (
        other.kind,
        other.size,
        other.content,
        other.target,
        other.rdev,
    )


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data = data[count:]
        offset += count
