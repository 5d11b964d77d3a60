"""One value of every record type, with every field set to something that is not its default."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest

from replicator.errors import FormatError
from replicator.format.carried import Carried
from replicator.format.charter import (
    Charter,
    Charter1,
    CharterPrivate,
    CharterPrivate1,
    CharterPrivate2,
    CharterPrivate3,
    CharterPrivate4,
    CharterPrivate5,
    CharterPrivate6,
    DomainPublic,
    EnrolOrder,
    ErasedDomain,
    Floors,
    FormerRestore,
    HandedKeys,
    KeepersBox,
    KeyNote,
    LegalNote,
    NodeName,
    Objection,
    PeerPin,
    PeerStanding,
    Right,
    RootChange,
    RootStatement,
)
from replicator.format.claim import AuditReceipt, Claim, Receipt, Shown, Standing, Witness, challenge_of, set_root
from replicator.format.codec import Record, encode
from replicator.format.drill import Drill, Drill1, DrillCheck, DrillChecks
from replicator.format.erasure import ErasedAt, EraseOrder, EraseReceipt, ErasureReport, ErasureReport1, GoneProvider
from replicator.format.finding import Finding, Statement
from replicator.format.forget import Forget, Forget1, KeptChain, KeptSnapshot, MovedPacks, SeenChain
from replicator.format.group import Admission, Expulsion, Fact, Group, GroupFacts, GroupInvite, Member, Seat, Voucher
from replicator.format.index import Index, IndexedPack, References
from replicator.format.keybag import (
    DomainKeyFile,
    DomainSecrets,
    IndexDomain,
    IndexDomains,
    IndexKey,
    Keybag,
    KeybagSeal,
    KeybagSeals,
    MemberFile,
    MemberKeys,
    MemberKeys1,
    MemberKeys2,
    NodeGrant,
    NodeGrant1,
    NodeRequest,
    NodeRequest1,
    PeerAddress,
    Renewal,
    RestoreSuccessor,
    WrappedSecret,
    WriterDomain,
)
from replicator.format.mark import Fence, Holders, Mark, Retire, SeenWriter
from replicator.format.notice import Clearing, Notice
from replicator.format.offer import Invite, Offer, Offer1, Offer2
from replicator.format.pack import Directory, Segment, Slot
from replicator.format.permit import Permit, Pickup
from replicator.format.policy import Policy, policy_id
from replicator.format.relay import Waiting
from replicator.format.snapshot import (
    ChunkList,
    ChunkRef,
    Head,
    RootFolder,
    Seen,
    Snapshot,
    SnapshotDetails,
)
from replicator.format.tree import Entry, HardLink, Hole, ListPiece, TreePiece, Xattr

NS = 1_000_000_000
NOW = 1_790_000_000 * NS


def run(start: int, length: int) -> bytes:
    """Return bytes that are easy to recognise in a hex dump: start, start+1, ..."""
    return bytes((start + i) % 256 for i in range(length))


POLICY = Policy(
    copies=3,
    minimum=2,
    coding=None,
    spread=["owner", "region"],
    residency=["EEA"],
    count_own=False,
    stale_after_s=36 * 3600,
)
CODED = Policy(
    copies=1, minimum=1, coding=(4, 2), spread=["owner"], residency=[], count_own=True, stale_after_s=72 * 3600
)
ROOT = RootStatement(
    tenant=run(0x10, 16),
    number=2,
    previous=run(0x20, 32),
    root_key=run(0x30, 32),
    root_seal_key=run(0x40, 32),
    owner_key=run(0x50, 32),
    floors=Floors(lock_s=30 * 86400, grace_s=14 * 86400, delete_budget_percent=10, residency=["EEA"], minimum_copies=2),
    created_ns=NOW,
)
RIGHT = Right(
    holder_key=run(0x60, 32),
    role="node",
    ops=["audit", "publish", "read", "write"],
    domains=[run(0x70, 16)],
    quota=500 * 10**9,
    max_object=16 << 20,
    lock_min_s=86400,
    lock_max_s=90 * 86400,
    revoked=True,
)
CHARTER = Charter(
    tenant=run(0x10, 16),
    number=7,
    previous=run(0x80, 32),
    root=b"a signed root statement",
    rights=[RIGHT],
    keybag=run(0x90, 32),
    private=b"a sealed private part",
    created_ns=NOW,
    change=b"a signed change of root",
    handovers=[b"a change that came to count", b"another"],
)
CHARTER_1 = Charter1(
    tenant=CHARTER.tenant,
    number=CHARTER.number,
    previous=CHARTER.previous,
    root=CHARTER.root,
    rights=CHARTER.rights,
    keybag=CHARTER.keybag,
    private=CHARTER.private,
    created_ns=CHARTER.created_ns,
)
CHANGE = RootChange(
    tenant=run(0x10, 16), former=b"a signed root statement", successor=b"the next root's own", announced_ns=NOW
)
OBJECTION = Objection(tenant=run(0x10, 16), statement=run(0x20, 32), created_ns=NOW)
PRIVATE = CharterPrivate(
    name="Åsa",
    country="SE",
    peers=[
        PeerPin(
            identity=run(0xA0, 32),
            name="bo",
            owner="bo",
            site="cellar",
            region="umea",
            country="SE",
            endpoints=["bo.example:7710", "[2001:db8::1]:7710"],
            own=True,
            added_ns=NOW,
        )
    ],
    domains=[DomainPublic(id=run(0x70, 16), name="main", restore_key=run(0xB0, 32), epoch=3)],
    nodes=[NodeName(identity=run(0xC0, 32), name="laptop")],
    checks=KeepersBox(domain=run(0x70, 16), sealed=b"a sealed box"),
    notes=[KeyNote(identity=run(0xC0, 32), name="laptop", added_ns=NOW, revoked_ns=NOW + NS)],
    handed=[HandedKeys(identity=run(0xC1, 32), sealed=b"keys for one member")],
    legal=[LegalNote(identity=run(0xA0, 32), legal_name="Bo Ek AB, 556000-0000", contact="bo@bo.example")],
    erased=[ErasedDomain(id=run(0x71, 16), name="letters", erased_ns=NOW)],
    standings=[PeerStanding(identity=run(0xA0, 32), state="away", until_ns=NOW)],
    formers=[
        FormerRestore(
            domain=run(0x70, 16),
            restore_key=run(0xB1, 32),
            successor=run(0xB0, 32),
            until_ns=NOW,
            sealed=b"a sealed restore key",
        )
    ],
    holders=b"signed holders",
)
PRIVATE_6 = CharterPrivate6(
    **{name: value for name, value in msgspec.structs.asdict(PRIVATE).items() if name not in {"formers", "holders"}}
)
PRIVATE_5 = CharterPrivate5(
    **{name: value for name, value in msgspec.structs.asdict(PRIVATE_6).items() if name != "standings"}
)
PRIVATE_4 = CharterPrivate4(
    **{name: value for name, value in msgspec.structs.asdict(PRIVATE_5).items() if name != "erased"}
)
PRIVATE_3 = CharterPrivate3(
    **{name: value for name, value in msgspec.structs.asdict(PRIVATE_4).items() if name != "legal"}
)
PRIVATE_2 = CharterPrivate2(
    name=PRIVATE.name,
    country=PRIVATE.country,
    peers=PRIVATE.peers,
    domains=PRIVATE.domains,
    nodes=PRIVATE.nodes,
    checks=PRIVATE.checks,
)
PRIVATE_1 = CharterPrivate1(
    name=PRIVATE.name, country=PRIVATE.country, peers=PRIVATE.peers, domains=PRIVATE.domains, nodes=PRIVATE.nodes
)
ORDER = EnrolOrder(holder_key=run(0x60, 32), expires_ns=NOW)
CLAIM = Claim(
    tenant=run(0x10, 16),
    writer=run(0xC0, 32),
    provider=run(0xA0, 32),
    number=5,
    base=4,
    added=run(0x00, 64),
    dropped=run(0x40, 32),
    root=set_root([run(0x00, 32), run(0x20, 32)]),
)
AUDIT_RECEIPT = AuditReceipt(
    tenant=run(0x10, 16),
    auditor=run(0x20, 32),
    incarnation=run(0x30, 16),
    question=run(0x40, 32),
    answer=run(0x50, 32),
    probes=100,
    shown=99,
    at_ns=NOW,
)
RECEIPT = Receipt(
    tenant=run(0x10, 16),
    name=run(0xD0, 32),
    size=65536,
    incarnation=run(0xE0, 16),
    received_ns=NOW,
    lock_until_ns=NOW + 30 * 86400 * NS,
)
WITNESS = Witness(
    tenant=run(0x10, 16),
    writer=run(0xC0, 32),
    number=9,
    head=run(0xF0, 32),
    incarnation=run(0xE0, 16),
    seen_ns=NOW,
)
STANDING = Standing(
    tenant=run(0x10, 16),
    incarnation=run(0x20, 16),
    challenge=challenge_of([run(0x30, 32), run(0x40, 32)]),
    heads=[
        Shown(writer=run(0x50, 32), number=7, head=run(0x60, 32), seen_ns=NOW - NS),
        Shown(writer=run(0x70, 32), number=300, head=run(0x80, 32), seen_ns=NOW - 2 * NS),
    ],
    now_ns=NOW,
)
FINDING = Finding(
    tenant=run(0x10, 16),
    finder=run(0x20, 32),
    kind="rollback",
    writer=run(0x30, 32),
    provider=run(0x40, 32),
    number=7,
    statements=[
        Statement(context="witness", signed=run(0x50, 100)),
        Statement(context="standing", signed=run(0x60, 110)),
    ],
    challenge=[run(0x70, 32)],
    found_ns=NOW,
)
DRILL = Drill(
    tenant=run(0x10, 16),
    keeper=run(0xC0, 32),
    dataset="photos",
    snapshot=run(0xF0, 32),
    started_ns=NOW,
    ended_ns=NOW + 90 * NS,
    whole=True,
    files=4_000,
    bytes=3 * 10**9,
    problems=2,
    unset=40,
    check="not run",
)
FORGET = Forget(
    tenant=run(0x10, 16),
    number=7,
    previous=run(0x60, 32),
    chains=[
        KeptChain(
            writer=run(0x20, 32),
            upto=300,
            kept=[KeptSnapshot(number=2, name=run(0x30, 32)), KeptSnapshot(number=300, name=run(0x40, 32))],
        ),
        KeptChain(writer=run(0xA0, 32), upto=1, kept=[]),
    ],
    view=[SeenChain(writer=run(0x20, 32), number=301), SeenChain(writer=run(0xA0, 32), number=9)],
    gone=run(0x11, 32) + run(0x12, 32),
    moved=[
        MovedPacks(writer=run(0x20, 32), index=run(0x51, 32), packs=run(0x13, 32) + run(0x14, 32)),
        MovedPacks(writer=run(0x20, 32), index=run(0x52, 32), packs=run(0x15, 32)),
    ],
    created_ns=NOW,
)
FORGET_1 = Forget1(
    tenant=FORGET.tenant, number=FORGET.number, previous=FORGET.previous, chains=FORGET.chains, created_ns=NOW
)
DRILL_1 = Drill1(
    tenant=run(0x10, 16),
    keeper=run(0xC0, 32),
    dataset="photos",
    snapshot=run(0xF0, 32),
    started_ns=NOW,
    ended_ns=NOW + 90 * NS,
    whole=True,
    files=4_000,
    bytes=3 * 10**9,
    problems=2,
    check="passed",
)
CHECKS = DrillChecks(
    checks=[
        DrillCheck(dataset="photos", command="test -s photos/index", limit_s=60),
        DrillCheck(dataset="shop", command="pg_restore --list shop/shop.dump", limit_s=3600),
    ]
)
MARK = Mark(
    tenant=run(0x10, 16),
    provider=run(0xA0, 32),
    incarnation=run(0xE0, 16),
    number=4,
    previous=run(0x23, 32),
    view=[SeenWriter(writer=run(0xC0, 32), claim=5, head=9)],
    dead=run(0x00, 64),
    surplus=run(0x40, 32),
    copies=2,
    holders=b"signed holders",
    receipts=[b"a signed receipt"],
    created_ns=NOW,
)
HOLDERS = Holders(tenant=run(0x10, 16), charter=7, providers=run(0x00, 64))
FENCE = Fence(tenant=run(0x10, 16), provider=run(0xA0, 32), writer=run(0xC0, 32), claim=6, head=10)
RETIRE = Retire(tenant=run(0x10, 16), provider=run(0xA0, 32), writer=run(0xC0, 32), claim=5)
PERMIT = Permit(
    tenant=run(0x10, 16),
    source=run(0xA0, 32),
    puller=run(0xA1, 32),
    names=run(0x00, 64),
    offset=0,
    length=0,
    issued_ns=NOW,
    expires_ns=NOW + NS,
)
WAITING = Waiting(relay=run(0xB0, 32), asked_ns=NOW)
GROUP = Group(name="friends", salt=run(0x10, 16), root=b"a signed root statement", created_ns=NOW)
GROUP_MEMBER = Member(
    group=run(0x20, 32),
    number=3,
    name="alice",
    root=b"a signed root statement",
    provider=b"a signed seat",
    state="left",
    said_ns=NOW,
)
SEAT = Seat(group=run(0x20, 32), member=run(0x30, 32))
VOUCHER = Voucher(
    group=run(0x20, 32),
    root=b"a signed root statement",
    door=run(0x40, 32),
    code=run(0x50, 32),
    label="for bob",
    expires_ns=NOW,
    revoked=True,
)
ADMISSION = Admission(group=run(0x20, 32), voucher=b"a signed voucher", member=run(0x30, 32), number=3, admitted_ns=NOW)
EXPULSION = Expulsion(
    group=run(0x20, 32),
    root=b"a signed root statement",
    member=run(0x30, 32),
    number=3,
    reason="silent for a year",
    stay=[run(0x60, 32), run(0x70, 32)],
    said_ns=NOW,
)
GROUP_FACTS = GroupFacts(
    facts=[Fact(kind="group", signed=b"a signed group"), Fact(kind="admission", signed=b"a signed admission")]
)
GROUP_INVITE = GroupInvite(
    group=run(0x20, 32),
    name="friends",
    door=run(0x40, 32),
    endpoints=["alice.example.org:7144"],
    secret=run(0x80, 16),
    expires_ns=NOW,
)
PICKUP = Pickup(permit=b"a signed permit", source=run(0xA0, 32), name=run(0x00, 32), offset=0, length=0, asked_ns=NOW)
ERASE_ORDER = EraseOrder(tenant=run(0x10, 16), created_ns=NOW)
ERASE_RECEIPT = EraseReceipt(
    tenant=run(0x10, 16),
    order=run(0xD0, 32),
    incarnation=run(0xE0, 16),
    objects=7,
    bytes=7 << 20,
    began_ns=NOW,
    ended_ns=NOW + NS,
)
ERASURE_REPORT = ErasureReport(
    tenant=run(0x10, 16),
    name="Åsa",
    keeper=run(0x60, 32),
    order=b"a signed order",
    providers=[
        ErasedAt(identity=run(0xA0, 32), name="bo", endpoints=["bo.example:7710"], receipt=b"a signed receipt"),
        ErasedAt(identity=run(0xB0, 32), name="eva", endpoints=[], receipt=b""),
    ],
    made_ns=NOW + 2 * NS,
    gone=[GoneProvider(identity=run(0xB0, 32), said_ns=NOW + NS)],
)
ERASURE_REPORT_1 = ErasureReport1(
    tenant=run(0x10, 16),
    name="Åsa",
    keeper=run(0x60, 32),
    order=b"a signed order",
    providers=ERASURE_REPORT.providers,
    made_ns=NOW + 2 * NS,
)
OFFER = Offer(
    provider_key=run(0x01, 32),
    number=3,
    endpoints=["bo.example:7710"],
    capacity=500 * 10**9,
    owner="bo",
    site="cellar",
    region="umea",
    country="SE",
    lock_s=30 * 86400,
    grace_s=14 * 86400,
    wire=[1],
    created_ns=NOW,
    legal_name="Bo Ek AB, 556000-0000",
    contact="bo@bo.example",
    notice_s=60 * 86400,
)
OFFER_2 = Offer2(**{name: value for name, value in msgspec.structs.asdict(OFFER).items() if name != "notice_s"})
OFFER_1 = Offer1(**{name: getattr(OFFER, name) for name in Offer1.__struct_fields__})
NOTICE = Notice(tenant=run(0x10, 16), keeps=50 * 10**9, by_ns=NOW + 60 * 86400 * NS, said_ns=NOW, promised_s=60 * 86400)
CARRIED = Carried(tenant=run(0x10, 16), provider=run(0xA0, 32), names=run(0x00, 32) + run(0x20, 32), made_ns=NOW)
CLEARING = Clearing(
    tenant=run(0x10, 16),
    provider=run(0xA0, 32),
    notice=run(0xB0, 32),
    left=20 * 10**9,
    stuck=10**9,
    said_ns=NOW + 86400 * NS,
)
INVITE = Invite(
    identity=run(0xA0, 32), endpoints=["127.0.0.1:7710"], secret=run(0x02, 16), quota=100 * 10**9, expires_ns=NOW
)
DIRECTORY = Directory(
    policy=policy_id(POLICY),
    slots=[Slot(sealed=run(0x03, 80), commitment=run(0x04, 32))],
    segments=[
        Segment(chunk_id=run(0x05, 32), kind=1, slot=0, counter=0, encoding=1, offset=0, stored=100, length=300),
        Segment(chunk_id=run(0x06, 32), kind=1, slot=0, counter=1, encoding=0, offset=100, stored=66, length=50),
    ],
)
INDEX = Index(
    tenant=run(0x10, 16),
    domain=run(0x70, 16),
    writer=run(0xC0, 32),
    created_ns=NOW,
    policies=[POLICY, CODED],
    packs=[
        IndexedPack(
            name=run(0xD0, 32),
            size=16 << 20,
            kind=1,
            policy=policy_id(POLICY),
            shards=[run(0x07, 32)],
            ids=run(0x05, 64),
        )
    ],
)
REFERENCES = References(
    tenant=run(0x10, 16),
    domain=run(0x70, 16),
    writer=run(0xC0, 32),
    base=run(0x08, 32),
    added=run(0x05, 64),
    dropped=run(0x09, 32),
)
CONTENT = ChunkList(depth=1, length=700_000, chunks=[ChunkRef(id=run(0x0A, 32), length=700_000)])
SNAPSHOT = Snapshot(
    tenant=run(0x10, 16),
    domain=run(0x70, 16),
    writer=run(0xC0, 32),
    number=9,
    previous=run(0x0B, 32),
    previous_snapshot=run(0x0C, 32),
    charter=7,
    created_ns=NOW,
    partial=True,
    policy=POLICY,
    indexes=[run(0x0D, 32)],
    references=[run(0x08, 32), run(0x0E, 32)],
    objects=12,
    size=123_456_789,
    files=4321,
    seen=[Seen(writer=run(0x0F, 32), number=3, head=run(0x11, 32))],
    sealed=b"a box",
)
DETAILS = SnapshotDetails(
    dataset="photos",
    host="laptop",
    roots=[RootFolder(path=b"/home/asa/photos", name=b"photos")],
    tree=CONTENT,
    tags=["before the move"],
    gaps=[b"/home/asa/photos/locked"],
)
HEAD = Head(
    tenant=run(0x10, 16),
    writer=run(0xC0, 32),
    number=9,
    previous=run(0x0B, 32),
    snapshot=run(0x12, 32),
    created_ns=NOW,
)
TREE = TreePiece(
    entries=[
        Entry(
            name=b"caf\xe9.raw",
            kind="file",
            mode=0o4640,
            uid=1000,
            gid=100,
            user="åsa",
            group="users",
            mtime_ns=-1,
            ctime_ns=NOW,
            size=700_000,
            content=CONTENT,
            target=b"",
            rdev=0,
            link=HardLink(device=2049, inode=131),
            xattrs=[Xattr(name=b"user.note", value=b"\x00\xff")],
            holes=[Hole(offset=4096, length=65536)],
            changed=True,
        ),
        Entry(
            name=b"latest",
            kind="link",
            mode=0o777,
            uid=0,
            gid=0,
            user="root",
            group="root",
            mtime_ns=NOW,
            ctime_ns=NOW,
            size=0,
            content=None,
            target=b"caf\xe9.raw",
            rdev=0,
            link=None,
            xattrs=[],
            holes=[],
            changed=False,
        ),
    ]
)
LIST = ListPiece(chunks=[ChunkRef(id=run(0x13, 32), length=1 << 20), ChunkRef(id=run(0x14, 32), length=5)])
SECRETS = DomainSecrets(
    id=run(0x70, 16),
    name="main",
    restore_private=run(0x15, 32),
    mix=run(0x16, 32),
    id_key=run(0x17, 32),
    cut_key=run(0x18, 32),
    index_keys=[IndexKey(epoch=1, key=run(0x19, 32)), IndexKey(epoch=300, key=run(0x1A, 32))],
)
WRITER = WriterDomain(
    id=run(0x70, 16),
    name="main",
    restore_key=run(0xB0, 32),
    mix=run(0x16, 32),
    id_key=run(0x17, 32),
    cut_key=run(0x18, 32),
    index_keys=[IndexKey(epoch=1, key=run(0x19, 32))],
)
KEYBAG = Keybag(
    tenant=run(0x10, 16),
    owner_seed=run(0x1B, 32),
    maintenance_seed=run(0x1C, 32),
    member_key=run(0x1D, 32),
    domains=[SECRETS],
)
KEYBAG_SEALS = KeybagSeals(
    seals=[
        KeybagSeal(root_seal_key=run(0x40, 32), sealed=b"sealed to one root"),
        KeybagSeal(root_seal_key=run(0x41, 32), sealed=b"sealed to another"),
    ]
)
DOMAIN_FILE = DomainKeyFile(secrets=SECRETS)
INDEX_DOMAIN = IndexDomain(
    id=run(0x70, 16), name="main", restore_key=run(0xB0, 32), index_keys=[IndexKey(epoch=3, key=run(0x2A, 32))]
)
INDEX_DOMAINS = IndexDomains(domains=[INDEX_DOMAIN])
MEMBER_KEYS = MemberKeys(
    domains=[INDEX_DOMAIN],
    ticket=b"a signed order",
    writing=[WRITER],
    restores=[
        RestoreSuccessor(
            domain=run(0x70, 16),
            former=run(0xB1, 32),
            restore_key=run(0xB0, 32),
            proof=run(0x90, 32),
            sealed=b"a sealed restore key",
        )
    ],
)
MEMBER_KEYS_2 = MemberKeys2(domains=[INDEX_DOMAIN], ticket=b"a signed order", writing=[WRITER])
MEMBER_KEYS_1 = MemberKeys1(domains=[INDEX_DOMAIN], ticket=b"a signed order")
GRANT = NodeGrant(
    tenant=run(0x10, 16),
    name="Åsa",
    role="drill",
    root_key=run(0x30, 32),
    member_key=run(0x1D, 32),
    writing=[WRITER],
    indexing=[INDEX_DOMAIN],
    reading=[SECRETS],
    peers=[PeerAddress(identity=run(0xA0, 32), endpoints=["bo.example:7710"])],
    ticket=b"a signed order",
    charter=b"a signed charter",
)
GRANT_1 = NodeGrant1(
    tenant=GRANT.tenant,
    name=GRANT.name,
    root_key=GRANT.root_key,
    member_key=GRANT.member_key,
    domains=GRANT.writing,
    peers=GRANT.peers,
    ticket=GRANT.ticket,
    charter=GRANT.charter,
)
REQUEST = NodeRequest(name="laptop", role="maintainer", key=run(0x1E, 32), seal_key=run(0x1F, 32))
RENEWAL = Renewal(tenant=run(0x10, 16), request=b"a signed request")
REQUEST_1 = NodeRequest1(name=REQUEST.name, key=REQUEST.key, seal_key=REQUEST.seal_key)
MEMBER = MemberFile(
    tenant=run(0x10, 16),
    name="Åsa",
    root_key=run(0x30, 32),
    member_key=run(0x1D, 32),
    domains=[WRITER],
    ticket=b"a signed order",
)
WRAPPED = WrappedSecret(
    salt=run(0x21, 16), memory_kib=65536, passes=3, lanes=4, commitment=run(0x22, 32), sealed=b"nonce, secret, tag"
)

SAMPLES: dict[str, Record] = {
    "policy": POLICY,
    "coded policy": CODED,
    "root statement": ROOT,
    "charter": CHARTER,
    "charter 1": CHARTER_1,
    "root change": CHANGE,
    "objection": OBJECTION,
    "charter private": PRIVATE,
    "charter private 1": PRIVATE_1,
    "charter private 2": PRIVATE_2,
    "charter private 3": PRIVATE_3,
    "charter private 4": PRIVATE_4,
    "charter private 5": PRIVATE_5,
    "charter private 6": PRIVATE_6,
    "enrol order": ORDER,
    "claim": CLAIM,
    "receipt": RECEIPT,
    "witness": WITNESS,
    "audit receipt": AUDIT_RECEIPT,
    "standing": STANDING,
    "erase order": ERASE_ORDER,
    "erase receipt": ERASE_RECEIPT,
    "erasure report": ERASURE_REPORT,
    "erasure report 1": ERASURE_REPORT_1,
    "finding": FINDING,
    "drill": DRILL,
    "drill 1": DRILL_1,
    "drill checks": CHECKS,
    "forget": FORGET,
    "forget 1": FORGET_1,
    "mark": MARK,
    "holders": HOLDERS,
    "fence": FENCE,
    "retire": RETIRE,
    "group": GROUP,
    "member": GROUP_MEMBER,
    "seat": SEAT,
    "voucher": VOUCHER,
    "admission": ADMISSION,
    "expulsion": EXPULSION,
    "group facts": GROUP_FACTS,
    "group invite": GROUP_INVITE,
    "permit": PERMIT,
    "waiting": WAITING,
    "pickup": PICKUP,
    "offer": OFFER,
    "offer 1": OFFER_1,
    "offer 2": OFFER_2,
    "notice": NOTICE,
    "clearing": CLEARING,
    "carried": CARRIED,
    "invite": INVITE,
    "directory": DIRECTORY,
    "index": INDEX,
    "references": REFERENCES,
    "snapshot": SNAPSHOT,
    "snapshot details": DETAILS,
    "head": HEAD,
    "tree piece": TREE,
    "list piece": LIST,
    "keybag": KEYBAG,
    "keybag seals": KEYBAG_SEALS,
    "domain key file": DOMAIN_FILE,
    "index domains": INDEX_DOMAINS,
    "member keys": MEMBER_KEYS,
    "member keys 1": MEMBER_KEYS_1,
    "member keys 2": MEMBER_KEYS_2,
    "node grant": GRANT,
    "node grant 1": GRANT_1,
    "node request": REQUEST,
    "node request 1": REQUEST_1,
    "renewal": RENEWAL,
    "member file": MEMBER,
    "wrapped secret": WRAPPED,
}

T = TypeVar("T", bound=msgspec.Struct)


def refused(record: Record, **changes: Any) -> None:
    """Check that a record with these fields cannot be written. That it cannot be read is the codec's test."""
    with pytest.raises((FormatError, ValueError)):
        encode(msgspec.structs.replace(record, **changes))


def accepted(record: Record, **changes: Any) -> None:
    """Check that a record with these fields can be written."""
    encode(msgspec.structs.replace(record, **changes))


def inside(part: T, wrap: Callable[[T], Record]) -> Callable[..., Record]:
    """Return a function that changes fields of ``part`` and puts it into a record."""
    return lambda **changes: wrap(msgspec.structs.replace(part, **changes))
