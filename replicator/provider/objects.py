"""Rows about received objects. They say what should be on the disk; only the disk says what is."""

import sqlite3
from collections.abc import Sequence

from replicator.ids import ObjectName, TenantId
from replicator.provider.database import Database


def size_of(database: Database, tenant: TenantId, name: ObjectName) -> int | None:
    """Return the size that an object was received with, None if it never was."""
    row = database.row("SELECT size FROM objects WHERE tenant = ? AND name = ?", (tenant, name))
    return None if row is None else row[0]


def sizes_of(connection: sqlite3.Connection, tenant: TenantId, names: Sequence[ObjectName]) -> list[int | None]:
    """Return the same for several, in order."""
    found = []
    for name in names:
        row = connection.execute("SELECT size FROM objects WHERE tenant = ? AND name = ?", (tenant, name)).fetchone()
        found.append(None if row is None else row[0])
    return found


def rows_after(database: Database, tenant: TenantId, after: bytes, limit: int) -> list[tuple[ObjectName, int]]:
    """Return (name, size) of received objects that sort after a name."""
    return [
        (ObjectName(name), size)
        for name, size in database.rows(
            "SELECT name, size FROM objects WHERE tenant = ? AND name > ? ORDER BY name LIMIT ?", (tenant, after, limit)
        )
    ]


def arrived_after(
    database: Database, tenant: TenantId, after: int, *, largest: int, limit: int
) -> tuple[list[tuple[ObjectName, int]], int, bool]:
    """Return objects stored after the ``after``-th and their sizes; how far this goes; and whether there are more.

    Of ``limit`` rows that are looked at, those of at most ``largest`` bytes.
    """

    def look(connection: sqlite3.Connection) -> tuple[list[tuple[ObjectName, int]], int, bool]:
        rows = connection.execute(
            "SELECT arrival, size, name FROM objects WHERE tenant = ? AND arrival > ? ORDER BY arrival LIMIT ?",
            (tenant, after, limit + 1),
        ).fetchall()
        found = [(ObjectName(name), size) for _, size, name in rows[:limit] if size <= largest]
        if len(rows) > limit:
            return found, int(rows[limit - 1][0]), True
        [last] = connection.execute("SELECT arrivals FROM tenants WHERE id = ?", (tenant,)).fetchone()
        return found, int(last), False

    return database.read(look)


def record(
    connection: sqlite3.Connection,
    *,
    tenant: TenantId,
    name: ObjectName,
    size: int,
    holder: bytes,
    received_ns: int,
    received_day: int,
    lock_until_ns: int,
) -> int:
    """Record that an object is durable; return until when it is locked. A lock never gets shorter.

    Whoever stores an object needs it: a mark on it is gone. It is the newest to have arrived, also if it was here.

    Raises:
        sqlite3.IntegrityError: there is no such tenant (any more).
    """
    counted = connection.execute(
        "UPDATE tenants SET arrivals = arrivals + 1 WHERE id = ? RETURNING arrivals", (tenant,)
    ).fetchone()
    if counted is None:
        raise sqlite3.IntegrityError(f"there is no tenant {tenant.hex()}")
    [arrival] = counted
    connection.execute("DELETE FROM marks WHERE tenant = ? AND name = ?", (tenant, name))
    connection.execute("DELETE FROM leaving WHERE tenant = ? AND name = ?", (tenant, name))
    row = connection.execute(
        "SELECT lock_until_ns FROM objects WHERE tenant = ? AND name = ?", (tenant, name)
    ).fetchone()
    if row is not None:
        lock_until_ns = max(lock_until_ns, row[0])
        connection.execute(
            "UPDATE objects SET received_ns = ?, received_day = ?, lock_until_ns = ?, arrival = ? "
            "WHERE tenant = ? AND name = ?",
            (received_ns, received_day, lock_until_ns, arrival, tenant, name),
        )
        return lock_until_ns
    connection.execute(
        "INSERT INTO objects (tenant, name, size, holder, received_ns, received_day, lock_until_ns, arrival) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (tenant, name, size, holder, received_ns, received_day, lock_until_ns, arrival),
    )
    connection.execute(
        "INSERT INTO usage (tenant, holder, bytes) VALUES (?, ?, ?) "
        "ON CONFLICT (tenant, holder) DO UPDATE SET bytes = bytes + excluded.bytes",
        (tenant, holder, size),
    )
    return lock_until_ns


def used(database: Database, tenant: TenantId) -> int:
    """Return the bytes that a tenant's objects count."""
    return database.read(lambda connection: used_now(connection, tenant))


def used_now(connection: sqlite3.Connection, tenant: TenantId) -> int:
    """Return the same as a transaction sees it."""
    [total] = connection.execute("SELECT coalesce(sum(bytes), 0) FROM usage WHERE tenant = ?", (tenant,)).fetchone()
    return int(total)


def used_by(database: Database, tenant: TenantId, holder: bytes) -> int:
    """Return the bytes that one holder has stored for a tenant."""
    row = database.row("SELECT bytes FROM usage WHERE tenant = ? AND holder = ?", (tenant, holder))
    return 0 if row is None else int(row[0])


def used_by_all(database: Database) -> int:
    """Return the bytes that all tenants' objects count."""
    row = database.row("SELECT coalesce(sum(bytes), 0) FROM usage")
    assert row is not None, "an aggregate always gives a row"
    return int(row[0])


def levels_of_all(database: Database) -> list[tuple[TenantId, int, int]]:
    """Return each tenant with the bytes that its objects count and its quota."""
    rows = database.rows(
        "SELECT id, (SELECT coalesce(sum(bytes), 0) FROM usage WHERE usage.tenant = tenants.id), quota FROM tenants "
        "ORDER BY id"
    )
    return [(TenantId(tenant), int(used_bytes), int(quota)) for tenant, used_bytes, quota in rows]
