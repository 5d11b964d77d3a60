"""Which snapshots a tenant still wants, and which packs: what maintenance signs when something is forgotten."""

import itertools

from replicator.format.charter import Count, Hash, Id16, Number
from replicator.format.codec import Part, Record, check_run, decode, version_of
from replicator.format.mark import sorted_names


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


class SeenChain(Part, frozen=True, kw_only=True):
    """How far a writer's snapshots were read when it was decided which packs nobody needs."""

    writer: Hash
    number: Number


class MovedPacks(Part, frozen=True, kw_only=True):
    """What a maintainer put together anew: ``index``, its own, lists what took the place of ``packs`` of ``writer``.

    ``packs`` are sorted names. What any snapshot needs of them is in the packs that the index lists, the same bytes.
    """

    writer: Hash
    index: Hash
    packs: bytes

    def __post_init__(self) -> None:
        check_run(self.packs, "packs")
        sorted_names(self.packs, "packs")


class Forget(Record, frozen=True, kw_only=True, tag=2):
    """Signed by maintenance: the whole state of what is forgotten, so that the newest one is enough to know.

    Numbered from 1 in one chain per tenant; ``previous`` is the hash of the signed one before. ``chains`` are sorted
    by writer. It says what stays and not what goes: it stays as small as what is kept, it names what there is to be
    found behind snapshots that are gone, and a later one can take it back as long as nothing was deleted.

    ``gone`` are sorted names of packs that indexes of kept snapshots list and that no snapshot needs, of those that
    were read (``view``, by writer): nobody is to wait for copies of them. ``moved`` is sorted by index; readers take
    each of these indexes beside those that the writer's snapshots name.
    """

    tenant: Id16
    number: Number
    previous: Hash
    chains: list[KeptChain]
    view: list[SeenChain]
    gone: bytes
    moved: list[MovedPacks]
    created_ns: Count

    def __post_init__(self) -> None:
        check_run(self.gone, "gone")
        sorted_names(self.gone, "gone")
        if any(one.writer >= other.writer for one, other in itertools.pairwise(self.chains)):
            raise ValueError("`chains` are not sorted by writer, each once")
        if any(one.writer >= other.writer for one, other in itertools.pairwise(self.view)):
            raise ValueError("`view` is not sorted by writer, each once")
        if any(one.index >= other.index for one, other in itertools.pairwise(self.moved)):
            raise ValueError("`moved` is not sorted by index, each once")


class Forget1(Record, frozen=True, kw_only=True):
    """Version 1: of snapshots alone."""

    tenant: Id16
    number: Number
    previous: Hash
    chains: list[KeptChain]
    created_ns: Count

    def __post_init__(self) -> None:
        if any(one.writer >= other.writer for one, other in itertools.pairwise(self.chains)):
            raise ValueError("`chains` are not sorted by writer, each once")


def read_forget(data: bytes) -> Forget:
    """Return a Forget of any version, in the newest one's terms.

    Raises:
        FormatError: it is none.
    """
    if version_of(data) != 1:
        return decode(Forget, data)
    old = decode(Forget1, data)
    return Forget(
        tenant=old.tenant,
        number=old.number,
        previous=old.previous,
        chains=old.chains,
        view=[],
        gone=b"",
        moved=[],
        created_ns=old.created_ns,
    )
