"""What the first leaf tells of an object, whoever called it what."""

import pytest

from replicator.engine.shown import kind_of
from replicator.format.container import MAGIC, RECORD_MAGIC, Kind, record_fill, wrap_record
from replicator.pack.sealed import seal_object
from replicator.pack.shards import split
from tests.fakes import SeededRng
from tests.pack.support import KEYS, domain_keys, sealed

LEAF = 16 << 10
RNG = SeededRng("shown")
OTHERS = domain_keys("another domain")
PACK = sealed([RNG.bytes(1 << 20), RNG.bytes(500_000)]).data


def shown(data: bytes, size: int | None = None) -> str:
    return kind_of(data[:LEAF], len(data) if size is None else size, [OTHERS, KEYS])


@pytest.mark.parametrize(("kind", "word"), [(Kind.DATA_PACK, "data"), (Kind.TREE_PACK, "tree")])
def test_a_pack_is_what_its_locator_says(kind: Kind, word: str) -> None:
    assert shown(sealed([RNG.bytes(50_000)], kind=kind).data) == word


@pytest.mark.parametrize("kind", [Kind.INDEX, Kind.REFERENCES, Kind.SNAPSHOT, Kind.FORGET])
def test_a_sealed_record_is_no_pack_and_no_shard(kind: Kind) -> None:
    assert shown(seal_object(kind, b"body", KEYS, RNG)) == kind.name.lower()


def test_a_record_that_providers_read_is_one() -> None:
    data = wrap_record(b"a charter", RNG.bytes(record_fill(9)))
    assert data.startswith(RECORD_MAGIC)
    assert shown(data) == "record"


@pytest.mark.parametrize("coding", [(2, 1), (4, 2), (16, 2)])
def test_every_shard_of_a_pack_shows_that_it_is_one(coding: tuple[int, int]) -> None:
    assert len(PACK) == 2 << 20
    assert {shown(bytes(shard)) for shard in split(PACK, coding)} == {"shard"}
    assert shown(PACK) == "data"


def test_what_no_key_opens_is_nothing_that_may_go() -> None:
    theirs = sealed([RNG.bytes(50_000)]).data
    assert kind_of(theirs[:LEAF], len(theirs), [OTHERS]) == "unreadable"
    assert shown(MAGIC + RNG.bytes(LEAF)) == "unreadable"
    assert shown(b"RPLNEW\x00" + RNG.bytes(LEAF)) == "unreadable", "of a format to come"
    assert shown(PACK, 1 << 20) == "shard", "it ends before the pack does"
    index = seal_object(Kind.INDEX, RNG.bytes(100_000), KEYS, RNG)
    assert shown(index, 1 << 16) == "unreadable", "nothing but packs is cut"
    assert shown(index, 3 << 16) == "unreadable", "and nothing whole has such a size"
