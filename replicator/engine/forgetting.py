"""What is forgotten: learning it from what arrives at providers, saying it to all of them.

The newest signed :class:`~replicator.format.forget.Forget` is the whole state. It is kept in the catalog, and found
again at any provider when that is lost: among what the catalog does not know, objects small enough are looked at once.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Final

from blake3 import blake3

from replicator.catalog.objects import split_ids
from replicator.catalog.snapshots import SnapshotRow
from replicator.charter.verify import NO_PREVIOUS, signed_hash
from replicator.crypto.sign import Context, SigningKey, body_of, signer_of, verify
from replicator.engine.arrivals import Arrived, arrivals, remember_places
from replicator.engine.asking import ask_all
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link, Ticket, check_receipt, patiently
from replicator.engine.home import Half
from replicator.errors import (
    IntegrityError,
    KeyMissingError,
    MinimumNotMetError,
    NotFoundError,
    ReplicatorError,
    UsageError,
)
from replicator.format.codec import HASH_SIZE, encode
from replicator.format.container import Kind
from replicator.format.forget import Forget, KeptChain, KeptSnapshot, MovedPacks, SeenChain, read_forget
from replicator.format.merkle import name_of
from replicator.ids import Identity, ObjectName, short
from replicator.pack.sealed import open_object, seal_object

LARGEST_FORGET: Final = 4 << 20
"""Bytes of its object: larger ones are not looked at."""
_SIGNED, _OBJECTS, _OLD = "forget", "forget objects", "forget old objects"
_HIGHEST, _BESIDE = "forget highest", "forget moved beside"
MOST_LAPSED: Final = 1_000_000
"""Forgets that a key whose right is gone may be ahead: its holder must not use the numbers up."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The state that this home knows of. ``signed`` is empty while nothing was ever forgotten."""

    signed: bytes
    chains: Mapping[bytes, KeptChain]
    number: int = 0
    _kept: Mapping[bytes, frozenset[bytes]] = field(default_factory=dict)
    """The names in ``chains``, by writer: a listing asks for those of every snapshot."""
    view: Mapping[bytes, int] = field(default_factory=dict)
    gone: frozenset[bytes] = frozenset()
    moved: tuple[MovedPacks, ...] = ()
    highest: int = 0
    """The next one's number is above it."""
    said_ns: int = 0
    """When it was signed, by its signer's clock."""

    @classmethod
    def of(cls, half: Half) -> "Forgotten":
        """Return what a home's catalog has of it."""
        signed = half.catalog.meta(_SIGNED)
        beside = [
            MovedPacks(writer=one[:HASH_SIZE], index=one[HASH_SIZE:], packs=b"") for one in sorted(moved_beside(half))
        ]
        highest = int.from_bytes(half.catalog.meta(_HIGHEST) or b"", "big")
        if not signed:
            return cls(b"", {}, highest=highest, moved=tuple(beside))
        said = _said(signed)
        known = {one.index for one in said.moved}
        return replace(
            said,
            highest=max(said.number, highest),
            moved=(*said.moved, *(one for one in beside if one.index not in known)),
        )

    def supposing(self, chains: Iterable[KeptChain]) -> "Forgotten":
        """Return the state as it would be with other chains."""
        by_writer = {one.writer: one for one in chains}
        kept = {writer: frozenset(one.name for one in chain.kept) for writer, chain in by_writer.items()}
        return replace(self, chains=by_writer, _kept=kept)

    @property
    def replaced(self) -> frozenset[bytes]:
        """The names of packs whose needed chunks were put into others."""
        return frozenset(name for one in self.moved for name in split_ids(one.packs))

    def covers(self, writer: bytes, number: int) -> bool:
        """Return whether the snapshot of this number is forgotten, whatever its name."""
        chain = self.chains.get(writer)
        return chain is not None and number <= chain.upto and all(one.number != number for one in chain.kept)

    def hides(self, row: SnapshotRow) -> bool:
        """Return whether a snapshot is forgotten."""
        chain = self.chains.get(row.writer)
        return chain is not None and row.number <= chain.upto and row.name not in self._kept[row.writer]

    def kept(self, writer: bytes) -> list[KeptSnapshot]:
        """Return what is kept of the part of a chain that something was forgotten of."""
        chain = self.chains.get(writer)
        return chain.kept if chain else []


@lru_cache(maxsize=1)
def _said(signed: bytes) -> Forgotten:
    """Return what one Forget says. One of 100 000 packs takes 50 ms to take apart, and each look asks many times."""
    record = read_forget(body_of(signed))
    return Forgotten(
        signed,
        {one.writer: one for one in record.chains},
        record.number,
        {chain.writer: frozenset(one.name for one in chain.kept) for chain in record.chains},
        {one.writer: one.number for one in record.view},
        frozenset(split_ids(record.gone)),
        tuple(record.moved),
        record.number,
        record.created_ns,
    )


def moved_beside(half: Half) -> set[bytes]:
    """Return writers and indexes, joined, of what a Forget moved that is not the newest one's word.

    Its key has lost its right, or another one was said by somebody who had not heard of it. What it forgot does not
    count; which packs hold the chunks of others must not be lost with it. A reader only looks at further places.
    """
    joined = half.catalog.meta(_BESIDE) or b""
    return {joined[at : at + 2 * HASH_SIZE] for at in range(0, len(joined), 2 * HASH_SIZE)}


def look_beside_no_more(half: Half, index: bytes) -> None:
    """Forget an index that nobody has any more, if it is only looked at beside what was said last."""
    _set_beside(half, {one for one in moved_beside(half) if one[HASH_SIZE:] != index})


def _also_beside(half: Half, record: Forget) -> None:
    _set_beside(half, moved_beside(half) | {one.writer + one.index for one in record.moved})


def _set_beside(half: Half, entries: set[bytes]) -> None:
    if entries != moved_beside(half):
        half.catalog.set_meta(_BESIDE, b"".join(sorted(entries)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the next Forget is to say."""

    chains: list[KeptChain]
    view: Mapping[bytes, int]
    gone: Collection[bytes]
    moved: Collection[MovedPacks]


def with_chains(before: Forgotten, chains: list[KeptChain], needed: Collection[bytes] = ()) -> Draft:
    """Return the draft that changes which snapshots stay; packs that are ``needed`` again are not gone any more."""
    again = set(needed)
    return Draft(
        chains=chains,
        view=before.view,
        gone=before.gone - again,
        moved=[
            MovedPacks(writer=one.writer, index=one.index, packs=b"".join(sorted(set(split_ids(one.packs)) - again)))
            for one in before.moved
        ],
    )


def without_forgotten(half: Half, rows: Iterable[SnapshotRow]) -> list[SnapshotRow]:
    """Return the snapshots that are wanted."""
    forgotten = Forgotten.of(half)
    return [row for row in rows if not forgotten.hides(row)]


def next_chains(
    before: Mapping[bytes, KeptChain], rows: Iterable[SnapshotRow], *, drop: Collection[bytes], undo: Collection[bytes]
) -> list[KeptChain]:
    """Return the chains of the next Forget, which drops and takes back these snapshots, by name.

    ``rows`` are all that are known. A chain that nothing changes stays as it is.

    Raises:
        NotFoundError: a snapshot of a chain that would change is out of sight, and so might be forgotten unseen.
    """
    by_writer: dict[bytes, list[SnapshotRow]] = {}
    for row in rows:
        by_writer.setdefault(row.writer, []).append(row)
    found = dict(before)
    for writer, members in by_writer.items():
        here = {row.number: row.name for row in members}
        old = before.get(writer, KeptChain(writer=writer, upto=1, kept=[]))
        known_to = old.upto if writer in before else 0
        if not (set(here.values()) & {*drop, *undo}):
            continue
        upto = max(known_to, *here)
        missing = [number for number in range(known_to + 1, upto + 1) if number not in here]
        if missing:
            raise NotFoundError(
                f"snapshot {missing[0]} of {short(writer)} is out of sight, so nothing is forgotten of this chain",
                hint="when more peers answer, try again; `status` says which do not",
            )
        kept = {one.number: one.name for one in old.kept if one.name not in drop}
        kept |= {number: name for number, name in here.items() if number > known_to and name not in drop}
        kept |= {number: name for number, name in here.items() if name in undo}
        found[writer] = KeptChain(
            writer=writer, upto=upto, kept=[KeptSnapshot(number=number, name=kept[number]) for number in sorted(kept)]
        )
    return [found[writer] for writer in sorted(found)]


def maintenance_keys(half: Half) -> list[bytes]:
    """Return the public keys that may forget."""
    return [
        right.holder_key for right in half.charter.charter.rights if right.role == "maintainer" and not right.revoked
    ]


async def learn(half: Half, federation: Federation) -> bool:
    """Look for a newer Forget among what arrived at providers; return whether there was one.

    Providers that lack the newest one are given it. Nothing in here raises for a peer's fault.
    """
    fresh = await arrivals(half, federation, largest=LARGEST_FORGET, able=able(half))
    changed, owed = await _look(half, federation, fresh)
    remember_places(half, fresh, but=owed)
    for identity, one in fresh.items():
        note_there(half, identity, one.names)
    await spread(half, federation)
    return changed


def able(half: Half) -> bytes:
    """Return a hash of what this release reads, whose signature counts, and which keys this home has.

    Of keys the epochs: no secret goes into it.
    """
    reads = (Forget.__struct_config__.tag, LARGEST_FORGET)
    epochs = [(domain, sorted(half.keys(domain).index_keys)) for domain in sorted(half.domain_ids)]
    return blake3(repr((reads, epochs, sorted(maintenance_keys(half)))).encode()).digest()


async def _look(half: Half, federation: Federation, fresh: Mapping[Identity, Arrived]) -> tuple[bool, set[Identity]]:
    """Look at what is new; return whether a Forget was, and which providers have something that could not be read."""
    told: dict[ObjectName, list[Identity]] = {}
    for identity, one in fresh.items():
        for name in one.names:
            told.setdefault(name, []).append(identity)
    changed, owed = False, set[Identity]()
    known = {*records_in_force(half), *old_objects(half)}
    for name in sorted(told.keys() - known):
        try:
            data = await federation.fetch(name, told[name])
        except NotFoundError as error:
            federation.notices.append(str(error))
            owed.update(one for one in told[name] if (one, name) not in federation.denied)
            continue
        signed = _opened(half, data)
        if signed:
            changed |= _adopt(half, federation, name, signed)
    return changed, owed


def _opened(half: Half, data: bytes) -> bytes:
    """Return the signed Forget in an object, empty if it is something else."""
    for domain in half.domain_ids:
        try:
            return open_object(data, Kind.FORGET, half.keys(domain))
        except ReplicatorError:
            continue  # a charter of old, a snapshot that nothing names, another domain's
    return b""


def _adopt(half: Half, federation: Federation, name: ObjectName, signed: bytes) -> bool:
    """Take a Forget over if it is the newest; return whether it was new."""
    before = Forgotten.of(half)
    try:
        if signer_of(signed) in half.charter.maintainer_keys() and signer_of(signed) not in maintenance_keys(half):
            return _adopt_lapsed(half, signed)
        record = read_forget(verify(signed, Context.FORGET, maintenance_keys(half)))
        if record.tenant != half.tenant:
            raise IntegrityError("forget: of another tenant")
    except ReplicatorError as error:
        federation.notices.append(f"object {short(name)} does not count: {error}")
        return False
    catalog = half.catalog
    if signed == before.signed:
        catalog.set_meta(_OBJECTS, b"".join(sorted({*_objects(half), name})))
        return False
    if record.number == before.number:
        federation.notices.append(
            f"two maintainers forgot at the same time (number {record.number}); what only one of them meant may be "
            "listed again: run `forget` once more"
        )
    if (record.number, _lower_first(signed)) <= (before.number, _lower_first(before.signed)):
        _also_beside(half, record)  # an ancestor, or said by somebody who had not heard of it
        note_old(half, [name])
        return False
    with catalog.database.transaction("forget row"):
        if before.signed and record.previous != signed_hash(before.signed):
            _also_beside(half, read_forget(body_of(before.signed)))  # it may have been said without knowing that
        note_old(half, _objects(half))
        catalog.set_meta(_SIGNED, signed)
        catalog.set_meta(_OBJECTS, name)
    return True


def _adopt_lapsed(half: Half, signed: bytes) -> bool:
    """Keep what a key moved whose right is gone; return whether it is news."""
    record = read_forget(verify(signed, Context.FORGET, half.charter.maintainer_keys()))
    if record.tenant != half.tenant:
        raise IntegrityError("forget: of another tenant")
    ahead = record.number - Forgotten.of(half).highest
    if ahead > MOST_LAPSED:
        return False
    before = moved_beside(half)
    if ahead > 0:
        half.catalog.set_meta(_HIGHEST, record.number.to_bytes(8, "big"))
    _also_beside(half, record)  # a lower number too: who said the higher one may not have heard of it
    return ahead > 0 or moved_beside(half) != before


def records_in_force(half: Half) -> set[bytes]:
    """Return the names of what every provider has: the charter, its keybag, and objects of the newest Forget."""
    return {half.charter_object()[0], half.charter.charter.keybag, *_objects(half)}


def old_objects(half: Half) -> set[bytes]:
    """Return the names of objects that hold an earlier Forget, which nobody needs any more."""
    return set(split_ids(half.catalog.meta(_OLD) or b""))


def drop_old(half: Half, names: Collection[bytes]) -> None:
    """Remember no more of earlier Forgets that no provider has any longer."""
    half.catalog.set_meta(_OLD, b"".join(sorted(old_objects(half) - set(names))))


def note_old(half: Half, names: Collection[bytes]) -> None:
    """Remember objects that nobody needs any more and no catalog lists, for `prune` to mark."""
    before = old_objects(half)
    if not before.issuperset(names):
        half.catalog.set_meta(_OLD, b"".join(sorted(before | set(names))))


def _lower_first(signed: bytes) -> int:
    return -int.from_bytes(signed_hash(signed), "big")


async def spread(half: Half, federation: Federation) -> None:
    """Give the newest Forget to every provider that is not known to have it."""
    lacking = {link.identity: names for link in federation.links.values() if (names := lacks(half, link.identity))}
    data: dict[bytes, bytes] = {}
    for name in sorted({name for names in lacking.values() for name in names}):
        try:
            data[name] = await federation.fetch(ObjectName(name), _holders(half, name))
        except NotFoundError as error:
            federation.notices.append(f"what is forgotten cannot be handed on: {error}")
            return
    wanted = {identity: {name: data[name] for name in names} for identity, names in lacking.items()}
    for identity in await _give(half, federation, wanted):
        note_there(half, identity, wanted[identity])


async def _give(
    half: Half, federation: Federation, objects: Mapping[Identity, Mapping[bytes, bytes]]
) -> list[Identity]:
    """Store objects at providers; return those that took all of them."""

    async def put(link: Link) -> None:
        for name, data in objects[link.identity].items():
            receipt = await patiently(federation.edge, partial(link.connection.put, ObjectName(name), data))
            check_receipt(receipt, link, half.tenant, name, len(data))

    answers = await ask_all([federation.links[one] for one in objects if one in federation.links], put)
    federation.notices += [f"does not get what is forgotten: {reason}" for reason in answers.reasons()]
    return list(answers.given)


def lacks(half: Half, identity: Identity) -> list[bytes]:
    """Return what of the newest Forget a provider is not known to have, in the store that it has now."""
    there = known_there(half, identity)
    return [name for name in _objects(half) if name not in there]


def note_there(half: Half, identity: Identity, names: Iterable[bytes], *, gone: Iterable[bytes] = ()) -> None:
    """Remember that a provider has objects, of which those of the newest Forget count; ``gone``: not any more."""
    before = known_there(half, identity)
    after = ((before | set(names)) - set(gone)) & set(_objects(half))
    if after != before:
        half.catalog.set_meta(_where(identity), b"".join((_incarnation(half, identity), *sorted(after))))


def known_there(half: Half, identity: Identity) -> set[bytes]:
    """Return what of the newest Forget a provider announced or signed for, in the store that it has now."""
    kept, incarnation = half.catalog.meta(_where(identity)) or b"", _incarnation(half, identity)
    if not incarnation or kept[: len(incarnation)] != incarnation:
        return set()
    return set(split_ids(kept[len(incarnation) :]))


def _holders(half: Half, name: bytes) -> list[Identity]:
    return [identity for pin in half.peers if name in known_there(half, identity := Identity(pin.identity))]


def _incarnation(half: Half, identity: Identity) -> bytes:
    return half.catalog.peers.get(identity).incarnation


def _where(identity: Identity) -> str:
    return f"forget at {identity.hex()}"


async def say(
    half: Half, federation: Federation, edge: Edge, key: SigningKey, draft: Callable[[Forgotten], Draft]
) -> Forget:
    """Sign the next Forget and store it at every provider that answers; return it.

    Call :func:`learn` before: the next one follows the newest.

    Raises:
        KeyMissingError: this home lacks the index keys of a domain, or the charter gives the key no such right.
        MinimumNotMetError: fewer providers took it than the strongest policy's minimum.
        UsageError: it would be larger than providers' listings are searched for.
    """
    if key.public not in maintenance_keys(half):
        raise KeyMissingError("the charter gives this maintenance key no right of a maintainer")
    lacking = {one.id for one in half.private.domains} - {*half.domain_ids}
    if lacking:
        raise KeyMissingError(
            "this home lacks the index keys of a domain, whose members could not read what is forgotten"
        )
    before = Forgotten.of(half)
    said = draft(before)
    record = Forget(
        tenant=half.tenant,
        number=before.highest + 1,
        previous=signed_hash(before.signed) if before.signed else NO_PREVIOUS,
        chains=said.chains,
        view=[SeenChain(writer=writer, number=said.view[writer]) for writer in sorted(said.view)],
        gone=b"".join(sorted(set(said.gone))),
        moved=sorted(said.moved, key=lambda one: one.index),
        created_ns=edge.clock.now_ns(),
    )
    await _store(half, federation, edge, key.sign(Context.FORGET, encode(record)))
    return record


def is_owed(half: Half) -> bool:
    """Return whether fewer providers than the strongest policy's minimum are known to have the newest Forget."""
    known = sum(not lacks(half, Identity(pin.identity)) for pin in half.peers)
    return bool(Forgotten.of(half).signed) and known < _minimum(half)


async def say_again(half: Half, federation: Federation, edge: Edge) -> None:
    """Store the newest Forget once more, sealed anew: who has it may be away.

    Raises:
        MinimumNotMetError: fewer providers took it than the strongest policy's minimum.
    """
    await _store(half, federation, edge, Forgotten.of(half).signed)


async def _store(half: Half, federation: Federation, edge: Edge, signed: bytes) -> None:
    sealed = [seal_object(Kind.FORGET, signed, half.keys(domain), edge.rng) for domain in half.living_ids]
    if any(len(data) > LARGEST_FORGET for data in sealed):
        raise UsageError(
            "too many snapshots are kept beside forgotten ones", hint="forget more of them, or fewer at once"
        )
    objects: dict[bytes, bytes] = {name_of(data): data for data in sealed}
    taken = await _give(half, federation, dict.fromkeys(federation.links, objects))
    if taken:  # it can be found from now on, so this home must not know less
        with half.catalog.database.transaction("forget row"):
            note_old(half, _objects(half))
            _set_beside(half, set())  # the draft was made with these in sight
            half.catalog.set_meta(_SIGNED, signed)
            half.catalog.set_meta(_OBJECTS, b"".join(sorted(objects)))
            for identity in taken:
                note_there(half, identity, objects)
    minimum = _minimum(half)
    if len(taken) < minimum:
        raise MinimumNotMetError(
            f"{len(taken)} of at least {minimum} providers know now what is forgotten",
            hint="nothing was deleted: run again when more peers answer",
        )


def _minimum(half: Half) -> int:
    """Return how many providers have to know what is forgotten."""
    minimum = max((one.minimum for one in half.catalog.datasets.policies().values()), default=1)
    return min(minimum, max(1, len(half.peers)))


async def say_anew(half: Half, edge: Edge, key: SigningKey, ticket: Ticket | None = None) -> list[str]:
    """Say again, with a key that counts, what one said that counts no more; return what could not be told to whom."""
    if not Forgotten.of(half).signed:
        return []
    async with Federation(half, edge, ticket=ticket) as federation:
        try:
            await say(half, federation, edge, key, lambda before: with_chains(before, list(before.chains.values())))
        except ReplicatorError as error:
            federation.notices.append(f"what is forgotten is not said anew: {error}; the next `prune` does it")
        return federation.notices


def _objects(half: Half) -> list[bytes]:
    """Return the names of the objects, one a domain, that hold the newest Forget."""
    return split_ids(half.catalog.meta(_OBJECTS) or b"")
