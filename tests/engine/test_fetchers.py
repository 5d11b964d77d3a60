"""A process that fetches packs into memory: what comes, what an error says, and an end in every case."""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from replicator.engine.fetchers import Fetchers
from replicator.engine.slots import Slots
from replicator.errors import IntegrityError, RefusedError, ReplicatorError, UnreachableError
from replicator.format.merkle import name_of
from replicator.format.sizes import SMALLEST
from replicator.ids import ObjectName
from replicator.provider.session import ProviderSession
from replicator.transport.base import Connection
from tests.engine.test_writers import children
from tests.provider.tenant import data_object
from tests.snapshot.support import open_fds
from tests.transport.live import Live, living, run

pytestmark = pytest.mark.process
Work = Callable[[Live, Connection, Slots, Fetchers], Awaitable[None]]


def fetching(path: str, work: Work) -> None:
    """Run a test with a provider, a connection, two slots and a process."""

    async def inner() -> None:
        async with living(path) as at:
            connection = await at.connect()
            slots = Slots(2)
            fetchers = Fetchers(slots.descriptors)
            try:
                await work(at, connection, slots, fetchers)
            finally:
                fetchers.close()
                slots.close()
            assert children() == []
            await connection.close()

    run(inner)


def test_objects_come_at_the_same_time_each_into_its_slot(tmp_path: str) -> None:
    async def work(_at: Live, connection: Connection, slots: Slots, fetchers: Fetchers) -> None:
        objects = [data_object(number, size) for number, size in enumerate((SMALLEST, 1 << 20))]
        for data in objects:
            await connection.put(name_of(data), data)
        for _ in range(3):
            gets = [fetchers.get_into(connection, name_of(data), slot) for slot, data in enumerate(objects)]
            assert await asyncio.gather(*gets) == [len(data) for data in objects]
        for slot, data in zip(slots, objects, strict=True):
            assert os.pread(slot.fd, len(data), 0) == data

    fetching(str(tmp_path), work)


def test_errors_are_those_of_the_peer(tmp_path: str) -> None:
    async def work(at: Live, connection: Connection, _slots: Slots, fetchers: Fetchers) -> None:
        with pytest.raises(RefusedError) as refused:
            await fetchers.get_into(connection, ObjectName(bytes(32)), 0)
        assert (refused.value.code, refused.value.peer) == ("not-found", "alice")
        data = data_object(1)
        await connection.put(name_of(data), data)
        real = type(at.service.session(at.tenant.node.public)).get
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "replicator.provider.session.ProviderSession.get",
                lambda session, *values: bytes(8) + real(session, *values)[8:],
            )
            with pytest.raises(IntegrityError, match="alice: answered with other bytes"):
                await fetchers.get_into(connection, name_of(data), 0)
        assert await fetchers.get_into(connection, name_of(data), 0) == len(data)

    fetching(str(tmp_path), work)


def test_a_provider_that_has_gone_is_unreachable(tmp_path: str) -> None:
    async def inner() -> None:
        async with living(str(tmp_path)) as at:
            connection = await at.connect()
            await connection.close()
        before = open_fds()
        slots = Slots(1)
        fetchers = Fetchers(slots.descriptors)
        with pytest.raises(UnreachableError, match="alice"):
            await fetchers.get_into(connection, ObjectName(bytes(32)), 0)
        fetchers.close()
        slots.close()
        assert open_fds() == before

    run(inner)


def test_the_death_of_the_process_ends_what_waits_and_what_comes(tmp_path: str) -> None:
    async def work(_at: Live, connection: Connection, _slots: Slots, fetchers: Fetchers) -> None:
        os.kill(fetchers._helper.process.pid, signal.SIGSTOP)
        waiting = asyncio.ensure_future(fetchers.get_into(connection, ObjectName(bytes(32)), 0))
        await asyncio.sleep(0)
        os.kill(fetchers._helper.process.pid, signal.SIGKILL)
        with pytest.raises(ReplicatorError, match="a fetching process was ended by signal 9") as raised:
            await waiting
        assert "--overwrite if-changed" in raised.value.hint
        with pytest.raises(ReplicatorError, match="signal 9"):
            await fetchers.get_into(connection, ObjectName(bytes(32)), 0)

    fetching(str(tmp_path), work)


def test_what_is_on_its_way_ends_with_it(tmp_path: str) -> None:
    async def work(_at: Live, connection: Connection, _slots: Slots, fetchers: Fetchers) -> None:
        os.kill(fetchers._helper.process.pid, signal.SIGSTOP)
        waiting = asyncio.ensure_future(fetchers.get_into(connection, ObjectName(bytes(32)), 0))
        await asyncio.sleep(0)
        fetchers.close()
        with pytest.raises(ReplicatorError, match="was closed"):
            await waiting

    fetching(str(tmp_path), work)


def test_what_is_given_up_ends_before_it_has_come_and_its_slot_is_free(tmp_path: str) -> None:
    async def work(_at: Live, connection: Connection, slots: Slots, fetchers: Fetchers) -> None:
        late, data = data_object(1), data_object(2)
        for one in (late, data):
            await connection.put(name_of(one), one)
        begun, go_on = threading.Event(), threading.Event()
        real = ProviderSession.get

        def hang(session: ProviderSession, name: ObjectName, *values: Any) -> bytes:
            if name == name_of(late):
                begun.set()
                go_on.wait(60)
            return real(session, name, *values)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ProviderSession, "get", hang)
            waiting = asyncio.ensure_future(fetchers.get_into(connection, name_of(late), 0))
            await asyncio.to_thread(begun.wait, 60)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not go_on.is_set(), "nobody waited for the provider"
            assert await fetchers.get_into(connection, name_of(data), 0) == len(data)
            go_on.set()
        assert os.pread(slots[0].fd, len(data), 0) == data
        assert await fetchers.get_into(connection, name_of(late), 1) == len(late)

    fetching(str(tmp_path), work)


def test_what_is_given_up_before_its_turn_is_never_asked_for(tmp_path: str) -> None:
    async def work(_at: Live, connection: Connection, _slots: Slots, fetchers: Fetchers) -> None:
        data = data_object(1)
        await connection.put(name_of(data), data)
        os.kill(fetchers._helper.process.pid, signal.SIGSTOP)
        waiting = [asyncio.ensure_future(fetchers.get_into(connection, name_of(data), 0)) for _ in range(3)]
        await asyncio.sleep(0)
        for one in waiting[:2]:
            one.cancel()
        await asyncio.sleep(0)
        os.kill(fetchers._helper.process.pid, signal.SIGCONT)
        assert await waiting[2] == len(data)
        await asyncio.wait(waiting)
        assert [one.cancelled() for one in waiting] == [True, True, False]

    fetching(str(tmp_path), work)
