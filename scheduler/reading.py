"""Which peer fetches which pack next: one queue that every holder's worker pulls from.

Who is fast comes back sooner and so does more; nobody is planned for. A worker takes a pack of those that the
others can help least with, so that what only one peer holds does not wait until that peer is all that is left.
When nothing is left to begin, a worker that would be done sooner begins a second fetch of what another one is
at, and the first to arrive counts. Times are seconds on one clock, given as arguments; sizes are bytes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

__all__ = ["GUESS", "Fetch", "ReadQueue", "Speeds"]

GUESS: Final = 4e6
"""Bytes a second of a peer that was never measured."""
_WEIGHT: Final = 0.4  # of the newest measurement: lines at home change within minutes
_ROUNDS: Final = 12
_LEAST: Final = 1e-6
_HEDGE: Final = 1.1
"""A second fetch begins if it would be done in 1/1.1 of the time that the first one still seems to need."""

P = TypeVar("P", bound="str | bytes")
K = TypeVar("K", bound="int | str | bytes")


class Speeds(Generic[P]):
    """How fast each peer gave what it was asked for."""

    def __init__(self, guess: float = GUESS) -> None:
        self._guess = guess
        self._known: dict[P, float] = {}

    def of(self, peer: P) -> float:
        """Bytes a second; of who was never asked, that of the fastest who was, so that all are tried."""
        known = self._known.get(peer)
        return known if known is not None else max(self._known.values(), default=self._guess)

    def measured(self, peer: P, size: int, seconds: float) -> None:
        """Take in that ``size`` bytes took so long, with all waiting."""
        if seconds <= 0:
            return
        speed = size / seconds
        old = self._known.get(peer)
        self._known[peer] = speed if old is None else old + _WEIGHT * (speed - old)

    def at_most(self, peer: P, size: int, seconds: float) -> None:
        """Take in that a fetch of ``size`` bytes was given up unfinished after so long."""
        if seconds > 0 and size / seconds < self.of(peer):
            self.measured(peer, size, seconds)


@dataclass(frozen=True, slots=True)
class Fetch(Generic[P, K]):
    """One pack on its way from one peer since ``began``."""

    peer: P
    pack: K
    size: int
    began: float


class ReadQueue(Generic[P, K]):
    """Packs that are wanted, and who is fetching what."""

    def __init__(self, speeds: Speeds[P] | None = None) -> None:
        self.speeds: Speeds[P] = speeds or Speeds()
        self._holders: dict[K, frozenset[P]] = {}
        self._sizes: dict[K, int] = {}
        self._waiting: dict[frozenset[P], deque[K]] = {}
        self._bytes: dict[frozenset[P], int] = {}
        self._under_way: dict[K, list[Fetch[P, K]]] = {}

    def __len__(self) -> int:
        """Packs that have not come yet."""
        return len(self._holders)

    def __contains__(self, pack: K) -> bool:
        """Whether a pack is wanted and has not come yet."""
        return pack in self._holders

    @property
    def unbegun(self) -> int:
        """Packs that nobody is fetching."""
        return sum(map(len, self._waiting.values()))

    def add(self, pack: K, size: int, holders: Iterable[P]) -> None:
        """Want a pack; those that were added first are fetched first, among packs of the same holders."""
        assert pack not in self._holders, "a pack is wanted once"
        known = frozenset(holders)
        self._holders[pack] = known
        self._sizes[pack] = size
        self._wait(pack, known, first=False)

    def _wait(self, pack: K, holders: frozenset[P], *, first: bool) -> None:
        line = self._waiting.setdefault(holders, deque())
        (line.appendleft if first else line.append)(pack)
        self._bytes[holders] = self._bytes.get(holders, 0) + self._sizes[pack]

    def next(self, peer: P, now: float, *, again: bool = True) -> Fetch[P, K] | None:
        """What this peer's idle worker begins now, ``None`` for nothing.

        With ``again`` that may be a pack that is under way elsewhere, if nothing else is left to begin.
        """
        mine = [holders for holders, line in self._waiting.items() if peer in holders and line]
        if mine:
            group = max(mine, key=self._shares(peer, now).__getitem__)
            line = self._waiting[group]
            pack = line.popleft()
            self._bytes[group] -= self._sizes[pack]
            if not line:
                del self._waiting[group], self._bytes[group]
        else:
            slow = self._slowest(peer, now) if again else None
            if slow is None:
                return None
            pack = slow
        fetch = Fetch(peer, pack, self._sizes[pack], now)
        self._under_way.setdefault(pack, []).append(fetch)
        return fetch

    def _shares(self, peer: P, now: float) -> dict[frozenset[P], float]:
        """The part of each kind of pack that this peer would do if all were to be done at the same time.

        Every kind is dealt out by speed, and then by turns less to those who would be done last.
        """
        speeds = self._speeds(now)
        weights = {holders: {one: speeds[one] for one in holders} for holders in self._waiting}
        for _ in range(_ROUNDS):
            load: dict[P, float] = {}
            for holders, parts in weights.items():
                total = sum(parts.values())
                for one, part in parts.items():
                    load[one] = load.get(one, 0.0) + self._bytes[holders] * part / total
            easing = {one: math.sqrt(speeds[one] / size) for one, size in load.items()}
            for parts in weights.values():
                top = max(parts[one] * easing[one] for one in parts)
                for one in parts:
                    parts[one] = max(parts[one] * easing[one] / top, _LEAST)
        return {holders: parts[peer] / sum(parts.values()) for holders, parts in weights.items() if peer in parts}

    def _speeds(self, now: float) -> dict[P, float]:
        """What every holder seems to give, also by how long it has been at what it has not given yet."""
        found = {one: self.speeds.of(one) for holders in self._waiting for one in holders}
        for fetches in self._under_way.values():
            for fetch in fetches:
                if fetch.peer in found and now > fetch.began:
                    found[fetch.peer] = min(found[fetch.peer], fetch.size / (now - fetch.began))
        return found

    def _slowest(self, peer: P, now: float) -> K | None:
        """The pack under way, held here too, that will be last, if this peer would be done with it well before."""
        worst, latest = None, 0.0
        for pack, fetches in self._under_way.items():
            if peer not in self._holders[pack] or any(fetch.peer == peer for fetch in fetches):
                continue
            left = min(self._left(fetch, now) for fetch in fetches)
            if left > latest:
                worst, latest = pack, left
        if worst is None or self._sizes[worst] / self.speeds.of(peer) * _HEDGE >= latest:
            return None
        return worst

    def _left(self, fetch: Fetch[P, K], now: float) -> float:
        """Seconds that a fetch still needs; one that is overdue seems to be half way."""
        spent = now - fetch.began
        expected = fetch.size / self.speeds.of(fetch.peer)
        return expected - spent if expected > spent * 1.5 else max(spent / 2, expected - spent)

    def arrived(self, fetch: Fetch[P, K], now: float) -> list[Fetch[P, K]]:
        """Take in that a pack has come. Returns the other fetches of it, which are to be given up."""
        self.speeds.measured(fetch.peer, fetch.size, now - fetch.began)
        others = [one for one in self._under_way.pop(fetch.pack) if one != fetch]
        for other in others:
            self.speeds.at_most(other.peer, other.size, now - other.began)
        del self._holders[fetch.pack], self._sizes[fetch.pack]
        return others

    def failed(self, fetch: Fetch[P, K]) -> bool:
        """Take in that this peer did not give a pack; return whether another one may, or is at it already."""
        fetches = self._under_way[fetch.pack]
        fetches.remove(fetch)
        left = self._holders[fetch.pack] - {fetch.peer}
        self._holders[fetch.pack] = left
        if fetches:
            return True
        del self._under_way[fetch.pack]
        if left:
            self._wait(fetch.pack, left, first=True)
            return True
        del self._holders[fetch.pack], self._sizes[fetch.pack]
        return False

    def withdraw(self, pack: K) -> bool:
        """Want a pack no more, unless somebody fetches it already; return whether it was taken out."""
        if pack not in self._holders or pack in self._under_way:
            return False
        holders = self._holders.pop(pack)
        self._waiting[holders].remove(pack)
        self._bytes[holders] -= self._sizes.pop(pack)
        if not self._waiting[holders]:
            del self._waiting[holders], self._bytes[holders]
        return True

    def gone(self, peer: P) -> list[K]:
        """A peer answers no more: nobody waits for it. Returns the packs that nobody else holds and is fetching.

        Its own fetches are to be told as :meth:`failed` by whoever had begun them.
        """
        lost: list[K] = []
        for holders in [group for group in self._waiting if peer in group]:
            line = self._waiting.pop(holders)
            del self._bytes[holders]
            for pack in line:
                left = holders - {peer}
                self._holders[pack] = left
                if left:
                    self._wait(pack, left, first=False)
                else:
                    del self._holders[pack], self._sizes[pack]
                    lost.append(pack)
        for pack in self._under_way:
            self._holders[pack] -= {peer}
        return lost

    def order(self, peers: Collection[P]) -> list[P]:
        """Idle peers in the order in which they are given work where not all can be: the fastest first."""
        return sorted(peers, key=lambda peer: -self.speeds.of(peer))
