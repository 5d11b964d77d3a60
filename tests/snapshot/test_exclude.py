"""Which patterns leave out what."""

import pytest

from replicator.snapshot.exclude import Excludes


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
        ("projects/*/build", b"projects/x/build", True, True),
        ("projects/*/build", b"projects/x/y/build", True, True),
        ("projects/*/build", b"other/projects/x/build", True, False),
        ("[ab]?", b"b1", False, True),
        ("[!ab]?", b"b1", False, False),
        ("/top/logs", b"logs", True, True),
        ("/top/logs/", b"logs", False, False),
        ("/logs", b"logs", True, False),
        (b"\xff*", b"x/\xff\xfe", False, True),
        ("åäö", "x/åäö".encode(), False, True),
        ("/", b"x", True, False),
        ("", b"x", True, False),
        ("a\nb", b"a\nb", False, True),
        ("a", b"a\n", False, False),
    ],
)
def test_patterns(pattern: str | bytes, relative: bytes, folder: bool, left_out: bool) -> None:
    assert Excludes([pattern]).match(relative, b"/top/" + relative, folder=folder) is left_out


def test_any_of_several_patterns_is_enough_and_none_leaves_nothing_out() -> None:
    several = Excludes(["a", "/top/b"])
    assert [several.match(name, b"/top/" + name, folder=False) for name in (b"a", b"b", b"c")] == [True, True, False]
    assert not Excludes().match(b"a", b"/top/a", folder=True)
