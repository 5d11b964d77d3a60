"""Chunk lists of any length: both directions, and what a hostile one must not do."""

import random

import pytest
from blake3 import blake3

from replicator.errors import FormatError
from replicator.format.codec import encode
from replicator.format.pack import CHUNK_LIST
from replicator.format.sizes import MAX_CHUNK
from replicator.format.snapshot import LIST_LIMIT, ChunkList, ChunkRef
from replicator.format.tree import ListPiece
from replicator.snapshot import chunklist
from replicator.snapshot.chunklist import EMPTY, ListBuilder, batches, check_list, extents, leaves, run_at
from tests.snapshot.support import MemorySink


def refs(count: int, seed: int = 0) -> list[ChunkRef]:
    numbers = random.Random(seed)
    return [ChunkRef(id=numbers.randbytes(32), length=numbers.randint(1, 1000)) for _ in range(count)]


def built(sink: MemorySink, chunks: list[ChunkRef]) -> ChunkList:
    builder = ListBuilder(sink)
    for ref in chunks:
        builder.add(ref)
    assert builder.length == sum(ref.length for ref in chunks)
    return builder.finish()


def piece(sink: MemorySink, chunks: list[ChunkRef], length: int | None = None) -> ChunkRef:
    stored = sink.put(CHUNK_LIST, encode(ListPiece(chunks=chunks)))
    return ChunkRef(id=stored.id, length=sum(ref.length for ref in chunks) if length is None else length)


@pytest.mark.parametrize("count", [0, 1, LIST_LIMIT])
def test_a_list_up_to_the_limit_stays_in_its_place(sink: MemorySink, count: int) -> None:
    chunks = refs(count)
    content = built(sink, chunks)
    assert (content.depth, content.chunks) == (0, chunks)
    assert sink.puts[CHUNK_LIST] == 0
    assert list(leaves(content, sink)) == chunks


@pytest.mark.parametrize("count", [LIST_LIMIT + 1, 3 * LIST_LIMIT, 20_000])
def test_a_longer_list_is_cut_into_pieces_and_read_back(sink: MemorySink, count: int) -> None:
    chunks = refs(count)
    content = built(sink, chunks)
    assert content.depth == 1
    assert content.length == sum(ref.length for ref in chunks)
    assert list(leaves(content, sink)) == chunks


@pytest.mark.parametrize("count", [8, 9, 60, 500, 2000])
def test_lists_of_lists_are_read_back(sink: MemorySink, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunklist, "LIST_LIMIT", 8)
    monkeypatch.setattr(chunklist, "PIECE_MIN", 4)
    chunks = refs(count)
    content = built(sink, chunks)
    assert len(content.chunks) <= 8
    assert content.depth == {8: 0, 9: 1, 60: 1, 500: 2, 2000: 3}[count]
    assert list(leaves(content, sink)) == chunks
    assert sum(len(batch) for batch in batches(content, sink)) == len(sink.chunks) + count
    offset = 0
    for (place, ref), expected in zip(extents(content, sink), chunks, strict=True):
        assert (place, ref) == (offset, expected)
        offset += ref.length


@pytest.mark.parametrize("count", [1, 8, 9, 60, 500, 2000])
def test_every_byte_is_found_in_its_chunk_and_only_the_lists_above_it_are_read(
    sink: MemorySink, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunklist, "LIST_LIMIT", 8)
    monkeypatch.setattr(chunklist, "PIECE_MIN", 4)
    content = built(sink, refs(count))
    reads: list[bytes] = []

    class Counting(MemorySink):
        def get(self, kind: int, ref: ChunkRef) -> bytes:
            reads.append(ref.id)
            return sink.get(kind, ref)

    for begin, ref in extents(content, sink):
        for offset in (begin, begin + ref.length // 2, begin + ref.length - 1):
            reads.clear()
            run = run_at(content, Counting(), offset)
            place = run.place(offset)
            assert (run.begin(place), run.refs[place]) == (begin, ref)
            assert run.start <= offset < run.end
            assert len(reads) == content.depth
    for offset in (-1, content.length):
        with pytest.raises(IndexError):
            run_at(content, sink, offset)


def test_a_byte_is_not_looked_for_in_lists_whose_lengths_do_not_add_up(sink: MemorySink) -> None:
    chunks = refs(3)
    total = sum(ref.length for ref in chunks)
    for content in (
        ChunkList(depth=0, length=total + 1, chunks=chunks),
        ChunkList(depth=1, length=total + 1, chunks=[piece(sink, chunks, total + 1)]),
        ChunkList(depth=5, length=total, chunks=chunks),
    ):
        with pytest.raises(FormatError):
            run_at(content, sink, total - 1)


def test_pieces_end_where_an_id_says_so() -> None:
    chunks = refs(LIST_LIMIT + 1)
    chunks[2000] = ChunkRef(id=bytes(32), length=1)
    before = [place for place in range(1024, 2001) if int.from_bytes(chunks[place - 1].id[-2:], "big") & 1023 == 0]
    assert chunklist._piece_end(chunks) == (before[0] if before else 2001)
    odd = [ChunkRef(id=b"\xff" * 32, length=1)] * (LIST_LIMIT + 1)
    assert chunklist._piece_end(odd) == LIST_LIMIT
    zeros = [ChunkRef(id=bytes(32), length=1)] * (LIST_LIMIT + 1)
    assert chunklist._piece_end(zeros) == 1024


def test_a_chunk_more_renews_few_pieces(sink: MemorySink) -> None:
    chunks = refs(60_000)
    built(sink, chunks)
    before = set(sink.chunks)
    built(sink, chunks[:10_000] + refs(1, seed=1) + chunks[10_000:])
    assert len(set(sink.chunks) - before) <= 3 < len(before)


def test_lengths_that_do_not_add_up_are_refused(sink: MemorySink) -> None:
    chunks = refs(3)
    total = sum(ref.length for ref in chunks)
    for content in (
        ChunkList(depth=0, length=total + 1, chunks=chunks),
        ChunkList(depth=1, length=total, chunks=[piece(sink, chunks, total + 1)]),
        ChunkList(depth=1, length=total + 1, chunks=[piece(sink, chunks, total + 1)]),
        ChunkList(depth=0, length=1, chunks=[]),
        ChunkList(depth=1, length=0, chunks=[]),
    ):
        with pytest.raises(FormatError):
            list(leaves(content, sink))


@pytest.mark.parametrize("length", [0, MAX_CHUNK + 1])
def test_a_chunk_of_an_impossible_length_is_refused(length: int) -> None:
    with pytest.raises(FormatError, match="length is not between"):
        check_list(ChunkList(depth=0, length=length, chunks=[ChunkRef(id=bytes(32), length=length)]))


def test_a_piece_longer_than_the_limit_is_refused(sink: MemorySink) -> None:
    chunks = refs(LIST_LIMIT + 1)
    with pytest.raises(FormatError, match="4097 chunks"):
        check_list(ChunkList(depth=0, length=sum(ref.length for ref in chunks), chunks=chunks))
    stored = piece(sink, chunks)
    with pytest.raises(FormatError, match="4097 chunks"):
        list(leaves(ChunkList(depth=1, length=stored.length, chunks=[stored]), sink))


def test_a_list_deeper_than_the_format_allows_is_refused() -> None:
    with pytest.raises(FormatError, match="depth 5"):
        check_list(ChunkList(depth=5, length=1, chunks=[ChunkRef(id=bytes(32), length=1)]))


def test_an_empty_piece_below_is_refused(sink: MemorySink) -> None:
    stored = sink.put(CHUNK_LIST, encode(ListPiece(chunks=[])))
    content = ChunkList(depth=1, length=1, chunks=[ChunkRef(id=stored.id, length=1)])
    with pytest.raises(FormatError, match="0 chunks"):
        list(leaves(content, sink))


def test_pieces_that_repeat_each_other_are_read_no_faster_than_asked_for(sink: MemorySink) -> None:
    level = ChunkRef(id=blake3(b"x").digest(), length=1)
    for _ in range(4):
        level = piece(sink, [level] * LIST_LIMIT)
    bomb = ChunkList(depth=4, length=level.length, chunks=[level])
    first = [ref for ref, _ in zip(leaves(bomb, sink), range(10), strict=False)]
    assert [ref.length for ref in first] == [1] * 10


def test_the_empty_list_is_allowed() -> None:
    check_list(EMPTY)
