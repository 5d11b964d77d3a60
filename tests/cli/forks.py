"""The program, loaded once and forked for each call: starting an interpreter costs more than most calls do.

What is forked behaves as ``python -m replicator`` does, in a process of its own with its own environment, folder and
descriptors; only stretching a passphrase, which is slow by design, is done once for each salt, not by each call.
Terminals, pipes, and whatever the interpreter reads of its environment when it starts are tried with real starts
instead (test_terminal.py, test_damage.py, and :meth:`Place.run` with ``env``).
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

STARTED = struct.Struct("<i")
ENDED = struct.Struct("<i")
LARGEST = 1 << 20
PATIENCE_S = 60


class Forked:
    """One call that runs; has what the suite needs of subprocess.Popen."""

    def __init__(self, channel: socket.socket, stdout: int | None) -> None:
        self._channel = channel
        (self.pid,) = STARTED.unpack(_exactly(channel, STARTED.size))
        self.stdout = None if stdout is None else os.fdopen(stdout, "rb")
        self.returncode: int | None = None

    def wait(self, timeout: float) -> int:
        """Return the exit code, or minus the signal; raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        if self.returncode is None:
            self._channel.settimeout(timeout)
            try:
                (self.returncode,) = ENDED.unpack(_exactly(self._channel, ENDED.size))
            except TimeoutError:
                raise subprocess.TimeoutExpired(str(self.pid), timeout) from None
            self._channel.close()
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM; nothing if it has ended."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL; nothing if it has ended."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send any signal; nothing if it has ended."""
        if self.returncode is None and not select.select([self._channel], [], [], 0)[0]:
            os.kill(self.pid, number)


class Forks:
    """Starts calls of the program; one process that is loaded and waits, below this one, from the first call on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stretched = ""

    def start(
        self, args: Sequence[str], environment: dict[str, str], folder: Path, stdin: int, stdout: int, stderr: int
    ) -> socket.socket:
        """Start ``python -m replicator ARGS``; the descriptors stay the caller's. Returns the channel of the call."""
        ours, theirs = socket.socketpair()
        words = json.dumps([list(args), environment, os.fspath(folder)]).encode()
        with theirs, self._lock:
            socket.send_fds(self._opened(), [words], [stdin, stdout, stderr, theirs.fileno()])
        ours.settimeout(PATIENCE_S)
        return ours

    def close(self) -> None:
        """End the process that waits; what it has started goes on."""
        if self._channel is not None and self._process is not None:
            self._channel.close()
            self._process.wait(timeout=PATIENCE_S)
            self._channel = self._process = None
            shutil.rmtree(self._stretched)

    def _opened(self) -> socket.socket:
        if self._channel is None:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._stretched = tempfile.mkdtemp(prefix="replicator-test-")
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.cli.forks", str(theirs.fileno()), self._stretched],
                    pass_fds=[theirs.fileno()],
                    cwd=Path(__file__).parents[2],
                    env=os.environ | {"PYTHONWARNINGS": "always", "LANG": "C.UTF-8"},
                )
        return self._channel


FORKS = Forks()


def _exactly(channel: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = channel.recv(size - len(got))
        if not more:
            raise EOFError("the process that starts calls has gone")
        got += more
    return got


def _load() -> None:
    import replicator

    for module in pkgutil.walk_packages(replicator.__path__, "replicator."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _remembered(stretch: Callable[..., bytes], folder: Path) -> Callable[..., bytes]:
    """Return the same function of the same values, whose results lie in a folder that all calls share."""

    def remembered(passphrase: str, salt: bytes, *cost: int) -> bytes:
        known = folder / sha256(repr((passphrase, salt, cost)).encode()).hexdigest()
        try:
            return known.read_bytes()
        except FileNotFoundError:
            result = stretch(passphrase, salt, *cost)
        new = known.with_suffix(f".{os.getpid()}")
        new.write_bytes(result)
        new.rename(known)
        return result

    return remembered


def _serve(requests: socket.socket) -> list[str] | None:
    """Fork for each request. Returns its arguments in the process of a call, None once nobody asks any more."""
    running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    poller = select.poll()
    poller.register(requests, select.POLLIN)
    while True:
        for ready, _ in poller.poll():
            if ready in running:
                pid, channel = running.pop(ready)
                poller.unregister(ready)
                os.close(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with channel:
                    channel.sendall(ENDED.pack(code))
                continue
            words, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 4)
            if not words:
                return None
            args, environment, folder = json.loads(words)
            pid = os.fork()
            if pid == 0:
                for number, descriptor in enumerate(descriptors[:3]):
                    os.dup2(descriptor, number)
                for descriptor in (*descriptors, *running, requests.detach()):
                    os.close(descriptor)
                for _, channel in running.values():
                    channel.close()
                os.chdir(folder)
                os.environ.clear()
                os.environ.update(environment)
                return list(args)
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            channel = socket.socket(fileno=descriptors[3])
            channel.sendall(STARTED.pack(pid))
            pidfd = os.pidfd_open(pid)
            running[pidfd] = (pid, channel)
            poller.register(pidfd, select.POLLIN)


def main() -> None:
    """Load the program and serve requests on the descriptor that the first argument names."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    requests.set_inheritable(False)
    _load()
    crypto = importlib.import_module("replicator.crypto.passphrase")
    crypto._stretch = _remembered(crypto._stretch, Path(sys.argv[2]))  # type: ignore[attr-defined]  # a module's name
    gc.freeze()
    with requests:
        args = _serve(requests)
    if args is not None:
        sys.argv[1:] = args
        runpy.run_module("replicator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
