"""Compression of single chunks, and decompression that trusts nothing about the stored bytes.

A stored chunk is either the plaintext itself or one zstd frame that declares its content size.
"""

import enum
from threading import local
from typing import Final

from pyzstd import ZstdCompressor, compressionLevel_values
from zstandard import CONTENTSIZE_UNKNOWN, ZstdDecompressor, ZstdError, get_frame_parameters

from chunker.buffers import BytesLike
from chunker.errors import CorruptChunkError, ParameterError
from chunker.params import MAXIMUM_CEILING

DEFAULT_LEVEL: Final = 3
MAXIMUM_RAW_LENGTH: Final = MAXIMUM_CEILING
_WORTH: Final = 32  # a frame must save 1/32: less does not pay for decompressing it at every restore
# Measured on 1 MiB: random bytes cost 10 instead of 110 microseconds, text 2.43 instead of 2.32 milliseconds.
_SAMPLE_FROM: Final = 64 << 10
_SAMPLES: Final = 8
_SAMPLE_BYTES: Final = 2 << 10


class _Own(local):
    """A zstd context for each thread: to make one takes as long as decompressing 20 KB, and none may be shared."""

    def __init__(self) -> None:
        self.zstd = ZstdDecompressor()


_own = _Own()


class Encoding(enum.IntEnum):
    """How a chunk is stored; the numbers are part of the pack format."""

    RAW = 0
    ZSTD = 1


class Compressor:
    """Compresses chunk after chunk with one zstd context; one object per thread.

    Raises:
        ParameterError: zstd knows no such level.
    """

    __slots__ = ("_zstd",)

    def __init__(self, level: int = DEFAULT_LEVEL) -> None:
        least, most = compressionLevel_values.min, compressionLevel_values.max
        if not least <= level <= most:
            raise ParameterError("level", level, f"between {least} and {most}")
        self._zstd = ZstdCompressor(level)

    def compress(self, data: BytesLike) -> tuple[Encoding, BytesLike]:
        """Return the encoding and the bytes to store: `data` itself (not a copy) when compressing saves little.

        A chunk of 64 KiB or more is sampled first (16 KiB in eight places): if the sample does not shrink, the
        chunk is not compressed, even if parts between the samples would.

        Raises:
            ParameterError: `data` is longer than 4 MiB.
        """
        with memoryview(data).cast("B") as view:
            if len(view) > MAXIMUM_RAW_LENGTH:
                raise ParameterError("data", f"{len(view)} bytes", f"at most {MAXIMUM_RAW_LENGTH} bytes")
            if len(view) >= _SAMPLE_FROM and not self._shrinks(view):
                return Encoding.RAW, data
            frame = self._frame(view)
            if _is_worth(len(view), len(frame)):
                return Encoding.ZSTD, frame
            return Encoding.RAW, data

    def _shrinks(self, view: memoryview) -> bool:
        step = (len(view) - _SAMPLE_BYTES) // (_SAMPLES - 1)
        sample = b"".join(view[at * step : at * step + _SAMPLE_BYTES] for at in range(_SAMPLES))
        return _is_worth(len(sample), len(self._frame(sample)))

    def _frame(self, data: BytesLike) -> bytes:
        # Ending the frame in the call that begins it lets zstd declare the content size and size its window.
        return self._zstd.compress(data, ZstdCompressor.FLUSH_FRAME)


def _is_worth(raw: int, stored: int) -> bool:
    return (raw - stored) * _WORTH >= raw and stored < raw


def decompress(encoding: int, stored: BytesLike, raw_length: int) -> BytesLike:
    """Return the chunk: `stored` itself if it is raw, else new bytes.

    `raw_length` is the length that the caller has authenticated; memory use is bounded by it and by 4 MiB,
    whatever the stored bytes claim.

    Raises:
        CorruptChunkError: the encoding is unknown, or the stored bytes are not exactly one chunk of that length.
    """
    if not 0 <= raw_length <= MAXIMUM_RAW_LENGTH:
        raise CorruptChunkError(f"a length of {raw_length} bytes is not between 0 and {MAXIMUM_RAW_LENGTH}")
    if encoding == Encoding.RAW:
        length = memoryview(stored).nbytes
        if length != raw_length:
            raise CorruptChunkError(f"{length} raw bytes are stored for a length of {raw_length}")
        return stored
    if encoding != Encoding.ZSTD:
        raise CorruptChunkError(f"encoding {encoding} is unknown")
    return _unframe(stored, raw_length)


def _unframe(stored: BytesLike, raw_length: int) -> bytes:
    if raw_length == 0:
        raise CorruptChunkError("an empty chunk is stored raw, never as a frame")
    view = memoryview(stored)
    try:
        frame = get_frame_parameters(view)
        if frame.content_size != raw_length:
            raise CorruptChunkError(f"the frame declares {_size(frame.content_size)} for a length of {raw_length}")
        if frame.window_size > MAXIMUM_RAW_LENGTH:
            raise CorruptChunkError(f"the frame has a window of {frame.window_size} bytes")
        # That as many bytes come out as the frame declares is for zstd to check, and it does.
        return _own.zstd.decompress(view, allow_extra_data=False)
    except ZstdError as error:
        raise CorruptChunkError(f"zstd refuses it ({error})") from error


def _size(declared: int) -> str:
    return "no size" if declared == CONTENTSIZE_UNKNOWN else f"{declared} bytes"
