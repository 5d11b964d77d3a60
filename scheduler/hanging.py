"""Packs that hang on one machine, and the exchange of peers that leaves few of them.

A peer that nobody can dial is reached through a relay, and is out of reach with it. That loses nothing, so it is no
rule of spread and costs no room: new packs are placed as if all were dialled, and then two packs that are alike give
each other a peer where that leaves fewer that are out of reach with one relay. Loads stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeAlias, TypeVar

__all__ = ["Relays", "exchange"]

T = TypeVar("T", bound=Hashable)
Row: TypeAlias = tuple[int, ...]

_STEPS: Final = 200
"""Sets that are looked at for each set there is, at most: a second at 1,000 peers where nothing can be found."""

_HANGS: Final = 1 << 12
"""What one pack more that hangs weighs: more than all that two packs of 255 shards can lack."""


class Relays(Generic[T]):
    """Machines that others are reached through alone; ``behind`` says who. A relay may be a peer itself."""

    def __init__(self, behind: Mapping[T, Collection[T]]) -> None:
        self._behind = {relay: others for relay, peers in behind.items() if (others := frozenset(peers) - {relay})}
        self._of: dict[T, list[T]] = {}
        for relay in self._behind:
            for peer in self.falls(relay):
                self._of.setdefault(peer, []).append(relay)

    def __bool__(self) -> bool:
        return bool(self._behind)

    def falls(self, relay: T) -> frozenset[T]:
        """Who is out of reach while a relay is, itself among them."""
        return self._behind[relay] | {relay}

    def lacks(self, holders: Collection[T], needed: int) -> dict[T, int]:
        """Each relay that a pack hangs on, and how many more of its holders would have to be elsewhere.

        ``needed`` holders suffice to read it. What lies at the relay alone waits for no relay, nor does what
        cannot be read anyway.
        """
        fallen: dict[T, int] = {}
        for holder in holders:
            for relay in self._of.get(holder, ()):
                fallen[relay] = fallen.get(relay, 0) + 1
        return {
            relay: needed - (len(holders) - there)
            for relay, there in fallen.items()
            if len(holders) - there < needed <= len(holders) and not self._behind[relay].isdisjoint(holders)
        }


def exchange(sets: Mapping[Row, int], relays: Relays[int], needed: int, apart: Callable[[Row], bool]) -> dict[Row, int]:
    """The sets (peers, and how many packs they serve) of packs that are alike, with as few that hang as is found.

    No peer serves more or fewer packs than before. ``apart`` says whether peers may serve one pack together. What is
    in order and lacks no partner stays in its place; new sets come last.
    """
    work = _Exchange(sets, relays, needed, apart)
    for relay in sorted({relay for row in sets for relay in work.lacks(row)}):
        work.clear(relay)
    return {row: packs for row, packs in work.packs.items() if packs}


class _Exchange:
    """Sets on their way to fewer that hang: each step makes the sum of their weights less, so it ends."""

    def __init__(self, sets: Mapping[Row, int], relays: Relays[int], needed: int, apart: Callable[[Row], bool]) -> None:
        self.packs = dict(sets)
        self._relays = relays
        self._needed = needed
        self._apart = apart
        self._steps = _STEPS * len(sets)
        self._known: dict[Row, dict[int, int]] = {}

    def lacks(self, row: Row) -> dict[int, int]:
        if row not in self._known:
            self._known[row] = self._relays.lacks(row, self._needed)
        return self._known[row]

    def clear(self, relay: int) -> None:
        """Let packs that hang on a relay have a peer of packs that can spare one, those that lack least first."""
        falls = self._relays.falls(relay)
        self._steps -= len(self.packs)
        giving = dict.fromkeys(row for row in self.packs if self._spares(row, relay, falls))
        waiting = [(lacks[relay], row) for row in self.packs if relay in (lacks := self.lacks(row))]
        heapify(waiting)
        while waiting and self._steps > 0:
            _, row = heappop(waiting)
            if not self.packs[row]:
                continue
            found = self._partner(row, falls, giving)
            if found is None:
                continue
            other, *changed = found
            packs = min(self.packs[row], self.packs[other])
            for old in (row, other):
                self.packs[old] -= packs
                if not self.packs[old]:
                    giving.pop(old, None)
            for new in changed:
                self.packs[new] = self.packs.get(new, 0) + packs
                if self._spares(new, relay, falls):
                    giving[new] = None
            for one in {row, *changed}:
                if self.packs[one] and relay in self.lacks(one):
                    heappush(waiting, (self.lacks(one)[relay], one))

    def _spares(self, row: Row, relay: int, falls: frozenset[int]) -> bool:
        """Whether a pack may give up a holder that is not out of reach with the relay."""
        elsewhere = sum(peer not in falls for peer in row)
        return bool(self.packs[row]) and (elsewhere > self._needed or (elsewhere > 0 and relay in self.lacks(row)))

    def _partner(self, row: Row, falls: frozenset[int], giving: Mapping[Row, None]) -> tuple[Row, Row, Row] | None:
        """Another set, and what both become when a peer that falls with the relay goes there for one that does not."""
        for other in giving:
            self._steps -= 1
            before = self._weight(row) + self._weight(other)
            for mine in sorted(falls.intersection(row).difference(other)):
                for theirs in sorted(set(other).difference(falls, row)):
                    here, there = _with(row, mine, theirs), _with(other, theirs, mine)
                    if self._weight(here) + self._weight(there) >= before:
                        continue
                    if self._apart(here) and self._apart(there):
                        return other, here, there
            if self._steps <= 0:
                break
        return None

    def _weight(self, row: Row) -> int:
        lacks = self.lacks(row)
        return sum(lacks.values()) + (_HANGS if lacks else 0)


def _with(row: Row, old: int, new: int) -> Row:
    return tuple(new if peer == old else peer for peer in row)
