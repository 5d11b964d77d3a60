"""What a service tells systemd and is handed by it."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from replicator import systemd
from replicator.systemd import notify, watchdog_s

HANDED = """
import os, sys
from replicator.errors import HomeError
from replicator.systemd import handed_socket
os.environ["LISTEN_PID"] = str(os.getpid())
try:
    found = handed_socket(os.environ, os.getpid())
except HomeError as error:
    print("refused:", error.message)
else:
    print("none" if found is None else found.getsockname()[1])
"""


def test_systemd_is_told_if_it_asks_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notify("READY=1")
        assert listening.recv(100) == b"READY=1"
    notify("STOPPING=1")  # nobody listens any more: no error


def test_a_systemd_that_reads_nothing_holds_nobody_up_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setattr(systemd, "PATIENCE_S", 0.01)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        deaf.bind(path)
        other.setblocking(False)  # noqa: FBT003 - its only argument
        other.connect(path)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.send(b"as many as it takes")
        notify("WATCHDOG=1")
        assert deaf.recv(100) == b"as many as it takes"


@pytest.mark.parametrize(
    ("environment", "every_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_a_watchdog_is_fed_twice_as_often_as_it_bites(environment: dict[str, str], every_s: float | None) -> None:
    assert watchdog_s(environment, 7) == every_s


@pytest.mark.process
def test_a_socket_that_is_handed_over_is_taken_and_others_are_refused() -> None:
    def handed(sock: socket.socket, count: str = "1") -> str:
        shell = 'exec 3<&"$1"; shift; exec "$@"'
        done = subprocess.run(
            ["bash", "-c", shell, "bash", str(sock.fileno()), sys.executable, "-c", HANDED],
            pass_fds=[sock.fileno()],
            env={"LISTEN_FDS": count, "PATH": "/usr/bin:/bin"},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert handed(listening) == str(listening.getsockname()[1])
        assert handed(listening, "0") == "none"
        assert handed(listening, "2").startswith("refused: 2 sockets")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert handed(datagrams).startswith("refused: the socket")
