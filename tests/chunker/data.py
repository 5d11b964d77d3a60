"""Reproducible test data, by name: the same bytes on every machine and Python version."""

import functools
import sysconfig
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Final

from blake3 import blake3

KEY: Final = bytes(range(32))


def noise(length: int, seed: str = "golden-1") -> bytes:
    """Random bytes: BLAKE3's extendable output over the seed."""
    return blake3(seed.encode()).digest(length=length)


def zeros(length: int) -> bytes:
    return bytes(length)


def counter(length: int) -> bytes:
    """Little-endian 32-bit numbers 0, 1, 2, ..."""
    return pack(f"<{length // 4}I", *range(length // 4))


def log(length: int) -> bytes:
    """Lines of text in which some fields repeat and some do not."""
    numbers = noise(length // 16, "log")
    lines = (
        b"%06d GET /item/%d HTTP/1.1 %d %s\n" % (at, number % 100, 200 + number, b"ok" * (number % 4))
        for at, number in enumerate(numbers)
    )
    return b"".join(lines)[:length]


def periodic(length: int, period: int = 173) -> bytes:
    return (noise(period, "period") * (length // period + 1))[:length]


def patchy(length: int) -> bytes:
    """Noise between runs of one byte, like a disk image."""
    pieces = (
        noise(1 + 37 * at % 9000, f"patch {at}") + bytes([at * 32 % 256]) * (at * 611 % 20000)
        for at in range(length // 1000)
    )
    return b"".join(pieces)[:length]


@functools.cache
def real(pattern: str, length: int) -> bytes:
    """The beginning of the standard library's own files, joined: real data, but not the same everywhere."""
    content = bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob(pattern)):
        content += path.read_bytes()
        if len(content) >= length:
            return bytes(content[:length])
    raise LookupError(f"the standard library has only {len(content)} bytes in files like {pattern}")


GENERATORS: Final[dict[str, Callable[[int], bytes]]] = {
    "xof": noise,
    "zeros": zeros,
    "i32": counter,
    "log": log,
    "periodic": periodic,
    "patchy": patchy,
}
