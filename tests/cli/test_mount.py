"""A mount for real: a process, the kernel's FUSE, and programs that look in."""

import errno
import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.cli.federation import PATIENCE_S, PROGRAM, Federation, Result
from tests.compare import Rules, compare
from tests.snapshot import nasty
from tests.snapshot.support import IS_ROOT, NOBODY

CAN_MOUNT = os.access("/dev/fuse", os.R_OK | os.W_OK) and find_spec("mfusepy") is not None
needs_fuse = pytest.mark.skipif(not CAN_MOUNT, reason="no /dev/fuse to be used, or no mfusepy")
pytestmark = pytest.mark.process


@dataclass(slots=True)
class Mount:
    """A running `replicator mount`; ``document`` is what it said when it was there."""

    federation: Federation
    folder: Path
    process: subprocess.Popen[bytes]
    document: Any

    def end(self, number: int = signal.SIGINT) -> Result:
        """Let it end by a signal, and return how it did."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> Result:
        """Return how it ended; nothing stays mounted."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert not is_mounted(self.folder)
        result = Result(args=("mount",), code=self.process.returncode, out=out, err=err.decode())
        self.federation.check(result)
        return result

    def path(self, dataset: str) -> Path:
        """Return where the newest snapshot of a dataset is."""
        return self.folder / dataset / "latest" / dataset


def is_mounted(folder: Path) -> bool:
    return f" {folder} " in Path("/proc/self/mountinfo").read_text()


@contextmanager
def mounted(federation: Federation, folder: Path, *args: str) -> Iterator[Mount]:
    folder.mkdir(exist_ok=True)
    with subprocess.Popen(
        [*PROGRAM, "--home", str(federation.path / "keeper"), "mount", str(folder), "--json", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=federation.environment(),
        cwd=federation.path,
        # Where tests run behind a shell's "&", it lets them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,  # noqa: PLW1509
    ) as process:
        try:
            assert process.stdout is not None
            text = b""
            for line in process.stdout:
                text += line
                if line == b"}\n":
                    break
            assert text, process.communicate()[1].decode()
            yield Mount(federation=federation, folder=folder, process=process, document=json.loads(text))
        finally:
            process.kill()
            process.wait()
            subprocess.run(["fusermount3", "-q", "-u", "-z", str(folder)], check=False, capture_output=True)


@pytest.fixture(scope="module")
def full(federation: Federation) -> Federation:
    """The federation with a nasty tree and a large file in it."""
    (federation.path / "nasty").mkdir()
    nasty.build(federation.path / "nasty")
    os.unlink(federation.path / "nasty" / "socket")
    shared = federation.path / "nasty" / "for nobody's eyes"
    shared.write_text("shared")
    shared.chmod(0o600)
    # POSIX ACL, version 2: user::rw- user:nobody:r-- group::--- mask::r-- other::---
    entries = ((1, 6, -1), (2, 4, NOBODY), (4, 0, -1), (0x10, 4, -1), (0x20, 0, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *one) for one in entries)
    with suppress(OSError):  # not every file system has them
        os.setxattr(shared, "system.posix_acl_access", acl)
    (federation.path / "films").mkdir()
    (federation.path / "films" / "film").write_bytes(random.Random(7).randbytes(40 << 20))
    for name in ("nasty", "films"):
        federation.ok("dataset", "add", name, federation.path / name, "--copies", "3", home="node")
    federation.ok("backup", "nasty", "films", home="node")
    return federation


@pytest.fixture(scope="module")
def looked(full: Federation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount of everything that several tests look into; it must end well."""
    with mounted(full, tmp_path_factory.mktemp("mount") / "m") as mount:
        yield mount
        result = mount.end()
        assert (result.code, result.err) == (0, "")


def errno_of(work: Any) -> int | None:
    try:
        work()
    except OSError as error:
        return error.errno
    return None


@needs_fuse
def test_every_byte_mode_owner_time_link_and_attribute_is_shown(full: Federation, looked: Mount) -> None:
    assert compare(full.path / "nasty", looked.path("nasty"), Rules(holes=True, owners=IS_ROOT)) == []
    assert {"docs", "films", "nasty"} <= set(os.listdir(looked.folder))
    rows = [row for row in looked.document["snapshots"] if row["dataset"] in ("docs", "films", "nasty")]
    assert {row["dataset"] for row in rows} == {"docs", "films", "nasty"}
    for row in rows:
        assert (looked.folder / row["path"] / row["dataset"]).is_dir()
        assert row["path"].endswith(row["id"][:8])


@needs_fuse
def test_what_programs_copy_out_is_what_went_in(full: Federation, looked: Mount, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", looked.path("nasty"), tmp_path / "copy"], check=True)
    assert compare(full.path / "nasty", tmp_path / "copy", Rules(holes=True, owners=IS_ROOT)) == []
    found = subprocess.run(["grep", "-r", "kära", looked.path("docs")], check=True, capture_output=True).stdout
    assert found.count(b"\n") == 400


@needs_fuse
def test_it_is_mounted_read_only_without_devices_and_setuid(looked: Mount) -> None:
    [line] = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(looked.folder) in line]
    source, _, kind, options = line.split()[:4]
    assert (source, kind) == ("replicator", "fuse.replicator")
    assert {"ro", "nodev", "nosuid"} <= set(options.split(","))


@needs_fuse
def test_nothing_can_be_written(looked: Mount) -> None:
    top = looked.path("docs")
    file = top / "run.sh"
    tries = (
        lambda: os.open(file, os.O_RDWR),
        lambda: (top / "new").open("wb").close(),
        (looked.folder / "new").mkdir,
        lambda: (looked.folder / "docs" / "new").symlink_to("x"),
        file.unlink,
        lambda: file.rename(top / "other"),
        lambda: os.link(file, top / "other"),
        lambda: file.chmod(0o600),
        lambda: os.chown(file, 1, 1),
        lambda: os.utime(file),
        lambda: os.truncate(file, 0),
        lambda: os.mkfifo(top / "pipe"),
        lambda: os.setxattr(file, "user.x", b"y"),
        (top / "letters" / "empty").rmdir,
    )
    assert [errno_of(one) for one in tries] == [errno.EROFS] * len(tries)


@needs_fuse
def test_what_is_not_there_is_not_there(looked: Mount) -> None:
    file = looked.path("docs") / "run.sh"
    assert errno_of((looked.folder / "none").stat) == errno.ENOENT
    assert errno_of((file / "none").stat) == errno.ENOTDIR
    assert errno_of(lambda: os.getxattr(file, "user.none")) == errno.ENODATA
    assert errno_of(lambda: os.listdir(file)) == errno.ENOTDIR
    assert errno_of(lambda: os.readlink(file)) == errno.EINVAL
    assert errno_of(lambda: fcntl.ioctl(os.open(file, os.O_RDONLY), 0x5401, b"")) == errno.ENOTTY
    assert os.statvfs(looked.folder).f_namemax == 255


@needs_fuse
def test_several_threads_read_anywhere_at_the_same_time(full: Federation, looked: Mount) -> None:
    data = (full.path / "films" / "film").read_bytes()

    def work(seed: int) -> None:
        numbers = random.Random(seed)
        with (looked.path("films") / "film").open("rb", buffering=0) as file:
            for _ in range(25):
                at, size = numbers.randrange(len(data) + 1000), numbers.randrange(300_000)
                assert os.pread(file.fileno(), size, at) == data[at : at + size]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert (looked.path("films") / "film").read_bytes() == data


@needs_fuse
def test_holes_are_seen_by_who_copies_sparsely(full: Federation, looked: Mount) -> None:
    def extents(path: Path) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        with path.open("rb") as file:
            while (at := found[-1][1] if found else 0) < path.stat().st_size:
                if errno_of(lambda: os.lseek(file.fileno(), at, os.SEEK_DATA)) == errno.ENXIO:
                    return found
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
                found.append((start, os.lseek(file.fileno(), start, os.SEEK_HOLE)))
            return found

    for name in ("sparse", "only a hole", "large"):
        assert extents(looked.path("nasty") / name) == extents(full.path / "nasty" / name)


@needs_fuse
def test_a_listing_can_be_left_and_gone_on_with(full: Federation, looked: Mount) -> None:
    """Two programs that list one folder do not disturb each other, and who begins again gets all of it again."""
    names = set(os.listdir(full.path / "nasty"))
    with os.scandir(looked.path("nasty")) as one, os.scandir(looked.path("nasty")) as other:
        first = {next(one).name, next(one).name}
        assert {entry.name for entry in other} == names
        assert first | {entry.name for entry in one} == names
    for entry in os.scandir(looked.path("nasty")):
        assert entry.inode() == entry.stat(follow_symlinks=False).st_ino


@needs_fuse
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_also_while_somebody_is_in_there(full: Federation, tmp_path: Path, number: int) -> None:
    with mounted(full, tmp_path / "m", "latest:docs") as mount:
        inside = os.open(mount.folder / "docs", os.O_RDONLY)
        try:
            result = mount.end(number)
        finally:
            os.close(inside)
        assert (result.code, result.err) == (0, "")
        assert os.listdir(mount.folder) == []


@needs_fuse
def test_who_unmounts_ends_it(full: Federation, tmp_path: Path) -> None:
    with mounted(full, tmp_path / "m") as mount:
        subprocess.run(["fusermount3", "-u", str(mount.folder)], check=True)
        result = mount.ended()
        assert (result.code, result.err) == (0, "")


@needs_fuse
def test_one_snapshot_is_shown_right_there_and_several_in_folders(full: Federation, tmp_path: Path) -> None:
    with mounted(full, tmp_path / "m", "latest:docs") as mount:
        assert compare(full.path / "docs", mount.folder / "docs") == []
        assert [row["path"] for row in mount.document["snapshots"]] == [""]
    with mounted(full, tmp_path / "m", "latest:docs", "latest:nasty", "latest:docs") as mount:
        assert sorted(os.listdir(mount.folder)) == ["docs", "nasty"]
        assert len(mount.document["snapshots"]) == 2


@needs_fuse
@pytest.mark.skipif(not IS_ROOT, reason="another user is needed")
def test_others_look_in_only_if_they_may_and_as_far_as_modes_and_acls_let_them(full: Federation) -> None:
    look = (
        "import os, sys\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())\n"
        "except OSError as error: print(error.errno)\n"
    )

    def as_nobody(path: Path) -> str:
        line = [sys.executable, "-c", look, str(path)]
        return subprocess.run(line, check=True, capture_output=True).stdout.decode().strip()

    for folder in (full.path, *full.path.parents):  # others come as far as the mount
        if folder.stat().st_mode & 0o055 != 0o055:
            folder.chmod(folder.stat().st_mode | 0o055)
    with mounted(full, full.path / "m") as mount:
        assert as_nobody(mount.path("docs") / "run.sh") == str(errno.EACCES)
        mount.end()
    with mounted(full, full.path / "m", "--allow-other") as mount:
        assert as_nobody(mount.path("docs") / "run.sh") == "#!/bin/sh"
        assert as_nobody(mount.path("nasty") / "mode 0") == str(errno.EACCES)
        assert as_nobody(mount.path("nasty") / "mode 400") == str(errno.EACCES)
        shared = mount.path("nasty") / "for nobody's eyes"
        if os.listxattr(shared):  # its mode seems to let its group read, its ACL lets that user instead
            assert as_nobody(shared) == "shared"
            assert as_nobody(shared.with_name("mode 400")) == str(errno.EACCES)
        result = mount.end()
        assert (result.code, result.err) == (0, "")


@needs_fuse
def test_providers_may_go_while_files_are_read(full: Federation, tmp_path: Path) -> None:
    data = (full.path / "films" / "film").read_bytes()
    with mounted(full, tmp_path / "m") as mount:
        try:
            with (mount.path("films") / "film").open("rb", buffering=0) as file:
                assert file.read(1 << 20) == data[: 1 << 20]
                full.stop("alice", "bob", kill=True)
                file.seek(0)
                assert b"".join(iter(lambda: file.read(1 << 20), b"")) == data
            full.stop("carol", "dave", "erin", kill=True)
            # The kernel and the mount know the one; of the other nobody is there to give it.
            assert (mount.path("docs") / "letters" / "one.txt").stat().st_size == 12
            assert errno_of((mount.path("docs") / "letters" / "one.txt").read_bytes) == errno.EIO
        finally:
            full.start(*[name for name in full.endpoints if name not in full.processes])
        result = mount.end()
        assert result.code == 3
        [line] = [line for line in result.said if line.startswith("docs/")]
        assert "docs/letters/one.txt: object" in line
        assert "no reachable peer has it" in line


@needs_fuse
def test_a_damaged_pack_is_an_error_of_that_file_alone_and_exit_4(breakable: Federation, tmp_path: Path) -> None:
    (breakable.path / "more").mkdir()
    (breakable.path / "more" / "whole \x1b[31m").write_bytes(b"whole" * 100)
    breakable.ok("dataset", "add", "more", breakable.path / "more", home="node")
    before = {path.name for name in breakable.endpoints for path in breakable.objects(name)}
    breakable.ok("backup", "more", home="node")
    with mounted(breakable, tmp_path / "m") as mount:
        listed = sorted(os.walk(mount.folder))
        for name in breakable.endpoints:
            for path in breakable.objects(name):
                if path.name not in before:
                    path.write_bytes(b"damage" + path.read_bytes()[6:])
        [file] = mount.path("more").iterdir()
        for _ in range(3):
            assert errno_of(file.read_bytes) == errno.EIO
        assert (mount.path("docs") / "run.sh").read_text() == "#!/bin/sh\n"
        assert sorted(os.walk(mount.folder)) == listed
        result = mount.end()
    assert result.code == 4
    assert any("whole \\x1b[31m: object" in line for line in result.said)
    assert any("damaged" in line for line in result.said)
    assert len(set(result.said)) == len(result.said)


@needs_fuse
def test_what_a_killed_mount_leaves_is_named_and_can_be_mounted_over_after_a_word(
    full: Federation, tmp_path: Path
) -> None:
    with mounted(full, tmp_path / "m") as mount:
        mount.process.kill()
        mount.process.wait()
        said = full.fails(2, "mount", mount.folder, home="keeper")
        assert "a mount whose process is gone" in said
        assert f"fusermount3 -u {mount.folder}" in said
        subprocess.run(["fusermount3", "-u", str(mount.folder)], check=True)
        mount.process.communicate()
    with mounted(full, tmp_path / "m") as again:
        assert "something is mounted here already" in full.fails(2, "mount", again.folder, home="keeper")
        assert again.end().code == 0


@needs_fuse
def test_folders_that_cannot_be_mounted_on_and_homes_that_may_not_read(full: Federation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "no such folder" in full.fails(2, "mount", tmp_path / "none", home="keeper")
    assert "not a folder" in full.fails(2, "mount", tmp_path / "file", home="keeper")
    assert "no snapshot has an id" in full.fails(1, "mount", tmp_path, "abcdef012", home="keeper")
    assert "this home is no keeper" in full.fails(6, "mount", tmp_path, home="node")
    assert full.json("mount", tmp_path / "none", home="keeper", code=2)["exit"] == 2
    assert not is_mounted(tmp_path)
