"""The rows: made once, refused when newer, written even on a full disk."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from replicator.errors import HomeError, SpaceError
from replicator.fs import PosixFs
from replicator.provider.ballast import Ballast
from replicator.provider.database import SCHEMA_VERSION, Database
from tests.crashfs import CrashFs, full_database, no_space
from tests.fakes import SeededRng


@pytest.fixture
def fs(tmp_path: str) -> Iterator[CrashFs]:
    found = CrashFs(os.path.join(tmp_path, "graveyard"))
    yield found
    found.close()


def _ballast(fs: CrashFs | PosixFs, folder: str) -> Ballast:
    return Ballast(fs, os.path.join(folder, "ballast"), SeededRng("ballast"))


def _open(fs: CrashFs | PosixFs, folder: str) -> Database:
    return Database(os.path.join(folder, "provider.db"), fs, _ballast(fs, folder))


def _add_tenant(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO tenants (id, quota) VALUES (x'01', 5)")


def test_it_is_durable_shared_and_keeps_its_references(tmp_path: str) -> None:
    with closing(_open(PosixFs(), str(tmp_path))) as database:
        assert database.row("PRAGMA journal_mode") == ("wal",)
        assert database.row("PRAGMA synchronous") == (2,)
        with pytest.raises(sqlite3.IntegrityError):
            database.write("stray", lambda connection: connection.execute("INSERT INTO usage VALUES (x'02', x'03', 5)"))


def test_a_newer_database_is_refused_with_what_to_do(tmp_path: str) -> None:
    _open(PosixFs(), str(tmp_path)).close()
    with closing(sqlite3.connect(os.path.join(tmp_path, "provider.db"))) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(HomeError, match="newer release") as caught:
        _open(PosixFs(), str(tmp_path))
    assert "install" in caught.value.hint


def test_a_damaged_database_is_refused_with_what_to_do(tmp_path: str) -> None:
    with open(os.path.join(tmp_path, "provider.db"), "wb") as file:
        file.write(b"not a database at all" * 100)
    with pytest.raises(HomeError, match="not a usable database") as caught:
        _open(PosixFs(), str(tmp_path))
    assert caught.value.hint


def test_a_failed_transaction_leaves_nothing(tmp_path: str) -> None:
    def work(connection: sqlite3.Connection) -> None:
        _add_tenant(connection)
        raise RuntimeError("half way")

    with closing(_open(PosixFs(), str(tmp_path))) as database:
        with pytest.raises(RuntimeError):
            database.write("broken", work)
        assert database.rows("SELECT * FROM tenants") == []
        database.write("whole", _add_tenant)


def test_on_a_full_disk_the_ballast_is_given_up_and_the_work_done(tmp_path: str, fs: CrashFs) -> None:
    database = _open(fs, str(tmp_path))
    assert _ballast(fs, str(tmp_path)).fill()
    path = os.path.join(tmp_path, "ballast")

    def work(connection: sqlite3.Connection) -> None:
        if os.path.exists(path):
            raise full_database()
        _add_tenant(connection)

    with closing(database):
        database.write("tight", work)
        assert database.rows("SELECT quota FROM tenants") == [(5,)]


def test_a_disk_that_is_full_without_the_ballast_too_says_so_and_changes_nothing(tmp_path: str, fs: CrashFs) -> None:
    database = _open(fs, str(tmp_path))
    fs.errors["commit tight"] = full_database()
    with closing(database):
        with pytest.raises(SpaceError, match="full"):
            database.write("tight", _add_tenant)
        assert database.rows("SELECT * FROM tenants") == []
        fs.errors.clear()
        database.write("tight", _add_tenant)


def test_other_errors_do_not_cost_the_ballast(tmp_path: str, fs: CrashFs) -> None:
    database = _open(fs, str(tmp_path))
    _ballast(fs, str(tmp_path)).fill()
    with closing(database), pytest.raises(sqlite3.OperationalError):
        database.write("wrong", lambda connection: connection.execute("SELECT * FROM nowhere"))
    assert os.path.exists(os.path.join(tmp_path, "ballast"))


def test_the_ballast_takes_real_space_and_is_taken_again_when_there_is_some(tmp_path: str, fs: CrashFs) -> None:
    ballast = _ballast(fs, str(tmp_path))
    path = os.path.join(tmp_path, "ballast")
    fs.errors[f"write {os.path.basename(tmp_path)}"] = no_space()
    assert not ballast.fill()
    assert not os.path.exists(path)
    fs.errors = {f"create {os.path.basename(tmp_path)}": no_space()}
    assert not ballast.fill()
    fs.errors = {}
    assert ballast.fill()
    assert os.path.getsize(path) == Ballast.size
    with open(path, "rb") as file:
        assert len(set(file.read())) > 100, "zeros take no space on some file systems"
    assert ballast.fill()
    ballast.release()
    ballast.release()
    assert not os.path.exists(path)


def test_a_ballast_that_was_cut_is_made_whole(tmp_path: str) -> None:
    ballast = _ballast(PosixFs(), str(tmp_path))
    ballast.fill()
    path = os.path.join(tmp_path, "ballast")
    os.truncate(path, 5)
    assert ballast.fill()
    assert os.path.getsize(path) == Ballast.size


def test_a_database_of_version_1_is_brought_up_with_what_it_holds(tmp_path: str) -> None:
    path = os.path.join(tmp_path, "provider.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
    with closing(_open(PosixFs(), str(tmp_path))) as database:
        assert database.row("PRAGMA user_version") == (SCHEMA_VERSION,)
        assert database.row("SELECT incarnation, lives, days FROM meta") == (b"\x07", 0, 0)
        assert database.row("SELECT number, incarnation, retired FROM claims") == (4, b"\x07", 0)
        assert database.row("SELECT size, lock_until_ns, received_day, unclaimed_ns FROM objects") == (65536, 9, 0, 0)
        assert database.rows("SELECT * FROM marks") == []
        assert database.rows("SELECT name, arrival FROM objects ORDER BY name") == [(b"\x02", 2), (b"\x09", 1)]
        assert database.rows("SELECT id, arrivals FROM tenants") == [(b"\x01", 2)]
        assert database.rows("SELECT writer, number, signed, seen_ns FROM witnessed") == [(b"\x03", 8, b"\x05", 6)]
        assert database.rows("SELECT number, hash FROM heads") == [(8, b"\x04")]
        assert database.rows("SELECT * FROM testimony") == []
    _open(PosixFs(), str(tmp_path)).close()


VERSION_1 = """
CREATE TABLE meta (id INTEGER PRIMARY KEY, store BLOB, incarnation BLOB, generation INTEGER, offer BLOB,
  advertised INTEGER);
CREATE TABLE tenants (id BLOB PRIMARY KEY, root_key BLOB, root BLOB, owner_key BLOB, quota INTEGER, label TEXT,
  charter_number INTEGER, charter_hash BLOB, charter_name BLOB, charter BLOB, created_ns INTEGER);
CREATE TABLE objects (tenant BLOB, name BLOB, size INTEGER, holder BLOB, received_ns INTEGER, lock_until_ns INTEGER,
  PRIMARY KEY (tenant, name), FOREIGN KEY (tenant) REFERENCES tenants (id)) WITHOUT ROWID;
CREATE TABLE claims (tenant BLOB, writer BLOB, number INTEGER, root BLOB, claimed_ns INTEGER,
  PRIMARY KEY (tenant, writer), FOREIGN KEY (tenant) REFERENCES tenants (id));
CREATE TABLE heads (tenant BLOB, writer BLOB, number INTEGER, hash BLOB, signed BLOB, seen_ns INTEGER,
  PRIMARY KEY (tenant, writer), FOREIGN KEY (tenant) REFERENCES tenants (id));
INSERT INTO meta VALUES (1, x'01', x'07', 3, x'', 0);
INSERT INTO tenants (id, quota, charter_number) VALUES (x'01', 5, 0);
INSERT INTO objects VALUES (x'01', x'02', 65536, x'', 1, 9);
INSERT INTO objects VALUES (x'01', x'09', 65536, x'', 0, 9);
INSERT INTO claims VALUES (x'01', x'03', 4, x'', 1);
INSERT INTO heads VALUES (x'01', x'03', 8, x'04', x'05', 6);
PRAGMA user_version = 1;
"""
"""What a provider of an earlier build left, of the tables that change."""
