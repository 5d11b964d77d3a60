"""Directories as tree pieces whose ends follow from the names, so that one new name renews one piece."""

from zlib import crc32

from replicator.format.codec import encode
from replicator.format.pack import CHUNK_TREE
from replicator.format.snapshot import ChunkList
from replicator.format.tree import PIECE_ENTRIES, Entry, TreePiece
from replicator.snapshot.chunklist import ListBuilder
from replicator.snapshot.sink import ChunkPutter

PIECE_MIN = 128
PIECE_MASK = 255
"""A piece ends after a name whose CRC-32 ends in eight zero bits: pieces hold about 384 names."""
PIECE_ROOM = 1 << 20
"""Bytes after which a piece ends in any case; with :data:`ENTRY_ROOM` it stays below ``MAX_CHUNK``."""
ENTRY_ROOM = 2 << 20
"""Bytes one entry may take: a full chunk list, ``MAX_HOLES`` holes, ``MAX_XATTRS`` of attributes and a path."""


class FolderBuilder:
    """Collects the entries of one directory in rising order of names; pieces go to the sink when full."""

    def __init__(self, sink: ChunkPutter) -> None:
        self._sink = sink
        self._pieces = ListBuilder(sink)
        self._entries: list[Entry] = []
        self._room = 0

    def add(self, entry: Entry) -> None:
        """Append the entry with the next name."""
        self._entries.append(entry)
        self._room += room_of(entry)
        count = len(self._entries)
        ends = count >= PIECE_MIN and crc32(entry.name) & PIECE_MASK == 0
        if ends or count == PIECE_ENTRIES or self._room >= PIECE_ROOM:
            self._flush()

    def finish(self) -> ChunkList:
        """Return the directory's content; the builder is used up."""
        if self._entries:
            self._flush()
        return self._pieces.finish()

    def _flush(self) -> None:
        self._pieces.add(self._sink.put(CHUNK_TREE, encode(TreePiece(entries=self._entries))))
        self._entries = []
        self._room = 0


def room_of(entry: Entry) -> int:
    """Return the most bytes that an entry takes in a piece."""
    room = 192 + len(entry.name) + len(entry.target) + 4 * (len(entry.user) + len(entry.group))
    if entry.content is not None:
        room += 48 * len(entry.content.chunks)
    if entry.xattrs:
        room += sum(16 + len(attribute.name) + len(attribute.value) for attribute in entry.xattrs)
    return room + 24 * len(entry.holes)
