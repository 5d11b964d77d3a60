"""Which holder counts for which shard of a pack, where some lie twice or on peers that hold several."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from scheduler.check import Ground
from scheduler.model import DOMAINS, PeerId, Policy
from scheduler.selection import Limit, select

__all__ = ["count_shards"]

_STATES: Final = ("ok", "readonly", "suspect", "draining", "lost")
_MOST_PAIRS: Final = 64
"""Above so many holdings of one pack's shards, limits are not looked at: nobody stores so many on purpose."""


def count_shards(held: Sequence[Collection[PeerId]], ground: Ground, policy: Policy) -> dict[PeerId, int]:
    """Which peer counts for which shard: as many shards as can be, each on one peer, each peer for one shard.

    ``held`` says who holds each shard, by its number; peers that ``ground`` does not know are left out. Of several ways
    the one whose peers live and share least of what ``policy`` keeps apart.
    """
    pairs = [(peer, number) for number, peers in enumerate(held) for peer in sorted(peers) if peer in ground.peers]
    if len({peer for peer, _ in pairs}) == len(pairs) == len({number for _, number in pairs}):
        return dict(pairs)
    ranks = [_rank(peer, ground, policy) for peer, _ in pairs]
    if len(pairs) > _MOST_PAIRS:
        return _match([pairs[at] for at in sorted(range(len(pairs)), key=ranks.__getitem__)])
    names = {peer: at for at, peer in enumerate(sorted({peer for peer, _ in pairs}))}
    limits = [
        Limit(group=[number for _, number in pairs], cap=1, hard=True),
        Limit(group=[names[peer] for peer, _ in pairs], cap=1, hard=True),
    ]
    for domain in DOMAINS:
        most = policy.most(domain)
        if most is not None:
            groups = [ground.domain(ground.peers[peer], domain) for peer, _ in pairs]
            order = {group: at for at, group in enumerate(sorted(set(groups)))}
            limits.append(Limit(group=[order[group] for group in groups], cap=most, hard=False))
    # A way that counts one peer more outweighs sharing, and a peer that lives and may hold it, a shared place.
    penalty = len(_STATES) * (len(pairs) + 1)
    chosen = select(
        range(len(pairs)),
        [rank % 10 + (rank // 10) * penalty * (len(pairs) + 1) * len(DOMAINS) for rank in ranks],
        limits,
        target=len(held),
        region=[0] * len(pairs),
        penalty=penalty,
    )
    return dict(pairs[at] for at in sorted(chosen))


def _rank(name: PeerId, ground: Ground, policy: Policy) -> int:
    """How little a peer is wanted as a holder; from 10 up it does not count, or not for long."""
    peer = ground.peers[name]
    place = _STATES.index(peer.state)
    barred = not policy.admits(peer.country) or (name in ground.own and not policy.count_own)
    return place + 10 * (place >= _STATES.index("draining")) + 10 * (peer.state == "lost") + 30 * barred


def _match(pairs: Sequence[tuple[PeerId, int]]) -> dict[PeerId, int]:
    """As many pairs as can be, no peer and no shard twice; earlier peers before later ones."""
    wanted: dict[PeerId, list[int]] = {}
    for peer, number in pairs:
        wanted.setdefault(peer, []).append(number)
    by_number: dict[int, PeerId] = {}

    def take(peer: PeerId, tried: set[int]) -> bool:
        for number in wanted[peer]:
            if number not in tried:
                tried.add(number)
                if number not in by_number or take(by_number[number], tried):
                    by_number[number] = peer
                    return True
        return False

    for peer in wanted:
        take(peer, set())
    return {peer: number for number, peer in by_number.items()}
