"""Exporting: a snapshot as a tar stream, in the order of its tree, fetched pack by pack a window ahead.

In memory are at most one window of chunks, a few opened packs and a few on their way. Packs that later parts of the
stream will need again wait on the keeper's disk, sealed as they came.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3
from msgspec.msgpack import encode

from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot
from replicator.engine.edge import Edge
from replicator.engine.packcache import PackCache
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.pack import CHUNK_DATA
from replicator.format.snapshot import ChunkRef
from replicator.format.tree import Entry
from replicator.pack.reader import PackReader, ReaderKeys, check_length
from replicator.process import Stop
from replicator.snapshot.chunklist import extents
from replicator.snapshot.tar import TarStream, Write, stored_ranges
from replicator.snapshot.tree import TreePath, TreeReader

WINDOW_BYTES: Final = 64 << 20
"""Of plaintext that is gathered before it is written: a pack is fetched, or read again, at most once for it."""
WINDOW_ITEMS: Final = 20_000
AT_ONCE: Final = 3
"""Packs fetched at the same time."""
OPEN_PACKS: Final = 4
"""Packs that stay in memory from one window to the next: a writer fills several at a time."""
WAITING_BYTES: Final = 4 << 30
"""Of packs that wait on the disk."""


@dataclass(slots=True)
class ExportReport:
    """What was exported."""

    snapshot: OpenSnapshot
    members: int = 0
    files: int = 0
    bytes: int = 0
    """Of files' content, holes included."""
    written: int = 0
    """Of the stream."""
    packs: int = 0
    fetched_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Member:
    """An entry whose content, if it has any, is what follows. ``first`` as in :meth:`TarStream.member`."""

    path: TreePath
    entry: Entry
    first: bytes | None


@dataclass(frozen=True, slots=True)
class _Slice:
    """Bytes of a chunk that belong to the member before."""

    chunk: bytes
    start: int
    end: int


@dataclass(slots=True)
class _Window:
    """A part of the stream, and the chunks that it takes."""

    items: list[_Member | _Slice] = field(default_factory=list)
    refs: dict[bytes, ChunkRef] = field(default_factory=dict)
    size: int = 0


class _StoppedError(Exception):
    """The export was cancelled."""


async def export(
    library: Library,
    edge: Edge,
    snapshot: OpenSnapshot,
    write: Write,
    *,
    paths: Sequence[TreePath] = (),
    window_bytes: int = WINDOW_BYTES,
) -> ExportReport:
    """Write a snapshot, or ``paths`` of it and the folders above them, as a tar stream.

    Every chunk is checked against its id before any of its bytes is written. There are no gaps in an export: whatever
    cannot be had, or written, ends it, and what was written until then is no whole archive to any reader. ``write`` is
    called in a worker thread.

    Raises:
        NotFoundError: a path is not in the snapshot, or nobody has a pack; IntegrityError, FormatError: or not whole.
        OSError: ``write`` raised it.
    """
    started = edge.clock.monotonic()
    fetcher = ChunkFetcher(library, snapshot.snapshot.domain)
    report = ExportReport(snapshot=snapshot)
    keeper = library.keeper
    waiting = PackCache(keeper.file(os.path.join("cache", "export")), keeper.fs, WAITING_BYTES)
    exporting = _Exporting(fetcher, keeper.reader(snapshot.snapshot.domain), waiting, edge, report, window_bytes)
    edge.progress.stage("exporting", None if paths else snapshot.row.size)
    tree = TreeReader(fetcher)
    top = snapshot.details.tree
    entries = tree.select(top, paths) if paths else tree.walk(top)
    try:
        await fetcher.until_done(lambda stop: exporting.run(entries, TarStream(write), stop))
    finally:
        exporting.close()
        await asyncio.to_thread(waiting.clear)
    report.packs = len(fetcher.fetched)
    report.fetched_bytes = fetcher.fetched.total()
    report.seconds = edge.clock.monotonic() - started
    return report


class _Exporting:
    """Carries an export out, in one thread."""

    def __init__(
        self,
        fetcher: ChunkFetcher,
        reader: ReaderKeys,
        waiting: PackCache,
        edge: Edge,
        report: ExportReport,
        window_bytes: int,
    ) -> None:
        self._fetcher = fetcher
        self._reader = reader
        self._waiting = waiting
        self._progress = edge.progress
        self._report = report
        self._window_bytes = window_bytes
        self._fetching: dict[int, Future[bytes]] = {}
        self._open: OrderedDict[int, tuple[bytes, PackReader]] = OrderedDict()
        """Packs in memory, with the bytes of those that do not lie on the disk yet."""
        self._unused: dict[int, int] = {}

    def close(self) -> None:
        """Give up what is on its way."""
        for future in self._fetching.values():
            future.cancel()

    def run(self, entries: Iterator[tuple[TreePath, Entry]], stream: TarStream, stop: Stop) -> None:
        """Write all entries; the next window's first packs come while this one is written."""
        windows = self._plan(entries)
        window = next(windows, None)
        try:
            while window is not None:
                chunks = self._gather(window, stop)
                following = next(windows, None)
                if following is not None:
                    self._begin(list(self._by_pack(following)))
                self._emit(window, chunks, stream, stop)
                chunks.clear()  # before the next ones are gathered
                window = following
        except BaseException:
            with suppress(OSError):
                stream.flush()  # so that whoever reads on meets the middle of something, and knows
            raise
        stream.finish()
        self._report.written = stream.written

    # -- planning --

    def _plan(self, entries: Iterator[tuple[TreePath, Entry]]) -> Iterator[_Window]:
        firsts: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        window = _Window()
        for path, entry in entries:
            first = _first_name(firsts, path, entry)
            window.items.append(_Member(path, entry, first))
            if entry.kind == "file" and entry.content is not None and first is None:
                ranges = stored_ranges(entry)
                at = 0  # the first range that does not end before the chunk
                for offset, ref in extents(entry.content, self._fetcher):
                    end = offset + ref.length
                    while at < len(ranges) and ranges[at][1] <= offset:
                        at += 1
                    for start, stop in ranges[at:]:
                        if start >= end:
                            break
                        begin, until = max(start, offset), min(stop, end)
                        window.items.append(_Slice(ref.id, begin - offset, until - offset))
                        if ref.id not in window.refs:
                            window.refs[ref.id] = ref
                            window.size += ref.length
                    if window.size >= self._window_bytes or len(window.items) >= WINDOW_ITEMS:
                        yield window
                        window = _Window()
            if window.size >= self._window_bytes or len(window.items) >= WINDOW_ITEMS:
                yield window
                window = _Window()
        if window.items:
            yield window

    def _by_pack(self, window: _Window) -> dict[int, list[ChunkRef]]:
        """Return what to take from which pack: first those at hand, then in the order in which they were packed."""
        refs = list(window.refs.values())
        found: dict[int, list[ChunkRef]] = {}
        for ref, pack in zip(refs, self._fetcher.place([ref.id for ref in refs]), strict=True):
            found.setdefault(pack, []).append(ref)
        return dict(sorted(found.items(), key=lambda item: (item[0] not in self._open, item[0])))

    # -- gathering --

    def _begin(self, packs: Sequence[int]) -> None:
        for pack in packs:
            if len(self._fetching) >= AT_ONCE:
                return
            if pack not in self._fetching and pack not in self._open and pack not in self._unused:
                self._fetching[pack] = self._fetcher.begin(pack)

    def _gather(self, window: _Window, stop: Stop) -> dict[bytes, bytes]:
        """Return the plaintext of all chunks of a window."""
        chunks: dict[bytes, bytes] = {}
        todo = self._by_pack(window)
        while todo:
            _check(stop)
            self._begin(list(todo))
            pack = next(iter(todo))
            refs = todo.pop(pack)
            try:
                reader = self._load(pack)
            except (NotFoundError, IntegrityError, FormatError) as error:
                self._elsewhere(pack, refs, error, todo)
                continue
            for ref in refs:
                try:
                    data = reader.chunk(CHUNK_DATA, ref.id)
                    check_length(ref.id, data, ref.length)
                except (IntegrityError, FormatError) as error:
                    self._elsewhere(pack, [ref], error, todo)
                else:
                    chunks[ref.id] = data
            self._used(pack, len(refs))
        return chunks

    def _load(self, pack: int) -> PackReader:
        found = self._open.get(pack)
        if found is not None:
            self._open.move_to_end(pack)
            return found[1]
        data = self._waiting.get(self._fetcher.row(pack).name) if pack in self._unused else None
        waits = data is not None
        if data is None:
            future = self._fetching.get(pack) or self._fetcher.begin(pack)
            try:
                data = future.result()
            finally:
                self._fetching.pop(pack, None)
        reader = PackReader(data, self._reader)
        self._open[pack] = b"" if waits else data, reader
        self._unused.setdefault(pack, len(reader.directory.segments))
        return reader

    def _used(self, pack: int, count: int) -> None:
        """Let a pack go of which nothing more will be wanted; of the others, those in memory are few."""
        self._unused[pack] -= count
        if self._unused[pack] <= 0:
            self._open.pop(pack, None)
        while len(self._open) > OPEN_PACKS:
            oldest, (data, _) = self._open.popitem(last=False)
            if data:
                self._waiting.put(self._fetcher.row(oldest).name, data)

    def _elsewhere(
        self, pack: int, refs: Sequence[ChunkRef], why: ReplicatorError, todo: dict[int, list[ChunkRef]]
    ) -> None:
        """Look in other packs for chunks; raise the reason if one is in none."""
        for ref in refs:
            if not self._fetcher.give_up(pack, ref.id, why):
                raise why
            [other] = self._fetcher.place([ref.id])
            todo.setdefault(other, []).append(ref)

    # -- writing --

    def _emit(self, window: _Window, chunks: dict[bytes, bytes], stream: TarStream, stop: Stop) -> None:
        for item in window.items:
            _check(stop)
            if isinstance(item, _Member):
                stream.member(item.path, item.entry, item.first)
                self._report.members += 1
                if item.entry.kind == "file" and item.first is None:
                    self._report.files += 1
                    self._report.bytes += item.entry.size
            else:
                stream.content(memoryview(chunks[item.chunk])[item.start : item.end])
                self._progress.advance(item.end - item.start)


def _first_name(firsts: dict[tuple[int, int], tuple[bytes, bytes]], path: TreePath, entry: Entry) -> bytes | None:
    """Return under which name an entry's inode was exported already, None if it was not."""
    if entry.link is None:
        return None
    looks = blake3(encode((entry.kind, entry.size, entry.content, entry.target, entry.rdev))).digest(16)
    key, known = (entry.link.device, entry.link.inode), (b"/".join(path), looks)
    first = firsts.setdefault(key, known)
    # If it was captured twice and changed between, two files are what we have.
    return first[0] if first is not known and first[1] == looks else None


def _check(stop: Stop) -> None:
    if stop():
        raise _StoppedError
