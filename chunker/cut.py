"""The cutter in readable Python: the algorithm's reference, and the twin of the C kernel.

The formulas stand in csrc/scan.h. It cuts some megabytes a second: enough for tests, for a platform without a
compiler and for restoring trust in the kernel, too slow for a backup.
"""

from array import array
from struct import unpack_from
from typing import Final

from chunker.buffers import BytesLike
from chunker.keys import KernelKey
from chunker.params import ChunkerParams

_STRIDE: Final = 76
_WARM: Final = 7 * _STRIDE  # after eight steps of two bits, nothing of a 16-bit value is left
_WORD: Final = (1 << 64) - 1


class PythonCutter:
    """A key and sizes bound to the Python kernel; immutable."""

    __slots__ = ("_key", "_mask", "_params", "_ramp")

    def __init__(self, key: KernelKey, params: ChunkerParams) -> None:
        self._key = key
        self._params = params
        self._ramp = params.ramp
        self._mask = (1 << params.filter_bits) - 1

    def cuts(self, buffer: BytesLike, final: bool, scanned: int, /) -> tuple[bytes, int]:
        """Cut a buffer; see chunker.Chunker.cuts. The offsets are packed as native 64-bit numbers."""
        with memoryview(buffer) as view:
            if not view.c_contiguous:
                raise BufferError("the underlying buffer is not C-contiguous")
            with memoryview(view.tobytes()) as data:
                return self._cuts(data, final, scanned)

    def _cuts(self, data: memoryview, final: bool, scanned: int) -> tuple[bytes, int]:
        minimum, maximum = self._params.minimum, self._params.maximum
        offsets = array("Q")
        start = 0
        while start < len(data):
            chunk = data[start : start + maximum]
            cut = None
            if len(chunk) > minimum:
                cut = self._first_cut(chunk, max(minimum - 1, scanned))
            if cut is not None:
                start += cut + 1
            elif final or len(chunk) == maximum:
                start += len(chunk)
            else:
                return offsets.tobytes(), len(chunk)
            offsets.append(start)
            scanned = 0
        return offsets.tobytes(), 0

    def _first_cut(self, chunk: memoryview, first: int) -> int | None:
        """The first index from `first` on that ends the chunk, or None."""
        k1, k2, mask = self._key.k1, self._key.k2, self._mask
        want = self._key.t & mask
        values = [0] * _STRIDE  # V of the 76 positions before; the zeros are shifted out by the warm-up
        for i in range(first - _WARM, len(chunk)):
            w = chunk[i - 1] | chunk[i] << 8
            w2 = chunk[i - 3] | chunk[i - 2] << 8
            value = values[-_STRIDE] >> 2 ^ (k1 * w + k2 * w2) & 0xFFFF
            values.append(value)
            if value & mask == want and i >= first and self._hash(chunk, i) < self._threshold(i + 1):
                return i
        return None

    def _hash(self, chunk: memoryview, i: int) -> int:
        w: tuple[int, ...] = unpack_from("<8Q", chunk, i - 63)
        n = self._key.words
        total = sum(((w[j] + n[j]) & _WORD) * ((w[j + 1] + n[j + 1]) & _WORD) for j in (0, 2, 4, 6))
        folded = (total ^ total >> 64) & _WORD  # bits above 128 fall to the mask
        return (folded * (n[8] | 1) & _WORD) >> 32

    def _threshold(self, length: int) -> int:
        return min((1 << 32) - 1, (length - self._params.minimum) * self._ramp >> 16)
