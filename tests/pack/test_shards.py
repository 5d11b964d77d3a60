"""Shards as the specification says, read by arithmetic that shares nothing with the library's."""

import itertools
import sys
from collections.abc import Mapping

import pytest

from replicator.errors import IntegrityError, ReplicatorError
from replicator.format.merkle import name_of
from replicator.format.sizes import LARGEST, MOST_SHARDS, SMALLEST, is_allowed, is_class, is_cut, shard_size, size_class
from replicator.ids import ObjectName
from replicator.pack import shards
from replicator.pack.shards import check_library, join, rebuild, split, stored_as
from tests.fakes import SeededRng
from tests.vectors.make_vectors import load, pattern, shard_vectors

FROZEN = load("shards")
POLYNOMIAL = 0x11D


# -- docs/spec/format.md §9, word for word, a byte at a time --


def times(one: int, other: int) -> int:
    product = 0
    while other:
        product ^= one * (other & 1)
        one = one << 1 ^ (POLYNOMIAL if one & 0x80 else 0)
        other >>= 1
    return product


INVERSE = {one: other for one in range(1, 256) for other in range(1, 256) if times(one, other) == 1}
TABLES = [bytes(times(factor, value) for value in range(256)) for factor in range(256)]


def row_of(number: int, needed: int) -> list[int]:
    """The coefficients of a shard: by what each data shard is multiplied."""
    if number < needed:
        return [int(number == at) for at in range(needed)]
    return [INVERSE[number ^ at] for at in range(needed)]


def combine(coefficients: list[int], blocks: list[bytes]) -> bytes:
    total = 0
    for factor, block in zip(coefficients, blocks, strict=True):
        total ^= int.from_bytes(block.translate(TABLES[factor]), "big")
    return total.to_bytes(len(blocks[0]), "big")


def encode_by_hand(data: bytes, needed: int, spare: int) -> list[bytes]:
    size = -(-len(data) // (needed * 65536)) * 65536
    padded = data + bytes(needed * size - len(data))
    blocks = [padded[at * size : (at + 1) * size] for at in range(needed)]
    return [combine(row_of(number, needed), blocks) for number in range(needed + spare)]


def decode_by_hand(found: Mapping[int, bytes], needed: int, size: int) -> bytes:
    """Gauss-Jordan elimination over the rows of any k shards."""
    numbers = sorted(found)[:needed]
    matrix = [
        row_of(number, needed) + [int(at == place) for at in range(needed)] for place, number in enumerate(numbers)
    ]
    for column in range(needed):
        pivot = next(at for at in range(column, needed) if matrix[at][column])
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        scale = INVERSE[matrix[column][column]]
        matrix[column] = [times(value, scale) for value in matrix[column]]
        for at in range(needed):
            factor = matrix[at][column]
            if at != column and factor:
                pairs = zip(matrix[at], matrix[column], strict=True)
                matrix[at] = [value ^ times(factor, other) for value, other in pairs]
    blocks = [found[number] for number in numbers]
    return b"".join(combine(row[needed:], blocks) for row in matrix)[:size]


# -- the vectors --


def test_the_vectors_are_written_the_same_way() -> None:
    assert shard_vectors() == FROZEN


@pytest.mark.parametrize("case", FROZEN["bytes"], ids=lambda case: f"{case['needed']}+{case['spare']}")
def test_single_bytes_are_coded_as_the_specification_says(case: dict[str, int | str]) -> None:
    needed, spare = int(case["needed"]), int(case["spare"])
    data = [bytes([value]) for value in bytes.fromhex(str(case["data"]))]
    parity = b"".join(combine(row_of(number, needed), data) for number in range(needed, needed + spare))
    assert parity.hex() == case["parity"]


@pytest.mark.parametrize("case", FROZEN["packs"], ids=lambda case: f"{case['needed']}+{case['spare']}")
def test_frozen_shards_are_made_and_read_by_hand(case: dict[str, int | list[str]]) -> None:
    needed, spare, size = (case[key] for key in ("needed", "spare", "size"))
    assert isinstance(needed, int)
    assert isinstance(spare, int)
    assert isinstance(size, int)
    data = pattern(size)
    made = encode_by_hand(data, needed, spare)
    assert [name_of(shard).hex() for shard in made] == case["names"]
    assert {len(shard) for shard in made} == {case["shard"]}
    last = {number: made[number] for number in range(spare, needed + spare)}
    assert decode_by_hand(last, needed, size) == data


@pytest.mark.parametrize("case", FROZEN["cut"], ids=lambda case: f"{case['size']}-{case['needed']}")
def test_what_is_cut_and_into_what(case: dict[str, int]) -> None:
    size, needed, shard = case["size"], case["needed"], case["shard"]
    whole = -(-size // needed)
    rounded = -(-whole // 65536) * 65536
    assert shard == (rounded if size >= 1 << 20 and (needed - 1) * rounded < size else 0)
    assert is_cut(size, needed) == bool(shard)


@pytest.mark.parametrize("needed", range(2, MOST_SHARDS + 1))
def test_a_full_pack_is_cut_into_any_number_of_shards(needed: int) -> None:
    assert is_cut(LARGEST, needed)
    assert is_allowed(shard_size(LARGEST, needed))


# -- the library --


def test_any_four_of_six_are_read_by_hand_and_by_the_library() -> None:
    data = SeededRng("pack").bytes(1 << 20)
    made = split(data, (4, 2))
    for numbers in itertools.combinations(range(6), 4):
        found = {number: made[number] for number in numbers}
        assert decode_by_hand(found, 4, len(data)) == data
        assert join(found, (4, 2), len(data)) == data
        lacking = [number for number in range(6) if number not in found]
        assert rebuild(found, (4, 2), lacking) == {number: made[number] for number in lacking}


@pytest.mark.parametrize("coding", [(2, 1), (3, 2), (6, 3), (10, 4), (16, 1), (16, 16)])
def test_the_most_that_may_be_lost_is_made_again(coding: tuple[int, int]) -> None:
    needed, spare = coding
    size = next(one for one in (1 << 20, 1 << 21, 1 << 22) if is_cut(one, needed))
    data = SeededRng(f"{coding}").bytes(size)
    made = split(data, coding)
    assert len(made) == len(set(made)) == needed + spare
    for gone in (range(spare), range(needed, needed + spare)):
        found = {number: shard for number, shard in enumerate(made) if number not in gone}
        assert join(found, coding, size) == data
        assert rebuild(found, coding, gone) == {number: made[number] for number in gone}


def test_whole_data_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    data = SeededRng("pack").bytes(1 << 20)
    made = split(data, (6, 3))
    monkeypatch.setattr(shards, "_driver", None)
    assert join(dict(enumerate(made[:6])), (6, 3), len(data)) == data


def test_too_few_or_unlike_shards_are_refused() -> None:
    data = SeededRng("pack").bytes(1 << 20)
    made = split(data, (4, 2))
    with pytest.raises(IntegrityError, match="3 shards of a pack, 4 are needed"):
        join(dict(enumerate(made[:3])), (4, 2), len(data))
    with pytest.raises(IntegrityError, match="other sizes"):
        join(dict(enumerate([*made[:3], made[3][:-1]])), (4, 2), len(data))
    with pytest.raises(IntegrityError, match="other sizes"):
        rebuild(dict(enumerate([*made[:3], made[3][:-1]])), (4, 2), [4])
    assert rebuild({}, (4, 2), []) == {}


def test_small_packs_and_those_without_a_coding_stay_as_they_are() -> None:
    name = ObjectName(bytes(32))
    small, large = bytes(1 << 19), SeededRng("large").bytes(1 << 20)
    assert stored_as(name, small, (4, 2)) == [(name, small)]
    assert stored_as(name, large, None) == [(name, large)]
    assert stored_as(name, large, (5, 2)) == [(name, large)], "a shard would be all padding"
    assert [one for one, _ in stored_as(name, large, (4, 2))] == [name_of(one) for one in split(large, (4, 2))]


def test_without_the_library_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    shards._driver.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyeclib.ec_iface", None)
        with pytest.raises(ReplicatorError, match="need pyeclib") as caught:
            check_library((4, 2))
    assert "pip install pyeclib" in caught.value.hint
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_BACKEND", "no_such_backend")
        with pytest.raises(ReplicatorError, match="ISA-L"):
            check_library((4, 3))
    check_library((4, 2))


def test_only_multiples_of_64_kib_are_stored_and_only_powers_of_two_are_whole() -> None:
    for units in range(1, 257):
        size = units * SMALLEST
        assert is_allowed(size)
        assert is_class(size) == (size_class(size) == size)
    assert not any(is_allowed(size) for size in (0, -SMALLEST, SMALLEST - 1, SMALLEST + 1, LARGEST + SMALLEST))
