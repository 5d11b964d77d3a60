"""How fast cutting is beside what surrounds it; see README.md in this folder for how to read and compare it."""

from collections.abc import Callable
from typing import Protocol

import pytest

from bench.cut_subjects import SIZES, Subject, subjects
from chunker import _kernel as extension

RAM_BYTES = 256 << 20


class Benchmark(Protocol):
    extra_info: dict[str, object]

    def pedantic(self, function: Callable[[], object], *, rounds: int, warmup_rounds: int) -> object: ...


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    return {subject.name: subject for subject in subjects(tmp_path_factory.mktemp("cut"), RAM_BYTES)}


@pytest.mark.parametrize(
    "name",
    [
        "memory read, ram",
        "memory read, hot",
        *(f"{kernel} {sizes}, {place}" for kernel in extension.KERNELS for sizes in SIZES for place in ("ram", "hot")),
        "BLAKE3, ram",
        "BLAKE3, hot",
        *(f"BLAKE3 of chunks {sizes}, ram" for sizes in SIZES),
        *(f"pread + cut + BLAKE3 {sizes}, file" for sizes in SIZES),
        "fastcdc 256K/1M/4M, ram",
        "pyfastcdc 256K/1M/4M, ram",
    ],
)
def test_speed(benchmark: Benchmark, measured: dict[str, Subject], name: str) -> None:
    """Bytes per second = extra_info.bytes / time."""
    if name not in measured:
        pytest.skip(f"{name.split(maxsplit=1)[0]} is not installed")
    benchmark.extra_info["bytes"] = measured[name].size
    benchmark.pedantic(measured[name].run, rounds=7, warmup_rounds=1)
