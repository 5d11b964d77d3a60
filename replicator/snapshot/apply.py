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
import fcntl
import os
import stat
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from replicator.errors import FormatError, RestoreError, SpaceError
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import Entry
from replicator.rng import Rng
from replicator.snapshot.gaps import Gap, Gaps
from replicator.snapshot.metadata import BEYOND_A_USER, NEEDS_PRIVILEGE, Metadata, Rights
from replicator.snapshot.newfile import NO_LINKS_HERE, make_whole, write_part
from replicator.snapshot.plan import PREFIX, Extra, Overwrite, Planner, room_for
from replicator.snapshot.target import Identity, Place, identity_of
from replicator.snapshot.tree import TreePath

OPEN_FILES: Final = 64
"""Descriptors of unfinished files held at most."""
RESUMED_FROM: Final = 16 << 20
"""Bytes of a file from which on a later run goes on with what was written of it."""
MOST_NESTED: Final = 500
"""Folders in folders that are removed at most."""
A_FOLDER: Final = "there is a folder under its name, and folders are never replaced"
IN_THE_WAY: Final = "something appeared under its name during the restore"
INCOMPLETE: Final = "not all of its bytes could be had"
NO_FIRST_NAME: Final = "the file it is a further name of was not restored"
IMPOSSIBLE: Final = "a number in it is larger than this system takes"
NOT_OURS: Final = "was replaced by someone else during the restore"
NOT_REMOVED: Final = "is not in the snapshot and could not be removed"

_KIND_BITS: Final = {
    "file": stat.S_IFREG,
    "fifo": stat.S_IFIFO,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "link": stat.S_IFLNK,
}
_FICLONE: Final = 0x40049409


Part = tuple[int, ChunkRef]
"""A chunk and where in the file it belongs."""


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
    """The outcome: ``gaps`` names what is not as it was (the first ten thousand), ``reasons`` counts all.

    Apart from these, ``unset`` is what this process had no right to set. ``removed`` are the extras that are gone,
    ``reused_bytes`` those of files that were right before.
    """

    counts: RestoreCounts
    removed: list[bytes]
    reused_bytes: int
    gaps: list[Gap]
    reasons: dict[str, int]
    unset: Gaps


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

    def has(self, start: int, end: int) -> bool:
        place = bisect_right(self.starts, start) - 1
        return place >= 0 and self.ends[place] >= end


@dataclass(slots=True, eq=False)
class Job:
    """A file to be written: ``size`` bytes, which are those of ``content``."""

    path: TreePath
    entry: Entry
    place: Place
    first: "_FirstName | None"
    replace: bool
    old: Identity | None = None
    """The file that it replaces, if that is one."""
    more: bool = False
    """Whether more of it will be asked for than was until now, so that it may be settled incomplete."""
    resumed: bool = False
    shared: bool = False
    """Whether it began with what an earlier run left, or with all blocks of the old file."""
    temporary: bytes = b""
    identity: Identity | None = None
    done: bool = False
    _written: _Written | None = None

    @property
    def written(self) -> _Written:
        """Which bytes of it are there; most files are made in one step and never ask."""
        if self._written is None:
            self._written = _Written()
        return self._written

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


@dataclass(slots=True)
class Planned:
    """A part of a tree that was planned and is to be finished."""

    jobs: list[Job]
    empty: list[Job]
    others: list[_Other]
    kept: list[tuple[Place, Entry, Identity]]
    left: list[Place]


class Applier(Planner):
    """Restores one selection of one snapshot."""

    def __init__(
        self,
        target: str,
        *,
        rng: Rng,
        rights: Rights,
        overwrite: Overwrite = "never",
        open_files: int = OPEN_FILES,
        resume_key: bytes | None = None,
        extras: Iterable[Extra] = (),
    ) -> None:
        """Look at the target, which need not exist.

        ``resume_key`` (32 secret bytes, the same in every run) lets a later run go on with large files that this one
        does not finish. ``extras`` are removed, each when its folder is done.

        Raises:
            RestoreError: the target is not a folder.
        """
        super().__init__(target, overwrite)
        self.jobs: list[Job] = []
        self.counts = RestoreCounts()
        self.planned_bytes = 0
        self._reused_bytes = 0
        self._removed: list[bytes] = []
        self._rng = rng
        self._metadata = Metadata(rights)
        self._open_limit = open_files
        self._resume_key = resume_key
        self._extras: dict[TreePath, list[Extra]] = {}
        for extra in extras:
            self._extras.setdefault(extra.folder, []).append(extra)
        self._is_begun = False
        self._has_unnamed = True
        self._folders: dict[Place, None] = {}
        self._left: list[Place] = []
        self._last: list[Place] = []
        self._empty: list[Job] = []
        self._kept: list[tuple[Place, Entry, Identity]] = []
        self._others: list[_Other] = []
        self._firsts: dict[tuple[int, int], _FirstName] = {}
        self._open: OrderedDict[Job, int] = OrderedDict()
        self._begun: dict[Job, None] = {}
        self._gaps = Gaps()
        self._unset = Gaps()

    def add(self, path: TreePath, entry: Entry, *, checked: bool = False) -> Job | None:
        """Plan one entry, which may be ``checked`` already; entries come in tree order, each after its folder.

        The answer is the file's job if it has bytes to be written. Nothing is changed on the disk, but that a folder is
        made once the restore has begun.

        Raises:
            FormatError: the entry, its path or the order is not allowed.
            RestoreError: something is in the way and the overwrite rule forbids to replace it.
        """
        place, found = self._place(path, entry, checked=checked)
        if entry.kind == "dir":
            folder = self._enter(place, path, entry, found)
            self._folders[folder] = None
            if self._is_begun:
                self._make(folder)
            return None
        try:
            keeps = self._keeps(place, entry, found)
        except RestoreError:
            if self._overwrite == "never":
                raise
            self._gap(place, entry, A_FOLDER)
            return None
        if keeps:
            assert found is not None, "it is kept"
            if self._is_set(place, entry, found):
                self.counts.kept += 1
            else:
                self._kept.append((place, entry, identity_of(found)))
            return None
        first, further = (None, False) if entry.link is None else self._first_name(place, entry)
        if entry.kind != "file" or further:
            self._others.append(_Other(place, entry, first, replace=found is not None, further=further))
            return None
        old = identity_of(found) if found is not None and stat.S_ISREG(found.st_mode) else None
        job = Job(path, entry, place, first, replace=found is not None, old=old)
        if entry.size == 0:
            self._empty.append(job)
            return None
        room = room_for(entry, found)
        if self._is_begun and room > RESUMED_FROM:
            # How large everything is was said beforehand, by who wrote it: no disk is filled for hours on his word.
            self._check_space(room)
        self.planned_bytes += room
        self.jobs.append(job)
        return job

    def begin(self, room: int | None = None) -> None:
        """Make the target and what was planned of its folders, closed to others until they are complete.

        Folders that are planned from now on are made at once. ``room`` is how many bytes the whole restore takes, if
        more than what was planned so far.

        Raises:
            SpaceError: they do not fit; nothing was written.
            RestoreError: a folder cannot be made.
        """
        self._check_space(self.planned_bytes if room is None else room)
        try:
            self._target.make_top()
        except OSError as error:
            self._raise_if_full(error)
            raise RestoreError(f"{self._target.shown()} cannot be made: {error.strerror}") from error
        for place in self._folders:
            self._make(place)
        self._is_begun = True

    def top(self) -> int:
        """Return the descriptor of the target, valid until the next call; once the restore has begun."""
        return self._target.fd(self._target.top)

    def is_new(self, job: Job) -> bool:
        """Return whether nothing of a file can be there already, so that :meth:`reuse` has nothing to find."""
        return job.old is None and job.identity is None and not self._resumable_name(job)

    def reuse(self, job: Job, wanted: Sequence[Part], same: Callable[[bytes, memoryview], bool]) -> list[Part]:
        """Take over what is right already: in what an earlier run left unfinished, or in the file to be replaced.

        ``wanted`` are (offset, chunk) in order, all of the file or a part that follows on the last one; ``same`` says
        whether bytes are those of a chunk's id. Returns what is still to be written. A file of which all is right stays
        and only gets its metadata.
        """
        before = job.written.total
        try:
            if job.identity is None:
                job.resumed = self._find_unfinished(job)
            if job.resumed:
                for offset, ref in _alike_parts(self._file(job), wanted, same):
                    job.written.add(offset, offset + ref.length)
            elif job.old is not None:
                self._reuse_old(job, wanted, same)
            self._reused_bytes += job.written.total - before
            if job.written.total == job.size and not job.done:
                self._complete(job)
        except (OSError, RestoreError) as error:
            self._fail(job, error)
        if job.done:
            return []
        return [part for part in wanted if not job.written.has(part[0], part[0] + part[1].length)]

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
            if self.is_whole(job, len(data)):
                folder = self._target.fd(job.place)
                made = make_whole(folder, job.entry, data, self._metadata, identify=job.first is not None)
                if made is not None:
                    self.made(job, made.identity, made.problems)
                    return
                self.no_unnamed()
            write_part(self._file(job), job.entry.holes, offset, data)
            if data:
                job.written.add(offset, end)
            if job.written.total == job.size:
                self._complete(job)
        except (OSError, RestoreError) as error:
            self._fail(job, error)

    # Files that another process writes: it is given descriptors, and what became of it is told here.

    def is_whole(self, job: Job, length: int) -> bool:
        """Return whether so many bytes are a new file's all, which :func:`make_whole` may make in one step."""
        return length == job.size and not job.replace and job.identity is None and self._has_unnamed

    def folder_of(self, job: Job) -> int | None:
        """Return the descriptor of the folder that a new file belongs in, valid until the next call.

        It is None if the file is given up: the folder is not what it was.
        """
        return self._descriptor(job, lambda: self._target.fd(job.place))

    def file_of(self, job: Job) -> int | None:
        """Return the descriptor of an unfinished file, valid until the next call; None if the file is given up."""
        return self._descriptor(job, lambda: self._file(job))

    def made(self, job: Job, identity: Identity | None = None, problems: Iterable[str] = ()) -> None:
        """Take note of a file that was made in one step and has its name; ``problems``: what was not set of it."""
        job.identity = identity
        for problem in problems:
            self._gap(job.place, job.entry, problem)
        self._completed(job)

    def no_unnamed(self) -> None:
        """Take note that files cannot be made in one step here."""
        self._has_unnamed = False

    def wrote(self, job: Job, offset: int, end: int) -> None:
        """Take note of a part that was written; the last one gives the file its name.

        Raises:
            SpaceError: the disk is full.
        """
        if not job.done:
            try:
                job.written.add(offset, end)
                if job.written.total == job.size:
                    self._complete(job)
            except (OSError, RestoreError) as error:
                self._fail(job, error)

    def failed(self, job: Job, error: OSError) -> None:
        """Take note that a file could not be written: it becomes a gap.

        Raises:
            SpaceError: the disk is full.
        """
        if not job.done:
            self._fail(job, error)

    def take(self) -> Planned:
        """Return what was planned since the last time, but for jobs of which more will be asked for.

        So the next part of the tree may be planned before this one is settled.
        """
        later = [job for job in self.jobs if job.more and not job.done]
        jobs = [job for job in self.jobs if not job.more]
        planned = Planned(jobs, self._empty, self._others, self._kept, self._left)
        self.jobs, self._empty, self._others, self._kept, self._left = later, [], [], [], []
        return planned

    def skip(self, folders: int, files: int) -> None:
        """Take note of what was found to be as it was, elsewhere: it was not added."""
        self.counts.folders += folders
        self.counts.kept += files

    def settle(self, planned: Planned | None = None) -> None:
        """Finish what was planned, all since the last time by default: what is not whole by now is a gap.

        Folders that the tree has left get their metadata; nothing of them is remembered any more.

        Raises:
            SpaceError: the disk is full.
        """
        planned = planned or self.take()
        for job in planned.empty:
            self.write(job, 0, b"")
        for job in planned.jobs:
            if not job.done:
                self._gap(job.place, job.entry, INCOMPLETE)
                self._drop(job)
        for other in planned.others:  # in tree order: a further name comes after the first
            with self._naming(other.place, other.entry):
                (self._make_further if other.further else self._make_other)(other)
        for place, entry, identity in planned.kept:
            with self._naming(place, entry):
                self._freshen(place, entry, identity)
        for place in planned.left:
            assert place.entry is not None
            if os.geteuid() and place.entry.mode & stat.S_IRWXU != stat.S_IRWXU:
                self._last.append(place)  # further names of files in it may still be made, for which it has to be open
            else:
                self._finish_folder(place)

    def finish(self) -> Applied:
        """Make what is left, set the folders' metadata from below, and tell what became of it all.

        Raises:
            SpaceError: the disk is full.
        """
        while len(self._stack) > 1:
            self._leave(self._stack.pop())
        self.settle()
        for place in self._last:
            self._finish_folder(place)
        self._target.close()
        return Applied(
            counts=self.counts,
            removed=self._removed,
            reused_bytes=self._reused_bytes,
            gaps=self._gaps.named,
            reasons=dict(self._gaps.by_reason),
            unset=self._unset,
        )

    def abort(self) -> None:
        """Remove unfinished files, but keep those that a later run may go on with; complete files stay.

        Opened-up folders get their mode back.
        """
        for job in list(self._begun):
            self._drop(job, keep=self._is_resumable(job))
        for place in reversed(self._folders):
            if place.old_mode is not None:
                with suppress(OSError, RestoreError):
                    os.fchmod(self._target.fd(place), place.old_mode)
        self._target.close()

    # -- planning --

    def _is_set(self, place: Place, entry: Entry, found: os.stat_result) -> bool:
        """Return whether a file that may stay is known to have its metadata, without the cost of setting it again."""
        if entry.kind != "file" or not self._metadata.is_like(found, entry):
            return False
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(entry.name, flags, dir_fd=self._target.fd(place))
        except OSError:
            return False
        try:
            return self._metadata.is_bare(fd)
        finally:
            os.close(fd)

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

    def _leave(self, place: Place) -> None:
        self._left.append(place)

    def _check_space(self, room: int) -> None:
        free = self.free()
        if room > free:
            raise SpaceError(
                f"{self._target.shown()}: {room} bytes are to be restored, {free} are free",
                hint="choose a target with more room, or restore a part",
            )

    # -- folders --

    def _make(self, place: Place) -> None:
        try:
            self._make_folder(place)
        except OSError as error:
            self._raise_if_full(error)
            raise RestoreError(f"{place.shown()} cannot be made: {error.strerror}") from error

    def _make_folder(self, place: Place) -> None:
        assert place.parent is not None
        name = place.path[-1]
        if place.identity is None:
            outer = self._target.fd(place.parent)
            if place.replace:
                os.unlink(name, dir_fd=outer)
            os.mkdir(name, 0o700, dir_fd=outer)
            place.is_new = True
            self._target.fd(place)
        else:
            inner = self._target.fd(place)
            status = os.fstat(inner)
            if status.st_uid == os.geteuid() and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                place.old_mode = stat.S_IMODE(status.st_mode)
                os.fchmod(inner, place.old_mode | stat.S_IRWXU)
        self.counts.folders += 1

    def _finish_folder(self, place: Place) -> None:
        assert place.parent is not None
        assert place.entry is not None
        for extra in self._extras.pop(place.path, ()):
            try:
                self._remove(place, extra)
            except (OSError, RestoreError) as error:
                reason = os.strerror(error.errno or errno.EIO) if isinstance(error, OSError) else NOT_OURS
                self._gaps.add(extra.path, f"{NOT_REMOVED} ({reason})")
        with self._naming(place.parent, place.entry):
            fd = self._target.fd(place)
            if not (self._metadata.is_like(os.fstat(fd), place.entry) and self._metadata.is_bare(fd)):
                self._set_metadata(place.parent, place.entry, fd)
        self._folders.pop(place, None)

    def _remove(self, place: Place, extra: Extra) -> None:
        """Remove what a survey has named, if it is still that."""
        folder = self._target.fd(place)
        if identity_of(os.stat(extra.name, dir_fd=folder, follow_symlinks=False)) != extra.identity:
            raise RestoreError(f"{place.shown(extra.name)} {NOT_OURS}")
        if extra.is_folder:
            _remove_tree(folder, extra.name, extra.identity[0])
        else:
            os.unlink(extra.name, dir_fd=folder)
        self._removed.append(extra.path)

    # -- files --

    def _file(self, job: Job) -> int:
        """Return the descriptor of a job's temporary file, valid until the next call."""
        fd = self._open.get(job)
        if fd is not None:
            self._open.move_to_end(job)
            return fd
        outer = self._target.fd(job.place)
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC  # to be read where an earlier run began it
        if job.identity is None:
            job.temporary = self._resumable_name(job) or self._temporary_name()
            try:
                fd = os.open(job.temporary, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=outer)
            except FileExistsError:  # left by an earlier run, and of no use
                job.temporary = self._temporary_name()
                fd = os.open(job.temporary, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=outer)
            self._open[job] = fd
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

    def _descriptor(self, job: Job, find: Callable[[], int]) -> int | None:
        try:
            return find()
        except (OSError, RestoreError) as error:
            self._fail(job, error)
            return None

    def _complete(self, job: Job) -> None:
        fd = self._file(job)
        self._set_metadata(job.place, job.entry, fd)
        self._publish(job.place, job.temporary, job.entry.name, replace=job.replace)
        del self._begun[job]
        os.close(self._open.pop(job))
        self._completed(job)

    def _completed(self, job: Job) -> None:
        job.done = True
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
                if error.errno not in NO_LINKS_HERE:
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

    def _drop(self, job: Job, *, keep: bool = False) -> None:
        """Give a job up and remove its temporary file, if we still can, unless it is to be kept."""
        job.done = True
        fd = self._open.pop(job, None)
        if fd is not None:
            os.close(fd)
        if job in self._begun:
            del self._begun[job]
            if not keep:
                with suppress(OSError, RestoreError):
                    os.unlink(job.temporary, dir_fd=self._target.fd(job.place))

    # -- what is there already --

    def _is_resumable(self, job: Job) -> bool:
        return bool(self._resumable_name(job)) and job.temporary == self._resumable_name(job)

    def _resumable_name(self, job: Job) -> bytes:
        """Return the name under which another run finds what it needs again; empty for small files."""
        if self._resume_key is None or job.size < RESUMED_FROM:
            return b""
        what = b"".join([*[ref.id for ref in job.content.chunks], b"/".join(job.path)])
        return PREFIX + blake3(what, key=self._resume_key).hexdigest(16).encode()

    def _find_unfinished(self, job: Job) -> bool:
        """Take over what an earlier run left of a file, if there is something."""
        name = self._resumable_name(job)
        if not name:
            return False
        try:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=self._target.fd(job.place))
        except OSError:
            return False
        status = os.fstat(fd)
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
        if not ours or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            os.close(fd)
            return False
        job.temporary, job.identity = name, identity_of(status)
        self._open[job] = fd
        self._begun[job] = None
        os.ftruncate(fd, job.size)
        return True

    def _reuse_old(self, job: Job, wanted: Sequence[Part], same: Callable[[bytes, memoryview], bool]) -> None:
        """Begin a file with what it has in common with the one it replaces."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            old = os.open(job.entry.name, flags, dir_fd=self._target.fd(job.place))
        except OSError:
            return  # unreadable: then nothing of it is of use
        try:
            status = os.fstat(old)
            if identity_of(status) != job.old or not stat.S_ISREG(status.st_mode):
                return
            common = list(_alike_parts(old, wanted, same))
            total = sum(ref.length for _, ref in common)
            if total == job.size == status.st_size and status.st_nlink == 1 and job.first is None:
                self._kept.append((job.place, job.entry, identity_of(status)))
                self._reused_bytes += total
                job.done = True
            elif common:
                first = job.identity is None
                new = self._file(job)
                if first:
                    job.shared = _share_blocks(old, new, job.size)
                for offset, ref in common:
                    if not job.shared:
                        _copy(old, new, job.entry, offset, ref.length)
                    job.written.add(offset, offset + ref.length)
        finally:
            os.close(old)

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
            raise SpaceError(
                f"{self._target.shown()}: the disk is full",
                hint="what has its name is whole: make room, then go on with --overwrite if-changed",
            ) from error

    def _gap(self, place: Place, entry: Entry, reason: str) -> None:
        beyond = reason in BEYOND_A_USER and not self._metadata.rights.privileged
        (self._unset if beyond else self._gaps).add(b"/".join((*place.path, entry.name)), reason)


def _alike(one: Entry, other: Entry) -> bool:
    """Return whether two names can be those of one inode."""
    return (one.kind, one.size, one.content, one.target, one.rdev) == (
        other.kind,
        other.size,
        other.content,
        other.target,
        other.rdev,
    )


def _alike_parts(fd: int, wanted: Sequence[Part], same: Callable[[bytes, memoryview], bool]) -> Iterator[Part]:
    """Yield the parts that a file has, at their places."""
    size = os.fstat(fd).st_size
    with memoryview(bytearray(max((ref.length for _, ref in wanted), default=0))) as buffer:
        for offset, ref in wanted:
            if offset + ref.length > size:
                break  # in order: what follows lies further on
            with buffer[: ref.length] as view:
                if _read_all(fd, view, offset) and same(ref.id, view):
                    yield offset, ref


def _read_all(fd: int, view: memoryview, offset: int) -> bool:
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if not count:
            return False
        done += count
    return True


def _share_blocks(old: int, new: int, size: int) -> bool:
    """Let a new file have the blocks of an old one, where the file system can (btrfs, XFS); they differ when written.

    Then neither time nor room is spent on what both have in common.
    """
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError:
        return False
    os.ftruncate(new, size)
    return True


def _copy(old: int, new: int, entry: Entry, offset: int, length: int) -> None:
    """Copy a part within the kernel, but for what lies in holes."""
    end = offset + length
    for hole in entry.holes:
        if hole.offset >= end:
            break
        if hole.offset + hole.length > offset:
            _copy_range(old, new, offset, max(offset, hole.offset))
            offset = min(end, hole.offset + hole.length)
    _copy_range(old, new, offset, end)


def _copy_range(old: int, new: int, start: int, end: int) -> None:
    while start < end:
        count = os.copy_file_range(old, new, end - start, start, start)
        if not count:
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # it became shorter under our hands
        start += count


def _remove_tree(outer: int, name: bytes, device: int, depth: int = 0) -> None:
    """Remove a folder and what is in it, through descriptors, and nothing on another file system."""
    if depth > MOST_NESTED:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
    try:
        if os.fstat(fd).st_dev != device:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        with os.scandir(fd) as found:
            inner = [(os.fsencode(one.name), one.is_dir(follow_symlinks=False)) for one in found]
        for one, is_folder in inner:
            if is_folder:
                _remove_tree(fd, one, device, depth + 1)
            else:
                os.unlink(one, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=outer)
