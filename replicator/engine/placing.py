"""The catalog's facts as the scheduler's values, and its plans back as objects and peers."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from replicator.catalog.objects import ObjectRow
from replicator.catalog.snapshots import SnapshotRow
from replicator.clock import DAY_S, NS
from replicator.engine.dismissed import dismissed
from replicator.engine.federation import Federation, Link
from replicator.engine.forgetting import Forgotten
from replicator.engine.home import Half
from replicator.engine.presence import disk_away_since
from replicator.engine.promises import asked_of_indexes, promised
from replicator.errors import RefusedError, UsageError
from replicator.format.charter import PeerPin
from replicator.format.policy import Policy as PolicyRecord
from replicator.ids import SHORT_HEX, Identity
from scheduler import (
    Pack,
    PackId,
    Peer,
    PeerId,
    Plan,
    Policy,
    PolicyError,
    Repair,
    RosterError,
    place,
    qualify,
    repair_queue,
)
from scheduler.geography import residency
from scheduler.standing import Contact, Standing, standing

PACK_KINDS = ("data", "tree")
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


def scheduler_policy(policy_id: bytes, policy: PolicyRecord) -> Policy:
    """Return a stored policy as the scheduler's value.

    Raises:
        UsageError: its words are not ones the scheduler knows.
    """
    countries: set[str] | None = None
    try:
        for word in policy.residency:
            countries = (countries or set()) | residency(word)
        return Policy(
            name=policy_id.hex(),
            copies=policy.copies,
            minimum=policy.minimum,
            spread=frozenset(policy.spread),  # type: ignore[arg-type] # checked by the scheduler itself
            only_countries=None if countries is None else frozenset(countries),
            count_own=policy.count_own,
            coding=policy.coding,
        )
    except (PolicyError, RosterError) as error:
        raise UsageError(str(error)) from error


@dataclass(slots=True)
class Ground:
    """What a plan stands on: peers as the scheduler sees them, and which copies count now.

    ``lost_now``: peers that do not answer are taken as lost (``repair`` by hand) instead of as silent.
    """

    half: Half
    federation: Federation
    lost_now: bool = False
    held: dict[PackId, set[PeerId]] = field(default_factory=dict)

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

    def _incarnation(self, identity: Identity) -> bytes:
        link = self.federation.links.get(identity)
        return link.info.incarnation if link else self.half.catalog.peers.get(identity).incarnation

    def roster(self, *, frozen: bool = False) -> list[Peer]:
        """Return the peers; with ``frozen`` none takes anything new, so that a plan only judges what is."""
        now = self.federation.edge.clock.now_ns()
        peers = []
        for pin in self.half.peers:
            identity = Identity(pin.identity)
            link = self.federation.links.get(identity)
            row = self.half.catalog.peers.get(identity)
            state = self.standing(pin, now).state
            used, free = (link.info.used, link.free) if link is not None else (row.used, 0)
            if frozen and state == "ok":
                state = "readonly"
            region, site = qualify(country=pin.country, region=pin.region, site=pin.site)
            peers.append(
                Peer(
                    id=peer_id(identity),
                    capacity=used + max(free, 0),
                    used=used,
                    owner=pin.owner,
                    site=site,
                    region=region,
                    country=pin.country,
                    state=state,
                    own=pin.own,
                )
            )
        return peers

    def standing(self, pin: PeerPin, now_ns: int) -> Standing:
        """Return how plans take a provider, by what the tenant said of it and what was heard of it."""
        identity = Identity(pin.identity)
        said = next((one for one in self.half.private.standings if one.identity == identity), None)
        failure = self.federation.failures.get(identity)
        since_ns = self.half.catalog.peers.get(identity).failing_since_ns
        unmounted = isinstance(failure, RefusedError) and failure.code == "unavailable"
        if unmounted:
            since_ns = disk_away_since(self.half, identity) or since_ns
        # Who was not asked in this run answered when it was asked last, if nothing else is known.
        answers = identity in self.federation.links or (failure is None and not since_ns)
        contact = Contact(
            answers=answers,
            unmounted=unmounted,
            silent_s=0.0 if answers else (now_ns - since_ns) / NS,
            said="" if said is None else said.state,
            left_s=0.0 if said is None else (said.until_ns - now_ns) / NS,
        )
        found = standing(contact, by_hand=self.lost_now)
        if found.state == "ok" and identity not in self.federation.links:
            return Standing(word=found.word, state="readonly")
        return found

    def packs(self, rows: Iterable[ObjectRow]) -> list[Pack]:
        """Return packs (rows of other kinds are left out) with the policies that they are kept by now."""
        chosen = [row for row in rows if row.kind in PACK_KINDS]
        # One that no index lists yet, or none of a snapshot, is kept by what it was stored under.
        listed = any(row.index_id is not None for row in chosen)
        asked = asked_of_indexes(self.half) if listed else {}
        policies = self.half.catalog.datasets.policies()
        kept_by = {row.id: promised(row.policy, asked.get(row.index_id or 0, set()), policies) for row in chosen}
        return [Pack(id=pack_id(row.name), size=row.size, policy=kept_by[row.id].hex()) for row in chosen]

    def plan(self, rows: Iterable[ObjectRow], *, frozen: bool = False) -> Plan:
        """Place packs (rows of other kinds are left out) by what they are promised."""
        packs = self.packs(rows)
        rules = self._rules({pack.policy for pack in packs})
        return place(packs, self.roster(frozen=frozen), rules, self.held, seed=self.half.tenant)

    def queue(self, rows: Iterable[ObjectRow], *, copies: int) -> list[Repair]:
        """Return packs (rows of other kinds are left out) in the order in which to mend them.

        ``copies`` is how many are to be made of them all together: how long that takes is guessed from it.
        """
        packs = self.packs(rows)
        mean = sum(pack.size for pack in packs) / max(1, len(packs))
        return repair_queue(
            packs,
            {pack.id: tuple(sorted(self.held.get(pack.id, set()))) for pack in packs},
            self.roster(),
            self._rules({pack.policy for pack in packs}),
            within=DAY_S + copies * mean / SLOW_LINE,
        )

    def _rules(self, used: Collection[str]) -> list[Policy]:
        policies = self.half.catalog.datasets.policies()
        return [scheduler_policy(key, policy) for key, policy in policies.items() if key.hex() in used]

    def record_links(self, policy: PolicyRecord) -> list[Link]:
        """Return where indexes, references and snapshots go: every answering peer that residency admits."""
        rule = scheduler_policy(b"record", policy)
        gone = {said.identity for said in self.half.private.standings if said.state == "gone"}
        return [
            link
            for link in self.federation.links.values()
            if rule.admits(link.pin.country) and link.identity not in gone
        ]

    def copies(self, name: bytes, policy: PolicyRecord) -> int:
        """Return how many copies of a record count: on distinct peers, the own household's only if it counts."""
        own = {peer_id(pin.identity) for pin in self.half.peers if pin.own}
        gone = {peer_id(said.identity) for said in self.half.private.standings if said.state == "gone"}
        holders = self.held.get(pack_id(name), set()) - gone
        return len(holders if policy.count_own else holders - own)


def in_names(half: Half, text: str) -> str:
    """Return a scheduler's sentence with petnames in place of identities, and other long names shortened."""
    for pin in half.peers:
        text = text.replace(pin.identity.hex(), pin.name)
    return _LONG_NAME.sub(lambda match: match[0][:SHORT_HEX], text)


def debts_in_words(ground: Ground, now: Plan, next_plan: Plan) -> list[str]:
    """Return what is below its promise ``now``, a sentence for each cause, and what ``next_plan`` says would help.

    ``now`` judges the copies as they lie (a frozen plan), ``next_plan`` what could be done about it.
    """
    found = []
    for gap in now.gaps:
        what = f"{gap.packs} objects ({gap.size / 1e6:.1f} MB) have {gap.have} of {gap.promised} promised copies"
        if gap.relaxed:
            what = (
                f"{gap.packs} objects ({gap.size / 1e6:.1f} MB) have copies that share a "
                f"{' and a '.join(gap.relaxed)} against the policy"
            )
        reasons = [
            line for later in next_plan.gaps if later.policy == gap.policy for line in (*later.why, *later.would_help)
        ]
        found.append(in_names(ground.half, "; ".join((what, *dict.fromkeys(reasons)))))
    return found


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
