"""Several runs at the same time, interleaved at every request by a seed, and killed where it is said.

Each actor has a network of its own, on which every request waits for its turn. Turns are given one at a time, to one of
the actors that wait, as a seeded choice has it: what one actor reads may be changed by another before it acts on it.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from replicator.engine.edge import Edge
from replicator.format.codec import Record
from replicator.format.group import GroupFacts
from replicator.ids import Identity, ObjectName
from replicator.transport.base import Connection, Target
from replicator.transport.memory import MemoryNetwork
from replicator.wire.messages import EnrolReply, EnrolRequest, JoinRequest

A = TypeVar("A", bound=Record)
Actor = Callable[[Edge], Coroutine[Any, Any, object]]
SETTLING = 5
"""Turns of the loop in which all parts of an actor come to wait that are going to."""


class KilledError(BaseException):
    """The process ends here; as little as possible of it is to be caught."""


@dataclass
class _Stage:
    waiting: list[tuple[str, "asyncio.Future[None]"]] = field(default_factory=list)
    made: dict[str, int] = field(default_factory=dict)
    kills: Mapping[str, int] = field(default_factory=dict)

    async def turn(self, actor: str) -> None:
        """Wait for this actor's turn."""
        if self._dead(actor):
            raise KilledError(actor)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((actor, future))
        await future
        self.made[actor] = self.made.get(actor, 0) + 1
        if self._dead(actor):
            raise KilledError(actor)

    def _dead(self, actor: str) -> bool:
        return actor in self.kills and self.made.get(actor, 0) >= self.kills[actor]


class _Network:
    def __init__(self, network: MemoryNetwork, stage: _Stage, actor: str) -> None:
        self._network = network
        self._stage = stage
        self._actor = actor

    async def identify(self, endpoint: str) -> Identity:
        return await self._network.identify(endpoint)

    async def enrol(self, target: Target, request: EnrolRequest) -> EnrolReply:
        await self._stage.turn(self._actor)
        return await self._network.enrol(target, request)

    async def join(self, target: Target, request: JoinRequest) -> GroupFacts:
        await self._stage.turn(self._actor)
        return await self._network.join(target, request)

    async def erase(self, target: Target, order: bytes) -> bytes:
        await self._stage.turn(self._actor)
        return await self._network.erase(target, order)

    async def connect(self, target: Target) -> "_Connection":
        await self._stage.turn(self._actor)
        return _Connection(await self._network.connect(target), self._stage, self._actor)


class _Connection:
    def __init__(self, connection: Connection, stage: _Stage, actor: str) -> None:
        self.target = connection.target
        self.endpoint = connection.endpoint
        self._connection = connection
        self._stage = stage
        self._actor = actor

    async def call(self, op: str, request: Record, answer: type[A]) -> A:
        await self._stage.turn(self._actor)
        return await self._connection.call(op, request, answer)

    async def put(self, name: ObjectName, data: bytes) -> bytes:
        await self._stage.turn(self._actor)
        return await self._connection.put(name, data)

    async def get(self, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        await self._stage.turn(self._actor)
        return await self._connection.get(name, offset, length)

    def reach(self) -> None:
        return None

    async def close(self) -> None:
        await self._connection.close()


async def together(
    edge: Edge, network: MemoryNetwork, actors: Mapping[str, Actor], *, seed: object, kills: Mapping[str, int]
) -> dict[str, object]:
    """Run actors at the same time; return what each came to, an exception too. ``kills``: after so many requests."""
    stage = _Stage(kills=kills)
    choice = random.Random(f"together {seed}")
    tasks = {
        name: asyncio.ensure_future(_kept(actor(replace(edge, network=_Network(network, stage, name)))))
        for name, actor in actors.items()
    }
    while not all(task.done() for task in tasks.values()):
        for _ in range(SETTLING):
            await asyncio.sleep(0)
        parked = {name for name, _ in stage.waiting}
        if any(not task.done() and name not in parked for name, task in tasks.items()):
            await asyncio.sleep(0)  # it computes, perhaps in a thread: nobody else goes on meanwhile
            continue
        if stage.waiting:
            _, future = stage.waiting.pop(choice.randrange(len(stage.waiting)))
            if not future.done():
                future.set_result(None)
    return {name: task.result() for name, task in tasks.items()}


async def _kept(work: Coroutine[Any, Any, object]) -> object:
    try:
        return await work
    except (Exception, KilledError) as error:
        return error
