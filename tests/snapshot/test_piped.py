"""Streams as sources: one file, of a size that nobody knows, whole or not at all."""

import errno
import os
import stat
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from replicator.format.pack import CHUNK_DATA
from replicator.format.snapshot import RootFolder
from replicator.format.tree import Entry
from replicator.snapshot.capture import Captured, Took, capture
from replicator.snapshot.chunklist import leaves
from replicator.snapshot.piped import PipedReader, PipedSource
from replicator.snapshot.sink import ChunkPutter
from replicator.snapshot.tree import TreeReader
from tests.fakes import SeededRng
from tests.snapshot.support import SMALL_CHUNKER, MemorySink, captured

NOW = 1_900_000_000_000_000_000


class Pipe:
    """An open file that gives what it has in odd pieces, then ends, or fails."""

    def __init__(self, data: bytes, error: Exception | None = None, size: int = 777) -> None:
        self.data = memoryview(data)
        self.error = error
        self.size = size
        self.closed = False

    def read_into(self, buffer: memoryview, /) -> int:
        piece = self.data[: min(self.size, len(buffer))]
        if not piece and self.error is not None:
            raise self.error
        buffer[: len(piece)] = piece
        self.data = self.data[len(piece) :]
        return len(piece)

    def close(self) -> None:
        self.closed = True

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a pipe has no {name}")


def stream(sink: MemorySink, begin: Callable[[], Pipe], **options: Any) -> Captured:
    source = PipedSource(b"db.sql", begin, now_ns=NOW)

    def reader(lists: ChunkPutter, took: Took) -> PipedReader:
        return PipedReader(sink, lists, SMALL_CHUNKER, took)

    return capture([source.root], sink=sink, source=source, chunker=SMALL_CHUNKER, reader=reader, **options)


def the_file(sink: MemorySink, found: Captured) -> tuple[Entry, bytes]:
    [(path, entry)] = TreeReader(sink).walk(found.tree)
    assert path == (b"db.sql",)
    assert entry.content is not None
    return entry, b"".join(sink.get(CHUNK_DATA, ref) for ref in leaves(entry.content, sink))


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 16384, 2 << 20, (2 << 20) + 1, 9_000_000])
def test_a_stream_becomes_one_file_that_only_its_owner_may_read(size: int) -> None:
    sink = MemorySink()
    data = SeededRng(size).bytes(size)
    pipe = Pipe(data, size=70_001)
    found = stream(sink, lambda: pipe)
    entry, stored = the_file(sink, found)
    assert stored == data
    assert (entry.kind, entry.mode, entry.size, entry.mtime_ns) == ("file", 0o600, size, NOW)
    assert (entry.uid, entry.gid, entry.holes, entry.changed) == (os.geteuid(), os.getegid(), [], False)
    assert found.roots == [RootFolder(path=b"/db.sql", name=b"db.sql")]
    assert (found.counts.files, found.counts.bytes, found.counts.bytes_read, found.gaps) == (1, size, size, [])
    assert pipe.closed


def test_a_stream_is_cut_where_a_file_of_the_same_bytes_is(tmp_path: Any) -> None:
    sink = MemorySink()
    data = SeededRng("same").bytes(5_000_000)
    (tmp_path / "db.sql").write_bytes(data)
    captured(sink, tmp_path / "db.sql")
    before = set(sink.chunks)
    stream(sink, lambda: Pipe(data))
    assert {key for key in set(sink.chunks) - before if key[0] == CHUNK_DATA} == set()


def test_a_stream_is_begun_once_and_only_when_it_is_read() -> None:
    begun = []

    def begin() -> Pipe:
        begun.append(1)
        return Pipe(b"data")

    source = PipedSource(b"db.sql", begin, now_ns=NOW)
    folder, name = source.locate(b"/db.sql")
    assert stat.S_ISREG(folder.status(name).st_mode)
    assert folder.names() == [name]
    assert folder.xattrs(name) == []
    assert begun == []
    stream(MemorySink(), begin)
    assert begun == [1]


def test_there_is_nothing_else_in_it() -> None:
    source = PipedSource(b"db.sql", lambda: Pipe(b""), now_ns=NOW)
    with pytest.raises(OSError, match="No such file"):
        source.locate(b"/other")
    folder, name = source.locate(b"/db.sql")
    for call in (folder.here, folder.parent, lambda: folder.enter(name), lambda: folder.target(name)):
        with pytest.raises(OSError, match="Not a directory"):
            call()
    folder.close()


@pytest.mark.parametrize("error", [RuntimeError("half a dump"), OSError(errno.EIO, "Input/output error")])
def test_a_stream_that_fails_is_no_gap_but_the_end(error: Exception) -> None:
    pipe = Pipe(b"x" * 100_000, error)
    with pytest.raises(Exception, match=r"half a dump|Input/output error"):
        stream(MemorySink(), lambda: pipe)
    assert pipe.closed


class Zeros(Pipe):
    """A pipe of so many zeros."""

    def __init__(self, size: int) -> None:
        super().__init__(b"")
        self.left = size

    def read_into(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), self.left, 65536)
        self.left -= count
        return count


def test_memory_does_not_grow_with_the_stream() -> None:
    peaks = []
    for size in (8 << 20, 64 << 20):
        tracemalloc.start()
        found = stream(MemorySink(), partial(Zeros, size))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.counts.bytes == size
    assert peaks[1] < peaks[0] + (2 << 20)
