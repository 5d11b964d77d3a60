"""find, versions, diff, and lists of any length, as a person or a script calls them."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.cli import exits
from replicator.cli.base import Session
from replicator.cli.search import take_trouble
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from tests.cli.federation import Federation

pytestmark = pytest.mark.process
NASTY = b"esc\x1b[2J\nand \xff.txt"


@dataclass(frozen=True, slots=True)
class Story:
    """A dataset of a folder "story" with three snapshots, by id, oldest first."""

    federation: Federation
    folder: Path
    ids: tuple[str, ...]

    def json(self, *args: str | Path, code: int = 0) -> Any:
        return self.federation.json(*args, home="keeper", code=code)

    def text(self, *args: str | Path) -> str:
        return self.federation.ok(*args, home="keeper").text

    def find(self, *args: str | Path) -> list[str]:
        return [row["path"] for row in self.json("find", *args, "--dataset", "story")]


@pytest.fixture(scope="module")
def story(federation: Federation) -> Iterator[Story]:
    folder = federation.path / "story"
    ids = []

    def backup() -> None:
        [row] = federation.json("backup", "story", home="node")["datasets"]
        ids.append(row["snapshot"])

    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "diary").write_text("day one\n")
    (folder / "notes" / "Plan.TXT").write_text("the plan\n")
    (folder / "large.bin").write_bytes(bytes(1_000_001))
    (folder / "link").symlink_to("notes/diary")
    (folder / os.fsdecode(NASTY)).write_text("hello")
    os.utime(folder / "large.bin", (946_684_800, 946_684_800))  # 2000-01-01
    federation.ok("dataset", "add", "story", folder, home="node")
    backup()
    (folder / "notes" / "diary").write_text("day one\nday two\n")
    (folder / "notes" / "Plan.TXT").chmod(0o400)
    backup()
    (folder / "notes" / "diary").unlink()
    (folder / "link").unlink()
    (folder / "link").mkdir()
    (folder / "link" / "inner").write_text("12345")
    backup()
    yield Story(federation, folder, tuple(ids))
    federation.ok("dataset", "remove", "story", home="node")
    shutil.rmtree(folder)


def test_a_file_is_found_once_however_many_snapshots_hold_it(story: Story) -> None:
    rows = story.json("find", "large.*", "--dataset", "story")
    [row] = rows
    assert row["id"] == f"{story.ids[2]}:story/large.bin"
    assert (row["path"], row["dataset"], row["node"], row["snapshots"]) == ("story/large.bin", "story", "attic", 3)
    assert (row["first_snapshot"], row["last_snapshot"], row["snapshot"]) == (story.ids[0], *[story.ids[2]] * 2)
    assert (row["type"], row["size"], row["mtime"]) == ("file", 1_000_001, "2000-01-01T00:00:00+00:00")
    rows = story.json("find", "diary")
    assert [(row["size"], row["snapshots"], row["snapshot"]) for row in rows] == [
        (8, 1, story.ids[0]),
        (16, 1, story.ids[1]),
    ]
    [row] = story.json("find", "large.*", "--dataset", "story")
    text = story.text("find", "large.*", "--dataset", "story").splitlines()
    assert len(text) == 2
    assert text[0].split() == ["FIRST", "LAST", "SNAPSHOTS", "IN", "TYPE", "SIZE", "MODIFIED", "PATH"]
    assert text[1].split()[2:] == ["3", story.ids[2][:12], "file", "1000001", row["mtime"], "story/large.bin"]


def test_each_option_of_find_narrows_it(story: Story) -> None:
    assert story.find("*", "--type", "d") == ["story", "story/link", "story/notes"]
    assert story.find("*", "--type", "l") == ["story/link"]
    assert story.find("*", "--larger", "1M") == ["story/large.bin"]
    assert story.find("*", "--larger", "1000001") == []
    assert story.find("*", "--larger", "4", "--smaller", "6") == ["story/" + shown(), "story/link/inner"]
    assert story.find("*", "--older", "2000-01-02") == ["story/large.bin"]
    assert "story/large.bin" not in story.find("*", "--newer", "2000-01-02")
    assert "story/notes/diary" in story.find("*", "--newer", "7d")
    assert story.find("plan.*") == []
    assert story.find("plan.*", "--ignore-case") == ["story/notes/Plan.TXT"] * 2
    assert story.find("link/*") == ["story/link/inner"]
    assert story.find(story.folder / "link" / "*") == ["story/link/inner"]
    rows = story.json("find", "*", "--snapshot", story.ids[0][:20], "--type", "f")
    assert {row["snapshot"] for row in rows} == {story.ids[0]}
    assert len(rows) == 4


def shown() -> str:
    return "esc\\x1b[2J\\x0aand \\xff.txt"


def test_names_that_move_the_cursor_are_shown_harmless(story: Story) -> None:
    for line in (("find", "esc*"), ("ls", story.ids[2], "story"), ("diff", "latest:docs", story.ids[2])):
        assert shown() in story.text(*line)
        assert b"\x1b" not in story.federation.ok(*line, "--json", home="keeper").out
    assert story.find("esc*") == [f"story/{shown()}"]
    assert story.json("versions", os.fsdecode(b"story/" + NASTY))[0]["path"] == f"story/{shown()}"


def test_what_find_cannot_look_for_is_said(story: Story) -> None:
    keeper = story.federation
    for code, said, *line in (
        (2, "no pattern of a name", "/"),
        (2, "is not a size", "*", "--larger", "much"),
        (2, "neither a day nor a duration", "*", "--newer", "lately"),
        (2, "give one of --snapshot and --dataset", "*", "--snapshot", "latest", "--dataset", "story"),
        (1, "no snapshot of dataset 'nope'", "*", "--dataset", "nope"),
        (1, "story", "*", "--dataset", "nope"),
        (1, "no snapshot has an id that begins with 'zz'", "*", "--snapshot", "zz"),
    ):
        assert said in keeper.fails(code, "find", *line, home="keeper")
    nothing = keeper.ok("find", "no such name", home="keeper")
    assert nothing.text == ""
    assert nothing.err.startswith("Nothing matches in ")
    assert story.json("find", "no such name") == []
    for words in ("find *", "versions x", "diff latest latest"):
        assert "this home is no keeper" in keeper.fails(6, *words.split(), home="node")


def test_every_version_of_a_path_is_listed_with_where_to_get_it(story: Story, tmp_path: Path) -> None:
    for path in ("story/notes/diary", "notes/diary", str(story.folder / "notes" / "diary")):
        rows = story.json("versions", path, "--dataset", "story")
        assert [(row["state"], row["snapshot"], row["snapshots"], row.get("size")) for row in rows] == [
            ("present", story.ids[0], 1, 8),
            ("present", story.ids[1], 1, 16),
            ("deleted", None, 1, None),
        ]
    assert [row["id"] for row in rows] == list(story.ids)
    assert {row["path"] for row in rows} == {"story/notes/diary"}
    assert all(row["first"] <= row["last"] for row in rows)
    story.federation.ok("restore", rows[0]["snapshot"], rows[0]["path"], "--target", tmp_path, home="keeper")
    assert (tmp_path / "story" / "notes" / "diary").read_text() == "day one\n"
    text = story.text("versions", "story/notes/diary").splitlines()
    assert [line.split()[3:6] for line in text[1:]] == [
        [story.ids[0][:12], "file", "8"],
        [story.ids[1][:12], "file", "16"],
        ["-", "deleted", "-"],
    ]


def test_a_path_that_changed_its_kind_or_came_late_has_such_a_history(story: Story) -> None:
    rows = story.json("versions", "story/link")
    assert [(row["type"], row["snapshots"], row["target"]) for row in rows] == [
        ("link", 2, "notes/diary"),
        ("dir", 1, ""),
    ]
    rows = story.json("versions", "story/link/inner")
    assert [(row["state"], row["snapshots"]) for row in rows] == [("absent", 2), ("present", 1)]
    error = story.federation.fails(1, "versions", "story/nope", home="keeper")
    assert "no snapshot has a path 'story/nope'" in error
    assert "top of a snapshot" in story.federation.fails(2, "versions", "/", home="keeper")
    assert "'..'" in story.federation.fails(2, "versions", "../x", home="keeper")


def test_two_snapshots_are_compared(story: Story) -> None:
    one, two, three = story.ids
    document = story.json("diff", one, two)
    assert [(row["id"], row["change"], row["aspects"]) for row in document["changes"]] == [
        ("story/notes/Plan.TXT", "metadata", ["mode"]),
        ("story/notes/diary", "content", ["content", "mtime"]),
    ]
    assert document["id"] == f"{one}..{two}"
    assert document["summary"] == {
        "added": 0,
        "removed": 0,
        "content": 1,
        "metadata": 1,
        "type": 0,
        "changes": 2,
        "bytes_added": 16,
        "bytes_removed": 8,
    }
    assert [(row["old"]["size"], row["new"]["size"]) for row in document["changes"]] == [(9, 9), (8, 16)]
    lines = story.text("diff", two[:20], three[:20]).splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["type", "story/link/", "(link", "->", "dir)"],
        ["added", "+5", "story/link/inner"],
        ["removed", "-16", "story/notes/diary"],
    ]
    assert lines[-1] == (
        "1 added, 1 removed, 0 with other content, 0 with other metadata only, 1 of another type; 5 B came, 16 B went"
    )
    assert story.text("diff", one, "latest:story", "notes/Plan.TXT").splitlines()[0].split() == [
        *("metadata", "story/notes/Plan.TXT", "(mode)")
    ]


def test_snapshots_without_a_difference_are_no_failure_and_none_is_an_error(story: Story) -> None:
    same = story.json("diff", story.ids[1], story.ids[1])
    assert (same["changes"], same["summary"]["changes"]) == ([], 0)
    assert story.json("diff", story.ids[0], story.ids[2], "large.bin")["changes"] == []
    assert "neither snapshot has a path 'nope'" in story.federation.fails(
        1, "diff", story.ids[0], story.ids[1], "nope", home="keeper"
    )
    assert "no snapshot of dataset 'nope'" in story.federation.fails(1, "diff", "latest:nope", "latest", home="keeper")


def test_why_takes_the_same_names_and_says_what_there_is(story: Story) -> None:
    keeper = story.federation
    assert story.json("why", "latest:story")["places"] == story.json("why", "story")["places"]
    assert "there are: docs" in keeper.fails(1, "why", "latest:nope", home="keeper")
    assert "there are: docs" in keeper.fails(1, "why", "latest:nope", home="node")
    assert "the nearest: story@20" in keeper.fails(1, "why", "story@1999-01-01", home="node")
    assert "an empty name" in keeper.fails(2, "why", "", home="node")


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], exits.DONE),
        ([NotFoundError("nobody has it")], exits.GAPS),
        ([IntegrityError("other bytes")], exits.INTEGRITY),
        ([FormatError("no directory"), NotFoundError("nobody has it")], exits.INTEGRITY),
    ],
)
def test_snapshots_that_cannot_be_read_are_named_and_decide_the_exit_code(
    errors: list[ReplicatorError], code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    one: Any = SimpleNamespace(
        id="ab" * 32, details=SimpleNamespace(dataset="docs"), row=SimpleNamespace(created_ns=1_767_225_600 * 10**9)
    )
    session = Session()
    take_trouble(session, [(one, error) for error in errors])
    assert session.code == code
    assert capfd.readouterr().err.splitlines() == [
        f"snapshot abababababab of docs, 2026-01-01T00:00:00+00:00: {error}" for error in errors
    ]


def test_a_long_list_is_whole_as_text_and_as_json(federation: Federation) -> None:
    folder = federation.path / "many"
    folder.mkdir()
    for number in range(700):
        (folder / f"{number:04}").touch()
    federation.ok("dataset", "add", "many", folder, home="node")
    federation.ok("backup", "many", home="node")
    federation.ok("dataset", "remove", "many", home="node")
    names = [f"many/{number:04}" for number in range(700)]
    lines = federation.ok("ls", "latest:many", "many", home="keeper").text.splitlines()
    assert [line.split()[-1] for line in lines] == ["PATH", *names]
    assert [row["id"] for row in federation.json("ls", "latest:many", "many", home="keeper")] == names
    assert federation.json("ls", "latest:many", "many/0007", home="keeper")[0]["name"] == "0007"
