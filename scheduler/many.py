"""Placement sets for the values of `scheduler.model`: the bridge from policies to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from scheduler.laminar import numbers
from scheduler.model import Domain, Policy
from scheduler.shape import Field, Rule, Shape

__all__ = ["sets_for"]


def sets_for(
    policy: Policy, places: Mapping[Domain, Sequence[int]], slots: Sequence[int], packs: int, *, seed: bytes
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Tuples of peers (by number) and how many of ``packs`` packs each takes; together as many as fit.

    ``slots`` is how many shards each peer may take, ``places`` the number of each peer's place in every domain.
    """
    count = len(slots)
    caps: dict[str, int] = {domain: most for domain in places if (most := policy.most(domain)) is not None}
    rule = Rule(name=policy.name, width=policy.copies, caps=caps, min_regions=policy.min_regions)
    room = numbers(slots)
    ground = Field(
        ids=tuple(str(at) for at in range(count)),
        place={domain: np.array(place, dtype=np.int64) for domain, place in places.items()},
        label={domain: [str(at) for at in range(max(place, default=-1) + 1)] for domain, place in places.items()},
        country=(None,) * count,
        takes=np.ones(count, dtype=bool),
        holds=np.ones(count, dtype=bool),
        cost=np.zeros(count, dtype=np.int64),
        state=("ok",) * count,
    )
    sets = Shape(ground, rule, np.asarray(room > 0, dtype=bool)).sets(room, packs, seed=seed)
    for row, number in zip(sets.tuples.tolist(), sets.packs.tolist(), strict=True):
        yield tuple(row), number
