"""What providers say of themselves, handed on from one to another: who has moved is found again by who has not heard.

Nobody is believed but the provider itself: an offer counts by its own signature and number, whoever brings it, and
changes what a direct contact would have changed. Where it stands, in the owner's eyes, is in the charter and stays.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from replicator.catalog.peers import PeerRow
from replicator.charter.offers import verify_offer
from replicator.engine.home import Half
from replicator.errors import FormatError, IntegrityError, PeerError, RefusedError, UnsupportedVersionError
from replicator.format.charter import PeerPin
from replicator.format.offer import MAX_OFFER, Offer
from replicator.ids import Identity, short
from replicator.transport.base import Connection
from replicator.wire.messages import MAX_OFFERS, PULLS_VERSION, Info, KnownOffer, Offers, OffersRequest


class Contact(Protocol):
    """A provider that answers. ``problems`` are what is wrong with it in this run."""

    pin: PeerPin
    connection: Connection
    info: Info
    offer: Offer
    problems: list[str]


@dataclass(slots=True)
class News:
    """What was heard: of whom there is a newer offer now, and what people should know."""

    of: set[Identity] = field(default_factory=set)
    notices: list[str] = field(default_factory=list)
    integrity: list[str] = field(default_factory=list)


async def share_offers(half: Half, contacts: Sequence[Contact]) -> News:
    """Tell each provider the newest offers that this half has of the others, and take those that are newer there."""
    news = News()
    able = [one for one in contacts if PULLS_VERSION in one.info.wire]
    pins = {Identity(pin.identity): pin for pin in half.peers}
    rows = {identity: half.catalog.peers.get(identity) for identity in pins}
    replies = await asyncio.gather(*(_ask(contact, rows, news) for contact in able))
    for contact, offers in zip(able, replies, strict=True):
        for signed in offers:
            _take(contact, pins, rows, signed, news)
    if news.of:
        with half.catalog.database.transaction("offers heard"):
            for identity in sorted(news.of):
                heard = rows[identity]
                half.catalog.peers.put(
                    replace(
                        half.catalog.peers.get(identity),
                        offer=heard.offer,
                        offer_number=heard.offer_number,
                        endpoints=heard.endpoints,
                    )
                )
    return news


def moved(name: str, before: Sequence[str], offer: Offer) -> str:
    """Return what to say of a provider whose newer offer names other addresses; empty if it is where it was."""
    if not before or set(before) == set(offer.endpoints):
        return ""
    return f"{name}: by its own word it is reached at {', '.join(offer.endpoints)} now (before: {', '.join(before)})"


async def _ask(contact: Contact, rows: dict[Identity, PeerRow], news: News) -> list[bytes]:
    """Return what a provider hands on, unverified, after it was brought what it lacks."""
    known = [
        KnownOffer(identity=identity, number=row.offer_number if len(row.offer) <= MAX_OFFER else 0)
        for identity, row in list(rows.items())[:MAX_OFFERS]
    ]
    heard = rows.get(Identity(contact.pin.identity))
    # A provider that was put back from a copy has forgotten what it said: told its own word, it signs one above that.
    behind = heard is not None and heard.offer_number >= contact.offer.number and heard.offer != contact.info.offer
    own = [heard.offer] if heard is not None and behind and len(heard.offer) <= MAX_OFFER else []
    try:
        reply = await contact.connection.call("offers", OffersRequest(known=known, offers=own), Offers)
        lacking = set(reply.lacking)
        bring = [row.offer for identity, row in rows.items() if identity in lacking and row.offer][:MAX_OFFERS]
        if bring:
            await contact.connection.call("offers", OffersRequest(known=[], offers=bring), Offers)
    except RefusedError as error:
        if error.code != "bad-request":  # which is what one of an earlier release says to every word it does not know
            news.notices.append(str(error))
        return []
    except PeerError as error:
        news.notices.append(str(error))
        return []
    return reply.offers


def _take(
    contact: Contact, pins: dict[Identity, PeerPin], rows: dict[Identity, PeerRow], signed: bytes, news: News
) -> None:
    try:
        found = verify_offer(signed[: MAX_OFFER + 1])  # the signature of what is longer does not hold
    except UnsupportedVersionError as error:
        news.notices.append(f"{contact.pin.name}: hands on an offer that this release cannot read ({error})")
        return
    except (FormatError, IntegrityError) as error:
        contact.problems.append(f"hands on an offer that does not hold: {error}")
        news.integrity.append(f"{contact.pin.name}: hands on an offer that does not hold: {error}")
        return
    row = rows.get(found.identity)
    if row is None:
        contact.problems.append(f"hands on an offer of {short(found.identity)}, which nobody asked for")
        return
    name = pins[found.identity].name
    if found.offer.number > row.offer_number:
        said = moved(name, row.endpoints if row.offer_number else (), found.offer)
        if said:
            news.notices.append(f"{said}; {contact.pin.name} handed it on")
        rows[found.identity] = replace(
            row, offer=signed, offer_number=found.offer.number, endpoints=tuple(found.offer.endpoints)
        )
        news.of.add(found.identity)
    elif found.offer.number < row.offer_number and found.identity not in news.of:
        contact.problems.append(f"hands on an older offer of {name} than the one that it was told is known")
    elif found.offer.number == row.offer_number and signed != row.offer:
        news.notices.append(
            f"{name}: has signed two different offers of number {row.offer_number} (another through "
            f"{contact.pin.name}): does it run twice? the one that was heard first is used"
        )
