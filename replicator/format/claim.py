"""What writers and providers sign to each other: claims, receipts, witnessed heads."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from blake3 import blake3

from replicator.format.charter import Count, Hash, Id16, Number
from replicator.format.codec import Part, Record, check_run, encode

Incarnation = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Claim(Record, frozen=True, kw_only=True):
    """Signed by a writer: the objects at one provider that its snapshots rely on, as a change.

    ``base`` is the number of the claim it changes (0: from nothing), ``added`` and ``dropped`` are sorted
    names, 32 bytes each, ``root`` is :func:`set_root` of the whole set afterwards.
    """

    tenant: Id16
    writer: Hash
    provider: Hash
    number: Number
    base: Count
    added: bytes
    dropped: bytes
    root: Hash

    def __post_init__(self) -> None:
        check_run(self.added, "added")
        check_run(self.dropped, "dropped")


class Receipt(Record, frozen=True, kw_only=True):
    """Signed by a provider: the object was durable when this was signed, in this incarnation of its store."""

    tenant: Id16
    name: Hash
    size: Count
    incarnation: Incarnation
    received_ns: Count
    lock_until_ns: Count


class AuditReceipt(Record, frozen=True, kw_only=True):
    """Signed by a provider: in this incarnation it was asked for proofs by this holder, and answered so.

    ``question`` and ``answer`` are BLAKE3 hashes of the ProveRequest and the ProveReply, as encoded. Of ``probes``
    leaves it showed ``shown``; whether those are right is not in it, and can be told from the answer by whoever has it.
    """

    tenant: Id16
    auditor: Hash
    incarnation: Incarnation
    question: Hash
    answer: Hash
    probes: Count
    shown: Count
    at_ns: Count


class Witness(Record, frozen=True, kw_only=True):
    """Signed by a provider: it has seen this signed head (``head`` is its BLAKE3 hash)."""

    tenant: Id16
    writer: Hash
    number: Number
    head: Hash
    incarnation: Incarnation
    seen_ns: Count


class Shown(Part, frozen=True, kw_only=True):
    """The newest head of one writer that a provider has seen, and when it was sent there first."""

    writer: Hash
    number: Number
    head: Hash
    seen_ns: Count


class Standing(Record, frozen=True, kw_only=True):
    """Signed by a provider: in this incarnation these are the newest heads it has seen, one a writer, by writer.

    ``challenge`` is the asker's (:func:`challenge_of`): a hash over statements that this provider signed before, so
    that whoever holds them can prove that this was said later, without any clock.
    """

    tenant: Id16
    incarnation: Incarnation
    challenge: Hash
    heads: list[Shown]
    now_ns: Count

    def __post_init__(self) -> None:
        writers = [one.writer for one in self.heads]
        if writers != sorted(set(writers)):
            raise ValueError("`heads` are not one a writer, by writer")


def hash_of(record: Record) -> bytes:
    """Return the BLAKE3 hash of a record as encoded."""
    return blake3(encode(record)).digest()


def challenge_of(hashes: Iterable[bytes]) -> bytes:
    """Return what is sent as a challenge by who holds statements with these hashes."""
    return blake3(b"".join(hashes)).digest()


def set_root(names: Iterable[bytes]) -> bytes:
    """Return the BLAKE3 hash of a set of names, in sorted order."""
    return root_of(b"".join(sorted(names)))


def root_of(joined: bytes) -> bytes:
    """Return the same of names that are sorted, different and joined."""
    return blake3(joined).digest()
