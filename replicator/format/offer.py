"""A provider's word about itself, and the invite it hands to a person."""

from typing import Annotated, Any, Final

import msgspec

from replicator.format.charter import Count, Country, Endpoint, Hash, Key, Name, Number, Seconds, Words
from replicator.format.codec import Record, decode, encode, version_of

MAX_OFFER: Final = 8192
"""Bytes of a signed offer that is handed on: eight long addresses, and the longest words for everything else."""
MOST_ENDPOINTS: Final = 8
"""Addresses that anybody tries of one offer: who makes one up writes as many as he likes into it."""


class Offer(Record, frozen=True, kw_only=True, tag=3):
    """Signed by the provider and numbered: where it is, what it gives, on which terms. A higher number wins.

    ``legal_name`` and ``contact`` are for the records that its tenants must keep; empty: not said. ``notice_s`` is how
    long beforehand it says that it leaves or shrinks; 0: not said.
    """

    provider_key: Key
    number: Number
    endpoints: list[Endpoint]
    capacity: Count
    owner: Name
    site: Name
    region: Name
    country: Country
    lock_s: Seconds
    grace_s: Seconds
    wire: list[int]
    created_ns: Count
    legal_name: Words = ""
    contact: Words = ""
    notice_s: Seconds = 0


class Offer2(Record, frozen=True, kw_only=True, tag=2):
    """Version 2: without notice. Written still."""

    provider_key: Key
    number: Number
    endpoints: list[Endpoint]
    capacity: Count
    owner: Name
    site: Name
    region: Name
    country: Country
    lock_s: Seconds
    grace_s: Seconds
    wire: list[int]
    created_ns: Count
    legal_name: Words
    contact: Words


class Offer1(Record, frozen=True, kw_only=True):
    """Version 1: without legal name and contact. Written still."""

    provider_key: Key
    number: Number
    endpoints: list[Endpoint]
    capacity: Count
    owner: Name
    site: Name
    region: Name
    country: Country
    lock_s: Seconds
    grace_s: Seconds
    wire: list[int]
    created_ns: Count


_EARLIER: dict[int, type[Offer1 | Offer2]] = {1: Offer1, 2: Offer2}


def decode_offer(data: bytes) -> Offer:
    """Return an offer of any version, in the newest one's terms.

    Raises:
        FormatError: it is none.
    """
    earlier = _EARLIER.get(version_of(data))
    if earlier is None:
        return decode(Offer, data)
    return Offer(**msgspec.structs.asdict(decode(earlier, data)))


def encode_offer(offer: Offer) -> bytes:
    """Return an offer's bytes: in the earliest version, which earlier releases read, that says it all."""
    if offer.notice_s:
        return encode(offer)
    kind = Offer2 if offer.legal_name or offer.contact else Offer1
    values = msgspec.structs.asdict(offer)
    return encode(kind(**{name: values[name] for name in kind.__struct_fields__}))


class Invite(Record, frozen=True, kw_only=True):
    """One use, for one tenant: the secret is worth ``quota`` bytes until ``expires_ns``."""

    identity: Hash
    endpoints: list[Endpoint]
    secret: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    quota: Count
    expires_ns: Count

    def __repr__(self) -> str:
        return f"Invite(identity={self.identity.hex()}, quota={self.quota})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("identity", self.identity.hex()), ("quota", self.quota)]
