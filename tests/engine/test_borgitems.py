"""What differs between two archives, and how borg is told to extract just that."""

import os
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.engine.borg import Item
from replicator.engine.borgitems import Changes, changes, check_paths, differs, lacks, listing_of, patterns
from replicator.engine.importing import on_one_line
from replicator.errors import IntegrityError


def item(path: bytes, mode: str = "-rw-r--r--", *, size: int = 1, at: int = 0, source: str = "") -> Item:
    return Item(
        path=path,
        mode=mode,
        uid=os.getuid(),
        gid=os.getgid(),
        user="",
        group="",
        size=size,
        chunks=1,
        mtime="2024-01-01T00:00:00.000000",
        ctime=f"2024-01-01T00:00:{at:02d}.000001",
        whole=True,
        source=source,
        exact=True,
    )


def listing(*items: Item) -> dict[bytes, Item]:
    found = [*items, *(item(b"rest/%d" % number) for number in range(50))]
    return {one.path: one for one in found}


OLD = listing(item(b"d", "drwxr-xr-x"), item(b"d/a"), item(b"d/b"), item(b"d/e", "drwxr-xr-x"), item(b"d/e/f"))


def test_what_changed_is_extracted_with_the_folders_around_it() -> None:
    new = {**OLD, b"d/e/f": item(b"d/e/f", at=7)}
    assert changes(OLD, new) == Changes(remove=[b"d/e/f"], extract={b"d", b"d/e", b"d/e/f"})
    assert changes(OLD, OLD) == Changes(remove=[], extract=set())


def test_what_is_gone_is_removed_from_the_bottom_up() -> None:
    new = {path: one for path, one in OLD.items() if not path.startswith(b"d/e")}
    assert changes(OLD, new) == Changes(remove=[b"d/e/f", b"d/e"], extract={b"d"})
    turned = {**new, b"d/e": item(b"d/e", "lrwxrwxrwx", source="x")}
    assert changes(OLD, turned) == Changes(remove=[b"d/e/f", b"d/e"], extract={b"d", b"d/e"})


def test_a_file_with_several_names_changes_as_one() -> None:
    old = listing(item(b"m"), item(b"n", "hrw-r--r--", source="m"), item(b"o"))
    new = {**old, b"n": item(b"n", at=1), b"o": item(b"o", "hrw-r--r--", source="m")}
    assert changes(old, new) == Changes(remove=[b"o", b"n", b"m"], extract={b"m", b"n", b"o"})
    moved = {path: one for path, one in old.items() if path != b"m"} | {b"n": item(b"n")}
    assert changes(old, moved) == Changes(remove=[b"n", b"m"], extract={b"n"})


def test_the_first_name_of_a_hard_link_may_be_one_that_borg_cannot_write() -> None:
    old = listing(item(b"\xe5"), item(b"\xe4"), item(b"n", "hrw-r--r--", source="?"))
    new = {**old, b"n": item(b"n", "hrw-r--r--", source="?", at=1)}
    assert changes(old, new) == Changes(remove=[b"\xe5", b"\xe4", b"n"], extract={b"\xe5", b"\xe4", b"n"})


def test_all_is_extracted_where_what_changed_cannot_be_told() -> None:
    bare = {path: replace(one, ctime=one.mtime) for path, one in OLD.items()}
    unsure = {**OLD, b"d/a": replace(OLD[b"d/a"], exact=False)}
    assert [changes(*pair) for pair in ((bare, OLD), (OLD, bare), (OLD, unsure))] == [None, None, None]
    other = {path: replace(one, size=2) for path, one in OLD.items()}
    assert changes(OLD, other) is None  # nearly everything is another


@pytest.mark.parametrize("path", [b"/etc/passwd", b"../up", b"a/../../up", b"", b"link/below"])
def test_an_archive_that_reaches_out_of_its_folder_is_refused(path: bytes) -> None:
    with pytest.raises(IntegrityError):
        check_paths({b"link": item(b"link", "lrwxrwxrwx", source="/etc"), path: item(path)})
    check_paths(OLD)


def matches(text: str, path: str) -> bool:
    """Decide as borg does (borg/patterns.py): full paths first, then the others in their order."""
    lines = [one.strip() for one in text.split("\n") if one.strip()]
    full = {os.path.normpath(one[5:]) for one in lines if one.startswith("+ pf:")}
    if path in full:
        return True
    others = [(one[0] == "+", re.compile(one[5:])) for one in lines if one[1:5] == " re:"]
    return next(includes for includes, pattern in others if pattern.search(path))


NAMES = st.binary(min_size=1, max_size=8).filter(lambda name: b"/" not in name and name not in (b".", b".."))


@given(st.sets(NAMES.filter(lambda name: b"\0" not in name), min_size=1, max_size=6), NAMES)
def test_patterns_take_these_paths_and_no_others(paths: set[bytes], other: bytes) -> None:
    text = patterns(paths)
    text.encode()  # nothing that is no text
    assert all(matches(text, os.fsdecode(path)) for path in paths)
    assert matches(text, os.fsdecode(other)) == (other in paths)


def test_what_lies_on_the_disk_is_held_against_the_archive(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "f")
    with open(path, "wb") as file:
        file.write(b"x")
    os.chmod(path, 0o644)
    os.utime(path, ns=(0, 1_704_067_200 * 10**9))
    status = os.lstat(path)
    fits = item(b"f")
    assert (differs(fits, status), lacks(fits, status)) == ("", [])
    assert differs(fits, None) == "was not extracted"
    assert differs(item(b"f", "drwxr-xr-x"), status) == "was extracted as something else"
    assert differs(item(b"f", size=2), status) == "was extracted with 1 of 2 bytes"
    assert differs(replace(fits, mtime="2024-01-01T00:00:01.000000"), status) == "was extracted without its time"
    assert differs(item(b"f", "hrw-r--r--", size=0), status) == ""
    assert lacks(replace(fits, uid=4321, mode="-rwxr-xr-x"), status) == ["owner", "mode"]


LINK = item(b"a", "lrwxrwxrwx", source="/etc")


@pytest.mark.parametrize(
    "items",
    [
        [LINK, item(b"./a/cron.d")],
        [LINK, item(b"a//cron.d")],
        [item(b"b/./a", "lrwxrwxrwx", source="/etc"), item(b"b/a/cron.d")],
        [LINK, item(b"a/cron.d"), item(b"a", "drwxr-xr-x")],
        [item(b"a", "drwxr-xr-x"), item(b"a/cron.d"), item(b"a/", "lrwxrwxrwx", source="/etc")],
        [item(b".", "lrwxrwxrwx", source="/etc")],
        [LINK, item(b"x", "hrw-r--r--", source="a/shadow")],
        [LINK, item(b"x", "hrw-r--r--", source="./a/shadow")],
        [item(b"\xff", "lrwxrwxrwx", source="/etc"), item(b"x", "hrw-r--r--", source="?/shadow")],
        [item(b"x", "hrw-r--r--", source="../../etc/shadow")],
    ],
)
def test_no_way_of_writing_it_leads_through_a_link_out_of_the_folder(items: list[Item]) -> None:
    """Borg 1.4.5 refuses links on its way itself; that is not relied on, as earlier ones are taken too."""
    with pytest.raises(IntegrityError):
        check_paths(listing_of(items))


def test_what_borg_was_given_twice_is_in_once_and_links_within_an_archive_are_fine() -> None:
    again = [item(b"d/", "drwxr-xr-x"), item(b"d/f", "hrw-r--r--", source="d/f")]
    twice = [item(b"d", "drwxr-xr-x"), item(b"d/f"), *again]
    found = listing_of([*twice, item(b"l", "lrwxrwxrwx", source="../up"), item(b"m", "hrwxrwxrwx", source="l")])
    check_paths(found)
    assert list(found) == [b"d", b"d/f", b"l", b"m"]
    assert found[b"d/f"].mode.startswith("h")
    check_paths(listing_of([item(b".", "drwxr-xr-x"), item(b"./d", "drwxr-xr-x"), item(b"./d/f")]))


def test_a_name_of_an_archive_stays_on_its_line() -> None:
    assert on_one_line("a\nINTEGRITY: all is lost\x1b[2J") == "a INTEGRITY: all is lost [2J"
