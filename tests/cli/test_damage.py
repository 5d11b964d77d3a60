"""Providers that die, lose, damage or hide objects: what status says, what backup and repair do, exit codes."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.federation import PATIENCE_S, PLACES, PROGRAM, Federation, Result
from tests.compare import compare

pytestmark = pytest.mark.process
LEAF = 16 << 10


def _flip(path: Path) -> None:
    """Flip a bit in every leaf, so that a proof of any leaf shows it."""
    data = bytearray(path.read_bytes())
    for at in range(5, len(data), LEAF):
        data[at] ^= 4
    path.write_bytes(data)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _peer(document: Any, name: str) -> Any:
    [found] = [one for one in document["peers"] if one["name"] == name]
    return found


def test_deleted_objects_are_noticed_by_status_and_made_again(breakable: Federation) -> None:
    for path in breakable.objects("carol"):
        path.unlink()
    document = breakable.json("status", home="node", code=3)
    assert not document["safe"]
    assert _peer(document, "carol")["missing"]
    assert any("gone" in problem for problem in document["problems"])
    text = breakable.run("status", home="node").text
    assert text.startswith("Something needs attention")
    assert "replicator repair" in text
    assert breakable.run("status", "--offline", home="node").code == 3
    planned = breakable.run("repair", "--dry-run", "--json", home="node").json()["planned"]
    assert planned
    assert breakable.objects("carol") == []
    assert breakable.json("repair", home="node")["made"] == len(planned)
    breakable.ok("status", home="node")
    breakable.ok("status", "--offline", home="node")
    # Charter and keybag too: that provider alone is enough to recover from.
    breakable.stop("alice", "bob", "dave", "erin")
    line = ("recover", "--sheet", breakable.sheet, "--peer", breakable.endpoints["carol"], "--keeper-only")
    assert breakable.json(*line, home="rescued")["name"] == "björkby"


def test_truncated_and_flipped_objects_are_an_integrity_failure(breakable: Federation) -> None:
    newest = breakable.json("status", home="node")["datasets"][0]["newest_snapshot"]
    [path] = [path for path in breakable.objects("dave") if path.name == newest]
    os.truncate(path, 4096)
    document = breakable.json("status", home="node", code=4)
    assert _peer(document, "dave")["damaged"] == 1
    for path in breakable.objects("erin"):
        _flip(path)
    document = breakable.json("status", home="node", code=4)
    assert _peer(document, "erin")["damaged"]
    assert any("erin" in problem and "damaged" in problem for problem in document["problems"])
    assert breakable.run("status", "--offline", home="node").code == 4
    assert breakable.run("verify", "--all", home="node").code == 4
    assert breakable.run("verify", "--all", home="keeper").code == 4
    # What is whole elsewhere is restored whole, and who answered wrongly is named.
    target = breakable.path / "whole"
    done = breakable.run("restore", "latest", "--target", target, home="keeper")
    assert done.code in (0, 4)
    assert compare(breakable.path / "docs", target / "docs") == []
    for home in ("node", "keeper"):  # each remembers for itself which copies were made up for
        breakable.ok("repair", home=home)
        breakable.ok("status", home=home)
    breakable.ok("verify", "--all", home="keeper")


def test_copies_that_a_restore_found_damaged_ring_until_they_are_proved_good(breakable: Federation) -> None:
    breakable.ok("ls", "latest:docs", home="keeper")
    held = {path: path.read_bytes() for name in PLACES for path in breakable.objects(name)}
    for path in held:
        _flip(path)
    target = breakable.path / "met"
    breakable.fails(4, "restore", "latest:docs", "--target", target, home="keeper")
    alarms = breakable.json("status", "--offline", home="keeper", code=4)["alarms"]
    assert {one["code"] for one in alarms if "data." in one["code"]} >= {"data.damaged"}
    assert "data.integrity" not in {one["code"] for one in alarms}
    assert breakable.json("runs", "show", "latest", home="keeper")["said"]["damage_remembered"] is True
    for path, data in held.items():
        path.unlink(missing_ok=True)
        path.write_bytes(data)
    breakable.ok("status", home="keeper")
    assert breakable.json("status", "--offline", home="keeper")["alarms"] == []


def test_objects_that_were_swapped_are_noticed(breakable: Federation) -> None:
    objects = [path for path in breakable.objects("alice") if path.stat().st_size == 65536]
    contents = [path.read_bytes() for path in objects]
    for path, data in zip(objects, contents[1:] + contents[:1], strict=True):
        path.write_bytes(data)
    document = breakable.json("status", home="node", code=4)
    assert _peer(document, "alice")["damaged"]
    assert {one["name"] for one in document["peers"] if one["damaged"]} == {"alice"}


def test_with_too_few_peers_nothing_is_published_and_the_next_run_finishes(breakable: Federation) -> None:
    before = len(breakable.json("snapshots", home="keeper"))
    spool = breakable.path / "node" / "node" / "spool"
    breakable.stop("alice", "bob", "carol", "dave")
    (breakable.path / "docs" / "new.txt").write_text("written while friends were away\n")
    try:
        result = breakable.run("backup", home="node")
        assert result.code == 5
        assert "NOT published" in result.text
        assert "nothing was published" in result.err
        assert _files(spool)
        status = breakable.run("status", "--json", home="node")
        assert status.code in (3, 5)
        assert status.json()["spooled_bytes"] > 0
        breakable.start("alice", "bob", "carol", "dave")
        assert len(breakable.json("snapshots", home="keeper")) == before
        finished = breakable.json("backup", home="node")
        assert len(finished["finished_before"]) == 1
        assert _files(spool) == []
        assert len(breakable.json("snapshots", home="keeper")) == before + 2
        assert breakable.ok("cat", "latest", "new.txt", home="keeper").text == "written while friends were away\n"
    finally:
        (breakable.path / "docs" / "new.txt").unlink()


def test_below_the_promise_is_published_with_the_debt_named_and_the_worst_code_wins(breakable: Federation) -> None:
    extra = breakable.path / "extra"
    extra.mkdir()
    (extra / "file").write_bytes(os.urandom(70_000))
    breakable.stop("alice", "bob", "carol")
    breakable.ok("dataset", "add", "extra", extra, "--copies", "3", "--minimum", "2", home="node")
    document = breakable.json("backup", "extra", home="node", code=3)
    [row] = document["datasets"]
    assert row["published"]
    assert any("2 of 3 promised copies" in debt for debt in row["debts"])
    assert {line.split(":")[0] for line in document["unreachable"]} == {"alice", "bob", "carol"}
    assert any("2 of 3" in line for line in breakable.run("backup", "extra", home="node").said)
    # 5 over 3: one dataset with a debt, one below its minimum.
    (extra / "other").write_bytes(os.urandom(70_000))
    breakable.ok("dataset", "add", "strict", extra / "other", "--copies", "3", "--minimum", "3", home="node")
    result = breakable.run("backup", "extra", "strict", "--json", home="node")
    assert (result.code, [one["published"] for one in result.json()["datasets"]]) == (5, [True, False])
    # 1 over 3: a path that vanished besides a debt. The others are backed up all the same.
    breakable.ok("dataset", "remove", "strict", home="node")
    gone = breakable.path / "gone"
    gone.mkdir()
    breakable.ok("dataset", "add", "gone", gone, home="node")
    gone.rmdir()
    breakable.start("alice", "bob", "carol")
    shutil.rmtree(extra)
    result = breakable.run("backup", "gone", "docs", "--json", home="node")
    assert (result.code, [one["published"] for one in result.json()["datasets"]]) == (1, [False, True])
    assert str(gone) in result.err
    # 4 over 1: and a provider that lost what it had receipted.
    for path in breakable.objects("erin"):
        path.unlink()
    assert breakable.run("backup", "gone", "docs", home="node").code == 4
    breakable.ok("repair", home="node")


def test_a_debt_is_paid_by_repair_when_the_others_are_back(breakable: Federation) -> None:
    breakable.stop("alice", "bob", "erin")
    (breakable.path / "late").write_bytes(os.urandom(70_000))
    breakable.ok("dataset", "add", "late", breakable.path / "late", "--copies", "3", "--minimum", "2", home="node")
    assert breakable.run("backup", "late", home="node").code == 3
    breakable.start("alice", "bob", "erin")
    assert breakable.run("status", home="node").code == 3
    assert breakable.json("repair", home="node")["made"] >= 1
    breakable.ok("status", home="node")


def test_a_disk_that_is_not_mounted_is_not_the_same_as_lost_objects(breakable: Federation) -> None:
    data = breakable.path / "bob" / "data"
    data.rename(data.with_name("elsewhere"))
    document = breakable.json("status", home="node", code=0)
    bob = _peer(document, "bob")
    assert (bob["missing"], bob["damaged"]) == (0, 0)
    assert bob["problems"]
    assert "bob" in " ".join(document["advice"])
    assert "NOT MOUNTED" in breakable.ok("provider", "status", home="bob").text
    assert breakable.json("provider", "status", home="bob")["mounted"] is False
    result = breakable.run("backup", home="node")
    assert result.code == 3
    assert "claim at bob" in result.err
    assert "not mounted" in result.err
    assert not data.exists()
    data.with_name("elsewhere").rename(data)
    assert _peer(breakable.json("status", home="node"), "bob")["reachable"]


def test_a_provider_that_is_killed_in_the_middle_costs_no_backup(breakable: Federation) -> None:
    big = breakable.path / "big"
    big.mkdir()
    for number in range(3):
        (big / str(number)).write_bytes(os.urandom(16_000_000))
    breakable.ok("dataset", "add", "big", big, "--copies", "3", "--minimum", "1", home="node")  # one outlives two
    before = set(breakable.objects("carol")) | set(breakable.objects("dave"))
    process = subprocess.Popen(
        [*PROGRAM, "backup", "big", "--home", str(breakable.path / "node")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=breakable.environment(),
    )
    victims = ("carol", "dave")
    while process.poll() is None and not set().union(*map(breakable.objects, victims)) - before:
        time.sleep(0.005)
    breakable.stop(*victims, kill=True)
    out, err = process.communicate(timeout=PATIENCE_S)
    breakable.check(Result(args=("backup",), code=process.returncode, out=out, err=err.decode()))
    assert process.returncode in (0, 3)
    assert b"published" in out
    breakable.start(*victims)
    breakable.ok("repair", home="node")
    breakable.ok("status", home="node")
    target = breakable.path / "big-back"
    breakable.ok("restore", "latest:big", "--target", target, home="keeper")
    assert compare(big, target / "big") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_backup_that_is_interrupted_leaves_a_home_that_goes_on(breakable: Federation, number: signal.Signals) -> None:
    big = breakable.path / f"big-{number}"
    big.mkdir()
    (big / "file").write_bytes(os.urandom(40_000_000))
    breakable.ok("dataset", "add", "big", big, home="node")
    spool = breakable.path / "node" / "node" / "spool"
    process = subprocess.Popen(
        [*PROGRAM, "backup", "big", "--home", str(breakable.path / "node")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=breakable.environment(),
    )
    while process.poll() is None and not _files(spool):
        time.sleep(0.002)
    # Nobody answers any more, so the backup cannot end before the signal comes.
    for provider in breakable.processes.values():
        provider.send_signal(signal.SIGSTOP)
    try:
        assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        for provider in breakable.processes.values():
            provider.send_signal(signal.SIGCONT)
    assert out == b""
    assert "Traceback" not in err.decode()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted" in err.decode()
    else:
        assert process.returncode == -signal.SIGKILL
    assert [row["dataset"] for row in breakable.json("snapshots", home="keeper")] == ["docs"]
    breakable.ok("backup", home="node")
    breakable.ok("status", home="node")
    target = breakable.path / f"back-{number}"
    breakable.ok("restore", "latest:big", "--target", target, home="keeper")
    assert compare(big, target / big.name) == []


def test_a_quota_that_is_full_is_said_and_nothing_is_published(federation: Federation) -> None:
    home = federation.path / "poor"
    federation.ok("init", "--name", "poor", "--recovery-sheet", federation.path / "sheet-of-poor", home=home)
    code = federation.json("provider", "invite", "--quota", "900k", home="alice")["code"]
    federation.ok("peer", "add", code, home=home)
    big = federation.path / "too-big"
    big.write_bytes(os.urandom(2_000_000))
    federation.ok("dataset", "add", "big", big, "--copies", "1", "--minimum", "1", home=home)
    result = federation.run("backup", home=home)
    assert result.code == 5
    assert "alice" in result.err
    assert federation.json("snapshots", home=home) == []
    big.write_bytes(os.urandom(100_000))


def test_what_was_looked_at_stays_readable_without_providers(breakable: Federation) -> None:
    rows = breakable.json("find", "*", "--dataset", "docs", home="keeper")
    everything = breakable.ok("ls", "-R", "latest:docs", home="keeper").text
    assert len(rows) == 9
    breakable.stop()
    alone = breakable.run("ls", "-R", "latest:docs", home="keeper")
    assert (alone.code, alone.text) == (0, everything)
    assert len(alone.said) == 5, "each provider that does not answer is named"
    assert breakable.run("find", "*", "--dataset", "docs", "--json", home="keeper").json() == rows
    assert breakable.run("cat", "latest:docs", "docs/noise.bin", home="keeper").code == 1
    for path in (breakable.path / "keeper" / "keeper" / "cache").rglob("*"):
        assert path.is_dir() or b"noise" not in path.read_bytes()
