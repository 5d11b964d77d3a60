"""Joining: a keeper adds providers and nodes; a second machine asks to become a node."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from replicator.charter.verify import verify_charter
from replicator.clock import NS, SKEW_S
from replicator.crypto.seal import PURPOSE_GRANT, seal_to
from replicator.crypto.sign import Context, SigningKey, verify
from replicator.crypto.unseal import public_of, unseal
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, read_offer
from replicator.engine.home import Half, create_half, has_half, read_private_file
from replicator.engine.keeper import KeeperHome, record_object
from replicator.engine.tenant import right_of
from replicator.errors import HomeError, IntegrityError, KeyWrongError, NotFoundError, ProtocolError, UsageError
from replicator.format.charter import NodeName, PeerPin, Right
from replicator.format.codec import decode, encode
from replicator.format.codes import code_kind, read_code, write_code
from replicator.format.keybag import MemberFile, NodeGrant, NodeRequest, PeerAddress
from replicator.format.offer import Invite
from replicator.fs import write_atomic
from replicator.ids import Identity, identity_of, root_fingerprint, short
from replicator.transport.base import Target
from replicator.wire.messages import EnrolRequest

REQUEST_FILE = "request.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAdded:
    """A new peer, and what could not be told to whom."""

    pin: PeerPin
    quota: int
    notices: list[str]


async def add_peer(
    keeper: KeeperHome, siblings: list[Half], edge: Edge, code: str, *, name: str | None, own: bool
) -> PeerAdded:
    """Use an invite: enrol with the provider, pin it in a new charter, hand that to every reachable peer.

    ``siblings`` are other halves of the same home, which take the charter at once.

    Raises:
        KeyWrongError: not an invite, damaged, expired; or the passphrase is wrong.
        PeerError: the provider does not answer, or refuses the invite.
    """
    invite = decode(Invite, read_code("invite", code))
    if edge.clock.now_ns() > invite.expires_ns + SKEW_S * NS:
        raise KeyWrongError("this invite has expired", hint="ask the provider for a new one (`provider invite`)")
    await catch_up(keeper, edge)
    identity = Identity(invite.identity)
    known = next((pin for pin in keeper.peers if pin.identity == identity), None)
    target = Target(
        identity=identity,
        name=name or (known.name if known else short(identity)),
        endpoints=tuple(invite.endpoints),
        key=keeper.signing,
        certificate=None,
    )
    request = EnrolRequest(
        holder_key=keeper.signing.public, secret=invite.secret, order=b"", root=keeper.charter.charter.root
    )
    reply = await edge.network.enrol(target, request)
    if reply.tenant != keeper.tenant:
        raise ProtocolError(target.name, "enrolled us under another tenant")
    offer = read_offer(reply.offer, target)
    pin = PeerPin(
        identity=identity,
        name=name or (known.name if known else _free_name(keeper.peers, offer.owner, offer.site)),
        owner=offer.owner,
        site=offer.site,
        region=offer.region,
        country=offer.country,
        endpoints=list(dict.fromkeys((*offer.endpoints, *invite.endpoints))),
        own=own,
        added_ns=edge.clock.now_ns(),
    )
    if any(other.name == pin.name and other.identity != identity for other in keeper.peers):
        raise UsageError(f"there is a peer called '{pin.name}' already", hint="give another --name")
    row = keeper.catalog.peers.get(identity)
    keeper.catalog.peers.put(replace(row, certificate=reply.certificate, endpoints=tuple(pin.endpoints)))
    others = [other for other in keeper.peers if other.identity != identity]
    data = keeper.write_charter(edge, private=keeper.with_peers([*others, pin]))
    notices = await spread_charter(keeper, siblings, edge, data)
    return PeerAdded(pin=pin, quota=invite.quota, notices=notices)


async def remove_peer(keeper: KeeperHome, siblings: list[Half], edge: Edge, name: str) -> list[str]:
    """Take a provider out of the charter. What it holds is not deleted, and no longer counted."""
    await catch_up(keeper, edge)
    pin = keeper.peer(name)
    others = [other for other in keeper.peers if other.identity != pin.identity]
    data = keeper.write_charter(edge, private=keeper.with_peers(others))
    return await spread_charter(keeper, siblings, edge, data)


async def set_peer(
    keeper: KeeperHome, siblings: list[Half], edge: Edge, name: str, changes: Mapping[str, object]
) -> tuple[PeerPin, list[str]]:
    """Pin other labels for a provider than it claims; return the pin and what could not be told to whom."""
    await catch_up(keeper, edge)
    pin = keeper.peer(name)
    changed = msgspec.structs.replace(pin, **changes)
    pins = [changed if other.identity == pin.identity else other for other in keeper.peers]
    data = keeper.write_charter(edge, private=keeper.with_peers(pins))
    return changed, await spread_charter(keeper, siblings, edge, data)


async def catch_up(keeper: KeeperHome, edge: Edge) -> None:
    """Take the newest charter that any peer has before the next one is written: another keeper may have been at work.

    Raises:
        KeyWrongError: the passphrase is wrong; nobody was asked.
    """
    keeper.owner()
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket):
        pass


async def spread_charter(keeper: KeeperHome, siblings: list[Half], edge: Edge, data: bytes) -> list[str]:
    """Hand the keeper's newest charter to the other halves of its home and to every reachable peer."""
    for half in siblings:
        keybag = keeper.keybag_object()
        if half.adopt_charter(data) and keybag is not None:
            half.adopt_keybag(keybag[1])
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        return [*federation.notices, *federation.integrity, *(str(error) for error in federation.failures.values())]


def _free_name(peers: list[PeerPin], owner: str, site: str) -> str:
    taken = {pin.name for pin in peers}
    for candidate in (owner, f"{owner}-{site}"):
        if candidate[:64] not in taken:
            return candidate[:64]
    number = 2
    while f"{owner[:60]}-{number}" in taken:
        number += 1
    return f"{owner[:60]}-{number}"


def request_node(home: str, edge: Edge, *, name: str) -> str:
    """Begin a node half in ``home`` and return the code that a keeper signs. Needs and makes no tenant secret.

    Asking again gives the same code.

    Raises:
        HomeError: there is a node here already.
    """
    if has_half(home, "node"):
        raise HomeError(f"{home}: there is a node here already", hint="choose another --home")
    folder = os.path.join(home, "node")
    edge.fs.makedirs(folder)
    path = os.path.join(folder, REQUEST_FILE)
    if edge.fs.size(path) is None:
        settings = {"seed": edge.rng.bytes(32).hex(), "seal": edge.rng.bytes(32).hex(), "name": name}
        write_atomic(edge.fs, path, json.dumps(settings).encode())
    seed, seal_private, name = _read_request(home, edge)
    key = SigningKey(seed)
    request = NodeRequest(name=name, key=key.public, seal_key=public_of(seal_private))
    return write_code("request", key.sign(Context.NODE_REQUEST, encode(request)))


def _read_request(home: str, edge: Edge) -> tuple[bytes, bytes, str]:
    path = os.path.join(home, "node", REQUEST_FILE)
    if edge.fs.size(path) is None:
        raise HomeError(f"{home}: no request was made here", hint="run `node request` first")
    settings = json.loads(read_private_file(edge.fs, path))
    return bytes.fromhex(settings["seed"]), bytes.fromhex(settings["seal"]), str(settings["name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAdded:
    """A new node: the code that its machine takes, and what could not be told to whom."""

    name: str
    identity: Identity
    code: str
    fingerprint: str
    notices: list[str]


async def add_node(keeper: KeeperHome, siblings: list[Half], edge: Edge, code: str) -> NodeAdded:
    """Sign a machine's request: a right in a new charter, and a grant sealed to that machine.

    Raises:
        KeyWrongError: not a request, or the passphrase is wrong.
        IntegrityError: the request's signature does not hold.
    """
    signed = read_code("request", code)
    request = decode(NodeRequest, verify(signed, Context.NODE_REQUEST, [signed[:32]]))
    if request.key != signed[:32]:
        raise IntegrityError("node request: signed by another key than the one it names")
    identity = identity_of(request.key)
    await catch_up(keeper, edge)
    name = request.name
    private = keeper.private
    if all(node.identity != identity for node in private.nodes):
        taken = {node.name for node in private.nodes}
        number = 2
        while name in taken:
            name, number = f"{request.name[:60]}-{number}", number + 1
        rights: list[Right] = [
            *keeper.charter.charter.rights,
            right_of("node", request.key, [domain.id for domain in keeper.member.domains]),
        ]
        named = [*private.nodes, NodeName(identity=identity, name=name)]
        private = msgspec.structs.replace(private, nodes=named)
        data = keeper.write_charter(edge, private=private, rights=rights)
    else:
        name = next(node.name for node in private.nodes if node.identity == identity)
        data = keeper.charter_object()[1]
    notices = await spread_charter(keeper, siblings, edge, data)
    if not keeper.peers:
        notices.append("there are no providers yet: after `peer add`, run `node add` with the same request again")
    grant = NodeGrant(
        tenant=keeper.tenant,
        name=keeper.member.name,
        root_key=keeper.member.root_key,
        member_key=keeper.member.member_key,
        domains=keeper.member.domains,
        peers=[PeerAddress(identity=pin.identity, endpoints=pin.endpoints) for pin in keeper.peers],
        ticket=keeper.ticket(request.key),
        charter=keeper.charter.signed,
    )
    sealed = seal_to(request.seal_key, encode(grant), PURPOSE_GRANT)
    return NodeAdded(
        name=name,
        identity=identity,
        code=write_code("grant", sealed),
        fingerprint=root_fingerprint(keeper.member.root_key),
        notices=notices,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantAccepted:
    """For whom this machine writes now. A grant proves nothing of its sender: a person compares the fingerprint."""

    tenant: str
    fingerprint: str


def accept_grant(home: str, edge: Edge, code: str) -> GrantAccepted:
    """Complete a node half from the keeper's answer.

    Raises:
        KeyWrongError: the grant is for another machine, or damaged.
    """
    seed, seal_private, _ = _read_request(home, edge)
    body = unseal(seal_private, read_code("grant", code), PURPOSE_GRANT, "grant")
    grant = decode(NodeGrant, body)
    key = SigningKey(seed)
    charter = verify_charter(grant.charter, root_key=grant.root_key, known=None)
    if charter.right_of(key.public) is None:
        raise IntegrityError("grant: its charter gives this machine no right")
    member = MemberFile(
        tenant=grant.tenant,
        name=grant.name,
        root_key=grant.root_key,
        member_key=grant.member_key,
        domains=grant.domains,
        ticket=grant.ticket,
    )
    # The object that peers hold differs in its padding; the node takes theirs at its first contact.
    create_half(
        home,
        "node",
        edge.fs,
        seed=seed,
        member=member,
        charter_data=record_object(grant.charter, edge.rng),
        keybag_data=None,
    )
    edge.fs.unlink(os.path.join(home, "node", REQUEST_FILE))
    return GrantAccepted(tenant=grant.name, fingerprint=root_fingerprint(grant.root_key))


def is_grant(code: str) -> bool:
    """Return whether a code is a keeper's answer rather than a machine's request."""
    return code_kind(code) == "grant"


async def revoke_node(keeper: KeeperHome, siblings: list[Half], edge: Edge, name: str) -> list[str]:
    """Take a node's right away. Its snapshots stay; its machine can write no more.

    Raises:
        NotFoundError: no such node.
    """
    await catch_up(keeper, edge)
    node = next((one for one in keeper.private.nodes if one.name == name or one.identity.hex().startswith(name)), None)
    if node is None:
        known = ", ".join(one.name for one in keeper.private.nodes) or "none"
        raise NotFoundError(f"no node '{name}' (there are: {known})")
    rights = [
        right if identity_of(right.holder_key) != node.identity else msgspec.structs.replace(right, revoked=True)
        for right in keeper.charter.charter.rights
    ]
    data = keeper.write_charter(edge, rights=rights)
    return await spread_charter(keeper, siblings, edge, data)
