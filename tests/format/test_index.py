from typing import Any

import msgspec
import pytest

from replicator.format.codec import encode
from tests.format.samples import INDEX, REFERENCES, accepted, inside, refused

pack = inside(INDEX.packs[0], lambda part: msgspec.structs.replace(INDEX, packs=[part]))


@pytest.mark.parametrize(
    ("field", "bad", "good"),
    [
        ("name", (bytes(31), bytes(33)), (bytes(32),)),
        ("kind", (0, 3), (1, 2)),
        ("policy", (bytes(15), bytes(17)), (bytes(16),)),
        ("shards", ([bytes(31)],), ([], [bytes(32)] * 6)),
    ],
)
def test_limits_of_an_indexed_pack(field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    for value in bad:
        refused(pack(**{field: value}))
    for value in good:
        accepted(pack(**{field: value}))


@pytest.mark.parametrize("length", [1, 31, 33])
def test_chunk_ids_of_an_indexed_pack_are_whole(length: int) -> None:
    with pytest.raises(ValueError, match="ids"):
        pack(ids=bytes(length))
    accepted(pack(ids=bytes(64)))
    accepted(pack(ids=b""))


@pytest.mark.parametrize("field", ["base", "added", "dropped"])
def test_ids_in_references_are_whole(field: str) -> None:
    for bad in (b"x", bytes(31), bytes(33)):
        refused(REFERENCES, **{field: bad})
    for good in (b"", bytes(32)):
        accepted(REFERENCES, **{field: good})


def test_references_have_one_base_at_most() -> None:
    refused(REFERENCES, base=bytes(64))


def test_an_index_costs_little_more_than_the_ids_in_it() -> None:
    ids = bytes(32 * 10_000)
    assert len(encode(pack(ids=ids))) < len(ids) + 400
