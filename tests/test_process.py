"""Other programs: how they end, what is kept of what they say, and that nothing of them stays behind."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator import process
from replicator.errors import SourceError
from replicator.process import TAIL, Command, Ended, SystemPrograms
from tests.snapshot.support import open_fds

pytestmark = pytest.mark.process
LONG = 60.0


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


def shell(text: str, *, limit_s: float = LONG, keep: int = 0, stop: bool = False, **environment: str) -> Ended:
    command = Command(argv=("/bin/sh", "-c", text), environment={"PATH": os.environ["PATH"], **environment})
    return SystemPrograms().run(command, limit_s=limit_s, stop=lambda: stop, keep=keep)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_ends_as_it_says() -> None:
    assert shell("exit 0").good
    assert shell("exit 7") == Ended(code=7)
    assert shell("kill -9 $$") == Ended(code=-9)


def test_what_is_said_is_kept_from_both_sides_in_its_order_and_the_answer_from_one() -> None:
    text = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; exit 3"
    assert shell(text).tail == b"out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
    ended = shell(text, keep=100)
    assert ended.out == b"out 1\nout 2\nout 3\n"
    assert sorted(ended.tail.splitlines()) == [b"err 1", b"err 2", b"err 3", b"out 1", b"out 2", b"out 3"]
    assert shell("echo out").out == b""
    assert shell("echo 12345", keep=3).out == b"123"


def test_only_the_last_of_what_is_said_is_kept() -> None:
    ended = shell(f"{sys.executable} -c \"print('x' * 3000000 + 'end')\"")
    assert ended.good
    assert len(ended.tail) == TAIL
    assert ended.tail.endswith(b"xend\n")


def test_a_program_sees_the_environment_it_is_given_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "heron")
    ended = shell("env; pwd; cat; test -t 0 || echo no terminal", WORD="mill")
    assert b"WORD=mill" in ended.tail
    assert b"heron" not in ended.tail
    assert ended.tail.endswith(b"\n/\nno terminal\n")


def test_a_program_has_no_terminal_to_ask_on() -> None:
    assert shell("exec 2>/dev/null; : < /dev/tty").code != 0


def test_time_is_up_for_a_program_and_all_it_started(tmp_path: Path) -> None:
    ended = shell(f"sleep 1000 & echo $! > {tmp_path}/pid; echo began; wait", limit_s=0.4)
    assert (ended.by, ended.code, ended.tail) == ("limit", -signal.SIGTERM, b"began\n")
    assert not ended.good
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_program_that_does_not_listen_is_killed_after_the_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.3)
    text = f"trap 'echo deaf' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
    ended = shell(text, limit_s=0.3)
    assert (ended.by, ended.code) == ("limit", -signal.SIGKILL)
    assert b"deaf\n" in ended.tail
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_what_a_stopped_shell_started_has_the_grace_too(tmp_path: Path) -> None:
    """The shell dies of the signal at once; what it ran has things to put away."""
    inner = f"trap 'sleep 0.4; echo away > {tmp_path}/away; exit' TERM; echo ready; sleep 1000 & wait"
    ended = shell(f"/bin/sh -c '{inner.replace(chr(39), chr(34))}'; exit 1", limit_s=0.4)
    assert (ended.by, ended.tail) == ("limit", b"ready\n")
    assert (tmp_path / "away").read_text() == "away\n"


def test_whoever_wants_to_stop_ends_a_program() -> None:
    began = time.monotonic()
    assert shell("sleep 1000", stop=True).by == "stop"
    assert time.monotonic() - began < LONG


def test_what_a_program_leaves_in_the_background_holds_nobody_up(tmp_path: Path) -> None:
    began = time.monotonic()
    ended = shell(f"sleep 1000 & echo $! > {tmp_path}/pid; echo done")
    pid = int((tmp_path / "pid").read_text())
    try:
        assert ended == Ended(code=0, tail=b"done\n")
        assert time.monotonic() - began < LONG
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceError, match=r"'/nowhere/dump' cannot be started: No such file or directory"):
        SystemPrograms().run(Command(argv=("/nowhere/dump",), environment={}), limit_s=1, stop=lambda: False)
    with pytest.raises(SourceError, match="cannot be started"):
        SystemPrograms().run(Command(argv=("a\0b",), environment={}), limit_s=1, stop=lambda: False)


class Reading:
    """An output that is read to its end."""

    def __init__(self, text: str, *, limit_s: float = LONG) -> None:
        self.stop = False
        command = Command(argv=("/bin/sh", "-c", text), environment={"PATH": os.environ["PATH"]})
        self.output = SystemPrograms().open(command, limit_s=limit_s, stop=lambda: self.stop)

    def all(self) -> bytes:
        data = b""
        buffer = bytearray(1000)
        while count := self.output.read_into(memoryview(buffer)):
            data += buffer[:count]
        return data


def test_an_output_is_read_beside_what_is_said_on_the_other_side() -> None:
    reading = Reading(f"{sys.executable} -c \"import sys; sys.stderr.write('e' * 3000000); print('x' * 5000)\"; exit 4")
    assert reading.all() == b"x" * 5000 + b"\n"
    ended = reading.output.finish()
    assert (ended.code, ended.tail) == (4, b"e" * TAIL)
    reading.output.close()


def test_an_output_may_end_before_its_program() -> None:
    reading = Reading("echo all; exec >&-; sleep 0.3; echo late >&2; exit 5")
    assert reading.all() == b"all\n"
    assert reading.output.finish() == Ended(code=5, tail=b"late\n")


def test_a_program_that_writes_nothing_more_is_given_so_much_time() -> None:
    reading = Reading("echo some; exec sleep 1000", limit_s=0.4)
    assert reading.all() == b"some\n"
    assert reading.output.finish() == Ended(code=-signal.SIGTERM, by="limit")


def test_time_that_its_reader_takes_is_not_the_programs() -> None:
    reading = Reading("echo some; sleep 0.1; echo more", limit_s=0.5)
    buffer = bytearray(100)
    assert reading.output.read_into(memoryview(buffer)) == 5
    time.sleep(0.7)
    assert reading.all() == b"more\n"
    assert reading.output.finish().good


def test_whoever_wants_to_stop_gets_the_end_of_an_output() -> None:
    reading = Reading("echo some; exec sleep 1000")
    buffer = bytearray(100)
    assert reading.output.read_into(memoryview(buffer)) == 5
    reading.stop = True
    assert reading.all() == b""
    assert reading.output.finish().by == "stop"


def test_closing_an_output_ends_its_program(tmp_path: Path) -> None:
    reading = Reading(f"sleep 1000 & echo $! > {tmp_path}/pid; echo ready; wait")
    assert reading.output.read_into(memoryview(bytearray(100)))
    reading.output.close()
    reading.output.close()
    assert not is_alive(int((tmp_path / "pid").read_text()))
