"""The sizes an object may have: multiples of 64 KiB up to 16 MiB, powers of two for all that is no shard of a pack.

So a size says almost nothing; that of a shard says what its pack's does, and into how many it was cut.
"""

SMALLEST = 64 << 10
LARGEST = 16 << 20
RANGE_ALIGN = 1 << 20
"""Ranges are read in multiples of this (or to the end), so that a request never shows a chunk's length."""
MAX_CHUNK = 4 << 20
"""Bytes of plaintext in one chunk, at most."""
SMALLEST_CODED = 1 << 20
"""Shorter packs stay whole: their shards would be so small that each costs more than it saves."""
MOST_SHARDS = 16
"""Data shards, and parity shards, of a pack at most. A pack of 16 MiB can be cut into any number up to this."""


def size_class(needed: int) -> int:
    """Return the smallest size of a whole object that holds ``needed`` bytes.

    Raises:
        ValueError: more than the largest object.
    """
    if needed > LARGEST:
        raise ValueError(f"{needed} bytes do not fit an object of at most {LARGEST}")
    return max(SMALLEST, 1 << (max(needed, 1) - 1).bit_length())


def is_class(size: int) -> bool:
    """Return whether a whole object (all but shards) may be ``size`` bytes long."""
    return is_allowed(size) and size & (size - 1) == 0


def is_allowed(size: int) -> bool:
    """Return whether a provider takes an object of ``size`` bytes."""
    return SMALLEST <= size <= LARGEST and size % SMALLEST == 0


def shard_size(pack: int, needed: int) -> int:
    """Return the bytes of each shard of a pack of ``pack`` bytes that is cut into ``needed`` data shards."""
    return -(-pack // (needed * SMALLEST)) * SMALLEST


def is_cut(pack: int, needed: int) -> bool:
    """Return whether a data pack of ``pack`` bytes is cut into ``needed`` data shards, or stays whole.

    One stays whole whose last data shard would be nothing but the zeros behind it: those of all such packs would be
    one object, and its loss would be that of a shard of each.
    """
    return pack >= SMALLEST_CODED and (needed - 1) * shard_size(pack, needed) < pack
