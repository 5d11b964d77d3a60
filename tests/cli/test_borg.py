"""Archives of Borg on the command line, with a real borg and real providers."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from replicator.cli.base import Session
from replicator.cli.borg import _say_left
from replicator.engine.borg import environment_of
from replicator.errors import HomeError, LockedError, UsageError
from tests.borg import Repo, needs_borg
from tests.cli.federation import Federation
from tests.compare import compare


def test_a_passphrase_behind_a_descriptor_is_read_once_for_all_that_borg_is_asked() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a phrase\n")
    os.close(writing)
    assert environment_of({"BORG_PASSPHRASE_FD": str(reading)}) == {"BORG_PASSPHRASE": "a phrase"}
    with pytest.raises(UsageError, match="nothing can be read there"):
        environment_of({"BORG_PASSPHRASE_FD": str(reading)})
    assert environment_of({"BORG_PASSPHRASE_FD": "9", "BORG_PASSPHRASE": "x"}) == {"BORG_PASSPHRASE": "x"}


def test_what_fails_when_an_import_has_ended_takes_no_place_of_why_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session()

    def locked() -> str:
        raise LockedError("the node is at work", hint="wait")

    def whole_import() -> None:
        try:
            raise HomeError("no room")
        finally:
            _say_left(session, locked)

    with pytest.raises(HomeError, match="no room"):
        whole_import()
    assert "can write still is not known: the node is at work" in capsys.readouterr().err
    assert session.code == 3


def dying(folder: Path, word: str) -> Path:
    """Make a folder with a borg that is killed where it is given a word."""
    folder.mkdir()
    (folder / "borg").write_text(
        f'#!/bin/sh\ncase " $* " in *" {word} "*) kill -9 $$ ;; esac\nexec {shutil.which("borg")} "$@"\n'
    )
    (folder / "borg").chmod(0o755)
    return folder


@pytest.mark.process
@needs_borg
def test_archives_come_in_and_snapshots_go_out(breakable: Federation, tmp_path: Path) -> None:
    federation = breakable
    repo = Repo(tmp_path / "b", encryption="none")
    repo.create("docs-2024-05-06", "docs", folder=federation.path, at="2024-05-06T07:08:09")
    plan = federation.json("borg", "import", repo.path, "--dry-run", home="keeper")
    assert [(row["archive"], row["dataset"], row["imported"]) for row in plan] == [("docs-2024-05-06", "docs", False)]
    path = f"{dying(tmp_path / 'dying', 'extract')}:{os.environ['PATH']}"
    killed = federation.run("borg", "import", repo.path, home="keeper", env={"PATH": path})
    assert (killed.code, "docs-2024-05-06: NOT imported" in killed.text) == (1, True)
    [said] = re.findall(r"take its right away with `replicator (.+?)`", killed.err)
    federation.ok(*shlex.split(said), home="keeper")
    whole = federation.json("borg", "import", repo.path, "--tag", "keep", home="keeper")
    [row] = whole["archives"]
    assert whole["ended"]
    assert (row["published"], row["time"], row["items"]) == (True, "2024-05-06T07:08:09+00:00", row["extracted"])
    [shown] = [one for one in federation.json("snapshots", home="keeper") if one["id"] == row["snapshot"]]
    assert (shown["dataset"], shown["node"][:15]) == ("docs", "import of borg ")
    assert {"keep", "borg:docs-2024-05-06"} < set(shown["tags"])
    federation.ok("status", home="keeper")
    federation.ok("restore", row["snapshot"], "--target", tmp_path / "restored", home="keeper")
    assert compare(federation.path / "docs", tmp_path / "restored" / "docs") == []
    assert "is no keeper" in federation.fails(6, "borg", "import", repo.path, home="node")
    away = tmp_path / "away"
    federation.ok("borg", "export", row["snapshot"], "--repo", away, "--init", "none", "--archive", "a", home="keeper")
    other = Repo(tmp_path / "c", encryption="")
    other.path = away
    other.extract("a", tmp_path / "extracted")
    assert compare(tmp_path / "restored", tmp_path / "extracted") == []
    nowhere = str(tmp_path / "nowhere")
    assert federation.json("dataset", "set", "docs", "--also-borg", nowhere, home="node")["also_borg"] == nowhere
    night = federation.run("backup", "--json", home="node")
    [docs] = night.json()["datasets"]
    assert (night.code, docs["published"], docs["beside"]["archive"]) == (3, True, None)
    assert f"docs: archive beside: {nowhere}: Repository {nowhere} does not exist." in night.err
    status = federation.run("status", "--offline", home="node")
    assert (status.code, "archive of 'docs' beside" in status.text) == (3, True)
    federation.ok("dataset", "set", "docs", "--also-borg", "", home="node")
    federation.ok("backup", home="node")
    federation.ok("status", home="node")
    assert "cannot be the repository" in federation.fails(
        2, "dataset", "set", "docs", "--also-borg", "a::b", home="node"
    )
