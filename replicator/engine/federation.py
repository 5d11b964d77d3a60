"""Being in touch with a tenant's providers: dialling, enrolling, newer charters and offers, fetching objects."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Self, TypeVar

import msgspec

from replicator.catalog.peers import PeerRow
from replicator.charter.offers import verify_offer
from replicator.charter.verify import signed_hash, verify_change
from replicator.clock import day_of
from replicator.config import counted
from replicator.crypto.sign import Context, body_of, verify
from replicator.engine.edge import Edge
from replicator.engine.groups import swap_facts
from replicator.engine.home import ANNOUNCING_FILE, ANNOUNCING_KEYBAG_FILE, Half
from replicator.engine.notices import ask_notice, in_words, note_notice, notice_of, signed_notice
from replicator.engine.offers import moved, share_offers
from replicator.engine.presence import note_disk
from replicator.engine.receipts import is_carried, note_carried, take_receipts
from replicator.engine.roots import hear, heard, objection_to, passed, take_objection
from replicator.engine.shards import Cut, fetch_pack
from replicator.errors import (
    BusyError,
    FormatError,
    HomeError,
    IntegrityError,
    NotFoundError,
    PeerError,
    ProtocolError,
    RefusedError,
    ReplicatorError,
    RootWaitsError,
    UnreachableError,
)
from replicator.format.charter import PeerPin, read_charter
from replicator.format.claim import Receipt
from replicator.format.codec import decode
from replicator.format.container import unwrap_record
from replicator.format.merkle import name_of, proves
from replicator.format.offer import MOST_ENDPOINTS, Offer
from replicator.ids import NAME_SIZE, Identity, ObjectName, short
from replicator.transport.base import Connection, Target
from replicator.wire.messages import (
    INVENTORY_PAGE,
    REVOKED,
    WIRE_VERSION,
    CharterNotice,
    Empty,
    EnrolRequest,
    Info,
    Inventory,
    InventoryRequest,
    ProveReply,
    ProveRequest,
    Succession,
    SuccessionRequest,
)

T = TypeVar("T")
MAX_BUSY_WAITS = 5
LONGEST_WAIT_S = 60.0
SHOWN_AT_ONCE = 4
"""Objects of which one has to be proved by who was silent: some may be damaged."""
Ticket = Callable[[Identity], bytes]
"""Returns a signed enrol order for this home's key, or empty bytes if this home cannot make one."""


@dataclass(slots=True)
class Link:
    """A provider that answers. ``free`` shrinks as we send; ``problems`` are what is wrong with it in this run.

    ``owes``: something is to be stored or claimed there again, beside objects. ``notice``: what it says of leaving, as
    signed, empty if it stays; None: it was not asked.
    """

    pin: PeerPin
    connection: Connection
    info: Info
    offer: Offer
    free: int
    problems: list[str]
    owes: bool = False
    notice: bytes | None = None

    def owe(self, problem: str) -> None:
        """Note what the next repair makes good."""
        self.owes = True
        self.problems.append(problem)

    @property
    def identity(self) -> Identity:
        """The provider's identity."""
        return Identity(self.pin.identity)


def check_receipt(signed: bytes, link: Link, tenant: bytes, name: bytes, size: int) -> Receipt:
    """Return a receipt after checking that this provider signed it for this object in this incarnation.

    Raises:
        ProtocolError: it did not.
    """
    try:
        receipt = decode(Receipt, verify(signed, Context.RECEIPT, [link.offer.provider_key]))
    except ReplicatorError as error:
        raise ProtocolError(link.pin.name, f"its receipt cannot be trusted ({error})") from error
    expected = (tenant, name, size, link.info.incarnation)
    if (receipt.tenant, receipt.name, receipt.size, receipt.incarnation) != expected:
        raise ProtocolError(link.pin.name, "its receipt is for something else")
    return receipt


class Federation:
    """All providers of one half's charter. Use as an async context; nothing in here raises for one peer's fault."""

    ELSEWHERE: ClassVar = "when more peers answer, try again; `status` says which do not"
    """What to do about an object that none of these gives."""

    def __init__(self, half: Half, edge: Edge, *, ticket: Ticket | None = None) -> None:
        self.half = half
        self.edge = edge
        self.links: dict[Identity, Link] = {}
        self.failures: dict[Identity, ReplicatorError] = {}
        self.notices: list[str] = []
        self.integrity: list[str] = []
        self.mute: dict[Identity, PeerError] = {}
        """Why who answers counts as silent: it was silent, or showed nothing, and still shows nothing of ours."""
        self.changed_stores: set[Identity] = set()
        self.successions: dict[Identity, Succession] = {}
        """How far providers are with a change of root, if one is announced."""
        self._noted: set[str] = set()
        self.denied: set[tuple[Identity, ObjectName]] = set()
        """Who was asked for what in this run and has it not, or not any more as it was."""
        self._ticket = ticket or (lambda _identity: half.member.ticket)

    async def __aenter__(self) -> Self:
        await self.dial(self.half.peers)
        await self._share_offers()
        await self._share_charter()
        self.notices += await swap_facts(self.half, self.links)
        self.notices += self._shut_out()
        return self

    def _shut_out(self) -> list[str]:
        """Say what it means that providers take this home's key no more: else it looks as if all of them were away."""
        failures = [(pin.name, self.failures.get(Identity(pin.identity))) for pin in self.half.peers]
        names = [name for name, error in failures if isinstance(error, RefusedError) and error.reason == REVOKED]
        if not names:
            return []
        advice = (
            "a newer charter has ended this home's key there. If one of you recovered with the sheet or revoked it, go "
            "on in the home that did: nothing is lost, and this one has served. If nobody did, somebody else has your "
            "sheet or owner key: docs/operate/leaks.md"
        )
        return [f"{', '.join(names)}: {advice}"]

    async def __aexit__(self, *_: object) -> None:
        # A provider that is dropped meanwhile, by a task that is ending too, leaves the list.
        for link in list(self.links.values()):
            await link.connection.close()
        self.links.clear()

    async def dial(self, pins: Iterable[PeerPin]) -> None:
        """Connect to providers at the same time; failures are kept by identity."""
        rows = await asyncio.gather(*(self._dial(pin) for pin in pins))
        if not rows:
            return
        peers = self.half.catalog.peers
        with self.half.catalog.database.transaction("peer row"):  # a commit for each would wait for the disk each time
            for row in rows:
                # A run beside this one may have claimed there while others were slow to answer.
                claim = 0 if row.identity in self.changed_stores else peers.get(row.identity).claim_number
                peers.put(replace(row, claim_number=claim))

    async def _share_offers(self) -> None:
        """Hand on what providers say of themselves, and dial those anew that have moved, as others know."""
        news = await share_offers(self.half, list(self.links.values()))
        self.notices += news.notices
        self.integrity += news.integrity
        found = [pin for pin in self.half.peers if pin.identity in news.of and pin.identity in self.failures]
        if found:
            await self.dial(found)

    async def _dial(self, pin: PeerPin) -> PeerRow:
        identity = Identity(pin.identity)
        row = self.half.catalog.peers.get(identity)
        now = self.edge.clock.now_ns()
        try:
            link, row = await self._connect(pin, row)
        except ReplicatorError as error:
            self.failures[identity] = error
            return replace(row, failing_since_ns=silent_since(row, now), last_error=str(error))
        self.failures.pop(identity, None)
        self.links[identity] = link
        info = link.info
        if is_carried(self.half, identity):
            await self._take_receipts(link)
        if link.notice is not None and note_notice(self.half, identity, link.notice):
            said = notice_of(self.half, identity)
            stays = f"{pin.name} stays after all: it has taken back that it leaves or shrinks"
            self.notices.append(stays if said is None else in_words(pin.name, said))
        if row.incarnation and row.incarnation != info.incarnation:
            self.changed_stores.add(identity)
            # Claims are made anew there: what it says of the earlier ones may be as old as its store.
            row = replace(row, claim_number=0)
            self.half.catalog.objects.set_claimed(identity, 0, ())
            self.notices.append(
                f"{pin.name}: its store is not the one it was (restored from an older copy, or made anew); "
                "its earlier receipts no longer count"
            )
        if row.incarnation == info.incarnation and info.claim < row.claim_number:
            link.problems.append("its records went back to an older state than it had signed")
            self.integrity.append(f"{pin.name}: its records went back to an older state than it had signed")
        row = replace(
            row, incarnation=info.incarnation, quota=info.quota, used=info.used, free=info.free, contacted_ns=now
        )
        if row.failing_since_ns:
            # Anybody can say hello: silence ends with something that lies there.
            try:
                await shows_something(link, self.edge.rng.bytes(NAME_SIZE))
            except PeerError as error:
                since_ns = silent_since(row, now)
                self.mute[identity] = error
                link.problems.append(
                    f"answers, but has shown nothing of what it holds since {day_of(since_ns)}: {error}"
                )
                if isinstance(error, RefusedError) and error.code == "unavailable":
                    note_disk(self.half, identity, now, away=True)
                return replace(row, failing_since_ns=since_ns, last_error=str(error))
        self.mute.pop(identity, None)
        return replace(row, failing_since_ns=0, last_error="")

    async def _take_receipts(self, link: Link) -> None:
        """Count what a disk brought to a provider; until one has come, it is asked at each contact."""
        try:
            count = await take_receipts(
                *(self.half, link.connection),
                key=link.offer.provider_key,
                incarnation=link.info.incarnation,
                identity=link.identity,
                now_ns=self.edge.clock.now_ns(),
            )
        except PeerError as error:
            self.notices.append(f"receipts of what was carried to {link.pin.name}: {error.reason}")
            return
        if count:
            note_carried(self.half, link.identity, coming=False)
            self.notices.append(f"{link.pin.name} took in {counted(count, 'object')} from a disk")

    async def _connect(self, pin: PeerPin, row: PeerRow) -> tuple[Link, PeerRow]:
        endpoints = tuple(dict.fromkeys((*row.endpoints[:MOST_ENDPOINTS], *pin.endpoints[:MOST_ENDPOINTS])))
        target = Target(
            identity=Identity(pin.identity),
            name=pin.name,
            endpoints=endpoints,
            key=self.half.signing,
            certificate=row.certificate or None,
            pace=None if self.edge.line is None else self.edge.line.up,
        )
        if target.certificate is None:
            target = replace(target, certificate=await self._enrol(target))
        try:
            connection = await self.edge.network.connect(target)
        except RefusedError as error:
            if error.code != "unauthorized":
                raise
            # The provider was made anew or does not know this certificate any longer: ask for another, once.
            target = replace(target, certificate=await self._enrol(replace(target, certificate=None)))
            connection = await self.edge.network.connect(target)
        try:
            info = await connection.call("info", Empty(), Info)
            offer = read_offer(info.offer, target)
            known = bool(signed_notice(self.half, target.identity))
            notice = await ask_notice(connection, info, offer.provider_key, self.half.tenant, known=known)
        except BaseException:
            await connection.close()
            raise
        if WIRE_VERSION not in info.wire:
            await connection.close()
            raise ProtocolError(pin.name, f"speaks wire versions {info.wire}, this release speaks {WIRE_VERSION}")
        row = replace(row, certificate=target.certificate or b"")
        # What it signed first of two with one number, or later than what it shows now, stays its word.
        if offer.number > row.offer_number:
            said = moved(pin.name, row.endpoints if row.offer_number else (), offer)
            if said:
                self.notices.append(said)
            row = replace(row, offer=info.offer, offer_number=offer.number, endpoints=tuple(offer.endpoints))
        link = Link(pin=pin, connection=connection, info=info, offer=offer, free=info.free, problems=[], notice=notice)
        return link, row

    async def _enrol(self, target: Target) -> bytes:
        order = self._ticket(target.identity)
        if not order:
            raise UnreachableError(
                target.name,
                "this home has no certificate for it and cannot ask for one",
                hint="run a command that unlocks the keeper (`peer add`, `snapshots`), or add the peer again",
            )
        request = EnrolRequest(holder_key=target.key.public, secret=b"", order=order, root=b"")
        reply = await self.edge.network.enrol(target, request)
        if reply.tenant != self.half.tenant:
            raise ProtocolError(target.name, "enrolled us under another tenant")
        return reply.certificate

    async def _share_charter(self) -> None:
        """Take the newest charter that any peer has, hand ours to those that are behind."""
        for link in sorted(self.links.values(), key=lambda link: -link.info.charter_number):
            if link.info.charter_number <= self.half.charter.number:
                break
            try:
                await self._take_charter(link)
            except RootWaitsError as error:
                hear(self.half, verify_change(error.change), self.edge.clock.now_ns())
                self.notices.append(f"{link.pin.name}: {error}; until then this home goes on with what it has")
            except (PeerError, FormatError, IntegrityError) as error:
                link.problems.append(f"offers a charter that does not hold: {error}")
                self.integrity.append(f"{link.pin.name}: offers a charter that does not hold: {error}")
        await self._compare_charters()
        if self.half.keybag_object() is None:
            await self._take_keybag()
        for link in list(self.links.values()):
            if link.info.charter_number < self.half.charter.number:
                try:
                    await self.give_charter(link)
                except PeerError as error:
                    fork = isinstance(error, RefusedError) and error.code == "fork"
                    (self.integrity if fork else self.notices).append(str(error))
        known = {Identity(pin.identity) for pin in self.half.peers}
        for identity in [identity for identity in self.links if identity not in known]:
            await self.links.pop(identity).connection.close()
        self.failures = {identity: error for identity, error in self.failures.items() if identity in known}
        fresh = [pin for pin in self.half.peers if pin.identity not in self.links and pin.identity not in self.failures]
        if fresh:
            await self.dial(fresh)
        self.integrity += [
            f"charter {self.half.charter.number} names another restore key for domain '{name}', and nothing shows that "
            "who wrote it had the one before: this home goes on with that"
            for name in self.half.unproven()
        ]
        if self.half.charter.pending is not None:
            hear(self.half, self.half.charter.pending, self.edge.clock.now_ns())
        if heard(self.half):
            await self.ask_succession()

    async def ask_succession(self) -> None:
        """Ask how far providers are with a change of root, and hand root's objection on to those that lack it."""
        statement = signed_hash(self.half.charter.charter.root)
        for _ in range(2):  # an objection that the last one tells is news for the first
            ours = objection_to(self.half, statement)
            for identity, link in list(self.links.items()):
                known = self.successions.get(identity)
                if known is None or (ours and not known.objection):
                    await self._ask_succession(link, ours)

    async def _ask_succession(self, link: Link, objection: bytes) -> None:
        try:
            found = await link.connection.call("succession", SuccessionRequest(objection=objection), Succession)
            # Who is under a charter that this home may not take yet says it of that one's root, which may be the next.
            if found.objection and not objection and link.info.charter_number <= self.half.charter.number:
                take_objection(self.half, found.objection)
        except PeerError as error:
            self.notices.append(str(error))
        except (FormatError, IntegrityError) as error:
            link.problems.append(f"its word on a change of root: {error}")
            self.integrity.append(f"{link.pin.name}: its word on a change of root: {error}")
        else:
            self.successions[link.identity] = found

    async def _take_charter(self, link: Link) -> None:
        data = await get_whole(link.connection, ObjectName(link.info.charter))
        self.half.adopt_charter(data, passed(self.half, self.edge.clock.now_ns()))
        self.notices.append(f"took charter {self.half.charter.number} from {link.pin.name}")

    async def _compare_charters(self) -> None:
        """Find two different charters with one number; the same one in another padding becomes ours too."""
        for link in self.links.values():
            own_name, _ = self.half.charter_object()
            if link.info.charter_number != self.half.charter.number or link.info.charter == own_name:
                continue
            try:
                data = await get_whole(link.connection, ObjectName(link.info.charter))
                self.half.same_charter(data)
            except PeerError as error:
                self.notices.append(str(error))
            except (FormatError, IntegrityError) as error:
                link.problems.append(f"its charter: {error}")
                self.integrity.append(f"{link.pin.name}: its charter: {error}")

    async def _take_keybag(self) -> None:
        """Fetch the keybag of our charter, so that it can be handed on."""
        for link in self.links.values():
            if link.info.charter_number != self.half.charter.number:
                continue
            try:
                keybag = await get_whole(link.connection, ObjectName(self.half.charter.charter.keybag))
            except PeerError as error:
                self.notices.append(str(error))
            except IntegrityError as error:
                link.problems.append(str(error))
                self.integrity.append(str(error))
            else:
                self.half.adopt_keybag(keybag)
                return

    async def give_charter(self, link: Link) -> None:
        """Store our charter and keybag at a provider and tell it. Raises PeerError."""
        keybag = self.half.keybag_object()
        if keybag is None:
            return
        name, data = self.half.charter_object()
        for object_name, content in (keybag, (name, data)):
            await patiently(self.edge, partial(link.connection.put, object_name, content))
        try:
            await link.connection.call("charter", CharterNotice(name=name), Empty)
        except RefusedError as error:
            if error.code == "conflict":
                await self._give_announcing(link)
            raise
        link.info = msgspec.structs.replace(link.info, charter_number=self.half.charter.number, charter=name)

    async def _give_announcing(self, link: Link) -> None:
        """Hand a provider that missed it the charter that announced the root of ours: from then on it counts its days.

        Only a keeper has it. Raises PeerError.
        """
        if self.half.fs.size(self.half.file(ANNOUNCING_FILE)) is None:
            return
        charter = self.half.fs.read(self.half.file(ANNOUNCING_FILE))
        keybag = self.half.fs.read(self.half.file(ANNOUNCING_KEYBAG_FILE))
        if link.info.charter_number >= read_charter(body_of(unwrap_record(charter))).number:
            return
        for data in (keybag, charter):
            await patiently(self.edge, partial(link.connection.put, name_of(data), data))
        await link.connection.call("charter", CharterNotice(name=name_of(charter)), Empty)

    async def drop(self, link: Link, error: ReplicatorError) -> None:
        """Stop using a provider for the rest of this run, because of ``error``."""
        if self.links.pop(link.identity, None) is None:
            return
        self.failures[link.identity] = error
        row = self.half.catalog.peers.get(link.identity)
        now = self.edge.clock.now_ns()
        if isinstance(error, RefusedError) and error.code == "unavailable":
            note_disk(self.half, link.identity, now, away=True)
        self.half.catalog.peers.put(replace(row, failing_since_ns=silent_since(row, now), last_error=str(error)))
        await link.connection.close()

    async def fetch(self, name: ObjectName, holders: Iterable[Identity]) -> bytes:
        """Return an object from any peer, the likely holders first. Bytes that are not the object are reported.

        A pack that is cut into shards comes from those.

        Raises:
            NotFoundError: no reachable peer gave the right bytes.
        """
        objects = self.half.catalog.objects
        shards = objects.shards_of(name)
        if shards is not None:
            [row] = objects.by_names([name])
            return await fetch_pack(self, name, row.size, Cut.of(shards))
        return await self.fetch_stored(name, holders)

    async def fetch_stored(self, name: ObjectName, holders: Iterable[Identity]) -> bytes:
        """Return an object that peers store as it is: as :meth:`fetch` does."""
        return await self.fetch_by(get_whole, name, holders)

    async def fetch_by(
        self, get: Callable[[Connection, ObjectName], Awaitable[T]], name: ObjectName, holders: Iterable[Identity]
    ) -> T:
        """Return what ``get`` returns of the first peer that it succeeds with; otherwise as :meth:`fetch`.

        It raises IntegrityError for bytes that are not the object, and PeerError.
        """
        likely = [self.links[identity] for identity in holders if identity in self.links]
        others = [link for link in self.links.values() if link not in likely]
        reasons = []
        for link in (*likely, *others):
            try:
                return await self.ask(get, name, link)
            except (IntegrityError, PeerError) as error:
                reasons.append(str(error))
        raise NotFoundError(
            f"object {short(name)}: no reachable peer has it ({'; '.join(reasons) or 'no peer is reachable'})",
            hint=self.ELSEWHERE,
        )

    async def ask(self, get: Callable[[Connection, ObjectName], Awaitable[T]], name: ObjectName, link: Link) -> T:
        """Return what ``get`` returns of one provider; what its answer says about it is noted.

        Raises:
            IntegrityError: it answered with bytes that are not the object.
            PeerError: it did not answer, or refused.
        """
        try:
            return await get(link.connection, name)
        except IntegrityError as error:
            link.problems.append(str(error))
            self._note_damage(name, link, error)
            self.denied.add((link.identity, name))
            raise
        except RefusedError as error:
            if error.code in {"not-found", "damaged"}:
                self.denied.add((link.identity, name))
            if error.code == "damaged":
                self._note_damage(name, link, error)
            raise

    @property
    def noted(self) -> int:
        """How many lines of ``integrity`` are of copies that the catalog has as damaged since."""
        return sum(line in self._noted for line in self.integrity)

    def _note_damage(self, name: ObjectName, link: Link, error: IntegrityError | RefusedError) -> None:
        """Remember a provider's copy that is not what was stored, until it is proved good, stored again, or gone."""
        self.integrity.append(str(error))
        if all(pin.identity != link.identity for pin in self.half.peers):
            return  # a disk that was brought: nobody would ever look at it again
        objects, now_ns = self.half.catalog.objects, self.edge.clock.now_ns()
        with contextlib.suppress(HomeError, sqlite3.Error):  # who reads goes on though nothing can be written here
            row = objects.by_name(name)
            if row is not None:
                objects.set_states(link.identity, {row.id: "damaged"}, incarnation=link.info.incarnation, now_ns=now_ns)
                self._noted.add(str(error))


async def get_whole(connection: Connection, name: ObjectName) -> bytes:
    """Return a whole object from one provider, checked against its name.

    Raises:
        IntegrityError: the provider answered with other bytes.
        PeerError: it did not answer, or refused.
    """
    data = await connection.get(name)
    if name_of(data) != name:
        raise IntegrityError(f"{connection.target.name}: answered with other bytes than object {short(name)}")
    return data


async def inventory_pages(link: Link) -> AsyncIterator[Inventory]:
    """Yield all that a provider lists, page by page; each page costs it a look through its folder.

    Raises:
        PeerError: it did not answer, or refused.
    """
    after = b""
    while True:
        page = await link.connection.call("inventory", InventoryRequest(after=after, limit=INVENTORY_PAGE), Inventory)
        yield page
        if not page.more or page.last <= after:
            return
        after = page.last


async def shows_something(link: Link, after: bytes) -> None:
    """Have a provider list what it holds, and prove a leaf of it; ``after``: from which name on it is asked.

    Raises:
        PeerError: it does not answer, refuses, or proves nothing of what it lists.
    """
    names: list[bytes] = []
    for start in (after, b""):
        request = InventoryRequest(after=start, limit=SHOWN_AT_ONCE)
        page = await link.connection.call("inventory", request, Inventory)
        names = [page.names[at : at + NAME_SIZE] for at in range(0, len(page.names), NAME_SIZE)][:SHOWN_AT_ONCE]
        if names:
            break
    if not names:
        return  # it holds nothing and says so; what is missed there is missing
    prove = ProveRequest(names=b"".join(names), leaves=[0] * len(names))
    reply = await link.connection.call("prove", prove, ProveReply)
    pairs = zip(names, reply.proofs, strict=False)
    if not any(proof is not None and proves(ObjectName(name), 0, proof) for name, proof in pairs):
        raise ProtocolError(link.pin.name, "lists objects and proves none of them")


def silent_since(row: PeerRow, now_ns: int) -> int:
    """Return since when a provider is silent that is so now; a time to come, by a clock that went wrong, is none."""
    return min(row.failing_since_ns or now_ns, now_ns)


def read_offer(signed: bytes, target: Target) -> Offer:
    """Return a provider's offer after checking that the pinned identity signed it.

    Raises:
        ProtocolError: it did not.
    """
    try:
        found = verify_offer(signed)
    except ReplicatorError as error:
        raise ProtocolError(target.name, f"its offer does not hold ({error})") from error
    if found.identity != target.identity:
        raise ProtocolError(target.name, "its offer is signed by another key than the one that was pinned")
    return found.offer


async def patiently(edge: Edge, attempt: Callable[[], Awaitable[T]]) -> T:
    """Run a request, waiting as asked when the peer is busy, a few times; for what takes longer nobody waits."""
    from scheduler.night import backoff  # noqa: PLC0415 - who only reads does without the scheduler

    for number in range(MAX_BUSY_WAITS):
        try:
            return await attempt()
        except BusyError as error:
            if error.after_s > LONGEST_WAIT_S:
                raise
            await edge.clock.sleep(backoff(number, error.after_s, edge.rng.below(1 << 20) / (1 << 20)))
    return await attempt()
