"""The cutter as its users see it."""

from typing import Self

from chunker.buffers import BytesLike
from chunker.errors import ParameterError
from chunker.kernels import Kernel, select_kernel
from chunker.keys import derive_key
from chunker.params import ChunkerParams


class Chunker:
    """Cuts streams of bytes into content-defined chunks.

    Immutable and without state between calls, so one object serves any number of threads and streams; the GIL
    is released for buffers of 64 KiB and more. `key` is 32 bytes, the sizes are bytes as in ChunkerParams.
    Without `kernel`, the environment chooses (see chunker.kernels).

    Raises:
        ParameterError: the key or the sizes are out of range.
        KernelUnavailableError: the kernel that the environment demands is not there.
    """

    __slots__ = ("_cuts", "_kernel", "_params")

    def __init__(self, key: bytes, minimum: int, average: int, maximum: int, *, kernel: Kernel | None = None) -> None:
        self._params = ChunkerParams(minimum, average, maximum)
        self._kernel = select_kernel() if kernel is None else kernel
        self._cuts = self._kernel.bind(derive_key(key), self._params).cuts

    @classmethod
    def from_params(cls, key: bytes, params: ChunkerParams, *, kernel: Kernel | None = None) -> Self:
        return cls(key, params.minimum, params.average, params.maximum, kernel=kernel)

    @property
    def params(self) -> ChunkerParams:
        return self._params

    @property
    def kernel(self) -> str:
        """The name of the kernel in use."""
        return self._kernel.name

    def __repr__(self) -> str:
        return f"Chunker(<key>, {self._params}, kernel={self.kernel!r})"

    def cuts(self, buf: BytesLike, final: bool = True, scanned: int = 0) -> tuple[memoryview, int]:
        """Find the ends of the chunks in a buffer that begins at the start of a chunk.

        Returns `(offsets, scanned)`. The offsets are a read-only memoryview of format "Q": exclusive ends,
        ascending, relative to the buffer; it owns its memory. The buffer is read in place and not kept.

        With `final`, the buffer's end is the end of the stream and of the last chunk (an empty buffer has no
        chunk). Without it, the unfinished last chunk (less than `maximum` bytes) is left out: present its bytes
        again at the front of the next buffer and pass `scanned` back, so that none are searched twice. However
        a stream is divided into buffers, the cuts are the same; a wrong `scanned` gives other cuts.

        Raises:
            ParameterError: `scanned` lies outside the buffer.
            BufferError: the buffer is not contiguous.
        """
        if scanned != 0:
            length = memoryview(buf).nbytes
            if not 0 < scanned <= length:
                raise ParameterError("scanned", scanned, f"between 0 and the buffer's length, {length}")
        offsets, scanned = self._cuts(buf, final, scanned)
        return memoryview(offsets).cast("Q"), scanned
