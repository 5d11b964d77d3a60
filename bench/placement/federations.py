"""Seeded federations: Pareto capacities, houses of one to four peers, unequal regions, four of them in a country."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from scheduler.shape import Field, Rule, Shape

__all__ = ["UNIT", "Case", "changed", "federation", "uneven"]

UNIT: Final = 8 << 20
"""Bytes that sizes and capacities are whole multiples of."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Peers, what each has room for (in bytes), and a policy that fits them."""

    ground: Field
    room: tuple[int, ...]
    rule: Rule

    def bound(self, size: int) -> int:
        """The exact greatest number of packs of one size."""
        shard = self.rule.shard(size)
        slots = np.array([there // shard for there in self.room], dtype=np.int64)
        return Shape(self.ground, self.rule, self.ground.takes).bound(slots)


def federation(peers: int, rule: Rule, *, packs: int, size: int, seed: int, alpha: float = 1.2) -> Case:
    """``peers`` peers for which the bound is about ``packs`` packs of ``size`` bytes."""
    source = np.random.default_rng([seed, peers])
    site = np.repeat(np.arange(peers), source.integers(1, 5, peers))[:peers]
    if peers <= 6:
        site = np.arange(peers)
    regions = {5: 3, 12: 5, 50: 8, 1000: 30}.get(peers, 60)
    weight = 1 / np.arange(1, regions + 1) ** 0.8
    region = source.choice(regions, peers, p=weight / weight.sum())[site]
    if peers <= 6:
        region = np.arange(peers) % regions
    country = region % max(2, regions // 4)
    place = {"owner": site, "site": site, "region": region, "country": country, "household": site}
    share = source.pareto(alpha, peers) + 1
    codes = ("SE", "NO", "DK", "FI", "DE", "FR", "NL", "PL", "CZ", "AT", "BE", "IE", "ES", "PT", "IT")
    ground = Field(
        ids=tuple(f"p{at:05d}" for at in range(peers)),
        place={domain: np.asarray(there, dtype=np.int64) for domain, there in place.items()},
        label={domain: [f"{domain} {at}" for at in range(int(there.max()) + 1)] for domain, there in place.items()},
        country=tuple(codes[at % len(codes)] for at in country),
        takes=np.ones(peers, dtype=bool),
        holds=np.ones(peers, dtype=bool),
        cost=np.zeros(peers, dtype=np.int64),
        state=("ok",) * peers,
    )
    # Scaled until the bound is what was asked for: capacity that no policy can use is no capacity.
    shard = rule.shard(size)
    shape = Shape(ground, rule, ground.takes)
    low, high = 0.0, 1.0
    while shape.bound((share * high).astype(np.int64)) < packs:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        if shape.bound((share * middle).astype(np.int64)) < packs:
            low = middle
        else:
            high = middle
    units = (share * high * shard / UNIT).astype(np.int64) + 1
    return Case(ground=ground, room=tuple((units * UNIT).tolist()), rule=rule)


def uneven(case: Case, *, seed: int) -> Case:
    """The same where others take up to nine tenths of each peer, each its own part."""
    taken = np.random.default_rng([seed, 1]).uniform(0, 0.9, len(case.room))
    room = [int(there * (1 - part)) // UNIT * UNIT for there, part in zip(case.room, taken, strict=True)]
    return Case(ground=case.ground, room=tuple(room), rule=case.rule)


def changed(ground: Field, **states: str) -> Field:
    """The same peers, some in another state (``p00003="lost"``)."""
    state = tuple(states.get(name, there) for name, there in zip(ground.ids, ground.state, strict=True))
    return Field(
        ids=ground.ids,
        place=ground.place,
        label=ground.label,
        country=ground.country,
        takes=np.array([there == "ok" for there in state]),
        holds=np.array([there in ("ok", "readonly") for there in state]),
        cost=ground.cost,
        state=state,
    )
