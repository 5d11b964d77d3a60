"""Packs as Reed-Solomon shards, of which any k of k+m give the pack back (docs/spec/format.md §9).

The arithmetic is ISA-L's, through pyeclib, whose headers are taken off: what is stored is what the specification says.
All calls are processor work, some ten milliseconds for a full pack, most of them under the interpreter's lock.
"""

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from replicator.errors import IntegrityError, ReplicatorError
from replicator.format.merkle import name_of
from replicator.format.sizes import is_cut, shard_size
from replicator.ids import ObjectName

if TYPE_CHECKING:
    from pyeclib.ec_iface import ECDriver

_BACKEND = "isa_l_rs_cauchy"
_HEADER = 80
"""Bytes that liberasurecode puts before each fragment. They say its number, its length and no more of its content."""

_STRIPE = 64 << 10
"""Bytes of each shard that the library gets at once: they stay in the cache, and threads have their turn between."""
Coding = tuple[int, int]
"""Data and parity shards: (4, 2) is 4+2."""


def stored_as(name: ObjectName, data: bytes, coding: Coding | None) -> list[tuple[ObjectName, bytes]]:
    """Return what a pack is stored as: itself, or the shards that it is cut into, which are tried first.

    Raises:
        ReplicatorError: the library for it is missing on this machine.
        IntegrityError: the shards do not give the pack back.
    """
    if coding is None or not is_cut(len(data), coding[0]):
        return [(name, data)]
    shards = split(data, coding)
    _try(data, shards, coding)
    return [(name_of(shard), shard) for shard in shards]


def _try(data: bytes, shards: Sequence[bytes], coding: Coding) -> None:
    """Decode a pack of its last shards, parity before data: a bad bit shall not be found when it is needed."""
    needed, spare = coding
    for start in range(spare, 0, -needed):
        window = {number: shards[number] for number in range(start, start + needed)}
        if join(window, coding, len(data)) != data:
            raise IntegrityError(
                f"shards {start} to {start + needed - 1} of a pack do not give it back; nothing relies on them yet",
                hint="check this machine's memory (`dmesg`), then run again",
            )


def split(data: bytes | bytearray, coding: Coding) -> list[bytes]:
    """Return the shards of a pack, data first. The last data shard ends in zeros that are no part of the pack.

    Raises:
        ReplicatorError: the library for it is missing on this machine.
    """
    needed, spare = coding
    size = shard_size(len(data), needed)
    padded = bytes(data).ljust(needed * size, b"\0")
    shards = [padded[number * size : (number + 1) * size] for number in range(needed)]
    parity = [bytearray() for _ in range(spare)]
    for stripe in _stripes(shards):
        for row, fragment in zip(parity, _driver(coding).encode(b"".join(stripe))[needed:], strict=True):
            row += memoryview(fragment)[_HEADER:]
    return [*shards, *map(bytes, parity)]


def join(shards: Mapping[int, bytes], coding: Coding, size: int) -> bytes:
    """Return a pack of ``size`` bytes from any k of its shards, by number; nothing is decoded if all data is there.

    Raises:
        IntegrityError: too few shards, or of another size than that of the pack's.
        ReplicatorError: the library for it is missing on this machine.
    """
    needed, _ = coding
    _check(shards, coding, shard_size(size, needed))
    lacking = [number for number in range(needed) if number not in shards]
    whole = dict(shards) | rebuild(shards, coding, lacking) if lacking else shards
    return b"".join([whole[number] for number in range(needed)])[:size]


def rebuild(shards: Mapping[int, bytes], coding: Coding, missing: Collection[int]) -> dict[int, bytes]:
    """Return the shards with certain numbers from any k others.

    Raises:
        IntegrityError: too few shards, or not all of one size.
        ReplicatorError: the library for it is missing on this machine.
    """
    if not missing:
        return {}
    needed, _ = coding
    size = len(next(iter(shards.values()), b""))
    _check(shards, coding, size)
    chosen = sorted(shards)[:needed]
    asked = sorted(missing)
    rows = [bytearray() for _ in asked]
    for stripe in _stripes([shards[number] for number in chosen]):
        heads = _headers(coding, len(stripe[0]))
        fragments = [b"".join((heads[number], part)) for number, part in zip(chosen, stripe, strict=True)]
        for row, fragment in zip(rows, _driver(coding).reconstruct(fragments, asked), strict=True):
            row += memoryview(fragment)[_HEADER:]
    return {number: bytes(row) for number, row in zip(asked, rows, strict=True)}


def _stripes(shards: Sequence[bytes]) -> Iterator[list[memoryview]]:
    """Yield what stands at the same place in each shard, a part at a time: every byte of a row is coded by itself."""
    views = [memoryview(shard) for shard in shards]
    for at in range(0, len(shards[0]), _STRIPE):
        yield [view[at : at + _STRIPE] for view in views]


def check_library(coding: Coding) -> None:
    """Make sure that this machine can make such shards.

    Raises:
        ReplicatorError: the library for it is missing.
    """
    _driver(coding)


def _check(shards: Mapping[int, bytes], coding: Coding, size: int) -> None:
    if len(shards) < coding[0]:
        raise IntegrityError(f"{len(shards)} shards of a pack, {coding[0]} are needed")
    if any(len(shard) != size for shard in shards.values()):
        raise IntegrityError("shards of a pack have other sizes than its own")


@lru_cache(maxsize=8)
def _driver(coding: Coding) -> "ECDriver":
    try:
        from pyeclib.ec_iface import ECDriver, ECDriverError  # noqa: PLC0415 - only who has coded packs needs it
    except ImportError as error:
        raise _missing(error) from error
    try:
        return ECDriver(k=coding[0], m=coding[1], ec_type=_BACKEND)
    except ECDriverError as error:
        raise _missing(error) from error


def _missing(error: Exception) -> ReplicatorError:
    return ReplicatorError(
        f"coded packs need pyeclib with Intel's ISA-L, which this machine lacks ({error})",
        hint="`pip install pyeclib` brings both for Linux on x86-64 and ARM; else install your system's libisal too",
    )


@lru_cache(maxsize=32)
def _headers(coding: Coding, size: int) -> list[bytes]:
    """Return what the library wants before each shard of a size: the same whatever is in it."""
    return list(map(operator.itemgetter(slice(_HEADER)), _driver(coding).encode(bytes(coding[0] * size))))
