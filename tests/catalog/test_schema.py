import sqlite3
import threading
from pathlib import Path

import pytest

from replicator.catalog.catalog import Catalog
from replicator.catalog.schema import SCHEMA_VERSION, Database
from replicator.errors import HomeError
from replicator.fs import PosixFs


class Failing(PosixFs):
    """Fails at every commit whose name is in ``at``."""

    def __init__(self, *at: str) -> None:
        self.at = at
        self.seen: list[str] = []

    def commit(self, database: sqlite3.Connection, what: str) -> None:
        """Commit, or fail like a full disk."""
        self.seen.append(what)
        if what in self.at:
            raise OSError(28, "No space left on device")
        super().commit(database, what)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.db")


def tables(path: str) -> set[str]:
    """Return the tables of a file as anyone sees them."""
    connection = sqlite3.connect(path)
    try:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    finally:
        connection.close()


def test_a_new_catalog_has_its_version_and_durable_settings(path: str) -> None:
    database = Database(path, PosixFs())
    assert database.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert database.rows("PRAGMA journal_mode") == [("wal",)]
    assert database.rows("PRAGMA synchronous") == [(2,)]
    database.close()
    assert {"objects", "holdings", "chunks", "snapshots", "policies", "peers"} <= tables(path)


def test_opening_again_keeps_everything_and_commits_nothing(path: str) -> None:
    first = Catalog(path, PosixFs())
    first.set_meta("key", b"value")
    first.close()
    fs = Failing()
    again = Catalog(path, fs)
    assert again.meta("key") == b"value"
    assert fs.seen == []
    again.close()


def test_a_catalog_of_a_newer_release_is_left_alone(path: str) -> None:
    Database(path, PosixFs()).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(HomeError, match="newer release") as caught:
        Database(path, PosixFs())
    assert "newer release" in caught.value.hint


def test_a_file_that_is_no_database_is_named_and_left_alone(path: str) -> None:
    Path(path).write_bytes(b"not a database at all, but long enough to be one" * 100)
    before = Path(path).read_bytes()
    with pytest.raises(HomeError, match="not a usable catalog") as caught:
        Database(path, PosixFs())
    assert "rebuilt" in caught.value.hint
    assert Path(path).read_bytes() == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="unable to open"):
        Database(str(tmp_path / "none" / "catalog.db"), PosixFs())


def test_the_schema_is_made_whole_or_not_at_all(path: str) -> None:
    with pytest.raises(OSError, match="No space"):
        Database(path, Failing("catalog schema"))
    assert tables(path) == set()
    Database(path, PosixFs()).close()
    assert "objects" in tables(path)


def test_a_transaction_that_raises_changes_nothing(path: str) -> None:
    catalog = Catalog(path, PosixFs())

    def work() -> None:
        with catalog.database.transaction("test"):
            catalog.set_meta("a", b"1")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert catalog.meta("a") is None
    catalog.set_meta("a", b"2")
    assert catalog.meta("a") == b"2"
    catalog.close()


def test_transactions_nest_into_one_commit(path: str) -> None:
    fs = Failing()
    catalog = Catalog(path, fs)
    fs.seen.clear()
    with catalog.database.transaction("outer"):
        catalog.set_meta("a", b"1")
        catalog.set_meta("b", b"2")
    assert fs.seen == ["outer"]
    assert (catalog.meta("a"), catalog.meta("b")) == (b"1", b"2")
    catalog.close()


def test_a_commit_that_fails_leaves_the_catalog_usable_and_unchanged(path: str) -> None:
    fs = Failing("meta row")
    catalog = Catalog(path, fs)
    with pytest.raises(OSError, match="No space"):
        catalog.set_meta("a", b"1")
    assert catalog.meta("a") is None
    fs.at = ()
    catalog.set_meta("a", b"1")
    assert catalog.meta("a") == b"1"
    catalog.close()


def test_threads_share_a_catalog(path: str) -> None:
    catalog = Catalog(path, PosixFs())

    def work(number: int) -> None:
        for turn in range(10):
            catalog.set_meta(f"{number}-{turn}", bytes([number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert catalog.database.rows("SELECT count(*) FROM meta") == [(40,)]
    catalog.close()
