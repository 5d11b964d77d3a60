"""Restoring: survey the target, then window by window: read the tree, see what is there, fetch packs, write chunks."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple, Self

from replicator.crypto.derive import hkdf
from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot
from replicator.engine.edge import Edge
from replicator.engine.gathering import Gathering
from replicator.engine.looks import Looks
from replicator.engine.writeframes import NewFile, Setup, Wrote
from replicator.engine.writeframes import Part as FilePart
from replicator.engine.writers import Order, Writers
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.pack import CHUNK_DATA
from replicator.format.snapshot import ChunkList
from replicator.format.tree import Entry
from replicator.ids import short
from replicator.process import Stop
from replicator.snapshot.apply import Applied, Applier, Job, Part, Planned
from replicator.snapshot.chunklist import extents, leaves
from replicator.snapshot.metadata import OF_METADATA, Rights
from replicator.snapshot.plan import Overwrite, Survey, Surveyor
from replicator.snapshot.target import Place as Folder
from replicator.snapshot.tree import Lost, TreePath, TreeReader, escape

_Entries = Iterator[tuple[TreePath, Entry]]
_ComingEntries = Iterator[tuple[TreePath, Entry] | None]
_UNREADABLE = (NotFoundError, IntegrityError, FormatError)
AHEAD = 2
"""Packs in memory, 16 MiB each at most, beside those that writers are at; while those wait, more are on their way.

So four providers are asked at the same time where that is what a restore waits for. Where more of them answer there is
one more: the fifth is worth its memory there and nowhere else.
"""
FEW = 4
WINDOW = 20_000
"""Chunks and entries that are planned before they are written, while those before them are: what bounds memory.

Packs that several windows need are kept on the keeper's disk (:mod:`~replicator.engine.keptpacks`).
"""
LARGE = 256 << 20
"""Bytes of files to be made from which processes are started beforehand, however little it may take to fetch them."""
MANY = 5_000
"""Files in a snapshot from which on several processes look at what is there."""
SLICE = 100
"""Entries that are planned between two looks at whether a writer waits: a few milliseconds."""
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
    """What is not as it was, the first ten thousand; ``reasons`` counts all of it."""
    reasons: Counter[str] = field(default_factory=Counter)
    unset: list[tuple[str, str]] = field(default_factory=list)
    """What this user may not set, likewise; ``unset_reasons`` counts all of it."""
    unset_reasons: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def has_every_byte(self) -> bool:
        """Whether everything is there with its content, as far as this user may make it."""
        return not (self.lost or self.damaged or self.reasons.keys() - OF_METADATA)


class _Place(NamedTuple):
    """Where a chunk of ``length`` bytes goes."""

    chunk: bytes
    job: Job
    offset: int
    length: int


@dataclass(slots=True)
class _Sent:
    """What was handed over of a pack: ``new`` files, then parts of files."""

    pack: int
    new: int = 0
    places: list[_Place] = field(default_factory=list)


@dataclass(slots=True)
class _Window:
    """A part of the tree: which chunk goes where, by pack, and what then is to be finished."""

    by_pack: dict[int, list[_Place]]
    planned: Planned


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
    writers: int = 0,
) -> RestoreReport:
    """Restore a snapshot, or ``paths`` of it, below ``target``; with ``dry_run`` only look and count.

    Every chunk is checked against its id before it is written, every file is complete before it gets its name. Of a
    file that is there in another version only those chunks are fetched that differ. With ``delete`` what the snapshot
    does not have goes from the folders that are restored whole. What could not be had is named in the report and
    everything else is restored. So many ``writers`` help, processes that are started for a large restore.

    Raises:
        NotFoundError: a path is not in the snapshot, or its tree cannot be had.
        RestoreError: something is in the way and ``overwrite`` is "never"; nothing was written.
        SpaceError: the target is full.
    """
    with closing(ChunkFetcher(library, snapshot.snapshot.domain, trees_on_disk=True)) as fetcher:
        return await _restore(
            fetcher,
            library,
            edge,
            snapshot,
            target,
            paths=paths,
            overwrite=overwrite,
            delete=delete,
            privileged=privileged,
            dry_run=dry_run,
            writers=writers,
        )


async def _restore(
    fetcher: ChunkFetcher,
    library: Library,
    edge: Edge,
    snapshot: OpenSnapshot,
    target: str,
    *,
    paths: Sequence[TreePath],
    overwrite: Overwrite,
    delete: bool,
    privileged: bool,
    dry_run: bool,
    writers: int,
) -> RestoreReport:
    started = edge.clock.monotonic()
    report = RestoreReport(snapshot=snapshot)
    tree = TreeReader(fetcher)

    def entries(lost: Lost | None) -> _Entries:
        top = snapshot.details.tree
        return tree.select(top, paths, lost=lost) if paths else tree.walk(top, lost=lost)

    def lost(path: TreePath, error: ReplicatorError) -> None:
        if not path:
            raise error  # of a snapshot without its top there is nothing
        report.gaps.append((escape(b"/".join((*path, b""))), LOST_FOLDER))
        report.reasons[LOST_FOLDER] += 1
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
        lambda _: _survey(met, snapshot.row.size, fetcher, edge, surveyor, report if dry_run else None, needed=delete)
    )
    whole = None if paths else snapshot.row.size
    fresh = survey.bytes if survey else whole if not surveyor.may_replace else None
    if dry_run:
        assert survey is not None, "it was asked for"
        report.files, report.kept, report.bytes = survey.files, survey.kept, survey.bytes
        report.removed = [escape(extra.path) for extra in survey.extras]
        report.seconds = edge.clock.monotonic() - started
        return report
    rights = Rights(privileged=privileged)
    applier = Applier(
        target,
        rng=edge.rng,
        rights=rights,
        overwrite=overwrite,
        resume_key=hkdf(fetcher.keys.id_key, label=b"unfinished file"),
        extras=survey.extras if survey else (),
    )
    try:
        applier.begin(survey.room if survey else 0)
        edge.progress.stage("restoring", survey.bytes + survey.kept_bytes if survey else whole)
        # What is to be removed is asked about folder by folder; of a part of the tree nobody knows how much it is.
        can_look = bool(writers) and overwrite == "if-changed" and not delete and not paths
        look = can_look and snapshot.row.files >= MANY and not applier.is_empty
        with _Restoring(fetcher, applier, fetcher.setup(rights), report, edge, writers, amiss) as restoring:
            if look or (fresh is not None and fresh >= LARGE):
                restoring.start(look=look)
            fetcher.keep(snapshot.row.size if applier.is_beside(library.keeper.path) else 0)
            coming = restoring.looked(snapshot.details.tree, lost) if look else entries(lost)
            await fetcher.until_done(lambda stop: restoring.run(coming, stop))
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
    *,
    needed: bool,
) -> Survey | None:
    """Go through the whole tree before anything is written; None where nothing can be in the way.

    That is where it may be replaced, or in an empty target with room for ``size`` bytes, those of the whole snapshot.
    For ``report`` (of a dry run) packs are counted too. ``needed``: in any case.
    """
    packs: set[int] = set()
    try:
        if report is None and not needed and (surveyor.may_replace or (surveyor.is_empty and size <= surveyor.free())):
            return None
        for path, entry in entries:
            edge.progress.advance(1)
            if surveyor.look(path, entry, checked=True) and report is not None and entry.content is not None:
                parts = leaves(entry.content, fetcher)
                while batch := list(itertools.islice(parts, BATCH)):
                    packs.update(fetcher.place([ref.id for ref in batch]))
        if report is not None:
            report.packs = len(packs)
        return surveyor.finish()
    finally:
        surveyor.close()


class _StoppedError(Exception):
    """The restore was cancelled."""


class _Bell:
    """Rung from any thread, heard by who selects on it."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = Lock()

    def fileno(self) -> int:
        """Return what becomes readable when it is rung."""
        return self._fd

    def ring(self) -> None:
        """Let it be heard, also later; nothing once it is closed."""
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Be silent until the next time."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def close(self) -> None:
        """Be silent for ever."""
        with self._lock:
            os.close(self._fd)
            self._fd = -1


class _Restoring:
    """Carries a restore out: plans while packs come and writers write. A context manager, for one thread."""

    def __init__(
        self,
        fetcher: ChunkFetcher,
        applier: Applier,
        setup: Setup,
        report: RestoreReport,
        edge: Edge,
        writers: int,
        amiss: Callable[[ReplicatorError], None],
    ) -> None:
        self._fetcher = fetcher
        self._applier = applier
        self._report = report
        self._edge = edge
        self._amiss = amiss
        self._writers: Writers[_Sent] = Writers(setup, writers, self._took, ahead=AHEAD + (len(fetcher.peers()) > FEW))
        self._bell = _Bell()
        self._gathering = Gathering(fetcher, self._writers, edge.clock, self._bell.ring)
        self._todo: dict[int, list[_Place]] = {}
        self._windows: Iterator[_Window | None] = iter(())
        self._next: _Window | None = None
        self._has_more = True
        self._is_waiting = False
        self._wanted: list[_Place] = []
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._gathering.close()
        self._writers.close()
        self._bell.close()

    def start(self, *, look: bool) -> None:
        """Start the processes now: there is enough to write, or to look at."""
        self._writers.start(self._applier.top() if look else None)

    def looked(self, tree: ChunkList, lost: Lost) -> _ComingEntries:
        """Return the walk through a tree of which what is there already is left out: processes look for it."""

        def skipped(folders: int, files: int, size: int) -> None:
            self._applier.skip(folders, files)
            self._edge.progress.advance(size)

        return Looks(self._fetcher, self._writers, skipped).walk(tree, lost=lost)

    def run(self, entries: _ComingEntries, stop: Stop) -> None:
        """Restore what is yielded, window by window; the next one is planned while this one is written.

        Raises:
            _StoppedError: it was asked to.
        """
        self._windows = self._plan(entries)
        while True:
            _check(stop)
            if self._plan_on():
                continue
            window, self._next = self._next, None
            if window is not None:
                self._carry_out(window, stop)
                self._applier.settle(window.planned)
            elif self._has_more:
                self._writers.poll(wait=True)
            else:
                return

    # -- planning --

    def _plan_on(self) -> bool:
        """Plan a little of the next window.

        Return False if that is whole, nothing is left to plan, or it is not known yet what comes next.
        """
        if self._next is not None:
            return False
        self._is_waiting = False
        try:
            self._next = next(self._windows)
        except StopIteration:
            self._has_more = False
            return False
        return not self._is_waiting

    def _plan(self, entries: _ComingEntries) -> Iterator[_Window | None]:
        """Plan a part of the tree at a time; yield None after every few entries of it."""
        applier, fetcher = self._applier, self._fetcher
        hasher = fetcher.keys.hashers()[CHUNK_DATA]

        def same(chunk: bytes, data: memoryview) -> bool:
            return hasher(data) == chunk

        for number, coming in enumerate(entries):
            if coming is None:
                self._is_waiting = True
                yield None
                continue
            path, entry = coming
            self._count += 1
            job = applier.add(path, entry, checked=True)  # by the reader
            if job is not None and len(job.content.chunks) == 1 and job.content.depth == 0 and applier.is_new(job):
                [ref] = job.content.chunks  # what most files are
                self._wanted.append(_Place(ref.id, job, 0, ref.length))
                self._count += 1
            elif job is not None:
                parts = extents(job.content, fetcher)
                job.more = True
                while job.more:
                    batch: list[Part] = []
                    try:
                        batch.extend(itertools.islice(parts, BATCH))
                    except _UNREADABLE as error:
                        self._amiss(error)
                    job.more = len(batch) == BATCH
                    missing = applier.reuse(job, batch, same) if batch else []
                    reused = sum(ref.length for _, ref in batch) - sum(ref.length for _, ref in missing)
                    self._edge.progress.advance(reused)
                    self._wanted += [_Place(ref.id, job, offset, ref.length) for offset, ref in missing]
                    self._count += len(batch)
                    if job.more and self._count >= WINDOW:
                        yield self._planned()
            elif entry.kind == "file" and entry.link is None:
                self._edge.progress.advance(entry.size)  # it is there
            if self._count >= WINDOW:
                yield self._planned()
            elif number % SLICE == 0:
                yield None
        if self._count:
            yield self._planned()

    def _planned(self) -> _Window:
        """Return what was planned since the last time."""
        wanted, self._wanted, self._count = self._wanted, [], 0
        try:
            packs: list[int | None] = [*self._fetcher.place([place.chunk for place in wanted])]
        except IntegrityError:  # no index names one of them: ask for each, so that it costs its own file only
            packs = [self._pack_of(place.chunk) for place in wanted]
        by_pack: dict[int, list[_Place]] = {}
        for place, pack in zip(wanted, packs, strict=True):
            if pack is not None:
                by_pack.setdefault(pack, []).append(place)
        return _Window(by_pack, self._applier.take())

    def _pack_of(self, chunk: bytes) -> int | None:
        try:
            return self._fetcher.place([chunk])[0]
        except IntegrityError as error:
            self._amiss(error)
            return None

    # -- carrying out --

    def _carry_out(self, window: _Window, stop: Stop) -> None:
        self._todo = window.by_pack
        gathering = self._gathering
        gathering.turn()
        # What is still at hand first, the rest in the order it was packed in.
        gathering.want(sorted(self._todo, key=lambda pack: (not self._writers.has(pack), pack)))
        is_next_known = False
        while self._todo or self._writers.busy:
            _check(stop)
            if self._next is not None and not is_next_known:
                gathering.want_later(sorted(self._next.by_pack))
                is_next_known = True
            gathering.begin()
            moved = self._send_one() or self._writers.poll()
            if not moved and not self._plan_on():
                moved = self._writers.poll(self._bell, wait=True)
                self._bell.clear()
            if moved:
                # A chunk that could not be had from one pack may lie in another, stored there at another time.
                gathering.want(self._todo)

    def _send_one(self) -> bool:
        """Hand a pack that has come to a writer; return False if none has, or none can be taken."""
        found = self._gathering.take(room=self._writers.has_room())
        if found is None:
            return False
        pack, come = found
        places = self._todo.pop(pack)
        if come.error is not None:
            self._elsewhere(pack, places, come.error, self._report.lost)
            return True
        orders = list(self._orders(pack, places))
        if come.slot is not None:
            assert isinstance(come.got, int), "what is in a slot has its size"
            self._writers.send_filled(pack, come.slot, come.got, orders)
        else:
            assert not isinstance(come.got, int), "what is in no slot is itself"
            self._writers.send(pack, come.got, orders)
        return True

    def _orders(self, pack: int, places: list[_Place]) -> Iterator[Order[_Sent]]:
        """Yield what to write from a pack: new files by folder, then parts by file, each in the order of the tree."""
        applier = self._applier
        order: Order[_Sent] = Order(_Sent(pack))
        folder: Folder | None = None
        parts: list[_Place] = []
        for place in places:
            job = place.job
            if job.done:
                continue
            if not applier.is_whole(job, place.length):
                parts.append(place)
                continue
            if job.place is not folder:
                fd = applier.folder_of(job)
                if fd is None:
                    continue
                if order.is_full:
                    yield order
                    order = Order(_Sent(pack))
                folder = job.place
                order.add_folder(fd)
            order.context.new += 1
            order.folders[-1].append(NewFile(job.entry, place.chunk, identify=job.first is not None))
            order.context.places.append(place)
        last: Job | None = None
        for place in sorted(parts, key=lambda place: id(place.job)):
            job = place.job
            if job is not last:
                fd = applier.file_of(job)
                if fd is None:
                    continue
                if order.is_full:
                    yield order
                    order = Order(_Sent(pack))
                last = job
                order.add_file(fd, job.entry.holes)
            order.files[-1].parts.append(FilePart(place.chunk, place.offset, place.length))
            order.context.places.append(place)
        yield order

    def _took(self, sent: _Sent, wrote: Wrote) -> None:
        """Take note of what became of an order."""
        pack, places, applier = sent.pack, sent.places, self._applier
        name = f"pack {short(self._fetcher.row(pack).name)}"
        if (wrote.unreadable or wrote.bad) and self._fetcher.fetch_anew(pack):
            # It came from this machine's own disk: what is wrong with it is not known to be a provider's fault.
            self._writers.forget(pack)
            again = range(len(places)) if wrote.unreadable else [number for number, _ in wrote.bad]
            self._todo.setdefault(pack, []).extend(places[number] for number in again)
            if wrote.unreadable:
                return
            bad: list[tuple[int, str]] = []
        elif wrote.unreadable:
            self._elsewhere(pack, places, IntegrityError(f"{name}: {wrote.unreadable}"), self._report.damaged)
            return
        else:
            bad = wrote.bad
        left = {place for place, _ in (*wrote.bad, *wrote.failed)} | {*wrote.again}
        unset = dict(wrote.unset)
        made = {place: (device, inode) for place, device, inode in wrote.made}
        done = 0
        for number, place in enumerate(places):
            if number in left:
                continue
            done += place.length
            if number < sent.new:
                applier.made(place.job, made.get(number), unset.get(number, ()))
            else:
                applier.wrote(place.job, place.offset, place.offset + place.length)
        self._edge.progress.advance(done)
        for number, code in wrote.failed:
            applier.failed(places[number].job, OSError(code, os.strerror(code)))
        if wrote.again:
            applier.no_unnamed()
            self._todo.setdefault(pack, []).extend(places[number] for number in wrote.again)
        for number, why in bad:
            self._elsewhere(pack, [places[number]], IntegrityError(f"{name}: {why}"), self._report.damaged)

    def _elsewhere(self, pack: int, places: list[_Place], why: ReplicatorError, report: list[str]) -> None:
        """Look in other packs for chunks; the reason goes to ``report`` if anything is left that none has."""
        for place in places:
            if self._fetcher.give_up(pack, place.chunk, why):
                [other] = self._fetcher.place([place.chunk])
                self._todo.setdefault(other, []).append(place)
            elif str(why) not in report:
                report.append(str(why))


def _check(stop: Stop) -> None:
    if stop():
        raise _StoppedError


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
    report.reasons.update(applied.reasons)
    report.unset = [(escape(gap.path), gap.reason) for gap in applied.unset.named]
    report.unset_reasons = applied.unset.by_reason
