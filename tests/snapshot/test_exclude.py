"""Which patterns leave out what."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from replicator.errors import UsageError
from replicator.snapshot.exclude import Excludes, check_patterns, patterns_in

TOP = b"/top"


def matches(patterns: Sequence[str | bytes], path: bytes, *, folder: bool = False, root: bytes = TOP) -> bool:
    """Return whether a path below the root is left out by itself."""
    above, _, name = path.rpartition(b"/")
    return Excludes(patterns, root).match(above + b"/" if above else b"", name, folder=folder)


@pytest.mark.parametrize(
    ("pattern", "relative", "folder", "left_out"),
    [
        ("*.tmp", b"a.tmp", False, True),
        ("*.tmp", b"deep/er/a.tmp", False, True),
        ("*.tmp", b"a.tmpx", False, False),
        ("*.TMP", b"a.tmp", False, False),
        ("cache", b"deep/cache", True, True),
        ("cache", b"deep/cache", False, True),
        ("cache/", b"deep/cache", True, True),
        ("cache/", b"deep/cache", False, False),
        ("cache/  ", b"deep/cache", True, True),
        ("/cache", b"cache", True, True),
        ("/cache", b"deep/cache", True, False),
        ("/cache/", b"cache", False, False),
        ("/*", b"a", False, True),
        ("/*", b"a/b", False, False),
        ("projects/*/build", b"projects/x/build", True, True),
        ("projects/*/build", b"projects/x/y/build", True, False),
        ("projects/**/build", b"projects/x/y/build", True, True),
        ("projects/**/build", b"projects/build", True, True),
        ("projects/*/build", b"other/projects/x/build", True, False),
        ("projects/*/build", b"projects/x/build/more", True, False),
        ("**/projects/build", b"other/projects/build", True, True),
        ("logs/**", b"logs", True, False),
        ("logs/**", b"logs/a/b", False, True),
        ("logs/**/", b"logs", True, False),
        ("logs/**/", b"logs/a", True, True),
        ("logs/**/", b"logs/a", False, False),
        ("**", b"a/b", False, True),
        ("*/", b"a/b", True, True),
        ("*/", b"a/b", False, False),
        ("[ab]?", b"b1", False, True),
        ("[!ab]?", b"b1", False, False),
        ("[^ab]?", b"b1", False, False),
        ("?", "å".encode(), False, True),
        ("[åä]", "å".encode(), False, True),
        ("logs/app[!0-9]*", b"logs/app-old", False, True),
        ("logs/app[!0-9]*", b"logs/app/settings", False, False),
        (b"\xff*", b"x/\xff\xfe", False, True),
        (os.fsdecode(b"\xff*"), b"x/\xff\xfe", False, True),
        (b"/x/\xff?", b"x/\xff\xfe", False, True),
        (b"\xff", b"\xfe", False, False),
        ("åäö", "x/åäö".encode(), False, True),
        ("voilà", "voilà".encode(), False, True),
        ("non-breaking\u00a0", "non-breaking\u00a0".encode(), False, True),
        ("tab\t", b"tab\t", False, True),
        ("tab\t", b"tab", False, False),
        ("a\nb", b"a\nb", False, True),
        ("a", b"a\n", False, False),
        ("a?", b"a\n", False, True),
        ("**/b", b"a\n/b", False, True),
        ("x/**/b", b"x/a\n/b", False, True),
        ("a ", b"a", False, True),
        ("a ", b"a ", False, False),
        (r"a\ ", b"a ", False, True),
        ("a /", b"a ", True, True),
        ("a /", b"a", True, False),
        (r"\#a", b"#a", False, True),
        (r"\!a", b"!a", False, True),
        (r"\*", b"*", False, True),
        (r"\*", b"a", False, False),
    ],
)
def test_patterns_are_those_of_gitignore(pattern: str | bytes, relative: bytes, folder: bool, left_out: bool) -> None:
    assert matches([pattern], relative, folder=folder) is left_out


@pytest.mark.parametrize(
    ("patterns", "relative", "folder", "left_out"),
    [
        (["a", "/b"], b"a", False, True),
        (["a", "/b"], b"b", False, True),
        (["a", "/b"], b"c", False, False),
        (["*.tmp", "!keep.tmp"], b"x/keep.tmp", False, False),
        (["*.tmp", "!keep.tmp"], b"x/lose.tmp", False, True),
        (["!keep.tmp", "*.tmp"], b"x/keep.tmp", False, True),
        (["/*", "!/keep/"], b"keep", True, False),
        (["/*", "!/keep/"], b"keep", False, True),
        (["*", "!keep"], b"keep", True, False),
        # What includes a folder again says nothing of what is in it, neither here nor in Git.
        (["*", "!keep"], b"keep/x", False, True),
        (["a/b", "!a"], b"a/b", False, True),
    ],
)
def test_the_last_pattern_that_matches_decides(
    patterns: list[str], relative: bytes, folder: bool, left_out: bool
) -> None:
    assert matches(patterns, relative, folder=folder) is left_out


@pytest.mark.parametrize(
    ("pattern", "root", "left_out"),
    [
        ("/top/logs", b"/top", b"logs"),
        ("/top/*/logs", b"/top", b"a/logs"),
        ("/top/a/b", b"/", b"top/a/b"),
        ("/logs", b"/", b"logs"),
        ("/o/t/logs", b"/o/t", b"logs"),
        ("/[a]/logs", b"/[a]", b"logs"),
        (r"/\[a\]/logs", b"/[a]", b"logs"),
        (b"/\xff/logs", b"/\xff", b"logs"),
    ],
)
def test_a_pattern_that_begins_with_the_root_is_a_full_path(pattern: str | bytes, root: bytes, left_out: bytes) -> None:
    assert matches([pattern], left_out, root=root)
    assert not matches([pattern], b"x/" + left_out, root=root)
    assert not matches([b"*", b"!" + pattern if isinstance(pattern, bytes) else "!" + pattern], left_out, root=root)


def test_a_full_path_concerns_no_other_root() -> None:
    roots = (b"/a", b"/a/b", b"/c")
    for root, path, left_out in (
        (b"/a", b"b/x", True),
        (b"/a/b", b"x", True),
        (b"/c", b"x", False),
        (b"/c", b"a/b/x", False),
        (b"/a", b"a/b/x", False),
    ):
        above, _, name = path.rpartition(b"/")
        found = Excludes(["/a/b/x"], root, roots).match(above + b"/" if above else b"", name, folder=False)
        assert found is left_out, (root, path)
    # What begins with no root is relative to every one of them.
    assert all(Excludes(["/b/x"], root, roots).match(b"b/", b"x", folder=False) for root in roots)


@pytest.mark.parametrize("pattern", ["/top", "/top/"])
def test_a_root_cannot_be_named(pattern: str) -> None:
    assert not Excludes([pattern], TOP)


def test_none_leaves_nothing_out() -> None:
    assert not Excludes((), TOP)
    assert not Excludes((), TOP).match(b"", b"a", folder=True)


@pytest.mark.parametrize("pattern", ["", "#a", "/", "!", " ", "//", "a[", "a\\", "[z-a]", "[[:alpha:]]", "a\\\t"])
def test_a_pattern_that_means_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="no pattern") as caught:
        check_patterns(["*.tmp", pattern], [TOP])
    assert f"'{pattern}'" in caught.value.message
    assert ".gitignore" in caught.value.hint


def test_patterns_that_mean_something_pass() -> None:
    check_patterns(["*.tmp", "/top", "!/keep", "[]a]"], [TOP, b"/"])


def test_a_file_of_patterns_may_have_comments_and_empty_lines() -> None:
    text = "\ufeff# what\n\n*.tmp\r\n  \n\\#real\n!keep.tmp\n a\\ \n"
    assert patterns_in(text) == ["*.tmp", "\\#real", "!keep.tmp", " a\\ "]


def kept(root: bytes, patterns: list[str]) -> set[bytes]:
    """Return the files that a walk would come to."""
    excludes = Excludes(patterns, root)
    found = set()
    waiting = [b""]
    while waiting:
        above = waiting.pop()
        for name in os.listdir(os.path.join(root, above)):
            folder = os.path.isdir(os.path.join(root, above, name))
            if name == b".git" or excludes.match(above, name, folder=folder):
                continue
            if folder:
                waiting.append(above + name + b"/")
            else:
                found.add(above + name)
    return found


GIT = shutil.which("git")


@pytest.mark.skipif(GIT is None, reason="git is not installed")
@pytest.mark.parametrize(
    "patterns",
    [
        ["*.o", "!main.o"],
        ["build/", "!build/keep"],
        ["/*", "!/src/", "/src/*", "!/src/keep"],
        ["*", "!*/", "!*.txt"],
        ["src/*/x"],
        ["**/x/**", "!a b"],
        ["src/**/", "!src/deep"],
        ["[!s]*", "!a b"],
        ["s?c/keep", "src/build/"],
        ["src", "!src/keep", "x "],
        ["a\\ b", "*p"],
    ],
)
def test_what_is_left_is_what_git_would_track(tmp_path: Path, patterns: list[str]) -> None:
    top = tmp_path / "top"
    folders = ("", "src", "src/build", "src/deep/x", "build", "x", "a b")
    names = ("main.o", "b.o", "x", "keep", "note.txt", "a b")
    for folder in folders:
        (top / folder).mkdir(parents=True, exist_ok=True)
    for folder in folders:
        for name in names:
            if not (top / folder / name).is_dir():
                (top / folder / name).touch()
    listed = tmp_path / "patterns"
    listed.write_text("\n".join(patterns))
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words: str) -> bytes:
        return subprocess.run(["git", "-C", top, *words], env=clean, check=True, capture_output=True).stdout

    git("init", "--quiet")
    expected = set(git("ls-files", "--others", "-z", "--exclude-from", str(listed)).split(b"\0")) - {b""}
    left = kept(os.fsencode(top), patterns)
    assert left == expected
    assert left
