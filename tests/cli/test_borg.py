"""Archives of Borg on the command line, with a real borg and real providers."""

import os
from pathlib import Path

import pytest

from replicator.cli.borg import _environment
from replicator.engine.edge import Edge, NoProgress
from replicator.errors import UsageError
from replicator.fs import PosixFs
from replicator.transport.memory import MemoryNetwork
from tests.borg import PHRASE, Repo, needs_borg
from tests.cli.federation import Federation
from tests.compare import compare
from tests.fakes import FakeClock, SeededRng


def edge(**environment: str) -> Edge:
    return Edge(
        fs=PosixFs(),
        clock=FakeClock(1),
        rng=SeededRng("1"),
        network=MemoryNetwork(),
        progress=NoProgress(),
        host="h",
        environment=environment,
    )


def test_a_passphrase_behind_a_descriptor_is_read_once_for_all_that_borg_is_asked() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a phrase\n")
    os.close(writing)
    assert _environment(edge(BORG_PASSPHRASE_FD=str(reading))) == {"BORG_PASSPHRASE": "a phrase"}
    with pytest.raises(UsageError, match="nothing can be read there"):
        _environment(edge(BORG_PASSPHRASE_FD=str(reading)))
    assert _environment(edge(BORG_PASSPHRASE_FD="9", BORG_PASSPHRASE="x")) == {"BORG_PASSPHRASE": "x"}


@pytest.mark.process
@needs_borg
def test_archives_come_in_and_snapshots_go_out(breakable: Federation, tmp_path: Path) -> None:
    federation = breakable
    federation.secrets.append(PHRASE)
    repo = Repo(tmp_path / "b")
    repo.create("docs-2024-05-06", "docs", folder=federation.path, at="2024-05-06T07:08:09")
    phrase = {"BORG_PASSPHRASE": PHRASE}
    plan = federation.run("borg", "import", repo.path, "--dry-run", "--json", home="keeper", env={**phrase}).json()
    assert [(row["archive"], row["dataset"], row["imported"]) for row in plan] == [("docs-2024-05-06", "docs", False)]
    wrong = federation.run("borg", "import", repo.path, home="keeper", env={"BORG_PASSPHRASE": "no"})
    assert (wrong.code, "BORG_PASSCOMMAND" in wrong.err) == (1, True)
    done = federation.run("borg", "import", repo.path, "--tag", "keep", "--json", home="keeper", env={**phrase})
    assert done.code == 0, done.err
    [row] = done.json()["archives"]
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
    there = federation.json("borg", "export", row["snapshot"], "--repo", away, "--archive", "a", home="keeper")
    assert there["already"]
    other = Repo(tmp_path / "c", encryption="")
    other.path = away
    other.extract("a", tmp_path / "extracted")
    assert compare(tmp_path / "restored", tmp_path / "extracted") == []
