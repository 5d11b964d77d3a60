"""Writing chunks of a pack to their places: what a writing process does, or the restoring one by itself.

And looking at what is there, which only a process of its own does: it moves its working folder about.
"""

import errno
import itertools
from collections.abc import Sequence
from contextlib import suppress

from replicator.engine.writeframes import Look, NewFile, Part, Saw, Setup, TreePack, Unfinished, Write, Wrote
from replicator.errors import FormatError, IntegrityError
from replicator.format.pack import CHUNK_DATA, CHUNK_TREE
from replicator.format.snapshot import ChunkRef
from replicator.pack.reader import PackReader, ReaderKeys, check_length
from replicator.snapshot.looking import Looker, UnknownChunkError
from replicator.snapshot.metadata import Metadata, Rights
from replicator.snapshot.newfile import make_whole, write_part


def _keys(setup: Setup) -> ReaderKeys:
    return ReaderKeys(keys=setup.keys, restore_private=setup.restore_private, formers=setup.formers)


def _metadata(setup: Setup) -> Metadata:
    return Metadata(Rights(privileged=setup.privileged, numeric_ids=setup.numeric_ids))


class LookWork:
    """Looks at a target, with the packs of directories that lie in slots."""

    def __init__(self, setup: Setup, slots: Sequence[memoryview], top: int) -> None:
        self._keys = _keys(setup)
        self._slots = slots
        self._packs: dict[TreePack, PackReader] = {}
        self._looker = Looker(top, _metadata(setup), self._chunk)

    def look(self, message: Look) -> Saw:
        """Carry a task out; no slot that it names changes meanwhile."""
        self._packs = {pack: self._packs[pack] for pack in message.packs if pack in self._packs}
        for pack in message.packs:
            if pack not in self._packs:
                # A damaged one is as if it were not there: then the restoring process finds out by itself.
                with suppress(IntegrityError, FormatError):
                    self._packs[pack] = PackReader(self._slots[pack.slot][: pack.size], self._keys)
        return Saw(message.task, self._looker.look(message.parts, message.entries))

    def _chunk(self, ref: ChunkRef) -> bytes:
        for pack in self._packs.values():
            if pack.has(ref.id):
                data = pack.chunk(CHUNK_TREE, ref.id)
                check_length(ref.id, data, ref.length)
                return data
        raise UnknownChunkError


class WriteWork:
    """Opens packs and writes their chunks through descriptors; resolves no path."""

    def __init__(self, setup: Setup) -> None:
        self._keys = _keys(setup)
        self._metadata = _metadata(setup)
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
