"""Capacity where failure domains cross: an owner with houses in two regions, two owners in one house.

Limits that fall into two nested families are a flow: from all peers down the one family to each peer, and from there
up the other. Such a flow in whole numbers is a sum of packs (the matrix is totally unimodular), so the bound stays
exact; the packs are peeled off one tuple at a time, each taken as often as what remains stays a sum of packs. Three
families and more are no flow: with few peers every admissible tuple is listed and the integer program solved; with
many, `bound` is that of two of the families, which can be too high, and ``exact`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scheduler.flow import Network
from scheduler.laminar import Group, Numbers, nest
from scheduler.packing import most_packs

__all__ = ["Mesh"]

Ints = npt.NDArray[np.int64]
_WHOSE: Final = ("owner", "household")

_LISTED: Final = 4000
"""Tuples that are listed one by one; more peers are not."""
_PEELED: Final = 400
"""Peers up to which a flow is peeled; more are filled greedily, in about so many steps."""


class Mesh:
    """The peers under limits that do not nest; ``regions`` is the least number of regions a pack must touch."""

    def __init__(self, count: int, width: int, groups: Sequence[Group], *, region: Ints, regions: int) -> None:
        self.count, self.width, self.groups, self.regions = count, width, tuple(groups), regions
        self.region = region
        # Places nest in one another as a rule, so whose a peer is makes the other family.
        places = [group for group in groups if group.domain not in _WHOSE]
        self.down, self.down_parents, crossing = nest(places, count)
        whose = [group for group in groups if group.domain in _WHOSE]
        self.up, self.up_parents, rest = nest([*crossing, *whose], count)
        self._flows = regions == 1 and not rest
        self._inside: list[list[int]] = [[] for _ in range(count)]
        for at, group in enumerate(self.groups):
            for member in group.members.tolist():
                self._inside[member].append(at)
        listed = comb(count, width) if count >= width else 0
        self._tuples: Ints | None = None
        if not self._flows and listed <= _LISTED:
            self._tuples = np.array(
                [row for row in combinations(range(count), width) if self._admits(row)], dtype=np.int64
            ).reshape(-1, width)
        self.exact = self._flows or self._tuples is not None

    def _admits(self, row: Sequence[int]) -> bool:
        chosen = set(row)
        return len({int(self.region[at]) for at in row}) >= self.regions and all(
            len(chosen.intersection(members)) <= cap for members, cap in self._members()
        )

    def _members(self) -> list[tuple[frozenset[int], int]]:
        return [(frozenset(group.members.tolist()), group.cap) for group in self.groups]

    # -- capacity -------------------------------------------------------------------------------------

    def bound(self, room: Numbers) -> int:
        """The greatest number of packs that fit; see ``exact``."""
        if self.count < self.width:
            return 0
        if self._tuples is not None:
            return int(self._packed(room)[0].sum())
        low, high = 0, int(room.sum()) // self.width
        while low < high:
            middle = (low + high + 1) // 2
            if self._short(room, middle):
                high = middle - 1
            else:
                low = middle
        return low

    def lacking(self, room: Numbers, packs: int) -> int:
        """How many shards do not fit; where tuples are listed, 1 for any number but none."""
        if self._tuples is not None:
            return 0 if self.bound(room) >= packs else 1
        return self._short(room, packs)

    def regional(self, room: Numbers, packs: int) -> bool:
        """Whether the rule on regions is among what binds: without it ``packs`` would fit."""
        free = Mesh(self.count, self.width, self.groups, region=self.region, regions=1)
        return self.lacking(room, packs) > 0 and not free.lacking(room, packs)

    def tight(self, room: Numbers, packs: int) -> tuple[Ints, Ints]:
        """The places in ``groups`` of limits that hold, and the peers with less room than ``packs``.

        Those of a least cut: no room in a group that holds would help. Where tuples are listed, each is tried.
        """
        held = self._tried(room, packs - 1) if self._tuples is not None else self._cut(room, packs)
        under = np.zeros(self.count, dtype=bool)
        for at in held:
            under[self.groups[at].members] = True
        return np.array(held, dtype=np.int64), np.flatnonzero(~under & (room < packs))

    def _tried(self, room: Numbers, bound: int) -> list[int]:
        found = []
        for at, group in enumerate(self.groups):
            more = room.copy()
            more[group.members] += bound + 1
            if self.bound(more) == bound:
                found.append(at)
        return found

    def _cut(self, room: Numbers, packs: int) -> list[int]:
        network, _ = self._network(room, packs)
        network.run(0, 1)
        near = network.reached(0)
        number = {id(group): at for at, group in enumerate(self.groups)}
        down = len(self.down)
        found = [
            number[id(group)]
            for at, (group, parent) in enumerate(zip(self.down, self.down_parents, strict=True))
            if near[3 + parent if parent else 2] and not near[4 + at]
        ]
        found += [
            number[id(group)]
            for at, (group, parent) in enumerate(zip(self.up, self.up_parents, strict=True))
            if near[4 + down + at] and not near[3 + down + parent if parent else 3]
        ]
        return sorted(found)

    def _short(self, room: Numbers, packs: int) -> int:
        if self.count < self.width:
            return self.width * packs
        network, _ = self._network(room, packs)
        return self.width * packs - network.run(0, 1)

    def _network(self, room: Numbers, packs: int, cost: Sequence[int] | None = None) -> tuple[Network, list[int]]:
        """Source 0, sink 1, the nodes of the two families, and each peer as an arc between them."""
        price = cost or [0] * self.count
        down, up = len(self.down), len(self.up)
        network = Network(4 + down + up)
        network.arc(0, 2, self.width * packs)
        network.arc(3, 1, self.width * packs)
        below = np.zeros(self.count, dtype=np.int64) + 2
        above = np.zeros(self.count, dtype=np.int64) + 3
        for at, (group, parent) in enumerate(zip(self.down, self.down_parents, strict=True)):
            network.arc(3 + parent if parent else 2, 4 + at, group.cap * packs)
            below[group.members] = 4 + at
        for at, (group, parent) in enumerate(zip(self.up, self.up_parents, strict=True)):
            network.arc(4 + down + at, 3 + down + parent if parent else 3, group.cap * packs)
            above[group.members] = 4 + down + at
        return network, [
            network.arc(int(below[at]), int(above[at]), min(int(room[at]), packs), price[at])
            for at in range(self.count)
        ]

    # -- sets -----------------------------------------------------------------------------------------

    def sets(self, room: Numbers, packs: int) -> tuple[Ints, Ints]:
        """Tuples of peers and how many packs each serves, for ``packs`` packs or as many as fit.

        They are an even part of a placement of all that fits, as far as one was found.
        """
        if self.count < self.width:
            return np.zeros((0, self.width), dtype=np.int64), np.zeros(0, dtype=np.int64)
        if self._tuples is not None:
            counts = self._packed(room)[0]
            tuples, widths = self._tuples[counts > 0], counts[counts > 0]
        elif self._flows and self.count <= _PEELED:
            tuples, widths = self._peel(room)
        else:
            return self._greedy(room, packs)
        total = int(widths.sum())
        take = min(packs, total)
        ends = np.cumsum(widths).astype(object)
        quota = (ends * take // max(1, total) - (ends - widths) * take // max(1, total)).astype(np.int64)
        return tuples[quota > 0], quota[quota > 0]

    def _packed(self, room: Numbers) -> tuple[Ints, bool]:
        assert self._tuples is not None, "only where tuples are listed"
        uses = np.zeros((self.count, len(self._tuples)), dtype=np.int64)
        for column in self._tuples.T:
            uses[column, np.arange(len(self._tuples))] = 1
        return most_packs(uses, room)

    def _choose(self, able: Ints, cost: Ints) -> list[int]:
        """The cheapest tuple of ``able`` peers: exactly where limits are a flow, else the first that fit in turn."""
        if not self._flows:
            return self._first(able[np.argsort(cost[able], kind="stable")].tolist())
        network, leaves = self._network(np.isin(np.arange(self.count), able).astype(np.int64), 1, cost.tolist())
        network.run(0, 1)
        return [peer for peer, arc in enumerate(leaves) if network.through(arc)]

    def _first(self, order: Sequence[int]) -> list[int]:
        left = [group.cap for group in self.groups]
        chosen: list[int] = []
        spare = self.width - self.regions
        seen: set[int] = set()
        for peer in order:
            region = int(self.region[peer])
            if any(not left[at] for at in self._inside[peer]) or (region in seen and not spare):
                continue
            spare -= region in seen
            seen.add(region)
            for at in self._inside[peer]:
                left[at] -= 1
            chosen.append(peer)
            if len(chosen) == self.width:
                break
        return chosen

    def _peel(self, room: Numbers) -> tuple[Ints, Ints]:
        """All packs of the bound: the tuple that uses whatever must be used by every pack left, as often as can be."""
        packs = self.bound(room)
        network, leaves = self._network(room, packs)
        network.run(0, 1)
        shards = np.array([network.through(arc) for arc in leaves], dtype=object)
        tuples: list[tuple[int, ...]] = []
        widths: list[int] = []
        while packs:
            due = [int(left == packs) for left in shards]
            for group in self.groups:
                if int(shards[group.members].sum()) == group.cap * packs:
                    for member in group.members.tolist():
                        due[member] += 1
            # What must be used counts for more than all that only could be; of the rest the fullest go first.
            most = max(due)
            rank = np.argsort(np.argsort(-shards, kind="stable"), kind="stable")
            cost = (most - np.array(due, dtype=np.int64)) * (self.count + 1) * (self.width + 1) + rank
            chosen = self._choose(np.flatnonzero(shards > 0), cost)
            times = self._times(shards, packs, chosen)
            assert len(chosen) == self.width, "a flow of whole packs has a pack in it"
            assert times > 0, "and one that every full domain is part of"
            shards[chosen] -= times
            packs -= times
            tuples.append(tuple(chosen))
            widths.append(times)
        return np.array(tuples, dtype=np.int64).reshape(-1, self.width), np.array(widths, dtype=np.int64)

    def _times(self, shards: npt.NDArray[Any], packs: int, chosen: Sequence[int]) -> int:
        """How many packs can take one tuple so that the others still add up."""
        inside = np.zeros(self.count, dtype=np.int64)
        inside[chosen] = 1
        most = min(packs, *(int(shards[at]) for at in chosen))
        rest = shards[inside == 0]
        if len(rest):
            most = min(most, packs - int(rest.max()))
        for group in self.groups:
            spare = group.cap - int(inside[group.members].sum())
            if spare:
                most = min(most, (group.cap * packs - int(shards[group.members].sum())) // spare)
        return most

    def _greedy(self, room: Numbers, packs: int) -> tuple[Ints, Ints]:
        """The tuple with the most room, again and again, a small part of the packs at a time."""
        free = np.array([int(there) for there in room], dtype=object)
        portion = max(1, -(-packs // _PEELED))
        found: dict[tuple[int, ...], int] = {}
        while packs:
            rank = np.argsort(np.argsort(-free, kind="stable"), kind="stable")
            chosen = self._choose(np.flatnonzero(free > 0), rank)
            if len(chosen) < self.width:
                break
            times = min(portion, packs, *(int(free[at]) for at in chosen))
            free[chosen] -= times
            packs -= times
            found[tuple(chosen)] = found.get(tuple(chosen), 0) + times
        rows = np.array(list(found), dtype=np.int64).reshape(-1, self.width)
        return rows, np.array(list(found.values()), dtype=np.int64)
