"""At a terminal: prompts, bars; elsewhere: one line and nothing that moves. Outputs that take no more."""

import json
import os
import pty
import select
import subprocess
import time

import pytest

from tests.cli.federation import PASSPHRASE, PATIENCE_S, PROGRAM, Federation

pytestmark = pytest.mark.process


def at_terminal(federation: Federation, *args: str, home: str, answers: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Run with a terminal for input and errors; return exit code, standard output, what the terminal showed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *args, "--home", str(federation.path / home)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        env=federation.environment({"REPLICATOR_PASSPHRASE_FILE": None, "TERM": "xterm"}),
    ) as process:
        os.close(theirs)
        shown, waiting = b"", list(answers)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # EIO: the other side is closed
                    break
                shown += part
                if waiting and part.endswith(b": "):
                    os.write(ours, waiting.pop(0).encode() + b"\n")
        os.close(ours)
        assert process.stdout is not None
        out = process.stdout.read()
        code = process.wait(timeout=PATIENCE_S)
    return code, out.decode(), shown.decode()


def test_a_passphrase_is_asked_for_and_not_shown(federation: Federation) -> None:
    code, out, shown = at_terminal(federation, "snapshots", home="keeper", answers=(PASSPHRASE,))
    assert code == 0
    assert "docs" in out
    assert "Passphrase of björkby's keeper: " in shown
    assert PASSPHRASE not in shown + out
    code, out, shown = at_terminal(federation, "snapshots", home="keeper", answers=("not-the-right-one",))
    assert (code, out) == (1, "")
    assert "the passphrase is wrong" in shown


def test_two_passphrases_that_differ_make_no_home(federation: Federation) -> None:
    answers = ("a good long one", "a good long two")
    code, out, shown = at_terminal(federation, "init", "--name", "x", home="typed", answers=answers)
    assert (code, out) == (1, "")
    assert "the two passphrases differ" in shown
    assert not (federation.path / "typed").exists()


def test_a_terminal_gets_a_bar_and_standard_output_only_results(federation: Federation) -> None:
    code, out, shown = at_terminal(federation, "backup", home="node")
    assert code == 0
    assert "\x1b[" in shown
    assert "reading docs" in shown
    assert "\x1b" not in out
    assert out.startswith("docs: 5 files")


@pytest.mark.parametrize(
    "line", [("ls", "latest"), ("cat", "latest", "docs/run.sh"), ("snapshots", "--json"), ("--help",)], ids=" ".join
)
def test_an_output_that_takes_no_more_is_a_failure_that_says_so(federation: Federation, line: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, "--home", str(federation.path / "keeper"), *line],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            env=federation.environment(),
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 1
    said = done.stderr.decode().splitlines()
    assert said[0] == "replicator: standard output cannot be written: No space left on device"
    assert len(said) == 2


def test_a_night_goes_on_where_its_notices_find_no_room(breakable: Federation) -> None:
    config = breakable.path / "node" / "config.toml"
    config.write_text(f'[dataset.papers]\npaths = ["{breakable.path / "docs"}"]\n')
    line = ("backup", "papers", "--json", "--home", str(breakable.path / "node"))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, *line],
            stdout=subprocess.PIPE,
            stderr=full,
            env=breakable.environment(),
            cwd=breakable.path,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0
    [papers] = json.loads(done.stdout)["datasets"]
    assert papers["published"]


def test_a_reader_that_goes_away_is_no_error_to_shout_about(federation: Federation) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--home", str(federation.path / "keeper"), "cat", "latest", "docs/noise.bin"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=federation.environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=PATIENCE_S) == 1


def test_who_names_another_owner_is_asked_about_all_that_this_home_did_not_sign(breakable: Federation) -> None:
    (breakable.path / "keeper" / "keeper" / "signed-here.json").unlink()
    rotate = ("key", "rotate", "owner", "--sheet", str(breakable.sheet))
    code, out, shown = at_terminal(breakable, *rotate, home="keeper", answers=(PASSPHRASE, "n", *10 * "y"))
    assert code == 0, shown
    assert "Is node 'attic' yours, and stays? [y/N]" in shown
    assert "Dropped: node 'attic'" in out
    [row] = [row for row in breakable.json("key", "list", "--all", home="keeper") if row["name"] == "attic"]
    assert row["revoked"]
