"""Writing chunks of a pack to their places: what a writing process does, or the restoring one by itself."""

import errno
import itertools
from collections.abc import Sequence

from replicator.engine.writeframes import NewFile, Part, Setup, Unfinished, Write, Wrote
from replicator.errors import FormatError, IntegrityError
from replicator.format.pack import CHUNK_DATA
from replicator.pack.reader import PackReader, ReaderKeys, check_length
from replicator.snapshot.metadata import Metadata, Rights
from replicator.snapshot.newfile import make_whole, write_part


class WriteWork:
    """Opens packs and writes their chunks through descriptors; resolves no path."""

    def __init__(self, setup: Setup) -> None:
        self._keys = ReaderKeys(keys=setup.keys, restore_private=setup.restore_private, formers=setup.formers)
        self._metadata = Metadata(Rights(privileged=setup.privileged, numeric_ids=setup.numeric_ids))
        self._load = -1
        self._pack: PackReader | None = None
        self._last = b""
        self._data = b""

    def write(self, message: Write, pack: memoryview, descriptors: Sequence[int]) -> Wrote:
        """Carry a task out; ``descriptors`` are those of its folders and then of its files, and stay the caller's.

        ``pack`` must not change until a task of another load is given.
        """
        wrote = Wrote(message.task)
        try:
            if message.load != self._load or self._pack is None:
                self._pack, self._last = None, b""
                self._pack = PackReader(pack, self._keys)
                self._load = message.load
        except (IntegrityError, FormatError) as error:
            return Wrote(message.task, unreadable=str(error))
        places = itertools.count()
        count = len(message.folders)
        for fd, new in zip(descriptors[:count], message.folders, strict=True):
            for file in new:
                self._make(fd, file, next(places), wrote)
        for fd, unfinished in zip(descriptors[count:], message.files, strict=True):
            self._write(fd, unfinished, places, wrote)
        return wrote

    def _make(self, folder: int, file: NewFile, place: int, wrote: Wrote) -> None:
        data = self._chunk(file.chunk, file.entry.size, place, wrote)
        if data is None:
            return
        try:
            made = make_whole(folder, file.entry, data, self._metadata, identify=file.identify)
        except OSError as error:
            wrote.failed.append((place, error.errno or errno.EIO))
            return
        if made is None:
            wrote.again.append(place)
            return
        if made.problems:
            wrote.unset.append((place, made.problems))
        if made.identity is not None:
            wrote.made.append((place, *made.identity))

    def _write(self, fd: int, file: Unfinished, places: "itertools.count[int]", wrote: Wrote) -> None:
        for part, place in zip(file.parts, places, strict=False):
            self._write_one(fd, file, part, place, wrote)

    def _write_one(self, fd: int, file: Unfinished, part: Part, place: int, wrote: Wrote) -> None:
        data = self._chunk(part.chunk, part.length, place, wrote)
        if data is not None:
            try:
                write_part(fd, file.holes, part.offset, data)
            except OSError as error:
                wrote.failed.append((place, error.errno or errno.EIO))

    def _chunk(self, chunk: bytes, length: int, place: int, wrote: Wrote) -> bytes | None:
        """Return a chunk's bytes, compared with its id and with the length that the file's list says."""
        try:
            if chunk != self._last:
                assert self._pack is not None, "it was opened"
                self._data = self._pack.chunk(CHUNK_DATA, chunk)
                self._last = chunk
            check_length(chunk, self._data, length)
        except IntegrityError as error:
            wrote.bad.append((place, str(error)))
            return None
        return self._data
