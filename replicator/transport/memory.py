"""A network inside one process: every message is encoded and decoded as on the wire, and faults can be planned.

Requests run at once and in the caller's thread, so a run with a seeded random source and a fake clock is the
same each time.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from replicator.crypto.certificates import key_of_certificate
from replicator.errors import FormatError, ProtocolError, UnreachableError
from replicator.format.codec import Record, decode, encode
from replicator.format.group import GroupFacts
from replicator.ids import Identity, ObjectName
from replicator.transport.base import Target
from replicator.transport.handler import RequestRefusedError, Service, Session, peer_error
from replicator.transport.sources import Take
from replicator.wire.messages import (
    MAX_ANSWER,
    MAX_REQUEST,
    EnrolReply,
    EnrolRequest,
    JoinRequest,
    Refused,
    Signed,
    read_enrol_request,
    written_enrol_request,
)

A = TypeVar("A", bound=Record)
Phase = Literal["before", "during", "after"]
Faults = Callable[[Identity, str, Phase], None]
"""Called with the provider, the operation ("enrol", "join", "erase", "connect", "put", "get", "give" or one of OPS) and
phase; raises what the client is to see. "before": nothing was sent; "during": half of an upload was; "after": the
answer is lost.
"""
PIECE = 64 << 10


def _no_faults(_identity: Identity, _op: str, _phase: Phase) -> None:
    return None


class MemoryNetwork:
    """A :class:`~replicator.transport.base.Network` of services in this process.

    A provider that is not (or no longer) among :attr:`services` does not answer.
    """

    def __init__(self, *services: Service, faults: Faults = _no_faults) -> None:
        self.services: dict[Identity, Service] = {service.identity: service for service in services}
        self.faults = faults
        self.addresses: dict[Identity, set[str]] = {}
        """Where a provider answers, of those that do not answer at whatever is dialled."""
        self.uploaded: dict[Identity, int] = {}
        self.given: dict[Identity, int] = {}
        """Bytes that each provider gave to others."""
        self._limits: dict[Identity, tuple[int, Exception]] = {}

    def add(self, service: Service) -> None:
        """Let a provider answer; one of the same identity is replaced, as after a restart."""
        self.services[service.identity] = service

    def remove(self, identity: Identity) -> None:
        """Let a provider fall silent."""
        self.services.pop(identity, None)

    def fail_after(self, identity: Identity, *, bytes: int, exception: Exception) -> None:  # noqa: A002 - reads well
        """Break the upload in which this provider has taken ``bytes`` more bytes, once."""
        self._limits[identity] = (self.uploaded.get(identity, 0) + bytes, exception)

    async def identify(self, endpoint: str) -> Identity:
        """Return the identity that answers at an address, which here is the identity in hex."""
        identity = Identity(bytes.fromhex(endpoint.partition(":")[0]))
        if identity not in self.services:
            raise UnreachableError(endpoint, "does not answer")
        return identity

    async def enrol(self, target: Target, request: EnrolRequest) -> EnrolReply:
        """Ask for a certificate without having one."""
        service = self.service(target)
        self.faults(target.identity, "enrol", "before")
        try:
            answer = encode(service.enrol(read_enrol_request(encode(written_enrol_request(request)))))
        except RequestRefusedError as error:
            raise refused(target, error) from error
        self.faults(target.identity, "enrol", "after")
        return decode(EnrolReply, answer, limit=MAX_ANSWER)

    async def erase(self, target: Target, order: bytes) -> bytes:
        """Hand over root's signed order to erase a tenant; return the signed receipt."""
        service = self.service(target)
        self.faults(target.identity, "erase", "before")
        try:
            receipt = service.erase(decode(Signed, encode(Signed(statement=order)), limit=MAX_REQUEST).statement)
        except RequestRefusedError as error:
            raise refused(target, error) from error
        self.faults(target.identity, "erase", "after")
        return receipt

    async def join(self, target: Target, request: JoinRequest) -> GroupFacts:
        """Bring a group's code, or one's own word."""
        service = self.service(target)
        self.faults(target.identity, "join", "before")
        try:
            answer = encode(service.join(decode(JoinRequest, encode(request), limit=MAX_REQUEST)))
        except RequestRefusedError as error:
            raise refused(target, error) from error
        self.faults(target.identity, "join", "after")
        return decode(GroupFacts, answer, limit=MAX_ANSWER)

    async def connect(self, target: Target) -> "MemoryConnection":
        """Return a connection to a provider that answers."""
        self.service(target)
        self.faults(target.identity, "connect", "before")
        return MemoryConnection(self, target)

    def service(self, target: Target) -> Service:
        """Return the provider, if it answers."""
        found = self.services.get(target.identity)
        if found is None or self.endpoint(target) is None:
            raise UnreachableError(target.name, "no endpoint answers")
        return found

    def endpoint(self, target: Target) -> str | None:
        """Return at which of its endpoints a provider answers, None if at none of those that are dialled."""
        here = self.addresses.get(target.identity)
        if here is None:
            return target.endpoints[0] if target.endpoints else ""
        return next((one for one in target.endpoints if one in here), None)

    def fetch(self, endpoints: Sequence[str], source: Identity, pickup: bytes, size: int, take: Take) -> None:
        """Let one provider fetch from another: a :class:`~replicator.transport.sources.Sources`, of "give" requests."""
        service = self.services.get(source)
        if service is None or not endpoints:
            raise UnreachableError("the source", "does not answer")
        self.faults(source, "give", "before")
        try:
            statement = decode(Signed, encode(Signed(statement=pickup)), limit=MAX_REQUEST).statement
            _, data = service.give(statement)
        except RequestRefusedError as error:
            raise peer_error("the source", decode(Refused, encode(error.record()))) from error
        if len(data) != size:
            raise ProtocolError("the source", "gives another number of bytes")
        for at in range(0, len(data), PIECE):
            if at <= len(data) // 2 < at + PIECE:
                self.faults(source, "give", "during")
            take(memoryview(data)[at : at + PIECE])
        self.given[source] = self.given.get(source, 0) + size

    def announce(self, endpoints: Sequence[str], other: Identity, offer: bytes) -> None:
        """Let one provider tell another its offer."""
        service = self.services.get(other)
        if service is None or not endpoints:
            raise UnreachableError("the other provider", "does not answer")
        try:
            service.announce(decode(Signed, encode(Signed(statement=offer)), limit=MAX_REQUEST).statement)
        except RequestRefusedError as error:
            raise peer_error("the other provider", decode(Refused, encode(error.record()))) from error

    def close(self) -> None:
        """Nothing is ever half fetched."""

    def count(self, identity: Identity, size: int) -> None:
        """Count uploaded bytes and break the upload where :meth:`fail_after` said."""
        self.uploaded[identity] = self.uploaded.get(identity, 0) + size
        limit = self._limits.get(identity)
        if limit is not None and self.uploaded[identity] >= limit[0]:
            del self._limits[identity]
            raise limit[1]


class MemoryConnection:
    """A :class:`~replicator.transport.base.Connection` to a service in this process."""

    def __init__(self, network: MemoryNetwork, target: Target) -> None:
        self.target = target
        self.endpoint = network.endpoint(target) or ""
        self._network = network

    async def call(self, op: str, request: Record, answer: type[A]) -> A:
        """Send a request and return its answer."""
        self._fault(op, "before")
        try:
            body = self._session().handle(op, encode(request))
        except RequestRefusedError as error:
            raise refused(self.target, error) from error
        self._fault(op, "after")
        try:
            return decode(answer, body, limit=MAX_ANSWER)
        except FormatError as error:
            raise ProtocolError(self.target.name, f"an answer to {op} that cannot be read: {error}") from error

    async def put(self, name: ObjectName, data: bytes) -> bytes:
        """Store an object."""
        self._fault("put", "before")
        try:
            upload = self._session().begin_put(name, len(data))
            try:
                for at in range(0, len(data), PIECE):
                    if at <= len(data) // 2 < at + PIECE:
                        self._fault("put", "during")
                    piece = data[at : at + PIECE]
                    if self.target.pace is not None:
                        await self.target.pace(len(piece))
                    upload.hash(piece)
                    upload.write(piece)
                    self._network.count(self.target.identity, len(piece))
                receipt = upload.commit()
            finally:
                upload.abort()
        except RequestRefusedError as error:
            raise refused(self.target, error) from error
        self._fault("put", "after")
        return receipt

    async def get(self, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of an object."""
        self._fault("get", "before")
        try:
            data = self._session().get(name, offset, length)
        except RequestRefusedError as error:
            raise refused(self.target, error) from error
        self._fault("get", "after")
        return data

    def reach(self) -> None:
        """Return that no other process gets to a service in this one."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def _fault(self, op: str, phase: Phase) -> None:
        self._network.service(self.target)
        self._network.faults(self.target.identity, op, phase)

    def _session(self) -> Session:
        service = self._network.service(self.target)
        certificate = self.target.certificate
        if certificate is None or key_of_certificate(certificate) != self.target.key.public:
            raise RequestRefusedError("unauthorized", "no certificate for this key")
        return service.session(self.target.key.public)


def refused(target: Target, error: RequestRefusedError) -> Exception:
    """Return what the client raises, after the refusal went through its encoding."""
    return peer_error(target.name, decode(Refused, encode(error.record())))
