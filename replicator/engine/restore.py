"""Restoring: survey the target, then window by window: read the tree, see what is there, fetch packs, write chunks."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from replicator.crypto.derive import hkdf
from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot, check_length
from replicator.engine.edge import Edge
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.pack import CHUNK_DATA
from replicator.format.tree import Entry
from replicator.ids import short
from replicator.pack.reader import PackReader
from replicator.snapshot.apply import Applied, Applier, Job, Part
from replicator.snapshot.chunklist import extents, leaves
from replicator.snapshot.metadata import Rights
from replicator.snapshot.plan import Overwrite, Survey, Surveyor
from replicator.snapshot.tree import Lost, TreePath, TreeReader, escape

_Entries = Iterator[tuple[TreePath, Entry]]
_Place = tuple[bytes, Job, int, int]
"""Where a chunk goes: (chunk id, job, offset, length)."""
_Places = list[_Place]
_UNREADABLE = (NotFoundError, IntegrityError, FormatError)
AT_ONCE = 3
"""Packs fetched at the same time; each is at most 16 MiB in memory."""
WINDOW = 50_000
"""Chunks and entries that are planned before they are fetched: what bounds memory, whatever the size of the tree.

A pack that is needed in two windows is fetched twice, unless it is one of the last ones. Chunks were packed in the
order of the tree, so that those are few.
"""
LOST_FOLDER = "what it holds, or a part of it, could not be read"
BATCH = 10_000
"""Chunks of one file that are planned at a time."""


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
    reused_bytes: int = 0
    """Of these, what was found in the target."""
    packs: int = 0
    fetched_bytes: int = 0
    removed: list[str] = field(default_factory=list)
    """What the target had and the snapshot has not; with a dry run, what would be removed."""
    gaps: list[tuple[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True)
class _Window:
    """A part of the tree: which chunk goes where, by pack. ``reused`` bytes are there already."""

    by_pack: dict[int, _Places] = field(default_factory=dict)
    reused: int = 0


async def restore(
    library: Library,
    edge: Edge,
    snapshot: OpenSnapshot,
    target: str,
    *,
    paths: Sequence[TreePath] = (),
    overwrite: Overwrite = "never",
    delete: bool = False,
    privileged: bool,
    dry_run: bool = False,
) -> RestoreReport:
    """Restore a snapshot, or ``paths`` of it, below ``target``; with ``dry_run`` only look and count.

    Every chunk is checked against its id before it is written, every file is complete before it gets its name. Of a
    file that is there in another version only those chunks are fetched that differ. With ``delete`` what the snapshot
    does not have goes from the folders that are restored whole. What could not be had is named in the report and
    everything else is restored.

    Raises:
        NotFoundError: a path is not in the snapshot, or its tree cannot be had.
        RestoreError: something is in the way and ``overwrite`` forbids to replace it; nothing was written.
        SpaceError: the target is full.
    """
    started = edge.clock.monotonic()
    fetcher = ChunkFetcher(library, snapshot.snapshot.domain)
    report = RestoreReport(snapshot=snapshot)
    tree = TreeReader(fetcher)

    def entries(lost: Lost | None) -> _Entries:
        top = snapshot.details.tree
        return tree.select(top, paths, lost=lost) if paths else tree.walk(top, lost=lost)

    def lost(path: TreePath, error: ReplicatorError) -> None:
        if not path:
            raise error  # of a snapshot without its top there is nothing
        report.gaps.append((escape(b"/".join((*path, b""))), LOST_FOLDER))
        amiss(error)

    def amiss(error: ReplicatorError) -> None:
        told = report.lost if isinstance(error, NotFoundError) else report.damaged
        if str(error) not in told:
            told.append(str(error))

    edge.progress.stage("reading the tree", None, "entries")
    await fetcher.in_thread(lambda reader: next(reader.entries(snapshot.details.tree), None))
    surveyor = Surveyor(target, overwrite, whole=(paths or ((),)) if delete else ())
    # What is to be deleted is only known of a tree that can be read to its end.
    met = entries(None if delete else _ignore)
    survey = await fetcher.in_thread(
        lambda _: _survey(met, snapshot.row.size, fetcher, edge, surveyor, report if dry_run else None)
    )
    if dry_run:
        assert survey is not None, "it was asked for"
        report.files, report.kept, report.bytes = survey.files, survey.kept, survey.bytes
        report.removed = [escape(extra.path) for extra in survey.extras]
        report.seconds = edge.clock.monotonic() - started
        return report
    applier = Applier(
        target,
        rng=edge.rng,
        rights=Rights(privileged=privileged),
        overwrite=overwrite,
        resume_key=hkdf(fetcher.keys.id_key, label=b"unfinished file"),
        extras=survey.extras if survey else (),
    )
    try:
        applier.begin(survey.room if survey else 0)
        whole = None if paths else snapshot.row.size
        edge.progress.stage("restoring", survey.bytes if survey else whole)
        windows = _windows(entries(lost), fetcher, applier, amiss)
        while (window := await fetcher.in_thread(lambda _: next(windows, None))) is not None:
            edge.progress.advance(window.reused)
            await _carry_out(fetcher, applier, window.by_pack, report, edge)
            await asyncio.to_thread(applier.settle)
        _fill(report, await asyncio.to_thread(applier.finish))
    except BaseException:
        applier.abort()
        raise
    report.packs = len(fetcher.fetched)
    report.fetched_bytes = fetcher.fetched.total()
    report.seconds = edge.clock.monotonic() - started
    return report


def _ignore(_path: TreePath, _error: ReplicatorError) -> None:
    """Leave it to the restore itself to tell what is lost."""


def _survey(
    entries: _Entries,
    size: int,
    fetcher: ChunkFetcher,
    edge: Edge,
    surveyor: Surveyor,
    report: RestoreReport | None,
) -> Survey | None:
    """Go through the whole tree before anything is written; None where nothing can be in the way.

    That is an empty target with room for ``size`` bytes, those of the whole snapshot. For ``report`` (of a dry run)
    packs are counted too.
    """
    packs: set[int] = set()
    try:
        if report is None and surveyor.is_empty and size <= surveyor.free():
            return None
        for path, entry in entries:
            edge.progress.advance(1)
            if surveyor.look(path, entry) and report is not None and entry.content is not None:
                parts = leaves(entry.content, fetcher)
                while batch := list(itertools.islice(parts, BATCH)):
                    packs.update(fetcher.place([ref.id for ref in batch]))
        if report is not None:
            report.packs = len(packs)
        return surveyor.finish()
    finally:
        surveyor.close()


def _windows(
    entries: _Entries, fetcher: ChunkFetcher, applier: Applier, amiss: Callable[[ReplicatorError], None]
) -> Iterator[_Window]:
    """Plan a part of the tree at a time; ``amiss`` is told why chunks of a file cannot be had."""
    hasher = fetcher.keys.hashers()[CHUNK_DATA]

    def same(chunk: bytes, data: memoryview) -> bool:
        return hasher(data) == chunk

    window, count = _Window(), 0
    wanted: _Places = []
    for path, entry in entries:
        count += 1
        job = applier.add(path, entry)
        parts = iter(()) if job is None else extents(job.content, fetcher)
        more = True
        while more:
            batch: list[Part] = []
            try:
                batch.extend(itertools.islice(parts, BATCH))
            except _UNREADABLE as error:
                amiss(error)
            more = len(batch) == BATCH
            if job is not None:
                job.more = more
                missing = applier.reuse(job, batch, same) if batch else []
                window.reused += sum(ref.length for _, ref in batch) - sum(ref.length for _, ref in missing)
                wanted += [(ref.id, job, offset, ref.length) for offset, ref in missing]
                count += len(batch)
            if count >= WINDOW:
                yield _placed(window, wanted, fetcher, amiss)
                window, wanted, count = _Window(), [], 0
    if count:
        yield _placed(window, wanted, fetcher, amiss)


def _placed(
    window: _Window, wanted: _Places, fetcher: ChunkFetcher, amiss: Callable[[ReplicatorError], None]
) -> _Window:
    try:
        packs: list[int | None] = [*fetcher.place([place[0] for place in wanted])]
    except IntegrityError:  # no index names one of them: ask for each, so that it costs its own file only
        packs = [_pack_of(fetcher, place[0], amiss) for place in wanted]
    for place, pack in zip(wanted, packs, strict=True):
        if pack is not None:
            window.by_pack.setdefault(pack, []).append(place)
    return window


def _pack_of(fetcher: ChunkFetcher, chunk: bytes, amiss: Callable[[ReplicatorError], None]) -> int | None:
    try:
        return fetcher.place([chunk])[0]
    except IntegrityError as error:
        amiss(error)
        return None


async def _carry_out(
    fetcher: ChunkFetcher, applier: Applier, todo: dict[int, _Places], report: RestoreReport, edge: Edge
) -> None:
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
            async with writing:
                bad = await asyncio.to_thread(_write, applier, reader, places, edge)
        left: _Places = []
        for place, problem in bad:
            left += _elsewhere(fetcher, pack, [place], problem, report.damaged)
        return left

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


def _write(applier: Applier, reader: PackReader, places: _Places, edge: Edge) -> list[tuple[_Place, IntegrityError]]:
    """Write what a pack holds to its places; return those that it should hold and does not, and why."""
    places.sort(key=lambda place: place[0])
    bad = []
    last: bytes | None = None
    data = b""
    for place in places:
        chunk, job, offset, length = place
        try:
            if chunk != last:
                last = None
                data = reader.chunk(CHUNK_DATA, chunk)
                last = chunk
            check_length(chunk, data, length)
        except IntegrityError as error:
            bad.append((place, error))
            continue
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
    report.reused_bytes = applied.reused_bytes
    report.removed = [escape(path) for path in applied.removed]
    report.gaps += [(escape(gap.path), gap.reason) for gap in applied.gaps]
