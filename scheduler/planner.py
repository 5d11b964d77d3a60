"""The plan for kinds of packs over a federation: what lies well stays, what must go finds a place, then the new ones.

Sets that are affected are settled first, then new packs are cut into sets, those with the fewest peers to choose from
first. If that leaves a shard without a place or a pack refused, the exact flow is asked (`scheduler.tight`), and what
it says is taken if it is better. Every result is checked by `scheduler.certify` before it is returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import gcd
from typing import Final

import numpy as np

from scheduler.certify import certify
from scheduler.errors import PlacementInvalidError
from scheduler.hanging import Relays, exchange
from scheduler.laminar import Numbers
from scheduler.settle import Kind, Settled, Settler
from scheduler.shape import Field, Flags, Rule, Sets, Shape
from scheduler.tight import settle_all

__all__ = ["loads", "moves", "solve"]

_FINELY: Final = 256
"""Parts of the smallest shard in which room is counted where sizes differ."""

_FEW: Final = 3000
"""Sets times peers up to which moves are always found exactly, also where each set by itself found room."""


def loads(ground: Field, kinds: Sequence[Kind], lying: Sequence[Sequence[Sets]]) -> Numbers:
    """What the sets of each kind take on each peer."""
    total = np.zeros(len(ground), dtype=object)
    for kind, several in zip(kinds, lying, strict=True):
        for sets in several:
            total += sets.load(len(ground)).astype(object) * kind.shard
    return total


def solve(
    ground: Field,
    room: Sequence[int],
    kinds: Sequence[Kind],
    *,
    seed: bytes = b"",
    relays: Relays[int] | None = None,
) -> list[Settled]:
    """Where all packs of ``kinds`` shall lie. ``room`` is what each peer has for them, with none of them placed.

    Of new packs as few as is found hang on one of ``relays``, which changes nothing of what each peer holds.

    Raises:
        PlacementInvalidError: the result fails its check; a bug here.
    """
    capacity = np.array(list(room), dtype=object)
    settled = _settled(ground, capacity, kinds, seed)
    if any(_unmet(settled)) or _few(ground, kinds, settled):
        settled = _tightened(ground, capacity, kinds, settled, seed)
    settled = [_restored(ground, kind, row) for kind, row in zip(kinds, settled, strict=True)]
    if relays:
        settled = [
            replace(row, fresh=_exchanged(ground, kind.rule, row.fresh, relays))
            for kind, row in zip(kinds, settled, strict=True)
        ]
    faults = certify(ground, room, kinds, settled)
    if faults:
        raise PlacementInvalidError(faults)
    return settled


def _free(ground: Field, capacity: Numbers, load: Numbers) -> Numbers:
    free = capacity - load
    gone = np.array([state == "lost" for state in ground.state], dtype=bool)
    free[gone] = 0
    most = max((abs(int(value)) for value in free), default=0)
    return free.astype(np.int64) if (most + 1) * max(1, len(free)) < 2**62 else free


def _settled(ground: Field, capacity: Numbers, kinds: Sequence[Kind], seed: bytes) -> list[Settled]:
    """By settling each set on its own and cutting the new packs from what room is left."""
    free = _free(ground, capacity, loads(ground, kinds, [[kind.held] for kind in kinds]))
    settler = Settler(ground, free, kinds)
    settler.find()
    settler.settle()
    fresh: dict[int, Sets] = {}
    unit = _unit(kinds)
    ends = _ends(kinds, unit)
    admitted = [int((ground.admitted(kind.rule) & ground.takes).sum()) for kind in kinds]
    for at in sorted(range(len(kinds)), key=lambda at: (admitted[at], -kinds[at].shard, at)):
        kind = kinds[at]
        if not kind.new:
            fresh[at] = Sets.none(kind.rule.width)
            continue
        fresh[at] = _fresh(ground, free, kind, unit, ends, seed)
    found = []
    for at, kind in enumerate(kinds):
        still = np.flatnonzero(settler.still[at])
        rows = [row for row in settler.rows if row.kind == at and row.packs]
        lying = [[-1 if place in row.due else peer for place, peer in enumerate(row.now)] for row in rows]
        tuples = np.concatenate([kind.held.tuples[still], np.array(lying, dtype=np.int64).reshape(-1, kind.rule.width)])
        packs = np.concatenate([settler.still[at][still], np.array([row.packs for row in rows], dtype=np.int64)])
        found.append(
            Settled(
                sets=Sets(tuples=tuples, packs=packs),
                origin=np.concatenate([still, np.array([row.origin for row in rows], dtype=np.int64)]),
                due=tuples < 0,
                fresh=fresh[at],
                refused=kind.new - int(fresh[at].packs.sum()),
            )
        )
    return found


def _fresh(ground: Field, free: Numbers, kind: Kind, unit: int, ends: Flags, seed: bytes) -> Sets:
    """Sets for the new packs of a kind, taken off ``free``; ``unit`` is how finely other sizes divide the room."""
    room = np.maximum(free, 0)
    shape = Shape(ground, kind.rule, ground.takes & (room >= kind.shard))
    if unit < kind.shard:
        sets = shape.blend(room, kind.shard, unit, kind.new, ends=ends, seed=seed)
    else:
        sets = shape.sets(room // kind.shard, kind.new, seed=seed)
    free -= sets.load(len(ground)).astype(free.dtype) * kind.shard
    return sets


def _exchanged(ground: Field, rule: Rule, fresh: Sets, relays: Relays[int]) -> Sets:
    """Sets of new packs of which fewer hang on one machine."""
    sets: Counter[tuple[int, ...]] = Counter()
    for row, packs in zip(fresh.tuples.tolist(), fresh.packs.tolist(), strict=True):
        sets[tuple(row)] += packs
    found = exchange(sets, relays, rule.needed, lambda row: ground.together(rule, row))
    if found == sets:
        return fresh
    return Sets(
        tuples=np.array(list(found), dtype=np.int64).reshape(-1, rule.width),
        packs=np.array(list(found.values()), dtype=np.int64),
    )


def _unit(kinds: Sequence[Kind]) -> int:
    """What divides the shards of all kinds, or nearly so where that would be tiny."""
    shards = [kind.shard for kind in kinds]
    return max(gcd(*shards), min(shards, default=1) // _FINELY)


def _ends(kinds: Sequence[Kind], unit: int) -> Flags:
    """For every number of units up to the largest shard whether shards of the sizes that there are add up to it.

    A size that is no multiple of the unit counts as what it takes at least.
    """
    steps = sorted({-(-kind.shard // unit) for kind in kinds})
    found = np.zeros(max(steps, default=0) + 1, dtype=bool)
    found[0] = True
    for amount in range(1, len(found)):
        found[amount] = any(step <= amount and found[amount - step] for step in steps)
    return found


def _unmet(settled: Sequence[Settled]) -> tuple[int, int]:
    """Shards without a place, and packs refused."""
    missing = sum(int((row.due.sum(axis=1) * row.sets.packs).sum()) for row in settled)
    return missing, sum(row.refused for row in settled)


def moves(kind: Kind, settled: Settled) -> int:
    """How many shards lie elsewhere than they did, or lie somewhere again."""
    before = kind.held.tuples[settled.origin]
    moved = (settled.sets.tuples != before) & (settled.sets.tuples >= 0)
    return int((moved.sum(axis=1) * settled.sets.packs).sum())


def _few(ground: Field, kinds: Sequence[Kind], settled: Sequence[Settled]) -> bool:
    """Whether something moves, and there is so little that the exact answer costs next to nothing."""
    sets = sum(len(kind.held.packs) + 1 for kind in kinds)
    return sets * len(ground) <= _FEW and any(map(moves, kinds, settled))


def _full(ground: Field, slots: Numbers, kinds: Sequence[Kind], settled: Sequence[Settled]) -> bool:
    """Whether nothing moved, all that lay somewhere has its place, and so many packs lie there as fit at all."""
    if len(kinds) > 1 or _unmet(settled)[0] or sum(map(moves, kinds, settled)):
        return False
    most = Shape(ground, kinds[0].rule, ground.takes | ground.holds).bound(slots)
    return int(settled[0].sets.packs.sum()) + int(settled[0].fresh.packs.sum()) >= most


def _tightened(
    ground: Field, capacity: Numbers, kinds: Sequence[Kind], settled: list[Settled], seed: bytes
) -> list[Settled]:
    """Ask the exact flow, for the kinds of one shard size at a time, and take what is better."""
    for shard in sorted({kind.shard for kind in kinds}, reverse=True):
        alike = [at for at, kind in enumerate(kinds) if kind.shard == shard]
        before = [settled[at] for at in alike]
        chosen = [kinds[at] for at in alike]
        if not any(_unmet(before)) and not sum(map(moves, chosen, before)):
            continue
        others = [at for at in range(len(kinds)) if at not in alike]
        taken = loads(
            ground,
            [kinds[at] for at in others],
            [[_restored(ground, kinds[at], settled[at]).sets, settled[at].fresh] for at in others],
        )
        slots = np.maximum(_free(ground, capacity, taken), 0) // shard
        if _full(ground, slots, chosen, before):
            continue
        homeless, _ = _unmet(before)
        placed = [0 if homeless else int(row.fresh.packs.sum()) for row in before]
        better = settle_all(ground, chosen, slots, placed=placed, seed=seed)
        if better is None:
            continue
        tried = list(settled)
        for at, row in zip(alike, better, strict=True):
            tried[at] = row
        # A shard that finds no place stays, which the flow does not know: it may be in the way.
        whole = [_restored(ground, kind, row) for kind, row in zip(kinds, tried, strict=True)]
        if _worth(chosen, better) <= _worth(chosen, before) and not certify(ground, capacity.tolist(), kinds, whole):
            settled = tried
    return settled


def _worth(kinds: Sequence[Kind], settled: Sequence[Settled]) -> tuple[int, int, int]:
    return (*_unmet(settled), sum(moves(kind, row) for kind, row in zip(kinds, settled, strict=True)))


def _restored(ground: Field, kind: Kind, settled: Settled) -> Settled:
    """Shards without a place lie where they lay, if that peer is not lost."""
    tuples = settled.sets.tuples.copy()
    before = kind.held.tuples[settled.origin]
    lost = np.append(np.array([state == "lost" for state in ground.state], dtype=bool), True)
    for at, place in np.argwhere((tuples < 0) & (before >= 0)).tolist():
        peer = int(before[at, place])
        if not lost[peer]:
            tuples[at, place] = peer
    return replace(settled, sets=Sets(tuples=tuples, packs=settled.sets.packs))
