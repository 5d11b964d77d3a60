"""Parting with a provider: what it holds is freed there, if the promises hold without it.

Nobody claims anything at who is no peer any more, and no prune asks it. So whoever removes it retires every writer
there and marks all that lies there, once; it deletes by itself, after its waits. Where it is taken back as a peer
within them, nodes claim anew, which takes the marks off.
"""

from dataclasses import dataclass

from replicator.clock import day_of
from replicator.engine.audit import survey
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, inventory_pages
from replicator.engine.keeper import KeeperHome
from replicator.engine.marked import outstanding
from replicator.engine.marking import ask_claims, mark_dead, retire, with_writer_retired
from replicator.engine.placing import PACK_KINDS, Ground, objects_of, pack_id, peer_id
from replicator.engine.releaseplan import short_packs
from replicator.engine.repair import published, thin_records
from replicator.engine.sync import sync_all
from replicator.errors import PeerError
from replicator.format.charter import PeerPin
from replicator.ids import NAME_SIZE, Identity


@dataclass(slots=True, kw_only=True)
class Parting:
    """What became, or would become, of what a provider holds. ``stays``: why nothing is freed there, empty if it is.

    ``objects`` of ``bytes`` lie there; ``marked`` of them go from ``first_ns`` on.
    """

    objects: int = 0
    bytes: int = 0
    marked: int = 0
    first_ns: int = 0
    stays: str = ""


async def look_at_parting(keeper: KeeperHome, edge: Edge, pin: PeerPin) -> Parting:
    """Say what parting with a provider would free there, and whether every promise holds without it."""
    identity = Identity(pin.identity)
    found = Parting()
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        await sync_all(keeper, federation)
        views = await survey(keeper, federation, edge, count=0)
        ground = Ground(keeper, federation)
        ground.refresh()
        needed = objects_of(keeper, published(keeper))
        rows = [row for row in needed if row.kind in PACK_KINDS]
        for held in ground.held.values():
            held.discard(peer_id(identity))
        short = short_packs(ground.plan(rows, frozen=True)) & {pack_id(row.name) for row in rows}
        records = sum(len(thin) for _, thin in thin_records(ground, needed))
        if identity in views:
            found.objects, found.bytes = views[identity].objects, views[identity].bytes
        if identity not in federation.links:
            found.stays = f"it does not answer: {federation.failures.get(identity, 'no reason is known')}"
        elif federation.integrity:
            found.stays = f"not all is known: {federation.integrity[0]}"
        elif short or records:
            found.stays = f"{len(short) + records} objects would have fewer copies than promised without it"
    return found


async def free_what_it_holds(keeper: KeeperHome, edge: Edge, pin: PeerPin, found: Parting) -> None:
    """Retire every writer at a provider that is no peer any more, and mark all that lies there; ``found`` says so.

    Raises:
        KeyWrongError: the passphrase is wrong.
        KeyMissingError: the charter gives the keeper's maintenance key no right.
    """
    key, identity = keeper.maintenance(), Identity(pin.identity)
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        for other in list(federation.links.values()):
            await other.connection.close()
        federation.links.clear()
        await federation.dial([pin])
        claims = (await ask_claims(federation)).get(identity)
        link = federation.links.get(identity)
        if link is None or claims is None:
            found.stays = f"it does not answer: {federation.failures.get(identity, 'it refuses')}"
            return
        try:
            for state in claims.writers:
                if not state.retired:
                    claims = with_writer_retired(claims, await retire(keeper, link, key, state), state.writer)
            names: set[bytes] = set()
            async for page in inventory_pages(link):
                names |= {page.names[at : at + NAME_SIZE] for at in range(0, len(page.names), NAME_SIZE)}
            heads = {state.writer: state.head for state in claims.writers}
            [done] = await mark_dead(
                *(keeper, federation, edge, key), before={identity: claims}, seen=heads, names={identity: names}
            )
            found.marked = len(done.marked)
            found.stays = "" if done.outcome == "stands" else done.why
            found.first_ns = min((one.due_ns for one in await outstanding(link)), default=0)
        except PeerError as error:
            found.stays = str(error)


def in_words(pin: PeerPin, found: Parting, *, dry_run: bool) -> str:
    """Say what becomes of what it holds."""
    if found.stays:
        return (
            f"what {pin.name} holds of yours {'would stay' if dry_run else 'stays'} there: {found.stays}. To have it "
            f"freed, make copies elsewhere first (`replicator peer set {pin.name} --state draining`, `replicator "
            "repair`); its operator can delete it"
        )
    if dry_run:
        return f"what {pin.name} holds of yours is needed nowhere else, would be marked there and go after its waits"
    when = f"from {day_of(found.first_ns)} on" if found.first_ns else "after its waits"
    return f"what {pin.name} holds of yours is marked there and goes {when}"
