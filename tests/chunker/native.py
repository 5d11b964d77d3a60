"""The C kernels outside Python, in a small driver program: what it is asked, and what the reference answers.

The scripts beside this module build the driver in their own ways: sanitize.py with GCC's sanitizers, emulate.py
for processors that are not there.
"""

import random
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chunker import ChunkerParams
from chunker.cut import PythonCutter
from chunker.keys import derive_key
from tests.chunker.data import GENERATORS, noise, real

_HERE: Final = Path(__file__).parent
_SOURCES: Final = _HERE.parent.parent / "chunker" / "csrc"
_SIZES: Final = ((1024, 16384, 65536), (1024, 16384, 16500), (5000, 20000, 60000), (2000, 17000, 30000))


class MissingToolError(Exception):
    """A tool is missing on this machine. The message names it and where it comes from."""


@dataclass(frozen=True)
class Case:
    """A call of fg_cuts. `mask` and `ramp` replace what follows from the sizes."""

    key: bytes
    sizes: tuple[int, int, int]
    data: bytes
    final: bool
    scanned: int
    mask: int
    ramp: int

    def question(self) -> bytes:
        key = derive_key(self.key)
        state = struct.pack("<9QQ2I4H", *key.words, self.ramp, *self.sizes[::2], key.k1, key.k2, key.t, self.mask)
        return state + struct.pack("<3Q", self.final, self.scanned, len(self.data)) + self.data

    def answer(self) -> bytes:
        """What driver.c must write, by the Python reference."""
        cutter = PythonCutter(derive_key(self.key), ChunkerParams(*self.sizes))
        cutter._mask, cutter._ramp = self.mask, self.ramp
        offsets, scanned = cutter.cuts(self.data, self.final, self.scanned)
        return struct.pack("<2Q", len(offsets) // 8, scanned) + offsets


def cases(count: int, *, seed: int = 1) -> Iterator[Case]:
    """Buffers of all kinds.

    Every other one ends near a bound, where a kernel's last row begins or ends. Every third has a filter far
    denser than any real one, for a cut at every place of a row.
    """
    rng = random.Random(seed)
    kinds = {name: make(150_000) for name, make in GENERATORS.items()}
    kinds |= {"text": real("*.py", 150_000), "binary": real("*.so", 150_000)}
    keys = [noise(32, f"key {number}") for number in range(20)]
    for number in range(count):
        sizes = rng.choice(_SIZES)
        params = ChunkerParams(*sizes)
        mask, ramp = (1 << params.filter_bits) - 1, params.ramp
        if number % 3 == 0:
            mask, ramp = (1 << rng.randrange(11)) - 1, 1 << rng.randrange(36, 44)
        data = kinds[rng.choice(sorted(kinds))]
        near = rng.choice([0, sizes[0], min(sizes[2], 20_000)]) + rng.randrange(-4, 200)
        length = max(0, near) if number % 2 else int(2 ** rng.uniform(8, 16.5))
        start = rng.randrange(len(data) - length)
        scanned = rng.choice([0, 0, rng.randint(0, length)])
        yield Case(rng.choice(keys), sizes, data[start : start + length], rng.random() < 0.5, scanned, mask, ramp)


def build(compiler: Sequence[str], program: Path) -> None:
    """Compile the driver and all kernels; `compiler` is the command with its options.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    sources = [_HERE / "driver.c", *(path for path in sorted(_SOURCES.glob("*.c")) if path.name != "module.c")]
    command = [*compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{_SOURCES}", *map(str, sources)]
    subprocess.run([*command, "-o", str(program)], check=True)


def kernels(program: Sequence[str]) -> list[str]:
    """The names of the kernels that the driver offers, best first."""
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()


def differences(
    program: Sequence[str], kernel: str, questions: Sequence[Case], expected: Sequence[bytes]
) -> list[Case]:
    """The cases that the kernel answers otherwise than expected.

    Raises:
        subprocess.CalledProcessError: the driver failed, as it does on a sanitizer's report (on standard error).
    """
    asked = b"".join(case.question() for case in questions)
    output = subprocess.run([*program, kernel], check=True, input=asked, stdout=subprocess.PIPE).stdout
    wrong, at = [], 0
    for case, answer in zip(questions, expected, strict=True):
        count = int.from_bytes(output[at : at + 8], "little")
        found = output[at : at + 16 + 8 * count]
        at += len(found)
        if found != answer:
            wrong.append(case)
    assert at == len(output)
    return wrong


def compare(program: Sequence[str], expected_kernels: Sequence[str], count: int) -> None:
    """Ask every kernel of the driver `count` cases; print one line for each.

    Raises:
        AssertionError: a kernel is missing, or an answer differs from the reference.
        subprocess.CalledProcessError: the driver failed.
    """
    offered = kernels(program)
    assert offered == list(expected_kernels), offered
    questions = list(cases(count))
    expected = [case.answer() for case in questions]
    cuts = sum(int.from_bytes(answer[:8], "little") for answer in expected)
    size = sum(len(case.data) for case in questions)
    for kernel in offered:
        wrong = differences(program, kernel, questions, expected)
        assert not wrong, f"{kernel} differs from the reference in {len(wrong)} of {count} cases"
        print(f"{kernel}: {count} buffers ({size} bytes, {cuts} cuts) equal the reference")
