"""The tables, and how a catalog is opened, made and checked.

sqlite-utils makes and inspects the schema; statements that run often are plain SQL in the modules beside this.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

from replicator.errors import HomeError, SpaceError
from replicator.fs import Fs

SCHEMA_VERSION = 6
_REBUILT = "move it away and run again: a catalog is rebuilt from the federation"

_TABLES: dict[str, tuple[dict[str, type], tuple[str, ...]]] = {
    "policies": ({"id": bytes, "record": bytes}, ("id",)),
    "objects": (
        {
            "id": int,
            "name": bytes,
            "writer": bytes,
            "kind": str,
            "size": int,
            "policy": bytes,
            "index_id": int,
            "spooled": int,
            "lost": int,
            "created_ns": int,
        },
        ("id",),
    ),
    "holdings": (
        {
            "object_id": int,
            "peer": bytes,
            "state": str,
            "incarnation": bytes,
            "receipt": bytes,
            "received_ns": int,
            "checked_ns": int,
            "audited_ns": int,
        },
        ("object_id", "peer"),
    ),
    "claimed": ({"peer": bytes, "object_id": int}, ("peer", "object_id")),
    "peers": (
        {
            "identity": bytes,
            "endpoints": str,
            "certificate": bytes,
            "incarnation": bytes,
            "offer": bytes,
            "offer_number": int,
            "claim_number": int,
            "quota": int,
            "used": int,
            "free": int,
            "contacted_ns": int,
            "failing_since_ns": int,
            "last_error": str,
        },
        ("identity",),
    ),
    "snapshots": (
        {
            "name": bytes,
            "writer": bytes,
            "number": int,
            "dataset": str,
            "created_ns": int,
            "published_ns": int,
            "policy": bytes,
            "files": int,
            "size": int,
            "partial": int,
            "indexes": bytes,
            "refs": bytes,
            "head": bytes,
            "gaps": str,
            "tags": str,
        },
        ("name",),
    ),
    "heads": (
        {"writer": bytes, "number": int, "hash": bytes, "signed": bytes, "witnessed": int},
        ("writer", "number", "hash"),
    ),
    "words": (
        {"provider": bytes, "incarnation": bytes, "context": str, "writer": bytes, "signed": bytes},
        ("provider", "incarnation", "context", "writer"),
    ),
    "runs": (
        {"id": int, "kind": str, "started_ns": int, "ended_ns": int, "exit": int, "summary": str},
        ("id",),
    ),
    "pack_ids": ({"object_id": int, "ids": bytes}, ("object_id",)),
    "chunks": ({"id": bytes, "object_id": int, "entry": int}, ("id", "object_id")),
    "shards": ({"pack_id": int, "number": int, "object_id": int, "needed": int}, ("pack_id", "number")),
    "listed": ({"index_id": int, "object_id": int}, ("index_id", "object_id")),
    "meta": ({"key": str, "value": bytes}, ("key",)),
}
_INDEXES: dict[str, list[tuple[str, ...]]] = {
    "objects": [("name",), ("index_id",), ("spooled",)],
    "snapshots": [("writer", "number")],
    "holdings": [("peer",)],
    "chunks": [("object_id", "entry")],
    "shards": [("object_id",)],
    "listed": [("object_id",)],
}
_UNIQUE = {("objects", ("name",)), ("snapshots", ("writer", "number"))}
_NOT_NULL = {"pack_ids": {"ids"}}
_WITHOUT_ROWID = ("chunks", "claimed", "holdings", "listed", "shards")
_AUTOINCREMENT = ("objects",)


class Database:
    """One connection, shared by threads under a lock; every commit goes through the injected file system.

    ``places``: the table ``chunks`` is kept, whose row for each chunk and pack most homes do without.
    """

    def __init__(self, path: str, fs: Fs, *, places: bool = False) -> None:
        self._fs = fs
        self.places = places
        self._lock = threading.RLock()
        self.path = path
        try:
            self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
        except sqlite3.OperationalError as error:
            raise HomeError(f"{path}: {error}", hint="is this the right --home, and may you write there?") from error
        try:
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=FULL")
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.connection.close()
            raise HomeError(
                f"{path}: not a usable catalog ({error})",
                hint=_REBUILT,
            ) from error
        except HomeError:
            self.connection.close()
            raise

    def _prepare(self) -> None:
        if self._version() == SCHEMA_VERSION:
            return
        # Only a file that is made or changed needs it, and where there is numpy it imports that.
        import sqlite_utils  # noqa: PLC0415
        from sqlite_utils.db import Table  # noqa: PLC0415

        database = sqlite_utils.Database(self.connection)
        with self.transaction("catalog schema"):
            version = self._version()  # again: another process may have been first
            if version == 1:
                self._number_objects_once()
            for table, (columns, key) in _TABLES.items():
                if table in _WITHOUT_ROWID or table in _AUTOINCREMENT:
                    self.connection.execute(_own_statement(table, columns, key))
                else:
                    Table(database, table).create(
                        columns,
                        pk=key if len(key) > 1 else key[0],
                        not_null=_NOT_NULL.get(table),
                        if_not_exists=True,
                    )
                for index in _INDEXES.get(table, []):
                    Table(database, table).create_index(index, unique=(table, index) in _UNIQUE, if_not_exists=True)
            if version == 1:
                self._join_ids()
            if version in (1, 2):
                self.connection.execute("ALTER TABLE snapshots ADD COLUMN [tags] TEXT")
            self.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _version(self) -> int:
        [version] = self.connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise HomeError(
                f"{self.path}: written by a newer release (catalog version {version}, this one knows {SCHEMA_VERSION})",
                hint="install a newer release of replicator",
            )
        return int(version)

    def _number_objects_once(self) -> None:
        """Version 1 to 2: use no row number of ``objects`` a second time. The steps are those of SQLite's manual."""
        columns, key = _TABLES["objects"]
        listed = ", ".join(columns)
        self.connection.execute(_own_statement("objects_2", columns, key))
        self.connection.execute(f"INSERT INTO objects_2 ({listed}) SELECT {listed} FROM objects ORDER BY id")  # noqa: S608 - own words
        self.connection.execute("DROP TABLE objects")
        self.connection.execute("ALTER TABLE objects_2 RENAME TO objects")

    def _join_ids(self) -> None:
        """Version 1 to 2: fill ``pack_ids``, which alone says what a pack holds where places are not kept."""
        rows = self.connection.execute("SELECT object_id, id FROM chunks ORDER BY object_id, entry")
        for object_id, chunks in groupby(rows, key=itemgetter(0)):
            joined = b"".join(chunk for _, chunk in chunks)
            self.connection.execute("INSERT INTO pack_ids (object_id, ids) VALUES (?, ?)", (object_id, joined))
        if not self.places:
            self.connection.execute("DELETE FROM chunks")

    @contextmanager
    def transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        """Run a block as one transaction; ``what`` names the commit for crash tests. Nests into the outermost."""
        with self._lock:
            if self.connection.in_transaction:
                yield self.connection
                return
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                with self._explained():
                    yield self.connection
                    self._fs.commit(self.connection, what)
            except BaseException:
                self.connection.rollback()
                raise

    def rows(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock, self._explained():
            return self.connection.execute(statement, values).fetchall()

    def some_rows(self, statement: str, values: tuple[object, ...], size: int) -> list[tuple[Any, ...]]:
        """Return the first rows of a query, as many as make up ``size`` bytes in their last column.

        To read a large table part by part: a cursor that stays open would see some of what others change meanwhile.
        """
        found = []
        with self._lock, self._explained(), closing(self.connection.execute(statement, values)) as rows:
            for row in rows:
                found.append(row)
                size -= len(row[-1])
                if size <= 0:
                    break
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite says of a bad file or a full disk into our errors."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise HomeError(f"{self.path}: not a usable catalog ({error})", hint=_REBUILT) from error
            if code == sqlite3.SQLITE_FULL:
                raise SpaceError(f"{self.path}: {error}", hint="free some space on that disk") from error
            raise

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self.connection.close()


def _own_statement(table: str, columns: dict[str, type], key: tuple[str, ...]) -> str:
    # sqlite-utils cannot say WITHOUT ROWID, which halves these tables (measured: 52 against 96 bytes a chunk), nor
    # AUTOINCREMENT, without which SQLite may give a row the number of one that was deleted.
    types = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}
    words = [f"[{name}] {types[kind]}" for name, kind in columns.items()]
    if table in _WITHOUT_ROWID:
        return (
            f"CREATE TABLE IF NOT EXISTS [{table}] ({', '.join(words)}, PRIMARY KEY ({', '.join(key)})) WITHOUT ROWID"
        )
    [number] = key
    words[list(columns).index(number)] += " PRIMARY KEY AUTOINCREMENT"
    return f"CREATE TABLE IF NOT EXISTS [{table}] ({', '.join(words)})"
