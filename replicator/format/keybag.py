"""Secrets as records: the keybag sealed to root, a keeper's wrapped keys, what a node is handed."""

from typing import Annotated, Any, Literal

import msgspec

from replicator.format.charter import Endpoint, Hash, Id16, Key, Name
from replicator.format.codec import Part, Record, decode, encode, version_of

Epoch = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
JoiningRole = Literal["node", "maintainer", "drill"]
"""What a second machine may ask to be; a second keeper is made by the sheet alone."""


class SecretRecord(Record, frozen=True, kw_only=True):
    """A record with secrets: its repr, which may reach logs and tracebacks, shows its type and no field."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class SecretPart(Part, frozen=True, kw_only=True):
    """Like :class:`SecretRecord`, for parts."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class IndexKey(SecretPart, frozen=True, kw_only=True):
    """The key of directories and indexes for one epoch."""

    epoch: Epoch
    key: Key


class DomainSecrets(SecretPart, frozen=True, kw_only=True):
    """Everything of one domain. ``mix`` goes into each content key; ``id_key`` and ``cut_key`` make chunks."""

    id: Id16
    name: Name
    restore_private: Key
    mix: Key
    id_key: Key
    cut_key: Key
    index_keys: list[IndexKey]


class Keybag(SecretRecord, frozen=True, kw_only=True):
    """Every private key and domain secret of a tenant, sealed to root's public key, kept by every provider."""

    tenant: Id16
    owner_seed: Key
    maintenance_seed: Key
    member_key: Key
    domains: list[DomainSecrets]


class KeybagSeal(Part, frozen=True, kw_only=True):
    """A keybag sealed to one root, by the root's public seal key."""

    root_seal_key: Key
    sealed: bytes


class KeybagSeals(Record, frozen=True, kw_only=True):
    """One keybag sealed to several roots: while one is announced to follow another, either opens it."""

    seals: list[KeybagSeal]


class DomainKeyFile(SecretRecord, frozen=True, kw_only=True):
    """One domain's secrets in the keeper's home, inside a passphrase wrapping."""

    secrets: DomainSecrets


class WriterDomain(SecretPart, frozen=True, kw_only=True):
    """What a writer knows of a domain: enough to write and to recognise its own chunks, not to read."""

    id: Id16
    name: Name
    restore_key: Key
    mix: Key
    id_key: Key
    cut_key: Key
    index_keys: list[IndexKey]


class PeerAddress(Part, frozen=True, kw_only=True):
    """Where a provider was last known."""

    identity: Hash
    endpoints: list[Endpoint]


class IndexDomain(SecretPart, frozen=True, kw_only=True):
    """What a maintainer knows of a domain: enough to open directories and indexes, and nothing inside a segment."""

    id: Id16
    name: Name
    restore_key: Key
    index_keys: list[IndexKey]


class IndexDomains(SecretRecord, frozen=True, kw_only=True):
    """The domains of a maintainer's home, in clear there (mode 0600)."""

    domains: list[IndexDomain]


class RestoreSuccessor(SecretPart, frozen=True, kw_only=True):
    """The restore key that is sealed to now, for a member that may know an earlier one, ``former``.

    ``proof`` shows that member that who wrote this had the private half of ``former``. ``sealed`` is for drill hosts:
    the new private half, to be opened with that one.
    """

    domain: Id16
    former: Key
    restore_key: Key
    proof: Hash
    sealed: bytes


class MemberKeys(SecretRecord, frozen=True, kw_only=True, tag=3):
    """What a charter hands to one member: all index keys of its domains, and a new enrol order for its key.

    ``ticket`` is empty where the one that the member has is good still. ``writing`` is for nodes, of domains that may
    have come after they joined; ``restores`` for all that seal to restore keys or open with them.
    """

    domains: list[IndexDomain]
    ticket: bytes
    writing: list[WriterDomain] = msgspec.field(default_factory=list)
    restores: list[RestoreSuccessor] = msgspec.field(default_factory=list)


class MemberKeys2(SecretRecord, frozen=True, kw_only=True, tag=2):
    """Version 2: of tenants whose restore keys are those from the beginning. Written still."""

    domains: list[IndexDomain]
    ticket: bytes
    writing: list[WriterDomain] = msgspec.field(default_factory=list)


class MemberKeys1(SecretRecord, frozen=True, kw_only=True):
    """Version 1: of tenants whose domains are those from the beginning. Written still where that is so."""

    domains: list[IndexDomain]
    ticket: bytes


def read_member_keys(data: bytes) -> MemberKeys:
    """Return handed keys of any version, in the newest one's terms.

    Raises:
        FormatError: these are none.
    """
    version = version_of(data)
    if version not in (1, 2):
        return decode(MemberKeys, data)
    old = decode(MemberKeys1, data) if version == 1 else decode(MemberKeys2, data)
    return MemberKeys(**msgspec.structs.asdict(old))


def encode_member_keys(keys: MemberKeys) -> bytes:
    """Return the bytes of handed keys: in version 1 or 2, which earlier releases read, as long as that says it all."""
    if keys.restores:
        return encode(keys)
    if keys.writing:
        return encode(MemberKeys2(domains=keys.domains, ticket=keys.ticket, writing=keys.writing))
    return encode(MemberKeys1(domains=keys.domains, ticket=keys.ticket))


class NodeGrant(SecretRecord, frozen=True, kw_only=True, tag=2):
    """What the keeper hands a new member, sealed to its key: its role, its domains, where to begin.

    A node gets ``writing``, a maintainer ``indexing``, a drill host ``reading``; the other two are empty.
    ``ticket`` is a signed :class:`~replicator.format.charter.EnrolOrder`; ``charter`` the signed charter.
    """

    tenant: Id16
    name: Name
    role: JoiningRole
    root_key: Key
    member_key: Key
    writing: list[WriterDomain]
    indexing: list[IndexDomain]
    reading: list[DomainSecrets]
    peers: list[PeerAddress]
    ticket: bytes
    charter: bytes


class NodeGrant1(SecretRecord, frozen=True, kw_only=True):
    """Version 1: for nodes alone."""

    tenant: Id16
    name: Name
    root_key: Key
    member_key: Key
    domains: list[WriterDomain]
    peers: list[PeerAddress]
    ticket: bytes
    charter: bytes


def read_node_grant(data: bytes) -> NodeGrant:
    """Return a grant of any version, in the newest one's terms.

    Raises:
        FormatError: it is none.
    """
    if version_of(data) != 1:
        return decode(NodeGrant, data)
    old = decode(NodeGrant1, data)
    return NodeGrant(
        tenant=old.tenant,
        name=old.name,
        role="node",
        root_key=old.root_key,
        member_key=old.member_key,
        writing=old.domains,
        indexing=[],
        reading=[],
        peers=old.peers,
        ticket=old.ticket,
        charter=old.charter,
    )


class NodeRequest(Record, frozen=True, kw_only=True, tag=2):
    """A second machine's request, signed by its own key: "let me write", or "maintain", or "restore for trial"."""

    name: Name
    role: JoiningRole
    key: Key
    seal_key: Key


class NodeRequest1(Record, frozen=True, kw_only=True):
    """Version 1: of nodes alone."""

    name: Name
    key: Key
    seal_key: Key


def read_node_request(data: bytes) -> NodeRequest:
    """Return a request of any version, in the newest one's terms.

    Raises:
        FormatError: it is none.
    """
    if version_of(data) != 1:
        return decode(NodeRequest, data)
    old = decode(NodeRequest1, data)
    return NodeRequest(name=old.name, role="node", key=old.key, seal_key=old.seal_key)


class Renewal(Record, frozen=True, kw_only=True):
    """A node asks for another key in the place of its own, which signs this; ``request`` is signed by the new one."""

    tenant: Id16
    request: bytes


class MemberFile(SecretRecord, frozen=True, kw_only=True):
    """What a member's home holds in clear (mode 0600): on keepers and nodes enough for sealed checks and for writing.

    ``ticket`` is the signed enrol order with which this home's key asks providers for certificates; empty on a
    keeper, whose owner key makes one when it is needed. A maintainer has no ``domains`` but an IndexDomains.
    """

    tenant: Id16
    name: Name
    root_key: Key
    member_key: Key
    domains: list[WriterDomain]
    ticket: bytes


class WrappedSecret(Record, frozen=True, kw_only=True):
    """A secret under a passphrase (Argon2id, AES-256-GCM with a key commitment). Memory is in KiB."""

    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    memory_kib: Annotated[int, msgspec.Meta(ge=65536, le=4194304)]
    passes: Annotated[int, msgspec.Meta(ge=3, le=16)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=16)]
    commitment: Hash
    sealed: bytes
