"""Bring objects to peers until the plan is carried out or nothing more can be done in this run."""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from replicator.catalog.objects import ObjectRow
from replicator.config import format_size
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link, check_receipt, patiently
from replicator.engine.givenup import take_back
from replicator.engine.placing import PACK_KINDS, Ground, pack_id, peer_id
from replicator.engine.spool import Spool
from replicator.errors import BusyError, NotFoundError, PeerError, RefusedError
from replicator.format.policy import Policy
from replicator.ids import Identity
from scheduler import PackId, Plan, Repair

STREAMS = 3
"""Uploads to one peer at the same time; providers allow as many a tenant."""
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
            by_name = {pack_id(row.name): row for row in rows}
            links = {peer_id(identity): link for identity, link in self.federation.links.items()}
            wanted = [
                (by_name[addition.pack], links[addition.peer])
                for addition in sorted(plan.additions, key=lambda one: rank[one.pack].at if rank else 0)
                if addition.peer in links and not self._is_lost(by_name[addition.pack])
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
        return any(row.name == lost.name for lost in self.lost)

    async def _send_one(self, row: ObjectRow, link: Link) -> None:
        gate = self._gates.setdefault(link.identity, asyncio.Semaphore(STREAMS))
        async with gate, self._all:
            if link.identity not in self.federation.links or link.free < row.size or self._is_lost(row):
                return
            if row.kind in PACK_KINDS and self._is_over:
                return
            try:
                data = await self._bytes_of(row)
            except NotFoundError:
                self.lost.append(row)
                return
            try:
                signed = await patiently(self._edge, partial(link.connection.put, row.name, data))
                receipt = check_receipt(signed, link, self._half.tenant, row.name, row.size)
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

    async def _bytes_of(self, row: ObjectRow) -> bytes:
        if self._spool is not None and row.spooled:
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
        if self._edge.line is not None:
            await self._edge.line.down(row.size)
        try:
            return await self.federation.fetch(row.name, holders)
        except NotFoundError:
            for identity in holders:
                if (identity, row.name) in self.federation.denied:
                    self.ground.remove(row.name, identity)
            raise
