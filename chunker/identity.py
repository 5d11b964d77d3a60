"""Chunk ids: keyed BLAKE3, so that an id says nothing to whoever lacks the key.

One key serves one domain and one type of content; ids from different keys never meet. An id is a message
authentication code of the plaintext, and never leaves the client unencrypted.
"""

from typing import Final, NewType

from blake3 import blake3

from chunker.buffers import BytesLike
from chunker.errors import ParameterError
from chunker.keys import KEY_BYTES

ChunkId = NewType("ChunkId", bytes)
"""32 bytes."""

ID_BYTES: Final = 32


class ChunkHasher:
    """Names chunks under one key; immutable, so threads may share it. The GIL is released for long chunks.

    Raises:
        ParameterError: the key is not 32 bytes.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ParameterError("key", f"{len(key)} bytes", f"{KEY_BYTES} bytes")
        self._key = bytes(key)

    def __call__(self, data: BytesLike) -> ChunkId:
        """The id of a chunk, hashed in one call on the calling thread (more threads lose at chunk sizes)."""
        return ChunkId(blake3(data, key=self._key, max_threads=1).digest())


def chunk_id(key: bytes, data: BytesLike) -> ChunkId:
    """The id of a single chunk; for many under one key, keep a ChunkHasher."""
    return ChunkHasher(key)(data)
