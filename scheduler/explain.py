"""Why a copy lies where it lies, and why not elsewhere, in words for a person."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from scheduler.check import Ground
from scheduler.model import DOMAINS, Domain, Holders, Pack, Peer, PeerId, Placement, Policy

__all__ = ["against", "amount", "in_favour", "why"]

_STATES = {
    "readonly": "takes nothing new (readonly)",
    "suspect": "has not answered for long (suspect)",
    "draining": "is leaving (draining)",
    "lost": "is lost",
}


def amount(size: int) -> str:
    """Bytes as a person writes them, decimal and rounded up: 12.3 GB."""
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min(len(units) - 1, (len(str(size)) - 1) // 3) if size else 0
    if not power:
        return f"{size} B"
    tenths = -(-size * 10 // 1000**power)
    return f"{tenths // 10}.{tenths % 10} {units[power]}".replace(".0 ", " ")


def _word(domain: Domain) -> str:
    return "household" if domain == "owner" else domain


def _copies(policy: Policy) -> str:
    return "copies" if policy.coding is None else "shards"


def in_favour(ground: Ground, holders: Sequence[PeerId], peer: Peer, *, free: int) -> str:
    """Why ``peer``, one of ``holders``, is a good place: what it shares with no other copy, and its room."""
    others = [ground.peers[name] for name in holders if name != peer.id and name in ground.peers]
    alone = [
        _word(domain)
        for domain in DOMAINS
        if all(ground.domain(other, domain) != ground.domain(peer, domain) for other in others)
    ]
    share = f"{100 * free // peer.capacity} % free" if peer.capacity else "no grant"
    apart = f"only copy in its {', '.join(alone)}" if alone else "shares its places with another copy"
    return f"{peer.where}: {apart}; {share}"


def against(
    ground: Ground,
    policy: Policy,
    holders: Sequence[PeerId],
    peer: Peer,
    *,
    size: int,
    free: int | None,
    relaxed: Collection[Domain] = (),
) -> str:
    """Why ``peer`` takes no copy of a pack of ``size`` bytes beside ``holders``; the firmest reason only.

    ``free`` is ``None`` where room is known not to be the reason.
    """
    if peer.id in ground.own and not policy.count_own:
        return f"{peer.where}: is in your own household"
    if not policy.admits(peer.country):
        return f"{peer.where}: residency does not allow {peer.country}"
    if peer.state != "ok":
        return f"{peer.where}: {_STATES[peer.state]}"
    if free is not None and free < size:
        return f"{peer.where}: full ({amount(free)} free, {amount(size)} needed)"
    for domain in DOMAINS:
        most = policy.most(domain)
        if most is None or domain in relaxed:
            continue
        sharing = [
            name
            for name in holders
            if name in ground.peers and ground.domain(ground.peers[name], domain) == ground.domain(peer, domain)
        ]
        if len(sharing) >= most:
            return f"{peer.where}: same {_word(domain)} as {', '.join(sharing)}"
    if len(holders) >= policy.copies:
        return f"{peer.where}: not needed, the promised {_copies(policy)} ({policy.copies}) are placed"
    regions = {ground.domain(ground.peers[name], "region") for name in holders if name in ground.peers}
    regions.add(ground.domain(peer, "region"))
    if "region" not in relaxed and len(regions) < min(len(holders) + 1, policy.min_regions):
        return f"{peer.where}: would leave too few regions ({policy.min_regions} are asked for)"
    return f"{peer.where}: could take one more copy"


def why(packs: Pack | Iterable[Pack], placement: Placement, peers: Iterable[Peer], policy: Policy) -> list[str]:
    """For a pack, or a group of packs, every copy with its reason and every other peer with its reason.

    Packs of a group that lie on the same peers are told of once. The peers' ``used`` is taken as it is
    now, with the copies in ``placement`` that are there already counted in it.
    """
    ground = Ground(peers)
    alike: dict[Holders, list[Pack]] = {}
    for pack in [packs] if isinstance(packs, Pack) else packs:
        alike.setdefault(tuple(placement.get(pack.id, ())), []).append(pack)
    lines: list[str] = []
    for holders, group in sorted(alike.items(), key=lambda row: (-len(row[1]), str(row[0]))):
        named = [name for name in dict.fromkeys(holders) if name is not None]
        size = max(pack.size for pack in group)
        first = min(pack.id for pack in group)
        title = f"pack {first}" if len(group) == 1 else f"{len(group)} packs ({first}, …)"
        lines.append(f"{title}: {len(named)} of {policy.copies} {_copies(policy)}, policy {policy.name}")
        faults = ground.faults(holders, policy, states=("ok", "readonly", "suspect"))
        for name in named:
            peer = ground.peers.get(name)
            if peer is None:
                lines.append(f"on {name}: not among the peers, does not count")
                continue
            wrong = [fault.message for fault in faults if fault.peer == name]
            text = in_favour(ground, named, peer, free=peer.free)
            lines.append(f"on {text}" + (f"; does not count: {'; '.join(wrong)}" if wrong else ""))
        lines.extend(f"but {fault.message}" for fault in faults if fault.peer is None)
        lines.extend(
            f"not on {against(ground, policy, named, peer, size=size, free=peer.free)}"
            for name, peer in ground.peers.items()
            if name not in named
        )
    return lines
