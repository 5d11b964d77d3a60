"""What lies at providers and nothing names: of sessions that were given up, of homes that are lost; charters of old.

Nothing that a snapshot, an index or a Forget names is among it, as a plan with gaps is none. What a session that still
runs has stored is: it names it at its end. So a home waits before it marks such an object, by its own clock, which is
only to spare everybody marks that come off again. What decides is the provider: whatever is claimed at last loses its
mark, and a claim of what is gone by then is told so, before anything is published (docs/spec/protocol.md §10). A
snapshot's own object is sent after the claim, so it goes only when its head would be refused: the chain is past it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from replicator.clock import DAY_S, NS, day_of
from replicator.config import counted, format_size
from replicator.crypto.sign import Context, signer_of, verify
from replicator.engine.audit import PeerView
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.forgetting import able, old_objects, records_in_force
from replicator.engine.home import Half
from replicator.engine.marking import gone_writers
from replicator.engine.pruneplan import DeadObject
from replicator.engine.roots import heard
from replicator.engine.shown import FORGET, RECORD, SHARD, SNAPSHOT, UNREADABLE, first_leaves, kind_of
from replicator.engine.sync import open_snapshot
from replicator.errors import NotFoundError, ReplicatorError
from replicator.format.charter import read_charter
from replicator.format.container import unwrap_record
from replicator.ids import Identity, ObjectName

WAIT_NS: Final = 7 * DAY_S * NS
"""How long an object has to be without a name, as this home sees it, before it is marked."""
RECORDS_WAIT_NS: Final = 90 * DAY_S * NS
"""The same for a charter or keybag of old."""
EARLIER_CHARTERS: Final = 2
"""So many before the one in force stay with their keybags, however old: should the newest keybag turn out to open
nothing, as an owner key in wrong hands can make it (crypto.md §8), the sheet opens the one before."""
MOST: Final = 100_000
"""Objects that are looked at; with more, the others follow when these are gone."""
_SEEN: Final = "unnamed objects"
_CHARTER, _KEYBAG = "charter", "keybag"
_READS: Final = b"2"
"""Goes up when this release can tell more of an object than an earlier one: what that could not is looked at again."""


class _Seen(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of one: since when, and what it turned out to be ("": nobody could be asked).

    ``number`` is a charter's or a snapshot's, ``other`` the keybag of the one, the writer of the other.
    """

    name: bytes
    size: int
    since_ns: int
    kind: str = ""
    number: int = 0
    other: bytes = b""


@dataclass(slots=True, kw_only=True)
class Unnamed:
    """What nothing names and may go, and in words what stays for now; ``lying`` are all names by provider."""

    dead: list[DeadObject] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    lying: dict[Identity, set[bytes]] = field(default_factory=dict)

    def at(self, identity: Identity) -> set[bytes]:
        """Return which of the dead ones lie at a provider."""
        return {one.name for one in self.dead} & self.lying.get(identity, set())


async def find_unnamed(
    half: Half,
    federation: Federation,
    edge: Edge,
    views: Mapping[bytes, PeerView],
    *,
    published: Mapping[bytes, int],
    note: bool,
) -> Unnamed:
    """Return what nothing names at the providers that were looked through; ``note``: remember since when.

    The catalog is in line with all chains, whose newest numbers are ``published``, and with what is forgotten.
    """
    kept = {*records_in_force(half), *old_objects(half)}
    kept |= {link.info.charter for link in federation.links.values()}
    objects = half.catalog.objects
    packs = objects.all("kind IN ('data', 'tree') AND index_id IS NULL")
    # No key opens a shard: of these this home knows what they are, as it stored them itself.
    parts = objects.shards_only_of({row.id for row in packs})
    rows = {row.id: row for row in objects.stored(packs) if row.kind != SHARD or row.id in parts}
    shards = {rows[number].name for number in parts}
    sizes: dict[bytes, int] = {row.name: row.size for row in rows.values()}
    found = Unnamed()
    for identity, view in views.items():
        peer = Identity(identity)
        holdings = half.catalog.objects.holdings(peer=peer)
        unlisted = {rows[one.object_id].name for one in holdings if one.object_id in rows and one.state == "held"}
        found.lying[peer] = {name for name in (*view.unnamed, *unlisted) if name not in kept}
        sizes.update(view.unnamed.items())
    everywhere = {Identity(pin.identity) for pin in half.peers} <= found.lying.keys()
    before = _remembered(half)
    names = sorted(set().union(*found.lying.values()), key=lambda name: (name not in before, name))[:MOST]
    now_ns = edge.clock.now_ns()
    seen = {name: before.get(name) or _Seen(name=name, size=sizes[name], since_ns=now_ns) for name in names}
    seen |= {name: replace(seen[name], kind=SHARD) for name in seen.keys() & shards}
    seen |= await _judged(half, federation, found.lying, [one for one in seen.values() if not one.kind])
    if note:
        # What a silent provider may have is remembered as long as it is silent.
        _remember(half, {**({} if everywhere else before), **seen}.values())
    _decide(half, seen.values(), found, published, now_ns)
    return found


def _remembered(half: Half) -> dict[bytes, _Seen]:
    """Return what was seen before; what it is counts only if this home could make of it then what it can now."""
    kept = half.catalog.meta(_SEEN) or b""
    digest = able(half) + _READS
    try:
        rows = msgspec.msgpack.decode(kept[len(digest) :], type=list[_Seen])
    except msgspec.DecodeError:
        return {}  # nothing was seen yet, or an earlier build saw it: the wait begins anew
    if kept[: len(digest)] != digest:
        rows = [_Seen(name=one.name, size=one.size, since_ns=one.since_ns) for one in rows]
    return {one.name: one for one in rows}


def _remember(half: Half, seen: Iterable[_Seen]) -> None:
    rows = sorted(seen, key=lambda one: one.name)[:MOST]
    half.catalog.set_meta(_SEEN, able(half) + _READS + msgspec.msgpack.encode(rows))


async def _judged(
    half: Half, federation: Federation, lying: Mapping[Identity, Collection[bytes]], unjudged: list[_Seen]
) -> dict[bytes, _Seen]:
    """Have the first leaf of each proved, which shows what it is to who has the index keys; return what came of it."""
    found: dict[bytes, _Seen] = {}
    by_name = {one.name: one for one in unjudged}
    keys = [half.keys(domain) for domain in half.domain_ids]
    async for name, leaf, size in first_leaves(federation, lying, by_name):
        one, kind = by_name[name], kind_of(leaf, size, keys)
        if kind == RECORD:
            found[name] = await _which_record(half, federation, one)
        elif kind == SNAPSHOT:
            found[name] = await _snapshot(half, federation, one)
        else:
            found[name] = replace(one, kind=kind)
    return found


async def _which_record(half: Half, federation: Federation, one: _Seen) -> _Seen:
    try:
        return _record(half, one, unwrap_record(await federation.fetch(ObjectName(one.name), ())))
    except NotFoundError:
        return one
    except ReplicatorError:
        return replace(one, kind=UNREADABLE)


async def _snapshot(half: Half, federation: Federation, one: _Seen) -> _Seen:
    """Learn whose snapshot it is, and which."""
    try:
        snapshot = open_snapshot(half, await federation.fetch(ObjectName(one.name), ()))
    except NotFoundError:
        return one
    except ReplicatorError:
        return replace(one, kind=UNREADABLE)
    return replace(one, kind=SNAPSHOT, number=snapshot.number, other=snapshot.writer)


def _record(half: Half, one: _Seen, body: bytes) -> _Seen:
    """Tell a charter from a keybag, which is sealed and shows nothing."""
    try:
        charter = read_charter(verify(body, Context.CHARTER, [signer_of(body)]))
    except ReplicatorError:
        return replace(one, kind=_KEYBAG)
    if charter.tenant != half.tenant:
        return replace(one, kind=UNREADABLE)
    return replace(one, kind=_CHARTER, number=charter.number, other=charter.keybag)


def _decide(half: Half, seen: Collection[_Seen], found: Unnamed, published: Mapping[bytes, int], now_ns: int) -> None:
    staying = _staying(half, seen)
    gone = gone_writers(half)
    staying |= {
        one.name
        for one in seen
        if one.kind == SNAPSHOT and one.number > published.get(one.other, 0) and one.other not in gone
    }
    waiting = []
    for one in seen:
        if one.kind in {"", FORGET, UNREADABLE} or one.name in staying:
            continue
        due_ns = one.since_ns + (RECORDS_WAIT_NS if one.kind in {_CHARTER, _KEYBAG} else WAIT_NS)
        if now_ns >= due_ns:
            found.dead.append(DeadObject(name=one.name, kind=one.kind, size=one.size))
        elif one.kind not in {_CHARTER, _KEYBAG}:
            waiting.append((due_ns, one))
    if waiting:
        found.stays.append(
            f"{counted(len(waiting), 'object is', 'objects are')} named by nothing yet "
            f"({format_size(sum(one.size for _, one in waiting))}): a backup may be storing that; if it stays so, it "
            f"is marked from {day_of(max(waiting, key=_due)[0])} on"
        )
    unreadable = [one for one in seen if one.kind == UNREADABLE]
    if unreadable:
        found.stays.append(
            f"{counted(len(unreadable), 'object is', 'objects are')} named by nothing and opened by no key of this "
            f"home ({format_size(sum(one.size for one in unreadable))}): of a domain that was erased, or of a later "
            "release; that stays"
        )


def _due(entry: tuple[int, _Seen]) -> int:
    return entry[0]


def _staying(half: Half, seen: Collection[_Seen]) -> set[bytes]:
    """Return which charters and keybags stay: some before the one in force, all beside or after it, and their keybags.

    While another root is announced all do: the keybags of both roots are needed, and providers may be behind.
    """
    charters = [one for one in seen if one.kind == _CHARTER]
    if half.charter.pending is not None or heard(half):
        return {one.name for one in seen if one.kind in {_CHARTER, _KEYBAG}}
    numbers = sorted({one.number for one in charters if one.number < half.charter.number})
    since = min([half.charter.number, *numbers[-EARLIER_CHARTERS:]])
    stay = [one for one in charters if one.number >= since]
    return {one.name for one in stay} | {one.other for one in stay}
