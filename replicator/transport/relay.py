"""Passing connections on to providers that nobody can dial: bytes go from socket to socket, and are TLS of others.

    provider P  --- asks "wait", over TLS, again and again ---------------->  relay R
    client C    --- TLS to R's door, under P's name (transport/hello) ---->  R holds the socket, unread
    P  <-- the answer to "wait": a token ----------------------------------  R
    P  --- a new connection to the same door: b"rpl1" and the token ------>  R puts the two together
    C  <=============== TLS between C and P, R sees ciphertext ===========>  P

R can drop, delay and count what it passes on; the key that answers inside is P's or the client goes away. Nobody is
passed on to but who asked for it, and only while it waits.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from replicator.clock import Clock
from replicator.ids import Identity
from replicator.rng import Rng
from replicator.wire.messages import TOKEN_SIZE

log = logging.getLogger(__name__)

MAGIC: Final = b"rpl1"
"""First bytes of a connection that comes back for a client; no TLS begins so."""
GREETING: Final = len(MAGIC) + TOKEN_SIZE
POLL_S: Final = 50.0
"""How long a question waits for a client: shorter than any router forgets a connection that is quiet."""
PRESENT_S: Final = 30.0
"""How long after its last answer a provider still counts as there."""
COMING_S: Final = 15.0
"""How long a client is kept until the provider comes back for it."""
IDLE_S: Final = 180.0
"""Longer than any end of a connection waits for the other: whoever moves nothing for so long has gone."""
MOST: Final = 32
"""Connections of one provider at a time, waiting ones with them."""
MOST_OF_ONE: Final = 12
"""Of these, those of one source: one stranger cannot take all."""
MOST_IN_ALL: Final = 128
PIECE: Final = 64 << 10
RATE: Final = 4 << 20
"""Bytes a second for each provider, both ways together, unless the operator says otherwise."""

Counted = Callable[[Identity, int], object]
"""Told how many bytes one connection of a provider moved, when it ends."""


class Rate:
    """Bytes a second, over all connections that share it; a second's worth may go at once."""

    def __init__(self, clock: Clock, per_s: int) -> None:
        self._clock = clock
        self._per_s = per_s
        self._free_at = clock.monotonic()

    async def spend(self, size: int) -> None:
        """Wait until so many bytes may go."""
        now = self._clock.monotonic()
        self._free_at = max(self._free_at, now) + size / self._per_s
        if self._free_at - 1.0 > now:
            await self._clock.sleep(self._free_at - 1.0 - now)


@dataclass(slots=True)
class _Held:
    """A provider that waits here. ``clients`` are tokens that it has not been given yet."""

    rate: Rate
    clients: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    asking: int = 0
    answered_at: float = 0.0
    open: int = 0
    sources: Counter[str] = field(default_factory=Counter)


class Relay:
    """The providers that wait here, and the connections that are passed on to them. For one event loop."""

    def __init__(self, clock: Clock, rng: Rng, counted: Counted, *, per_s: int = RATE) -> None:
        self._clock = clock
        self._rng = rng
        self._counted = counted
        self._per_s = per_s
        self._held: dict[Identity, _Held] = {}
        self._coming: dict[bytes, asyncio.Future[socket.socket]] = {}
        self._closing = asyncio.Event()
        self._open = 0

    async def wait(self, identity: Identity) -> list[bytes]:
        """Return tokens of clients that want this provider, as soon as there is one; none after :data:`POLL_S`.

        Who has not waited lately has an answer at once: now it knows that it may, and can say so to others.
        """
        if not self.waits(identity):
            self._forget()
            self._held.setdefault(identity, _Held(Rate(self._clock, self._per_s))).answered_at = self._clock.monotonic()
            return []
        held = self._held[identity]
        held.asking += 1
        closing = asyncio.ensure_future(self._closing.wait())
        client = asyncio.ensure_future(held.clients.get())
        tokens: list[bytes] = []
        try:
            await asyncio.wait((closing, client), timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            if client.done():
                tokens.append(client.result())
            client.cancel()
            held.asking -= 1
            held.answered_at = self._clock.monotonic()
        while not held.clients.empty():
            tokens.append(held.clients.get_nowait())
        return [token for token in tokens if token in self._coming]

    def _forget(self) -> None:
        """Forget who has gone: whoever may wait here can make up as many names of others who may as it likes."""
        self._held = {one: held for one, held in self._held.items() if held.open or self.waits(one)}

    def waits(self, identity: Identity) -> bool:
        """Return whether a provider is there to be passed on to."""
        held = self._held.get(identity)
        if held is None or self._closing.is_set():
            return False
        return bool(held.asking) or self._clock.monotonic() - held.answered_at < PRESENT_S

    async def pass_on(self, client: socket.socket, source: str, identity: Identity) -> None:
        """Pass a client's connection on until either end is done; it is closed at the end. Nothing of it was read."""
        with client:
            held = self._held.get(identity)
            if held is None or not self.waits(identity):
                return
            if held.open >= MOST or held.sources[source] >= MOST_OF_ONE or self._open >= MOST_IN_ALL:
                log.warning("a connection was not passed on: there are enough")
                return
            held.open += 1
            held.sources[source] += 1
            self._open += 1
            try:
                await self._pass_on(client, identity, held)
            finally:
                held.open -= 1
                held.sources[source] -= 1
                if not held.sources[source]:
                    del held.sources[source]
                self._open -= 1

    async def _pass_on(self, client: socket.socket, identity: Identity, held: _Held) -> None:
        token = self._rng.bytes(TOKEN_SIZE)
        coming = self._coming[token] = asyncio.get_running_loop().create_future()
        held.clients.put_nowait(token)
        closing = asyncio.ensure_future(self._closing.wait())
        moving: asyncio.Future[int] | None = None
        try:
            await asyncio.wait((closing, coming), timeout=COMING_S, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                moving = asyncio.ensure_future(spliced(client, coming.result(), held.rate))
                await asyncio.wait((closing, moving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._coming[token]
            closing.cancel()
            if moving is not None:
                moving.cancel()
                self._counted(identity, await moving)
            elif not coming.cancel():
                coming.result().close()

    def join(self, provider: socket.socket, token: bytes) -> None:
        """Take a provider's connection for the client with this token; it is closed if nobody waits for it."""
        coming = self._coming.get(token)
        if coming is None or coming.done():
            provider.close()
        else:
            coming.set_result(provider)

    def close(self) -> None:
        """Let go of all that is passed on, and of who waits; idempotent."""
        self._closing.set()


async def spliced(one: socket.socket, other: socket.socket, rate: Rate, *, idle_s: float = IDLE_S) -> int:
    """Move bytes both ways until both ends are done, one breaks, or neither says anything; return how many.

    Cancelled, it returns what was moved. Both are closed.
    """
    loop = asyncio.get_running_loop()
    moved = 0
    try:
        with one, other:
            async with asyncio.timeout(idle_s) as idle:

                async def pump(source: socket.socket, sink: socket.socket) -> None:
                    nonlocal moved
                    while data := await loop.sock_recv(source, PIECE):
                        await rate.spend(len(data))
                        await loop.sock_sendall(sink, data)
                        moved += len(data)
                        idle.reschedule(loop.time() + idle_s)
                    sink.shutdown(socket.SHUT_WR)

                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(pump(one, other))
                    pumps.create_task(pump(other, one))
    except (OSError, ExceptionGroup, asyncio.CancelledError):
        pass  # how it ended is the two ends' matter; a TimeoutError is an OSError
    return moved
