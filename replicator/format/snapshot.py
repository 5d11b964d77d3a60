"""Snapshots and the signed chain they form."""

from typing import Annotated

import msgspec

from replicator.format.charter import Count, Hash, Id16, Name, Number
from replicator.format.codec import Part, Record
from replicator.format.policy import Policy


class Seen(Part, frozen=True, kw_only=True):
    """How far the writer had seen another writer's chain."""

    writer: Hash
    number: Number
    head: Hash


class Snapshot(Record, frozen=True, kw_only=True):
    """Signed by a writer. Readable by holders of the index key, except ``sealed``.

    ``sealed`` is :class:`SnapshotDetails` for the domain's restore key (:mod:`replicator.crypto.seal`).
    ``indexes`` are all index objects that the snapshot's chunks are found through, ``references`` the chain of
    references objects to fold, first one first, ``objects`` counts the packs. ``previous_snapshot`` is the
    object before it in the writer's chain (32 zero bytes at number 1).
    """

    tenant: Id16
    domain: Id16
    writer: Hash
    number: Number
    previous: Hash
    previous_snapshot: Hash
    charter: Count
    created_ns: Count
    partial: bool
    policy: Policy
    indexes: list[Hash]
    references: list[Hash]
    objects: Count
    size: Count
    files: Count
    seen: list[Seen]
    sealed: bytes


class RootFolder(Part, frozen=True, kw_only=True):
    """One folder (or file) that a dataset names: where it lay and under which name it is in the tree."""

    path: bytes
    name: bytes


class SnapshotDetails(Record, frozen=True, kw_only=True):
    """What only a restore key opens: names and the way in. ``tree`` is the content of the top directory."""

    dataset: Name
    host: str
    roots: list[RootFolder]
    tree: "ChunkList"
    tags: list[str]
    gaps: list[bytes]


class ChunkRef(Part, frozen=True, kw_only=True):
    """One chunk and the plaintext bytes it stands for (for a list: of everything below it)."""

    id: Hash
    length: Count


class ChunkList(Part, frozen=True, kw_only=True):
    """Content as chunks: ``depth`` 0 lists the chunks themselves, n lists chunks that hold such lists.

    At most :data:`LIST_LIMIT` entries here; a longer list is split and its pieces are stored as chunks.
    """

    depth: Annotated[int, msgspec.Meta(ge=0, le=4)]
    length: Count
    chunks: list[ChunkRef]


LIST_LIMIT = 4096


class Head(Record, frozen=True, kw_only=True):
    """Signed by a writer and witnessed by providers: the newest snapshot of its chain.

    ``number`` rises by one, ``previous`` is the BLAKE3 hash of the signed head before (32 zero bytes at 1),
    ``snapshot`` names the object. Two signed heads with one number are a fork and evidence of it.
    """

    tenant: Id16
    writer: Hash
    number: Number
    previous: Hash
    snapshot: Hash
    created_ns: Count
