"""How old a snapshot is, who has seen it, and what speaks against there being nothing newer."""

from dataclasses import dataclass

from replicator.catalog.snapshots import SnapshotRow
from replicator.clock import DAY_S, HOUR_S, MINUTE_S, NS
from replicator.config import counted
from replicator.engine.heads import KnownHead
from replicator.engine.home import Half
from replicator.engine.memory import Memory
from replicator.ids import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A provider that has signed that it saw a snapshot or a later one of its chain, at the latest at ``seen_ns``.

    ``answers``: it said so now; else it is known from before.
    """

    id: str
    name: str
    seen_ns: int
    answers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """``warnings`` are for people: too few witnesses, providers that are behind others."""

    age_s: int
    witnesses: tuple[Sighting, ...]
    minimum: int
    warnings: tuple[str, ...]


def freshness(half: Half, row: SnapshotRow, known: KnownHead | None, now_ns: int) -> Freshness:
    """Return how fresh a snapshot is. ``known`` is what providers say of its chain now; None: nobody was asked."""
    policy = half.catalog.datasets.policies()[row.policy]
    asked = {} if known is None else {sight.provider: sight for sight in known.sights}
    witnesses, seen = [], 0
    for pin in half.peers:
        sight = asked.get(Identity(pin.identity))
        seen_ns = _signed_before(half, Identity(pin.identity), row) if sight is None else 0
        if sight is not None and sight.number >= row.number:
            seen_ns = sight.seen_ns
        if seen_ns:
            seen += policy.count_own or not pin.own
            witnesses.append(Sighting(id=pin.identity.hex(), name=pin.name, seen_ns=seen_ns, answers=sight is not None))
    warnings = []
    if seen < policy.minimum:
        warnings.append(
            f"seen by {counted(seen, 'provider')}, at least {counted(policy.minimum, 'was', 'were')} promised"
        )
    newest = max((sight.number for sight in asked.values()), default=0)
    behind = [f"{sight.name} shows {_up_to(sight.number)}" for sight in asked.values() if sight.number < newest]
    if behind:
        warnings.append(f"{', '.join(behind)}; others show snapshot {newest} of that node")
    return Freshness(
        age_s=max(0, now_ns - row.created_ns) // NS,
        witnesses=tuple(witnesses),
        minimum=policy.minimum,
        warnings=tuple(warnings),
    )


def _signed_before(half: Half, provider: Identity, row: SnapshotRow) -> int:
    """Return when a provider saw a snapshot, by what it signed in the last known life of its store; 0: not."""
    incarnation = half.catalog.peers.get(provider).incarnation
    times = [
        shown.seen_ns
        for word in Memory(half).words(provider)
        if word.incarnation == incarnation
        and (shown := word.heads.get(row.writer)) is not None
        and shown.number >= row.number
    ]
    return min(times, default=0)


def _up_to(number: int) -> str:
    return f"snapshot {number}" if number else "none"


def age_in_words(seconds: int) -> str:
    """Return an age for people: two days, 7 hours, 12 minutes."""
    for unit, name in ((DAY_S, "day"), (HOUR_S, "hour"), (MINUTE_S, "minute")):
        if seconds >= 2 * unit or (unit != DAY_S and seconds >= unit):
            return counted(seconds // unit, name)
    return "less than a minute"
