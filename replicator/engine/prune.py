"""Finding out all that a plan to prune stands on, without a content key; whatever is not known is a gap."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from replicator.catalog.objects import ObjectRow
from replicator.catalog.snapshots import SnapshotRow
from replicator.charter.chain import must_be_own
from replicator.config import counted
from replicator.crypto.sign import Context, verify
from replicator.engine.audit import PeerView, survey
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.forgetting import Forgotten, moved_beside
from replicator.engine.heads import KnownHead
from replicator.engine.home import Half
from replicator.engine.marking import gone_writers
from replicator.engine.placing import PACK_KINDS, Ground, pack_id
from replicator.engine.pruneplan import (
    MAX_UNUSED,
    Change,
    Kept,
    PackFacts,
    PrunePlan,
    RecordFacts,
    StoredIds,
    plan_prune,
)
from replicator.engine.releaseplan import short_packs
from replicator.engine.sync import fetch_index, knows_index, read_snapshot, sync_all
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.codec import decode
from replicator.format.container import Kind
from replicator.format.forget import KeptChain
from replicator.format.index import References
from replicator.fs import WriteHandle
from replicator.ids import Identity, ObjectName, identity_of, short
from replicator.pack.sealed import open_object

_LONG: Final = 1 << 20
"""Bytes of ids that are not held."""
_RECORDS = ("snapshot", "index", "references")


@dataclass(slots=True)
class _Known:
    """What was found out. ``domains`` are those of indexes, which a catalog does not know."""

    kept: list[Kept] = field(default_factory=list)
    changes: dict[bytes, Change] = field(default_factory=dict)
    domains: dict[bytes, bytes] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a plan was made of. ``seen`` is the number of each writer's newest snapshot, all of whose chain was read.

    ``packs`` are all whose fate was decided, by name. ``whole``: all that the kept snapshots need is known, though some
    of it may lie nowhere.
    """

    plan: PrunePlan
    whole: bool
    seen: Mapping[bytes, int]
    views: Mapping[bytes, PeerView]
    packs: Mapping[bytes, PackFacts]
    kept: Sequence[Kept]
    changes: Mapping[bytes, Change]


async def plan(half: Half, federation: Federation, edge: Edge, *, max_unused: float = MAX_UNUSED) -> PrunePlan:
    """Return what may be deleted and is worth repacking, as far as everything about it is known: see :func:`look`."""
    return (await look(half, federation, edge, max_unused=max_unused)).plan


async def look(
    half: Half,
    federation: Federation,
    edge: Edge,
    *,
    max_unused: float = MAX_UNUSED,
    supposing: Iterable[KeptChain] | None = None,
) -> Look:
    """Find out everything that a plan stands on, and plan; with ``supposing`` as if that were what stays.

    A gap is: a fork, or anything else that does not hold; a snapshot, chain or references that cannot be read; a
    provider that lacks what it had receipted, unless as many others as are promised have it. Providers that do not
    answer are none: nothing is deleted there without them, and each refuses what was decided without knowing its newest
    claims and heads.
    """
    heads = await sync_all(half, federation)
    rows = half.catalog.snapshots.all()
    known = _Known()
    forgotten = Forgotten.of(half)
    if supposing is not None:
        forgotten = forgotten.supposing(supposing)
    known.gaps += _chains_with_holes(half, heads, rows, forgotten)
    await _read_snapshots(half, federation, rows, forgotten, known)
    await _read_references(half, federation, known)
    await _read_moved(half, federation, forgotten, known)
    views = await survey(half, federation, edge, count=0)
    known.gaps += federation.integrity
    objects = half.catalog.objects
    names: dict[int | None, bytes] = {row.id: row.name for row in objects.all("kind = 'index'")}
    if len(half.private.domains) == 1:  # so are those of snapshots that are gone
        known.domains = dict.fromkeys(names.values(), half.private.domains[0].id)
    else:
        await _read_domains(half, federation, names.values(), known)
    moved = {one.index for one in forgotten.moved}
    listing = _listing(half, names, known)
    packs = [
        PackFacts(
            number=row.id,
            name=row.name,
            index=index,
            writer=row.writer,
            domain=known.domains[index],
            kind=row.kind,
            policy=row.policy,
            size=row.size,
            moved=index in moved,
        )
        for row in objects.all("kind IN ('data', 'tree') AND NOT lost AND index_id IS NOT NULL")
        if (index := listing(row)) in known.domains  # of others nothing is decided
    ]
    packs.sort(key=lambda one: (not one.moved, one.number))
    records = [
        RecordFacts(name=row.name, kind=row.kind, size=row.size) for row in objects.all() if row.kind in _RECORDS
    ]
    found = plan_prune(
        known.kept,
        known.changes,
        packs,
        lambda: _pack_ids(half, packs),
        records,
        gaps=known.gaps,
        max_unused=max_unused,
    )
    whole = not found.gaps
    needed = stored_names(half, needed_names(known.kept, packs) - {one.name for one in found.dead})
    spare = _made_up_for(half, federation, views)
    for identity, view in views.items():
        missing = [row for row in view.missing if row.name not in spare]
        lacking = [row for row in (*missing, *view.damaged) if row.name in needed]
        link = federation.links.get(Identity(identity))
        if lacking and link and not found.gaps:
            them = counted(len(lacking), "needed object, or has it", "needed objects, or has them")
            what = f"{link.pin.name} lacks {them} damaged"
            found = PrunePlan(gaps=[f"{what}: run `repair` first"])
    return Look(
        plan=found,
        whole=whole,
        seen=_seen(heads, rows),
        views=views,
        packs={one.name: one for one in packs},
        kept=known.kept,
        changes=known.changes,
    )


def _listing(half: Half, names: Mapping[int | None, bytes], known: _Known) -> Callable[[ObjectRow], bytes]:
    """Return what says the name of the index that a pack is judged by, empty if none is known.

    Where several nodes call it their own it is one that a kept snapshot names, of a node that was not revoked.
    """
    objects = half.catalog.objects
    further, gone = objects.listings(), gone_writers(half)
    named = {name for one in known.kept for name in one.indexes}
    worse = {row.id: (row.name not in named, row.writer in gone) for row in objects.all("kind = 'index'")}

    def of(row: ObjectRow) -> bytes:
        by = [one for one in (row.index_id, *further.get(row.id, ())) if one is not None and one in worse]
        return names[min(by, key=lambda one: worse[one])] if by else b""

    return of


def _made_up_for(half: Half, federation: Federation, views: Mapping[bytes, PeerView]) -> set[bytes]:
    """Return the names of packs that a provider lacks and as many others have as are promised.

    Such a copy was released and deleted while this home was away, or lost: pruning the rest does no harm either way.
    """
    rows = {pack_id(row.name): row for view in views.values() for row in view.missing if row.kind in PACK_KINDS}
    ground = Ground(half, federation)
    ground.refresh()
    return {rows[pack].name for pack in rows.keys() - short_packs(ground.plan(rows.values(), frozen=True))}


def _pack_ids(half: Half, packs: Sequence[PackFacts]) -> Iterator[tuple[int, bytes]]:
    objects = half.catalog.objects
    moved = {one.number for one in packs if one.moved}
    yield from ((number, objects.chunk_ids(number)) for number in sorted(moved))
    yield from ((number, ids) for number, ids in objects.all_packs() if number not in moved)


def _seen(heads: Mapping[bytes, KnownHead], rows: Iterable[SnapshotRow]) -> dict[bytes, int]:
    """Return the number of each writer's newest snapshot that anybody here has heard of."""
    found = {writer: known.head.number for writer, known in heads.items()}
    for row in rows:
        found[row.writer] = max(found.get(row.writer, 0), row.number)
    return found


def needed_names(kept: Iterable[Kept], packs: Iterable[PackFacts]) -> set[bytes]:
    """Return the names of what snapshots name and of the packs in their indexes, dead ones too."""
    found: set[bytes] = set()
    indexes: set[bytes] = set()
    for one in kept:
        found.update((one.name, *one.indexes, *one.references))
        indexes.update(one.indexes)
    return found | {one.name for one in packs if one.moved or one.index in indexes}


def stored_names(half: Half, names: Collection[bytes]) -> set[bytes]:
    """Return the names of what providers have of some objects: those of shards in the place of packs that are cut."""
    objects = half.catalog.objects
    rows = objects.by_names(names)
    return (set(names) - {row.name for row in rows}) | {row.name for row in objects.stored(rows)}


def _chains_with_holes(
    half: Half, heads: Mapping[bytes, KnownHead], rows: Iterable[SnapshotRow], forgotten: Forgotten
) -> list[str]:
    """Return in words which chains are not known from their first snapshot to their newest."""
    writers = {bytes(identity_of(key)) for key in half.charter.writer_keys()}
    numbers: dict[bytes, set[int]] = {}
    for row in rows:
        numbers.setdefault(row.writer, set()).add(row.number)
    found = []
    for writer in sorted(numbers.keys() | heads.keys()):
        here, head = numbers.get(writer, set()), heads.get(writer)
        if writer not in writers:
            found.append(f"{short(writer)} is no writer that the charter names")
        elif head is None:
            found.append(f"no provider knows a head of {short(writer)}, of which there are snapshots here")
        elif max(here, default=0) > head.head.number:
            found.append(f"providers know {short(writer)} up to {head.head.number}, and here is snapshot {max(here)}")
        else:
            missing = [
                number
                for number in range(1, head.head.number + 1)
                if number not in here and not forgotten.covers(writer, number)
            ]
            if missing:
                found.append(f"snapshot {missing[0]} of {short(writer)} is out of sight")
    return found


async def _read_snapshots(
    half: Half, federation: Federation, rows: Iterable[SnapshotRow], forgotten: Forgotten, known: _Known
) -> None:
    """Read the snapshots that are kept; of forgotten ones that are there, learn the domain of their indexes."""
    for row in rows:
        if forgotten.hides(row) and half.catalog.objects.by_name(row.name) is None:
            continue  # it was swept
        try:
            snapshot, _ = await read_snapshot(half, federation, row.name)
        except (NotFoundError, IntegrityError, FormatError) as error:
            if not forgotten.hides(row):
                known.gaps.append(f"snapshot {short(row.name)} cannot be read: {error}")
            continue
        known.domains |= dict.fromkeys(snapshot.indexes, snapshot.domain)
        if forgotten.hides(row):
            continue
        known.gaps += [
            f"index {short(name)} of snapshot {short(row.name)} cannot be read"
            for name in snapshot.indexes
            if half.catalog.objects.by_name(name) is None
        ]
        known.kept.append(
            Kept(
                name=row.name,
                writer=snapshot.writer,
                domain=snapshot.domain,
                indexes=tuple(snapshot.indexes),
                references=tuple(snapshot.references),
            )
        )


async def _read_moved(half: Half, federation: Federation, forgotten: Forgotten, known: _Known) -> None:
    """Learn the domains of the indexes of what was put together anew.

    One that nobody speaks of any more and nobody has is no gap: if a chunk is in no other pack, that is one.
    """
    beside = moved_beside(half)
    for one in forgotten.moved:
        try:
            index, _ = await fetch_index(half, federation, ObjectName(one.index))
        except ReplicatorError as error:
            if one.writer + one.index in beside:
                continue
            known.gaps.append(f"index {short(one.index)} of packs that were put together anew cannot be read: {error}")
            continue
        known.domains[one.index] = index.domain
        if not knows_index(half, one.index):
            known.gaps.append(f"index {short(one.index)} of packs that were put together anew is not taken in")


async def _read_domains(half: Half, federation: Federation, names: Iterable[bytes], known: _Known) -> None:
    """Learn the domains of indexes whose snapshots are gone already; of one that is gone too nothing is decided."""
    for name in set(names) - known.domains.keys():
        with suppress(ReplicatorError):
            known.domains[name] = (await fetch_index(half, federation, ObjectName(name)))[0].domain


async def _read_references(half: Half, federation: Federation, known: _Known) -> None:
    """Read what the kept snapshots need; long lists are written to a file of this home, over that of an earlier run."""
    aside = _Aside(half)
    try:
        await _read_changes(half, federation, known, aside)
    finally:
        aside.close()


async def _read_changes(half: Half, federation: Federation, known: _Known, aside: "_Aside") -> None:
    for snapshot in known.kept:
        for name in snapshot.references:
            if name in known.changes:
                continue
            try:
                data = await federation.fetch(ObjectName(name), ())
                signed = open_object(data, Kind.REFERENCES, half.keys(snapshot.domain))
                record = decode(References, verify(signed, Context.REFERENCES, half.charter.writer_keys()))
                must_be_own(signed, record.writer, record.tenant, half.tenant, "references")
            except ReplicatorError as error:
                known.gaps.append(f"references {short(name)} cannot be read: {error}")
                continue
            known.changes[name] = Change(
                name=name,
                writer=record.writer,
                domain=record.domain,
                base=record.base,
                added=aside.put(record.added),
                dropped=aside.put(record.dropped),
            )


class _Aside:
    """A file for what is too much to hold, made when something is put there."""

    def __init__(self, half: Half) -> None:
        self._fs = half.fs
        self._path = half.file("references.tmp")
        self._file: WriteHandle | None = None
        self._end = 0

    def put(self, ids: bytes) -> "bytes | StoredIds":
        """Return ids as they are, or where they lie now."""
        if len(ids) < _LONG:
            return ids
        if self._file is None:
            if self._fs.size(self._path) is not None:
                self._fs.unlink(self._path)
            self._file = self._fs.create(self._path)
        self._file.write(ids)
        self._end += len(ids)
        return StoredIds(self._fs, self._path, self._end - len(ids), len(ids))

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()
