"""Objects straight into memory over real TLS: what comes, and what each mishap is called."""

import asyncio
import socket
import time
from dataclasses import replace

import pytest

from replicator.crypto.certificates import client_certificate, provider_certificate
from replicator.crypto.sign import SigningKey
from replicator.endpoints import split_endpoint
from replicator.errors import IntegrityError, PeerError, ProtocolError, RefusedError, UnreachableError
from replicator.format.merkle import name_of
from replicator.format.sizes import LARGEST, SMALLEST
from replicator.ids import ObjectName
from replicator.rng import SystemRng
from replicator.transport import pull as module
from replicator.transport.base import Reach
from replicator.transport.pull import Pull
from tests.fakes import SeededRng
from tests.provider.tenant import data_object
from tests.transport.live import living, run
from tests.transport.test_client import impostor

KEY = SigningKey(SeededRng("odd").bytes(32))
CERTIFICATE = provider_certificate(KEY, SystemRng())


def reach_of(endpoint: str, *, stall_s: float = 5.0) -> Reach:
    """Return how to get to whoever shows CERTIFICATE there."""
    host, port = split_endpoint(endpoint)
    return Reach(
        name="odd",
        endpoint="",
        host=host,
        server_name=None,
        port=port,
        peer=CERTIFICATE,
        seed=KEY.seed(),
        certificate=client_certificate(KEY, KEY.public, SystemRng()),
        scratch=None,
        connect_s=stall_s,
        stall_s=stall_s,
    )


async def answered(folder: str, answer: bytes | None, *, stall_s: float = 5.0, silent: bool = False) -> Exception:
    """Return what asking for an object comes to, of a provider that answers so."""
    async with impostor(folder, KEY, CERTIFICATE, answer, silent=silent) as endpoint:
        one = Pull(reach_of(endpoint, stall_s=stall_s))
        with pytest.raises((PeerError, IntegrityError)) as raised:
            await asyncio.to_thread(one.get_into, ObjectName(bytes(32)), memoryview(bytearray(LARGEST)))
        one.close()
    return raised.value


def test_objects_come_whole_and_a_connection_is_asked_again_also_when_it_has_gone(tmp_path: str) -> None:
    async def work() -> None:
        async with living(str(tmp_path)) as at:
            connection = await at.connect()
            objects = [data_object(number, size) for number, size in enumerate((SMALLEST, 1 << 20, SMALLEST))]
            for data in objects:
                await connection.put(name_of(data), data)
            reach = connection.reach()
            assert reach is not None
            one, memory = Pull(reach), memoryview(bytearray(LARGEST))
            for number, data in enumerate((*objects, *objects)):
                if number == len(objects):
                    assert one._socket is not None
                    socket.socket.shutdown(one._socket, socket.SHUT_RDWR)  # as a provider does that waits no longer
                size = await asyncio.to_thread(one.get_into, name_of(data), memory)
                assert memory[:size] == data
            with pytest.raises(RefusedError) as raised:
                await asyncio.to_thread(one.get_into, ObjectName(bytes(32)), memory)
            assert raised.value.code == "not-found"
            size = await asyncio.to_thread(one.get_into, name_of(objects[1]), memory)
            assert memory[:size] == objects[1]
            one.close()
            await connection.close()

    run(work)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", IntegrityError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 16777217\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 302 Found\r\nLocation: https://example.org/\r\nContent-Length: 0\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", ProtocolError),
        (b"220 smtp.example.org ESMTP\r\n", ProtocolError),
        (b"", UnreachableError),
    ],
)
def test_answers_that_the_protocol_does_not_have_are_errors_of_the_peer(
    tmp_path: str, answer: bytes, error: type[Exception]
) -> None:
    async def work() -> None:
        assert type(await answered(str(tmp_path), answer)) is error

    run(work)


def test_silence_is_no_answer_in_time(tmp_path: str) -> None:
    async def work() -> None:
        error = await answered(str(tmp_path), None, stall_s=0.2, silent=True)
        assert isinstance(error, UnreachableError)
        assert "in time" in str(error)

    run(work)


def test_a_provider_that_dribbles_is_cut_off(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(module, "time_for", lambda _size, _stall_s: 0.2)
        error = await answered(
            str(tmp_path), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", stall_s=60, silent=True
        )
        assert isinstance(error, UnreachableError)
        assert "in time" in str(error)

    began = time.monotonic()
    run(work)
    assert time.monotonic() - began < 30, "it ended before the silence of a minute would have"


def test_what_has_not_come_gives_a_provider_no_time(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for 16 MiB, which may take twenty minutes; a small pack that dribbles must not."""
    asked: list[int] = []

    async def work() -> None:
        def time_for(moved: int, _stall_s: float) -> float:
            asked.append(moved)
            return 0.2

        monkeypatch.setattr(module, "time_for", time_for)
        await answered(str(tmp_path), b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\nabc", stall_s=60, silent=True)

    run(work)
    assert asked[0] == 0
    assert max(asked) <= 3


def test_another_certificate_than_the_pinned_one_is_asked_for_nothing(tmp_path: str) -> None:
    async def work() -> None:
        stranger = SigningKey(SeededRng("stranger").bytes(32))
        async with impostor(str(tmp_path), stranger, provider_certificate(stranger, SystemRng())) as endpoint:
            one = Pull(reach_of(endpoint))
            with pytest.raises((UnreachableError, ProtocolError), match=r"certificate|CERTIFICATE|another key"):
                await asyncio.to_thread(one.get_into, ObjectName(bytes(32)), memoryview(bytearray(LARGEST)))
            one.close()
            again = provider_certificate(KEY, SystemRng())
        async with impostor(str(tmp_path), KEY, again) as endpoint:
            one = Pull(reach_of(endpoint))
            with pytest.raises((UnreachableError, ProtocolError)):
                await asyncio.to_thread(one.get_into, ObjectName(bytes(32)), memoryview(bytearray(LARGEST)))
            one.close()

    run(work)


def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(UnreachableError, match="refused"):
        Pull(reach_of(endpoint)).get_into(ObjectName(bytes(32)), memoryview(bytearray(LARGEST)))


def test_what_is_printed_of_a_reach_holds_no_key() -> None:
    reach = replace(reach_of("127.0.0.1:1"), seed=b"SECRET")
    assert "SECRET" not in repr(reach)
