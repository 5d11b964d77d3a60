"""Rows in columns: ids as four 64-bit words, packed locations, and the check that binds them.

An id's first word is its first eight bytes as a big-endian number, so that numbers sort as ids do; the other three
are the bytes as they lie. A location is object number << 32 | entry. The check of a row is

    h = seed;  for word in (word 0, word 1, word 2, word 3, location):  h = mix(h ^ word)

with the finalizer of SplitMix64 (Steele, Lea, Flood 2014; constants of Stafford's variant 13) as `mix`. It is a
bijection, so damage to a single word is always noticed and any other damage but for one case in 2^64. It defends
against disks, not against people: who can write the folder can write the checks. The seed is random for each file,
so that a row of one file is not valid in another.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from chunker.errors import ParameterError
from chunker.identity import ID_BYTES

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

MAX_NUMBER = 2**32 - 1
"""The largest object number and the largest entry."""

_ENTRY_BITS = 32
_FACTORS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_SHIFTS = 30, 27, 31
_ALL = 2**64 - 1
_WORDS = struct.Struct("<4Q")
_LOW = np.uint64(MAX_NUMBER)


class Rows(NamedTuple):
    """`ids` is (n, 4), `places` is (n,)."""

    ids: Words
    places: Words

    def take(self, which: Mask | npt.NDArray[np.intp] | slice) -> "Rows":
        """The rows of a mask, of positions or of a slice."""
        return Rows(self.ids[which], self.places[which])


def pack_place(object_number: int, entry: int) -> int:
    """Object number and entry in 64 bits."""
    return object_number << _ENTRY_BITS | entry


def object_numbers(places: Words) -> Words:
    """The object numbers of packed locations."""
    return places >> np.uint64(_ENTRY_BITS)


def entries(places: Words) -> Words:
    """The entries of packed locations."""
    return places & _LOW


def words_of_one(chunk: bytes) -> tuple[int, int, int, int]:
    """The words of one id."""
    _, second, third, fourth = _WORDS.unpack(chunk)
    return int.from_bytes(chunk[:8], "big"), second, third, fourth


def words_of(raw: bytes) -> Words:
    """The words of concatenated ids, (n, 4)."""
    words = np.frombuffer(raw, dtype="<u8").reshape(-1, ID_BYTES // 8).astype(np.uint64)
    words[:, 0] = words[:, 0].byteswap()
    return words


def join_ids(ids: Sequence[bytes]) -> bytes:
    """Concatenate ids.

    Raises:
        ParameterError: one is not 32 bytes long.
    """
    wrong = set(map(len, ids)) - {ID_BYTES}
    if wrong:
        raise ParameterError("id", f"{wrong.pop()} bytes", f"{ID_BYTES} bytes")
    return b"".join(ids)


def checks(seed: int, rows: Rows) -> Words:
    """The check of each row."""
    factors, shifts = np.array(_FACTORS, np.uint64), np.array(_SHIFTS, np.uint64)
    value = np.full(len(rows.places), seed, dtype=np.uint64)
    for word in (*rows.ids.T, rows.places):
        value ^= word
        value ^= value >> shifts[0]
        value *= factors[0]
        value ^= value >> shifts[1]
        value *= factors[1]
        value ^= value >> shifts[2]
    return value


def check_of(seed: int, words: Sequence[int], place: int) -> int:
    """The check of one row; for few, numpy's fixed costs are twenty times as much."""
    value = seed
    for word in (*words, place):
        value ^= word
        value ^= value >> _SHIFTS[0]
        value = value * _FACTORS[0] & _ALL
        value ^= value >> _SHIFTS[1]
        value = value * _FACTORS[1] & _ALL
        value ^= value >> _SHIFTS[2]
    return value


def newest(rows: Rows) -> Rows:
    """Sort rows by id; of rows with one id keep the one that came first."""
    order = np.argsort(rows.ids[:, 0], kind="stable")
    rows = rows.take(order)
    tied = rows.ids[1:, 0] == rows.ids[:-1, 0]
    if not tied.any():
        return rows
    same = tied & (rows.ids[1:] == rows.ids[:-1]).all(axis=1)
    if not np.array_equal(same, tied):  # different ids with one first word: never by chance, but it must not matter
        order = np.lexsort(rows.ids.T[::-1])
        rows = rows.take(order)
        same = (rows.ids[1:] == rows.ids[:-1]).all(axis=1)
    return rows.take(np.concatenate([[True], ~same]))


class Source:
    """Parts of sorted rows, read ahead as far as a merge needs."""

    def __init__(self, parts: Iterable[Rows]) -> None:
        self._parts = iter(parts)
        self.rows = Rows(np.empty((0, 4), np.uint64), np.empty(0, np.uint64))
        self.ended = False

    def pull(self) -> None:
        """Append the next part, or note the end."""
        part = next(self._parts, None)
        if part is None:
            self.ended = True
        elif len(self.rows.places):
            self.rows = Rows(np.concatenate([self.rows.ids, part.ids]), np.concatenate([self.rows.places, part.places]))
        else:
            self.rows = part

    def last(self) -> int:
        """The first word of the last row at hand."""
        return int(self.rows.ids[-1, 0])

    def below(self, bound: int | None) -> Rows:
        """Hand over the rows whose first word is below `bound`; all if it is None."""
        count = len(self.rows.places)
        if bound is not None:
            count = int(np.searchsorted(self.rows.ids[:, 0], np.uint64(bound)))
        taken = self.rows.take(slice(None, count))
        self.rows = self.rows.take(slice(count, None))
        return taken


def merged(sources: Sequence[Source]) -> Iterator[Rows]:
    """Merge sorted sources, the newest first: of rows with one id the newest stays. Parts come out sorted.

    Memory: about one part of each source.
    """
    while True:
        for source in sources:
            while not source.ended and not len(source.rows.places):
                source.pull()
        growing = [source for source in sources if not source.ended]
        bound = min((source.last() for source in growing), default=None)
        taken = [source.below(bound) for source in sources]
        if any(len(rows.places) for rows in taken):
            yield newest(Rows(np.concatenate([r.ids for r in taken]), np.concatenate([r.places for r in taken])))
        elif not growing:
            return
        else:
            for source in growing:
                if source.last() == bound:
                    source.pull()
