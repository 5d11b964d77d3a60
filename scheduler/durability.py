"""What is left after the worst single loss, and which packs to mend first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scheduler.check import Ground, index_packs, index_policies
from scheduler.model import DOMAINS, Holders, Pack, PackId, Peer, Placement, Policy

__all__ = ["Loss", "repair_order", "survives"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The worst single loss of one kind: the copies it leaves of the pack it hits hardest.

    ``place`` is a peer id, or the label of the domain; for ``owner``, the owner of the household's first
    peer. Both are ``None`` when the loss of none of that kind takes a copy.
    """

    kind: str  # "peer" or a failure domain; "owner" is the household
    place: str | None
    pack: PackId | None
    left: int


def survives(placement: Placement, peers: Iterable[Peer], policy: Policy) -> dict[str, Loss]:
    """For the loss of any one peer, household (``owner``), site, region or country: the copies left.

    Counted are the copies that count now: not on lost peers, where residency forbids, nor at home unless
    the policy says so. An empty placement survives everything, with no copies.
    """
    ground = Ground(peers)
    hardest: dict[str, Loss] = {}
    counted: dict[Holders, dict[str, Loss]] = {}
    for pack, holders in sorted(placement.items()):
        if holders not in counted:
            counted[holders] = _losses(pack, _counting(ground, holders, policy), ground)
        for kind, loss in counted[holders].items():
            if kind not in hardest or loss.left < hardest[kind].left:
                hardest[kind] = loss
    return {kind: hardest.get(kind, Loss(kind=kind, place=None, pack=None, left=0)) for kind in ("peer", *DOMAINS)}


def _counting(ground: Ground, holders: Holders, policy: Policy) -> list[Peer]:
    named = [ground.peers[name] for name in dict.fromkeys(holders) if name is not None and name in ground.peers]
    return [
        peer
        for peer in named
        if peer.state != "lost" and policy.admits(peer.country) and (policy.count_own or peer.id not in ground.own)
    ]


def _losses(pack: PackId, living: list[Peer], ground: Ground) -> dict[str, Loss]:
    losses: dict[str, Loss] = {}
    if not living:
        return {kind: Loss(kind=kind, place=None, pack=pack, left=0) for kind in ("peer", *DOMAINS)}
    losses["peer"] = Loss(kind="peer", place=min(peer.id for peer in living), pack=pack, left=len(living) - 1)
    for domain in DOMAINS:
        groups = Counter(ground.domain(peer, domain) for peer in living)
        group, most = max(groups.items(), key=lambda row: (row[1], row[0]))
        first = next(peer for peer in living if ground.domain(peer, domain) == group)
        losses[domain] = Loss(kind=domain, place=getattr(first, domain), pack=pack, left=len(living) - most)
    return losses


def repair_order(
    packs: Iterable[Pack],
    placement: Placement,
    peers: Iterable[Peer],
    policies: Policy | Iterable[Policy],
    written: Mapping[PackId, int] | None = None,
) -> list[Pack]:
    """The packs with fewer sure copies than promised, the most urgent first.

    Fewest copies beyond those needed to read it, then fewest on peers that may still answer, then the
    oldest (``written``, in any one unit; packs without it come last), then the largest. A copy is sure on a
    peer that is ok or readonly; suspect and draining ones may answer.
    """
    ground, rules = Ground(peers), index_policies(policies)
    batch = index_packs(packs, rules)
    age = written or {}
    sure: dict[PackId, int] = {}
    may: dict[PackId, int] = {}
    counted: dict[tuple[str, Holders], tuple[int, int]] = {}
    for name, pack in batch.items():
        holders = tuple(placement.get(name, ()))
        key = (pack.policy, holders)
        if key not in counted:
            living = _counting(ground, holders, rules[pack.policy])
            firm = [peer for peer in living if peer.state in ("ok", "readonly")]
            counted[key] = (len(firm), len(living))
        sure[name], may[name] = counted[key]
    return sorted(
        (pack for name, pack in batch.items() if sure[name] < rules[pack.policy].copies),
        key=lambda pack: (
            sure[pack.id] - rules[pack.policy].needed,
            may[pack.id],
            (0, age[pack.id]) if pack.id in age else (1, 0),
            -pack.size,
            pack.id,
        ),
    )
