"""A tenant as a provider meets it: keys, root statement, charters, claims, heads, objects; and a provider's home."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from replicator.charter.verify import NO_PREVIOUS, signed_hash
from replicator.crypto.sign import Context, SigningKey
from replicator.format.charter import ROLE_OPS, Charter, EnrolOrder, Floors, Right, Role, RootStatement
from replicator.format.claim import Claim, set_root
from replicator.format.codec import decode, encode
from replicator.format.codes import read_code
from replicator.format.container import record_fill, wrap_record
from replicator.format.erasure import EraseOrder
from replicator.format.mark import Fence, Holders, Mark, Retire, SeenWriter
from replicator.format.merkle import name_of
from replicator.format.offer import Invite
from replicator.format.snapshot import Head
from replicator.fs import Fs, PosixFs
from replicator.ids import Identity, ObjectName, tenant_of
from replicator.provider.databucket import MakeBucket
from replicator.provider.home import Provider, Terms, init_provider, open_provider
from replicator.provider.service import ProviderService
from replicator.provider.session import ProviderSession
from replicator.store.s3 import open_s3
from replicator.wire.messages import CharterNotice, Claims, EnrolReply, EnrolRequest
from tests.fakes import FakeClock, SeededRng

KIB = 1 << 10
MIB = 1 << 20
SMALL = 64 * KIB


def terms(**changes: object) -> Terms:
    """Return a provider's terms, some of them changed."""
    values: dict[str, object] = {
        "capacity": 1000 * MIB,
        "owner": "alice",
        "site": "cellar",
        "region": "umea",
        "country": "SE",
        "listen": "127.0.0.1:7710",
        "advertise": (),
        "lock_s": 30 * 86400,
        "grace_s": 14 * 86400,
    }
    return Terms(**(values | changes))  # type: ignore[arg-type]  # a test names the field it changes


def data_object(seed: int, size: int = SMALL) -> bytes:
    """Return the bytes of an object."""
    return SeededRng(f"object {seed}").bytes(size)


def right(key: SigningKey, role: Role, **changes: object) -> Right:
    """Return what a role's charter entry gives a key."""
    values: dict[str, object] = {
        "holder_key": key.public,
        "role": role,
        "ops": list(ROLE_OPS[role]),
        "domains": [],
        "quota": 0,
        "max_object": 0,
        "lock_min_s": 0,
        "lock_max_s": 0,
        "revoked": False,
    }
    return Right(**(values | changes))  # type: ignore[arg-type]  # a test names the field it changes


NO_FLOORS = Floors(lock_s=0, grace_s=0, delete_budget_percent=10, residency=[], minimum_copies=1)


@dataclass
class Tenant:
    """A tenant's signing side."""

    name: str
    id: bytes = b""
    root_number: int = 1
    root_previous: bytes = NO_PREVIOUS
    charters: list[bytes] = field(default_factory=list)
    floors: Floors = NO_FLOORS

    def __post_init__(self) -> None:
        rng = SeededRng(f"tenant {self.name}")
        self.root = SigningKey(rng.bytes(32))
        self.id = self.id or tenant_of(self.root.public)
        self.owner = SigningKey(rng.bytes(32))
        self.keeper = SigningKey(rng.bytes(32))
        self.node = SigningKey(rng.bytes(32))
        self.maintainer = SigningKey(rng.bytes(32))

    def root_statement(self, **changes: object) -> bytes:
        """Return the signed root statement."""
        values: dict[str, object] = {
            "tenant": self.id,
            "number": self.root_number,
            "previous": self.root_previous,
            "root_key": self.root.public,
            "root_seal_key": bytes(32),
            "owner_key": self.owner.public,
            "floors": self.floors,
            "created_ns": 0,
        }
        statement = RootStatement(**(values | changes))  # type: ignore[arg-type]  # a test names the field it changes
        return self.root.sign(Context.ROOT_STATEMENT, encode(statement))

    def charter(self, rights: list[Right] | None = None, *, number: int = 0, keybag: bytes, **changes: object) -> bytes:
        """Return the next signed charter."""
        values: dict[str, object] = {
            "tenant": self.id,
            "number": number or len(self.charters) + 1,
            "previous": signed_hash(self.charters[-1]) if self.charters else NO_PREVIOUS,
            "root": self.root_statement(),
            "rights": rights if rights is not None else [right(self.keeper, "keeper"), right(self.node, "node")],
            "keybag": keybag,
            "private": b"sealed",
            "created_ns": 0,
        }
        charter = Charter(**(values | changes))  # type: ignore[arg-type]  # a test names the field it changes
        signed = self.owner.sign(Context.CHARTER, encode(charter))
        self.charters.append(signed)
        return signed

    def erase_order(self, *, by: SigningKey | None = None, tenant: bytes = b"", created_ns: int = 1) -> bytes:
        """Return a signed order to erase this tenant."""
        order = EraseOrder(tenant=tenant or self.id, created_ns=created_ns)
        return (by or self.root).sign(Context.ERASE_ORDER, encode(order))

    def order(self, holder: SigningKey, *, by: SigningKey | None = None, expires_ns: int = 0) -> bytes:
        """Return a signed enrol order."""
        signer = by or self.owner
        return signer.sign(Context.ENROL_ORDER, encode(EnrolOrder(holder_key=holder.public, expires_ns=expires_ns)))

    def claim(
        self,
        provider: Identity,
        number: int,
        names: list[bytes],
        *,
        base: int = 0,
        added: list[bytes] | None = None,
        dropped: list[bytes] | None = None,
        by: SigningKey | None = None,
        **changes: object,
    ) -> bytes:
        """Return a signed claim whose set is ``names`` afterwards."""
        writer = by or self.node
        values: dict[str, object] = {
            "tenant": self.id,
            "writer": writer.identity,
            "provider": provider,
            "number": number,
            "base": base,
            "added": b"".join(sorted(names if added is None else added)),
            "dropped": b"".join(sorted(dropped or [])),
            "root": set_root(names),
        }
        claim = Claim(**(values | changes))  # type: ignore[arg-type]  # a test names the field it changes
        return writer.sign(Context.CLAIM, encode(claim))

    def head(
        self,
        number: int,
        previous: bytes = NO_PREVIOUS,
        *,
        snapshot: bytes = bytes(32),
        by: SigningKey | None = None,
    ) -> bytes:
        """Return a signed head."""
        writer = by or self.node
        head = Head(
            tenant=self.id,
            writer=writer.identity,
            number=number,
            previous=previous,
            snapshot=snapshot,
            created_ns=0,
        )
        return writer.sign(Context.HEAD, encode(head))

    def mark(
        self,
        provider: Identity,
        now: Claims,
        *,
        dead: Iterable[bytes] = (),
        surplus: Iterable[bytes] = (),
        by: SigningKey | None = None,
        **changes: object,
    ) -> bytes:
        """Return a signed mark that was made knowing ``now``."""
        values: dict[str, object] = {
            "tenant": self.id,
            "provider": provider,
            "incarnation": now.incarnation,
            "number": now.mark + 1,
            "previous": now.mark_hash,
            "view": [SeenWriter(writer=one.writer, claim=one.claim, head=one.head) for one in now.writers],
            "dead": b"".join(sorted(dead)),
            "surplus": b"".join(sorted(surplus)),
            "copies": 1,
            "holders": b"",
            "receipts": [],
            "created_ns": 0,
        }
        mark = Mark(**(values | changes))  # type: ignore[arg-type]  # a test names the field it changes
        return (by or self.maintainer).sign(Context.MARK, encode(mark))

    def holders(self, *providers: bytes, by: SigningKey | None = None, charter: int = 0) -> bytes:
        """Return the owner's word on which providers count."""
        holders = Holders(tenant=self.id, charter=charter or len(self.charters), providers=b"".join(sorted(providers)))
        return (by or self.owner).sign(Context.HOLDERS, encode(holders))

    def fence(
        self, provider: Identity, *, claim: int = 0, head: int = 0, by: SigningKey | None = None, writer: bytes = b""
    ) -> bytes:
        """Return a signed fence."""
        fence = Fence(tenant=self.id, provider=provider, writer=writer or self.node.identity, claim=claim, head=head)
        return (by or self.maintainer).sign(Context.FENCE, encode(fence))

    def retire(self, provider: Identity, claim: int, *, by: SigningKey | None = None, writer: bytes = b"") -> bytes:
        """Return a signed retirement."""
        retire = Retire(tenant=self.id, provider=provider, writer=writer or self.node.identity, claim=claim)
        return (by or self.maintainer).sign(Context.RETIRE, encode(retire))


def hire(service: ProviderService, tenant: Tenant, **floors: object) -> None:
    """Enrol the maintainer, with a next charter that gives it its right, and floors of the test's own."""
    if floors:
        values: dict[str, object] = {
            "lock_s": 0,
            "grace_s": 0,
            "delete_budget_percent": 10,
            "residency": [],
            "minimum_copies": 1,
        }
        tenant.root_previous = signed_hash(tenant.root_statement())
        tenant.root_number += 1
        tenant.floors = Floors(**(values | floors))  # type: ignore[arg-type]  # a test names the field it changes
    rights = [right(tenant.keeper, "keeper"), right(tenant.node, "node"), right(tenant.maintainer, "maintainer")]
    publish_charter(service.session(tenant.keeper.public), tenant.charter(rights, keybag=name_of(data_object(7))))
    service.enrol(
        EnrolRequest(holder_key=tenant.maintainer.public, secret=b"", order=tenant.order(tenant.maintainer), root=b"")
    )


def charter_object(signed: bytes) -> bytes:
    """Return the object that holds a charter."""
    return wrap_record(signed, bytes(record_fill(len(signed))))


def put(session: ProviderSession, data: bytes) -> bytes:
    """Store an object and return its signed receipt."""
    upload = session.begin_put(name_of(data), len(data))
    try:
        for at in range(0, len(data), 16 * KIB):
            upload.hash(data[at : at + 16 * KIB])
            upload.write(data[at : at + 16 * KIB])
        return upload.commit()
    finally:
        upload.abort()


@dataclass
class House:
    """A provider's home on a real disk, with a clock and a random source of the test's own.

    ``bucket`` is where its objects lie if not in a folder.
    """

    path: str
    fs: Fs = field(default_factory=PosixFs)
    clock: FakeClock = field(default_factory=FakeClock)
    rng: SeededRng = field(default_factory=lambda: SeededRng("house"))
    bucket: str = ""
    make_bucket: MakeBucket = open_s3

    @property
    def home(self) -> str:
        """Where the provider's home is."""
        return os.path.join(self.path, "home")

    @property
    def data(self) -> str:
        """Where the objects are."""
        return os.path.join(self.path, "data")

    def init(self, **changes: object) -> Provider:
        """Make the home."""
        return init_provider(
            self.home,
            data=self.bucket or self.data,
            terms=terms(**changes),
            fs=self.fs,
            clock=self.clock,
            rng=self.rng,
            make_bucket=self.make_bucket,
        )

    def open(self) -> Provider:
        """Open the home."""
        return open_provider(self.home, fs=self.fs, clock=self.clock, rng=self.rng, make_bucket=self.make_bucket)

    def objects(self, tenant: Tenant, folder: str = "objects") -> str:
        """Return a tenant's folder."""
        return os.path.join(self.data, tenant.id.hex(), folder)

    def file(self, tenant: Tenant, name: ObjectName) -> str:
        """Return the file of an object."""
        return os.path.join(self.objects(tenant), name.hex())


def secret_of(code: str) -> bytes:
    """Return the secret in an invite's code."""
    return decode(Invite, read_code("invite", code)).secret


def enrol(
    provider: Provider,
    service: ProviderService,
    tenant: Tenant,
    *,
    holder: SigningKey | None = None,
    quota: int = 100 * MIB,
) -> EnrolReply:
    """Enrol a holder with a fresh invite."""
    code = provider.invite(quota=quota, label=tenant.name)
    key = holder or tenant.keeper
    return service.enrol(
        EnrolRequest(holder_key=key.public, secret=secret_of(code), order=b"", root=tenant.root_statement())
    )


def settle(provider: Provider, service: ProviderService, tenant: Tenant) -> None:
    """Enrol keeper and node and give the provider the first charter: the usual state."""
    enrol(provider, service, tenant)
    keeper = service.session(tenant.keeper.public)
    keybag = data_object(7)
    put(keeper, keybag)
    publish_charter(keeper, tenant.charter(keybag=name_of(keybag)))
    service.enrol(EnrolRequest(holder_key=tenant.node.public, secret=b"", order=tenant.order(tenant.node), root=b""))


def publish_charter(session: ProviderSession, signed: bytes) -> None:
    """Store a charter and announce it."""
    data = charter_object(signed)
    put(session, data)
    session.handle("charter", encode(CharterNotice(name=name_of(data))))
