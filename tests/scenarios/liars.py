"""Providers that do not do what they say: each wraps an honest one and changes single answers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from replicator.charter.offers import VerifiedOffer
from replicator.crypto.sign import Context, body_of
from replicator.format.claim import AuditReceipt, hash_of
from replicator.format.codec import Record, decode, encode
from replicator.format.group import GroupFacts
from replicator.ids import Identity, ObjectName, TenantId
from replicator.provider.session import ProviderSession
from replicator.transport.handler import Service, Session, Upload
from replicator.transport.lanes import Lanes
from replicator.wire.messages import AttestReply, EnrolReply, EnrolRequest, JoinRequest, ProveReply

R = TypeVar("R", bound=Record)
Handle = Callable[[Session, bytes], bytes]
Get = Callable[[Session, ObjectName, int, int | None], bytes]
BeginPut = Callable[[Session, ObjectName, int], Upload]


def proving(lie: Handle) -> dict[str, Handle]:
    """Return operations of who answers proofs with a lie, and signs that."""

    def attest(session: Session, body: bytes) -> bytes:
        assert isinstance(session, ProviderSession)
        told = decode(ProveReply, lie(session, body))
        honest = decode(AttestReply, session.handle("attest", body))
        receipt = decode(AuditReceipt, body_of(honest.receipt))
        shown = sum(proof is not None for proof in told.proofs)
        receipt = msgspec.structs.replace(receipt, answer=hash_of(told), probes=len(told.proofs), shown=shown)
        signed = session._core.key.sign(Context.AUDIT_RECEIPT, encode(receipt))
        return encode(AttestReply(incarnation=told.incarnation, proofs=told.proofs, receipt=signed))

    return {"prove": lie, "attest": attest}


@dataclass
class Liar:
    """A :class:`~replicator.transport.handler.Service` that answers some operations itself."""

    honest: Service
    ops: dict[str, Handle] = field(default_factory=dict)
    get: Get | None = None
    begin_put: BeginPut | None = None
    gives: Callable[[bytes], tuple[TenantId, bytes]] | None = None

    @property
    def identity(self) -> Identity:
        return self.honest.identity

    @property
    def incarnation(self) -> bytes:
        return self.honest.incarnation

    def enrol(self, request: EnrolRequest) -> EnrolReply:
        return self.honest.enrol(request)

    def join(self, request: JoinRequest) -> GroupFacts:
        return self.honest.join(request)

    def erase(self, order: bytes) -> bytes:
        return self.honest.erase(order)

    def give(self, pickup: bytes) -> tuple[TenantId, bytes]:
        return (self.gives or self.honest.give)(pickup)

    def announce(self, offer: bytes) -> None:
        self.honest.announce(offer)

    def known(self, offer: bytes) -> VerifiedOffer:
        return self.honest.known(offer)

    def relays(self, statement: bytes) -> Identity:
        return self.honest.relays(statement)

    def offer(self) -> bytes:
        return self.honest.offer()

    @property
    def lanes(self) -> Lanes:
        return self.honest.lanes

    def session(self, holder_key: bytes) -> "LyingSession":
        return LyingSession(self, self.honest.session(holder_key))


@dataclass
class LyingSession:
    """What a liar says to one holder."""

    liar: Liar
    honest: Session

    @property
    def tenant(self) -> TenantId:
        return self.honest.tenant

    def handle(self, op: str, body: bytes) -> bytes:
        lie = self.liar.ops.get(op)
        return self.honest.handle(op, body) if lie is None else lie(self.honest, body)

    def begin_put(self, name: ObjectName, size: int) -> Upload:
        lie = self.liar.begin_put
        return self.honest.begin_put(name, size) if lie is None else lie(self.honest, name, size)

    def get(self, name: ObjectName, offset: int, length: int | None) -> bytes:
        lie = self.liar.get
        return self.honest.get(name, offset, length) if lie is None else lie(self.honest, name, offset, length)


@dataclass
class NoUpload:
    """An upload whose bytes go nowhere and whose receipt is ``receipt``."""

    receipt: bytes

    def hash(self, piece: bytes | bytearray | memoryview) -> None:
        pass

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        pass

    def commit(self) -> bytes:
        return self.receipt

    def abort(self) -> None:
        pass


def changed(op: str, kind: type[R], change: Callable[[R], R]) -> dict[str, Handle]:
    """Change the honest answer to an operation."""

    def lie(session: Session, body: bytes) -> bytes:
        return encode(change(decode(kind, session.handle(op, body))))

    return {op: lie}
