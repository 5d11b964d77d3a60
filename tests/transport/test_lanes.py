"""A shared line, in a time that goes on when everybody waits for it."""

import asyncio
import heapq
from collections import Counter
from collections.abc import Coroutine
from itertools import count

import pytest

from replicator.config import LEAST_RATE
from replicator.format.merkle import name_of
from replicator.ids import TenantId
from replicator.transport.handler import RequestRefusedError
from replicator.transport.lanes import AGAIN_S, PATIENCE_S, SOON_S, Lane
from tests.fakes import FakeClock
from tests.provider.tenant import MIB, data_object
from tests.transport.live import living, run

A, B, C = (TenantId(letter * 16) for letter in (b"a", b"b", b"c"))
LARGE = 16 * MIB
PIECE = MIB


class Waiting(FakeClock):
    """A clock whose sleepers sleep beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = count()

    async def sleep(self, seconds: float) -> None:
        until = self.monotonic() + max(0.0, seconds)
        mine = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (until, next(self._number), mine))
        await mine

    async def turn(self, until_s: float) -> None:
        """Let time pass until then."""
        while True:
            for _ in range(12):
                await asyncio.sleep(0)
            if not self._sleeping or self._sleeping[0][0] > until_s:
                self.advance(until_s - self.monotonic())
                return
            until, _, mine = heapq.heappop(self._sleeping)
            self.advance(max(0.0, until - self.monotonic()))
            if not mine.done():
                mine.set_result(None)


class World:
    """A lane, and how much of whose went through it until when."""

    def __init__(self, rate: int) -> None:
        self.clock = Waiting()
        self.rate = rate
        self.lane = Lane(self.clock, lambda: self.rate, small=MIB)
        self.moved: Counter[bytes] = Counter()
        self.ended: list[tuple[bytes, float]] = []
        self.refused: Counter[bytes] = Counter()

    async def move(self, who: TenantId, size: int = LARGE) -> None:
        async with self.lane.moving(who, size) as spend:
            for _ in range(0, size, PIECE):
                await spend(min(PIECE, size))
                self.moved[who] += min(PIECE, size)
        self.ended.append((who, self.clock.monotonic()))

    async def keep_moving(self, who: TenantId) -> None:
        while True:
            try:
                await self.move(who)
            except RequestRefusedError as busy:
                self.refused[who] += 1
                await self.clock.sleep(busy.after_s)

    def watch(self, seconds: float, *work: Coroutine[None, None, None]) -> None:
        async def watched() -> None:
            tasks = [asyncio.ensure_future(one) for one in work]
            await self.clock.turn(seconds)
            for task in tasks:
                if task.done():
                    task.result()
                task.cancel()

        asyncio.run(watched())


@pytest.mark.parametrize("rate", [LEAST_RATE, MIB, 40 * MIB])
def test_all_together_have_the_rate_and_not_more(rate: int) -> None:
    world = World(rate)
    world.watch(200, *(world.keep_moving(who) for who in (A, A, B)))
    assert world.moved.total() == pytest.approx(200 * rate, abs=rate + 3 * PIECE)


def test_who_has_many_transfers_has_no_more_than_who_has_one() -> None:
    world = World(2 * MIB)
    world.watch(120, *(world.keep_moving(A) for _ in range(6)), world.keep_moving(B))
    assert world.moved[A] == pytest.approx(world.moved[B], rel=0.1)


def test_alone_one_has_the_whole_line() -> None:
    world = World(2 * MIB)
    world.watch(60, world.move(A))
    [(_, at)] = world.ended
    assert at == pytest.approx(8, abs=0.6)


def test_what_runs_is_never_so_slow_that_the_other_end_gives_up() -> None:
    world = World(4 * LEAST_RATE)
    world.watch(600, *(world.keep_moving(who) for who in (A, A, A, B, B, B)))
    assert len(world.ended) > 12
    assert world.refused.total() > 0, "nobody is kept waiting for ever"
    both = [sum(who == one for who, _ in world.ended) for one in (A, B)]
    assert both[0] == pytest.approx(both[1], abs=1)


def test_who_comes_where_all_places_are_taken_has_one_before_long() -> None:
    world = World(LEAST_RATE)

    async def later() -> None:
        await world.clock.sleep(20)
        await world.keep_moving(B)

    world.watch(900, *(world.keep_moving(A) for _ in range(3)), later())
    first = next(at for who, at in world.ended if who == B)
    assert first < 3 * LARGE / LEAST_RATE


def test_a_small_record_goes_before_at_the_least_rate() -> None:
    world = World(LEAST_RATE)

    async def record(who: TenantId) -> None:
        await world.clock.sleep(20)
        await world.move(who, 64 << 10)

    world.watch(60, *(world.keep_moving(A) for _ in range(3)), record(A), record(B))
    assert sorted(who for who, _ in world.ended) == [A, B]
    assert all(at == pytest.approx(21, abs=1.1) for _, at in world.ended)


def test_a_small_record_goes_before_all_that_its_tenant_sends_beside() -> None:
    world = World(32 * LEAST_RATE)

    async def record() -> None:
        await world.clock.sleep(20)
        await world.move(A, 64 << 10)

    world.watch(21, *(world.keep_moving(A) for _ in range(32)), record())
    [(_, at)] = world.ended
    assert at == pytest.approx(20.05, abs=0.05)


def test_a_turn_that_comes_in_the_moment_of_going_away_is_the_next_ones() -> None:
    world = World(3 * LEAST_RATE)

    async def three() -> None:
        async with world.lane.moving(A, LARGE) as spend:
            going = asyncio.ensure_future(world.clock.sleep(0))

            async def first() -> None:
                await spend(64 << 10)
                going.cancel()

            one = asyncio.ensure_future(first())
            await asyncio.sleep(0)
            going = asyncio.ensure_future(world.move(C))
            await asyncio.gather(one, world.move(B))

    world.watch(60, three())
    assert [who for who, _ in world.ended] == [B]


def test_a_small_record_waits_no_longer_than_it_has_to_whoever_is_there() -> None:
    world = World(LEAST_RATE)
    others = [TenantId(bytes([number]) * 16) for number in range(100)]
    world.watch(SOON_S + 1, *(world.move(who, MIB) for who in others))
    assert len(world.ended) == 100
    assert world.ended[-1][1] == pytest.approx(SOON_S, abs=0.1)


def test_another_rate_holds_at_once_and_none_holds_nothing_up() -> None:
    world = World(LEAST_RATE)

    async def lift() -> None:
        await world.clock.sleep(30)
        world.rate = 0

    world.watch(40, world.move(A), world.move(A), world.move(B), lift())
    assert len(world.ended) == 3
    assert all(at == pytest.approx(30, abs=1.1) for _, at in world.ended)
    world.watch(0, world.move(A), world.move(B))
    assert len(world.ended) == 5


def test_a_provider_that_stops_holds_nothing_up() -> None:
    world = World(LEAST_RATE)

    async def stop() -> None:
        await world.clock.sleep(10)
        world.lane.close()

    world.watch(12, world.move(A), world.move(B), stop())
    assert len(world.ended) == 2


def test_who_goes_away_keeps_nobody() -> None:
    world = World(LEAST_RATE)

    async def leave() -> None:
        going = [asyncio.ensure_future(world.move(A, size)) for size in (LARGE, MIB, MIB)]
        await world.clock.sleep(5)
        for one in going:
            one.cancel()

    world.watch(5 + LARGE / LEAST_RATE + 2, leave(), world.move(B))
    assert [who for who, _ in world.ended] == [B]
    assert world.ended[0][1] < 5 + LARGE / LEAST_RATE, "it had its part before"


def test_a_thread_shares_the_line_too() -> None:
    clock = FakeClock()
    lane = Lane(clock, lambda: MIB, small=MIB)

    def fetch() -> None:
        with lane.moving_beside(A, LARGE) as spend:
            for _ in range(16):
                spend(PIECE)

    async def serve() -> None:
        lane.open()
        await asyncio.to_thread(fetch)

    fetch()
    assert clock.monotonic() == 0, "nobody serves"
    asyncio.run(serve())
    assert clock.monotonic() == pytest.approx(15.5, abs=0.6)


def test_over_tls_what_is_sent_and_fetched_takes_its_time(tmp_path: str) -> None:
    """The provider's time is a test's: it passes when somebody waits."""
    data = data_object(1, 2 * MIB)

    async def work() -> None:
        async with living(str(tmp_path)) as live:
            clock = live.house.clock
            connection = await live.connect()
            try:
                await connection.put(name_of(data), data)
                first = clock.monotonic()
                live.provider.set_rates(down=LEAST_RATE, up=None)
                other = data_object(2, 2 * MIB)
                await connection.put(name_of(other), other)
                assert clock.monotonic() - first == pytest.approx(16, abs=1)
                assert await connection.get(name_of(data)) == data
                assert clock.monotonic() - first == pytest.approx(16, abs=1), "fetching is another matter"
                live.provider.set_rates(down=0, up=2 * LEAST_RATE)
                assert await connection.get(name_of(data)) == data
                assert clock.monotonic() - first == pytest.approx(24, abs=2)
            finally:
                await connection.close()

    run(work)


def test_a_transfer_that_cannot_begin_in_time_is_told_to_come_back() -> None:
    world = World(LEAST_RATE)

    async def hold() -> None:
        async with world.lane.moving(A, LARGE):
            await world.clock.sleep(2 * PATIENCE_S)

    async def ask() -> None:
        await world.clock.sleep(1)
        with pytest.raises(RequestRefusedError) as caught:
            await world.move(B)
        assert (caught.value.code, caught.value.after_s) == ("busy", AGAIN_S)
        world.refused[B] = round(world.clock.monotonic())

    world.watch(PATIENCE_S + 2, hold(), ask())
    assert world.refused[B] == pytest.approx(1 + PATIENCE_S, abs=1)
