"""Tenants, and the keys that may speak for them here."""

import sqlite3
from dataclasses import dataclass
from typing import Literal, cast

from replicator.errors import NotFoundError
from replicator.ids import Identity, TenantId, identity_of
from replicator.provider.database import Database

Source = Literal["invite", "root", "owner"]
BY_HAND = -1
"""Of what a tenant has as a member of a group: the operator gave it a quota of its own, which no group changes."""
_COLUMNS = "id, root_key, root, owner_key, quota, charter_number, charter_hash, charter_name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant's row. ``charter_number`` 0: it has no charter here yet."""

    id: TenantId
    root_key: bytes
    root: bytes
    owner_key: bytes
    quota: int
    charter_number: int
    charter_hash: bytes
    charter_name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a certificate of ours, and on whose word."""

    identity: Identity
    key: bytes
    tenant: TenantId
    source: Source


def _tenant(row: tuple[object, ...]) -> Tenant:
    tenant, root_key, root, owner_key, quota, number, charter_hash, name = cast(
        "tuple[bytes, bytes, bytes, bytes, int, int, bytes, bytes]", row
    )
    return Tenant(
        id=TenantId(tenant),
        root_key=root_key,
        root=root,
        owner_key=owner_key,
        quota=quota,
        charter_number=number,
        charter_hash=charter_hash,
        charter_name=name,
    )


def find_tenant(database: Database, tenant: bytes) -> Tenant | None:
    """Return a tenant by its id."""
    row = database.row(f"SELECT {_COLUMNS} FROM tenants WHERE id = ?", (tenant,))  # noqa: S608 - constant columns
    return None if row is None else _tenant(row)


def all_tenants(database: Database) -> list[TenantId]:
    """Return the ids of all tenants, sorted."""
    return [TenantId(tenant) for (tenant,) in database.rows("SELECT id FROM tenants ORDER BY id")]


def tenant_named(database: Database, text: str) -> TenantId:
    """Return the tenant that the operator means: by its label, or by the beginning of its id.

    Raises:
        NotFoundError: none, or more than one.
    """
    rows = database.rows("SELECT id, label FROM tenants ORDER BY id")
    found = [tenant for tenant, label in rows if label == text]
    found = found or [tenant for tenant, _ in rows if text and tenant.hex().startswith(text.lower())]
    if len(found) != 1:
        known = ", ".join(f"{label or '(no label)'} {tenant.hex()[:12]}" for tenant, label in rows) or "none"
        raise NotFoundError(f"{'no' if not found else 'more than one'} tenant '{text}' (there are: {known})")
    return TenantId(found[0])


def tenants_of_signer(database: Database, key: bytes) -> list[Tenant]:
    """Return the tenants whose root or owner key this is, those with a charter here first.

    Anyone can write a foreign owner key into a root statement; only a charter here proves who holds it.
    """
    rows = database.rows(
        f"SELECT {_COLUMNS} FROM tenants WHERE root_key = ?1 OR owner_key = ?1 "  # noqa: S608 - constant columns
        "ORDER BY charter_number = 0, root_key != ?1, created_ns",
        (key,),
    )
    return [_tenant(row) for row in rows]


def find_holder(database: Database, holder_key: bytes) -> Holder | None:
    """Return who holds a key here."""
    row = database.row(
        "SELECT identity, holder_key, tenant, source FROM holders WHERE identity = ?", (identity_of(holder_key),)
    )
    if row is None:
        return None
    return Holder(identity=Identity(row[0]), key=row[1], tenant=TenantId(row[2]), source=row[3])


def add_tenant(
    connection: sqlite3.Connection,
    *,
    tenant: bytes,
    root_key: bytes,
    root: bytes,
    owner_key: bytes,
    label: str,
    now_ns: int,
) -> None:
    """Add a tenant without quota; no error if it is here."""
    connection.execute(
        "INSERT INTO tenants (id, root_key, root, owner_key, quota, label, charter_number, charter_hash, charter_name, "
        "charter, created_ns) VALUES (?, ?, ?, ?, 0, ?, 0, x'', x'', x'', ?) ON CONFLICT DO NOTHING",
        (tenant, root_key, root, owner_key, label, now_ns),
    )


def holds_another(connection: sqlite3.Connection, root_key: bytes, tenant: bytes) -> bool:
    """Return whether a root has a tenant here that is not this one."""
    found = connection.execute("SELECT 1 FROM tenants WHERE root_key = ? AND id != ?", (root_key, tenant)).fetchone()
    return found is not None


def add_quota(connection: sqlite3.Connection, tenant: bytes, quota: int) -> None:
    """Raise a tenant's quota."""
    connection.execute("UPDATE tenants SET quota = quota + ? WHERE id = ?", (quota, tenant))


def replace_root(connection: sqlite3.Connection, tenant: bytes, root: bytes, owner_key: bytes) -> None:
    """Keep a later root statement of a tenant that has no charter here; with one, the charter brings it."""
    connection.execute(
        "UPDATE tenants SET root = ?, owner_key = ? WHERE id = ? AND charter_number = 0", (root, owner_key, tenant)
    )


def set_quota(connection: sqlite3.Connection, root_key: bytes, quota: int) -> None:
    """Give a tenant the quota that the operator declared, whatever invites gave it."""
    connection.execute("UPDATE tenants SET quota = ?, by_group = ? WHERE root_key = ?", (quota, BY_HAND, root_key))


def grant(connection: sqlite3.Connection, tenant: bytes, quota: int) -> None:
    """Give a tenant another quota, whatever it had."""
    connection.execute("UPDATE tenants SET quota = ?, by_group = ? WHERE id = ?", (quota, BY_HAND, tenant))


def put_holder(connection: sqlite3.Connection, holder: Holder, now_ns: int) -> None:
    """Store a holder; a later, stronger word about it replaces an earlier one."""
    connection.execute(
        "INSERT INTO holders (identity, holder_key, tenant, source, enrolled_ns) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (identity) DO UPDATE SET tenant = excluded.tenant, source = excluded.source",
        (holder.identity, holder.key, holder.tenant, holder.source, now_ns),
    )
