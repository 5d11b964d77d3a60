"""The exact answer for a federation that is nearly full, where packs must make room for one another.

One least-cost flow over all sets at once: each set has the nested limits of its policy as a tree of its own, the trees
share the peers, and what a peer takes is bounded by its room. A shard that stays costs nothing, one that moves costs
one, and one that finds no place costs more than any number of moves. So as many shards as can be have a place, as few
as can be move, and of equal answers one that leaves most room for later packs is taken. For packs of one shard size
and limits that nest; the number of arcs grows with sets times peers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Final

import numpy as np
import numpy.typing as npt

from scheduler.flow import Network
from scheduler.laminar import Numbers, Tree, numbers
from scheduler.packing import most_packs
from scheduler.settle import Kind, Settled
from scheduler.shape import Field, Ints, Sets, Shape, rng

__all__ = ["ARCS", "settle_all"]

ARCS: Final = 12_000
"""Sets times peers above which this is not tried."""

_EXACTLY: Final = 1000
"""Room for later packs is as large as it can be to one part in so many."""

_LISTED: Final = 3000
"""Ways for all sets to lie that are listed one by one."""


@dataclass(slots=True)
class _Part:
    """The arcs of one set: which peer each leads to, and how much lacks a place."""

    kind: int
    origin: int
    packs: int
    leaves: list[tuple[int, int]]


class _Flow:
    """Sets and ``new[k]`` packs of each kind k as a flow; ``priced`` prefers what stays and lets shards go without.

    ``later`` more packs of the first kind take what they can of the room, for less than any move is worth.
    """

    def __init__(
        self,
        ground: Field,
        kinds: Sequence[Kind],
        shapes: Sequence[Shape],
        room: Numbers,
        new: Sequence[int],
        *,
        priced: bool,
        later: int = 0,
    ) -> None:
        self.ground, self.kinds, self.shapes, self.room = ground, kinds, shapes, room
        self.network = Network(2)
        self.peer = [self.network.node() for _ in range(len(ground))]
        for at, node in enumerate(self.peer):
            self.network.arc(node, 1, max(0, int(room[at])))
        self.parts: list[_Part] = []
        total = sum(kind.rule.width * (int(kind.held.packs.sum()) + new[at]) for at, kind in enumerate(kinds))
        self._move = 1 + kinds[0].rule.width * later if priced else 0
        self._miss = self._move * (total + 1)
        for number, kind in enumerate(kinds):
            rows = zip(kind.held.tuples.tolist(), kind.held.packs.tolist(), strict=True)
            for origin, (holders, packs) in enumerate(rows):
                self._add(number, origin, packs, frozenset(holders), may_miss=priced)
            self._add(number, -1, new[number], frozenset(), may_miss=False)
        self._without = self._later(later) if later else None

    def _add(self, kind: int, origin: int, packs: int, holders: frozenset[int], *, may_miss: bool) -> None:
        if not packs:
            return
        tree = self._tree(kind)
        network, width = self.network, self.kinds[kind].rule.width
        root = network.node()
        network.arc(0, root, width * packs)
        if may_miss:
            network.arc(root, 1, width * packs, self._miss)
        part = _Part(kind=kind, origin=origin, packs=packs, leaves=[])
        node = self._limits(tree, root, packs)
        for inner, peer in enumerate(self.shapes[kind].at.tolist()):
            there = peer in holders
            if there or self.ground.takes[peer]:
                arc = network.arc(node[int(tree.leaf[inner])], self.peer[peer], packs, 0 if there else self._move)
                part.leaves.append((inner, arc))
        self.parts.append(part)

    def _limits(self, tree: Tree, root: int, packs: int) -> list[int]:
        """The limits of one set as arcs below its root; the network's node of each node of the tree."""
        network = self.network
        node = [root]
        beyond = root
        if tree.regions > 1:
            beyond = network.node()
            network.arc(root, beyond, (tree.width - tree.regions) * packs)
        for at, (cap, parent) in enumerate(zip(tree.cap.tolist(), tree.parent.tolist(), strict=True)):
            if not at:
                continue
            node.append(network.node())
            if tree.regions > 1 and parent == 0:
                network.arc(root, node[at], packs)
                network.arc(beyond, node[at], (cap - 1) * packs)
            else:
                network.arc(node[parent], node[at], cap * packs)
        return node

    def _tree(self, kind: int) -> Tree:
        tree = self.shapes[kind].tree
        assert tree is not None, "only limits that nest"
        return tree

    def _later(self, packs: int) -> int:
        """The arc of what the later packs do not get."""
        tree, network = self._tree(0), self.network
        root = network.node()
        network.arc(0, root, tree.width * packs)
        without = network.arc(root, 1, tree.width * packs, 1)
        node = self._limits(tree, root, packs)
        for inner, peer in enumerate(self.shapes[0].at.tolist()):
            if self.ground.takes[peer]:
                network.arc(node[int(tree.leaf[inner])], self.peer[peer], packs)
        return without

    def whole(self) -> bool:
        """Whether the later packs get all they want."""
        return self._without is None or not self.network.through(self._without)

    def shards(self, part: _Part) -> Numbers:
        """What each peer of the kind's shape got of one set."""
        got = [0] * len(self.shapes[part.kind].at)
        for inner, arc in part.leaves:
            got[inner] += self.network.through(arc)
        return numbers(got, part.packs * (self.kinds[part.kind].rule.width + 1))


def _most(ground: Field, kinds: Sequence[Kind], shapes: Sequence[Shape], room: Numbers, new: Sequence[int]) -> int:
    """Shards that find a place, wherever they lay."""
    return _Flow(ground, kinds, shapes, room, new, priced=False).network.run(0, 1)


def _roomiest(
    ground: Field, kinds: Sequence[Kind], shapes: Sequence[Shape], room: Numbers, new: Sequence[int]
) -> _Flow:
    """The flow with the fewest moves after which most packs of the first kind fit, to one in a thousand."""
    empty = np.where(ground.takes, np.maximum(room, 0), 0)
    high = max(0, shapes[0].bound(empty) - new[0] - int(kinds[0].held.packs.sum()))
    low, tried = 0, high
    best = None
    while best is None or high - low > high // _EXACTLY:
        flow = _Flow(ground, kinds, shapes, room, new, priced=True, later=tried)
        flow.network.run(0, 1)
        if flow.whole():
            best, low = flow, tried
        else:
            high = tried - 1
        tried = (low + high + 1) // 2
    return best


def settle_all(
    ground: Field, kinds: Sequence[Kind], room: Numbers, *, placed: Sequence[int], seed: bytes
) -> list[Settled] | None:
    """Where all shards of ``kinds`` (of one shard size) shall lie; ``room`` counts shards of them, none placed.

    What is held comes before what is new, and the kinds in their order. Where limits do not nest, all tuples are
    listed instead. So many new packs of each kind are known to fit as ``placed`` says. None if the answer would take
    too long, or nothing can be better.
    """
    sets = sum(len(kind.held.packs) + 1 for kind in kinds)
    if sets * len(ground) > ARCS:
        return None
    shapes = [Shape(ground, kind.rule, ground.takes | ground.holds) for kind in kinds]
    if any(shape.tree is None for shape in shapes):
        return _listed(ground, kinds, room)
    none = [0] * len(kinds)
    firm = _most(ground, kinds, shapes, room, none)
    new = none
    for at, kind in enumerate(kinds):
        low, high = 0, kind.new
        if len(kinds) == 1:
            low = placed[0]
            high = max(low, min(high, shapes[0].bound(np.maximum(room, 0)) - int(kind.held.packs.sum())))
        while low < high:
            middle = (low + high + 1) // 2
            tried = [*new[:at], middle, *new[at + 1 :]]
            wanted = firm + sum(kinds[k].rule.width * tried[k] for k in range(len(kinds)))
            if _most(ground, kinds, shapes, room, tried) == wanted:
                low = middle
            else:
                high = middle - 1
        new = [*new[:at], low, *new[at + 1 :]]
    flow = _roomiest(ground, kinds, shapes, room, new)
    return [_decoded(flow, at, kind.new - new[at], seed) for at, kind in enumerate(kinds)]


def _listed(ground: Field, kinds: Sequence[Kind], room: Numbers) -> list[Settled] | None:
    """The same by an integer program over every way in which each set can lie; None if those are too many."""
    most = sum(
        (len(kind.held.packs) + 1) * comb(len(ground), some) for kind in kinds for some in range(kind.rule.width + 1)
    )
    if most > _LISTED:
        return None
    moves = sum(kind.rule.width * int(kind.held.packs.sum()) for kind in kinds) + 1
    shard = moves * (sum(kind.new for kind in kinds) + 1)
    ways: list[tuple[int, int, tuple[int, ...]]] = []
    worth: list[int] = []
    for number, kind in enumerate(kinds):
        admitted = ground.admitted(kind.rule)
        for origin, holders in [*enumerate(kind.held.tuples.tolist()), (-1, [])]:
            able = [
                peer
                for peer in range(len(ground))
                if admitted[peer] and (ground.takes[peer] or (ground.holds[peer] and peer in holders))
            ]
            for some in range(1, kind.rule.width + 1) if holders else [kind.rule.width]:
                for row in combinations(able, some):
                    if not ground.together(kind.rule, row):
                        continue
                    ways.append((number, origin, row))
                    fresh = sum(peer not in holders for peer in row)
                    worth.append(shard * some - fresh if holders else moves)
    limits = [*((number, origin) for number, kind in enumerate(kinds) for origin in range(-1, len(kind.held.packs)))]
    uses = np.zeros((len(ground) + len(limits), len(ways)), dtype=np.int64)
    for at, (number, origin, row) in enumerate(ways):
        uses[list(row), at] = 1
        uses[len(ground) + limits.index((number, origin)), at] = 1
    packs = [int(kinds[number].held.packs[origin]) if origin >= 0 else kinds[number].new for number, origin in limits]
    times, _ = most_packs(uses, np.concatenate([room, np.array(packs)]), np.array(worth, dtype=np.int64))
    taken = [(*ways[at], int(times[at])) for at in np.flatnonzero(times).tolist()]
    return [_gathered(kind, [row[1:] for row in taken if row[0] == at]) for at, kind in enumerate(kinds)]


def _gathered(kind: Kind, taken: Sequence[tuple[int, tuple[int, ...], int]]) -> Settled:
    """What was chosen of one kind: for each way the set it is of, the peers, and for how many packs."""
    width = kind.rule.width
    kept: list[list[int]] = []
    packs: list[int] = []
    origins: list[int] = []
    for origin, (before, count) in enumerate(zip(kind.held.tuples.tolist(), kind.held.packs.tolist(), strict=True)):
        ways = [(row, times) for at, row, times in taken if at == origin]
        for row, times in [*ways, ((), count - sum(times for _, times in ways))]:
            if times:
                kept.append(_seated(before, [*row, *([-1] * (width - len(row)))]))
                packs.append(times)
                origins.append(origin)
    fresh = [(row, times) for at, row, times in taken if at < 0]
    tuples = np.array(kept, dtype=np.int64).reshape(-1, width)
    return Settled(
        sets=Sets(tuples=tuples, packs=np.array(packs, dtype=np.int64)),
        origin=np.array(origins, dtype=np.int64),
        due=tuples < 0,
        fresh=Sets(
            tuples=np.array([row for row, _ in fresh], dtype=np.int64).reshape(-1, width),
            packs=np.array([times for _, times in fresh], dtype=np.int64),
        ),
        refused=kind.new - sum(times for _, times in fresh),
    )


def _decoded(flow: _Flow, kind: int, refused: int, seed: bytes) -> Settled:
    """The tuples of each set, with every shard that stays at its own place."""
    width = flow.kinds[kind].rule.width
    found: dict[int, list[tuple[Ints, Ints]]] = {}
    for part in flow.parts:
        if part.kind == kind:
            found.setdefault(part.origin, []).append(_tuples(flow, part, seed))
    kept: list[list[int]] = []
    packs: list[int] = []
    origin: list[int] = []
    for number, pieces in found.items():
        if number < 0:
            continue
        before = flow.kinds[kind].held.tuples[number].tolist()
        for tuples, counts in pieces:
            for row, count in zip(tuples.tolist(), counts.tolist(), strict=True):
                kept.append(_seated(before, row))
                packs.append(count)
                origin.append(number)
    fresh = found.get(-1, [])
    tuples = np.array(kept, dtype=np.int64).reshape(-1, width)
    return Settled(
        sets=Sets(tuples=tuples, packs=np.array(packs, dtype=np.int64)),
        origin=np.array(origin, dtype=np.int64),
        due=tuples < 0,
        fresh=Sets(tuples=fresh[0][0], packs=fresh[0][1]) if fresh else Sets.none(width),
        refused=refused,
    )


def _tuples(flow: _Flow, part: _Part, seed: bytes) -> tuple[Ints, npt.NDArray[np.int64]]:
    """Cut one set's shards into tuples; what has no place is given to as many strangers as a pack has shards."""
    shape, tree = flow.shapes[part.kind], flow._tree(part.kind)  # noqa: SLF001 - one module, one thing
    got = flow.shards(part)
    missing = tree.width * part.packs - int(got.sum())
    nobody = [min(part.packs, max(0, missing - at * part.packs)) for at in range(tree.width)]
    wide = Tree(tree.count + tree.width, tree.width, tree.nodes, tree.parent[1:].tolist(), regions=tree.regions)
    shards = numbers([*got.tolist(), *nobody], part.packs * (tree.width + 1))
    tuples, begins, stops = wide.cut(shards, part.packs, rng(seed + part.origin.to_bytes(8, "big", signed=True)))
    named = np.append(shape.at, np.full(tree.width, -1, dtype=np.int64))
    return named[tuples], (stops - begins).astype(np.int64)


def _seated(before: Sequence[int], row: Sequence[int]) -> list[int]:
    """``row`` with those of ``before`` where they were, and the others in the places left."""
    stay: dict[int, int] = {}
    for at, peer in enumerate(before):
        if peer >= 0 and peer in row and peer not in stay.values():
            stay[at] = peer
    others = sorted((peer for peer in row if peer not in stay.values()), reverse=True)
    return [stay[at] if at in stay else others.pop(0) for at in range(len(row))]
