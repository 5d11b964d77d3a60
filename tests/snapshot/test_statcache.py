"""The stat cache saves work and never gives wrong answers: flipped bits, foreign files, new times."""

import os
import random
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.format.codec import encode
from replicator.format.tree import Entry, TreePiece
from replicator.fs import PosixFs
from replicator.snapshot.statcache import (
    APPLICATION_ID,
    BATCH,
    CONTENT_SIZE,
    RACY_NS,
    SCHEMA_VERSION,
    STAMP_SIZE,
    UNTRUSTED,
    KnownPiece,
    StatCache,
    StatCacheWriter,
    stamp_of,
)
from tests.snapshot.support import entry

KEY = bytes(range(32))
NOW = 1_700_000_000_000_000_000

Known = list[tuple[bytes, list[Entry], list[bytes], bool]]


def cached(number: int = 0, pieces: int = 1) -> Known:
    """What is known of a folder: id, entries, stamps and whether the names end it, piece by piece."""
    found = []
    for place in range(pieces):
        random_bytes = random.Random(f"{number} {place}").randbytes
        entries = [entry(b"%d-%d-%d" % (number, place, one)) for one in range(3)]
        stamps = [random_bytes(STAMP_SIZE) for _ in entries]
        found.append((random_bytes(32), entries, stamps, place < pieces - 1))
    return found


def record(writer: StatCacheWriter, path: bytes, known: Known) -> None:
    rows = writer.folder(path)
    for chunk_id, entries, stamps, ended in known:
        rows.add(chunk_id, encode(TreePiece(entries=entries)), stamps, ended=ended)
    rows.finish()


def lookup(cache: StatCache, path: bytes) -> Known | None:
    found = [
        (piece.id, piece.entries, [piece.stamp(place) for place in range(len(piece.entries))], piece.ended)
        for piece in cache.pieces(path)
    ]
    return found or None


def written(path: Path, rows: dict[bytes, Known], now_ns: int = NOW) -> str:
    writer = StatCacheWriter(f"{path}/cache.new", KEY, now_ns=now_ns)
    for name, known in rows.items():
        record(writer, name, known)
    writer.record_piece(b"p" * 32, b"a piece")
    writer.commit_as(f"{path}/cache", PosixFs())
    return f"{path}/cache"


def status(**changes: Any) -> Any:
    fields = {
        "st_mode": 0o100644,
        "st_size": 10,
        "st_mtime_ns": NOW - 10**10,
        "st_ctime_ns": NOW - 10**10,
        "st_ino": 2**64 - 1,
        "st_uid": 1,
        "st_gid": 2,
        "st_nlink": 1,
        "st_rdev": 5,
    }
    return SimpleNamespace(**(fields | changes))


def test_what_was_recorded_is_found_under_its_path_and_key_only(tmp_path: Path) -> None:
    rows = {b"/path/%d" % number: cached(number) for number in range(2 * BATCH + 10)}
    path = written(tmp_path, rows)
    cache = StatCache.open(path, KEY)
    assert all(lookup(cache, name) == row for name, row in rows.items())
    assert lookup(cache, b"/path/x") is None
    assert cache.list_piece(b"p" * 32) == b"a piece"
    assert cache.list_piece(b"q" * 32) is None
    cache.close()
    assert lookup(cache, b"/path/1") is None
    other = StatCache.open(path, bytes(32))
    assert lookup(other, b"/path/1") is None
    assert other.list_piece(b"p" * 32) is None
    other.close()


def test_names_are_not_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, {b"/home/anna/secret-plan": cached()})
    assert b"anna" not in Path(path).read_bytes()


@pytest.mark.parametrize("field", ["st_mtime_ns", "st_ctime_ns"])
@pytest.mark.parametrize(("age", "trusted"), [(RACY_NS, True), (RACY_NS - 1, False), (0, False), (-(10**12), False)])
def test_what_was_touched_just_now_or_in_the_future_is_not_trusted(
    tmp_path: Path, field: str, age: int, trusted: bool
) -> None:
    writer = StatCacheWriter(f"{tmp_path}/new", KEY, now_ns=NOW)
    assert writer.trusted(status(**{field: NOW - age})) is trusted
    writer.abandon()


@pytest.mark.parametrize(
    "field",
    ["st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_uid", "st_gid", "st_nlink", "st_rdev"],
)
def test_a_stamp_shows_every_change_and_its_front_those_of_the_content(field: str) -> None:
    before, after = stamp_of(status()), stamp_of(status(**{field: getattr(status(), field) - 1}))
    assert before != after
    content = field in ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
    assert (before[:CONTENT_SIZE] != after[:CONTENT_SIZE]) is content
    assert UNTRUSTED not in (before, after)


def test_a_folder_looks_the_same_whatever_its_size_and_links_are() -> None:
    folder = {"st_mode": 0o040755}
    assert stamp_of(status(**folder)) == stamp_of(status(**folder, st_size=4096, st_nlink=7))


def test_a_folder_of_many_pieces_is_found_whole_and_kept_unread(tmp_path: Path) -> None:
    rows = {b"/many": cached(1, pieces=4), b"/one": cached(2)}
    path = written(tmp_path, rows)
    cache = StatCache.open(path, KEY)
    writer = StatCacheWriter(f"{tmp_path}/next", KEY, now_ns=NOW)
    for name in rows:
        folder = writer.folder(name)
        for piece in cache.pieces(name):
            assert piece.length == len(encode(TreePiece(entries=piece.entries)))
            folder.keep(piece)
        folder.finish()
    cache.close()
    writer.commit_as(path, PosixFs())
    again = StatCache.open(path, KEY)
    assert {name: lookup(again, name) for name in rows} == rows
    again.close()


@pytest.mark.parametrize("place", [0, 1, 4])
@pytest.mark.parametrize("wrong", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("what", ["name", "stamp"])
def test_as_many_are_alike_as_have_name_and_stamp(place: int, wrong: int | None, what: str) -> None:
    names = [b"%d" % number for number in range(8)]
    stamps = [bytes([number]) * STAMP_SIZE for number in range(8)]
    known = KnownPiece(b"i" * 32, 0, [entry(name) for name in names], b"".join(stamps), b"", ended=False)
    if wrong is not None:
        (names if what == "name" else stamps)[place + wrong] = b"x" * (1 if what == "name" else STAMP_SIZE)
    for more in range(4):  # what is asked for may end before the piece, with it, or go on behind it
        asked = 3 + more
        found = known.alike(
            place,
            [*names, b"y", b"z"][place : place + asked],
            b"".join([*stamps, b"y" * STAMP_SIZE, b"z" * STAMP_SIZE][place : place + asked]),
        )
        most = min(asked, 8 - place)
        assert found == (most if wrong is None else min(wrong, most))


def test_behind_a_lost_piece_nothing_is_known(tmp_path: Path) -> None:
    path = written(tmp_path, {b"/many": cached(1, pieces=4)})
    database = sqlite3.connect(path)
    key = StatCacheWriter(f"{tmp_path}/x", KEY, now_ns=NOW)._rows.key(b"/many", 2)
    assert database.execute("DELETE FROM rows WHERE key = ?", (key,)).rowcount == 1
    database.commit()
    database.close()
    cache = StatCache.open(path, KEY)
    assert lookup(cache, b"/many") == cached(1, pieces=4)[:2]
    cache.close()


def test_the_old_generation_stays_until_the_new_one_is_committed(tmp_path: Path) -> None:
    path = written(tmp_path, {b"/a": cached(1)})
    old = StatCache.open(path, KEY)
    writer = StatCacheWriter(f"{path}.new", KEY, now_ns=NOW)
    record(writer, b"/a", cached(2))
    again = StatCache.open(path, KEY)
    assert lookup(old, b"/a") == lookup(again, b"/a") == cached(1)
    writer.commit_as(path, PosixFs())
    writer.abandon()
    assert lookup(old, b"/a") == cached(1)
    new = StatCache.open(path, KEY)
    assert lookup(new, b"/a") == cached(2)
    assert new.list_piece(b"p" * 32) is None
    assert sorted(os.listdir(tmp_path)) == ["cache"]
    for one in (old, again, new):
        one.close()


def test_an_abandoned_generation_leaves_nothing(tmp_path: Path) -> None:
    writer = StatCacheWriter(f"{tmp_path}/new", KEY, now_ns=NOW)
    record(writer, b"/a", cached())
    writer.abandon()
    writer.abandon()
    assert os.listdir(tmp_path) == []


def test_a_leftover_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "cache.new").write_bytes(b"half a file" * 1000)
    cache = StatCache.open(written(tmp_path, {b"/a": cached()}), KEY)
    assert lookup(cache, b"/a") == cached()
    cache.close()


def test_the_commit_is_synced_then_named_then_the_name_is_synced(tmp_path: Path) -> None:
    steps = []

    class Watched(PosixFs):
        def commit(self, database: sqlite3.Connection, what: str) -> None:
            assert database.execute("PRAGMA synchronous").fetchone() == (2,)
            steps.append(f"commit {what}")
            super().commit(database, what)

        def replace(self, source: str, target: str) -> None:
            steps.append("replace")
            super().replace(source, target)

        def fsync_dir(self, path: str) -> None:
            assert path == str(tmp_path)
            steps.append("fsync folder")

    writer = StatCacheWriter(f"{tmp_path}/new", KEY, now_ns=NOW)
    writer.commit_as(f"{tmp_path}/cache", Watched())
    assert steps == ["commit stat cache", "replace", "fsync folder"]


def test_no_cache_is_an_empty_one(tmp_path: Path) -> None:
    cache = StatCache.open(f"{tmp_path}/none", KEY)
    assert lookup(cache, b"/a") is None
    assert os.listdir(tmp_path) == []


def _foreign(path: Path, application: int, version: int, *, table: bool) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA application_id = {application}")
    database.execute(f"PRAGMA user_version = {version}")
    if table:
        database.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID")
    database.commit()
    database.close()


@pytest.mark.parametrize("what", ["garbage", "empty", "other program", "other version", "no table", "folder"])
def test_a_file_that_is_not_ours_counts_as_empty_and_is_told(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache"
    match what:
        case "garbage":
            path.write_bytes(random.Random(1).randbytes(10_000))
        case "empty":
            path.write_bytes(b"")
        case "other program":
            _foreign(path, 1, 1, table=True)
        case "other version":
            _foreign(path, APPLICATION_ID, SCHEMA_VERSION - 1, table=True)
        case "no table":
            _foreign(path, APPLICATION_ID, SCHEMA_VERSION, table=False)
        case "folder":
            path.mkdir()
    cache = StatCache.open(str(path), KEY)
    assert lookup(cache, b"/a") is None
    assert "counts as empty" in caplog.text


def test_a_flipped_bit_costs_a_row_and_never_gives_another_answer(tmp_path: Path) -> None:
    rows = {b"/path/%d" % number: cached(number) for number in range(40)}
    path = written(tmp_path, rows)
    whole = Path(path).read_bytes()
    damaged = tmp_path / "damaged"
    lost = 0
    for place in range(100, len(whole), 97):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        cache = StatCache.open(str(damaged), KEY)
        for name, row in rows.items():
            found = lookup(cache, name)
            assert found in (row, None)
            lost += found is None
        cache.close()
    assert lost > 0


def test_a_page_that_breaks_while_it_is_used_empties_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = {b"/path/%d" % number: cached(number) for number in range(500)}
    path = written(tmp_path, rows)
    whole = Path(path).read_bytes()
    for page in range(2, len(whole) // 4096):
        Path(path).write_bytes(whole[: page * 4096] + bytes(4096) + whole[(page + 1) * 4096 :])
        cache = StatCache.open(path, KEY)
        assert all(lookup(cache, name) in (row, None) for name, row in rows.items())
        cache.close()
    assert "counts as empty from here on" in caplog.text


def test_a_row_of_another_format_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = StatCacheWriter(f"{tmp_path}/new", KEY, now_ns=NOW)
    for name, body in ((b"/empty", b""), (b"/short", b"x"), (b"/odd", bytes(32) + b"\x90")):
        key = writer._rows.key(name, 0)
        writer._add(key, writer._rows.seal(key, body))
    key = writer._rows.key(b"/text", 0)
    writer._database.execute("INSERT INTO rows VALUES (?, 'text')", (key,))
    writer.commit_as(f"{tmp_path}/cache", PosixFs())
    cache = StatCache.open(f"{tmp_path}/cache", KEY)
    for name in (b"/empty", b"/short", b"/odd", b"/text"):
        assert lookup(cache, name) is None
    assert caplog.text.count("not of this format") == 3
    cache.close()


def test_a_row_cannot_stand_in_for_another(tmp_path: Path) -> None:
    path = written(tmp_path, {b"/a": cached(1), b"/b": cached(2)})
    database = sqlite3.connect(path)
    a, b = (StatCacheWriter(f"{tmp_path}/x", KEY, now_ns=NOW)._rows.key(name, 0) for name in (b"/a", b"/b"))
    body = database.execute("SELECT body FROM rows WHERE key = ?", (b,)).fetchone()[0]
    database.execute("UPDATE rows SET body = ? WHERE key = ?", (body, a))
    database.commit()
    database.close()
    cache = StatCache.open(path, KEY)
    assert lookup(cache, b"/a") is None
    assert lookup(cache, b"/b") == cached(2)
    cache.close()
