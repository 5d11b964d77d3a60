"""What the engine needs of a network; TLS (:mod:`.client`) and memory (:mod:`.memory`) give it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from replicator.crypto.sign import SigningKey
from replicator.format.codec import Record
from replicator.format.group import GroupFacts
from replicator.ids import Identity, ObjectName
from replicator.wire.messages import EnrolReply, EnrolRequest, JoinRequest

A = TypeVar("A", bound=Record)
Pace = Callable[[int], Awaitable[None]]
"""Waits until so many bytes may be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A provider to dial: ``identity`` is the pin, ``endpoints`` (as :func:`parse_way` reads them) are tried in order.

    ``name`` is for people and errors. ``certificate`` (DER) is the client certificate this provider issued for
    ``key``; None before enrolment. ``pace`` is awaited before each piece of an object that is sent.
    """

    identity: Identity
    name: str
    endpoints: tuple[str, ...]
    key: SigningKey
    certificate: bytes | None
    pace: Pace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What another process of this user needs to speak to a provider as a connection does: keys too.

    ``peer`` is the certificate (DER) that the provider has shown, ``seed`` that of the signing key; ``scratch``
    as in :func:`.tls.client_context`. ``endpoint`` is as it was written; ``server_name`` is asked for there if it is
    a relay's, else None.
    """

    name: str
    endpoint: str
    host: str
    port: int
    server_name: str | None
    peer: bytes
    seed: bytes = field(repr=False)
    certificate: bytes
    scratch: str | None
    connect_s: float
    stall_s: float


class Connection(Protocol):
    """An authenticated way to one provider. Requests may run at the same time; nothing is retried in here.

    All methods raise :class:`~replicator.errors.UnreachableError`, ``BusyError``, ``RefusedError`` or
    ``ProtocolError``.
    """

    target: Target
    endpoint: str
    """Where it was reached."""

    async def call(self, op: str, request: Record, answer: type[A]) -> A:
        """Send one of :data:`replicator.wire.messages.OPS` and return its answer."""
        ...

    async def put(self, name: ObjectName, data: bytes) -> bytes:
        """Store an object; return the signed receipt (not yet verified). Durable when this returns."""
        ...

    async def get(self, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes from ``offset`` (both aligned to 1 MiB, or to the end of the object)."""
        ...

    def reach(self) -> Reach | None:
        """Return how another process gets to this provider; None if none can."""
        ...

    async def close(self) -> None:
        """Let go of sockets; idempotent."""
        ...


class Network(Protocol):
    """Makes connections. Dialling checks that the peer holds the key of the pinned identity before it sends."""

    async def identify(self, endpoint: str) -> Identity:
        """Return the identity that answers at an address: only for who has an address and no pin (recovery)."""
        ...

    async def enrol(self, target: Target, request: EnrolRequest) -> EnrolReply:
        """Ask for a certificate without having one."""
        ...

    async def erase(self, target: Target, order: bytes) -> bytes:
        """Hand over root's signed order to erase a tenant, which needs no certificate; return the signed receipt."""
        ...

    async def join(self, target: Target, request: JoinRequest) -> GroupFacts:
        """Bring a group's code, or one's own word; return what the provider knows of the group, for a code."""
        ...

    async def connect(self, target: Target) -> Connection:
        """Return a connection to an enrolled provider; one round trip proves that it answers.

        Raises:
            UnreachableError: no endpoint answers.
            ProtocolError: an endpoint answers with another identity.
        """
        ...
