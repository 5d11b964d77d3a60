"""From a source of bytes to chunks, through one reused buffer."""

from collections.abc import Callable, Generator
from typing import Final, Protocol, TypeAlias

from chunker.chunking import Chunker
from chunker.errors import ParameterError

DEFAULT_BUFFER: Final = 8 << 20  # fits the second-level caches with room for several large chunks
BUFFER_SLACK: Final = 1 << 20  # above the maximum, so that moving the tail stays cheap beside reading


class SupportsReadInto(Protocol):
    """A blocking, unbuffered source, such as `open(path, "rb", buffering=0)`."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a prefix of the buffer and return its length; 0 is the end of the stream."""


Source: TypeAlias = SupportsReadInto | Callable[[memoryview], int | None]


def chunks(source: Source, chunker: Chunker, buffer: bytearray | None = None) -> Generator[memoryview, None, None]:
    """Yield the chunks of a source, in order, as read-only views of the buffer.

    Ownership: a view is valid until the next step of the iterator and is released then, so that a consumer
    that kept it gets a ValueError instead of other bytes; copy what must live longer. An export of the view
    that is still held at that step (a NumPy array, a running compression) makes the step raise BufferError.

    `buffer` is where the source is read to, at least the chunker's maximum + 1 MiB long (8 MiB are made if
    none is given). It belongs to the iterator until that is exhausted or closed; then it can be reused. The
    source is asked for more only when the whole buffer has been cut. Reads of any length give the same chunks.

    Raises:
        ParameterError: the buffer is too short, or the source breaks its contract (no bytes now, as from a
            non-blocking file, or an impossible count).
    """
    least = chunker.params.maximum + BUFFER_SLACK
    if buffer is None:
        buffer = bytearray(DEFAULT_BUFFER)
    if len(buffer) < least:
        raise ParameterError("buffer", f"{len(buffer)} bytes", f"at least {least} bytes")
    read_into = source if callable(source) else source.readinto
    return _chunks(read_into, chunker, buffer)


def _chunks(
    read_into: Callable[[memoryview], int | None], chunker: Chunker, buffer: bytearray
) -> Generator[memoryview, None, None]:
    with memoryview(buffer) as view:
        filled = scanned = 0  # the unfinished chunk: its length, and how much of it has been searched
        final = False
        while not final:
            filled, final = _fill(read_into, view, filled)
            with view[:filled] as data:
                offsets, scanned = chunker.cuts(data, final=final, scanned=scanned)
            start = 0
            for end in offsets:
                with view[start:end] as window, window.toreadonly() as chunk:
                    yield chunk
                start = end
            filled -= start
            view[:filled] = view[start : start + filled]


def _fill(read_into: Callable[[memoryview], int | None], view: memoryview, filled: int) -> tuple[int, bool]:
    """Read until the view is full or the source ends; return how much is filled, and whether it ended."""
    while filled < len(view):
        with view[filled:] as room:
            count = read_into(room)
        if count is None or not 0 <= count <= len(view) - filled:
            rule = f"a count of 0 to {len(view) - filled} bytes from a blocking source"
            raise ParameterError("what the source returned", count, rule)
        if count == 0:
            return filled, True
        filled += count
    return filled, False
