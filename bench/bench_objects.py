"""What every chunk and every object costs besides cutting: decompressing one chunk, naming one object."""

import random
from typing import Any

import pytest
from pyzstd import ZstdCompressor, ZstdDecompressor

from chunker import Encoding, decompress
from replicator.format.merkle import leaf_hash, name_of

SEED = 20261128


def text(size: int) -> bytes:
    """Return what compresses as source code does."""
    rng = random.Random(SEED)
    words = [bytes(rng.choices(range(97, 123), k=rng.randint(2, 9))) for _ in range(400)]
    return b" ".join(rng.choices(words, k=size))[:size]


@pytest.mark.parametrize("size", [2_000, 10_000, 40_000])
@pytest.mark.parametrize("context", ["kept", "made for each"])
def test_decompress(benchmark: Any, size: int, context: str) -> None:
    """A context that is kept (ours) beside one that is made for each frame."""
    data = text(size)
    frame = ZstdCompressor(3).compress(data, ZstdCompressor.FLUSH_FRAME)
    if context == "kept":
        found = benchmark(decompress, Encoding.ZSTD, frame, size)
    else:
        found = benchmark(lambda: ZstdDecompressor().decompress(frame, size + 1))
    assert found == data


def test_name(benchmark: Any) -> None:
    """The name of an object of 16 MiB."""
    data = random.Random(SEED).randbytes(16 << 20)
    benchmark.extra_info["bytes"] = len(data)
    assert len(benchmark(name_of, data)) == 32


def test_leaf(benchmark: Any) -> None:
    """One of its 1024 leaves."""
    data = random.Random(SEED).randbytes(16 << 10)
    assert len(benchmark(leaf_hash, data)) == 32
