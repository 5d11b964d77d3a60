"""What a provider looks like to whatever carries its bytes, and how it says no.

The provider stands above transport; so both ends of it, TLS and memory, know it by these few methods.
All of them block: the caller decides on which thread.
"""

from typing import TYPE_CHECKING, Protocol

from replicator.charter.offers import VerifiedOffer
from replicator.errors import BusyError, FormatError, PeerError, ProtocolError, RefusedError, ReplicatorError
from replicator.format.codec import decode
from replicator.format.group import GroupFacts
from replicator.ids import Identity, ObjectName, TenantId
from replicator.wire.messages import MAX_ANSWER, STATUS, EnrolReply, EnrolRequest, JoinRequest, Refusal, Refused

if TYPE_CHECKING:
    from replicator.transport.lanes import Lanes


class RequestRefusedError(ReplicatorError):
    """The provider's own "no", on its way to the wire. The message names no object and no path."""

    def __init__(self, code: Refusal, message: str, *, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.code: Refusal = code
        self.after_s = after_s

    def record(self) -> Refused:
        """Return what is sent."""
        return Refused(code=self.code, message=self.message, after_s=self.after_s)


def peer_error(peer: str, refused: Refused) -> PeerError:
    """Return the error that a client raises for a refusal."""
    if refused.code == "busy":
        return BusyError(peer, refused.message, after_s=refused.after_s)
    return RefusedError(peer, refused.message, code=refused.code)


def refusal_of(peer: str, status: int, body: bytes) -> PeerError:
    """Return the error that a client raises for an answer whose status is not 200."""
    try:
        refused = decode(Refused, body, limit=MAX_ANSWER)
    except FormatError as error:
        return ProtocolError(peer, f"an answer that cannot be read: {error.message}")
    if STATUS[refused.code] != status:
        return ProtocolError(peer, f"status {status} with the word '{refused.code}'")
    return peer_error(peer, refused)


class Upload(Protocol):
    """An object being put: its space is reserved until commit or abort."""

    def hash(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes into the name, before they are written; RequestRefusedError ends the upload.

        The only method of a service that never waits for a disk.
        """
        ...

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Append what was hashed; RequestRefusedError ends the upload."""
        ...

    def commit(self) -> bytes:
        """Return the signed receipt; the object is durable then."""
        ...

    def abort(self) -> None:
        """Leave no trace; idempotent, and nothing after a commit. May be called from another thread."""
        ...


class Session(Protocol):
    """What one enrolled holder may ask; made anew for every request, so that a revocation takes effect."""

    @property
    def tenant(self) -> TenantId:
        """Whose holder it is."""
        ...

    def handle(self, op: str, body: bytes) -> bytes:
        """Answer one of :data:`replicator.wire.messages.OPS`."""
        ...

    def begin_put(self, name: ObjectName, size: int) -> Upload:
        """Reserve space, before a byte of the body is taken."""
        ...

    def get(self, name: ObjectName, offset: int, length: int | None) -> bytes:
        """Return bytes of an object."""
        ...


class Service(Protocol):
    """A provider. All methods raise :class:`RequestRefusedError` and nothing else that is expected."""

    @property
    def identity(self) -> Identity:
        """Whose hash of the public key clients pin."""
        ...

    @property
    def incarnation(self) -> bytes:
        """The store's; goes into every answer."""
        ...

    def enrol(self, request: EnrolRequest) -> EnrolReply:
        """Give a certificate for an invite or an order."""
        ...

    def join(self, request: JoinRequest) -> GroupFacts:
        """Let somebody into the provider's group for a code, or hear who is in it."""
        ...

    def erase(self, order: bytes) -> bytes:
        """Delete a tenant by its root's signed order; return the signed receipt."""
        ...

    def give(self, pickup: bytes) -> tuple[TenantId, bytes]:
        """Return what another provider asks for with a signed pickup and the permit in it, and whose it is."""
        ...

    def announce(self, offer: bytes) -> None:
        """Take the newer offer of another provider that is known here, whoever brings it."""
        ...

    def known(self, offer: bytes) -> VerifiedOffer:
        """Return what an offer says, if it is of a provider that is known here."""
        ...

    def relays(self, statement: bytes) -> Identity:
        """Return who asks to be relayed by a signed word of now, if that is allowed here."""
        ...

    def offer(self) -> bytes:
        """Return this provider's newest offer, signed."""
        ...

    @property
    def lanes(self) -> "Lanes":
        """How fast objects come and go, for all tenants together."""
        ...

    def session(self, holder_key: bytes) -> Session:
        """Return the session of the holder of a key that the transport has verified."""
        ...
