"""Erasing a tenant by root's order: at once, whatever is locked or claimed, and never half.

1. One transaction notes the order and deletes every row of the tenant: from here on nobody speaks for it any more.
2. The files go, then the folders; durable.
3. One transaction notes the signed receipt.

Stopped after the first, a start or the same order goes on. What stays is the order and the receipt: the same order
again is answered with the same receipt, and the tenant's id is nobody's here again.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from replicator.charter.verify import signed_hash
from replicator.clock import Clock
from replicator.crypto.sign import Context, SigningKey, signer_of, verify
from replicator.errors import IntegrityError
from replicator.format.codec import decode, encode
from replicator.format.erasure import EraseOrder, EraseReceipt
from replicator.ids import TenantId, tenant_of
from replicator.provider.database import Database
from replicator.provider.tenants import find_tenant
from replicator.transport.handler import RequestRefusedError

ERASED: tuple[Literal["unauthorized"], str] = ("unauthorized", "this tenant was erased here, by its root's order")
"""What who was a tenant's holder hears of it, also in the middle of a request."""
_COLUMNS = "tenant, root_key, signed, began_ns, objects, bytes, receipt"
_KEPT = "erasures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An order that was taken in. ``receipt`` is empty until nothing of the tenant is left."""

    tenant: TenantId
    root_key: bytes
    signed: bytes
    began_ns: int
    objects: int
    size: int
    receipt: bytes


def find_erasure(database: Database, tenant: bytes) -> Erasure | None:
    """Return a tenant's erasure, None if there is none."""
    row = database.row(f"SELECT {_COLUMNS} FROM erasures WHERE tenant = ?", (tenant,))  # noqa: S608 - own columns
    return None if row is None else _erasure(row)


def all_erasures(database: Database) -> list[Erasure]:
    """Return all erasures, the oldest first."""
    rows = database.rows(f"SELECT {_COLUMNS} FROM erasures ORDER BY began_ns, tenant")  # noqa: S608 - own columns
    return [_erasure(row) for row in rows]


def was_erased(connection: sqlite3.Connection, tenant: bytes) -> bool:
    """Return whether a tenant's id was ordered to be forgotten."""
    found = connection.execute("SELECT 1 FROM erasures WHERE tenant = ?", (tenant,)).fetchone()
    return found is not None


def give_back(connection: sqlite3.Connection, tenant: bytes) -> None:
    """Forget that a root erased this id which it is not made of, when nothing of that is left.

    Such a root was let in by an earlier build, or declared by the operator.
    """
    row = connection.execute("SELECT root_key FROM erasures WHERE tenant = ? AND receipt != x''", (tenant,)).fetchone()
    if row is not None and tenant_of(row[0]) != tenant:
        connection.execute("DELETE FROM erasures WHERE tenant = ?", (tenant,))


def begin(database: Database, signed: bytes, *, now_ns: int) -> Erasure:
    """Take in an order, and delete every row of its tenant; one that was taken in already is returned as it is.

    Raises:
        RequestRefusedError: "not-found": no such tenant. "forbidden": not its root signed this.
        FormatError: it is no order.
    """
    # Whose key counts is only known by the tenant that is named inside: the signature is checked by the signer it
    # names first, and then the signer by the tenant.
    signer = signer_of(signed)
    try:
        order = decode(EraseOrder, verify(signed, Context.ERASE_ORDER, [signer]))
    except IntegrityError as error:
        raise RequestRefusedError("forbidden", "the signature of this order does not hold") from error
    known = find_erasure(database, order.tenant)
    tenant = find_tenant(database, order.tenant)
    root_key = known.root_key if known is not None else tenant.root_key if tenant is not None else None
    if root_key is None:
        raise RequestRefusedError("not-found", "no such tenant here, and no order to erase it")
    if signer != root_key:
        raise RequestRefusedError("forbidden", "only the tenant's root can have it erased")
    if known is not None:
        return known
    database.write("erase", lambda connection: _take(connection, order, signed, root_key, now_ns))
    found = find_erasure(database, order.tenant)
    assert found is not None, "it was written"
    return found


def finish(
    database: Database,
    erasure: Erasure,
    remove: Callable[[TenantId], None],
    *,
    key: SigningKey,
    incarnation: bytes,
    clock: Clock,
) -> bytes:
    """Delete what lies on the disk of a tenant whose rows are gone; return the signed receipt. Idempotent.

    Raises:
        OSError: the disk does not do it.
    """
    remove(erasure.tenant)
    if erasure.receipt:
        return erasure.receipt
    receipt = EraseReceipt(
        tenant=erasure.tenant,
        order=signed_hash(erasure.signed),
        incarnation=incarnation,
        objects=erasure.objects,
        bytes=erasure.size,
        began_ns=erasure.began_ns,
        ended_ns=clock.now_ns(),
    )
    signed = key.sign(Context.ERASE_RECEIPT, encode(receipt))
    database.write(
        "erased",
        lambda connection: connection.execute(
            "UPDATE erasures SET receipt = ? WHERE tenant = ?", (signed, erasure.tenant)
        ),
    )
    database.tidy()
    return signed


def _take(connection: sqlite3.Connection, order: EraseOrder, signed: bytes, root_key: bytes, now_ns: int) -> None:
    if was_erased(connection, order.tenant):
        return  # somebody brought it at the same time
    objects, size = connection.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM objects WHERE tenant = ?", (order.tenant,)
    ).fetchone()
    connection.execute(
        f"INSERT INTO erasures ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, x'')",  # noqa: S608 - own columns
        (order.tenant, root_key, signed, now_ns, objects, size),
    )
    # Whatever table has a tenant's rows, also one that is added after this was written. Which belongs to which is
    # looked at when all are gone.
    connection.execute("PRAGMA defer_foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info([{table}])")}
        if table != _KEPT and "tenant" in columns:
            connection.execute(f"DELETE FROM [{table}] WHERE tenant = ?", (order.tenant,))  # noqa: S608 - own tables
    connection.execute("DELETE FROM tenants WHERE id = ?", (order.tenant,))


def _erasure(row: tuple[Any, ...]) -> Erasure:
    tenant, root_key, signed, began_ns, objects, size, receipt = row
    return Erasure(
        tenant=TenantId(tenant),
        root_key=root_key,
        signed=signed,
        began_ns=began_ns,
        objects=objects,
        size=size,
        receipt=receipt,
    )
