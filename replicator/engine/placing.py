"""The catalog's facts as the scheduler's values, and its plans back as objects and peers."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from replicator.catalog.objects import ObjectRow, Shards
from replicator.catalog.snapshots import SnapshotRow
from replicator.clock import DAY_S, NS
from replicator.config import counted
from replicator.engine.dismissed import dismissed
from replicator.engine.federation import Federation, Link
from replicator.engine.forgetting import Forgotten
from replicator.engine.home import Half
from replicator.engine.notices import notice_of
from replicator.engine.presence import disk_away_since
from replicator.engine.promises import asked_of_indexes, promised
from replicator.engine.ways import Relay, relays
from replicator.errors import RefusedError, UsageError
from replicator.format.charter import PeerPin
from replicator.format.policy import Policy as PolicyRecord
from replicator.format.policy import shards_promised
from replicator.ids import SHORT_HEX, Identity
from scheduler import (
    Addition,
    Pack,
    PackId,
    Peer,
    PeerId,
    Plan,
    Policy,
    PolicyError,
    Repair,
    RosterError,
    Surplus,
    place,
    qualify,
    repair_queue,
)
from scheduler.check import Ground as Places
from scheduler.geography import residency
from scheduler.hanging import Relays
from scheduler.schemes import CODING_FROM, spread_out
from scheduler.shards import count_shards
from scheduler.standing import Contact, Said, Standing, standing

PACK_KINDS = ("data", "tree")
LEAST_NEEDED = 2
"""Data shards at least: with one, all shards are copies."""
_WHOLE = "/whole"
"""What the name of a policy ends in where packs are meant that stay whole under it, though others are cut."""
_LONG_NAME = re.compile(r"\b[0-9a-f]{32,64}\b")
STALE_AFTER_S = 30 * DAY_S
SLOW_LINE = 1_000_000
"""Bytes a second that a repair makes at least, to guess how long one takes: a slow household's uplink."""


def peer_id(identity: bytes) -> PeerId:
    """Return a peer's name in plans."""
    return PeerId(identity.hex())


def pack_id(name: bytes) -> PackId:
    """Return an object's name in plans."""
    return PackId(name.hex())


def scheduler_policy(policy_id: bytes, policy: PolicyRecord, *, whole: bool = False) -> Policy:
    """Return a stored policy as the scheduler's value: with a coding, what it promises of packs that are cut.

    ``whole``: what it promises of those that are not.

    Raises:
        UsageError: its words are not ones the scheduler knows.
    """
    countries: set[str] | None = None
    try:
        for word in policy.residency:
            countries = (countries or set()) | residency(word)
        cut = policy.coding is not None and not whole
        copies, minimum = shards_promised(policy) if cut else (policy.copies, policy.minimum)
        return Policy(
            name=policy_id.hex() + (_WHOLE if policy.coding is not None and whole else ""),
            copies=copies,
            minimum=minimum,
            spread=frozenset(policy.spread),  # type: ignore[arg-type] # checked by the scheduler itself
            only_countries=None if countries is None else frozenset(countries),
            count_own=policy.count_own,
            coding=policy.coding if cut else None,
        )
    except (PolicyError, RosterError) as error:
        raise UsageError(str(error)) from error


def gone_peers(half: Half) -> set[Identity]:
    """Return which providers will not come back, as the tenant said: what lies there counts nowhere."""
    return {Identity(said.identity) for said in half.private.standings if said.state == "gone"}


def _falls(found: Iterable[Relay]) -> dict[PeerId, set[PeerId]]:
    return {peer_id(one.identity): {peer_id(peer) for peer in one.falls} for one in found}


def _peer(pin: PeerPin, *, capacity: int, used: int, state: str) -> Peer:
    region, site = qualify(country=pin.country, region=pin.region, site=pin.site)
    return Peer(
        id=peer_id(pin.identity),
        capacity=capacity,
        used=used,
        owner=pin.owner,
        site=site,
        region=region,
        country=pin.country,
        state=state,  # type: ignore[arg-type] # one of the scheduler's words
        own=pin.own,
    )


def check_coding(half: Half, policy: PolicyRecord) -> None:
    """Make sure that there are providers enough, far enough apart, for a policy with a coding.

    Raises:
        UsageError: fewer households than coding is offered to, or fewer places apart than a pack has shards.
    """
    assert policy.coding is not None, "it has one"
    needed, spare = policy.coding
    rule = scheduler_policy(b"new", policy)
    peers = [_peer(pin, capacity=1, used=0, state="ok") for pin in half.peers]
    places = Places(peers)
    homes = {
        places.home[one.id]
        for one in peers
        if rule.admits(one.country) and (rule.count_own or one.id not in places.own)
    }
    if len(homes) < CODING_FROM:
        more = CODING_FROM - len(homes)
        raise UsageError(
            f"coding is offered from {CODING_FROM} households on, and the providers that may hold shards are of "
            f"{len(homes)}",
            hint=f"use --copies: with so few it costs little more; or add providers of {more} more "
            f"household{'' if more == 1 else 's'}",
        )
    apart = len(spread_out(peers, rule, rule.copies))
    if apart < rule.copies:
        words = ["household" if word == "owner" else word for word in policy.spread]
        fits = f"--coding {apart - spare}+{spare}, which fits, or " if apart - spare >= LEAST_NEEDED else ""
        raise UsageError(
            f"{needed}+{spare} makes {rule.copies} shards, and only {apart} of the providers lie as far apart "
            "as the spread asks",
            hint=f"{fits}add {rule.copies - apart} more that share no {' and no '.join(words) or 'disk'} with others",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An object to be stored at a peer: a pack, or a shard of one."""

    row: ObjectRow
    pack: ObjectRow
    peer: PeerId
    why: str


@dataclass(slots=True)
class Ground:
    """What a plan stands on: peers as the scheduler sees them, and which copies count now.

    ``lost_now``: peers that do not answer are taken as lost (``repair`` by hand) instead of as silent. ``carried``:
    this one takes something whether it answers or not, since that is carried there.
    """

    half: Half
    federation: Federation
    lost_now: bool = False
    carried: Identity | None = None
    held: dict[PackId, set[PeerId]] = field(default_factory=dict)
    """Who has which object; of a pack that is cut nobody has anything: see :meth:`holders`."""
    _cut: dict[int, Shards | None] = field(default_factory=dict)
    _part_of: dict[int, ObjectRow] = field(default_factory=dict)

    def refresh(self) -> None:
        """Read the holdings anew: in the peer's present incarnation, not reported bad, not heard of too long ago."""
        limits = [policy.stale_after_s for policy in self.half.catalog.datasets.policies().values()]
        oldest = self.federation.edge.clock.now_ns() - min(limits, default=STALE_AFTER_S) * NS
        incarnations = {Identity(pin.identity): self._incarnation(Identity(pin.identity)) for pin in self.half.peers}
        names = {row.id: row.name for row in self.half.catalog.objects.all()}
        self.held = {}
        for holding in self.half.catalog.objects.holdings():
            if holding.state != "held" or incarnations.get(holding.peer) != holding.incarnation:
                continue
            if holding.checked_ns < oldest:
                continue
            self.held.setdefault(pack_id(names[holding.object_id]), set()).add(peer_id(holding.peer))

    def add(self, name: bytes, identity: bytes) -> None:
        """Count one more copy."""
        self.held.setdefault(pack_id(name), set()).add(peer_id(identity))

    def remove(self, name: bytes, identity: bytes) -> None:
        """Count one copy less, until the next :meth:`refresh`."""
        self.held.get(pack_id(name), set()).discard(peer_id(identity))

    def shards(self, row: ObjectRow) -> Shards | None:
        """Return what a pack is cut into; None if it is whole, or is no pack."""
        if row.kind != "data":
            return None
        if row.id not in self._cut:
            self._learn([row])
        return self._cut[row.id]

    def pack_of(self, shard: ObjectRow) -> ObjectRow:
        """Return the pack that a shard is of which :meth:`tasks` or :meth:`shards` gave."""
        return self._part_of[shard.id]

    def _learn(self, rows: Iterable[ObjectRow]) -> None:
        """Look up at once what these packs are cut into: that never changes."""
        fresh = {row.id: row for row in rows if row.kind == "data" and row.id not in self._cut}
        found = self.half.catalog.objects.shards_in(fresh)
        for number, row in fresh.items():
            shards = self._cut[number] = found.get(number)
            for shard in () if shards is None else shards.rows:
                self._part_of[shard.id] = row

    def holders(self, row: ObjectRow) -> dict[PeerId, int]:
        """Return whose copy of an object, or shard of a pack, counts, each with the number of its shard, else 0."""
        return self.counted([row])[pack_id(row.name)]

    def counted(self, rows: Iterable[ObjectRow]) -> dict[PackId, dict[PeerId, int]]:
        """Return what :meth:`holders` does of many objects, by name."""
        rows = list(rows)
        self._learn(rows)
        seats: list[tuple[ObjectRow, tuple[frozenset[PeerId], ...]]] = []
        found: dict[PackId, dict[PeerId, int]] = {}
        for row in rows:
            shards = self.shards(row)
            if shards is None:
                found[pack_id(row.name)] = dict.fromkeys(self.held.get(pack_id(row.name), set()), 0)
            else:
                held = tuple(frozenset(self.held.get(pack_id(shard.name), ())) for shard in shards.rows)
                seats.append((row, held))
        if seats:
            known: dict[tuple[bytes, tuple[frozenset[PeerId], ...]], dict[PeerId, int]] = {}
            places, policies = Places(self.roster()), self.half.catalog.datasets.policies()
            rules = {key: scheduler_policy(key, policies[key]) for key in {row.policy for row, _ in seats}}
            for row, held in seats:
                if (row.policy, held) not in known:
                    known[row.policy, held] = count_shards(held, places, rules[row.policy])
                found[pack_id(row.name)] = known[row.policy, held]
        return found

    def copies_among(self, row: ObjectRow, having: Mapping[int, Collection[PeerId]]) -> int:
        """Return how many copies of an object, as :meth:`copies_of` counts, some peers have, given by row id."""
        shards = self.shards(row)
        if shards is None:
            return len(having.get(row.id, ()))
        rule = scheduler_policy(row.policy, self.half.catalog.datasets.policies()[row.policy])
        found = count_shards([having.get(one.id, ()) for one in shards.rows], Places(self.roster()), rule)
        return max(0, len(found) - shards.needed + 1)

    def readable(self, row: ObjectRow) -> bool:
        """Return whether enough of an object is held by somebody."""
        shards = self.shards(row)
        return len(self.holders(row)) >= (1 if shards is None else shards.needed)

    def _incarnation(self, identity: Identity) -> bytes:
        link = self.federation.links.get(identity)
        return link.info.incarnation if link else self.half.catalog.peers.get(identity).incarnation

    def roster(self, *, frozen: bool = False, today: bool = False) -> list[Peer]:
        """Return the peers; with ``frozen`` none takes anything new, so that a plan only judges what is.

        ``today``: who leaves on a day to come is one that holds, for who asks what is so until then.
        """
        now = self.federation.edge.clock.now_ns()
        peers = []
        for pin in self.half.peers:
            identity = Identity(pin.identity)
            link = self.federation.links.get(identity)
            row = self.half.catalog.peers.get(identity)
            found = self.standing(pin, now)
            state = found.state
            if today and found.word == "leaving" and self._by_ns(identity) > now:
                state = "readonly"
            used, free = (link.info.used, link.free) if link is not None else (row.used, 0)
            quota = link.info.quota if link is not None else row.quota
            if identity == self.carried and link is None:
                state, free = "ok", quota - used
            capacity = used + max(free, 0) if used <= quota else quota  # a grant that was cut
            if frozen and state == "ok":
                state = "readonly"
            peers.append(_peer(pin, capacity=capacity, used=used, state=state))
        return peers

    def _by_ns(self, identity: Identity) -> int:
        notice = notice_of(self.half, identity)
        return 0 if notice is None else notice.by_ns

    def standing(self, pin: PeerPin, now_ns: int) -> Standing:
        """Return how plans take a provider, by what the tenant said of it and what was heard of it."""
        identity = Identity(pin.identity)
        said = next((one for one in self.half.private.standings if one.identity == identity), None)
        mute = self.federation.mute.get(identity)
        failure = self.federation.failures.get(identity) or mute
        since_ns = self.half.catalog.peers.get(identity).failing_since_ns
        unmounted = isinstance(failure, RefusedError) and failure.code == "unavailable"
        if unmounted:
            since_ns = min((one for one in (disk_away_since(self.half, identity), since_ns) if one), default=0)
        # Who was not asked in this run answered when it was asked last, if nothing else is known.
        answers = failure is None and (identity in self.federation.links or not since_ns)
        word: Said = "" if said is None else said.state
        until_ns = now_ns if said is None else said.until_ns
        notice = notice_of(self.half, identity)
        if notice is not None and not notice.keeps and word not in ("draining", "gone"):
            word, until_ns = "leaving", notice.by_ns
        contact = Contact(
            answers=answers,
            unmounted=unmounted,
            silent_s=0.0 if answers else max(0, now_ns - since_ns) / NS,
            said=word,
            left_s=(until_ns - now_ns) / NS,
        )
        found = standing(contact, by_hand=self.lost_now)
        if found.state == "ok" and identity not in self.federation.links:
            return Standing(word=found.word, state="readonly")
        return found

    def plan(self, rows: Iterable[ObjectRow], *, frozen: bool = False, today: bool = False) -> Plan:
        """Place packs (rows of other kinds are left out) by what they are promised.

        ``frozen`` and ``today`` are as in :meth:`roster`.

        Of a pack that is cut the plan's copies are shards, each on the peer that :meth:`tasks` says.
        """
        rows = [row for row in rows if row.kind in PACK_KINDS]
        held = {name: set(holders) for name, holders in self.counted(rows).items()}
        packs, rules = self.packs(rows)
        return place(
            packs,
            self.roster(frozen=frozen, today=today),
            rules,
            held,
            seed=self.half.tenant,
            relays=_falls(relays(self.half)),
        )

    def hanging(self, found: Sequence[Relay], rows: Iterable[ObjectRow]) -> list[Relay]:
        """Return the relays without which some of these objects, that can be read now, could not be."""
        if not found:
            return []
        rows = list(rows)
        holders_of = self.counted(rows)
        each = set()
        for row in rows:
            shards = self.shards(row)
            each.add((frozenset(holders_of[pack_id(row.name)]), 1 if shards is None else shards.needed))
        known = Relays(_falls(found))
        waited_for = {relay for holders, needed in each for relay in known.lacks(holders, needed)}
        return [one for one in found if peer_id(one.identity) in waited_for]

    def packs(self, rows: Iterable[ObjectRow]) -> tuple[list[Pack], list[Policy]]:
        """Return packs (rows of other kinds are left out) with the policies that they are kept by now, and those.

        Each is as large as what a peer stores of it.
        """
        chosen = [row for row in rows if row.kind in PACK_KINDS]
        self._learn(chosen)
        # One that no index lists yet, or none of a snapshot, is kept by what it was stored under.
        listed = any(row.index_id is not None for row in chosen)
        asked = asked_of_indexes(self.half) if listed else {}
        further = self.half.catalog.objects.listings() if listed else {}
        policies = self.half.catalog.datasets.policies()
        rules: dict[tuple[bytes, bool], Policy] = {}
        packs = []
        for row in chosen:
            shards = self.shards(row)
            wanted = set(asked.get(row.index_id or 0, ())).union(
                *(asked.get(one, ()) for one in further.get(row.id, ()))
            )
            kept_by = promised(row.policy, wanted, policies)
            key = (kept_by, shards is None)
            if key not in rules:
                rules[key] = scheduler_policy(kept_by, policies[kept_by], whole=shards is None)
            size = row.size if shards is None else shards.rows[0].size
            packs.append(Pack(id=pack_id(row.name), size=size, policy=rules[key].name))
        return packs, list(rules.values())

    def tasks(self, plan: Plan, rows: Iterable[ObjectRow]) -> list[Task]:
        """Return what a plan for these packs comes to: which object, a pack or a shard, goes to which peer.

        Shards that nobody has come before those that a peer has which is to be left.
        """
        by_name = {pack_id(row.name): row for row in rows}
        wanted: dict[PackId, list[Addition]] = {}
        for addition in plan.additions:
            wanted.setdefault(addition.pack, []).append(addition)
        holders_of = self.counted([by_name[name] for name in wanted])
        found = []
        for name, additions in wanted.items():
            row = by_name[name]
            shards = self.shards(row)
            if shards is None:
                found += [Task(row=row, pack=row, peer=one.peer, why=one.why) for one in additions]
                continue
            kept = {holders_of[name][peer] for peer in plan.kept.get(name, ())}
            left = [number for number in range(len(shards.rows)) if number not in kept]
            left.sort(key=lambda number: (number in holders_of[name].values(), number))
            for one in additions:
                # What a peer has already, and did not count for, costs it nothing to receive again.
                has = [at for at in left if one.peer in self.held.get(pack_id(shards.rows[at].name), ())]
                number = has[0] if has else left[0]
                left.remove(number)
                found.append(Task(row=shards.rows[number], pack=row, peer=one.peer, why=one.why))
        return found

    def surplus(self, rows: Iterable[ObjectRow]) -> list[tuple[ObjectRow, Surplus]]:
        """Return the packs, as they lie, of which there are more copies than promised, and which copy is too many.

        Not of packs that are cut: no shard stands in for another, and none is ever released.
        """
        by_name = {pack_id(row.name): row for row in rows}
        found = [(by_name[one.pack], one) for one in self.plan(by_name.values(), frozen=True).surplus]
        return [(row, one) for row, one in found if self.shards(row) is None]

    def queue(self, rows: Iterable[ObjectRow], *, copies: int) -> list[Repair]:
        """Return packs (rows of other kinds are left out) in the order in which to mend them.

        ``copies`` is how many are to be made of them all together: how long that takes is guessed from it.
        """
        chosen = [row for row in rows if row.kind in PACK_KINDS]
        packs, rules = self.packs(chosen)
        holders_of = self.counted(chosen)
        mean = sum(pack.size for pack in packs) / max(1, len(packs))
        return repair_queue(
            packs,
            {pack.id: tuple(sorted(holders_of[pack.id])) for pack in packs},
            self.roster(),
            rules,
            within=DAY_S + copies * mean / SLOW_LINE,
        )

    def record_links(self, policy: PolicyRecord) -> list[Link]:
        """Return where indexes, references and snapshots go: every answering peer that residency admits."""
        rule = scheduler_policy(b"record", policy)
        gone = gone_peers(self.half)
        return [
            link
            for link in self.federation.links.values()
            if rule.admits(link.pin.country) and link.identity not in gone
        ]

    def copies(self, name: bytes, policy: PolicyRecord) -> int:
        """Return how many copies of a record count: on distinct peers, the own household's only if it counts."""
        return self._counting(self.held.get(pack_id(name), set()), policy)

    def copies_of(self, rows: Iterable[ObjectRow], policy: PolicyRecord) -> list[int]:
        """Return how many copies of each object count; of a pack that is cut, as many as survive the same losses."""
        rows = list(rows)
        holders_of = self.counted(rows)
        found = []
        for row in rows:
            shards = self.shards(row)
            have = self._counting(set(holders_of[pack_id(row.name)]), policy)
            found.append(have if shards is None else max(0, have - shards.needed + 1))
        return found

    def _counting(self, holders: set[PeerId], policy: PolicyRecord) -> int:
        own = {peer_id(pin.identity) for pin in self.half.peers if pin.own}
        holders = holders - {peer_id(identity) for identity in gone_peers(self.half)}
        return len(holders if policy.count_own else holders - own)

    def word(self, policy: str) -> str:
        """Return what a policy, named as in a plan, promises so many of."""
        policies = self.half.catalog.datasets.policies()
        known = None if policy.endswith(_WHOLE) else policies.get(bytes.fromhex(policy))
        return "copies" if known is None or known.coding is None else "shards"


def in_names(half: Half, text: str) -> str:
    """Return a scheduler's sentence with petnames in place of identities, and other long names shortened."""
    for pin in half.peers:
        text = text.replace(pin.identity.hex(), pin.name)
    return _LONG_NAME.sub(lambda match: match[0][:SHORT_HEX], text)


def thin_in_words(count: int, minimum: int) -> str:
    """Say how many records have fewer copies than the least that is needed."""
    return f"{counted(count, 'record has', 'records have')} fewer than {counted(minimum, 'copy', 'copies')}"


def debts_in_words(ground: Ground, now: Plan, next_plan: Plan) -> list[str]:
    """Return what is below its promise ``now``, a sentence for each cause, and what ``next_plan`` says would help.

    ``now`` judges the copies as they lie (a frozen plan), ``next_plan`` what could be done about it.
    """
    found = []
    for gap in now.gaps:
        word = ground.word(gap.policy)
        has = "has" if gap.packs == 1 else "have"
        what = (
            f"{counted(gap.packs, 'object')} ({gap.size / 1e6:.1f} MB) {has} {gap.have} of {gap.promised} "
            f"promised {word}"
        )
        if gap.relaxed:
            what = (
                f"{counted(gap.packs, 'object')} ({gap.size / 1e6:.1f} MB) {has} {word} that share a "
                f"{' and a '.join(gap.relaxed)} against the policy"
            )
        later = [one for one in next_plan.gaps if one.policy == gap.policy]
        why = dict.fromkeys(as_it_stands(ground, line) for one in later for line in one.why)
        helps = dict.fromkeys(as_it_stands(ground, line) for one in later for line in one.would_help)
        would_help = [f"what would help: {', or '.join(helps)}"] if helps else []
        found.append(in_names(ground.half, "; ".join((what, *why, *would_help))))
    return found


def as_it_stands(ground: Ground, line: str) -> str:
    """Say of a provider that is offline, away, leaving or not asked that it is, where a plan has it as readonly."""
    for pin in ground.half.peers:
        if pin.identity.hex() in line:
            word = ground.standing(pin, ground.federation.edge.clock.now_ns()).word
            return line.replace("readonly", "not asked" if word == "answers" else word)
    return line


def objects_of(half: Half, snapshots: Iterable[SnapshotRow]) -> list[ObjectRow]:
    """Return every object that these snapshots need: themselves, indexes, references and packs.

    A pack that was lost and whose chunks were all stored again is needed no more, nor is one that was dismissed. What
    a maintainer put together anew of these writers' packs is needed too.
    """
    names: dict[bytes, None] = {}
    indexes: dict[bytes, None] = {}
    writers: set[bytes] = set()
    for snapshot in snapshots:
        writers.add(snapshot.writer)
        names[snapshot.name] = None
        names.update(dict.fromkeys((*snapshot.indexes, *snapshot.references)))
        indexes.update(dict.fromkeys(snapshot.indexes))
    moved = [one.index for one in Forgotten.of(half).moved if one.writer in writers]
    names.update(dict.fromkeys(moved))
    indexes.update(dict.fromkeys(moved))
    objects = half.catalog.objects
    found = {row.id: row for name in names if (row := objects.by_name(name)) is not None}
    packs = objects.of_indexes(indexes)
    unneeded = objects.replaced([row.id for row in packs if row.lost]) | dismissed(half)
    found.update({row.id: row for row in packs if row.id not in unneeded})
    return [found[key] for key in sorted(found)]
