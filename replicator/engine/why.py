"""Where the copies of something lie, and why there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from replicator.catalog.objects import ObjectRow
from replicator.catalog.snapshots import SnapshotRow
from replicator.config import counted, format_size
from replicator.engine.audit import survey
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.givenup import given_up
from replicator.engine.home import Half
from replicator.engine.placing import PACK_KINDS, Ground, as_it_stands, in_names, objects_of, pack_id, peer_id
from replicator.engine.ways import relays
from scheduler import PeerId, survives, why


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Who holds how much (rows with id, name, place, objects, bytes), reasons, and what is left after a loss."""

    places: list[dict[str, Any]]
    reasons: list[str]
    survives: list[str]


async def explain(half: Half, edge: Edge, snapshots: Sequence[SnapshotRow]) -> Explanation:
    """Explain where everything that these snapshots need lies, by the peers' inventories of now."""
    async with Federation(half, edge) as federation:
        await survey(half, federation, edge, count=0)
        ground = Ground(half, federation)
        ground.refresh()
        rows = objects_of(half, snapshots)
        roster = ground.roster()
        surplus = _surplus_in_words(half, ground, [row for row in rows if row.kind in PACK_KINDS])
    packs, rules = ground.packs(rows)
    counting = ground.counted(rows)
    stored = half.catalog.objects.stored(rows)
    places = []
    for pin in half.peers:
        held = [row for row in stored if peer_id(pin.identity) in ground.held.get(pack_id(row.name), set())]
        places.append(
            {
                "id": pin.identity.hex(),
                "name": pin.name,
                "owner": pin.owner,
                "site": pin.site,
                "region": pin.region,
                "country": pin.country,
                "objects": len(held),
                "bytes": sum(row.size for row in held),
            }
        )
    reasons: list[str] = []
    left: list[str] = []
    for policy in rules:
        mine = [pack for pack in packs if pack.policy == policy.name]
        placement = {pack.id: tuple(sorted(counting[pack.id])) for pack in mine}
        words = ground.word(policy.name)
        word = {"copies": "copy", "shards": "shard"}[words]
        enough = "" if policy.coding is None else f" ({policy.needed} suffice)"
        reasons += [in_names(half, as_it_stands(ground, line)) for line in why(mine, placement, roster, policy)]
        for kind, loss in survives(placement, roster, policy).items():
            whole = counted(loss.left, f"{word} of every object is", f"{words} of every object are")
            what = f"{whole} left{enough}" if loss.left else f"no {word} of some objects is left"
            left.append(in_names(half, f"after losing the worst {kind} ({loss.place}): {what}"))
    left += [
        f"while {one.name} is out of reach, so is all that is reached through it alone: some of this waits for it"
        for one in ground.hanging(relays(half), stored)
    ]
    return Explanation(places=places, reasons=[*reasons, *surplus], survives=left)


def _surplus_in_words(half: Half, ground: Ground, rows: Sequence[ObjectRow]) -> list[str]:
    """Say which copies are more than promised, and why, and which of them were given up already."""
    sizes = {pack_id(row.name): row.size for row in rows}
    by_place: dict[tuple[PeerId, str], list[int]] = {}
    for row, one in ground.surplus(rows):
        by_place.setdefault((one.peer, one.why), []).append(row.size)
    said = [
        in_names(half, f"{_copies(found)} on {peer}, surplus: {reason}")
        for (peer, reason), found in sorted(by_place.items())
    ]
    for identity, given in sorted(given_up(ground).items()):
        mine = [row.size for row in given if pack_id(row.name) in sizes]
        if mine:
            said.append(
                in_names(
                    half,
                    f"{_copies(mine)} on {peer_id(identity)}, given up as surplus: counted no more, and there until "
                    "`prune` has released that and the waits are over",
                )
            )
    return said


def _copies(sizes: Sequence[int]) -> str:
    return f"{counted(len(sizes), 'copy', 'copies')} ({format_size(sum(sizes))})"
