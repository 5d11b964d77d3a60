"""What a restore brings back, where to, and what it leaves alone."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from replicator.cli.base import Session
from replicator.cli.main import cli
from replicator.engine import drill
from replicator.errors import SpaceError
from tests.cli.federation import Federation, make_files
from tests.compare import compare

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def roots(federation: Federation) -> Iterator[tuple[Federation, str, Path]]:
    """A dataset of three roots: two folders of one name in different places, and a file; and its snapshot's id."""
    place = federation.path / "roots"
    make_files(place / "a" / "things")
    (place / "b" / "things").mkdir(parents=True)
    (place / "b" / "things" / "other.txt").write_text("the other one\n")
    (place / "single.conf").write_text("alone\n")
    paths = (place / "a" / "things", place / "b" / "things", place / "single.conf")
    federation.ok("dataset", "add", "mixed", *paths, home="node")
    [row] = federation.json("backup", "mixed", home="node")["datasets"]
    yield federation, row["snapshot"], place
    federation.ok("dataset", "remove", "mixed", home="node")


def test_a_folder_comes_back_under_its_own_name_with_bytes_modes_and_times(
    federation: Federation, tmp_path: Path
) -> None:
    target = tmp_path / "deep" / "target"
    document = federation.json("restore", "latest:docs", "--target", target, home="keeper")
    assert compare(federation.path / "docs", target / "docs") == []
    assert [path.name for path in target.iterdir()] == ["docs"]
    assert (document["files"], document["gaps"], document["target"]) == (5, [], str(target))


def test_each_root_comes_back_under_a_name_of_its_own(roots: tuple[Federation, str, Path], tmp_path: Path) -> None:
    federation, snapshot, place = roots
    done = federation.ok("restore", snapshot[:16], "--target", tmp_path, home="keeper")
    assert done.text.startswith("Restored 7 files (")
    assert len(done.text.splitlines()) == 1
    assert done.err == ""
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 3
    assert {"things", "single.conf"} < names
    [other] = names - {"things", "single.conf"}
    folders = {"things": place / "a" / "things", other: place / "b" / "things"}
    if (tmp_path / "things" / "other.txt").exists():
        folders = {"things": place / "b" / "things", other: place / "a" / "things"}
    for name, source in folders.items():
        assert compare(source, tmp_path / name) == []
    assert (tmp_path / "single.conf").read_text() == "alone\n"


def test_paths_are_taken_below_a_root_below_the_only_root_or_as_they_were(
    roots: tuple[Federation, str, Path], tmp_path: Path
) -> None:
    federation, snapshot, place = roots

    def back(snap: str, *paths: str | Path) -> set[str]:
        target = tmp_path / str(len(list(tmp_path.iterdir())))
        federation.ok("restore", snap, *paths, "--target", target, home="keeper")
        return {str(path.relative_to(target)) for path in target.rglob("*")}

    one = {"docs", "docs/letters", "docs/letters/one.txt"}
    assert back("latest:docs", "docs/letters/one.txt") == one
    assert back("latest:docs", "letters/one.txt") == one
    assert back("latest:docs", federation.path / "docs" / "letters" / "one.txt") == one
    letters = one | {"docs/letters/empty", "docs/letters/två.txt"}
    assert back("latest:docs", "letters/", "docs/run.sh") == letters | {"docs/run.sh"}
    assert back(snapshot, place / "single.conf") == {"single.conf"}
    [other] = {path for path in back(snapshot, place / "b" / "things") if "/" not in path}
    assert back(snapshot, place / "b" / "things" / "other.txt") == {other, f"{other}/other.txt"}


def test_what_is_there_already_is_kept_refused_or_replaced_as_told(federation: Federation, tmp_path: Path) -> None:
    federation.ok("restore", "latest:docs", "--target", tmp_path, home="keeper")
    changed, same = tmp_path / "docs" / "letters" / "one.txt", tmp_path / "docs" / "noise.bin"
    changed.write_text("something else\n")
    (tmp_path / "docs" / "mine").write_text("not in the snapshot\n")
    inode = same.stat().st_ino
    refused = federation.fails(1, "restore", "latest:docs", "--target", tmp_path, home="keeper")
    assert "docs/" in refused
    assert "--overwrite" in refused
    assert changed.read_text() == "something else\n"
    again = ("restore", "latest:docs", "--target", tmp_path, "--overwrite")
    assert federation.json(*again, "if-changed", home="keeper")["kept"] >= 3
    assert changed.read_text() == "dear friend\n"
    assert same.stat().st_ino == inode
    before = changed.stat()
    changed.write_text("Dear friend\n")
    os.utime(changed, ns=(before.st_mtime_ns, before.st_mtime_ns))
    federation.json(*again, "if-changed", home="keeper")
    assert changed.read_text() == "Dear friend\n", "it has the same size and time"
    always = federation.json(*again, "always", home="keeper")
    assert changed.read_text() == "dear friend\n"
    assert (always["kept"], always["files"]) == (5, 1)
    assert always["fetched_bytes"] == 64 << 10, "one pack; directories were kept"
    assert same.stat().st_ino == inode, "its bytes are what they should be"
    assert (tmp_path / "docs" / "mine").read_text() == "not in the snapshot\n"
    assert federation.run(*again, "maybe", home="keeper").code == 2


def test_what_the_snapshot_does_not_have_is_named_and_then_deleted(federation: Federation, tmp_path: Path) -> None:
    federation.ok("restore", "latest:docs", "--target", tmp_path, home="keeper")
    for name in ("docs/mine", "docs/letters/new/inner", "docs/letters/new/other", "beside"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine\n")
    os.symlink("/etc", tmp_path / "docs" / "letters" / "link")
    command = ("restore", "latest:docs", "--target", tmp_path, "--overwrite", "if-changed", "--delete")
    named = ["docs/letters/link", "docs/letters/new/", "docs/mine"]
    dry = federation.json(*command, "--dry-run", home="keeper")
    assert sorted(dry["deleted"]) == named
    assert (tmp_path / "docs" / "mine").exists()
    assert sorted(federation.json(*command, home="keeper")["deleted"]) == named
    assert compare(federation.path / "docs", tmp_path / "docs") == []
    assert (tmp_path / "beside").exists(), "not below a folder of the snapshot"
    assert os.path.exists("/etc/passwd")
    assert federation.json(*command, home="keeper")["deleted"] == []


def test_of_what_is_restored_in_part_only_that_part_is_deleted(federation: Federation, tmp_path: Path) -> None:
    federation.ok("restore", "latest:docs", "--target", tmp_path, home="keeper")
    for name in ("docs/mine", "docs/letters/mine"):
        (tmp_path / name).write_text("mine\n")
    command = ("restore", "latest:docs", "letters", "--target", tmp_path, "--overwrite", "if-changed", "--delete")
    assert federation.json(*command, home="keeper")["deleted"] == ["docs/letters/mine"]
    assert (tmp_path / "docs" / "mine").exists()


def test_a_drill_restores_checks_and_is_remembered(federation: Federation, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = ("drill", "latest:docs", "--scratch", scratch)
    [done] = federation.json(*command, "--check", "test -s docs/letters/one.txt", home="keeper")
    assert (done["dataset"], done["check"], done["passed"], done["whole"]) == ("docs", "passed", True, True)
    assert list(scratch.iterdir()) == []
    assert "it said last: no such cat" in federation.fails(
        1, *command, "--check", "echo no such cat; false", home="keeper"
    )
    kept = federation.ok(*command, "--sample", "0%", "--keep", home="keeper")
    assert "a sample" in kept.text
    [folder] = scratch.iterdir()
    assert str(folder) in kept.err
    [listed] = federation.json("drill", "--list", home="keeper")
    assert (listed["dataset"], listed["whole"]) == ("docs", False)
    status = federation.run("status", "--json", home="keeper")
    assert [one["id"] for one in json.loads(status.out)["drills"]] == [listed["id"]]


def test_what_one_drill_meets_takes_nothing_from_the_others(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = drill.drill
    full: list[str] = []

    async def once_full(*args: Any, **options: Any) -> drill.DrillReport:
        if not full:
            full.append("once")
            raise SpaceError("no room for it", hint="make some")
        return await real(*args, **options)

    monkeypatch.setattr("replicator.engine.drill.drill", once_full)
    home, secret = str(federation.path / "keeper"), str(federation.passphrase_file)
    common = ("--home", home, "--passphrase-file", secret, "--json", "drill", "--scratch", str(tmp_path))
    newest = federation.json("snapshots", home="keeper")[-1]["dataset"]
    done = CliRunner().invoke(cli, [*common, "latest", "latest:docs"], obj=Session())
    assert done.exit_code == 1
    assert [one["dataset"] for one in json.loads(done.stdout)] == ["docs"]
    assert f"{newest}: no room for it" in done.stderr
    full.clear()
    done = CliRunner().invoke(cli, [*common, "latest"], obj=Session())
    assert (done.exit_code, json.loads(done.stdout)["error"]["message"]) == (1, "no room for it")


def test_a_kept_check_looks_at_every_whole_drill(federation: Federation, tmp_path: Path) -> None:
    command = ("drill", "latest:docs", "--scratch", tmp_path)
    check = ("--check", "test -s docs/letters/one.txt", "--check-timeout", "5m")
    made = federation.json("drill", "--set-check", "docs", *check, home="keeper")
    assert made == {"id": "docs", "check": "test -s docs/letters/one.txt", "check_timeout": "300s"}
    federation.ok("drill", "--set-check", "typo", "--check", "true", home="keeper")
    assert [one["id"] for one in federation.json("drill", "--list-checks", home="keeper")] == ["docs", "typo"]
    kept = federation.run(*command, "--json", home="keeper")
    assert [(one["check"], one["passed"]) for one in kept.json()] == [("passed", True)]
    assert kept.said == ["a check is kept for 'typo', and there is no snapshot of such a dataset"]
    for option in (("--no-check",), ("--sample", "50%")):
        left = federation.run(*command, *option, "--json", home="keeper")
        assert [(one["check"], one["passed"]) for one in left.json()] == [("left out", True)]
        assert "docs: its kept check was left out" in left.said
    federation.fails(1, *command, "--check", "false", home="keeper")
    federation.json("drill", "--remove-check", "typo", home="keeper")
    federation.json("drill", "--remove-check", "docs", home="keeper")
    assert federation.json("drill", "--list-checks", home="keeper") == []
    assert "there are: none yet" in federation.fails(1, "drill", "--remove-check", "docs", home="keeper")
    [done] = federation.json(*command, home="keeper")
    assert (done["check"], done["passed"]) == ("none", True)
    assert "Trial restore of docs: passed (no check), " in federation.run("status", home="keeper").text


@pytest.mark.parametrize(
    "line",
    [
        ("--set-check", "docs"),
        ("--set-check", "docs", "--check", " "),
        ("--set-check", "docs", "--remove-check", "docs"),
        ("--set-check", "docs", "--check", "true", "latest"),
        ("--set-check", "docs", "--check", "true", "--check-timeout", "8d"),
        ("--list", "--list-checks"),
        ("--list", "--keep"),
        ("--check", "true", "--no-check"),
        ("--check", ""),
        ("--list", "--check", "true"),
    ],
    ids=" ".join,
)
def test_words_of_a_drill_that_have_no_meaning_together_are_refused(
    federation: Federation, line: tuple[str, ...]
) -> None:
    federation.fails(2, "drill", *line, home="keeper")


def test_progress_for_programs_is_on_standard_error_and_the_document_alone_on_standard_output(
    federation: Federation, tmp_path: Path
) -> None:
    line = ("restore", "latest:docs", "--json")
    done = federation.run(*line, "--target", tmp_path / "a", "--progress", "json", home="keeper")
    document = done.json()
    events = [json.loads(one) for one in done.said]
    assert {one["event"] for one in events} == {"progress"}
    assert (events[-1]["stage"], events[-1]["done"]) == ("restoring", document["bytes"])
    looked = federation.run("verify", "--all", "--progress", "json", home="keeper").said
    assert json.loads(looked[-1])["done"] == json.loads(looked[-1])["total"] > 0
    told: dict[str, str | None] = {"REPLICATOR_PROGRESS": "json"}
    assert "restoring" in federation.run(*line, "--target", tmp_path / "b", home="keeper", env=told).err
    assert federation.run(*line, "--target", tmp_path / "c", home="keeper").err == ""
    loud: dict[str, str | None] = {"REPLICATOR_PROGRESS": "loud"}
    bad = federation.run(*line, "--target", tmp_path / "d", home="keeper", env=loud)
    assert (bad.code, bad.json()["error"]["kind"]) == (2, "UsageError")
    gone = federation.run("restore", "nothing", "--target", tmp_path / "e", home="keeper", env=told)
    assert [json.loads(one)["event"] for one in gone.said] == ["error"]


def test_a_dry_run_counts_and_writes_nothing(federation: Federation, tmp_path: Path) -> None:
    target = tmp_path / "target"
    document = federation.json("restore", "latest:docs", "--target", target, "--dry-run", home="keeper")
    assert document["dry_run"]
    assert document["bytes"] == sum(
        path.stat().st_size
        for path in (federation.path / "docs").rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    assert not target.exists()


def test_a_target_that_is_a_file_or_below_one_is_refused(federation: Federation, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("here first\n")
    for target in (file, file / "below"):
        assert str(file) in federation.fails(1, "restore", "latest:docs", "--target", target, home="keeper")
    assert file.read_text() == "here first\n"
    assert federation.run("restore", "latest:docs", home="keeper").code == 2


def test_a_snapshot_is_named_by_id_dataset_or_day(roots: tuple[Federation, str, Path]) -> None:
    federation, snapshot, _ = roots
    rows = federation.json("snapshots", home="keeper")
    assert {row["dataset"] for row in rows} >= {"docs", "mixed"}
    day = next(row["time"][:10] for row in rows if row["id"] == snapshot)

    def names(snap: str) -> set[str]:
        return {row["name"] for row in federation.json("ls", snap, home="keeper")}

    assert "single.conf" in names("latest")
    assert "single.conf" in names(snapshot[:12].upper())
    assert "single.conf" in names(f"mixed@{day}")
    assert names("latest:docs") == {"docs"}
    for snap, said in {
        "zz": "no snapshot has an id that begins with 'zz'",
        "latest:nope": "no snapshot of dataset 'nope'",
        "docs@1999-01-01": "no snapshot of dataset 'docs' on 1999-01-01",
    }.items():
        error = federation.fails(1, "ls", snap, home="keeper")
        assert said in error
    assert "an empty name means no snapshot" in federation.fails(2, "ls", "", home="keeper")
    assert "latest:docs" in federation.fails(1, "ls", "docs", home="keeper")
    assert "not a date such as" in federation.fails(2, "ls", "docs@yesterday", home="keeper")


def test_a_path_that_is_not_in_the_snapshot_is_named(federation: Federation, tmp_path: Path) -> None:
    assert "nope" in federation.fails(1, "restore", "latest:docs", "nope", "--target", tmp_path, home="keeper")
    assert "nope" in federation.fails(1, "cat", "latest:docs", "nope", home="keeper")
    assert "dir, not a file" in federation.fails(1, "cat", "latest:docs", "letters", home="keeper")
    assert "'..'" in federation.fails(2, "ls", "latest:docs", "../docs", home="keeper")
    assert os.listdir(tmp_path) == []
