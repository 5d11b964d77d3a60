"""What lies on a disk that somebody carries to a provider: named and signed by the tenant whose objects they are."""

from typing import Annotated, Final

import msgspec

from replicator.format.charter import Count, Hash, Id16
from replicator.format.codec import HASH_SIZE, Record, check_run
from replicator.format.mark import sorted_names

MOST_CARRIED: Final = 100_000
"""Objects that one statement names; a disk has several."""


class Carried(Record, frozen=True, kw_only=True):
    """Signed by a holder that may write at ``provider``: these objects, sorted by name, are for it to take in."""

    tenant: Id16
    provider: Hash
    names: Annotated[bytes, msgspec.Meta(min_length=HASH_SIZE, max_length=MOST_CARRIED * HASH_SIZE)]
    made_ns: Count

    def __post_init__(self) -> None:
        check_run(self.names, "names")
        sorted_names(self.names, "names")
