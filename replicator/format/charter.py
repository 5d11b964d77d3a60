"""What a tenant says about itself: the root statement, the charter, and the part only members read."""

from typing import Annotated, Literal

import msgspec

from replicator.format.codec import Part, Record, decode, encode, version_of

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Id16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_PLAIN = "^[^\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]*\\Z"
"""No control characters and nothing that reorders text: names and labels of other people reach a terminal."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_PLAIN)]
Words = Annotated[str, msgspec.Meta(max_length=200, pattern=_PLAIN)]
"""What people read and no program decides by: a legal name, how to reach somebody. May be empty."""
Endpoint = Annotated[str, msgspec.Meta(min_length=3, max_length=261, pattern="^[!-~]*\\Z")]
Country = Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}\\Z")]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=10 * 366 * 86400)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Number = Annotated[int, msgspec.Meta(ge=1, le=2**62)]
"""A place in a chain; 0 is what "none yet" is written as."""
Role = Literal["keeper", "node", "maintainer", "drill"]
Op = Literal["read", "write", "publish", "audit", "govern", "mark"]

ROLE_OPS: dict[str, tuple[Op, ...]] = {
    "keeper": ("audit", "govern", "read", "write"),
    "node": ("audit", "publish", "read", "write"),
    "maintainer": ("audit", "mark", "read", "write"),
    "drill": ("audit", "read"),
}
"""What each role may ask of a provider, sorted. "read" gives ciphertext only; reading it needs other keys."""

EVERY_OP: tuple[Op, ...] = ("audit", "govern", "mark", "publish", "read", "write")


class Floors(Part, frozen=True, kw_only=True):
    """What only root may go below. ``residency`` is the ceiling: no policy may name more; empty = anywhere."""

    lock_s: Seconds
    grace_s: Seconds
    delete_budget_percent: Annotated[int, msgspec.Meta(ge=0, le=100)]
    residency: list[Name]
    minimum_copies: Annotated[int, msgspec.Meta(ge=1, le=64)]


class RootStatement(Record, frozen=True, kw_only=True):
    """Signed by root: which owner key may write charters, and within which floors. Numbered from 1."""

    tenant: Id16
    number: Number
    previous: Hash
    root_key: Key
    root_seal_key: Key
    owner_key: Key
    floors: Floors
    created_ns: Count


class Right(Part, frozen=True, kw_only=True):
    """One capability, bound to the holder's key: what a provider lets it ask for. ``quota`` 0 = the tenant's."""

    holder_key: Key
    role: Role
    ops: list[Op]
    domains: list[Id16]
    quota: Count
    max_object: Count
    lock_min_s: Seconds
    lock_max_s: Seconds
    revoked: bool


class Charter(Record, frozen=True, kw_only=True, tag=2):
    """Signed by owner: the tenant's word, numbered from 1 and chained by the hash of the one before.

    ``root`` is the root statement with its signature; ``keybag`` names the object that holds the keybag;
    ``private`` is :class:`CharterPrivate` sealed for members (12-byte nonce, AES-256-GCM). ``change`` is a signed
    RootChange that is announced and waits, empty if none does; ``handovers`` are those that came to count, in order.
    """

    tenant: Id16
    number: Number
    previous: Hash
    root: bytes
    rights: list[Right]
    keybag: Hash
    private: bytes
    created_ns: Count
    change: bytes = b""
    handovers: Annotated[list[bytes], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)


class Charter1(Record, frozen=True, kw_only=True):
    """Version 1: of a root that no other came before, and that none is announced to follow. Written still."""

    tenant: Id16
    number: Number
    previous: Hash
    root: bytes
    rights: list[Right]
    keybag: Hash
    private: bytes
    created_ns: Count


def read_charter(data: bytes) -> Charter:
    """Return a charter of any version, in the newest one's terms.

    Raises:
        FormatError: it is none.
    """
    if version_of(data) != 1:
        return decode(Charter, data)
    return Charter(**msgspec.structs.asdict(decode(Charter1, data)))


def encode_charter(charter: Charter) -> bytes:
    """Return a charter's bytes: in version 1, which earlier releases read, as long as that says it all."""
    if charter.change or charter.handovers:
        return encode(charter)
    values = msgspec.structs.asdict(charter)
    return encode(Charter1(**{name: values[name] for name in Charter1.__struct_fields__}))


class RootChange(Record, frozen=True, kw_only=True):
    """Signed by owner: another root is to follow, for tenants whose sheet is lost. It counts after a wait.

    ``former`` and ``successor`` are root statements as each root signed its own.
    """

    tenant: Id16
    former: bytes
    successor: bytes
    announced_ns: Count


class Objection(Record, frozen=True, kw_only=True):
    """Signed by root: no other root follows the root statement with this hash, whatever the owner announces."""

    tenant: Id16
    statement: Hash
    created_ns: Count


class PeerPin(Part, frozen=True, kw_only=True):
    """A provider as the tenant trusts it: identity and place are pinned here, changed only by the owner.

    ``endpoints`` are where it was last known ("host:port"); a newer offer of its own corrects them.
    """

    identity: Hash
    name: Name
    owner: Name
    site: Name
    region: Name
    country: Country
    endpoints: list[Endpoint]
    own: bool
    added_ns: Count


class DomainPublic(Part, frozen=True, kw_only=True):
    """A dedup and erasure boundary: who may read it is the holder of the private half of ``restore_key``."""

    id: Id16
    name: Name
    restore_key: Key
    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]


class NodeName(Part, frozen=True, kw_only=True):
    """A petname for a writer."""

    identity: Hash
    name: Name


class KeepersBox(Part, frozen=True, kw_only=True):
    """What only who holds the restore key of ``domain`` can read of a charter, not its nodes: a sealed box."""

    domain: Id16
    sealed: bytes


class KeyNote(Part, frozen=True, kw_only=True):
    """What members know of a key that has, or had, a right: what people call its holder, since when, until when.

    ``revoked_ns`` 0: it still has its right. A key of an earlier charter without a note has no known dates.
    """

    identity: Hash
    name: Name
    added_ns: Count
    revoked_ns: Count


class HandedKeys(Part, frozen=True, kw_only=True):
    """Keys for one member that came after it joined: a MemberKeys, sealed to the key of ``identity``."""

    identity: Hash
    sealed: bytes


class LegalNote(Part, frozen=True, kw_only=True):
    """The tenant's own word about who keeps its data, as the law calls them; empty: it has none.

    It stays when the provider is no peer any more: what lies there is still there.
    """

    identity: Hash
    legal_name: Words
    contact: Words


class ErasedDomain(Part, frozen=True, kw_only=True):
    """A domain whose restore key was destroyed: nobody writes into it, and nobody reads what was written."""

    id: Id16
    name: Name
    erased_ns: Count


class PeerStanding(Part, frozen=True, kw_only=True):
    """The tenant's own word about a provider that is not simply there. ``until_ns``: when "away" ends; 0 otherwise."""

    identity: Hash
    state: Literal["away", "readonly", "draining", "gone"]
    until_ns: Count


class FormerRestore(Part, frozen=True, kw_only=True):
    """A restore key that another followed: ``sealed`` is its private half, to be opened with that of ``successor``.

    What was written until ``until_ns`` was sealed to it, and by who had not heard yet also later.
    """

    domain: Id16
    restore_key: Key
    successor: Key
    until_ns: Count
    sealed: bytes


class CharterPrivate(Record, frozen=True, kw_only=True, tag=7):
    """What members know and providers do not: names, peers, domains, whose each key is.

    ``checks`` can be read by holders of restore keys alone, each of ``handed`` by one member. A domain is in
    ``domains`` or in ``erased``. ``standings``: at most one for each of ``peers``.
    ``formers`` are restore keys that were replaced, in that order.
    ``holders`` is a signed :class:`~replicator.format.mark.Holders` for this charter, which a maintainer shows to a
    provider with a release; empty while only keepers hold a maintenance key.
    """

    name: Name
    country: Country
    peers: list[PeerPin]
    domains: list[DomainPublic]
    nodes: list[NodeName]
    checks: KeepersBox | None = None
    notes: list[KeyNote] = msgspec.field(default_factory=list)
    handed: list[HandedKeys] = msgspec.field(default_factory=list)
    legal: list[LegalNote] = msgspec.field(default_factory=list)
    erased: list[ErasedDomain] = msgspec.field(default_factory=list)
    standings: list[PeerStanding] = msgspec.field(default_factory=list)
    formers: list[FormerRestore] = msgspec.field(default_factory=list)
    holders: bytes = b""


class CharterPrivate6(Record, frozen=True, kw_only=True, tag=6):
    """Version 6: of tenants that have their first restore keys, and no maintainer beside keepers. Written still."""

    name: Name
    country: Country
    peers: list[PeerPin]
    domains: list[DomainPublic]
    nodes: list[NodeName]
    checks: KeepersBox | None = None
    notes: list[KeyNote] = msgspec.field(default_factory=list)
    handed: list[HandedKeys] = msgspec.field(default_factory=list)
    legal: list[LegalNote] = msgspec.field(default_factory=list)
    erased: list[ErasedDomain] = msgspec.field(default_factory=list)
    standings: list[PeerStanding] = msgspec.field(default_factory=list)


class CharterPrivate5(Record, frozen=True, kw_only=True, tag=5):
    """Version 5: of tenants that say nothing of a provider beside its place. Written still."""

    name: Name
    country: Country
    peers: list[PeerPin]
    domains: list[DomainPublic]
    nodes: list[NodeName]
    checks: KeepersBox | None = None
    notes: list[KeyNote] = msgspec.field(default_factory=list)
    handed: list[HandedKeys] = msgspec.field(default_factory=list)
    legal: list[LegalNote] = msgspec.field(default_factory=list)
    erased: list[ErasedDomain] = msgspec.field(default_factory=list)


class CharterPrivate4(Record, frozen=True, kw_only=True, tag=4):
    """Version 4: of tenants no domain of which was erased. Written still."""

    name: Name
    country: Country
    peers: list[PeerPin]
    domains: list[DomainPublic]
    nodes: list[NodeName]
    checks: KeepersBox | None = None
    notes: list[KeyNote] = msgspec.field(default_factory=list)
    handed: list[HandedKeys] = msgspec.field(default_factory=list)
    legal: list[LegalNote] = msgspec.field(default_factory=list)


class CharterPrivate3(Record, frozen=True, kw_only=True, tag=3):
    """Version 3: without legal notes. Written still."""

    name: Name
    country: Country
    peers: list[PeerPin]
    domains: list[DomainPublic]
    nodes: list[NodeName]
    checks: KeepersBox | None = None
    notes: list[KeyNote] = msgspec.field(default_factory=list)
    handed: list[HandedKeys] = msgspec.field(default_factory=list)


class CharterPrivate2(Record, frozen=True, kw_only=True, tag=2):
    """Version 2: without notes and handed keys."""

    name: Name
    country: Country
    peers: list[PeerPin]
    domains: list[DomainPublic]
    nodes: list[NodeName]
    checks: KeepersBox | None = None


class CharterPrivate1(Record, frozen=True, kw_only=True):
    """Version 1: without checks."""

    name: Name
    country: Country
    peers: list[PeerPin]
    domains: list[DomainPublic]
    nodes: list[NodeName]


def read_charter_private(data: bytes) -> CharterPrivate:
    """Return the members' part of any version, in the newest one's terms.

    Raises:
        FormatError: it is none.
    """
    version = version_of(data)
    if version == 6:
        return CharterPrivate(**msgspec.structs.asdict(decode(CharterPrivate6, data)))
    if version == 5:
        return CharterPrivate(**msgspec.structs.asdict(decode(CharterPrivate5, data)))
    if version == 4:
        return CharterPrivate(**msgspec.structs.asdict(decode(CharterPrivate4, data)))
    if version == 3:
        return CharterPrivate(**msgspec.structs.asdict(decode(CharterPrivate3, data)))
    if version not in (1, 2):
        return decode(CharterPrivate, data)
    old = decode(CharterPrivate1, data) if version == 1 else decode(CharterPrivate2, data)
    return CharterPrivate(
        name=old.name,
        country=old.country,
        peers=old.peers,
        domains=old.domains,
        nodes=old.nodes,
        checks=None if isinstance(old, CharterPrivate1) else old.checks,
    )


def encode_charter_private(private: CharterPrivate) -> bytes:
    """Return the members' part: in an earlier version, which earlier releases read, as long as that says it all."""
    if private.formers or private.holders:
        return encode(private)
    values = msgspec.structs.asdict(private)
    if private.standings:
        return encode(CharterPrivate6(**{name: values[name] for name in CharterPrivate6.__struct_fields__}))
    if private.erased:
        return encode(CharterPrivate5(**{name: values[name] for name in CharterPrivate5.__struct_fields__}))
    if private.legal:
        return encode(CharterPrivate4(**{name: values[name] for name in CharterPrivate4.__struct_fields__}))
    return encode(CharterPrivate3(**{name: values[name] for name in CharterPrivate3.__struct_fields__}))


class EnrolOrder(Record, frozen=True, kw_only=True):
    """Signed by root or owner: "give the holder of this key a certificate". ``expires_ns`` 0 = does not.

    Useless without the private key of ``holder_key``; what the holder may then do is in the charter.
    """

    holder_key: Key
    expires_ns: Count
