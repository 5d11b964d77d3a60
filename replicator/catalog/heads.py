"""Rows of signed heads of writers, and of what providers signed about them; bytes that were checked before."""

from collections.abc import Iterable

from replicator.catalog.schema import Database
from replicator.ids import Identity


class Heads:
    """Signed heads, and the last word of each provider in each incarnation of its store.

    Their loss costs no data and no finding that was made; what providers said before can then not be held against them.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, rows: Iterable[tuple[bytes, int, bytes, bytes]], *, witnessed: bool) -> None:
        """Remember heads: writer, number, hash, and as they were signed.

        ``witnessed``: a provider has shown or signed them; once so, it stays so.
        """
        with self._db.transaction("head rows") as connection:
            connection.executemany(
                "INSERT INTO heads (writer, number, hash, signed, witnessed) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET witnessed = excluded.witnessed WHERE excluded.witnessed > witnessed",
                [(*row, int(witnessed)) for row in rows],
            )

    def since(self, writer: bytes, number: int) -> list[bytes]:
        """Return the signed heads of a chain from a number on, by number."""
        rows = self._db.rows(
            "SELECT signed FROM heads WHERE writer = ? AND number >= ? ORDER BY number, hash", (writer, number)
        )
        return [signed for (signed,) in rows]

    def newest_witnessed(self, writer: bytes) -> bytes | None:
        """Return the signed head with the highest number that a provider has ever shown to this home."""
        rows = self._db.rows(
            "SELECT signed FROM heads WHERE writer = ? AND witnessed ORDER BY number DESC LIMIT 1", (writer,)
        )
        return rows[0][0] if rows else None

    def below(self, writer: bytes, number: int) -> bytes | None:
        """Return the signed head with the highest number below ``number``."""
        rows = self._db.rows(
            "SELECT signed FROM heads WHERE writer = ? AND number < ? ORDER BY number DESC LIMIT 1", (writer, number)
        )
        return rows[0][0] if rows else None

    def put_word(self, provider: Identity, incarnation: bytes, context: str, writer: bytes, signed: bytes) -> None:
        """Remember what a provider signed, in place of what it signed in that context about that writer before."""
        with self._db.transaction("word row") as connection:
            connection.execute(
                "INSERT OR REPLACE INTO words (provider, incarnation, context, writer, signed) VALUES (?, ?, ?, ?, ?)",
                (provider, incarnation, context, writer, signed),
            )

    def words(self, provider: Identity) -> list[tuple[str, bytes]]:
        """Return what a provider has signed, in all its incarnations, each with its context."""
        rows = self._db.rows(
            "SELECT context, signed FROM words WHERE provider = ? ORDER BY incarnation, context, writer", (provider,)
        )
        return [(context, signed) for context, signed in rows]
