"""provider.db: who may ask for what, what was received, what is relied on. Never the truth about the disk.

sqlite-utils makes and inspects the schema; statements that run often are plain SQL in the modules beside this.
"""

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from replicator.errors import HomeError, SpaceError
from replicator.fs import Fs
from replicator.provider.ballast import Ballast

SCHEMA_VERSION = 11
"""2: marks, sweeps and what the clock was. 3: every head that was witnessed, and what writers told of others'.
4: the order in which objects arrived; changes of root that wait, and objections. 5: tenants that were erased.
6: what holders gave and took, by month. 7: who was told that the provider leaves or shrinks, and how far they are.
8: the group that this provider is in, and what it gives to members. 9: what was told of other providers, and what was
passed on to those that nobody can dial. 10: receipts that wait. 11: relays that were lost."""
BUSY_S = 60.0
"""How long to wait while another process of this home (``provider invite``) writes."""

T = TypeVar("T")

_TABLES: dict[str, tuple[dict[str, type], tuple[str, ...]]] = {
    "meta": (
        {"id": int, "store": bytes, "incarnation": bytes, "generation": int, "offer": bytes, "advertised": int},
        ("id",),
    ),
    "tenants": (
        {
            "id": bytes,
            "root_key": bytes,
            "root": bytes,
            "owner_key": bytes,
            "quota": int,
            "label": str,
            "charter_number": int,
            "charter_hash": bytes,
            "charter_name": bytes,
            "charter": bytes,
            "created_ns": int,
        },
        ("id",),
    ),
    "invites": (
        {
            "secret_hash": bytes,
            "quota": int,
            "label": str,
            "created_ns": int,
            "expires_ns": int,
            "state": str,
            "tenant": bytes,
            "holder": bytes,
        },
        ("secret_hash",),
    ),
    "holders": (
        {"identity": bytes, "holder_key": bytes, "tenant": bytes, "source": str, "enrolled_ns": int},
        ("identity",),
    ),
    "objects": (
        {"tenant": bytes, "name": bytes, "size": int, "holder": bytes, "received_ns": int, "lock_until_ns": int},
        ("tenant", "name"),
    ),
    "usage": ({"tenant": bytes, "holder": bytes, "bytes": int}, ("tenant", "holder")),
    "claims": (
        {"tenant": bytes, "writer": bytes, "number": int, "root": bytes, "claimed_ns": int},
        ("tenant", "writer"),
    ),
    "claimed": ({"tenant": bytes, "writer": bytes, "name": bytes}, ("tenant", "writer", "name")),
    "heads": (
        {"tenant": bytes, "writer": bytes, "number": int, "hash": bytes, "signed": bytes, "seen_ns": int},
        ("tenant", "writer"),
    ),
    "witnessed": (
        {"tenant": bytes, "writer": bytes, "number": int, "signed": bytes, "seen_ns": int},
        ("tenant", "writer", "number"),
    ),
    "testimony": (
        {"tenant": bytes, "writer": bytes, "provider": bytes, "number": int, "signed": bytes},
        ("tenant", "writer", "provider"),
    ),
    "erasures": (
        {
            "tenant": bytes,
            "root_key": bytes,
            "signed": bytes,
            "began_ns": int,
            "objects": int,
            "bytes": int,
            "receipt": bytes,
        },
        ("tenant",),
    ),
    "forks": (
        {"id": int, "tenant": bytes, "writer": bytes, "number": int, "signed_a": bytes, "signed_b": bytes},
        ("id",),
    ),
    "root_changes": (
        {
            "tenant": bytes,
            "hash": bytes,
            "former": bytes,
            "successor_key": bytes,
            "began_ns": int,
            "began_day": int,
        },
        ("tenant", "hash"),
    ),
    "objections": ({"tenant": bytes, "statement": bytes, "signed": bytes}, ("tenant", "statement")),
    "traffic": (
        {"tenant": bytes, "holder": bytes, "month": str, "taken": int, "given": int},
        ("tenant", "holder", "month"),
    ),
    "kept": ({"tenant": bytes, "month": str, "bytes": int}, ("tenant", "month")),
    "relayed": ({"identity": bytes, "month": str, "connections": int, "moved": int}, ("identity", "month")),
    "lost_relays": ({"relay": bytes, "lost_ns": int, "reason": str}, ("relay",)),
    "told": (
        {"tenant": bytes, "kind": str, "about": bytes, "key": bytes, "number": int, "signed": bytes, "told_ns": int},
        ("tenant", "kind", "about", "key"),
    ),
    "drains": (
        {"tenant": bytes, "keeps": int, "by_ns": int, "began_ns": int, "began": int, "signed": bytes},
        ("tenant",),
    ),
    "clearings": (
        {
            "tenant": bytes,
            "writer": bytes,
            "bytes": int,
            "stuck": int,
            "said_ns": int,
            "notice": bytes,
            "signed": bytes,
        },
        ("tenant", "writer"),
    ),
    "facts": ({"hash": bytes, "kind": str, "signed": bytes}, ("hash",)),
    "receipts": ({"tenant": bytes, "name": bytes, "holder": bytes, "receipt": bytes}, ("tenant", "name")),
}
_BELONGS: dict[str, list[tuple[str, str, str]]] = {
    table: [("tenant", "tenants", "id")]
    for table in (
        "holders",
        "objects",
        "usage",
        "claims",
        "heads",
        "witnessed",
        "testimony",
        "forks",
        "root_changes",
        "objections",
        "traffic",
        "kept",
        "told",
        "clearings",
        "receipts",
    )
}
_WITHOUT_ROWID = ("objects", "claimed")
_INDEXES: dict[str, list[tuple[str, ...]]] = {
    "tenants": [("root_key",), ("owner_key",)],
    "forks": [("tenant", "writer")],
    "told": [("kind", "about")],
}

_UPGRADE_2 = (
    # Marks and sweeps; what the clock was; how often the store was put back from an older copy ("lives").
    *(
        f"ALTER TABLE meta ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0"
        for column in ("lives", "clock_seen_ns", "clock_high_ns", "day_ns", "days", "frozen_until_ns", "leap_ns")
    ),
    *(
        f"ALTER TABLE objects ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0"
        for column in ("received_day", "unclaimed_ns", "unclaimed_day")
    ),
    "ALTER TABLE claims ADD COLUMN incarnation BLOB NOT NULL DEFAULT x''",
    "ALTER TABLE claims ADD COLUMN retired INTEGER NOT NULL DEFAULT 0",
    "UPDATE claims SET incarnation = (SELECT incarnation FROM meta)",
    (
        "CREATE TABLE fences (tenant BLOB NOT NULL REFERENCES tenants (id), writer BLOB NOT NULL, "
        "claim INTEGER NOT NULL, head INTEGER NOT NULL, PRIMARY KEY (tenant, writer)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE marks (tenant BLOB NOT NULL, name BLOB NOT NULL, why TEXT NOT NULL, marked_ns INTEGER NOT NULL, "
        "marked_day INTEGER NOT NULL, PRIMARY KEY (tenant, name), "
        "FOREIGN KEY (tenant, name) REFERENCES objects (tenant, name)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE mark_chain (tenant BLOB NOT NULL REFERENCES tenants (id), number INTEGER NOT NULL, "
        "hash BLOB NOT NULL, signed BLOB NOT NULL, accepted_ns INTEGER NOT NULL, claimed BLOB NOT NULL, "
        "locked BLOB NOT NULL, short BLOB NOT NULL, absent BLOB NOT NULL, PRIMARY KEY (tenant, number))"
    ),
    (
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, tenant BLOB NOT NULL REFERENCES tenants (id), "
        "kind TEXT NOT NULL, signed BLOB NOT NULL, accepted_ns INTEGER NOT NULL, UNIQUE (tenant, signed))"
    ),
    "CREATE TABLE leaving (tenant BLOB NOT NULL, name BLOB NOT NULL, PRIMARY KEY (tenant, name)) WITHOUT ROWID",
    (
        "CREATE TABLE sweeps (id INTEGER PRIMARY KEY, tenant BLOB NOT NULL REFERENCES tenants (id), "
        "swept_ns INTEGER NOT NULL, day INTEGER NOT NULL, objects INTEGER NOT NULL, bytes INTEGER NOT NULL)"
    ),
)
_UPGRADE_4 = (
    # A count of all that was ever stored for a tenant, no number twice, and the one that each object had last.
    "ALTER TABLE tenants ADD COLUMN arrivals INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE objects ADD COLUMN arrival INTEGER NOT NULL DEFAULT 0",
    (
        "UPDATE objects SET arrival = ranks.rank FROM (SELECT tenant AS t, name AS n, row_number() OVER "
        "(PARTITION BY tenant ORDER BY received_ns, name) AS rank FROM objects) AS ranks WHERE tenant = t AND name = n"
    ),
    "UPDATE tenants SET arrivals = (SELECT count(*) FROM objects WHERE objects.tenant = tenants.id)",
    # With the size, so that the rows themselves need not be read.
    "CREATE INDEX idx_objects_arrival ON objects (tenant, arrival, size)",
)
_UPGRADE_8 = (
    # The group that this provider is in and whose it is there; what each member may store, and what of a tenant's quota
    # it has as one.
    "ALTER TABLE meta ADD COLUMN group_id BLOB NOT NULL DEFAULT x''",
    "ALTER TABLE meta ADD COLUMN group_member BLOB NOT NULL DEFAULT x''",
    "ALTER TABLE meta ADD COLUMN for_members INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE tenants ADD COLUMN by_group INTEGER NOT NULL DEFAULT 0",
)


class Database:
    """One connection, shared by threads under a lock; every commit goes through the injected file system."""

    def __init__(self, path: str, fs: Fs, ballast: Ballast) -> None:
        self._fs = fs
        self._ballast = ballast
        self._path = path
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=BUSY_S)
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise HomeError(
                f"{path}: not a usable database ({error})", hint="put back a copy of it; objects are not affected"
            ) from error
        except BaseException:
            self._connection.close()
            raise

    def write(self, what: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` as one transaction, durable on return; ``what`` names the commit for crash tests.

        On a full disk the ballast is given up and the work is tried once more.

        Raises:
            SpaceError: the disk is full, ballast or not. Nothing was changed.
        """
        with self._lock:
            try:
                return self._attempt(what, work)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
            self._ballast.release()
            try:
                return self._attempt(what, work)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                raise SpaceError(
                    f"{self._path}: the disk is full", hint="free some space on the disk that holds the home"
                ) from error

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work``, which changes nothing, on one consistent state."""
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                return work(self._connection)
            finally:
                self._connection.rollback()

    def rows(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def row(self, statement: str, values: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, None if there is none."""
        with self._lock:
            found: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
            return found

    def tidy(self) -> None:
        """Leave nothing in the log of changes of what was erased; as far as nobody reads at this moment."""
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("PRAGMA secure_delete = OFF")

    def close(self) -> None:
        """Close the connection; an open transaction is undone."""
        with self._lock:
            self._connection.close()

    def _attempt(self, what: str, work: Callable[[sqlite3.Connection], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._connection)
            self._fs.commit(self._connection, what)
        except BaseException:
            self._connection.rollback()
            raise
        return result

    def _prepare(self) -> None:
        [version] = self._connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise HomeError(
                f"{self._path}: written by a newer release (version {version}, this one knows {SCHEMA_VERSION})",
                hint="install a newer release of replicator",
            )
        if version < SCHEMA_VERSION:
            self.write("schema", lambda connection: _bring_up(connection, version))


def _bring_up(connection: sqlite3.Connection, version: int) -> None:
    """Make the tables that are not there, and change those of earlier versions step by step: for old and new alike."""
    _create(connection)
    steps = ((2, _UPGRADE_2), (4, _UPGRADE_4), (8, _UPGRADE_8))
    for statement in (statement for to, statements in steps if version < to for statement in statements):
        connection.execute(statement)
    # Of a chain whose earlier heads were not kept there is the newest.
    connection.execute(
        "INSERT OR IGNORE INTO witnessed (tenant, writer, number, signed, seen_ns) "
        "SELECT tenant, writer, number, signed, seen_ns FROM heads"
    )
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _create(connection: sqlite3.Connection) -> None:
    # Only a file that is made or changed needs it, and where there is numpy it imports that.
    import sqlite_utils  # noqa: PLC0415
    from sqlite_utils.db import Table  # noqa: PLC0415

    database = sqlite_utils.Database(connection)
    for table, (columns, key) in _TABLES.items():
        if table in _WITHOUT_ROWID:
            connection.execute(_without_rowid(table, columns, key))
        else:
            Table(database, table).create(
                columns,
                pk=key if len(key) > 1 else key[0],
                foreign_keys=_BELONGS.get(table, []),
                if_not_exists=True,
            )
        for index in _INDEXES.get(table, []):
            Table(database, table).create_index(index, if_not_exists=True)


def _without_rowid(table: str, columns: dict[str, type], key: tuple[str, ...]) -> str:
    # sqlite-utils cannot say WITHOUT ROWID, which halves tables whose key is nearly the whole row.
    types = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}
    listed = ", ".join(f"[{name}] {types[kind]}" for name, kind in columns.items())
    belongs = "".join(
        f", FOREIGN KEY ([{mine}]) REFERENCES [{other}]([{key}])" for mine, other, key in _BELONGS.get(table, [])
    )
    return f"CREATE TABLE IF NOT EXISTS [{table}] ({listed}, PRIMARY KEY ({', '.join(key)}){belongs}) WITHOUT ROWID"
