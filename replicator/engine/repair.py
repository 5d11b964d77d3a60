"""Making copies whole again: write what is missing, set aside what is bad, delete nothing."""

from dataclasses import dataclass, field
from typing import Literal

from replicator.catalog.objects import HoldingState, ObjectRow
from replicator.catalog.snapshots import SnapshotRow
from replicator.engine.audit import recheck, survey
from replicator.engine.clearing import tell_leaving
from replicator.engine.digest import digest, remember_deletions
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.findings import Findings
from replicator.engine.forgetting import spread, without_forgotten
from replicator.engine.home import Half
from replicator.engine.node import NodeHome
from replicator.engine.placing import (
    PACK_KINDS,
    Ground,
    debts_in_words,
    in_names,
    objects_of,
    pack_id,
    peer_id,
    thin_in_words,
)
from replicator.engine.publish import Published, Publisher
from replicator.engine.pulls import Pulls
from replicator.engine.send import Sender, in_order
from replicator.engine.spare import let_go
from replicator.engine.spool import Spool
from replicator.engine.sync import sync_all
from replicator.errors import PeerError
from replicator.format.policy import Policy
from replicator.ids import Identity, short
from scheduler import Urgency

_LOST = ("missing", "damaged")
Way = Literal["pulled", "relayed", "sent"]
"""pulled: by the new holder from an old one. relayed: through this machine. sent: from this machine's spool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCopy:
    """One copy to be made: of what, where from ("" from this machine's spool) and how, where to, why there and now.

    ``urgency`` is the queue's word, "record" for what goes to every peer; ``chance`` that of its loss before all is
    mended.
    """

    object: str
    kind: str
    size: int
    source: str
    way: Way
    peer: str
    why: str
    urgency: Urgency | Literal["record"]
    chance: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SurplusCopy:
    """One copy beyond the promise: of what, where, and who keeps the promise without it."""

    object: str
    kind: str
    size: int
    peer: str
    why: str


@dataclass(slots=True, kw_only=True)
class RepairReport:
    """What was found and done. ``unreadable`` are objects without any good copy. Proofs as in :class:`PeerView`."""

    planned: list[PlannedCopy] = field(default_factory=list)
    missing: int = 0
    damaged: int = 0
    probes: int = 0
    proved: int = 0
    wrong: int = 0
    absent: int = 0
    late: int = 0
    made: int = 0
    made_bytes: int = 0
    pulled: int = 0
    """Of the copies made those that their new holder fetched from another one itself."""
    lost_peers: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    """Providers that hold copies and take none, by name: offline, suspect, unmounted, away, late, draining, leaving."""
    debts: list[str] = field(default_factory=list)
    owed: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    below_minimum: int = 0
    hanging: int = 0
    """Packs that are out of reach with one relay once that is done, as planned."""
    surplus: list[SurplusCopy] = field(default_factory=list)
    """Copies beyond the promise, which maintenance releases."""
    let_go: int = 0
    """Copies that this node gave up in this run, being surplus."""
    exit_code: int = 0


async def repair(half: Half, edge: Edge, *, dry_run: bool = False, by_hand: bool = True) -> RepairReport:
    """Bring every object back to its promise.

    By hand, peers that do not answer now are taken as lost; at night after a fortnight (:mod:`scheduler.standing`).
    What is likeliest lost before all is mended comes first.

    A damaged copy is quarantined by its peer and stored again; a copy on a peer that comes back later becomes
    surplus. No content key is needed and nothing is deleted.

    Raises:
        LockedError: another run works in this home.
    """
    report = RepairReport()
    with half.lock():
        async with Federation(half, edge) as federation:
            await sync_all(half, federation)
            views = await survey(half, federation, edge)
            marked = await digest(federation, half.charter.root.floors)
            remember_deletions(half, marked, edge.clock.now_ns())
            report.missing = sum(len(view.missing) for view in views.values())
            report.damaged = sum(len(view.damaged) for view in views.values())
            for view in views.values():
                report.probes += view.probes
                report.proved += view.proved
                report.wrong += view.wrong
                report.absent += view.absent
                report.late += view.late
            ground = Ground(half, federation, lost_now=by_hand)
            ground.refresh()
            now_ns = edge.clock.now_ns()
            for pin in half.peers:
                stands = ground.standing(pin, now_ns)
                if stands.state == "lost":
                    report.lost_peers.append(pin.name)
                elif stands.word not in ("answers", "readonly"):
                    report.waiting[pin.name] = stands.word
            rows = objects_of(half, published(half))
            _plan(half, ground, rows, report)
            if not dry_run:
                await _mend(half, federation, edge, ground, rows, report)
            else:
                _judge(ground, rows, report)
            report.notices = [*federation.notices, *federation.integrity]
            if any(kept.open for kept in Findings(half).all()):
                report.exit_code = 4
    return report


async def mend_urgent(half: Half, edge: Edge) -> RepairReport:
    """Make the copies that one more loss could make impossible, before a backup takes the line.

    Nobody is asked what it holds: what was found when they were last looked at is enough to be in a hurry, and the
    night's repair looks again. Peers are taken as at night.

    Raises:
        LockedError: another run works in this home.
    """
    report = RepairReport()
    with half.lock():
        rows = objects_of(half, published(half))
        if not rows:
            return report
        async with Federation(half, edge) as federation:
            ground = Ground(half, federation)
            ground.refresh()
            turns = in_order(ground, ground.plan(rows), rows)
            urgent = {name for name, turn in turns.items() if turn.repair.urgency == "urgent"}
            if urgent:
                spool = half.spool() if isinstance(half, NodeHome) else None
                sender = Sender(ground, edge, spool)
                await sender.settle(
                    [row for row in rows if pack_id(row.name) in urgent], "mending what is urgent", by_urgency=True
                )
                if isinstance(half, NodeHome) and spool is not None:
                    result = Published()
                    await Publisher(half, federation, edge, spool).claim_everywhere(result)
                    report.owed = result.owed
                report.made, report.made_bytes = sender.sent_objects, sender.sent_bytes
                report.pulled = sender.pulls.objects
                report.unreadable = [f"{row.kind} {short(row.name)}" for row in sender.lost]
            report.notices = [*federation.notices, *federation.integrity]
    return report


def _plan(half: Half, ground: Ground, rows: list[ObjectRow], report: RepairReport) -> None:
    names = {peer_id(pin.identity): pin.name for pin in half.peers}
    packs = [row for row in rows if row.kind in PACK_KINDS]
    report.surplus = [
        SurplusCopy(
            object=short(row.name), kind=row.kind, size=row.size, peer=names[extra.peer], why=in_names(half, extra.why)
        )
        for row, extra in ground.surplus(packs)
    ]
    plan = ground.plan(packs)
    report.hanging = len(plan.hanging)
    turns = in_order(ground, plan, packs)
    pulls = Pulls(half, ground.federation.edge, ground.federation)
    identities = {peer_id(pin.identity): Identity(pin.identity) for pin in half.peers}
    for task in sorted(ground.tasks(plan, packs), key=lambda one: turns[pack_id(one.pack.name)].at):
        repair = turns[pack_id(task.pack.name)].repair
        source, way = way_of(half, ground, pulls, task.row, identities[task.peer])
        report.planned.append(
            PlannedCopy(
                object=short(task.row.name),
                kind=task.row.kind,
                size=task.row.size,
                source=source,
                way=way,
                peer=names[task.peer],
                why=in_names(half, task.why),
                urgency=repair.urgency,
                chance=repair.chance,
                reason=in_names(half, repair.why),
            )
        )
    for policy, records in _records_by_policy(half, rows):
        for row in records:
            holders = ground.held.get(pack_id(row.name), set())
            for link in ground.record_links(policy):
                if peer_id(link.identity) in holders:
                    continue
                source, way = way_of(half, ground, pulls, row, link.identity)
                report.planned.append(
                    PlannedCopy(
                        object=short(row.name),
                        kind=row.kind,
                        size=row.size,
                        source=source,
                        way=way,
                        peer=link.pin.name,
                        why="records go to every peer that the residency admits",
                        urgency="record",
                        chance=0.0,
                        reason="it has none",
                    )
                )


def way_of(half: Half, ground: Ground, pulls: Pulls, row: ObjectRow, to: Identity) -> tuple[str, Way]:
    """Return from which provider a copy comes, and how: "" for the spool; "nobody" if no holder answers.

    A shard that nobody who answers has is made of "its other shards".
    """
    if isinstance(half, NodeHome) and row.spooled:
        return "", "sent"
    holders = ground.held.get(pack_id(row.name), set())
    answering = {one for one in ground.federation.links if peer_id(one) in holders}
    source = pulls.source_of(row, answering, to)
    if source is not None:
        return source.pin.name, "pulled"
    names = sorted(ground.federation.links[one].pin.name for one in answering)
    if not names and row.kind == "shard":
        return "its other shards", "relayed"
    return (names[0] if names else "nobody"), "relayed"


async def _mend(
    half: Half, federation: Federation, edge: Edge, ground: Ground, rows: list[ObjectRow], report: RepairReport
) -> None:
    stored = half.catalog.objects.stored(rows)
    damaged = {
        identity: [row for row in stored if row.id in bad]
        for identity, bad in _damaged_by_peer(half, federation).items()
    }
    for identity, bad in damaged.items():
        link = federation.links.get(identity)
        if link is None:
            continue
        try:
            states = await recheck(link, bad)
        except PeerError as error:
            await federation.drop(link, error)
            continue
        half.catalog.objects.set_states(identity, states, incarnation=link.info.incarnation, now_ns=edge.clock.now_ns())
    ground.refresh()
    spool: Spool | None = half.spool() if isinstance(half, NodeHome) else None
    sender = Sender(ground, edge, spool)
    await sender.settle([row for row in rows if row.kind in PACK_KINDS], "repairing", by_urgency=True)
    for policy, records in _records_by_policy(half, rows):
        await sender.everywhere(records, policy)
    await spread(half, federation)
    for link in list(federation.links.values()):
        try:
            await federation.give_charter(link)
        except PeerError as error:
            await federation.drop(link, error)
    if isinstance(half, NodeHome) and spool is not None:
        result = Published()
        publisher = Publisher(half, federation, edge, spool)
        await publisher.claim_everywhere(result)
        report.let_go = len(await let_go(publisher, rows, result))
        report.owed = result.owed
        ground.refresh()
        await tell_leaving(half, federation, ground, rows)
    report.made, report.made_bytes = sender.sent_objects, sender.sent_bytes
    report.pulled = sender.pulls.objects
    report.unreadable = [f"{row.kind} {short(row.name)}" for row in sender.lost]
    ground.refresh()
    _judge(ground, rows, report)
    _settle_losses(half, edge, ground, rows)


def published(half: Half) -> list[SnapshotRow]:
    # One that was only committed is published by the next backup, in its order.
    return without_forgotten(half, half.catalog.snapshots.all("published_ns != 0"))


def _settle_losses(half: Half, edge: Edge, ground: Ground, rows: list[ObjectRow]) -> None:
    """Remember of lost copies that were made up for elsewhere that nobody waits for them any more."""
    plan = ground.plan(rows, frozen=True)
    short_of = {one.pack for one in plan.debts} | {one.pack for one in plan.refused}
    short_of |= {one.pack for one in plan.relaxations}
    short_of |= {pack_id(row.name) for _, records in thin_records(ground, rows) for row in records}
    made_up = {row.id for row in half.catalog.objects.stored(row for row in rows if pack_id(row.name) not in short_of)}
    for link in ground.federation.links.values():
        lost = [one.object_id for one in half.catalog.objects.holdings(peer=link.identity) if one.state in _LOST]
        states: dict[int, HoldingState] = {object_id: "gone" for object_id in lost if object_id in made_up}
        half.catalog.objects.set_states(
            link.identity, states, incarnation=link.info.incarnation, now_ns=edge.clock.now_ns()
        )


def _damaged_by_peer(half: Half, federation: Federation) -> dict[Identity, set[int]]:
    found: dict[Identity, set[int]] = {}
    for holding in half.catalog.objects.holdings():
        if holding.state == "damaged" and holding.peer in federation.links:
            found.setdefault(holding.peer, set()).add(holding.object_id)
    return found


def _records_by_policy(half: Half, rows: list[ObjectRow]) -> list[tuple[Policy, list[ObjectRow]]]:
    """Records (snapshots, indexes, references) with the policy of the newest snapshot that needs them."""
    policies = half.catalog.datasets.policies()
    by_name: dict[bytes, bytes] = {}
    for snapshot in published(half):
        for name in (snapshot.name, *snapshot.indexes, *snapshot.references):
            by_name[name] = snapshot.policy
    found: dict[bytes, list[ObjectRow]] = {}
    for row in rows:
        if row.kind not in PACK_KINDS and row.name in by_name:
            found.setdefault(by_name[row.name], []).append(row)
    return [(policies[key], records) for key, records in found.items()]


def thin_records(ground: Ground, rows: list[ObjectRow]) -> list[tuple[Policy, list[ObjectRow]]]:
    """Return the records with fewer copies than they need at least, by the policy that says how many."""
    found = []
    for policy, records in _records_by_policy(ground.half, rows):
        thin = [row for row in records if ground.copies(row.name, policy) < policy.minimum]
        if thin:
            found.append((policy, thin))
    return found


def _judge(ground: Ground, rows: list[ObjectRow], report: RepairReport) -> None:
    """Say what is still below its promise after what was done."""
    plan = ground.plan(rows, frozen=True)
    report.debts = debts_in_words(ground, plan, ground.plan(rows))
    report.below_minimum = len(plan.refused)
    for policy, thin in thin_records(ground, rows):
        report.below_minimum += len(thin)
        report.debts.append(thin_in_words(len(thin), policy.minimum))
    if report.unreadable:
        report.exit_code = 4
    elif report.below_minimum:
        report.exit_code = 5
    elif report.debts:
        report.exit_code = 3
