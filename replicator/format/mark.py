"""What maintenance signs to a provider: what may be deleted, and which writers are not waited for any more."""

import itertools
from typing import Annotated, Final

import msgspec

from replicator.format.charter import Count, Hash, Id16, Number
from replicator.format.claim import Incarnation
from replicator.format.codec import HASH_SIZE, Part, Record, check_run

LEAST_BUDGET: Final = 20 * 10**9
"""Bytes of a tenant that a provider may delete in a week whatever root's percentage is."""


class SeenWriter(Part, frozen=True, kw_only=True):
    """How far a maintainer had seen a writer: its claim at this provider, its newest head at any. 0: none."""

    writer: Hash
    claim: Count
    head: Count


class Mark(Record, frozen=True, kw_only=True):
    """Signed by maintenance: objects at one provider that may be deleted, decided with this view of the writers.

    Numbered from 1 for each tenant and provider; ``previous`` is the hash of the signed mark before. ``view`` is
    sorted by writer. ``dead`` are names that nobody needs. ``surplus`` are names with copies enough elsewhere, which
    ``receipts`` (signed by those providers) and ``holders`` (signed by owner, :class:`Holders`; empty without
    surplus) show; ``copies`` is how many others their policies promise. Names are sorted and in one of
    the two.
    """

    tenant: Id16
    provider: Hash
    incarnation: Incarnation
    number: Number
    previous: Hash
    view: list[SeenWriter]
    dead: bytes
    surplus: bytes
    copies: Annotated[int, msgspec.Meta(ge=1, le=64)]
    holders: bytes
    receipts: list[bytes]
    created_ns: Count

    def __post_init__(self) -> None:
        check_run(self.dead, "dead")
        check_run(self.surplus, "surplus")
        both = sorted_names(self.dead, "dead") + sorted_names(self.surplus, "surplus")
        if len(set(both)) != len(both):
            raise ValueError("a name is in both `dead` and `surplus`")
        writers = [one.writer for one in self.view]
        if sorted(set(writers)) != writers:
            raise ValueError("`view` is not sorted by writer, each once")


class Holders(Record, frozen=True, kw_only=True):
    """Signed by owner: the providers that count for surplus, as of a charter. Shown to a provider with a release only.

    ``charter`` is the number of the charter that it goes with; ``providers`` are sorted identities.
    """

    tenant: Id16
    charter: Number
    providers: bytes

    def __post_init__(self) -> None:
        check_run(self.providers, "providers")
        sorted_names(self.providers, "providers")


class Fence(Record, frozen=True, kw_only=True):
    """Signed by maintenance or owner: a writer's claims and heads up to these numbers come too late here.

    Those that were accepted before stay; 0 fences nothing.
    """

    tenant: Id16
    provider: Hash
    writer: Hash
    claim: Count
    head: Count


class Retire(Record, frozen=True, kw_only=True):
    """Signed by maintenance or owner: do not wait for this writer, whose last claim here is ``claim`` (0: none).

    It ends what the claim protects; the writer's next claim takes it back.
    """

    tenant: Id16
    provider: Hash
    writer: Hash
    claim: Count


def sorted_names(run: bytes, field: str) -> list[bytes]:
    """Return the names of a run.

    Raises:
        ValueError: they are not sorted, or not different.
    """
    names = [run[at : at + HASH_SIZE] for at in range(0, len(run), HASH_SIZE)]
    if any(one >= other for one, other in itertools.pairwise(names)):
        raise ValueError(f"`{field}` is not sorted, or has a name twice")
    return names
