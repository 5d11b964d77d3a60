"""Directories as pieces: where they end, and how little a change renews."""

from zlib import crc32

from replicator.format.codec import encode
from replicator.format.pack import CHUNK_TREE
from replicator.format.sizes import MAX_CHUNK
from replicator.format.snapshot import LIST_LIMIT, ChunkList, ChunkRef
from replicator.format.tree import PIECE_ENTRIES, Entry, Hole, TreePiece
from replicator.snapshot.folder import ENTRY_ROOM, PIECE_ROOM, room_of
from replicator.snapshot.readfile import MAX_HOLES, MAX_XATTRS
from replicator.snapshot.tree import MAX_TARGET, TreeReader
from tests.snapshot.support import MemorySink, attribute, entry, folder_of


def named(count: int) -> list[Entry]:
    return [entry(b"%06d" % number) for number in range(count)]


def test_an_empty_folder_has_no_pieces(sink: MemorySink) -> None:
    assert folder_of(sink, []) == ChunkList(depth=0, length=0, chunks=[])


def test_a_large_folder_is_read_back_in_order(sink: MemorySink) -> None:
    entries = named(20_000)
    content = folder_of(sink, entries)
    assert list(TreeReader(sink).entries(content)) == entries
    sizes = [len(TreeReader(sink).piece(ref)) for ref in content.chunks]
    assert max(sizes) <= PIECE_ENTRIES
    assert min(sizes[:-1]) >= 128


def test_a_new_name_renews_one_piece(sink: MemorySink) -> None:
    entries = named(20_000)
    folder_of(sink, entries)
    before = set(sink.chunks)
    folder_of(sink, [*entries[:7000], entry(b"006999 new"), *entries[7000:]])
    assert 1 <= len(set(sink.chunks) - before) <= 2


def test_names_that_never_end_a_piece_meet_the_limit(sink: MemorySink) -> None:
    content = folder_of(sink, (one for one in named(20_000) if not _ends(one.name)))
    sizes = {len(TreeReader(sink).piece(ref)) for ref in content.chunks[:-1]}
    assert sizes == {PIECE_ENTRIES}


def _ends(name: bytes) -> bool:
    return crc32(name) & 255 == 0


def largest(name: bytes) -> Entry:
    return entry(
        name,
        kind="file",
        user="ö" * 255,
        group="ö" * 255,
        size=2**62,
        content=ChunkList(depth=4, length=2**62, chunks=[ChunkRef(id=bytes(32), length=2**62)] * LIST_LIMIT),
        target=bytes(MAX_TARGET),
        holes=[Hole(offset=2**62, length=2**62)] * MAX_HOLES,
        xattrs=[attribute(b"n" * 255, bytes(1024))] * (MAX_XATTRS // (1024 + 255)),
    )


def test_the_largest_entries_still_make_pieces_that_fit_a_chunk(sink: MemorySink) -> None:
    one = largest(b"n" * 255)
    assert len(encode(TreePiece(entries=[one]))) <= room_of(one) <= ENTRY_ROOM
    assert PIECE_ROOM + ENTRY_ROOM < MAX_CHUNK
    content = folder_of(sink, [largest(b"%d" % number) for number in range(5)])
    assert len(content.chunks) == 5
    assert sink.puts[CHUNK_TREE] == 5


def test_many_tiny_attributes_are_counted_with_their_frames() -> None:
    one = entry(xattrs=[attribute(b"%d" % number, b"") for number in range(10_000)])
    assert len(encode(TreePiece(entries=[one]))) <= room_of(one)
