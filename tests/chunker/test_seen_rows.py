import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunker import ParameterError
from chunker.seen.rows import (
    Rows,
    Source,
    check_of,
    checks,
    entries,
    join_ids,
    merged,
    newest,
    object_numbers,
    pack_place,
    words_of,
    words_of_one,
)

IDS = st.builds(
    lambda first, last: bytes([first]) * 8 + bytes(23) + bytes([last]), st.integers(0, 3), st.integers(0, 3)
)
RUNS = st.lists(st.dictionaries(IDS, st.integers(0, 2**64 - 1), max_size=12), max_size=4)


def rows_of(rows: dict[bytes, int]) -> Rows:
    return Rows(words_of(b"".join(rows)), np.array(list(rows.values()), np.uint64))


def as_dict(rows: Rows) -> dict[tuple[int, ...], int]:
    return {tuple(words): place for words, place in zip(rows.ids.tolist(), rows.places.tolist(), strict=True)}


def test_first_words_sort_as_ids_do() -> None:
    ids = [random.Random(seed).randbytes(32) for seed in range(200)]
    by_word = sorted(ids, key=lambda chunk: words_of_one(chunk)[0])
    assert by_word == sorted(ids)


def test_one_id_and_many_become_the_same_words() -> None:
    ids = [random.Random(seed).randbytes(32) for seed in range(20)]
    assert words_of(b"".join(ids)).tolist() == [list(words_of_one(chunk)) for chunk in ids]


def test_a_location_comes_back_from_its_64_bits() -> None:
    places = np.array([pack_place(2**32 - 1, 0), pack_place(0, 2**32 - 1), pack_place(7, 9)], np.uint64)
    assert object_numbers(places).tolist() == [2**32 - 1, 0, 7]
    assert entries(places).tolist() == [0, 2**32 - 1, 9]


def test_an_id_of_another_length_is_refused_even_if_the_sum_is_right() -> None:
    with pytest.raises(ParameterError, match="but must be 32 bytes"):
        join_ids([bytes(31), bytes(33)])


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1))), st.integers(0, 2**64 - 1))
def test_the_check_of_many_rows_is_that_of_each(rows: list[tuple[bytes, int]], seed: int) -> None:
    many = Rows(words_of(b"".join(chunk for chunk, _ in rows)), np.array([place for _, place in rows], np.uint64))
    assert checks(seed, many).tolist() == [check_of(seed, words_of_one(chunk), place) for chunk, place in rows]


def test_any_flipped_bit_changes_the_check() -> None:
    words, place, seed = words_of_one(random.Random(1).randbytes(32)), pack_place(5, 6), 77
    known = {check_of(seed, words, place)}
    for bit in range(64):
        known.add(check_of(seed, words, place ^ 1 << bit))
        for at in range(4):
            changed = [*words]
            changed[at] ^= 1 << bit
            known.add(check_of(seed, changed, place))
    assert len(known) == 1 + 5 * 64


def test_the_mixing_is_that_of_splitmix64() -> None:
    # The generator's first outputs for seed 0 are the finalizer of multiples of its increment (Vigna's splitmix64.c).
    increment = 0x9E3779B97F4A7C15
    assert check_of(0, (), increment) == 0xE220A8397B1DCDAF
    assert check_of(0, (), increment * 2 % 2**64) == 0x6E789E6AA1B965F4


@given(st.lists(st.tuples(IDS, st.integers(0, 2**64 - 1)), min_size=1))
def test_of_rows_with_one_id_the_first_stays(rows: list[tuple[bytes, int]]) -> None:
    expected: dict[bytes, int] = {}
    for chunk, place in rows:
        expected.setdefault(chunk, place)
    raw = Rows(words_of(b"".join(chunk for chunk, _ in rows)), np.array([place for _, place in rows], np.uint64))
    kept = newest(raw)
    assert len(kept.places) == len(expected)
    assert as_dict(kept) == {words_of_one(chunk): place for chunk, place in expected.items()}
    assert (kept.ids[1:, 0] >= kept.ids[:-1, 0]).all()


@given(RUNS, st.integers(1, 4))
def test_merging_keeps_the_newest_of_each_id_whatever_the_parts(runs: list[dict[bytes, int]], step: int) -> None:
    sources = []
    for run in runs:
        rows = newest(rows_of(run)) if run else rows_of(run)
        sources.append(Source([rows.take(slice(at, at + step)) for at in range(0, len(run), step)]))
    expected: dict[bytes, int] = {}
    for run in reversed(runs):
        expected |= run
    found: dict[tuple[int, ...], int] = {}
    firsts: list[int] = []
    for part in merged(sources):
        assert len(part.places)
        assert not found.keys() & as_dict(part).keys()
        found |= as_dict(part)
        firsts += part.ids[:, 0].tolist()
    assert found == {words_of_one(chunk): place for chunk, place in expected.items()}
    assert firsts == sorted(firsts)
