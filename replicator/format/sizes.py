"""The sizes an object may have: powers of two from 64 KiB to 16 MiB, so that a size says almost nothing."""

SMALLEST = 64 << 10
LARGEST = 16 << 20
RANGE_ALIGN = 1 << 20
"""Ranges are read in multiples of this (or to the end), so that a request never shows a chunk's length."""
MAX_CHUNK = 4 << 20
"""Bytes of plaintext in one chunk, at most."""


def size_class(needed: int) -> int:
    """Return the smallest allowed size that holds ``needed`` bytes.

    Raises:
        ValueError: more than the largest object.
    """
    if needed > LARGEST:
        raise ValueError(f"{needed} bytes do not fit an object of at most {LARGEST}")
    return max(SMALLEST, 1 << (max(needed, 1) - 1).bit_length())


def is_allowed(size: int) -> bool:
    """Return whether an object may be ``size`` bytes long."""
    return SMALLEST <= size <= LARGEST and size & (size - 1) == 0
