"""What tenants told this provider of others: signed words that are handed on to whoever asks for the same thing.

A row is a tenant's: each has only so many of a kind, the one told longest ago gives way, and they go with the tenant.
What is looked up is looked up over all of them, so that one tenant's news heals another's. Whoever calls has verified
the signatures: nothing that is kept here is believed because somebody brought it.
"""

import sqlite3
from dataclasses import dataclass

from replicator.ids import TenantId
from replicator.provider.database import Database

_ORDER = "ORDER BY key, number DESC, told_ns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A signed word ``about`` something; of those with one ``key`` the highest ``number`` counts."""

    about: bytes
    key: bytes = b""
    number: int
    signed: bytes


def tell(connection: sqlite3.Connection, tenant: TenantId, kind: str, word: Told, *, most: int, now_ns: int) -> None:
    """Keep a word of a tenant's, if it has none with this key or one with a lower number; at most ``most`` of a kind.

    Of two with one number the first stays: nobody can make a provider take turns.
    """
    connection.execute(
        "INSERT INTO told (tenant, kind, about, key, number, signed, told_ns) VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (tenant, kind, about, key) DO UPDATE SET number = excluded.number, signed = excluded.signed, "
        "told_ns = excluded.told_ns WHERE excluded.number > number",
        (tenant, kind, word.about, word.key, word.number, word.signed, now_ns),
    )
    connection.execute(
        "DELETE FROM told WHERE tenant = ? AND kind = ? AND rowid NOT IN "
        "(SELECT rowid FROM told WHERE tenant = ? AND kind = ? ORDER BY told_ns DESC, rowid DESC LIMIT ?)",
        (tenant, kind, tenant, kind, most),
    )


def told(database: Database, kind: str, about: bytes) -> list[Told]:
    """Return the words about something, whoever told them: of each key that with the highest number, by key."""
    rows = database.rows(f"SELECT key, number, signed FROM told WHERE kind = ? AND about = ? {_ORDER}", (kind, about))  # noqa: S608 - own text
    found: dict[bytes, Told] = {}
    for key, number, signed in rows:
        found.setdefault(key, Told(about=about, key=key, number=number, signed=signed))
    return list(found.values())


def subjects(database: Database, kind: str) -> list[bytes]:
    """Return all that anybody told something of this kind about, sorted."""
    return [
        about for (about,) in database.rows("SELECT DISTINCT about FROM told WHERE kind = ? ORDER BY about", (kind,))
    ]
