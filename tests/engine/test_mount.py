"""Snapshots as a file system, without FUSE: every kind of object and name, trees that are not what they should be."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from replicator.catalog.snapshots import SnapshotRow
from replicator.clock import NS
from replicator.engine import mount
from replicator.engine.browse import OpenSnapshot
from replicator.engine.mount import Mounted, MountReport, Node, Shown, inode_of
from replicator.errors import FormatError, IntegrityError, NotFoundError
from replicator.format.codec import encode
from replicator.format.pack import CHUNK_DATA, CHUNK_TREE
from replicator.format.snapshot import ChunkList, ChunkRef, Snapshot, SnapshotDetails
from replicator.format.tree import Entry, Hole, TreePiece
from replicator.ids import ObjectName
from replicator.snapshot import folder as folder_module
from replicator.snapshot.chunklist import EMPTY
from tests.scenarios.world import PROMISE
from tests.snapshot import nasty
from tests.snapshot.support import IS_ROOT, MemorySink, captured, entry, file_entry, folder_of, hard_link

AT_NS = 1_794_880_800 * NS  # 2026-11-17T02:00:00Z
ME = (os.geteuid(), os.getegid())


class Source(MemorySink):
    """A store in memory that notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, bytes]] = []
        self.wanted: list[list[bytes]] = []

    def get(self, kind: int, ref: ChunkRef) -> bytes:
        self.asked.append((kind, ref.id))
        try:
            return super().get(kind, ref)
        except KeyError:
            raise NotFoundError("no reachable peer has it") from None

    def ahead(self, refs: Sequence[ChunkRef]) -> None:
        self.wanted.append([ref.id for ref in refs])


def shown(
    source: Source,
    tree: ChunkList,
    *,
    dataset: str = "docs",
    number: int = 1,
    writer: int = 1,
    node: str = "attic",
    at_ns: int | None = None,
) -> Shown:
    """Make a snapshot whose id begins with its number and writer."""
    name = ObjectName(bytes([number, writer]).ljust(32, b"\xab"))
    created_ns = AT_NS + number * NS if at_ns is None else at_ns
    row = SnapshotRow(
        name=name,
        writer=bytes([writer]) * 32,
        number=number,
        dataset="",
        created_ns=created_ns,
        published_ns=0,
        policy=b"",
        files=0,
        size=0,
        partial=False,
        indexes=(),
        references=(),
        head=b"",
        gaps=(),
    )
    snapshot = Snapshot(
        tenant=bytes(16),
        domain=bytes(16),
        writer=bytes([writer]) * 32,
        number=number,
        previous=bytes(32),
        previous_snapshot=bytes(32),
        charter=1,
        created_ns=created_ns,
        partial=False,
        policy=PROMISE,
        indexes=[],
        references=[],
        objects=0,
        size=0,
        files=0,
        seen=[],
        sealed=b"",
    )
    details = SnapshotDetails(dataset=dataset, host="", roots=[], tree=tree, tags=[], gaps=[])
    return Shown(snapshot=OpenSnapshot(row=row, snapshot=snapshot, details=details, node=node), source=source)


def one(source: Source, tree: ChunkList) -> Mounted:
    """Mount one snapshot at the top."""
    return Mounted([shown(source, tree)], owner=ME, direct=True)


def node_at(mounted: Mounted, path: bytes) -> Node:
    node = mounted.get(path)
    assert node is not None, path
    return node


def names(mounted: Mounted, path: bytes = b"") -> list[bytes]:
    return [line.name for line in mounted.entries(node_at(mounted, path))]


@pytest.fixture
def source() -> Source:
    return Source()


def everything(mounted: Mounted, path: bytes = b"") -> Iterator[Node]:
    """Walk a mount by what its folders list and what their names lead to."""
    for line in mounted.entries(node_at(mounted, path)):
        node = node_at(mounted, path + b"/" + line.name if path else line.name)
        assert (line.inode, line.kind) == (inode_of(node), stat.S_IFMT(mounted.stat(node).mode))
        yield node
        if node.entry.kind == "dir":
            yield from everything(mounted, node.path)


def test_a_nasty_tree_is_shown_as_it_was(source: Source, tmp_path: Path) -> None:
    top = tmp_path / "source"
    top.mkdir()
    nasty.build(top)
    os.unlink(top / "socket")
    mounted = one(source, captured(source, top).tree)
    base = os.fsencode(tmp_path) + b"/"
    inodes: dict[int, int] = {}
    seen = set()
    for node in everything(mounted):
        real, found = os.lstat(base + node.path), mounted.stat(node)
        shape = (found.mode, found.size, found.uid, found.gid, found.mtime_ns, found.ctime_ns, found.rdev)
        size = 0 if stat.S_ISDIR(real.st_mode) else real.st_size
        assert shape == (
            *(real.st_mode, size, real.st_uid, real.st_gid, real.st_mtime_ns, real.st_ctime_ns, real.st_rdev),
        ), node.path
        if not stat.S_ISDIR(real.st_mode) and real.st_nlink > 1:
            assert found.names > 1
            assert inodes.setdefault(real.st_ino, found.inode) == found.inode
        else:
            assert found.names == 1
        if stat.S_ISREG(real.st_mode):
            with open(base + node.path, "rb") as file:
                assert mounted.open(node).read(0, 10**7) == file.read(), node.path
            assert (found.blocks * 512 < found.size) == (real.st_blocks * 512 < real.st_size)
        if stat.S_ISLNK(real.st_mode):
            assert node.entry.target == os.readlink(base + node.path)
        attributes = {name: os.getxattr(base + node.path, name, follow_symlinks=False)
                      for name in os.listxattr(base + node.path, follow_symlinks=False)}  # fmt: skip
        assert {os.fsdecode(one.name): mounted.attribute(node, one.name) for one in node.entry.xattrs} == attributes
        seen.add(node.path)
    assert len(inodes) == 2, "a file and a symbolic link have several names"
    assert len(set(inodes.values())) == 2
    there = {
        (folder + b"/" + name).removeprefix(base)
        for folder, folders, files in os.walk(base + b"source")
        for name in (*folders, *files)
    }
    assert seen == there | {b"source"}
    assert not IS_ROOT or b"source/of somebody" in seen


def test_every_snapshot_has_a_folder_and_latest_leads_to_the_newest(source: Source) -> None:
    made = [
        shown(source, folder_of(source, [file_entry(source, b"file", b"%d" % number)]), number=number, dataset=dataset)
        for number, dataset in enumerate(("docs", "photos", "docs"), 1)
    ]
    mounted = Mounted(made, owner=ME)
    assert names(mounted) == [b"docs", b"photos"]
    first, third = b"2026-11-17T02.00.01Z-0101abab", b"2026-11-17T02.00.03Z-0301abab"
    assert names(mounted, b"docs") == [first, third, b"latest"]
    assert node_at(mounted, b"docs/latest").entry.target == third
    assert mounted.paths == [b"docs/" + first, b"photos/2026-11-17T02.00.02Z-0201abab", b"docs/" + third]
    for number, path in enumerate(mounted.paths, 1):
        assert mounted.open(node_at(mounted, path + b"/file")).read(0, 10) == b"%d" % number
        assert mounted.stat(node_at(mounted, path)).mtime_ns == AT_NS + number * NS
    numbers = [inode_of(node) for node in everything(mounted)]
    assert len(set(numbers)) == len(numbers) == 2 + 3 + 3 + 2
    for wrong in (b"none", b"docs/none", b"docs/latest/file", b"docs/" + first + b"/none", first):
        assert mounted.get(wrong) is None


def test_datasets_of_one_name_from_several_nodes_are_told_apart(source: Source) -> None:
    made = [
        shown(source, EMPTY, number=number, writer=writer, node=node, dataset=dataset)
        for number, (writer, node, dataset) in enumerate(
            ((1, "attic", "docs"), (2, "cellar", "docs"), (1, "attic", "photos"), (3, "cellar", "docs")), 1
        )
    ]
    found = names(Mounted(made, owner=ME))
    assert found[:2] == [b"docs@attic", b"docs@cellar"]
    assert found[2].startswith(b"docs@cellar~0303"), "two nodes of one name, too"
    assert found[3:] == [b"photos"]


@pytest.mark.parametrize("dataset", ["..", ".", "a/b", "ö" * 64, "🗄" * 64, "latest"])
def test_names_of_datasets_become_names_of_folders(source: Source, dataset: str) -> None:
    [name] = names(Mounted([shown(source, EMPTY, dataset=dataset)], owner=ME))
    assert b"/" not in name
    assert name not in (b".", b"..")
    assert len(name) <= 255
    name.decode()


@pytest.mark.parametrize("at_ns", [0, 2**62, 253_402_300_800 * NS])
def test_a_snapshot_of_any_time_is_shown(source: Source, at_ns: int) -> None:
    mounted = Mounted([shown(source, EMPTY, at_ns=at_ns)], owner=ME)
    [name, _] = names(mounted, b"docs")
    assert name.endswith(b"-0101abab")
    assert mounted.stat(node_at(mounted, b"docs/latest")).mtime_ns == at_ns


def test_a_large_folder_is_searched_not_read_and_listed_from_any_place(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "PIECE_ENTRIES", 16)
    every = [b"%06d" % number for number in range(0, 4000, 2)]
    tree = folder_of(source, [file_entry(source, name, name) for name in every])
    mounted = one(source, tree)
    source.asked.clear()
    assert node_at(mounted, b"002468").entry.name == b"002468"
    assert len(source.asked) <= 12, "half of the pieces are left out by each that is read"
    assert all(mounted.get(name) is None for name in (b"002469", b"0", b"9", b"\xff", b"002468/x"))
    assert all(mounted.get(name) is not None for name in every)
    lines = list(mounted.entries(mounted.top))
    assert [line.name for line in lines] == every
    assert len({line.after for line in lines}) == len(lines)
    for place in (0, 1, 15, 16, 17, 1000, 1998):
        rest = [line.name for line in mounted.entries(mounted.top, lines[place].after)]
        assert rest == every[place + 1 :]
    assert list(mounted.entries(mounted.top, lines[-1].after)) == []
    fresh = one(source, tree)
    source.asked.clear()
    listing = fresh.entries(fresh.top)
    next(listing)
    assert len(source.asked) == 1, "a folder is read as it is listed"


def test_a_path_of_a_thousand_folders_is_found(source: Source) -> None:
    tree = folder_of(source, [file_entry(source, b"bottom", b"deep")])
    for _ in range(1000):
        tree = folder_of(source, [entry(b"d", "dir", content=tree)])
    mounted = one(source, tree)
    path = b"d/" * 1000 + b"bottom"
    assert mounted.open(node_at(mounted, path)).read(0, 9) == b"deep"
    source.asked.clear()
    node_at(mounted, path)
    assert source.asked == []


def many_chunks(source: Source, count: int, size: int = 1000) -> tuple[Entry, bytes]:
    data = [number.to_bytes(2, "big") * (size // 2) for number in range(count)]
    refs = [source.put(CHUNK_DATA, part) for part in data]
    content = ChunkList(depth=0, length=count * size, chunks=refs)
    return entry(b"file", size=count * size, content=content), b"".join(data)


def test_any_part_of_a_file_is_read_from_its_chunks_alone(source: Source) -> None:
    file, data = many_chunks(source, 50)
    reading = (mounted := one(source, folder_of(source, [file]))).open(node_at(mounted, b"file"))
    for offset in (0, 1, 999, 1000, 1001, 25_500, 49_999, 50_000, 10**9):
        for size in (0, 1, 999, 1000, 1001, 5000, 10**6):
            source.asked.clear()
            assert reading.read(offset, size) == data[offset : offset + size]
            assert len(source.asked) <= size // 1000 + 2


def test_only_who_reads_on_is_read_ahead_for(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_SEQUENTIAL", 4000), ("_SLACK", 2000), ("AHEAD_BYTES", 10_000), ("_AHEAD_STEP", 3000)):
        monkeypatch.setattr(mount, name, value)
    file, _ = many_chunks(source, 50)
    mounted = one(source, folder_of(source, [file]))
    refs = [ref.id for ref in file.content.chunks] if file.content else []
    head = mounted.open(node_at(mounted, b"file"))
    head.read(0, 3000)
    for offset in (40_000, 10_000, 30_000, 0, 20_000):
        head.read(offset, 3000)
    assert source.wanted == []
    reading = mounted.open(node_at(mounted, b"file"))
    for offset in (0, 2000, 1000, 3000):  # parts come nearly in order
        assert source.wanted == []
        reading.read(offset, 1000)
    assert source.wanted == [refs[4:15]]
    reading.read(4000, 1000)
    reading.read(5000, 1000)
    assert len(source.wanted) == 1, "not at every read"
    for offset in range(6000, 50_000, 1000):
        reading.read(offset, 1000)
    assert len(source.wanted) > 5
    assert set().union(*source.wanted) == set(refs[4:])
    assert source.wanted[-1][-1] == refs[-1]


def test_holes_are_found_by_who_seeks_them(source: Source) -> None:
    data = b"a" * 100 + bytes(300) + b"b" * 100 + bytes(500)
    file = file_entry(source, b"f", data, holes=[Hole(offset=100, length=300), Hole(offset=500, length=500)])
    whole = file_entry(source, b"w", data)
    mounted = one(source, folder_of(source, [file, whole]))
    reading = mounted.open(node_at(mounted, b"f"))
    assert [reading.seek_data(at) for at in (0, 99, 100, 250, 400, 499, 500, 999, 1000)] == [
        *(0, 99, 400, 400, 400, 499, None, None, None),
    ]
    assert [reading.seek_hole(at) for at in (0, 100, 250, 400, 500, 700, 1000)] == [100, 100, 250, 500, 500, 700, None]
    assert mounted.stat(node_at(mounted, b"f")).blocks == 1
    assert mounted.stat(node_at(mounted, b"w")).blocks == 2
    assert mounted.open(node_at(mounted, b"w")).seek_hole(5) == 1000


def test_numbers_that_no_kernel_has_are_shown_as_nobodys(source: Source) -> None:
    file = entry(b"f", uid=2**32 - 1, gid=2**62, rdev=0)
    found = (mounted := one(source, folder_of(source, [file]))).stat(node_at(mounted, b"f"))
    assert (found.uid, found.gid) == (65534, 65534)


def test_owners_are_who_a_restore_would_make_them(source: Source) -> None:
    file = entry(b"f", uid=4711, gid=4712, user="root", group="no such group here")
    found = (mounted := one(source, folder_of(source, [file]))).stat(node_at(mounted, b"f"))
    assert (found.uid, found.gid) == (0, 4712)


def test_names_of_one_file_share_a_number_within_a_snapshot_only(source: Source) -> None:
    tree = folder_of(
        source,
        [
            file_entry(source, b"a", b"x", link=hard_link(7)),
            file_entry(source, b"b", b"x", link=hard_link(7)),
            file_entry(source, b"c", b"x", link=hard_link(8)),
            file_entry(source, b"d", b"x"),
        ],
    )
    mounted = Mounted([shown(source, tree), shown(source, tree, number=2)], owner=ME)
    [one, other] = [{name: inode_of(node_at(mounted, path + b"/" + name)) for name in (b"a", b"b", b"c", b"d")}
                    for path in mounted.paths]  # fmt: skip
    assert one[b"a"] == one[b"b"]
    assert len({*one.values(), *other.values()}) == 6
    again = Mounted([shown(source, tree), shown(source, tree, number=2)], owner=ME)
    assert inode_of(node_at(again, mounted.paths[0] + b"/a")) == one[b"a"]


def pieces(source: Source, *parts: list[Entry]) -> ChunkList:
    """Make a directory of pieces as no honest writer would."""
    refs = [source.put(CHUNK_TREE, encode(TreePiece(entries=part))) for part in parts]
    return ChunkList(depth=0, length=sum(ref.length for ref in refs), chunks=refs)


def test_a_directory_out_of_order_is_an_error_where_it_is(source: Source) -> None:
    a, b = entry(b"a"), entry(b"b")
    for bad in (pieces(source, [b, a]), pieces(source, [a, a]), pieces(source, [b], [a]), pieces(source, [a], [a])):
        mounted = one(source, bad)
        with pytest.raises(FormatError, match="comes after"):
            list(mounted.entries(mounted.top))
    huge = ChunkList(depth=1, length=1 << 60, chunks=[ChunkRef(id=bytes(32), length=1 << 60)])
    with pytest.raises(FormatError, match="can be shown"):
        next(one(source, huge).entries(one(source, huge).top))


def test_what_cannot_be_had_is_raised_and_is_no_absence(source: Source) -> None:
    ref = ChunkRef(id=bytes(32), length=100)
    nowhere = ChunkList(depth=0, length=100, chunks=[ref])
    tree = folder_of(
        source,
        [
            entry(b"dir", "dir", content=nowhere),
            entry(b"file", content=nowhere, size=100),
            file_entry(source, b"ok", b"1"),
        ],
    )
    mounted = one(source, tree)
    with pytest.raises(NotFoundError, match="no reachable peer"):
        mounted.get(b"dir/x")
    with pytest.raises(NotFoundError, match="no reachable peer"):
        mounted.open(node_at(mounted, b"file")).read(50, 1)
    assert mounted.open(node_at(mounted, b"ok")).read(0, 9) == b"1"


def test_trouble_is_told_once_and_without_control_characters() -> None:
    said: list[str] = []
    report = MountReport(said.append)
    for _ in range(3):
        report.unreadable(b"docs/\x1b[31m\xff", NotFoundError("nobody has it"))
    assert said == ["docs/\\x1b[31m\\xff: nobody has it"]
    assert (report.lost, report.damaged, report.failed) == (True, False, False)
    report.unreadable(b"x", IntegrityError("not the bytes"))
    assert (report.lost, report.damaged, report.failed) == (True, True, False)
    report.unreadable(b"x", OSError("disk"))
    assert report.failed
    report.damage("bob: other bytes")
    assert said[1:] == ["x: not the bytes", "x: unexpected OSError: disk", "INTEGRITY: bob: other bytes"]
