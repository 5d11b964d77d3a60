"""What cutting a full pack costs beside sealing it, and what a restore and a repair pay where shards are missing."""

import random
from typing import Any

import pytest

from replicator.format.merkle import name_of
from replicator.ids import ObjectName
from replicator.pack.shards import join, rebuild, split, stored_as

SEED = 20261128
SIZE = 16 << 20
CODINGS = [(4, 2), (10, 4), (16, 4)]
DATA = random.Random(SEED).randbytes(SIZE)


@pytest.fixture(params=CODINGS, ids=lambda coding: f"{coding[0]}+{coding[1]}")
def coding(request: pytest.FixtureRequest, benchmark: Any) -> tuple[int, int]:
    """One of a few codings."""
    benchmark.extra_info["bytes"] = SIZE
    found: tuple[int, int] = request.param
    return found


def test_split(benchmark: Any, coding: tuple[int, int]) -> None:
    """Make the shards."""
    assert len(benchmark(split, DATA, coding)) == sum(coding)


def test_seal(benchmark: Any, coding: tuple[int, int]) -> None:
    """All that a backup does for a pack: make the shards, try them, name them."""
    assert len(benchmark(stored_as, ObjectName(name_of(DATA)), DATA, coding)) == sum(coding)


def test_join(benchmark: Any, coding: tuple[int, int]) -> None:
    """A restore while all data shards answer."""
    shards = dict(enumerate(split(DATA, coding)[: coding[0]]))
    assert benchmark(join, shards, coding, SIZE) == DATA


def test_decode(benchmark: Any, coding: tuple[int, int]) -> None:
    """A restore with as many data shards missing as may be."""
    needed, spare = coding
    shards = {number: shard for number, shard in enumerate(split(DATA, coding)) if number >= spare}
    assert len(shards) == needed
    assert benchmark(join, shards, coding, SIZE) == DATA


def test_rebuild(benchmark: Any, coding: tuple[int, int]) -> None:
    """A repair: as many shards made again as may be missing."""
    spare = coding[1]
    shards = dict(enumerate(split(DATA, coding)))
    missing = list(range(spare))
    found = benchmark(rebuild, {number: shards[number] for number in shards if number >= spare}, coding, missing)
    assert found == {number: shards[number] for number in missing}
