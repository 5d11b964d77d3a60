"""The processes that read files beside the walk: who reads what, and what becomes of what they find.

The walk hands files over in batches and goes on; readers name their chunks, are told which are new, and put packs into
the spool. All that is decided or remembered stays in this process. A batch is bounded in files and bytes, a reader in
batches, so memory is bounded however large the tree is.
"""

import os
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, Self

from replicator.catalog.objects import split_ids
from replicator.engine.frames import (
    File,
    Files,
    Finish,
    Finished,
    FromReader,
    Part,
    Read,
    Sealed,
    Setup,
    Wanted,
    Whole,
    from_reader,
)
from replicator.engine.helpers import Helper, close
from replicator.engine.mail import MOST_DESCRIPTORS
from replicator.engine.reading import SMALL_FILE
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.snapshot.capture import Took
from replicator.snapshot.chunklist import EMPTY, ListBuilder
from replicator.snapshot.readfile import Attributes, ReadFile
from replicator.snapshot.sink import ChunkPutter
from replicator.snapshot.walk import Found, PosixFolder

BATCH_FILES: Final = 256
BATCH_BYTES: Final = 1 << 20
BATCHES: Final = 3
"""A reader works on one, the answer to the next is on its way, and one waits."""
ALONE_FROM: Final = 16 << 20
"""A file of so many bytes is all that a reader is given."""


class ChunkStore(Protocol):
    """What decides and remembers."""

    def wanted(self, ids: bytes, lengths: tuple[int, ...]) -> bytes:
        """Return for each chunk 1 if it is to be stored now, else 0; it counts as on its way from then on."""
        ...

    def sealed(self, name: bytes, size: int, ids: bytes, shards: bytes = b"") -> None:
        """Take note of a pack of wanted chunks that lies in the spool."""
        ...


@dataclass(slots=True)
class _Begun:
    """A file that was handed over."""

    path: bytes
    done: Callable[[ReadFile], None]
    refs: ListBuilder | None = None


@dataclass(slots=True)
class _Task:
    """A batch that was handed over; ``left`` files are not done."""

    files: list[_Begun]
    left: int
    weight: int


_Reader = Helper[FromReader]


class Readers:
    """Up to ``count`` reading processes; each is started when those before it are busy. A context manager.

    It is a :class:`~replicator.snapshot.capture.FileReader` for folders of the machine, for the thread of the walk.
    """

    def __init__(self, setup: Setup, store: ChunkStore, count: int) -> None:
        self._setup = setup
        self._store = store
        self._count = count
        self._readers: list[_Reader] = []
        self._tasks: dict[int, _Task] = {}
        self._number = 0
        self._lists: ChunkPutter | None = None
        self._took: Took = lambda _count, _path: None
        self._folder: PosixFolder | None = None
        self._descriptors: list[int] = []
        self._names: list[list[bytes]] = []
        self._files: list[_Begun] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def attach(self, lists: ChunkPutter, took: Took) -> "Readers":
        """Say where pieces of chunk lists go and who counts; what ``capture`` calls ``reader``."""
        self._lists = lists
        self._took = took
        return self

    # what the walk asks

    def read(self, event: Found, done: Callable[[ReadFile], None]) -> None:
        """Put a file into the batch."""
        size = event.status.st_size
        large = size > SMALL_FILE
        if large or self._bytes + size > BATCH_BYTES + SMALL_FILE:
            self._send_batch()
        folder = event.folder
        assert isinstance(folder, PosixFolder), "readers open folders of the machine"
        if folder is not self._folder:
            self._folder = folder
            self._descriptors.append(os.dup(folder.fileno()))
            self._names.append([])
        self._names[-1].append(event.name)
        self._files.append(_Begun(event.path, done))
        self._bytes += size
        full = len(self._files) >= BATCH_FILES or len(self._descriptors) >= MOST_DESCRIPTORS
        if large or full or self._bytes >= BATCH_BYTES:
            self._send_batch(weight=BATCHES if size >= ALONE_FROM else 1)

    def poll(self) -> None:
        """Take what has come."""
        if self._tasks:
            self._receive(wait=False)

    def drain(self) -> None:
        """Wait for all files."""
        self._send_batch()
        while self._tasks:
            self._receive(wait=True)

    def finish(self) -> None:
        """Wait for all files and let the readers seal what is open."""
        self.drain()
        for reader in self._readers:
            reader.say(Finish())
        while not all(reader.finished for reader in self._readers):
            self._receive(wait=True)

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors = []
        close(self._readers)
        self._readers = []

    # sending

    def _send_batch(self, weight: int = 1) -> None:
        if not self._files:
            return
        descriptors, names, files = self._descriptors, self._names, self._files
        self._folder, self._descriptors, self._names, self._files, self._bytes = None, [], [], [], 0
        try:
            reader = self._free_reader()
            self._number += 1
            self._tasks[self._number] = _Task(files, len(files), weight)
            reader.load += weight
            reader.say(Read(self._number, names), descriptors)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _free_reader(self) -> _Reader:
        while True:
            best = min(self._readers, key=lambda reader: reader.load, default=None)
            if best is not None and best.load < BATCHES:
                return best
            if len(self._readers) < self._count:
                self._start()
            else:
                self._receive(wait=True)

    def _start(self) -> None:
        reader = _Reader.start(
            "replicator.engine.reader", from_reader, "a reading process", "nothing is lost, run again"
        )
        self._readers.append(reader)
        reader.say(self._setup)

    # receiving

    def _receive(self, *, wait: bool) -> None:
        """Take what has come and act on it."""
        if not any(reader.has_said for reader in self._readers):
            ready, _, _ = select.select(self._readers, [], [], None if wait else 0)
            for reader in ready:
                reader.take_in()
        for reader in self._readers:
            while (message := reader.next()) is not None:
                self._act(reader, message)

    def _act(self, reader: _Reader, message: FromReader) -> None:
        if isinstance(message, Files):
            self._take_files(reader, message)
        elif isinstance(message, Part):
            self._take_part(reader, message)
        elif isinstance(message, Whole):
            task = self._tasks[message.task]
            begun = task.files[message.place]
            content = EMPTY if begun.refs is None else begun.refs.finish()
            self._done(reader, message.task, begun, _read_file(message.file, content))
        elif isinstance(message, Sealed):
            self._store.sealed(message.name, message.size, message.ids, message.shards)
        elif isinstance(message, Finished):
            reader.finished = True

    def _take_files(self, reader: _Reader, message: Files) -> None:
        lengths = tuple(memoryview(message.lengths).cast("I"))
        reader.say(Wanted(self._store.wanted(message.ids, lengths)))
        refs = iter(_refs(message.ids, lengths))
        for begun, file in zip(self._tasks[message.task].files, message.files, strict=True):
            if file.later:
                continue
            content = EMPTY
            if file.chunks:
                own = list(islice(refs, file.chunks))
                length = sum(ref.length for ref in own)
                content = ChunkList(depth=0, length=length, chunks=own)
                self._took(length, begun.path)
            self._done(reader, message.task, begun, _read_file(file, content))

    def _take_part(self, reader: _Reader, message: Part) -> None:
        lengths = tuple(memoryview(message.lengths).cast("I"))
        reader.say(Wanted(self._store.wanted(message.ids, lengths)))
        begun = self._tasks[message.task].files[message.place]
        if message.again or begun.refs is None:
            assert self._lists is not None, "attached"
            begun.refs = ListBuilder(self._lists)
        refs = _refs(message.ids, lengths)
        for _ in range(message.repeated):
            for ref in refs:
                begun.refs.add(ref)
        if message.repeated == 1:
            self._took(sum(lengths), begun.path)

    def _done(self, reader: _Reader, number: int, begun: _Begun, found: ReadFile) -> None:
        task = self._tasks[number]
        task.left -= 1
        if not task.left:
            reader.load -= task.weight
            del self._tasks[number]
        begun.done(found)


def _refs(ids: bytes, lengths: Sequence[int]) -> list[ChunkRef]:
    return [ChunkRef(id=chunk, length=length) for chunk, length in zip(split_ids(ids), lengths, strict=True)]


def _read_file(file: File, content: ChunkList) -> ReadFile:
    attributes = Attributes(file.xattrs, file.xattrs_gap)
    return ReadFile(file.status, content, file.holes, attributes, file.changed, file.gap)
