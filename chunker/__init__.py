"""Bytes to chunks, chunks to ids, ids to "have we seen it": the pure-compute part of the backup path.

    chunker = Chunker(key, SMALL.minimum, SMALL.average, SMALL.maximum)
    for chunk in chunks(open(path, "rb", buffering=0), chunker):
        name = hasher(chunk)                              # keyed BLAKE3
        if index.lookup([name]) == [None]:
            encoding, stored = compressor.compress(chunk)

The cutter exists as a compiled kernel and as a readable Python twin with bit-identical cuts. Nothing here
opens files, holds keys longer than its objects live, or knows of packs and peers.
"""

from chunker.buffers import BytesLike
from chunker.chunking import Chunker
from chunker.compress import Compressor, Encoding, decompress
from chunker.dedup import Location, MemorySeenIndex, SeenIndex
from chunker.errors import ChunkerError, CorruptChunkError, KernelUnavailableError, ParameterError
from chunker.identity import ChunkHasher, ChunkId, chunk_id
from chunker.params import LARGE, SMALL, ChunkerParams
from chunker.stream import chunks

__all__ = [
    "LARGE",
    "SMALL",
    "BytesLike",
    "ChunkHasher",
    "ChunkId",
    "Chunker",
    "ChunkerError",
    "ChunkerParams",
    "Compressor",
    "CorruptChunkError",
    "Encoding",
    "KernelUnavailableError",
    "Location",
    "MemorySeenIndex",
    "ParameterError",
    "SeenIndex",
    "chunk_id",
    "chunks",
    "decompress",
]
