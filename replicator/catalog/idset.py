"""Chunk ids that packs are asked for, many at a time. Apart from the rest because it needs numpy."""

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

_ID = np.dtype("S32")  # compared to the last byte: what numpy pads shorter strings with cannot matter
_WORDS_IN_ID = 4
_CACHED = 1 << 16
"""So many first words lie in the processor's cache."""
_NOBODY_LEAST = np.iinfo(np.int64).max
_NOBODY_MOST = -1

_Ids = npt.NDArray[np.bytes_]


class IdSet:
    """Sorted, distinct, joined ids, and which packs were met that hold them. 56 bytes for each id."""

    def __init__(self, joined: bytes) -> None:
        self._ids: _Ids = np.frombuffer(joined, _ID)
        self._first = _first_words(self._ids)
        # Two different packs hold an id if and only if the lowest and the highest number differ.
        self._least = np.full(len(self._ids), _NOBODY_LEAST, np.int64)
        self._most = np.full(len(self._ids), _NOBODY_MOST, np.int64)

    @classmethod
    def of(cls, runs: Iterable[bytes]) -> Self:
        """Make it of runs of joined ids in any order."""
        return cls(np.unique(np.frombuffer(b"".join(runs), _ID)).tobytes())

    def meet(self, numbers: Sequence[int], runs: Sequence[bytes]) -> None:
        """Note that packs, by number, hold the joined ids that are given for each."""
        holders = np.repeat(np.array(numbers, np.int64), [len(run) // _ID.itemsize for run in runs])
        where, found = self.find(np.frombuffer(b"".join(runs), _ID))
        np.minimum.at(self._least, where, holders[found])
        np.maximum.at(self._most, where, holders[found])

    def never_met(self) -> int:
        """Return how many of the ids no pack was met for."""
        return int(np.count_nonzero(self._most == _NOBODY_MOST))

    def all_met_beside(self, number: int, joined: bytes) -> bool:
        """Return whether each of some ids, which are in the set, was met in another pack than this one."""
        where, _ = self.find(np.frombuffer(joined, _ID))
        least, most = self._least[where], self._most[where]
        return bool(np.all((most != _NOBODY_MOST) & ((least != number) | (most != number))))

    def find(self, asked: _Ids) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the positions of those that are in the set, and their positions among the asked, in any order."""
        if not len(self._ids):
            nothing = np.empty(0, np.intp)
            return nothing, nothing
        words = _first_words(asked)
        last = len(self._ids) - 1
        order = np.arange(len(words))
        if len(self._ids) > _CACHED:
            order = np.argsort(words)  # what lies near each other is looked for together: half of the time (measured)
        where = np.minimum(np.searchsorted(self._first, words[order]), last)
        begins_so = self._first[where] == words[order]
        where, order = where[begins_so], order[begins_so]
        asked = asked[order]
        same = self._ids[where] == asked
        # Ids that begin alike: by chance never, but who writes an index may choose them.
        alike = np.flatnonzero(~same)
        where[alike] = np.minimum(np.searchsorted(self._ids, asked[alike]), last)
        same[alike] = self._ids[where[alike]] == asked[alike]
        return where[same], order[same]


def _first_words(ids: _Ids) -> npt.NDArray[np.uint64]:
    """Return the first eight bytes of each id as numbers that sort as the ids do."""
    return ids.view(">u8").reshape(-1, _WORDS_IN_ID)[:, 0].astype(np.uint64)
