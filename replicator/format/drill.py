"""What a trial restore came to, signed by the keeper that made it."""

from typing import Literal

from replicator.format.charter import Count, Hash, Id16, Name
from replicator.format.codec import Record


class Drill(Record, frozen=True, kw_only=True):
    """Signed by a keeper: it restored this snapshot to a scratch folder, and what came of it.

    ``whole`` is false if only a sample of its files was restored. ``problems`` counts what could not be restored as it
    was; ``check`` is what the command said that looks at the restored data.
    """

    tenant: Id16
    keeper: Hash
    dataset: Name
    snapshot: Hash
    started_ns: Count
    ended_ns: Count
    whole: bool
    files: Count
    bytes: Count
    problems: Count
    check: Literal["none", "passed", "failed"]
