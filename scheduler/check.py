"""The invariants of placement, stated a second time.

Nothing here shares code with the planner but the values and the definition of a household. Every plan is
checked before it is returned, and the same rules say what is wrong with copies as they lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from scheduler.errors import PolicyError, RosterError
from scheduler.geography import fold, households
from scheduler.model import (
    DOMAINS,
    Domain,
    Holders,
    Pack,
    PackId,
    Peer,
    PeerId,
    Placement,
    Plan,
    Policy,
    Violation,
    ViolationKind,
)

__all__ = ["Fault", "Ground", "check", "index_packs", "index_peers", "index_policies"]


class Fault(NamedTuple):
    """A violation not yet tied to a pack: many packs share one set of holders."""

    kind: ViolationKind
    peer: PeerId | None
    message: str

    def of(self, pack: PackId) -> Violation:
        return Violation(kind=self.kind, pack=pack, peer=self.peer, message=f"pack {pack}: {self.message}")


def index_peers(peers: Iterable[Peer]) -> dict[PeerId, Peer]:
    """The peers by id, in order of id.

    Raises:
        RosterError: an id occurs twice.
    """
    found: dict[PeerId, Peer] = {}
    for peer in peers:
        if peer.id in found:
            raise RosterError(f"peer id {peer.id!r} occurs twice: give every peer an id of its own")
        found[peer.id] = peer
    return dict(sorted(found.items()))


def index_policies(policies: Policy | Iterable[Policy]) -> dict[str, Policy]:
    """One or several policies by name.

    Raises:
        PolicyError: a name occurs twice.
    """
    found: dict[str, Policy] = {}
    for policy in [policies] if isinstance(policies, Policy) else policies:
        if policy.name in found:
            raise PolicyError(f"policy name {policy.name!r} occurs twice: name the policies apart")
        found[policy.name] = policy
    return found


def index_packs(packs: Iterable[Pack], policies: Mapping[str, Policy]) -> dict[PackId, Pack]:
    """The packs by id.

    Raises:
        RosterError: an id occurs twice.
        PolicyError: a pack names a policy that is not given.
    """
    found: dict[PackId, Pack] = {}
    for pack in packs:
        if pack.id in found:
            raise RosterError(f"pack id {pack.id!r} occurs twice: give every pack an id of its own")
        if pack.policy not in policies:
            raise PolicyError(
                f"pack {pack.id}: unknown policy {pack.policy!r}: known are {', '.join(sorted(policies)) or 'none'}"
            )
        found[pack.id] = pack
    return found


class Ground:
    """The peers as a set of rules sees them: by id, with households and folded labels."""

    def __init__(self, peers: Iterable[Peer]) -> None:
        self.peers = index_peers(peers)
        self.home = households(self.peers.values())
        own = {self.home[peer.id] for peer in self.peers.values() if peer.own}
        self.own = frozenset(peer for peer, home in self.home.items() if home in own)

    def domain(self, peer: Peer, domain: Domain) -> str:
        """The group of a peer in a domain; equal groups are one place."""
        if domain == "owner":
            return self.home[peer.id]
        return peer.country if domain == "country" else fold(peer.site if domain == "site" else peer.region)

    def faults(
        self, holders: Holders, policy: Policy, *, relaxed: Collection[Domain] = (), states: Collection[str]
    ) -> list[Fault]:
        """What is wrong with these copies of one pack, short numbers apart.

        ``states`` are those in which a peer may hold a copy; domains in ``relaxed`` are not looked at.
        """
        named = [peer for peer in holders if peer is not None]
        found = [
            Fault("twice", peer, f"{peer} holds it {times} times")
            for peer, times in Counter(named).items()
            if times > 1
        ]
        known: list[Peer] = []
        for name in dict.fromkeys(named):
            peer = self.peers.get(name)
            if peer is None:
                found.append(Fault("unknown-peer", name, f"no peer is called {name}"))
                continue
            known.append(peer)
            if peer.state not in states:
                found.append(Fault("state", name, f"{name} is {peer.state}"))
            if not policy.admits(peer.country):
                found.append(Fault("residency", name, f"{name} is in {peer.country}, where it must not lie"))
            if name in self.own and not policy.count_own:
                found.append(Fault("own-household", name, f"{name} is in the tenant's own household"))
        for domain in DOMAINS:
            most = policy.most(domain)
            if most is None or domain in relaxed:
                continue
            by_group: dict[str, list[PeerId]] = {}
            for peer in known:
                by_group.setdefault(self.domain(peer, domain), []).append(peer.id)
            word = "household" if domain == "owner" else domain
            found.extend(
                Fault(domain, None, f"{', '.join(sorted(group))} share one {word}, where {most} may hold it")
                for group in by_group.values()
                if len(group) > most
            )
        if "region" not in relaxed:
            regions = len({self.domain(peer, "region") for peer in known})
            if regions < min(len(known), policy.min_regions):
                found.append(Fault("min-regions", None, f"its copies lie in {regions} regions of {policy.min_regions}"))
        return found


_HOLDING = ("ok", "readonly", "suspect")


def check(
    result: Plan | Placement,
    packs: Iterable[Pack],
    peers: Iterable[Peer],
    policies: Policy | Iterable[Policy],
    held: Mapping[PackId, Collection[PeerId | None]] | None = None,
) -> list[Violation]:
    """Every invariant that does not hold; empty when all is well.

    A placement is checked as it lies: against the full policy, and for too few copies. A plan is checked as
    an aim: it may relax and fall short only where it says so, must keep to the grants over the whole batch,
    and must start from ``held``.

    Raises:
        RosterError: the peers or packs are themselves unusable.
        PolicyError: a pack names an unknown policy.
    """
    ground = Ground(peers)
    rules = index_policies(policies)
    batch = index_packs(packs, rules)
    if isinstance(result, Plan):
        return _check_plan(result, batch, ground, rules, held or {})
    return _check_placement(result, batch, ground, rules)


def _check_placement(
    placement: Placement, packs: Mapping[PackId, Pack], ground: Ground, rules: Mapping[str, Policy]
) -> list[Violation]:
    found: list[Violation] = []
    known: dict[tuple[str, Holders], list[Fault]] = {}
    found.extend(_strangers(placement.keys() - packs.keys()))
    for name, pack in sorted(packs.items()):
        holders = tuple(placement.get(name, ()))
        key = (pack.policy, holders)
        if key not in known:
            policy = rules[pack.policy]
            faults = ground.faults(holders, policy, states=_HOLDING)
            bad = {fault.peer for fault in faults if fault.peer is not None and fault.kind != "twice"}
            have = len({peer for peer in holders if peer is not None} - bad)
            if have < policy.copies:
                faults.append(Fault("copies", None, f"{have} of {policy.copies} promised copies"))
            if have < policy.minimum:
                faults.append(Fault("minimum", None, f"{have} copies, where {policy.minimum} are the least"))
            known[key] = faults
        found.extend(fault.of(name) for fault in known[key])
    return found


def _strangers(packs: Iterable[PackId]) -> list[Violation]:
    return [Violation(kind="unknown-pack", pack=pack, message=f"no pack is called {pack}") for pack in sorted(packs)]


def _check_plan(
    plan: Plan,
    packs: Mapping[PackId, Pack],
    ground: Ground,
    rules: Mapping[str, Policy],
    held: Mapping[PackId, Collection[PeerId | None]],
) -> list[Violation]:
    found: list[Violation] = []

    def account(pack: PackId, message: str) -> None:
        found.append(Violation(kind="account", pack=pack, message=f"pack {pack}: {message}"))

    relaxed = {row.pack: row.domains for row in plan.relaxations}
    debts = {row.pack: row for row in plan.debts}
    refused = {row.pack: row for row in plan.refused}
    added: dict[PackId, list[PeerId]] = {}
    taken: Counter[PeerId] = Counter()
    for addition in plan.additions:
        if addition.pack not in packs:
            found.append(Violation(kind="unknown-pack", pack=addition.pack, message="an addition of no known pack"))
            continue
        added.setdefault(addition.pack, []).append(addition.peer)
        taken[addition.peer] += packs[addition.pack].size
    for taker, size in taken.items():
        peer = ground.peers.get(taker)
        if peer is not None and peer.used + size > peer.capacity:
            found.append(
                Violation(
                    kind="capacity",
                    peer=taker,
                    message=f"{taker}: {size} bytes are added to {peer.used}, the grant is {peer.capacity}",
                )
            )
    known: dict[tuple[object, ...], list[Fault]] = {}
    found.extend(_strangers({*plan.placement, *plan.kept} - packs.keys()))
    for name, pack in packs.items():
        policy = rules[pack.policy]
        kept = plan.kept.get(name, ())
        new = added.get(name, [])
        holders: Holders = (*kept, *new)
        if tuple(plan.placement.get(name, ())) != holders:
            account(name, "its placement is not what is kept and added")
        there = {peer for peer in held.get(name, ()) if peer is not None}
        if not there.issuperset(kept):
            account(name, "a copy is kept that was not held")
        if not there.isdisjoint(new):
            account(name, "a copy is added where one is held")
        key = (pack.policy, kept, tuple(new), relaxed.get(name, ()))
        if key not in known:
            known[key] = _aim(ground, policy, kept, new, relaxed.get(name, ()))
        found.extend(fault.of(name) for fault in known[key])
        leaving = sum(
            1
            for peer in there.difference(kept)
            if peer in ground.peers
            and ground.peers[peer].state == "draining"
            and policy.admits(ground.peers[peer].country)
            and (policy.count_own or peer not in ground.own)
        )
        below = len(holders) + leaving < policy.minimum
        if below != (name in refused):
            account(name, "it is refused and yet reaches its minimum" if not below else "it is not refused")
        if (len(holders) < policy.copies and not below) != (name in debts):
            account(name, "its debt is not stated, or stated without need")
        if name in debts and debts[name].have != len(holders):
            account(name, "its debt is stated wrongly")
    return found


def _aim(
    ground: Ground, policy: Policy, kept: Sequence[PeerId], new: Sequence[PeerId], relaxed: Collection[Domain]
) -> list[Fault]:
    holders: Holders = (*kept, *new)
    faults = ground.faults(holders, policy, relaxed=relaxed, states=_HOLDING)
    faults.extend(
        Fault("state", peer, f"{peer} takes nothing new")
        for peer in new
        if peer in ground.peers and ground.peers[peer].state != "ok"
    )
    if "owner" in relaxed:
        faults.append(Fault("owner", None, "households are never relaxed"))
    if len(holders) > policy.copies:
        faults.append(Fault("copies", None, f"{len(holders)} copies, where {policy.copies} are promised"))
    return faults
