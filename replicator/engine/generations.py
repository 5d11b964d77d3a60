"""Restore keys one after another: a new one for what is written from now on, the one before sealed to it for the rest.

The charter has each former private key sealed to its successor, so who holds the newest, from a wrapped file or from
the keybag, opens all before it. Never imported by a node's night.
"""

import msgspec

from replicator.crypto.seal import PURPOSE_RESTORE, seal_to
from replicator.crypto.unseal import public_of, unseal
from replicator.errors import KeyWrongError
from replicator.format.charter import CharterPrivate, FormerRestore
from replicator.format.keybag import DomainSecrets
from replicator.rng import Rng

RESTORE_KEY = 32


def formers_of(private: CharterPrivate, domain: bytes, restore_private: bytes) -> list[tuple[bytes, bytes]]:
    """Return (public, private) of the restore keys before this one, the last first.

    What does not open is passed over: anybody with the owner key can write such a part of a charter.
    """
    found: list[tuple[bytes, bytes]] = []
    held = [restore_private]
    for successor in held:
        public = public_of(successor)
        for one in private.formers:
            if (one.domain, one.successor) != (domain, public):
                continue
            try:
                former = unseal(successor, one.sealed, PURPOSE_RESTORE, "former restore key")
            except KeyWrongError:
                continue
            if len(former) == RESTORE_KEY and public_of(former) == one.restore_key and former not in held:
                held.append(former)
                found.append((one.restore_key, former))
    return found


def next_generation(
    secrets: DomainSecrets, private: CharterPrivate, rng: Rng, now_ns: int
) -> tuple[DomainSecrets, CharterPrivate]:
    """Return a domain with another restore key, and the charter's private part that names it and keeps the former."""
    fresh = rng.bytes(RESTORE_KEY)
    public = public_of(fresh)
    former = FormerRestore(
        domain=secrets.id,
        restore_key=public_of(secrets.restore_private),
        successor=public,
        until_ns=now_ns,
        sealed=seal_to(public, secrets.restore_private, PURPOSE_RESTORE),
    )
    domains = [
        msgspec.structs.replace(one, restore_key=public) if one.id == secrets.id else one for one in private.domains
    ]
    return (
        msgspec.structs.replace(secrets, restore_private=fresh),
        msgspec.structs.replace(private, domains=domains, formers=[*private.formers, former]),
    )
