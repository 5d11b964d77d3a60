"""The register: who keeps what of a tenant's data, where, since when and until when. A record for people and the law.

How much a provider holds of a dataset is asked of the provider now; of one that does not answer it is what was last
heard, and the row says when. An object that two datasets share is counted for both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from replicator.catalog.objects import ObjectRow
from replicator.crypto.sign import body_of
from replicator.engine.audit import Audited, PeerView, audited, survey
from replicator.engine.browse import Library
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link
from replicator.engine.home import Half
from replicator.engine.placing import objects_of
from replicator.errors import PeerError
from replicator.format.charter import LegalNote
from replicator.format.offer import Offer, decode_offer
from replicator.ids import Identity, short
from replicator.wire.messages import MARKS_PAGE, Marks, MarksRequest

RECORDS = ""
"""What the row of a holder's other objects has for a dataset: keys, charters, and what no snapshot here names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who keeps something. ``is_peer``: the charter names it; one that was removed may still hold what it held."""

    identity: Identity
    name: str
    legal_name: str
    contact: str
    country: str
    is_peer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one holder keeps of one dataset. ``dataset`` may be :data:`RECORDS`.

    ``from_ns``: when the oldest of it was stored; 0: not known. ``until_ns``: when the last of it may be deleted at
    the earliest, for what is marked; 0: as long as its snapshots are kept. ``as_of_ns``: when the holder was asked.
    """

    holder: Holder
    dataset: str
    objects: int
    bytes: int
    from_ns: int
    until_ns: int
    as_of_ns: int


@dataclass(slots=True, kw_only=True)
class Register:
    """All entries, by holder and dataset. ``gaps``: who could not be asked now.

    ``proofs``: what each holder proved within the last week to who keeps this register, with its signed receipts.
    """

    tenant: str
    country: str
    made_ns: int
    entries: list[Entry] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    proofs: dict[Identity, Audited] = field(default_factory=dict)


async def register(library: Library, edge: Edge, *, node: Half | None = None) -> Register:
    """Return the register, after asking every provider what it holds and what of that it will delete.

    ``node``: the half of this home that asks for proofs each night.
    """
    keeper, federation = library.keeper, library.federation
    views = await survey(keeper, federation, edge, count=0)
    dying = {identity: await _dying(federation, link) for identity, link in list(federation.links.items())}
    by_dataset = await _objects(library)
    found = Register(tenant=keeper.member.name, country=keeper.private.country, made_ns=edge.clock.now_ns())
    for half in (keeper, node):
        for identity_hex, week in audited(half, found.made_ns).items() if half is not None else ():
            known = found.proofs.get(Identity(bytes.fromhex(identity_hex)))
            if known is None or known.asked_ns < week.asked_ns:
                found.proofs[Identity(bytes.fromhex(identity_hex))] = week
    held: dict[Identity, set[int]] = {}
    for holding in keeper.catalog.objects.holdings():
        if holding.state in {"held", "released"}:
            held.setdefault(holding.peer, set()).add(holding.object_id)
    identities = [Identity(pin.identity) for pin in keeper.peers]
    for identity in (*identities, *sorted(held.keys() - set(identities))):
        holder = _holder(keeper, identity)
        link, view = federation.links.get(identity), views.get(identity)
        due = dying.get(identity)
        if link is None or view is None or due is None:
            found.gaps.append(f"{holder.name} could not be asked: its rows are what was last heard of it")
            as_of_ns = keeper.catalog.peers.get(identity).contacted_ns
            found.entries += _entries(holder, by_dataset, held.get(identity, set()), {}, None, as_of_ns)
        else:
            found.entries += _entries(holder, by_dataset, held.get(identity, set()), due, view, found.made_ns)
    return found


async def _dying(federation: Federation, link: Link) -> dict[bytes, int] | None:
    """Return when a provider may delete each object that is marked there; None if it does not say."""
    found: dict[bytes, int] = {}
    after = b""
    while True:
        try:
            page = await link.connection.call("marks", MarksRequest(after=after, limit=MARKS_PAGE), Marks)
        except PeerError as error:
            federation.notices.append(str(error))
            return None
        found |= {one.name: one.due_ns for one in page.marks}
        if not page.more or not page.marks or page.marks[-1].name <= after:
            return found
        after = page.marks[-1].name


async def _objects(library: Library) -> dict[str, list[ObjectRow]]:
    """Return the objects of each dataset's snapshots, forgotten ones too: they lie there until they are deleted."""
    snapshots = [*await library.snapshots(), *await library.snapshots(forgotten=True)]
    names = sorted({one.details.dataset for one in snapshots})
    return {
        name: library.keeper.catalog.objects.stored(
            objects_of(library.keeper, [one.row for one in snapshots if one.details.dataset == name])
        )
        for name in names
    }


def _entries(
    holder: Holder,
    by_dataset: Mapping[str, Iterable[ObjectRow]],
    held: set[int],
    due: Mapping[bytes, int],
    view: PeerView | None,
    as_of_ns: int,
) -> list[Entry]:
    found = []
    named: dict[int, ObjectRow] = {}
    for dataset, rows in by_dataset.items():
        here = [row for row in rows if row.id in held]
        named |= {row.id: row for row in here}
        for is_dying in (False, True):
            part = [row for row in here if (row.name in due) == is_dying]
            if part:
                found.append(
                    Entry(
                        holder=holder,
                        dataset=dataset,
                        objects=len(part),
                        bytes=sum(row.size for row in part),
                        from_ns=min(row.created_ns for row in part),
                        until_ns=max(due[row.name] for row in part) if is_dying else 0,
                        as_of_ns=as_of_ns,
                    )
                )
    rest = 0 if view is None else view.objects - len(named)
    if view is not None and rest > 0:
        size = view.bytes - sum(row.size for row in named.values())
        found.append(
            Entry(
                holder=holder,
                dataset=RECORDS,
                objects=rest,
                bytes=size,
                from_ns=0,
                until_ns=0,
                as_of_ns=as_of_ns,
            )
        )
    return found


def _holder(half: Half, identity: Identity) -> Holder:
    """Return who a holder is: by the tenant's own word, and where it has none by the provider's."""
    pin = next((pin for pin in half.peers if pin.identity == identity), None)
    offer = _offer(half, identity)
    note = next((note for note in half.private.legal if note.identity == identity), None)
    note = note or LegalNote(identity=identity, legal_name="", contact="")
    return Holder(
        identity=identity,
        name=pin.name if pin else offer.owner if offer else short(identity),
        legal_name=note.legal_name or (offer.legal_name if offer else ""),
        contact=note.contact or (offer.contact if offer else ""),
        country=pin.country if pin else offer.country if offer else "",
        is_peer=pin is not None,
    )


def _offer(half: Half, identity: Identity) -> Offer | None:
    signed = half.catalog.peers.get(identity).offer
    return decode_offer(body_of(signed)) if signed else None
