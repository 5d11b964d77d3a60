"""Indexes (which pack holds which chunks) and references (which chunks a snapshot needs)."""

from typing import Annotated

import msgspec

from replicator.format.charter import Count, Hash, Id16
from replicator.format.codec import Part, Record, check_run
from replicator.format.policy import Policy


class IndexedPack(Part, frozen=True, kw_only=True):
    """One pack: ``ids`` are its chunk ids, 32 bytes each, in the order of its directory.

    An id whose chunk was stored again in a later pack of the same session may be left out.
    ``shards`` names the shards of a coded pack in order, data first; empty for whole copies.
    """

    name: Hash
    size: Count
    kind: Annotated[int, msgspec.Meta(ge=1, le=2)]
    policy: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    shards: list[Hash]
    ids: bytes

    def __post_init__(self) -> None:
        check_run(self.ids, "ids")


class Index(Record, frozen=True, kw_only=True):
    """Signed by a writer: the packs of one session, and the policies they were written under."""

    tenant: Id16
    domain: Id16
    writer: Hash
    created_ns: Count
    policies: list[Policy]
    packs: list[IndexedPack]


class References(Record, frozen=True, kw_only=True):
    """Signed by a writer: the sorted chunk ids that a snapshot needs, as a change against another.

    ``base`` is the references object this one changes, or empty; ``added`` and ``dropped`` are sorted,
    32 bytes an id. Folding a chain from its first object gives the whole set, without any content key.
    """

    tenant: Id16
    domain: Id16
    writer: Hash
    base: Annotated[bytes, msgspec.Meta(max_length=32)]
    added: bytes
    dropped: bytes

    def __post_init__(self) -> None:
        check_run(self.base, "base")
        check_run(self.added, "added")
        check_run(self.dropped, "dropped")
