"""Receipts of what was carried to a provider on a disk: fetched there at the next contact, once it was taken in."""

from typing import Final

from replicator.crypto.sign import Context, verify
from replicator.engine.home import Half
from replicator.errors import ProtocolError, ReplicatorError
from replicator.format.claim import Receipt
from replicator.format.codec import decode
from replicator.ids import Identity
from replicator.transport.base import Connection
from replicator.wire.messages import Receipts, ReceiptsRequest

MOST_PAGES: Final = 10_000


def is_carried(half: Half, identity: Identity) -> bool:
    """Return whether a disk is, as far as is known here, on its way to a provider."""
    return bool(half.catalog.meta(_place(identity)))


def note_carried(half: Half, identity: Identity, *, coming: bool) -> None:
    """Remember that a disk is on its way, or has come."""
    if coming != is_carried(half, identity):
        half.catalog.set_meta(_place(identity), b"\x01" if coming else b"")


async def take_receipts(
    half: Half, connection: Connection, *, key: bytes, incarnation: bytes, identity: Identity, now_ns: int
) -> int:
    """Fetch the receipts that wait for this member at a provider, and count what they are of; return how many.

    Raises:
        ProtocolError: one of them does not hold.
        PeerError: it does not answer, or is of a build that keeps none.
    """
    count, got = 0, b""
    for _ in range(MOST_PAGES):
        page = await connection.call("receipts", ReceiptsRequest(got=got), Receipts)
        names = []
        for signed in page.receipts:
            try:
                receipt = decode(Receipt, verify(signed, Context.RECEIPT, [key]))
            except ReplicatorError as error:
                raise ProtocolError(connection.target.name, f"its receipt cannot be trusted ({error})") from error
            names.append(receipt.name)
            row = half.catalog.objects.by_name(receipt.name)
            if row is not None and (receipt.tenant, receipt.size, receipt.incarnation) == (
                half.tenant,
                row.size,
                incarnation,
            ):
                half.catalog.objects.held(row.id, identity, incarnation=incarnation, receipt=signed, received_ns=now_ns)
                count += 1
        if not names:
            return count
        got = b"".join(names)
    return count


def _place(identity: Identity) -> str:
    return f"carried to {identity.hex()}"
