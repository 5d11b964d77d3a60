"""Evidence: signed statements that cannot stand beside each other, and who found them."""

from typing import Literal

from replicator.format.charter import Count, Hash, Id16
from replicator.format.codec import Part, Record

FindingKind = Literal["fork", "rollback", "lost", "revoked", "continued", "interleaved", "charters"]
Said = Literal["head", "snapshot", "witness", "standing", "charter"]


class Statement(Part, frozen=True, kw_only=True):
    """One signed record as it was received; ``context`` says which record it is and what its signature is for."""

    context: Said
    signed: bytes


class Finding(Record, frozen=True, kw_only=True):
    """Signed by the home that found it: ``statements`` show what ``kind`` says about a writer's chain.

    Of "charters" the writer is the owner key, and ``number`` a charter's.

    ``provider`` is the identity of the provider that is at fault, zeros if none is. ``number`` is where the statements
    part. ``challenge``: hashes from which the challenge in the last standing was made; one is the first statement's.
    """

    tenant: Id16
    finder: Hash
    kind: FindingKind
    writer: Hash
    provider: Hash
    number: Count
    statements: list[Statement]
    challenge: list[Hash]
    found_ns: Count
