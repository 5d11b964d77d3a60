"""Several who look at what is in a target and leave out what is right: the restore is that of one who looks at all."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from replicator.engine import looks as module
from replicator.engine.browse import ChunkFetcher
from replicator.engine.looks import Looks
from replicator.engine.writers import Writers
from replicator.errors import IntegrityError, NotFoundError, ReplicatorError
from replicator.format.pack import CHUNK_DATA, CHUNK_TREE
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import Entry
from replicator.snapshot import looking
from replicator.snapshot.apply import Applied, Applier
from replicator.snapshot.chunklist import extents
from replicator.snapshot.looking import Looked, Looker, Part, UnknownChunkError
from replicator.snapshot.metadata import Metadata, Rights
from replicator.snapshot.tree import TreePath, TreeReader
from tests.compare import Rules, compare
from tests.fakes import SeededRng
from tests.snapshot import nasty
from tests.snapshot.support import IS_ROOT, MemorySink, as_nobody, captured, entry, file_entry, folder_of, restored

RIGHTS = Rights(privileged=IS_ROOT, numeric_ids=True)
RULES = Rules(owners=IS_ROOT)


class Fetcher:
    """Chunks from memory, all of one pack; ``lost`` are those that nobody has."""

    def __init__(self, sink: MemorySink) -> None:
        self.sink = sink
        self.lost: set[bytes] = set()

    def place(self, ids: Sequence[bytes]) -> list[int]:
        return [0 for _ in ids]

    def get(self, kind: int, ref: ChunkRef) -> bytes:
        if ref.id in self.lost:
            raise NotFoundError("nobody has it")
        return self.sink.get(kind, ref)


class NoTrees:
    """No memory for packs: every piece is handed over."""

    has_empty = has_room = False

    def of(self, _pack: int) -> None:
        return None


class Lookers:
    """In place of writing processes: three that look in any order. ``at_hand`` chunks need not be handed over."""

    share = 3
    trees = NoTrees()

    def __init__(self, top: str, sink: MemorySink, at_hand: Callable[[ChunkRef], bool], entries: int) -> None:
        self._fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self._at_hand = at_hand
        self._sink = sink
        self._looker = Looker(self._fd, Metadata(RIGHTS), self._chunk)
        self._entries = entries
        self._rng = SeededRng("lookers")
        self._given: list[tuple[list[Part], Callable[[list[Looked]], None]]] = []
        self.looked = 0

    def _chunk(self, ref: ChunkRef) -> bytes:
        if not self._at_hand(ref):
            raise UnknownChunkError
        return self._sink.get(CHUNK_TREE, ref)

    @property
    def can_look(self) -> bool:
        return len(self._given) < self.share

    def look(self, parts: list[Part], _entries: int, saw: Callable[[list[Looked]], None]) -> None:
        self._given.append((parts, saw))

    def answer(self) -> None:
        """Let one of them be done."""
        parts, saw = self._given.pop(self._rng.below(len(self._given)))
        self.looked += len(parts)
        saw(self._looker.look(parts, self._entries))

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture(autouse=True)
def here() -> Iterator[None]:
    """Who looks moves about."""
    before = os.getcwd()
    yield
    os.chdir(before)


class Walked:
    """A restore over a target, of what lookers leave."""

    def __init__(
        self, sink: MemorySink, tree: ChunkList, target: Path, *, at_hand: Callable[[ChunkRef], bool], entries: int
    ) -> None:
        self.fetcher = Fetcher(sink)
        self.lookers = Lookers(str(target), sink, at_hand, entries)
        self.applier = Applier(str(target), rng=SeededRng(1), rights=RIGHTS, overwrite="if-changed")
        self.met: list[TreePath] = []
        self.lost: list[tuple[TreePath, str]] = []
        self._sink = sink
        self._tree = tree

    def entries(self) -> Iterator[tuple[TreePath, Entry]]:
        def skipped(folders: int, files: int, _size: int) -> None:
            self.applier.skip(folders, files)

        def lost(path: TreePath, error: ReplicatorError) -> None:
            self.lost.append((path, str(error)))

        looks = Looks(cast("ChunkFetcher", self.fetcher), cast("Writers[Any]", self.lookers), skipped)
        for one in looks.walk(self._tree, lost=lost):
            if one is None:
                self.lookers.answer()
            else:
                yield one

    def run(self) -> Applied:
        self.applier.begin()
        for path, one in self.entries():
            self.met.append(path)
            self.applier.add(path, one)
        self.lookers.close()
        for job in self.applier.jobs:
            for offset, ref in extents(job.content, self._sink):
                self.applier.write(job, offset, self._sink.get(CHUNK_DATA, ref))
        return self.applier.finish()


def everywhere(_ref: ChunkRef) -> bool:
    return True


def nowhere(_ref: ChunkRef) -> bool:
    return False


def half(ref: ChunkRef) -> bool:
    return ref.id[0] % 2 == 0


def change(top: Path, outside: Path) -> None:
    """Do to a restored tree what happens to trees."""
    more = [top / "new", top / "empty folder" / "more", top.joinpath(*map(str, range(70)), "bottom")]
    for path in more:
        path.write_bytes(b"not in the snapshot")
        os.utime(path, ns=(1, 1))
    (top / "large").write_bytes(b"other")
    os.chmod(top / "-rf", 0o600)
    os.utime(top / "tab\tbell\x07escape\x1b[31m", ns=(1, 1))
    os.unlink(top / "...")
    os.unlink(top / "loop")
    shutil.rmtree(top / "links")
    os.symlink(outside, top / "links")
    os.chmod(more[-1].parent, 0o700)


@pytest.mark.parametrize("entries", [1, 5, 2000])
@pytest.mark.parametrize("at_hand", [everywhere, nowhere, half])
def test_what_is_restored_and_told_is_the_same_as_of_one_who_looks_at_all(
    tmp_path: Path, entries: int, at_hand: Callable[[ChunkRef], bool]
) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    source.mkdir()
    outside.mkdir()
    (outside / "c").write_bytes(b"not ours")
    nasty.build(source)
    sink = MemorySink()
    tree = captured(sink, source).tree
    plain, looked = tmp_path / "plain", tmp_path / "looked"
    for target in (plain, looked):
        restored(sink, tree, target)
        change(target / "source", outside)
    expected = restored(sink, tree, plain, overwrite="if-changed")
    walk = Walked(sink, tree, looked, at_hand=at_hand, entries=entries)
    found = walk.run()
    assert found == expected
    assert compare(plain, looked, RULES) == []
    assert os.listdir(outside) == ["c"]
    everything = [path for path, _ in TreeReader(sink).walk(tree)]
    assert walk.met == [path for path in everything if path in set(walk.met)], "in the order of the tree"
    assert len(walk.met) < len(everything)
    assert walk.lookers.looked > 1


def test_what_is_as_it_was_is_not_met_at_all(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(40):
        folder = source / f"{number % 5}" / f"{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(b"%d" % number)
    sink = MemorySink()
    tree = captured(sink, source).tree
    restored(sink, tree, tmp_path / "target")
    walk = Walked(sink, tree, tmp_path / "target", at_hand=everywhere, entries=7)
    assert walk.run().counts == restored(sink, tree, tmp_path / "target", overwrite="if-changed").counts
    assert walk.met == []
    (tmp_path / "target" / "source" / "3" / "1" / "13").write_bytes(b"??")
    walk = Walked(sink, tree, tmp_path / "target", at_hand=everywhere, entries=7)
    walk.run()
    assert walk.met == [(b"source", *names) for names in ((), (b"3",), (b"3", b"1"), (b"3", b"1", b"13"))]


def test_a_folder_of_many_pieces_is_looked_at_by_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS", 1)
    sink = MemorySink()
    tree = folder_of(sink, [file_entry(sink, b"%06d" % number, b"x") for number in range(5000)])
    assert len(tree.chunks) > 3
    restored(sink, tree, tmp_path)
    os.unlink(tmp_path / "001500")
    walk = Walked(sink, tree, tmp_path, at_hand=everywhere, entries=1)
    counts = walk.run().counts
    assert (counts.kept, counts.files) == (4999, 1)
    assert walk.met == [(b"001500",)]
    assert walk.lookers.looked == len(tree.chunks)


def test_what_is_in_a_folder_is_looked_at_before_what_follows_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AHEAD", 0)  # nothing but what comes next in the tree: another would never be let go
    sink = MemorySink()
    inner = folder_of(sink, [file_entry(sink, b"in", b"x")])
    pieces = [
        folder_of(sink, [entry(name, "dir", content=inner), file_entry(sink, name + b"!", b"x")][:most]).chunks[0]
        for name, most in ((b"a", 1), (b"b", 2), (b"c", 1), (b"d", 2))
    ]
    tree = ChunkList(depth=0, length=sum(piece.length for piece in pieces), chunks=pieces)
    walk = Walked(sink, tree, tmp_path, at_hand=everywhere, entries=1)
    assert [path for path, _ in walk.entries()] == [path for path, _ in TreeReader(sink).walk(tree)]


def test_a_folder_that_is_lost_is_told_once_and_what_comes_after_it_is_restored(tmp_path: Path) -> None:
    sink = MemorySink()
    inner = [folder_of(sink, [file_entry(sink, b"in", b"%d" % number)]) for number in range(4)]
    tree = folder_of(sink, [entry(b"%d" % number, "dir", content=inner[number]) for number in range(4)])
    restored(sink, tree, tmp_path)
    for number in range(4):
        os.unlink(tmp_path / f"{number}" / "in")
    [gone] = inner[1].chunks
    walk = Walked(sink, tree, tmp_path, at_hand=lambda ref: ref != gone, entries=100)
    walk.fetcher.lost.add(gone.id)
    assert walk.run().counts.files == 3
    assert walk.lost == [((b"1",), "nobody has it")]


def test_names_out_of_order_are_refused_also_where_pieces_meet(tmp_path: Path) -> None:
    sink = MemorySink()
    pieces = [folder_of(sink, [file_entry(sink, name, b"x")]).chunks[0] for name in (b"b", b"a")]
    tree = ChunkList(depth=0, length=sum(piece.length for piece in pieces), chunks=pieces)
    (tmp_path / "a").write_bytes(b"x")
    walk = Walked(sink, tree, tmp_path, at_hand=everywhere, entries=100)
    list(walk.entries())
    assert [path for path, _ in walk.lost] == [()]
    assert "comes after" in walk.lost[0][1]


def test_a_piece_that_is_not_what_it_should_be_is_left_to_who_restores(tmp_path: Path) -> None:
    def damaged(_ref: ChunkRef) -> bytes:
        raise IntegrityError("damaged")

    sink = MemorySink()
    tree = folder_of(sink, [file_entry(sink, b"a", b"x")])
    fd = os.open(tmp_path, os.O_RDONLY)
    [looked] = Looker(fd, Metadata(RIGHTS), damaged).look([Part([], tree)], 10)
    os.close(fd)
    assert looked == Looked([looking.Rest(tree, b"", plain=True)], 0, 0, 0)


def test_a_folder_that_a_user_may_not_go_into_is_left_to_who_restores(tmp_path: Path) -> None:
    sink = MemorySink()
    me = {"uid": 65534, "gid": 65534} if IS_ROOT else {}
    closed = folder_of(sink, [file_entry(sink, b"in", b"x", **me)])
    one = entry(b"closed", "dir", content=closed, mode=0o300, **me)
    tree = folder_of(sink, [one, file_entry(sink, b"later", b"y", **me)])
    tmp_path.chmod(0o777)
    for above in tmp_path.parents:
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    with as_nobody():
        restored(sink, tree, tmp_path, privileged=False)
        fd = os.open(tmp_path, os.O_RDONLY)
        looker = Looker(fd, Metadata(Rights(privileged=False, numeric_ids=True)), lambda ref: sink.get(CHUNK_TREE, ref))
        [looked] = looker.look([Part([], tree)], 10)
        os.close(fd)
    rest = looking.Rest(closed, b"", plain=True)
    assert looked.items == [looking.Enter(one, needed=False), rest, looking.Leave()]
    assert (looked.folders, looked.files) == (0, 1)


def test_of_pieces_in_many_packs_each_is_handed_over_until_a_pack_is_worth_its_memory(tmp_path: Path) -> None:
    asked: list[str] = []
    sink = MemorySink()
    inner = [folder_of(sink, [file_entry(sink, b"in", b"%d" % number)]) for number in range(60)]
    tree = folder_of(sink, [entry(b"%02d" % number, "dir", content=inner[number]) for number in range(60)])
    restored(sink, tree, tmp_path)

    class Trees(NoTrees):
        has_room = True

        def of(self, _pack: int) -> Any:
            return "loaded" in asked or None

        def take(self) -> Any:
            return type("Slot", (), {"number": 0, "uses": 1})

        def filled(self, _slot: Any, _pack: int, _size: int) -> None:
            asked.append("loaded")

        def put(self, _number: int, data: bytes) -> int:
            return len(data)

    class Begun:
        def result(self) -> bytes:
            return b"pack"

    walk = Walked(sink, tree, tmp_path, at_hand=lambda _: "loaded" in asked, entries=1)
    walk.lookers.trees = Trees()
    get = walk.fetcher.get
    walk.fetcher.get = lambda kind, ref: (asked.append("piece"), get(kind, ref))[1]  # type: ignore[method-assign, func-returns-value]
    walk.fetcher.begin = lambda _pack: Begun()  # type: ignore[attr-defined]
    assert walk.run().counts.kept == 60
    assert asked == ["piece"] * module.OFTEN + ["loaded"]


def look(sink: MemorySink, tree: ChunkList, top: Path) -> list[looking.Item]:
    fd = os.open(top, os.O_RDONLY)
    [looked] = Looker(fd, Metadata(RIGHTS), lambda ref: sink.get(CHUNK_TREE, ref)).look([Part([], tree)], 100)
    os.close(fd)
    return looked.items


def grow(path: Path) -> None:
    status = path.stat()
    with path.open("ab") as file:
        file.write(b"more")
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def link_to_itself(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


CHANGES: dict[str, Callable[[Path], None]] = {
    "size": grow,
    "time": lambda path: os.utime(path, ns=(1, 1)),
    "mode": lambda path: path.chmod(0o600),
    "a further name": lambda path: os.link(path, path.with_name("further")),
    "an attribute": lambda path: os.setxattr(path, "user.more", b"value"),
    "a link": link_to_itself,
    "gone": lambda path: path.unlink(),
    "a fifo": lambda path: (path.unlink(), os.mkfifo(path))[1],  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_is_only_right_if_nothing_of_it_is_another(tmp_path: Path, what: str) -> None:
    sink = MemorySink()
    one = file_entry(sink, b"file", b"content")
    tree = folder_of(sink, [one, file_entry(sink, b"other", b"content")])
    restored(sink, tree, tmp_path)
    assert look(sink, tree, tmp_path) == []
    CHANGES[what](tmp_path / "file")
    assert look(sink, tree, tmp_path) == [looking.Need(one)]


@pytest.mark.skipif(not IS_ROOT, reason="only root gives things away")
def test_whose_a_thing_is_matters(tmp_path: Path) -> None:
    sink = MemorySink()
    one, folder = file_entry(sink, b"file", b"content"), entry(b"folder", "dir")
    tree = folder_of(sink, [one, folder])
    restored(sink, tree, tmp_path)
    os.chown(tmp_path / "file", -1, 7)
    os.chown(tmp_path / "folder", 7, -1)
    assert look(sink, tree, tmp_path) == [looking.Need(one), looking.Enter(folder, needed=True), looking.Leave()]


def test_a_link_in_the_place_of_a_folder_is_not_gone_through(tmp_path: Path) -> None:
    sink = MemorySink()
    inner = folder_of(sink, [file_entry(sink, b"in", b"content")])
    folder = entry(b"folder", "dir", content=inner)
    tree = folder_of(sink, [folder])
    restored(sink, tree, tmp_path)
    link_to_itself(tmp_path / "folder")
    rest = looking.Rest(inner, b"", plain=True)
    assert look(sink, tree, tmp_path) == [looking.Enter(folder, needed=True), rest, looking.Leave()]
    fd = os.open(tmp_path, os.O_RDONLY)
    [looked] = Looker(fd, Metadata(RIGHTS), lambda ref: sink.get(CHUNK_TREE, ref)).look([Part([b"folder"], inner)], 100)
    os.close(fd)
    assert looked.items == [rest]
