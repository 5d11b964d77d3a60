"""Copies beyond their promise, and how a writer lets go of its own.

In this order, each step harmless by itself, so that what is stopped anywhere is finished or undone by the next run:

    1. a writer claims at every provider; a copy is spare if as many as are promised are claimed by it elsewhere
    2. it remembers that it gave that copy up: from then on the copy counts nowhere, and is in no claim
    3. it claims again where it gave something up
    4. maintenance releases what no writer claims (:mod:`.releasing`), and providers delete it after their waits

Who finds too few copies meanwhile takes back what was given up (:mod:`.givenup`).
"""

from collections.abc import Iterable, Mapping, Sequence

from replicator.catalog.objects import HoldingState, ObjectRow
from replicator.engine.placing import PACK_KINDS, Ground, pack_id, peer_id
from replicator.engine.publish import Published, Publisher
from replicator.engine.releaseplan import Spare, spare_copies
from scheduler import PackId, PeerId


def spare_of(ground: Ground, rows: Sequence[ObjectRow], sure: Mapping[PackId, set[PeerId]]) -> list[Spare]:
    """Return which copies of packs may be given up, given whose copies are sure."""
    packs, rules = ground.packs(rows)
    return spare_copies(ground.plan(rows), packs, rules, sure)


async def let_go(publisher: Publisher, rows: Iterable[ObjectRow], result: Published) -> list[Spare]:
    """Give up this node's own spare copies at providers that answer, and claim them no more; return what they were.

    Everything was claimed in this run, and looked at: what was not is not sure. What peers owe is added to ``result``.
    """
    node, ground = publisher.node, publisher.ground
    own = {pack_id(row.name): row for row in rows if row.writer == node.identity and row.kind in PACK_KINDS}
    names = {row.id: pack for pack, row in own.items()}
    sure: dict[PackId, set[PeerId]] = {}
    for identity in await publisher.standing():
        for object_id in node.catalog.objects.claimed(identity) & names.keys():
            sure.setdefault(names[object_id], set()).add(peer_id(identity))
    counted = {pack: peers & ground.held.get(pack, set()) for pack, peers in sure.items()}
    links = {peer_id(identity): link for identity, link in ground.federation.links.items()}
    found = [one for one in spare_of(ground, list(own.values()), counted) if one.peer in links]
    for peer, link in links.items():
        states: dict[int, HoldingState] = {own[one.pack].id: "released" for one in found if one.peer == peer}
        if states:
            node.catalog.objects.set_states(
                *(link.identity, states), incarnation=link.info.incarnation, now_ns=publisher.edge.clock.now_ns()
            )
    if found:
        await publisher.claim_everywhere(result)
    return found
