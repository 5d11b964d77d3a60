"""The network inside one process: the same words as over TLS, and faults on demand."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from replicator.errors import BusyError, ProtocolError, RefusedError, UnreachableError
from replicator.format.merkle import name_of
from replicator.ids import Identity
from replicator.transport.base import Connection, Network, Target
from replicator.transport.client import TlsNetwork
from replicator.transport.memory import MemoryNetwork, Phase
from replicator.wire.messages import CheckRequest, Empty, EnrolRequest, Heads, HeadsRequest, Info, Signed
from tests.provider.stand import Stand
from tests.provider.tenant import MIB, SMALL, Tenant, data_object, secret_of
from tests.transport.live import refused


@dataclass
class Place:
    """A settled provider on a memory network."""

    stand: Stand
    network: MemoryNetwork

    def target(self, certificate: bytes | None = None) -> Target:
        """Return the provider as its node knows it."""
        return Target(
            identity=self.stand.service.identity,
            name="alice",
            endpoints=(),
            key=self.stand.tenant.node,
            certificate=certificate,
        )

    async def connect(self) -> Connection:
        """Enrol the node and connect it."""
        key = self.stand.tenant.node
        request = EnrolRequest(holder_key=key.public, secret=b"", order=self.stand.tenant.order(key), root=b"")
        reply = await self.network.enrol(self.target(), request)
        return await self.network.connect(self.target(reply.certificate))


@pytest.fixture
def place(tmp_path: str) -> Iterator[Place]:
    stand = Stand(str(tmp_path))
    yield Place(stand, MemoryNetwork(stand.service))
    stand.provider.close()


def test_both_networks_are_what_the_engine_needs() -> None:
    networks: list[Network] = [MemoryNetwork(), TlsNetwork()]
    assert len(networks) == 2


def test_a_round_trip(place: Place) -> None:
    async def work() -> None:
        connection = await place.connect()
        data = data_object(1, 2 * MIB)
        await connection.put(name_of(data), data)
        assert await connection.get(name_of(data)) == data
        assert await connection.get(name_of(data), MIB, MIB) == data[MIB:]
        await connection.call("head", Signed(statement=place.stand.tenant.head(1)), Signed)
        assert (await connection.call("heads", HeadsRequest(challenge=bytes(32)), Heads)).heads == [
            place.stand.tenant.head(1)
        ]
        await connection.close()

    asyncio.run(work())


def test_refusals_have_the_words_of_the_wire(place: Place) -> None:
    async def work() -> None:
        connection = await place.connect()
        data = data_object(1)
        assert await refused(connection.get(name_of(data))) == "not-found"
        assert await refused(connection.put(name_of(data), data_object(2))) == "wrong-name"
        with pytest.raises(ProtocolError, match="cannot be read"):
            await connection.call("info", Empty(), Heads)
        uploads = [place.stand.node.begin_put(name_of(data_object(seed)), SMALL) for seed in range(3)]
        with pytest.raises(BusyError) as caught:
            await connection.put(name_of(data), data)
        assert caught.value.after_s > 0
        assert len(uploads) == 3

    asyncio.run(work())


def test_a_certificate_for_the_key_is_needed(place: Place) -> None:
    async def work() -> None:
        bare = await place.network.connect(place.target())
        assert await refused(bare.call("info", Empty(), Info)) == "unauthorized"
        assert await refused(bare.get(name_of(data_object(7)))) == "unauthorized"
        tenant = Tenant("new")
        secret = secret_of(place.stand.provider.invite(quota=MIB, label=""))
        request = EnrolRequest(holder_key=tenant.keeper.public, secret=secret, order=b"", root=tenant.root_statement())
        reply = await place.network.enrol(place.target(), request)
        foreign = await place.network.connect(place.target(reply.certificate))
        assert await refused(foreign.call("info", Empty(), Info)) == "unauthorized"
        with pytest.raises(RefusedError) as caught:
            await place.network.enrol(
                place.target(), EnrolRequest(holder_key=tenant.node.public, secret=secret, order=b"", root=request.root)
            )
        assert caught.value.code == "spent"

    asyncio.run(work())


def test_a_provider_that_is_gone_is_unreachable_also_on_an_open_connection(place: Place) -> None:
    async def work() -> None:
        connection = await place.connect()
        place.network.remove(place.stand.service.identity)
        place.network.remove(place.stand.service.identity)
        with pytest.raises(UnreachableError):
            await place.network.connect(place.target())
        with pytest.raises(UnreachableError):
            await connection.call("info", Empty(), Info)
        place.stand.restart()
        place.network.add(place.stand.service)
        await connection.call("info", Empty(), Info)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("op", "phase", "stored"),
    [("put", "before", False), ("put", "during", False), ("put", "after", True), ("connect", "before", False)],
)
def test_a_fault_hits_the_phase_it_was_planned_for(place: Place, op: str, phase: Phase, stored: bool) -> None:
    seen: list[tuple[str, Phase]] = []

    def faults(identity: Identity, at_op: str, at_phase: Phase) -> None:
        assert identity == place.stand.service.identity
        seen.append((at_op, at_phase))
        if (at_op, at_phase) == (op, phase):
            raise UnreachableError("alice", "planned")

    async def work() -> None:
        data = data_object(1, MIB)
        connection = await place.connect() if op == "put" else None
        place.network.faults = faults
        with pytest.raises(UnreachableError, match="planned"):
            await (connection.put(name_of(data), data) if connection else place.connect())
        assert seen[-1] == (op, phase)
        assert (place.stand.node.check(_check(data)).states == ["good"]) is stored
        place.stand.node.begin_put(name_of(data), MIB).abort()

    asyncio.run(work())


def _check(data: bytes) -> CheckRequest:
    return CheckRequest(names=name_of(data))


def test_an_upload_breaks_after_so_many_bytes_once(place: Place) -> None:
    async def work() -> None:
        connection = await place.connect()
        data = data_object(1, MIB)
        identity = place.stand.service.identity
        place.network.fail_after(identity, bytes=MIB // 2, exception=UnreachableError("alice", "planned"))
        with pytest.raises(UnreachableError, match="planned"):
            await connection.put(name_of(data), data)
        assert place.network.uploaded[identity] == MIB // 2
        assert place.stand.node.info().used == 2 * SMALL
        await connection.put(name_of(data), data)
        assert await connection.get(name_of(data)) == data

    asyncio.run(work())
