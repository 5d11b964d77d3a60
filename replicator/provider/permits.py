"""Whether a permit lets a puller have an object: one decision, made at the source and, for itself, by the puller."""

from dataclasses import dataclass

from replicator.clock import NS, SKEW_S
from replicator.crypto.sign import Context, signer_of, verify
from replicator.format.codec import decode
from replicator.format.permit import LONGEST_S, Permit, Pickup
from replicator.ids import NAME_SIZE, Identity, ObjectName, identity_of
from replicator.transport.handler import RequestRefusedError

MAX_PERMIT = 8192
MAX_PICKUP = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What may be given to whom, if ``signer`` may read it for ``tenant``. ``length`` None: to its end."""

    tenant: bytes
    signer: bytes
    puller: Identity
    name: ObjectName
    offset: int
    length: int | None


def read_permit(signed: bytes, now_ns: int) -> Permit:
    """Return a permit whose signature holds and whose time it is, by a clock that may be 15 minutes off.

    Raises:
        FormatError: it is none.
        IntegrityError: its signature does not hold.
        RequestRefusedError: "forbidden": its time is over, has not come, or is longer than any may be.
    """
    permit = decode(Permit, verify(signed, Context.PERMIT, [signer_of(signed)]), limit=MAX_PERMIT)
    if not permit.issued_ns - SKEW_S * NS <= now_ns <= permit.expires_ns + SKEW_S * NS:
        raise RequestRefusedError("forbidden", "this permit is not of now")
    if not permit.issued_ns <= permit.expires_ns <= permit.issued_ns + LONGEST_S * NS:
        raise RequestRefusedError("forbidden", "no permit holds for longer than a day")
    return permit


def permits(permit: Permit, name: bytes) -> bool:
    """Return whether a permit names an object."""
    return name in (permit.names[at : at + NAME_SIZE] for at in range(0, len(permit.names), NAME_SIZE))


def read_pickup(signed: bytes, ours: Identity, now_ns: int) -> Wanted:
    """Return what a puller asks of the provider ``ours``, after all that needs no look at rows.

    Raises:
        FormatError: it asks for nothing that can be meant.
        IntegrityError: a signature does not hold.
        RequestRefusedError: "forbidden": the permit is another's, for another source, object, range or time.
    """
    pickup = decode(Pickup, verify(signed, Context.PICKUP, [signer_of(signed)]), limit=MAX_PICKUP)
    permit = read_permit(pickup.permit, now_ns)
    if abs(now_ns - pickup.asked_ns) > SKEW_S * NS:
        raise RequestRefusedError("forbidden", "this was not asked now")
    if (pickup.source, permit.source) != (ours, ours):
        raise RequestRefusedError("forbidden", "this is for another provider")
    puller = identity_of(signer_of(signed))
    if permit.puller != puller:
        raise RequestRefusedError("forbidden", "this permit is another's")
    if not permits(permit, pickup.name):
        raise RequestRefusedError("forbidden", "this permit is for other objects")
    whole = permit.offset == permit.length == 0
    end, most = pickup.offset + pickup.length, permit.offset + permit.length
    if not whole and (not pickup.length or pickup.offset < permit.offset or end > most):
        raise RequestRefusedError("forbidden", "this permit is for another range")
    return Wanted(
        tenant=permit.tenant,
        signer=signer_of(pickup.permit),
        puller=puller,
        name=ObjectName(pickup.name),
        offset=pickup.offset,
        length=pickup.length or None,
    )


def check_errand(permit: Permit, *, tenant: bytes, ours: Identity, source: Identity, name: bytes) -> None:
    """Check that a permit sends us to this source for this whole object of this tenant.

    Raises:
        RequestRefusedError: "forbidden".
    """
    expected: tuple[tuple[object, object], ...] = (
        (permit.tenant, tenant),
        (permit.puller, ours),
        (permit.source, source),
        (permit.offset + permit.length, 0),
    )
    if any(found != wanted for found, wanted in expected) or not permits(permit, name) or source == ours:
        raise RequestRefusedError("forbidden", "this permit does not send us there for this object")
