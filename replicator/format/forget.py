"""Which snapshots a tenant still wants: what maintenance signs when something is forgotten."""

import itertools

from replicator.format.charter import Count, Hash, Id16, Number
from replicator.format.codec import Part, Record


class KeptSnapshot(Part, frozen=True, kw_only=True):
    """A snapshot that stays, by its number in its writer's chain."""

    number: Number
    name: Hash


class KeptChain(Part, frozen=True, kw_only=True):
    """Of a writer's chain up to number ``upto``, only ``kept`` stay; they are sorted by number."""

    writer: Hash
    upto: Number
    kept: list[KeptSnapshot]

    def __post_init__(self) -> None:
        numbers = [one.number for one in self.kept]
        if any(one >= other for one, other in itertools.pairwise([*numbers, self.upto + 1])):
            raise ValueError("`kept` is not sorted by number, or goes beyond `upto`")


class Forget(Record, frozen=True, kw_only=True):
    """Signed by maintenance: the whole state of what is forgotten, so that the newest one is enough to know.

    Numbered from 1 in one chain per tenant; ``previous`` is the hash of the signed one before. ``chains`` are sorted
    by writer. It says what stays and not what goes: it stays as small as what is kept, it names what there is to be
    found behind snapshots that are gone, and a later one can take it back as long as nothing was deleted.
    """

    tenant: Id16
    number: Number
    previous: Hash
    chains: list[KeptChain]
    created_ns: Count

    def __post_init__(self) -> None:
        if any(one.writer >= other.writer for one, other in itertools.pairwise(self.chains)):
            raise ValueError("`chains` are not sorted by writer, each once")
