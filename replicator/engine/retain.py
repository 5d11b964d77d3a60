"""Forgetting snapshots by rules or by name: what stays and why, then one signed word about it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from replicator.catalog.snapshots import SnapshotRow
from replicator.crypto.sign import SigningKey
from replicator.engine.browse import Library, OpenSnapshot, label_of
from replicator.engine.edge import Edge
from replicator.engine.forgetting import Forgotten, is_owed, next_chains, say, say_again, with_chains
from replicator.engine.handing import Lineage, lineages
from replicator.engine.home import Half
from replicator.engine.marked import take_back
from replicator.engine.naming import check_dataset, choose
from replicator.engine.placing import objects_of
from replicator.errors import UsageError
from replicator.format.forget import KeptChain
from replicator.ids import Identity
from replicator.snapshot.retention import KEEP_TAG, Candidate, KeepRules, clamped, decide, stalled

_CHAIN_BITS: Final = 48
"""More snapshots than any key writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A snapshot and what becomes of it. ``counted_ns`` is the time that rules go by; ``reasons``: none, it goes."""

    snapshot: OpenSnapshot
    counted_ns: int
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


async def by_rules(
    library: Library, edge: Edge, rules: Callable[[str], KeepRules], datasets: Collection[str]
) -> list[Judged]:
    """Return what rules make of every snapshot of some datasets (none: of all), by series and oldest first.

    ``rules`` gives those of a dataset.

    A snapshot that cannot be read is not judged, and stays.

    Raises:
        NotFoundError: there is no snapshot of such a dataset.
    """
    found = await library.snapshots()
    for dataset in datasets:
        check_dataset([label_of(one) for one in found], dataset)
    wanted = [one for one in found if not datasets or one.details.dataset in datasets]
    known = lineages(library.keeper.private)
    times, unknown = counted(library.keeper.catalog.snapshots.all(), edge.clock.now_ns(), known)
    by_name: dict[bytes, OpenSnapshot] = {one.row.name: one for one in wanted}
    found_rules = {dataset: rules(dataset) for dataset in sorted({one.details.dataset for one in wanted})}
    return [
        Judged(
            snapshot=by_name[decision.candidate.name],
            counted_ns=decision.candidate.at_ns,
            reasons=decision.reasons,
        )
        for dataset, of_dataset in found_rules.items()
        for decision in decide(
            candidates_of([one for one in wanted if one.details.dataset == dataset], known, times, unknown), of_dataset
        )
    ]


async def by_name(
    library: Library, edge: Edge, names: Sequence[str], *, even_last: bool = False, undo: bool = False
) -> list[Judged]:
    """Return the snapshots that people call so, to be forgotten; with ``undo`` forgotten ones, to be taken back.

    Raises:
        NotFoundError: there is none, or more than one.
        UsageError: it is tagged ``keep``, or the last good one of a dataset of a node, and not ``even_last``.
    """
    found = await library.snapshots(forgotten=undo)
    labels = [label_of(one) for one in found]
    chosen = {place: found[place] for place in (choose(labels, name) for name in names)}
    known = lineages(library.keeper.private)
    times, _ = counted(library.keeper.catalog.snapshots.all(), edge.clock.now_ns(), known)
    if not undo and not even_last:
        _check_last(found, list(chosen.values()), known)
    return [
        Judged(
            snapshot=chosen[place],
            counted_ns=times[chosen[place].row.name],
            reasons=("taken back",) if undo else (),
        )
        for place in sorted(chosen)
    ]


def _check_last(found: Sequence[OpenSnapshot], chosen: Sequence[OpenSnapshot], known: Mapping[bytes, Lineage]) -> None:
    gone = {one.row.name for one in chosen}
    for one in chosen:
        if KEEP_TAG in one.details.tags:
            raise UsageError(
                f"snapshot {one.id[:12]} is tagged '{KEEP_TAG}'", hint="--even-last forgets such a one too"
            )
        others = [
            other
            for other in found
            if series_of(other, known) == series_of(one, known) and other.row.name not in gone and not other.row.partial
        ]
        if not others and not one.row.partial:
            raise UsageError(
                f"snapshot {one.id[:12]} is the last good one of '{one.details.dataset}' from {one.node}",
                hint="--even-last forgets such a one too",
            )


def series_of(one: OpenSnapshot, known: Mapping[bytes, Lineage]) -> tuple[str, bytes]:
    """Return what rules are applied to separately: a dataset of a node, whatever its keys were one after another."""
    return one.details.dataset, _lineage(one.row.writer, known)[0]


def _lineage(writer: bytes, known: Mapping[bytes, Lineage]) -> Lineage:
    return known.get(writer, (writer, 0))


def _place(row: SnapshotRow, known: Mapping[bytes, Lineage]) -> int:
    """Return a number that orders the chains of one node's keys, and the snapshots in each."""
    return (_lineage(row.writer, known)[1] << _CHAIN_BITS) + row.number


def candidates_of(
    found: Sequence[OpenSnapshot],
    known: Mapping[bytes, Lineage],
    times: Mapping[bytes, int],
    unknown: Collection[bytes],
) -> list[Candidate]:
    """Return snapshots as rules see them."""
    created: dict[tuple[str, bytes], dict[int, int]] = {}
    for one in found:
        created.setdefault((one.details.dataset, one.row.writer), {})[one.row.number] = one.row.created_ns
    still = {chain: stalled(of_chain) for chain, of_chain in created.items()}
    return [
        Candidate(
            name=one.row.name,
            series=series_of(one, known),
            number=_place(one.row, known),
            at_ns=times[one.row.name],
            tags=frozenset(one.details.tags),
            partial=one.row.partial,
            gaps=bool(one.details.gaps),
            sure=one.row.name not in unknown and one.row.number not in still[one.details.dataset, one.row.writer],
        )
        for one in found
    ]


def counted(
    rows: Sequence[SnapshotRow], now_ns: int, known: Mapping[bytes, Lineage] = MappingProxyType({})
) -> tuple[dict[bytes, int], set[bytes]]:
    """Return the times that rules go by, of all that a node wrote, and the names of those whose time nobody can know.

    Forgotten snapshots bound those after them too.
    """
    found: dict[bytes, int] = {}
    unknown: set[bytes] = set()
    nodes: dict[bytes, dict[int, SnapshotRow]] = {}
    for row in rows:
        nodes.setdefault(_lineage(row.writer, known)[0], {})[_place(row, known)] = row
    for members in nodes.values():
        times, leapt = clamped({place: row.created_ns for place, row in members.items()}, now_ns=now_ns)
        found |= {row.name: times[place] for place, row in members.items()}
        unknown |= {members[place].name for place in leapt}
    return found, unknown


async def forget(
    library: Library, edge: Edge, key: Callable[[], SigningKey], judged: Sequence[Judged], *, undo: bool
) -> int:
    """Carry out what was judged; return how many snapshots were forgotten or taken back.

    If that is none, what an earlier run said to too few providers is said again.

    Raises:
        NotFoundError: a snapshot of a chain that would change is out of sight.
        KeyMissingError, MinimumNotMetError: see :func:`replicator.engine.forgetting.say`.
    """
    keeper = library.keeper
    names = {one.snapshot.row.name for one in judged if one.keep == undo}
    if not names:
        if is_owed(keeper):
            with keeper.lock():
                await say_again(keeper, library.federation, edge)
        return 0
    again = _packs_of(keeper, names) if undo else set()
    with keeper.lock():
        await say(
            keeper,
            library.federation,
            edge,
            key(),
            lambda before: with_chains(before, chains_after(keeper, before, names, undo=undo), again),
        )
        if undo:
            rows = [one.snapshot.row for one in judged if one.snapshot.row.name in names]
            stored = keeper.catalog.objects.stored(objects_of(keeper, rows))
            await take_back(library.federation, {row.name for row in stored})
            away = [pin.name for pin in keeper.peers if Identity(pin.identity) not in library.federation.links]
            if away:
                library.federation.notices.append(
                    f"{', '.join(away)} did not answer: what is marked there goes after its wait, unless `prune` runs "
                    "before, when it answers"
                )
    return len(names)


def chains_after(half: Half, before: Forgotten, names: Collection[bytes], *, undo: bool) -> list[KeptChain]:
    """Return the chains of the next Forget, which drops these snapshots, or takes them back.

    Raises:
        NotFoundError: a snapshot of a chain that would change is out of sight.
    """
    drop, taken_back = (frozenset[bytes](), names) if undo else (names, frozenset[bytes]())
    return next_chains(before.chains, half.catalog.snapshots.all(), drop=drop, undo=taken_back)


def _packs_of(half: Half, snapshots: Collection[bytes]) -> set[bytes]:
    """Return the names of all packs that the indexes of some snapshots list: they may need any of them."""
    rows = half.catalog.snapshots.all()
    indexes = {name for row in rows if row.name in snapshots for name in row.indexes}
    return {row.name for row in half.catalog.objects.of_indexes(indexes)}
