"""Walking source folders: order, limits, and folders that move, close or vanish under the walker."""

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from replicator.errors import SourceError, UsageError
from replicator.format.tree import Hole
from replicator.snapshot import walk
from replicator.snapshot.rules import SKIPPED_CACHE, Rules
from replicator.snapshot.walk import (
    MOVED,
    NAME_TOO_LONG,
    SKIPPED_FILE_SYSTEM,
    SKIPPED_SOCKET,
    TOO_DEEP,
    VANISHED,
    Entered,
    Found,
    Left,
    Missed,
    PosixFile,
    PosixSource,
    Run,
    Skipped,
    Source,
    Walker,
    reason_of,
)
from tests.snapshot.fakesource import FakeSource, fails
from tests.snapshot.support import open_fds


def walked(top: Path | bytes, source: Source | None = None, **options: Any) -> list[str]:
    """Walk and tell it in words."""
    root = os.fsencode(top)
    told = []
    walker = Walker(source or PosixSource(), Rules(**options))
    for event in walker.walk(root):
        match event:
            case Found(path=path):
                told.append(path[len(root) :].decode())
            case Run():
                told += [event.found(place).path[len(root) :].decode() for place in range(len(event.names))]
            case Entered(path=path):
                told.append(path[len(root) :].decode() + "/")
            case Left():
                told.append("<")
            case Missed(gap) | Skipped(gap):
                told.append(f"{gap.path[len(root) :].decode()}: {gap.reason}")
    return told


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    for name in ("a", "b/c", "b/d/e"):
        (top / name).mkdir(parents=True)
        (top / name / "file").write_bytes(b"x")
    (top / "b" / "z").write_bytes(b"z")
    return top


WHOLE = ["/", "/a/", "/a/file", "<", "/b/", "/b/c/", "/b/c/file", "<", "/b/d/", "/b/d/e/", "/b/d/e/file"]
WHOLE += ["<", "<", "/b/z", "<", "<"]


def test_everything_is_visited_in_byte_order_and_every_descriptor_closed(tree: Path) -> None:
    before = open_fds()
    assert walked(tree) == WHOLE
    assert open_fds() == before


def test_names_sort_as_bytes(tmp_path: Path) -> None:
    for name in (b"b", b"B", b"\xff", "å".encode(), b"a", b"a.b", b"a!"):
        open(os.fsencode(tmp_path) + b"/" + name, "wb").close()
    found = [
        name
        for event in Walker(PosixSource(), Rules()).walk(os.fsencode(tmp_path))
        if isinstance(event, Run)
        for name in event.names
    ]
    assert found == [b"B", b"a", b"a!", b"a.b", b"b", "å".encode(), b"\xff"]


@pytest.mark.parametrize("limit", [1, 128])
def test_a_walk_that_is_given_up_closes_its_descriptors(
    tree: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(walk, "OPEN_FOLDERS", limit)
    before = open_fds()
    for steps in range(1, len(WHOLE)):
        events = Walker(PosixSource(), Rules()).walk(os.fsencode(tree))
        for _ in range(steps):
            next(events)
        assert open_fds() > before
        events.close()
        assert open_fds() == before


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_few_descriptors_are_enough_for_any_depth(tree: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(walk, "OPEN_FOLDERS", limit)
    source = FakeSource()
    held = 0

    def watch(step: str, path: bytes) -> None:
        nonlocal held
        held = max(held, source.open_handles)

    source.hook = watch
    assert walked(tree, source) == WHOLE
    assert source.open_handles == 0
    assert held <= limit + 2


def test_a_folder_moved_away_is_a_gap_and_the_rest_goes_on(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "OPEN_FOLDERS", 1)
    (tree / "c").mkdir()

    def move(step: str, path: bytes) -> None:
        if step == "names" and path.endswith(b"/e"):
            os.rename(tree / "b" / "d" / "e", tree / "moved")

    source = FakeSource(move)
    told = walked(tree, source)
    # The way up from the moved folder leads elsewhere: what it lay in is lost, and so is the way further up.
    assert told[-7:] == ["/b/d/e/file", f"/b/d: {MOVED}", "<", f"/b: {MOVED}", "<", f": {MOVED}", "<", "<"][-7:]
    assert source.open_handles == 0


def test_a_way_up_that_is_barred_is_a_gap(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "OPEN_FOLDERS", 1)
    source = FakeSource(fails("parent", b"e", errno.EACCES))
    assert f"/b/d: {MOVED}" in walked(tree, source)
    assert source.open_handles == 0


def test_nothing_below_a_link_is_visited(tree: Path) -> None:
    os.symlink(tree, tree / "a" / "round")
    assert walked(tree)[:5] == ["/", "/a/", "/a/file", "/a/round", "<"]


def test_a_folder_that_becomes_a_link_is_not_followed(tree: Path) -> None:
    (tree.parent / "outside").mkdir()
    (tree.parent / "outside" / "secret").write_bytes(b"")

    def swap(step: str, path: bytes) -> None:
        if step == "enter" and path.endswith(b"/a"):
            os.rename(tree / "a", tree.parent / "moved")
            os.symlink(tree.parent / "outside", tree / "a")

    assert walked(tree, FakeSource(swap))[:3] == ["/", f"/a: {VANISHED}", "/b/"]


def test_a_root_may_be_a_link_a_file_or_the_top_of_everything(tree: Path) -> None:
    os.symlink("top/b", tree.parent / "shortcut")
    assert walked(tree.parent / "shortcut") == [
        "/",
        "/c/",
        "/c/file",
        "<",
        "/d/",
        "/d/e/",
        "/d/e/file",
        "<",
        "<",
        "/z",
        "<",
    ]
    assert walked(tree / "b" / "z") == [""]
    folder, name = PosixSource().locate(b"/")
    assert folder.status(name).st_ino == os.stat("/").st_ino
    folder.close()
    folder.close()


@pytest.mark.parametrize("name", ["nowhere", "b/z/below a file", "dangling", "loop"])
def test_a_root_that_is_not_there_is_an_error(tree: Path, name: str) -> None:
    os.symlink("nowhere", tree / "dangling")
    os.symlink("loop", tree / "loop")
    with pytest.raises(SourceError, match="cannot be backed up") as caught:
        walked(tree / name)
    assert "paths" in caught.value.hint


@pytest.mark.parametrize("step", ["locate", "status", "enter", "names", "here"])
def test_a_root_that_cannot_be_looked_at_is_an_error(tree: Path, step: str) -> None:
    source = FakeSource(fails(step, b"top", errno.EACCES))
    with pytest.raises(SourceError, match="Permission denied"):
        walked(tree, source)
    assert source.open_handles == 0


def test_sockets_are_skipped_by_name_and_refused_as_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("door")
    assert walked(tmp_path) == ["/", f"/door: {SKIPPED_SOCKET}", "<"]
    with pytest.raises(SourceError, match="socket"):
        walked(tmp_path / "door")


def test_what_is_excluded_is_not_even_looked_into(tree: Path) -> None:
    source = FakeSource(fails("enter", b"d", errno.EIO))
    told = walked(tree, source, exclude=["b/d", "z", os.fsencode(tree / "a" / "file")])
    assert told == ["/", "/a/", "<", "/b/", "/b/c/", "/b/c/file", "<", "<", "<"]


def test_patterns_of_all_roots_are_known_and_a_bad_one_ends_it_at_once(tree: Path) -> None:
    roots = [os.fsencode(tree / "a"), os.fsencode(tree / "b")]
    file = Path(f"{tree / 'b'}{tree}/a/file")  # what the first pattern would mean below the second root
    file.parent.mkdir(parents=True)
    file.touch()
    walker = Walker(PosixSource(), Rules(exclude=[os.fsencode(tree / "a" / "file"), b"/b/c"]), roots)
    assert [type(event) for event in walker.walk(roots[0])] == [Entered, Left]
    assert len(list(walker.walk(roots[1]))) == len(list(Walker(PosixSource(), Rules()).walk(roots[1])))
    with pytest.raises(UsageError, match="no pattern"):
        next(Walker(PosixSource(), Rules(exclude=["["])).walk(roots[0]))


SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


@pytest.mark.parametrize("content", [SIGNATURE, SIGNATURE + b"\n# This is a cache.\n"])
def test_of_a_cache_folder_only_the_tag_is_kept(tree: Path, content: bytes) -> None:
    (tree / "b" / "d" / "CACHEDIR.TAG").write_bytes(content)
    source = FakeSource(fails("status", b"e", errno.EIO))
    skipped = f"/b/d: {SKIPPED_CACHE}"
    assert walked(tree, source) == [*WHOLE[:8], "/b/d/", skipped, "/b/d/CACHEDIR.TAG", "<", "/b/z", "<", "<"]
    assert source.open_handles == 0
    assert walked(tree, keep_caches=True) == [*WHOLE[:9], "/b/d/CACHEDIR.TAG", *WHOLE[9:]]
    assert walked(tree, exclude=["CACHEDIR.TAG"]) == [*WHOLE[:8], "/b/d/", skipped, "<", "/b/z", "<", "<"]


def test_a_tag_may_come_byte_by_byte(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "a" / "CACHEDIR.TAG").write_bytes(SIGNATURE)
    real = PosixFile.read_into
    monkeypatch.setattr(PosixFile, "read_into", lambda file, buffer: real(file, buffer[:1]))
    assert f"/a: {SKIPPED_CACHE}" in walked(tree)


@pytest.mark.parametrize("content", [b"", SIGNATURE[:-1], b" " + SIGNATURE, SIGNATURE[:-1] + b"6"])
def test_a_tag_without_the_signature_means_nothing(tree: Path, content: bytes) -> None:
    (tree / "a" / "CACHEDIR.TAG").write_bytes(content)
    assert walked(tree) == ["/", "/a/", "/a/CACHEDIR.TAG", *WHOLE[2:]]


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_a_tag_has_to_be_a_regular_file(tree: Path, kind: str) -> None:
    tag = tree / "a" / "CACHEDIR.TAG"
    (tree / "b" / "real").write_bytes(SIGNATURE)
    if kind == "link":
        tag.symlink_to(tree / "b" / "real")
    elif kind == "folder":
        tag.mkdir()
    else:
        os.mkfifo(tag)
    assert "/a/file" in walked(tree)


@pytest.mark.parametrize("step", ["status", "open", "read"])
def test_a_tag_that_cannot_be_read_leaves_nothing_out(tree: Path, step: str) -> None:
    (tree / "a" / "CACHEDIR.TAG").write_bytes(SIGNATURE)
    source = FakeSource(fails(step, b"CACHEDIR.TAG", errno.EACCES))
    assert "/a/file" in walked(tree, source)
    assert source.open_handles == 0


def test_a_folder_with_a_marker_keeps_only_that(tree: Path) -> None:
    (tree / "b" / "d" / ".nobackup").touch()
    (tree / "b" / "c" / "other").mkdir()
    told = walked(tree, markers=[b"missing", b"other", b".nobackup"])
    assert told[4:] == [
        *("/b/", "/b/c/", "/b/c: what is beside a file called other", "/b/c/other/", "<", "<"),
        *("/b/d/", "/b/d: what is beside a file called .nobackup", "/b/d/.nobackup", "<", "/b/z", "<", "<"),
    ]


def test_a_root_is_saved_whatever_marks_it(tree: Path) -> None:
    (tree / "CACHEDIR.TAG").write_bytes(SIGNATURE)
    assert walked(tree, markers=[b"b"], exclude=["top"]) == ["/", "/CACHEDIR.TAG", *WHOLE[1:]]
    assert walked(tree / "b" / "z", largest=0) == [""]


def test_files_above_a_size_are_named_and_others_are_not(tree: Path) -> None:
    (tree / "b" / "exact").write_bytes(bytes(10))
    (tree / "b" / "more").write_bytes(bytes(11))
    os.truncate(tree / "b" / "z", 5_000_000)
    os.symlink("x" * 100, tree / "b" / "link")
    told = walked(tree, largest=10)
    assert told[-6:] == ["/b/exact", "/b/link", "/b/more: larger than 10 B", "/b/z: larger than 10 B", "<", "<"]
    assert "/b/z: larger than 4 MB" in walked(tree, largest=4_000_000)
    assert "/b/z" in walked(tree, largest=5_000_000)


def on_device(name: bytes, device: int) -> FakeSource:
    """Return a source where what is at and below a name lies on a device of its own, which is NFS or ext4."""

    def alter(path: bytes, fields: dict[str, Any]) -> None:
        if path.endswith(name) or name + b"/" in path:
            fields["st_dev"] = device

    text = "36 35 99:1 / /elsewhere rw - nfs4 x rw\n36 35 99:2 / /elsewhere rw - ext4 x rw\n"
    return FakeSource(alter=alter, mounted=text.encode())


def test_a_network_file_system_stays_an_empty_folder_and_a_local_one_is_crossed(tree: Path) -> None:
    network, local = os.makedev(99, 1), os.makedev(99, 2)
    skipped = "/b/d: a network file system (nfs4)"
    source = on_device(b"/b/d", network)
    source.hook = fails("enter", b"d", errno.EIO)  # to open it might wait for ever
    assert walked(tree, source) == [*WHOLE[:8], "/b/d/", skipped, "<", "/b/z", "<", "<"]
    assert walked(tree, on_device(b"/b/d", local)) == WHOLE
    for device in (network, local):
        assert f"/b/d: {SKIPPED_FILE_SYSTEM}" in walked(tree, on_device(b"/b/d", device), one_file_system=True)


def test_a_root_on_a_network_file_system_is_saved(tree: Path) -> None:
    assert walked(tree, on_device(b"/top", os.makedev(99, 1))) == WHOLE
    assert walked(tree / "b", on_device(b"/top", os.makedev(99, 1)))[-2:] == ["/z", "<"]


def test_a_mount_that_is_closed_even_to_root_is_no_gap(tree: Path) -> None:
    source = FakeSource(fails("status", b"d", errno.EACCES))
    source.mounted = b"36 35 0:40 / %s rw - fuse.sshfs x rw\n" % os.fsencode(tree / "b" / "d")
    assert walked(tree, source) == [*WHOLE[:8], "/b/d: a network file system (fuse.sshfs)", "/b/z", "<", "<"]
    source.mounted = source.mounted.replace(b"fuse.sshfs", b"fuse.mergerfs")
    assert f"/b/d: {os.strerror(errno.EACCES)}" in walked(tree, source)


def test_another_file_system_stays_an_empty_folder_when_only_one_is_wanted(tree: Path) -> None:
    def elsewhere(path: bytes, fields: dict[str, Any]) -> None:
        if b"/b/d" in path:
            fields["st_dev"] += 1

    told = walked(tree, FakeSource(alter=elsewhere), one_file_system=True)
    assert told[8:] == ["/b/d/", f"/b/d: {SKIPPED_FILE_SYSTEM}", "<", "/b/z", "<", "<"]
    assert walked(tree, FakeSource(alter=elsewhere)) == WHOLE


@pytest.mark.parametrize(
    ("step", "name", "error", "expected"),
    [
        ("status", b"d", errno.ENOENT, [f"/b/d: {VANISHED}"]),
        ("status", b"d", errno.EIO, ["/b/d: Input/output error"]),
        ("enter", b"d", errno.ENOENT, [f"/b/d: {VANISHED}"]),
        ("enter", b"d", errno.ENOTDIR, [f"/b/d: {VANISHED}"]),
        ("enter", b"d", errno.ELOOP, [f"/b/d: {VANISHED}"]),
        ("enter", b"d", errno.EACCES, ["/b/d/", "/b/d: Permission denied", "<"]),
        ("names", b"d", errno.EIO, ["/b/d/", "/b/d: Input/output error", "<"]),
        ("here", b"d", errno.ESTALE, ["/b/d/", f"/b/d: {VANISHED}", "<"]),
    ],
)
def test_a_folder_that_cannot_be_read_is_a_gap(
    tree: Path, step: str, name: bytes, error: int, expected: list[str]
) -> None:
    source = FakeSource(fails(step, name, error))
    assert walked(tree, source) == [*WHOLE[:8], *expected, "/b/z", "<", "<"]
    assert source.open_handles == 0


def test_depth_has_a_limit(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_DEPTH", 4)
    assert f"/b/d/e: {TOO_DEEP}" in walked(tree)


def test_a_name_that_no_record_holds_is_a_gap(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_NAME", 3)
    assert f"/a/file: {NAME_TOO_LONG}" in walked(tree)


def test_reasons_are_words() -> None:
    assert reason_of(OSError(errno.EIO, "x")) == "Input/output error"
    assert reason_of(OSError("no number")) == "no number"


def test_without_proc_nothing_is_begun(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not there"):
        PosixSource(proc=str(tmp_path / "proc"))


def test_holes_are_found_without_moving_the_reading_position(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"x" * 4096)
    folder, name = PosixSource().locate(os.fsencode(path))
    opened = folder.open(name)
    buffer = bytearray(10)
    opened.read_into(memoryview(buffer))
    half = 1 << 19
    assert opened.holes(1 << 20) == [
        Hole(offset=0, length=half),
        Hole(offset=half + 4096, length=half - 4096),
    ]
    assert opened.holes(half + 4096) == [Hole(offset=0, length=half)]
    assert opened.holes(1000) == [Hole(offset=0, length=1000)]
    os.lseek(opened._fd, 10, os.SEEK_SET)
    assert os.lseek(opened._fd, 0, os.SEEK_CUR) == 10
    opened.close()
    opened.close()
    with pytest.raises(OSError, match="Bad file"):
        opened.holes(10)
    folder.close()


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
@pytest.mark.parametrize("whence", [os.SEEK_HOLE, os.SEEK_DATA])
def test_a_file_system_that_knows_no_holes_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, whence: int
) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 20)
    folder, name = PosixSource().locate(os.fsencode(tmp_path / "sparse"))
    opened = folder.open(name)
    real = os.lseek

    def failing(fd: int, place: int, how: int) -> int:
        if how == whence:
            raise OSError(error, os.strerror(error))
        return real(fd, place, how)

    monkeypatch.setattr(os, "lseek", failing)
    if error == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            opened.holes(1 << 20)
    else:
        assert opened.holes(1 << 20) == []
    opened.close()
    folder.close()


class TestAttributes:
    """Reading extended attributes when the file system answers oddly."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        (tmp_path / "file").write_bytes(b"")
        try:
            os.setxattr(tmp_path / "file", "user.b", b"2")
            os.setxattr(tmp_path / "file", "user.a", b"1")
        except OSError:
            pytest.skip("no attributes on this file system")
        return tmp_path / "file"

    @staticmethod
    def names_of(path: Path) -> list[bytes]:
        folder, name = PosixSource().locate(os.fsencode(path))
        try:
            return [one.name for one in folder.xattrs(name)]
        finally:
            folder.close()

    def test_they_come_in_byte_order(self, path: Path) -> None:
        assert self.names_of(path) == [b"user.a", b"user.b"]

    @pytest.mark.parametrize(("error", "left"), [(errno.ENODATA, [b"user.b"]), (errno.EIO, None)])
    def test_one_that_went_is_left_out_and_one_that_cannot_be_read_is_an_error(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, error: int, left: list[bytes] | None
    ) -> None:
        real = os.getxattr

        def failing(where: bytes, name: bytes, *, follow_symlinks: bool) -> bytes:
            if name == b"user.a":
                raise OSError(error, os.strerror(error))
            return real(where, name, follow_symlinks=follow_symlinks)

        monkeypatch.setattr(os, "getxattr", failing)
        if left is None:
            with pytest.raises(OSError, match="Input/output"):
                self.names_of(path)
        else:
            assert self.names_of(path) == left

    @pytest.mark.parametrize("error", [errno.ENOTSUP, errno.EACCES])
    def test_a_file_system_without_them_has_none(self, path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
        def failing(where: bytes, *, follow_symlinks: bool) -> list[str]:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(os, "listxattr", failing)
        if error == errno.ENOTSUP:
            assert self.names_of(path) == []
        else:
            with pytest.raises(PermissionError):
                self.names_of(path)


def test_access_times_stay_and_foreign_files_are_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    os.utime(path, ns=(1, 2))
    folder, name = PosixSource().locate(os.fsencode(path))
    opened = folder.open(name)
    assert opened.read_into(memoryview(bytearray(10))) == 4
    opened.close()
    assert os.stat(path).st_atime_ns == 1
    real = os.open
    asked = []

    def refusing(where: Any, flags: int, *, dir_fd: int) -> int:
        asked.append(bool(flags & os.O_NOATIME))
        if flags & os.O_NOATIME:
            raise PermissionError(errno.EPERM, "not the owner")
        return real(where, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refusing)
    folder.open(name).close()
    assert asked == [True, False]
    folder.close()
