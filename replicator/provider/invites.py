"""Invites: a secret worth a quota, once. Only its hash is stored."""

import sqlite3
from dataclasses import dataclass
from typing import Literal

from blake3 import blake3

from replicator.clock import DAY_S, NS, SKEW_S
from replicator.provider.database import Database
from replicator.transport.handler import RequestRefusedError

VALID_S = 7 * DAY_S
SECRET_SIZE = 16

State = Literal["open", "used", "revoked", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteRow:
    """An invite as the provider remembers it. ``id`` names it for people; the secret cannot be had from it."""

    id: str
    label: str
    quota: int
    created_ns: int
    expires_ns: int
    state: State
    tenant: str


def hash_secret(secret: bytes) -> bytes:
    """Return what is stored of a secret."""
    return blake3(secret).digest()


def add_invite(
    connection: sqlite3.Connection, *, secret: bytes, quota: int, label: str, now_ns: int, expires_ns: int
) -> None:
    """Store a new invite."""
    connection.execute(
        "INSERT INTO invites (secret_hash, quota, label, created_ns, expires_ns, state, tenant, holder) "
        "VALUES (?, ?, ?, ?, ?, 'open', x'', x'')",
        (hash_secret(secret), quota, label, now_ns, expires_ns),
    )


def usable(connection: sqlite3.Connection, secret: bytes, tenant: bytes, holder: bytes, now_ns: int) -> tuple[int, str]:
    """Return the quota that an invite adds (0 if the same holder asks again) and its label, and use nothing up.

    Raises:
        RequestRefusedError: "spent".
    """
    row = connection.execute(
        "SELECT quota, label, expires_ns, state, tenant, holder FROM invites WHERE secret_hash = ?",
        (hash_secret(secret),),
    ).fetchone()
    if row is None:
        raise RequestRefusedError("spent", "this invite is not known here")
    quota, label, expires_ns, state, used_tenant, used_holder = row
    if state == "used" and (used_tenant, used_holder) == (tenant, holder):
        return 0, label  # the answer to the first request was lost
    if state != "open":
        raise RequestRefusedError("spent", f"this invite was {state} already")
    if now_ns > expires_ns + SKEW_S * NS:
        raise RequestRefusedError("spent", "this invite has expired")
    return quota, label


def spend(
    connection: sqlite3.Connection, *, secret: bytes, tenant: bytes, holder: bytes, now_ns: int
) -> tuple[int, str]:
    """Use an invite up and return what :func:`usable` does.

    Raises:
        RequestRefusedError: "spent".
    """
    quota, label = usable(connection, secret, tenant, holder, now_ns)
    connection.execute(
        "UPDATE invites SET state = 'used', tenant = ?, holder = ? WHERE secret_hash = ? AND state = 'open'",
        (tenant, holder, hash_secret(secret)),
    )
    return quota, label


def revoke(connection: sqlite3.Connection, invite_id: str) -> int:
    """Revoke the open invites whose id begins so; return how many."""
    found = [
        key
        for (key,) in connection.execute("SELECT secret_hash FROM invites WHERE state = 'open'")
        if invite_id and key.hex().startswith(invite_id)
    ]
    connection.executemany("UPDATE invites SET state = 'revoked' WHERE secret_hash = ?", [(key,) for key in found])
    return len(found)


def list_invites(database: Database, now_ns: int) -> list[InviteRow]:
    """Return all invites, the newest first."""
    rows = database.rows(
        "SELECT secret_hash, label, quota, created_ns, expires_ns, state, tenant FROM invites "
        "ORDER BY created_ns DESC, secret_hash"
    )
    return [
        InviteRow(
            id=key.hex()[:12],
            label=label,
            quota=quota,
            created_ns=created_ns,
            expires_ns=expires_ns,
            state="expired" if state == "open" and now_ns > expires_ns else state,
            tenant=tenant.hex(),
        )
        for key, label, quota, created_ns, expires_ns, state, tenant in rows
    ]
