"""The packs that a restore waits for: each from whichever of its holders is free, and a slow one again elsewhere.

Whom to ask for what next is :class:`scheduler.reading.ReadQueue`'s decision: a fast provider comes back sooner and so
gives more, and what is still on its way when nothing is left to begin is fetched a second time from who would be done
sooner; the first to come counts. Between two windows of a tree nobody waits: while the end of one is on its way, packs
of the next are begun. What no provider is known to have whole (shards, packs kept on this machine) comes beside that.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

from replicator.clock import Clock
from replicator.engine.slots import Held, Slot, Slots
from replicator.errors import IntegrityError, NotFoundError, PeerError, ReplicatorError, UnreachableError
from replicator.format.sizes import LARGEST
from replicator.ids import Identity

if TYPE_CHECKING:
    from scheduler.reading import Fetch, ReadQueue

T = TypeVar("T")

EACH: Final = 2
"""Packs that a quick provider is asked for at the same time: the next is on its way while the first one ends."""
QUICK_S: Final = 2.0
"""Seconds for a pack within which a provider is quick. On a slower line two would only both be late."""
SILENT: Final = 2
"""Times in a row that a provider does not answer until it is asked for no more of this window."""
LEFT: Final = 2
"""Places that packs of the next window leave free for this one's."""
EARLY: Final = 24
"""Packs of the next window that are fetched while this one's end is waited for, and wait on the disk."""


class Source(Protocol):
    """Where packs come from. The coroutines are for ``loop``, all else for the thread that gathers."""

    loop: asyncio.AbstractEventLoop

    def peers(self) -> list[Identity]:
        """Return the providers that answer."""
        ...

    def holders(self, pack: int) -> list[Identity]:
        """Return who can be asked for a whole pack; nobody where that is not how it comes."""
        ...

    def size(self, pack: int) -> int:
        """Return the bytes of a pack."""
        ...

    def is_kept(self, pack: int) -> bool:
        """Return whether a pack that was filled in comes from this machine the next time."""
        ...

    def bring(self, pack: int, peer: Identity | None) -> Coroutine[None, None, bytes]:
        """Return a pack from one provider, or with None however it comes. Raises PeerError and what a read may."""
        ...

    def fill(
        self, pack: int, peer: Identity | None, slot: int, memory: Held, slots: Slots
    ) -> Coroutine[None, None, int]:
        """Bring a pack into a slot; return its size."""
        ...


class Places(Protocol):
    """The memory for packs."""

    @property
    def room(self) -> int:
        """Packs for which there is memory."""
        ...

    @property
    def slots(self) -> Slots | None:
        """The memory to fetch packs into; None while they are taken as they are."""
        ...

    def keep(self, pack: int) -> bool:
        """Return whether a pack is still in a slot; then it stays there until it is sent from."""
        ...

    def has(self, pack: int) -> bool:
        """Return whether a pack is in a slot now."""
        ...

    def has_room(self) -> bool:
        """Return whether a slot can be taken."""
        ...


class Come(NamedTuple):
    """A pack that has come: as bytes, or in a ``slot`` as its size; None if it was in one already. Or an error."""

    got: bytes | int | None = None
    slot: Slot | None = None
    error: ReplicatorError | None = None

    @property
    def needs_room(self) -> bool:
        """Whether a slot has to be taken for it before it can be written."""
        return isinstance(self.got, bytes)


class _GivenUpError(Exception):
    """Nobody waited any more."""


class _Errand(Generic[T]):
    """Work on the loop that can be given up, and whose ``future`` ends only when the work has."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[None, None, T]) -> None:
        self._loop = loop
        self._task: asyncio.Task[object] | None = None
        self.given_up = False
        self.future: Future[T] = asyncio.run_coroutine_threadsafe(self._run(work), loop)

    async def _run(self, work: Coroutine[None, None, T]) -> T:
        self._task = asyncio.current_task()
        if self.given_up:
            work.close()
            raise _GivenUpError
        try:
            return await work
        except asyncio.CancelledError:
            if not self.given_up:
                raise
            raise _GivenUpError from None

    def give_up(self) -> None:
        """Let it end soon."""
        self.given_up = True
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


@dataclass(eq=False, slots=True)
class _Way:
    """A pack on its way. ``fetch`` is of the queue, None if it comes however it may."""

    pack: int
    queue: "ReadQueue[Identity, int]"
    fetch: "Fetch[Identity, int] | None"
    slot: Slot | None
    errand: "_Errand[bytes] | _Errand[int]"


class Gathering:
    """Packs that are wanted, on their way, or come and not taken. For one thread; ``rings`` is called from any."""

    def __init__(self, source: Source, places: Places, clock: Clock, rings: Callable[[], None]) -> None:
        from scheduler.reading import ReadQueue, Speeds  # noqa: PLC0415 - who finds all on his own disk does without

        self._source = source
        self._places = places
        self._clock = clock
        self._rings = rings
        speeds: Speeds[Identity] = Speeds()
        self._queue: ReadQueue[Identity, int] = ReadQueue(speeds)
        self._later: ReadQueue[Identity, int] = ReadQueue(speeds)
        self._otherwise: deque[int] = deque()
        self._wanted: set[int] = set()
        self._ways: list[_Way] = []
        self._come: dict[int, Come] = {}
        self._silent: Counter[Identity] = Counter()
        self._given: set[Identity] = set()
        self._early = 0

    def turn(self) -> None:
        """Go on to the next window: what was begun for it is waited for now, and who was silent is asked again."""
        assert not self._wanted, "the last window has all that it wanted"
        self._queue, self._later = self._later, self._queue
        self._early = 0
        for peer, count in self._silent.items():
            self._silent[peer] = min(count, SILENT - 1)

    def want(self, packs: Iterable[int]) -> None:
        """Want packs of this window, those that were wanted first before others."""
        for pack in packs:
            if pack in self._wanted:
                continue
            self._wanted.add(pack)
            if self._later.withdraw(pack) or not self._knows(pack):
                if self._places.keep(pack):
                    self._come[pack] = Come()
                else:
                    self._add(self._queue, pack)

    def want_later(self, packs: Iterable[int]) -> None:
        """Want packs of the next window, as far as providers have nothing else to do and places are left."""
        for pack in packs:
            if not (pack in self._wanted or self._knows(pack) or self._places.has(pack)):
                holders = self._holders(pack)
                if holders:
                    self._later.add(pack, self._source.size(pack), holders)

    def _knows(self, pack: int) -> bool:
        return (
            pack in self._come
            or pack in self._queue
            or pack in self._later
            or pack in self._otherwise
            or any(way.pack == pack and way.fetch is None for way in self._ways)
        )

    def _add(self, queue: "ReadQueue[Identity, int]", pack: int) -> None:
        holders = self._holders(pack)
        if holders:
            queue.add(pack, self._source.size(pack), holders)
        else:
            self._otherwise.append(pack)

    def _holders(self, pack: int) -> list[Identity]:
        return [peer for peer in self._source.holders(pack) if self._silent[peer] < SILENT]

    # -- beginning --

    def begin(self) -> None:
        """Let all who are free begin what there is memory for; take note of what has come before."""
        self._take_in()
        while self._has_room() and self._begin_one():
            pass

    def _has_room(self) -> bool:
        waiting = sum(come.needs_room for come in self._come.values())
        if self._places.slots is None:
            return len(self._ways) + waiting < self._places.room
        # What came as bytes before there were slots takes the next one that is free.
        return not waiting and self._places.has_room()

    def _begin_one(self) -> bool:
        if self._otherwise and sum(way.fetch is None for way in self._ways) < EACH:
            self._go(self._otherwise.popleft(), self._queue, None)
            return True
        found = self._next(self._clock.monotonic())
        if found is not None:
            queue, fetch = found
            self._go(fetch.pack, queue, fetch)
        return found is not None

    def _next(self, now: float) -> "tuple[ReadQueue[Identity, int], Fetch[Identity, int]] | None":
        """Return what is begun next: of this window, of the next one, or again what is late."""
        at = Counter(way.fetch.peer for way in self._ways if way.fetch is not None)
        free = [peer for peer in self._source.peers() if self._silent[peer] < SILENT and at[peer] < self._each(peer)]
        order = sorted(self._queue.order(free), key=at.__getitem__)
        for queue in (self._queue, self._later) if self._has_room_early() else (self._queue,):
            for peer in order:
                fetch = queue.next(peer, now, again=False)
                if fetch is not None:
                    return queue, fetch
        for peer in order:
            fetch = self._queue.next(peer, now)
            if fetch is not None:
                return self._queue, fetch
        return None

    def _each(self, peer: Identity) -> int:
        return EACH if self._queue.speeds.of(peer) * QUICK_S >= LARGEST and peer in self._given else 1

    def _has_room_early(self) -> bool:
        held = {way.pack for way in self._ways} | {pack for pack, come in self._come.items() if come.got is not None}
        return len(held - self._wanted) < self._places.room - LEFT and self._early < EARLY

    def _go(self, pack: int, queue: "ReadQueue[Identity, int]", fetch: "Fetch[Identity, int] | None") -> None:
        peer = None if fetch is None else fetch.peer
        slots = self._places.slots
        slot = None if slots is None else slots.take()
        errand: _Errand[bytes] | _Errand[int]
        if slots is None or slot is None:
            errand = _Errand(self._source.loop, self._source.bring(pack, peer))
        else:
            errand = _Errand(self._source.loop, self._source.fill(pack, peer, slot.number, Held(slot.fd), slots))
        self._ways.append(_Way(pack, queue, fetch, slot, errand))
        errand.future.add_done_callback(lambda _: self._rings())

    # -- ending --

    def _take_in(self) -> None:
        for way in [way for way in self._ways if way.errand.future.done()]:
            self._ways.remove(way)
            try:
                self._came(way, way.errand.future.result())
            except _GivenUpError:
                _let_go(way)
            except (NotFoundError, IntegrityError, PeerError) as error:
                _let_go(way)
                if not way.errand.given_up:
                    self._failed(way, error)

    def _came(self, way: _Way, got: bytes | int) -> None:
        if way.errand.given_up:  # the other one counts
            _let_go(way)
            return
        slots = self._places.slots
        if way.pack not in self._wanted and way.slot and slots and self._source.is_kept(way.pack):
            # It lies on this machine's disk, and its slot is for others until it is wanted.
            assert isinstance(got, int), "what is in a slot has its size"
            slots.filled(way.slot, way.pack, got)
            _let_go(way)
            self._early += 1
        else:
            self._come[way.pack] = Come(got, way.slot)
        if way.fetch is None:
            return
        self._silent[way.fetch.peer] = 0
        self._given.add(way.fetch.peer)
        others = way.queue.arrived(way.fetch, self._clock.monotonic())
        for other in self._ways:
            if other.fetch in others:
                other.errand.give_up()

    def _failed(self, way: _Way, error: ReplicatorError) -> None:
        if way.fetch is None:
            self._come[way.pack] = Come(error=error)
            return
        peer = way.fetch.peer
        # Whoever else may have it, or say why not, is asked once more than those who are known to.
        if not way.queue.failed(way.fetch):
            self._otherwise.append(way.pack)
        if isinstance(error, UnreachableError):
            self._silent[peer] += 1
            if self._silent[peer] >= SILENT:
                for queue in (self._queue, self._later):
                    self._otherwise += queue.gone(peer)

    def take(self, *, room: bool) -> tuple[int, Come] | None:
        """Return a pack of this window that has come, if it has its memory or there is ``room`` for it."""
        for pack, come in self._come.items():
            if pack in self._wanted and (room or not come.needs_room):
                self._wanted.discard(pack)
                return pack, self._come.pop(pack)
        return None

    def close(self) -> None:
        """Wait for nothing any more."""
        for way in self._ways:
            way.errand.give_up()
        self._ways.clear()


def _let_go(way: _Way) -> None:
    if way.slot is not None:
        way.slot.uses -= 1
