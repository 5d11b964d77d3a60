from typing import final

from chunker.buffers import BytesLike

KERNELS: tuple[str, ...]

@final
class Cutter:
    def __new__(cls, state: bytes, kernel: str, /) -> Cutter: ...
    def cuts(self, buffer: BytesLike, final: bool, scanned: int, /) -> tuple[bytes, int]: ...
