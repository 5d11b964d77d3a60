"""From paper and one address to a keeper's home and everything in it."""

import datetime
from dataclasses import dataclass, field, replace

import msgspec

from replicator.charter.verify import VerifiedCharter, verify_change, verify_charter, verify_root
from replicator.clock import NS
from replicator.crypto.recovery import Root, from_words, root_of
from replicator.crypto.sign import Context, SigningKey, signer_of, verify
from replicator.crypto.unseal import public_of
from replicator.endpoints import parse_address
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, get_whole, read_offer
from replicator.engine.handing import enrol_order, free_name, noted, noted_revoked
from replicator.engine.home import create_half, has_half, open_private
from replicator.engine.keeper import (
    KeeperHome,
    KeeperSecrets,
    check_passphrase,
    create_keeper,
    sign_charter,
)
from replicator.engine.signedhere import SignedHere, entries_of
from replicator.engine.tenant import KEEPERS_NAME, MAINTENANCE_NAME, open_keybag_of, right_of, seal_keybag
from replicator.errors import HomeError, IntegrityError, NotFoundError, RefusedError, ReplicatorError
from replicator.format.charter import NodeName, read_charter
from replicator.format.container import unwrap_record
from replicator.format.keybag import Keybag, MemberFile
from replicator.format.merkle import name_of
from replicator.ids import Identity, ObjectName, identity_of
from replicator.pack.keys import as_writer
from replicator.transport.base import Target
from replicator.wire.messages import Empty, EnrolRequest, Info


@dataclass(slots=True)
class Recovered:
    """What a recovery made. ``unreachable`` are peers that have not got the new charter yet."""

    name: str
    keeper: Identity
    node: Identity | None
    charter_number: int
    peers: int = 0
    notices: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)


async def recover(
    home: str, edge: Edge, *, words: list[str], address: str, passphrase: str, keeper_only: bool = False
) -> Recovered:
    """Make a keeper's home (and a fresh node key) from the sheet's words and one provider's address.

    The address need not be trusted: charter and keybag are checked against root. The new home signs the next
    charter, in which earlier keepers have no rights any more; nodes keep theirs.

    Raises:
        KeyWrongError: the words are damaged, or belong to a tenant this provider does not know.
        PeerError: the provider does not answer.
    """
    check_passphrase(passphrase)
    for role in ("keeper", "node"):
        if has_half(home, role):
            raise HomeError(f"{home}: there is a {role} here already", hint="choose an empty --home")
    root = root_of(from_words(words))
    keeper_key = SigningKey(edge.rng.bytes(32))
    endpoint, pin = parse_address(address)
    identity = pin or await edge.network.identify(endpoint)
    target = Target(identity=identity, name=endpoint, endpoints=(endpoint,), key=keeper_key, certificate=None)
    try:
        known, keybag, keybag_data = await _ask(edge, root, target, None)
    except RefusedError as error:
        if error.code in {"unauthorized", "forbidden", "not-found"}:
            raise NotFoundError(
                f"{endpoint}: this provider knows no tenant with this sheet ({error.reason})",
                hint="try the address of another provider of yours",
            ) from error
        raise
    known, keybag, keybag_data = await _newest(edge, root, keeper_key, known, keybag, keybag_data)
    return await _make_home(
        home,
        edge,
        root=root,
        keeper_key=keeper_key,
        known=known,
        keybag=keybag,
        keybag_data=keybag_data,
        passphrase=passphrase,
        keeper_only=keeper_only,
    )


async def _ask(
    edge: Edge, root: Root, target: Target, known: VerifiedCharter | None
) -> tuple[VerifiedCharter, Keybag, bytes]:
    """Return the charter and keybag that one provider has, checked against root and against ``known``.

    Raises:
        NotFoundError: it has no charter, or none newer than ``known``.
        PeerError, IntegrityError, KeyWrongError: it does not answer, refuses, or what it has does not hold.
    """
    order = enrol_order(root.signing, target.key.public)
    request = EnrolRequest(holder_key=target.key.public, secret=b"", order=order, root=b"")
    reply = await edge.network.enrol(target, request)
    target = replace(target, certificate=reply.certificate)
    connection = await edge.network.connect(target)
    try:
        info = await connection.call("info", Empty(), Info)
        read_offer(info.offer, target)
        if not info.charter or (known is not None and info.charter_number <= known.number):
            raise NotFoundError(f"{target.name}: this provider has no charter of this tenant that is newer")
        charter_data = await get_whole(connection, ObjectName(info.charter))
        found = _verified(unwrap_record(charter_data), root, known)
        keybag_data = await get_whole(connection, ObjectName(found.charter.keybag))
    finally:
        await connection.close()
    return found, open_keybag_of(root, keybag_data, found), keybag_data


def _verified(signed: bytes, root: Root, known: VerifiedCharter | None) -> VerifiedCharter:
    """Return a charter under this root, or under the one that it is announced to follow.

    The second is as good: this root's own statement names the one before it by hash.

    Raises:
        IntegrityError: neither.
    """
    charter = read_charter(verify(signed, Context.CHARTER, [signer_of(signed)]))
    former = verify_root(charter.root, None).root_key
    following = verify_change(charter.change).successor.root_key if charter.change else b""
    return verify_charter(
        signed, root_key=former if following == root.signing.public else root.signing.public, known=known
    )


async def _newest(
    edge: Edge, root: Root, key: SigningKey, known: VerifiedCharter, keybag: Keybag, keybag_data: bytes
) -> tuple[VerifiedCharter, Keybag, bytes]:
    """Ask every provider that the charter names whether it has a newer one: the first may have been away for long."""
    asked: set[bytes] = set()
    while True:
        pins = [pin for pin in open_private(known, keybag.member_key).peers if pin.identity not in asked]
        if not pins:
            return known, keybag, keybag_data
        for pin in pins:
            asked.add(pin.identity)
            target = Target(
                identity=Identity(pin.identity),
                name=pin.name,
                endpoints=tuple(pin.endpoints),
                key=key,
                certificate=None,
            )
            try:
                known, keybag, keybag_data = await _ask(edge, root, target, known)
            except ReplicatorError as error:
                # Not newer, away or wrong: the charter in hand is good, and the new home meets this peer again.
                if isinstance(error, IntegrityError):
                    edge.progress.note(f"{pin.name}: {error}")


async def _make_home(
    home: str,
    edge: Edge,
    *,
    root: Root,
    keeper_key: SigningKey,
    known: VerifiedCharter,
    keybag: Keybag,
    keybag_data: bytes,
    passphrase: str,
    keeper_only: bool,
) -> Recovered:
    owner = SigningKey(keybag.owner_seed)
    before = private = open_private(known, keybag.member_key)
    statement, handovers, dropped = known.charter.root, known.charter.handovers, ""
    if known.root.root_key != root.signing.public:
        assert known.pending is not None, "it was verified by this"
        statement, handovers = known.pending.successor_signed, [*handovers, known.pending.signed]
    elif known.pending is not None:
        day = datetime.datetime.fromtimestamp(known.pending.announced_ns / NS, datetime.UTC).date()
        dropped = (
            f"another root was announced with the owner key on {day}; this charter takes that back. If it was nobody "
            "of you: `replicator key object --sheet -`, then `replicator key rotate owner --sheet -`"
        )
    if known.pending is not None:
        keybag_data = seal_keybag(keybag, public_of(root.seal_private), edge.rng)
    domains = [domain.id for domain in keybag.domains]
    now = edge.clock.now_ns()
    earlier = [right for right in known.charter.rights if right.role == "keeper" and not right.revoked]
    rights = [
        msgspec.structs.replace(right, revoked=True) if right in earlier else right for right in known.charter.rights
    ]
    private = noted_revoked(private, [identity_of(right.holder_key) for right in earlier], now)
    rights.append(right_of("keeper", keeper_key.public, domains))
    private = noted(private, keeper_key.identity, free_name(KEEPERS_NAME, private), now)
    maintenance = SigningKey(keybag.maintenance_seed)
    if all(right.holder_key != maintenance.public for right in rights):
        rights.append(right_of("maintainer", maintenance.public, domains))
        private = noted(private, maintenance.identity, free_name(MAINTENANCE_NAME, private), now)
    node_key = None if keeper_only else SigningKey(edge.rng.bytes(32))
    if node_key is not None:
        rights.append(right_of("node", node_key.public, domains))
        name = free_name(edge.host[:60] or "node", private)
        private = noted(private, node_key.identity, name, now)
        named = [*private.nodes, NodeName(identity=node_key.identity, name=name)]
        private = msgspec.structs.replace(private, nodes=named)
    charter_data = sign_charter(
        owner=owner,
        member_key=keybag.member_key,
        previous=known.hash,
        number=known.number + 1,
        root=statement,
        rights=rights,
        keybag=name_of(keybag_data),
        private=private,
        tenant=keybag.tenant,
        handovers=handovers,
        edge=edge,
    )
    member = MemberFile(
        tenant=keybag.tenant,
        name=private.name,
        root_key=root.signing.public,
        member_key=keybag.member_key,
        domains=[as_writer(domain, public_of(domain.restore_private)) for domain in keybag.domains],
        ticket=b"",
    )
    create_keeper(
        home,
        edge,
        seed=keeper_key.seed(),
        member=member,
        charter_data=charter_data,
        keybag_data=keybag_data,
        secrets=KeeperSecrets(
            owner_seed=keybag.owner_seed,
            maintenance_seed=keybag.maintenance_seed,
            domains=tuple(keybag.domains),
        ),
        passphrase=passphrase,
        signed=SignedHere().after(
            entries_of(known.charter.rights, before), entries_of(rights, private), number=known.number + 1, now_ns=now
        ),
    )
    if node_key is not None:
        create_half(
            home,
            "node",
            edge.fs,
            seed=node_key.seed(),
            member=msgspec.structs.replace(member, ticket=enrol_order(owner, node_key.public)),
            charter_data=charter_data,
            keybag_data=keybag_data,
        )
    recovered = Recovered(
        name=private.name,
        keeper=identity_of(keeper_key.public),
        node=None if node_key is None else node_key.identity,
        charter_number=known.number + 1,
    )
    keeper = KeeperHome(home, edge.fs, lambda _: passphrase)
    try:
        # With root at hand every provider takes the new charter, also one that has not heard of this keeper.
        order = enrol_order(root.signing, keeper_key.public)
        async with Federation(keeper, edge, ticket=lambda _: order) as federation:
            recovered.peers = len(federation.links)
            recovered.notices = [*([dropped] if dropped else []), *federation.notices, *federation.integrity]
            recovered.unreachable = [str(error) for error in federation.failures.values()]
    finally:
        keeper.close()
    return recovered
