"""The C kernels on processors that are not there, under QEMU: `python -m tests.chunker.emulate`.

NEON on aarch64, and x86-64 without AVX2, where the dispatch must settle for SSE2. Needs Debian's qemu-user, and
for aarch64 gcc-aarch64-linux-gnu and libc6-dev-arm64-cross.
"""

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chunker.native import MissingToolError, build, compare

_CASES: Final = 600


@dataclass(frozen=True)
class Target:
    """A processor: who compiles for it, who plays it, and which kernels it must have."""

    name: str
    compiler: str
    emulator: tuple[str, ...]
    kernels: tuple[str, ...]


TARGETS: Final = (
    Target("aarch64", "aarch64-linux-gnu-gcc", ("qemu-aarch64",), ("neon", "portable")),
    Target(
        "x86-64 without AVX2",
        "x86_64-linux-gnu-gcc",
        ("qemu-x86_64", "-cpu", "Nehalem"),
        ("sse2", "portable"),
    ),
    Target("x86-64 with AVX2", "x86_64-linux-gnu-gcc", ("qemu-x86_64", "-cpu", "max"), ("avx2", "sse2", "portable")),
)


def run(target: Target, folder: Path, count: int = _CASES) -> None:
    """Build for the target and compare.

    Raises:
        MissingToolError: a compiler or emulator is missing.
        AssertionError, subprocess.CalledProcessError: as native.compare.
    """
    for tool, package in (
        (target.compiler, f"gcc-{target.compiler.removesuffix('-gcc').replace('_', '-')}"),
        (target.emulator[0], "qemu-user"),
    ):
        if shutil.which(tool) is None:
            raise MissingToolError(f"{target.name}: {tool} is missing (Debian: {package})")
    program = folder / "driver"
    build([target.compiler, "-O3", "-static"], program)
    compare([*target.emulator, str(program)], target.kernels, count)


def main() -> None:
    missing = []
    for target in TARGETS:
        print(f"{target.name}:")
        with tempfile.TemporaryDirectory() as folder:
            try:
                run(target, Path(folder))
            except MissingToolError as reason:
                missing.append(str(reason))
    if missing:
        sys.exit("\n".join(missing))


if __name__ == "__main__":
    main()
