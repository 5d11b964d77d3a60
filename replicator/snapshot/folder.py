"""Directories as tree pieces whose ends follow from the names, so that one new name renews one piece."""

from zlib import crc32

from replicator.format.codec import encode
from replicator.format.pack import CHUNK_TREE
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import PIECE_ENTRIES, Entry, TreePiece
from replicator.snapshot.chunklist import ListBuilder
from replicator.snapshot.sink import ChunkSink
from replicator.snapshot.statcache import UNTRUSTED, FolderRows, KnownPiece

PIECE_MIN = 128
PIECE_MASK = 255
"""A piece ends after a name whose CRC-32 ends in eight zero bits: pieces hold about 384 names."""
PIECE_ROOM = 1 << 20
"""Bytes after which a piece ends in any case; with :data:`ENTRY_ROOM` it stays below ``MAX_CHUNK``."""
ENTRY_ROOM = 2 << 20
"""Bytes one entry may take: a full chunk list, ``MAX_HOLES`` holes, ``MAX_XATTRS`` of attributes and a path."""


class FolderBuilder:
    """Collects the entries of one directory in rising order of names; pieces go to the sink when full.

    A run of entries that is exactly a piece of the last snapshot, and of which nothing changed, is neither encoded nor
    put again: such an unchanged directory costs a look-up.
    """

    def __init__(self, sink: ChunkSink, rows: FolderRows | None = None) -> None:
        """``rows`` records the pieces, and what each entry looked like, for the next capture."""
        self._sink = sink
        self._pieces = ListBuilder(sink)
        self._rows = rows
        self._entries: list[Entry] = []
        self._stamps: list[bytes] = []
        self._room = 0
        self._run: KnownPiece | None = None
        self._kept = 0

    def add(self, entry: Entry, stamp: bytes = UNTRUSTED) -> None:
        """Append the entry with the next name."""
        if self._run is not None:
            self._take_apart()
        self._append(entry, stamp)

    def keep(self, known: KnownPiece, place: int, count: int = 1) -> None:
        """Append entries of a piece of the last snapshot, from a place on, that are in all as they were."""
        if self._run is known and place == self._kept:
            self._kept += count
        elif self._run is None and not self._entries and place == 0:
            self._run, self._kept = known, count
        else:
            for number in range(place, place + count):
                self.add(known.entries[number], known.stamp(number))
            return
        if known.ended and self._kept == len(known.entries):
            self._reuse(known)

    def finish(self) -> ChunkList:
        """Return the directory's content; the builder is used up."""
        if self._run is not None:
            if self._kept == len(self._run.entries):
                self._reuse(self._run)
            else:
                self._take_apart()
        if self._entries:
            self._flush(ended=False)
        if self._rows is not None:
            self._rows.finish()
        return self._pieces.finish()

    def _append(self, entry: Entry, stamp: bytes) -> None:
        self._entries.append(entry)
        self._stamps.append(stamp)
        self._room += room_of(entry)
        count = len(self._entries)
        ends = count >= PIECE_MIN and crc32(entry.name) & PIECE_MASK == 0
        if ends or count == PIECE_ENTRIES or self._room >= PIECE_ROOM:
            self._flush(ended=True)

    def _reuse(self, known: KnownPiece) -> None:
        ref = ChunkRef(id=known.id, length=known.length)
        if not self._sink.known([ref]):  # its pack is lost: write it again
            self._take_apart()
            return
        self._run = None
        self._pieces.add(ref)
        if self._rows is not None:
            self._rows.keep(known)

    def _take_apart(self) -> None:
        """Go on with what was kept of a piece as with new entries."""
        known, self._run = self._run, None
        assert known is not None, "a run was begun"
        for place in range(self._kept):
            self._append(known.entries[place], known.stamp(place))

    def _flush(self, *, ended: bool) -> None:
        piece = encode(TreePiece(entries=self._entries))
        ref = self._sink.put(CHUNK_TREE, piece)
        self._pieces.add(ref)
        if self._rows is not None:
            self._rows.add(ref.id, piece, self._stamps, ended=ended)
        self._entries = []
        self._stamps = []
        self._room = 0


def room_of(entry: Entry) -> int:
    """Return the most bytes that an entry takes in a piece."""
    room = 192 + len(entry.name) + len(entry.target) + 4 * (len(entry.user) + len(entry.group))
    if entry.content is not None:
        room += 48 * len(entry.content.chunks)
    if entry.xattrs:
        room += sum(16 + len(attribute.name) + len(attribute.value) for attribute in entry.xattrs)
    return room + 24 * len(entry.holes)
