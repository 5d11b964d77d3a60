"""Restoring: read the tree, plan in the target, fetch packs, write chunks, finish."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot
from replicator.engine.edge import Edge
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.pack import CHUNK_DATA
from replicator.ids import short
from replicator.pack.reader import PackReader
from replicator.snapshot.apply import Applied, Applier, Job
from replicator.snapshot.chunklist import extents
from replicator.snapshot.metadata import Rights
from replicator.snapshot.tree import TreePath, TreeReader, escape

_Places = list[tuple[bytes, Job, int]]
"""Where chunks go: (chunk id, job, offset)."""
Overwrite = Literal["never", "if-changed", "always"]
AT_ONCE = 4
"""Packs fetched at the same time; each is at most 16 MiB in memory."""


@dataclass(slots=True)
class RestoreReport:
    """What a restore came to. ``lost`` are packs that no reachable peer gave whole."""

    snapshot: OpenSnapshot
    files: int = 0
    folders: int = 0
    links: int = 0
    others: int = 0
    kept: int = 0
    bytes: int = 0
    packs: int = 0
    fetched_bytes: int = 0
    gaps: list[tuple[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class _Plan:
    """Which chunk goes where, by pack."""

    by_pack: dict[int, _Places] = field(default_factory=dict)


async def restore(
    library: Library,
    edge: Edge,
    snapshot: OpenSnapshot,
    target: str,
    *,
    paths: Sequence[TreePath] = (),
    overwrite: Overwrite = "never",
    privileged: bool,
    dry_run: bool = False,
) -> RestoreReport:
    """Restore a snapshot, or ``paths`` of it, below ``target``; with ``dry_run`` only plan and count.

    Every chunk is checked against its id before it is written, every file is complete before it gets its name.
    What could not be had is named in the report and everything else is restored.

    Raises:
        NotFoundError: a path is not in the snapshot, or its tree cannot be had.
        RestoreError: something is in the way and ``overwrite`` forbids to replace it; nothing was written.
        SpaceError: the target is full.
    """
    started = edge.clock.monotonic()
    fetcher = ChunkFetcher(library, snapshot.snapshot.domain)
    applier = Applier(target, rng=edge.rng, rights=Rights(privileged=privileged), overwrite=overwrite)
    report = RestoreReport(snapshot=snapshot)
    try:
        edge.progress.stage("reading the tree", None, "entries")
        plan = await fetcher.in_thread(lambda reader: _plan(reader, fetcher, applier, snapshot, paths, edge))
        report.packs = len(plan.by_pack)
        if dry_run:
            report.files = len(applier.jobs)
            report.bytes = applier.planned_bytes
            applier.abort()
        else:
            applier.begin()
            edge.progress.stage("restoring", applier.planned_bytes)
            await _carry_out(fetcher, applier, plan, report, edge)
            _fill(report, applier.finish())
    except BaseException:
        applier.abort()
        raise
    report.seconds = edge.clock.monotonic() - started
    return report


def _plan(
    reader: TreeReader,
    fetcher: ChunkFetcher,
    applier: Applier,
    snapshot: OpenSnapshot,
    paths: Sequence[TreePath],
    edge: Edge,
) -> _Plan:
    plan = _Plan()
    tree = snapshot.details.tree
    for path, entry in reader.select(tree, paths) if paths else reader.walk(tree):
        job = applier.add(path, entry)
        edge.progress.advance(1)
        if job is None:
            continue
        wanted = list(extents(job.content, fetcher))
        for (offset, ref), pack in zip(wanted, fetcher.place([ref.id for _, ref in wanted]), strict=True):
            plan.by_pack.setdefault(pack, []).append((ref.id, job, offset))
    return plan


async def _carry_out(fetcher: ChunkFetcher, applier: Applier, plan: _Plan, report: RestoreReport, edge: Edge) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    writing = asyncio.Lock()

    async def one(pack: int, places: _Places) -> _Places:
        async with gate:
            row = fetcher.row(pack)
            try:
                reader = await fetcher.load(pack)
            except NotFoundError as error:
                return _elsewhere(fetcher, pack, places, error, report.lost)
            except (IntegrityError, FormatError) as error:
                why = IntegrityError(f"pack {short(row.name)}: {error}")
                return _elsewhere(fetcher, pack, places, why, report.damaged)
            report.fetched_bytes += row.size
            async with writing:
                bad = await asyncio.to_thread(_write, applier, reader, places, edge)
        left: _Places = []
        for place, problem in bad:
            left += _elsewhere(fetcher, pack, [place], problem, report.damaged)
        return left

    todo = plan.by_pack
    while todo:
        # A chunk that could not be had from one pack may lie in another, stored there at another time.
        left = itertools.chain.from_iterable(await asyncio.gather(*(one(pack, todo[pack]) for pack in sorted(todo))))
        todo = {}
        for place in left:
            [pack] = fetcher.place([place[0]])
            todo.setdefault(pack, []).append(place)


def _elsewhere(fetcher: ChunkFetcher, pack: int, places: _Places, why: ReplicatorError, report: list[str]) -> _Places:
    """Return what another pack may give; the reason goes to ``report`` if anything is left that none can."""
    found = [place for place in places if fetcher.give_up(pack, place[0], why)]
    if len(found) < len(places) and str(why) not in report:
        report.append(str(why))
    return found


def _write(
    applier: Applier, reader: PackReader, places: _Places, edge: Edge
) -> list[tuple[tuple[bytes, Job, int], IntegrityError]]:
    """Write what a pack holds to its places; return those that it should hold and does not, and why."""
    places.sort(key=lambda place: place[0])
    bad = []
    last: bytes | None = None
    data = b""
    for place in places:
        chunk, job, offset = place
        if chunk != last:
            try:
                data = reader.chunk(CHUNK_DATA, chunk)
            except IntegrityError as error:
                bad.append((place, error))
                last = None
                continue
            last = chunk
        applier.write(job, offset, data)
        edge.progress.advance(len(data))
    return bad


def _fill(report: RestoreReport, applied: Applied) -> None:
    counts = applied.counts
    report.files = counts.files
    report.folders = counts.folders
    report.links = counts.links
    report.others = counts.others
    report.kept = counts.kept
    report.bytes = counts.bytes
    report.gaps = [(escape(gap.path), gap.reason) for gap in applied.gaps]
