"""Which single leaves of which objects a provider is asked to prove tonight.

Most probes are drawn uniformly over bytes, because only an unpredictable draw catches a provider that drops
what it was asked for lately: 688 of them find a loss of 1 % with 99.9 %. A quarter goes to the objects that
waited longest, so that everything is looked at in the end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import Final

from scheduler.errors import RosterError

__all__ = ["LEAF", "Auditable", "probes"]

LEAF: Final = 16 * 1024
"""Bytes in a leaf of an object's Merkle tree; the last leaf may be shorter."""

_BY_AGE: Final = 4  # one probe in so many


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditable:
    """An object a provider holds for us; ``audited`` is when a probe last succeeded, in any one unit."""

    id: str
    size: int
    audited: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RosterError(f"object {self.id}: size is {self.size}, not a whole number from 1 up")

    @property
    def leaves(self) -> int:
        return -(-self.size // LEAF)


def probes(objects: Iterable[Auditable], count: int, seed: bytes) -> list[tuple[str, int]]:
    """``count`` distinct pairs of object id and leaf number, or all there are.

    One in four (rounded up) goes to a random leaf of an object of its own, those never audited first, then
    those audited longest ago; the rest are uniform over all leaves. ``seed`` must be new for every audit
    and unknown to the provider until asked; the order of ``objects`` does not matter.

    Raises:
        RosterError: an id occurs twice, or ``count`` is negative.
    """
    if count < 0:
        raise RosterError(f"{count} probes are fewer than none")
    known: dict[str, Auditable] = {}
    for item in objects:
        if item.id in known:
            raise RosterError(f"object id {item.id!r} occurs twice: give every object once")
        known[item.id] = item
    rows = sorted(known.values(), key=lambda row: row.id)
    ends = list(accumulate(row.leaves for row in rows))
    total = ends[-1] if ends else 0
    if count >= total:
        return [(row.id, leaf) for row in rows for leaf in range(row.leaves)]
    draw = _numbers(seed)
    lots = {row.id: next(draw) for row in rows}
    waiting = sorted(
        rows, key=lambda row: (row.audited is not None, row.audited if row.audited is not None else 0, lots[row.id])
    )
    # A dict, because the order of asking is the order of drawing.
    picked = {(row.id, _below(draw, row.leaves)): None for row in waiting[: -(-count // _BY_AGE)]}
    while len(picked) < count:
        leaf = _below(draw, total)
        at = bisect_right(ends, leaf)
        picked[rows[at].id, leaf - (ends[at - 1] if at else 0)] = None
    return list(picked)


def _numbers(seed: bytes) -> Iterator[int]:
    """64-bit numbers, uniform and reproducible: blake2b of the seed and a counter, eight to a block."""
    block = 0
    base = blake2b(seed, person=b"audit probes").digest()
    while True:
        digest = blake2b(block.to_bytes(8, "big"), key=base).digest()
        for at in range(0, 64, 8):
            yield int.from_bytes(digest[at : at + 8], "big")
        block += 1


def _below(draw: Iterator[int], bound: int) -> int:
    """Uniform below ``bound``; the uneven rest of 2^64 is drawn again."""
    limit = 2**64 - 2**64 % bound
    while True:
        number = next(draw)
        if number < limit:
            return number % bound
