"""Peers as numbers, what a policy asks of them, and the exact capacity that follows.

A `Field` is the peers as arrays; a `Rule` is a policy reduced to what placing needs. A `Shape` joins the two for the
peers that may take a pack: it knows the greatest number of packs that fit, what keeps one more from fitting, and the
placement sets (tuples of peers with a number of packs each) that reach it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from scheduler.crossing import Mesh
from scheduler.laminar import Group, Numbers, Tree, nest, numbers

__all__ = ["ROUNDS", "Bottleneck", "Field", "Rule", "Sets", "Shape", "rng"]

ROUNDS: Final = 4
"""Orders of the domains that new packs are cut in: 4 tuples a peer and place.

More lose less at once when a peer dies but sooner lose something when several do; `bench/results/placement.md`.
"""

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def rng(seed: bytes) -> np.random.Generator:
    """Numbers that depend on the seed alone."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(blake2b(seed, digest_size=16).digest(), "big")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A policy: ``width`` shards on distinct peers, of which ``needed`` suffice to read the pack.

    At most ``caps[d]`` shards lie in one domain d, at least ``min_regions`` regions hold one, and all lie in
    ``countries`` if those are given.
    """

    name: str
    width: int
    needed: int = 1
    caps: Mapping[str, int] = field(default_factory=dict, hash=False)
    min_regions: int = 1
    countries: frozenset[str] | None = None

    def shard(self, size: int) -> int:
        """What one shard of a pack of ``size`` takes on a peer."""
        return -(-size // self.needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The peers in the order of their ids, as arrays.

    ``place[d][i]`` numbers the domain d that peer i lies in, ``label[d]`` names the numbers.
    """

    ids: tuple[str, ...]
    place: Mapping[str, Ints]
    label: Mapping[str, Sequence[str]]
    country: tuple[str | None, ...]
    takes: Flags
    """Who may be given something new."""
    holds: Flags
    """Where a copy may stay."""
    cost: Ints
    state: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def admitted(self, rule: Rule) -> Flags:
        """The peers that residency allows; one of no known country only where there is no rule."""
        if rule.countries is None:
            return np.ones(len(self), dtype=bool)
        return np.array([country in rule.countries for country in self.country], dtype=bool)

    def together(self, rule: Rule, row: Sequence[int]) -> bool:
        """Whether distinct peers may hold shards of one pack, as far as limits say."""
        for domain, cap in rule.caps.items():
            places = [int(self.place[domain][peer]) for peer in row]
            if any(places.count(place) > cap for place in places):
                return False
        return len(row) - len({int(self.place["region"][peer]) for peer in row}) <= rule.width - rule.min_regions


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """Placement sets: tuple j (peers by number, -1 for nobody, the place is the shard number) serves ``packs[j]``."""

    tuples: Ints
    packs: Ints

    @staticmethod
    def none(width: int) -> Sets:
        return Sets(tuples=np.zeros((0, width), dtype=np.int64), packs=np.zeros(0, dtype=np.int64))

    def load(self, count: int) -> Ints:
        """Shards on each of ``count`` peers."""
        got = np.zeros(count, dtype=np.int64)
        for column in self.tuples.T:
            there = column >= 0
            np.add.at(got, column[there], self.packs[there])
        return got

    def in_turn(self) -> Ints:
        """For every pack the tuple that serves it, so that any first part of the packs fills the tuples evenly."""
        which = np.repeat(np.arange(len(self.packs)), self.packs)
        starts = np.cumsum(self.packs) - self.packs
        when = (np.arange(len(which)) - starts[which] + 0.5) / self.packs[which]
        return which[np.argsort(when, kind="stable")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """What keeps one more pack from fitting.

    ``full`` are the peers where room would help, ``held`` the domains where it would not because the policy allows
    no more shards of a pack there; ``regions`` says that the rule on regions is what binds. ``lacking`` shards of
    room, on peers in ``full`` or on others outside ``held``, make the next pack fit; at most one for each pack on a
    peer, so ``peer`` is one that could lift it alone, if any could.
    """

    packs: int
    lacking: int
    full: tuple[int, ...]
    held: tuple[tuple[str, str, int], ...]
    regions: bool
    peer: int | None


class Shape:
    """A rule over those peers of a field that are open to it."""

    def __init__(self, ground: Field, rule: Rule, open_to: Flags) -> None:
        self.rule = rule
        self.ground = ground
        self.at = np.flatnonzero(open_to & ground.admitted(rule))
        """The numbers of the peers in this shape."""
        groups = self._groups()
        inside, parents, crossing = nest(groups, len(self.at))
        regions = self._binding_regions()
        if regions > 1:
            # With regions every peer is in one, and no wider limit may stand above them.
            named = [*self._all("region", min(rule.caps.get("region", rule.width), rule.width - regions + 1))]
            wider = [group for group in groups if group.domain != "region"]
            inside, parents, crossing = nest([*named, *wider], len(self.at))
            marked = {id(group) for group in named}
            on_top = all(parent == 0 for group, parent in zip(inside, parents, strict=True) if id(group) in marked)
            only = {id(group) for group, parent in zip(inside, parents, strict=True) if parent == 0}
            if crossing or not on_top or only != marked:
                crossing = groups or named
        self.tree: Tree | None = None
        self.mesh: Mesh | None = None
        if crossing or not len(self.at):
            self.mesh = Mesh(
                len(self.at),
                rule.width,
                groups,
                region=ground.place["region"][self.at],
                regions=regions,
            )
        else:
            self.tree = Tree(len(self.at), rule.width, inside, parents, regions=regions)

    def _all(self, domain: str, cap: int) -> list[Group]:
        place = self.ground.place[domain][self.at]
        order = np.argsort(place, kind="stable")
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        return [
            Group(domain=domain, label=self.ground.label[domain][place[members[0]]], cap=cap, members=members)
            for members in (np.split(order, starts[1:]) if len(order) else [])
        ]

    def _groups(self) -> list[Group]:
        """The domains whose limit can bind: those with more peers than it allows shards."""
        found: list[Group] = []
        for domain, cap in self.rule.caps.items():
            if cap < self.rule.width:
                found += [group for group in self._all(domain, cap) if len(group.members) > cap]
        return found

    def _binding_regions(self) -> int:
        """The rule on regions, or 1 if limits and peers imply it anyway."""
        rule = self.rule
        if rule.min_regions == 1:
            return 1
        region, country = self.ground.place["region"][self.at], self.ground.place["country"][self.at]
        pairs = np.unique(np.stack([country, region]), axis=1)
        per_region = min(rule.caps.get("region", rule.width), rule.width)
        most = np.minimum(np.bincount(region, minlength=len(self.ground.label["region"])), per_region)
        gains: list[int] = []
        cap = rule.caps.get("country", rule.width) if pairs.shape[1] == len(np.unique(region)) else rule.width
        for place in np.unique(pairs[0]):
            left = cap
            for most_here in sorted(most[pairs[1][pairs[0] == place]].tolist(), reverse=True):
                gains.append(min(left, most_here))
                left -= gains[-1]
        fewest = sum(sorted(gains, reverse=True)[: rule.min_regions - 1])
        return 1 if fewest < rule.width else rule.min_regions

    # -- capacity -------------------------------------------------------------------------------------

    def bound(self, room: Numbers) -> int:
        """The greatest number of packs that fit where peer i has room for ``room[i]`` shards."""
        room = numbers(room[self.at])
        return self.tree.bound(room) if self.tree is not None else self._mesh.bound(room)

    @property
    def exact(self) -> bool:
        """Whether `bound` is reached by some placement for certain; see `scheduler.crossing`."""
        return self.tree is not None or self._mesh.exact

    @property
    def _mesh(self) -> Mesh:
        assert self.mesh is not None, "a shape is nested or it crosses"
        return self.mesh

    def bottleneck(self, room: Numbers, packs: int) -> Bottleneck:
        """Why not ``packs`` + 1, where ``packs`` is the bound."""
        inner = numbers(room[self.at], packs + 1)
        judge = self.tree if self.tree is not None else self._mesh
        lacking = max(1, judge.lacking(inner, packs + 1))
        nodes, full = judge.tight(inner, packs + 1)
        groups = self.tree.nodes if self.tree is not None else self._mesh.groups
        shift = 1 if self.tree is not None else 0
        binding = [groups[node - shift] for node in nodes]
        regions = judge.regions > 1 and judge.regional(inner, packs + 1)
        return Bottleneck(
            packs=packs,
            lacking=lacking,
            full=tuple(self.at[full].tolist()),
            held=tuple((group.domain, group.label, group.cap) for group in binding),
            regions=regions,
            peer=self._lifts(judge, inner, packs, full.tolist(), lacking),
        )

    def _lifts(self, judge: Tree | Mesh, room: Numbers, packs: int, full: Sequence[int], lacking: int) -> int | None:
        """The peer with the most room of those that could make the next pack fit by ``lacking`` more alone."""
        for at in sorted(full, key=lambda at: (-int(room[at]), at))[:_TRIED]:
            more = room.copy()
            more[at] += lacking
            if not judge.lacking(more, packs + 1):
                return int(self.at[at])
        return None

    # -- sets -----------------------------------------------------------------------------------------

    def sets(self, room: Numbers, packs: int, *, seed: bytes, rounds: int = ROUNDS) -> Sets:
        """``packs`` packs (or as many as fit) into ``room``, leaving as much for later packs as there can be.

        All that fits is cut into tuples, and of those the wanted number of packs is taken evenly: what is left is
        then again a number of whole packs. Where peers differ in cost, as many as can be without loss for later ones
        go to the cheapest first.
        """
        inner = numbers(room[self.at])
        if self.tree is None:
            tuples, widths = self._mesh.sets(inner, packs)
            return Sets(tuples=self.at[tuples], packs=widths)
        most = self.tree.bound(inner)
        packs = min(packs, most)
        if not packs:
            return Sets.none(self.rule.width)
        source = rng(seed)
        pieces: list[tuple[Ints, Ints]] = []
        cheap, shards = self._cheapest(self.tree, inner, packs, most)
        if cheap:
            pieces += _cuts(self.tree, shards.copy(), cheap, cheap, source, rounds)
        if packs > cheap:
            left = self.tree.share(inner - shards, most - cheap)
            pieces += _cuts(self.tree, left, most - cheap, packs - cheap, source, rounds)
        return Sets(
            tuples=self.at[np.concatenate([tuples for tuples, _ in pieces])],
            packs=np.concatenate([counts for _, counts in pieces]),
        )

    def blend(
        self, room: Numbers, shard: int, unit: int, packs: int, *, ends: Flags, seed: bytes, rounds: int = ROUNDS
    ) -> Sets:
        """As `sets` beside packs of other sizes: ``room`` is amounts, of which a shard takes ``shard``.

        What is shared out and cut is the room in steps of ``unit``, as if packs were so small: room in whole shards
        would leave out what smaller ones could use, and lean on the other peers of a place too much. Then come those
        that fit into whole shards only. ``ends[n]`` says whether shards of the sizes that there are fill n steps to the
        last: as long as there are others, no peer is left with an end that nothing fits.
        """
        sets = self._blended(room, shard, unit, packs, ends, seed, rounds)
        if int(sets.packs.sum()) < packs:
            # Peers that were passed over for their ends are missing in their places: try without that.
            other = self._blended(room, shard, unit, packs, np.ones_like(ends), seed, rounds)
            sets = max(sets, other, key=lambda one: int(one.packs.sum()))
        return sets

    def _blended(self, room: Numbers, shard: int, unit: int, packs: int, ends: Flags, seed: bytes, rounds: int) -> Sets:
        free = room.copy()
        found = [Sets.none(self.rule.width)]
        packs_left = packs

        def take(sets: Sets) -> None:
            nonlocal free, packs_left
            free = free - sets.load(len(free)).astype(free.dtype) * shard
            packs_left -= int(sets.packs.sum())
            found.append(sets)

        # Where a domain has more than its limit lets packs use, no peer is ever full, and ends do not matter.
        full = self._full(room // unit)
        largest = (len(ends) - 1) * unit
        if shard < largest:
            # The largest find no place first: what is too small for them is used by the others before anything else.
            small = np.where(full, free % largest, free)
            take(self.sets(_clean(small, shard, unit, ends, full), packs_left, seed=seed, rounds=rounds))
        if self.tree is not None and len(self.at):
            source = rng(seed)
            for left in range(rounds, 0, -1):
                fine = numbers(free[self.at] // unit)
                most = self.tree.bound(fine)
                wanted = min(packs_left // left, most * unit // shard)
                if not wanted:
                    continue
                tuples, begins, stops = self.tree.cut(self.tree.share(fine, most), most, source)
                quota = _even(begins, stops, wanted, most)
                quota = _trimmed(tuples, quota, (free // shard)[self.at])
                some = quota > 0
                take(Sets(tuples=self.at[tuples[some]], packs=quota[some].astype(np.int64)))
        take(self.sets(_clean(free, shard, unit, ends, full), packs_left, seed=seed, rounds=rounds))
        take(self.sets(free // shard, packs_left, seed=seed, rounds=rounds))
        return Sets(
            tuples=np.concatenate([sets.tuples for sets in found]), packs=np.concatenate([sets.packs for sets in found])
        )

    def _full(self, room: Numbers) -> Flags:
        """The peers that are full when as many packs are placed as fit into ``room``."""
        found = np.zeros(len(self.ground), dtype=bool)
        if len(self.at):
            judge = self.tree if self.tree is not None else self._mesh
            inner = numbers(room[self.at])
            most = judge.bound(inner)
            _, full = judge.tight(numbers(inner, most + 1), most + 1)
            found[self.at[full]] = True
        return found

    def _cheapest(self, tree: Tree, room: Numbers, packs: int, most: int) -> tuple[int, Numbers]:
        """How many packs can go to the cheapest peers so that ``most`` still fit in all, and their shards."""
        cost = self.ground.cost[self.at]
        nothing = np.zeros_like(room)
        if tree.regions > 1 or not (cost != cost[0]).any():
            return 0, nothing
        low, high, found = 0, packs, nothing
        while low < high:
            middle = (low + high + 1) // 2
            shards = tree.cheapest(room, middle, cost)
            if tree.bound(room - shards) == most - middle:
                low, found = middle, shards
            else:
                high = middle - 1
        return low, found


def _cuts(
    tree: Tree, shards: Numbers, most: int, packs: int, source: np.random.Generator, rounds: int
) -> list[tuple[Ints, Ints]]:
    """Tuples for ``packs`` of the ``most`` packs that ``shards`` make up, cut in several orders."""
    found: list[tuple[Ints, Ints]] = []
    for left in range(rounds, 0, -1):
        take = packs // left
        packs -= take
        if not take:
            continue
        tuples, begins, stops = tree.cut(shards, most, source)
        quota = _even(begins, stops, take, most)
        some = quota > 0
        tuples, quota = tuples[some], quota[some]
        for column in tuples.T:
            np.subtract.at(shards, column, quota)
        most -= take
        found.append((tuples, quota.astype(np.int64)))
    return found


_TRIED: Final = 16


def _even(begins: Numbers, stops: Numbers, take: int, packs: int) -> Numbers:
    """Of each stretch its share of ``take``, so that every stretch of the line of ``packs`` is drawn on alike.

    Where on the line the first is taken differs from night to night, with ``packs``.
    """
    first = int.from_bytes(blake2b(str(packs).encode(), digest_size=16).digest(), "big") % packs
    wide = begins.astype(object) if packs > 2**30 else begins
    ends = stops.astype(object) if packs > 2**30 else stops
    quota: Numbers = (ends * take + first) // packs - (wide * take + first) // packs
    return quota


def _clean(room: Numbers, shard: int, unit: int, ends: Flags, full: Flags) -> Numbers:
    """How many shards fit so that what is left of the room of ``full`` peers can be filled to the last, in steps."""
    slots = room // shard
    rest = ((room - slots * shard) // unit).astype(np.int64)
    clean: Numbers = np.maximum(slots - (full & ~ends[rest]).astype(slots.dtype), 0)
    return clean


def _trimmed(tuples: Ints, quota: Numbers, room: Numbers) -> Numbers:
    """``quota`` lowered until no peer has more than its room."""
    quota = quota.copy()
    load = np.zeros(len(room), dtype=quota.dtype)
    for column in tuples.T:
        np.add.at(load, column, quota)
    for peer in np.flatnonzero(load > room).tolist():
        for row in np.flatnonzero((tuples == peer).any(axis=1)).tolist():
            drop = min(int(quota[row]), int(load[peer] - room[peer]))
            if drop > 0:
                quota[row] -= drop
                load[tuples[row]] -= drop
    return quota
