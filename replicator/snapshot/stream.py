"""Large files to chunks, buffer by buffer, without reading holes."""

from collections.abc import Callable, Generator, Sequence
from typing import Final

from chunker import Chunker, ChunkerParams
from replicator.format.tree import Hole
from replicator.snapshot.readfile import Reader

SLACK: Final = 1 << 20
"""Of a buffer above the longest chunk, so that moving an unfinished one stays cheap beside reading."""

_LEAST: Final = 2 << 20


def buffer_size(params: ChunkerParams) -> int:
    """Return how long a buffer for :func:`pieces` is best: as short as can be.

    What was just read still lies in the processor's caches when it is cut and hashed: reading, cutting and hashing from
    2 MiB takes 1.3 times as long as hashing alone, from 8 MiB 1.5 times (``bench.cut_report``).
    """
    return max(_LEAST, params.maximum + SLACK)


class Piece:
    """Chunks that lie one after the other in a buffer, or ``zeros``: so many of nothing but zeros, as long as can be.

    ``view`` is the buffer's filled part, ``ends`` where each chunk ends in it.
    """

    __slots__ = ("ends", "view", "zeros")

    def __init__(self, view: memoryview, ends: Sequence[int], zeros: int = 0) -> None:
        self.view = view
        self.ends = ends
        self.zeros = zeros


def pieces(
    reader: Reader, holes: Sequence[Hole], chunker: Chunker, next_buffer: Callable[[], bytearray]
) -> Generator[Piece, None, None]:
    """Yield the chunks of what ``reader`` has left, from the start of its file.

    A buffer (:func:`buffer_size`, or longer) is asked for when it is needed. It may be the
    same one again: bytes behind its last chunk are moved, and nothing else of it is looked at any more. A hole that
    goes on for the longest chunk is not read: no position in zeros is ever a cut (:mod:`chunker.keys` sees to that),
    so a chunk that begins there is as long as can be. If the file is written meanwhile, its times show it.
    """
    longest = chunker.params.maximum
    tail = memoryview(b"")
    scanned = 0
    place = 0  # in the file, of the first byte that is in no chunk yet
    gaps = iter(holes)
    hole = next(gaps, None)
    last = False
    while not last:
        while hole is not None and hole.offset + hole.length <= place:
            hole = next(gaps, None)
        if hole is not None and hole.offset <= place:
            count = (hole.offset + hole.length - place) // longest
            if count:
                reader.skip(count * longest - len(tail))  # the tail are zeros of this hole too
                tail, scanned = memoryview(b""), 0
                place += count * longest
                yield Piece(memoryview(b""), (), zeros=count)
                continue
        whole = memoryview(next_buffer())
        filled = len(tail)
        whole[:filled] = tail
        filled += reader.fill(whole[filled:])
        last = filled < len(whole) or not reader.left
        view = whole[:filled]
        ends, scanned = chunker.cuts(view, final=last, scanned=scanned)
        end = ends[-1] if len(ends) else 0
        if end:
            yield Piece(view, ends)
        tail = view[end:]
        place += end
