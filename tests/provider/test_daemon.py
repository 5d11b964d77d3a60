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
from replicator.errors import HomeError, LockedError, RefusedError, UnreachableError
from replicator.format.codec import decode
from replicator.format.codes import read_code
from replicator.format.merkle import name_of
from replicator.format.offer import Invite
from replicator.fs import PosixFs
from replicator.ids import Identity
from replicator.notify.channels import Web, World
from replicator.notify.teller import Teller
from replicator.process import SystemPrograms
from replicator.provider.daemon import TICK_S, TICKS_A_SWEEP, _keep_house, _look, only_daemon, run_daemon, serve
from replicator.provider.home import Provider
from replicator.provider.marks import marked_rows
from replicator.provider.service import ProviderService
from replicator.provider.sweeping import Swept
from replicator.provider.watch import Watch, keep_quiet
from replicator.rng import SystemRng
from replicator.settings import CommandChannel, MetricsSettings, NotifySettings
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
            assert process.wait(120) == 0
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
            run_daemon(
                provider, SystemClock(), listen=provider.listen, announce=lines.put_nowait, stop=stop, rng=SystemRng()
            )
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


@pytest.mark.process
def test_a_daemon_that_is_told_to_stop_in_the_middle_of_a_body_tears_nothing(tmp_path: str) -> None:
    house = House(str(tmp_path), clock=SystemClock())  # type: ignore[arg-type]  # shared with a real process
    house.init(listen="127.0.0.1:0").close()
    tenant = Tenant("t")
    data, later = data_object(1, 16 * MIB), data_object(2)
    incoming = house.objects(tenant, "incoming")
    with _daemon(house) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip().removeprefix("listening on ")
        provider = house.open()
        invite = decode(Invite, read_code("invite", provider.invite(quota=100 * MIB, label="")))
        provider.close()

        async def work() -> None:
            network = TlsNetwork()
            target = _target(invite, tenant.keeper, endpoint)
            root = tenant.root_statement()
            reply = await network.enrol(
                target, EnrolRequest(holder_key=tenant.keeper.public, secret=invite.secret, order=b"", root=root)
            )
            connection = await network.connect(replace(target, certificate=reply.certificate))
            try:
                upload = asyncio.ensure_future(connection.put(name_of(data), data))
                while not (os.path.isdir(incoming) and os.listdir(incoming)):  # noqa: ASYNC110, ASYNC240 - a disk tells nobody
                    await asyncio.sleep(0.001)
                process.send_signal(signal.SIGTERM)
                assert await upload, "what was on its way is finished, and receipted"
                with pytest.raises((UnreachableError, RefusedError)) as refused:
                    await connection.put(name_of(later), later)
                # Whether the daemon has closed its sockets by then is chance; it never says that anything is missing.
                assert getattr(refused.value, "code", "unavailable") == "unavailable"
            finally:
                await connection.close()

        asyncio.run(work())
        assert process.wait(120) == 0
    assert os.listdir(incoming) == []
    provider = house.open()
    service = provider.start()
    session = service.session(tenant.keeper.public)
    assert session.get(name_of(data)) == data
    with pytest.raises(RequestRefusedError):
        session.get(name_of(later))
    service.stop()
    provider.close()


@pytest.mark.process
def test_a_daemon_feeds_its_watchdog_and_answers_on_a_socket_that_it_is_handed(tmp_path: str) -> None:
    house = House(str(tmp_path), clock=SystemClock())  # type: ignore[arg-type]  # shared with a real process
    house.init(listen="127.0.0.1:1").close()
    notify = os.path.join(tmp_path, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, socket.create_server(("127.0.0.1", 0)) as handed:
        systemd.bind(notify)
        systemd.settimeout(120)
        environment = os.environ | {"NOTIFY_SOCKET": notify, "WATCHDOG_USEC": "20000", "LISTEN_FDS": "1"}
        script = f"import os; os.environ['LISTEN_PID'] = str(os.getpid())\n{SERVE}"
        shell = 'exec 3<&"$1"; shift; exec "$@"'
        command = ["bash", "-c", shell, "bash", str(handed.fileno()), sys.executable, "-c", script, house.home]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, pass_fds=[handed.fileno()]
        ) as process:
            assert process.stdout is not None
            port = handed.getsockname()[1]
            assert process.stdout.readline().strip() == f"listening on 127.0.0.1:{port}"
            assert [systemd.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            process.terminate()
            while systemd.recv(100) != b"STOPPING=1":
                pass
            assert process.wait(120) == 0


async def _starved(provider: Provider) -> None:
    await keep_quiet(provider, FakeClock(), 1.0)


def test_a_watchdog_is_not_fed_by_a_provider_whose_database_does_not_answer(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = House(str(tmp_path)).init(listen="127.0.0.1:0")
    told: list[str] = []
    looks = 0

    def offer() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise sqlite3.OperationalError("disk I/O error")
        if looks == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(provider, "offer", offer)
    monkeypatch.setattr("replicator.provider.watch.notify", told.append)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(_starved(provider))
    assert told == ["WATCHDOG=1"] * 2
    provider.close()


def test_a_daemon_tells_people_and_prometheus_how_it_stands(tmp_path: str, caplog: pytest.LogCaptureFixture) -> None:
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant)
    os.rename(stand.provider.data, stand.provider.data + ".away")
    said = os.path.join(tmp_path, "said")
    world = World(
        fs=PosixFs(), clock=stand.clock, web=cast("Web", None), programs=SystemPrograms(), environment=dict(os.environ)
    )
    settings = NotifySettings(command=CommandChannel(run=f"cat >> {said}"))
    teller = Teller(settings=settings, folder=stand.provider.folder, who="shed", world=world)
    textfile = os.path.join(tmp_path, "provider.prom")
    watch = Watch(teller=teller, metrics=MetricsSettings(textfile=textfile), fs=PosixFs())
    with caplog.at_level("INFO"):
        asyncio.run(watch.look(stand.provider))
        asyncio.run(watch.look(stand.provider))
    with open(said, encoding="utf-8") as file:
        assert file.read().count("Code: provider.unmounted") == 1
    with open(textfile, encoding="utf-8") as file:
        assert "replicator_provider_mounted 0" in file.read()
    assert [record.getMessage() for record in caplog.records] == ["told by command"]
    broken = Watch(metrics=MetricsSettings(textfile="/nonexistent/x.prom"), fs=PosixFs())
    asyncio.run(broken.look(stand.provider))
    assert caplog.messages[-1] == "nobody is told how this provider stands (No such file or directory)"
    asyncio.run(Watch().look(stand.provider))
    stand.provider.close()


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

        await _keep_house(
            cast("ProviderService", house),
            FakeClock(),
            stop,
            lambda: house.looks.append("scrub"),
            told,
            lambda: announced.append(1),
        )
        return house

    announced: list[int] = []

    house = asyncio.run(work())
    assert TICKS_A_SWEEP * TICK_S == DAY_S
    assert house.looks[1:4:2] == ["scrub", "scrub"]
    looks = [look for look in house.looks if look != "scrub"]
    assert [at for at, look in enumerate(looks) if look == "sweep"] == [0, TICKS_A_SWEEP]
    assert announced, "other providers hear where it is"
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
            run_daemon(
                provider, SystemClock(), listen=provider.listen, announce=lines.put_nowait, stop=stop, rng=SystemRng()
            )
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
