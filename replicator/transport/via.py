"""A provider that nobody can dial: it waits at a relay, and comes back there for each client (:mod:`.relay`)."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from replicator.charter.offers import verify_offer
from replicator.clock import Clock
from replicator.crypto.sign import Context, SigningKey
from replicator.endpoints import direct, parse_way, via
from replicator.errors import FormatError, IntegrityError, PeerError, RefusedError
from replicator.format.codec import encode
from replicator.format.offer import MOST_ENDPOINTS
from replicator.format.relay import Waiting
from replicator.ids import Identity, short
from replicator.rng import Rng
from replicator.transport.base import Target
from replicator.transport.client import TlsConnection, TlsNetwork
from replicator.transport.patience import CONNECT_S, MAX_REASON, reason_of
from replicator.transport.relay import MAGIC, MOST
from replicator.wire.messages import Signed, WaitReply

log = logging.getLogger(__name__)

FIRST_S: Final = 2.0
"""Before a relay that was lost is dialled again; doubled each time, up to :data:`LAST_S`."""
LAST_S: Final = 300.0
QUIET_S: Final = 1.0
"""Between an answer that nobody came and the next question: a relay is not believed that it waits with an answer."""
PAUSE_S: Final = 0.05
"""Likewise when somebody came; others that came meanwhile are in the next answer together."""
WAYS: Final = 2
"""Addresses of one relay that go into the offer: others shall have room there."""


AdmitThrough = Callable[[socket.socket, Identity], Awaitable[None]]
"""Takes a connection that came through this relay; it closes the socket when it is done with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayAddress:
    """A relay as the operator named it: "host:port" and whose key answers there."""

    endpoint: str
    identity: Identity


class Place(Protocol):
    """What a relayed provider knows of relays, and says of itself."""

    def relay_endpoints(self, relay: Identity) -> list[str]:
        """Return where a relay is by the newest that was heard of it; blocks."""
        ...

    def reached_via(self, relay: Identity, endpoints: list[str]) -> None:
        """Say in its offer that it is reached through these endpoints of a relay; blocks."""
        ...

    def relay_lost(self, relay: Identity, since_ns: int, reason: str) -> None:
        """Keep for its operator since when it cannot wait at a relay, and why; blocks."""
        ...

    def relay_found(self, relay: Identity) -> None:
        """Keep that it waits at a relay; blocks."""
        ...


@asynccontextmanager
async def held(
    admit: AdmitThrough, relays: Sequence[RelayAddress], place: Place, key: SigningKey, clock: Clock, rng: Rng
) -> AsyncIterator[None]:
    """Wait at relays while the block runs; whoever comes through one is let in by ``admit``."""
    waiting = [asyncio.ensure_future(_Waiter(admit, one, place, key, clock, rng).run()) for one in relays]
    try:
        yield
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class _Waiter:
    def __init__(
        self, admit: AdmitThrough, relay: RelayAddress, place: Place, key: SigningKey, clock: Clock, rng: Rng
    ) -> None:
        self._admit = admit
        self._relay = relay
        self._place = place
        self._key = key
        self._clock = clock
        self._rng = rng
        self._network = TlsNetwork()
        self._comings: set[asyncio.Task[None]] = set()
        self._failing_ns = 0
        """Since when nothing came of any try; 0: the last one did."""
        self._noted: str | None = ""
        """With which reason this is kept as lost, None: it is not. An earlier process may have left that it is."""

    async def run(self) -> None:
        """Wait for ever, dialling the relay again when it is lost; cancelled, what it was asked for is let go of."""
        losses, lost = 0, ""
        try:
            while True:
                try:
                    connection = await self._dialled()
                    try:
                        first = True
                        while True:
                            came = await self._once(connection)
                            if lost or not losses:
                                log.info("waiting at relay %s", short(self._relay.identity), extra={"unit": "relay"})
                            losses, lost = 1, ""
                            await self._found()
                            if came or not first:  # the first answer comes at once, and only says that it may wait
                                await self._clock.sleep(PAUSE_S if came else QUIET_S)
                            first = False
                    finally:
                        await connection.close()
                except Exception as error:
                    reason = _reason(error)
                    if reason != lost:  # what stays so is said once
                        log.warning("relay %s: %s", short(self._relay.identity), reason)
                    lost = reason
                    await self._lost(reason)
                await self._clock.sleep(backoff_s(losses, self._rng.below(1 << 10) / (1 << 10)))
                losses += 1
        finally:
            for task in self._comings:
                task.cancel()

    async def _lost(self, reason: str) -> None:
        """Note that nothing came of a try; the first one in a row may be a connection that broke, and says nothing."""
        if not self._failing_ns:
            self._failing_ns = self._clock.now_ns()
        elif reason != self._noted and await self._kept(
            partial(self._place.relay_lost, self._relay.identity, self._failing_ns, reason)
        ):
            self._noted = reason

    async def _found(self) -> None:
        self._failing_ns = 0
        if self._noted is not None and await self._kept(partial(self._place.relay_found, self._relay.identity)):
            self._noted = None

    async def _kept(self, work: Callable[[], None]) -> bool:
        """Return whether something could be kept; waiting at a relay goes on without."""
        try:
            await asyncio.to_thread(work)
        except Exception as error:
            log.error("relay %s: that it was lost or found cannot be kept (%s)", short(self._relay.identity), error)  # noqa: TRY400 - a traceback has names
            return False
        return True

    async def _dialled(self) -> TlsConnection:
        heard = await asyncio.to_thread(self._place.relay_endpoints, self._relay.identity)
        target = Target(
            identity=self._relay.identity,
            name="the relay",
            endpoints=tuple(dict.fromkeys((*heard[:MOST_ENDPOINTS], self._relay.endpoint))),
            key=self._key,
            certificate=None,
        )
        return await self._network.reach(target)

    async def _once(self, connection: TlsConnection) -> bool:
        """Ask once whether somebody came, and return that; go back for each who did."""
        word = Waiting(relay=self._relay.identity, asked_ns=self._clock.now_ns())
        signed = self._key.sign(Context.WAITING, encode(word))
        reply = await connection.call("wait", Signed(statement=signed), WaitReply)
        await asyncio.to_thread(self._place.reached_via, self._relay.identity, self._ways(reply.offer, connection))
        for token in reply.tokens:
            if len(self._comings) < MOST:
                task = asyncio.ensure_future(self._come_back(connection.endpoint, token))
                self._comings.add(task)
                task.add_done_callback(self._comings.discard)
        return bool(reply.tokens)

    def _ways(self, signed: bytes, connection: TlsConnection) -> list[str]:
        """Return the endpoints to offer: the relay's own of its offer, else the one that works from here."""
        named: list[str] = []
        with contextlib.suppress(FormatError, IntegrityError):
            found = verify_offer(signed)
            if found.identity == self._relay.identity:
                named = direct(found.offer.endpoints)
        return [via(self._relay.identity, one) for one in (named or [connection.endpoint])[:WAYS]]

    async def _come_back(self, endpoint: str, token: bytes) -> None:
        way = parse_way(endpoint)
        try:
            async with asyncio.timeout(CONNECT_S):
                client = await _greeted(way.host, way.port, MAGIC + token)
        except OSError as error:
            reason = reason_of(error)
            log.warning("relay %s: could not come back for a client (%s)", short(self._relay.identity), reason)
            return
        with contextlib.suppress(OSError):  # who gets no TLS going is like any who knocks and runs
            await self._admit(client, self._relay.identity)


async def _greeted(host: str, port: int, words: bytes) -> socket.socket:
    """Return a connection, of which these were the first words. Raises OSError."""
    loop = asyncio.get_running_loop()
    problem = OSError("no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found = socket.socket(family, kind, protocol)
        found.settimeout(0)
        try:
            await loop.sock_connect(found, address)
            await loop.sock_sendall(found, words)
        except OSError as error:
            found.close()
            problem = error
        except BaseException:
            found.close()
            raise
        else:
            return found
    raise problem


def _reason(error: Exception) -> str:
    """Return why nothing came of a try, in our words or, said so, in the relay's."""
    if isinstance(error, RefusedError):
        return f"it answers: {error.reason}"[:MAX_REASON]
    return error.reason if isinstance(error, PeerError) else str(error) or type(error).__name__


def backoff_s(losses: int, chance: float) -> float:
    """Return how long to leave a relay alone that was lost so many times in a row; ``chance`` in [0, 1) spreads it."""
    return min(FIRST_S * 2.0 ** min(losses, 10), LAST_S) * (0.5 + chance / 2)
