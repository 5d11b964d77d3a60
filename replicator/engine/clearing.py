"""How far this writer is with what it has at providers that leave or shrink; told to them, signed, after each look."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from replicator.catalog.objects import ObjectRow
from replicator.charter.verify import signed_hash
from replicator.crypto.sign import Context
from replicator.engine.federation import Federation, Link
from replicator.engine.givenup import given_up
from replicator.engine.node import NodeHome
from replicator.engine.notices import notice_of, signed_notice
from replicator.engine.placing import PACK_KINDS, Ground, pack_id, peer_id
from replicator.engine.releaseplan import short_packs
from replicator.errors import PeerError
from replicator.format.codec import encode
from replicator.format.notice import Clearing
from replicator.ids import Identity
from replicator.wire.messages import Leaving, LeavingRequest
from scheduler import PackId, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Bytes at a provider that keep their promise only with it; ``stuck``: of these without any other place."""

    left: int = 0
    stuck: int = 0


def left_at(ground: Ground, rows: Iterable[ObjectRow], identity: Identity) -> Left:
    """Return how much of these packs still needs a provider that leaves, which plans take as draining."""
    rows = [row for row in rows if row.kind in PACK_KINDS]
    packs, _ = ground.packs(rows)
    sizes = {pack.id: pack.size for pack in packs}
    here = {name for name, holders in ground.counted(rows).items() if peer_id(identity) in holders}
    if not here:
        return Left()
    now, then = ground.plan(rows, frozen=True), ground.plan(rows)
    short = here & short_packs(now)
    return Left(
        left=sum(sizes[name] for name in short), stuck=sum(sizes[name] for name in short & _without_place(then))
    )


def _without_place(plan: Plan) -> set[PackId]:
    return {one.pack for rows in (plan.debts, plan.refused) for one in rows}


def left_beyond(ground: Ground, rows: Iterable[ObjectRow], link: Link, keeps: int, refused: Collection[bytes]) -> Left:
    """Return how much has to leave a provider that shrinks; ``refused`` are names of packs that have no other place."""
    spare = {pack_id(row.name) for row, one in ground.surplus(rows) if one.peer == peer_id(link.identity)}
    packs, _ = ground.packs(row for row in rows if row.kind in PACK_KINDS)
    going = sum(pack.size for pack in packs if pack.id in spare)
    going += sum(row.size for row in given_up(ground).get(link.identity, ()))
    left = max(0, link.info.used - going - keeps)
    stuck = sum(pack.size for pack in packs if bytes.fromhex(pack.id) in refused)
    return Left(left=left, stuck=min(left, stuck))


async def tell_leaving(node: NodeHome, federation: Federation, ground: Ground, rows: Iterable[ObjectRow]) -> None:
    """Tell each provider that leaves how far this writer is with what it has there."""
    own = [row for row in rows if row.writer == node.identity]
    for identity, link in list(federation.links.items()):
        notice = notice_of(node, identity)
        if notice is not None and not notice.keeps:
            await _tell(node, federation, link, left_at(ground, own, identity))


async def tell_shrinking(
    node: NodeHome, federation: Federation, ground: Ground, rows: Iterable[ObjectRow], refused: Collection[bytes]
) -> None:
    """Tell each provider that shrinks how far this writer is with what has to go from there."""
    own = [row for row in rows if row.writer == node.identity]
    for identity, link in list(federation.links.items()):
        notice = notice_of(node, identity)
        if notice is not None and notice.keeps:
            await _tell(node, federation, link, left_beyond(ground, own, link, notice.keeps, refused))


async def _tell(node: NodeHome, federation: Federation, link: Link, found: Left) -> None:
    clearing = Clearing(
        tenant=node.tenant,
        provider=link.identity,
        notice=signed_hash(signed_notice(node, link.identity)),
        left=found.left,
        stuck=found.stuck,
        said_ns=federation.edge.clock.now_ns(),
    )
    signed = node.signing.sign(Context.CLEARING, encode(clearing))
    try:
        await link.connection.call("leaving", LeavingRequest(clearing=signed), Leaving)
    except PeerError as error:
        federation.notices.append(f"how far this node is with leaving {link.pin.name} was not told: {error.reason}")
