"""What bench_cut.py and cut_report.py measure: cutting beside reading memory, naming, and others' packages."""

import ctypes
import importlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from chunker import LARGE, SMALL, Chunker, ChunkerParams, ChunkHasher, chunks
from chunker import _kernel as extension
from chunker.kernels import select_kernel
from replicator.snapshot.stream import buffer_size

SEED: Final = "bench_cut"
HOT_BYTES: Final = 8 << 20
KEY: Final = bytes(range(32))
SIZES: Final = {"64K/256K/1M": SMALL, "256K/1M/4M": LARGE}
_HOT_ROUNDS: Final = 16


@dataclass(frozen=True)
class Subject:
    """`run` works through `size` bytes on the calling thread, each time the same."""

    name: str
    size: int
    run: Callable[[], object]


def seeded(length: int) -> bytearray:
    """Incompressible bytes, the same on every machine."""
    return bytearray(blake3(SEED.encode()).digest(length=length))


def subjects(folder: Path, ram_bytes: int) -> Iterator[Subject]:
    """All that can be measured here, to be run in any order; other packages only where they are installed.

    `ram` is one buffer of `ram_bytes`, to be chosen well above the caches' size; `hot` the same 8 MiB again and
    again; `file` the bytes of `ram` in a file in `folder`, read from the page cache.
    """
    ram = seeded(ram_bytes)
    hot = ram[:HOT_BYTES]
    path = folder / "cut.bin"
    path.write_bytes(ram)
    read = _memory_read(folder)
    yield Subject("memory read, ram", len(ram), lambda: read(ram))
    yield _repeated("memory read, hot", hot, read)
    for kernel in extension.KERNELS:
        for sizes, params in SIZES.items():
            cutter = Chunker.from_params(KEY, params, kernel=select_kernel({"CHUNKER_KERNEL": kernel}))
            yield Subject(f"{kernel} {sizes}, ram", len(ram), _bound(cutter.cuts, ram))
            yield _repeated(f"{kernel} {sizes}, hot", hot, cutter.cuts)
    yield Subject("BLAKE3, ram", len(ram), lambda: blake3(ram, key=KEY).digest())
    yield _repeated("BLAKE3, hot", hot, lambda data: blake3(data, key=KEY).digest())
    yield from _other_packages(ram)
    for sizes, params in SIZES.items():
        yield from _pipeline(sizes, params, ram, path)


def _bound(function: Callable[[bytearray], object], data: bytearray) -> Callable[[], object]:
    return lambda: function(data)


def _repeated(name: str, data: bytearray, function: Callable[[bytearray], object]) -> Subject:
    def run() -> None:
        for _ in range(_HOT_ROUNDS):
            function(data)

    return Subject(name, _HOT_ROUNDS * len(data), run)


def _memory_read(folder: Path) -> Callable[[bytearray], object]:
    """A sum over all words in C, with the widest vectors of this machine."""
    library = folder / "memory_read.so"
    source = Path(__file__).parent / "memory_read.c"
    options = ["-O3", "-march=native", "-funroll-loops", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, str(source), "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).memory_read
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    function.restype = ctypes.c_uint64

    def read(data: bytearray) -> object:
        return function(ctypes.addressof(ctypes.c_char.from_buffer(data)), len(data) // 8)

    return read


def _other_packages(ram: bytearray) -> Iterator[Subject]:
    minimum, average, maximum = LARGE.minimum, LARGE.average, LARGE.maximum
    fastcdc, pyfastcdc = _optional("fastcdc.fastcdc_cy"), _optional("pyfastcdc")
    if fastcdc is not None:
        data = bytes(ram)
        yield Subject(
            "fastcdc 256K/1M/4M, ram", len(ram), lambda: list(fastcdc.fastcdc_cy(data, minimum, average, maximum))
        )
    if pyfastcdc is not None:
        cutter = pyfastcdc.FastCDC(avg_size=average, min_size=minimum, max_size=maximum)
        yield Subject("pyfastcdc 256K/1M/4M, ram", len(ram), lambda: list(cutter.cut_buf(ram)))


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _pipeline(sizes: str, params: ChunkerParams, ram: bytearray, path: Path) -> Iterator[Subject]:
    """Reading, cutting and naming a file, and naming the same chunks when they already lie in memory."""
    cutter, name_of, buffer = Chunker.from_params(KEY, params), ChunkHasher(KEY), bytearray(buffer_size(params))
    view, ends = memoryview(ram), list(cutter.cuts(ram)[0])
    pieces = [view[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def names() -> None:
        for piece in pieces:
            name_of(piece)

    def pipeline() -> None:
        with path.open("rb", buffering=0) as source:
            for chunk in chunks(source, cutter, buffer):
                name_of(chunk)

    yield Subject(f"BLAKE3 of chunks {sizes}, ram", len(ram), names)
    yield Subject(f"pread + cut + BLAKE3 {sizes}, file", len(ram), pipeline)
