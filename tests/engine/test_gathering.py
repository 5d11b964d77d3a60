"""What a restore waits for, over lines whose speeds drift; time passes only while it waits."""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from replicator.engine.gathering import EACH, Gathering
from replicator.engine.slots import Held, Slots
from replicator.errors import NotFoundError, RefusedError, UnreachableError
from replicator.ids import Identity
from tests.fakes import FakeClock
from tests.scheduler.readworld import STEP, World, drifting, least

MOMENT_S = 0.5


@dataclass(eq=False)
class Flow:
    """A pack on its way, and the bytes of it that have not come."""

    peer: Identity
    left: float
    done: "asyncio.Future[None]"


@dataclass
class Lines:
    """A source whose providers have lines of their own, which all that is on its way from one shares."""

    world: World
    loop: asyncio.AbstractEventLoop
    clock: FakeClock
    disk: bool = True
    knows: bool = True
    refused: set[tuple[int, Identity]] = field(default_factory=set)
    silent: set[Identity] = field(default_factory=set)
    flows: list[Flow] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    moved: float = 0.0
    """Bytes that came, also of what was given up."""
    rang: bool = False
    asked: Counter[Identity] = field(default_factory=Counter)

    def peers(self) -> list[Identity]:
        return [Identity(name.encode()) for name in self.world.speeds]

    def holders(self, pack: int) -> list[Identity]:
        if pack in self.kept:
            return []
        return self.having(pack) if self.knows else self.peers()

    def having(self, pack: int) -> list[Identity]:
        return [Identity(name.encode()) for name in sorted(self.world.packs[f"k{pack}"][1])]

    def size(self, pack: int) -> int:
        return self.world.packs[f"k{pack}"][0]

    def is_kept(self, pack: int) -> bool:
        return pack in self.kept

    async def bring(self, pack: int, peer: Identity | None) -> bytes:
        if pack in self.kept:
            return b""
        for one in self.having(pack) if peer is None else [peer]:
            try:
                await self._come(pack, one)
            except (RefusedError, UnreachableError):
                if peer is not None:
                    raise
            else:
                return b""
        raise NotFoundError("nobody has it")

    async def _come(self, pack: int, peer: Identity) -> None:
        self.asked[peer] += 1
        if peer in self.silent:
            raise UnreachableError("it", "is silent")
        if peer not in self.having(pack) or (pack, peer) in self.refused:
            raise RefusedError("it", "has it not", code="not-found")
        flow = Flow(peer, self.size(pack), self.loop.create_future())
        self.flows.append(flow)
        try:
            await flow.done
        finally:
            self.flows.remove(flow)

    async def fill(self, pack: int, peer: Identity | None, slot: int, memory: Held, slots: Slots) -> int:
        await self.bring(pack, peer)
        if self.disk:
            self.kept.add(pack)
        return self.size(pack)

    def ring(self) -> None:
        """Note that there is an answer."""
        self.rang = True

    def step(self) -> None:
        """Let time pass until something has come, or for a moment; not if there is an answer already."""
        self.rang = False
        self._settle()
        if self.rang:
            return
        now = self.clock.monotonic()
        shares = Counter(flow.peer for flow in self.flows)
        rates = {flow: self.world.speed(flow.peer.decode(), now) / shares[flow.peer] for flow in self.flows}
        until = (math.floor(now / STEP + 1e-9) + 1) * STEP - now
        wait = min(until, MOMENT_S, *(flow.left / rate for flow, rate in rates.items()))
        self.clock.advance(wait + 1e-9)
        for flow, rate in rates.items():
            flow.left -= rate * wait
            self.moved += rate * wait
            if flow.left < 1:
                flow.done.set_result(None)
        self._settle()

    def _settle(self) -> None:
        async def all_run() -> None:
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(all_run())


class Memory:
    """Places for packs, which are written as soon as they are taken. ``slots`` None: as bytes."""

    def __init__(self, room: int, *, slots: bool = True) -> None:
        self.room = room
        self.slots = Slots(room) if slots else None

    def keep(self, pack: int) -> bool:
        found = None if self.slots is None else self.slots.of(pack)
        if found is not None:
            found.uses += 1
        return found is not None

    def has(self, pack: int) -> bool:
        return self.slots is not None and self.slots.of(pack) is not None

    def has_room(self) -> bool:
        return self.slots is None or self.slots.has_room

    def written(self, pack: int, size: int) -> None:
        if self.slots is not None:
            slot = self.slots.of(pack)
            assert slot is not None
            slot.uses -= 1


@dataclass
class Run:
    """What a restore of all packs came to."""

    lines: Lines
    order: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    most: int = 0

    @property
    def seconds(self) -> float:
        return self.lines.clock.monotonic()

    @property
    def waste(self) -> float:
        return self.lines.moved / sum(size for size, _ in self.lines.world.packs.values()) - 1


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs only while time passes."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def gather(lines: Lines, windows: Sequence[Collection[int]], *, room: int = 5, slots: bool = True) -> Run:
    """Restore packs window by window, as the engine does: the next is known once this one is begun."""
    memory = Memory(room, slots=slots)
    gathering = Gathering(lines, memory, lines.clock, lines.ring)
    run = Run(lines)
    left = deque(windows)
    while left:
        window = set(left.popleft())
        gathering.turn()
        gathering.want(sorted(window))
        if left:
            gathering.want_later(sorted(left[0]))
        while window:
            gathering.begin()
            run.most = max(run.most, len(lines.flows))
            assert max(Counter(flow.peer for flow in lines.flows).values(), default=0) <= EACH + 1
            found = gathering.take(room=memory.has_room())
            if found is None:
                lines.step()
                assert run.seconds < 10_000
                continue
            pack, come = found
            window.remove(pack)
            (run.lost if come.error is not None else run.order).append(pack)
            if come.slot is not None and memory.slots is not None:
                assert isinstance(come.got, int)
                memory.slots.filled(come.slot, pack, come.got)
            if come.error is None:
                memory.written(pack, lines.size(pack))
    lines.step()
    gathering.begin()
    if memory.slots is not None:
        assert not any(slot.uses for slot in memory.slots), "all memory is free again"
        memory.slots.close()
    assert not lines.flows, "nothing is on its way that nobody waits for"
    return run


def parts(count: int, size: int) -> list[range]:
    return [range(at, min(at + size, count)) for at in range(0, count, size)]


def even(count: int, speeds: dict[str, Sequence[float]], size: int = 16 << 20) -> World:
    """Packs that everybody holds."""
    return World({f"k{number}": (size, frozenset(speeds)) for number in range(count)}, speeds)


@pytest.mark.parametrize("knows", [True, False], ids=["holders known", "holders unknown"])
@pytest.mark.parametrize("window", [1000, 20])
@pytest.mark.parametrize(("peers", "packs", "copies"), [(3, 60, 2), (5, 100, 3)])
def test_a_restore_takes_at_most_a_fifth_more_than_the_least_possible_time(
    loop: asyncio.AbstractEventLoop, peers: int, packs: int, copies: int, window: int, knows: bool
) -> None:
    for seed in range(3):
        world = drifting(seed, peers=peers, packs=packs, copies=copies)
        run = gather(Lines(world, loop, FakeClock(), knows=knows), parts(packs, window))
        assert sorted(run.order) == list(range(packs))
        assert least(world) * (1 - 1e-6) <= run.seconds <= 1.2 * least(world)
        assert run.waste <= 0.06
        assert run.most <= 5


def test_the_end_of_a_small_window_is_not_waited_for_idly(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = drifting(1, peers=5, packs=98, copies=3)
    run = gather(Lines(world, loop, FakeClock()), parts(98, 7))
    assert run.seconds <= 1.45 * least(world)
    monkeypatch.setattr(Gathering, "want_later", lambda *_: None)
    assert run.seconds < 0.9 * gather(Lines(world, loop, FakeClock()), parts(98, 7)).seconds


def test_packs_come_in_their_order_two_at_a_time_from_who_is_quick(loop: asyncio.AbstractEventLoop) -> None:
    quick = gather(Lines(even(20, {"one": [64e6]}), loop, FakeClock()), parts(20, 7))
    assert (quick.order, quick.most, round(quick.waste, 6)) == (list(range(20)), 2, 0)
    slow = gather(Lines(even(20, {"one": [1e6]}), loop, FakeClock()), parts(20, 7))
    assert (slow.order, slow.most, round(slow.waste, 6)) == (list(range(20)), 1, 0)


def test_a_line_that_breaks_down_holds_nothing_up(loop: asyncio.AbstractEventLoop) -> None:
    world = even(24, {"good": [5e6], "dying": [5e6] * 2 + [1e3] * 5000})
    run = gather(Lines(world, loop, FakeClock()), parts(24, 8))
    assert sorted(run.order) == list(range(24))
    assert run.seconds < 1.3 * least(world)
    assert 0 < run.waste <= 3 / 24


def test_who_is_silent_is_asked_twice_and_once_more_in_each_window(loop: asyncio.AbstractEventLoop) -> None:
    lines = Lines(even(30, {"there": [8e6], "gone": [8e6]}), loop, FakeClock(), silent={Identity(b"gone")})
    run = gather(lines, parts(30, 10))
    assert sorted(run.order) == list(range(30))
    assert lines.asked[Identity(b"gone")] <= 2 + 1 + 1


def test_what_one_refuses_another_gives_and_what_nobody_gives_is_lost(loop: asyncio.AbstractEventLoop) -> None:
    world = even(6, {"one": [8e6], "two": [8e6]})
    refused = {(3, Identity(b"one")), (4, Identity(b"one")), (4, Identity(b"two"))}
    run = gather(Lines(world, loop, FakeClock(), refused=refused), parts(6, 3))
    assert (sorted(run.order), run.lost) == ([0, 1, 2, 3, 5], [4])


def test_without_a_disk_packs_of_the_next_window_leave_room_for_this_ones(loop: asyncio.AbstractEventLoop) -> None:
    world = drifting(2, peers=5, packs=70, copies=3)
    run = gather(Lines(world, loop, FakeClock(), disk=False), parts(70, 7))
    assert sorted(run.order) == list(range(70))
    assert run.seconds <= 2 * least(world)


def test_without_slots_as_many_come_as_bytes(loop: asyncio.AbstractEventLoop) -> None:
    world = drifting(2, peers=5, packs=40, copies=3)
    run = gather(Lines(world, loop, FakeClock(), disk=False), parts(40, 20), slots=False)
    assert sorted(run.order) == list(range(40))
    assert run.most == 5
    first = gather(Lines(world, loop, FakeClock(), disk=False), parts(40, 20), slots=False, room=2)
    assert (sorted(first.order), first.most) == (list(range(40)), 2)
