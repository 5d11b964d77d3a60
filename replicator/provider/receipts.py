"""Receipts of what was taken in while nobody was connected: kept until who signed for it has them."""

import sqlite3

from replicator.ids import Identity, ObjectName, TenantId
from replicator.provider.database import Database


def keep_receipt(database: Database, tenant: TenantId, name: ObjectName, holder: Identity, receipt: bytes) -> None:
    """Keep a receipt for a holder, in the place of an earlier one of the same object."""
    database.write(
        "receipt",
        lambda connection: connection.execute(
            "INSERT OR REPLACE INTO receipts (tenant, name, holder, receipt) VALUES (?, ?, ?, ?)",
            (tenant, name, holder, receipt),
        ),
    )


def has_receipt(database: Database, tenant: TenantId, name: ObjectName) -> bool:
    """Return whether a receipt of an object waits to be fetched."""
    return database.row("SELECT 1 FROM receipts WHERE tenant = ? AND name = ?", (tenant, name)) is not None


def next_receipts(
    database: Database, tenant: TenantId, holder: Identity, got: list[ObjectName], limit: int
) -> list[bytes]:
    """Forget those that a holder has; return the next ones that wait.

    Of an object that was deleted since nothing is said.
    """

    def work(connection: sqlite3.Connection) -> list[bytes]:
        connection.executemany(
            "DELETE FROM receipts WHERE tenant = ? AND name = ? AND holder = ?",
            [(tenant, name, holder) for name in got],
        )
        rows = connection.execute(
            "SELECT receipt FROM receipts JOIN objects USING (tenant, name) WHERE tenant = ? AND receipts.holder = ? "
            "ORDER BY name LIMIT ?",
            (tenant, holder, limit),
        ).fetchall()
        return [receipt for (receipt,) in rows]

    return database.write("receipts", work)
