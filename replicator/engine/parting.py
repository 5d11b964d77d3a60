"""Parting with a provider: what it holds is freed there, if the promises hold without it.

Nobody claims anything at who is no peer any more, and no prune asks it. So whoever removes it retires every writer
there and marks all that lies there, once; it deletes by itself, after its waits. Where it is taken back as a peer
within them, nodes claim anew, which takes the marks off.

What others list is their word. A copy that a promise is kept with once this provider is gone has been proved within a
week, or is proved now; if not, this one may have the last, and stays a peer.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from replicator.catalog.objects import ObjectRow
from replicator.clock import DAY_S, NS, day_of
from replicator.config import counted
from replicator.engine.audit import prove_copies, survey
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, inventory_pages
from replicator.engine.keeper import KeeperHome
from replicator.engine.marked import outstanding
from replicator.engine.marking import ask_claims, mark_dead, retire, with_writer_retired
from replicator.engine.placing import PACK_KINDS, Ground, gone_peers, objects_of, pack_id, peer_id
from replicator.engine.releaseplan import short_packs
from replicator.engine.repair import published, thin_records
from replicator.engine.sync import sync_all
from replicator.errors import PeerError
from replicator.format.charter import PeerPin
from replicator.ids import NAME_SIZE, Identity, short
from scheduler import PeerId

PROVED_S: Final = 7 * DAY_S
"""How old a proof of a copy may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unproved:
    """A copy elsewhere that counted on its holder's word, and why that is all there is."""

    name: bytes
    peer: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """An object with fewer copies than promised once the provider is gone. ``below``: even than the minimum.

    ``proved``: what others showed within :data:`PROVED_S` is enough to read it.
    """

    name: bytes
    below: bool
    proved: bool


@dataclass(slots=True, kw_only=True)
class Parting:
    """What became, or would become, of what a provider holds. ``stays``: why nothing is freed there, empty if it is.

    ``objects`` of ``bytes`` lie there; ``marked`` of them go from ``first_ns`` on. ``unproved``: copies elsewhere
    without which promises would stand on this provider; nobody parts with it then. ``disproved``: some are not there.
    ``unsure``: something that providers showed does not hold, so that there may be fewer copies than are counted.
    """

    objects: int = 0
    bytes: int = 0
    marked: int = 0
    first_ns: int = 0
    stays: str = ""
    unproved: list[Unproved] = field(default_factory=list)
    disproved: bool = False
    short: list[Short] = field(default_factory=list)
    unsure: bool = False


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
        there = [row for row in keeper.catalog.objects.stored(needed) if peer_id(identity) in _holders(ground, row)]
        for held in ground.held.values():
            held.discard(peer_id(identity))
        found.short = _short_of(keeper, edge, ground, needed)
        if identity in views:
            found.objects, found.bytes = views[identity].objects, views[identity].bytes
        if identity not in federation.links:
            found.stays = f"it does not answer: {federation.failures.get(identity, 'no reason is known')}"
        elif federation.integrity:
            found.stays = f"not all is known: {federation.integrity[0]}"
        elif found.short:
            found.stays = f"{counted(len(found.short), 'object')} would have fewer copies than promised without it"
        else:
            await _prove_the_others(keeper, federation, edge, ground, there, found)
            found.short = _short_of(keeper, edge, ground, needed)
            if found.short:
                few = counted(len(found.short), "object has", "objects have")
                found.stays = f"{few} too few other copies that were proved"
            elif federation.integrity:
                found.stays = f"not all is known: {federation.integrity[0]}"
            if not found.short or identity in gone_peers(keeper):
                # Who said that it will not come back parts with it anyway; what it holds is not freed by that.
                found.unproved = []
        found.unsure = bool(federation.integrity)
    return found


def _holders(ground: Ground, row: ObjectRow) -> set[PeerId]:
    return ground.held.get(pack_id(row.name), set())


def _short_of(keeper: KeeperHome, edge: Edge, ground: Ground, needed: list[ObjectRow]) -> list[Short]:
    """Return which objects have fewer copies than promised."""
    plan = ground.plan([row for row in needed if row.kind in PACK_KINDS], frozen=True)
    packs, refused = short_packs(plan), {one.pack for one in plan.refused}
    thin = {row.id for _, records in thin_records(ground, needed) for row in records}
    rows = [row for row in needed if row.id in thin or (row.kind in PACK_KINDS and pack_id(row.name) in packs)]
    if not rows:
        return []
    proved = {peer_id(one.identity): _proved(keeper, edge, Identity(one.identity)) for one in keeper.peers}

    def is_proved(row: ObjectRow) -> bool:
        shards = ground.shards(row)
        parts, least = ((row,), 1) if shards is None else (shards.rows, shards.needed)
        return sum(any(part.id in proved[one] for one in _holders(ground, part)) for part in parts) >= least

    return [
        Short(name=row.name, below=row.id in thin or pack_id(row.name) in refused, proved=is_proved(row))
        for row in rows
    ]


async def _prove_the_others(
    keeper: KeeperHome, federation: Federation, edge: Edge, ground: Ground, rows: list[ObjectRow], found: Parting
) -> None:
    """Have every other copy of these objects proved that was not within :data:`PROVED_S`; count no other."""
    pins = {Identity(one.identity): one for one in keeper.peers}
    wanted = {
        one: [row for row in rows if peer_id(one) in _holders(ground, row) and row.id not in proved]
        for one, proved in ((one, _proved(keeper, edge, one)) for one in pins)
    }
    views = await prove_copies(keeper, federation, edge, wanted)
    for one, asked in wanted.items():
        proved = _proved(keeper, edge, one)
        bad = {row.id for row in views[one].damaged} if one in views else set()
        failure = federation.failures.get(one)
        silence = "it gave no proof in time" if failure is None else f"it does not answer: {failure}"
        for row in asked:
            if row.id not in proved or row.id in bad:
                ground.remove(row.name, one)
                found.disproved |= row.id in bad
                why = "it lists it and cannot show it" if row.id in bad else silence
                found.unproved.append(Unproved(name=row.name, peer=pins[one].name, why=why))


def _proved(keeper: KeeperHome, edge: Edge, identity: Identity) -> set[int]:
    """Return which objects a provider proved lately, by their numbers in the catalog."""
    oldest = edge.clock.now_ns() - round(PROVED_S * NS)
    return {one.object_id for one in keeper.catalog.objects.holdings(peer=identity) if one.audited_ns >= oldest}


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
    if found.unproved:
        counts = Counter((one.peer, one.why) for one in found.unproved)
        whose = "; ".join(
            f"{peer}: {counted(number, 'copy', 'copies')}, {why}" for (peer, why), number in sorted(counts.items())
        )
        return (
            f"{found.stays}, and its own may be the last that is good ({whose}). Let them answer, have copies made "
            "elsewhere (`replicator repair`), or part first with who does not show what it lists; then remove it "
            f"again. If {pin.name} will not come back, say so first: `replicator peer set {pin.name} --state gone`"
        )
    if found.stays:
        return (
            f"what {pin.name} holds of yours {'would stay' if dry_run else 'stays'} there: {found.stays}. To have it "
            f"freed, make copies elsewhere first (`replicator peer set {pin.name} --state draining`, `replicator "
            f"repair`); its operator can delete it{_short_in_words(found)}"
        )
    if dry_run:
        return f"what {pin.name} holds of yours is needed nowhere else, would be marked there and go after its waits"
    when = f"from {day_of(found.first_ns)} on" if found.first_ns else "after its waits"
    return f"what {pin.name} holds of yours is marked there and goes {when}"


def _short_in_words(found: Parting) -> str:
    if not found.short:
        return ""
    below = sum(one.below for one in found.short)
    only = [one for one in found.short if not one.proved]
    text = (
        f". Without it {counted(len(found.short), 'object has', 'objects have')} fewer copies than promised, "
        f"{below} of them fewer than the minimum"
    )
    if not only:
        return text
    has = counted(len(only), "of them has", "of them have")
    return (
        f"{text}; {has} no copy elsewhere that was proved within a week ({short(only[0].name)} first), and what lies "
        "there may be the last that is good: have it as a provider until `replicator repair` has made others"
    )
