"""Snapshots as a read-only file system: names to nodes, nodes to what they are and hold. There is no FUSE in here.

::

    DATASET/2026-11-17T02.00.00Z-3fa9c1d2/...    a snapshot, by the time it was taken (UTC) and the beginning of its id
    DATASET/latest                               a symbolic link to the newest one
    DATASET@NODE/...                             where several nodes have a dataset of that name

All methods may be called from any number of threads, never on the loop, as they wait for packs. Memory is bounded
whatever the size of a snapshot: beside :mod:`.packmemory`, 8 MiB of directories as they are stored (some five times
that as objects), 8 MiB of folders that were looked into, 2 MiB about where directories are cut, and for each open
file the place of at most 4096 chunks (under 1 MiB).
"""

import datetime
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Lock
from typing import Final, Protocol

from blake3 import blake3

from replicator.clock import NS
from replicator.engine.browse import OpenSnapshot
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.pack import CHUNK_DATA
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import PIECE_ENTRIES, Entry, Kind
from replicator.lru import Lru
from replicator.snapshot.chunklist import EMPTY, Run, run_at
from replicator.snapshot.metadata import Owners
from replicator.snapshot.sink import ChunkSource
from replicator.snapshot.tree import TreeReader, escape

LATEST: Final = b"latest"
PIECES_BYTES: Final = 8 << 20
FOLDERS_BYTES: Final = 8 << 20
FENCES_BYTES: Final = 2 << 20
AHEAD_BYTES: Final = 48 << 20
"""How far ahead of a reader packs are asked for: three of them."""
_AHEAD_STEP: Final = 4 << 20
_SEQUENTIAL: Final = 512 << 10
"""Bytes read in a row before a reader counts as one that goes on: not a program that looks at a file's head."""
_SLACK: Final = 1 << 20
"""The kernel asks for parts of up to 128 KiB from several threads: in a row is what begins this near its last end."""
_MAX_DIRECTORY: Final = 1 << 50
"""Bytes of a directory for which a place in it can be written as a number of 63 bits."""
_MAX_ID: Final = 2**32 - 2
_OVERFLOW_ID: Final = 65534
_SHORT: Final = 8
_REF_BYTES: Final = 130
_KINDS: Final[dict[Kind, int]] = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "link": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}


class AheadSource(ChunkSource, Protocol):
    """Gives chunks, and can be told which will be needed."""

    def ahead(self, refs: Sequence[ChunkRef]) -> None:
        """Begin to fetch these data chunks, in this order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A snapshot and where its chunks come from."""

    snapshot: OpenSnapshot
    source: AheadSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What stat(2) says. ``names`` of a folder is 1, which tells programs that its folders are not counted."""

    inode: int
    mode: int
    names: int
    uid: int
    gid: int
    size: int
    blocks: int
    mtime_ns: int
    ctime_ns: int
    rdev: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Something in the mount. ``path`` begins at its top, without a slash in front; ``shown`` is whose tree it is of.

    ``children`` are those of the folders above the trees; what is in a tree is read when it is asked for.
    """

    path: bytes
    entry: Entry
    shown: Shown | None = None
    children: dict[bytes, "Node"] | None = None

    @property
    def content(self) -> ChunkList:
        """What a file or folder holds."""
        return self.entry.content or EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line of a directory. ``after`` is where the listing goes on behind it."""

    name: bytes
    inode: int
    kind: int
    after: int


@dataclass(slots=True)
class MountReport:
    """What could not be read while a mount was there, and who says so at once. From any thread."""

    say: Callable[[str], None]
    lost: bool = False
    damaged: bool = False
    failed: bool = False
    _said: Lru[str, bool] = field(default_factory=lambda: Lru(1000))

    def unreadable(self, path: bytes, error: Exception) -> None:
        """Take down that something could not be read."""
        if isinstance(error, NotFoundError):
            self.lost = True
        elif isinstance(error, IntegrityError | FormatError):
            self.damaged = True
        else:
            self.failed = True
        said = str(error) if isinstance(error, ReplicatorError) else f"unexpected {type(error).__name__}: {error}"
        self._once(f"{escape(path) or 'the top'}: {said}")

    def damage(self, text: str) -> None:
        """Take down that somebody gave other bytes than were stored, also if another gave the right ones."""
        self.damaged = True
        self._once(f"INTEGRITY: {text}")

    def notice(self, text: str) -> None:
        """Say something beside; the same words again are not said."""
        self._once(text)

    def _once(self, text: str) -> None:
        if self._said.get(text) is None:
            self._said.put(text, value=True, weight=1)
            self.say(text)


class Mounted:
    """The file system. ``owner`` has the folders above the trees.

    ``direct``: there is one snapshot, and its tree is right at the top.
    """

    def __init__(self, shown: Sequence[Shown], *, owner: tuple[int, int], direct: bool = False) -> None:
        self._owners = Owners()
        self._folders: Lru[bytes, Node] = Lru(FOLDERS_BYTES)
        self._pieces: Lru[bytes, list[Entry]] = Lru(PIECES_BYTES)
        self._fences: Lru[bytes, tuple[bytes, bytes]] = Lru(FENCES_BYTES)
        self.shown = tuple(shown)
        self.paths: list[bytes] = []
        """Where each of the snapshots is, in their order."""
        made = _Maker(owner)
        if direct:
            [one] = shown
            self.paths = [b""]
            self.top = made.folder(b"", one.snapshot.row.created_ns, one)
        else:
            self.top, self.paths = made.top(shown)

    # -- names

    def get(self, path: bytes) -> Node | None:
        """Return what is at a path below the top, None if there is nothing.

        Raises:
            NotFoundError, IntegrityError, FormatError: a directory on the way cannot be read.
        """
        node = self.top
        if not path:
            return node
        # From the deepest folder that is known: a path may have thousands of parts.
        begin, end = 0, len(path)
        while (end := path.rfind(b"/", 0, end)) > 0:
            known = self._folders.get(path[:end])
            if known is not None:
                node, begin = known, end + 1
                break
        while begin < len(path):
            end = path.find(b"/", begin)
            last = end < 0
            name = path[begin:] if last else path[begin:end]
            found = self.child(node, name)
            if found is None:
                return None
            node = found
            if not last and node.children is None:
                self._folders.put(node.path, node, 500 + len(node.path) + _REF_BYTES * len(node.content.chunks))
            begin = len(path) if last else end + 1
        return node

    def child(self, node: Node, name: bytes) -> Node | None:
        """Return what has a name in a folder, None if nothing has.

        Raises:
            NotFoundError, IntegrityError, FormatError: the directory cannot be read.
        """
        if node.children is not None:
            return node.children.get(name)
        if node.entry.kind != "dir" or node.shown is None:
            return None
        entry = self._find(node.content, node.shown.source, name)
        return None if entry is None else _inner(node, entry)

    def _find(self, content: ChunkList, source: ChunkSource, name: bytes) -> Entry | None:
        """Look for a name by halving the directory's bytes: pieces are in order of names."""
        low, high = 0, content.length
        run: Run | None = None
        while low < high:
            middle = (low + high) // 2
            if run is None or not run.start <= middle < run.end:
                run = run_at(content, source, middle)
            place = run.place(middle)
            ref = run.refs[place]
            first, last = self._fences.get(ref.id) or self._fence(ref, source)
            if name < first:
                high = run.begin(place)
            elif name > last:
                low = run.ends[place]
            else:
                entries = self._piece(ref, source)
                at = bisect_left(entries, name, key=lambda entry: entry.name)
                return entries[at] if at < len(entries) and entries[at].name == name else None
        return None

    def _fence(self, ref: ChunkRef, source: ChunkSource) -> tuple[bytes, bytes]:
        entries = self._piece(ref, source)
        fence = entries[0].name, entries[-1].name
        self._fences.put(ref.id, fence, 200 + len(fence[0]) + len(fence[1]))
        return fence

    def _piece(self, ref: ChunkRef, source: ChunkSource) -> list[Entry]:
        entries = self._pieces.get(ref.id)
        if entries is None:
            entries = TreeReader(source).piece(ref)
            for before, entry in pairwise(entries):
                if entry.name <= before.name:
                    raise FormatError(f"directory: {escape(entry.name)} comes after {escape(before.name)}")
            self._pieces.put(ref.id, entries, ref.length)
        return entries

    def entries(self, node: Node, at: int = 0) -> Iterator[Listed]:
        """Yield what is in a folder from a place on: 0, or what :attr:`Listed.after` said. One piece is held at a time.

        Raises:
            NotFoundError, IntegrityError, FormatError: the directory cannot be read, from here on.
        """
        if node.children is not None:
            children = list(node.children.items())
            for place in range(at, len(children)):
                name, child = children[place]
                yield Listed(name=name, inode=inode_of(child), kind=_KINDS[child.entry.kind], after=place + 1)
            return
        if node.entry.kind != "dir" or node.shown is None:
            return
        content, source = node.content, node.shown.source
        if content.length > _MAX_DIRECTORY:
            raise FormatError(f"directory: {content.length} bytes, at most {_MAX_DIRECTORY} can be shown")
        offset, skip = divmod(at, 2 * PIECE_ENTRIES)
        last = b""
        run: Run | None = None
        while offset < content.length:
            if run is None or offset >= run.end:
                run = run_at(content, source, offset)
            place = run.place(offset)
            entries = self._piece(run.refs[place], source)
            if entries[0].name <= last:
                raise FormatError(f"directory: {escape(entries[0].name)} comes after {escape(last)}")
            last = entries[-1].name
            begin, offset = run.begin(place), run.ends[place]
            for number in range(skip, len(entries)):
                entry = entries[number]
                more = number + 1 < len(entries)
                yield Listed(
                    name=entry.name,
                    inode=inode_of(_inner(node, entry)),
                    kind=_KINDS[entry.kind],
                    after=2 * PIECE_ENTRIES * (begin if more else offset) + (number + 1 if more else 0),
                )
            skip = 0

    # -- what they are

    def stat(self, node: Node) -> Stat:
        """Return what a node is; every number fits where the kernel puts it."""
        entry = node.entry
        uid, gid = self._owners.of(entry)
        stored = entry.size - sum(hole.length for hole in entry.holes)
        return Stat(
            inode=inode_of(node),
            mode=_KINDS[entry.kind] | entry.mode,
            # How many names there are in the snapshot is not stored, only that there are more than one.
            names=1 if entry.link is None else 2,
            uid=_fitting(uid),
            gid=_fitting(gid),
            size=len(entry.target) if entry.kind == "link" else entry.size,
            blocks=-(-stored // 512),
            mtime_ns=entry.mtime_ns,
            ctime_ns=entry.ctime_ns,
            rdev=entry.rdev & 0xFFFFFFFF,
        )

    def attribute(self, node: Node, name: bytes) -> bytes | None:
        """Return the value of an extended attribute, None if there is none of that name."""
        return next((one.value for one in node.entry.xattrs if one.name == name), None)

    # -- what they hold

    def open(self, node: Node) -> "Reading":
        """Return a file to be read."""
        return Reading(node)


class Reading:
    """An open file; any number of threads may read. Read-ahead begins when it was read in a row for a while."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._run: Run | None = None
        self._lock = Lock()
        self._end = 0
        self._row = 0
        self._planned = 0

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes, fewer than ``size`` at the file's end only.

        Raises:
            NotFoundError: a chunk cannot be had now.
            IntegrityError, FormatError: it is damaged, or the list of chunks is.
        """
        content, shown = self.node.content, self.node.shown
        end = min(offset + size, content.length)
        if shown is None or offset >= end:
            return b""
        parts = []
        at = offset
        while at < end:
            run = self._run_at(at, content, shown.source)
            for place in range(run.place(at), len(run.refs)):
                begin = run.begin(place)
                data = shown.source.get(CHUNK_DATA, run.refs[place])
                parts.append(data[at - begin : end - begin])
                at = run.ends[place]
                if at >= end:
                    break
        self._look_ahead(offset, end, content, shown.source)
        return b"".join(parts)

    def seek_data(self, offset: int) -> int | None:
        """Return the first byte from ``offset`` on that is not in a hole, None if there is none."""
        for hole in self.node.entry.holes:
            if hole.offset <= offset < hole.offset + hole.length:
                offset = hole.offset + hole.length
        return offset if offset < self.node.entry.size else None

    def seek_hole(self, offset: int) -> int | None:
        """Return the first byte from ``offset`` on that is in a hole, the file's end if there is none before it."""
        entry = self.node.entry
        if offset >= entry.size:
            return None
        return next(
            (max(hole.offset, offset) for hole in entry.holes if offset < hole.offset + hole.length), entry.size
        )

    def _run_at(self, offset: int, content: ChunkList, source: ChunkSource) -> Run:
        run = self._run
        if run is None or not run.start <= offset < run.end:
            run = self._run = run_at(content, source, offset)
        return run

    def _look_ahead(self, begin: int, end: int, content: ChunkList, source: AheadSource) -> None:
        with self._lock:
            if abs(begin - self._end) > _SLACK:
                self._row = self._planned = self._end = 0
            self._row += end - begin
            self._end = max(self._end, end)
            if self._row < _SEQUENTIAL or self._end < self._planned:
                return
            start = self._end
            self._planned = start + _AHEAD_STEP
        source.ahead(_refs(content, source, start, start + AHEAD_BYTES))


def _refs(content: ChunkList, source: ChunkSource, begin: int, end: int) -> list[ChunkRef]:
    """Return the chunks between two offsets, as far as the list of the first one goes."""
    if begin >= content.length:
        return []
    run = run_at(content, source, begin)
    return list(run.refs[run.place(begin) : run.place(min(end, run.end - 1)) + 1])


def inode_of(node: Node) -> int:
    """Return a number that is the same whenever this is mounted: names of one file have the same one, others do not.

    It is 63 bits of a hash: among 10^7 files, two share a number once in 200,000 snapshots. Programs only believe
    numbers of files that have several names.
    """
    if not node.path:
        return 1
    link, shown = node.entry.link, node.shown
    if link is None or shown is None:
        key = b"path\0" + node.path
    else:
        key = b"link\0" + shown.snapshot.row.name + f"{link.device}.{link.inode}".encode()
    return 2 + (int.from_bytes(blake3(key).digest(8), "big") >> 2)


def _inner(node: Node, entry: Entry) -> Node:
    return Node(path=node.path + b"/" + entry.name if node.path else entry.name, entry=entry, shown=node.shown)


def _fitting(number: int) -> int:
    return number if number <= _MAX_ID else _OVERFLOW_ID


class _Maker:
    """Makes the folders above the trees."""

    def __init__(self, owner: tuple[int, int]) -> None:
        self._owner = owner

    def top(self, shown: Sequence[Shown]) -> tuple[Node, list[bytes]]:
        """Return the top, and the path of each snapshot; these come oldest first."""
        groups: dict[tuple[str, bytes], list[int]] = {}
        for number, one in enumerate(shown):
            groups.setdefault((one.snapshot.details.dataset, one.snapshot.snapshot.writer), []).append(number)
        shared = [dataset for dataset, _ in groups]
        children: dict[bytes, Node] = {}
        paths = [b""] * len(shown)
        for dataset, writer in sorted(groups):
            numbers = groups[dataset, writer]
            node = shown[numbers[-1]].snapshot.node
            text = f"{dataset}@{node}" if shared.count(dataset) > 1 else dataset
            folder = _unique(children, text, writer.hex())
            inner: dict[bytes, Node] = {}
            for number in numbers:
                one = shown[number]
                name = _unique(inner, _called(one.snapshot), one.snapshot.id)
                paths[number] = folder + b"/" + name
                inner[name] = self.folder(paths[number], one.snapshot.row.created_ns, one)
            newest_ns = shown[numbers[-1]].snapshot.row.created_ns
            inner[LATEST] = Node(
                path=folder + b"/" + LATEST,
                entry=self._entry("link", newest_ns, target=paths[numbers[-1]][len(folder) + 1 :]),
                children={},
            )
            children[folder] = self.folder(folder, newest_ns, None, inner)
        newest_ns = max((one.snapshot.row.created_ns for one in shown), default=0)
        return self.folder(b"", newest_ns, None, children), paths

    def folder(self, path: bytes, time_ns: int, shown: Shown | None, children: dict[bytes, Node] | None = None) -> Node:
        """Return a folder that no tree has an entry of: of a snapshot, or of ``children``."""
        content = EMPTY if shown is None else shown.snapshot.details.tree
        return Node(path=path, entry=self._entry("dir", time_ns, content=content), shown=shown, children=children)

    def _entry(self, kind: Kind, time_ns: int, *, content: ChunkList | None = None, target: bytes = b"") -> Entry:
        return Entry(
            name=b"",
            kind=kind,
            mode=0o777 if kind == "link" else 0o555,
            uid=self._owner[0],
            gid=self._owner[1],
            user="",
            group="",
            mtime_ns=time_ns,
            ctime_ns=time_ns,
            size=0,
            content=content,
            target=target,
            rdev=0,
            link=None,
            xattrs=[],
            holes=[],
            changed=False,
        )


def _called(snapshot: OpenSnapshot) -> str:
    """Return a snapshot's folder: a writer may have signed any time."""
    seconds = snapshot.row.created_ns // NS
    try:
        time = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H.%M.%SZ")
    except (ValueError, OverflowError, OSError):
        time = str(seconds)
    return f"{time}-{snapshot.id[:_SHORT]}"


def _unique(taken: dict[bytes, Node], text: str, identity: str) -> bytes:
    """Return a name for a folder: names that people gave may hold a slash, be two dots, or be there already."""
    name = text.replace("/", "_").encode()[:180].decode(errors="ignore").encode()
    if name in (b".", b"..", LATEST) or name in taken:
        name += b"~" + identity.encode()
    return name
