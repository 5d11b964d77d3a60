"""What a provider that nobody can dial says to the one that is to pass connections on to it."""

from replicator.format.charter import Count, Hash
from replicator.format.codec import Record


class Waiting(Record, frozen=True, kw_only=True):
    """Signed by who waits: pass on to me, now, who asks ``relay`` for me."""

    relay: Hash
    asked_ns: Count
