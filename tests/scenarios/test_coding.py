"""Packs that are cut into shards, any four of six of which give them back."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from replicator.format.policy import coding_of, shards_promised
from tests.fakes import SeededRng
from tests.scenarios.world import PLACES, PROMISE, World, write

CODED = msgspec.structs.replace(PROMISE, coding=(4, 2), spread=["owner"])


def coded_world(path: Path, providers: int = 6) -> tuple[World, str]:
    """Make providers, a tenant and a dataset whose packs are cut, of a few megabytes."""
    world = World(str(path), providers=providers)
    asyncio.run(world.found())
    source = os.path.join(world.root, "source", "docs")
    rng = SeededRng("coded")
    for number in range(6):
        write(os.path.join(source, f"{number}.raw"), rng.bytes(900_000))
    write(os.path.join(source, "letter.txt"), b"Dear reader,\n" * 300)
    world.add_dataset("docs", source, policy=CODED)
    return world, source


def test_two_of_six_may_vanish(tmp_path: Path) -> None:
    world, source = coded_world(tmp_path)
    report = asyncio.run(world.backup())
    [done] = report.datasets
    assert done.error is None
    assert done.published
    assert not done.debts
    print([len(world.stored(n, ("shard",))) for n in range(6)], [len(world.stored(n)) for n in range(6)])
    world.silence(0, 3)
    assert asyncio.run(world.differences(source)) == []
