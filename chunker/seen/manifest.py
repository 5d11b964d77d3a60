"""The manifest: which runs make the index, and which objects are forgotten. The one file that is replaced.

    magic 8 | index 16 | owner 16 | next age 8 | journals from 8 | last object 8 | runs 4 | forgotten 4
    runs, the oldest first:                  age 8 | rows 8 | seed 8
    forgotten, by object number:             object number 8, as many
                                             age 8, as many
    BLAKE3 of everything before              32

All numbers are little-endian and unsigned, but last object is signed: -1 when there never was one. `index` is
random, made with the index, and repeated in its journals. An age is given to each run, journal and forgetting, and
rises; a row is dead if its object was forgotten at an age above that of the file it is in. Journals below
`journals from` are in a run already.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from blake3 import blake3

from chunker.seen.rows import Mask, Rows, Words, object_numbers

IDENTITY_BYTES: Final = 16
"""Length of `index` and `owner`."""

_MAGIC: Final = b"seenman1"
_HEAD: Final = struct.Struct("<8s16s16sQQqII")
_RUN: Final = struct.Struct("<QQQ")
_DIGEST: Final = 32


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One run of a manifest."""

    age: int
    count: int
    seed: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Objects whose rows are dead in files below an age: sorted numbers, and the age for each."""

    numbers: Words = field(default_factory=lambda: np.empty(0, np.uint64))
    ages: Words = field(default_factory=lambda: np.empty(0, np.uint64))

    def __len__(self) -> int:
        return len(self.numbers)

    def plus(self, numbers: set[int], age: int) -> "Forgotten":
        """Forget more, or again, at an age above all others."""
        added = np.fromiter(sorted(numbers), np.uint64, len(numbers))
        kept = ~np.isin(self.numbers, added)
        every = np.concatenate([self.numbers[kept], added])
        ages = np.concatenate([self.ages[kept], np.full(len(added), age, np.uint64)])
        order = np.argsort(every)
        return Forgotten(every[order], ages[order])

    def since(self, age: int) -> "Forgotten":
        """Only what matters to files of this age and above."""
        kept = self.ages > age
        return Forgotten(self.numbers[kept], self.ages[kept])

    def living(self, places: Words, age: int) -> Mask:
        """Which locations, found in a file of this age, are not dead."""
        if not len(self.numbers):
            return np.ones(len(places), dtype=np.bool_)
        wanted = object_numbers(places)
        at = np.minimum(np.searchsorted(self.numbers, wanted), len(self.numbers) - 1)
        living: Mask = (self.numbers[at] != wanted) | (self.ages[at] < age)
        return living

    def lives(self, object_number: int, age: int) -> bool:
        """The same for one object."""
        at = int(np.searchsorted(self.numbers, np.uint64(object_number)))
        return at == len(self.numbers) or int(self.numbers[at]) != object_number or int(self.ages[at]) < age

    def drop(self, rows: Rows, age: int) -> Rows:
        """The living among rows of a file of this age."""
        living = self.living(rows.places, age)
        return rows if living.all() else rows.take(living)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A state of the index as the disk knows it; `last_object` is the largest object number ever in a run."""

    index: bytes
    owner: bytes
    next_age: int = 1
    journals_from: int = 1
    last_object: int = -1
    runs: tuple[RunEntry, ...] = ()
    forgotten: Forgotten = field(default_factory=Forgotten)


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest."""
    body = _HEAD.pack(
        _MAGIC,
        manifest.index,
        manifest.owner,
        manifest.next_age,
        manifest.journals_from,
        manifest.last_object,
        len(manifest.runs),
        len(manifest.forgotten),
    )
    body += b"".join(_RUN.pack(run.age, run.count, run.seed) for run in manifest.runs)
    body += manifest.forgotten.numbers.astype("<u8").tobytes() + manifest.forgotten.ages.astype("<u8").tobytes()
    return body + blake3(body).digest()


def decode_manifest(data: bytes) -> Manifest:
    """The manifest of these bytes.

    Raises:
        ValueError: they are not what encode_manifest makes.
    """
    body = data[:-_DIGEST]
    if len(data) < _HEAD.size + _DIGEST or blake3(body).digest() != data[-_DIGEST:]:
        raise ValueError("has a damaged manifest")
    magic, index, owner, next_age, journals_from, last_object, runs, forgotten = _HEAD.unpack_from(body)
    if magic != _MAGIC or len(body) != _HEAD.size + runs * _RUN.size + forgotten * 16:
        raise ValueError("has a manifest of an unknown version")
    ages_at = len(body) - forgotten * 8
    return Manifest(
        index=index,
        owner=owner,
        next_age=next_age,
        journals_from=journals_from,
        last_object=last_object,
        runs=tuple(RunEntry(*_RUN.unpack_from(body, _HEAD.size + i * _RUN.size)) for i in range(runs)),
        forgotten=Forgotten(
            np.frombuffer(body, "<u8", forgotten, ages_at - forgotten * 8).astype(np.uint64),
            np.frombuffer(body, "<u8", forgotten, ages_at).astype(np.uint64),
        ),
    )
