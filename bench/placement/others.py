"""What others do, as plainly as possible: each takes packs one after another until the first that finds no room.

``straw2``: CRUSH's draws (Ceph, src/crush/mapper.c): the largest ln(hash)/weight among regions, then among the sites of
the region, then among its peers, again with another hash after a collision; no exception table (upmap), no
reweighting. ``rendezvous``: the peers by ln(hash)/weight, those first that break no limit; a full peer refuses the
pack, or with ``overflow`` is passed over. ``greedy``: the emptiest peers (free share of capacity) that break no limit.
``random``: like rendezvous with overflow, but all peers weigh the same.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bench.placement.federations import Case

__all__ = ["greedy", "rendezvous", "straw2"]

Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
_CHUNK = 2000
_CANDIDATES = 64
_TRIES = 50


def _draws(items: Ints, packs: Ints, salt: int) -> Reals:
    """Logarithm of a hash in (0, 1) for every pack (row) and item (column): splitmix64."""
    start = (packs[:, None].astype(np.uint64) << np.uint64(32)) ^ items[None, :].astype(np.uint64)
    mixed = start + np.uint64((0x9E3779B97F4A7C15 * (2 * salt + 1)) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.log((mixed >> np.uint64(11)).astype(np.float64) / 2**53 + 2**-54)


def _until_full(slots: Ints, rows: Ints) -> int:
    """How many rows of peers fit, up to the first that names a full one or nobody."""
    count = len(rows)
    nobody = np.flatnonzero((rows < 0).any(axis=1))
    if len(nobody):
        count = int(nobody[0])
    flat = rows[:count].ravel()
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(len(slots)))
    ends = np.append(starts[1:], len(flat))
    over = np.flatnonzero(ends - starts > slots)
    if len(over):
        count = min(count, int((order[starts[over] + slots[over]] // rows.shape[1]).min()))
    return count


def straw2(case: Case, slots: Ints, packs: int) -> tuple[int, Ints]:
    """Packs placed at the first refusal, and the rows of peers."""
    rule, place = case.rule, case.ground.place
    per_region = rule.caps.get("region", rule.width)
    regions = -(-rule.width // per_region)
    region, site = place["region" if "region" in rule.caps else "site"], place["site"]
    if "region" not in rule.caps:
        per_region, regions = 1, rule.width
    weight = np.bincount(region, weights=slots)
    rows = np.full((packs, rule.width), -1, dtype=np.int64)
    for begin in range(0, packs, _CHUNK * 10):
        chunk = np.arange(begin, min(packs, begin + _CHUNK * 10))
        chosen = _distinct(chunk, np.arange(len(weight)), weight.astype(np.float64), regions, salt=1)
        for at in range(rule.width):
            where = chosen[:, at // per_region]
            for one in np.unique(where[where >= 0]).tolist():
                here = np.flatnonzero(where == one)
                able = np.flatnonzero(region == one)
                sites = np.unique(site[able])
                total = np.bincount(site[able], weights=slots[able], minlength=int(site.max()) + 1)[sites]
                picked = _distinct(chunk[here], sites, total.astype(np.float64), per_region, salt=100)[
                    :, at % per_region
                ]
                for house in np.unique(picked[picked >= 0]).tolist():
                    inside = able[site[able] == house]
                    mine = here[picked == house]
                    draw = _draws(inside, chunk[mine], 900) / np.maximum(slots[inside], 1e-9)
                    rows[chunk[mine], at] = inside[draw.argmax(axis=1)]
    return _until_full(slots, rows), rows


def _distinct(packs: Ints, items: Ints, weight: Reals, count: int, *, salt: int) -> Ints:
    """``count`` distinct items a pack, each by draws of its own, again after a collision; -1 after 50 of them."""
    found = np.full((len(packs), count), -1, dtype=np.int64)
    for at in range(count):
        waiting = np.arange(len(packs))
        for attempt in range(_TRIES):
            draw = _draws(items, packs[waiting], salt + at + count * attempt) / np.maximum(weight, 1e-9)
            best = items[draw.argmax(axis=1)]
            clash = (found[waiting, :at] == best[:, None]).any(axis=1)
            found[waiting[~clash], at] = best[~clash]
            waiting = waiting[clash]
            if not len(waiting):
                break
    return found


def rendezvous(case: Case, slots: Ints, packs: int, *, overflow: bool, weighted: bool = True) -> tuple[int, Ints]:
    """Packs placed at the first refusal, and the rows of peers."""
    weight = np.maximum(slots, 1e-9) if weighted else np.ones(len(slots))
    free = slots.tolist()
    rows: list[list[int]] = []
    for begin in range(0, packs, _CHUNK):
        chunk = np.arange(begin, min(packs, begin + _CHUNK))
        score = _draws(np.arange(len(slots)), chunk, 7) / weight
        few = min(_CANDIDATES, len(slots) - 1)
        first = np.argpartition(-score, few, axis=1)[:, : few + 1]
        best = np.take_along_axis(first, np.argsort(-np.take_along_axis(score, first, axis=1), axis=1), axis=1)
        for at, row in enumerate(best.tolist()):
            chosen = _walk(case, row, free if overflow else None)
            if len(chosen) < case.rule.width:
                chosen = _walk(case, np.argsort(-score[at]).tolist(), free if overflow else None)
            if len(chosen) < case.rule.width or any(free[peer] < 1 for peer in chosen):
                return len(rows), np.array(rows, dtype=np.int64)
            for peer in chosen:
                free[peer] -= 1
            rows.append(chosen)
    return len(rows), np.array(rows, dtype=np.int64)


def greedy(case: Case, slots: Ints, packs: int) -> tuple[int, Ints]:
    """Packs placed at the first refusal, and the rows of peers."""
    free = slots.astype(np.float64)
    whole = np.maximum(slots, 1)
    rows: list[list[int]] = []
    for _ in range(packs):
        share = free / whole
        chosen: list[int] = []
        if len(share) > _CANDIDATES:
            top = np.argpartition(-share, _CANDIDATES)[:_CANDIDATES]
            chosen = _walk(case, top[np.argsort(-share[top], kind="stable")].tolist(), free)
        if len(chosen) < case.rule.width:
            chosen = _walk(case, np.argsort(-share, kind="stable").tolist(), free)
        if len(chosen) < case.rule.width:
            break
        free[chosen] -= 1
        rows.append(chosen)
    return len(rows), np.array(rows, dtype=np.int64).reshape(-1, case.rule.width)


def _walk(case: Case, order: Sequence[int], free: Sequence[float] | Reals | None) -> list[int]:
    """The first peers in an order that have room (if asked for) and break no limit together."""
    rule = case.rule
    limits = [(case.ground.place[domain], cap, Counter[int]()) for domain, cap in rule.caps.items()]
    chosen: list[int] = []
    for peer in order:
        if free is not None and free[peer] < 1:
            continue
        if any(seen[int(place[peer])] >= cap for place, cap, seen in limits):
            continue
        chosen.append(peer)
        if len(chosen) == rule.width:
            break
        for place, _, seen in limits:
            seen[int(place[peer])] += 1
    return chosen
