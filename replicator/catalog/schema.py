"""The tables, and how a catalog is opened, made and checked.

sqlite-utils makes and inspects the schema; statements that run often are plain SQL in the modules beside this.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlite_utils
from sqlite_utils.db import Table

from replicator.errors import HomeError, SpaceError
from replicator.fs import Fs

SCHEMA_VERSION = 1
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
        },
        ("name",),
    ),
    "runs": (
        {"id": int, "kind": str, "started_ns": int, "ended_ns": int, "exit": int, "summary": str},
        ("id",),
    ),
    "chunks": ({"id": bytes, "object_id": int, "entry": int}, ("id", "object_id")),
    "meta": ({"key": str, "value": bytes}, ("key",)),
}
_INDEXES: dict[str, list[tuple[str, ...]]] = {
    "objects": [("name",), ("index_id",), ("spooled",)],
    "snapshots": [("writer", "number")],
    "holdings": [("peer",)],
    "chunks": [("object_id", "entry")],
}
_UNIQUE = {("objects", ("name",)), ("snapshots", ("writer", "number"))}
_WITHOUT_ROWID = ("chunks", "claimed", "holdings")


class Database:
    """One connection, shared by threads under a lock; every commit goes through the injected file system."""

    def __init__(self, path: str, fs: Fs) -> None:
        self._fs = fs
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
        [version] = self.connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise HomeError(
                f"{self.path}: written by a newer release (catalog version {version}, this one knows {SCHEMA_VERSION})",
                hint="install a newer release of replicator",
            )
        if version == SCHEMA_VERSION:
            return
        database = sqlite_utils.Database(self.connection)
        with self.transaction("catalog schema"):
            for table, (columns, key) in _TABLES.items():
                if table in _WITHOUT_ROWID:
                    self.connection.execute(_without_rowid(table, columns, key))
                else:
                    Table(database, table).create(columns, pk=key if len(key) > 1 else key[0], if_not_exists=True)
                for index in _INDEXES.get(table, []):
                    Table(database, table).create_index(index, unique=(table, index) in _UNIQUE, if_not_exists=True)
            self.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

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


def _without_rowid(table: str, columns: dict[str, type], key: tuple[str, ...]) -> str:
    # sqlite-utils cannot say WITHOUT ROWID, which halves these tables (measured: 52 against 96 bytes a chunk).
    types = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}
    listed = ", ".join(f"[{name}] {types[kind]}" for name, kind in columns.items())
    return f"CREATE TABLE IF NOT EXISTS [{table}] ({listed}, PRIMARY KEY ({', '.join(key)})) WITHOUT ROWID"
