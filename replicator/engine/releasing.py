"""Releasing surplus copies: maintenance signs to a provider that enough others have what it may delete.

The order, after writers let go of a copy (:mod:`.spare`), each step harmless by itself:

    1. every provider's claims are asked, then inventories and marks; a plan says which copies are spare
    2. maintenance claims the copies that stay, with its own key, and everything is asked again if that changed a claim
    3. those that stay are vouched for: receipts that are young enough
    4. a release goes out with these receipts and with owner's word on whose count

A provider refuses what anybody claims there, a view that is not all that it accepted, and receipts that are too few or
too old. So two maintainers that decide at the same time never give up copies on the strength of each other's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from replicator.catalog.objects import HoldingState, ObjectRow
from replicator.clock import DAY_S, NS, SKEW_S
from replicator.crypto.sign import SigningKey, body_of
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link, check_receipt
from replicator.engine.forgetting import without_forgotten
from replicator.engine.givenup import take_back
from replicator.engine.home import Half
from replicator.engine.marked import vouch
from replicator.engine.marking import MarkedAt, Released, release
from replicator.engine.placing import Ground, objects_of, pack_id, peer_id
from replicator.engine.releaseplan import Spare
from replicator.engine.spare import spare_of
from replicator.errors import PeerError, RefusedError, ReplicatorError
from replicator.format.claim import Receipt
from replicator.format.codec import decode
from replicator.ids import Identity
from replicator.wire.messages import Claims
from scheduler import PackId, PeerId

FRESH_NS: Final = 5 * DAY_S * NS
"""Age up to which a receipt is used again: a provider takes seven days by its own clock, and marks may wait for one."""


@dataclass(slots=True)
class Releasing:
    """One look at what is surplus, and its release. ``spare`` is by provider, ``done`` what became of it there."""

    half: Half
    federation: Federation
    edge: Edge
    rows: dict[PackId, ObjectRow] = field(default_factory=dict)
    spare: dict[Identity, list[Spare]] = field(default_factory=dict)
    done: dict[Identity, MarkedAt] = field(default_factory=dict)
    problem: str = ""

    async def look(self, *, dry_run: bool) -> None:
        """Find what is spare among the packs that snapshots need, by inventories that were just taken.

        Where too few copies count, what was given up of them is taken back first, unless it is a ``dry_run``.
        """
        ground = Ground(self.half, self.federation)
        ground.refresh()
        rows = objects_of(self.half, without_forgotten(self.half, self.half.catalog.snapshots.all("published_ns != 0")))
        if not dry_run and await take_back(ground, self.edge, ground.plan(rows), rows):
            ground.refresh()
        self.rows = {pack_id(row.name): row for row in rows}
        answering = {peer_id(identity) for identity in self.federation.links}
        sure = {pack: peers & answering for pack, peers in ground.held.items()}
        self.spare = {}
        for one in spare_of(ground, rows, sure):
            if one.peer in answering:
                self.spare.setdefault(Identity(bytes.fromhex(one.peer)), []).append(one)

    def names(self, identity: Identity) -> set[bytes]:
        """Return what is spare at a provider."""
        return {bytes(self.rows[one.pack].name) for one in self.spare.get(identity, ())}

    def staying(self, identity: Identity) -> set[bytes]:
        """Return what others' copies give way to at a provider: maintenance claims it before any of them goes."""
        here = peer_id(identity)
        everywhere = (one for found in self.spare.values() for one in found)
        return {bytes(self.rows[one.pack].name) for one in everywhere if here in one.beside}

    async def carry_out(
        self,
        key: SigningKey,
        *,
        claimed: Mapping[bytes, set[Identity]],
        before: Mapping[Identity, Claims],
        seen: Mapping[bytes, int],
    ) -> None:
        """Release what is spare and stays elsewhere under a claim of maintenance.

        ``claimed`` says who has which of the claimed objects, ``before`` what providers had accepted before the look,
        ``seen`` the newest snapshot of each writer that was read.
        """
        self.done = {}
        sure = [
            one
            for found in self.spare.values()
            for one in found
            if {Identity(bytes.fromhex(peer)) for peer in one.beside} <= claimed.get(self.rows[one.pack].name, set())
        ]
        if not sure:
            return
        holders = self.half.holders()
        if not holders:
            self.problem = (
                "the charter does not say yet whose receipts count, so no surplus copy is released: "
                "whatever the keeper changes next says it"
            )
            return
        receipts = await self._receipts(sure)
        surplus: dict[Identity, list[Released]] = {}
        for one in sure:
            given = [receipts.get((peer, one.pack), b"") for peer in one.beside]
            if all(given):
                name = self.rows[one.pack].name
                there = surplus.setdefault(Identity(bytes.fromhex(one.peer)), [])
                there.append(Released(name=name, copies=one.copies, receipts=tuple(given)))
        answers = await release(
            *(self.half, self.federation, self.edge, key), before=before, seen=seen, surplus=surplus, holders=holders
        )
        for answer in answers:
            self.done[answer.identity] = answer
            self._remember(answer)

    def _remember(self, answer: MarkedAt) -> None:
        link = self.federation.links.get(answer.identity)
        if link is None:
            return
        states: dict[int, HoldingState] = {self.rows[pack_id(name)].id: "released" for name in answer.marked}
        self.half.catalog.objects.set_states(
            answer.identity, states, incarnation=link.info.incarnation, now_ns=self.edge.clock.now_ns()
        )

    async def _receipts(self, spare: Iterable[Spare]) -> dict[tuple[PeerId, PackId], bytes]:
        """Return receipts by peer and pack that are young enough, asking for those that are not."""
        wanted: dict[PeerId, set[PackId]] = {}
        for one in spare:
            for peer in one.beside:
                wanted.setdefault(peer, set()).add(one.pack)
        found: dict[tuple[PeerId, PackId], bytes] = {}
        for peer, packs in wanted.items():
            link = self.federation.links.get(Identity(bytes.fromhex(peer)))
            if link is not None:
                given = await self._receipts_at(link, {self.rows[pack].id: self.rows[pack] for pack in packs})
                found.update(((peer, pack_id(name)), signed) for name, signed in given.items())
        return found

    async def _receipts_at(self, link: Link, rows: Mapping[int, ObjectRow]) -> dict[bytes, bytes]:
        objects = self.half.catalog.objects
        found: dict[bytes, bytes] = {}
        for object_id, signed in objects.receipts(link.identity, rows).items():
            if self._is_fresh(signed, link):
                found[rows[object_id].name] = signed
        by_name: dict[bytes, ObjectRow] = {row.name: row for row in rows.values() if row.name not in found}
        try:
            for name, signed in (await vouch(link, sorted(by_name))).items():
                row = by_name[name]
                receipt = check_receipt(signed, link, self.half.tenant, name, row.size)
                now_ns = self.edge.clock.now_ns()
                objects.held(row.id, link.identity, incarnation=receipt.incarnation, receipt=signed, received_ns=now_ns)
                found[name] = signed
        except RefusedError as error:
            self.federation.notices.append(str(error))
        except PeerError as error:
            await self.federation.drop(link, error)
        return found

    def _is_fresh(self, signed: bytes, link: Link) -> bool:
        try:
            receipt = decode(Receipt, body_of(signed))
        except ReplicatorError:
            return False
        age_ns = self.edge.clock.now_ns() - receipt.received_ns
        return receipt.incarnation == link.info.incarnation and -SKEW_S * NS <= age_ns <= FRESH_NS
