"""What to mend first: the packs most likely to be lost before the mending ends, each with its reason.

The chance is that of the durability model (`scheduler.lossrate`): what strikes peers, houses, regions and everybody
comes within the time that the whole queue takes, and takes with it all copies that are left but too few. A copy on a
peer that fell silent is there with a chance of one half. So a pack that any three more losses would take comes after
one that a single fire takes, whatever the share of their copies that is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, get_args

from scheduler.check import Ground, index_packs, index_policies
from scheduler.hazards import YEAR_S, Hazards
from scheduler.model import DOMAINS, Holders, Pack, PackId, Peer, PeerId, Placement, Policy
from scheduler.outlook import counting, loss_within

__all__ = ["Repair", "Urgency", "repair_queue"]

Urgency: TypeAlias = Literal["urgent", "lazy", "misplaced"]
"""urgent: one more loss could be the last, or the minimum is not met. lazy: copies are missing. misplaced: none is,
but one has to lie elsewhere, or sits where its peer is leaving."""

_RANK: Final = {word: at for at, word in enumerate(get_args(Urgency))}
_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A pack to be mended. ``chance``: that it is lost before the queue is through.

    ``sure`` copies lie on peers that hold for certain; ``unsure`` ones may be there (suspect), or go (draining).
    """

    pack: Pack
    urgency: Urgency
    chance: float
    sure: tuple[PeerId, ...]
    unsure: tuple[PeerId, ...]
    why: str


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What is the same for all packs of one policy with the same holders."""

    urgency: Urgency
    chance: float
    sure: tuple[PeerId, ...]
    unsure: tuple[PeerId, ...]
    why: str


def repair_queue(
    packs: Iterable[Pack],
    placement: Placement,
    peers: Iterable[Peer],
    policies: Policy | Iterable[Policy],
    *,
    within: float,
    hazards: Hazards | None = None,
    written: Mapping[PackId, int] | None = None,
) -> list[Repair]:
    """The packs in the order in which to mend them; ``within`` is the seconds that this takes in all.

    What one loss may take comes first, then what lacks copies, then what only lies wrong; among these the likelier
    lost, then the one with fewer copies that can be read, the older (``written``, in any one unit; without it last),
    the larger. The order of ``packs`` and ``peers`` changes nothing.
    """
    ground, rules = Ground(peers), index_policies(policies)
    batch = index_packs(packs, rules)
    age = written or {}
    rates = replace(hazards or Hazards(), repair=min(max(within, 1.0), YEAR_S))
    known: dict[tuple[str, Holders], _Verdict] = {}
    queue = []
    for name, pack in batch.items():
        holders = tuple(placement.get(name, ()))
        key = (pack.policy, holders)
        if key not in known:
            known[key] = _judge(ground, holders, rules[pack.policy], rates)
        verdict = known[key]
        queue.append(
            Repair(
                pack=pack,
                urgency=verdict.urgency,
                chance=verdict.chance,
                sure=verdict.sure,
                unsure=verdict.unsure,
                why=verdict.why,
            )
        )
    return sorted(
        queue,
        key=lambda one: (
            _RANK[one.urgency],
            -one.chance,
            len(one.sure) + len(one.unsure),
            (0, age[one.pack.id]) if one.pack.id in age else (1, 0),
            -one.pack.size,
            one.pack.id,
        ),
    )


def _judge(ground: Ground, holders: Holders, policy: Policy, hazards: Hazards) -> _Verdict:
    living = sorted(counting(ground, holders, policy), key=lambda peer: peer.id)
    sure = [peer for peer in living if peer.state in ("ok", "readonly")]
    unsure = [peer for peer in living if peer.state not in ("ok", "readonly")]
    chance = 1.0 if len(living) < policy.needed else loss_within(living, policy.needed, hazards)
    if len(sure) < min(policy.copies, max(policy.minimum, policy.needed + 1)):
        urgency: Urgency = "urgent"
    else:
        urgency = "lazy" if len(sure) < policy.copies else "misplaced"
    return _Verdict(
        urgency=urgency,
        chance=chance,
        sure=tuple(peer.id for peer in sure),
        unsure=tuple(peer.id for peer in unsure),
        why=_reason(ground, sure, unsure, policy, chance),
    )


def _reason(ground: Ground, sure: list[Peer], unsure: list[Peer], policy: Policy, chance: float) -> str:
    """What is left, what would take it, and how likely that is."""
    thing = "copy" if policy.coding is None else "shard"
    if len(sure) + len(unsure) < policy.needed:
        return f"no {thing} counts any more" if policy.needed == 1 else f"fewer than {policy.needed} shards are left"
    left = f"{_number(len(sure))} {_plural(thing, len(sure))} {'is' if len(sure) == 1 else 'are'} left"
    if sure:
        left += f", on {_listed(peer.id for peer in sure)}"
    parts = [left if len(sure) < policy.copies else f"all {policy.copies} {_plural(thing, policy.copies)} are there"]
    for state, word in (("suspect", "may be gone"), ("draining", "is about to leave")):
        some = [peer.id for peer in unsure if peer.state == state]
        if some:
            parts.append(f"{'another' if sure else 'one'} on {_listed(some)} {word}")
    together = _together(ground, sure, policy.needed)
    if together:
        parts.append(together)
    parts.append(_odds(chance))
    return "; ".join(parts)


def _together(ground: Ground, sure: list[Peer], needed: int) -> str:
    """The smallest place whose loss takes too many of several copies at once."""
    if len(sure) < max(2, needed):
        return ""
    for domain in ("site", "owner", "region", "country"):
        assert domain in DOMAINS, "a failure domain"
        groups = Counter(ground.domain(peer, domain) for peer in sure)
        group, most = max(groups.items(), key=lambda row: (row[1], row[0]))
        if most > 1 and len(sure) - most < needed:
            first = next(peer for peer in sure if ground.domain(peer, domain) == group)
            word = "household" if domain == "owner" else domain
            return f"{'all' if most == len(sure) else most} of them in one {word} ({getattr(first, domain)})"
    return ""


def _odds(chance: float) -> str:
    if chance >= 0.5:
        return "as likely lost as not before this is mended"
    if chance < 1e-12:
        return "hardly ever lost before this is mended"
    whole = round(1 / chance)
    digits = max(0, len(str(whole)) - 2)  # two figures are as many as the rates are good for
    return f"lost before this is mended with a chance of 1 in {round(whole, -digits):,}"


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _plural(thing: str, count: int) -> str:
    if count == 1:
        return thing
    return "copies" if thing == "copy" else f"{thing}s"


def _listed(names: Iterable[PeerId]) -> str:
    said = list(names)
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
