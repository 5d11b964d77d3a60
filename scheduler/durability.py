"""What is left after the worst single loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.check import Ground
from scheduler.model import DOMAINS, Holders, PackId, Peer, Placement, Policy
from scheduler.outlook import counting

__all__ = ["Loss", "survives"]


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
            counted[holders] = _losses(pack, counting(ground, holders, policy), ground)
        for kind, loss in counted[holders].items():
            if kind not in hardest or loss.left < hardest[kind].left:
                hardest[kind] = loss
    return {kind: hardest.get(kind, Loss(kind=kind, place=None, pack=None, left=0)) for kind in ("peer", *DOMAINS)}


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
