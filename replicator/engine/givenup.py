"""Copies that were given up as too many, while they are still there: a word takes them back.

A provider that is asked to vouch for one reads it, takes its mark off and signs a fresh receipt. So what is given up
never has to be stored again, and a copy elsewhere that is lost meanwhile is made up for at once.
"""

from collections.abc import Iterable

from replicator.catalog.objects import HoldingState, ObjectRow
from replicator.engine.edge import Edge
from replicator.engine.federation import Link, check_receipt
from replicator.engine.marked import outstanding, vouch
from replicator.engine.placing import Ground, pack_id
from replicator.engine.releaseplan import short_packs
from replicator.errors import PeerError, RefusedError
from replicator.ids import Identity
from scheduler import Plan


async def released_there(link: Link) -> set[bytes]:
    """Return the names that are marked as surplus at a provider; one that knows no marks has none.

    Raises:
        PeerError: it does not answer.
    """
    try:
        return {one.name for one in await outstanding(link) if one.why == "surplus"}
    except RefusedError:
        return set()


async def take_back(ground: Ground, edge: Edge, plan: Plan, rows: Iterable[ObjectRow]) -> int:
    """Have providers vouch for copies that were given up, where there are too few others; return how many count again.

    What they do not vouch for is gone.
    """
    short = short_packs(plan)
    wanted = {row.id: row for row in rows if pack_id(row.name) in short}
    objects = ground.half.catalog.objects
    count = 0
    for link in list(ground.federation.links.values()):
        given_up = [
            wanted[one.object_id]
            for one in objects.holdings(peer=link.identity)
            if one.state == "released" and one.object_id in wanted and one.incarnation == link.info.incarnation
        ]
        if given_up:
            count += await _take_back_at(ground, edge, link, given_up)
    return count


async def _take_back_at(ground: Ground, edge: Edge, link: Link, rows: list[ObjectRow]) -> int:
    objects = ground.half.catalog.objects
    now_ns = edge.clock.now_ns()
    by_name: dict[bytes, ObjectRow] = {row.name: row for row in rows}
    try:
        given = await vouch(link, sorted(by_name))
        for name, signed in given.items():
            receipt = check_receipt(signed, link, ground.half.tenant, name, by_name[name].size)
            objects.held(
                *(by_name[name].id, link.identity),
                incarnation=receipt.incarnation,
                receipt=signed,
                received_ns=now_ns,
            )
            ground.add(name, link.identity)
    except PeerError as error:
        await ground.federation.drop(link, error)
        return 0
    gone: dict[int, HoldingState] = {row.id: "gone" for name, row in by_name.items() if name not in given}
    objects.set_states(link.identity, gone, incarnation=link.info.incarnation, now_ns=now_ns)
    return len(given)


def given_up(ground: Ground) -> dict[Identity, list[ObjectRow]]:
    """Return what was given up at each provider and is, as far as this home knows, not deleted yet."""
    objects = ground.half.catalog.objects
    rows = {row.id: row for row in objects.all()}
    found: dict[Identity, list[ObjectRow]] = {}
    for one in objects.holdings():
        if one.state == "released" and one.object_id in rows:
            found.setdefault(one.peer, []).append(rows[one.object_id])
    return found
