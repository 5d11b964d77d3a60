"""What a home remembers of chains and of providers' words about them, as :mod:`replicator.charter.chain` reads it."""

from collections.abc import Iterable
from typing import Literal, cast

from replicator.charter.chain import Link, Word, kept_head, read_word
from replicator.engine.home import Half
from replicator.format.finding import Statement
from replicator.ids import Identity


class Memory:
    """The rows of one half's catalog (:class:`replicator.catalog.heads.Heads`), as links and words."""

    def __init__(self, half: Half) -> None:
        self._rows = half.catalog.heads
        self._tenant = half.tenant

    def put(self, links: Iterable[Link], *, witnessed: bool) -> None:
        """Remember heads; what only a snapshot says is passed over. ``witnessed``: a provider has shown them."""
        rows = [(one.writer, one.number, one.hash, one.statement.signed) for one in links if one.hash]
        self._rows.put(rows, witnessed=witnessed)

    def since(self, writer: bytes, number: int) -> list[Link]:
        """Return what is remembered of a chain from a number on, by number."""
        return [kept_head(signed) for signed in self._rows.since(writer, number)]

    def newest_witnessed(self, writer: bytes) -> Link | None:
        """Return the head with the highest number that a provider has ever shown to this home."""
        return _link(self._rows.newest_witnessed(writer))

    def below(self, writer: bytes, number: int) -> Link | None:
        """Return the head with the highest number below ``number``."""
        return _link(self._rows.below(writer, number))

    def put_word(self, word: Word) -> None:
        """Remember what a provider signed; of standings, and of witnesses for each writer, the last an incarnation."""
        writer = next(iter(word.heads)) if word.statement.context == "witness" else b""
        said = word.statement
        self._rows.put_word(word.provider, word.incarnation, said.context, writer, said.signed)

    def words(self, provider: Identity) -> list[Word]:
        """Return what a provider has signed, in all its incarnations."""
        return [
            read_word(Statement(context=cast('Literal["witness", "standing"]', context), signed=signed), self._tenant)
            for context, signed in self._rows.words(provider)
        ]


def _link(signed: bytes | None) -> Link | None:
    return None if signed is None else kept_head(signed)
