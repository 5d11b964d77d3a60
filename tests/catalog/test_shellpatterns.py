"""Old patterns, said anew: they leave out what they did, or less."""

import fnmatch
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.catalog.shellpatterns import to_gitignore
from replicator.snapshot.exclude import Excludes

ROOT = b"/srv/[a]"


def old_match(pattern: bytes, relative: bytes, root: bytes, *, folder: bool) -> bool:
    """Match as the first builds did."""
    folders_only = len(pattern) > 1 and pattern.endswith(b"/")
    if folders_only and not folder:
        return False
    plain = pattern[:-1] if folders_only else pattern
    if plain.startswith(b"/"):
        return fnmatch.fnmatchcase(root.rstrip(b"/") + b"/" + relative, plain)
    return fnmatch.fnmatchcase(relative, plain) or fnmatch.fnmatchcase(relative.rpartition(b"/")[2], plain)


def ways(path: bytes, *, folder: bool) -> Iterator[tuple[bytes, bool]]:
    """Yield the folders on the way to a path, and itself."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        yield b"/".join(parts[:count]), True
    yield path, folder


def left_out_then(pattern: bytes, path: bytes, root: bytes, *, folder: bool) -> bool:
    return any(old_match(pattern, way, root, folder=is_folder) for way, is_folder in ways(path, folder=folder))


def left_out_now(pattern: bytes, path: bytes, root: bytes, *, folder: bool) -> bool:
    excludes = Excludes(to_gitignore(pattern, [root]), root)
    for way, is_folder in ways(path, folder=folder):
        above, _, name = way.rpartition(b"/")
        if excludes.match(above + b"/" if above else b"", name, folder=is_folder):
            return True
    return False


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (b"*.tmp", [b"*.tmp"]),
        (b"cache/", [b"cache/"]),
        (b"**.tmp", [b"*.tmp"]),
        (b"\xff*", [b"\xff*"]),
        (b"projects/*/build", [b"projects/*/**/build"]),
        (b"a*/b", [b"a*/**/b"]),
        (b"a/*b", [b"a/**/*b"]),
        (b"/srv/[a]/x", []),
        (b"/srv/[[]a]/x", [rb"/srv/\[a\]/x"]),
        (b"/srv/*/x/", [rb"/srv/\[a\]/**/x/"]),
        (b"/other/x", []),
        (b"/srv/*", []),
        (b"!a", [rb"\!a"]),
        (b"#a", [rb"\#a"]),
        (b"a ", [rb"a\ "]),
        (b"a\\b", [rb"a\\b"]),
        (b"a[", [rb"a\["]),
        (b"[!]", [rb"\[!]"]),
        (b"[^]", [rb"\^"]),
        (b"[^a]", [b"[a^]"]),
        (b"[!a]b", [b"[!a]b"]),
        (b"[z-a]", []),
        (b"[[ab]", []),
        (b"/", []),
        (b"", []),
    ],
)
def test_old_patterns_are_said_in_the_new_syntax(pattern: bytes, said: list[bytes]) -> None:
    assert to_gitignore(pattern, [ROOT]) == said


def test_a_full_path_is_said_of_every_root_that_it_reaches() -> None:
    assert to_gitignore(b"/home/*/cache", [b"/home/a", b"/home/b/c", b"/srv"]) == [
        b"/home/a/**/cache",
        b"/home/b/c/**/cache",
    ]
    assert to_gitignore(b"/home/*/cache", [b"/"]) == [b"/home/*/**/cache"]


NAMES = st.sampled_from([b"a", b"b", b"ab", b"a.b", b"!a", b"#b", b"a ", b"[a]", b"a\\b", b"^", b"srv"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
TOKENS = st.sampled_from([b"a", b"b", b"*", b"*", b"/", b"/", b"?", b"[ab]", b"[!a]", b"[^", b".", b" ", b"!", b"\\"])
ANY = st.builds(
    lambda front, tokens: front + b"".join(tokens),
    st.sampled_from([b"", b"", b"/", b"/srv/", b"/srv/*/", b"/srv/[[]a]/"]),
    st.lists(TOKENS, max_size=5),
)
WHOLE_NAMES = st.builds(
    lambda front, names, end: front + b"/".join(names) + end,
    st.sampled_from([b"", b"/srv/[[]a]/"]),
    st.lists(st.sampled_from([b"a", b"*", b"*b", b"a*", b"*.b", b"a.b", b"!a", b"#b", b"a "]), min_size=2, max_size=4),
    st.sampled_from([b"", b"/"]),
)


@given(ANY, PATHS, st.booleans())
def test_nothing_more_is_left_out(pattern: bytes, path: bytes, folder: bool) -> None:
    if left_out_now(pattern, path, ROOT, folder=folder):
        assert left_out_then(pattern, path, ROOT, folder=folder)


@given(WHOLE_NAMES, PATHS, st.booleans())
def test_stars_at_the_ends_of_names_lose_nothing(pattern: bytes, path: bytes, folder: bool) -> None:
    assert left_out_now(pattern, path, ROOT, folder=folder) == left_out_then(pattern, path, ROOT, folder=folder)
