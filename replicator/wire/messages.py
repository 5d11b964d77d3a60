"""Requests and answers of protocol version 1, their limits, and the words for a refusal.

All bodies are canonical records (:mod:`replicator.format.codec`). Signed statements travel as they are stored.
docs/spec/protocol.md is the contract; :data:`OPS` is its table.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from replicator.format.charter import Count, Endpoint, Hash, Id16, Key, Op
from replicator.format.claim import Incarnation
from replicator.format.codec import HASH_SIZE, Part, Record, decode, version_of
from replicator.format.group import MAX_FACT, MAX_FACTS, Fact
from replicator.format.keybag import SecretRecord
from replicator.format.merkle import Proof
from replicator.ids import NAME_SIZE

WIRE_VERSION = 1
"""What every release speaks that there was so far."""
PULLS_VERSION = 2
"""Adds what is below /v2, and changes nothing else. A provider that does not say it is asked nothing of that."""
MAX_REQUEST = 8 << 20
"""Bytes of any request body except an object."""
MAX_ANSWER = 16 << 20
MAX_PROBES = 256
MAX_CHECKS = 64
INVENTORY_PAGE = 10_000
ARRIVALS_PAGE = 20_000
"""Objects that a provider looks at for an answer; those that are told are a part of them."""
CHAIN_PAGE = 4096
"""Heads; each has some 300 bytes."""
MAX_TESTIMONY = 64
"""Providers whose witnesses are kept for a writer."""
MARKS_PAGE = 10_000
MAX_OFFERS = 64
"""Other providers whose offers are told in one request, and kept for a tenant."""

TOKEN_SIZE = 16
Token = Annotated[bytes, msgspec.Meta(min_length=TOKEN_SIZE, max_length=TOKEN_SIZE)]

Run = Annotated[bytes, msgspec.Meta(max_length=MAX_FACTS * HASH_SIZE)]
"""Hashes, end to end."""
RECEIPTS_PAGE = 4096
"""Each has some 250 bytes."""

Refusal = Literal[
    "bad-request",  # malformed, over a limit, or not this protocol
    "unauthorized",  # no certificate, or one whose holder is not (or no longer) known
    "forbidden",  # known, but without the right
    "replaced",  # this root was followed by another here
    "not-found",  # no such object
    "wrong-name",  # the bytes are not the object they are called
    "damaged",  # the object is here and its bytes are not right; quarantined
    "quota",  # the tenant's quota is used up
    "full",  # the disk is
    "busy",  # come back after after_s
    "conflict",  # a claim's base, a head's or a charter's number does not follow ours
    "fork",  # a second, different head or charter at a number we have
    "spent",  # the invite was used, revoked or has expired
    "unavailable",  # the store is not mounted or is closing
    "unsupported",  # a version we do not speak
]

REVOKED = "the charter has revoked this key"
"""What "forbidden" says to a key that had rights and has none."""
STATUS: dict[str, int] = {
    "bad-request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "replaced": 403,
    "not-found": 404,
    "wrong-name": 422,
    "damaged": 410,
    "quota": 413,
    "full": 507,
    "busy": 503,
    "conflict": 409,
    "fork": 409,
    "spent": 403,
    "unavailable": 503,
    "unsupported": 505,
}
"""HTTP status of each refusal; the body (:class:`Refused`) has the word itself."""


class Refused(Record, frozen=True, kw_only=True):
    """Why not, for programs (``code``) and for people (``message``)."""

    code: Refusal
    message: str
    after_s: Annotated[float, msgspec.Meta(ge=0, le=86400)]


class Empty(Record, frozen=True, kw_only=True):
    """Nothing to say."""


class EnrolRequest(SecretRecord, frozen=True, kw_only=True, tag=2):
    """The one request without a certificate.

    Either ``secret`` (an invite's, with ``root``: the tenant's signed root statement, and ``tenant``), or
    ``order``: an enrol order for ``holder_key`` signed by the root or owner key of a tenant known here, or of the
    one whose ``root`` goes with it where the provider's operator declared it. ``handovers`` are the changes of root
    that lead from the tenant's first root to the one in ``root``.
    """

    holder_key: Key
    secret: bytes
    order: bytes
    root: bytes
    handovers: Annotated[list[bytes], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)


class EnrolRequest1(SecretRecord, frozen=True, kw_only=True):
    """Version 1: of a tenant's first root, or of a tenant that is known. Written still."""

    holder_key: Key
    secret: bytes
    order: bytes
    root: bytes


def written_enrol_request(request: EnrolRequest) -> EnrolRequest | EnrolRequest1:
    """Return what is sent: version 1, which earlier releases read, as long as that says it all."""
    if request.handovers:
        return request
    values = msgspec.structs.asdict(request)
    return EnrolRequest1(**{name: values[name] for name in EnrolRequest1.__struct_fields__})


def read_enrol_request(data: bytes) -> EnrolRequest:
    """Return a request to enrol of any version, in the newest one's terms.

    Raises:
        FormatError: it is none.
    """
    if version_of(data) != 1:
        return decode(EnrolRequest, data, limit=MAX_REQUEST)
    return EnrolRequest(**msgspec.structs.asdict(decode(EnrolRequest1, data, limit=MAX_REQUEST)))


class EnrolReply(Record, frozen=True, kw_only=True):
    """``certificate`` (DER) for the holder's key, and the provider's signed offer."""

    tenant: Id16
    certificate: bytes
    offer: bytes


class Info(Record, frozen=True, kw_only=True):
    """How the provider sees the asking holder's tenant. ``charter`` is an object's name, or empty.

    ``claim`` is the number of the holder's last claim here, or of its fence if that is higher; 0 for neither.
    ``free`` is what the tenant may still store: the least of its quota, the offered capacity and the disk. ``now_ns``
    is the provider's clock.
    """

    incarnation: Incarnation
    offer: bytes
    charter_number: Count
    charter: bytes
    claim: Count
    quota: Count
    used: Count
    free: Count
    now_ns: Count
    wire: list[int]


class InventoryRequest(Record, frozen=True, kw_only=True):
    """Objects whose names sort after ``after`` (empty: from the first)."""

    after: bytes
    limit: Annotated[int, msgspec.Meta(ge=1, le=INVENTORY_PAGE)]


class Inventory(Record, frozen=True, kw_only=True):
    """What was received, each object looked up on the disk now, by name.

    ``names`` are 32 bytes each, ``sizes`` as found. ``missing``: received once and no longer there;
    ``damaged``: of another size than received, or quarantined; neither is among ``names``. ``more`` says whether
    to ask on, after :attr:`last`: a page of a lost disk has no ``names`` at all.
    """

    incarnation: Incarnation
    names: bytes
    sizes: list[int]
    missing: bytes
    damaged: bytes
    more: bool

    @property
    def last(self) -> bytes:
        """The greatest name on this page, in whichever of its lists; empty if the page is."""
        return max(self.names[-NAME_SIZE:], self.missing[-NAME_SIZE:], self.damaged[-NAME_SIZE:])


class ArrivalsRequest(Record, frozen=True, kw_only=True):
    """Objects of at most ``largest`` bytes that were stored after the ``after``-th (0: from the first).

    ``limit``: how many are looked at, of whatever size.
    """

    after: Count
    largest: Count
    limit: Annotated[int, msgspec.Meta(ge=1, le=ARRIVALS_PAGE)]


class Arrivals(Record, frozen=True, kw_only=True):
    """``names`` in the order they were stored, as far as they lie there: what to look at, never proof of absence.

    ``last`` is how far this answer goes and the next question begins; it is below ``after`` if fewer were ever stored.
    ``more``: there are others behind it.
    """

    incarnation: Incarnation
    names: bytes
    last: Count
    more: bool


class ProveRequest(Record, frozen=True, kw_only=True):
    """Pairs of object and leaf to prove."""

    names: bytes
    leaves: list[int]


class ProveReply(Record, frozen=True, kw_only=True):
    """A proof for each pair in order; None where the object is absent or the leaf cannot be read."""

    incarnation: Incarnation
    proofs: list[Proof | None]


class AttestReply(Record, frozen=True, kw_only=True):
    """A ProveReply with a signed AuditReceipt for it."""

    incarnation: Incarnation
    proofs: list[Proof | None]
    receipt: bytes


class CheckRequest(Record, frozen=True, kw_only=True):
    """Objects to read whole and compare with their names now."""

    names: bytes


class CheckReply(Record, frozen=True, kw_only=True):
    """One word for each, in order. A damaged object has been quarantined: it can be put again."""

    incarnation: Incarnation
    states: list[Literal["good", "missing", "damaged"]]


class ClaimReply(Record, frozen=True, kw_only=True):
    """``missing``: claimed objects that are not here, sorted names; the claim stands for the others."""

    incarnation: Incarnation
    number: Count
    missing: bytes


class HeadsRequest(Record, frozen=True, kw_only=True, tag=2):
    """``challenge`` goes into the signed answer (:class:`~replicator.format.claim.Standing`)."""

    challenge: Hash


class Heads(Record, frozen=True, kw_only=True, tag=2):
    """The newest signed head of each writer, and the evidence of forks: pairs of signed heads.

    ``standing`` is the provider's signed word that these are the newest. ``testimony`` is what writers say that other
    providers signed to them: signed witnesses, one a writer and provider.
    """

    incarnation: Incarnation
    heads: list[bytes]
    forks: list[tuple[bytes, bytes]]
    standing: bytes
    testimony: list[bytes]


class ChainRequest(Record, frozen=True, kw_only=True):
    """The heads of one writer with numbers below ``before`` (0: from the newest on)."""

    writer: Hash
    before: Count
    limit: Annotated[int, msgspec.Meta(ge=1, le=CHAIN_PAGE)]


class Chain(Record, frozen=True, kw_only=True):
    """Signed heads as this provider witnessed them, the newest first. ``more``: there are older ones."""

    incarnation: Incarnation
    heads: list[bytes]
    more: bool


class Testimony(Record, frozen=True, kw_only=True):
    """Signed witnesses of other providers for the asking writer's own heads."""

    witnesses: Annotated[list[bytes], msgspec.Meta(max_length=MAX_TESTIMONY)]


class WriterState(Part, frozen=True, kw_only=True):
    """A writer as a provider knows it. ``claim`` and ``head``: the numbers accepted last, 0 for none.

    ``current``: it claimed in this incarnation, or it has nothing to claim anew. A writer that is not, and is not
    ``retired`` either, holds up every mark. Claims and heads up to the ``fenced`` numbers are refused.
    """

    writer: Hash
    claim: Count
    head: Count
    current: bool
    retired: bool
    fenced_claim: Count
    fenced_head: Count


class Claims(Record, frozen=True, kw_only=True):
    """What a mark must be made of: all writers, sorted, and the end of the tenant's chain of marks here.

    ``mark`` is the number of the last mark (0: none), ``mark_hash`` the hash of it as signed (zeros).
    """

    incarnation: Incarnation
    writers: list[WriterState]
    mark: Count
    mark_hash: Hash


class MarkReply(Record, frozen=True, kw_only=True):
    """What became of a mark. Only one that ``stands`` changed anything.

    ``stale``: its view is not what was accepted here; ``wrong previous``: it is not the next in the chain. ``now``
    has what the next try needs; it is there in each case, as of this answer. Of one that stands, names are refused
    for themselves, sorted: ``claimed`` (by somebody who is not retired), ``locked`` (without end: charter and keybag
    in force), ``short`` (surplus without receipts enough, or whose own receipt here is too young), ``absent`` (never
    received, or deleted). All others are marked.
    """

    state: Literal["stands", "stale", "wrong previous"]
    now: Claims
    claimed: bytes
    locked: bytes
    short: bytes
    absent: bytes


class MarksRequest(Record, frozen=True, kw_only=True):
    """Marked objects whose names sort after ``after`` (empty: from the first)."""

    after: bytes
    limit: Annotated[int, msgspec.Meta(ge=1, le=MARKS_PAGE)]


class Outstanding(Part, frozen=True, kw_only=True):
    """A marked object: since when, and when the provider would delete it at the earliest if nothing intervenes."""

    name: Hash
    size: Count
    why: Literal["dead", "surplus"]
    marked_ns: Count
    due_ns: Count


class Marks(Record, frozen=True, kw_only=True):
    """A page of marked objects by name; ``count``, ``size`` (bytes) and ``first_ns`` are of all of them.

    ``first_ns`` is the earliest ``due_ns``, 0 if nothing is marked. ``swept`` bytes were deleted in the last seven
    days, of ``budget`` that may be. ``frozen_until_ns``: a leap of the clock holds everything up until then (0: not).
    """

    incarnation: Incarnation
    marks: list[Outstanding]
    more: bool
    count: Count
    size: Count
    first_ns: Count
    swept: Count
    budget: Count
    frozen_until_ns: Count


class VouchRequest(Record, frozen=True, kw_only=True):
    """Objects to read whole, and to sign fresh receipts for: as if each were put again."""

    names: bytes


class VouchReply(Record, frozen=True, kw_only=True):
    """A signed receipt for each, in order; empty where it is missing or damaged."""

    incarnation: Incarnation
    receipts: list[bytes]


PullFailure = Literal["unreachable", "busy", "refused", "wrong bytes", "no room"]


class PullRequest(Record, frozen=True, kw_only=True):
    """Fetch an object of ``size`` bytes from another provider, or say how that went.

    ``permit`` is a signed Permit for this provider, ``offer`` the source's signed offer, with its addresses.
    """

    name: Hash
    size: Count
    permit: bytes
    offer: bytes


class PullReply(Record, frozen=True, kw_only=True):
    """``receipt`` as of a PUT, once the object is durable here; empty before, and if it ``failed``.

    ``after_s``: it is under way; ask again then. Why it failed is one word: what the source said, or where it leads,
    is not told.
    """

    incarnation: Incarnation
    receipt: bytes
    failed: PullFailure | None
    after_s: Annotated[float, msgspec.Meta(ge=0, le=86400)]


class KnownOffer(Part, frozen=True, kw_only=True):
    """Which offer of a provider the asker has: its number, 0 for none."""

    identity: Hash
    number: Count


class OffersRequest(Record, frozen=True, kw_only=True):
    """Which offers of its tenant's providers the asker has; and ``offers``, signed, that were lacking here."""

    known: Annotated[list[KnownOffer], msgspec.Meta(max_length=MAX_OFFERS)]
    offers: Annotated[list[bytes], msgspec.Meta(max_length=MAX_OFFERS)]


class Offers(Record, frozen=True, kw_only=True):
    """Signed offers, newer than those that the asker has. ``lacking``: identities whose offer it has and is news here.

    The asker has to bring these, and to verify those: they are worth what their own signatures are.
    """

    incarnation: Incarnation
    offers: list[bytes]
    lacking: list[Hash]


ProbeAnswer = Literal["your key", "another key", "nothing", "private"]


class Probed(Part, frozen=True, kw_only=True):
    """What answered when an endpoint was dialled back over IPv4 or IPv6; family 0: it was not dialled.

    "private": it is a number of a network that is not dialled from there.
    """

    endpoint: Endpoint
    family: Literal[0, 4, 6]
    answer: ProbeAnswer


class ProbeReply(Record, frozen=True, kw_only=True):
    """What answered at the endpoints of the offer; ``seen`` is the address that asked, as it was seen from there."""

    incarnation: Incarnation
    probed: list[Probed]
    seen: Annotated[str, msgspec.Meta(max_length=64)]


class WaitReply(Record, frozen=True, kw_only=True):
    """Whoever is relayed dials back for each of ``tokens``: a client waits there. ``offer`` is the relay's, signed.

    No tokens: nobody came; ask again.
    """

    incarnation: Incarnation
    tokens: list[Token]
    offer: bytes


class LeavingRequest(Record, frozen=True, kw_only=True):
    """Do you leave or shrink? ``clearing`` is the holder's signed Clearing, empty to ask only."""

    clearing: bytes


class Leaving(Record, frozen=True, kw_only=True):
    """``notice`` is the provider's signed Notice for the asking holder's tenant, empty if it stays as it is."""

    incarnation: Incarnation
    notice: bytes


class GroupRequest(Record, frozen=True, kw_only=True):
    """What the asker has of a group, as hashes of facts, and ``facts`` that were wanted here.

    ``group`` is zeros where it asks which group its tenant is in.
    """

    group: Hash
    have: Run
    facts: Annotated[list[Fact], msgspec.Meta(max_length=MAX_FACTS)]


class GroupReply(Record, frozen=True, kw_only=True):
    """Facts of the provider's ``group`` that the asker lacks; ``wanted`` are hashes of those that are lacking here.

    A provider that is in no group, or in another, has zeros and nothing: ``group`` says which only to its members.
    """

    group: Hash
    facts: Annotated[list[Fact], msgspec.Meta(max_length=MAX_FACTS)]
    wanted: Run


class JoinRequest(SecretRecord, frozen=True, kw_only=True):
    """Without a certificate: let me in by this code's ``secret``, or (empty) just hear who I am.

    ``word`` is the asker's signed Member; ``facts`` say who let it in, for a provider that has not heard.
    """

    group: Hash
    secret: Annotated[bytes, msgspec.Meta(max_length=16)]
    word: Annotated[bytes, msgspec.Meta(max_length=MAX_FACT)]
    facts: Annotated[list[Fact], msgspec.Meta(max_length=MAX_FACTS)]


class UsageMonth(Part, frozen=True, kw_only=True):
    """A tenant's month ("2026-11") at a provider, in bytes: ``kept`` at most, ``taken`` in, ``given`` out."""

    month: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}$")]
    kept: Count
    taken: Count
    given: Count


class Usage(Record, frozen=True, kw_only=True):
    """What a provider counted for the asking holder's tenant, the newest month first. Nothing is decided by it."""

    incarnation: Incarnation
    months: Annotated[list[UsageMonth], msgspec.Meta(max_length=64)]


class ReceiptsRequest(Record, frozen=True, kw_only=True):
    """Receipts that wait for the asking holder; ``got`` are names of those that it has now, and that wait no more."""

    got: Annotated[bytes, msgspec.Meta(max_length=RECEIPTS_PAGE * NAME_SIZE)]


class Receipts(Record, frozen=True, kw_only=True):
    """A page of signed receipts of what was taken in without a connection; none if no more wait."""

    incarnation: Incarnation
    receipts: list[bytes]


class CharterNotice(Record, frozen=True, kw_only=True):
    """A newer charter lies here as this object; the provider reads and checks it itself."""

    name: Hash


class SuccessionRequest(Record, frozen=True, kw_only=True):
    """How does a change of root stand? ``objection`` is root's signed Objection to it, empty to ask only."""

    objection: bytes


class Succession(Record, frozen=True, kw_only=True):
    """A change of root as it waits at this provider; ``change`` is the hash of the signed RootChange, empty: none.

    ``due_ns`` is when it counts here at the earliest, ``passed`` whether it does. ``objection`` is root's word
    against any successor of the root statement in force here, empty if there is none.
    """

    incarnation: Incarnation
    change: bytes
    began_ns: Count
    due_ns: Count
    passed: bool
    objection: bytes


class Signed(Record, frozen=True, kw_only=True):
    """A signed statement (claim, head) or its answer (receipt, witness)."""

    statement: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpSpec:
    """One operation: its path below /v<since>, the right it needs (None: any member), its request and answer."""

    path: str
    right: Op | None
    request: type[Record]
    answer: type[Record]
    since: int = WIRE_VERSION


OPS: dict[str, OpSpec] = {
    "info": OpSpec(path="info", right=None, request=Empty, answer=Info),
    "inventory": OpSpec(path="inventory", right="audit", request=InventoryRequest, answer=Inventory),
    "arrivals": OpSpec(path="arrivals", right="audit", request=ArrivalsRequest, answer=Arrivals),
    "prove": OpSpec(path="prove", right="audit", request=ProveRequest, answer=ProveReply),
    "check": OpSpec(path="check", right="audit", request=CheckRequest, answer=CheckReply),
    "claim": OpSpec(path="claim", right="publish", request=Signed, answer=ClaimReply),
    "head": OpSpec(path="head", right="publish", request=Signed, answer=Signed),
    "heads": OpSpec(path="heads", right="read", request=HeadsRequest, answer=Heads),
    "chain": OpSpec(path="chain", right="read", request=ChainRequest, answer=Chain),
    "testify": OpSpec(path="testify", right="publish", request=Testimony, answer=Empty),
    "charter": OpSpec(path="charter", right="write", request=CharterNotice, answer=Empty),
    "succession": OpSpec(path="succession", right=None, request=SuccessionRequest, answer=Succession),
    "claims": OpSpec(path="claims", right="audit", request=Empty, answer=Claims),
    "mark": OpSpec(path="mark", right="audit", request=Signed, answer=MarkReply),
    "marks": OpSpec(path="marks", right="audit", request=MarksRequest, answer=Marks),
    "fence": OpSpec(path="fence", right="audit", request=Signed, answer=Claims),
    "retire": OpSpec(path="retire", right="audit", request=Signed, answer=Claims),
    "vouch": OpSpec(path="vouch", right="write", request=VouchRequest, answer=VouchReply),
    "attest": OpSpec(path="attest", right="audit", request=ProveRequest, answer=AttestReply, since=PULLS_VERSION),
    "pull": OpSpec(path="pull", right="write", request=PullRequest, answer=PullReply, since=PULLS_VERSION),
    "offers": OpSpec(path="offers", right=None, request=OffersRequest, answer=Offers, since=PULLS_VERSION),
    "leaving": OpSpec(path="leaving", right=None, request=LeavingRequest, answer=Leaving, since=PULLS_VERSION),
    "group": OpSpec(path="group", right=None, request=GroupRequest, answer=GroupReply, since=PULLS_VERSION),
    "usage": OpSpec(path="usage", right=None, request=Empty, answer=Usage, since=PULLS_VERSION),
    "receipts": OpSpec(path="receipts", right="write", request=ReceiptsRequest, answer=Receipts, since=PULLS_VERSION),
}
"""Operations with a record in and a record out. Objects are PUT ("write") and GET ("read") at /v1/objects/NAME."""

BARE: dict[str, int] = {
    "enrol": WIRE_VERSION,
    "erase": WIRE_VERSION,
    "give": PULLS_VERSION,
    "announce": PULLS_VERSION,
    "join": PULLS_VERSION,
    "probe": PULLS_VERSION,
    "wait": PULLS_VERSION,
}
"""What is asked without a certificate, and since which version; the path is /v<since>/<word>."""
