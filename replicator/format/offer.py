"""A provider's word about itself, and the invite it hands to a person."""

from typing import Annotated, Any

import msgspec

from replicator.format.charter import Count, Country, Endpoint, Hash, Key, Name, Number, Seconds
from replicator.format.codec import Record


class Offer(Record, frozen=True, kw_only=True):
    """Signed by the provider and numbered: where it is, what it gives, on which terms. A higher number wins."""

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
