"""The listening sockets of a provider that relays others: who knocks is looked at before anybody answers.

A connection that asks for a relayed provider by its name is passed on, one that brings a token is put together with
the client that it came back for, and everything else is for the provider here, whose TLS finds each byte unread.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from replicator.endpoints import join_endpoint
from replicator.ids import Identity
from replicator.transport.hello import MOST, needed, wanted
from replicator.transport.relay import GREETING, MAGIC, Relay

log = logging.getLogger(__name__)

GREET_S: Final = 10.0
"""How long a connection may take to say whom it wants."""
GLANCE_S: Final = 0.02
"""Between two looks at a greeting that has not all come: the first one has nearly always."""
REST_S: Final = 1.0
"""When no connection can be taken, until the next try."""
MOST_UNSEEN: Final = 256
"""Connections that have not said whom they want."""
BACKLOG: Final = 128

Admit = Callable[[socket.socket], Awaitable[None]]
"""Takes an accepted connection for the provider here; it closes the socket when it is done with it."""


def listening(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on every address of a host.

    Raises:
        OSError: on one of them it cannot.
    """
    found: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            one = socket.socket(family, socket.SOCK_STREAM)
            found.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(BACKLOG)
    except OSError:
        for one in found:
            one.close()
        raise
    return found


@asynccontextmanager
async def opened(
    listeners: Sequence[socket.socket], relay: Relay, own: Identity, admit: Admit
) -> AsyncIterator[list[str]]:
    """Look at who knocks while the block runs; yields "host:port" of the listeners, which are closed at the end."""
    door = _Door(relay, own, admit)
    for one in listeners:
        one.settimeout(0)
    accepting = [asyncio.ensure_future(door.accept(one)) for one in listeners]
    try:
        yield [join_endpoint(*one.getsockname()[:2]) for one in listeners]
    finally:
        for task in accepting:
            task.cancel()
        for one in listeners:
            one.close()
        relay.close()
        await door.closed()


class _Door:
    def __init__(self, relay: Relay, own: Identity, admit: Admit) -> None:
        self._relay = relay
        self._own = own
        self._admit = admit
        self._unseen = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._fresh: set[socket.socket] = set()
        """Clients whose task has not begun: one that is cancelled then closes nothing."""

    async def accept(self, listener: socket.socket) -> None:
        while True:
            await _readable(listener)
            # Not loop.sock_accept: cancelled at the wrong moment, that forgets a client that it has taken.
            try:
                client, address = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                # No descriptor is free, or the client has gone again: the others are served meanwhile.
                log.warning("a connection could not be taken (%s)", error.strerror)
                await asyncio.sleep(REST_S)
                continue
            if self._unseen >= MOST_UNSEEN:
                client.close()
                continue
            client.settimeout(0)
            self._fresh.add(client)
            task = asyncio.ensure_future(self._greet(client, str(address[0])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def closed(self) -> None:
        """Wait until everything that was passed on is let go of; what has not said whom it wants is closed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._fresh:
            client.close()

    async def _greet(self, client: socket.socket, source: str) -> None:
        self._fresh.discard(client)
        self._unseen += 1
        try:
            async with asyncio.timeout(GREET_S):
                data = await _peeked(client)
        except (TimeoutError, OSError, asyncio.CancelledError):
            client.close()
            return
        finally:
            self._unseen -= 1
        if data.startswith(MAGIC):
            client.recv(GREETING)  # all of it is there
            self._relay.join(client, data[len(MAGIC) :])
            return
        identity = wanted(data)
        if identity is None or identity == self._own:
            with contextlib.suppress(OSError):
                await self._admit(client)
        else:
            await self._relay.pass_on(client, source, identity)


async def _peeked(client: socket.socket) -> bytes:
    """Return the first record of a connection, or a whole token, leaving it unread."""
    await _readable(client)
    while True:
        data = client.recv(MOST, socket.MSG_PEEK)
        if not data:
            raise ConnectionResetError("closed before it said anything")
        if data.startswith(MAGIC[: len(data)]):
            if len(data) >= GREETING:
                return data[:GREETING]
        elif len(data) >= needed(data):
            return data
        # What has come stays readable, so that nobody would wake us for the rest.
        await asyncio.sleep(GLANCE_S)


async def _readable(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(client, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(client)
