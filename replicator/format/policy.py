"""The promise of a dataset as a record, and its name."""

from typing import Annotated

import msgspec
from blake3 import blake3

from replicator.format.charter import Name
from replicator.format.codec import Record, encode
from replicator.format.sizes import is_cut
from replicator.ids import PolicyId

Small = Annotated[int, msgspec.Meta(ge=1, le=64)]
POLICY_ID_SIZE = 16


class Policy(Record, frozen=True, kw_only=True):
    """What is promised for a dataset's packs.

    With ``coding`` (k, m) data packs are cut into k+m shards of which k suffice; ``copies``, then m+1, and ``minimum``
    are of what stays whole, and of shards k - 1 more are as many losses from the last (:func:`shards_promised`).
    ``spread`` and ``residency`` are sorted; ``residency`` holds country codes or "EEA", empty for anywhere.
    ``stale_after_s``: age at which a copy's last inventory or audit no longer counts.
    """

    copies: Small
    minimum: Small
    coding: tuple[Small, Small] | None
    spread: list[Name]
    residency: list[Name]
    count_own: bool
    stale_after_s: Annotated[int, msgspec.Meta(ge=3600, le=366 * 86400)]

    def __post_init__(self) -> None:
        # One promise has one id: two orders of the same words would store every chunk twice.
        for field, words in (("spread", self.spread), ("residency", self.residency)):
            if words != sorted(set(words)):
                raise ValueError(f"`{field}` is not sorted, or names something twice")


def coding_of(policy: Policy, size: int) -> tuple[int, int] | None:
    """Return what a data pack of so many bytes is cut into under a policy, None if it stays whole."""
    return policy.coding if policy.coding is not None and is_cut(size, policy.coding[0]) else None


def shards_promised(policy: Policy) -> tuple[int, int]:
    """Return how many shards of a pack a policy with a coding promises, and without how many nothing is published."""
    assert policy.coding is not None, "of packs that are cut"
    needed, spare = policy.coding
    return needed + spare, min(needed + policy.minimum - 1, needed + spare)


def coding_in_words(policy: Policy) -> str:
    """Return "4+2", or nothing if packs are not cut."""
    return "" if policy.coding is None else "{}+{}".format(*policy.coding)


def policy_id(policy: Policy) -> PolicyId:
    """Return the 16-byte name that packs carry."""
    return PolicyId(blake3(encode(policy)).digest(length=POLICY_ID_SIZE))


def at_least_as_strong(have: Policy, want: Policy) -> bool:
    """Return whether a pack kept under ``have`` also keeps the promise ``want``.

    Only a policy that is no weaker in every part counts; different codings never compare.
    """
    return (
        have.coding == want.coding
        and have.copies >= want.copies
        and have.minimum >= want.minimum
        and have.stale_after_s <= want.stale_after_s
        and set(have.spread) >= set(want.spread)
        and (not want.residency or (bool(have.residency) and set(have.residency) <= set(want.residency)))
        and (want.count_own or not have.count_own)
    )
