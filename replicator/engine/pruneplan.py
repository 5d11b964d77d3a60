"""What may be deleted and what is worth repacking, decided from references, indexes and listings alone.

No content key is needed: references say which chunks a kept snapshot needs, indexes which packs hold them. Pure
functions of values; a caller that cannot give all of them gives a gap, and a plan with gaps deletes nothing.

Ids are worked on in parts of the id space, each with whole ids, so that memory is bounded whatever there is: two ids
are never taken for one because they begin alike, not even if a hostile writer made them so.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from replicator.catalog.idset import IdSet
from replicator.clock import DAY_S, NS
from replicator.config import counted
from replicator.format.mark import LEAST_BUDGET
from replicator.format.sizes import LARGEST, size_class
from replicator.fs import Fs
from replicator.ids import short

MAX_UNUSED: Final = 0.3
"""Share of a pack's chunks that may be unused before the pack is worth repacking."""
IDS_AT_ONCE: Final = 1 << 20
"""About so many ids are worked on at a time; some 200 bytes each at most."""
WEEK_NS: Final = 7 * DAY_S * NS
_BATCH = 4 << 20
"""Bytes of pack ids that are worked on at a time."""
_ID = np.dtype("S32")
_Ids = npt.NDArray[np.bytes_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object of references: sorted, joined ids that it adds and drops against ``base`` (empty: from nothing)."""

    name: bytes
    writer: bytes
    domain: bytes
    base: bytes
    added: "bytes | StoredIds"
    dropped: "bytes | StoredIds"


@dataclass(frozen=True, slots=True)
class StoredIds:
    """Joined ids that lie in a file until they are worked on: all references together may be larger than memory."""

    fs: Fs
    path: str
    offset: int
    size: int

    def __len__(self) -> int:
        return self.size

    def read(self) -> bytes:
        """Return them."""
        return self.fs.read(self.path, self.offset, self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A snapshot that stays, and what it names: indexes, and the chain of its references, first one first."""

    name: bytes
    writer: bytes
    domain: bytes
    indexes: tuple[bytes, ...]
    references: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFacts:
    """A pack that an index lists and of which a copy is left. ``number`` is how :data:`PackIds` call it.

    ``moved``: a maintainer made it, and every reader takes its index beside those that snapshots name. What is in it is
    not needed any more in the packs that its writer made, under the same policy.
    """

    number: int
    name: bytes
    index: bytes
    writer: bytes
    domain: bytes
    kind: str
    policy: bytes
    size: int
    moved: bool = False


PackIds = Callable[[], Iterable[tuple[int, bytes]]]
"""Yields packs' numbers and joined chunk ids, moved ones first, others too; called once for each part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackUse:
    """How much of a pack is needed, in chunks: an index does not say how long they are."""

    facts: PackFacts
    chunks: int
    live: int

    @property
    def share(self) -> float:
        """The share of its chunks that is needed."""
        return self.live / self.chunks if self.chunks else 0.0

    @property
    def live_bytes(self) -> int:
        """About how many of its bytes are needed."""
        return round(self.facts.size * self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepackGroup:
    """Packs whose needed chunks go into new packs together: all of one writer, domain, kind and policy.

    ``new_bytes`` is about what the new packs will take.
    """

    packs: tuple[PackUse, ...]
    new_bytes: int

    @property
    def old_bytes(self) -> int:
        """What the packs take now, one copy of each."""
        return sum(one.facts.size for one in self.packs)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadObject:
    """An object that nothing kept needs: a pack, snapshot, index or references."""

    name: bytes
    kind: str
    size: int


@dataclass(slots=True, kw_only=True)
class PrunePlan:
    """What to delete and to repack. With ``gaps`` there is nothing of either: something is not known.

    Repacked packs are not among ``dead``: they are dead once the new ones are relied on.
    """

    gaps: list[str] = field(default_factory=list)
    dead: list[DeadObject] = field(default_factory=list)
    groups: list[RepackGroup] = field(default_factory=list)
    packs: int = 0
    chunks: int = 0
    needed: int = 0
    scattered: int = 0
    """About how many bytes nobody needs in packs that stay as they are, one copy of each."""

    @property
    def dead_bytes(self) -> int:
        """What the dead objects take, one copy of each."""
        return sum(one.size for one in self.dead)

    @property
    def repacked_bytes(self) -> int:
        """About what repacking frees beside."""
        return sum(group.old_bytes - group.new_bytes for group in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFacts:
    """A snapshot, an index or references, of which copies are left."""

    name: bytes
    kind: str
    size: int


def chain_gaps(kept: Iterable[Kept], changes: Mapping[bytes, Change]) -> list[str]:
    """Return in words what is wrong with the chains that the needed chunks are told by; empty: nothing.

    Each must begin with references from nothing, and each of its objects must be there, be its snapshot's writer's
    and domain's, and change the one before it.
    """
    found: dict[str, None] = {}
    for snapshot in kept:
        what = f"snapshot {short(snapshot.name)}"
        if not snapshot.references:
            found[f"{what} names no references"] = None
        base = b""
        for name in snapshot.references:
            change = changes.get(name)
            if change is None:
                found[f"references {short(name)} of {what} cannot be read"] = None
                break
            if (change.writer, change.domain) != (snapshot.writer, snapshot.domain):
                found[f"references {short(name)} of {what} are another writer's or domain's"] = None
            if change.base != base:
                found[f"references {short(name)} of {what} do not follow the ones before them"] = None
            base = name
    return list(found)


def plan_prune(
    kept: Sequence[Kept],
    changes: Mapping[bytes, Change],
    packs: Sequence[PackFacts],
    pack_ids: PackIds,
    records: Iterable[RecordFacts],
    *,
    gaps: Iterable[str] = (),
    max_unused: float = MAX_UNUSED,
) -> PrunePlan:
    """Return what nothing in ``kept`` needs, and which packs are worth repacking.

    ``changes`` are all references by name that the kept snapshots name, ``packs`` all packs whose fate is to be decided
    with their ids, moved ones first, ``records`` all other objects. A chunk that a snapshot of a domain needs is needed
    in every pack that has it, each writer's, as far as a kept snapshot names the pack's index: a snapshot is read
    through the indexes it names, and nobody's word about another's chunks makes them unneeded.

    ``gaps`` are what the caller could not find out; they, chains that cannot be folded, and chunks that no pack holds
    leave the plan empty.
    """
    plan = PrunePlan(gaps=[*gaps, *chain_gaps(kept, changes)], packs=len(packs))
    if plan.gaps:
        return plan
    count = _Count(packs, {(one.domain, index) for one in kept for index in one.indexes})
    lacking = 0
    for low, high in _parts(sum(len(one.added) for one in changes.values()) // _ID.itemsize):
        needed = {
            domain: unique(np.concatenate([*_needed(members, changes, low, high), np.empty(0, _ID)]))
            for domain, members in _by_domain(kept).items()
        }
        lacking += count.part(needed, pack_ids, low, high)
        plan.needed += sum(len(ids) for ids in needed.values())
    plan.chunks = int(count.chunks.sum())
    if lacking:
        what = counted(lacking, "chunk that kept snapshots need is", "chunks that kept snapshots need are")
        plan.gaps.append(f"{what} in no pack that is known and left")
        return plan
    rows = zip(packs, count.chunks.tolist(), count.live.tolist(), strict=True)
    uses = [PackUse(facts=one, chunks=chunks, live=live) for one, chunks, live in rows]
    plan.dead = [
        DeadObject(name=one.facts.name, kind=one.facts.kind, size=one.facts.size) for one in uses if not one.live
    ]
    plan.dead += _dead_records(kept, records, {one.facts.index for one in uses if one.facts.moved and one.live})
    plan.groups = _worth_repacking(uses, max_unused)
    moving = {one.facts.name for group in plan.groups for one in group.packs}
    plan.scattered = sum(one.facts.size - one.live_bytes for one in uses if one.live and one.facts.name not in moving)
    _check(plan, kept, uses)
    return plan


def needed_among(kept: Iterable[Kept], changes: Mapping[bytes, Change], domain: bytes, ids: bytes) -> set[bytes]:
    """Return which of some joined ids the snapshots of a domain need."""
    members = [one for one in kept if one.domain == domain]
    asked = unique(np.frombuffer(ids, _ID))
    found: set[bytes] = set()
    for low, high in _parts(sum(len(one.added) for one in changes.values()) // _ID.itemsize):
        here = asked[_inside(asked, low, high)]
        for part in _needed(members, changes, low, high):
            met = np.intersect1d(here, part, assume_unique=True).tobytes()
            found.update(met[at : at + _ID.itemsize] for at in range(0, len(met), _ID.itemsize))
    return found


def _by_domain(kept: Iterable[Kept]) -> dict[bytes, list[Kept]]:
    found: dict[bytes, list[Kept]] = {}
    for one in kept:
        found.setdefault(one.domain, []).append(one)
    return found


def _parts(count: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of the ids' first two bytes that make up the id space, each of about :data:`IDS_AT_ONCE` ids.

    Ids are keyed hashes and lie evenly; a writer who makes them lie otherwise costs memory, nothing else.
    """
    parts = min(1 << 16, 1 + count // IDS_AT_ONCE)
    bounds = [(1 << 16) * part // parts for part in range(parts + 1)]
    yield from itertools.pairwise(bounds)


def _inside(ids: _Ids, low: int, high: int) -> npt.NDArray[np.bool_]:
    first = ids.view(">u2").reshape(-1, _ID.itemsize // 2)[:, 0]
    return (first >= low) & (first < high)


def _within(ids: "bytes | StoredIds", low: int, high: int) -> _Ids:
    found = np.frombuffer(ids if isinstance(ids, bytes) else ids.read(), _ID)
    return found[_inside(found, low, high)]


def _needed(kept: Iterable[Kept], changes: Mapping[bytes, Change], low: int, high: int) -> Iterator[_Ids]:
    """Yield ids of one part that these snapshots need, some more than once.

    Between two snapshots that are kept, an id counts if none of the changes after the one that added it drops it.
    """
    chains: dict[tuple[bytes, ...], set[int]] = {}
    for references in sorted({one.references for one in kept}, key=len, reverse=True):
        longer = next((known for known in chains if known[: len(references)] == references), references)
        chains.setdefault(longer, set()).add(len(references))
    for chain, ends in chains.items():
        for begin, end in itertools.pairwise([0, *sorted(ends)]):
            dropped = np.empty(0, _ID)
            for name in reversed(chain[begin:end]):
                added = _within(changes[name].added, low, high)
                if len(dropped):
                    stays = np.ones(len(added), np.bool_)
                    stays[IdSet(dropped.tobytes()).find(added)[1]] = False
                    added = added[stays]
                yield added
                more = _within(changes[name].dropped, low, high)
                if len(more):
                    dropped = unique(np.concatenate([dropped, more]))


def unique(ids: _Ids) -> _Ids:
    """Return sorted, distinct ids: as numpy does, but a tenth of its time, by their first eight bytes."""
    words = ids.view(">u8").reshape(-1, _ID.itemsize // 8)[:, 0].astype(np.uint64)
    order = np.argsort(words)
    ids, words = ids[order], words[order]
    differs = ids[1:] != ids[:-1]
    if np.any(differs & (words[1:] == words[:-1])):
        return np.unique(ids)  # ids that begin alike: by chance never, but who writes references may choose them
    first = np.ones(len(ids), np.bool_)
    first[1:] = differs
    return ids[first]


_Group = tuple[bytes, bytes, str, bytes]


class _Count:
    """Adds up the chunks of each pack, and those of them that are needed there.

    ``named`` are the indexes, with their domains, that kept snapshots are read through.
    """

    def __init__(self, packs: Sequence[PackFacts], named: Collection[tuple[bytes, bytes]]) -> None:
        self._places = {one.number: place for place, one in enumerate(packs)}
        self._numbers: dict[bytes, int] = {}
        self._domains = np.array([self._numbers.setdefault(one.domain, len(self._numbers)) for one in packs], np.int64)
        keys: dict[_Group, int] = {}
        self._groups = np.array([keys.setdefault(_group(one), len(keys)) for one in packs], np.int64)
        self._moved = np.array([one.moved for one in packs], np.bool_)
        self._read = np.array([one.moved or (one.domain, one.index) in named for one in packs], np.bool_)
        self.chunks = np.zeros(len(packs), np.int64)
        self.live = np.zeros(len(packs), np.int64)

    def part(self, needed: Mapping[bytes, _Ids], pack_ids: PackIds, low: int, high: int) -> int:
        """Count one part of the id space; return how many of the needed ids no pack has."""
        sets = {domain: IdSet(ids.tobytes()) for domain, ids in needed.items()}
        met = {domain: np.zeros(len(ids), np.bool_) for domain, ids in needed.items()}
        taken: dict[int, npt.NDArray[np.bool_]] = {}
        for numbers, runs in _batches(pack_ids()):
            known = [
                (self._places[number], run) for number, run in zip(numbers, runs, strict=True) if number in self._places
            ]
            holders = np.repeat(
                np.array([place for place, _ in known], np.int64), [len(run) // _ID.itemsize for _, run in known]
            )
            ids = np.frombuffer(b"".join(run for _, run in known), _ID)
            inside = _inside(ids, low, high)
            ids, holders = ids[inside], holders[inside]
            np.add.at(self.chunks, holders, 1)
            ids, holders = ids[self._read[holders]], holders[self._read[holders]]
            for domain, wanted in sets.items():
                mine = np.flatnonzero(self._domains[holders] == self._numbers.get(domain, -1))
                where, which = wanted.find(ids[mine])
                order = np.argsort(which)
                where, holding = where[order], holders[mine[which[order]]]
                met[domain][where] = True
                for group in np.unique(self._groups[holding]).tolist():
                    of_group = self._groups[holding] == group
                    seen = taken.setdefault(group, np.zeros(len(met[domain]), np.bool_))
                    for moved in (True, False):
                        mine = of_group & (self._moved[holding] == moved)
                        found, by = where[mine], holding[mine]
                        if moved:
                            found, first = np.unique(found, return_index=True)
                            by = by[first]
                        fresh = ~seen[found]
                        np.add.at(self.live, by[fresh], 1)
                        if moved:
                            seen[found] = True
        return sum(int(np.count_nonzero(~found)) for found in met.values())


def _group(pack: PackFacts) -> _Group:
    return pack.writer, pack.domain, pack.kind, pack.policy


def _batches(packs: Iterable[tuple[int, bytes]]) -> Iterator[tuple[list[int], list[bytes]]]:
    numbers: list[int] = []
    runs: list[bytes] = []
    size = 0
    for number, run in packs:
        numbers.append(number)
        runs.append(run)
        size += len(run)
        if size >= _BATCH:
            yield numbers, runs
            numbers, runs, size = [], [], 0
    if numbers:
        yield numbers, runs


def _dead_records(kept: Iterable[Kept], records: Iterable[RecordFacts], moved: Collection[bytes]) -> list[DeadObject]:
    named = set(moved)
    named |= {name for one in kept for name in (one.name, *one.indexes, *one.references)}
    return [DeadObject(name=one.name, kind=one.kind, size=one.size) for one in records if one.name not in named]


def _worth_repacking(uses: Iterable[PackUse], max_unused: float) -> list[RepackGroup]:
    """Group the packs that have too much unused in them; a group that would free nothing is left as it is."""
    groups: dict[_Group, list[PackUse]] = {}
    for one in uses:
        if one.live and 1 - one.share > max_unused:
            groups.setdefault(_group(one.facts), []).append(one)
    found = []
    for key in sorted(groups):
        members = sorted(groups[key], key=lambda one: (one.share, one.facts.name))
        group = RepackGroup(packs=tuple(members), new_bytes=sizes_of(sum(one.live_bytes for one in members)))
        if group.new_bytes < group.old_bytes:
            found.append(group)
    return found


def gone_by_ns(
    due_ns: int, *, now_ns: int, marked: int, swept: int, used: int, budget: int, percent: int, frozen_until_ns: int = 0
) -> int:
    """Return by when all is deleted that is due by ``due_ns`` at the latest, if a provider runs and looks every day.

    ``marked`` are the bytes of all marks there, of which the earlier ones go first, ``swept`` those that went in the
    last week, of ``budget`` and of ``used`` that are left; ``percent`` is root's: of less there goes less. While its
    clock is frozen nothing goes and no day counts. Nothing is promised if more is marked, or root lowers the budget.
    """
    due_ns = max(due_ns + max(0, frozen_until_ns - now_ns), frozen_until_ns)
    least = min(budget, max(LEAST_BUDGET, max(0, used - marked) * percent // 100))
    total = marked + (swept if due_ns - now_ns < WEEK_NS else 0)
    # What does not fit into the rest of a week's budget is less than an object.
    weeks = 0 if total <= least else -(-total // max(1, least - LARGEST)) - 1
    return due_ns + DAY_S * NS + weeks * WEEK_NS


def sizes_of(size: int) -> int:
    """Return what packs take that hold so many bytes: full ones, and the rest in one or two size classes."""
    whole, rest = divmod(size, LARGEST)
    half = size_class(rest) // 2
    padded = size_class(rest) if rest else 0
    if rest > half:
        padded = min(padded, half + size_class(rest - half))
    return whole * LARGEST + padded


def _check(plan: PrunePlan, kept: Sequence[Kept], uses: Iterable[PackUse]) -> None:
    """Restate what must hold of every plan before it may be used."""
    dead = {one.name for one in plan.dead}
    assert not any(one.facts.name in dead for one in uses if one.live), "a pack that is needed is not dead"
    assert not any(name in dead for one in kept for name in (one.name, *one.indexes, *one.references)), (
        "what a kept snapshot names is not dead"
    )
    moving = [one.facts.name for group in plan.groups for one in group.packs]
    assert len(set(moving)) == len(moving), "a pack is repacked once"
    assert not dead & set(moving), "a pack that is repacked is not dead before the new one is there"
