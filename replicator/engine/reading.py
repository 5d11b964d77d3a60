"""What a reading process does: read files, cut and name chunks, and pack those that are wanted.

It never decides what is new: it names the chunks it has in memory, goes on reading, and stores what the answer wants.
So the buffers of at most a few messages are held, each by one owner, and given back when the answer is carried out.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import pairwise
from threading import local
from typing import Final, Protocol

from chunker import Chunker, ChunkHasher, Compressor
from chunker.buffers import BytesLike
from replicator.engine.frames import File, Files, FileStatus, FromReader, Part, Read, Sealed, Whole
from replicator.format.container import Kind
from replicator.format.pack import CHUNK_DATA
from replicator.format.tree import Hole
from replicator.pack.keys import DomainKeys
from replicator.pack.packer import Packer, SealedPack
from replicator.pack.shards import stored_as
from replicator.rng import Rng
from replicator.snapshot.readfile import Reader, ReadFile, read_file
from replicator.snapshot.stream import buffer_size, pieces
from replicator.snapshot.walk import Folder
from replicator.store.folder import FolderObjectStore

SMALL_FILE: Final = 1 << 20
"""A file up to this long is read whole, beside others; a longer one buffer by buffer."""
ARENA: Final = SMALL_FILE + (1 << 20)
PARALLEL: Final = 32 << 10
"""Bytes of the mean chunk from which compressing on several threads is worth handing over."""

_LATER: Final = File(None, [], [], "", changed=False, gap="", chunks=0, later=True)


class Mail(Protocol):
    """How a reading process hears and speaks."""

    def say(self, message: FromReader) -> None:
        """Send a message."""
        ...

    def answer(self) -> bytes:
        """Wait for the next ``Wanted`` and return its bytes; other messages wait their turn."""
        ...

    def answered(self) -> bool:
        """Return whether the next ``Wanted`` is there already."""
        ...


class _Named:
    """Chunks in a buffer that were named and await their answer."""

    __slots__ = ("chunks", "ids", "release")

    def __init__(self, ids: list[bytes], chunks: list[memoryview], release: Callable[[], None]) -> None:
        self.ids = ids
        self.chunks = chunks
        self.release = release


class FileWork:
    """Carries out messages of one run under one policy. For one thread."""

    def __init__(
        self,
        *,
        keys: DomainKeys,
        policy: bytes,
        chunker: Chunker,
        spool: FolderObjectStore,
        rng: Rng,
        mail: Mail,
        threads: Executor | None = None,
        coding: tuple[int, int] | None = None,
    ) -> None:
        self._chunker = chunker
        self._hasher: ChunkHasher = keys.hashers()[CHUNK_DATA]
        self._spool = spool
        self._coding = coding
        self._mail = mail
        self._threads = threads
        self._compressors = local()
        self._packer = Packer(Kind.DATA_PACK, policy, keys, rng, self._sealed)
        self._named: deque[_Named] = deque()
        self._arenas: list[bytearray] = []
        self._buffers = [bytearray(), bytearray()]
        self._in_use = [False, False]
        self._turn = 0
        self._writer = ThreadPoolExecutor(1)
        self._writing: tuple[SealedPack, Future[bytes]] | None = None
        self._zeros = memoryview(bytes(chunker.params.maximum))
        self._zeros_id: bytes = self._hasher(self._zeros)

    def read(self, message: Read, folders: Sequence[Folder]) -> None:
        """Read the files of a message, small ones first; the folders are closed by the caller."""
        small = _SmallFiles(self)
        files: list[File] = []
        later: list[tuple[Folder, bytes, int]] = []
        for folder, names in zip(folders, message.folders, strict=True):
            for name in names:
                before = small.start()
                try:
                    found = read_file(folder, name, small)
                except _TooLargeError:
                    small.begin()
                    later.append((folder, name, len(files)))
                    files.append(_LATER)
                    continue
                if found.status is None:
                    small.begin()
                files.append(_file(found, len(small.ids) - before))
        self._name(
            Files(message.task, files, b"".join(small.ids), _lengths(small.chunks)),
            _Named(small.ids, small.chunks, small.release),
        )
        for folder, name, place in later:
            large = _LargeFile(self, message.task, place)
            self._mail.say(Whole(message.task, place, _file(read_file(folder, name, large), 0)))

    def finish(self) -> None:
        """Carry out all answers and seal what is open."""
        while self._named:
            self._store(self._mail.answer())
        self._packer.flush()
        self._report()

    def catch_up(self) -> bool:
        """Carry out one answer if it is there; return whether it was."""
        if not self._named or not self._mail.answered():
            return False
        self._store(self._mail.answer())
        return True

    # buffers

    def arena(self) -> bytearray:
        """Return a buffer for small files."""
        return self._arenas.pop() if self._arenas else bytearray(ARENA)

    def give_back(self, arenas: list[bytearray]) -> None:
        """Take buffers back."""
        self._arenas += arenas

    def _next_buffer(self) -> bytearray:
        """Return the buffer for large files that was used longer ago, once nothing in it is awaited any more.

        What is awaited may be of an earlier file, or of an earlier look at the same one.
        """
        self._turn ^= 1
        while self._in_use[self._turn]:
            self._store(self._mail.answer())
        buffer = self._buffers[self._turn]
        if not buffer:
            buffer = self._buffers[self._turn] = bytearray(buffer_size(self._chunker.params))
        return buffer

    def _awaited(self) -> Callable[[], None]:
        """Note that chunks in the buffer of this turn await their answer; return what is to be called when it came."""
        turn = self._turn
        self._in_use[turn] = True

        def release() -> None:
            self._in_use[turn] = False

        return release

    # chunks

    def cut(self, view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        """Yield the chunks of a whole file with their ids."""
        if len(view) <= self._chunker.params.minimum:
            yield self._hasher(view), view
            return
        ends, _ = self._chunker.cuts(view)
        for start, end in pairwise([0, *ends]):
            chunk = view[start:end]
            yield self._hasher(chunk), chunk

    def take_large(self, reader: Reader, holes: Sequence[Hole], task: int, place: int) -> int:
        """Name the chunks of a large file part by part; return how many bytes there were."""
        again = True
        length = 0
        for piece in pieces(reader, holes, self._chunker, self._next_buffer):
            if piece.zeros:
                ids, chunks, release = [self._zeros_id], [self._zeros], _nothing
            else:
                chunks = [piece.view[start:end] for start, end in pairwise([0, *piece.ends])]
                ids, release = [self._hasher(chunk) for chunk in chunks], self._awaited()
            repeated = max(1, piece.zeros)
            part = Part(task, place, again, b"".join(ids), _lengths(chunks), repeated)
            self._name(part, _Named(ids, chunks, release))
            again = False
            length += repeated * sum(map(len, chunks))
        if again:  # nothing was there to read
            self._name(Part(task, place, again, b"", b""), _Named([], [], _nothing))
        return length

    def _name(self, message: Files | Part, named: _Named) -> None:
        if self._writing is not None and self._writing[1].done():
            self._report()
        self._mail.say(message)
        self._named.append(named)
        while self.catch_up():
            pass

    def _store(self, wanted: bytes) -> None:
        named = self._named.popleft()
        chosen = [place for place, want in enumerate(wanted) if want]
        chunks = [named.chunks[place] for place in chosen]
        total = sum(map(len, chunks))
        if self._threads is not None and len(chunks) > 1 and total >= PARALLEL * len(chunks):
            packed = self._threads.map(self._compress, chunks)
        else:
            packed = map(self._compress, chunks)
        for place, chunk, (encoding, stored) in zip(chosen, chunks, packed, strict=True):
            self._packer.add(named.ids[place], CHUNK_DATA, encoding, len(chunk), stored)
        named.release()

    def _compress(self, chunk: memoryview) -> tuple[int, BytesLike]:
        compressor = getattr(self._compressors, "own", None)
        if compressor is None:
            compressor = self._compressors.own = Compressor()
        encoding, stored = compressor.compress(chunk)
        return int(encoding), stored

    def _sealed(self, pack: SealedPack) -> None:
        """Write a pack beside what follows, one at a time; it is reported once it is written."""
        self._report()
        self._writing = pack, self._writer.submit(self._put, pack)

    def _put(self, pack: SealedPack) -> bytes:
        """Put a pack into the spool; return the joined names of the shards that it was cut into."""
        parts = stored_as(pack.name, pack.data, self._coding)
        for name, data in parts:
            self._spool.put_named(name, data, durable=False)
        return b"".join(name for name, _ in parts) if len(parts) > 1 else b""

    def _report(self) -> None:
        if self._writing is None:
            return
        (pack, written), self._writing = self._writing, None
        self._mail.say(Sealed(pack.name, len(pack.data), b"".join(pack.ids), written.result()))


class _TooLargeError(Exception):
    """A file has grown beyond what is read beside others."""


class _SmallFiles:
    """Reads files of one message one behind the other into arenas."""

    def __init__(self, work: FileWork) -> None:
        self._work = work
        self._arenas = [work.arena()]
        self._used = 0
        self._mark = 0
        self.ids: list[bytes] = []
        self.chunks: list[memoryview] = []

    def start(self) -> int:
        """Begin with another file; return how many chunks there are before it."""
        self._mark = len(self.ids)
        return self._mark

    def begin(self) -> None:
        """Begin the file, or begin it again."""
        del self.ids[self._mark :]
        del self.chunks[self._mark :]

    def take(self, reader: Reader, size: int, holes: Sequence[Hole]) -> int:  # noqa: ARG002 - so short that holes are read
        """Read and cut."""
        if size > SMALL_FILE:
            raise _TooLargeError
        if self._used + size > ARENA:
            self._arenas.append(self._work.arena())
            self._used = 0
        with memoryview(self._arenas[-1]) as arena:
            length = reader.fill(arena[self._used : self._used + size])
            if length:
                for chunk_id, chunk in self._work.cut(arena[self._used : self._used + length]):
                    self.ids.append(chunk_id)
                    self.chunks.append(chunk)
        self._used += length
        return length

    def release(self) -> None:
        """Give the arenas back."""
        self.chunks.clear()
        self._work.give_back(self._arenas)


class _LargeFile:
    """Reads one large file part by part."""

    def __init__(self, work: FileWork, task: int, place: int) -> None:
        self._work = work
        self._task = task
        self._place = place

    def begin(self) -> None:
        """Begin the file, or begin it again: its first part says so."""

    def take(self, reader: Reader, size: int, holes: Sequence[Hole]) -> int:  # noqa: ARG002 - the reader knows its end
        """Read, cut and name."""
        return self._work.take_large(reader, holes, self._task, self._place)


def _file(found: ReadFile, chunks: int) -> File:
    status = found.status
    return File(
        None if status is None else FileStatus(*(getattr(status, field) for field in FileStatus._fields)),
        found.holes,
        found.attributes.xattrs,
        found.attributes.gap,
        found.changed,
        found.gap,
        0 if status is None else chunks,
    )


def _lengths(chunks: Sequence[memoryview]) -> bytes:
    return struct.pack(f"<{len(chunks)}I", *map(len, chunks))


def _nothing() -> None:
    """Release what nobody waits for."""
