"""runs, notify and ack, as people and timers call them."""

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from replicator.cli import exits
from replicator.cli.base import Session
from replicator.cli.telling import begin, finish
from tests.cli.federation import Federation


def configure(federation: Federation, home: str, text: str) -> Path:
    path = federation.path / home / "config.toml"
    path.write_text(text)
    return path


def says_to(path: Path) -> str:
    return f"[notify]\nname = 'attic'\n[notify.command]\nrun = 'cat >> {path}; echo == $REPLICATOR_LEVEL >> {path}'\n"


def test_every_run_is_kept_with_what_it_said(federation: Federation) -> None:
    runs = federation.json("runs", "list", home="node")
    assert [(run["run"], run["exit"]) for run in runs][-1] == ("backup", 0)
    before = len(runs)
    federation.ok("repair", home="node")
    federation.ok("repair", "--dry-run", home="node")
    federation.fails(1, "backup", "nosuch", home="node")
    shown = federation.json("runs", "show", "latest", home="node")
    assert (shown["run"], shown["exit"]) == ("repair", 0), "what only looked, or meant nothing, was no run"
    assert shown["said"]["made"] == 0
    assert len(federation.json("runs", "list", home="node")) == before + 1
    assert len(federation.json("runs", "list", "--last", "1", home="node")) == 1
    text = federation.ok("runs", "show", str(shown["id"]), home="node").text
    assert "repair, began" in text
    for wrong in ("99999", "first", "-1", "٣"):
        assert "no run" in federation.fails(1, "runs", "show", "--", wrong, home="node")


def test_a_run_that_failed_says_why_and_what_it_was_about(breakable: Federation) -> None:
    breakable.ok("dataset", "set", "docs", "--before", "exit 9", home="node")
    breakable.fails(1, "backup", home="node")
    [dataset] = breakable.json("runs", "show", "latest", home="node")["said"]["datasets"]
    assert (dataset["id"], dataset["snapshot"]) == ("docs", None)
    assert dataset["error"]
    alarms = breakable.json("status", "--offline", home="node")["alarms"]
    [failed] = [one for one in alarms if one["code"] == "run.failed"]
    assert failed["about"] == "run backup"
    assert dataset["error"] in failed["what"]


def test_what_keeps_a_restore_as_a_run_loads_neither_settings_nor_how_things_stand() -> None:
    program = "import sys, replicator.cli.telling; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.decode().split()
    assert "replicator.cli.telling" in loaded
    assert not {"replicator.settings", "replicator.engine.status", "scheduler"} & set(loaded)


def test_a_restore_is_kept_as_a_run_and_rings_for_damage_alone(breakable: Federation, tmp_path: Path) -> None:
    path = tmp_path / "said"
    configure(breakable, "keeper", says_to(path))
    target = str(tmp_path / "restored")
    breakable.ok("restore", "latest", "--target", target, home="keeper")
    whole = breakable.json("runs", "show", "latest", home="keeper")
    assert (whole["run"], whole["exit"]) == ("restore", 0)
    assert whole["said"]["target"] == target
    breakable.fails(1, "restore", "latest", "--target", "/dev/null", home="keeper")
    failed = breakable.json("runs", "show", "latest", home="keeper")
    assert (failed["run"], failed["exit"]) == ("restore", 1)
    assert "/dev/null" in failed["said"]["error"]["message"]
    assert [one for one in breakable.json("status", home="keeper")["alarms"] if one["about"] == "run restore"] == []
    assert not path.exists(), "who asked for it has seen it"


def test_nobody_is_told_who_is_not_named(federation: Federation) -> None:
    assert "docs/operate/alarms.md" in federation.fails(2, "notify", "--test", home="node")


def test_people_are_told_once_what_is_new_and_once_that_it_is_over(breakable: Federation) -> None:
    said = breakable.path / "said"
    config = configure(breakable, "node", says_to(said) + f"[metrics]\ntextfile = '{breakable.path}/node.prom'\n")
    try:
        breakable.ok("notify", "--test", home="node")
        assert "this is a test" in breakable.json("notify", "--test", home="node")[0]["subject"]
        said.unlink()
        breakable.ok("backup", home="node")
        assert not said.exists(), "all is well"
        assert "replicator_safe 1" in (breakable.path / "node.prom").read_text()
        damaged = breakable.objects("bob")
        for path in damaged:
            path.write_bytes(path.read_bytes()[:-1] + b"\0")
        status = breakable.json("status", home="node", code=4)
        alarm = next(one for one in status["alarms"] if one["code"] == "data.damaged")
        assert (alarm["told"], alarm["about"]) == ([], "provider bob")
        assert "Code: data.damaged" in breakable.json("notify", "--dry-run", home="node")[0]["text"]
        assert not said.exists()
        breakable.ok("notify", home="node")
        breakable.ok("notify", home="node")
        text = said.read_text()
        assert text.count("Code: data.damaged") == 1
        assert text.endswith("== red\n")
        assert "To do: run `replicator repair`" in text
        _acknowledges(breakable, alarm)
        breakable.ok("repair", home="node")
        assert "Over: provider bob (data.damaged)." in said.read_text()
        assert said.read_text().endswith("== good\n")
        assert breakable.json("status", "--offline", home="node")["alarms"] == []
        (breakable.path / "node" / "node" / "catalog.db").write_bytes(b"no database" * 1000)
        breakable.fails(1, "backup", home="node")
        text = said.read_text()
        assert "Code: run.failed" in text
        assert "the home cannot be looked at" in text
        assert text.count("Over:") == 1, "of what cannot be looked at nobody says that it is well"
    finally:
        config.unlink()


def _acknowledges(federation: Federation, alarm: dict[str, Any]) -> None:
    """Known damage is 3 and in sight; what is not known away says so."""
    federation.ok("ack", alarm["id"], "--note", "the old disk", home="node")
    status = federation.json("status", "--offline", home="node", code=3)
    assert not status["safe"]
    [shown] = [one for one in status["alarms"] if one["id"] == alarm["id"]]
    assert shown["acknowledged"]
    assert shown["note"] == "the old disk"
    assert "KNOWN: bob: " in federation.run("status", "--offline", home="node").text
    assert "no alarm 'nonsense'" in federation.fails(1, "ack", "nonsense", home="node")


def test_a_channel_that_fails_fails_no_backup_and_is_shown(breakable: Federation) -> None:
    config = configure(
        breakable,
        "node",
        "[notify.command]\nrun = 'echo no line; exit 7'\n[notify.ping]\nurl = 'http://127.0.0.1:9/secret'\n",
    )
    try:
        result = breakable.ok("backup", home="node")
        assert "notify: ping: no answer" in result.err
        assert "secret" not in result.err
        result = breakable.run("notify", "--test", home="node")
        assert result.code == 1
        assert "command: it ended with 7 (no line)" in result.err
        status = breakable.ok("status", "--offline", home="node").text
        assert "NOT TOLD: the channel 'command' tells nobody anything: it ended with 7 (no line)" in status
        assert "channel ping" in status
        shown = breakable.json("status", "--offline", home="node")["alarms"]
        assert {one["about"] for one in shown} == {"channel command", "channel ping"}
    finally:
        config.unlink()


def test_of_a_home_that_no_database_answers_in_people_are_told_and_no_run_ends_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_session: Session) -> NoReturn:
        raise sqlite3.OperationalError("disk I/O error")

    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Session, "member", broken)
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "home.json").write_text("{}")
    ping = "[notify.ping]\nurl = 'http://127.0.0.1:9/'\n"  # which nobody answers: of that, too, nothing can be said
    (tmp_path / "config.toml").write_text(says_to(tmp_path / "said") + ping)
    session = Session()
    session.home_option = str(tmp_path)
    monkeypatch.setattr(session.out, "notice", full)
    session.worsen(exits.FAILED)
    finish(session, begin(session, "backup"), None, session.code)
    assert session.code == exits.FAILED
    said = (tmp_path / "said").read_text()
    assert "Nothing more is known, because the home cannot be looked at" in said
    assert "disk I/O error" in said
    assert "== red" in said


def test_a_provider_tells_of_itself_and_shows_months(breakable: Federation) -> None:
    said = breakable.path / "bob-said"
    breakable.stop("bob")
    config = configure(breakable, "bob", says_to(said))
    (breakable.path / "bob" / "data").rename(breakable.path / "bob" / "away")
    try:
        breakable.ok("notify", home="bob")
        assert "Code: provider.unmounted" in said.read_text()
        assert "cannot be reached" in said.read_text()
    finally:
        config.unlink()
        (breakable.path / "bob" / "away").rename(breakable.path / "bob" / "data")
        breakable.start("bob")
    status = breakable.json("provider", "status", home="bob")
    assert status["months"][0]["taken"] > 0
    assert "CAME IN" in breakable.ok("provider", "status", home="bob").text


def test_a_capacity_is_set_down_and_up(breakable: Federation) -> None:
    down = breakable.ok("provider", "set", "--capacity", "100k", home="carol")
    assert "nothing is deleted for this" in down.text
    assert "a capacity of 0" in breakable.fails(2, "provider", "set", "--capacity", "0", home="carol")
    up = breakable.json("provider", "set", "--capacity", "20G", home="carol")
    assert up["capacity"] == 20 * 10**9
    assert breakable.json("provider", "status", home="carol")["offer"]["capacity"] == 20 * 10**9
