"""From folders to a tree of chunks, without reading what has not changed.

The walk never waits for a file: reading is begun, and a directory is written when all that it holds is known. What
looks as it did in the last snapshot is kept, entry by entry, and a directory piece of nothing else is not even written
again (:class:`~replicator.snapshot.folder.FolderBuilder`).
"""

import grp
import os
import pwd
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from chunker import Chunker
from replicator.errors import FormatError, UsageError
from replicator.format.pack import CHUNK_DATA
from replicator.format.snapshot import ChunkList, ChunkRef, RootFolder
from replicator.format.tree import Entry, HardLink, Hole, Kind
from replicator.snapshot.chunklist import EMPTY, ListBuilder, batches
from replicator.snapshot.folder import FolderBuilder
from replicator.snapshot.gaps import Gap, Gaps
from replicator.snapshot.readfile import Attributes, Reader, ReadFile, read_attributes, read_file
from replicator.snapshot.rules import Rules
from replicator.snapshot.sink import ChunkPutter, ChunkSink
from replicator.snapshot.statcache import (
    CONTENT_SIZE,
    STAMP_SIZE,
    UNTRUSTED,
    KnownPiece,
    StatCache,
    StatCacheWriter,
    stamp_of,
)
from replicator.snapshot.stream import buffer_size, pieces
from replicator.snapshot.tree import MAX_NAME, MAX_TARGET
from replicator.snapshot.walk import (
    Entered,
    Folder,
    Found,
    Left,
    Missed,
    Run,
    Skipped,
    Source,
    Status,
    Walker,
    reason_of,
)

MAX_LINKS: Final = 100_000
"""Files with further names remembered at once; the names of others are read again."""
_INODE_BITS: Final = (1 << 62) - 1  # the most a record's count holds; links also agree in content to be links
_CONTENT_ONLY: Final = bytes(STAMP_SIZE - CONTENT_SIZE)  # behind the rest of a stamp: its metadata is to be read again

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

    ``gaps`` are what could not be saved as it was, ``skipped`` what was left out by rule (sockets, file systems,
    caches, large files; not what a pattern leaves out); of both the first ten thousand. ``skipped_by_reason`` counts
    all of the latter.
    """

    tree: ChunkList
    roots: list[RootFolder]
    counts: Counts
    gaps: list[Gap]
    skipped: list[Gap]
    skipped_by_reason: dict[str, int]


class FileReader(Protocol):
    """Reads files and stores their chunks, at once or while the walk goes on.

    ``done`` is called once for each :meth:`read`, in any order, on the calling thread, from within one of these
    methods. Errors of the sink are raised from any of them and end the capture.
    """

    def read(self, event: Found, done: Callable[[ReadFile], None]) -> None:
        """Begin to read a file; its folder is open only until this returns."""
        ...

    def poll(self) -> None:
        """Hand over what is done, without waiting."""
        ...

    def drain(self) -> None:
        """Wait until everything that was begun is done."""
        ...


Took = Callable[[int, bytes], None]
"""Told how many bytes of which file were read."""
MakeReader = Callable[[ChunkPutter, Took], FileReader]
"""Given where the pieces of long chunk lists go."""


def capture(
    roots: Sequence[bytes | str],
    *,
    sink: ChunkSink,
    source: Source,
    chunker: Chunker,
    reader: MakeReader | None = None,
    cache: StatCache | None = None,
    record: StatCacheWriter | None = None,
    rules: Rules | None = None,
    progress: Progress | None = None,
    owners: "Owners | None" = None,
) -> Captured:
    """Capture ``roots``, each under its own base name, into one tree.

    ``cache`` is the last generation, ``record`` the next; committing that is the caller's, once the snapshot
    is certain. Files are read by ``reader``, or one after the other on this thread and cut by ``chunker``. A file or
    folder that cannot be read becomes a gap and the rest goes on. Without ``rules`` those of a new dataset hold.
    ``owners`` says what users and groups were called where the tree comes from; without it they are called as here.

    Raises:
        SourceError: a root cannot be read at all.
        UsageError: there is no root, or a pattern means nothing.
        Exception: whatever the sink raises.
    """
    if not roots:
        raise UsageError("nothing to back up: no path is given")
    folders = root_names([os.path.abspath(os.fsencode(root)) for root in roots])
    run = _Capture(sink, chunker, reader, cache, record, progress, owners)
    walker = Walker(source, rules or Rules(), [folder.path for folder in folders])
    # Every root is looked at before the first byte is read: a missing disk is not worth hours of reading.
    for folder in folders:
        with closing(walker.walk(folder.path)) as events:
            next(events)
    for folder in sorted(folders, key=lambda folder: folder.name):
        run.root(walker, folder)
    return Captured(
        tree=run.finish(),
        roots=folders,
        counts=run.counts,
        gaps=run.gaps.named,
        skipped=run.skipped.named,
        skipped_by_reason=dict(run.skipped.by_reason),
    )


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


class _RecordingSink:
    """Passes chunks on and keeps the pieces of chunk lists for the next stat cache."""

    def __init__(self, sink: ChunkPutter, record: StatCacheWriter | None) -> None:
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


class InlineReader:
    """Reads each file at once, on the thread of the walk."""

    def __init__(self, sink: ChunkPutter, lists: ChunkPutter, chunker: Chunker, took: Took) -> None:
        self._sink = sink
        self._lists = lists
        self._chunker = chunker
        self._took = took
        self._buffer = bytearray(buffer_size(chunker.params))
        self._zeros = bytes(chunker.params.maximum)
        self._path = b""
        self._refs = ListBuilder(lists)

    def read(self, event: Found, done: Callable[[ReadFile], None]) -> None:
        """Read the file."""
        self._path = event.path
        found = read_file(event.folder, event.name, self)
        done(found if found.status is None else found._replace(content=self._refs.finish()))

    def poll(self) -> None:
        """Nothing is ever left."""

    def drain(self) -> None:
        """Nothing is ever left."""

    def begin(self) -> None:
        """Begin with the first byte of the file."""
        self._refs = ListBuilder(self._lists)

    def take(self, reader: Reader, size: int, holes: Sequence[Hole]) -> int:
        """Cut and store."""
        if size <= self._chunker.params.minimum:
            with memoryview(self._buffer) as view:
                length = reader.fill(view)
                if length:
                    self._put(view[:length])
        else:
            for piece in pieces(reader, holes, self._chunker, lambda: self._buffer):
                start = 0
                for end in piece.ends:
                    self._put(piece.view[start:end])
                    start = end
                if piece.zeros:  # not read, and stored once
                    zeros = self._sink.put(CHUNK_DATA, self._zeros)
                    for _ in range(piece.zeros):
                        self._refs.add(zeros)
        return self._refs.length

    def _put(self, chunk: memoryview) -> None:
        self._refs.add(self._sink.put(CHUNK_DATA, chunk))
        self._took(len(chunk), self._path)


class _KnownFolder:
    """A directory as it was in the last snapshot, asked for its names in order."""

    __slots__ = ("_pieces", "_place", "piece")

    def __init__(self, pieces: Iterator[KnownPiece]) -> None:
        self._pieces = pieces
        self._place = 0
        self.piece = next(pieces, None)

    def find(self, name: bytes) -> int:
        """Return the place of a name in :attr:`piece`, -1 if it was not there. Names are asked for in rising order."""
        while self.piece is not None:
            entries = self.piece.entries
            for place in range(self._place, len(entries)):
                found = entries[place].name
                if found >= name:
                    self._place = place
                    return place if found == name else -1
            self.piece = next(self._pieces, None)
            self._place = 0
        return -1

    def take(self, place: int, count: int) -> None:
        """Go on behind so many names of :attr:`piece`, which need not be asked for."""
        self._place = place + count


@dataclass(slots=True)
class _Open:
    """A folder that is being walked or waits for its files. ``slot`` is its place in the folder around it."""

    path: bytes
    builder: FolderBuilder
    known: _KnownFolder
    slot: "_Slot | None"
    waiting: "deque[_Slot]" = field(default_factory=deque)
    """Entries in order, the first of which is not known yet."""
    left: bool = False


@dataclass(slots=True)
class _Slot:
    """The place of an entry in its folder, until all before it are known."""

    around: _Open
    entry: Entry | None = None
    """None is a name that came to nothing."""
    stamp: bytes = UNTRUSTED
    piece: KnownPiece | None = None
    """Where the entry was in the last snapshot, if it may be kept as it was there."""
    place: int = 0
    ready: bool = False


@dataclass(slots=True)
class _Linked:
    """A file with several names that was captured under one of them, or is being read (``content`` is None)."""

    stamp: bytes
    content: ChunkList | None
    holes: list[Hole]
    names_left: int


@dataclass(slots=True)
class Owners:
    """Names of users and groups, each looked up once on this machine if it is not given."""

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
        reader: MakeReader | None,
        cache: StatCache | None,
        record: StatCacheWriter | None,
        progress: Progress | None,
        owners: "Owners | None",
    ) -> None:
        self.counts = Counts()
        self.gaps = Gaps()
        self.skipped = Gaps()
        self._sink = sink
        self._cache = cache
        self._record = record
        self._progress = progress
        lists = _RecordingSink(sink, record)
        self._reader: FileReader = (
            InlineReader(sink, lists, chunker, self._took) if reader is None else reader(lists, self._took)
        )
        self._owners = owners or Owners()
        self._devices: dict[int, int] = {}
        self._links: dict[tuple[int, int], _Linked] = {}
        self._top = self._opened(b"", None)

    def root(self, walker: Walker, root: RootFolder) -> None:
        """Capture what lies at one root."""
        stack = [self._top]
        for event in walker.walk(root.path):
            match event:
                case Run():
                    self._run(stack[-1], event)
                case Found():
                    self._found(stack[-1], event, root.name, stamp_of(event.status))
                case Entered():
                    stack.append(self._enter(stack[-1], event, event.name if len(stack) > 1 else root.name))
                case Left():
                    folder = stack.pop()
                    folder.left = True
                    self._advance(folder)
                    self._reader.poll()
                case Missed():
                    self._gap(event.gap.path, event.gap.reason)
                case Skipped():
                    self.skipped.add(event.gap.path, event.gap.reason)

    def finish(self) -> ChunkList:
        """Wait for all files and return the content of the top directory."""
        self._reader.drain()
        assert not self._top.waiting, "every file that was begun is done"
        return self._top.builder.finish()

    # folders

    def _opened(self, path: bytes, slot: _Slot | None) -> _Open:
        rows = None if self._record is None else self._record.folder(path)
        pieces = iter(()) if self._cache is None else self._cache.pieces(path)
        return _Open(path, FolderBuilder(self._sink, rows), _KnownFolder(pieces), slot)

    def _enter(self, around: _Open, event: Entered, name: bytes) -> _Open:
        self.counts.folders += 1
        status = event.status
        stamp = stamp_of(status)
        slot = _Slot(around)
        around.waiting.append(slot)
        place = around.known.find(name)
        if place >= 0:
            piece = around.known.piece
            assert piece is not None, "it was found there"
            known = piece.entries[place]
            if piece.stamp(place) == stamp and self._same_owner(known, status) and known.kind == "dir":
                slot.entry, slot.stamp, slot.piece, slot.place = known, stamp, piece, place
                return self._opened(event.path, slot)
        attributes = self._attributes(event.folder, event.name, event.path)
        slot.entry = self._entry("dir", name, status, attributes, content=EMPTY)
        slot.stamp = self._trusted(stamp, status, attributes)
        return self._opened(event.path, slot)

    def _advance(self, folder: _Open) -> None:
        """Write what is known of a folder; if that is all, the same for the one around it, and so on."""
        while True:
            waiting = folder.waiting
            while waiting and waiting[0].ready:
                self._write(folder, waiting.popleft())
            slot = folder.slot
            if waiting or not folder.left or slot is None:
                return
            content = folder.builder.finish()
            entry = slot.entry
            assert entry is not None, "a folder has an entry"
            if entry.content != content:
                slot.entry = msgspec.structs.replace(entry, content=content)
                slot.piece = None
            slot.ready = True
            self._tell(folder.path)
            folder = slot.around

    def _write(self, folder: _Open, slot: _Slot) -> None:
        if slot.piece is not None:
            folder.builder.keep(slot.piece, slot.place)
        elif slot.entry is not None:
            folder.builder.add(slot.entry, slot.stamp)

    # what is in them

    def _run(self, folder: _Open, run: Run) -> None:
        """Capture neighbours: together where they are what they were, else one by one."""
        stamps = b"".join(map(stamp_of, run.statuses))
        place = 0
        while place < len(run.names):
            kept = self._keep_run(folder, run, stamps, place)
            if not kept:
                found = run.found(place)
                self._found(folder, found, found.name, stamps[place * STAMP_SIZE : (place + 1) * STAMP_SIZE])
            place += kept or 1

    def _keep_run(self, folder: _Open, run: Run, stamps: bytes, start: int) -> int:
        """Take over, from a place on, those that look in all as they did; return how many.

        Does for many what :meth:`_found` and :meth:`_keep` do for one, and only in the plainest case, which most files
        of most nights are; 0 leaves everything as it is.
        """
        known = folder.known
        place = known.find(run.names[start])
        if place < 0:
            return 0
        piece = known.piece
        assert piece is not None, "it was found there"
        alike = piece.alike(place, run.names[start:], stamps[start * STAMP_SIZE :])
        refs: list[ChunkRef] = []
        count = files = size = 0
        for entry, status in zip(
            piece.entries[place : place + alike], run.statuses[start : start + alike], strict=True
        ):
            if status.st_nlink > 1 or not self._same_owner(entry, status):
                break
            if entry.kind == "file":
                content = entry.content
                if content is None or content.depth:
                    break
                refs += content.chunks
                files += 1
                size += entry.size
            count += 1
        if not count or not self._sink.known(refs):
            return 0
        known.take(place, count)
        self.counts.unchanged += files
        self.counts.files += files
        self.counts.bytes += size
        self.counts.others += count - files
        if folder.waiting:
            folder.waiting.extend(
                _Slot(folder, entry, piece=piece, place=place + number, ready=True)
                for number, entry in enumerate(piece.entries[place : place + count])
            )
        else:
            folder.builder.keep(piece, place, count)
        self._tell(run.prefix + run.names[start])
        return count

    def _found(self, folder: _Open, event: Found, name: bytes, stamp: bytes) -> None:
        status = event.status
        place = folder.known.find(name)
        piece = folder.known.piece if place >= 0 else None
        if piece is not None:
            known = piece.entries[place]
            if (
                piece.stamp(place) == stamp
                and self._same_owner(known, status)
                and (status.st_nlink < 2 or known.link == self._link(status))
                and (known.kind != "file" or self._relied(known.content))
            ):
                self._keep(folder, piece, place, known, event)
                return
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind == "file":
            self._file(folder, event, name, stamp, piece, place)
        elif kind is None:
            self._gap(event.path, f"of a kind that is not known here ({stat.S_IFMT(status.st_mode):o})")
        else:
            self._other(folder, event, name, kind, stamp)

    def _keep(self, folder: _Open, piece: KnownPiece, place: int, known: Entry, event: Found) -> None:
        """Take over an entry that looks in all as it did."""
        if known.kind == "file":
            self.counts.unchanged += 1
            self.counts.files += 1
            self.counts.bytes += known.size
            if known.link is not None and known.content is not None:
                self._remember(event.status, known.content, known.holes)
        else:
            self.counts.others += 1
        if folder.waiting:
            folder.waiting.append(_Slot(folder, known, piece=piece, place=place, ready=True))
        else:
            folder.builder.keep(piece, place)
        self._tell(event.path)

    def _other(self, folder: _Open, event: Found, name: bytes, kind: Kind, stamp: bytes) -> None:
        target = b""
        if kind == "link":
            try:
                target = event.folder.target(event.name)
            except OSError as error:
                self._gap(event.path, reason_of(error))
                return
            if not 0 < len(target) <= MAX_TARGET:
                self._gap(event.path, LONG_TARGET)
                return
        self.counts.others += 1
        attributes = self._attributes(event.folder, event.name, event.path)
        entry = self._entry(kind, name, event.status, attributes, target=target)
        self._add(folder, event.path, entry, self._trusted(stamp, event.status, attributes))

    def _file(
        self, folder: _Open, event: Found, name: bytes, stamp: bytes, piece: KnownPiece | None, place: int
    ) -> None:
        status = event.status
        content: tuple[ChunkList, list[Hole]] | None = None
        if status.st_nlink > 1:
            content = self._linked(status, stamp)
        if content is None and piece is not None and piece.stamp(place)[:CONTENT_SIZE] == stamp[:CONTENT_SIZE]:
            known = piece.entries[place]
            if known.kind == "file" and known.content is not None and self._relied(known.content):
                content = known.content, known.holes
        if content is None:
            self._read(folder, event, name)
            return
        self.counts.unchanged += 1
        self._remember(status, *content)
        attributes = self._attributes(event.folder, event.name, event.path)
        entry = self._entry("file", name, status, attributes, content=content[0], holes=content[1])
        self._count(entry)
        self._add(folder, event.path, entry, self._trusted(stamp, status, attributes))

    def _read(self, folder: _Open, event: Found, name: bytes) -> None:
        slot = _Slot(folder)
        folder.waiting.append(slot)
        path, key = event.path, (event.status.st_dev, event.status.st_ino)
        if event.status.st_nlink > 1 and key not in self._links and len(self._links) < MAX_LINKS:
            self._links[key] = _Linked(b"", None, [], event.status.st_nlink)

        def done(found: ReadFile) -> None:
            if key in self._links and self._links[key].content is None:
                del self._links[key]
            if found.gap:
                self._gap(path, found.gap)
            if found.status is not None:
                if found.attributes.gap:
                    self._gap(path, found.attributes.gap)
                entry = self._entry(
                    "file",
                    name,
                    found.status,
                    found.attributes,
                    content=found.content,
                    holes=found.holes,
                    changed=found.changed,
                )
                self._count(entry)
                slot.entry = entry
                if not found.changed:
                    slot.stamp = self._trusted(stamp_of(found.status), found.status, found.attributes)
                    self._remember(found.status, found.content, found.holes)
                self._tell(path)
            slot.ready = True
            self._advance(folder)

        self._reader.read(event, done)

    def _add(self, folder: _Open, path: bytes, entry: Entry, stamp: bytes) -> None:
        if folder.waiting:
            folder.waiting.append(_Slot(folder, entry, stamp, ready=True))
        else:
            folder.builder.add(entry, stamp)
        self._tell(path)

    def _linked(self, status: Status, stamp: bytes) -> tuple[ChunkList, list[Hole]] | None:
        """Return the content of a file that was captured under another name."""
        key = (status.st_dev, status.st_ino)
        linked = self._links.get(key)
        if linked is not None and linked.content is None:
            self._reader.drain()  # it is being read under its other name
            linked = self._links.get(key)
        if linked is None or linked.content is None or linked.stamp != stamp[:CONTENT_SIZE]:
            return None
        return linked.content, linked.holes

    def _remember(self, status: Status, content: ChunkList, holes: list[Hole]) -> None:
        """Keep the content of a file with further names until the last of them."""
        if status.st_nlink < 2:
            return
        key, stamp = (status.st_dev, status.st_ino), stamp_of(status)[:CONTENT_SIZE]
        linked = self._links.get(key)
        if linked is None or linked.stamp != stamp:
            if len(self._links) < MAX_LINKS:
                self._links[key] = _Linked(stamp, content, holes, status.st_nlink - 1)
        else:
            linked.names_left -= 1
            if linked.names_left == 0:
                del self._links[key]

    def _relied(self, content: ChunkList | None) -> bool:
        """Return whether all that a known content needs is still stored; if so the snapshot relies on it."""
        if content is None or self._cache is None:
            return False
        if not content.depth:
            return self._sink.known(content.chunks)
        try:
            pieces = _CachedPieces(self._cache, self._record)
            return all(self._sink.known(batch) for batch in batches(content, pieces))
        except (LookupError, FormatError):
            return False  # a piece of a long list is not in the cache or not as it was: read the file

    # entries

    def _attributes(self, folder: Folder, name: bytes, path: bytes) -> Attributes:
        found = read_attributes(folder, name)
        if found.gap:
            self._gap(path, found.gap)
        return found

    def _trusted(self, stamp: bytes, status: Status, attributes: Attributes) -> bytes:
        """Return the stamp by which the next capture may know this entry."""
        if self._record is None or not self._record.trusted(status):
            return UNTRUSTED
        return stamp[:CONTENT_SIZE] + _CONTENT_ONLY if attributes.gap else stamp

    def _same_owner(self, known: Entry, status: Status) -> bool:
        """Return whether owner and group are still called as they were."""
        return known.user == self._owners.user(status.st_uid) and known.group == self._owners.group(status.st_gid)

    def _link(self, status: Status) -> HardLink:
        # Numbered as they are met: the kernel's numbers differ after a reboot or in every btrfs snapshot.
        device = self._devices.setdefault(status.st_dev, len(self._devices))
        return HardLink(device=device, inode=status.st_ino & _INODE_BITS)

    def _entry(
        self,
        kind: Kind,
        name: bytes,
        status: Status,
        attributes: Attributes,
        *,
        content: ChunkList | None = None,
        holes: Sequence[Hole] = (),
        target: bytes = b"",
        changed: bool = False,
    ) -> Entry:
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
            link=self._link(status) if kind != "dir" and status.st_nlink > 1 else None,
            xattrs=attributes.xattrs,
            holes=list(holes),
            changed=changed,
        )

    def _count(self, entry: Entry) -> None:
        self.counts.files += 1
        self.counts.bytes += entry.size

    def _took(self, count: int, path: bytes) -> None:
        self.counts.bytes_read += count
        self._tell(path)

    def _gap(self, path: bytes, reason: str) -> None:
        self.gaps.add(path, reason)
        self.counts.gaps = self.gaps.total

    def _tell(self, path: bytes) -> None:
        if self._progress is not None:
            self._progress(self.counts, path)
