"""The tenant's charter as this provider knows it: the newest one that its root vouches for."""

import sqlite3
import threading

from replicator.charter.verify import VerifiedCharter, verify_charter
from replicator.ids import ObjectName, TenantId
from replicator.provider.database import Database
from replicator.provider.days import Days
from replicator.provider.erasing import ERASED
from replicator.provider.marks import clear_marks, keep_order
from replicator.provider.succession import end_reign, settle_changes
from replicator.provider.tenants import Tenant
from replicator.transport.handler import RequestRefusedError


class Charters:
    """Verified charters, remembered by their hash."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._verified: dict[TenantId, VerifiedCharter] = {}

    def current(self, tenant: Tenant) -> VerifiedCharter | None:
        """Return a tenant's charter, None if it has none here.

        Raises:
            RequestRefusedError: "unauthorized": it was erased since the tenant was looked up.
        """
        if tenant.charter_number == 0:
            return None
        with self._lock:
            found = self._verified.get(tenant.id)
        if found is not None and found.hash == tenant.charter_hash:
            return found
        row = self._database.row("SELECT charter FROM tenants WHERE id = ?", (tenant.id,))
        if row is None:
            raise RequestRefusedError(*ERASED)
        found = verify_charter(row[0], root_key=tenant.root_key, known=None)
        with self._lock:
            self._verified[tenant.id] = found
        return found


MOST_FORKS = 16
"""Pairs of charters that exclude each other, of one tenant: more prove nothing more, and cost space."""


def keep_charter_fork(database: Database, tenant: TenantId, *signed: bytes, now_ns: int) -> None:
    """Keep charters that exclude each other, as evidence."""

    def work(connection: sqlite3.Connection) -> None:
        keys = (tenant, "charter fork")
        [count] = connection.execute("SELECT count(*) FROM orders WHERE tenant = ? AND kind = ?", keys).fetchone()
        if count < 2 * MOST_FORKS:
            for one in signed:
                keep_order(connection, tenant, "charter fork", one, now_ns)

    database.write("charter fork", work)


def store_charter(
    connection: sqlite3.Connection,
    found: VerifiedCharter,
    name: ObjectName,
    *,
    after: bytes,
    days: Days,
    now_ns: int,
) -> None:
    """Make a verified charter the current one, in the place of the one with the hash ``after`` (empty: of none).

    Marks on its object and on the keybag are gone. A change of root that it announces begins to wait; a root that it
    is under, and that was not this tenant's so far, is from now on.

    Raises:
        RequestRefusedError: "conflict": another one is stored by now, against which this one was not held.
    """
    row = connection.execute("SELECT charter_hash FROM tenants WHERE id = ?", (found.charter.tenant,)).fetchone()
    if row is None:
        raise RequestRefusedError(*ERASED)
    if row[0] == found.hash:
        return
    if row[0] != after:
        raise RequestRefusedError("conflict", "another charter came at the same time; say it again")
    clear_marks(connection, TenantId(found.charter.tenant), [name, found.charter.keybag])
    connection.execute(
        "UPDATE tenants SET charter_number = ?1, charter_hash = ?2, charter_name = ?3, charter = ?4, root = ?5, "
        "owner_key = ?6 WHERE id = ?7",
        (
            found.number,
            found.hash,
            name,
            found.signed,
            found.charter.root,
            found.root.owner_key,
            found.charter.tenant,
        ),
    )
    tenant = TenantId(found.charter.tenant)
    settle_changes(connection, tenant, found.pending, days=days, now_ns=now_ns)
    [root_key] = connection.execute("SELECT root_key FROM tenants WHERE id = ?", (tenant,)).fetchone()
    if root_key != found.root.root_key:
        end_reign(connection, tenant, found.root.root_key)
