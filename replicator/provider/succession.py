"""One root after another: how long a change of root has waited here, and what root objected to.

A change counts here when thirty days have passed since this provider took the charter that announced it, on the wall
clock and in days on which the daemon ran (as for sweeps), and root has not objected. Nothing in a charter, and
nothing that another provider says, makes it less; docs/spec/protocol.md §11.
"""

import sqlite3
from dataclasses import dataclass

from replicator.charter.verify import ROOT_WAIT_NS, Handover
from replicator.ids import TenantId
from replicator.provider.days import Days, days_of
from replicator.provider.sweep import DAY_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A change of root that is announced here. ``objection`` is root's signed word against it, empty if there is none.

    ``began_day`` is a counted day.
    """

    tenant: TenantId
    hash: bytes
    successor_key: bytes
    began_ns: int
    began_day: int
    objection: bytes

    def passed(self, days: Days, now_ns: int) -> bool:
        """Return whether it counts now."""
        over = now_ns >= self.began_ns + ROOT_WAIT_NS and days.days >= self.began_day + days_of(ROOT_WAIT_NS)
        return over and not self.objection and not days.frozen(now_ns)

    def due_ns(self, days: Days, now_ns: int) -> int:
        """Return when it counts at the earliest, if a day is counted every day from now on."""
        left = max(0, self.began_day + days_of(ROOT_WAIT_NS) - days.days)
        return max(self.began_ns + ROOT_WAIT_NS, now_ns + left * DAY_NS if left else 0)


def note_change(connection: sqlite3.Connection, tenant: TenantId, change: Handover, *, days: Days, now_ns: int) -> None:
    """Begin to count for a change that is new here; for one that is known the count goes on."""
    connection.execute(
        "INSERT OR IGNORE INTO root_changes (tenant, hash, former, successor_key, began_ns, began_day) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (tenant, change.hash, change.former_hash, change.successor.root_key, days.stamp_ns(now_ns), days.days),
    )


def settle_changes(
    connection: sqlite3.Connection, tenant: TenantId, change: Handover | None, *, days: Days, now_ns: int
) -> None:
    """Count for the change that the charter in force announces, and for no other."""
    kept = b"" if change is None else change.hash
    connection.execute("DELETE FROM root_changes WHERE tenant = ? AND hash != ?", (tenant, kept))
    if change is not None:
        note_change(connection, tenant, change, days=days, now_ns=now_ns)


def begin_anew(connection: sqlite3.Connection, *, days: Days, now_ns: int) -> None:
    """Let every change wait from now on."""
    connection.execute("UPDATE root_changes SET began_ns = ?, began_day = ?", (days.stamp_ns(now_ns), days.days))


_WAITING = (
    "SELECT root_changes.tenant, hash, successor_key, began_ns, began_day, coalesce(signed, x'') FROM root_changes "
    "LEFT JOIN objections ON objections.tenant = root_changes.tenant AND statement = former"
)


def changes_of(connection: sqlite3.Connection, tenant: TenantId) -> list[Waiting]:
    """Return the changes of a tenant's root that wait or have waited here, the last to come first."""
    statement = f"{_WAITING} WHERE root_changes.tenant = ? ORDER BY began_ns DESC, hash"
    return [_waiting(row) for row in connection.execute(statement, (tenant,))]


def changes_to(connection: sqlite3.Connection, successor_key: bytes) -> list[Waiting]:
    """Return the changes to a root key, those that have waited longest first."""
    statement = f"{_WAITING} WHERE successor_key = ? ORDER BY began_ns, hash"
    return [_waiting(row) for row in connection.execute(statement, (successor_key,))]


def _waiting(row: tuple[bytes, bytes, bytes, int, int, bytes]) -> Waiting:
    tenant, digest, successor_key, began_ns, began_day, objection = row
    return Waiting(
        tenant=TenantId(tenant),
        hash=digest,
        successor_key=successor_key,
        began_ns=began_ns,
        began_day=began_day,
        objection=objection,
    )


def keep_objection(connection: sqlite3.Connection, tenant: TenantId, statement: bytes, signed: bytes) -> None:
    """Keep root's objection to any other root that would follow the statement with this hash."""
    connection.execute(
        "INSERT OR IGNORE INTO objections (tenant, statement, signed) VALUES (?, ?, ?)", (tenant, statement, signed)
    )


def objection_to(connection: sqlite3.Connection, tenant: TenantId, statement: bytes) -> bytes:
    """Return root's objection to successors of a root statement, empty if there is none."""
    row = connection.execute(
        "SELECT signed FROM objections WHERE tenant = ? AND statement = ?", (tenant, statement)
    ).fetchone()
    return b"" if row is None else bytes(row[0])


def end_reign(connection: sqlite3.Connection, tenant: TenantId, root_key: bytes) -> None:
    """Put another root in the place of a tenant's: what the one so far says counts no more."""
    connection.execute("UPDATE tenants SET root_key = ? WHERE id = ?", (root_key, tenant))
    connection.execute("UPDATE holders SET source = 'owner' WHERE tenant = ? AND source = 'root'", (tenant,))
