r"""How often a pack is lost, from where its copies lie and what strikes them.

A *strike* is a Poisson stream of events, each of which takes every copy in its reach (or each with a chance).
A copy is missing for the strike's ``window`` after it was hit. So at any moment the state is a plain one: each
stream has struck within its window, or has not, and the streams do not know of each other. The rate at which
packs are lost is then the sum over strikes of

    rate · P(fewer than k copies are there just after it, and at least k were just before)

which for n equal and independent peers is n·C(n-1, m)·λ·(λτ)^m to first order, with m = n-k. It is exact for
windows of fixed length in which a second hit starts the window anew, and does not depend on the length's
distribution where strikes hit single copies (a renewal process's unavailability knows the mean only).

Reaches mostly nest (site in region in country), and for nested ones the number of living copies is a
convolution up a tree. Those that cross others (one owner in two houses) are tried in all combinations, up to
``_CROSSING``; further ones are widened to what encloses them, which is on the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final

__all__ = ["Strike", "loss_chance", "loss_rates"]

_CROSSING: Final = 6
_NEGLIGIBLE: Final = 1e-6
_TWICE: Final = 3
"""Strikes with a chance may hit twice within a window; more often than so often is not told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """``rate`` events in a year; each takes the copies at these places, each with ``chance``, for ``window`` years."""

    reach: frozenset[int]
    rate: float
    window: float
    chance: float = 1.0

    @property
    def expected(self) -> float:
        """Events within one window."""
        return self.rate * self.window


@dataclass(slots=True)
class _Node:
    """A strike whose reach nests, the places directly in it, and the nodes below."""

    strike: int  # -1 for the root, which is none
    reach: frozenset[int]
    places: list[int] = field(default_factory=list)
    below: list[_Node] = field(default_factory=list)
    strikes: set[int] = field(default_factory=set)
    """Its own and all below."""


def loss_rates(count: int, needed: int, strikes: Sequence[Strike], doubt: Sequence[float] = ()) -> list[float]:
    """For each strike the losses a year that it completes, for a pack of ``count`` copies of which ``needed`` suffice.

    Their sum is the rate of loss. ``doubt`` is for each place the chance that its copy is gone already.
    """
    assert all(place < count for strike in strikes for place in strike.reach), "a strike reaches the pack's copies"
    return _Streams(count, needed, strikes, doubt).rates()


def loss_chance(count: int, needed: int, strikes: Sequence[Strike], doubt: Sequence[float] = ()) -> float:
    """The chance that too few copies are left when each stream has run for its window: 1 if there are too few now."""
    return _Streams(count, needed, strikes, doubt).lost()


class _Streams:
    def __init__(self, count: int, needed: int, strikes: Sequence[Strike], doubt: Sequence[float]) -> None:
        self._needed = needed
        self._strikes = list(strikes)
        self._hit = [0.0] * count
        """What a place's own strikes add up to within their windows."""
        self._sure = [1.0 - (doubt[place] if doubt else 0.0) for place in range(count)]
        shared = []
        for number, strike in enumerate(self._strikes):
            if len(strike.reach) == 1:
                [place] = strike.reach
                self._hit[place] += strike.expected * strike.chance
            elif strike.reach:
                shared.append(number)
        everything = frozenset(range(count))
        self._root = _Node(-1, everything)
        self._known: dict[tuple[int, frozenset[int], int, float], list[float]] = {}
        self._nodes: dict[int, _Node] = {}
        self._crossing: list[int] = []
        for number in sorted(shared, key=lambda one: (-len(self._strikes[one].reach), one)):
            self._insert(number)
        for place in range(count):
            self._innermost(frozenset([place])).places.append(place)
        _collect(self._root)
        self._came = self._combinations()

    def _insert(self, number: int) -> None:
        strike = self._strikes[number]
        parent = self._innermost(strike.reach)
        if any(node.reach & strike.reach for node in parent.below):
            if strike.chance == 1.0 and len(self._crossing) < _CROSSING:
                self._crossing.append(number)
                return
            # Widened: around all that hangs below its parent, as a strike of the parent's whole reach.
            node = _Node(number, parent.reach, parent.places, parent.below)
            parent.places, parent.below = [], [node]
        else:
            node = _Node(number, strike.reach)
            parent.below.append(node)
        self._nodes[number] = node

    def _innermost(self, reach: frozenset[int]) -> _Node:
        node = self._root
        while True:
            deeper = next((one for one in node.below if one.reach >= reach), None)
            if deeper is None:
                return node
            node = deeper

    def lost(self) -> float:
        return self._lost(frozenset(), -1)

    def rates(self) -> list[float]:
        before = self._lost(frozenset(), -1)
        alike: dict[tuple[object, ...], float] = {}  # equal peers in one place need one answer
        where = {place: node.strike for node in self._walk() for place in node.places}
        crossed = [self._strikes[number].reach for number in self._crossing]
        rates = []
        for number, strike in enumerate(self._strikes):
            if not strike.reach or not strike.rate:
                rates.append(0.0)
                continue
            if len(strike.reach) == 1:
                [place] = strike.reach
                key: tuple[object, ...] = (
                    where[place],
                    self._hit[place],
                    self._sure[place],
                    *(place in reach for reach in crossed),
                )
                if key not in alike:
                    alike[key] = self._lost(strike.reach, -1)
                after = alike[key] * strike.chance + before * (1 - strike.chance)
            elif number in self._nodes:
                after = self._lost(frozenset(), number)
            else:
                after = self._lost(strike.reach, -1)
            rates.append(strike.rate * max(0.0, after - before))
        return rates

    def _walk(self) -> Iterable[_Node]:
        todo = [self._root]
        while todo:
            node = todo.pop()
            todo += node.below
            yield node

    def _combinations(self) -> list[tuple[float, float, frozenset[int]]]:
        """Which crossing strikes came within their windows: the chance, that of all that follow, and what they took."""
        odds = [(self._strikes[number], 1 - math.exp(-self._strikes[number].expected)) for number in self._crossing]
        found = []
        for came in product((False, True), repeat=len(odds)):
            weight = math.prod(odd if yes else 1 - odd for (_, odd), yes in zip(odds, came, strict=True))
            taken = frozenset[int]().union(*(strike.reach for (strike, _), yes in zip(odds, came, strict=True) if yes))
            found.append((weight, taken))
        found.sort(key=lambda row: -row[0])
        after = 0.0
        rows = []
        for weight, taken in reversed(found):
            rows.append((weight, after, taken))
            after += weight
        return rows[::-1]

    def _lost(self, gone: frozenset[int], struck: int) -> float:
        """P(fewer living than needed) where these places are gone and this nested strike has just come."""
        if not self._crossing:
            return self._lost_where(gone, struck)
        # More strikes never make a loss less likely: what all of them together come to bounds what is left out.
        most = self._lost_where(gone.union(*(self._strikes[number].reach for number in self._crossing)), struck)
        total = 0.0
        for weight, after, taken in self._came:
            total += weight * self._lost_where(gone | taken, struck)
            if after * most < _NEGLIGIBLE * total:
                break
        return total

    def _lost_where(self, gone: frozenset[int], struck: int) -> float:
        return math.fsum(self._living(self._root, gone, struck, 1.0)[: self._needed])

    def _living(self, node: _Node, gone: frozenset[int], struck: int, spared: float) -> list[float]:
        """P(0, 1, 2 ... living below a node); ``spared`` is the chance that strikes from above left a copy."""
        # One question differs from the next along one path of the tree only.
        key = (node.strike, gone & node.reach, struck if struck in node.strikes else -1, spared)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._struck(node, key[1], key[2], spared)
        return found

    def _struck(self, node: _Node, gone: frozenset[int], struck: int, spared: float) -> list[float]:
        if node.strike < 0:
            return self._inside(node, gone, struck, spared)
        strike = self._strikes[node.strike]
        now = 1 if node.strike == struck else 0
        never = math.exp(-strike.expected)
        if strike.chance == 1.0:
            if now:
                return [1.0] + [0.0] * len(node.reach)
            found = [never * odds for odds in self._inside(node, gone, struck, spared)]
            found[0] += 1 - never
            return found
        found = [0.0] * (len(node.reach) + 1)
        left = 1.0
        odds = never
        for times in range(_TWICE + 1):
            share = left if times == _TWICE else odds
            inside = self._inside(node, gone, struck, spared * (1 - strike.chance) ** (times + now))
            found = [old + share * more for old, more in zip(found, inside, strict=True)]
            left = max(0.0, left - share)
            odds *= strike.expected / (times + 1)
        return found

    def _inside(self, node: _Node, gone: frozenset[int], struck: int, spared: float) -> list[float]:
        found = [1.0]
        for place in node.places:
            lives = 0.0 if place in gone else math.exp(-self._hit[place]) * self._sure[place] * spared
            found = _with(found, lives)
        for below in node.below:
            found = _sum(found, self._living(below, gone, struck, spared))
        return found


def _collect(node: _Node) -> set[int]:
    node.strikes = {node.strike}.union(*map(_collect, node.below))
    return node.strikes


def _with(odds: list[float], lives: float) -> list[float]:
    dead = 1 - lives
    return [
        (odds[at] * dead if at < len(odds) else 0.0) + (odds[at - 1] * lives if at else 0.0)
        for at in range(len(odds) + 1)
    ]


def _sum(one: list[float], other: list[float]) -> list[float]:
    found = [0.0] * (len(one) + len(other) - 1)
    for at, odds in enumerate(one):
        if odds:
            for step, more in enumerate(other):
                found[at + step] += odds * more
    return found
