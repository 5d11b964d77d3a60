"""From folders to a tree of chunks, without reading what has not changed."""

import grp
import os
import pwd
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from chunker import Chunker, chunks
from replicator.errors import FormatError, UsageError
from replicator.format.pack import CHUNK_DATA
from replicator.format.snapshot import ChunkList, ChunkRef, RootFolder
from replicator.format.tree import Entry, HardLink, Hole, Kind, Xattr
from replicator.snapshot.chunklist import EMPTY, ListBuilder, batches
from replicator.snapshot.exclude import Excludes
from replicator.snapshot.folder import FolderBuilder
from replicator.snapshot.gaps import Gap, Gaps
from replicator.snapshot.sink import ChunkSink
from replicator.snapshot.statcache import Cached, Content, Stamp, StatCache, StatCacheWriter
from replicator.snapshot.tree import MAX_NAME, MAX_TARGET, MAX_XATTR_VALUE
from replicator.snapshot.walk import (
    VANISHED,
    Entered,
    Folder,
    Found,
    Left,
    Missed,
    OpenFile,
    Skipped,
    Source,
    Status,
    Walker,
    reason_of,
)

READS: Final = 3
"""How often a file that changes under the reader is read before it is taken as it is."""
MAX_HOLES: Final = 4096
"""Holes kept per file, the largest ones; the others are restored as zeros."""
MAX_XATTRS: Final = 1 << 20
"""Bytes of extended attributes kept per entry."""
MAX_LINKS: Final = 100_000
"""Files with further names remembered at once; the names of others are read again."""
BUFFER: Final = 8 << 20
_INODE_BITS: Final = (1 << 62) - 1  # the most a record's count holds; links also agree in content to be links

CHANGED: Final = "changed while it was read; what was read last is kept"
NO_LONGER_FILE: Final = "became something else while it was captured"
UNLISTED_XATTRS: Final = "extended attributes missing: "
LARGE_XATTRS: Final = "extended attributes missing: more than 1 MiB of them"
LONG_TARGET: Final = "a symbolic link with an improper target"

_KINDS: Final[dict[int, Kind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


@dataclass(slots=True)
class Counts:
    """What a capture saw; grows while it runs.

    ``bytes`` is the content of all files, ``bytes_read`` what had to be read for it (again, if a file changed).
    ``files`` counts names of regular files, ``unchanged`` those of them that were not read. ``gaps`` counts
    all gaps, also those that are not named.
    """

    files: int = 0
    folders: int = 0
    others: int = 0
    unchanged: int = 0
    bytes: int = 0
    bytes_read: int = 0
    gaps: int = 0


class Progress(Protocol):
    """Told after every entry and every chunk."""

    def __call__(self, counts: Counts, path: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A captured tree, not yet a snapshot.

    ``gaps`` are what could not be saved as it was, ``skipped`` what was left out by rule (sockets, other file
    systems); of both the first ten thousand.
    """

    tree: ChunkList
    roots: list[RootFolder]
    counts: Counts
    gaps: list[Gap]
    skipped: list[Gap]


def capture(
    roots: Sequence[bytes | str],
    *,
    sink: ChunkSink,
    chunker: Chunker,
    source: Source,
    cache: StatCache | None = None,
    record: StatCacheWriter | None = None,
    exclude: Sequence[bytes | str] = (),
    one_file_system: bool = False,
    progress: Progress | None = None,
) -> Captured:
    """Capture ``roots``, each under its own base name, into one tree.

    ``cache`` is the last generation, ``record`` the next; committing that is the caller's, once the snapshot
    is certain. A file or folder that cannot be read becomes a gap and the rest goes on.

    Raises:
        SourceError: a root cannot be read at all.
        UsageError: there is no root.
        Exception: whatever the sink raises.
    """
    if not roots:
        raise UsageError("nothing to back up: no path is given")
    folders = root_names([os.path.abspath(os.fsencode(root)) for root in roots])
    run = _Capture(sink, chunker, cache, record, progress)
    walker = Walker(source, Excludes(exclude), one_file_system=one_file_system)
    # Every root is looked at before the first byte is read: a missing disk is not worth hours of reading.
    for folder in folders:
        with closing(walker.walk(folder.path)) as events:
            next(events)
    for folder in sorted(folders, key=lambda folder: folder.name):
        run.root(walker, folder)
    return Captured(tree=run.finish(), roots=folders, counts=run.counts, gaps=run.gaps.named, skipped=run.skipped.named)


def root_names(paths: Sequence[bytes]) -> list[RootFolder]:
    """Give each absolute path its name in the tree: the base name, with ``-2``, ``-3``, ... where it is taken."""
    taken: set[bytes] = set()
    folders = []
    for path in paths:
        base = os.path.basename(path) or b"root"
        name, number = base, 1
        while name in taken:
            number += 1
            suffix = b"-%d" % number
            name = base[: MAX_NAME - len(suffix)] + suffix
        taken.add(name)
        folders.append(RootFolder(path=path, name=name))
    return folders


class _ReadError(Exception):
    """Reading the source failed; kept apart from whatever a sink raises."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Reader:
    """An open file that gives at most ``left`` more bytes, so that a file growing under the reader has an end."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self.left = 0

    def status(self) -> Status:
        try:
            return self._file.status()
        except OSError as error:
            raise _ReadError(error) from error

    def holes(self, status: Status) -> list[Hole]:
        if status.st_blocks * 512 >= status.st_size:
            return []
        try:
            return self._file.holes(status.st_size)
        except OSError as error:
            raise _ReadError(error) from error

    def readinto(self, buffer: memoryview, /) -> int:
        with buffer[: self.left] as room:
            if not room:
                return 0
            try:
                count = self._file.read_into(room)
            except OSError as error:
                raise _ReadError(error) from error
        self.left -= count
        return count

    def fill(self, buffer: memoryview) -> int:
        """Read until ``left`` is used up or the file ends; return how much was read."""
        filled = 0
        while count := self.readinto(buffer[filled:]):
            filled += count
        return filled


class _RecordingSink:
    """Passes chunks on and keeps the pieces of chunk lists for the next stat cache."""

    def __init__(self, sink: ChunkSink, record: StatCacheWriter | None) -> None:
        self._sink = sink
        self._record = record

    def put(self, kind: int, data: bytes | memoryview) -> ChunkRef:
        ref = self._sink.put(kind, data)
        if self._record is not None:
            self._record.record_piece(ref.id, bytes(data))
        return ref


class _CachedPieces:
    """The pieces of chunk lists that the last stat cache holds; what is read goes into the next one too."""

    def __init__(self, cache: StatCache, record: StatCacheWriter | None) -> None:
        self._cache = cache
        self._record = record

    def get(self, kind: int, ref: ChunkRef) -> bytes:  # noqa: ARG002 - only list pieces are asked for
        data = self._cache.list_piece(ref.id)
        if data is None:
            raise LookupError(ref.id.hex())
        if self._record is not None:
            self._record.record_piece(ref.id, data)
        return data


def _kept_holes(holes: Sequence[Hole], size: int) -> list[Hole]:
    """Return the largest holes within ``size``, apart and in order."""
    kept: list[Hole] = []
    end = -1
    for hole in holes:
        stop = min(hole.offset + hole.length, size)
        if end < hole.offset < stop:
            kept.append(Hole(offset=hole.offset, length=stop - hole.offset))
            end = stop
    if len(kept) > MAX_HOLES:
        kept = sorted(sorted(kept, key=lambda hole: -hole.length)[:MAX_HOLES], key=lambda hole: hole.offset)
    return kept


@dataclass(slots=True)
class _OpenFolder:
    """A folder whose entry waits for its content."""

    entry: Entry
    path: bytes
    builder: FolderBuilder


@dataclass(slots=True)
class _Linked:
    """A file with several names that was captured under one of them."""

    stamp: Stamp
    content: Content
    names_left: int


@dataclass(slots=True)
class _Owners:
    """Names of users and groups, each looked up once."""

    users: dict[int, str] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)

    def user(self, uid: int) -> str:
        name = self.users.get(uid)
        if name is None:
            name = self.users[uid] = _name(lambda: pwd.getpwuid(uid).pw_name)
        return name

    def group(self, gid: int) -> str:
        name = self.groups.get(gid)
        if name is None:
            name = self.groups[gid] = _name(lambda: grp.getgrgid(gid).gr_name)
        return name


def _name(look_up: Callable[[], str]) -> str:
    try:
        return look_up().encode("utf-8", "replace").decode()
    except (KeyError, OverflowError):  # nobody has this id, or the C library has no such id
        return ""


class _Capture:
    """One run over all roots."""

    def __init__(
        self,
        sink: ChunkSink,
        chunker: Chunker,
        cache: StatCache | None,
        record: StatCacheWriter | None,
        progress: Progress | None,
    ) -> None:
        self.counts = Counts()
        self.gaps = Gaps()
        self.skipped = Gaps()
        self._sink = sink
        self._pieces = _RecordingSink(sink, record)
        self._chunker = chunker
        self._cache = cache
        self._record = record
        self._progress = progress
        self._buffer = bytearray(BUFFER)
        self._owners = _Owners()
        self._devices: dict[int, int] = {}
        self._links: dict[tuple[int, int], _Linked] = {}
        self._top = FolderBuilder(sink)

    def root(self, walker: Walker, root: RootFolder) -> None:
        """Capture what lies at one root."""
        stack: list[_OpenFolder] = []
        for event in walker.walk(root.path):
            match event:
                case Entered():
                    stack.append(self._enter(event, root.name if not stack else event.name))
                case Left():
                    done = stack.pop()
                    entry = msgspec.structs.replace(done.entry, content=done.builder.finish())
                    self._add(stack, entry, done.path)
                case Found():
                    found = self._found(event, root.name if not stack else event.name)
                    if found is not None:
                        self._add(stack, found, event.path)
                case Missed():
                    self._gap(event.gap.path, event.gap.reason)
                case Skipped():
                    self.skipped.add(event.gap.path, event.gap.reason)

    def finish(self) -> ChunkList:
        """Return the content of the top directory."""
        return self._top.finish()

    def _add(self, stack: list[_OpenFolder], entry: Entry, path: bytes) -> None:
        (stack[-1].builder if stack else self._top).add(entry)
        self._tell(path)

    def _enter(self, event: Entered, name: bytes) -> _OpenFolder:
        self.counts.folders += 1
        xattrs = self._xattrs(event.folder, event.name, event.path)
        entry = self._entry("dir", name, event.status, xattrs=xattrs, content=EMPTY)
        return _OpenFolder(entry, event.path, FolderBuilder(self._sink))

    def _found(self, event: Found, name: bytes) -> Entry | None:
        status = event.status
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind == "file":
            return self._file(event, name)
        if kind is None:
            self._gap(event.path, f"of a kind that is not known here ({stat.S_IFMT(status.st_mode):o})")
            return None
        target = b""
        if kind == "link":
            try:
                target = event.folder.target(event.name)
            except OSError as error:
                self._gap(event.path, reason_of(error))
                return None
            if not 0 < len(target) <= MAX_TARGET:
                self._gap(event.path, LONG_TARGET)
                return None
        self.counts.others += 1
        xattrs = self._xattrs(event.folder, event.name, event.path)
        return self._entry(kind, name, status, xattrs=xattrs, target=target)

    def _file(self, event: Found, name: bytes) -> Entry | None:
        status = event.status
        stamp = Stamp.of(status)
        changed = False
        content = self._linked(status, stamp) or self._unchanged(event.path, stamp)
        if content is not None:
            self.counts.unchanged += 1
        else:
            read = self._read(event)
            if read is None:
                return None
            status, content, changed = read
            stamp = Stamp.of(status)
        if not changed:
            self._remember(event.path, status, Cached(stamp, content))
        self.counts.files += 1
        self.counts.bytes += content.chunks.length
        xattrs = self._xattrs(event.folder, event.name, event.path)
        return self._entry(
            "file", name, status, xattrs=xattrs, content=content.chunks, holes=content.holes, changed=changed
        )

    def _linked(self, status: Status, stamp: Stamp) -> Content | None:
        """Return the content of a file that was captured under another name."""
        linked = self._links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        return linked.content if linked is not None and linked.stamp == stamp else None

    def _remember(self, path: bytes, status: Status, cached: Cached) -> None:
        if self._record is not None:
            self._record.record(path, cached)
        if status.st_nlink < 2:
            return
        key = (status.st_dev, status.st_ino)
        linked = self._links.get(key)
        if linked is None or linked.stamp != cached.stamp:
            if len(self._links) < MAX_LINKS:
                self._links[key] = _Linked(cached.stamp, cached.content, status.st_nlink - 1)
        else:
            linked.names_left -= 1
            if linked.names_left == 0:
                del self._links[key]

    def _unchanged(self, path: bytes, stamp: Stamp) -> Content | None:
        """Return the content of a file that is as it was, if everything it needs is still stored."""
        if self._cache is None:
            return None
        cached = self._cache.lookup(path)
        if cached is None or cached.stamp != stamp:
            return None
        pieces = _CachedPieces(self._cache, self._record)
        try:
            if all(self._sink.known(batch) for batch in batches(cached.content.chunks, pieces)):
                return cached.content
        except (LookupError, FormatError):
            pass  # a piece of a long list is not in the cache or not as it was: read the file
        return None

    def _read(self, event: Found) -> tuple[Status, Content, bool] | None:
        """Read a file until it held still, at most :data:`READS` times; None if it cannot be read."""
        kept: tuple[Status, Content] | None = None
        for _ in range(READS):
            try:
                file = event.folder.open(event.name)
            except OSError as error:
                self._gap(event.path, reason_of(error))
                return None
            with closing(file):
                reader = _Reader(file)
                try:
                    before = reader.status()
                    if not stat.S_ISREG(before.st_mode):
                        self._gap(event.path, NO_LONGER_FILE)
                        return None
                    holes = reader.holes(before)
                    content, whole = self._store(reader, before.st_size, event.path)
                    after = reader.status()
                except _ReadError as failed:
                    self._gap(event.path, reason_of(failed.error))
                    return None
            kept = before, Content(chunks=content, holes=_kept_holes(holes, content.length))
            if whole and Stamp.of(before) == Stamp.of(after):
                return *kept, False
        assert kept is not None
        self._gap(event.path, CHANGED)
        return *kept, True

    def _store(self, reader: "_Reader", size: int, path: bytes) -> tuple[ChunkList, bool]:
        """Store the first ``size`` bytes; also return whether they are there and nothing is behind them."""
        refs = ListBuilder(self._pieces)
        reader.left = size
        with memoryview(self._buffer) as view:
            if size <= self._chunker.params.minimum:
                length = reader.fill(view)
                if length:
                    refs.add(self._put(view[:length], path))
            else:
                for chunk in chunks(reader, self._chunker, self._buffer):
                    refs.add(self._put(chunk, path))
            reader.left = 1
            behind = reader.fill(view)
        content = refs.finish()
        return content, content.length == size and not behind

    def _put(self, chunk: memoryview, path: bytes) -> ChunkRef:
        self.counts.bytes_read += len(chunk)
        ref = self._sink.put(CHUNK_DATA, chunk)
        self._tell(path)
        return ref

    def _xattrs(self, folder: Folder, name: bytes, path: bytes) -> list[Xattr]:
        try:
            found = folder.xattrs(name)
        except OSError as error:
            reason = reason_of(error)
            self._gap(path, UNLISTED_XATTRS + (reason if reason != VANISHED else "it vanished"))
            return []
        if sum(len(one.name) + len(one.value) for one in found) > MAX_XATTRS:
            self._gap(path, LARGE_XATTRS)
            return []
        return [one for one in found if len(one.value) <= MAX_XATTR_VALUE]

    def _entry(
        self,
        kind: Kind,
        name: bytes,
        status: Status,
        *,
        xattrs: list[Xattr],
        content: ChunkList | None = None,
        holes: Sequence[Hole] = (),
        target: bytes = b"",
        changed: bool = False,
    ) -> Entry:
        link = None
        if kind != "dir" and status.st_nlink > 1:
            # Numbered as they are met: the kernel's numbers differ after a reboot or in every btrfs snapshot.
            device = self._devices.setdefault(status.st_dev, len(self._devices))
            link = HardLink(device=device, inode=status.st_ino & _INODE_BITS)
        return Entry(
            name=name,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            user=self._owners.user(status.st_uid),
            group=self._owners.group(status.st_gid),
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            size=content.length if kind == "file" and content is not None else 0,
            content=content,
            target=target,
            rdev=status.st_rdev if kind in ("char", "block") else 0,
            link=link,
            xattrs=xattrs,
            holes=list(holes),
            changed=changed,
        )

    def _gap(self, path: bytes, reason: str) -> None:
        self.gaps.add(path, reason)
        self.counts.gaps = self.gaps.total

    def _tell(self, path: bytes) -> None:
        if self._progress is not None:
            self._progress(self.counts, path)
