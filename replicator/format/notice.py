"""That a provider leaves or shrinks, said in good time, and how far its tenant is with making copies elsewhere."""

from replicator.format.charter import Count, Hash, Id16, Seconds
from replicator.format.codec import Record


class Notice(Record, frozen=True, kw_only=True):
    """Signed by a provider, for one tenant: from ``by_ns`` on it keeps at most ``keeps`` bytes of it; 0: it leaves.

    ``promised_s`` is the notice that its offer had promised when this was said.
    """

    tenant: Id16
    keeps: Count
    by_ns: Count
    said_ns: Count
    promised_s: Seconds

    @property
    def is_short(self) -> bool:
        """Whether it was said later than promised."""
        return self.by_ns - self.said_ns < self.promised_s * 1_000_000_000


class Clearing(Record, frozen=True, kw_only=True):
    """Signed by a writer, of its own objects at a provider that gave a notice.

    ``left`` bytes of them keep their promise only with the copies there; ``stuck`` bytes of these have no place
    anywhere else. ``notice`` is the hash of the notice as signed.
    """

    tenant: Id16
    provider: Hash
    notice: Hash
    left: Count
    stuck: Count
    said_ns: Count
