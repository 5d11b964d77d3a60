"""Which pack a chunk is in, remembered for all chunks of the packs that were asked about last.

Chunks were packed in the order of the tree, so that who asks for one asks for its neighbours next: a look into a
dictionary instead of a search in the catalog.
"""

from collections.abc import Callable, Sequence
from typing import Final

ASKED: Final = 200
"""Chunks that are looked up at once, before the packs that they are in answer for the others."""
IDS: Final = 60_000
"""Chunks that are remembered at most, some 10 MB: those of twenty packs of small files."""


class Nearby:
    """``places`` returns all packs of each chunk, none raising an error; ``chunks`` the chunks of a pack.

    For one thread.
    """

    def __init__(
        self, places: Callable[[Sequence[bytes]], list[list[int]]], chunks: Callable[[int], Sequence[bytes]]
    ) -> None:
        self._places = places
        self._chunks = chunks
        self._packs: dict[int, Sequence[bytes]] = {}
        self._pack_of: dict[bytes, int] = {}
        self._count = 0

    def packs(self, ids: Sequence[bytes]) -> list[int]:
        """Return a pack that holds each chunk, whatever ``places`` raises if there is none.

        Of several it may be any.
        """
        found = list(map(self._pack_of.get, ids))
        missing = [number for number, pack in enumerate(found) if pack is None]
        while missing:
            part, missing = missing[:ASKED], missing[ASKED:]
            for number, packs in zip(part, self._places([ids[number] for number in part]), strict=True):
                found[number] = packs[0]
            for pack in dict.fromkeys(found[number] for number in part):
                if pack is not None:
                    self._remember(pack)
            if missing:
                for number in missing:
                    found[number] = self._pack_of.get(ids[number])
                missing = [number for number in missing if found[number] is None]
        return [pack for pack in found if pack is not None]

    def _remember(self, pack: int) -> None:
        if pack in self._packs:
            return
        ids = self._packs[pack] = self._chunks(pack)
        self._count += len(ids)
        self._pack_of.update(dict.fromkeys(ids, pack))
        while self._count > IDS and len(self._packs) > 1:
            first = next(iter(self._packs))
            gone = self._packs.pop(first)
            self._count -= len(gone)
            for chunk in gone:
                if self._pack_of.get(chunk) == first:
                    del self._pack_of[chunk]
