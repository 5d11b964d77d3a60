"""A plan in the words and fields of docs/spec/placement.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scheduler.laminar import Numbers
from scheduler.planner import loads, solve
from scheduler.problem import DOMAINS, Problem
from scheduler.settle import Kind, Settled
from scheduler.shape import Bottleneck, Field, Ints, Sets, Shape

__all__ = ["plan"]

_NAMED: Final = 5
"""Names that a sentence lists before it counts the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The packs of one kind: the places of those held, in the order of the kind's sets, and of the new ones."""

    kind: Kind
    policy: int
    held: list[list[int]]
    new: list[int]


def plan(problem: Problem, *, seed: bytes = b"") -> dict[str, Any]:
    """The plan as a JSON object."""
    groups = _groups(problem)
    kinds = [group.kind for group in groups]
    settled = solve(problem.ground, problem.room, kinds, seed=seed, relays=problem.relays)
    placed: dict[int, list[int]] = {}
    moves: list[tuple[int, dict[str, Any]]] = []
    refused: list[tuple[int, dict[str, Any]]] = []
    free = np.array(problem.room, dtype=object) - loads(
        problem.ground, kinds, [[row.sets, row.fresh] for row in settled]
    )
    load = loads(problem.ground, kinds, [[kind.held] for kind in kinds])
    over = [bool(load[at] > problem.room[at]) for at in range(len(problem.ground))]
    for group, row in zip(groups, settled, strict=True):
        words = _Words(problem.ground, group.kind, free, over)
        _tell_held(problem, group, row, words, placed, moves, refused)
        _tell_new(problem, group, row, words, placed, refused)
    limits = [_limit(problem, kind) for kind in kinds]
    chief = max(range(len(kinds)), key=lambda at: (_total(groups[at]), -at), default=None)
    ids: list[str | None] = [*problem.ground.ids, None]
    return {
        "feasible": not refused,
        "bound": None if chief is None else limits[chief]["bound"],
        "bottleneck": None if chief is None else limits[chief]["bottleneck"],
        "bounds": limits,
        "placements": {problem.packs[at]: [ids[peer] for peer in row] for at, row in sorted(placed.items())},
        "moves": [move for _, move in sorted(moves, key=lambda row: (row[0], row[1]["shard"]))],
        "refused": [row for _, row in sorted(refused, key=lambda row: row[0])],
        **_losses(problem, groups, settled, placed),
        "hanging": _hanging(problem, groups, settled),
        "queries": [
            {"domain": query.domain, "labels": list(query.labels), "message": query.message}
            for query in problem.queries
        ],
    }


def _total(group: _Group) -> int:
    return group.kind.size * (len(group.new) + sum(len(packs) for packs in group.held))


def _groups(problem: Problem) -> list[_Group]:
    """The packs by policy and size, and those held by their holders too, in the order of first occurrence."""
    if problem.asked is not None and not len(problem.packs):
        policy, size = problem.asked
        rule = problem.rules[policy]
        return [_Group(kind=Kind(rule=rule, size=size, held=Sets.none(rule.width)), policy=policy, held=[], new=[])]
    keys = np.stack([problem.policies, problem.sizes], axis=1)
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    where = which.reshape(-1)
    order = np.argsort(first, kind="stable")
    new: list[list[int]] = [[] for _ in order]
    held: list[dict[tuple[int, ...], list[int]]] = [{} for _ in order]
    if problem.held:
        for at, number in enumerate(where.tolist()):
            if at in problem.held:
                held[number].setdefault(problem.held[at], []).append(at)
            else:
                new[number].append(at)
    else:
        for number in range(len(order)):
            new[number] = np.flatnonzero(where == number).tolist()
    found = []
    for number in order.tolist():
        policy, size = keys[first[number]].tolist()
        rule = problem.rules[policy]
        sets = Sets(
            tuples=np.array(list(held[number]), dtype=np.int64).reshape(-1, rule.width),
            packs=np.array([len(packs) for packs in held[number].values()], dtype=np.int64),
        )
        found.append(
            _Group(
                kind=Kind(rule=rule, size=size, held=sets, new=len(new[number])),
                policy=policy,
                held=list(held[number].values()),
                new=new[number],
            )
        )
    return found


# -- packs ------------------------------------------------------------------------------------------------


def _tell_held(
    problem: Problem,
    group: _Group,
    settled: Settled,
    words: _Words,
    placed: dict[int, list[int]],
    moves: list[tuple[int, dict[str, Any]]],
    refused: list[tuple[int, dict[str, Any]]],
) -> None:
    ids: list[str | None] = [*problem.ground.ids, None]
    given = [0] * len(group.held)
    rows = zip(settled.sets.tuples.tolist(), settled.sets.packs.tolist(), settled.origin.tolist(), strict=True)
    for at, (row, count, origin) in enumerate(rows):
        packs = group.held[origin][given[origin] : given[origin] + count]
        given[origin] += count
        before = group.kind.held.tuples[origin].tolist()
        changed = [
            {"shard": shard, "from": ids[old], "to": ids[now], "why": words.moved(before, shard)}
            for shard, (old, now) in enumerate(zip(before, row, strict=True))
            if now not in (old, -1)
        ]
        due = np.flatnonzero(settled.due[at]).tolist()
        reason = words.stuck(before, row, due) if due else None
        for pack in packs:
            placed[pack] = row
            moves += [(pack, {"pack": problem.packs[pack], **move}) for move in changed]
            if reason is not None:
                refused.append((pack, {"pack": problem.packs[pack], "why": reason[0], "would_help": reason[1]}))


def _tell_new(
    problem: Problem,
    group: _Group,
    settled: Settled,
    words: _Words,
    placed: dict[int, list[int]],
    refused: list[tuple[int, dict[str, Any]]],
) -> None:
    served = settled.fresh.in_turn()
    tuples = settled.fresh.tuples.tolist()
    placed.update({pack: tuples[which] for pack, which in zip(group.new, served.tolist(), strict=False)})
    if settled.refused:
        why, would_help = words.refused(settled.refused)
        refused += [
            (pack, {"pack": problem.packs[pack], "why": why, "would_help": would_help})
            for pack in group.new[len(served) :]
        ]


# -- capacity ---------------------------------------------------------------------------------------------


def _limit(problem: Problem, kind: Kind) -> dict[str, Any]:
    """How many packs of a kind fit from empty, and why not one more."""
    slots = np.array([max(0, room) // kind.shard for room in problem.room], dtype=object)
    shape = Shape(problem.ground, kind.rule, problem.ground.takes & (slots > 0))
    bound = shape.bound(slots)
    wide = Shape(problem.ground, kind.rule, problem.ground.takes)
    found = wide.bottleneck(slots, bound)
    return {
        "policy": kind.rule.name,
        "size": kind.size,
        "shard": kind.shard,
        "bound": bound,
        "exact": shape.exact,
        "bottleneck": _bottleneck(problem.ground, kind, wide, found),
    }


def _bottleneck(ground: Field, kind: Kind, shape: Shape, found: Bottleneck) -> dict[str, Any]:
    why, would_help = _describe(ground, kind, shape, found, found.lacking)
    return {
        "text": f"{why}; {would_help} would help",
        "full": [ground.ids[at] for at in found.full],
        "held": [{"domain": domain, "label": label, "max_per": cap} for domain, label, cap in found.held],
        "regions": found.regions,
        "lacking": found.lacking * kind.shard,
        "peer": None if found.peer is None else ground.ids[found.peer],
    }


def _describe(ground: Field, kind: Kind, shape: Shape, found: Bottleneck, lacking: int) -> tuple[str, str]:
    """Why no more packs fit, and what would make ``lacking`` shards more fit, as two phrases."""
    rule = kind.rule
    why = []
    if len(shape.at) < rule.width:
        why.append(f"a pack needs {rule.width} peers, and {len(shape.at)} may take a shard")
    if found.regions:
        why.append(f"every pack needs shards in {rule.min_regions} regions")
    if found.held:
        why.append(
            _some([f"{domain} {label}" for domain, label, _ in found.held])
            + " can have no more of a pack than the policy allows"
        )
    if found.full:
        names = _some([ground.ids[at] for at in found.full])
        why.append(f"{names} {'is' if len(found.full) == 1 else 'are'} full")
    room = lacking * kind.shard
    apart = sorted({domain for domain, _, _ in found.held})
    other = f"another peer{_elsewhere(apart)} with {kind.shard if lacking == 1 else room} free"
    short = max(rule.width - len(shape.at), lacking - len(found.full))
    if found.peer is not None:
        would_help = f"{room} more capacity at {ground.ids[found.peer]}, or {other}"
    elif short > 1:
        would_help = f"{short} more peers, each{_elsewhere(apart)} with {kind.shard} free"
    elif found.full and short < 1:
        would_help = f"{room} more capacity at {_some([ground.ids[at] for at in found.full])} together, or {other}"
    else:
        would_help = other
    return "; ".join(why) or "every peer has as many as it can take", would_help


def _elsewhere(domains: Sequence[str]) -> str:
    return f" in another {_either(domains)}" if domains else ""


def _either(words: Sequence[str]) -> str:
    return " and another ".join(words)


def _some(names: Sequence[str]) -> str:
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1} more"


class _Words:
    """Reasons for what became of one kind's packs. ``free`` is the room that the plan leaves."""

    def __init__(self, ground: Field, kind: Kind, free: Numbers, over: Sequence[bool]) -> None:
        self.ground, self.kind, self.over = ground, kind, over
        self.slots = np.array([max(0, int(room)) // kind.shard for room in free], dtype=object)
        self.admitted = ground.admitted(kind.rule)

    def _share(self, row: Sequence[int]) -> list[tuple[str, int, set[int]]]:
        """The domains in which a row has more shards than may be: domain, its number, the places of the shards."""
        found = []
        for domain, cap in self.kind.rule.caps.items():
            places = self.ground.place[domain]
            for place in sorted({int(places[peer]) for peer in row if peer >= 0}):
                inside = {at for at, peer in enumerate(row) if peer >= 0 and places[peer] == place}
                if len(inside) > cap:
                    found.append((domain, place, inside))
        return found

    def _few_regions(self, row: Sequence[int]) -> bool:
        there = {peer for peer in row if peer >= 0}
        regions = {int(self.ground.place["region"][peer]) for peer in there}
        return len(there) - len(regions) > self.kind.rule.width - self.kind.rule.min_regions

    def moved(self, before: Sequence[int], shard: int) -> str:
        """Why a shard does not stay."""
        ground, peer = self.ground, before[shard]
        if peer < 0:
            return "nobody holds it"
        name = ground.ids[peer]
        if not ground.holds[peer]:
            return f"{name} is {ground.state[peer]}"
        if not self.admitted[peer]:
            return f"residency does not allow {ground.country[peer] or 'a peer without a country'}"
        if before.count(peer) > 1:
            return f"{name} holds another shard of the pack"
        for domain, place, inside in self._share(before):
            if shard in inside:
                others = _some([ground.ids[before[at]] for at in sorted(inside) if at != shard])
                cap = self.kind.rule.caps[domain]
                return f"{domain} {ground.label[domain][place]} may hold {cap} and also has {others}"
        if self._few_regions(before):
            return f"the pack lies in too few regions, {self.kind.rule.min_regions} are asked for"
        if self.over[peer]:
            return f"{name} holds more than its capacity"
        return "makes room for other shards"

    def stuck(self, before: Sequence[int], row: Sequence[int], due: Sequence[int]) -> tuple[str, str]:
        """Why the shards in ``due`` of a pack are not where its policy wants them, and what would help."""
        ground = self.ground
        wrong = [
            f"shard {shard} cannot leave: {self.moved(before, shard)}"
            if row[shard] >= 0
            else f"shard {shard} is gone: {self.moved(before, shard)}"
            for shard in due
        ]
        rest = [peer for shard, peer in enumerate(row) if shard not in due]
        others = [peer for peer in range(len(ground)) if peer not in row]
        against = [self._against(rest, peer) for peer in others]
        why = "; ".join(wrong) + (f"; no peer can take it: {_some(against)}" if against else "; there is no other peer")
        would = [peer for peer in others if self._only_full(rest, peer)]
        shard = self.kind.shard
        other = f"another peer{self._apart(rest)} with {shard} free"
        if would:
            best = max(would, key=lambda peer: (int(self.slots[peer]), -peer))
            return why, f"{shard} more capacity at {ground.ids[best]}, or {other}"
        return why, other

    def _apart(self, rest: Sequence[int]) -> str:
        taken = [
            f"{domain} than {_some(sorted({self._name(domain, peer) for peer in rest}))}"
            for domain, cap in self.kind.rule.caps.items()
            if cap == 1 and rest
        ]
        return f" in another {_either(taken)}" if taken else ""

    def _name(self, domain: str, peer: int) -> str:
        return self.ground.label[domain][int(self.ground.place[domain][peer])]

    def _only_full(self, rest: Sequence[int], peer: int) -> bool:
        ground = self.ground
        return bool(ground.takes[peer] and self.admitted[peer] and not self.slots[peer]) and not self._crowded(
            rest, peer
        )

    def _crowded(self, rest: Sequence[int], peer: int) -> str:
        """The domain in which one more shard beside ``rest`` would be too many."""
        for domain, cap in self.kind.rule.caps.items():
            place = int(self.ground.place[domain][peer])
            if sum(int(self.ground.place[domain][other]) == place for other in rest) >= cap:
                return domain
        return "region" if self._few_regions([*rest, peer]) else ""

    def _against(self, rest: Sequence[int], peer: int) -> str:
        ground = self.ground
        name = ground.ids[peer]
        if not ground.takes[peer]:
            return f"{name} is {ground.state[peer]}"
        if not self.admitted[peer]:
            return f"{name} lies outside the residency"
        crowded = self._crowded(rest, peer)
        if crowded:
            return f"{name} is in a {crowded} that has its share"
        return f"{name} is full" if not self.slots[peer] else f"{name} is needed by others"

    def refused(self, count: int) -> tuple[str, str]:
        """Why new packs do not fit beside what is placed, and what would make one fit."""
        shape = Shape(self.ground, self.kind.rule, self.ground.takes)
        bound = shape.bound(self.slots)
        found = shape.bottleneck(self.slots, bound)
        why, would_help = _describe(self.ground, self.kind, shape, found, found.lacking)
        return (f"{count} packs of policy {self.kind.rule.name} do not fit: {why}" if count > 1 else why), would_help


# -- losses -----------------------------------------------------------------------------------------------


def _losses(
    problem: Problem, groups: Sequence[_Group], settled: Sequence[Settled], placed: Mapping[int, Sequence[int]]
) -> dict[str, Any]:
    """The fewest shards that the loss of any one peer, owner, site, region or country leaves of a placed pack."""
    first: dict[tuple[int, tuple[int, ...]], int] = {}
    policies = problem.policies.tolist()
    for pack, row in sorted(placed.items()):
        first.setdefault((policies[pack], tuple(row)), pack)
    packs: dict[tuple[int, tuple[int, ...]], int] = {}
    for group, result in zip(groups, settled, strict=True):
        for sets in (result.sets, result.fresh):
            for row, count in zip(sets.tuples.tolist(), sets.packs.tolist(), strict=True):
                packs[group.policy, tuple(row)] = packs.get((group.policy, tuple(row)), 0) + count
    worst: dict[str, dict[str, Any] | None] = {}
    for kind in ("peer", *DOMAINS):
        places: Ints = np.arange(len(problem.ground)) if kind == "peer" else problem.ground.place[kind]
        names = problem.ground.ids if kind == "peer" else problem.ground.label[kind]
        worst[kind] = _worst(problem, places.tolist(), names, first, packs)
    return {
        "after_worst_loss": {kind: None if loss is None else loss["left"] for kind, loss in worst.items()},
        "worst_losses": worst,
    }


def _hanging(problem: Problem, groups: Sequence[_Group], settled: Sequence[Settled]) -> int:
    """How many placed packs cannot be read while one machine is out of reach that others are reached through."""
    return sum(
        count
        for group, result in zip(groups, settled, strict=True)
        for sets in (result.sets, result.fresh)
        for row, count in zip(sets.tuples.tolist(), sets.packs.tolist(), strict=True)
        if problem.relays.lacks([peer for peer in row if peer >= 0], group.kind.rule.needed)
    )


def _worst(
    problem: Problem,
    places: Sequence[int],
    names: Sequence[str],
    first: Mapping[tuple[int, tuple[int, ...]], int],
    packs: Mapping[tuple[int, tuple[int, ...]], int],
) -> dict[str, Any] | None:
    """The place whose loss leaves fewest shards of some pack, and of those makes most packs unreadable."""
    least: dict[int, tuple[int, int]] = {}
    unreadable: dict[int, int] = {}
    for (policy, row), count in packs.items():
        there = [places[peer] for peer in row if peer >= 0]
        for place in set(there):
            left = len(there) - there.count(place)
            pack = first[policy, row]
            if place not in least or (left, pack) < least[place]:
                least[place] = (left, pack)
            if left < problem.rules[policy].needed:
                unreadable[place] = unreadable.get(place, 0) + count
    if not least:
        return None
    place = min(least, key=lambda place: (least[place][0], -unreadable.get(place, 0), names[place]))
    left, pack = least[place]
    return {"place": names[place], "pack": problem.packs[pack], "left": left, "unreadable": unreadable.get(place, 0)}
