"""Hooks and commands' output as people set them up, with the real shell and real signals."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.federation import PASSPHRASE, PATIENCE_S, PROGRAM, Federation, Place, Result

pytestmark = pytest.mark.process

SECRETS = ("REPLICATOR_PASSPHRASE_FILE", "REPLICATOR_PASSPHRASE", "CREDENTIALS_DIRECTORY")


@pytest.fixture(scope="module")
def place(federation: Federation) -> Federation:
    """A node of its own, so that the others' datasets are left alone."""
    federation.add_node("sources", "shed")
    return federation


def add(place: Federation, name: str, *options: str | Path) -> Path:
    folder = place.path / name
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "plain").write_text("plain\n")
    place.ok("dataset", "add", name, folder / "data", *options, home="sources")
    return folder


def snapshots(place: Federation, dataset: str) -> int:
    return sum(row["dataset"] == dataset for row in place.json("snapshots", home="sources"))


def test_options_are_kept_shown_changed_and_taken_back(place: Federation) -> None:
    folder = add(place, "shown", "--before", "echo é", "--hook-timeout", "90s", "--hook-failure", "warn")
    shown = place.json("dataset", "show", "shown", home="sources")
    expected = {"before": "echo é", "after": "", "hook_timeout": "90s", "hook_failure": "warn", "snapshot": "none"}
    assert {key: shown[key] for key in expected} == expected
    changed = place.json(
        "dataset", "set", "shown", "--before", "", "--after", "true", "--snapshot", "auto", home="sources"
    )
    assert changed == {**shown, "before": "", "after": "true", "snapshot": "auto"}
    assert "after true" in " ".join(place.ok("dataset", "show", "shown", home="sources").text.split())
    assert folder.exists()
    place.ok("dataset", "remove", "shown", home="sources")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("add", "x"), "has paths or takes a command's output"),
        (("add", "x", "--stdin", "."), "has paths or takes a command's output"),
        (("add", "x", "--stdin", "--snapshot", "btrfs"), "no file system to make a snapshot of"),
        (("add", "x", ".", "--hook-timeout", "8d"), "out of bounds"),
        (("add", "x", ".", "--hook-timeout", "soon"), "not a duration"),
        (("add", "x", ".", "--hook-failure", "shrug"), "shrug"),
        (("add", "x", ".", "--before", "x" * 70_000), "--before cannot be a command"),
    ],
)
def test_what_cannot_be_meant_is_refused(line: tuple[str, ...], said: str, place: Federation) -> None:
    assert said in place.fails(2, "dataset", *line, home="sources")
    assert "x" not in [row["id"] for row in place.json("dataset", "list", home="sources")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("db", "--stdin-from-command"), "needs a dataset and a name"),
        (("--stdin-from-command", "--as", "x"), "needs a dataset and a name"),
        (("db", "--as", "x"), "there is none"),
        (("db", "--stdin-from-command", "--as", "x"), "no command is given"),
        (("db", "--stdin-from-command", "--as", "a/x", "--", "true"), "cannot be a file's name"),
        (("db", "--stdin-from-command", "--as", "x", "--command-timeout", "y", "--", "true"), "not a duration"),
    ],
)
def test_a_line_that_asks_for_half_a_command_is_refused(line: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in Place(path=tmp_path).fails(2, "backup", *line, home="nowhere")


def test_a_dump_made_by_the_hook_before_is_in_the_snapshot_and_gone_from_the_disk(place: Federation) -> None:
    folder = add(place, "dumped")
    dump = folder / "data" / "dump"
    place.ok("dataset", "set", "dumped", "--before", f"echo all > {dump}", "--after", f"rm {dump}", home="sources")
    place.ok("backup", "dumped", home="sources")
    assert not dump.exists()
    assert place.ok("cat", "latest:dumped", "data/dump", home="keeper").text == "all\n"
    place.ok("dataset", "remove", "dumped", home="sources")


def test_no_secret_of_the_program_reaches_a_hook_or_a_command(place: Federation) -> None:
    folder = add(place, "seen")
    hook = f"env >> {folder}/env; cat >> {folder}/env"
    place.ok("dataset", "set", "seen", "--before", hook, "--after", hook, home="sources")
    place.ok("dataset", "add", "streamed", "--stdin", home="sources")
    secrets: dict[str, str | None] = {
        "REPLICATOR_PASSPHRASE": PASSPHRASE,
        "CREDENTIALS_DIRECTORY": "/run/credentials/x",
        "MINE": "not a hook's",
    }
    assert place.run("backup", "seen", home="sources", env=secrets, stdin="typed").code == 0
    line = ("backup", "streamed", "--stdin-from-command", "--as", "env", "--", "/bin/sh", "-c", "env; cat")
    assert place.run(*line, home="sources", env=secrets, stdin="typed").code == 0
    seen = (folder / "env").read_text()
    streamed = place.ok("cat", "latest:streamed", "env", home="keeper").text
    for text in (seen, streamed):
        assert "REPLICATOR_DATASET=" in text
        assert "typed" not in text
        assert PASSPHRASE not in text
        assert not any(f"{name}=" in text for name in SECRETS)
    assert "REPLICATOR_RESULT=success" in seen
    assert "MINE" not in seen
    assert "MINE=not a hook's" in streamed
    for name in ("seen", "streamed"):
        place.ok("dataset", "remove", name, home="sources")


@pytest.mark.parametrize(("failure", "code", "made"), [("fail", 1, 0), ("warn", 3, 1)])
def test_a_failing_hook_is_said_and_ends_as_told(failure: str, code: int, made: int, place: Federation) -> None:
    name = f"failing-{failure}"
    command = "echo no server; printf 'at all\\033[31m\\n' >&2; exit 3"
    folder = add(place, name, "--hook-failure", failure, "--before", command)
    result = place.run("backup", name, home="sources")
    assert result.code == code
    assert f"{name}: the before-hook ended with exit code 3; it said last: no server | at all\\x1b[31m" in result.err
    assert snapshots(place, name) == made
    document = place.json("backup", name, home="sources", code=code)
    [row] = document["datasets"]
    assert [bool(row["error"]), len(row["warnings"]), row["problems"]] == [
        failure == "fail",
        int(failure == "warn"),
        [],
    ]
    place.ok("dataset", "set", name, "--before", "", "--after", f"touch {folder}/after; exit 1", home="sources")
    after = place.run("backup", name, home="sources")
    assert (after.code, (folder / "after").exists()) == (code, True)
    assert snapshots(place, name) == 2 * made + 1
    place.ok("dataset", "remove", name, home="sources")


def test_what_a_command_writes_is_backed_up_and_named(place: Federation) -> None:
    place.ok("dataset", "add", "db", "--stdin", home="sources")
    line = ("db", "--stdin-from-command", "--as", "db.sql", "--", "printf", "%s-%s\\n", "--home", "-x")
    place.ok("backup", *line, home="sources")
    assert place.ok("cat", "latest:db", "db.sql", home="keeper").text == "--home--x\n"
    assert "(a command's output)" in place.ok("dataset", "list", home="sources").text
    failed = place.run(
        *("backup", "db", "--stdin-from-command", "--as", "db.sql", "--"),
        *("/bin/sh", "-c", "echo half; echo no such table >&2; exit 2", "tell-nobody"),
        home="sources",
    )
    assert failed.code == 1
    assert "db: '/bin/sh' ended with exit code 2; it said last: no such table" in failed.err
    assert "tell-nobody" not in failed.err
    assert snapshots(place, "db") == 1
    assert "there is no command" in place.fails(2, "backup", "db", home="sources")
    assert "has paths" in place.fails(
        *(2, "backup", "docs", "--stdin-from-command", "--as", "x", "--", "true"), home="node"
    )
    place.ok("run", home="sources")
    place.ok("dataset", "remove", "db", home="sources")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_hook_after_runs_whatever_ends_the_run(number: signal.Signals, place: Federation) -> None:
    name = f"ended-by-{number}"
    folder = add(place, name)
    before = f"touch {folder}/began; exec sleep 1000"
    after = f"echo $REPLICATOR_RESULT >> {folder}/after"
    place.ok("dataset", "set", name, "--before", before, "--after", after, home="sources")
    process = subprocess.Popen(
        [*PROGRAM, "backup", name, "--home", str(place.path / "sources")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=place.environment(),
    )
    while process.poll() is None and not (folder / "began").exists():
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130 if number == signal.SIGINT else -number, b"")
    assert "Traceback" not in err.decode()
    place.ok("dataset", "set", name, "--before", "", home="sources")
    if number == signal.SIGKILL:
        assert not (folder / "after").exists()
        again = place.ok("backup", name, home="sources")
        assert f"{name}: an earlier run was killed; what it had begun is put right" in again.err
    else:
        assert (folder / "after").read_text() == "killed\n"
        assert ("interrupted" if number == signal.SIGINT else f"ended by {number.name}") in err.decode()
        place.ok("backup", name, home="sources")
    assert (folder / "after").read_text() == "killed\nsuccess\n"
    place.ok("dataset", "remove", name, home="sources")


def test_a_run_that_nohup_started_does_not_end_with_its_terminal(place: Federation) -> None:
    folder = add(place, "nohup")
    before = f"touch {folder}/began; while [ ! -e {folder}/go ]; do sleep 0.05; done"
    place.ok("dataset", "set", "nohup", "--before", before, home="sources")
    process = subprocess.Popen(
        ["nohup", *PROGRAM, "backup", "nohup", "--home", str(place.path / "sources")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=place.environment(),
    )
    while process.poll() is None and not (folder / "began").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGHUP)
    (folder / "go").touch()
    out, err = process.communicate(timeout=PATIENCE_S)
    place.check(Result(args=("backup",), code=process.returncode, out=out, err=err.decode()))
    assert process.returncode == 0
    place.ok("dataset", "remove", "nohup", home="sources")
