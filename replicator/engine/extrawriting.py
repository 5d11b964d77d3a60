"""Writing extra copies (:mod:`replicator.engine.extra`): what a place lacks, from the spool or from providers."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from replicator.catalog.objects import ObjectRow, Shards
from replicator.config import counted
from replicator.engine.edge import Edge
from replicator.engine.extra import (
    Extra,
    MakeBucket,
    extras,
    find_extra,
    keep_extras,
    must_lie_outside,
    naming,
    open_extra,
)
from replicator.engine.federation import Federation
from replicator.engine.home import Half
from replicator.engine.node import NodeHome
from replicator.engine.placing import objects_of
from replicator.engine.repair import published
from replicator.engine.shards import Cut, fetch_shards
from replicator.engine.spool import Spool
from replicator.errors import NotFoundError, ReplicatorError, UsageError
from replicator.ids import ObjectName
from replicator.store.base import ObjectStore
from replicator.store.s3 import open_s3


@dataclass(slots=True, kw_only=True)
class ExtraReport:
    """What one run did for a place. ``unreadable`` are objects that nobody gave."""

    name: str
    place: str
    written: int = 0
    written_bytes: int = 0
    objects: int = 0
    unreadable: int = 0
    error: ReplicatorError | None = None

    @property
    def why(self) -> str:
        """What kept it from being whole; empty if nothing did."""
        if self.error is not None:
            return self.error.message
        return f"{counted(self.unreadable, 'object')} could not be fetched" if self.unreadable else ""


async def write_extras(
    node: NodeHome, edge: Edge, names: Sequence[str] = (), make_bucket: MakeBucket = open_s3
) -> list[ExtraReport]:
    """Bring the named places, all by default, what they lack. What fails in one stops no other, and no backup.

    Raises:
        NotFoundError: there is none of that name.
        LockedError: another run works here.
    """
    chosen = [find_extra(node, name) for name in names] or extras(node)
    if not chosen:
        return []
    reports = []
    with node.lock():
        spool = node.spool()
        async with Federation(node, edge) as federation:
            for extra in chosen:
                report = ExtraReport(name=extra.name, place=extra.place)
                try:
                    with naming(extra):
                        store = open_extra(node, extra, make_bucket)
                        await _Writing(node, edge, federation, spool, store, report).all()
                except ReplicatorError as error:
                    report.error = error
                except OSError as error:
                    report.error = ReplicatorError(f"{extra.place}: {error.strerror}")
                _remember(node, edge, extra, report)
                reports.append(report)
    return reports


def _remember(node: NodeHome, edge: Edge, extra: Extra, report: ExtraReport) -> None:
    now_ns = edge.clock.now_ns()
    if report.error is None and not report.unreadable:
        done = replace(extra, written_ns=now_ns, objects=report.objects, failed_ns=0, error="")
    else:
        done = replace(extra, failed_ns=now_ns, error=report.why)
    keep_extras(node, [done if one.name == extra.name else one for one in extras(node)])


def needed(half: Half) -> tuple[list[ObjectRow], dict[int, Shards]]:
    """Return what the published snapshots that are not forgotten need, and what the packs among it are cut into.

    Also what is lost to every provider: the place may be the last that has it.
    """
    rows = objects_of(half, published(half))
    return rows, half.catalog.objects.shards_in({row.id for row in rows if row.kind == "data"})


def surplus(
    rows: Iterable[ObjectRow], cut: dict[int, Shards], kept: Collection[bytes], have: Iterable[ObjectName]
) -> list[ObjectName]:
    """Return what lies in a place and is needed by nothing that is kept."""
    wanted = {row.name for row in rows} | {shard.name for one in cut.values() for shard in one.rows} | set(kept)
    return sorted(name for name in have if name not in wanted)


def tidy_extra(node: NodeHome, name: str, *, dry_run: bool, make_bucket: MakeBucket = open_s3) -> list[ObjectName]:
    """Delete from a place what no snapshot needs that is not forgotten; return that.

    Raises:
        UsageError: this home knows of no snapshot, or has no keybag, so that more would go than is surplus.
        HomeError: the place is not there.
        LockedError: another run works here.
    """
    extra = find_extra(node, name)
    with node.lock(), naming(extra):
        rows, cut = needed(node)  # nothing is published, or written there, after this
        if not rows:
            raise UsageError(
                "this home knows of no published snapshot, and would delete all", hint="run `backup` first"
            )
        records = {kept for kept, _ in node.recovery_objects()}
        if not records:
            raise UsageError(
                "this home has no keybag yet, and would delete the one that is there",
                hint="run `replicator status` when a provider answers",
            )
        store = open_extra(node, extra, make_bucket)
        gone = surplus(rows, cut, records, [one for one, _ in store.list()])
        if gone and not dry_run:
            store.remove_all(gone)
    return gone


@dataclass(slots=True)
class _Writing:
    """One place being written."""

    node: NodeHome
    edge: Edge
    federation: Federation
    spool: Spool
    store: ObjectStore
    report: ExtraReport
    have: set[ObjectName] = field(default_factory=set)

    async def all(self) -> None:
        must_lie_outside(self.node, find_extra(self.node, self.report.name))
        self.store.prepare()
        self.have = {name for name, _ in self.store.list()}
        rows, cut = needed(self.node)
        lacking = [row for row in rows if not (row.lost or self._has(row, cut))]
        self.edge.progress.stage(f"extra copy {self.report.name}", sum(row.size for row in lacking))
        # Packs before what names them: stopped in between, what is there is whole as far as its records go.
        for row in sorted(lacking, key=lambda row: row.kind not in ("data", "tree")):
            try:
                await self._bring(row, cut.get(row.id))
            except NotFoundError as error:
                self.report.unreadable += 1
                self.edge.progress.note(error.message)
            self.edge.progress.advance(row.size)
        for name, data in self.node.recovery_objects():
            if name not in self.have:
                self._put(name, data)
        self.report.objects = len(self.have)

    def _has(self, row: ObjectRow, cut: dict[int, Shards]) -> bool:
        shards = cut.get(row.id)
        if shards is None:
            return row.name in self.have
        return sum(shard.name in self.have for shard in shards.rows) >= shards.needed

    async def _bring(self, row: ObjectRow, shards: Shards | None) -> None:
        line = self.edge.line
        if line is not None:
            await line.down(row.size)
        if shards is not None:
            cut = Cut.of(shards)
            for number, data in (await fetch_shards(self.federation, row.name, cut, here=self._spooled)).items():
                self._put(cut.names[number], data)
            return
        here = self._spooled(row.name)
        if here is None:
            objects = self.node.catalog.objects
            holders = [one.peer for one in objects.holdings_of(row.id) if one.state == "held"]
            here = await self.federation.fetch_stored(row.name, holders)
        self._put(row.name, here)

    def _spooled(self, name: ObjectName) -> bytes | None:
        try:
            return self.spool.get(name)
        except NotFoundError:
            return None

    def _put(self, name: ObjectName, data: bytes) -> None:
        incoming = self.store.begin(name, len(data))
        try:
            incoming.hash(data)
            incoming.write(data)
            incoming.commit()
        finally:
            incoming.abort()
        self.have.add(name)
        self.report.written += 1
        self.report.written_bytes += len(data)
