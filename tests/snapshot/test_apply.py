"""Restoring: overwrite rules, writes in any order, holes, links, full disks and what a user may not set."""

import errno
import fcntl
import itertools
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import RestoreError, SpaceError
from replicator.format.pack import CHUNK_DATA
from replicator.format.snapshot import ChunkList
from replicator.format.tree import Entry, Hole
from replicator.snapshot import apply as module
from replicator.snapshot.apply import (
    IN_THE_WAY,
    INCOMPLETE,
    NO_FIRST_NAME,
    Applied,
    Applier,
    Job,
    Part,
    RestoreCounts,
    _Written,
)
from replicator.snapshot.chunklist import EMPTY
from replicator.snapshot.metadata import OWNER
from replicator.snapshot.tree import TreeReader
from tests.compare import compare
from tests.snapshot.support import (
    IS_ROOT,
    NOBODY,
    MemorySink,
    as_nobody,
    captured,
    entry,
    file_entry,
    folder_of,
    hard_link,
    open_fds,
    planned,
    restored,
)

MTIME = 1_600_000_000_123_456_789


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def tree_of(sink: MemorySink, *entries: Entry) -> ChunkList:
    return folder_of(sink, sorted(entries, key=lambda one: one.name))


def folder(sink: MemorySink, name: bytes, *entries: Entry, **changes: Any) -> Entry:
    return entry(name, "dir", content=tree_of(sink, *entries), **changes)


class TestTarget:
    def test_it_is_made_with_its_parents_closed_to_others(self, sink: MemorySink, tmp_path: Path) -> None:
        restored(sink, tree_of(sink, file_entry(sink, b"a", b"1")), tmp_path / "x" / "y" / "target")
        assert (tmp_path / "x" / "y" / "target" / "a").read_bytes() == b"1"
        assert stat.S_IMODE(os.stat(tmp_path / "x" / "y" / "target").st_mode) == 0o700

    def test_it_may_be_reached_through_a_link(self, sink: MemorySink, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        os.symlink("real", tmp_path / "link")
        restored(sink, tree_of(sink, entry(b"a")), tmp_path / "link")
        assert os.listdir(tmp_path / "real") == ["a"]

    def test_one_that_is_no_folder_is_refused(self, sink: MemorySink, target: Path) -> None:
        target.write_bytes(b"")
        with pytest.raises(RestoreError, match="not a folder"):
            planned(sink, EMPTY, target)

    def test_one_that_cannot_be_looked_at_is_refused(self, sink: MemorySink, target: Path) -> None:
        target.write_bytes(b"")
        with pytest.raises(RestoreError, match="Not a directory"):
            planned(sink, EMPTY, target / "below")

    def test_one_that_cannot_be_made_is_refused(self, sink: MemorySink, tmp_path: Path) -> None:
        applier = planned(sink, EMPTY, tmp_path / "a" / "b")
        (tmp_path / "a").write_bytes(b"")
        with pytest.raises(RestoreError, match="cannot be made"):
            applier.begin()

    def test_nothing_is_written_before_it_begins(self, sink: MemorySink, target: Path) -> None:
        tree = tree_of(sink, folder(sink, b"d", file_entry(sink, b"f", b"1")), entry(b"e"), entry(b"l", "link"))
        applier = planned(sink, tree, target)
        assert not target.exists()
        assert [job.path for job in applier.jobs] == [(b"d", b"f")]
        applier.abort()
        assert not target.exists()

    def test_an_empty_snapshot_gives_an_empty_folder(self, sink: MemorySink, target: Path) -> None:
        assert restored(sink, EMPTY, target).counts == RestoreCounts()
        assert os.listdir(target) == []


class TestOverwrite:
    @pytest.mark.parametrize("kind", ["file", "link", "fifo", "dir"])
    def test_by_default_anything_in_the_way_stops_the_restore_before_it_begins(
        self, sink: MemorySink, target: Path, kind: str
    ) -> None:
        tree = tree_of(sink, entry(b"a"), folder(sink, b"d", file_entry(sink, b"x", b"new")))
        (target / "d").mkdir(parents=True)
        path = target / "d" / "x"
        make: dict[str, Callable[[], object]] = {
            "file": lambda: path.write_bytes(b"old"),
            "link": lambda: os.symlink("old", path),
            "fifo": lambda: os.mkfifo(path),
            "dir": path.mkdir,
        }
        make[kind]()
        with pytest.raises(RestoreError, match="d/x") as caught:
            planned(sink, tree, target)
        assert caught.value.hint
        assert os.listdir(target) == ["d"]

    def test_a_file_where_a_folder_belongs_is_in_the_way_too(self, sink: MemorySink, target: Path) -> None:
        target.mkdir()
        (target / "d").write_bytes(b"")
        tree = tree_of(sink, folder(sink, b"d", file_entry(sink, b"x", b"new")))
        with pytest.raises(RestoreError, match="d exists"):
            planned(sink, tree, target)
        restored(sink, tree, target, overwrite="if-changed")
        assert (target / "d" / "x").read_bytes() == b"new"

    def test_folders_are_merged_and_get_their_metadata(self, sink: MemorySink, target: Path) -> None:
        (target / "d").mkdir(parents=True)
        (target / "d" / "other").write_bytes(b"stays")
        restored(sink, tree_of(sink, folder(sink, b"d", entry(b"x"), mode=0o711)), target)
        assert sorted(os.listdir(target / "d")) == ["other", "x"]
        status = os.stat(target / "d")
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o711, MTIME)

    def test_what_is_there_alike_is_kept_and_gets_its_metadata(self, sink: MemorySink, target: Path) -> None:
        target.mkdir()
        (target / "file").write_bytes(b"same")
        os.symlink("there", target / "link")
        os.chmod(target / "file", 0o600)
        os.utime(target / "file", ns=(MTIME, MTIME))
        before = {name: os.lstat(target / name).st_ino for name in os.listdir(target)}
        tree = tree_of(
            sink,
            file_entry(sink, b"file", b"same", mode=0o640),
            entry(b"link", "link", target=b"there", mode=0o777),
        )
        applied = restored(sink, tree, target, overwrite="if-changed")
        assert applied.counts == RestoreCounts(kept=2)
        assert {name: os.lstat(target / name).st_ino for name in os.listdir(target)} == before
        assert stat.S_IMODE(os.stat(target / "file").st_mode) == 0o640
        assert os.lstat(target / "link").st_mtime_ns == MTIME

    @pytest.mark.parametrize("difference", ["size", "time", "kind", "linked", "always"])
    def test_anything_else_is_replaced(self, sink: MemorySink, target: Path, difference: str) -> None:
        target.mkdir()
        path = target / "file"
        path.write_bytes(b"olds" if difference == "size" else b"old")
        os.utime(path, ns=(MTIME, MTIME - (difference == "time")))
        if difference == "kind":
            path.unlink()
            os.symlink("old", path)
        if difference == "linked":
            os.link(path, target / "second")
        tree = tree_of(sink, file_entry(sink, b"file", b"new"))
        overwrite: Any = "always" if difference == "always" else "if-changed"
        applied = restored(sink, tree, target, overwrite=overwrite)
        assert (applied.counts.files, applied.counts.kept) == (1, 0)
        assert path.read_bytes() == b"new"
        assert not path.is_symlink()

    def test_a_link_that_points_elsewhere_is_replaced(self, sink: MemorySink, target: Path) -> None:
        target.mkdir()
        os.symlink("elsewhere", target / "link")
        restored(sink, tree_of(sink, entry(b"link", "link", target=b"here")), target, overwrite="if-changed")
        assert os.listdir(target) == ["link"]
        assert os.readlink(target / "link") == "here"

    def test_hard_links_over_hard_links_come_out_whole(self, sink: MemorySink, tmp_path: Path, target: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        (source / "a").write_bytes(b"1" * 5000)
        os.link(source / "a", source / "b")
        os.mkfifo(source / "p")
        os.link(source / "p", source / "q")
        found = captured(sink, source)
        for overwrite in ("never", "if-changed", "always"):
            applied = restored(sink, found.tree, target, overwrite=overwrite)
            assert applied.gaps == []
            assert applied.counts.links == 2
            assert compare(source, target / "source") == []
        # Where the further name is a name of the first's new inode already, nothing is left behind.
        applier = planned(sink, found.tree, target, overwrite="always")
        applier.begin()
        applier.write(applier.jobs[0], 0, b"1" * 5000)
        os.unlink(target / "source" / "b")
        os.link(target / "source" / "a", target / "source" / "b")
        assert applier.finish().gaps == []
        assert compare(source, target / "source") == []

    def test_a_dangling_folder_cannot_be_planned_through(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (target / "d").mkdir(parents=True)
        real = os.stat

        def failing(path: Any, **options: Any) -> os.stat_result:
            if path == b"x":
                raise OSError(errno.EIO, "Input/output error")
            return real(path, **options)

        monkeypatch.setattr(os, "stat", failing)
        with pytest.raises(RestoreError, match="d/x: Input/output error"):
            planned(sink, tree_of(sink, folder(sink, b"d", entry(b"x"))), target)


class TestWriting:
    def test_a_file_has_its_name_only_when_it_is_whole(self, sink: MemorySink, target: Path) -> None:
        applier = planned(sink, tree_of(sink, file_entry(sink, b"f", b"abcdef")), target)
        applier.begin()
        job = applier.jobs[0]
        applier.write(job, 4, b"ef")
        applier.write(job, 0, memoryview(b"ab"))
        names = os.listdir(target)
        assert [name.startswith(".replicator-") for name in names] == [True]
        assert stat.S_IMODE(os.stat(target / names[0]).st_mode) == 0o600
        applier.write(job, 2, b"cd")
        assert os.listdir(target) == ["f"]
        assert job.done
        applier.write(job, 0, b"xxxxxx")  # too late: ignored
        applied = applier.finish()
        assert (target / "f").read_bytes() == b"abcdef"
        assert applied.counts == RestoreCounts(files=1, bytes=6)

    def test_few_descriptors_are_enough_for_many_files_at_once(self, sink: MemorySink, target: Path) -> None:
        entries = [file_entry(sink, b"%03d" % number, b"%06d" % number) for number in range(50)]
        tree = tree_of(sink, *(folder(sink, b"%d" % place, *entries[place::5]) for place in range(5)))
        before = open_fds()
        applier = planned(sink, tree, target, open_files=4)
        applier._target._limit = 2
        applier.begin()
        for part in (0, 3):
            for job in applier.jobs:
                data = sink.get(CHUNK_DATA, job.content.chunks[0])
                applier.write(job, part, data[part : part + 3])
                assert open_fds() <= before + 4 + 2
        assert applier.finish().gaps == []
        assert open_fds() == before
        assert all((target / f"{number % 5}" / f"{number:03}").read_bytes() == b"%06d" % number for number in range(50))

    def test_an_unfinished_file_is_a_gap_and_leaves_nothing(self, sink: MemorySink, target: Path) -> None:
        tree = tree_of(sink, file_entry(sink, b"begun", b"123"), file_entry(sink, b"not begun", b"123"))
        applier = planned(sink, tree, target)
        applier.begin()
        applier.write(applier.jobs[0], 0, b"12")
        applied = applier.finish()
        assert applied.gaps == [(b"begun", INCOMPLETE), (b"not begun", INCOMPLETE)]
        assert applied.reasons == {INCOMPLETE: 2}
        assert os.listdir(target) == []

    def test_a_restore_given_up_leaves_whole_files_only(self, sink: MemorySink, target: Path) -> None:
        tree = tree_of(sink, *(file_entry(sink, name, b"123") for name in (b"a", b"b", b"c")))
        before = open_fds()
        applier = planned(sink, tree, target)
        applier.begin()
        applier.write(applier.jobs[0], 0, b"123")
        applier.write(applier.jobs[1], 0, b"12")
        applier.abort()
        applier.abort()
        assert os.listdir(target) == ["a"]
        assert open_fds() == before

    def test_the_bytes_of_a_hole_stay_unallocated_and_others_do_not(self, sink: MemorySink, target: Path) -> None:
        block = 1 << 16
        data = b"x" * block + bytes(4 * block) + b"y" * block
        holes = [Hole(offset=2 * block, length=2 * block)]
        for name, cuts in ((b"at once", [len(data)]), (b"in parts", [block // 2, 3 * block, len(data)])):
            applier = planned(sink, tree_of(sink, file_entry(sink, name, data, holes=holes)), target)
            applier.begin()
            for start, end in zip([0, *cuts], cuts, strict=False):
                applier.write(applier.jobs[0], start, data[start:end])
            assert applier.finish().gaps == []
            path = target / os.fsdecode(name)
            assert path.read_bytes() == data
            with open(path, "rb") as file:
                assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 2 * block
                assert os.lseek(file.fileno(), 2 * block, os.SEEK_DATA) == 4 * block

    def test_data_in_a_hole_is_written_all_the_same(self, sink: MemorySink, target: Path) -> None:
        data = bytes(10_000) + b"late" + bytes(10_000)
        holes = [Hole(offset=0, length=5000), Hole(offset=9000, length=3000)]
        restored(sink, tree_of(sink, file_entry(sink, b"f", data, holes=holes)), target)
        assert (target / "f").read_bytes() == data

    @given(parts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12))
    def test_written_bytes_are_counted_once(self, parts: list[tuple[int, int]]) -> None:
        written, there = _Written(), set[int]()
        for one, other in parts:
            start, end = min(one, other), max(one, other)
            if start < end:
                written.add(start, end)
                there |= set(range(start, end))
            assert written.total == len(there)
        assert written.starts == sorted(written.starts)
        assert len(written.starts) == len(written.ends)


class TestUnnamed:
    """Files that come in one piece have no name before they are whole."""

    def test_nothing_is_seen_before_it_is_whole(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[str]] = []
        real = os.pwrite

        def watched(fd: int, data: bytes, offset: int) -> int:
            seen.append(os.listdir(target))
            return real(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", watched)
        restored(sink, tree_of(sink, file_entry(sink, b"f", b"abc", mode=0o640)), target)
        assert seen == [[]]
        assert stat.S_IMODE(os.stat(target / "f").st_mode) == 0o640

    @pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
    def test_where_that_cannot_be_they_have_a_temporary_one(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        real = os.open

        def without(path: Any, flags: int, *values: Any, **options: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(error, os.strerror(error))
            return real(path, flags, *values, **options)

        monkeypatch.setattr(os, "open", without)
        tree = tree_of(sink, *(file_entry(sink, name, name * 5) for name in (b"a", b"b")))
        assert restored(sink, tree, target).gaps == []
        assert (target / "b").read_bytes() == b"bbbbb"

    def test_without_proc_they_have_a_temporary_one(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.link

        def without(source: Any, *values: Any, **options: Any) -> None:
            if source.startswith(b"/proc"):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory")
            real(source, *values, **options)

        monkeypatch.setattr(os, "link", without)
        tree = tree_of(sink, *(file_entry(sink, name, name * 5) for name in (b"a", b"b")))
        assert restored(sink, tree, target).gaps == []
        assert sorted(os.listdir(target)) == ["a", "b"]

    def test_what_takes_the_name_meanwhile_stays(self, sink: MemorySink, target: Path) -> None:
        applier = planned(sink, tree_of(sink, file_entry(sink, b"f", b"abc")), target)
        applier.begin()
        (target / "f").write_bytes(b"mine")
        applier.write(applier.jobs[0], 0, b"abc")
        assert applier.finish().gaps == [(b"f", IN_THE_WAY)]
        assert (target / "f").read_bytes() == b"mine"
        assert os.listdir(target) == ["f"]


def cut(sink: MemorySink, name: bytes, pieces: list[bytes], **changes: Any) -> Entry:
    """Make a file of these chunks."""
    refs = [sink.put(CHUNK_DATA, piece) for piece in pieces]
    size = sum(map(len, pieces))
    return entry(name, size=size, content=ChunkList(depth=0, length=size, chunks=refs), **changes)


class TestReuse:
    """Only what differs from what is there is asked for."""

    PIECES = tuple(bytes([65 + number]) * 10_000 for number in range(8))

    @staticmethod
    def wanted(job: Job) -> list[Part]:
        offsets = itertools.accumulate([0, *(ref.length for ref in job.content.chunks)])
        return list(zip(offsets, job.content.chunks, strict=False))

    def reuse(self, sink: MemorySink, applier: Applier, job: Job, batch: int = 100) -> list[int]:
        """Return the numbers of the parts that are not there, a batch at a time."""
        parts = self.wanted(job)
        missing: list[Part] = []
        for at in range(0, len(parts), batch):
            missing += applier.reuse(
                job, parts[at : at + batch], lambda chunk, data: sink.chunks[CHUNK_DATA, chunk] == bytes(data)
            )
        return [parts.index(part) for part in missing]

    def finish(self, sink: MemorySink, applier: Applier, job: Job, missing: list[int]) -> Applied:
        parts = self.wanted(job)
        for number in missing:
            offset, ref = parts[number]
            applier.write(job, offset, sink.get(CHUNK_DATA, ref))
        return applier.finish()

    @pytest.mark.parametrize("batch", [1, 3, 100])
    @pytest.mark.parametrize("shares", [False, True])
    def test_what_differs_is_written_and_the_rest_taken_over(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch, batch: int, shares: bool
    ) -> None:
        if shares:  # what a file system with shared blocks does

            def clone(new: int, _request: int, old: int) -> int:
                assert os.fstat(new).st_size == 80_000
                os.ftruncate(new, 0)
                return os.copy_file_range(old, new, 1 << 20, 0, 0)

            monkeypatch.setattr(fcntl, "ioctl", clone)
        target.mkdir()
        old = bytearray(b"".join(self.PIECES)) + b"and more"
        old[25_000] = 0
        old[79_999] = 0
        (target / "f").write_bytes(old)
        inode = os.stat(target / "f").st_ino
        applier = planned(sink, tree_of(sink, cut(sink, b"f", list(self.PIECES))), target, overwrite="always")
        applier.begin()
        [job] = applier.jobs
        missing = self.reuse(sink, applier, job, batch)
        assert missing == [2, 7]
        assert (target / "f").read_bytes() == old, "the old one stays until the new one is whole"
        applied = self.finish(sink, applier, job, missing)
        assert (applied.gaps, applied.reused_bytes, applied.counts.files) == ([], 60_000, 1)
        assert (target / "f").read_bytes() == b"".join(self.PIECES)
        assert os.stat(target / "f").st_ino != inode
        assert os.listdir(target) == ["f"]

    def test_a_file_that_is_right_in_all_only_gets_its_metadata(self, sink: MemorySink, target: Path) -> None:
        target.mkdir()
        (target / "f").write_bytes(b"".join(self.PIECES))
        inode = os.stat(target / "f").st_ino
        applier = planned(
            sink, tree_of(sink, cut(sink, b"f", list(self.PIECES), mode=0o604)), target, overwrite="if-changed"
        )
        applier.begin()
        [job] = applier.jobs
        assert self.reuse(sink, applier, job) == []
        applied = applier.finish()
        assert (applied.counts, applied.reused_bytes) == (RestoreCounts(kept=1), 80_000)
        status = os.stat(target / "f")
        assert (status.st_ino, stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (inode, 0o604, MTIME)

    @pytest.mark.parametrize("why", ["longer", "second name", "further name"])
    def test_one_that_is_right_but_for_something_is_made_anew(
        self, sink: MemorySink, target: Path, tmp_path: Path, why: str
    ) -> None:
        target.mkdir()
        (target / "f").write_bytes(b"".join(self.PIECES) + (b"x" if why == "longer" else b""))
        if why == "second name":
            os.link(target / "f", tmp_path / "other")
        changes = {"link": hard_link()} if why == "further name" else {}
        applier = planned(
            sink, tree_of(sink, cut(sink, b"f", list(self.PIECES), **changes)), target, overwrite="always"
        )
        applier.begin()
        inode = os.stat(target / "f").st_ino
        [job] = applier.jobs
        assert self.reuse(sink, applier, job) == []
        assert applier.finish().counts.files == 1
        assert os.stat(target / "f").st_ino != inode
        assert (target / "f").read_bytes() == b"".join(self.PIECES)
        if why == "second name":
            assert (tmp_path / "other").stat().st_mtime_ns != MTIME

    def test_holes_stay_holes(self, sink: MemorySink, target: Path) -> None:
        block = 1 << 16
        pieces = [b"a" * block, bytes(4 * block), b"b" * block]
        holes = [Hole(offset=block, length=4 * block)]
        target.mkdir()
        (target / "f").write_bytes(b"".join(pieces[:2]) + b"c" * block)
        applier = planned(sink, tree_of(sink, cut(sink, b"f", pieces, holes=holes)), target, overwrite="always")
        applier.begin()
        [job] = applier.jobs
        missing = self.reuse(sink, applier, job)
        assert missing == [2]
        assert self.finish(sink, applier, job, missing).gaps == []
        with open(target / "f", "rb") as file:
            assert file.read() == b"".join(pieces)
            assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == block

    def test_what_cannot_be_read_is_fetched(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target.mkdir()
        (target / "f").write_bytes(b"".join(self.PIECES))
        applier = planned(sink, tree_of(sink, cut(sink, b"f", list(self.PIECES))), target, overwrite="always")
        applier.begin()
        [job] = applier.jobs
        os.unlink(target / "f")
        os.mkfifo(target / "f")
        assert self.reuse(sink, applier, job) == list(range(8))
        assert self.finish(sink, applier, job, list(range(8))).gaps == []


class TestResume:
    """A large file goes on where a run that was stopped left it."""

    KEY = bytes(range(32))

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "RESUMED_FROM", 50_000)

    def begun(self, sink: MemorySink, target: Path, key: bytes | None = KEY, **options: Any) -> tuple[Applier, Job]:
        tree = tree_of(sink, cut(sink, b"f", list(TestReuse.PIECES)), file_entry(sink, b"small", b"123"))
        applier = planned(sink, tree, target, overwrite="if-changed", resume_key=key, **options)
        applier.begin()
        return applier, applier.jobs[0]

    def stopped(self, sink: MemorySink, target: Path, *, killed: bool) -> None:
        applier, job = self.begun(sink, target)
        parts = TestReuse.wanted(job)
        for number in (1, 5):
            applier.write(job, parts[number][0], sink.get(CHUNK_DATA, parts[number][1]))
        applier.write(applier.jobs[1], 0, b"12")
        if killed:
            applier._target.close()
            for fd in applier._open.values():
                os.close(fd)
        else:
            applier.abort()

    @pytest.mark.parametrize("killed", [False, True])
    def test_what_was_written_is_not_asked_for_again(self, sink: MemorySink, target: Path, killed: bool) -> None:
        self.stopped(sink, target, killed=killed)
        assert len(os.listdir(target)) == 1 + killed, "a small file's beginning is only left by a kill"
        before = open_fds()
        applier, job = self.begun(sink, target)
        missing = TestReuse().reuse(sink, applier, job, 3)
        assert missing == [0, 2, 3, 4, 6, 7]
        applier.write(applier.jobs[1], 0, b"123")
        applied = TestReuse().finish(sink, applier, job, missing)
        assert (applied.gaps, applied.reused_bytes) == ([], 20_000)
        assert (target / "f").read_bytes() == b"".join(TestReuse.PIECES)
        assert open_fds() == before

    def test_what_is_damaged_since_is_asked_for(self, sink: MemorySink, target: Path) -> None:
        self.stopped(sink, target, killed=False)
        [name] = os.listdir(target)
        with open(target / name, "r+b") as file:
            file.seek(55_555)
            file.write(b"!")
        applier, job = self.begun(sink, target)
        assert TestReuse().reuse(sink, applier, job) == [0, 2, 3, 4, 5, 6, 7]
        applier.abort()

    @pytest.mark.parametrize("strange", ["mode", "second name", "link", "fifo", "folder", "owner", "key"])
    def test_what_another_may_have_put_there_is_not_used(
        self, sink: MemorySink, target: Path, tmp_path: Path, strange: str
    ) -> None:
        self.stopped(sink, target, killed=False)
        [name] = os.listdir(target)
        path = target / name
        (tmp_path / "elsewhere").write_bytes(path.read_bytes())
        if strange == "mode":
            os.chmod(path, 0o620)
        elif strange == "second name":
            os.link(path, tmp_path / "other")
        elif strange == "owner":
            if not IS_ROOT:
                pytest.skip("not root")
            os.chown(path, NOBODY, NOBODY)
        elif strange != "key":
            os.unlink(path)
            {"link": lambda: os.symlink(tmp_path / "elsewhere", path), "fifo": lambda: os.mkfifo(path)}.get(
                strange, path.mkdir
            )()
        content = (tmp_path / "elsewhere").read_bytes()
        applier, job = self.begun(sink, target, bytes(32) if strange == "key" else self.KEY)
        assert TestReuse().reuse(sink, applier, job) == list(range(8))
        applier.write(applier.jobs[1], 0, b"123")
        assert TestReuse().finish(sink, applier, job, list(range(8))).gaps == []
        assert (target / "f").read_bytes() == b"".join(TestReuse.PIECES)
        assert (tmp_path / "elsewhere").read_bytes() == content

    def test_without_a_key_nothing_is_kept(self, sink: MemorySink, target: Path) -> None:
        applier, job = self.begun(sink, target, None)
        applier.write(job, 0, b"A" * 10_000)
        applier.abort()
        assert os.listdir(target) == []


class TestSettling:
    """Finishing a part of the tree before the next is planned."""

    def test_windows_give_what_one_plan_gives(self, sink: MemorySink, target: Path, tmp_path: Path) -> None:
        inner = folder(sink, b"c", file_entry(sink, b"d", b"1", link=hard_link()), entry(b"e", "link"), mode=0o500)
        tree = tree_of(
            sink,
            file_entry(sink, b"a", b"12"),
            folder(sink, b"b", inner, entry(b"f"), mode=0o555),
            folder(sink, b"g", file_entry(sink, b"h", b"1", link=hard_link()), file_entry(sink, b"i", b"3")),
        )
        applier = planned(sink, EMPTY, target)
        applier.begin()
        for path, one in TreeReader(sink).walk(tree):
            job = applier.add(path, one)
            if job is not None:
                applier.write(job, 0, sink.get(CHUNK_DATA, job.content.chunks[0]))
            applier.settle()
        assert applier.finish().gaps == []
        restored(sink, tree, tmp_path / "at once")
        assert compare(target, tmp_path / "at once") == []
        assert os.stat(target / "b").st_mtime_ns == os.stat(target / "b" / "c").st_mtime_ns == MTIME

    def test_only_what_is_said_to_go_on_may_be_incomplete(self, sink: MemorySink, target: Path) -> None:
        tree = tree_of(sink, *(file_entry(sink, name, b"1234") for name in (b"a", b"b")))
        applier = planned(sink, tree, target)
        applier.begin()
        first, second = applier.jobs
        for job in (first, second):
            applier.write(job, 0, b"12")
        second.more = True
        applier.settle()
        second.more = False
        applier.write(second, 2, b"34")
        assert applier.finish().gaps == [(b"a", INCOMPLETE)]
        assert os.listdir(target) == ["b"]


class TestLinks:
    def test_a_name_whose_content_differs_is_a_file_of_its_own(self, sink: MemorySink, target: Path) -> None:
        tree = tree_of(
            sink,
            file_entry(sink, b"a", b"old", link=hard_link()),
            file_entry(sink, b"b", b"new!", link=hard_link()),
            file_entry(sink, b"c", b"old", link=hard_link()),
            file_entry(sink, b"d", b"old", link=hard_link(8)),
        )
        applied = restored(sink, tree, target)
        assert (applied.counts.files, applied.counts.links) == (3, 1)
        assert [(target / name).read_bytes() for name in "abcd"] == [b"old", b"new!", b"old", b"old"]
        assert os.path.samefile(target / "a", target / "c")
        assert not os.path.samefile(target / "a", target / "d")

    def test_empty_files_and_links_have_further_names_too(self, sink: MemorySink, target: Path) -> None:
        tree = tree_of(
            sink,
            entry(b"a", link=hard_link(1)),
            entry(b"b", link=hard_link(1)),
            entry(b"c", "link", link=hard_link(2)),
            folder(sink, b"d", entry(b"e", "link", link=hard_link(2)), mode=0o500),
        )
        assert restored(sink, tree, target).gaps == []
        assert os.path.samefile(target / "a", target / "b")
        assert os.lstat(target / "c").st_ino == os.lstat(target / "d" / "e").st_ino

    def test_further_names_of_a_file_that_could_not_be_had_are_gaps(self, sink: MemorySink, target: Path) -> None:
        tree = tree_of(sink, *(file_entry(sink, name, b"123", link=hard_link()) for name in (b"a", b"b")))
        applier = planned(sink, tree, target)
        applier.begin()
        assert applier.finish().gaps == [(b"a", INCOMPLETE), (b"b", NO_FIRST_NAME)]

    def test_a_file_system_without_hard_links_gets_its_files_all_the_same(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_links(*paths: Any, **options: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_links)
        tree = tree_of(
            sink,
            file_entry(sink, b"a", b"123", link=hard_link()),
            file_entry(sink, b"b", b"123", link=hard_link()),
            file_entry(sink, b"c", b"456"),
        )
        applier = planned(sink, tree, target)
        applier.begin()
        (target / "c").write_bytes(b"mine")
        for job in applier.jobs:
            applier.write(job, 0, sink.get(CHUNK_DATA, job.content.chunks[0]))
        applied = applier.finish()
        assert applied.gaps == [(b"c", IN_THE_WAY), (b"b", "Operation not permitted")]
        assert sorted(os.listdir(target)) == ["a", "c"]
        assert (target / "c").read_bytes() == b"mine"

    def test_a_link_that_cannot_be_made_is_a_gap(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def too_many(*paths: Any, **options: Any) -> None:
            raise OSError(errno.EIO, "broken")

        monkeypatch.setattr(os, "link", too_many)
        applied = restored(sink, tree_of(sink, file_entry(sink, b"a", b"1"), entry(b"b")), target)
        assert applied.gaps == [(b"a", "Input/output error"), (b"b", "Input/output error")]


class TestFullDisk:
    def test_it_is_seen_before_anything_is_written(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = bytes(20_000)
        one = file_entry(sink, b"a", data, holes=[Hole(offset=0, length=5000)])
        tree = tree_of(sink, one)
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=15, f_frsize=1000))
        restored(sink, tree, target)
        shutil.rmtree(target)
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=14, f_frsize=1000))
        with pytest.raises(SpaceError, match="15000 bytes are to be restored, 14000 are free"):
            restored(sink, tree, target)
        assert not target.exists()

    def test_what_is_replaced_makes_room(self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target.mkdir()
        (target / "a").write_bytes(b"x" * 20_000)
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=1000))
        tree = tree_of(sink, file_entry(sink, b"a", b"y" * 20_000))
        restored(sink, tree, target, overwrite="always")
        assert (target / "a").read_bytes() == b"y" * 20_000

    @pytest.mark.parametrize("call", ["mkdir", "pwrite", "ftruncate", "symlink", "setxattr", "chmod"])
    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
    def test_it_ends_the_restore(
        self, sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int
    ) -> None:
        from tests.snapshot.support import attribute

        def full(*values: Any, **options: Any) -> None:
            raise OSError(error, os.strerror(error))

        tree = tree_of(
            sink,
            file_entry(sink, b"a", b"data", xattrs=[attribute(b"user.x")]),
            folder(sink, b"d", entry(b"e")),
            entry(b"l", "link"),
        )
        applier = planned(sink, tree, target)
        monkeypatch.setattr(os, call, full)

        def run() -> None:
            applier.begin()
            for at in range(0, 4, 2):
                applier.write(applier.jobs[0], at, b"data"[at : at + 2])
            applier.finish()

        with pytest.raises(SpaceError):
            run()
        monkeypatch.undo()
        applier.abort()
        if target.exists():
            assert not [name for name in os.listdir(target) if name.startswith(".replicator")]


@pytest.mark.parametrize("call", ["pwrite", "ftruncate"])
def test_a_file_that_cannot_be_written_is_a_gap_and_the_rest_goes_on(
    sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(os, call)
    failed: list[int] = []

    def failing(fd: int, *values: Any) -> Any:
        if not failed:
            failed.append(fd)
            raise OSError(errno.EIO, "broken")
        return real(fd, *values)

    monkeypatch.setattr(os, call, failing)
    holes = [Hole(offset=0, length=1)]
    tree = tree_of(sink, file_entry(sink, b"a", b"1", holes=holes), file_entry(sink, b"b", b"2", holes=holes))
    applied = restored(sink, tree, target)
    assert applied.gaps == [(b"a", "Input/output error")]
    assert os.listdir(target) == ["b"]


def test_short_writes_are_continued(sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    restored(sink, tree_of(sink, file_entry(sink, b"a", b"0123456789")), target)
    assert (target / "a").read_bytes() == b"0123456789"


def test_metadata_is_set_on_everything(sink: MemorySink, target: Path) -> None:
    tree = tree_of(
        sink,
        file_entry(sink, b"file", b"x", mode=0o604),
        entry(b"empty", mode=0o000),
        entry(b"pipe", "fifo", mode=0o621),
        entry(b"link", "link", mode=0o777),
        folder(sink, b"dir", folder(sink, b"inner", entry(b"x"), mode=0o1555), mode=0o501),
    )
    assert restored(sink, tree, target).gaps == []
    modes = {name: stat.S_IMODE(os.lstat(target / name).st_mode) for name in os.listdir(target)}
    assert modes == {"file": 0o604, "empty": 0, "pipe": 0o621, "link": 0o777, "dir": 0o501}
    for path in ("file", "empty", "pipe", "link", "dir", "dir/inner", "dir/inner/x"):
        assert os.lstat(target / path).st_mtime_ns == MTIME


def test_an_owner_that_root_cannot_set_is_a_gap_and_nothing_that_was_beyond_a_user(
    sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    tree = tree_of(sink, file_entry(sink, b"f", b"x", uid=4321, gid=4321))
    monkeypatch.setattr(os, "chown", refused)
    applied = restored(sink, tree, target, privileged=True)
    assert (applied.gaps, applied.unset.total) == ([(b"f", OWNER)], 0)
    shutil.rmtree(target)
    applied = restored(sink, tree, target, privileged=False)
    assert (applied.gaps, applied.unset.named) == ([], [(b"f", OWNER)])


def test_very_deep_trees_come_back_with_few_descriptors(sink: MemorySink, target: Path) -> None:
    depth = 700  # more than a path may be long, when names have 10 bytes
    inner = tree_of(sink, file_entry(sink, b"bottom", b"deep"))
    for level in range(depth):
        inner = tree_of(sink, entry(b"level %04d" % level, "dir", content=inner))
    before = open_fds()
    applied = restored(sink, inner, target)
    assert applied.gaps == []
    assert applied.counts.folders == depth
    assert open_fds() == before
    found = captured(MemorySink(), target)
    assert (found.counts.files, found.counts.folders, found.gaps) == (1, depth + 1, [])
    subprocess.run(["rm", "-rf", target], check=True)  # shutil would recurse too deeply


class TestAsAUser:
    def test_folders_are_closed_from_below(self, sink: MemorySink, open_path: Path) -> None:
        tree = tree_of(sink, folder(sink, b"d", folder(sink, b"e", mode=0o711), mode=0o600, uid=NOBODY, gid=NOBODY))
        with as_nobody():
            applied = restored(sink, tree, open_path, privileged=False)
            assert applied.gaps == []
            assert applied.unset.by_reason.keys() <= {OWNER}
            os.chmod(open_path / "d", 0o700)
            assert stat.S_IMODE(os.stat(open_path / "d" / "e").st_mode) == 0o711

    def test_a_read_only_folder_is_opened_for_the_restore_and_closed_again(
        self, sink: MemorySink, open_path: Path
    ) -> None:
        with as_nobody():
            (open_path / "d").mkdir()
            os.chmod(open_path / "d", 0o500)
            tree = tree_of(sink, folder(sink, b"d", file_entry(sink, b"x", b"new"), mode=0o511))
            assert [gap.path for gap in restored(sink, tree, open_path).gaps] in ([], [b"d", b"d/x"], [b"d/x", b"d"])
            assert (open_path / "d" / "x").read_bytes() == b"new"
            assert stat.S_IMODE(os.stat(open_path / "d").st_mode) == 0o511

    def test_it_gets_its_mode_back_when_the_restore_is_given_up(self, sink: MemorySink, open_path: Path) -> None:
        with as_nobody():
            (open_path / "d").mkdir()
            os.chmod(open_path / "d", 0o500)
            applier = planned(sink, tree_of(sink, folder(sink, b"d", file_entry(sink, b"x", b"new"))), open_path)
            applier.begin()
            assert stat.S_IMODE(os.stat(open_path / "d").st_mode) == 0o700
            applier.write(applier.jobs[0], 0, b"ne")
            applier.abort()
            assert stat.S_IMODE(os.stat(open_path / "d").st_mode) == 0o500
            assert os.listdir(open_path / "d") == []

    @pytest.mark.skipif(not IS_ROOT, reason="needs another owner")
    def test_a_folder_of_another_owner_gives_gaps(self, sink: MemorySink, open_path: Path) -> None:
        (open_path / "d").mkdir(mode=0o755)
        (open_path / "e").mkdir(mode=0o755)
        tree = tree_of(
            sink,
            folder(sink, b"d", file_entry(sink, b"x", b"new"), entry(b"y"), entry(b"z", "link")),
            file_entry(sink, b"f", b"fine", uid=NOBODY, gid=NOBODY),
        )
        with as_nobody():
            applied = restored(sink, tree, open_path, privileged=False)
        denied = {gap.path for gap in applied.gaps if gap.reason == "Permission denied"}
        assert denied == {b"d/x", b"d/y", b"d/z"}
        assert (open_path / "f").read_bytes() == b"fine"

    @pytest.mark.skipif(not IS_ROOT, reason="needs another owner")
    def test_a_folder_that_may_not_be_made_stops_it(self, sink: MemorySink, tmp_path: Path, open_path: Path) -> None:
        (open_path / "closed").mkdir(mode=0o755)
        with as_nobody():
            applier = planned(sink, tree_of(sink, folder(sink, b"d")), open_path / "closed")
            with pytest.raises(RestoreError, match="d cannot be made: Permission denied"):
                applier.begin()
            applier.abort()


def test_an_applier_can_be_planned_by_hand(sink: MemorySink, target: Path) -> None:
    applier = planned(sink, EMPTY, target)
    assert isinstance(applier, Applier)
    assert applier.add((b"d",), entry(b"d", "dir")) is None
    job = applier.add((b"d", b"f"), file_entry(sink, b"f", b"12"))
    assert job is not None
    assert (job.size, job.content.length, job.path) == (2, 2, (b"d", b"f"))
    assert applier.add((b"e",), entry(b"e")) is None
    assert applier.planned_bytes == 2
    applier.begin()
    applier.write(job, 0, b"12")
    assert applier.finish().counts == RestoreCounts(folders=1, files=2, bytes=2)


@pytest.mark.parametrize("change", ["mode", "mtime", "xattr", "owner", "nothing"])
def test_what_may_stay_gets_all_of_its_metadata_back(
    sink: MemorySink, target: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    if change == "owner" and os.geteuid():
        pytest.skip("not root")
    tree = tree_of(sink, folder(sink, b"d", file_entry(sink, b"f", b"12", mode=0o640)))
    restored(sink, tree, target, overwrite="if-changed")
    before = [os.stat(path) for path in (target / "d", target / "d" / "f")]
    for path in (target / "d" / "f", target / "d"):
        if change == "mode":
            os.chmod(path, 0o700)
        elif change == "xattr":
            os.setxattr(path, "user.more", b"x")
        elif change == "owner":
            os.chown(path, 1, 1)
        if change == "mtime" and path.is_dir():
            os.utime(path, (1, 1))
    calls = []
    real = os.utime

    def counted(*values: Any, **options: Any) -> None:
        calls.append(values)
        real(*values, **options)

    monkeypatch.setattr(os, "utime", counted)
    applied = restored(sink, tree, target, overwrite="if-changed")
    assert (applied.counts.kept, applied.counts.files, applied.gaps) == (1, 0, [])
    assert bool(calls) == (change != "nothing"), "nothing is set where all is right"
    for path, old in zip((target / "d", target / "d" / "f"), before, strict=True):
        now = os.stat(path)
        assert os.listxattr(path) == []
        for name in ("st_mode", "st_mtime_ns", "st_uid", "st_gid", "st_ino"):
            assert getattr(now, name) == getattr(old, name)
