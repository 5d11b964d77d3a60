"""The daemon as a process: it announces itself, answers, finishes what it began, and is alone in its home."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
from click.testing import CliRunner

from replicator.cli import exits
from replicator.cli.base import Session
from replicator.cli.main import cli
from replicator.clock import DAY_S, SystemClock
from replicator.crypto.sign import SigningKey
from replicator.errors import HomeError, LockedError
from replicator.format.codec import decode
from replicator.format.codes import read_code
from replicator.format.merkle import name_of
from replicator.format.offer import Invite
from replicator.ids import Identity
from replicator.provider.daemon import TICK_S, TICKS_A_SWEEP, _keep_house, _look, only_daemon, run_daemon, serve
from replicator.provider.marks import marked_rows
from replicator.provider.service import ProviderService
from replicator.provider.sweeping import Swept
from replicator.transport.base import Target
from replicator.transport.client import TlsNetwork
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import EnrolRequest
from tests.fakes import FakeClock
from tests.provider.stand import Stand
from tests.provider.tenant import MIB, House, Tenant, data_object, hire, put
from tests.provider.test_marks import mark

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


class _House:
    """A service that only counts, and after two days of looks has enough."""

    def __init__(self, stop: Callable[[], object], *, fails: Exception | None = None) -> None:
        self.looks: list[str] = []
        self._stop = stop
        self._fails = fails

    def tick(self) -> None:
        self.looks.append("tick")
        if len(self.looks) - self.looks.count("scrub") == 2 * TICKS_A_SWEEP:
            self._stop()

    def sweep(self) -> None:
        self.looks.append("sweep")
        if self._fails is not None:
            raise self._fails


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (None, ""),
        (OSError(5, "objects/secret"), "Input/output error"),
        (RequestRefusedError("unavailable", "not mounted"), "not mounted"),
        (HomeError("broken"), "broken"),
        (sqlite3.OperationalError("database is locked"), "database is locked"),
    ],
    ids=repr,
)
def test_a_daemon_looks_at_its_clock_and_sweeps_once_a_day_whatever_happened(
    fails: Exception | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> _House:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        house = _House(lambda: loop.call_soon_threadsafe(stop.set), fails=fails)

        async def told() -> None:
            assert house.looks[-1] == "scrub", "people are told after it was looked"

        await _keep_house(cast("ProviderService", house), FakeClock(), stop, lambda: house.looks.append("scrub"), told)
        return house

    house = asyncio.run(work())
    assert TICKS_A_SWEEP * TICK_S == DAY_S
    assert house.looks[1:4:2] == ["scrub", "scrub"]
    looks = [look for look in house.looks if look != "scrub"]
    assert [at for at, look in enumerate(looks) if look == "sweep"] == [0, TICKS_A_SWEEP]
    assert bool(caplog.records) == (fails is not None)
    assert {record.getMessage() for record in caplog.records} == (
        {f"the sweep stopped ({said}); the next one goes on"} if said else set()
    )
    assert "secret" not in caplog.text


def test_a_clock_that_cannot_be_noted_is_not_called_a_sweep(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def tick(self) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    _look(cast("ProviderService", Broken()), sweep=False)
    assert caplog.messages == ["the clock was not noted (disk I/O error)"]


def _broken(*_: object) -> None:
    raise sqlite3.DatabaseError("database disk image is malformed")


def test_a_daemon_whose_database_broke_says_so_at_its_end(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = House(str(tmp_path)).init(listen="127.0.0.1:0")

    async def work() -> None:
        stop, lines = asyncio.Event(), asyncio.Queue[str]()
        daemon = asyncio.ensure_future(
            run_daemon(provider, SystemClock(), listen=provider.listen, announce=lines.put_nowait, stop=stop)
        )
        await lines.get()
        monkeypatch.setattr(provider._database, "write", _broken)
        stop.set()
        await daemon

    with pytest.raises(HomeError, match=r"cannot be left in good order .*malformed") as caught:
        asyncio.run(work())
    assert caught.value.hint
    provider.close()


def test_a_sweep_by_hand_tells_what_went_before_disk_and_database_failed(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant)
    put(stand.node, data_object(1))
    mark(stand, name_of(data_object(1)))
    [part] = stand.provider.plan_sweep()
    gone = marked_rows(stand.provider._database._connection, part.tenant, part.kept)
    stand.service.stop()
    stand.provider.close()

    def sweep(service: ProviderService) -> list[Swept]:
        monkeypatch.setattr(service._core.database, "write", _broken)
        return [Swept(part, gone, "Input/output error")]

    monkeypatch.setattr(ProviderService, "sweep", sweep)
    done = CliRunner().invoke(cli, ["--home", stand.house.home, "--json", "provider", "sweep"], obj=Session())
    [row] = json.loads(done.stdout)
    assert (row["gone"], row["bytes"], row["stopped"]) == (1, 1 << 16, "Input/output error")
    assert "the sweep stopped (Input/output error); the next one goes on" in done.stderr
    assert "cannot be left in good order (database disk image is malformed)" in done.stderr
    assert done.exit_code == exits.FAILED


@pytest.mark.process
def test_a_sweep_by_hand_shows_what_waits_and_needs_the_daemon_stopped(tmp_path: str) -> None:
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant)
    put(stand.node, data_object(1))
    mark(stand, name_of(data_object(1)))
    stand.service.stop()
    stand.provider.close()
    command = [sys.executable, "-m", "replicator", "--home", stand.house.home, "provider", "sweep", "--json"]
    for more in (["--dry-run"], []):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=True)
        [row] = json.loads(done.stdout)
        assert (row["id"], row["gone"], row["waiting"]) == (stand.tenant.id.hex(), 0, 1)
    with only_daemon(os.path.join(stand.house.home, "provider")):
        assert subprocess.run(command, capture_output=True, check=False).returncode == 1
        assert subprocess.run([*command, "--dry-run"], capture_output=True, check=False).returncode == 0
