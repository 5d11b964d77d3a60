"""The cheapest scheme that keeps a target of nines on the peers there are, or that none does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from scheduler.check import Ground
from scheduler.errors import PolicyError
from scheduler.geography import fold
from scheduler.hazards import Hazards
from scheduler.model import DOMAINS, Peer, PeerId, Policy
from scheduler.outlook import nines, set_rate
from scheduler.selection import Limit, select

__all__ = ["CODING_FROM", "MOST_SHARDS", "Choice", "Scheme", "choose", "evaluate", "spread_out"]

CODING_FROM: Final = 6
"""Households from which on coding is offered: with fewer, whole copies cost little more and mend from one peer."""
MOST_SHARDS: Final = 20
MOST_OF_EACH: Final = 16
"""Data shards at most, and parity shards, that packs are cut into (`replicator.format.policy`)."""
_CONSIDERED: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Any ``needed`` of ``shards`` suffice. At most ``usable`` bytes of data have room, each taking ``overhead``.

    Rates are losses a year of a pack on ``holders``, which lie as far apart as these peers can.
    """

    needed: int
    shards: int
    holders: tuple[PeerId, ...]
    independent: float
    shocks: float
    usable: int

    @property
    def name(self) -> str:
        if self.needed > 1:
            return f"{self.needed}+{self.shards - self.needed}"
        return f"{self.shards} copies" if self.shards > 1 else "1 copy"

    @property
    def overhead(self) -> float:
        return self.shards / self.needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What reaches a target, with shocks (``chosen``) and if losses were independent (``alone``).

    ``strongest`` is the most that these peers give with shocks, ``None`` without any peer. ``apart`` is how many of
    ``households`` the policy's spread tells apart; a scheme that uses all has nowhere to repair to after a loss.
    """

    target: float
    households: int
    apart: int
    chosen: Scheme | None
    alone: Scheme | None
    strongest: Scheme | None

    @property
    def is_all(self) -> bool:
        """Whether ``apart`` is all there is; beyond ``MOST_SHARDS`` nobody looked."""
        return self.apart < MOST_SHARDS or self.apart == self.households


def choose(peers: Iterable[Peer], policy: Policy, hazards: Hazards, target: float) -> Choice:
    """Try schemes from the cheapest up; equally dear ones, those with fewer shards first.

    Of ``policy`` residency, spread, caps and whether the own household counts are kept; its copies are not.

    Raises:
        PolicyError: the target is not between 0 and 30 nines.
    """
    if not 0 < target <= 30:
        raise PolicyError(f"a target of {target:g} nines is none: name one above 0 and up to 30, such as 9")
    ground = _Taking(peers, policy)
    apart = len(ground.apart(MOST_SHARDS))
    most_needed = min(apart, MOST_OF_EACH) if ground.households >= CODING_FROM else 1
    kinds = sorted(
        ((shards / needed, shards, needed) for shards in range(1, apart + 1) for needed in range(1, shards + 1)),
    )
    schemes: list[Scheme] = []
    chosen: Scheme | None = None
    alone: Scheme | None = None
    for _, shards, needed in kinds:
        if needed > most_needed or (needed > 1 and not 0 < shards - needed <= MOST_OF_EACH):
            continue
        scheme = ground.scheme(hazards, needed=needed, shards=shards)
        schemes.append(scheme)
        if alone is None and nines(scheme.independent) >= target:
            alone = scheme
        if nines(scheme.shocks) >= target:
            chosen = scheme
            break
    strongest = min(schemes, key=lambda one: (one.shocks, one.overhead), default=None)
    return Choice(
        target=target, households=ground.households, apart=apart, chosen=chosen, alone=alone, strongest=strongest
    )


def evaluate(peers: Iterable[Peer], policy: Policy, hazards: Hazards, *, needed: int, shards: int) -> Scheme:
    """A scheme on the peers that lie farthest apart; on fewer of them than it has shards, if there are no more."""
    return _Taking(peers, policy).scheme(hazards, needed=needed, shards=shards)


def spread_out(peers: Iterable[Peer], policy: Policy, shards: int) -> list[Peer]:
    """Up to ``shards`` peers that the policy admits together: as many as can be, the earliest in an even order.

    Of more than ``_CONSIDERED`` peers only the first in that order are looked at.
    """
    return _Taking(peers, policy).apart(shards)


class _Taking:
    """The peers that may hold a copy under a policy."""

    def __init__(self, peers: Iterable[Peer], policy: Policy) -> None:
        self._ground = Ground(peers)
        taking = [
            peer
            for peer in self._ground.peers.values()
            if peer.state in ("ok", "readonly")
            and policy.admits(peer.country)
            and (policy.count_own or peer.id not in self._ground.own)
        ]
        self.households = len({self._ground.domain(peer, "owner") for peer in taking})
        self._rooms: list[tuple[int, Counter[str]]] = []
        """For each domain with a cap: the cap, and the capacity in each such place."""
        for domain in DOMAINS:
            most = policy.most(domain)
            if most is None and domain != "owner":
                continue
            rooms: Counter[str] = Counter()
            for peer in taking:
                rooms[self._ground.domain(peer, domain)] += peer.capacity
            self._rooms.append((most or 1, rooms))
        self._listed = self._evenly(taking)
        self._limits = []
        for domain in DOMAINS:
            most = policy.most(domain)
            if most is not None:
                labels: dict[str, int] = {}
                group = [labels.setdefault(self._ground.domain(peer, domain), len(labels)) for peer in self._listed]
                self._limits.append(Limit(group=group, cap=most, hard=True))
        self._apart: dict[int, list[Peer]] = {}

    def scheme(self, hazards: Hazards, *, needed: int, shards: int) -> Scheme:
        holders = self.apart(shards)
        return Scheme(
            needed=needed,
            shards=shards,
            holders=tuple(peer.id for peer in holders),
            independent=set_rate(holders, needed, hazards.independent),
            shocks=set_rate(holders, needed, hazards),
            usable=needed * self._each(shards),
        )

    def apart(self, shards: int) -> list[Peer]:
        if shards not in self._apart:
            places = range(len(self._listed))
            picked = select(
                places, list(places), self._limits, target=shards, region=[0] * len(self._listed), penalty=0
            )
            self._apart[shards] = [self._listed[place] for place in picked]
        return self._apart[shards]

    def _each(self, shards: int) -> int:
        """Bytes that each of ``shards`` shards can have in all, at most.

        For each capped domain the largest x with sum over places of min(capacity, cap · x) >= shards · x. With one
        such domain that is exact; several together may leave less.
        """
        return min(_most(cap, list(rooms.values()), shards) for cap, rooms in self._rooms)

    def _evenly(self, peers: Sequence[Peer]) -> list[Peer]:
        """The peers in the order in which each comes from the place met least so far, the larger first."""
        met: Counter[tuple[str, str]] = Counter()
        left = sorted(peers, key=lambda peer: (-peer.capacity, peer.id))
        marks = {
            peer.id: (
                ("owner", self._ground.domain(peer, "owner")),
                ("country", peer.country),
                ("region", fold(peer.region)),
            )
            for peer in left
        }
        found: list[Peer] = []
        while left and len(found) < _CONSIDERED:
            at = min(range(len(left)), key=lambda at: (*(met[mark] for mark in marks[left[at].id]), at))
            peer = left.pop(at)
            found.append(peer)
            met.update(marks[peer.id])
        return found


def _most(cap: int, rooms: Sequence[int], shards: int) -> int:
    low, high = 0, sum(rooms) // shards
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(room, cap * middle) for room in rooms) >= shards * middle:
            low = middle
        else:
            high = middle - 1
    return low
