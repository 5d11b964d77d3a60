"""Erasing, as people call it: what is asked first, what is gone then, and what is signed."""

import os
from pathlib import Path

import pytest

from replicator.crypto.recovery import from_words, root_of
from replicator.engine.erasing import read_report
from tests.cli.federation import PLACES, Federation

pytestmark = pytest.mark.process


def test_a_tenant_is_erased_when_its_name_was_given_and_not_before(breakable: Federation, tmp_path: Path) -> None:
    federation = breakable
    order = ("erase", "tenant", "--sheet", federation.sheet)
    rows = federation.json(*order, "--dry-run", home="keeper")
    assert {row["name"] for row in rows} == set(PLACES)
    assert "no terminal to ask on" in federation.fails(2, *order, home="keeper")
    assert "is not its name" in federation.fails(2, *order, "--yes-erase", "somebody", home="keeper")
    federation.fails(6, *order, "--yes-erase", "björkby", home="node")
    federation.fails(1, "erase", "report", home="keeper")
    assert all(federation.objects(name) for name in PLACES)

    federation.stop("erin")
    done = federation.run(*order, "--yes-erase", "björkby", home="keeper")
    assert (done.code, "Outstanding: erin" in done.text) == (3, True)
    assert [bool(federation.objects(name)) for name in PLACES] == [name == "erin" for name in PLACES]
    assert list((federation.path / "keeper" / "keeper").glob("*.key")) == []
    federation.start("erin")
    document = federation.json("erase", "report", "--output", tmp_path / "report", home="keeper")
    assert document["complete"]
    assert federation.objects("erin") == []
    root = root_of(from_words(federation.words)).signing.public
    assert read_report((tmp_path / "report").read_bytes(), root_key=root).outstanding == []
    assert "erased by its root's order" in federation.ok("provider", "status", home="alice").text
    assert federation.run("backup", home="node").code != 0
    assert federation.json("erase", "report", "--offline", home="keeper")["complete"]


def test_a_path_is_erased_with_the_snapshots_that_hold_it(breakable: Federation) -> None:
    federation = breakable
    line = ("erase", "path", "docs", "letters/one.txt", "--sheet", federation.sheet)
    [row] = federation.json(*line, "--dry-run", home="keeper")["snapshots"]
    assert (row["newest"], row["forgotten"]) == (True, False)
    assert "dataset set --exclude" in federation.fails(2, *line, "--yes-erase", "docs", home="keeper")
    letters = federation.path / "docs" / "letters"
    before = letters.stat()
    (letters / "one.txt").rename(federation.path / "one.txt")
    federation.ok("backup", home="node")
    assert "is not its name" in federation.fails(2, *line, "--yes-erase", "other", home="keeper")
    federation.fails(6, *line, "--yes-erase", "docs", home="node")
    document = federation.json(*line, "--yes-erase", "docs", home="keeper")
    (federation.path / "one.txt").rename(letters / "one.txt")
    os.utime(letters, ns=(before.st_atime_ns, before.st_mtime_ns))  # the folder is everybody's
    assert [one["id"] for one in document["snapshots"]] == [row["id"]]
    assert (document["complete"], document["until"] > row["time"]) == (True, True)
    assert [one["id"] for one in federation.json("snapshots", "--forgotten", home="keeper")] == [row["id"]]
    assert row["id"] not in {one["id"] for one in federation.json("snapshots", home="keeper")}


def test_a_domain_is_erased_when_nobody_writes_into_it(breakable: Federation) -> None:
    federation = breakable
    line = ("erase", "domain", "private", "--sheet", federation.sheet)
    assert "no domain 'private'" in federation.fails(1, *line, "--dry-run", home="keeper")
    federation.ok("domain", "add", "private", home="keeper")
    federation.ok("backup", home="node")  # it is given the keys with the charter that it hears
    federation.ok("dataset", "add", "papers", federation.path / "docs", "--domain", "private", home="node")
    federation.ok("backup", "papers", home="node")
    found = federation.json(*line, "--dry-run", home="keeper")
    assert (len(found["writing"]), len(found["snapshots"]), found["erased"]) == (1, 1, "")
    assert "'papers' of" in federation.fails(2, *line, "--yes-erase", "private", home="keeper")
    federation.ok("dataset", "remove", "papers", home="node")
    [row] = [one for one in federation.json("snapshots", home="keeper") if one["dataset"] == "papers"]
    federation.ok("forget", row["id"], "--even-last", home="keeper")
    federation.stop("erin")
    document = federation.json(*line, "--yes-erase", "private", home="keeper", code=3)
    assert (document["erased"] > row["time"], document["complete"]) == (True, False)
    assert {one["name"] for one in document["keybags"] if one["problem"]} == {"erin"}
    federation.start("erin")
    document = federation.json(*line, home="keeper")
    assert document["complete"]
    assert all(
        one["there"] == one["marked"] > 0 and one["not_before"] > document["erased"] for one in document["keybags"]
    )
    federation.ok("backup", home="node")
    rows = {one["name"]: one["erased"] for one in federation.json("domain", "list", home="node")}
    assert (rows["private"] == document["erased"], rows["main"]) == (True, "")
    add = ("dataset", "add", "papers", federation.path / "docs", "--domain", "private")
    assert "was erased on" in federation.fails(6, *add, home="node")
