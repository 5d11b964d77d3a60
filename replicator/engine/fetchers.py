"""The process that fetches packs for a restore, and what became of each: on the loop that fetches all the rest.

It brings objects into slots, memory that it shares with the processes that write, and is told which provider to ask;
whom to ask, and what an answer says about a provider, stays in the restoring process.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from replicator.engine.fetchframes import Dial, Fetch, Fetched, FromFetcher, GiveUp, Setup, from_fetcher
from replicator.engine.helpers import Helper, close
from replicator.errors import BusyError, IntegrityError, ProtocolError, RefusedError, ReplicatorError, UnreachableError
from replicator.ids import ObjectName
from replicator.transport.base import Connection, Reach

GO_ON: Final = "what has its name is whole: go on with --overwrite if-changed"


class Fetchers:
    """One fetching process. Used on the loop only; to end it, :meth:`close`."""

    def __init__(self, slots: Sequence[int]) -> None:
        """Start it. ``slots`` are descriptors of :mod:`~replicator.engine.slots`, and stay the caller's."""
        self._loop = asyncio.get_running_loop()
        self._helper: Helper[FromFetcher] = Helper.start(
            "replicator.engine.fetcher", from_fetcher, "a fetching process", GO_ON
        )
        self._providers: dict[Reach, int] = {}
        self._tasks: dict[int, tuple[asyncio.Future[int], str]] = {}
        self._number = 0
        self._ended: ReplicatorError | None = None
        self._helper.say(Setup(len(slots)), slots)
        self._loop.add_reader(self._helper.fileno(), self._hear)

    async def get_into(self, connection: Connection, name: ObjectName, slot: int) -> int:
        """Bring an object into a slot over a connection that has a reach; return its size.

        When this is cancelled, it ends once nothing more is written to the slot.

        Raises:
            IntegrityError: the provider answered with other bytes.
            PeerError: it did not answer, or refused.
            ReplicatorError: the process cannot go on.
        """
        if self._ended is not None:
            raise self._ended
        reach = connection.reach()
        assert reach is not None, "it was asked for"
        provider = self._providers.get(reach)
        if provider is None:
            provider = self._providers[reach] = len(self._providers)
            self._helper.say(Dial(provider, reach))
        self._number += 1
        number, future = self._number, self._loop.create_future()
        self._tasks[number] = future, reach.name
        self._helper.say(Fetch(number, provider, name, slot))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with suppress(ReplicatorError):
                if not future.done():
                    self._helper.say(GiveUp(number))
                await asyncio.wait([future])
            raise

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._ended is None:
            self._end(ReplicatorError("the fetching process was closed"))
        close([self._helper])

    def _hear(self) -> None:
        try:
            self._helper.take_in()
            while (message := self._helper.next()) is not None:
                assert isinstance(message, Fetched), "what has failed was raised"
                self._took(message)
        except ReplicatorError as error:
            self._end(error)

    def _took(self, message: Fetched) -> None:
        future, name = self._tasks.pop(message.task)
        if future.done():
            return  # the process was thought to have ended
        if message.problem:
            future.set_exception(_problem(name, message))
        else:
            future.set_result(message.size)

    def _end(self, error: ReplicatorError) -> None:
        self._ended = error
        self._loop.remove_reader(self._helper.fileno())
        tasks, self._tasks = self._tasks, {}
        for future, _ in tasks.values():
            if not future.done():
                future.set_exception(error)


def _problem(peer: str, message: Fetched) -> ReplicatorError:
    if message.problem == "given up":
        return ReplicatorError("given up")
    if message.problem == "bytes":
        return IntegrityError(message.text)
    if message.problem == "busy":
        return BusyError(peer, message.text, after_s=message.after_s)
    if message.problem == "refused":
        return RefusedError(peer, message.text, code=message.code)
    return (ProtocolError if message.problem == "protocol" else UnreachableError)(peer, message.text)
