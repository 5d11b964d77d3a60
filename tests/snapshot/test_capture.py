"""Capturing: what is read, what is not, and what happens to files that change, close or vanish meanwhile."""

import errno
import grp
import os
import pwd
import random
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.errors import SourceError, SpaceError, UsageError
from replicator.format.pack import CHUNK_DATA, CHUNK_LIST, CHUNK_TREE
from replicator.format.snapshot import ChunkRef, RootFolder
from replicator.format.tree import Entry, Hole
from replicator.fs import PosixFs
from replicator.snapshot import capture as module
from replicator.snapshot import chunklist, readfile
from replicator.snapshot.capture import (
    LONG_TARGET,
    Captured,
    Counts,
    InlineReader,
    Took,
    capture,
    root_names,
)
from replicator.snapshot.chunklist import leaves
from replicator.snapshot.readfile import CHANGED, LARGE_XATTRS, NO_LONGER_FILE, UNLISTED_XATTRS, ReadFile
from replicator.snapshot.rules import Rules
from replicator.snapshot.sink import ChunkPutter
from replicator.snapshot.statcache import STAMP_SIZE, StatCache, StatCacheWriter
from replicator.snapshot.tree import TreeReader
from replicator.snapshot.walk import VANISHED, Found
from tests.snapshot.fakesource import FakeSource, fails
from tests.snapshot.support import SMALL_CHUNKER, MemorySink, attribute, captured

KEY = bytes(32)
OLD = 1_000_000_000_000_000_000


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "top").mkdir()
    return tmp_path / "top"


def filled(path: Path, size: int, seed: int = 0) -> bytes:
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return data


def entries_of(sink: MemorySink, found: Captured) -> dict[str, Entry]:
    return {os.fsdecode(b"/".join(path)): one for path, one in TreeReader(sink).walk(found.tree)}


def bytes_of(sink: MemorySink, one: Entry) -> bytes:
    assert one.content is not None
    return b"".join(sink.get(CHUNK_DATA, ref) for ref in leaves(one.content, sink))


def gaps_of(found: Captured) -> list[tuple[bytes, str]]:
    return [(os.path.basename(path), reason) for path, reason in found.gaps]


class Night:
    """Captures with a stat cache that lives from one capture to the next. Files are as old as the test says."""

    def __init__(self, sink: MemorySink, folder: Path) -> None:
        self.sink = sink
        self.cache = f"{folder}/cache"
        self.now_ns = time.time_ns() + 10**10

    def capture(self, *roots: Path, **options: Any) -> Captured:
        cache = StatCache.open(self.cache, KEY)
        record = StatCacheWriter(f"{self.cache}.new", KEY, now_ns=self.now_ns)
        found = captured(self.sink, *roots, cache=cache, record=record, **options)
        record.commit_as(self.cache, PosixFs())
        cache.close()
        return found


@pytest.fixture
def night(sink: MemorySink, tmp_path: Path) -> Night:
    return Night(sink, tmp_path)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 70_000, 1_000_000])
def test_files_of_any_size_are_kept_byte_for_byte(sink: MemorySink, top: Path, size: int) -> None:
    data = filled(top / "file", size)
    found = captured(sink, top)
    one = entries_of(sink, found)["top/file"]
    assert bytes_of(sink, one) == data
    assert one.size == size
    assert found.counts == Counts(files=1, folders=1, bytes=size, bytes_read=size)
    assert sink.puts[CHUNK_DATA] == (0 if size == 0 else 1 if size <= 1024 else sink.puts[CHUNK_DATA])


def test_large_files_are_cut_by_the_chunker(sink: MemorySink, top: Path) -> None:
    data = filled(top / "file", 1_000_000)
    offsets, _ = SMALL_CHUNKER.cuts(data)
    one = entries_of(sink, captured(sink, top))["top/file"]
    assert one.content is not None
    ends = [0]
    for ref in one.content.chunks:
        ends.append(ends[-1] + ref.length)
    assert ends[1:] == list(offsets)


def test_metadata_is_kept(sink: MemorySink, top: Path) -> None:
    filled(top / "file", 5)
    os.chmod(top / "file", 0o6751)  # noqa: S103 - every bit is to be kept
    os.utime(top / "file", ns=(1, -123_456_789))
    status = os.stat(top / "file")
    one = entries_of(sink, captured(sink, top))["top/file"]
    assert (one.mode, one.mtime_ns, one.ctime_ns) == (0o6751, -123_456_789, status.st_ctime_ns)
    assert (one.uid, one.gid, one.changed, one.link, one.rdev) == (status.st_uid, status.st_gid, False, None, 0)
    if status.st_uid == 0:
        assert (one.user, one.group) == ("root", "root")


def test_an_owner_without_a_name_has_none(sink: MemorySink, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        filled(top / name, 1)

    def strange(path: bytes, fields: dict[str, Any]) -> None:
        if path.endswith(b"/a"):
            fields.update(st_uid=4_000_000_000, st_gid=4_000_000_000)
        if path.endswith(b"/b"):
            fields.update(st_uid=4242, st_gid=4242)

    def odd_name(number: int) -> SimpleNamespace:
        if number > 4242:
            raise KeyError(number)
        return SimpleNamespace(pw_name="odd \udcff", gr_name="odd \udcff")

    monkeypatch.setattr(pwd, "getpwuid", odd_name)
    monkeypatch.setattr(grp, "getgrgid", odd_name)
    found = entries_of(sink, captured(sink, top, source=FakeSource(alter=strange)))
    assert (found["top/a"].user, found["top/a"].group, found["top/a"].uid) == ("", "", 4_000_000_000)
    assert (found["top/b"].user, found["top/b"].group) == ("odd ?", "odd ?")


class TestRoots:
    def test_each_is_under_its_base_name_and_a_second_one_gets_a_number(self) -> None:
        paths = [b"/b/data", b"/a/data", b"/", b"/c/data-2", b"/d/data"]
        assert root_names(paths) == [
            RootFolder(path=path, name=name)
            for path, name in zip(paths, (b"data", b"data-2", b"root", b"data-2-2", b"data-3"), strict=True)
        ]

    def test_a_numbered_name_still_fits_a_name(self) -> None:
        long = b"/x/" + b"n" * 255
        assert [len(root.name) for root in root_names([long, long])] == [255, 255]

    def test_several_roots_lie_side_by_side(self, sink: MemorySink, tmp_path: Path) -> None:
        for name in ("z/data", "a/data"):
            (tmp_path / name).mkdir(parents=True)
            filled(tmp_path / name / name[0], 3)
        filled(tmp_path / "single", 4)
        found = captured(sink, tmp_path / "z" / "data", tmp_path / "single", tmp_path / "a" / "data/")
        assert list(entries_of(sink, found)) == ["data", "data/z", "data-2", "data-2/a", "single"]
        assert [root.name for root in found.roots] == [b"data", b"single", b"data-2"]
        assert found.counts.folders == 2

    def test_a_link_to_a_folder_is_followed(self, sink: MemorySink, top: Path) -> None:
        filled(top / "file", 3)
        os.symlink("top", top.parent / "link")
        assert list(entries_of(sink, captured(sink, top.parent / "link"))) == ["link", "link/file"]

    def test_one_that_is_missing_stops_everything_before_a_byte_is_read(self, sink: MemorySink, top: Path) -> None:
        filled(top / "file", 3)
        with pytest.raises(SourceError, match="zz-not-there"):
            captured(sink, top, top / "zz-not-there")
        assert sink.chunks == {}

    def test_none_at_all_is_a_mistake(self, sink: MemorySink) -> None:
        with pytest.raises(UsageError):
            captured(sink)

    def test_names_are_strings_or_bytes(self, sink: MemorySink, top: Path) -> None:
        os.mkdir(os.fsencode(top) + b"/\xff")
        assert list(entries_of(sink, captured(sink, os.fsencode(top) + b"/\xff"))) == ["\udcff"]


class TestUnchanged:
    def test_files_are_not_read_again(self, night: Night, top: Path) -> None:
        for number in range(5):
            filled(top / f"{number}", 1000 * number, number)
        first = night.capture(top)
        second = night.capture(top)
        assert (first.counts.unchanged, second.counts.unchanged) == (0, 5)
        assert second.counts.bytes_read == 0
        assert second.counts.bytes == first.counts.bytes == 10_000
        assert second.tree == first.tree
        assert night.capture(top).counts.unchanged == 5

    def test_they_are_relied_on_all_the_same(self, night: Night, top: Path) -> None:
        filled(top / "file", 200_000)
        night.capture(top)
        before = set(night.sink.relied)
        night.sink.relied.clear()
        night.capture(top)
        assert night.sink.relied == before

    def test_a_look_is_believed_under_its_own_name_alone(
        self, night: Night, top: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "stamp_of", lambda _status: b"s" * STAMP_SIZE)  # no clock, no inode
        for name in ("a", "b", "c"):
            filled(top / name, 100)
        night.capture(top)
        (top / "b").rename(top / "bb")
        found = night.capture(top)
        assert sorted(entries_of(night.sink, found)) == ["top", "top/a", "top/bb", "top/c"]

    @pytest.mark.parametrize("changed", [("a",), ("b",), ("z",), ("a", "b"), ("f/x", "z"), ()])
    def test_runs_of_them_keep_their_places_while_files_before_them_are_read(
        self, night: Night, top: Path, changed: tuple[str, ...]
    ) -> None:
        (top / "f").mkdir()
        (top / "m").mkdir()
        for name in ("a", "b", "f/x", "g", "h", "m/y", "n", "o", "z"):
            filled(top / name, 5000)
        night.capture(top)
        for name in changed:
            filled(top / name, 5001, 1)
        waiting: list[Callable[[], None]] = []

        class Later(InlineReader):
            def read(self, event: Found, done: Callable[[ReadFile], None]) -> None:
                read: list[ReadFile] = []
                super().read(event, read.append)
                waiting.append(lambda: done(read[0]))

            def drain(self) -> None:
                while waiting:
                    waiting.pop()()

        def later(lists: ChunkPutter, took: Took) -> InlineReader:
            return Later(night.sink, lists, SMALL_CHUNKER, took)

        found = night.capture(top, reader=later)
        assert found.counts.unchanged == 9 - len(changed)
        assert found.counts.files == 9
        assert found.counts.bytes == 9 * 5000 + len(changed)
        assert found.tree == captured(night.sink, top).tree

    def test_their_folders_are_not_written_again(self, night: Night, top: Path) -> None:
        (top / "folder").mkdir()
        for number in range(5):
            filled(top / "folder" / f"{number}", 100 + number, number)
        os.symlink("folder", top / "link")
        first = night.capture(top)
        before = dict(night.sink.puts)
        second = night.capture(top)
        assert night.sink.puts == before
        assert second.tree == first.tree
        assert (second.counts.others, second.counts.folders) == (1, 2)

    def test_a_changed_file_renews_its_folders_and_no_other(self, night: Night, top: Path) -> None:
        for name in ("a", "b/inner", "c"):
            (top / name).mkdir(parents=True)
            filled(top / name / "file", 100)
        night.capture(top)
        before = night.sink.puts[CHUNK_TREE]
        filled(top / "b" / "inner" / "file", 101, 1)
        found = night.capture(top)
        assert (found.counts.unchanged, found.counts.bytes_read) == (2, 101)
        assert night.sink.puts[CHUNK_TREE] == before + 4  # b/inner, b, top and the root around it
        assert entries_of(night.sink, found) == entries_of(night.sink, captured(night.sink, top))

    def test_of_a_large_folder_one_piece_is_renewed(self, night: Night, top: Path) -> None:
        for number in range(3000):
            (top / f"{number:05}").write_bytes(b"%d" % number)
        night.capture(top)
        before = night.sink.puts[CHUNK_TREE]
        (top / "01500").write_bytes(b"another")
        (top / "01501").unlink()
        (top / "01500-new").write_bytes(b"new")
        found = night.capture(top)
        assert found.counts.unchanged == 2998
        assert night.sink.puts[CHUNK_TREE] == before + 2
        assert found.tree == captured(MemorySink(), top).tree
        # What was kept is known the next time too.
        assert night.capture(top).counts.unchanged == 3000

    @pytest.mark.parametrize("where", ["first", "last"])
    def test_a_new_first_or_last_name_leaves_the_others_known(self, night: Night, top: Path, where: str) -> None:
        for number in range(700):
            (top / f"m{number:05}").write_bytes(b"x")
        night.capture(top)
        (top / ("a" if where == "first" else "z")).write_bytes(b"new")
        found = night.capture(top)
        assert (found.counts.unchanged, found.counts.bytes_read) == (700, 3)
        assert found.tree == captured(MemorySink(), top).tree

    def test_a_lost_piece_is_written_again(self, night: Night, top: Path) -> None:
        filled(top / "file", 100)
        first = night.capture(top)
        for key in [key for key in night.sink.chunks if key[0] == CHUNK_TREE]:
            del night.sink.chunks[key]
        found = night.capture(top)
        assert (found.tree, found.counts.bytes_read) == (first.tree, 0)
        assert list(entries_of(night.sink, found)) == ["top", "top/file"]

    @pytest.mark.parametrize("change", ["mode", "owner"])
    def test_metadata_is_renewed_without_reading(self, night: Night, top: Path, change: str) -> None:
        filled(top / "file", 100)
        night.capture(top)

        def alter(path: bytes, found: dict[str, Any]) -> None:
            if path.endswith(b"/file"):
                found["st_mode" if change == "mode" else "st_uid"] ^= 0o11

        found = night.capture(top, source=FakeSource(alter=alter))
        one = entries_of(night.sink, found)["top/file"]
        assert found.counts.bytes_read == 0
        status = os.stat(top / "file")
        assert (one.mode, one.uid) != (stat.S_IMODE(status.st_mode), status.st_uid)

    def test_a_renamed_owner_is_renewed(self, night: Night, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        filled(top / "file", 100)
        night.capture(top)
        monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="renamed"))
        found = night.capture(top)
        assert {one.user for one in entries_of(night.sink, found).values()} == {"renamed"}
        assert found.counts.bytes_read == 0

    def test_missing_attributes_are_looked_for_again_without_reading(self, night: Night, top: Path) -> None:
        filled(top / "file", 100)
        for _ in range(2):
            night.capture(top, source=FakeSource(fails("xattrs", b"file", errno.EACCES)))
        asked = []
        found = night.capture(top, source=FakeSource(lambda step, path: asked.append((step, os.path.basename(path)))))
        assert (found.counts.bytes_read, found.gaps) == (0, [])
        assert ("xattrs", b"file") in asked

    def test_attributes_of_what_is_as_it_was_are_not_asked_for(self, night: Night, top: Path) -> None:
        filled(top / "file", 100)
        night.capture(top)
        asked = []
        night.capture(top, source=FakeSource(lambda step, _: asked.append(step)))
        assert "xattrs" not in asked

    def test_a_name_of_another_kind_is_not_the_old_one(self, night: Night, top: Path) -> None:
        filled(top / "name", 100)
        night.capture(top)
        os.unlink(top / "name")
        (top / "name").mkdir()
        found = night.capture(top)
        assert entries_of(night.sink, found)["top/name"].kind == "dir"

    @pytest.mark.parametrize("change", ["size", "mtime", "ctime", "inode"])
    def test_any_sign_of_a_change_makes_it_read(self, night: Night, top: Path, change: str) -> None:
        filled(top / "file", 5000)
        os.utime(top / "file", ns=(OLD, OLD))
        night.capture(top)
        fields = {"size": "st_size", "mtime": "st_mtime_ns", "ctime": "st_ctime_ns", "inode": "st_ino"}

        def alter(path: bytes, found: dict[str, Any]) -> None:
            if path.endswith(b"/file"):
                found[fields[change]] += 1

        found = night.capture(top, source=FakeSource(alter=alter))
        assert found.counts.unchanged == 0
        assert found.counts.bytes_read >= 5000

    def test_a_lost_chunk_makes_it_read(self, night: Night, top: Path) -> None:
        data = filled(top / "file", 200_000)
        night.capture(top)
        del night.sink.chunks[next(key for key in night.sink.chunks if key[0] == CHUNK_DATA)]
        found = night.capture(top)
        assert found.counts.bytes_read == 200_000
        assert bytes_of(night.sink, entries_of(night.sink, found)["top/file"]) == data

    def test_what_was_written_just_now_is_read_again(self, night: Night, top: Path) -> None:
        filled(top / "file", 5000)
        night.now_ns = time.time_ns()
        night.capture(top)
        assert night.capture(top).counts.bytes_read == 5000

    def test_holes_are_known_without_opening(self, night: Night, top: Path) -> None:
        with open(top / "sparse", "wb") as file:
            file.truncate(1 << 20)
        first = night.capture(top)
        source = FakeSource(fails("open", b"sparse", errno.EIO))
        second = night.capture(top, source=source)
        assert entries_of(night.sink, second) == entries_of(night.sink, first)
        assert entries_of(night.sink, second)["top/sparse"].holes == [Hole(offset=0, length=1 << 20)]

    def test_long_chunk_lists_are_known_through_their_pieces(
        self, night: Night, top: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chunklist, "LIST_LIMIT", 8)
        monkeypatch.setattr(chunklist, "PIECE_MIN", 4)
        filled(top / "file", 4_000_000)
        first = night.capture(top)
        one = entries_of(night.sink, first)["top/file"]
        assert one.content is not None
        assert one.content.depth >= 2
        for _ in range(3):  # the pieces are carried from one generation to the next
            night.sink.relied.clear()
            assert night.capture(top).counts.bytes_read == 0
        needed = {ref.id for batch in chunklist.batches(one.content, night.sink) for ref in batch}
        assert night.sink.relied >= needed
        # A chunk far below is lost: the file is read although its list is there.
        del night.sink.chunks[CHUNK_DATA, list(leaves(one.content, night.sink))[-1].id]
        assert night.capture(top).counts.bytes_read == 4_000_000

    def test_a_list_whose_piece_is_not_cached_makes_it_read(
        self, night: Night, top: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chunklist, "LIST_LIMIT", 8)
        monkeypatch.setattr(chunklist, "PIECE_MIN", 4)
        filled(top / "file", 1_000_000)
        night.capture(top)
        monkeypatch.setattr(StatCache, "list_piece", lambda *_: None)
        assert night.capture(top).counts.bytes_read == 1_000_000

    def test_it_works_without_recording(self, night: Night, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunklist, "LIST_LIMIT", 8)
        monkeypatch.setattr(chunklist, "PIECE_MIN", 4)
        filled(top / "file", 1_000_000)
        night.capture(top)
        cache = StatCache.open(night.cache, KEY)
        assert captured(night.sink, top, cache=cache).counts.unchanged == 1
        cache.close()


class TestHardLinks:
    def test_a_file_with_several_names_is_read_once(self, night: Night, top: Path) -> None:
        filled(top / "a", 5000)
        for name in ("b", "c"):
            os.link(top / "a", top / name)
        found = night.capture(top)
        assert found.counts.bytes_read == 5000
        assert found.counts.bytes == 15_000
        entries = entries_of(night.sink, found)
        assert entries["top/a"].link == entries["top/b"].link == entries["top/c"].link is not None
        assert entries["top/a"].content == entries["top/c"].content
        assert night.capture(top).counts.unchanged == 3

    def test_links_remembered_are_forgotten_with_their_last_name(
        self, sink: MemorySink, top: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[Any] = []
        real = module._Capture

        def spy(*values: Any) -> Any:
            made.append(real(*values))
            return made[-1]

        monkeypatch.setattr(module, "_Capture", spy)
        filled(top / "a", 5)
        os.link(top / "a", top / "b")
        filled(top / "c", 5)
        os.link(top / "c", top.parent / "outside")
        captured(sink, top)
        assert list(made[0]._links) == [(os.stat(top / "c").st_dev, os.stat(top / "c").st_ino)]

    def test_beyond_the_limit_names_are_read_one_by_one(
        self, sink: MemorySink, top: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_LINKS", 0)
        filled(top / "a", 5000)
        os.link(top / "a", top / "b")
        found = captured(sink, top)
        assert found.counts.bytes_read == 10_000
        entries = entries_of(sink, found)
        assert entries["top/a"].link == entries["top/b"].link is not None

    def test_a_file_that_changed_since_its_first_name_is_read_again(self, sink: MemorySink, top: Path) -> None:
        filled(top / "a", 500)
        (top / "z").mkdir()  # neighbours are looked at together, before the first of them is read
        os.link(top / "a", top / "z" / "b")

        def rewrite(step: str, path: bytes) -> None:
            if (step, path[-2:]) == ("status", b"/b"):
                (top / "a").write_bytes(b"new content")

        found = captured(sink, top, source=FakeSource(rewrite))
        entries = entries_of(sink, found)
        assert bytes_of(sink, entries["top/z/b"]) == b"new content"
        assert len(bytes_of(sink, entries["top/a"])) == 500
        assert found.gaps == []

    def test_devices_are_numbered_as_they_are_met_and_large_inodes_fit(self, sink: MemorySink, top: Path) -> None:
        for name in ("a", "b"):
            filled(top / name, 1)

        def elsewhere(path: bytes, fields: dict[str, Any]) -> None:
            if path.endswith((b"/a", b"/b")):
                fields.update(st_nlink=2, st_dev=9999 if path.endswith(b"/b") else 1111, st_ino=2**64 - 1)

        entries = entries_of(sink, captured(sink, top, source=FakeSource(alter=elsewhere)))
        links = [entries[name].link for name in ("top/a", "top/b")]
        assert [(link.device, link.inode) for link in links if link] == [(0, 2**62 - 1), (1, 2**62 - 1)]

    def test_a_device_that_is_met_in_another_order_has_another_number(self, night: Night, top: Path) -> None:
        devices = {b"/a/file": 1111, b"/b/file": 2222}

        def elsewhere(path: bytes, fields: dict[str, Any]) -> None:
            for end, device in devices.items():
                if path.endswith(end):
                    fields.update(st_nlink=2, st_dev=device)

        for name in ("a", "b"):
            (top / name).mkdir()
            filled(top / name / "file", 1)
        night.capture(top, source=FakeSource(alter=elsewhere))
        del devices[b"/a/file"]
        found = entries_of(night.sink, night.capture(top, source=FakeSource(alter=elsewhere)))
        link = found["top/b/file"].link
        assert link is not None
        assert link.device == 0


class TestChanging:
    """A file that changes under the reader."""

    @staticmethod
    def source(top: Path, times: int, change: str, at: str = "read") -> FakeSource:
        left = [times]

        def hook(step: str, path: bytes) -> None:
            if step == at and path.endswith(b"/file") and left[0]:
                left[0] -= 1
                with open(top / "file", "r+b" if change == "shrink" else "ab") as file:
                    if change == "shrink":
                        file.truncate(max(0, os.stat(top / "file").st_size - 1000))
                    elif change == "grow":
                        file.write(b"more")
                if change == "touch":
                    os.utime(top / "file", ns=(left[0], left[0]))

        return FakeSource(hook)

    @pytest.mark.parametrize("size", [900, 100_000])
    @pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
    @pytest.mark.parametrize("times", [1, 2])
    def test_it_is_read_again_until_it_holds_still(
        self, sink: MemorySink, top: Path, size: int, change: str, times: int
    ) -> None:
        filled(top / "file", size)
        source = self.source(top, times, change)
        found = captured(sink, top, source=source)
        one = entries_of(sink, found)["top/file"]
        assert bytes_of(sink, one) == (top / "file").read_bytes()
        assert (one.changed, found.gaps) == (False, [])
        assert one.mtime_ns == os.stat(top / "file").st_mtime_ns
        assert source.open_handles == 0

    @pytest.mark.parametrize("size", [900, 100_000])
    @pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
    def test_in_the_end_it_is_kept_and_marked(self, sink: MemorySink, top: Path, size: int, change: str) -> None:
        filled(top / "file", size)
        found = captured(sink, top, source=self.source(top, 1000, change))
        one = entries_of(sink, found)["top/file"]
        assert one.changed
        assert gaps_of(found) == [(b"file", CHANGED)]
        assert found.counts.gaps == 1
        assert len(bytes_of(sink, one)) == one.size
        if change == "grow":  # a log: what was there when it was opened
            assert bytes_of(sink, one)[:size] == (top / "file").read_bytes()[:size]

    def test_it_is_not_recorded_as_unchanged(self, night: Night, top: Path) -> None:
        filled(top / "file", 5000)
        night.capture(top, source=self.source(top, 1000, "grow"))
        assert night.capture(top).counts.unchanged == 0

    def test_holes_never_reach_behind_the_end(self, sink: MemorySink, top: Path) -> None:
        with open(top / "file", "wb") as file:
            file.truncate(1 << 20)
        found = captured(sink, top, source=self.source(top, 1000, "shrink"))
        one = entries_of(sink, found)["top/file"]  # the reader of trees checks holes against the size
        assert one.changed
        assert one.size < 1 << 20

    def test_a_file_whose_size_lies_is_marked_every_time(self, night: Night, top: Path) -> None:
        filled(top / "file", 100)

        def like_proc(path: bytes, fields: dict[str, Any]) -> None:
            if path.endswith(b"/file"):
                fields["st_size"] = 0

        for _ in range(2):
            found = night.capture(top, source=FakeSource(alter=like_proc))
            assert gaps_of(found) == [(b"file", CHANGED)]
            assert entries_of(night.sink, found)["top/file"].changed

    @pytest.mark.parametrize("become", ["fifo", "gone", "folder", "link"])
    def test_one_that_became_something_else_is_a_gap(self, sink: MemorySink, top: Path, become: str) -> None:
        filled(top / "file", 100)
        filled(top / "other", 100)

        def hook(step: str, path: bytes) -> None:
            if step == "open" and path.endswith(b"/file"):
                os.unlink(top / "file")
                if become == "fifo":
                    os.mkfifo(top / "file")
                elif become == "folder":
                    (top / "file").mkdir()
                elif become == "link":
                    os.symlink("/etc/passwd", top / "file")

        found = captured(sink, top, source=FakeSource(hook))
        reasons = {
            "fifo": NO_LONGER_FILE,
            "folder": NO_LONGER_FILE,
            "gone": VANISHED,
            "link": os.strerror(errno.ELOOP),
        }
        assert gaps_of(found) == [(b"file", reasons[become])]
        assert list(entries_of(sink, found)) == ["top", "top/other"]


class TestGaps:
    @pytest.mark.parametrize("step", ["status", "open", "file status", "read", "holes"])
    @pytest.mark.parametrize("size", [100, 100_000])
    def test_a_file_that_cannot_be_read_is_named_and_the_rest_goes_on(
        self, sink: MemorySink, top: Path, step: str, size: int
    ) -> None:
        for name in ("a", "file", "z"):
            filled(top / name, size)

        def sparse(path: bytes, fields: dict[str, Any]) -> None:
            fields["st_blocks"] = 0

        source = FakeSource(fails(step, b"file", errno.EIO), alter=sparse)
        found = captured(sink, top, source=source)
        assert gaps_of(found) == [(b"file", "Input/output error")]
        assert list(entries_of(sink, found)) == ["top", "top/a", "top/z"]
        assert source.open_handles == 0

    def test_a_link_that_cannot_be_read_is_named(self, sink: MemorySink, top: Path) -> None:
        os.symlink("x", top / "link")
        found = captured(sink, top, source=FakeSource(fails("target", b"link", errno.EACCES)))
        assert gaps_of(found) == [(b"link", "Permission denied")]

    def test_a_link_that_leads_nowhere_possible_is_named(
        self, sink: MemorySink, top: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.symlink("x" * 20, top / "link")
        monkeypatch.setattr(module, "MAX_TARGET", 19)
        assert gaps_of(captured(sink, top)) == [(b"link", LONG_TARGET)]

    def test_attributes_that_cannot_be_read_are_named_and_the_file_is_kept(self, sink: MemorySink, top: Path) -> None:
        for error, why in ((errno.EACCES, "Permission denied"), (errno.ENOENT, "it vanished")):
            filled(top / "file", 5)
            found = captured(sink, top, source=FakeSource(fails("xattrs", b"file", error)))
            assert gaps_of(found) == [(b"file", UNLISTED_XATTRS + why)]
            assert "top/file" in entries_of(sink, found)

    def test_too_many_attributes_are_named(self, sink: MemorySink, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from replicator.snapshot.walk import PosixFolder

        filled(top / "file", 5)
        many = [attribute(b"user.%06d" % number, bytes(65536)) for number in range(17)]
        monkeypatch.setattr(PosixFolder, "xattrs", lambda _, name: many if name == b"file" else many[:1])
        found = captured(sink, top)
        assert gaps_of(found) == [(b"file", LARGE_XATTRS)]
        assert len(entries_of(sink, found)["top"].xattrs) == 1

    def test_an_unknown_kind_is_named(self, sink: MemorySink, top: Path) -> None:
        filled(top / "door", 0)  # Solaris has such

        def door(path: bytes, fields: dict[str, Any]) -> None:
            if path.endswith(b"/door"):
                fields["st_mode"] = 0o150644

        assert gaps_of(captured(sink, top, source=FakeSource(alter=door))) == [
            (b"door", "of a kind that is not known here (150000)")
        ]

    def test_they_are_named_up_to_a_limit_and_all_counted(
        self, sink: MemorySink, top: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from replicator.snapshot import gaps

        monkeypatch.setattr(gaps, "MAX_NAMED", 3)
        for number in range(5):
            filled(top / f"{number}", 1)

        def closed(step: str, path: bytes) -> None:
            if step == "open":
                raise PermissionError(errno.EACCES, "closed")

        found = captured(sink, top, source=FakeSource(closed))
        assert (len(found.gaps), found.counts.gaps) == (3, 5)

    def test_errors_of_the_sink_end_the_capture_and_are_no_gaps(self, top: Path) -> None:
        class Full(MemorySink):
            error: Exception = OSError(errno.ENOSPC, "spool")

            def put(self, kind: int, data: bytes | memoryview) -> ChunkRef:
                raise self.error

        for size in (100, 100_000):
            filled(top / "file", size)
            for error in (OSError(errno.ENOSPC, "spool"), SpaceError("full")):
                full = Full()
                full.error = error
                with pytest.raises(type(error)):
                    captured(full, top)


def test_devices_and_fifos_are_kept(sink: MemorySink, top: Path) -> None:
    os.mkfifo(top / "fifo")
    filled(top / "disk", 0)

    def disk(path: bytes, fields: dict[str, Any]) -> None:
        if path.endswith(b"/disk"):
            fields.update(st_mode=stat.S_IFBLK | 0o660, st_rdev=os.makedev(8, 1))

    found = captured(sink, top, source=FakeSource(alter=disk))
    entries = entries_of(sink, found)
    assert (entries["top/disk"].kind, entries["top/disk"].rdev) == ("block", os.makedev(8, 1))
    assert (entries["top/fifo"].kind, entries["top/fifo"].content) == ("fifo", None)
    assert found.counts.others == 2


def test_a_file_with_very_many_holes_keeps_the_largest(
    sink: MemorySink, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readfile, "MAX_HOLES", 2)
    with open(top / "file", "wb") as file:
        for place, length in ((0, 1), (4, 4), (12, 2), (20, 8)):
            file.seek((place + length) * 4096)
            file.write(b"x" * 4096)
    one = entries_of(sink, captured(sink, top))["top/file"]
    assert one.holes == sorted(one.holes, key=lambda hole: hole.offset)
    assert [hole.length // 4096 for hole in one.holes] == [6, 13]  # of 1, 6, 5 and 13 blocks
    assert bytes_of(sink, one) == (top / "file").read_bytes()


def test_holes_of_a_file_that_shrank_are_cut_to_what_is_left() -> None:
    holes = [
        Hole(offset=0, length=10),
        Hole(offset=10, length=5),
        Hole(offset=20, length=10),
        Hole(offset=40, length=5),
    ]
    assert readfile.kept_holes(holes, 25) == [Hole(offset=0, length=10), Hole(offset=20, length=5)]


def test_long_lists_need_no_cache(sink: MemorySink, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunklist, "LIST_LIMIT", 8)
    monkeypatch.setattr(chunklist, "PIECE_MIN", 4)
    data = filled(top / "file", 1_000_000)
    one = entries_of(sink, captured(sink, top))["top/file"]
    assert bytes_of(sink, one) == data
    assert sink.puts[CHUNK_LIST] > 0


def test_progress_is_told_of_every_entry_and_chunk(sink: MemorySink, top: Path) -> None:
    filled(top / "large", 500_000)
    filled(top / "small", 5)
    told: list[tuple[int, bytes]] = []
    captured(sink, top, progress=lambda counts, path: told.append((counts.bytes_read, os.path.basename(path))))
    assert told == sorted(told, key=lambda one: one[0])
    assert told[-1] == (500_005, b"top")
    assert len(told) == sink.puts[CHUNK_DATA] + 3


def test_folders_of_many_names_and_files_of_many_chunks_need_little_memory(top: Path) -> None:
    import tracemalloc

    class Forgetful(MemorySink):
        def put(self, kind: int, data: bytes | memoryview) -> ChunkRef:
            ref = super().put(kind, data)
            self.chunks.clear()
            self.relied.clear()
            return ref

    for number in range(5000):
        (top / f"{number:05}").write_bytes(b"")

    def peak() -> int:
        tracemalloc.start()
        captured(Forgetful(), top)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # Names take some 50 bytes each; entries would take ten times that. The buffer is 8 MiB.
    assert peak() < (8 << 20) + 5000 * 150 + (2 << 20)


def test_captures_of_unchanged_folders_store_the_same_pieces(sink: MemorySink, top: Path) -> None:
    (top / "folder").mkdir()
    filled(top / "folder" / "file", 5000)
    first = captured(sink, top)
    before = set(sink.chunks)
    assert captured(sink, top).tree == first.tree
    assert set(sink.chunks) == before
    assert sink.puts[CHUNK_LIST] == 0


def test_a_capture_takes_any_sequence(sink: MemorySink, top: Path) -> None:
    class Lazy(Sequence[str]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, place: Any) -> Any:
            return [os.fspath(top)][place]

        def __iter__(self) -> Iterator[str]:
            return iter([os.fspath(top)])

    assert capture(Lazy(), sink=sink, chunker=SMALL_CHUNKER, source=FakeSource()).counts.folders == 1


def test_a_full_path_leaves_out_what_lies_there_and_below_no_other_root(sink: MemorySink, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    twin = Path(f"{other}{one}")
    for folder in (one, other, twin):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").touch()
    found = captured(sink, one, other, rules=Rules(exclude=[f"{one}/file"]))
    assert (found.counts.files, found.skipped, found.skipped_by_reason) == (2, [], {})


def test_what_is_skipped_is_counted_by_reason(sink: MemorySink, top: Path) -> None:
    for name in ("a", "b", "c"):
        filled(top / name, 100)
    found = captured(sink, top, rules=Rules(largest=99))
    assert [os.path.basename(gap.path) for gap in found.skipped] == [b"a", b"b", b"c"]
    assert found.skipped_by_reason == {"larger than 99 B": 3}
    assert (found.gaps, found.counts.gaps, found.counts.files) == ([], 0, 0)
