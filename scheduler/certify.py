"""The invariants of placement sets, stated a second time and sharing no code with what makes them.

Counting is done peer by peer and pack by pack of each set, with nothing of trees, flows or shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scheduler.model import PackId, PeerId, Violation, ViolationKind
from scheduler.settle import Kind, Settled
from scheduler.shape import Field, Ints, Rule

__all__ = ["certify", "faults_of"]


def certify(ground: Field, room: Sequence[int], kinds: Sequence[Kind], settled: Sequence[Settled]) -> list[Violation]:
    """What of a plan must not be; empty when all is well.

    A new pack must lie as its policy says. Of a pack that lay somewhere each shard is where it was or on a peer that
    takes something new, and what moved breaks no limit that the pack kept before. No peer is fuller than its
    room, unless it was and got nothing.
    """
    found: list[Violation] = []
    before = np.zeros(len(ground), dtype=object)
    after = np.zeros(len(ground), dtype=object)
    given: set[int] = set()
    for number, (kind, result) in enumerate(zip(kinds, settled, strict=True)):
        name = f"kind {number}"
        held = kind.held
        before += _load(held.tuples, held.packs, kind.shard, len(ground))
        for sets in (result.sets, result.fresh):
            after += _load(sets.tuples, sets.packs, kind.shard, len(ground))
        served = np.bincount(result.origin, weights=result.sets.packs, minlength=len(held.packs))
        if served.tolist() != held.packs.tolist() or (result.sets.packs < 0).any():
            found.append(_violation("account", name, "packs that lay somewhere are not all told of, or twice"))
        old = held.tuples[result.origin]
        for at in np.flatnonzero((result.sets.tuples != old).any(axis=1)).tolist():
            was, now = old[at].tolist(), result.sets.tuples[at].tolist()
            moved = [peer for peer, left in zip(now, was, strict=True) if peer not in (left, -1)]
            given.update(moved)
            found += _moves(ground, kind.rule, was, now, moved, name)
        fresh = int(result.fresh.packs.sum())
        given.update(np.unique(result.fresh.tuples).tolist())
        for at in np.flatnonzero(_suspect(ground, kind.rule, result.fresh.tuples)).tolist():
            now = result.fresh.tuples[at].tolist()
            found += [_violation(what, name, text) for what, text in faults_of(ground, kind.rule, now)]
            found += [
                _violation("state", name, f"{ground.ids[peer]} takes nothing new")
                for peer in now
                if peer >= 0 and not ground.takes[peer]
            ]
        if fresh + result.refused != kind.new:
            found.append(
                _violation("account", name, f"{fresh} placed and {result.refused} refused of {kind.new} packs")
            )
    for peer, amount in enumerate(after.tolist()):
        if amount > room[peer] and (peer in given or amount > before[peer]):
            found.append(
                Violation(
                    kind="capacity",
                    peer=PeerId(ground.ids[peer]),
                    message=f"{ground.ids[peer]}: {amount} where there is room for {room[peer]}",
                )
            )
    return found


def _load(tuples: Ints, packs: Ints, shard: int, peers: int) -> npt.NDArray[Any]:
    """What sets take on each peer: every place of a tuple counts for all its packs."""
    counts = np.bincount(tuples.ravel() + 1, weights=np.repeat(packs, tuples.shape[1]), minlength=peers + 1)
    return np.array([int(count) * shard for count in counts[1:]], dtype=object)


def _suspect(ground: Field, rule: Rule, tuples: Ints) -> npt.NDArray[np.bool_]:
    """Tuples in which something is wrong: counted by comparing every two places."""
    bad = np.zeros(len(tuples), dtype=bool)
    bad |= (tuples < 0).any(axis=1) | ~ground.takes[tuples].all(axis=1)
    if rule.countries is not None:
        outside = np.array([country not in rule.countries for country in ground.country], dtype=bool)
        bad |= outside[tuples].any(axis=1)
    for places, most in ((tuples, 1), *((ground.place[domain][tuples], cap) for domain, cap in rule.caps.items())):
        for column in places.T:
            bad |= (places == column[:, None]).sum(axis=1) > most
    if rule.min_regions > 1:
        regions = np.array([len(set(row)) for row in ground.place["region"][tuples].tolist()], dtype=np.int64)
        bad |= regions < rule.min_regions
    return bad


def _violation(kind: ViolationKind, name: str, text: str) -> Violation:
    return Violation(kind=kind, pack=PackId(name), message=f"{name}: {text}")


def _moves(
    ground: Field, rule: Rule, old: Sequence[int], now: Sequence[int], moved: Sequence[int], name: str
) -> list[Violation]:
    found = [
        _violation("state", name, f"{ground.ids[peer]} takes nothing new") for peer in moved if not ground.takes[peer]
    ]
    # A shard that finds no place stays where it is, and what is new beside it is judged without it.
    stuck = _at_fault(ground, rule, old)
    rest = [-1 if at in stuck and peer == old[at] else peer for at, peer in enumerate(now)]
    known = {what for what, _ in faults_of(ground, rule, old)}
    beside = {what for what, _ in faults_of(ground, rule, rest)}
    found += [
        _violation(what, name, text)
        for what, text in faults_of(ground, rule, now)
        if what not in known and what in beside and what != "copies"
    ]
    if sum(peer >= 0 and ground.state[peer] != "lost" for peer in old) > sum(peer >= 0 for peer in now):
        found.append(_violation("copies", name, "a shard that is there would be given up"))
    return found


def _at_fault(ground: Field, rule: Rule, row: Sequence[int]) -> set[int]:
    """The places of shards that could not all stay: on peers that may not hold them, or more than a limit allows."""
    found = {
        at
        for at, peer in enumerate(row)
        if peer >= 0
        and (
            not ground.holds[peer]
            or row.count(peer) > 1
            or (rule.countries is not None and ground.country[peer] not in rule.countries)
        )
    }
    for domain, cap in rule.caps.items():
        places = [int(ground.place[domain][peer]) if peer >= 0 else -1 for peer in row]
        found |= {at for at, place in enumerate(places) if place >= 0 and places.count(place) > cap}
    return found


def faults_of(ground: Field, rule: Rule, row: Sequence[int]) -> list[tuple[ViolationKind, str]]:
    """What is wrong with the holders of one pack, in kinds and words."""
    found: list[tuple[ViolationKind, str]] = []
    there = [peer for peer in row if peer >= 0]
    if len(there) < rule.width or len(row) != rule.width:
        found.append(("copies", f"{len(there)} of {rule.width} shards"))
    if len(set(there)) < len(there):
        found.append(("twice", "two shards lie on one peer"))
    for peer in there:
        if rule.countries is not None and ground.country[peer] not in rule.countries:
            found.append(("residency", f"{ground.ids[peer]} is in {ground.country[peer]}, where it must not lie"))
        if not ground.holds[peer]:
            found.append(("state", f"{ground.ids[peer]} is {ground.state[peer]}"))
    for domain, cap in rule.caps.items():
        for place, times in Counter(int(ground.place[domain][peer]) for peer in there).items():
            if times > cap:
                word: ViolationKind = "owner" if domain == "household" else domain  # type: ignore[assignment]
                found.append((word, f"{times} shards in {domain} {ground.label[domain][place]}, where {cap} may lie"))
    regions = len({int(ground.place["region"][peer]) for peer in there})
    if len(there) - regions > rule.width - rule.min_regions:
        found.append(("min-regions", f"{regions} regions, where {rule.min_regions} must be reached"))
    return found
