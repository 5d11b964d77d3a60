"""Which peers shall hold which packs.

Packs are taken one after another, those with the fewest living copies first, then the largest; each gets
the best admissible set of peers given the room that is left, found exactly (`scheduler.selection`). Packs
that are alike share a decision as long as the same peers have room, and a decision is made afresh often
enough that disks fill evenly. If that leaves a pack below its minimum, the whole batch is planned a second
way: every pack to its minimum first, and up to its promise with what is left.

Many new packs among many peers go by placement sets (`scheduler.shape`) as far as those reach: they use all the room
there is, in time that hardly grows with the packs. What they leave over, and whatever lies somewhere already, is
decided pack by pack.

Where peers are reached through a relay alone, new packs that got their whole promise then exchange peers so that few
are out of reach with one relay (`scheduler.hanging`).

When a policy cannot be met the plan bends it, in this order: country, region and site may be shared, then
copies go down to the minimum. Residency, the tenant's own household and the limits per household
(owner) never bend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import islice
from typing import Final

from scheduler.check import Fault, Ground, check, index_packs, index_policies
from scheduler.errors import PlacementInvalidError
from scheduler.explain import against, amount, in_favour
from scheduler.geography import queries
from scheduler.hanging import Relays, exchange
from scheduler.model import (
    DOMAINS,
    Addition,
    Debt,
    Domain,
    Gap,
    Pack,
    PackId,
    Peer,
    PeerId,
    Plan,
    Policy,
    Refusal,
    Relaxation,
    Surplus,
    Violation,
)
from scheduler.selection import Limit, select

__all__ = ["place"]

_BENDING: Final[tuple[Domain, ...]] = ("country", "region", "site")
_DECISIONS: Final = 512
"""A batch is decided in about this many portions, so fill is even to within 1/512 of the batch."""


_MANY: Final = 200
_APART: Final = 2
"""New packs of one policy and size, and peers beyond its copies, from which placement sets are used."""

_ROUNDS: Final = 8
"""How often a scarce batch is gone through again because a copy that moved left room to others."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """One decision, good for all packs of a group while the peers with room stay the same."""

    chosen: tuple[int, ...]
    kept: tuple[int, ...]
    added: tuple[int, ...]
    level: int
    excess: int
    relaxed: tuple[Domain, ...]
    refused: bool
    have: int  # copies the pack will have, those on draining peers included when it is refused
    blocked: frozenset[int]  # peers that had too little room
    reachable: int  # copies that could be placed, also when refused
    reasons: tuple[str, ...]  # of each added copy


@dataclass(slots=True)
class _Group:
    """Packs of one policy that are held by the same peers."""

    policy: Policy
    held: frozenset[int]
    counted: frozenset[int]
    leaving: int  # copies on draining peers: there now, to be replaced
    living: bool
    faults: list[Fault]


@dataclass(slots=True)
class _Portion:
    """A decision in use: for how many more packs, and what would make it stale."""

    choice: _Choice
    left: int
    waiting: int  # the most room on a peer that had too little


@dataclass(slots=True)
class _Shortfall:
    """The packs that fall short for one reason."""

    choice: _Choice
    group: _Group
    size: int  # of the largest pack
    packs: int = 0
    total: int = 0
    would_help: tuple[str, ...] = ()


@dataclass(slots=True)
class _Books:
    """What a pass has decided, and the room it has left."""

    free: list[int]
    choices: dict[PackId, _Choice] = field(default_factory=dict)
    settled: frozenset[PackId] = frozenset()  # decided by placement sets
    refused: int = 0
    moves: int = 0  # how often a pass took back a copy it had decided before


def place(
    packs: Iterable[Pack],
    peers: Iterable[Peer],
    policies: Policy | Iterable[Policy],
    held: Mapping[PackId, Collection[PeerId | None]] | None = None,
    *,
    seed: bytes = b"",
    relays: Mapping[PeerId, Collection[PeerId]] | None = None,
) -> Plan:
    """Keep the copies that count, add what is missing, say what cannot be done and what would help.

    ``held`` says who has a copy now; their bytes are part of those peers' ``used``. It may name other packs
    too. Copies of a policy with coding are shards, and a pack's size is that of one; which peer has which is the
    caller's affair, who names one holder of each (`scheduler.shards`). The result depends on the values alone, not
    on their order; ``seed`` settles ties between peers, so give each tenant its own. Nothing is ever removed, and a
    copy on a peer that is draining, lost, outside the residency or in the tenant's own household does not count. A
    copy on a suspect peer counts as long as enough others are sure. ``relays`` are machines, peers or not, with whom
    each is the only way to; that takes nothing from the copies, and moves none that is there.

    Raises:
        RosterError: a peer or pack occurs twice.
        PolicyError: a pack names an unknown policy.
        PlacementInvalidError: the result fails `scheduler.check`; a bug here.
    """
    roster, rules = list(peers), index_policies(policies)
    batch = index_packs(packs, rules)
    plan = _Planner(roster, batch, rules, held or {}, seed, relays or {}).plan()
    violations = check(plan, batch.values(), roster, rules.values(), held)
    if violations:
        raise PlacementInvalidError(violations)
    return plan


class _Planner:
    """One batch. Peers are numbers here: their place in the order of ids."""

    def __init__(
        self,
        roster: Sequence[Peer],
        packs: Mapping[PackId, Pack],
        rules: Mapping[str, Policy],
        held: Mapping[PackId, Collection[PeerId | None]],
        seed: bytes,
        relays: Mapping[PeerId, Collection[PeerId]],
    ) -> None:
        self.ground = Ground(roster)
        self.peers = list(self.ground.peers.values())
        self.number = {peer.id: at for at, peer in enumerate(self.peers)}
        self.packs = packs
        self.rules = rules
        self.seed = seed
        # A relay that is no peer has a number that no peer has.
        self.relays = Relays(
            {
                self.number.get(relay, -1 - at): [self.number[name] for name in behind if name in self.number]
                for at, (relay, behind) in enumerate(sorted(relays.items()))
            }
        )
        self.portion = max(1, -(-len(packs) // _DECISIONS))
        drawn = sorted(self.number.items(), key=lambda row: _lot(seed, row[0]))
        self.lot = [0] * len(self.peers)
        for lot, (_, at) in enumerate(drawn):
            self.lot[at] = lot
        self.places: dict[Domain, list[int]] = {}
        for domain in DOMAINS:
            names = [self.ground.domain(peer, domain) for peer in self.peers]
            order = {name: at for at, name in enumerate(sorted(set(names)))}
            self.places[domain] = [order[name] for name in names]
        self.takers = {
            policy.name: [at for at, peer in enumerate(self.peers) if peer.state == "ok" and self._allowed(at, policy)]
            for policy in rules.values()
        }
        self.groups: dict[tuple[str, frozenset[PeerId]], _Group] = {}
        self.group_of = {name: self._group(pack, held.get(name, ())) for name, pack in packs.items()}
        self.order = sorted(packs.values(), key=lambda pack: (len(self.group_of[pack.id].counted), -pack.size, pack.id))

    def _allowed(self, at: int, policy: Policy) -> bool:
        """What never bends, apart from limits per household."""
        peer = self.peers[at]
        return policy.admits(peer.country) and (policy.count_own or peer.id not in self.ground.own)

    def _lives(self, name: PeerId) -> bool:
        return self.ground.peers[name].state != "lost"

    def _group(self, pack: Pack, holders: Collection[PeerId | None]) -> _Group:
        named = frozenset(peer for peer in holders if peer is not None)
        found = self.groups.get((pack.policy, named))
        if found is not None:
            return found
        policy = self.rules[pack.policy]
        known = frozenset(self.number[name] for name in named if name in self.number)
        fit = [at for at in known if self._allowed(at, policy)]
        sure = frozenset(at for at in fit if self.peers[at].state in ("ok", "readonly"))
        silent = frozenset(at for at in fit if self.peers[at].state == "suspect")
        # A silent peer mostly comes back, so its copy counts, unless one more loss would then be the last.
        urgent = len(sure) < min(policy.copies, max(policy.minimum, policy.needed + 1))
        group = self.groups[pack.policy, named] = _Group(
            policy=policy,
            held=known,
            counted=sure if urgent else sure | silent,
            leaving=sum(self.peers[at].state == "draining" for at in fit),
            living=sum(self._lives(self.peers[at].id) for at in known) >= policy.needed,
            faults=self.ground.faults(
                tuple(sorted(name for name in named if name not in self.number or self._lives(name))),
                policy,
                states=("ok", "readonly", "suspect", "draining"),
            ),
        )
        return group

    # -- one decision ---------------------------------------------------------------------------------

    def _decide(
        self,
        group: _Group,
        eligible: Sequence[int],
        free: Sequence[int],
        size: int,
        *,
        target: int,
        stay: frozenset[int] = frozenset(),
    ) -> tuple[tuple[int, ...], int]:
        """The best peers for a pack of ``group`` among its counted holders and ``eligible``; the level.

        Level 0 is the full policy; level i bends the first i of `_bends`. Most copies come first, then the
        lowest level, the fewest additions, the least sharing, the peers that will be least full. ``stay`` are additions
        decided before, to be changed only if that helps.
        """
        policy = group.policy
        bends = _bends(policy)
        count = len(self.peers)
        cost = [0] * count
        score = 0
        for at in eligible:
            peer = self.peers[at]
            if at not in stay:
                fill = (peer.capacity - free[at] + size) * 1_000_000 // max(1, peer.capacity)
                cost[at] = (fill + 1000 * peer.cost + 1) * count
            cost[at] += self.lot[at]
            score = max(score, cost[at])
        for at in group.counted:
            peer = self.peers[at]
            worse = ("ok", "readonly", "suspect").index(peer.state) + (3 if peer.used > peer.capacity else 0)
            cost[at] = worse * count + self.lot[at]  # of copies too many, one goes where there is too much
        penalty = (max(score, 6 * count) + 1) * (target + 1)
        addition = penalty * (target * len(DOMAINS) + policy.min_regions + 1)
        for at in eligible:
            cost[at] += addition
        candidates = sorted([*group.counted, *eligible])

        def at_level(level: int, target: int) -> tuple[int, ...]:
            bent = bends[:level]
            return select(
                candidates,
                cost,
                [
                    Limit(group=self.places[domain], cap=most, hard=domain not in bent)
                    for domain in ("country", "region", "site", "owner")
                    if (most := policy.most(domain)) is not None
                ],
                target=target,
                region=self.places["region"],
                min_regions=policy.min_regions,
                regions_hard="region" not in bent,
                penalty=penalty,
            )

        strict = at_level(0, target)
        if len(strict) == target or not bends:
            return strict, 0
        loosest = at_level(len(bends), target)
        if len(loosest) == len(strict):
            return strict, 0
        for level in range(1, len(bends)):
            chosen = at_level(level, len(loosest))
            if len(chosen) == len(loosest):
                return chosen, level
        return loosest, len(bends)

    def _sharing(
        self, policy: Policy, chosen: Sequence[int], domains: Sequence[Domain] = _BENDING
    ) -> dict[Domain, int]:
        """By how much the chosen exceed the limits of the policy, for the domains where they do."""
        excess: dict[Domain, int] = {}
        for domain in domains:
            most = policy.most(domain)
            over = 0
            if most is not None:
                groups = [self.places[domain][at] for at in chosen]
                over = sum(max(0, groups.count(place) - most) for place in set(groups))
            if domain == "region":
                regions = len({self.places["region"][at] for at in chosen})
                over += max(0, min(len(chosen), policy.min_regions) - regions)
            if over:
                excess[domain] = over
        return excess

    def _choice(
        self, group: _Group, size: int, free: Sequence[int], *, target: int, stay: frozenset[int] = frozenset()
    ) -> _Choice:
        policy = group.policy
        open_to = [at for at in self.takers[policy.name] if at not in group.held]
        eligible = [at for at in open_to if free[at] >= size]
        chosen, level = self._decide(group, eligible, free, size, target=target, stay=stay)
        reachable = len(chosen)
        refused = reachable + group.leaving < policy.minimum
        if refused and not group.living:
            chosen = ()
        kept = tuple(at for at in chosen if at in group.counted)
        added = tuple(at for at in chosen if at not in group.counted)
        sharing = self._sharing(policy, chosen)
        names = [self.peers[at].id for at in chosen]
        return _Choice(
            chosen=(*kept, *added),
            kept=kept,
            added=added,
            level=level,
            excess=sum(sharing.values()),
            relaxed=tuple(sharing),
            refused=refused,
            have=len(chosen) + (group.leaving if refused else 0),
            blocked=frozenset(open_to).difference(eligible),
            reachable=reachable,
            reasons=tuple(in_favour(self.ground, names, self.peers[at], free=free[at]) for at in added),
        )

    # -- the passes -----------------------------------------------------------------------------------

    def _by_sets(self) -> _Books:
        """Decide new packs that are many of a policy and size, where peers enough take them and none is dearer."""
        books = self._books()
        new: dict[tuple[str, int], list[PackId]] = {}
        for name, pack in sorted(self.packs.items()):
            if not self.group_of[name].held:
                new.setdefault((pack.policy, pack.size), []).append(name)
        for policy in sorted(self.rules.values(), key=lambda rule: (len(self.takers[rule.name]), rule.name)):
            takers = self.takers[policy.name]
            if len(takers) < policy.copies + _APART or len({self.peers[at].cost for at in takers}) > 1:
                continue
            for size in sorted((size for name, size in new if name == policy.name), reverse=True):
                names = new[policy.name, size]
                if len(names) >= _MANY:
                    self._place_sets(books, policy, size, names)
        return books

    def _place_sets(self, books: _Books, policy: Policy, size: int, names: Sequence[PackId]) -> None:
        """Give as many packs of one size their full promise as fit in the room that is left."""
        from scheduler.many import sets_for  # noqa: PLC0415 - numpy costs a tenth of a second that few plans need

        places = {domain: self.places[domain] for domain in DOMAINS}
        slots = [books.free[at] // size if at in self.takers[policy.name] else 0 for at in range(len(self.peers))]
        waiting = iter(names)
        for chosen, packs in sets_for(policy, places, slots, len(names), seed=self.seed):
            for at in chosen:
                books.free[at] -= size * packs
            held = [self.peers[at].id for at in chosen]
            choice = _Choice(
                chosen=chosen,
                kept=(),
                added=chosen,
                level=0,
                excess=0,
                relaxed=(),
                refused=False,
                have=len(chosen),
                blocked=frozenset(),
                reachable=len(chosen),
                reasons=tuple(in_favour(self.ground, held, self.peers[at], free=books.free[at]) for at in chosen),
            )
            for _ in range(packs):
                books.choices[next(waiting)] = choice

    def _pass(self, books: _Books, *, minimum_only: bool = False) -> _Books:
        """Decide every pack, revising what ``books`` already hold for it, but for what placement sets decided."""
        portions: dict[tuple[int, tuple[int, ...]], _Portion] = {}
        free = books.free
        books.refused = 0
        for pack in self.order:
            if pack.id in books.settled:
                continue
            group, size = self.group_of[pack.id], pack.size
            before = books.choices.get(pack.id)
            back = before.added if before is not None else ()
            for at in back:
                free[at] += size
            portion = portions.get((id(group), back))
            if (
                portion is None
                or portion.left == 0
                or portion.waiting >= size
                or any(free[at] < size for at in portion.choice.added)
            ):
                target = group.policy.minimum if minimum_only else group.policy.copies
                choice = self._choice(group, size, free, target=target, stay=frozenset(back))
                portion = portions[id(group), back] = _Portion(
                    choice=choice,
                    left=self.portion,
                    waiting=max((free[at] for at in choice.blocked), default=-1),
                )
            portion.left -= 1
            choice = portion.choice
            for at in choice.added:
                free[at] -= size
            if not set(back).issubset(choice.added):
                books.moves += 1
            books.choices[pack.id] = choice
            books.refused += choice.refused
        return books

    def plan(self) -> Plan:
        books = self._by_sets()
        books.settled = frozenset(books.choices)
        self._pass(books)
        if books.refused:
            thrifty = self._pass(self._books(), minimum_only=True)
            for _ in range(_ROUNDS):
                moves = thrifty.moves
                self._pass(thrifty)
                if thrifty.moves == moves:
                    break
            if thrifty.refused < books.refused:
                books = thrifty
        self._exchange(books)
        return self._report(books)

    def _exchange(self, books: _Books) -> None:
        """Let new packs of one policy and size that have all they are promised hang on one machine no more often."""
        if not self.relays:
            return
        kinds: dict[tuple[str, int], list[PackId]] = {}
        for pack in self.order:
            choice, group = books.choices[pack.id], self.group_of[pack.id]
            if not group.held and not choice.level and len(choice.added) == group.policy.copies:
                kinds.setdefault((pack.policy, pack.size), []).append(pack.id)
        for (policy, _), names in kinds.items():
            self._exchange_among(books, self.rules[policy], names)

    def _exchange_among(self, books: _Books, policy: Policy, names: Sequence[PackId]) -> None:
        before = Counter(books.choices[name].added for name in names)
        after = exchange(before, self.relays, policy.needed, lambda row: not self._sharing(policy, row, DOMAINS))
        if after == before:
            return
        # A pack whose peers still serve as many stays with them; the others have what is new, in the order of ids.
        stay = Counter(after)
        changed = []
        for name in names:
            row = books.choices[name].added
            if stay[row]:
                stay[row] -= 1
            else:
                changed.append(name)
        waiting = iter(changed)
        for row, packs in (+stay).items():
            held = [self.peers[at].id for at in row]
            reasons = tuple(in_favour(self.ground, held, self.peers[at], free=books.free[at]) for at in row)
            choice = replace(books.choices[names[0]], chosen=row, added=row, reasons=reasons)
            books.choices.update(dict.fromkeys(islice(waiting, packs), choice))

    def _books(self) -> _Books:
        return _Books(free=[peer.free for peer in self.peers])

    # -- the report -----------------------------------------------------------------------------------

    def _report(self, books: _Books) -> Plan:
        shortfalls = self._shortfalls(books)
        placement: dict[PackId, tuple[PeerId, ...]] = {}
        kept: dict[PackId, tuple[PeerId, ...]] = {}
        additions: list[Addition] = []
        surplus: list[Surplus] = []
        debts: list[Debt] = []
        refused: list[Refusal] = []
        relaxations: list[Relaxation] = []
        misplaced: list[Violation] = [
            Violation(
                kind="capacity",
                peer=peer.id,
                message=f"{peer.id} holds {amount(peer.used)} of ours, more than its grant of {amount(peer.capacity)}",
            )
            for peer in self.peers
            if peer.used > peer.capacity and peer.state != "lost"
        ]
        ids = [peer.id for peer in self.peers]
        missing: dict[int, tuple[str, ...]] = {}
        lacks: dict[int, dict[int, int]] = {}
        hanging: list[PackId] = []
        for name, pack in sorted(self.packs.items()):
            choice, group = books.choices[name], self.group_of[name]
            placement[name] = tuple(ids[at] for at in choice.chosen)
            kept[name] = tuple(ids[at] for at in choice.kept)
            additions.extend(
                Addition(pack=name, peer=ids[at], why=reason)
                for at, reason in zip(choice.added, choice.reasons, strict=True)
            )
            misplaced.extend(fault.of(name) for fault in group.faults)
            if id(choice) not in lacks:
                lacks[id(choice)] = self.relays.lacks(choice.chosen, group.policy.needed)
            if lacks[id(choice)]:
                hanging.append(name)
            shortfall = shortfalls.get(_reason(choice, group))
            if shortfall is None:
                if not choice.added:
                    surplus.extend(self._surplus(name, choice, group))
                continue
            if id(choice) not in missing:
                missing[id(choice)] = self._against(choice, group, pack.size, books.free)
            if choice.refused:
                refused.append(
                    Refusal(
                        pack=name,
                        have=choice.have,
                        minimum=group.policy.minimum,
                        why=missing[id(choice)],
                        would_help=shortfall.would_help,
                    )
                )
            elif len(choice.chosen) < group.policy.copies:
                debts.append(
                    Debt(
                        pack=name,
                        have=len(choice.chosen),
                        promised=group.policy.copies,
                        missing=missing[id(choice)],
                        would_help=shortfall.would_help,
                    )
                )
            if choice.relaxed:
                relaxations.append(Relaxation(pack=name, domains=choice.relaxed, would_help=shortfall.would_help))
        return Plan(
            placement=placement,
            additions=tuple(additions),
            kept=kept,
            surplus=tuple(surplus),
            misplaced=tuple(misplaced),
            debts=tuple(debts),
            refused=tuple(refused),
            relaxations=tuple(relaxations),
            gaps=tuple(
                Gap(
                    policy=row.group.policy.name,
                    packs=row.packs,
                    size=row.total,
                    have=row.choice.have,
                    promised=row.group.policy.copies,
                    relaxed=row.choice.relaxed,
                    refused=row.choice.refused,
                    why=self._against(row.choice, row.group, row.size, books.free),
                    would_help=row.would_help,
                )
                for row in shortfalls.values()
            ),
            hanging=tuple(hanging),
            queries=tuple(queries(self.peers)),
        )

    def _surplus(self, name: PackId, choice: _Choice, group: _Group) -> list[Surplus]:
        """Living copies that a fully kept promise can do without."""
        return [
            Surplus(
                pack=name,
                peer=self.peers[at].id,
                why=f"{len(choice.kept)} promised copies lie on {', '.join(self.peers[i].id for i in choice.kept)}",
            )
            for at in sorted(group.held.difference(choice.kept))
            if self.peers[at].state != "lost"
        ]

    def _shortfalls(self, books: _Books) -> dict[tuple[object, ...], _Shortfall]:
        """What falls short, by reason, with the bytes it is about and what would help them all."""
        found: dict[tuple[object, ...], _Shortfall] = {}
        for name, pack in sorted(self.packs.items()):
            choice, group = books.choices[name], self.group_of[name]
            if not choice.refused and not choice.relaxed and len(choice.chosen) == group.policy.copies:
                continue
            row = found.setdefault(_reason(choice, group), _Shortfall(choice=choice, group=group, size=pack.size))
            row.packs += 1
            row.total += pack.size
            row.size = max(row.size, pack.size)
        for row in found.values():
            row.would_help = self._would_help(row, books.free)
        return found

    def _against(self, choice: _Choice, group: _Group, size: int, free: Sequence[int]) -> tuple[str, ...]:
        """Why each further peer takes no copy, in the order of ids."""
        names = [self.peers[at].id for at in choice.chosen]
        said = []
        for at, peer in enumerate(self.peers):
            if at in choice.chosen:
                continue
            if choice.refused and not choice.chosen and self._could_take(choice, group, at):
                said.append(
                    f"{peer.where}: could take it, but {choice.reachable} of the {group.policy.minimum} copies "
                    "that are the minimum is all that fits"
                )
                continue
            said.append(
                against(
                    self.ground,
                    group.policy,
                    names,
                    peer,
                    size=size,
                    free=min(free[at], size - 1) if at in choice.blocked else None,
                    relaxed=choice.relaxed,
                )
            )
        return tuple(said)

    def _could_take(self, choice: _Choice, group: _Group, at: int) -> bool:
        return at in self.takers[group.policy.name] and at not in choice.blocked and at not in group.held

    def _would_help(self, row: _Shortfall, free: Sequence[int]) -> tuple[str, ...]:
        """What would close a shortfall, or part of it: room or leave on a peer there is, or another peer."""
        choice, group, policy = row.choice, row.group, row.group.policy
        open_to = [at for at in self.takers[policy.name] if at not in group.held and at not in choice.blocked]
        now = (choice.reachable, -choice.level, -choice.excess)
        helps: list[str] = []
        for at, peer in enumerate(self.peers):
            if at in open_to or at in group.counted or not self._allowed(at, policy):
                continue
            if at in choice.blocked:
                text = f"{amount(max(1, row.total - free[at]))} more room at {peer.where}"
            elif peer.state in ("readonly", "suspect") and at not in group.held:
                text = f"{peer.where} taking packs again (now {peer.state})"
            else:
                continue
            chosen, level = self._decide(group, sorted([*open_to, at]), free, row.size, target=policy.copies)
            then = (len(chosen), -level, -sum(self._sharing(policy, chosen).values()))
            if then > now:
                helps.append(text)
        helps.append(self._another_peer(row))
        return tuple(helps)

    def _another_peer(self, row: _Shortfall) -> str:
        """The peer that would be ideal; when no peer could be, the policy that would do."""
        choice, policy = row.choice, row.group.policy
        short = policy.copies - choice.reachable
        lacking = max(short, choice.excess, 1)
        per_country = policy.most("country")
        allowed = sorted(policy.only_countries or ())
        wide = per_country is None or not allowed or per_country * len(allowed) >= policy.copies
        apart = []
        for domain in DOMAINS:
            most = policy.most(domain)
            if (most is None and not (domain == "region" and policy.min_regions > 1)) or (
                domain == "country" and not wide
            ):
                continue
            word = "household" if domain == "owner" else domain
            names = sorted({str(getattr(self.peers[at], domain)) for at in choice.chosen})
            if names and (short or domain in choice.relaxed):
                apart.append(f"in another {word} than {', '.join(names)}")
            elif domain == "owner":
                apart.append("in a household of its own")
        if allowed:
            apart.append(f"within {', '.join(allowed) if len(allowed) <= 4 else 'the residency'}")
        text = " ".join(
            ["one more peer" if lacking == 1 else f"{lacking} more peers, each", " and ".join(apart)]
        ).strip()
        text += f", with {amount(row.total)} free"
        if wide:
            return text
        ask = f"{policy.copies} copies with at most {per_country} in a country do not fit in {', '.join(allowed)}"
        change = f"{ask}: allow more countries, or ask for less spread"
        return change if not short else f"{text}; {change}"


def _bends(policy: Policy) -> tuple[Domain, ...]:
    """The domains in which this policy asks for something that may bend, in the order they do."""
    return tuple(
        domain
        for domain in _BENDING
        if policy.most(domain) is not None or (domain == "region" and policy.min_regions > 1)
    )


def _reason(choice: _Choice, group: _Group) -> tuple[object, ...]:
    """Packs with an equal reason fall short in one way and are told of together."""
    return (
        group.policy.name,
        choice.refused,
        choice.have,
        choice.reachable,
        choice.relaxed,
        choice.blocked,
    )


def _lot(seed: bytes, peer: PeerId) -> bytes:
    return blake2b(len(seed).to_bytes(8, "big") + seed + peer.encode(), digest_size=16).digest()
