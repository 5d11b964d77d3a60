"""A backup: capture what a dataset names, commit it as a signed snapshot, send and publish it.

Commit works offline. A snapshot that was committed and could not be published waits in the spool; the next run
publishes it first, from the same bytes.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, closing, nullcontext, suppress
from dataclasses import dataclass, field

from chunker import LARGE, SMALL, Chunker, ChunkerParams
from replicator.catalog.objects import ObjectRow
from replicator.catalog.seen import SeenChunks
from replicator.catalog.snapshots import Dataset, SnapshotRow
from replicator.charter.chain import created_of
from replicator.charter.verify import NO_PREVIOUS, below_floors, signed_hash
from replicator.config import counted
from replicator.crypto.derive import hkdf
from replicator.crypto.seal import seal_box
from replicator.crypto.sign import Context
from replicator.engine.audit import survey
from replicator.engine.beside import Beside, BesideReport
from replicator.engine.commands import PipedCommand
from replicator.engine.dismissed import dismissed
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.findings import Findings, KeptFinding, advice_for, in_words
from replicator.engine.frames import Setup
from replicator.engine.heads import KnownHead, newest_heads
from replicator.engine.idfile import ID_SIZE, IdCollector, IdFile
from replicator.engine.node import NodeHome
from replicator.engine.ownchain import chain_end, note_continued
from replicator.engine.placing import objects_of
from replicator.engine.prepare import Preparation, Troubles
from replicator.engine.publish import Published, Publisher, note_sent, pending, sent_head, withdraw
from replicator.engine.readers import Readers
from replicator.engine.references import write_references
from replicator.engine.relying import learn_what_is_gone
from replicator.engine.sink import MOST_MISSING, PackingSink
from replicator.engine.spool import Spool
from replicator.engine.sync import read_snapshot, sync_chain
from replicator.errors import ForkedError, IntegrityError, KeyMissingError, ReplicatorError, UsageError
from replicator.format.codec import encode
from replicator.format.container import Kind
from replicator.format.index import Index, IndexedPack
from replicator.format.merkle import name_of
from replicator.format.policy import policy_id
from replicator.format.snapshot import Head, Seen, Snapshot, SnapshotDetails
from replicator.ids import ObjectName, short
from replicator.pack.keys import DomainKeys, snapshot_context
from replicator.pack.sealed import seal_object
from replicator.snapshot.capture import Captured, Counts, Owners, Took, capture
from replicator.snapshot.gaps import Gap
from replicator.snapshot.piped import PipedReader, PipedSource
from replicator.snapshot.rules import Rules
from replicator.snapshot.sink import ChunkPutter
from replicator.snapshot.statcache import StatCache, StatCacheWriter
from replicator.snapshot.tree import escape
from replicator.snapshot.walk import OpenFile, PosixSource, Source

LARGE_FROM = 4 * 10**12
"""From this many bytes in a dataset's newest snapshot on, chunks average 1 MiB instead of 256 KiB."""
MAX_INDEX_IDS = 250_000
MAX_GAPS = 1000
_STOPPING = ("fork", "interleaved")

_log = logging.getLogger(__name__)

MakeBeside = Callable[[NodeHome, Edge], Beside]


@dataclass(slots=True)
class DatasetReport:
    """What one dataset's backup came to. ``snapshot`` is None if nothing was committed.

    ``skipped`` was left out by rule and named, as far as ``skipped_by_reason``, which counts all, is not too much.
    ``troubles`` are those of its hooks and of file systems' snapshots, which its own may be whole in spite of.
    """

    dataset: str
    snapshot: SnapshotRow | None = None
    published: bool = False
    files: int = 0
    bytes: int = 0
    bytes_read: int = 0
    unchanged: int = 0
    new_chunks: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0
    gaps: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_by_reason: dict[str, int] = field(default_factory=dict)
    debts: list[str] = field(default_factory=list)
    owed: list[str] = field(default_factory=list)
    error: ReplicatorError | None = None
    troubles: Troubles = field(default_factory=Troubles)
    beside: BesideReport | None = None


@dataclass(slots=True)
class BackupReport:
    """What a run came to, dataset by dataset."""

    datasets: list[DatasetReport] = field(default_factory=list)
    finished_before: list[SnapshotRow] = field(default_factory=list)
    sent_objects: int = 0
    sent_bytes: int = 0
    notices: list[str] = field(default_factory=list)
    integrity: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    seconds: float = 0.0
    troubles: Troubles = field(default_factory=Troubles)
    """Of putting right what killed runs left."""


async def backup(
    node: NodeHome,
    edge: Edge,
    names: Sequence[str] = (),
    *,
    tags: Sequence[str] = (),
    source: Source | None = None,
    command: PipedCommand | None = None,
    spool_limit: int | None = None,
    overlap: bool = True,
    readers: int = 0,
    beside: MakeBeside | None = None,
) -> BackupReport:
    """Back up the named datasets, all with paths by default, after publishing what an earlier run left.

    ``command`` is what the one named dataset is read from, which has no paths.

    Their snapshots get ``tags``. ``overlap`` sends packs while more are being captured; ``readers`` processes read
    files of this machine, 0 lets the capturing thread do it. ``beside`` makes the archives that datasets want beside;
    without it there are none. One dataset's failure stops no other.

    Raises:
        UsageError: there is no dataset, or one that takes what a command writes and no command, or the reverse.
        LockedError: another run works here.
    """
    datasets = _chosen(node, names, command)
    report = BackupReport()
    async with begun(
        node,
        edge,
        report,
        source=source or PosixSource(),
        commands={} if command is None else {datasets[0].name: command},
        tags=tags,
        spool_limit=spool_limit,
        overlap=overlap,
        readers=readers,
    ) as run:
        run.beside = None if beside is None else beside(node, edge)
        for dataset in datasets:
            report.datasets.append(await run.dataset(dataset))
        await run.commit_withdrawn(report)
        if not names and all(done.error is None for done in report.datasets):
            run.tidy_spool()
    return report


@asynccontextmanager
async def begun(
    node: NodeHome,
    edge: Edge,
    report: BackupReport,
    *,
    source: Source,
    commands: Mapping[str, PipedCommand],
    tags: Sequence[str] = (),
    spool_limit: int | None = None,
    overlap: bool = True,
    readers: int = 0,
) -> AsyncIterator["Run"]:
    """Give a run that has published what earlier ones left; ``report`` is filled when it is done with.

    Raises:
        LockedError: another run works here.
    """
    started = edge.clock.monotonic()
    with node.lock(), closing(node.seen(edge.rng)) as seen:
        spool = node.spool(spool_limit)
        async with Federation(node, edge) as federation:
            run = Run(
                *(node, edge, federation, spool, seen, source, commands),
                tags=tuple(dict.fromkeys(tags)),
                overlap=overlap,
                readers=readers,
            )
            await run.preparation.recover(report.troubles)
            await run.adopt(report)
            await run.publish_pending(report)
            yield run
            report.sent_objects = run.publisher.sender.sent_objects
            report.sent_bytes = run.publisher.sender.sent_bytes
            report.notices += federation.notices
            report.integrity = federation.integrity
            report.unreachable = [str(error) for error in federation.failures.values()]
    report.seconds = edge.clock.monotonic() - started


def _chosen(node: NodeHome, names: Sequence[str], command: PipedCommand | None) -> list[Dataset]:
    known = node.catalog.datasets.all()
    if not known:
        raise UsageError("there is no dataset to back up", hint="add one: replicator dataset add NAME PATH...")
    if not names and command is None:
        return [dataset for dataset in known if dataset.roots]
    chosen = [node.catalog.datasets.get(name) for name in names]
    if command is not None and len(chosen) != 1:
        raise UsageError("a command's output is one dataset's", hint="name one: replicator backup NAME ...")
    for dataset in chosen:
        if command is not None and dataset.roots:
            raise UsageError(
                f"dataset '{dataset.name}' has paths and takes no command's output",
                hint="make one that does: replicator dataset add NAME --stdin",
            )
        if command is None and not dataset.roots:
            raise UsageError(
                f"dataset '{dataset.name}' takes what a command writes, and there is no command",
                hint=f"replicator backup {dataset.name} --stdin-from-command --as FILE -- COMMAND ...",
            )
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known of a snapshot that another program took, earlier, and that is only written here.

    ``gaps`` is what did not come along, beside what cannot be read.
    """

    created_ns: int
    host: str
    owners: Owners
    gaps: Sequence[Gap] = ()


class Run:
    """One run over some datasets."""

    def __init__(
        self,
        node: NodeHome,
        edge: Edge,
        federation: Federation,
        spool: Spool,
        seen: SeenChunks,
        source: Source,
        commands: Mapping[str, PipedCommand],
        *,
        tags: tuple[str, ...],
        overlap: bool,
        readers: int,
    ) -> None:
        self.node = node
        self.edge = edge
        self.federation = federation
        self.spool = spool
        self.seen = seen
        self.tags = tags
        self.commands = commands
        """What datasets without paths are read from."""
        self.preparation = Preparation(node, edge, source)
        self.overlap = overlap
        self.readers = readers
        self.publisher = Publisher(node, federation, edge, spool)
        self.stopped: ForkedError | None = None
        """Why nothing is published in this run."""
        self.adopted = False
        self.beside: Beside | None = None
        self.past: Past | None = None
        """Whose snapshots these are, if they are not taken now."""
        self.avoided: set[int] = set()
        """Packs that are to go: nothing new relies on them."""
        self.withdrawn: dict[str, tuple[str, ...]] = {}
        """Datasets whose waiting snapshot gave way to one that could be published, with its tags."""

    async def adopt(self, report: BackupReport) -> None:
        """Follow our own chain if peers have witnessed more of it than this home remembers."""
        heads = await newest_heads(self.node, self.federation)
        known = heads.get(self.node.identity)
        self._stop_if_forked()
        await self._take_formers(heads)
        if known is not None and self.stopped is None:
            await self._follow(known, report)
            self._stop_if_forked()
        if self.federation.changed_stores and not self.adopted:
            await survey(self.node, self.federation, self.edge, count=0)
        await learn_what_is_gone(self.node, self.federation, self.edge)
        self.avoided = dismissed(self.node)
        self.publisher.ground.refresh()
        if known is not None and self.stopped is None:
            await self._show_again(known)

    async def _take_formers(self, heads: Mapping[bytes, KnownHead]) -> None:
        """Learn anew what this node wrote under keys that it had before, if it has forgotten: it claims that too."""
        fresh = 0
        for former in sorted(self.node.formers & heads.keys()):
            try:
                fresh += await sync_chain(self.node, self.federation, heads[former])
            except ReplicatorError as error:
                self.federation.notices.append(f"chain of this node's former key {short(former)}: {error}")
        if fresh:
            self.adopted = True
            await survey(self.node, self.federation, self.edge, count=0)

    async def _follow(self, known: KnownHead, report: BackupReport) -> None:
        """Adopt what peers have witnessed of our own chain beyond what this home remembers."""
        try:
            await self._compare_pending(known)
            note_continued(self.node, self.federation, known)
            adopted = await sync_chain(self.node, self.federation, known)
        except ForkedError as error:
            if any(kept.noted_ns and kept.finding.kind == "fork" for kept in self._own_findings()):
                self.federation.notices.append(f"own chain: {error}")
                return
            self.stopped = error
            self.federation.integrity.append(f"own chain: {error}")
            return
        except ReplicatorError as error:
            self.federation.notices.append(f"own chain: {error}")
            return
        if adopted:
            self.adopted = True
            report.notices.append(
                f"peers have seen {counted(adopted, 'snapshot')} of this node that its home did not know; it goes on "
                f"after {'it' if adopted == 1 else 'them'}"
            )
            # Who holds what is not known any more: ask, before everything would be sent again.
            await survey(self.node, self.federation, self.edge, count=0)

    def _own_findings(self) -> list[KeptFinding]:
        return [kept for kept in Findings(self.node).all() if kept.finding.writer == self.node.identity]

    def _stop_if_forked(self) -> None:
        """Publish nothing while there is open evidence that somebody else writes with our key."""
        for kept in self._own_findings():
            if kept.open and kept.finding.kind in _STOPPING:
                text = f"{in_words(self.node, kept.finding)} (finding {kept.id})"
                if text not in self.federation.integrity:
                    self.federation.integrity.append(text)
                self.stopped = ForkedError(
                    f"nothing is published while this is open: {text}",
                    hint=f"{advice_for(kept.finding)}; `replicator findings show {kept.id}` has the evidence, "
                    f"`replicator findings acknowledge {kept.id}` lets backups go on",
                )

    async def _show_again(self, known: KnownHead) -> None:
        """Let providers that have seen less of our chain than was published witness its newest head."""
        newest = self.node.catalog.snapshots.newest(
            "writer = ? AND published_ns != 0 AND length(head) > 0", (self.node.identity,)
        )
        if newest is not None and newest.number >= known.head.number:
            behind = {sight.provider for sight in known.sights if sight.number < newest.number}
            await self.publisher.witness_again(newest, behind)

    async def _compare_pending(self, known: KnownHead) -> None:
        """Find out what became of our waiting snapshots if peers know our chain at least as far.

        A home that was put back from an older copy may have some that its later life published, or made anew.
        """
        waiting = {row.number: row for row in pending(self.node) if row.number <= known.head.number}
        if not waiting:
            return
        name, number = ObjectName(known.head.snapshot), known.head.number
        chain: dict[int, ObjectName] = {}
        while number >= min(waiting):
            chain[number] = name
            if number > min(waiting):
                snapshot, _ = await read_snapshot(self.node, self.federation, name, known.seen_by)
                name = ObjectName(snapshot.previous_snapshot)
            number -= 1
        for number, row in sorted(waiting.items()):
            if chain[number] == row.name:
                note_sent(self.node, row)
                if number < known.head.number:
                    self.node.catalog.snapshots.published(row.name, row.created_ns)
            elif number <= sent_head(self.node):
                raise ForkedError(
                    f"snapshot {number} of this chain is {short(row.name)} here and {short(chain[number])} at peers: a "
                    "fork",
                    hint="two machines write with one key (a cloned disk?): enrol one of them anew with `node request`",
                )
            else:
                withdraw(self.node, self.spool, number)
                return

    async def publish_pending(self, report: BackupReport) -> None:
        """Publish what earlier runs committed, oldest first; stop at the first that cannot be."""
        if self.stopped is not None:
            return
        for snapshot in pending(self.node):
            try:
                await self.publisher.publish(snapshot)
            except ReplicatorError as error:
                self.federation.notices.append(
                    f"snapshot {snapshot.number} of '{snapshot.dataset}' still waits: {error}"
                )
                return
            report.finished_before.append(snapshot)

    async def dataset(self, dataset: Dataset) -> DatasetReport:
        """Capture, commit and publish one dataset; failures are in the report."""
        report = DatasetReport(dataset=dataset.name)
        try:
            if self.stopped is not None:
                raise self.stopped
            floors = below_floors(dataset.policy, self.node.charter.root)
            if floors:
                raise UsageError(f"dataset '{dataset.name}': {'; '.join(floors)}", hint="raise the dataset's policy")
            report.snapshot = await self._commit(dataset, report, self.tags)
            if await self._make_way(report.snapshot):
                report.snapshot = await self._commit(dataset, report, self.tags)
            for snapshot in pending(self.node):
                published = await self.publisher.publish(snapshot)
                if snapshot.name == report.snapshot.name:
                    _take(report, published)
            await self._tend_beside(dataset, report)
        except ReplicatorError as error:
            report.error = error
        return report

    async def past_dataset(self, dataset: Dataset, source: Source, past: Past, tags: tuple[str, ...]) -> DatasetReport:
        """Write and publish a snapshot that another program took, as read from ``source``."""
        self.preparation = Preparation(self.node, self.edge, source)
        self.past, self.tags = past, tags
        return await self.dataset(dataset)

    async def _tend_beside(self, dataset: Dataset, report: DatasetReport) -> None:
        if self.beside is not None and report.beside is not None:
            await self.beside.tend(dataset, report.beside)

    async def _make_way(self, snapshot: SnapshotRow) -> bool:
        """Withdraw snapshots of other datasets that wait before this one and cannot go, if this one could.

        There is one chain for all datasets, and a promise that cannot be kept for one must not keep back the others.
        Returns whether this one was withdrawn with them, to be committed again in their place.
        """
        waiting = pending(self.node)
        try:
            for earlier in waiting:
                if earlier.name == snapshot.name:
                    return False
                await self.publisher.publish(earlier)
        except ReplicatorError as error:
            possible = earlier.dataset != snapshot.dataset and earlier.number > sent_head(self.node)
            if snapshot in pending(self.node) and possible and await self._could_go(snapshot):
                self.federation.notices.append(
                    f"snapshot {earlier.number} of '{earlier.dataset}' makes way, its data stays for the next: {error}"
                )
                withdraw(self.node, self.spool, earlier.number)
        left = {row.name for row in self.node.catalog.snapshots.all("writer = ?", (self.node.identity,))}
        gone = [row for row in waiting if row.name not in left]
        self.withdrawn |= {row.dataset: row.tags for row in gone if row.name != snapshot.name}
        return snapshot in gone

    async def _could_go(self, snapshot: SnapshotRow) -> bool:
        try:
            await self.publisher.prepare(snapshot, Published())
        except ReplicatorError:
            return False
        return True

    async def commit_withdrawn(self, report: BackupReport) -> None:
        """Commit anew, behind what was published, the datasets whose waiting snapshots made way."""
        waiting = {row.dataset for row in pending(self.node)}
        known = {dataset.name: dataset for dataset in self.node.catalog.datasets.all()}
        for name in sorted((self.withdrawn.keys() & known.keys()) - waiting):
            done = next((one for one in report.datasets if one.dataset == name), None)
            if not known[name].roots and name not in self.commands:
                self.federation.notices.append(
                    f"'{name}': its waiting snapshot made way for another; run its command again"
                )
                continue
            if done is None:
                # Nobody reads its report, but somebody has to hear of what its hooks do wrong.
                done = DatasetReport(dataset=name, troubles=report.troubles)
            if done.published:
                continue
            try:
                done.snapshot = await self._commit(known[name], done, self.withdrawn[name])
            except ReplicatorError as error:
                self.federation.notices.append(f"'{name}': {error}")

    def tidy_spool(self) -> None:
        """Let go of sealed objects that no snapshot came to need, unless one still waits for the next run."""
        node = self.node
        if pending(node):
            return
        objects = node.catalog.objects
        needed = {row.id for row in objects_of(node, node.catalog.snapshots.all("writer = ?", (node.identity,)))}
        for row in objects.settle_spooled(needed):
            self.spool.drop(row.name)

    async def _commit(self, dataset: Dataset, report: DatasetReport, tags: tuple[str, ...]) -> SnapshotRow:
        """Capture a dataset between its hooks and write the signed snapshot; on return it is durable in the spool."""
        _check_living(self.node, dataset)

        async def commit(source: Source) -> SnapshotRow:
            row = await self._commit_from(source, dataset, report, tags)
            if self.beside is not None and dataset.also_borg and dataset.roots and report.beside is None:
                report.beside = await self.beside.archive(dataset, rules_of(dataset), source, row)
            return row

        return await self.preparation.around(dataset, report.troubles, commit)

    async def _commit_from(
        self, source: Source, dataset: Dataset, report: DatasetReport, tags: tuple[str, ...]
    ) -> SnapshotRow:
        node, edge = self.node, self.edge
        keys = node.keys(dataset.domain or None)
        now = edge.clock.now_ns()
        stream = _PackStream(asyncio.get_running_loop(), self.spool if self.overlap else None)
        policies = node.catalog.datasets.policies()
        policies[node.catalog.datasets.remember(dataset.policy)] = dataset.policy
        path = node.cache_file("needed", "set")
        sink = PackingSink(
            keys=keys,
            policy=dataset.policy,
            policies=policies,
            objects=node.catalog.objects,
            seen=self.seen,
            spool=self.spool,
            needed=lambda: IdCollector(node.fs, path),
            writer=node.identity,
            rng=edge.rng,
            now_ns=now,
            emitted=stream.emitted,
            avoided=self.avoided,
        )
        cache_key = hkdf(keys.id_key, label=b"stat cache")
        cache_name = hkdf(cache_key, label=b"cache file", context=dataset.name.encode(), length=8).hex()
        cache_path = node.cache_file(f"stat-{cache_name}.db")
        cache = StatCache.open(cache_path, cache_key)
        record = StatCacheWriter(f"{cache_path}.next", cache_key, now_ns=now)
        try:
            edge.progress.stage(f"reading {dataset.name}")
            captured = await self._capture(source, dataset, keys, sink, cache, record, stream)
            needed, missing = await asyncio.to_thread(sink.settle)
            if missing:
                _log.info("%s: what %d chunks or more came from is read again", dataset.name, len(missing))
                record.abandon()
                record = StatCacheWriter(f"{cache_path}.next", cache_key, now_ns=now)
                sink.again(missing)
                report.bytes_read += captured.counts.bytes_read
                few = len(missing) <= MOST_MISSING
                captured = await self._capture(source, dataset, keys, sink, cache if few else None, record, stream)
                needed, missing = await asyncio.to_thread(sink.settle)
                _insist_on_none(dataset, missing)
            row = await self._write_snapshot(dataset, keys, sink, captured, needed, now, tags)
            self.seen.sync()
            record.commit_as(cache_path, node.fs)
        except BaseException:
            record.abandon()
            raise
        finally:
            sink.close()
            cache.close()
        _fill(report, sink, captured, () if self.past is None else self.past.gaps)
        return row

    async def _capture(
        self,
        source: Source,
        dataset: Dataset,
        keys: DomainKeys,
        sink: PackingSink,
        cache: StatCache | None,
        record: StatCacheWriter,
        stream: "_PackStream",
    ) -> Captured:
        newest = [row.size for row in self.node.catalog.snapshots.all("dataset = ?", (dataset.name,))]
        params = LARGE if newest and newest[-1] >= LARGE_FROM else SMALL
        cutter = Chunker.from_params(keys.cut_key, params)
        seen = 0

        def progress(counts: Counts, _path: bytes) -> None:
            nonlocal seen
            if stream.stopped:
                raise _StoppedError
            if counts.bytes - seen >= _REPORT_EVERY:
                self.edge.progress.advance(counts.bytes - seen)
                seen = counts.bytes

        roots = dataset.roots
        command = self.commands.get(dataset.name)
        if command is not None:
            source = self._piped(command, dataset, stream)
            roots = (source.root,)

        def piped(lists: ChunkPutter, took: Took) -> PipedReader:
            return PipedReader(sink, lists, cutter, took)

        def work() -> Captured:
            with self._readers(source, dataset, keys, params, sink) as readers:
                captured = capture(
                    roots,
                    sink=sink,
                    chunker=cutter,
                    source=source,
                    reader=piped if command is not None else None if readers is None else readers.attach,
                    cache=cache,
                    record=record,
                    rules=rules_of(dataset),
                    progress=progress,
                    owners=None if self.past is None else self.past.owners,
                )
                if readers is not None:
                    readers.finish()
            sink.finish()
            self.edge.progress.advance(captured.counts.bytes - seen)
            return captured

        if not self.overlap:
            return work()
        for row in self.node.catalog.objects.waiting_packs():
            stream.emitted(row.id, row.size)  # left by an earlier run, and in the way of this one
        sending = asyncio.ensure_future(self._send_while(stream))
        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            captured = await asyncio.shield(working)
        except BaseException:
            stream.stopped = True
            sending.cancel()  # what it has not sent is in the spool; a peer that hangs must hold nobody up
            raise
        finally:
            stream.close()
            try:
                await asyncio.gather(sending, return_exceptions=True)
            finally:
                await _settled(working)  # an after-hook must not take away what is still being read
        sending.result()
        return captured

    def _piped(self, command: PipedCommand, dataset: Dataset, stream: "_PackStream") -> PipedSource:
        edge = self.edge

        def begin() -> OpenFile:
            return command.begin(edge.programs, edge.environment, dataset.name, lambda: stream.stopped)

        return PipedSource(command.name, begin, now_ns=edge.clock.now_ns())

    def _readers(
        self, source: Source, dataset: Dataset, keys: DomainKeys, params: ChunkerParams, sink: PackingSink
    ) -> AbstractContextManager[Readers | None]:
        """Return the processes that read files; none if a source is not what other processes see."""
        if not self.readers or not isinstance(source, PosixSource):
            return nullcontext()
        [domain] = [domain for domain in self.node.member.domains if domain.id == keys.domain]
        setup = Setup(
            tenant=keys.tenant,
            domain=domain,
            policy=policy_id(dataset.policy),
            coding=dataset.policy.coding,
            sizes=(params.minimum, params.average, params.maximum),
            spool=self.spool.path,
            threads=self.readers,
        )
        return Readers(setup, sink, self.readers)

    async def _send_while(self, stream: "_PackStream") -> None:
        """Send packs as they are sealed. What cannot be sent now is left to publishing."""
        objects = self.node.catalog.objects
        try:
            while batch := await stream.next_batch():
                rows = objects.all(f"id IN ({','.join('?' * len(batch))})", tuple(batch))
                plan = await self.publisher.sender.settle(rows)
                refused = {refusal.pack for refusal in plan.refused}
                # Enough copies: the spool needs room more than a copy that peers have.
                for row in objects.stored(row for row in rows if row.name.hex() not in refused):
                    self.spool.drop(row.name)
                    objects.unspool(row.id)
        finally:
            self.spool.sending(active=False)

    async def _write_snapshot(
        self,
        dataset: Dataset,
        keys: DomainKeys,
        sink: PackingSink,
        captured: Captured,
        needed: IdFile,
        now: int,
        tags: tuple[str, ...],
    ) -> SnapshotRow:
        node = self.node
        await self._sync_packs()
        indexes = self._write_indexes(keys, sink, now)
        references = write_references(node, self.edge, self.spool, keys, dataset.name, needed, now)
        last = chain_end(node)
        number = last.number + 1 if last else 1
        past = self.past
        taken_ns = now if past is None else past.created_ns
        gaps = [*captured.gaps, *(() if past is None else past.gaps)][:MAX_GAPS]
        details = SnapshotDetails(
            dataset=dataset.name,
            host=self.edge.host if past is None else past.host,
            roots=captured.roots,
            tree=captured.tree,
            tags=list(tags),
            gaps=[gap.path for gap in gaps],
        )
        context = snapshot_context(keys, node.identity, number)
        snapshot = Snapshot(
            tenant=node.tenant,
            domain=keys.domain,
            writer=node.identity,
            number=number,
            previous=last.hash if last else NO_PREVIOUS,
            previous_snapshot=last.snapshot if last else NO_PREVIOUS,
            charter=node.charter.number,
            created_ns=max(taken_ns, created_of(last) + 1) if last else taken_ns,
            partial=False,
            policy=dataset.policy,
            indexes=list(indexes),
            references=list(references),
            objects=len(sink.packs) + len(sink.new_packs),
            size=captured.counts.bytes,
            files=captured.counts.files,
            seen=self._seen(),
            sealed=seal_box(
                keys.restore_key, keys.mix, keys.tenant, keys.domain, encode(details), context, self.edge.rng
            ),
        )
        signed = node.signing.sign(Context.SNAPSHOT, encode(snapshot))
        data = seal_object(Kind.SNAPSHOT, signed, keys, self.edge.rng)
        name = name_of(data)
        head = Head(
            tenant=node.tenant,
            writer=node.identity,
            number=number,
            previous=snapshot.previous,
            snapshot=name,
            created_ns=snapshot.created_ns,
        )
        row = SnapshotRow(
            name=name,
            writer=node.identity,
            number=number,
            dataset=dataset.name,
            created_ns=snapshot.created_ns,
            published_ns=0,
            policy=policy_id(dataset.policy),
            files=snapshot.files,
            size=snapshot.size,
            partial=False,
            indexes=indexes,
            references=references,
            head=node.signing.sign(Context.HEAD, encode(head)),
            gaps=tuple((escape(gap.path), gap.reason) for gap in gaps),
            tags=tags,
        )
        self.spool.put(name, data)
        with node.catalog.database.transaction("snapshot row"):
            node.catalog.objects.add(
                name=name, writer=node.identity, kind="snapshot", size=len(data), spooled=True, created_ns=now
            )
            node.catalog.snapshots.put(row)
        return row

    async def _sync_packs(self) -> None:
        """Make durable what is still in the spool: from here on an index names it, and a snapshot relies on it."""
        objects = self.node.catalog.objects
        rows = objects.unsynced()
        if rows:
            await asyncio.to_thread(self.spool.sync, [row.name for row in rows])
            objects.set_synced(row.id for row in rows)

    def _write_indexes(self, keys: DomainKeys, sink: PackingSink, now: int) -> tuple[bytes, ...]:
        """Write index objects for needed packs that no index names yet; return all that this snapshot needs.

        Other packs that wait in the spool are left out: a snapshot stands and falls with all that its indexes name.
        """
        node = self.node
        policies = node.catalog.datasets.policies()
        needed = sink.packs | set(sink.new_packs)
        fresh = [
            row for row in node.catalog.objects.all("index_id IS NULL AND kind IN ('data', 'tree')") if row.id in needed
        ]
        while fresh:
            batch: list[ObjectRow] = []
            listed: list[IndexedPack] = []
            count = 0
            while fresh and (not batch or count < MAX_INDEX_IDS):
                row = fresh.pop(0)
                ids = node.catalog.objects.chunk_ids(row.id)
                count += len(ids) // ID_SIZE
                shards = node.catalog.objects.shards_of(row)
                batch.append(row)
                listed.append(
                    IndexedPack(
                        name=row.name,
                        size=row.size,
                        kind=int(Kind.DATA_PACK if row.kind == "data" else Kind.TREE_PACK),
                        policy=row.policy,
                        shards=[] if shards is None else [shard.name for shard in shards.rows],
                        ids=ids,
                    )
                )
            used = sorted({row.policy for row in batch})
            index = Index(
                tenant=node.tenant,
                domain=keys.domain,
                writer=node.identity,
                created_ns=now,
                policies=[policies[key] for key in used],
                packs=listed,
            )
            data = seal_object(Kind.INDEX, node.signing.sign(Context.INDEX, encode(index)), keys, self.edge.rng)
            name = name_of(data)
            self.spool.put(name, data)
            with node.catalog.database.transaction("index row"):
                row_id = node.catalog.objects.add(
                    name=name, writer=node.identity, kind="index", size=len(data), spooled=True, created_ns=now
                )
                node.catalog.objects.set_index([row.id for row in batch], row_id)
        return node.catalog.objects.index_names(needed)

    def _seen(self) -> list[Seen]:
        """How far this home has seen other writers' chains: what makes a fork permanent and provable."""
        newest: dict[bytes, SnapshotRow] = {}
        for row in self.node.catalog.snapshots.all("writer != ?", (self.node.identity,)):
            newest[row.writer] = max(newest.get(row.writer, row), row, key=lambda one: one.number)
        return [
            Seen(writer=writer, number=row.number, head=signed_hash(row.head)) for writer, row in sorted(newest.items())
        ]


_REPORT_EVERY = 1 << 20


class _StoppedError(Exception):
    """The run is being ended; the capturing thread stops at the next entry."""


class _PackStream:
    """Packs from the capturing thread to the sending loop. The spool is told whether any are on their way out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spool: Spool | None) -> None:
        self._loop = loop
        self._spool = spool
        self._lock = threading.Lock()
        self._waiting: list[int] = []
        self._closed = False
        self._wake = asyncio.Event()
        self.stopped = False

    def emitted(self, object_id: int, _size: int) -> None:
        """Hand over one pack; called from the capturing thread."""
        if self._spool is None:
            return
        with self._lock:
            self._waiting.append(object_id)
            self._spool.sending(active=True)
        self._loop.call_soon_threadsafe(self._wake.set)

    def close(self) -> None:
        """Say that no more will come."""
        self._closed = True
        self._wake.set()

    async def next_batch(self) -> list[int]:
        """Return what has come since the last call, waiting for something; empty once closed and drained."""
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch and self._spool is not None:
                    self._spool.sending(active=False)
            if batch or self._closed:
                return batch
            self._wake.clear()
            await self._wake.wait()


def rules_of(dataset: Dataset) -> Rules:
    """Return what a dataset leaves out, as a capture takes it."""
    return Rules(
        exclude=dataset.exclude,
        one_file_system=dataset.one_file_system,
        keep_caches=dataset.keep_caches,
        markers=[os.fsencode(name) for name in dataset.exclude_if_present],
        largest=dataset.exclude_larger_than,
    )


async def _settled(work: "asyncio.Task[Captured]") -> None:
    """Wait until a capture that was told to stop has ended; being cancelled meanwhile tells nothing new."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    if not work.cancelled():
        work.exception()


def _check_living(node: NodeHome, dataset: Dataset) -> None:
    """Refuse to seal what nobody could ever open."""
    try:
        node.check_living(dataset.domain)
    except KeyMissingError as error:
        raise UsageError(
            f"dataset '{dataset.name}': {error.message}, and what is written there nobody can read",
            hint=f"`dataset set {dataset.name} --domain D` puts it into another, `dataset remove` ends it",
        ) from error


def _insist_on_none(dataset: Dataset, missing: Sequence[bytes]) -> None:
    if missing:
        raise IntegrityError(
            f"dataset '{dataset.name}': chunks that were just stored are in no pack of this node",
            hint="check this machine's memory and disk (`dmesg`), then run again; nothing was published",
        )


def _fill(report: DatasetReport, sink: PackingSink, captured: Captured, more: Sequence[Gap]) -> None:
    report.files = captured.counts.files
    report.bytes = captured.counts.bytes
    report.unchanged = captured.counts.unchanged
    # A snapshot that is committed twice in a run, to take another's place, has read and stored once.
    report.bytes_read += captured.counts.bytes_read
    report.new_chunks += sink.new_chunks
    report.new_bytes += sink.new_bytes
    report.stored_bytes += sink.stored_bytes
    report.gaps = [(escape(gap.path), gap.reason) for gap in (*captured.gaps, *more)]
    report.skipped = [(escape(gap.path), gap.reason) for gap in captured.skipped]
    report.skipped_by_reason = captured.skipped_by_reason


def _take(report: DatasetReport, published: Published) -> None:
    report.published = True
    report.debts = published.debts
    report.owed = published.owed
