"""What look-ups and additions cost on an index of a million rows; `seen_options.py` has the larger ones and others."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chunker import ChunkId
from chunker.seen import DiskSeenIndex
from replicator.fs import PosixFs

ROWS = 1_000_000
PACK = 64
SEED = 20261123


def pack_ids(number: int) -> list[ChunkId]:
    """Return the ids of one object."""
    raw = random.Random(SEED + number).randbytes(32 * PACK)
    return [ChunkId(raw[at : at + 32]) for at in range(0, len(raw), 32)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiskSeenIndex]:
    """Return an index as a first backup leaves it: several runs and a journal."""
    with DiskSeenIndex(str(tmp_path_factory.mktemp("seen")), PosixFs(), owner=bytes(16)) as index:
        for number in range(ROWS // PACK):
            index.add(number, pack_ids(number))
        index.sync()
        yield index


@pytest.mark.parametrize("size", [1, 500, 100_000])
@pytest.mark.parametrize("kind", ["hits", "misses"])
def test_lookup(benchmark: Any, index: DiskSeenIndex, kind: str, size: int) -> None:
    """A sorted batch from all over the index."""
    rng = random.Random(SEED)
    objects = rng.sample(range(ROWS // PACK), min(size, ROWS // PACK))
    names = [rng.choice(pack_ids(number)) for number in objects for _ in range(-(-size // len(objects)))][:size]
    if kind == "misses":
        names = [ChunkId(rng.randbytes(32)) for _ in names]
    names.sort()
    benchmark.extra_info["rows"] = index.rows
    benchmark.extra_info["runs"] = index.runs
    answers = benchmark(index.lookup, names)
    assert (None in answers) == (kind == "misses")


def test_add_a_pack_durably(benchmark: Any, tmp_path: Path) -> None:
    """Journal, sync and table, with a merge now and then."""
    packs = [pack_ids(number) for number in range(5000)]
    with DiskSeenIndex(str(tmp_path / "seen"), PosixFs(), owner=bytes(16)) as index:
        numbers = iter(range(10**9))

        def add() -> None:
            number = next(numbers)
            index.add(number, packs[number % len(packs)])
            index.sync()

        benchmark(add)


def test_open(benchmark: Any, index: DiskSeenIndex) -> None:
    """Manifest, fences and journal of the same index, read anew."""
    folder = index._folder
    benchmark(lambda: DiskSeenIndex(folder, PosixFs(), owner=bytes(16), writable=False).close())
