"""Patterns for names and paths: what they match, and where looking on is of no use."""

import pytest

from replicator.errors import UsageError
from replicator.snapshot.glob import Glob


def matches(pattern: str, path: str, *, ignore_case: bool = False) -> bool:
    glob = Glob.parse(pattern, ignore_case=ignore_case)
    return glob.matches(glob.walk(path.encode().split(b"/")))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.jpg", "a.jpg"),
        ("*.jpg", "photos/2026/a.jpg"),
        ("?.jpg", "photos/å.jpg"),
        ("*", ".hidden"),
        ("[ab]*", "x/bee"),
        ("[!ab]*", "x/cee"),
        ("[*]", "*"),
        ("2026/*.jpg", "photos/2026/a.jpg"),
        ("2026/*.jpg", "2026/a.jpg"),
        ("photos/", "home/photos"),
        ("./photos//a", "photos/a"),
        ("/photos/*/a", "photos/2026/a"),
        ("/photos/**/a", "photos/a"),
        ("/photos/**/a", "photos/1/2/3/a"),
        ("**/a", "a"),
        ("/photos/**", "photos/1/2"),
        ("a/**/b/**/c", "x/a/b/1/2/c"),
    ],
)
def test_a_pattern_matches(pattern: str, path: str) -> None:
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.jpg", "a.jpg.txt"),
        ("*.jpg", "a.jpg/b"),
        ("jpg", "a.jpg"),
        ("*.JPG", "a.jpg"),
        ("2026/*.jpg", "2026/x/a.jpg"),
        ("2026/*.jpg", "12026/a.jpg"),
        ("/2026/*", "photos/2026/a"),
        ("/photos/*", "photos/2026/a"),
        ("/photos/*", "photos"),
        ("a.c", "abc"),
        ("a/**/b", "a/bb"),
    ],
)
def test_a_pattern_does_not_match(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


def test_case_is_ignored_when_asked_for_in_every_script() -> None:
    assert matches("*.JPG", "a.jpg", ignore_case=True)
    assert matches("/FOTON/Å*", "foton/ångermanland", ignore_case=True)


def test_names_that_are_not_text_are_matched_as_the_bytes_they_are() -> None:
    glob = Glob.parse("caf\udce9*")
    assert glob.matches(glob.walk([b"caf\xe9.txt"]))
    assert not glob.matches(glob.walk(["café.txt".encode()]))


def test_a_line_feed_in_a_name_ends_nothing() -> None:
    glob = Glob.parse("*.txt")
    assert not glob.matches(glob.walk([b"a.txt\n"]))
    assert glob.matches(glob.walk([b"a\nb.txt"]))


def test_folders_in_which_nothing_can_match_are_known() -> None:
    glob = Glob.parse("/photos/2026/*")
    assert glob.goes_on(glob.walk([b"photos"]))
    assert glob.goes_on(glob.walk([b"photos", b"2026"]))
    assert not glob.goes_on(glob.walk([b"videos"]))
    assert not glob.goes_on(glob.walk([b"photos", b"2025"]))
    assert not glob.goes_on(glob.walk([b"photos", b"2026", b"a"]))
    anywhere = Glob.parse("2026/*")
    assert anywhere.goes_on(anywhere.walk([b"videos", b"x"]))


@pytest.mark.parametrize("pattern", ["", "/", "//", "./"])
def test_a_pattern_without_a_name_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="no pattern"):
        Glob.parse(pattern)
