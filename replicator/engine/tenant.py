"""Making a tenant: root, owner, a domain, the first charter, the keybag, the sheet."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from replicator.charter.verify import NO_PREVIOUS, VerifiedCharter
from replicator.clock import DAY_S
from replicator.crypto.recovery import Root, from_words, new_secret, root_of, to_words
from replicator.crypto.seal import PURPOSE_KEYBAG, seal_to
from replicator.crypto.sign import Context, SigningKey
from replicator.crypto.unseal import public_of, unseal
from replicator.engine.edge import Edge
from replicator.engine.handing import enrol_order
from replicator.engine.home import create_half, has_half, open_private
from replicator.engine.keeper import (
    KeeperSecrets,
    check_passphrase,
    create_keeper,
    record_object,
    sign_charter,
)
from replicator.engine.signedhere import SignedHere, entries_of
from replicator.errors import FormatError, HomeError, IntegrityError, UsageError
from replicator.format.charter import (
    ROLE_OPS,
    CharterPrivate,
    DomainPublic,
    Floors,
    KeyNote,
    NodeName,
    Right,
    Role,
    RootStatement,
)
from replicator.format.codec import decode, encode
from replicator.format.container import unwrap_record
from replicator.format.keybag import DomainSecrets, IndexKey, Keybag, KeybagSeal, KeybagSeals, MemberFile
from replicator.format.merkle import name_of
from replicator.ids import Identity, identity_of, tenant_of
from replicator.pack.keys import as_writer
from replicator.rng import Rng
from scheduler import EEA, RosterError, country_code

LOCK_S = 30 * DAY_S
GRACE_S = 14 * DAY_S
DELETE_BUDGET_PERCENT = 10
KEY = 32
KEEPERS_NAME = "keeper"
MAINTENANCE_NAME = "keeper's maintenance"
"""What a keeper's two keys are called in the charter's notes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTenant:
    """What `init` made: ids for people, and the words, which are nowhere else."""

    tenant: bytes
    root_key: bytes
    keeper: Identity
    node: Identity | None
    words: list[str]


def right_of(role: Role, key: bytes, domains: list[bytes]) -> Right:
    """Return the right of a role, bound to a key."""
    return Right(
        holder_key=key,
        role=role,
        ops=list(ROLE_OPS[role]),
        domains=domains,
        quota=0,
        max_object=0,
        lock_min_s=0,
        lock_max_s=0,
        revoked=False,
    )


def new_domain(name: str, rng: Rng) -> DomainSecrets:
    """Return a domain with fresh keys, in its first epoch."""
    return DomainSecrets(
        id=rng.bytes(16),
        name=name,
        restore_private=rng.bytes(KEY),
        mix=rng.bytes(KEY),
        id_key=rng.bytes(KEY),
        cut_key=rng.bytes(KEY),
        index_keys=[IndexKey(epoch=1, key=rng.bytes(KEY))],
    )


def seal_keybag(keybag: Keybag, root_seal_key: bytes, rng: Rng, successor: bytes = b"") -> bytes:
    """Return a keybag as the object that every provider keeps.

    ``successor`` is the seal key of a root that is announced, which is to open it too.
    """
    body = encode(keybag)
    if not successor:
        return record_object(seal_to(root_seal_key, body, PURPOSE_KEYBAG), rng)
    seals = [
        KeybagSeal(root_seal_key=key, sealed=seal_to(key, body, PURPOSE_KEYBAG)) for key in (root_seal_key, successor)
    ]
    return record_object(encode(KeybagSeals(seals=seals)), rng)


def open_keybag(root: Root, data: bytes) -> Keybag:
    """Return the secrets in a keybag object.

    Raises:
        KeyWrongError: it is sealed to another root, or damaged.
    """
    sealed = unwrap_record(data)
    with suppress(FormatError):  # what is sealed to one root is no record
        own = public_of(root.seal_private)
        sealed = next((one.sealed for one in decode(KeybagSeals, sealed).seals if one.root_seal_key == own), sealed)
    return decode(Keybag, unseal(root.seal_private, sealed, PURPOSE_KEYBAG, "keybag"))


def open_keybag_of(root: Root, data: bytes, charter: VerifiedCharter) -> Keybag:
    """Return the secrets in the keybag object that a charter names; anybody can seal something to root's public key.

    Raises:
        KeyWrongError: it is sealed to another root, or damaged.
        IntegrityError: it has another owner key than root has named, or does not open the charter.
    """
    bag = open_keybag(root, data)
    if SigningKey(bag.owner_seed).public != charter.root.owner_key:
        raise IntegrityError("keybag: its owner key is not the one that root has named")
    open_private(charter, bag.member_key)
    return bag


def check_country(country: str) -> str:
    """Return a two-letter country code.

    Raises:
        UsageError: there is no such country.
    """
    try:
        return country_code(country)
    except RosterError as error:
        raise UsageError(str(error), hint="use a two-letter code, such as SE") from error


def create_tenant(
    home: str,
    edge: Edge,
    *,
    name: str,
    country: str,
    passphrase: str,
    keeper_only: bool,
    minimum_copies: int = 1,
    write_sheet: Callable[[list[str], bytes], None] = lambda _words, _root_key: None,
) -> NewTenant:
    """Make a tenant in ``home``: a keeper and, unless ``keeper_only``, a node beside it.

    The words are checked by a dry recovery before anything is written. Inside the EEA, root's residency ceiling
    is the EEA; elsewhere there is none. ``write_sheet`` gets the words and root's public key before the home is
    made: there must never be a tenant whose words are nowhere.

    Raises:
        HomeError: the home has a keeper or node already.
        UsageError: a name, country or passphrase that cannot be.
    """
    check_passphrase(passphrase)
    country = check_country(country)
    for role in ("keeper", "node"):
        if has_half(home, role):
            raise HomeError(f"{home}: there is a {role} here already", hint="choose another --home")
    rng = edge.rng
    secret = new_secret(rng)
    words = to_words(secret)
    if from_words(words) != secret:
        raise IntegrityError("the words do not give the secret back; check this machine's memory")
    root: Root = root_of(secret)
    owner = SigningKey(rng.bytes(KEY))
    keeper_key = SigningKey(rng.bytes(KEY))
    node_key = None if keeper_only else SigningKey(rng.bytes(KEY))
    tenant = tenant_of(root.signing.public)
    member_key = rng.bytes(KEY)
    maintenance_seed = rng.bytes(KEY)
    domain = new_domain("main", rng)
    restore_key = public_of(domain.restore_private)
    root_seal_key = public_of(root.seal_private)
    statement = RootStatement(
        tenant=tenant,
        number=1,
        previous=NO_PREVIOUS,
        root_key=root.signing.public,
        root_seal_key=root_seal_key,
        owner_key=owner.public,
        floors=Floors(
            lock_s=LOCK_S,
            grace_s=GRACE_S,
            delete_budget_percent=DELETE_BUDGET_PERCENT,
            residency=["EEA"] if country in EEA else [],
            minimum_copies=minimum_copies,
        ),
        created_ns=edge.clock.now_ns(),
    )
    keybag = Keybag(
        tenant=tenant,
        owner_seed=owner.seed(),
        maintenance_seed=maintenance_seed,
        member_key=member_key,
        domains=[domain],
    )
    keybag_data = seal_keybag(keybag, root_seal_key, rng)
    now = edge.clock.now_ns()
    maintenance = SigningKey(maintenance_seed)
    rights = [
        right_of("keeper", keeper_key.public, [domain.id]),
        right_of("maintainer", maintenance.public, [domain.id]),
    ]
    notes = [
        KeyNote(identity=keeper_key.identity, name=KEEPERS_NAME, added_ns=now, revoked_ns=0),
        KeyNote(identity=maintenance.identity, name=MAINTENANCE_NAME, added_ns=now, revoked_ns=0),
    ]
    nodes = []
    if node_key is not None:
        rights.append(right_of("node", node_key.public, [domain.id]))
        nodes.append(NodeName(identity=node_key.identity, name=edge.host[:64] or "node"))
        notes.append(KeyNote(identity=node_key.identity, name=nodes[0].name, added_ns=now, revoked_ns=0))
    private = CharterPrivate(
        name=name,
        country=country,
        peers=[],
        domains=[DomainPublic(id=domain.id, name=domain.name, restore_key=restore_key, epoch=1)],
        nodes=nodes,
        notes=notes,
    )
    charter_data = sign_charter(
        owner=owner,
        member_key=member_key,
        previous=NO_PREVIOUS,
        number=1,
        root=root.signing.sign(Context.ROOT_STATEMENT, encode(statement)),
        rights=rights,
        keybag=name_of(keybag_data),
        private=private,
        tenant=tenant,
        edge=edge,
    )
    member = MemberFile(
        tenant=tenant,
        name=name,
        root_key=root.signing.public,
        member_key=member_key,
        domains=[as_writer(domain, restore_key)],
        ticket=b"",
    )
    write_sheet(words, root.signing.public)
    create_keeper(
        home,
        edge,
        seed=keeper_key.seed(),
        member=member,
        charter_data=charter_data,
        keybag_data=keybag_data,
        secrets=KeeperSecrets(owner_seed=owner.seed(), maintenance_seed=maintenance_seed, domains=(domain,)),
        passphrase=passphrase,
        signed=SignedHere().after([], entries_of(rights, private), number=1, now_ns=now),
    )
    if node_key is not None:
        create_half(
            home,
            "node",
            edge.fs,
            seed=node_key.seed(),
            member=MemberFile(
                tenant=tenant,
                name=member.name,
                root_key=member.root_key,
                member_key=member_key,
                domains=member.domains,
                ticket=enrol_order(owner, node_key.public),
            ),
            charter_data=charter_data,
            keybag_data=keybag_data,
        )
    return NewTenant(
        tenant=tenant,
        root_key=root.signing.public,
        keeper=identity_of(keeper_key.public),
        node=None if node_key is None else identity_of(node_key.public),
        words=words,
    )
