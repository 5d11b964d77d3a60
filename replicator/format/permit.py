"""What lets one provider fetch a tenant's ciphertext from another, without being a member of anything there."""

from typing import Annotated, Final

import msgspec

from replicator.format.charter import Count, Hash, Id16
from replicator.format.codec import HASH_SIZE, Record, check_run
from replicator.format.mark import sorted_names

MAX_NAMES: Final = 64
LONGEST_S: Final = 86400
"""A permit of a longer life is refused, whatever it says."""


class Permit(Record, frozen=True, kw_only=True):
    """Signed by a holder that may itself read at ``source``: ``puller`` may fetch these objects there, until then.

    ``names`` are sorted. ``offset`` and ``length`` are the range of each that may be fetched; 0 and 0 for all of it.
    """

    tenant: Id16
    source: Hash
    puller: Hash
    names: Annotated[bytes, msgspec.Meta(min_length=HASH_SIZE, max_length=MAX_NAMES * HASH_SIZE)]
    offset: Count
    length: Count
    issued_ns: Count
    expires_ns: Count

    def __post_init__(self) -> None:
        check_run(self.names, "names")
        sorted_names(self.names, "names")


class Pickup(Record, frozen=True, kw_only=True):
    """Signed by the puller: give me this object, or this range of it (0 and 0: all), on the strength of a permit."""

    permit: bytes
    source: Hash
    name: Hash
    offset: Count
    length: Count
    asked_ns: Count
