import os
import random
from pathlib import Path

import numpy as np
import pytest

from chunker.seen import SeenIndexError
from chunker.seen import run as run_module
from chunker.seen.rows import Rows, Words, newest, words_of, words_of_one
from chunker.seen.run import MIN_STEP, SEGMENT, Run, write_run
from replicator.fs import PosixFs

SEED = 99


def some(count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(32) for _ in range(count)]


def make(path: Path, rows: dict[bytes, int], *, part: int = 1000) -> Run:
    ordered = newest(Rows(words_of(b"".join(rows)), np.array(list(rows.values()), np.uint64))) if rows else None
    parts = [ordered.take(slice(at, at + part)) for at in range(0, len(rows), part)] if ordered else []
    assert write_run(PosixFs(), str(path), SEED, parts) == len(rows)
    return Run(str(path), age=1, seed=SEED, count=len(rows))


def asked(ids: list[bytes]) -> Words:
    words = words_of(b"".join(ids))
    return words[np.argsort(words[:, 0], kind="stable")]


def agree(run: Run, rows: dict[bytes, int], absent: list[bytes]) -> None:
    expected = {words_of_one(chunk): place for chunk, place in rows.items()}
    words = asked([*rows, *absent])
    hit, places = run.find(words)
    for id_words, is_hit, place in zip(words.tolist(), hit.tolist(), places.tolist(), strict=True):
        assert (place if is_hit else None) == expected.get(tuple(id_words))
    for chunk in [*list(rows)[:: max(len(rows) // 50, 1)], *absent[:50]]:
        assert run.find_one(words_of_one(chunk)) == rows.get(chunk)
    assert run.damaged == 0


@pytest.mark.parametrize(
    "count", [0, 1, 2, MIN_STEP - 1, MIN_STEP, MIN_STEP + 1, 3000, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 5]
)
def test_all_that_was_written_is_found_and_nothing_else(tmp_path: Path, count: int) -> None:
    rows = {chunk: at for at, chunk in enumerate(some(count, 1))}
    run = make(tmp_path / "run", rows)
    edges = [bytes(32), b"\xff" * 32, *(chunk[:8] + bytes(24) for chunk in list(rows)[:100])]
    agree(run, rows, some(300, 2) + edges)
    assert sum(len(part.places) for part in run.parts()) == count
    assert run.verify() == 0
    run.close()
    run.close()


def test_ids_that_share_their_first_word_over_many_windows_are_found(tmp_path: Path) -> None:
    shared = [b"\x55" * 8 + chunk[8:] for chunk in some(5 * MIN_STEP, 3)]
    at_fence = [b"\x10" * 8 + chunk[8:] for chunk in some(2, 4)]
    below = [bytes(8) + chunk[8:] for chunk in some(MIN_STEP - 1, 5)]
    rows = {chunk: at for at, chunk in enumerate([*shared, *at_fence, *below, *some(200, 6)])}
    run = make(tmp_path / "run", rows)
    agree(run, rows, [b"\x55" * 8 + bytes(24), b"\x10" * 8 + b"\xff" * 24, bytes(32)])
    for chunk, place in rows.items():
        assert run.find_one(words_of_one(chunk)) == place
    run.close()


def test_a_first_word_repeated_across_a_fence_and_a_segment_is_found(tmp_path: Path) -> None:
    low = [bytes([1]) + chunk[1:] for chunk in some(SEGMENT - 1, 7)]
    pair = [b"\x02" * 8 + bytes(23) + bytes([at]) for at in range(2)]
    high = [bytes([3]) + chunk[1:] for chunk in some(SEGMENT, 8)]
    rows = {chunk: at for at, chunk in enumerate([*low, *pair, *high])}
    run = make(tmp_path / "run", rows)
    agree(run, rows, [b"\x02" * 8 + bytes(23) + b"\x09"])
    run.close()


def test_small_reads_and_gaps_change_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_LOAD", 600)
    monkeypatch.setattr(run_module, "_GAP", -1)  # each window is a span, and each span a group
    rows = {chunk: at for at, chunk in enumerate(some(3000, 9))}
    rows |= {b"\x55" * 8 + chunk[8:]: at for at, chunk in enumerate(some(MIN_STEP + 3, 3))}
    run = make(tmp_path / "run", rows)
    agree(run, rows, some(3000, 10))
    run.close()


def test_fences_stay_below_their_limit_by_lying_further_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "MAX_FENCES", 16)
    rows = {chunk: at for at, chunk in enumerate(some(3 * SEGMENT, 11))}
    run = make(tmp_path / "run", rows)
    size = os.path.getsize(tmp_path / "run")
    assert size - 48 * len(rows) < 16 + 64 + 17 * 8
    agree(run, rows, some(1000, 12))
    run.close()


def test_a_row_takes_48_bytes_and_an_eighth(tmp_path: Path) -> None:
    run = make(tmp_path / "run", {chunk: at for at, chunk in enumerate(some(SEGMENT, 13))})
    assert os.path.getsize(tmp_path / "run") == 48.125 * SEGMENT + 16 + 64
    run.close()


def test_a_flipped_bit_in_a_row_is_a_miss_of_few_and_found_by_reading_all(tmp_path: Path) -> None:
    rows = {chunk: at for at, chunk in enumerate(some(200, 14))}
    make(tmp_path / "run", rows).close()
    good = (tmp_path / "run").read_bytes()
    words = asked(list(rows))
    rng = random.Random(15)
    expected = {words_of_one(chunk): place for chunk, place in rows.items()}
    for at in range(16, 16 + 48 * len(rows), 7):
        bad = bytearray(good)
        bad[at] ^= 1 << rng.randrange(8)
        (tmp_path / "run").write_bytes(bad)
        run = Run(str(tmp_path / "run"), age=1, seed=SEED, count=len(rows))
        hit, places = run.find(words)
        for id_words, is_hit, place in zip(words.tolist(), hit.tolist(), places.tolist(), strict=True):
            assert not is_hit or place == expected[tuple(id_words)]
        assert run.verify() == 1
        kept = [tuple(ids) for part in run.parts() for ids in part.ids.tolist()]
        assert len(kept) == len(rows) - 1
        assert set(kept) < set(expected)
        run.close()


def test_a_row_of_another_file_does_not_check(tmp_path: Path) -> None:
    [chunk] = some(1, 16)
    make(tmp_path / "run", {chunk: 5}).close()
    other = newest(Rows(words_of(chunk), np.array([6], np.uint64)))
    write_run(PosixFs(), str(tmp_path / "other"), SEED + 1, [other])
    good = bytearray((tmp_path / "run").read_bytes())
    good[16:64] = (tmp_path / "other").read_bytes()[16:64]
    (tmp_path / "run").write_bytes(good)
    run = Run(str(tmp_path / "run"), age=1, seed=SEED, count=1)
    assert not run.find(words_of(chunk))[0].any()
    assert run.find_one(words_of_one(chunk)) is None
    assert run.damaged == 2
    run.close()


def test_a_damaged_end_or_another_run_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "run", {chunk: at for at, chunk in enumerate(some(100, 17))}).close()
    good = (tmp_path / "run").read_bytes()
    for at in [*range(16), *range(16 + 4800, len(good))]:
        bad = bytearray(good)
        bad[at] ^= 1
        (tmp_path / "run").write_bytes(bad)
        with pytest.raises(SeenIndexError, match="rebuild"):
            Run(str(tmp_path / "run"), age=1, seed=SEED, count=100)
    for length in range(0, len(good), 13):
        (tmp_path / "run").write_bytes(good[:length])
        with pytest.raises(SeenIndexError):
            Run(str(tmp_path / "run"), age=1, seed=SEED, count=100)
    (tmp_path / "run").write_bytes(good)
    for seed, count in [(SEED + 1, 100), (SEED, 99)]:
        with pytest.raises(SeenIndexError):
            Run(str(tmp_path / "run"), age=1, seed=seed, count=count)


def test_a_file_cut_short_under_us_is_refused(tmp_path: Path) -> None:
    chunks = some(5000, 18)
    run = make(tmp_path / "run", {chunk: at for at, chunk in enumerate(chunks)})
    os.truncate(tmp_path / "run", 30_000)
    with pytest.raises(SeenIndexError, match="has become shorter"):
        run.find(asked(chunks))
    with pytest.raises(SeenIndexError, match="has become shorter"):
        run.find_one(words_of_one(max(chunks)))
    run.close()
