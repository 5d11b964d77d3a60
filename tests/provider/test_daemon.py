"""The daemon as a process: it announces itself, answers, finishes what it began, and is alone in its home."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from replicator.clock import SystemClock
from replicator.crypto.sign import SigningKey
from replicator.errors import HomeError, LockedError
from replicator.format.codec import decode
from replicator.format.codes import read_code
from replicator.format.merkle import name_of
from replicator.format.offer import Invite
from replicator.ids import Identity
from replicator.provider.daemon import only_daemon, run_daemon, serve
from replicator.transport.base import Target
from replicator.transport.client import TlsNetwork
from replicator.wire.messages import EnrolRequest
from tests.provider.tenant import MIB, House, Tenant, data_object

SERVE = """
import sys
from replicator.clock import SystemClock
from replicator.fs import PosixFs
from replicator.ids import Identity
from replicator.provider.daemon import serve
from replicator.rng import SystemRng
serve(sys.argv[1], fs=PosixFs(), clock=SystemClock(), rng=SystemRng(), announce=lambda line: print(line, flush=True))
"""


def _daemon(house: House, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, house.home],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )


def _target(invite: Invite, key: SigningKey, endpoint: str) -> Target:
    return Target(identity=Identity(invite.identity), name="alice", endpoints=(endpoint,), key=key, certificate=None)


@pytest.mark.process
def test_a_daemon_announces_its_port_serves_and_stops_in_good_order(tmp_path: str) -> None:
    house = House(str(tmp_path), clock=SystemClock())  # type: ignore[arg-type]  # shared with a real process
    house.init(listen="127.0.0.1:0").close()
    notify = os.path.join(tmp_path, "notify")
    tenant = Tenant("t")
    data = data_object(1, MIB)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(notify)
        with _daemon(house, NOTIFY_SOCKET=notify) as process:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            assert line.startswith("listening on 127.0.0.1:")
            endpoint = line.removeprefix("listening on ")
            assert systemd.recv(100) == b"READY=1"

            provider = house.open()
            assert provider.offer().endpoints == [endpoint]
            invite = decode(Invite, read_code("invite", provider.invite(quota=10 * MIB, label="")))
            provider.close()
            with pytest.raises(LockedError, match="already"), only_daemon(os.path.join(house.home, "provider")):
                pass

            async def work() -> None:
                network = TlsNetwork()
                target = _target(invite, tenant.keeper, endpoint)
                reply = await network.enrol(
                    target,
                    EnrolRequest(
                        holder_key=tenant.keeper.public, secret=invite.secret, order=b"", root=tenant.root_statement()
                    ),
                )
                connection = await network.connect(replace(target, certificate=reply.certificate))
                await connection.put(name_of(data), data)
                upload = asyncio.ensure_future(connection.put(name_of(data_object(2)), data_object(2)))
                await asyncio.sleep(0)
                await upload
                process.send_signal(signal.SIGTERM)
                await connection.close()

            asyncio.run(work())
            assert process.wait(30) == 0
            assert systemd.recv(100) == b"STOPPING=1"
            assert process.stderr is not None
            assert process.stderr.read() == ""
    provider = house.open()
    service = provider.start()
    assert service.session(tenant.keeper.public).get(name_of(data)) == data
    service.stop()
    provider.close()


def test_requests_in_flight_are_finished_before_the_end(tmp_path: str) -> None:
    house = House(str(tmp_path))
    provider = house.init(listen="127.0.0.1:0")
    tenant = Tenant("t")
    data = data_object(1, 16 * MIB)

    async def work() -> None:
        stop, lines = asyncio.Event(), asyncio.Queue[str]()
        daemon = asyncio.ensure_future(
            run_daemon(provider, SystemClock(), listen=provider.listen, announce=lines.put_nowait, stop=stop)
        )
        endpoint = (await lines.get()).removeprefix("listening on ")
        invite = decode(Invite, read_code("invite", provider.invite(quota=100 * MIB, label="")))
        target = _target(invite, tenant.keeper, endpoint)
        network = TlsNetwork()
        root = tenant.root_statement()
        reply = await network.enrol(
            target, EnrolRequest(holder_key=tenant.keeper.public, secret=invite.secret, order=b"", root=root)
        )
        connection = await network.connect(replace(target, certificate=reply.certificate))
        upload = asyncio.ensure_future(connection.put(name_of(data), data))
        incoming = house.objects(tenant, "incoming")
        while not (os.path.isdir(incoming) and os.listdir(incoming)):  # noqa: ASYNC110, ASYNC240 - a disk tells nobody
            await asyncio.sleep(0.001)
        stop.set()
        assert await upload
        await connection.close()
        await daemon

    asyncio.run(work())
    provider.close()


def test_an_address_that_cannot_be_listened_on_is_said_so(tmp_path: str) -> None:
    house = House(str(tmp_path))
    house.init().close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for listen in (f"127.0.0.1:{taken.getsockname()[1]}", "nowhere"):
            with pytest.raises(HomeError) as caught:
                serve(house.home, fs=house.fs, clock=SystemClock(), rng=house.rng, announce=print, listen=listen)
            assert "--listen" in caught.value.hint
