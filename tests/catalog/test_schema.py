import sqlite3
import threading
from pathlib import Path

import pytest

from chunker import Location
from replicator.catalog.catalog import Catalog
from replicator.catalog.schema import SCHEMA_VERSION, Database
from replicator.errors import HomeError
from replicator.fs import PosixFs
from tests.catalog.test_snapshots import snapshot


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


VERSION_1 = """
CREATE TABLE "policies" ("id" BLOB PRIMARY KEY, "record" BLOB);
CREATE TABLE "objects" (
   "id" INTEGER PRIMARY KEY, "name" BLOB, "writer" BLOB, "kind" TEXT, "size" INTEGER, "policy" BLOB,
   "index_id" INTEGER, "spooled" INTEGER, "lost" INTEGER, "created_ns" INTEGER
);
CREATE UNIQUE INDEX "idx_objects_name" ON "objects" ("name");
CREATE INDEX "idx_objects_index_id" ON "objects" ("index_id");
CREATE INDEX "idx_objects_spooled" ON "objects" ("spooled");
CREATE TABLE [holdings] (
   [object_id] INTEGER, [peer] BLOB, [state] TEXT, [incarnation] BLOB, [receipt] BLOB, [received_ns] INTEGER,
   [checked_ns] INTEGER, [audited_ns] INTEGER, PRIMARY KEY (object_id, peer)
) WITHOUT ROWID;
CREATE INDEX "idx_holdings_peer" ON "holdings" ("peer");
CREATE TABLE [claimed] ([peer] BLOB, [object_id] INTEGER, PRIMARY KEY (peer, object_id)) WITHOUT ROWID;
CREATE TABLE "peers" (
   "identity" BLOB PRIMARY KEY, "endpoints" TEXT, "certificate" BLOB, "incarnation" BLOB, "offer" BLOB,
   "offer_number" INTEGER, "claim_number" INTEGER, "quota" INTEGER, "used" INTEGER, "free" INTEGER,
   "contacted_ns" INTEGER, "failing_since_ns" INTEGER, "last_error" TEXT
);
CREATE TABLE "snapshots" (
   "name" BLOB PRIMARY KEY, "writer" BLOB, "number" INTEGER, "dataset" TEXT, "created_ns" INTEGER,
   "published_ns" INTEGER, "policy" BLOB, "files" INTEGER, "size" INTEGER, "partial" INTEGER, "indexes" BLOB,
   "refs" BLOB, "head" BLOB, "gaps" TEXT
);
CREATE UNIQUE INDEX "idx_snapshots_writer_number" ON "snapshots" ("writer", "number");
CREATE TABLE "runs" (
   "id" INTEGER PRIMARY KEY, "kind" TEXT, "started_ns" INTEGER, "ended_ns" INTEGER, "exit" INTEGER, "summary" TEXT
);
CREATE TABLE [chunks] ([id] BLOB, [object_id] INTEGER, [entry] INTEGER, PRIMARY KEY (id, object_id)) WITHOUT ROWID;
CREATE INDEX "idx_chunks_object_id_entry" ON "chunks" ("object_id", "entry");
CREATE TABLE "meta" ("key" TEXT PRIMARY KEY, "value" BLOB);
PRAGMA user_version = 1;
"""
"""What a catalog of version 1 was made with."""


def chunk(number: int) -> bytes:
    """Return the id of a numbered chunk."""
    return bytes([number]) * 32


def make_version_1(path: str) -> None:
    """Make a catalog of version 1 with three packs and their index, of which one was forgotten in between."""
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.execute("PRAGMA journal_mode=WAL")
    for object_id, kind, index in ((2, "data", 9), (3, "tree", None), (7, "data", 9), (9, "index", None)):
        connection.execute(
            "INSERT INTO objects VALUES (?, ?, ?, ?, 65536, ?, ?, 1, 0, 5)",
            (object_id, bytes([object_id]) * 32, b"w" * 32, kind, b"p" * 16, index),
        )
    for object_id, entry, number in ((7, 1, 1), (2, 0, 3), (2, 1, 1), (7, 0, 2), (3, 0, 0)):
        connection.execute("INSERT INTO chunks VALUES (?, ?, ?)", (chunk(number), object_id, entry))
    connection.execute("INSERT INTO holdings VALUES (7, ?, 'held', ?, ?, 1, 2, 3)", (b"b" * 32, b"i" * 16, b"r"))
    connection.commit()
    connection.close()


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


@pytest.mark.parametrize("places", [False, True])
def test_a_catalog_of_version_1_keeps_everything_but_what_nobody_asks_it_any_more(path: str, places: bool) -> None:
    make_version_1(path)
    for _ in range(2):
        catalog = Catalog(path, PosixFs(), places=places)
        objects = catalog.objects
        assert catalog.database.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]
        assert [(row.id, row.name[0], row.kind, row.index_id) for row in objects.all()] == [
            (2, 2, "data", 9),
            (3, 3, "tree", None),
            (7, 7, "data", 9),
            (9, 9, "index", None),
        ]
        assert [objects.chunk_ids(row) for row in (2, 3, 7, 9)] == [
            chunk(3) + chunk(1),
            chunk(0),
            chunk(2) + chunk(1),
            b"",
        ]
        assert [(one.object_id, one.audited_ns) for one in objects.holdings()] == [(7, 3)]
        if places:
            assert objects.places([chunk(1), chunk(0)]) == [[Location(7, 1), Location(2, 1)], [Location(3, 0)]]
        else:
            assert catalog.database.rows("SELECT * FROM chunks") == []
        catalog.close()
    assert "objects_2" not in tables(path)


def test_a_catalog_of_version_1_comes_to_the_same_tables_as_a_new_one(path: str, tmp_path: Path) -> None:
    make_version_1(path)
    new = str(tmp_path / "new.db")
    made = []
    for one in (path, new):
        database = Database(one, PosixFs())
        indexes = [
            (table, name, database.rows(f"PRAGMA index_info({name})"))
            for table, name in database.rows("SELECT tbl_name, name FROM sqlite_master WHERE sql LIKE 'CREATE%INDEX%'")
        ]
        columns = {table: database.rows(f"PRAGMA table_info({table})") for table in sorted(tables(one))}
        made.append((sorted(indexes), columns))
        database.close()
    assert made[0] == made[1]


def test_snapshots_of_a_catalog_of_version_2_are_kept_and_have_no_tags(path: str) -> None:
    catalog = Catalog(path, PosixFs())
    for number in (1, 2):
        catalog.snapshots.put(snapshot(number, tags=("gone",)))
    catalog.database.connection.executescript("ALTER TABLE snapshots DROP COLUMN tags; PRAGMA user_version = 2;")
    catalog.close()
    for _ in range(2):
        catalog = Catalog(path, PosixFs())
        assert catalog.snapshots.all() == [snapshot(1), snapshot(2)]
        catalog.close()


def test_row_numbers_of_a_catalog_of_version_1_are_not_used_again(path: str) -> None:
    make_version_1(path)
    catalog = Catalog(path, PosixFs())
    catalog.objects.forget([9])
    name = bytes([20]) * 32
    assert catalog.objects.add(name=name, writer=name, kind="index", size=1, spooled=False, created_ns=1) == 10
    catalog.close()


def test_a_catalog_of_version_1_is_changed_whole_or_not_at_all(path: str) -> None:
    make_version_1(path)
    with pytest.raises(OSError, match="No space"):
        Database(path, Failing("catalog schema"))
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM chunks").fetchone() == (5,)
    connection.close()
    catalog = Catalog(path, PosixFs())
    assert catalog.objects.chunk_ids(7) == chunk(2) + chunk(1)
    catalog.close()


def test_two_processes_may_meet_at_a_catalog_of_version_1(path: str) -> None:
    make_version_1(path)

    class Late(Database):
        looked = 0

        def _version(self) -> int:
            found = super()._version()
            self.looked += 1
            if self.looked == 1:
                assert found == 1
                Database(
                    self.path, PosixFs(), places=True
                ).close()  # the other one is between our look and our transaction
            return found

    late = Late(path, PosixFs(), places=True)
    assert late.rows("SELECT object_id FROM pack_ids ORDER BY object_id") == [(2,), (3,), (7,)]
    late.close()


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
