"""A provider's line, shared by its tenants: so many bytes a second to it and from it, all tenants together.

What is small waits a little at the most, because the record that completes a snapshot is small; requests that carry no
object (heads, claims, audits) do not wait at all.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from replicator.clock import Clock
from replicator.config import LEAST_RATE
from replicator.ids import TenantId
from replicator.transport.handler import RequestRefusedError
from scheduler.lanes import Places, Round
from scheduler.night import Bucket

PATIENCE_S: Final = 90.0
"""How long a transfer waits to begin before it is told to come back: shorter than clients wait for an answer."""
SOON_S: Final = 10.0
"""How long a piece of something small waits. Whoever sends nothing else gets past the rate by one each so often."""
AGAIN_S: Final = 15.0
"""When to come back: its place is kept for longer."""
_LOOK_S: Final = 1.0
_PIECE: Final = 64 << 10
"""Bytes of a turn, and as many as to make :data:`_TURNS_A_SECOND` of them at the most."""
_TURNS_A_SECOND: Final = 32

Spend = Callable[[int], Coroutine[None, None, None]]
"""Waits until so many bytes more may come or go."""


class Lane:
    """One direction. ``rate`` tells the bytes a second that hold now, 0 for any number; ``small``: what goes before."""

    def __init__(self, clock: Clock, rate: Callable[[], int], *, small: int) -> None:
        self._clock = clock
        self._rate = rate
        self._small = small
        self._bucket = Bucket()
        self._places = Places()
        self._round: Round[asyncio.Future[None]] = Round()
        self._taken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def open(self) -> None:
        """Let threads use it too, by the event loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Hold nothing up any more: what was begun is to end soon."""
        self._is_closed = True

    @asynccontextmanager
    async def moving(self, tenant: TenantId, size: int) -> AsyncIterator[Spend]:
        """Move an object of ``size`` bytes inside the block; yields what is awaited before each piece of it.

        Raises:
            RequestRefusedError: "busy": so much is moving that each would be too slow.
        """
        if size <= self._small:
            yield lambda piece: self._spend_soon(tenant, piece)
            return
        await self._begin(tenant)
        try:
            yield lambda piece: self._spend(tenant, piece)
        finally:
            self._places.end(tenant)

    @contextmanager
    def moving_beside(self, tenant: TenantId, size: int) -> Iterator[Callable[[int], None]]:
        """Do the same on another thread than the event loop's; before :meth:`open` nothing waits.

        Raises:
            RequestRefusedError: as :meth:`moving`.
        """
        loop = self._loop
        if loop is None:
            yield lambda _piece: None
            return
        moving = self.moving(tenant, size)

        async def begin() -> Spend:
            return await moving.__aenter__()

        async def end() -> None:
            await moving.__aexit__(None, None, None)

        spend = asyncio.run_coroutine_threadsafe(begin(), loop).result()
        try:
            yield lambda piece: asyncio.run_coroutine_threadsafe(spend(piece), loop).result()
        finally:
            asyncio.run_coroutine_threadsafe(end(), loop).result()

    def _per_s(self) -> int:
        return 0 if self._is_closed else self._rate()

    async def _begin(self, tenant: TenantId) -> None:
        began = self._clock.monotonic()
        while True:
            now, rate = self._clock.monotonic(), self._per_s()
            if self._places.begin(tenant, now, max(1, rate // LEAST_RATE) if rate else None):
                return
            if now - began >= PATIENCE_S:
                raise RequestRefusedError("busy", "as much is moving as its operator lets", after_s=AGAIN_S)
            await self._clock.sleep(_LOOK_S)

    async def _spend(self, tenant: TenantId, size: int, *, soon: bool = False) -> None:
        while size > 0 and (rate := self._per_s()):
            piece = min(size, max(_PIECE, rate // _TURNS_A_SECOND))
            async with self._turn(tenant, soon=soon):
                await self._clock.sleep(self._bucket.take(piece, self._clock.monotonic(), rate))
            size -= piece

    async def _spend_soon(self, tenant: TenantId, size: int) -> None:
        if not self._per_s():
            return
        spending = asyncio.ensure_future(self._spend(tenant, size, soon=True))
        patience = asyncio.ensure_future(self._clock.sleep(SOON_S))
        try:
            done, _ = await asyncio.wait((spending, patience), return_when=asyncio.FIRST_COMPLETED)
            if spending in done:
                spending.result()
        finally:
            spending.cancel()
            patience.cancel()

    @asynccontextmanager
    async def _turn(self, tenant: TenantId, *, soon: bool) -> AsyncIterator[None]:
        if self._taken:
            mine = asyncio.get_running_loop().create_future()
            self._round.add(tenant, mine, soon=soon)
            try:
                await mine
            except asyncio.CancelledError:
                if mine.cancelled():
                    self._round.remove(tenant, mine)
                else:
                    self._pass_on()
                raise
        else:
            self._taken = True
            self._round.had(tenant)
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        self._taken = False
        while (mine := self._round.next()) is not None:
            if not mine.done():
                self._taken = True
                mine.set_result(None)
                return


class Lanes:
    """Both directions: ``down`` is what tenants send, ``up`` what they fetch, in bytes a second (0: any number)."""

    def __init__(self, clock: Clock, *, down: Callable[[], int], up: Callable[[], int], small: int) -> None:
        self.down = Lane(clock, down, small=small)
        self.up = Lane(clock, up, small=small)

    def open(self) -> None:
        """Begin to serve, on the event loop that runs now."""
        self.down.open()
        self.up.open()

    def close(self) -> None:
        """Hold nothing up any more."""
        self.down.close()
        self.up.close()
