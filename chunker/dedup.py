"""Have we seen this chunk: what a deduplicating writer asks of an index.

An index is a cache. A false "not seen" costs space; a false "seen" loses data, so an implementation answers
only what it is sure of.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from chunker.identity import ChunkId


class Location(NamedTuple):
    """Where a chunk lies: the number the index's owner gave the object, and the chunk's entry in it."""

    object_number: int
    entry: int


class SeenIndex(Protocol):
    """The index that a writer needs; not safe for threads unless an implementation says so."""

    def lookup(self, ids: Sequence[ChunkId]) -> list[Location | None]:
        """The location of each id in the order asked, None where it has not been seen."""

    def add(self, rows: Iterable[tuple[ChunkId, Location]]) -> None:
        """Remember where chunks lie. The first location of an id stays; later ones are ignored."""


class MemorySeenIndex:
    """A SeenIndex in a dict, about 200 bytes a chunk: for tests, and for what fits in memory."""

    __slots__ = ("_locations",)

    def __init__(self, rows: Iterable[tuple[ChunkId, Location]] = ()) -> None:
        self._locations: dict[ChunkId, Location] = {}
        self.add(rows)

    def __len__(self) -> int:
        return len(self._locations)

    def lookup(self, ids: Sequence[ChunkId]) -> list[Location | None]:
        return [self._locations.get(chunk) for chunk in ids]

    def add(self, rows: Iterable[tuple[ChunkId, Location]]) -> None:
        for chunk, location in rows:
            self._locations.setdefault(chunk, location)
