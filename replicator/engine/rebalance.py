"""Bringing copies where they should lie: made there first, given up where they lay later, and as few as possible.

`repair` makes what is missing. Here the planner of whole federations (`scheduler.report`) is asked, which also sees
that a grant was cut below what lies there, and moves one copy to make room for another. A peer that joins moves
nothing. The copies that are not needed any more are surplus afterwards; `prune` releases them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from replicator.catalog.objects import ObjectRow
from replicator.engine.audit import survey
from replicator.engine.clearing import tell_shrinking
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.findings import Findings
from replicator.engine.givenup import given_up
from replicator.engine.home import Half
from replicator.engine.node import NodeHome
from replicator.engine.placing import PACK_KINDS, Ground, in_names, objects_of, pack_id, peer_id
from replicator.engine.publish import Published, Publisher
from replicator.engine.repair import Way, published, way_of
from replicator.engine.send import Sender
from replicator.engine.spare import let_go
from replicator.engine.sync import sync_all
from replicator.ids import Identity, short
from scheduler import PackId, Peer, PeerId, Policy
from scheduler.problem import parse
from scheduler.report import plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One copy that is to lie elsewhere; ``leaves`` "" if it lay nowhere. It is made from ``source`` in this way."""

    object: str
    size: int
    leaves: str
    peer: str
    source: str
    way: Way
    why: str


@dataclass(slots=True, kw_only=True)
class RebalanceReport:
    """What moves, and what has no place: each with its reason."""

    moves: list[Move] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    made: int = 0
    made_bytes: int = 0
    pulled: int = 0
    surplus: int = 0
    """Copies that are not needed any more, all together."""
    let_go: int = 0
    """Of these, those that this node gave up in this run."""
    notices: list[str] = field(default_factory=list)
    owed: list[str] = field(default_factory=list)
    exit_code: int = 0


async def rebalance(half: Half, edge: Edge, *, dry_run: bool = False) -> RebalanceReport:
    """Move what the plan moves. Nothing is deleted, and a copy that cannot be made leaves the one there is.

    Raises:
        LockedError: another run works in this home.
    """
    report = RebalanceReport()
    with half.lock():
        async with Federation(half, edge) as federation:
            await sync_all(half, federation)
            await survey(half, federation, edge, count=0)
            ground = Ground(half, federation)
            ground.refresh()
            rows = [row for row in objects_of(half, published(half)) if row.kind in PACK_KINDS]
            sender = Sender(ground, edge, half.spool() if isinstance(half, NodeHome) else None)
            wanted = planned_moves(ground, rows)
            by_name = {pack_id(row.name): row for row in rows}
            links = {peer_id(identity): link for identity, link in federation.links.items()}
            names = {peer_id(pin.identity): pin.name for pin in half.peers}
            moving = moved_objects(ground, by_name, wanted["moves"])
            for move, (row, to) in zip(wanted["moves"], moving, strict=True):
                source, way = way_of(half, ground, sender.pulls, row, Identity(bytes.fromhex(to)))
                report.moves.append(
                    Move(
                        object=short(row.name),
                        size=row.size,
                        leaves=names.get(move["from"], ""),
                        peer=names[to],
                        source=source,
                        way=way,
                        why=in_names(half, move["why"]),
                    )
                )
            reasons = dict.fromkeys(f"{one['why']}; {one['would_help']} would help" for one in wanted["refused"])
            report.refused = [in_names(half, text) for text in reasons]
            if not dry_run and wanted["moves"]:
                edge.progress.stage("moving", sum(move.size for move in report.moves))
                await sender.send((row, links[to]) for row, to in moving if to in links)
                report.made, report.made_bytes = sender.sent_objects, sender.sent_bytes
                report.pulled = sender.pulls.objects
                if isinstance(half, NodeHome):
                    result = Published()
                    publisher = Publisher(half, federation, edge, half.spool())
                    await publisher.claim_everywhere(result)
                    report.let_go = len(await let_go(publisher, rows, result))
                    report.owed = result.owed
            if not dry_run and isinstance(half, NodeHome):
                ground.refresh()
                nowhere = {bytes.fromhex(one["pack"]) for one in wanted["refused"]}
                await tell_shrinking(half, federation, ground, rows, nowhere)
            report.surplus = report.let_go + len(ground.surplus(rows))
            report.notices = [*federation.notices, *federation.integrity]
            if report.refused or (not dry_run and report.made < len(report.moves)):
                report.exit_code = 3
            if federation.integrity or any(kept.open for kept in Findings(half).all()):
                report.exit_code = 4
    return report


def moved_objects(
    ground: Ground, by_name: Mapping[PackId, ObjectRow], moves: Iterable[Mapping[str, Any]]
) -> list[tuple[ObjectRow, PeerId]]:
    """Return which object goes to which peer: of a pack that is cut the shard that is left there, or a missing one."""
    counted = ground.counted(by_name.values())
    given: dict[PackId, set[int]] = {}
    found = []
    for move in moves:
        name, leaves, to = PackId(move["pack"]), move["from"], PeerId(move["to"])
        row, shards = by_name[name], ground.shards(by_name[name])
        if shards is not None:
            numbers = given.setdefault(name, set(counted[name].values()))
            missing = next((at for at in range(len(shards.rows)) if at not in numbers), 0)
            number = missing if leaves is None else counted[name][PeerId(leaves)]
            numbers.add(number)
            row = shards.rows[number]
        found.append((row, to))
    return found


def planned_moves(ground: Ground, rows: list[ObjectRow]) -> dict[str, Any]:
    """Return the plan (docs/spec/placement.md) for packs as they lie, counted as placement counts them.

    A plan knows no tenant's own household. So those that also count copies there are planned by themselves, onto all
    peers, after the others, which are planned as if those at home were not there.
    """
    packs, policies = ground.packs(rows)
    counted = ground.counted(rows)
    roster = {peer.id: peer for peer in ground.roster()}
    rules = {rule.name: rule for rule in sorted(policies, key=lambda one: one.name)}
    surplus: dict[PackId, set[PeerId]] = {}
    for one in ground.plan(rows).surplus:
        surplus.setdefault(one.pack, set()).add(one.peer)
    spare = dict.fromkeys(roster, 0)
    for identity, given in given_up(ground).items():
        if peer_id(identity) in spare:
            spare[peer_id(identity)] += sum(row.size for row in given)
    for pack in packs:
        for one_too_many in surplus.get(pack.id, set()) & roster.keys():
            spare[one_too_many] += pack.size
    coming = dict.fromkeys(roster, 0)
    moves: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for at_home in (False, True):
        mine = [pack for pack in packs if rules[pack.policy].count_own == at_home]
        peers = {name: peer for name, peer in roster.items() if at_home or not peer.own}
        placements = {}
        for pack in mine:
            holders = sorted((counted[pack.id].keys() & peers.keys()) - surplus.get(pack.id, set()))
            if holders:
                placements[pack.id] = [*holders[: rules[pack.policy].copies]]
        if not mine:
            continue
        document = {
            "peers": [_peer(peer, spare[peer.id], coming[peer.id]) for peer in peers.values()],
            "policies": [_policy(rule) for rule in rules.values() if rule.count_own == at_home],
            "packs": [{"id": pack.id, "size": pack.size, "policy": pack.policy} for pack in mine],
            "placements": placements,
        }
        found = plan(parse(document), seed=ground.half.tenant)
        sizes = {pack.id: pack.size for pack in mine}
        for move in found["moves"]:
            coming[move["to"]] += sizes[move["pack"]]
        moves += found["moves"]
        # A pack that lies nowhere is the writer's, or lost: there is nothing to move.
        refused += [one for one in found["refused"] if one["pack"] in placements]
    return {"moves": moves, "refused": refused}


def _peer(peer: Peer, spare: int, coming: int) -> dict[str, Any]:
    """Return a peer as a problem has it; ``spare`` bytes are to be given up there, ``coming`` ones are on their way."""
    over = peer.used > peer.capacity
    return {
        "id": peer.id,
        "capacity": peer.capacity,
        # What is to be given up on a peer that has too much is as good as gone: else as much again would move.
        "used": (peer.used - spare if over else peer.used) + coming,
        "owner": peer.owner,
        "site": peer.site,
        "region": peer.region,
        "country": peer.country,
        "state": "readonly" if peer.state == "suspect" or (over and peer.state == "ok") else peer.state,
    }


def _policy(rule: Policy) -> dict[str, Any]:
    return {
        "name": rule.name,
        "copies": rule.copies,
        "spread": sorted("household" if domain == "owner" else domain for domain in rule.spread),
        **({"only_countries": sorted(rule.only_countries)} if rule.only_countries is not None else {}),
    }
