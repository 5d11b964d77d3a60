"""Sets of chunk ids too large for memory: collected in any order, sorted on disk, compared as streams.

A file holds ids in rising order, each once, 32 bytes an id. numpy compares fixed strings without their trailing zero
bytes, which among strings of one length is the same as comparing all of them.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from io import FileIO
from typing import Final

from blake3 import blake3

from replicator.fs import Fs

ID_SIZE: Final = 32
HELD: Final = 8 << 20
"""Bytes of ids held before they are sorted to a file."""
BLOCK: Final = 1 << 20
"""Bytes of a file looked at at a time."""


@dataclass(frozen=True, slots=True)
class IdFile:
    """A file of ids, and the BLAKE3 hash of its bytes."""

    path: str
    count: int
    digest: bytes

    def blocks(self) -> Iterator[bytes]:
        """Yield all ids, a block at a time."""
        with closing(_Stream(self)) as stream:
            while stream.fill():
                yield stream.take(stream.last())


class IdCollector:
    """Takes ids in any order, any number of times, in bounded memory; its files are called ``path`` and something."""

    def __init__(self, fs: Fs, path: str, held: int = HELD) -> None:
        self._fs = fs
        self._path = path
        self._most = held
        self._held = bytearray()
        self._runs: list[IdFile] = []

    def add(self, ids: bytes) -> None:
        """Take ids, joined."""
        self._held += ids
        if len(self._held) >= self._most:
            self._held = bytearray(_unique(bytes(self._held)))
            if len(self._held) >= self._most // 2:
                self._spill()

    def finish(self) -> IdFile:
        """Write the set to one durable file, which is the caller's. The collector is used up."""
        self._held = bytearray(_unique(bytes(self._held)))
        try:
            return self._write(f"{self._path}.ids", self._merged(), durable=True)
        finally:
            self.close()

    def close(self) -> None:
        """Drop what is held and its files; idempotent."""
        self._held = bytearray()
        for run in self._runs:
            with suppress(FileNotFoundError):
                self._fs.unlink(run.path)
        self._runs = []

    def _spill(self) -> None:
        self._runs.append(self._write(f"{self._path}.{len(self._runs)}", [bytes(self._held)], durable=False))
        self._held = bytearray()

    def _write(self, path: str, blocks: Iterable[bytes], *, durable: bool) -> IdFile:
        with suppress(FileNotFoundError):
            self._fs.unlink(path)  # an interrupted run's
        handle = self._fs.create(path)
        hasher = blake3()
        count = 0
        try:
            for block in blocks:
                handle.write(block)
                hasher.update(block)
                count += len(block) // ID_SIZE
            if durable:
                handle.fsync()
        finally:
            handle.close()
        return IdFile(path, count, hasher.digest())

    def _merged(self) -> Iterator[bytes]:
        if not self._runs:
            yield bytes(self._held)
            return
        if self._held:
            self._spill()
        streams = [_Stream(run) for run in self._runs]
        try:
            while alive := [stream for stream in streams if stream.fill()]:
                bound = min(stream.last() for stream in alive)
                yield _unique(b"".join(stream.take(bound) for stream in alive))
        finally:
            for stream in streams:
                stream.close()


def remembered(fs: Fs, path: str, digest: bytes) -> IdFile | None:
    """Return a file of ids, None if it is not there or not what was hashed."""
    size = fs.size(path)
    if size is None or size % ID_SIZE:
        return None
    hasher = blake3()
    for at in range(0, size, BLOCK):
        hasher.update(fs.read(path, at, BLOCK))
    return IdFile(path, size // ID_SIZE, digest) if hasher.digest() == digest else None


def changes(old: IdFile | None, new: IdFile) -> Iterator[tuple[bytes, bytes]]:
    """Yield (added, dropped) between two sets, a stretch at a time, each in order."""
    with closing(_Stream(old)) as before, closing(_Stream(new)) as after:
        while alive := [stream for stream in (before, after) if stream.fill()]:
            bound = min(stream.last() for stream in alive)
            theirs, ours = before.take(bound), after.take(bound)
            yield _without(ours, theirs), _without(theirs, ours)


class _Stream:
    """A file of ids, a block at a time; None is an empty one."""

    def __init__(self, ids: IdFile | None) -> None:
        self._file: FileIO | None = None if ids is None else FileIO(ids.path)
        self._left = 0 if ids is None else ids.count * ID_SIZE
        self._block = b""

    def fill(self) -> bool:
        """Make sure that there is something, unless the file is at its end."""
        while self._left and not (self._block and len(self._block) % ID_SIZE == 0):
            assert self._file is not None, "something is left of it"
            more = self._file.read(min(BLOCK - len(self._block), self._left))
            if not more:
                raise OSError(f"{self._file.name}: cut short while it was read")
            self._left -= len(more)
            self._block += more
        return bool(self._block)

    def last(self) -> bytes:
        """Return the last id that is at hand."""
        return self._block[-ID_SIZE:]

    def take(self, bound: bytes) -> bytes:
        """Return the ids at hand up to a bound, included."""
        low, high = 0, len(self._block) // ID_SIZE
        while low < high:
            middle = (low + high) // 2
            if self._block[middle * ID_SIZE : (middle + 1) * ID_SIZE] <= bound:
                low = middle + 1
            else:
                high = middle
        taken, self._block = self._block[: low * ID_SIZE], self._block[low * ID_SIZE :]
        return taken

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _unique(ids: bytes) -> bytes:
    import numpy as np  # noqa: PLC0415 - a tenth of a second that commands which back nothing up do without

    found: bytes = np.unique(np.frombuffer(ids, dtype=f"S{ID_SIZE}")).tobytes()
    return found


def _without(ids: bytes, others: bytes) -> bytes:
    import numpy as np  # noqa: PLC0415 - likewise

    if not ids or not others:
        return ids
    if ids == others:
        return b""
    kind = np.dtype(f"S{ID_SIZE}")
    left = np.setdiff1d(np.frombuffer(ids, dtype=kind), np.frombuffer(others, dtype=kind), assume_unique=True)
    found: bytes = left.tobytes()
    return found
