"""Which code cuts: a compiled kernel or its Python twin. All give bit-identical cuts.

Compiled are `avx2` and `sse2` on x86-64, `neon` on aarch64 and `portable` everywhere; the twin is `python`.
Without a demand the best one that the host can run is taken. The environment variable CHUNKER_KERNEL is a
demand; one that cannot be met is an error, and so is a missing extension: nothing falls back in silence.
"""

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from chunker.buffers import BytesLike
from chunker.cut import PythonCutter
from chunker.errors import KernelUnavailableError
from chunker.keys import KernelKey
from chunker.params import ChunkerParams

ENVIRONMENT_VARIABLE: Final = "CHUNKER_KERNEL"
PYTHON: Final = "python"
_STATE: Final = struct.Struct("<9QQ2I4H")  # struct fg_chunker of csrc/scan.h
_BUILD: Final = (
    "build it with `python -m pip install .` in the project's folder (needs a C compiler and Python's headers)"
)


class Cutter(Protocol):
    """A key and sizes bound to a kernel. Calls from several threads at once are safe."""

    def cuts(self, buffer: BytesLike, final: bool, scanned: int, /) -> tuple[bytes, int]:
        """Return the offsets as packed native 64-bit numbers, and how much of the rest was searched."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One implementation of the algorithm, by the name that CHUNKER_KERNEL knows it by."""

    name: str
    bind: Callable[[KernelKey, ChunkerParams], Cutter]


def select_kernel(environment: Mapping[str, str] | None = None) -> Kernel:
    """The kernel that the environment demands, else the fastest compiled one that this host runs.

    Raises:
        KernelUnavailableError: the demanded kernel, or without a demand the extension, is not there.
    """
    wanted = (os.environ if environment is None else environment).get(ENVIRONMENT_VARIABLE)
    if wanted == PYTHON:
        return Kernel(PYTHON, PythonCutter)
    compiled = _compiled_kernels()
    available = (*compiled, PYTHON)
    if not compiled:
        remedy = f"{_BUILD}, or accept the slow one with {ENVIRONMENT_VARIABLE}={PYTHON}"
        raise KernelUnavailableError(wanted, available, remedy)
    if wanted is None:
        return next(iter(compiled.values()))
    if wanted not in compiled:
        raise KernelUnavailableError(wanted, available, f"set {ENVIRONMENT_VARIABLE} to an available one or unset it")
    return compiled[wanted]


def _compiled_kernels() -> dict[str, Kernel]:
    """The extension's kernels, best first; empty when it has not been built."""
    try:
        from chunker import _kernel  # noqa: PLC0415 - absent without a compiler, and then only the demand matters
    except ImportError:
        return {}

    def binder(name: str) -> Callable[[KernelKey, ChunkerParams], Cutter]:
        return lambda key, params: _kernel.Cutter(_pack_state(key, params), name)

    return {name: Kernel(name, binder(name)) for name in _kernel.KERNELS}


def _pack_state(key: KernelKey, params: ChunkerParams) -> bytes:
    return _STATE.pack(
        *key.words,
        params.ramp,
        params.minimum,
        params.maximum,
        key.k1,
        key.k2,
        key.t,
        (1 << params.filter_bits) - 1,
    )
