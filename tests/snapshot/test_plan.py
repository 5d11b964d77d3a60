"""Surveying a target: what is in the way, what is too many, and that nothing is written."""

import os
from pathlib import Path

import pytest

from replicator.errors import FormatError, RestoreError
from replicator.format.snapshot import ChunkList
from replicator.format.tree import Hole
from replicator.snapshot.plan import Overwrite, Survey, Surveyor
from replicator.snapshot.tree import TreePath, TreeReader
from tests.compare import compare
from tests.snapshot.support import MemorySink, captured, entry, file_entry, folder_of, hard_link, open_fds, restored


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def surveyed(
    sink: MemorySink,
    tree: ChunkList,
    target: Path,
    overwrite: Overwrite = "if-changed",
    whole: tuple[TreePath, ...] = ((),),
) -> Survey:
    surveyor = Surveyor(str(target), overwrite, whole=whole)
    for path, one in TreeReader(sink).walk(tree):
        surveyor.look(path, one)
    return surveyor.finish()


def a_tree(sink: MemorySink) -> ChunkList:
    inner = folder_of(sink, [file_entry(sink, b"b", b"12"), file_entry(sink, b"d", b"3")])
    return folder_of(
        sink,
        [
            entry(b"dir", "dir", content=inner),
            entry(b"empty"),
            file_entry(sink, b"file", bytes(100), holes=[Hole(offset=0, length=40)]),
            entry(b"link", "link"),
        ],
    )


def test_an_empty_target_takes_everything(sink: MemorySink, target: Path) -> None:
    found = surveyed(sink, a_tree(sink), target)
    assert found == Survey(files=4, kept=0, bytes=103, room=63, extras=[])
    assert not target.exists()


def test_what_is_there_alike_takes_nothing(sink: MemorySink, target: Path) -> None:
    tree = a_tree(sink)
    restored(sink, tree, target)
    assert surveyed(sink, tree, target) == Survey(kept=5, kept_bytes=103)
    assert surveyed(sink, tree, target, "always") == Survey(files=3, kept=2, bytes=103)
    with pytest.raises(RestoreError, match="exists in the target"):
        surveyed(sink, tree, target, "never")


def test_a_folder_in_the_way_is_no_conflict_where_other_things_may_be_replaced(sink: MemorySink, target: Path) -> None:
    (target / "f").mkdir(parents=True)
    tree = folder_of(sink, [file_entry(sink, b"f", b"12")])
    assert surveyed(sink, tree, target, "always") == Survey()
    with pytest.raises(RestoreError, match="f is a folder"):
        surveyed(sink, tree, target, "never")


def test_further_names_take_nothing(sink: MemorySink, target: Path) -> None:
    names = [file_entry(sink, name, b"12", link=hard_link()) for name in (b"a", b"b", b"c")]
    assert surveyed(sink, folder_of(sink, names), target) == Survey(files=1, bytes=2, room=2)


def test_names_that_the_tree_does_not_have_are_extras_wherever_they_sort(sink: MemorySink, target: Path) -> None:
    tree = a_tree(sink)
    restored(sink, tree, target)
    for name in ("a", "c", "e"):
        (target / "dir" / name).write_bytes(b"x")
    (target / "dir" / "cc" / "inner").mkdir(parents=True)
    os.symlink("/", target / "dir" / "zz")
    (target / "beside").write_bytes(b"x")
    before = open_fds()
    found = surveyed(sink, tree, target)
    assert [extra.path for extra in found.extras] == [b"dir/a", b"dir/c", b"dir/cc/", b"dir/e", b"dir/zz"]
    status = os.lstat(target / "dir" / "c")
    assert found.extras[1].identity == (status.st_dev, status.st_ino)
    assert open_fds() == before
    assert surveyed(sink, tree, target, whole=()).extras == []
    assert surveyed(sink, tree, target, whole=((b"dir", b"b"),)).extras == []


def test_a_folder_that_ends_with_its_last_name_and_one_that_is_not_there(sink: MemorySink, target: Path) -> None:
    deep = folder_of(sink, [entry(b"y", "dir", content=folder_of(sink, [entry(b"last")]))])
    tree = folder_of(sink, [entry(b"x", "dir", content=deep)])
    (target / "x").mkdir(parents=True)
    (target / "x" / "z").write_bytes(b"")
    assert [extra.path for extra in surveyed(sink, tree, target).extras] == [b"x/z"]


def test_a_link_in_the_place_of_a_folder_is_not_looked_into(sink: MemorySink, target: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"")
    target.mkdir()
    os.symlink(tmp_path / "outside", target / "dir")
    assert surveyed(sink, a_tree(sink), target).extras == []


def test_out_of_order_is_refused(sink: MemorySink, target: Path) -> None:
    surveyor = Surveyor(str(target), "never")
    surveyor.look((b"b",), entry(b"b"))
    with pytest.raises(FormatError, match="out of order"):
        surveyor.look((b"a",), entry(b"a"))


def test_extras_are_removed_with_all_they_hold(sink: MemorySink, target: Path, tmp_path: Path) -> None:
    tree = a_tree(sink)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"")
    restored(sink, tree, tmp_path / "as it should be")
    restored(sink, tree, target)
    (target / "dir" / "cc" / "inner").mkdir(parents=True)
    (target / "dir" / "cc" / "inner" / "file").write_bytes(b"x")
    os.symlink(tmp_path / "outside", target / "dir" / "cc" / "link")
    os.link(tmp_path / "outside" / "precious", target / "dir" / "hard")
    extras = surveyed(sink, tree, target).extras
    applied = restored(sink, tree, target, overwrite="if-changed", extras=extras)
    assert applied.gaps == []
    assert applied.removed == [b"dir/cc/", b"dir/hard"]
    assert compare(target, tmp_path / "as it should be") == []
    assert os.listdir(tmp_path / "outside") == ["precious"]


def test_an_extra_that_is_another_by_now_stays(sink: MemorySink, target: Path) -> None:
    tree = a_tree(sink)
    restored(sink, tree, target)
    (target / "dir" / "x").write_bytes(b"old")
    extras = surveyed(sink, tree, target).extras
    (target / "dir" / "new").write_bytes(b"new")
    os.rename(target / "dir" / "new", target / "dir" / "x")
    applied = restored(sink, tree, target, overwrite="if-changed", extras=extras)
    assert [path for path, _ in applied.gaps] == [b"dir/x"]
    assert (applied.removed, (target / "dir" / "x").read_bytes()) == ([], b"new")


def test_a_captured_tree_has_no_extras_in_its_own_place(sink: MemorySink, tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / "top" / name).mkdir(parents=True)
        (tmp_path / "top" / name / "file").write_bytes(b"x")
    found = captured(sink, tmp_path / "top")
    assert surveyed(sink, found.tree, tmp_path).extras == []
