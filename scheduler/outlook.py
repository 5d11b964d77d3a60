"""What the copies as they lie are worth: losses a year, alone and with shocks, and what one loss leaves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from scheduler.check import Ground
from scheduler.geography import fold
from scheduler.hazards import YEAR_S, Hazards
from scheduler.lossrate import Strike, loss_chance, loss_rates
from scheduler.model import DOMAINS, Holders, Peer, PeerId, Placement, Policy

__all__ = ["Cause", "Left", "Outlook", "Rate", "counting", "loss_within", "nines", "outlook", "set_rate"]

Cause: TypeAlias = Literal["peer", "rot", "owner", "site", "region", "country", "common"]

_DOUBT: Final = 0.5  # that a suspect peer's copies are gone
_MERGED: Final = "*"  # the place of what strikes all peers


def nines(rate: float) -> float:
    """The nines of keeping something for a year that is lost so often in one: 3 for a chance of 0.001, inf for none."""
    chance = -math.expm1(-rate)
    return math.inf if chance <= 0 else max(0.0, -math.log10(chance))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Losses a year. ``pack`` is the mean over packs, ``worst`` that of the pack which lies worst.

    ``any`` is that of any loss at all, at most: what one event takes from many packs is one loss, but packs
    that lie alike apart from that are counted as if they never went together.
    """

    pack: float
    worst: float
    any: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The worst single loss of one kind: of the pack it hits hardest ``copies`` are left, and ``lost`` packs are gone.

    ``rate`` is the losses a year of the others (with shocks, the worst of them), while nothing is repaired.
    ``place`` is ``None`` where the loss of none of that kind takes a copy. "owner" is the household.
    """

    kind: str
    place: str | None
    peers: tuple[PeerId, ...]
    copies: int
    lost: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """One policy's packs. Packs that cannot be read now are ``gone`` and in no rate.

    ``causes`` are the shares of the mean rate with shocks, by what completes the loss, the largest first.
    """

    policy: str
    packs: int
    sets: int
    needed: int
    fewest: int
    gone: int
    independent: Rate
    shocks: Rate
    causes: tuple[tuple[Cause, float], ...]
    left: tuple[Left, ...]


def set_rate(holders: Sequence[Peer], needed: int, hazards: Hazards) -> float:
    """Losses a year of a pack with copies on these peers, of which ``needed`` suffice."""
    return math.fsum(rate for _, _, rate in _by_event(holders, needed, hazards))


def loss_within(holders: Sequence[Peer], needed: int, hazards: Hazards) -> float:
    """The chance that a pack with copies on these peers is lost within ``hazards.repair``, if nothing is mended."""
    _, strikes, doubt = _strikes(holders, hazards)
    return loss_chance(len(holders), needed, strikes, doubt)


def counting(ground: Ground, holders: Holders, policy: Policy) -> list[Peer]:
    """The peers whose copies count: not lost ones, where residency forbids, nor at home unless the policy says so."""
    named = [ground.peers[name] for name in dict.fromkeys(holders) if name is not None and name in ground.peers]
    return [
        peer
        for peer in named
        if peer.state != "lost" and policy.admits(peer.country) and (policy.count_own or peer.id not in ground.own)
    ]


def outlook(placement: Placement, peers: Iterable[Peer], policy: Policy, hazards: Hazards) -> Outlook:
    """Judge the copies that count now: not on lost peers, where residency forbids, nor at home unless it counts."""
    ground = Ground(peers)
    sets = _sets(placement, ground, policy)
    needed = policy.needed
    living = {holders: packs for holders, packs in sets.items() if len(holders) >= needed}
    memo = _Memo(ground, needed)
    alone, _ = _rate(living, memo, hazards.independent)
    together, by_cause = _rate(living, memo, hazards)
    total = math.fsum(by_cause.values())
    return Outlook(
        policy=policy.name,
        packs=sum(sets.values()),
        sets=len(sets),
        needed=needed,
        fewest=min(map(len, sets), default=0),
        gone=sum(packs for holders, packs in sets.items() if len(holders) < needed),
        independent=alone,
        shocks=together,
        causes=tuple(
            (cause, share / total) for cause, share in sorted(by_cause.items(), key=lambda row: -row[1]) if share > 0
        ),
        left=tuple(_worst(kind, living, ground, memo, hazards) for kind in ("peer", *DOMAINS)),
    )


def _sets(placement: Placement, ground: Ground, policy: Policy) -> Counter[tuple[PeerId, ...]]:
    seen: dict[Holders, tuple[PeerId, ...]] = {}
    sets: Counter[tuple[PeerId, ...]] = Counter()
    for holders in placement.values():
        if holders not in seen:
            seen[holders] = tuple(sorted(peer.id for peer in counting(ground, holders, policy)))
        sets[seen[holders]] += 1
    return sets


_Event: TypeAlias = tuple[Cause, str]


class _Memo:
    """Rates by set of holders and hazards: the same sets are asked for again after each trial loss."""

    def __init__(self, ground: Ground, needed: int) -> None:
        self._ground = ground
        self.needed = needed
        self._known: dict[tuple[tuple[PeerId, ...], Hazards], list[tuple[Cause, str, float]]] = {}

    def events(self, holders: tuple[PeerId, ...], hazards: Hazards) -> list[tuple[Cause, str, float]]:
        key = (holders, hazards)
        if key not in self._known:
            self._known[key] = _by_event([self._ground.peers[name] for name in holders], self.needed, hazards)
        return self._known[key]

    def total(self, holders: tuple[PeerId, ...], hazards: Hazards) -> float:
        return math.fsum(rate for _, _, rate in self.events(holders, hazards))


def _rate(
    sets: Counter[tuple[PeerId, ...]] | dict[tuple[PeerId, ...], int], memo: _Memo, hazards: Hazards
) -> tuple[Rate, dict[Cause, float]]:
    packs = sum(sets.values())
    if not packs:
        return Rate(pack=0.0, worst=0.0, any=0.0), {}
    by_event: dict[_Event, float] = {}
    by_cause: dict[Cause, float] = dict.fromkeys(get_args(Cause), 0.0)
    most = 0.0
    for holders, count in sets.items():
        total = 0.0
        for cause, place, rate in memo.events(holders, hazards):
            total += rate
            by_cause[cause] += rate * count / packs
            # What rots is one copy of one pack; everything else takes all packs of the set together.
            by_event[cause, place] = by_event.get((cause, place), 0.0) + rate * (count if cause == "rot" else 1)
        most = max(most, total)
    bound = math.fsum(min(rate, _ceiling(cause, hazards)) for (cause, _), rate in by_event.items())
    return Rate(pack=math.fsum(by_cause.values()), worst=most, any=bound), by_cause


def _ceiling(cause: Cause, hazards: Hazards) -> float:
    """An event cannot complete more losses than there are such events; each copy rots by itself."""
    return math.inf if cause == "rot" else float(getattr(hazards, cause))


def _by_event(holders: Sequence[Peer], needed: int, hazards: Hazards) -> list[tuple[Cause, str, float]]:
    """What completes how many losses of one pack in a year: cause, place, rate."""
    events, strikes, doubt = _strikes(holders, hazards)
    rates = loss_rates(len(holders), needed, strikes, doubt)
    return [(cause, place, rate) for (cause, place), rate in zip(events, rates, strict=True)]


def _strikes(holders: Sequence[Peer], hazards: Hazards) -> tuple[list[tuple[Cause, str]], list[Strike], list[float]]:
    """What may strike copies on these peers: cause and place, the streams themselves, and each copy's doubt."""
    repair, found = hazards.repair / YEAR_S, (hazards.found + hazards.repair) / YEAR_S
    events: list[tuple[Cause, str]] = []
    strikes: list[Strike] = []

    def add(
        cause: Cause, place: str, reach: frozenset[int], *, rate: float, window: float, chance: float = 1.0
    ) -> None:
        if rate > 0:
            events.append((cause, place))
            strikes.append(Strike(reach=reach, rate=rate, window=window, chance=chance))

    for at, peer in enumerate(holders):
        add("peer", peer.id, frozenset([at]), rate=hazards.peer, window=repair)
        add("rot", peer.id, frozenset([at]), rate=hazards.rot, window=found)
    for domain in DOMAINS:
        groups: dict[str, set[int]] = {}
        for at, peer in enumerate(holders):
            label = getattr(peer, domain)
            groups.setdefault(label if domain == "country" else fold(label), set()).add(at)
        for label, reach in groups.items():
            add(domain, label, frozenset(reach), rate=hazards.of(domain), window=repair)
    everything = frozenset(range(len(holders)))
    add("common", _MERGED, everything, rate=hazards.common, window=repair, chance=hazards.common_hit)
    return events, strikes, [_DOUBT if peer.state == "suspect" else 0.0 for peer in holders]


def _worst(kind: str, sets: dict[tuple[PeerId, ...], int], ground: Ground, memo: _Memo, hazards: Hazards) -> Left:
    """The group whose loss takes the most packs, then leaves the fewest copies, then the greatest rate."""
    groups: dict[str, set[PeerId]] = {}
    touched: dict[str, tuple[int, int]] = {}
    for holders, packs in sets.items():
        here: dict[str, int] = {}
        for name in holders:
            peer = ground.peers[name]
            group = peer.id if kind == "peer" else ground.domain(peer, kind)  # type: ignore[arg-type] # one of DOMAINS
            groups.setdefault(group, set()).add(name)
            here[group] = here.get(group, 0) + 1
        for group, count in here.items():
            lost, fewest = touched.get(group, (0, len(holders)))
            left = len(holders) - count
            touched[group] = (lost + (packs if left < memo.needed else 0), min(fewest, left))
    if not groups:
        return Left(kind=kind, place=None, peers=(), copies=0, lost=0, rate=0.0)
    group = min(touched, key=lambda one: (-touched[one][0], touched[one][1], -len(groups[one]), one))
    gone = groups[group]
    rest = [tuple(name for name in holders if name not in gone) for holders in sets]
    first = ground.peers[min(gone)]
    return Left(
        kind=kind,
        place=first.id if kind == "peer" else getattr(first, kind),
        peers=tuple(sorted(gone)),
        copies=min(touched[group][1], *map(len, sets)),
        lost=touched[group][0],
        rate=max((memo.total(holders, hazards) for holders in rest if len(holders) >= memo.needed), default=0.0),
    )
