"""The demonstration holds, notices when it does not, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import demo

ROOT = Path(__file__).parent.parent


def start(place: Path) -> "subprocess.Popen[str]":
    """Start the small demonstration with its folder below ``place``."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo", "--small"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(place), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_in(place: Path) -> list[str]:
    """Return the command lines of all processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if os.fsencode(place) in line:
                found.append(os.fsdecode(line))
    return found


@pytest.mark.process
def test_all_is_as_claimed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    process = start(tmp_path)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    assert "All as claimed." in out
    assert "every byte, mode, owner, time and link is the same" in out
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demonstration_that_is_stopped_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "serves on" in line:
                break
        assert processes_in(tmp_path), "the providers run"
        process.send_signal(number)
        out = process.stdout.read()
    assert process.returncode == 130, out
    assert list(tmp_path.iterdir()) == []
    until = time.monotonic() + 10
    while processes_in(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert processes_in(tmp_path) == []


def test_a_signal_between_a_start_and_its_record_waits_until_the_process_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = demo.Stopping()
    made = demo.Demo(str(tmp_path), demo.SMALL, stopping)
    real = subprocess.Popen

    def interrupted(*args: Any, **kwargs: Any) -> "subprocess.Popen[bytes]":
        process: subprocess.Popen[bytes] = real(*args, **kwargs)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    stopping.install()
    try:
        with pytest.raises(KeyboardInterrupt), stopping.armed():
            made.start(["/bin/sleep", "600"])
        [process] = made.running
        made.stop()
        assert process.returncode == -signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)  # nothing is armed: cleaning up goes on
        with pytest.raises(KeyboardInterrupt), stopping.armed():
            pytest.fail("told to stop before it began")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_claim_that_does_not_hold_stops_the_demonstration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: demo.Demo) -> None:
        demo.expect(claim=False, otherwise="an object lies on 2 providers only")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["demo", "--small"])
    monkeypatch.setattr(demo.Demo, "run", broken)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert demo.main() == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "NOT as claimed: an object lies on 2 providers only" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk_is_said_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert demo.roomy_place(1) == str(tmp_path)
    with pytest.raises(demo.BrokenClaimError, match="of free disk are needed") as found:
        demo.roomy_place(10**18)
    assert str(tmp_path) in str(found.value)


def test_what_is_gathered_stays_within_its_scale_and_is_the_same_each_time(tmp_path: Path) -> None:
    scale = demo.Scale(bytes=10**6, files=50, room=0, changed=3, added=2, deleted=2)
    files, size = demo.gather(str(tmp_path / "one"), scale)
    assert 0 < files <= 50
    assert 0 < size <= 10**6
    assert demo.gather(str(tmp_path / "two"), scale) == (files, size)
    assert demo.manifest(str(tmp_path / "one")) == demo.manifest(str(tmp_path / "two"))


def test_places_never_are_all_of_usr() -> None:
    places = demo.python_places()
    assert places
    assert not {"/", "/usr", "/usr/lib", "/usr/local", "/usr/local/lib"} & set(places)


def test_a_manifest_sees_a_byte_a_mode_and_a_link(tmp_path: Path) -> None:
    one = tmp_path / "file"
    one.write_bytes(b"one")
    link = tmp_path / "link"
    link.symlink_to("file")
    before = demo.manifest(str(tmp_path))
    one.write_bytes(b"two")
    assert demo.manifest(str(tmp_path)) != before
    one.write_bytes(b"one")
    assert demo.manifest(str(tmp_path)) == before
    one.chmod(0o600 if one.stat().st_mode & 0o077 else 0o644)
    assert demo.manifest(str(tmp_path)) != before
