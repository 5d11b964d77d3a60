"""What this home remembers of writers' chains and of what providers signed about them.

Its loss costs no data and no finding that was made; what providers said before can then not be held against them.
"""

from replicator.catalog.schema import Database
from replicator.charter.chain import Link, Word, kept_head, read_word
from replicator.format.finding import Statement
from replicator.ids import Identity


class Heads:
    """Rows of signed heads, and of the last word of each provider in each incarnation of its store."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, links: list[Link], *, witnessed: bool) -> None:
        """Remember heads. ``witnessed``: a provider has shown or signed them; once so, it stays so."""
        with self._db.transaction("head rows") as connection:
            connection.executemany(
                "INSERT INTO heads (writer, number, hash, signed, witnessed) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET witnessed = max(witnessed, excluded.witnessed)",
                [(one.writer, one.number, one.hash, one.statement.signed, int(witnessed)) for one in links if one.hash],
            )

    def since(self, writer: bytes, number: int) -> list[Link]:
        """Return what is remembered of a chain from a number on, by number."""
        rows = self._db.rows(
            "SELECT signed FROM heads WHERE writer = ? AND number >= ? ORDER BY number, hash", (writer, number)
        )
        return [kept_head(signed) for (signed,) in rows]

    def newest_witnessed(self, writer: bytes) -> Link | None:
        """Return the head with the highest number that a provider has ever shown to this home."""
        rows = self._db.rows(
            "SELECT signed FROM heads WHERE writer = ? AND witnessed ORDER BY number DESC LIMIT 1", (writer,)
        )
        return kept_head(rows[0][0]) if rows else None

    def below(self, writer: bytes, number: int) -> Link | None:
        """Return the head with the highest number below ``number``."""
        rows = self._db.rows(
            "SELECT signed FROM heads WHERE writer = ? AND number < ? ORDER BY number DESC LIMIT 1", (writer, number)
        )
        return kept_head(rows[0][0]) if rows else None

    def put_word(self, word: Word) -> None:
        """Remember what a provider signed; of each sort (and writer, for witnesses) and incarnation the last."""
        writer = next(iter(word.heads)) if word.statement.context == "witness" else b""
        with self._db.transaction("word row") as connection:
            connection.execute(
                "INSERT OR REPLACE INTO words (provider, incarnation, context, writer, signed) VALUES (?, ?, ?, ?, ?)",
                (word.provider, word.incarnation, word.statement.context, writer, word.statement.signed),
            )

    def words(self, provider: Identity, tenant: bytes) -> list[Word]:
        """Return what a provider has signed, in all its incarnations."""
        rows = self._db.rows(
            "SELECT context, signed FROM words WHERE provider = ? ORDER BY incarnation, context, writer", (provider,)
        )
        return [read_word(Statement(context=context, signed=signed), tenant) for context, signed in rows]
