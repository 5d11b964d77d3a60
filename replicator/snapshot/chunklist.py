"""Chunk lists of any length: built and read piece by piece, so that neither needs more memory than one path down.

A list of more than ``LIST_LIMIT`` chunks is cut into pieces that are stored as chunks of their own; the list
of those is the next depth, and so on. Pieces end where the ids say so, hence a change in the middle of a large
file renews the pieces around it and none behind.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from replicator.errors import FormatError
from replicator.format.codec import decode, encode
from replicator.format.pack import CHUNK_LIST
from replicator.format.sizes import MAX_CHUNK
from replicator.format.snapshot import LIST_LIMIT, ChunkList, ChunkRef
from replicator.format.tree import ListPiece
from replicator.snapshot.sink import ChunkPutter, ChunkSource

MAX_DEPTH = 4
"""Depth of the record type; 4096**5 chunks are more than any file has."""
PIECE_MIN = 1024
PIECE_MASK = 1023
"""A piece ends after a chunk whose id ends in ten zero bits: pieces hold about 2048 chunks, some 80 KB."""

EMPTY = ChunkList(depth=0, length=0, chunks=[])


class ListBuilder:
    """Collects the chunks of one content in order; list pieces go to the sink as soon as they are full."""

    def __init__(self, sink: ChunkPutter) -> None:
        self._sink = sink
        self._levels: list[list[ChunkRef]] = [[]]
        self._length = 0

    @property
    def length(self) -> int:
        """Bytes of content so far."""
        return self._length

    def add(self, ref: ChunkRef) -> None:
        """Append a chunk."""
        self._length += ref.length
        self._append(0, ref)

    def finish(self) -> ChunkList:
        """Return the list of everything added; the builder is used up."""
        depth = 0
        while depth < len(self._levels) - 1:
            while self._levels[depth]:
                self._flush(depth)
            depth += 1
        return ChunkList(depth=depth, length=self._length, chunks=self._levels[depth])

    def _append(self, depth: int, ref: ChunkRef) -> None:
        if depth == len(self._levels):
            self._levels.append([])
        level = self._levels[depth]
        level.append(ref)
        if len(level) > LIST_LIMIT:
            self._flush(depth)

    def _flush(self, depth: int) -> None:
        level = self._levels[depth]
        end = _piece_end(level)
        piece, level[:end] = level[:end], []
        stored = self._sink.put(CHUNK_LIST, encode(ListPiece(chunks=piece)))
        self._append(depth + 1, ChunkRef(id=stored.id, length=sum(ref.length for ref in piece)))


def _piece_end(refs: Sequence[ChunkRef]) -> int:
    for place in range(PIECE_MIN, min(len(refs), LIST_LIMIT)):
        if int.from_bytes(refs[place - 1].id[-2:], "big") & PIECE_MASK == 0:
            return place
    return min(len(refs), LIST_LIMIT)


def leaves(content: ChunkList, source: ChunkSource) -> Iterator[ChunkRef]:
    """Yield the chunks of a content in order, reading list pieces as they are reached.

    Raises:
        FormatError: a list is too long or too deep, holds an empty chunk, or its lengths do not add up.
    """
    for refs, depth in _nodes(content, source):
        if depth == 0:
            yield from refs


def batches(content: ChunkList, source: ChunkSource) -> Iterator[Sequence[ChunkRef]]:
    """Yield everything that a content relies on, list chunks and data chunks, list by list.

    Raises:
        FormatError: as :func:`leaves`.
    """
    for refs, _ in _nodes(content, source):
        yield refs


def extents(content: ChunkList, source: ChunkSource) -> Iterator[tuple[int, ChunkRef]]:
    """Yield (offset, chunk) for every chunk of a content, in order.

    Raises:
        FormatError: as :func:`leaves`.
    """
    offset = 0
    for ref in leaves(content, source):
        yield offset, ref
        offset += ref.length


class Run:
    """Neighbouring chunks of a content, those of one list; it begins at byte ``start`` and is at most 4096 of them."""

    def __init__(self, start: int, refs: Sequence[ChunkRef]) -> None:
        self.start = start
        self.refs = refs
        self.ends = list(accumulate((ref.length for ref in refs), initial=start))[1:]
        """The offset behind each chunk."""

    @property
    def end(self) -> int:
        """The offset behind the last chunk."""
        return self.ends[-1]

    def place(self, offset: int) -> int:
        """Return which chunk a byte of the run is in."""
        return bisect_right(self.ends, offset)

    def begin(self, place: int) -> int:
        """Return the offset of a chunk's first byte."""
        return self.ends[place - 1] if place else self.start


def run_at(content: ChunkList, source: ChunkSource, offset: int) -> Run:
    """Return the run that byte ``offset`` of a content is in; only the list pieces above it are read.

    Raises:
        IndexError: there is no such byte.
        FormatError: as :func:`leaves`.
    """
    if not 0 <= offset < content.length:
        raise IndexError(f"byte {offset} of {content.length}")
    check_list(content)
    run, depth = Run(0, content.chunks), content.depth
    while depth:
        depth -= 1
        place = run.place(offset)
        run = Run(run.begin(place), list_piece(run.refs[place], depth + 1, source))
    return run


def check_list(content: ChunkList) -> None:
    """Check what can be seen of a list without reading its pieces.

    Raises:
        FormatError: as :func:`leaves`.
    """
    if content.depth > MAX_DEPTH:
        raise FormatError(f"chunk list: depth {content.depth}, at most {MAX_DEPTH} is allowed")
    if content.chunks or content.depth or content.length:
        _check(content.chunks, content.length, content.depth)


def _nodes(content: ChunkList, source: ChunkSource) -> Iterator[tuple[Sequence[ChunkRef], int]]:
    check_list(content)
    yield from _below(content.chunks, content.depth, source)


def _below(refs: Sequence[ChunkRef], depth: int, source: ChunkSource) -> Iterator[tuple[Sequence[ChunkRef], int]]:
    yield refs, depth
    if depth:
        for ref in refs:
            yield from _below(list_piece(ref, depth, source), depth - 1, source)


def list_piece(ref: ChunkRef, depth: int, source: ChunkSource) -> Sequence[ChunkRef]:
    """Return the entries of the list piece that an entry of a list of this depth names.

    Raises:
        FormatError: as :func:`leaves`.
    """
    piece = decode(ListPiece, source.get(CHUNK_LIST, ref), limit=MAX_CHUNK)
    _check(piece.chunks, ref.length, depth - 1)
    return piece.chunks


def _check(refs: Sequence[ChunkRef], length: int, depth: int) -> None:
    if len(refs) == 1 and depth == 0 and 1 <= refs[0].length <= MAX_CHUNK and refs[0].length == length:
        return  # what most files are: it is asked for each of them, several times
    if not 1 <= len(refs) <= LIST_LIMIT:
        raise FormatError(f"chunk list: {len(refs)} chunks in one piece, 1 to {LIST_LIMIT} are allowed")
    largest = MAX_CHUNK if depth == 0 else length
    if not all(1 <= ref.length <= largest for ref in refs):
        raise FormatError(f"chunk list: a chunk's length is not between 1 and {largest} bytes")
    total = sum(ref.length for ref in refs)
    if total != length:
        raise FormatError(f"chunk list: the chunks hold {total} bytes, the list says {length}")
