"""What tells versions apart, and the history of a path."""

from typing import Any

import pytest

from replicator.format.tree import Entry, Hole
from replicator.snapshot.chunklist import EMPTY
from replicator.snapshot.versions import Observation, Period, Version, aspects, content_id, history, version_of
from tests.snapshot.support import MemorySink, attribute, entry, file_entry, folder_of, hard_link

HOLE = Hole(offset=0, length=1)


def changed(old: Entry, new: Entry) -> tuple[str, ...]:
    return aspects(version_of(old), version_of(new))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mode": 0o600}, ("mode",)),
        ({"uid": 77}, ("owner",)),
        ({"gid": 77}, ("owner",)),
        ({"user": "eve"}, ("owner",)),
        ({"group": "eves"}, ("owner",)),
        ({"mtime_ns": 1}, ("mtime",)),
        ({"xattrs": [attribute(b"user.a")]}, ("attributes",)),
        ({"holes": [HOLE]}, ("holes",)),
        ({"mode": 0o600, "mtime_ns": 1}, ("mode", "mtime")),
        ({"ctime_ns": 99}, ()),
        ({"changed": True}, ()),
        ({"link": hard_link()}, ()),
    ],
)
def test_what_differs_between_two_files_of_one_content(
    sink: MemorySink, changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    old, new = file_entry(sink, b"a", b"text"), file_entry(sink, b"a", b"text", **changes)
    assert changed(old, new) == expected
    assert (version_of(old) == version_of(new)) == (expected == ())


def test_content_differs_by_chunks_target_or_device(sink: MemorySink) -> None:
    assert changed(file_entry(sink, b"a", b"text"), file_entry(sink, b"a", b"next")) == ("content",)
    assert changed(entry(kind="link", target=b"a"), entry(kind="link", target=b"b")) == ("content",)
    assert changed(entry(kind="char", rdev=1), entry(kind="char", rdev=2)) == ("content",)
    assert changed(file_entry(sink, b"a", b"1", xattrs=[attribute(b"b", b"x")]), file_entry(sink, b"a", b"1")) == (
        "attributes",
    )


def test_a_folders_time_counts_only_where_its_content_is_the_same(sink: MemorySink) -> None:
    one, other = folder_of(sink, [entry(b"a")]), folder_of(sink, [entry(b"b")])
    old = entry(kind="dir", content=one)
    assert changed(old, entry(kind="dir", content=other, mtime_ns=1)) == ()
    assert changed(old, entry(kind="dir", content=one, mtime_ns=1)) == ("mtime",)
    assert changed(old, entry(kind="dir", content=other, mode=0o700, mtime_ns=1)) == ("mode",)


def test_contents_have_one_id_each(sink: MemorySink) -> None:
    large = [entry(b"%05d" % number) for number in range(3000)]
    contents = [
        EMPTY,
        folder_of(sink, large[:1]),
        folder_of(sink, large),
        folder_of(sink, [*large[:-1], entry(large[-1].name, mode=0)]),
        folder_of(sink, large[:-1]),
    ]
    assert len({content_id(content) for content in contents}) == len(contents)
    assert content_id(folder_of(MemorySink(), large)) == content_id(contents[2])


def seen(letters: str) -> list[Observation]:
    """A and B are versions, "." is nothing, "?" nothing in an incomplete snapshot, "!" unreadable."""
    return [
        Observation(version=of(letter) if letter.isalpha() else None, complete=letter != "?", unreadable=letter == "!")
        for letter in letters
    ]


def of(letter: str) -> Version:
    return version_of(entry(target=letter.encode()))


def told(periods: list[Period]) -> list[tuple[str, int, int, int]]:
    return [
        (one.version.target.decode() if one.version else one.state, one.first, one.last, one.count) for one in periods
    ]


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("", []),
        ("A", [("A", 0, 0, 1)]),
        ("AAB", [("A", 0, 1, 2), ("B", 2, 2, 1)]),
        ("..AA", [("absent", 0, 1, 2), ("A", 2, 3, 2)]),
        ("AA..", [("A", 0, 1, 2), ("deleted", 2, 3, 2)]),
        ("A.BA.", [("A", 0, 3, 2), ("deleted", 1, 1, 1), ("B", 2, 2, 1), ("deleted", 4, 4, 1)]),
        ("A?A", [("A", 0, 2, 2)]),
        ("?A", [("A", 1, 1, 1)]),
        ("A.?.", [("A", 0, 0, 1), ("deleted", 1, 3, 2)]),
        ("A!.", [("A", 0, 0, 1), ("unreadable", 1, 1, 1), ("deleted", 2, 2, 1)]),
        ("!A", [("unreadable", 0, 0, 1), ("A", 1, 1, 1)]),
        ("..", [("absent", 0, 1, 2)]),
    ],
)
def test_a_history_tells_versions_once_and_absences_as_they_come(
    letters: str, expected: list[tuple[str, int, int, int]]
) -> None:
    assert told(history(seen(letters))) == expected
