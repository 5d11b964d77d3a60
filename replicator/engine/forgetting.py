"""What is forgotten: learning it from providers' listings, saying it to all of them.

The newest signed :class:`~replicator.format.forget.Forget` is the whole state. It is kept in the catalog, and found
again in any provider's listing when that is lost: among what the catalog does not know, objects small enough are
looked at once.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from replicator.catalog.objects import split_ids
from replicator.catalog.snapshots import SnapshotRow
from replicator.charter.verify import NO_PREVIOUS, signed_hash
from replicator.crypto.sign import Context, SigningKey, body_of, signer_of, verify
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link, Ticket, check_receipt, inventory_pages, patiently
from replicator.engine.home import Half
from replicator.errors import (
    IntegrityError,
    KeyMissingError,
    MinimumNotMetError,
    NotFoundError,
    PeerError,
    ReplicatorError,
    UsageError,
)
from replicator.format.codec import encode
from replicator.format.container import Kind
from replicator.format.forget import Forget, KeptChain, KeptSnapshot, MovedPacks, SeenChain, read_forget
from replicator.format.merkle import name_of
from replicator.ids import Identity, ObjectName, short
from replicator.pack.sealed import open_object, seal_object

LARGEST_FORGET: Final = 4 << 20
"""Bytes of its object: larger ones in a listing are not looked at."""
_SIGNED, _OBJECTS, _OLD, _LOOKED_AT = "forget", "forget objects", "forget old objects", "forget looked at 2"
_LAPSED = "forget lapsed"
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
        record = read_forget(body_of(signed)) if signed else None
        lapsed = _lapsed(half, record)
        if not signed or record is None:
            return cls(b"", {}) if lapsed is None else cls(b"", {}, highest=lapsed.number, moved=_merged([], lapsed))
        kept = {chain.writer: frozenset(one.name for one in chain.kept) for chain in record.chains}
        return cls(
            signed,
            {one.writer: one for one in record.chains},
            record.number,
            kept,
            {one.writer: one.number for one in record.view},
            frozenset(split_ids(record.gone)),
            tuple(record.moved) if lapsed is None else _merged(record.moved, lapsed),
            record.number if lapsed is None else lapsed.number,
            record.created_ns,
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


def _lapsed(half: Half, record: Forget | None) -> Forget | None:
    """Return the newest Forget of a key whose right is gone, if it is ahead of what counts.

    What it forgot does not count. What it moved is only told here, and must not be lost with the key: which packs hold
    the chunks of old ones.
    """
    signed = half.catalog.meta(_LAPSED)
    found = read_forget(body_of(signed)) if signed else None
    return found if found is not None and (record is None or found.number > record.number) else None


def _merged(moved: Collection[MovedPacks], lapsed: Forget) -> tuple[MovedPacks, ...]:
    """Return what was moved, with the indexes of a Forget that does not count: further places to look at."""
    known = {one.index for one in moved}
    more = [MovedPacks(writer=one.writer, index=one.index, packs=b"") for one in lapsed.moved if one.index not in known]
    return (*moved, *more)


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
    """Look for a newer Forget in every provider's listing; return whether there was one.

    Providers that lack the newest one are given it. Nothing in here raises for a peer's fault.
    """
    listed: dict[Identity, set[bytes]] = {}
    small: dict[bytes, Identity] = {}
    for link in list(federation.links.values()):
        try:
            listed[link.identity] = await _list(link, small)
        except PeerError as error:
            federation.notices.append(str(error))  # it may still give what a restore needs
    changed = await _look(half, federation, small, whole=len(listed) == len(half.peers))
    await _spread(half, federation, listed)
    return changed


async def _list(link: Link, small: dict[bytes, Identity]) -> set[bytes]:
    """Return the names that a provider lists; note those of objects that are small enough, with who has them."""
    found: set[bytes] = set()
    async for page in inventory_pages(link):
        names = split_ids(page.names)
        found.update(names)
        for name, size in zip(names, page.sizes, strict=False):
            if size <= LARGEST_FORGET:
                small.setdefault(name, link.identity)
    return found


async def _look(half: Half, federation: Federation, small: Mapping[bytes, Identity], *, whole: bool) -> bool:
    """Look at what is new; ``whole``: all providers listed, and what none of them has need not be remembered."""
    catalog = half.catalog
    before = catalog.meta(_LOOKED_AT) or b""
    changed = False
    looked_at = set(split_ids(before))
    if whole:
        looked_at &= small.keys()
    known = looked_at | {half.charter_object()[0], half.charter.charter.keybag}
    for name in sorted(catalog.objects.unknown(small.keys() - known)):
        try:
            data = await federation.fetch(ObjectName(name), [small[name]])
        except NotFoundError as error:
            federation.notices.append(str(error))
            continue
        looked_at.add(name)
        signed = _opened(half, data)
        if signed:
            changed |= _adopt(half, federation, ObjectName(name), signed)
    after = b"".join(sorted(looked_at))
    if after != before:  # a listing that shows nothing new costs no commit
        catalog.set_meta(_LOOKED_AT, after)
    return changed


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
        _note_old(half, [name])
        return False
    with catalog.database.transaction("forget row"):
        _note_old(half, _objects(half))
        catalog.set_meta(_SIGNED, signed)
        catalog.set_meta(_OBJECTS, name)
    return True


def _adopt_lapsed(half: Half, signed: bytes) -> bool:
    """Keep what a key moved whose right is gone; return whether it is news."""
    record = read_forget(verify(signed, Context.FORGET, half.charter.maintainer_keys()))
    if record.tenant != half.tenant:
        raise IntegrityError("forget: of another tenant")
    if not record.moved or not 0 < record.number - Forgotten.of(half).highest <= MOST_LAPSED:
        return False
    half.catalog.set_meta(_LAPSED, signed)
    return True


def old_objects(half: Half) -> set[bytes]:
    """Return the names of objects that hold an earlier Forget, which nobody needs any more."""
    return set(split_ids(half.catalog.meta(_OLD) or b""))


def drop_old(half: Half, names: Collection[bytes]) -> None:
    """Remember no more of earlier Forgets that no provider has any longer."""
    half.catalog.set_meta(_OLD, b"".join(sorted(old_objects(half) - set(names))))


def _note_old(half: Half, names: Collection[bytes]) -> None:
    before = old_objects(half)
    if not before.issuperset(names):
        half.catalog.set_meta(_OLD, b"".join(sorted(before | set(names))))


def _lower_first(signed: bytes) -> int:
    return -int.from_bytes(signed_hash(signed), "big")


async def _spread(half: Half, federation: Federation, listed: Mapping[Identity, set[bytes]]) -> None:
    for name in _objects(half):
        for identity, names in listed.items():
            link = federation.links.get(identity)
            if link is None or name in names:
                continue
            try:
                data = await federation.fetch(ObjectName(name), [one for one in listed if name in listed[one]])
                await patiently(federation.edge, partial(link.connection.put, ObjectName(name), data))
            except (PeerError, NotFoundError) as error:
                federation.notices.append(f"{link.pin.name}: does not get what is forgotten: {error}")


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
    signed = key.sign(Context.FORGET, encode(record))
    sealed = [seal_object(Kind.FORGET, signed, half.keys(domain), edge.rng) for domain in half.domain_ids]
    if any(len(data) > LARGEST_FORGET for data in sealed):
        raise UsageError(
            "too many snapshots are kept beside forgotten ones", hint="forget more of them, or fewer at once"
        )
    objects = {name_of(data): data for data in sealed}
    taken = 0
    for link in list(federation.links.values()):
        try:
            for name, data in objects.items():
                receipt = await patiently(edge, partial(link.connection.put, name, data))
                check_receipt(receipt, link, half.tenant, name, len(data))
        except PeerError as error:
            federation.notices.append(f"{link.pin.name}: does not get what is forgotten: {error}")
            continue
        taken += 1
    if taken:  # it can be found from now on, so this home must not know less
        with half.catalog.database.transaction("forget row"):
            _note_old(half, _objects(half))
            half.catalog.set_meta(_SIGNED, signed)
            half.catalog.set_meta(_OBJECTS, b"".join(sorted(objects)))
    minimum = max((one.minimum for one in half.catalog.datasets.policies().values()), default=1)
    if taken < min(minimum, max(1, len(half.peers))):
        raise MinimumNotMetError(
            f"{taken} of at least {minimum} providers know now what is forgotten",
            hint="nothing was deleted: run again when more peers answer",
        )
    return record


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
