"""Hostile trees and hostile targets: whatever they say or hold, nothing outside the target is touched.

Every case runs as root with privilege and as a user without; the oracle is the whole state of a folder beside
the target: bytes, modes, owners, times, attributes and numbers of names.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from replicator.errors import FormatError, ReplicatorError, RestoreError, SpaceError
from replicator.format.pack import CHUNK_DATA
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import Entry, Hole
from replicator.snapshot import plan
from replicator.snapshot.apply import A_FOLDER, Applied, Applier
from replicator.snapshot.chunklist import extents
from replicator.snapshot.metadata import Rights
from replicator.snapshot.plan import PREFIX, Overwrite
from replicator.snapshot.tree import TreePath, TreeReader
from tests.fakes import SeededRng
from tests.snapshot.support import (
    IS_ROOT,
    MemorySink,
    as_nobody,
    attribute,
    entry,
    file_entry,
    folder_of,
    hard_link,
    open_fds,
)

EVIL = b"evil" * 1000
Tree = Sequence[tuple[TreePath, Entry]]


class Scene:
    """A target, and beside it what must not be touched."""

    def __init__(self, top: Path, *, privileged: bool) -> None:
        self.outside = top / "outside"
        self.target = top / "target"
        self.privileged = privileged
        (self.outside / "folder").mkdir(parents=True)
        (self.outside / "secret").write_bytes(b"secret")
        (self.outside / "folder" / "file").write_bytes(b"file")
        os.symlink("secret", self.outside / "link")
        os.mkfifo(self.outside / "fifo")
        self.target.mkdir()
        for path in (self.outside, self.outside / "folder", self.outside / "secret", self.outside / "folder" / "file"):
            os.utime(path, ns=(5, 5))
        self.sink = MemorySink()
        self.fds = open_fds()
        self.before = self.state()

    def state(self) -> list[Any]:
        """Everything about what lies outside."""
        found: list[Any] = []
        for folder, folders, files in sorted(os.walk(self.outside)):
            for name in ["", *folders, *files]:
                path = os.path.join(folder, name)
                status = os.lstat(path)
                content = Path(path).read_bytes() if stat.S_ISREG(status.st_mode) else b""
                numbers = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns)
                found.append((path, numbers, status.st_ino, content, os.listxattr(path, follow_symlinks=False)))
        return found

    def check(self) -> None:
        """Nothing outside was touched, no descriptor and no unfinished file is left."""
        assert self.state() == self.before
        assert open_fds() == self.fds
        for _, _, files in os.walk(self.target):
            assert not [name for name in files if os.fsencode(name).startswith(PREFIX)]

    def plan(self, tree: Tree, overwrite: Overwrite = "never", **options: Any) -> Applier:
        rights = Rights(privileged=self.privileged, numeric_ids=True)
        applier = Applier(str(self.target), rng=SeededRng(1), rights=rights, overwrite=overwrite, **options)
        try:
            for path, one in tree:
                applier.add(path, one)
        except ReplicatorError:
            applier.abort()
            raise
        return applier

    def write(self, applier: Applier) -> None:
        for job in applier.jobs:
            for offset, ref in extents(job.content, self.sink):
                applier.write(job, offset, self.sink.get(CHUNK_DATA, ref))

    def restore(self, tree: Tree, overwrite: Overwrite = "never", **options: Any) -> Applied:
        applier = self.plan(tree, overwrite, **options)
        try:
            applier.begin()
            self.write(applier)
            return applier.finish()
        except ReplicatorError:
            applier.abort()
            raise

    def swap(self, name: str, for_what: str) -> None:
        """Replace something in the target by a link to something outside."""
        os.rename(self.target / name, self.target / f"{name} moved")
        os.symlink(self.outside / for_what, self.target / name)


@pytest.fixture(params=["root", "user"])
def scene(request: pytest.FixtureRequest, open_path: Path) -> Iterator[Scene]:
    if request.param == "root":
        if not IS_ROOT:
            pytest.skip("not root")
        made = Scene(open_path, privileged=True)
        yield made
        made.check()
        return
    with as_nobody():
        made = Scene(open_path, privileged=False)
        yield made
        made.check()


@pytest.mark.parametrize(
    "name", [b"..", b".", b"", b"a/b", b"/etc/passwd", b"../outside/secret", b"a\0b", b"n" * 256, b"/"]
)
def test_names_that_are_no_names_are_refused_even_without_the_reader(scene: Scene, name: bytes) -> None:
    with pytest.raises(FormatError):
        scene.restore([((name,), file_entry(scene.sink, name, EVIL))], "always")
    with pytest.raises(FormatError):
        scene.restore([((b"d",), entry(b"d", "dir")), ((b"d", name), entry(name, "dir"))], "always")


@pytest.mark.parametrize(
    "paths",
    [
        [(b"a", b"b")],
        [(b"b",), (b"a",)],
        [(b"a",), (b"a",)],
        [(b"a",), (b"b",), (b"a", b"x")],
        [()],
    ],
)
def test_paths_out_of_order_or_without_their_folder_are_refused(scene: Scene, paths: list[tuple[bytes, ...]]) -> None:
    tree = [(path, entry(path[-1] if path else b"a", "dir")) for path in paths]
    with pytest.raises(FormatError):
        scene.restore(tree)


def test_a_tree_deeper_than_allowed_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MAX_DEPTH", 3)
    tree = [((b"x",) * depth, entry(b"x", "dir")) for depth in range(1, 5)]
    scene.plan(tree[:3]).abort()
    with pytest.raises(FormatError, match="x/x/x/x"):
        scene.plan(tree)


def test_a_path_that_is_not_the_entrys_name_is_refused(scene: Scene) -> None:
    with pytest.raises(FormatError):
        scene.restore([((b"..",), entry(b"fine"))])


def test_a_link_and_a_folder_of_one_name_are_refused(scene: Scene) -> None:
    link = entry(b"x", "link", target=os.fsencode(scene.outside))
    for tree in (
        [((b"x",), link), ((b"x",), entry(b"x", "dir")), ((b"x", b"new"), file_entry(scene.sink, b"new", EVIL))],
        [((b"x",), link), ((b"x", b"new"), file_entry(scene.sink, b"new", EVIL))],
    ):
        with pytest.raises(FormatError):
            scene.restore(tree, "always")


def test_links_to_the_outside_are_made_and_never_followed(scene: Scene) -> None:
    applied = scene.restore(
        [
            ((b"absolute",), entry(b"absolute", "link", target=os.fsencode(scene.outside / "secret"), mode=0o777)),
            ((b"relative",), entry(b"relative", "link", target=b"../outside/folder", mode=0o777)),
        ]
    )
    assert applied.gaps == []
    assert os.readlink(scene.target / "relative") == "../outside/folder"


def _file(scene: Scene, name: bytes = b"x", **changes: Any) -> tuple[TreePath, Entry]:
    return (name,), file_entry(scene.sink, name, EVIL, **changes)


def _folder(scene: Scene) -> Tree:
    return [
        ((b"x",), entry(b"x", "dir", mode=0o777)),
        ((b"x", b"file"), file_entry(scene.sink, b"file", EVIL)),
        ((b"x", b"link"), entry(b"link", "link")),
        ((b"x", b"secret"), file_entry(scene.sink, b"secret", EVIL)),
    ]


@pytest.mark.parametrize("overwrite", ["never", "if-changed", "always"])
@pytest.mark.parametrize("to", ["folder", "secret", "fifo", "nowhere"])
@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
def test_a_link_that_lies_in_the_way_is_never_followed(scene: Scene, overwrite: Overwrite, to: str, kind: str) -> None:
    os.symlink(scene.outside / to, scene.target / "x")
    trees: dict[str, Tree] = {
        "file": [_file(scene)],
        "folder": _folder(scene),
        "link": [((b"x",), entry(b"x", "link", target=b"new", mode=0o777))],
        "fifo": [((b"x",), entry(b"x", "fifo"))],
    }
    if overwrite == "never":
        with pytest.raises(RestoreError, match="x exists"):
            scene.restore(trees[kind])
        assert os.listdir(scene.target) == ["x"]
        return
    assert scene.restore(trees[kind], overwrite).gaps == []
    assert os.path.islink(scene.target / "x") == (kind == "link")


@pytest.mark.parametrize("kind", ["file", "fifo", "link"])
def test_a_second_name_of_something_outside_is_replaced_and_not_written_to(scene: Scene, kind: str) -> None:
    originals = {"file": "secret", "fifo": "fifo", "link": "link"}
    os.link(scene.outside / originals[kind], scene.target / "x", follow_symlinks=False)
    # Alike in size and time: without the second name it would be kept and given its owner and mode.
    status = os.lstat(scene.target / "x")
    same: Any = {"mtime_ns": status.st_mtime_ns, "mode": 0o777}
    entries = {
        "file": file_entry(scene.sink, b"x", b"SECRET", **same),
        "fifo": entry(b"x", "fifo", **same),
        "link": entry(b"x", "link", target=b"secret", **same),
    }
    assert scene.restore([((b"x",), entries[kind])], "if-changed").gaps == []
    assert os.lstat(scene.target / "x").st_ino != status.st_ino


class TestMeanwhile:
    """Somebody changes the target while the restore runs."""

    def test_a_folder_becomes_a_link_before_it_begins(self, scene: Scene) -> None:
        (scene.target / "x").mkdir()
        applier = scene.plan(_folder(scene), "always")
        applier._target.close()
        scene.swap("x", "folder")
        with pytest.raises(RestoreError, match="x cannot be made"):
            applier.begin()
        applier.abort()

    def test_another_folder_takes_its_place(self, scene: Scene) -> None:
        (scene.target / "x").mkdir()
        applier = scene.plan(_folder(scene), "always", open_files=1)
        applier._target.close()
        os.rename(scene.target / "x", scene.target / "moved")
        os.rename(scene.outside / "folder", scene.target / "x")
        with pytest.raises(RestoreError, match="replaced by someone else"):
            applier.begin()
        applier.abort()
        os.rename(scene.target / "x", scene.outside / "folder")
        os.utime(scene.outside, ns=(5, 5))

    @pytest.mark.parametrize("held", [False, True])
    def test_a_folder_becomes_a_link_before_files_are_written(self, scene: Scene, held: bool) -> None:
        applier = scene.plan(_folder(scene))
        applier.begin()
        if not held:
            applier._target.close()
        scene.swap("x", "folder")
        scene.write(applier)
        applied = applier.finish()
        assert os.path.islink(scene.target / "x")
        assert bool(applied.gaps) is not held
        if held:  # the descriptor leads to where the folder is now
            assert sorted(os.listdir(scene.target / "x moved")) == ["file", "link", "secret"]

    @pytest.mark.parametrize("by", ["link", "fifo", "file"])
    def test_an_unfinished_file_is_replaced_while_it_is_closed(self, scene: Scene, by: str) -> None:
        path, one = _file(scene)
        applier = scene.plan([(path, one), _file(scene, b"y")], open_files=1)
        applier.begin()
        first, second = applier.jobs
        applier.write(first, 0, EVIL[:10])
        applier.write(second, 0, EVIL[:10])
        temporary = scene.target / os.fsdecode(first.temporary)
        os.unlink(temporary)
        if by == "link":
            os.symlink(scene.outside / "secret", temporary)
        elif by == "fifo":
            os.mkfifo(temporary)
        else:
            os.link(scene.outside / "secret", temporary)
        applier.write(first, 10, EVIL[10:])
        applier.write(second, 10, EVIL[10:])
        applied = applier.finish()
        assert [gap.path for gap in applied.gaps] == [b"x"]
        assert os.listdir(scene.target) == ["y"]

    def test_the_first_name_of_a_hard_link_is_replaced(self, scene: Scene) -> None:
        tree = [_file(scene, b"a", link=hard_link()), _file(scene, b"b", link=hard_link())]
        for by in ("secret", "link"):
            applier = scene.plan(tree, "always")
            applier.begin()
            scene.write(applier)
            os.unlink(scene.target / "a")
            os.link(scene.outside / by, scene.target / "a", follow_symlinks=False)
            applied = applier.finish()
            assert [gap.path for gap in applied.gaps] == [b"b"]
            assert "b" not in os.listdir(scene.target)
            os.unlink(scene.target / "a")

    def test_something_appears_under_a_name(self, scene: Scene) -> None:
        tree = [
            _file(scene, b"a"),
            ((b"b",), entry(b"b", "link")),
            ((b"c",), entry(b"c", "fifo")),
            ((b"d",), entry(b"d")),
            _file(scene, b"e", link=hard_link()),
            _file(scene, b"f", link=hard_link()),
        ]
        applier = scene.plan(tree)
        applier.begin()
        for name in ("a", "b", "c", "d", "f"):
            os.symlink(scene.outside / "secret", scene.target / name)
        scene.write(applier)
        applied = applier.finish()
        assert sorted(gap.path for gap in applied.gaps) == [b"a", b"b", b"c", b"d", b"f"]
        assert all(os.path.islink(scene.target / name) for name in ("a", "b", "c", "d", "f"))

    def test_a_folder_appears_under_a_folders_name(self, scene: Scene) -> None:
        applier = scene.plan(_folder(scene))
        os.symlink(scene.outside / "folder", scene.target / "x")
        with pytest.raises(RestoreError, match="x cannot be made: File exists"):
            applier.begin()
        applier.abort()

    def test_a_kept_file_is_replaced_before_it_gets_its_mode(self, scene: Scene) -> None:
        by: list[Callable[[], object]] = [
            lambda: os.symlink(scene.outside / "secret", scene.target / "x"),
            lambda: os.link(scene.outside / "secret", scene.target / "x"),
            lambda: os.mkfifo(scene.target / "x"),
            (scene.target / "x").touch,
            lambda: None,
        ]
        for replace in by:
            (scene.target / "x").write_bytes(EVIL)
            one = file_entry(scene.sink, b"x", EVIL, mode=0o777, mtime_ns=os.stat(scene.target / "x").st_mtime_ns)
            applier = scene.plan([((b"x",), one)], "if-changed")
            applier.begin()
            os.rename(scene.target / "x", scene.target / "y")
            replace()
            applied = applier.finish()
            assert [gap.path for gap in applied.gaps] == [b"x"]
            if os.path.lexists(scene.target / "x"):
                os.unlink(scene.target / "x")

    def test_a_kept_file_gets_a_second_name(self, scene: Scene) -> None:
        (scene.target / "x").write_bytes(EVIL)
        os.chmod(scene.target / "x", 0o600)
        one = file_entry(scene.sink, b"x", EVIL, mode=0o777, mtime_ns=os.stat(scene.target / "x").st_mtime_ns)
        applier = scene.plan([((b"x",), one)], "if-changed")
        applier.begin()
        os.link(scene.target / "x", scene.target / "y")
        assert [gap.path for gap in applier.finish().gaps] == [b"x"]
        assert stat.S_IMODE(os.stat(scene.target / "x").st_mode) == 0o600

    def test_a_link_that_was_just_made_is_replaced(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.mkfifo

        def mkfifo(name: bytes, mode: int, *, dir_fd: int) -> None:
            real(name, mode, dir_fd=dir_fd)
            os.unlink(name, dir_fd=dir_fd)
            os.link(scene.outside / "fifo", name, dst_dir_fd=dir_fd)

        monkeypatch.setattr(os, "mkfifo", mkfifo)
        applied = scene.restore([((b"x",), entry(b"x", "fifo", mode=0o777))])
        assert [gap.path for gap in applied.gaps] == [b"x"]
        os.unlink(scene.target / "x")


class TestLies:
    def test_more_bytes_than_the_file_has(self, scene: Scene) -> None:
        applier = scene.plan([_file(scene)])
        applier.begin()
        job = applier.jobs[0]
        for offset, length in ((0, 4001), (4000, 1), (-1, 2), (2**62, 1)):
            with pytest.raises(FormatError, match="x: bytes"):
                applier.write(job, offset, bytes(length))
        applier.abort()
        assert os.listdir(scene.target) == []

    def test_fewer_bytes_than_the_file_has(self, scene: Scene) -> None:
        applier = scene.plan([_file(scene)])
        applier.begin()
        for _ in range(3):  # the same bytes again are no progress
            applier.write(applier.jobs[0], 0, EVIL[:-1])
        applied = applier.finish()
        assert [gap.path for gap in applied.gaps] == [b"x"]
        assert os.listdir(scene.target) == []

    def test_a_size_that_no_disk_has(self, scene: Scene) -> None:
        size = 1 << 60
        content = ChunkList(depth=4, length=size, chunks=[ChunkRef(id=bytes(32), length=size)])
        with pytest.raises(SpaceError, match="bytes are to be restored"):
            scene.restore([((b"x",), entry(b"x", size=size, content=content))])
        assert os.listdir(scene.target) == []

    def test_a_hole_that_no_file_system_has(self, scene: Scene) -> None:
        size = 1 << 62
        content = ChunkList(depth=4, length=size, chunks=[ChunkRef(id=bytes(32), length=size)])
        holes = [Hole(offset=0, length=size)]
        applier = scene.plan([((b"x",), entry(b"x", size=size, content=content, holes=holes))])
        applier.begin()
        applier.write(applier.jobs[0], 0, bytes(10))
        applied = applier.finish()
        assert [gap.path for gap in applied.gaps] == [b"x"]
        assert os.listdir(scene.target) == []

    def test_numbers_that_no_system_has(self, scene: Scene) -> None:
        tree = [
            ((b"a",), entry(b"a", uid=2**62, gid=2**62)),
            ((b"b",), entry(b"b", mtime_ns=2**63 - 1)),
            ((b"c",), entry(b"c", mtime_ns=-(2**63))),
            ((b"d",), entry(b"d", "char", rdev=2**62)),
            ((b"e",), entry(b"e", xattrs=[attribute(b"nonsense"), attribute(b"user." + b"n" * 250)])),
        ]
        applied = scene.restore(tree)
        assert {b"a", b"d", b"e"} <= {gap.path for gap in (*applied.gaps, *applied.unset.named)}

    def test_a_size_that_the_content_contradicts(self, scene: Scene) -> None:
        with pytest.raises(FormatError):
            scene.restore([((b"x",), entry(b"x", size=5))])


def test_what_needs_privilege_is_not_given_without(scene: Scene) -> None:
    secret = attribute(b"security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    tree = [
        ((b"d",), entry(b"d", "dir", mode=0o6777)),
        ((b"disk",), entry(b"disk", "block", rdev=os.makedev(8, 0))),
        ((b"su",), file_entry(scene.sink, b"su", EVIL, mode=0o6755, uid=0, gid=0, xattrs=[secret])),
    ]
    applied = scene.restore(tree)
    if scene.privileged:
        return
    assert stat.S_IMODE(os.stat(scene.target / "su").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(scene.target / "d").st_mode) == 0o777
    assert os.stat(scene.target / "su").st_uid == os.geteuid()
    assert os.listxattr(scene.target / "su") == []
    assert sorted(os.listdir(scene.target)) == ["d", "su"]
    assert {gap.path for gap in applied.unset.named} == {b"d", b"disk", b"su"}
    assert applied.gaps == []


@pytest.mark.parametrize("overwrite", ["never", "if-changed", "always"])
def test_a_folder_in_the_way_is_never_replaced(scene: Scene, overwrite: Overwrite) -> None:
    (scene.target / "x").mkdir()
    trees: list[Tree] = [[_file(scene)], [((b"x",), entry(b"x", "link"))], [((b"x",), entry(b"x"))]]
    for tree in trees:
        if overwrite == "never":
            with pytest.raises(RestoreError, match="x is a folder"):
                scene.restore(tree, overwrite)
        else:
            assert scene.restore(tree, overwrite).gaps == [(b"x", A_FOLDER)]
    assert os.listdir(scene.target / "x") == []


def test_a_fifo_in_the_way_does_not_make_the_restore_wait(scene: Scene) -> None:
    os.mkfifo(scene.target / "x")
    scene.restore([_file(scene)], "always")
    assert (scene.target / "x").read_bytes() == EVIL


def test_the_whole_way_from_a_hostile_store(scene: Scene) -> None:
    inner = folder_of(scene.sink, [file_entry(scene.sink, b"..", EVIL)])
    tree = folder_of(scene.sink, [entry(b"x", "dir", content=inner)])
    with pytest.raises(FormatError, match="not a name"):
        scene.plan(list(TreeReader(scene.sink).walk(tree)))
    assert os.listdir(scene.target) == []
