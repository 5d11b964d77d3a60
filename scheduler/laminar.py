"""Nested caps over peers: how many packs fit, how full each peer gets, and which tuples of peers that makes.

Limits "at most m shards of a pack in this domain" whose domains nest form a laminar matroid, and that has the
integer decomposition property: N packs of n shards fit exactly when numbers x of shards exist with x[i] at most
N and the room of peer i, at most m N in each domain, and n N in all. So the greatest N is found by bisection
without placing anything, and any such x is cut into N tuples: lay the peers on a line so that every domain is
contiguous, peer i as long as x[i], cut the line at multiples of N, and lay the pieces over one another. No peer is
longer than N and no domain longer than m N, so no tuple meets a peer twice or a domain more than m times.

"At least r regions" is the same with one more limit: of the shards beyond the first in a region a pack has at
most n - r. With the regions longer than N first on the line, their surplus is one contiguous stretch, and each
tuple meets at most the share of it that is allowed.

Numbers of shards are 64-bit where their products fit, and Python's own otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Group", "Numbers", "Tree", "nest", "numbers"]

Numbers: TypeAlias = npt.NDArray[Any]
"""Whole numbers, one for each peer (or node): int64, or Python's where those would overflow."""

_SAFE: Final = 2**62


def numbers(values: Sequence[int] | Numbers, packs: int = 1) -> Numbers:
    """``values`` as an array in which sums, and products with ``packs``, cannot overflow."""
    most = max((int(value) for value in values), default=0) if not isinstance(values, np.ndarray) else 0
    if isinstance(values, np.ndarray):
        most = int(values.max(initial=0))
    fits = (most + 1) * max(1, len(values)) * max(1, packs) < _SAFE
    return np.asarray(values, dtype=np.int64 if fits else object)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One domain with a limit: at most ``cap`` shards of a pack on ``members`` (peers by number, ascending)."""

    domain: str
    label: str
    cap: int
    members: npt.NDArray[np.int64]


def nest(groups: Sequence[Group], count: int) -> tuple[list[Group], list[int], list[Group]]:
    """Those of ``groups`` that nest, larger before smaller, each with its parent; and the ones that cross them.

    Parents count from 1 in the order of the first list; 0 is all ``count`` peers.
    """
    deepest = np.zeros(count, dtype=np.int64)
    inside: list[Group] = []
    parents: list[int] = []
    crossing: list[Group] = []
    for group in sorted(groups, key=lambda row: (-len(row.members), row.cap)):
        above = deepest[group.members]
        if (above != above[0]).any():
            crossing.append(group)
            continue
        inside.append(group)
        parents.append(int(above[0]))
        deepest[group.members] = len(inside)
    return inside, parents, crossing


class Tree:
    """The peers under nested limits; node 0 is all of them, with the ``width`` of a pack as its limit.

    ``regions`` is the number of top-level nodes (those in ``nodes``) that a pack must touch, 1 for no such rule; if
    it is more, every peer lies in one of them.
    """

    def __init__(
        self, count: int, width: int, nodes: Sequence[Group], parents: Sequence[int], *, regions: int = 1
    ) -> None:
        self.count, self.width, self.nodes, self.regions = count, width, tuple(nodes), regions
        self.cap = np.array([width, *(node.cap for node in nodes)], dtype=np.int64)
        self.parent = np.array([0, *parents], dtype=np.int64)
        self.leaf = np.zeros(count, dtype=np.int64)
        """The smallest node that a peer lies in."""
        depth = [0]
        for at, group in enumerate(nodes, start=1):
            self.leaf[group.members] = at
            depth.append(depth[parents[at - 1]] + 1)
        depths = np.array(depth)
        self.levels = [np.flatnonzero(depths == level) for level in range(1, int(depths.max()) + 1)]
        """Nodes by depth, from below the root downwards."""
        # Items are the nodes and then the leaves, each with the node above it.
        above = np.concatenate([self.parent, self.leaf])
        deep = depths[above] + 1
        deep[0] = 0
        self._above = above
        self._rows = [np.flatnonzero(deep == level) for level in range(1, int(deep.max(initial=0)) + 1)]
        # A path of items from below the root to each leaf; shorter ones end in the leaf repeated.
        size = len(self.cap)
        path = np.zeros((len(self._rows), count), dtype=np.int64)
        item = np.arange(size, size + count)
        while (deep[item] > 0).any():
            inner = deep[item] > 0
            path[deep[item[inner]] - 1, np.flatnonzero(inner)] = item[inner]
            item = np.where(inner, above[item], item)
        for level in range(1, len(self._rows)):
            missing = path[level] == 0
            path[level, missing] = path[level - 1, missing]
        self._path = path

    # -- capacity -------------------------------------------------------------------------------------

    def _flow(self, room: Numbers, packs: int) -> Numbers:
        """For every item, nodes before leaves, the most shards of ``packs`` packs that its peers can take."""
        size = len(self.cap)
        most = np.zeros(size + self.count, dtype=room.dtype)
        most[size:] = np.minimum(room, packs)
        cap = self.cap.astype(room.dtype) * packs
        np.add.at(most, self.leaf, most[size:])
        for level in reversed(self.levels):
            most[level] = np.minimum(most[level], cap[level])
            np.add.at(most, self.parent[level], most[level])
        return most

    def _firsts(self, most: Numbers, packs: int) -> tuple[Numbers, Numbers, Numbers]:
        """The nodes that are regions, and of their shards the first of each pack and those beyond."""
        top = self.levels[0]
        first = np.minimum(most[top], packs)
        return top, first, most[top] - first

    def lacking(self, room: Numbers, packs: int) -> int:
        """How many shards of ``packs`` packs do not fit; 0 when all do."""
        most = self._flow(room, packs)
        if self.regions == 1:
            return max(0, self.width * packs - int(most[0]))
        _, first, beyond = self._firsts(most, packs)
        firsts = int(first.sum())
        regional = self.regions * packs - firsts
        beyond_most = min(int(beyond.sum()), (self.width - self.regions) * packs)
        return max(0, regional, self.width * packs - firsts - beyond_most)

    def regional(self, room: Numbers, packs: int) -> bool:
        """Whether the rule on regions keeps ``packs`` packs from fitting."""
        _, first, _ = self._firsts(self._flow(room, packs), packs)
        return int(first.sum()) < self.regions * packs

    def bound(self, room: Numbers) -> int:
        """The greatest number of packs whose shards fit in ``room`` (shards that each peer can take)."""
        low, high = 0, int(room.sum()) // self.width if self.count else 0
        while low < high:
            middle = (low + high + 1) // 2
            if self.lacking(room, middle):
                high = middle - 1
            else:
                low = middle
        return low

    def tight(self, room: Numbers, packs: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """What keeps ``packs`` packs from fitting: the nodes that their own limit holds, and the full peers.

        Nodes inside a node that is held are left out, and so are peers below it. A peer is full where its room
        is less than ``packs``.
        """
        most = self._flow(room, packs)
        size = len(self.cap)
        inner = np.zeros(size, dtype=most.dtype)
        np.add.at(inner, self.leaf, most[size:])
        for level in reversed(self.levels):
            np.add.at(inner, self.parent[level], most[level])
        held = np.zeros(size, dtype=bool)
        covered = np.zeros(size, dtype=bool)
        for level in self.levels:
            covered[level] = covered[self.parent[level]] | held[self.parent[level]]
            held[level] = ~covered[level] & (inner[level] >= self.cap[level].astype(most.dtype) * packs)
        under = covered[self.leaf] | held[self.leaf]
        return np.flatnonzero(held), np.flatnonzero(~under & (room < packs))

    # -- sharing out ----------------------------------------------------------------------------------

    def share(self, room: Numbers, packs: int) -> Numbers:
        """Shards for each peer so that exactly ``packs`` packs are whole, in proportion to what each part can take.

        ``packs`` must be at most `bound`.
        """
        room = numbers(room, packs * (self.width + 1))
        most = self._flow(room, packs)
        size = len(self.cap)
        got = np.zeros(size + self.count, dtype=room.dtype)
        got[0] = self.width * packs
        weight = most.copy()
        for depth, rows in enumerate(self._rows):
            if depth == 0 and self.regions > 1:
                got[rows] = self._share_regions(most, packs)
                continue
            _portion(got, weight, rows, self._above[rows])
        return got[size:]

    def _share_regions(self, most: Numbers, packs: int) -> Numbers:
        """The part of each region: of first shards and of those beyond, each in proportion."""
        top, first, beyond = self._firsts(most, packs)
        total, firsts, rest = self.width * packs, int(first.sum()), int(beyond.sum())
        most_beyond = min(rest, (self.width - self.regions) * packs)
        wanted = total * rest // max(1, firsts + rest)
        second = min(most_beyond, max(wanted, total - firsts))
        got = np.zeros((2, len(top) + 1), dtype=most.dtype)
        for row, (amount, weights) in enumerate(((total - second, first), (second, beyond))):
            got[row, 0] = amount
            items = np.arange(1, len(top) + 1)
            weight = np.concatenate([np.zeros(1, dtype=most.dtype), weights])
            _portion(got[row], weight, items, np.zeros(len(top), dtype=np.int64))
        return got[0, 1:] + got[1, 1:]

    def cheapest(self, room: Numbers, packs: int, cost: npt.NDArray[np.int64]) -> Numbers:
        """As `share`, but the cheap peers as full as the limits allow and the dear ones last; not with regions.

        Greedy choice is optimal here because nested limits are a matroid.
        """
        got = [0] * self.count
        slack = [int(cap) * packs for cap in self.cap]
        parent = self.parent.tolist()
        for at in np.argsort(cost, kind="stable").tolist():
            path = [0]
            node = int(self.leaf[at])
            while node:
                path.append(node)
                node = parent[node]
            take = min(int(room[at]), packs, *(slack[node] for node in path))
            got[at] = take
            for node in path:
                slack[node] -= take
        return numbers(got, packs * (self.width + 1))

    # -- tuples ---------------------------------------------------------------------------------------

    def cut(
        self, shards: Numbers, packs: int, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], Numbers, Numbers]:
        """The tuples that ``shards`` are cut into: peers (a row for each), where each begins, and where it ends.

        Tuple j serves packs begin[j] to end[j] of ``packs``. ``rng`` draws the order of the domains and of the
        peers in each, on which the tuples depend but nothing of what is promised of them.
        """
        drawn = rng.permutation(len(self.cap) + self.count)
        keys = [drawn[row] for row in reversed(self._path)]
        if self.regions > 1:
            whole = np.concatenate([np.zeros(len(self.cap), dtype=shards.dtype), shards])
            np.add.at(whole, self.leaf, shards)
            for level in reversed(self.levels):
                np.add.at(whole, self.parent[level], whole[level])
            keys.append(whole[self._path[0]] <= packs)
        order = np.lexsort(keys)
        order = order[shards[order] > 0]
        ends = np.cumsum(shards[order])
        begins = np.unique(np.concatenate([np.zeros(1, dtype=ends.dtype), ends % packs]))
        stops = np.append(begins[1:], packs).astype(begins.dtype)
        columns = [order[np.searchsorted(ends, begins + shard * packs, side="right")] for shard in range(self.width)]
        return np.stack(columns, axis=1), begins, stops


def _portion(got: Numbers, weight: Numbers, rows: npt.NDArray[np.int64], above: npt.NDArray[np.int64]) -> None:
    """Share what each node in ``above`` got among its ``rows``, in proportion and to the last unit.

    Largest remainders take the units that are left; a row gets at most its weight if all get at most theirs.
    """
    whole = np.zeros_like(got)
    np.add.at(whole, above, weight[rows])
    base = np.maximum(whole[above], 1)
    product = got[above] * weight[rows]
    part, rest = product // base, product % base
    left = got.copy()
    np.subtract.at(left, above, part)
    order = np.lexsort((-rest, above))
    ranked = above[order]
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked, side="left")
    extra = np.zeros(len(rows), dtype=got.dtype)
    extra[order] = (rank < left[ranked]).astype(got.dtype)
    got[rows] = part + extra
