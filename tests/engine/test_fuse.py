"""What a machine lacks is said before anybody is asked for a passphrase, with what to do about it."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.engine import fuse
from replicator.engine.fuse import Operations, check_machine, check_place
from replicator.engine.mount import Mounted, MountReport
from replicator.errors import MountError, NotFoundError, UsageError
from replicator.format.snapshot import ChunkList, ChunkRef
from tests.engine.test_mount import Source, shown
from tests.snapshot.support import entry, file_entry, folder_of


@pytest.fixture
def device(tmp_path: Path) -> str:
    path = tmp_path / "fuse"
    path.write_bytes(b"")
    return str(path)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own"
    path.mkdir()
    return path


def test_a_machine_without_fuse_is_told_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(MountError, match=r"has no .*fuse") as caught:
        check_machine(str(tmp_path / "fuse"))
    for word in ("modprobe fuse", "package fuse3", "--device /dev/fuse"):
        assert word in caught.value.hint


def test_a_missing_library_is_named_with_how_to_get_it(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(MountError, match="mfusepy, which is not installed") as caught:
        check_machine(device)
    assert "pip install 'replicator[mount]'" in caught.value.hint


def test_a_missing_libfuse_is_named_with_how_to_get_it(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mfusepy.py").write_text("raise OSError('Unable to find libfuse')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mfusepy", raising=False)
    with pytest.raises(MountError, match="Unable to find libfuse") as caught:
        check_machine(device)
    assert "apt install fuse3" in caught.value.hint


def test_other_users_than_root_need_a_helper(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse, "load", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MountError, match="fusermount3") as caught:
        check_machine(device)
    assert "package fuse3" in caught.value.hint
    (tmp_path / "fusermount3").write_text("#!/bin/sh\n")
    (tmp_path / "fusermount3").chmod(0o755)
    check_machine(device)


def test_a_device_or_folder_that_one_may_not_use_is_named(
    device: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(MountError, match="may not use"):
        check_machine(device)
    with pytest.raises(MountError, match="may not write here"):
        check_place(str(own))


def test_a_place_for_a_mount_is_a_folder_of_ones_own_without_a_mount(own: Path, tmp_path: Path) -> None:
    check_place(str(own))
    (own / "full").write_text("x")
    check_place(str(own))
    with pytest.raises(UsageError, match="no such folder") as caught:
        check_place(str(tmp_path / "none"))
    assert "mkdir" in caught.value.hint
    with pytest.raises(UsageError, match="not a folder"):
        check_place(str(own / "full"))
    with pytest.raises(UsageError, match="Not a directory"):
        check_place(str(own / "full" / "x"))
    with pytest.raises(UsageError, match="mounted here already"):
        check_place("/proc")


def test_a_mount_whose_process_is_gone_is_recognised(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_path: object) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(os, "stat", gone)
    with pytest.raises(UsageError, match="process is gone") as caught:
        check_place(str(own))
    assert f"fusermount3 -u {own}" in caught.value.hint


@pytest.fixture
def operations() -> tuple[Operations, list[str]]:
    source = Source()
    nowhere = ChunkList(depth=0, length=9, chunks=[ChunkRef(id=bytes(32), length=9)])
    tree = folder_of(
        source,
        [
            entry(b"dir", "dir", content=nowhere),
            entry(b"lost", content=nowhere, size=9),
            file_entry(source, b"\xff\xe5 name", b"here"),
        ],
    )
    said: list[str] = []
    mounted = Mounted([shown(source, tree)], owner=(0, 0), direct=True)
    return Operations(mounted, MountReport(said.append), ready=lambda: None, acl=False), said


def test_no_error_but_a_number_leaves_an_operation(
    operations: tuple[Operations, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    called, said = operations

    def number(work: Callable[[], object]) -> int | None:
        with pytest.raises(OSError, check=lambda error: error.errno is not None) as caught:
            work()
        return caught.value.errno

    assert number(lambda: called.getattr("/none")) == errno.ENOENT
    assert number(lambda: called.getattr("/dir/x")) == errno.EIO
    assert number(lambda: called.read("/lost", 5, 0, called.open("/lost", 0))) == errno.EIO
    assert number(lambda: list(called.readdir_with_offset("/dir", 0, called.opendir("/dir")))) == errno.EIO
    assert number(lambda: called.getxattr("/lost", "user.none")) == errno.ENODATA
    assert said == [f"{name}: no reachable peer has it" for name in ("dir/x", "lost", "dir")]

    def fault(_path: bytes) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(called._mounted, "get", fault)
    assert number(lambda: called.getattr("/any")) == errno.EIO
    assert said[3:] == ["any: unexpected KeyError: 'a fault of ours'"]
    assert called.report.failed


def test_names_of_any_bytes_go_to_the_kernel_and_come_back(operations: tuple[Operations, list[str]]) -> None:
    called, said = operations
    lines = list(called.readdir_with_offset("/", 0, called.opendir("/")))
    names = [name for name, _, _ in lines]
    assert names == [".", "..", "dir", "lost", "\udcff\udce5 name"]
    assert called.read("", 100, 0, called.open(f"/{names[-1]}", 0)) == b"here"
    assert [after for _, _, after in lines[:2]] == [1, 2]
    for place, (_, _, after) in enumerate(lines, 1):
        rest = called.readdir_with_offset("/", after, called.opendir("/"))
        assert [name for name, _, _ in rest] == names[place:]
    assert said == []


def test_handles_are_let_go_of(operations: tuple[Operations, list[str]]) -> None:
    called, _ = operations
    files, folders = [called.open("/lost", 0) for _ in range(3)], [called.opendir("/") for _ in range(3)]
    assert len({*files, *folders}) == 6
    for handle in files:
        called.release("/lost", handle)
    for handle in folders:
        called.releasedir("/", handle)
    assert called._handles == {}


def test_what_one_pack_lacks_is_no_absence_of_a_path(operations: tuple[Operations, list[str]]) -> None:
    called, _ = operations
    with pytest.raises(NotFoundError):
        called._mounted.get(b"dir/x")
