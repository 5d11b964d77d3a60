"""Joining and leaving: a keeper adds providers and members; a second machine asks to become one."""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from replicator.charter.verify import signed_hash, verify_charter
from replicator.clock import NS, SKEW_S
from replicator.crypto.seal import PURPOSE_GRANT, seal_to
from replicator.crypto.sign import Context, SigningKey, signer_of, verify
from replicator.crypto.unseal import public_of, unseal
from replicator.endpoints import parse_address
from replicator.engine.edge import Edge, PassphraseSource
from replicator.engine.federation import Federation, read_offer
from replicator.engine.generations import next_generation
from replicator.engine.handing import free_name, handed_to, name_of_key, next_epoch, noted, noted_revoked, with_epochs
from replicator.engine.home import Half, create_half, has_half, read_private_file
from replicator.engine.keeper import KeeperHome, check_passphrase, domain_file, record_object, write_domains
from replicator.engine.maintainer import write_domains as write_index
from replicator.engine.node import NodeHome
from replicator.engine.publish import pending, sent_head, withdraw
from replicator.engine.tenant import MAINTENANCE_NAME, right_of, seal_keybag
from replicator.errors import (
    HomeError,
    IntegrityError,
    KeyMissingError,
    KeyWrongError,
    NotFoundError,
    ProtocolError,
    UsageError,
)
from replicator.format.charter import CharterPrivate, LegalNote, NodeName, PeerPin, PeerStanding, Right, Role
from replicator.format.codec import decode, encode
from replicator.format.codes import code_kind, read_code, write_code
from replicator.format.keybag import (
    JoiningRole,
    Keybag,
    MemberFile,
    NodeGrant,
    NodeRequest,
    PeerAddress,
    Renewal,
    read_node_grant,
    read_node_request,
)
from replicator.format.offer import Invite, Offer
from replicator.fs import write_atomic
from replicator.ids import Identity, identity_of, root_fingerprint, short
from replicator.pack.keys import as_index, as_writer
from replicator.transport.base import Target
from replicator.wire.messages import EnrolRequest

REQUEST_FILE = "request.json"
RENEWAL_FILE = "renewal.json"
JOINING: tuple[JoiningRole, ...] = ("node", "maintainer", "drill")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAdded:
    """A new peer, and what could not be told to whom. ``notice_s``: how long before it leaves it promises to say so."""

    pin: PeerPin
    quota: int
    notice_s: int
    notices: list[str]


async def add_peer(
    keeper: KeeperHome, siblings: list[Half], edge: Edge, code: str, *, name: str | None, own: bool
) -> PeerAdded:
    """Use an invite: enrol with the provider, pin it in a new charter, hand that to every reachable peer.

    ``siblings`` are other halves of the same home, which take the charter at once. For a provider whose operator
    declared this tenant, ``code`` is its address, "HOST:PORT/IDENTITY".

    Raises:
        KeyWrongError: not an invite, damaged, expired; or the passphrase is wrong.
        PeerError: the provider does not answer, or refuses the invite.
    """
    door = _read_door(code, edge.clock.now_ns())
    await catch_up(keeper, edge)
    identity = door.identity
    known = next((pin for pin in keeper.peers if pin.identity == identity), None)
    target = Target(
        identity=identity,
        name=name or (known.name if known else short(identity)),
        endpoints=door.endpoints,
        key=keeper.signing,
        certificate=None,
    )
    offer = await enrol_with(keeper, edge, target, secret=door.secret)
    pin = pin_of(
        offer,
        name=name or (known.name if known else free_petname(keeper.peers, offer.owner, offer.site)),
        endpoints=(*offer.endpoints, *door.endpoints),
        own=own,
        edge=edge,
    )
    if any(other.name == pin.name and other.identity != identity for other in keeper.peers):
        raise UsageError(f"there is a peer called '{pin.name}' already", hint="give another --name")
    others = [other for other in keeper.peers if other.identity != identity]
    data = keeper.write_charter(edge, private=keeper.with_peers([*others, pin]))
    notices = await spread_charter(keeper, siblings, edge, data)
    quota = door.quota if door.secret else keeper.catalog.peers.get(identity).quota
    return PeerAdded(pin=pin, quota=quota, notice_s=offer.notice_s, notices=notices)


async def enrol_with(keeper: KeeperHome, edge: Edge, target: Target, *, secret: bytes = b"") -> Offer:
    """Enrol the keeper with a provider, by an invite's secret or on the owner's word, and keep the certificate.

    Raises:
        PeerError: the provider does not answer, refuses, or is not what it should be.
    """
    request = EnrolRequest(
        holder_key=keeper.signing.public,
        secret=secret,
        order=b"" if secret else keeper.ticket(),
        root=keeper.charter.charter.root,
        handovers=keeper.charter.charter.handovers,
    )
    reply = await edge.network.enrol(target, request)
    if reply.tenant != keeper.tenant:
        raise ProtocolError(target.name, "enrolled us under another tenant")
    offer = read_offer(reply.offer, target)
    row = keeper.catalog.peers.get(target.identity)
    endpoints = tuple(dict.fromkeys((*offer.endpoints, *target.endpoints)))
    keeper.catalog.peers.put(replace(row, certificate=reply.certificate, endpoints=endpoints))
    return offer


def pin_of(offer: Offer, *, name: str, endpoints: Iterable[str], own: bool, edge: Edge) -> PeerPin:
    """Return the pin of a provider as it says that it is."""
    return PeerPin(
        identity=identity_of(offer.provider_key),
        name=name,
        owner=offer.owner,
        site=offer.site,
        region=offer.region,
        country=offer.country,
        endpoints=list(dict.fromkeys(endpoints)),
        own=own,
        added_ns=edge.clock.now_ns(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Door:
    """How a provider is entered: with an invite's secret, or with none where its operator declared the tenant."""

    identity: Identity
    endpoints: tuple[str, ...]
    secret: bytes
    quota: int


def _read_door(code: str, now_ns: int) -> _Door:
    """Return what an invite or an address says.

    Raises:
        KeyWrongError: neither an invite nor an address with its identity; damaged; expired.
    """
    if "/" not in code:
        invite = decode(Invite, read_code("invite", code))
        if now_ns > invite.expires_ns + SKEW_S * NS:
            raise KeyWrongError("this invite has expired", hint="ask the provider for a new one (`provider invite`)")
        identity, endpoints = Identity(invite.identity), tuple(invite.endpoints)
        return _Door(identity=identity, endpoints=endpoints, secret=invite.secret, quota=invite.quota)
    try:
        endpoint, pin = parse_address(code)
    except UsageError as error:
        raise KeyWrongError(error.message, hint=error.hint) from error
    if pin is None:
        raise KeyWrongError(f"'{code}' has no identity", hint="write HOST:PORT/IDENTITY, as `provider prove` shows it")
    return _Door(identity=pin, endpoints=(endpoint,), secret=b"", quota=0)


async def remove_peer(keeper: KeeperHome, siblings: list[Half], edge: Edge, name: str) -> list[str]:
    """Take a provider out of the charter. What it holds is not deleted, and no longer counted."""
    await catch_up(keeper, edge)
    pin = keeper.peer(name)
    others = [other for other in keeper.peers if other.identity != pin.identity]
    private = msgspec.structs.replace(keeper.with_peers(others), standings=_said_of_others(keeper, pin))
    data = keeper.write_charter(edge, private=private)
    return await spread_charter(keeper, siblings, edge, data)


async def set_peer(
    keeper: KeeperHome,
    siblings: list[Half],
    edge: Edge,
    name: str,
    changes: Mapping[str, object],
    legal: Mapping[str, str],
    standing: tuple[Literal["ok", "away", "readonly", "draining", "gone"], int] | None = None,
) -> tuple[PeerPin, list[str]]:
    """Pin other labels for a provider than it claims; return the pin and what could not be told to whom.

    ``legal``: fields of its legal note, which begins empty. ``standing``: how it stands from now on, and until when
    ("away"; ns since 1970); None leaves it as it is.
    """
    await catch_up(keeper, edge)
    pin = keeper.peer(name)
    changed = msgspec.structs.replace(pin, **changes)
    pins = [changed if other.identity == pin.identity else other for other in keeper.peers]
    private = keeper.with_peers(pins)
    if legal:
        notes = {note.identity: note for note in private.legal}
        before = notes.get(pin.identity) or LegalNote(identity=pin.identity, legal_name="", contact="")
        notes[pin.identity] = msgspec.structs.replace(before, **legal)
        said = [note for note in notes.values() if note.legal_name or note.contact]
        private = msgspec.structs.replace(private, legal=said)
    if standing is not None:
        others, (state, until_ns) = _said_of_others(keeper, pin), standing
        if state != "ok":
            others.append(PeerStanding(identity=pin.identity, state=state, until_ns=until_ns))
        private = msgspec.structs.replace(private, standings=others)
    data = keeper.write_charter(edge, private=private)
    return changed, await spread_charter(keeper, siblings, edge, data)


def _said_of_others(keeper: KeeperHome, pin: PeerPin) -> list[PeerStanding]:
    return [said for said in keeper.private.standings if said.identity != pin.identity]


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
        # What the keeper has waited for, the other parts of its home need not wait for again.
        waited = [signed_hash(one) for one in keeper.charter.charter.handovers]
        if half.adopt_charter(data, waited) and keybag is not None:
            half.adopt_keybag(keybag[1])
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        return [*federation.notices, *federation.integrity, *(str(error) for error in federation.failures.values())]


def free_petname(peers: Iterable[PeerPin], owner: str, site: str) -> str:
    """Return a petname that no peer has yet."""
    taken = {pin.name for pin in peers}
    for candidate in (owner, f"{owner}-{site}"):
        if candidate[:64] not in taken:
            return candidate[:64]
    number = 2
    while f"{owner[:60]}-{number}" in taken:
        number += 1
    return f"{owner[:60]}-{number}"


def request_node(home: str, edge: Edge, *, name: str, role: JoiningRole = "node") -> str:
    """Begin a member's part of ``home`` and return the code that a keeper signs. Needs and makes no tenant secret.

    Asking again gives the same code.

    Raises:
        HomeError: there is one in that role here already.
    """
    if has_half(home, role):
        raise HomeError(f"{home}: there is a {role} here already", hint="choose another --home")
    folder = os.path.join(home, role)
    edge.fs.makedirs(folder)
    path = os.path.join(folder, REQUEST_FILE)
    if edge.fs.size(path) is None:
        settings = {"seed": edge.rng.bytes(32).hex(), "seal": edge.rng.bytes(32).hex(), "name": name}
        write_atomic(edge.fs, path, json.dumps(settings).encode())
    seed, seal_private, name = _read_request(home, edge, role)
    key = SigningKey(seed)
    request = NodeRequest(name=name, role=role, key=key.public, seal_key=public_of(seal_private))
    return write_code("request", key.sign(Context.NODE_REQUEST, encode(request)))


def request_renewal(home: str, edge: Edge) -> str:
    """Make another write key for a node beside its own, and return the code that a keeper signs.

    The key so far is used until the answer is taken. Asking again gives the same code.

    Raises:
        KeyMissingError: there is no node in this home.
    """
    half = Half(home, "node", edge.fs)
    try:
        path = half.file(RENEWAL_FILE)
        name = name_of_key(half.private, half.identity)
        if edge.fs.size(path) is None:
            settings = {"seed": edge.rng.bytes(32).hex(), "seal": edge.rng.bytes(32).hex(), "name": name}
            write_atomic(edge.fs, path, json.dumps(settings).encode())
        seed, seal_private, name = _read_request(home, edge, "node", RENEWAL_FILE)
        key = SigningKey(seed)
        request = NodeRequest(name=name, role="node", key=key.public, seal_key=public_of(seal_private))
        renewal = Renewal(tenant=half.tenant, request=key.sign(Context.NODE_REQUEST, encode(request)))
        return write_code("renewal", half.signing.sign(Context.RENEWAL, encode(renewal)))
    finally:
        half.close()


def _read_request(home: str, edge: Edge, role: JoiningRole, file: str = REQUEST_FILE) -> tuple[bytes, bytes, str]:
    settings = json.loads(read_private_file(edge.fs, os.path.join(home, role, file)))
    return bytes.fromhex(settings["seed"]), bytes.fromhex(settings["seal"]), str(settings["name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAdded:
    """A new member: the code that its machine takes, and what could not be told to whom."""

    name: str
    role: JoiningRole
    identity: Identity
    code: str
    fingerprint: str
    notices: list[str]


async def add_node(
    keeper: KeeperHome, siblings: list[Half], edge: Edge, code: str, *, again: bool = False
) -> NodeAdded:
    """Sign a machine's request: a right in a new charter, and a grant sealed to that machine.

    A node's request for another key takes the right of the one so far away in the same charter, and begins a new
    index epoch that its holder is not given. ``again``: also if that one had its right taken away before.

    Raises:
        KeyWrongError: not a request, or the passphrase is wrong.
        IntegrityError: a signature of the request does not hold, or it is of another tenant's member.
        UsageError: that key had its right taken away, or has another.
    """
    request, former_key = read_request(code, keeper.tenant)
    identity = identity_of(request.key)
    await catch_up(keeper, edge)
    domains = keeper.living_ids
    right = next((one for one in keeper.charter.charter.rights if one.holder_key == request.key), None)
    if right is None and former_key:
        name = name_of_key(keeper.private, identity_of(former_key))
        data = _write_renewed(keeper, edge, request, former_key, name, again=again)
    elif right is None:
        if request.name.startswith(MAINTENANCE_NAME):
            raise UsageError(
                f"'{MAINTENANCE_NAME}' is what the keeper's own key is called",
                hint="ask there with another name: `replicator node request --name NAME`, in an empty --home",
            )
        name = free_name(request.name, keeper.private)
        private = noted(keeper.private, identity, name, edge.clock.now_ns())
        if request.role == "node":
            named = [*private.nodes, NodeName(identity=identity, name=name)]
            private = msgspec.structs.replace(private, nodes=named)
        rights = [*keeper.charter.charter.rights, right_of(request.role, request.key, domains)]
        data = keeper.write_charter(edge, private=private, rights=rights)
    elif right.revoked or right.role != request.role:
        state = "was revoked" if right.revoked else f"is that of a {right.role}"
        raise UsageError(
            f"this machine's key {state}", hint="make another request there, in an empty --home: it has a new key"
        )
    else:
        name = name_of_key(keeper.private, identity)
        data = keeper.charter_object()[1]
    notices = await spread_charter(keeper, siblings, edge, data)
    if not keeper.peers:
        notices.append("there are no providers yet: after `peer add`, run `node add` with the same request again")
    grant = NodeGrant(
        tenant=keeper.tenant,
        name=keeper.member.name,
        role=request.role,
        root_key=keeper.member.root_key,
        member_key=keeper.member.member_key,
        writing=[one for one in keeper.member.domains if one.id in domains] if request.role == "node" else [],
        indexing=[as_index(one) for one in keeper.member.domains] if request.role == "maintainer" else [],
        reading=[keeper.domain_secrets(one) for one in domains] if request.role == "drill" else [],
        peers=[PeerAddress(identity=pin.identity, endpoints=pin.endpoints) for pin in keeper.peers],
        ticket=keeper.ticket(request.key),
        charter=keeper.charter.signed,
    )
    sealed = seal_to(request.seal_key, encode(grant), PURPOSE_GRANT)
    return NodeAdded(
        name=name,
        role=request.role,
        identity=identity,
        code=write_code("grant", sealed),
        fingerprint=root_fingerprint(keeper.member.root_key),
        notices=notices,
    )


def _write_renewed(
    keeper: KeeperHome, edge: Edge, request: NodeRequest, former_key: bytes, name: str, *, again: bool
) -> bytes:
    """Write the charter in which a member's new key has the right that its key so far loses."""
    former = next((one for one in keeper.charter.charter.rights if one.holder_key == former_key), None)
    if former is None or (former.revoked and not again) or not former.role == request.role == "node":
        raise UsageError(
            "the key that this machine has so far has no right of a node",
            hint="make a request there in an empty --home: `replicator node request`",
        )
    now, identity = edge.clock.now_ns(), identity_of(request.key)
    private = noted_revoked(noted(keeper.private, identity, name, now), [identity_of(former_key)], now)
    private = msgspec.structs.replace(private, nodes=[*private.nodes, NodeName(identity=identity, name=name)])
    rights = [
        msgspec.structs.replace(one, revoked=True) if one.holder_key == former_key else one
        for one in keeper.charter.charter.rights
    ]
    rights.append(msgspec.structs.replace(former, holder_key=request.key, revoked=False))
    return write_with_epochs(keeper, edge, private=private, rights=rights)


def read_request(code: str, tenant: bytes) -> tuple[NodeRequest, bytes]:
    """Return what a machine asks for, and the key that it has so far, empty if it has none.

    Raises:
        KeyWrongError: not a request.
        IntegrityError: a signature of it does not hold, or it is of another tenant's member.
    """
    former_key = b""
    if code_kind(code) == "renewal":
        outer = read_code("renewal", code)
        former_key = signer_of(outer)
        renewal = decode(Renewal, verify(outer, Context.RENEWAL, [former_key]))
        if renewal.tenant != tenant:
            raise IntegrityError("renewal: of another tenant's member")
        return _own_request(renewal.request), former_key
    return _own_request(read_code("request", code)), former_key


def _own_request(signed: bytes) -> NodeRequest:
    request = read_node_request(verify(signed, Context.NODE_REQUEST, [signed[:32]]))
    if request.key != signed[:32]:
        raise IntegrityError("node request: signed by another key than the one it names")
    return request


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantAccepted:
    """What this machine is now, and for whom. A grant proves nothing of its sender: people compare the fingerprint."""

    tenant: str
    role: JoiningRole
    fingerprint: str


def _no_passphrase(_what: str) -> str:
    raise KeyMissingError("a drill host needs a passphrase of its own")


def accept_grant(
    home: str,
    edge: Edge,
    code: str,
    passphrase: PassphraseSource = _no_passphrase,
    *,
    spool_path: str | None = None,
) -> GrantAccepted:
    """Complete a member's part of a home from the keeper's answer; ``passphrase`` wraps what a drill host is given.

    ``spool_path`` is where a node whose key is renewed has its spool, if not in its home.

    Raises:
        HomeError: no request was made here.
        KeyWrongError: the grant is for another machine, or damaged.
    """
    asked = [
        (role, file)
        for role in JOINING
        for file in (REQUEST_FILE, RENEWAL_FILE)
        if edge.fs.size(os.path.join(home, role, file)) is not None
    ]
    if not asked:
        raise HomeError(f"{home}: no request was made here", hint="run `node request` first")
    sealed = read_code("grant", code)
    problem: KeyWrongError | None = None
    for role, file in asked:
        seed, seal_private, _ = _read_request(home, edge, role, file)
        try:
            grant = read_node_grant(unseal(seal_private, sealed, PURPOSE_GRANT, "grant"))
        except KeyWrongError as error:
            problem = error
            continue
        if grant.role != role:
            raise IntegrityError(f"grant: of a {grant.role}, and a {role} was asked for")
        if file == RENEWAL_FILE:
            return _renew(home, edge, grant, seed, spool_path)
        return _accept(home, edge, grant, seed, passphrase)
    assert problem is not None, "one was asked for"
    raise problem


def _accept(home: str, edge: Edge, grant: NodeGrant, seed: bytes, passphrase: PassphraseSource) -> GrantAccepted:
    key = SigningKey(seed)
    charter = verify_charter(grant.charter, root_key=grant.root_key, known=None)
    right = charter.right_of(key.public)
    if right is None or right.role != grant.role:
        raise IntegrityError("grant: its charter gives this machine no such right")
    folder = os.path.join(home, grant.role)
    if grant.role == "maintainer":
        write_index(folder, edge.fs, grant.indexing)
    if grant.role == "drill":
        words = check_passphrase(passphrase("A passphrase for this drill host"))
        write_domains(folder, edge, grant.reading, words)
    domains = [as_writer(one, public_of(one.restore_private)) for one in grant.reading] or grant.writing
    member = MemberFile(
        tenant=grant.tenant,
        name=grant.name,
        root_key=grant.root_key,
        member_key=grant.member_key,
        domains=domains,
        ticket=grant.ticket,
    )
    # The object that peers hold differs in its padding; the member takes theirs at its first contact.
    create_half(
        home,
        grant.role,
        edge.fs,
        seed=seed,
        member=member,
        charter_data=record_object(grant.charter, edge.rng),
        keybag_data=None,
    )
    edge.fs.unlink(os.path.join(folder, REQUEST_FILE))
    return GrantAccepted(tenant=grant.name, role=grant.role, fingerprint=root_fingerprint(grant.root_key))


def _renew(home: str, edge: Edge, grant: NodeGrant, seed: bytes, spool_path: str | None) -> GrantAccepted:
    key = SigningKey(seed)
    node = NodeHome(home, edge.fs, spool_path=spool_path)
    try:
        with node.lock():
            charter = verify_charter(grant.charter, root_key=node.member.root_key, known=None)
            right = charter.right_of(key.public)
            if grant.tenant != node.tenant or right is None or right.role != "node":
                raise IntegrityError("grant: its charter gives this machine's new key no right of a node")
            if node.identity != key.identity:
                _take_back_waiting(node)
            node.renew(key, grant.ticket)
            if node.charter.number < charter.number:
                node.adopt_charter(record_object(grant.charter, edge.rng))
            edge.fs.unlink(node.file(RENEWAL_FILE))
        return GrantAccepted(tenant=grant.name, role="node", fingerprint=root_fingerprint(node.member.root_key))
    finally:
        node.close()


def _take_back_waiting(node: NodeHome) -> None:
    """Take back snapshots that no peer has heard of: the key that signed them shows none any more.

    Their packs stay for the next snapshot.
    """
    waiting = [row.number for row in pending(node) if row.number > sent_head(node)]
    if waiting:
        withdraw(node, node.spool(), min(waiting))


def is_grant(code: str) -> bool:
    """Return whether a code is a keeper's answer rather than a machine's request."""
    return code_kind(code) == "grant"


async def revoke(
    keeper: KeeperHome, siblings: list[Half], edge: Edge, name: str, *, role: Role | None = None
) -> tuple[Right, list[str]]:
    """Take a key's right away, and begin a new index epoch that its holder is not given.

    What is written from now on in domains that it could read is for another restore key. Returns what right it was,
    and what could not be told to whom. What a node wrote stays; what anybody read stays read. ``role``: only keys of
    that role are meant.

    Raises:
        NotFoundError: no such key, or several.
        UsageError: it is this keeper's own, or has no right any more.
    """
    await catch_up(keeper, edge)
    right = find_right(keeper, name, role)
    identity = identity_of(right.holder_key)
    if identity == keeper.identity:
        raise UsageError(
            "this is the key of this very keeper", hint="a keeper's home that is lost is shut out by `recover`"
        )
    if right.holder_key == keeper.keybag_maintenance():
        raise UsageError(
            "this is the keeper's own maintenance key", hint="`replicator key rotate maintenance` makes another"
        )
    if right.revoked:
        raise UsageError(f"'{name}' has no right any more", hint="`replicator key list` says since when")
    rights = [
        msgspec.structs.replace(one, revoked=True) if one.holder_key == right.holder_key else one
        for one in keeper.charter.charter.rights
    ]
    private = noted_revoked(keeper.private, [identity], edge.clock.now_ns())
    living = {one.id for one in keeper.private.domains} & set(keeper.living_ids)
    read = [one for one in right.domains if one in living] if right.role in {"drill", "keeper"} else []
    data = write_with_epochs(keeper, edge, private=private, rights=rights, restores=read)
    return right, await spread_charter(keeper, siblings, edge, data)


async def revoke_node(keeper: KeeperHome, siblings: list[Half], edge: Edge, name: str) -> list[str]:
    """Take a node's right away. Its snapshots stay; its machine can write no more.

    Raises:
        NotFoundError: no such node.
    """
    _, notices = await revoke(keeper, siblings, edge, name, role="node")
    return notices


def find_right(half: Half, name: str, role: Role | None = None) -> Right:
    """Return the entry of a key in the charter, by its holder's name or the beginning of its identity.

    Of several with one name, the one that has its right still.

    Raises:
        NotFoundError: none, or several.
    """
    rights = [one for one in half.charter.charter.rights if role is None or one.role == role]
    names = {one.holder_key: name_of_key(half.private, identity_of(one.holder_key)) for one in rights}
    named = [one for one in rights if names[one.holder_key] == name]
    if len(named) > 1:
        named = [one for one in named if not one.revoked] or named[-1:]
    found = named or [one for one in rights if name and identity_of(one.holder_key).hex().startswith(name.lower())]
    if len(found) != 1:
        known = ", ".join(names.values()) or "none"
        what = role or "key"
        raise NotFoundError(f"{'no' if not found else 'more than one'} {what} '{name}' (there are: {known})")
    return found[0]


def write_with_epochs(
    keeper: KeeperHome,
    edge: Edge,
    *,
    private: CharterPrivate | None = None,
    rights: list[Right] | None = None,
    bag: Keybag | None = None,
    root: bytes | None = None,
    owner: SigningKey | None = None,
    restores: Collection[bytes] = (),
) -> bytes:
    """Write the next charter with a new index key for every domain, handed to each key that has a right.

    ``restores`` are domains that get another restore key too. ``bag`` has other secrets than this home so far;
    ``root`` is a statement that names ``owner``, in a charter all of which was confirmed.
    """
    bag, private, formers = bag or keeper.keybag(), private or keeper.private, keeper.former_restores()
    domains = []
    for before in bag.domains:
        secrets = next_epoch(before, edge.rng)
        if secrets.id in restores:
            formers[secrets.id].insert(0, (public_of(secrets.restore_private), secrets.restore_private))
            secrets, private = next_generation(secrets, private, edge.rng, edge.clock.now_ns())
            keeper.prepare_domain(edge, secrets)
        domains.append(secrets)
    bag = msgspec.structs.replace(bag, domains=domains)
    rights = keeper.charter.charter.rights if rights is None else rights
    private = with_epochs(private, bag.domains)
    handed = handed_to(
        *(rights, bag.domains, private.domains, owner or keeper.owner()), tenant=keeper.tenant, formers=formers
    )
    # What the owner so far announced ends with it.
    successor = keeper.successor_seal_key() if root is None else b""
    data = keeper.write_charter(
        edge,
        private=msgspec.structs.replace(private, handed=handed),
        rights=rights,
        keybag_data=seal_keybag(bag, keeper.charter.root.root_seal_key, edge.rng, successor),
        root=root,
        owner=owner,
        confirmed=root is not None,
    )
    for domain in restores:
        keeper.succeed(domain_file(domain))
    return data
