"""How fast cutting is beside naming; see README.md in this folder for how to read and compare it."""

from collections.abc import Callable
from typing import Protocol

import pytest
from blake3 import blake3

from chunker import LARGE, SMALL, Chunker, ChunkerParams, ChunkHasher
from chunker import _kernel as extension
from chunker.kernels import select_kernel

BUFFER = 8 << 20
KEY = bytes(range(32))


class Benchmark(Protocol):
    extra_info: dict[str, object]

    def __call__(self, function: Callable[..., object], *args: object) -> object: ...


@pytest.fixture(scope="module")
def data() -> bytes:
    """Incompressible, the same in every run."""
    return blake3(b"bench_cut").digest(length=BUFFER)


@pytest.mark.parametrize("params", [SMALL, LARGE], ids=lambda params: f"{params.average >> 10}K")
@pytest.mark.parametrize("kernel", extension.KERNELS)
def test_cuts(benchmark: Benchmark, data: bytes, kernel: str, params: ChunkerParams) -> None:
    chunker = Chunker.from_params(KEY, params, kernel=select_kernel({"CHUNKER_KERNEL": kernel}))
    benchmark.extra_info["bytes"] = BUFFER
    benchmark(chunker.cuts, data)


@pytest.mark.parametrize("length", [256 << 10, 1 << 20, BUFFER], ids=lambda length: f"{length >> 10}K")
def test_ids(benchmark: Benchmark, data: bytes, length: int) -> None:
    """Keyed BLAKE3 over the same buffer in pieces of one length: the floor that cutting is measured against."""
    hasher = ChunkHasher(KEY)
    pieces = [memoryview(data)[start : start + length] for start in range(0, BUFFER, length)]

    def name_all() -> None:
        for piece in pieces:
            hasher(piece)

    benchmark.extra_info["bytes"] = BUFFER
    benchmark(name_all)
