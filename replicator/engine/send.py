"""Bring objects to peers until the plan is carried out or nothing more can be done in this run."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from replicator.catalog.objects import ObjectRow, Shards
from replicator.config import format_size
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link, check_receipt, patiently
from replicator.engine.givenup import take_back
from replicator.engine.placing import PACK_KINDS, Ground, pack_id, peer_id
from replicator.engine.pulls import Pulls
from replicator.engine.shards import Cut, fetch_shards, make_shards
from replicator.engine.spool import Spool
from replicator.errors import BusyError, NotFoundError, PeerError, RefusedError
from replicator.format.policy import Policy
from replicator.ids import Identity, ObjectName
from scheduler import PackId, Plan, Repair

STREAMS = 3
"""Uploads to one peer at the same time; providers allow as many a tenant."""
_BULKY = (*PACK_KINDS, "shard")
_MADE = 4
"""Packs of which shards that were made again stay in memory until each has gone to its peer; at most 16 MiB each."""
_MEASURED_S = 60.0
"""How long a rate is measured before it is believed."""


@dataclass(frozen=True, slots=True)
class Turn:
    """When a pack's copies are made: ``at`` counts from 0; and why then."""

    at: int
    repair: Repair


def in_order(ground: Ground, plan: Plan, rows: Iterable[ObjectRow]) -> dict[PackId, Turn]:
    """Return whose turn is when, of the packs that a plan makes copies of."""
    wanted = {addition.pack for addition in plan.additions}
    queue = ground.queue([row for row in rows if pack_id(row.name) in wanted], copies=len(plan.additions))
    return {repair.pack.id: Turn(at, repair) for at, repair in enumerate(queue)}


class Sender:
    """Uploads with receipts. One for a run; a peer that fails is left out for its rest."""

    def __init__(self, ground: Ground, edge: Edge, spool: Spool | None) -> None:
        self.ground = ground
        self.federation: Federation = ground.federation
        self._half = ground.half
        self._edge = edge
        self._spool = spool
        self.pulls = Pulls(ground.half, edge, ground.federation)
        self._gates: dict[Identity, asyncio.Semaphore] = {}
        streams = edge.line.streams if edge.line is not None else None
        self._all = contextlib.nullcontext() if streams is None else asyncio.Semaphore(streams)
        self._shown = False
        self._left = 0
        self._began = 0.0
        self._sent_before = 0
        self._warned = False
        self.sent_objects = 0
        self.sent_bytes = 0
        self.lost: list[ObjectRow] = []
        """Objects, packs in the place of their shards, that cannot be had any more."""
        self._made: OrderedDict[int, dict[int, bytes]] = OrderedDict()
        self._making: dict[int, asyncio.Lock] = {}

    async def settle(self, rows: list[ObjectRow], stage: str = "", *, by_urgency: bool = False) -> Plan:
        """Make the copies that the policies of these packs promise, as far as peers allow.

        ``stage`` names the work on the progress display; without it, uploads go unmentioned beside other work.
        ``by_urgency``: what is likeliest lost is sent first, instead of what was written first.
        Returns the plan as things lie afterwards. Objects whose bytes no answering peer gives are in :attr:`lost`.
        """
        for _ in range(len(self._half.peers) + 2):
            plan = self.ground.plan(rows)
            if await take_back(self.ground, self._edge, plan, rows):
                continue
            rank = in_order(self.ground, plan, rows) if by_urgency else {}
            tasks = self.ground.tasks(plan, rows)
            if rank:
                tasks.sort(key=lambda one: rank[pack_id(one.pack.name)].at)
            links = {peer_id(identity): link for identity, link in self.federation.links.items()}
            wanted = [
                (task.row, links[task.peer]) for task in tasks if task.peer in links and not self._is_lost(task.row)
            ]
            if not wanted or self._is_over:
                break
            if stage:
                self._edge.progress.stage(stage, sum(row.size for row, _ in wanted))
            self._shown = bool(stage)
            await self.send(wanted)
            self._shown = False
        return self.ground.plan(rows, frozen=True)

    async def send(self, wanted: Iterable[tuple[ObjectRow, Link]]) -> None:
        """Upload these copies at the same time, a few streams to each peer. Failures are for the next plan.

        When this machine's night ends, what was begun is finished and nothing else begun.
        """
        wanted = list(wanted)
        self._left = sum(row.size for row, _ in wanted)
        self._began, self._sent_before = self._edge.clock.monotonic(), self.sent_bytes
        await asyncio.gather(*(self._send_one(row, link) for row, link in wanted))

    async def everywhere(self, rows: Iterable[ObjectRow], policy: Policy) -> None:
        """Give records to every answering peer that residency admits and that lacks them."""
        wanted = []
        for row in rows:
            holders = self.ground.held.get(pack_id(row.name), set())
            wanted += [
                (row, link)
                for link in self.ground.record_links(policy)
                if peer_id(link.identity) not in holders and link.free >= row.size
            ]
        await self.send(wanted)

    def _is_lost(self, row: ObjectRow) -> bool:
        name = self._whole(row).name
        return any(name == lost.name for lost in self.lost)

    def _whole(self, row: ObjectRow) -> ObjectRow:
        """Return the pack that a shard is of, and anything else as it is."""
        return self.ground.pack_of(row) if row.kind == "shard" else row

    async def _send_one(self, row: ObjectRow, link: Link) -> None:
        gate = self._gates.setdefault(link.identity, asyncio.Semaphore(STREAMS))
        async with gate, self._all:
            if link.identity not in self.federation.links or link.free < row.size or self._is_lost(row):
                return
            if row.kind in _BULKY and self._is_over:
                return
            try:
                signed = await self._brought(row, link)
                receipt = check_receipt(signed, link, self._half.tenant, row.name, row.size)
            except NotFoundError:
                if not self._is_lost(row):
                    self.lost.append(self._whole(row))
                return
            except RefusedError as error:
                if error.code not in {"quota", "full"}:
                    link.problems.append(error.reason)
                    await self.federation.drop(link, error)
                link.free = 0
                return
            except BusyError as error:
                self._say(str(error))
                link.free = 0
                return
            except PeerError as error:
                await self.federation.drop(link, error)
                return
        link.free -= row.size
        self._half.catalog.objects.held(
            row.id,
            link.identity,
            incarnation=receipt.incarnation,
            receipt=signed,
            received_ns=self._edge.clock.now_ns(),
        )
        self.ground.add(row.name, link.identity)
        self.sent_objects += 1
        self.sent_bytes += row.size
        self._left -= row.size
        self._look_ahead()
        if self._shown:
            self._edge.progress.advance(row.size)

    @property
    def _is_over(self) -> bool:
        """Whether this machine sends no more packs now; says so once. Records are small, and complete what is there."""
        line = self._edge.line
        if line is None or not line.is_closed:
            return False
        self._say(f"sending stops for the day and goes on at {line.opens}")
        return True

    def _look_ahead(self) -> None:
        """Say once if what is being sent will not be through when the night ends."""
        line, seconds = self._edge.line, self._edge.clock.monotonic() - self._began
        if line is None or self._warned or self._left <= 0 or seconds < _MEASURED_S:
            return
        found = line.forecast(self._left, (self.sent_bytes - self._sent_before) / seconds)
        if found is None or not found.is_late or found.closes is None:
            return
        self._warned = True
        self._say(
            f"will not finish by {line.wall(found.closes)}: {format_size(found.left)} are left at "
            f"{format_size(round(found.rate))} a second; about {format_size(found.unsent)} wait for the next night"
        )

    def _say(self, text: str) -> None:
        if text not in self.federation.notices:
            self.federation.notices.append(text)

    async def _brought(self, row: ObjectRow, link: Link) -> bytes:
        """Have a copy made at a provider, by itself from another holder if it can; return the signed receipt.

        Raises:
            NotFoundError: nobody gives the bytes.
            PeerError: the provider does not take it.
        """
        if not self._is_spooled(row):
            holders = self.ground.held.get(pack_id(row.name), set())
            answering = {identity for identity in self.federation.links if peer_id(identity) in holders}
            source = self.pulls.source_of(row, answering, link.identity)
            if source is not None:
                signed = await self.pulls.pull(row, source, link)
                if signed is not None:
                    return signed
        data = await self.bytes_of(row)
        return await patiently(self._edge, partial(link.connection.put, row.name, data))

    async def bytes_of(self, row: ObjectRow) -> bytes:
        """Return an object from the spool, else from who has it.

        Raises:
            NotFoundError: nobody who answers gives it.
        """
        if self._spool is not None and self._is_spooled(row):
            try:
                return self._spool.get(row.name)
            except NotFoundError as error:
                # The spool's copy is gone or damaged: say so, and fall back on the peers that have one.
                self._edge.progress.note(str(error))
        holders = [
            identity
            for identity in self.federation.links
            if peer_id(identity) in self.ground.held.get(pack_id(row.name), set())
        ]
        if row.kind == "shard" and not holders:
            return await self._make(row)
        if self._edge.line is not None:
            await self._edge.line.down(row.size)
        try:
            return await self.federation.fetch(row.name, holders)
        except NotFoundError:
            for identity in holders:
                if (identity, row.name) in self.federation.denied:
                    self.ground.remove(row.name, identity)
            if row.kind == "shard":
                return await self._make(row)
            raise

    def _is_spooled(self, row: ObjectRow) -> bool:
        # Rows of shards are as they were when their pack was looked up first in this run.
        return self._spool is not None and row.spooled and (row.kind != "shard" or self._spool.has(row.name))

    async def _make(self, row: ObjectRow) -> bytes:
        """Make a shard of others, and at the same time all others of its pack that nobody who answers has.

        Raises:
            NotFoundError: too few shards of the pack are within reach.
        """
        pack = self.ground.pack_of(row)
        shards = self.ground.shards(pack)
        assert shards is not None, "it is a shard"
        number = shards.rows.index(row)
        async with self._making.setdefault(pack.id, asyncio.Lock()):
            if number not in self._made.get(pack.id, {}):
                cut = Cut.of(shards)
                if self._edge.line is not None:
                    await self._edge.line.down(cut.needed * row.size)
                found = await fetch_shards(self.federation, pack.name, cut, here=self._in_spool(shards))
                missing = {number} | {at for at, one in enumerate(shards.rows) if not self._lies(one)} - found.keys()
                self._made[pack.id] = await make_shards(pack.name, cut, found, missing)
                while len(self._made) > _MADE:
                    self._made.popitem(last=False)
            return self._made[pack.id][number]

    def _lies(self, row: ObjectRow) -> bool:
        links = {peer_id(identity) for identity in self.federation.links}
        return self._is_spooled(row) or not links.isdisjoint(self.ground.held.get(pack_id(row.name), ()))

    def _in_spool(self, shards: Shards) -> Callable[[ObjectName], bytes | None]:
        spooled = {row.name for row in shards.rows if self._is_spooled(row)}

        def get(name: ObjectName) -> bytes | None:
            if self._spool is None or name not in spooled:
                return None
            try:
                return self._spool.get(name)
            except NotFoundError:
                return None

        return get
