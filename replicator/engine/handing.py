"""What a charter hands to members beside their rights: index keys of new epochs, enrol orders of a new owner, notes."""

from collections.abc import Iterable, Sequence

import msgspec

from replicator.crypto.handing import hand
from replicator.crypto.sign import Context, SigningKey
from replicator.format.charter import CharterPrivate, DomainPublic, EnrolOrder, HandedKeys, KeyNote, Right
from replicator.format.codec import encode
from replicator.format.keybag import DomainSecrets, IndexDomain, IndexKey, MemberKeys, encode_member_keys
from replicator.ids import Identity, identity_of
from replicator.pack.keys import as_writer
from replicator.rng import Rng

EPOCH_KEY = 32


def enrol_order(signer: SigningKey, holder_key: bytes) -> bytes:
    """Return an order by owner, or root, that gives the holder of a key certificates, for ever."""
    return signer.sign(Context.ENROL_ORDER, encode(EnrolOrder(holder_key=holder_key, expires_ns=0)))


def next_epoch(secrets: DomainSecrets, rng: Rng, used: int = 0) -> DomainSecrets:
    """Return a domain with one more index key, under which everything is written from now on.

    ``used``: the last epoch that others write under, if its key may not be here.
    """
    epoch = max(used, *(one.epoch for one in secrets.index_keys)) + 1
    fresh = IndexKey(epoch=epoch, key=rng.bytes(EPOCH_KEY))
    return msgspec.structs.replace(secrets, index_keys=[*secrets.index_keys, fresh])


def handed_to(
    rights: Iterable[Right], domains: Sequence[DomainSecrets], publics: Sequence[DomainPublic], owner: SigningKey
) -> list[HandedKeys]:
    """Return, for each key that has a right, the index keys of its domains and an order to enrol with, sealed to it.

    A domain of which no charter speaks yet is nobody's.
    """
    restore_keys = {one.id: one.restore_key for one in publics}
    domains = [one for one in domains if one.id in restore_keys]
    found = []
    for right in rights:
        if right.revoked:
            continue
        keys = MemberKeys(
            domains=[
                IndexDomain(id=one.id, name=one.name, restore_key=restore_keys[one.id], index_keys=one.index_keys)
                for one in domains
                if one.id in right.domains
            ],
            # A keeper makes its own with the owner key, when it is needed.
            ticket=b"" if right.role == "keeper" else enrol_order(owner, right.holder_key),
            writing=[
                as_writer(one, restore_keys[one.id])
                for one in (domains if right.role == "node" and len(domains) > 1 else ())
                if one.id in right.domains
            ],
        )
        identity = identity_of(right.holder_key)
        found.append(HandedKeys(identity=identity, sealed=hand(right.holder_key, encode_member_keys(keys))))
    return found


def with_epochs(private: CharterPrivate, domains: Iterable[DomainSecrets]) -> CharterPrivate:
    """Return the private part with the epochs that are written under now."""
    newest = {one.id: max(key.epoch for key in one.index_keys) for one in domains}
    publics = [msgspec.structs.replace(one, epoch=newest.get(one.id, one.epoch)) for one in private.domains]
    return msgspec.structs.replace(private, domains=publics)


def noted(private: CharterPrivate, identity: Identity, name: str, now_ns: int) -> CharterPrivate:
    """Return the private part with a note of a key that has a right from now on."""
    others = [note for note in private.notes if note.identity != identity]
    note = KeyNote(identity=identity, name=name, added_ns=now_ns, revoked_ns=0)
    return msgspec.structs.replace(private, notes=[*others, note])


def noted_revoked(private: CharterPrivate, identities: Iterable[bytes], now_ns: int) -> CharterPrivate:
    """Return the private part with notes of keys that have no right from now on, and nothing handed to them."""
    gone = set(identities)
    known = {note.identity: note for note in private.notes}
    names = {node.identity: node.name for node in private.nodes}
    notes = [note for note in private.notes if note.identity not in gone]
    for identity in sorted(gone):
        note = known.get(identity) or KeyNote(
            identity=identity, name=names.get(identity, identity.hex()[:12]), added_ns=0, revoked_ns=0
        )
        notes.append(note if note.revoked_ns else msgspec.structs.replace(note, revoked_ns=now_ns))
    handed = [one for one in private.handed if one.identity not in gone]
    return msgspec.structs.replace(private, notes=notes, handed=handed)


def name_of_key(private: CharterPrivate, identity: bytes) -> str:
    """Return what people call the holder of a key, the beginning of its identity if nobody does."""
    for note in private.notes:
        if note.identity == identity:
            return note.name
    return next((node.name for node in private.nodes if node.identity == identity), identity.hex()[:12])


def free_name(wanted: str, private: CharterPrivate) -> str:
    """Return a name that no key with a note and no node has, as near to the wanted one as can be."""
    taken = {node.name for node in private.nodes} | {note.name for note in private.notes}
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted[:60]}-{number}", number + 1
    return name
