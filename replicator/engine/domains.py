"""Domains: inside one, chunks are shared; each has a restore key of its own, and can be read or erased alone."""

from dataclasses import dataclass

import msgspec

from replicator.crypto.unseal import public_of
from replicator.engine.edge import Edge
from replicator.engine.handing import handed_to
from replicator.engine.home import Half
from replicator.engine.keeper import DOMAIN_LABEL, KeeperHome, domain_file, wrapped_record
from replicator.engine.members import catch_up, spread_charter
from replicator.engine.tenant import new_domain, seal_keybag
from replicator.errors import UsageError
from replicator.format.charter import DomainPublic, Right
from replicator.format.codec import encode
from replicator.format.keybag import DomainKeyFile, DomainSecrets
from replicator.fs import write_atomic
from replicator.pack.keys import as_writer

_TOLD = ("keeper", "node", "maintainer")
"""Who is given a domain that comes later. A drill host wraps restore keys itself, when it joins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainAdded:
    """A new domain, and what could not be told to whom."""

    id: bytes
    name: str
    notices: list[str]


async def add_domain(keeper: KeeperHome, siblings: list[Half], edge: Edge, name: str) -> DomainAdded:
    """Make a domain: its keys go into this home, the keybag, and to every node and maintainer by the next charter.

    Raises:
        UsageError: there is one of that name.
        KeyWrongError: the passphrase is wrong.
    """
    await catch_up(keeper, edge)
    if any(one.name == name for one in keeper.private.domains):
        raise UsageError(f"there is a domain '{name}' already", hint="choose another name")
    if any(one.name == name for one in keeper.private.erased):
        raise UsageError(f"a domain '{name}' was erased", hint="choose another name")
    secrets = _kept(keeper, edge, name)
    bag = keeper.keybag()
    public = DomainPublic(id=secrets.id, name=name, restore_key=public_of(secrets.restore_private), epoch=1)
    private = msgspec.structs.replace(keeper.private, domains=[*keeper.private.domains, public])
    rights = [_with(right, secrets.id) for right in keeper.charter.charter.rights]
    handed = handed_to(
        *(rights, bag.domains, private.domains, keeper.owner()), tenant=keeper.tenant, formers=keeper.former_restores()
    )
    data = keeper.write_charter(
        edge,
        private=msgspec.structs.replace(private, handed=handed),
        rights=rights,
        keybag_data=seal_keybag(bag, keeper.charter.root.root_seal_key, edge.rng, keeper.successor_seal_key()),
    )
    return DomainAdded(id=secrets.id, name=name, notices=await spread_charter(keeper, siblings, edge, data))


def _with(right: Right, domain: bytes) -> Right:
    if right.revoked or right.role not in _TOLD:
        return right
    return msgspec.structs.replace(right, domains=[*right.domains, domain])


def _kept(keeper: KeeperHome, edge: Edge, name: str) -> DomainSecrets:
    """Return a new domain's secrets, which are in this home now, so that every keybag from here on has them.

    Of one that was stopped before any charter spoke of it, they are here already.
    """
    named = {one.id for one in keeper.private.domains}
    for one in keeper.member.domains:
        if one.name == name and one.id not in named:
            return keeper.domain_secrets(one.id)
    secrets = new_domain(name, edge.rng)
    body = encode(DomainKeyFile(secrets=secrets))
    data = wrapped_record(keeper.passphrase(), body, DOMAIN_LABEL + secrets.id, edge.rng, keeper.cost())
    write_atomic(edge.fs, keeper.file(domain_file(secrets.id)), data)
    keeper.add_domain(as_writer(secrets, public_of(secrets.restore_private)))
    return secrets
