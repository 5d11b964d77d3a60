"""Offers of other providers, as tenants and their signers tell them here, and our own when it has fallen behind.

Nothing is believed but the signature of the provider that an offer is of; a higher number wins, whoever brings it.
"""

import sqlite3

import msgspec

from replicator.charter.offers import VerifiedOffer, verify_offer
from replicator.clock import Clock
from replicator.crypto.sign import Context, SigningKey, body_of
from replicator.endpoints import parse_way
from replicator.errors import FormatError, UsageError
from replicator.format.offer import MAX_OFFER, MOST_ENDPOINTS, Offer, decode_offer, encode_offer
from replicator.ids import Identity, TenantId
from replicator.provider.database import Database
from replicator.provider.told import Told, subjects, tell, told
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import MAX_OFFERS, OffersRequest

KIND = "offer"


def own_offer(database: Database) -> tuple[bytes, Offer]:
    """Return this provider's newest offer, signed, and what it says."""
    row = database.row("SELECT offer FROM meta")
    assert row is not None, "the row is made with the home"
    return row[0], decode_offer(body_of(row[0]))


def sign_offer(key: SigningKey, offer: Offer) -> bytes:
    """Return an offer signed.

    Raises:
        UsageError: a value that an offer cannot have.
    """
    if len(offer.endpoints) > MOST_ENDPOINTS:
        raise UsageError(f"{len(offer.endpoints)} addresses, and nobody tries more than {MOST_ENDPOINTS}")
    try:
        for endpoint in offer.endpoints:
            parse_way(endpoint)
        signed = key.sign(Context.OFFER, encode_offer(offer))
    except (FormatError, ValueError) as error:
        raise UsageError(f"these terms cannot be offered: {error}") from error
    if len(signed) > MAX_OFFER:
        raise UsageError(f"an offer of {len(signed)} bytes: nobody hands on more than {MAX_OFFER}")
    return signed


def swap_offers(
    database: Database, key: SigningKey, tenant: TenantId, request: OffersRequest, *, clock: Clock
) -> tuple[list[bytes], list[bytes]]:
    """Take what a tenant's member brings; return the offers that are newer than what it has, and what is lacking here.

    Raises:
        RequestRefusedError: "bad-request": an offer that its provider did not sign, or that is too large to hand on.
    """
    brought = [_acceptable(signed) for signed in request.offers]
    if brought:
        now_ns = clock.now_ns()

        def work(connection: sqlite3.Connection) -> None:
            for one in brought:
                if one.identity == key.identity:
                    _rise_above(connection, key, one, now_ns)
                else:
                    word = Told(about=one.identity, number=one.offer.number, signed=one.signed)
                    tell(connection, tenant, KIND, word, most=MAX_OFFERS, now_ns=now_ns)

        database.write("offers told", work)
    newer, lacking = [], []
    for known in request.known:
        number, signed = newest(database, key, Identity(known.identity))
        if number > known.number:
            newer.append(signed)
        elif number < known.number:
            lacking.append(known.identity)
    return newer, lacking


def newest(database: Database, key: SigningKey, identity: Identity) -> tuple[int, bytes]:
    """Return number and signed bytes of the newest offer known here of a provider; 0 and nothing of an unknown one."""
    if identity == key.identity:
        signed, offer = own_offer(database)
        return offer.number, signed
    found = told(database, KIND, identity)
    return (found[0].number, found[0].signed) if found else (0, b"")


def known_here(database: Database, identity: Identity) -> bool:
    """Return whether some tenant told of a provider."""
    return bool(told(database, KIND, identity))


def known(database: Database, signed: bytes) -> VerifiedOffer:
    """Return what an offer says, if some tenant told of the provider that it is of.

    Raises:
        RequestRefusedError: "not-found": nobody did. "bad-request" as of :func:`swap_offers`.
    """
    one = _acceptable(signed)
    if not known_here(database, one.identity):
        raise RequestRefusedError("not-found", "no tenant here has told of this provider")
    return one


def announced(database: Database, signed: bytes, *, clock: Clock) -> None:
    """Take the newer offer of a provider that some tenant told of, from whoever brings it.

    Raises:
        RequestRefusedError: as of :func:`known`.
    """
    one = known(database, signed)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE told SET number = ?, signed = ?, told_ns = ? WHERE kind = ? AND about = ? AND number < ?",
            (one.offer.number, one.signed, clock.now_ns(), KIND, one.identity, one.offer.number),
        )

    database.write("offer announced", work)


def neighbours(database: Database) -> list[Identity]:
    """Return the providers that tenants told of."""
    return [Identity(about) for about in subjects(database, KIND)]


def heard_endpoints(database: Database, key: SigningKey, identity: Identity) -> list[str]:
    """Return where a provider is by the newest offer known here; nowhere if none is."""
    number, signed = newest(database, key, identity)
    return decode_offer(body_of(signed)).endpoints if number else []


def _acceptable(signed: bytes) -> VerifiedOffer:
    if len(signed) > MAX_OFFER:
        raise RequestRefusedError("bad-request", f"an offer of more than {MAX_OFFER} bytes")
    found = verify_offer(signed)
    if len(found.offer.endpoints) > MOST_ENDPOINTS:
        raise RequestRefusedError("bad-request", f"an offer with more than {MOST_ENDPOINTS} addresses")
    return found


def _rise_above(connection: sqlite3.Connection, key: SigningKey, other: VerifiedOffer, now_ns: int) -> None:
    """Sign our offer anew above a later one of ours: this home was put back from a copy, and is believed no more.

    Likewise above another of the same number: whoever heard that one first keeps it.
    """
    [ours] = connection.execute("SELECT offer FROM meta").fetchone()
    offer = decode_offer(body_of(ours))
    if other.offer.number > offer.number or (other.offer.number == offer.number and other.signed != ours):
        risen = msgspec.structs.replace(offer, number=other.offer.number + 1, created_ns=now_ns)
        connection.execute("UPDATE meta SET offer = ?", (key.sign(Context.OFFER, encode_offer(risen)),))
