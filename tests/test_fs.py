import os
import sqlite3
import stat
from pathlib import Path

import pytest

from replicator.fs import PosixFs, WriteHandle, exposure, way_out, write_atomic, write_cached

FS = PosixFs()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def test_a_new_file_is_for_its_owner_alone(folder: str) -> None:
    handle = FS.create(f"{folder}/new")
    handle.write(b"one ")
    handle.write(bytearray(b"two "))
    handle.write(memoryview(b"three"))
    handle.fsync()
    handle.close()
    handle.close()
    assert FS.read(f"{folder}/new") == b"one two three"
    assert stat.S_IMODE(os.stat(f"{folder}/new").st_mode) == 0o600
    assert handle.path == f"{folder}/new"


def test_a_name_that_is_taken_is_never_written_through(folder: str) -> None:
    Path(folder, "victim").write_bytes(b"precious")
    os.symlink("victim", f"{folder}/link")
    os.symlink("nowhere", f"{folder}/dangling")
    for name in ("victim", "link", "dangling"):
        with pytest.raises(FileExistsError):
            FS.create(f"{folder}/{name}")
    assert Path(folder, "victim").read_bytes() == b"precious"
    assert not Path(folder, "nowhere").exists()


def test_a_link_never_replaces(folder: str) -> None:
    Path(folder, "a").write_bytes(b"a")
    Path(folder, "b").write_bytes(b"b")
    FS.link(f"{folder}/a", f"{folder}/c")
    assert os.path.samefile(f"{folder}/a", f"{folder}/c")
    with pytest.raises(FileExistsError):
        FS.link(f"{folder}/a", f"{folder}/b")
    assert FS.read(f"{folder}/b") == b"b"


def test_replacing_and_removing(folder: str) -> None:
    Path(folder, "a").write_bytes(b"a")
    Path(folder, "b").write_bytes(b"b")
    FS.replace(f"{folder}/a", f"{folder}/b")
    assert FS.read(f"{folder}/b") == b"a"
    FS.unlink(f"{folder}/b")
    with pytest.raises(FileNotFoundError):
        FS.unlink(f"{folder}/b")


def test_folders_are_made_with_their_parents_and_for_their_owner_alone(folder: str) -> None:
    FS.makedirs(f"{folder}/x/y/z")
    FS.makedirs(f"{folder}/x/y/z")
    for name in ("x", "x/y", "x/y/z"):
        assert stat.S_IMODE(os.stat(f"{folder}/{name}").st_mode) == 0o700


def test_a_folder_that_somebody_else_makes_meanwhile_is_fine(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.mkdir

    def late(path: str, mode: int) -> None:
        real(path, mode)
        raise FileExistsError(path)

    monkeypatch.setattr(os, "mkdir", late)
    FS.makedirs(f"{folder}/x/y")
    assert os.path.isdir(f"{folder}/x/y")


def test_a_file_in_the_way_of_a_folder_is_an_error(folder: str) -> None:
    Path(folder, "x").write_bytes(b"")
    for path in ("x", "x/y"):
        with pytest.raises(FileExistsError):
            FS.makedirs(f"{folder}/{path}")


@pytest.mark.parametrize("path", ["", "x", "./x", "x/y"])
def test_a_relative_folder_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="absolute"):
        FS.makedirs(path)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (4, None, b"456789"),
        (2, 3, b"234"),
        (8, 5, b"89"),
        (10, 1, b""),
        (50, 1, b""),
        (0, 0, b""),
    ],
)
def test_reading_a_range_is_short_at_the_end(folder: str, offset: int, length: int | None, expected: bytes) -> None:
    Path(folder, "digits").write_bytes(b"0123456789")
    assert FS.read(f"{folder}/digits", offset, length) == expected


def test_only_regular_files_have_a_size_and_are_listed(folder: str) -> None:
    Path(folder, "a").write_bytes(b"12345")
    os.mkdir(f"{folder}/d")
    os.symlink("a", f"{folder}/l")
    os.mkfifo(f"{folder}/p")
    assert FS.list_files(folder) == [("a", 5)]
    assert FS.size(f"{folder}/a") == 5
    for name in ("d", "l", "p", "none"):
        assert FS.size(f"{folder}/{name}") is None
    assert FS.list_files(f"{folder}/none") == []


def test_free_bytes_and_folder_syncs_work_on_a_real_folder(folder: str) -> None:
    FS.fsync_dir(folder)
    assert FS.free_bytes(folder) > 0
    with pytest.raises(FileNotFoundError):
        FS.fsync_dir(f"{folder}/none")


def test_an_open_file_is_read_here_and_there_and_stays_what_it_was(folder: str) -> None:
    path = Path(folder, "file")
    path.write_bytes(b"0123456789")
    file = FS.open(str(path))
    assert file.size == 10
    path.unlink()
    path.write_bytes(b"another")
    assert [file.read(0, 4), file.read(8, 1), file.read(8, 5)] == [b"0123", b"8", b"89"]
    assert [file.read(10, 1), file.read(3, 0)] == [b"", b""]
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read(0, 1)


def test_only_regular_files_are_opened(folder: str) -> None:
    Path(folder, "file").write_bytes(b"x")
    os.symlink("file", f"{folder}/link")
    os.mkfifo(f"{folder}/fifo")
    os.mkdir(f"{folder}/folder")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("none", "fifo", "folder"):
        with pytest.raises(FileNotFoundError):
            FS.open(f"{folder}/{name}")
    with pytest.raises(OSError, match="symbolic links"):
        FS.open(f"{folder}/link")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_commit_is_seen_by_others(folder: str) -> None:
    with_writer, with_reader = sqlite3.connect(f"{folder}/db"), sqlite3.connect(f"{folder}/db")
    with_writer.execute("CREATE TABLE t (x)")
    with_writer.execute("INSERT INTO t VALUES (1)")
    FS.commit(with_writer, "a row")
    assert with_reader.execute("SELECT x FROM t").fetchall() == [(1,)]
    with_writer.close()
    with_reader.close()


class Recording(PosixFs):
    """Keeps the order of what a durable write does."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def replace(self, source: str, target: str) -> None:
        """Note it."""
        self.steps.append(f"replace {os.path.basename(source)} {os.path.basename(target)}")
        super().replace(source, target)

    def fsync_dir(self, path: str) -> None:
        """Note it."""
        self.steps.append("fsync folder")
        super().fsync_dir(path)


def test_an_atomic_write_replaces_then_syncs_the_folder_and_leaves_nothing_beside(folder: str) -> None:
    fs = Recording()
    for data in (b"old", b"new", b""):
        write_atomic(fs, f"{folder}/file", data)
        assert FS.read(f"{folder}/file") == data
    assert fs.steps[:2] == ["replace file.new file", "fsync folder"]
    assert os.listdir(folder) == ["file"]


def test_a_cached_write_replaces_likewise_and_waits_for_no_disk(folder: str) -> None:
    synced: list[str] = []

    class Handle:
        def __init__(self, inner: WriteHandle) -> None:
            self._inner = inner
            self.path = inner.path
            self.write = inner.write
            self.close = inner.close

        def fsync(self) -> None:
            synced.append(self.path)
            self._inner.fsync()

    class Watched(Recording):
        def create(self, path: str) -> WriteHandle:
            return Handle(super().create(path))

    fs = Watched()
    for data in (b"old", b"new", b""):
        write_cached(fs, f"{folder}/file", data)
        assert FS.read(f"{folder}/file") == data
    assert fs.steps == ["replace file.new file"] * 3
    assert synced == []
    write_atomic(fs, f"{folder}/file", b"durable")
    assert synced == [f"{folder}/file.new"]
    assert os.listdir(folder) == ["file"]
    assert stat.S_IMODE(os.stat(f"{folder}/file").st_mode) == 0o600


def test_what_an_interrupted_atomic_write_left_is_no_obstacle(folder: str) -> None:
    Path(folder, "file.new").write_bytes(b"half")
    write_atomic(FS, f"{folder}/file", b"whole")
    assert os.listdir(folder) == ["file"]


def test_a_failed_atomic_write_leaves_the_old_content(folder: str) -> None:
    write_atomic(FS, f"{folder}/file", b"old")

    class Full(PosixFs):
        def replace(self, source: str, target: str) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomic(Full(), f"{folder}/file", b"new")
    assert FS.read(f"{folder}/file") == b"old"


@pytest.mark.parametrize(
    ("mode", "owner", "user", "said"),
    [
        (0o100600, 1000, 1000, ""),
        (0o100400, 1000, 1000, ""),
        (0o100600, 0, 1000, ""),
        (0o100600, 1000, 0, ""),
        (0o100640, 1000, 1000, "others can read it (mode 0640)"),
        (0o100604, 0, 0, "others can read it (mode 0604)"),
        (0o100601, 0, 1000, "others can read it (mode 0601)"),
        (0o100600, 1001, 1000, "it belongs to another user (uid 1001, this is 1000)"),
    ],
)
def test_a_secret_is_its_users_or_roots_and_nobody_elses_to_read(mode: int, owner: int, user: int, said: str) -> None:
    assert exposure(mode, owner, user) == said


def test_the_way_out_is_what_the_user_can_type() -> None:
    assert way_out(1000, 1000) == way_out(0, 1000) == way_out(1000, 0) == "chmod 600"
    assert way_out(1001, 1000) == "chown 1000"
