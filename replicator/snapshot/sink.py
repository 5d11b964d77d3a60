"""What capture and restore need of the rest: a place for chunks and a place to get them from."""

from collections.abc import Sequence
from typing import Protocol

from replicator.format.snapshot import ChunkRef


class ChunkPutter(Protocol):
    """Takes chunks: all that building lists and directories needs."""

    def put(self, kind: int, data: bytes | memoryview) -> ChunkRef:
        """Identify a chunk and store it unless it is stored already; ``length`` of the answer is that of ``data``.

        ``kind`` is one of ``CHUNK_DATA``, ``CHUNK_TREE``, ``CHUNK_LIST`` of :mod:`replicator.format.pack`.
        ``data`` (1 byte to ``MAX_CHUNK``) is copied or consumed before the return: its buffer is used again.
        """
        ...


class ChunkSink(ChunkPutter, Protocol):
    """Takes the chunks of a snapshot.

    A snapshot relies on exactly what was put, and on what :meth:`known` confirmed, while it was captured.
    Errors of a sink are never taken for errors of a file: they end the capture.
    """

    def known(self, chunks: Sequence[ChunkRef]) -> bool:
        """Return whether the snapshot may rely on every one of them (data, tree or list chunks) without reading.

        A sink may say so before it has looked, and find out later that one is missing: then the capture is done again,
        and what holds that chunk is not known any more.
        """
        ...


class ChunkSource(Protocol):
    """Gives back what a sink took."""

    def get(self, kind: int, ref: ChunkRef) -> bytes:
        """Return the verified plaintext of a chunk.

        It is found by kind and id. For ``CHUNK_LIST`` the length of ``ref`` is not the chunk's own but that
        of the content below it.
        """
        ...
