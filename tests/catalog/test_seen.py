"""The node's seen-index: what it finds, and that whatever becomes of its files, it never finds what is not so."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3

from chunker.seen import DiskSeenIndex
from replicator.catalog.catalog import Catalog
from replicator.catalog.seen import SeenChunks
from replicator.fs import Fs, PosixFs
from tests.crashfs import Crash, CrashFs
from tests.fakes import SeededRng

WRITER, OTHER = bytes([1]) * 32, bytes([2]) * 32
WEAK, STRONG = bytes([3]) * 16, bytes([4]) * 16
PACK = 40
"""Chunks in a pack: more than are looked up one by one."""


def chunk(number: int) -> bytes:
    """Return the id of a numbered chunk."""
    return blake3(f"chunk {number}".encode()).digest()


def pack_chunks(pack: int) -> list[bytes]:
    """Return the ids of a numbered pack's chunks."""
    return [chunk(pack * PACK + at) for at in range(PACK)]


class Node:
    """A catalog and the seen-index beside it, which may be closed, spoilt and opened again."""

    def __init__(self, path: Path, fs: Fs | None = None, seed: str = "node") -> None:
        self.path = path
        self.fs = fs or PosixFs()
        self.rng = SeededRng(seed)
        path.mkdir(exist_ok=True)
        self.catalog = Catalog(str(path / "catalog.db"), self.fs)
        self.seen = self.open()

    def open(self) -> SeenChunks:
        """Open the seen-index."""
        return SeenChunks(self.catalog, str(self.path / "seen"), self.fs, writer=WRITER, rng=self.rng)

    def row(
        self, pack: int, policy: bytes = WEAK, writer: bytes = WRITER, chunks: Sequence[bytes] | None = None
    ) -> int:
        """Let the catalog know a numbered pack."""
        return self.catalog.objects.add(
            name=blake3(f"pack {pack} {policy.hex()}".encode()).digest(),
            writer=writer,
            kind="data",
            size=65536,
            policy=policy,
            spooled=True,
            created_ns=1,
            chunk_ids=b"".join(pack_chunks(pack) if chunks is None else chunks),
        )

    def store(self, pack: int, policy: bytes = WEAK, chunks: Sequence[bytes] | None = None) -> int:
        """Let both know a numbered pack."""
        row = self.row(pack, policy, chunks=chunks)
        self.seen.add(row, policy)
        return row

    def again(self) -> None:
        """Close the seen-index and open it."""
        self.seen.close()
        self.seen = self.open()

    def close(self) -> None:
        self.seen.close()
        self.catalog.close()

    def folder(self, policy: bytes = WEAK) -> Path:
        return self.path / "seen" / policy.hex()

    def finds(self, *packs: int, policies: Sequence[bytes] = (WEAK,)) -> list[set[int | None]]:
        """Return for each numbered pack in which rows its chunks are found, whatever the catalog has being good."""
        good = {row.id for row in self.catalog.objects.all()}
        return [set(self.seen.lookup(pack_chunks(pack), policies, good)) for pack in packs]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    found = Node(tmp_path / "node")
    yield found
    found.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count how often an index is made from the catalog."""
    from chunker import seen

    calls: list[str] = []
    rebuild = seen.rebuild

    def counted(folder: str, *args: object, **how: object) -> DiskSeenIndex:
        calls.append(folder)
        return rebuild(folder, *args, **how)  # type: ignore[arg-type] # handed on as they come

    monkeypatch.setattr(seen, "rebuild", counted)
    return calls


def test_what_was_stored_is_found_and_nothing_else(node: Node) -> None:
    rows = [node.store(number) for number in range(3)]
    asked = [chunk(5), chunk(10_000), chunk(2 * PACK), chunk(5), chunk(PACK - 1)]
    expected = [rows[0], None, rows[2], rows[0], rows[0]]
    assert node.seen.lookup(asked, [WEAK], set(rows)) == expected
    assert node.seen.lookup(asked * 30, [WEAK], set(rows)) == expected * 30
    assert node.seen.lookup([], [WEAK], set(rows)) == []
    assert node.seen.lookup(asked, [], set(rows)) == [None] * 5


@pytest.mark.parametrize("how", ["synced", "closed without a sync", "never added"])
def test_what_was_stored_is_found_after_opening_again(node: Node, how: str, made: list[str]) -> None:
    first = node.store(0)
    node.seen.sync()
    second = node.row(1)
    if how != "never added":
        node.seen.add(second, WEAK)
    if how == "synced":
        node.seen.sync()
    node.again()
    assert node.finds(0, 1, 2) == [{first}, {second}, {None}]
    assert len(made) == 1, "only the first time"


def test_packs_that_are_added_out_of_order_are_all_found_after_opening_again(node: Node) -> None:
    rows = [node.row(number) for number in range(3)]
    for row in (rows[1], rows[2], rows[0]):
        node.seen.add(row, WEAK)
    assert node.finds(0, 1, 2) == [{row} for row in rows]
    node.seen.sync()
    node.again()
    assert node.finds(0, 1, 2) == [{row} for row in rows]


def test_a_pack_that_is_not_good_is_not_found_and_the_next_policy_is_asked(node: Node) -> None:
    strong = node.store(0, STRONG)
    weak = node.store(0, WEAK)
    asked = [chunk(0), chunk(10_000), chunk(1)]
    assert node.seen.lookup(asked, [WEAK, STRONG], {weak, strong}) == [weak, None, weak]
    assert node.seen.lookup(asked, [STRONG, WEAK], {weak, strong}) == [strong, None, strong]
    assert node.seen.lookup(asked, [WEAK, STRONG], {strong}) == [strong, None, strong]
    assert node.seen.lookup(asked, [WEAK], {strong}) == [None] * 3
    assert node.seen.lookup(asked, [WEAK, STRONG], set()) == [None] * 3


def test_each_policy_finds_its_own_newest_place(node: Node) -> None:
    node.store(0)
    later = node.store(7, chunks=pack_chunks(0))
    strong = node.store(0, STRONG)
    assert node.finds(0) == [{later}]
    assert node.finds(0, policies=[STRONG]) == [{strong}]
    node.again()
    assert node.finds(0) == [{later}]


def test_another_writers_packs_are_not_found(node: Node) -> None:
    node.row(0, writer=OTHER)
    node.store(1)
    assert node.finds(0) == [{None}]


def test_looking_in_policies_without_packs_makes_no_folder(node: Node) -> None:
    assert node.finds(0, policies=[STRONG, WEAK]) == [{None}]
    assert not (node.path / "seen").exists()
    row = node.store(0)
    assert node.finds(0, policies=[STRONG, WEAK]) == [{row}]
    assert os.listdir(node.path / "seen") == [WEAK.hex()]


def test_the_number_of_a_forgotten_pack_never_answers(node: Node) -> None:
    gone = [node.store(0), node.store(1)]
    node.seen.sync()
    node.catalog.objects.forget(gone)
    new = node.store(2)
    assert new not in gone
    assert node.finds(0, 1, 2) == [{None}, {None}, {new}]
    node.again()
    assert node.finds(0, 1, 2) == [{None}, {None}, {new}]


def test_a_folder_that_was_deleted_costs_nothing_but_time(node: Node, made: list[str]) -> None:
    rows = [node.store(number) for number in range(3)]
    node.seen.close()
    shutil.rmtree(node.path / "seen")
    node.again()
    assert node.finds(0, 1, 2, 3) == [{rows[0]}, {rows[1]}, {rows[2]}, {None}]
    assert len(made) == 2


@pytest.mark.parametrize("spoil", ["cut manifest", "cut run", "no run", "no manifest"])
def test_files_that_cannot_be_trusted_are_made_anew(node: Node, spoil: str) -> None:
    rows = [node.row(number) for number in range(3)]
    assert node.finds(0) == [{rows[0]}]
    node.seen.close()
    [run] = node.folder().glob("run-*")
    target = node.folder() / "manifest" if "manifest" in spoil else run
    if spoil.startswith("cut"):
        os.truncate(target, target.stat().st_size // 2)
    else:
        target.unlink()
    node.again()
    assert node.finds(0, 1, 2, 3) == [{rows[0]}, {rows[1]}, {rows[2]}, {None}]


def test_rows_that_are_damaged_are_not_found_and_are_there_again_the_next_time(node: Node, made: list[str]) -> None:
    row = node.row(0)
    assert node.finds(0) == [{row}]
    node.seen.close()
    [run] = node.folder().glob("run-*")
    data = bytearray(run.read_bytes())
    data[-40 * PACK // 2] ^= 1
    run.write_bytes(data)
    node.again()
    assert node.finds(0) == [{row, None}]
    node.again()
    assert node.finds(0) == [{row}]
    assert len(made) == 2


def test_a_file_that_is_cut_short_under_a_run_does_not_end_the_run(node: Node) -> None:
    row = node.row(0)
    assert node.finds(0) == [{row}]
    [run] = node.folder().glob("run-*")
    os.truncate(run, 64)
    assert node.finds(0) == [{row}]
    second = node.store(1)
    assert node.finds(0, 1) == [{row}, {second}]


def test_a_disk_that_fails_once_is_said_and_forgotten(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.store(0)
    second = node.row(1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr("chunker.seen.index.JournalWriter.append", full)
        with pytest.raises(OSError, match="No space"):
            node.seen.add(second, WEAK)
    node.seen.sync()
    third = node.store(2)
    assert node.finds(1, 2) == [{second}, {third}]


def test_the_index_of_another_catalog_is_not_believed(tmp_path: Path, node: Node) -> None:
    other = Node(tmp_path / "other", seed="other")
    other.store(5)
    row = node.store(6)
    assert node.seen.lookup(pack_chunks(5), [WEAK], {row}) == [None] * PACK
    for one in (node, other):
        one.seen.close()
    shutil.rmtree(node.path / "seen")
    shutil.copytree(other.path / "seen", node.path / "seen")
    node.again()
    assert node.finds(5, 6) == [{None}, {row}]
    other.close()


def lives(tmp_path: Path) -> tuple[Path, Path]:
    """Let a node store packs 0 to 9, its catalog being copied after 4; return the early copy and the late one."""
    node = Node(tmp_path / "node")
    copies = tmp_path / "early.db", tmp_path / "late.db"
    for number in range(10):
        node.store(number)
        node.seen.sync()
        if number in (4, 9):
            node.catalog.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copy(node.path / "catalog.db", copies[number == 9])
    node.close()
    return copies


def put_back(tmp_path: Path, copy: Path, seed: str) -> Node:
    """Make a copy of the catalog the catalog again; the seen-index is on another disk and stays."""
    for name in os.listdir(tmp_path / "node"):
        if name.startswith("catalog.db"):
            (tmp_path / "node" / name).unlink()
    shutil.copy(copy, tmp_path / "node" / "catalog.db")
    return Node(tmp_path / "node", seed=seed)


@pytest.mark.parametrize("elsewhere", [0, 3, 20])
def test_a_catalog_put_back_from_an_older_copy_does_not_believe_what_its_later_life_stored(
    tmp_path: Path, elsewhere: int
) -> None:
    """The numbers 6 to 10 were those of packs 5 to 9, and are given again, some while no index is open."""
    early, _ = lives(tmp_path)
    node = put_back(tmp_path, early, "second life")
    for number in range(100, 100 + elsewhere):
        node.row(number)
    rows = [node.store(number) for number in range(200, 210)]
    found = node.finds(*range(10), *range(200, 210))
    assert found == [*({number + 1} for number in range(5)), *[{None}] * 5, *({row} for row in rows)]
    node.close()


def test_catalogs_of_two_lives_that_take_turns_do_not_believe_each_others_index(tmp_path: Path) -> None:
    early, late = lives(tmp_path)
    node = put_back(tmp_path, early, "second life")
    for number in range(200, 210):
        node.store(number)
    node.close()
    node = put_back(tmp_path, late, "first life goes on")
    assert node.finds(*range(10), 200, 209) == [*({number + 1} for number in range(10)), {None}, {None}]
    node.close()


def test_an_index_is_never_believed_whose_folder_was_made_by_another_life(tmp_path: Path) -> None:
    early, late = lives(tmp_path)
    node = put_back(tmp_path, early, "second life")
    shutil.rmtree(node.path / "seen")
    for number in range(200, 203):
        node.store(number)
    node.seen.sync()
    node.close()
    node = put_back(tmp_path, late, "first life goes on")
    assert node.finds(*range(10), 200, 202) == [*({number + 1} for number in range(10)), {None}, {None}]
    node.close()


def story(node: Node, told: list[tuple[int, int]]) -> None:
    """Store, sync, forget and store again, noting what is durable in the catalog."""
    for number in range(4):
        row = node.row(number)
        told.append((number, row))
        node.seen.add(row, WEAK)
        if number % 2:
            node.seen.sync()
    number, row = told.pop(1)
    node.catalog.objects.forget([row])
    row = node.row(9)
    told.append((9, row))
    node.seen.add(row, WEAK)
    node.seen.sync()
    node.close()


def test_a_stop_at_any_step_leaves_an_index_that_agrees_with_the_catalog(tmp_path: Path) -> None:
    for stop in range(1000):
        for power_loss in (False, True):
            folder = tmp_path / f"{stop}-{power_loss}"
            folder.mkdir()
            fs = CrashFs(str(folder / "grave"))
            node = Node(folder / "node", fs)
            fs.stop_at(stop)
            told: list[tuple[int, int]] = []
            ended = False
            with suppress(Crash):
                story(node, told)
                ended = True
            with suppress(Crash):
                node.close()
            if power_loss:
                fs.power_loss(keep=lambda _: False, torn=True)
            fs.close()
            node = Node(folder / "node", seed="after")
            packs = {bytes(row.name): row.id for row in node.catalog.objects.all()}
            held = {pack: packs.get(blake3(f"pack {pack} {WEAK.hex()}".encode()).digest()) for pack in (*range(4), 9)}
            assert {pack: row for pack, row in told if row in packs.values()}.items() <= held.items()
            assert node.finds(*held) == [{row} for row in held.values()]
            new = node.store(50)
            assert node.finds(*held, 50) == [*({row} for row in held.values()), {new}]
            node.close()
            shutil.rmtree(folder)
        if ended:
            assert stop > 20
            return
    raise AssertionError("the story has more steps than were tried")


def test_importing_the_catalog_imports_no_numpy() -> None:
    names = "catalog", "objects", "seen", "schema"
    program = "; ".join([*(f"import replicator.catalog.{name}" for name in names), "import replicator.engine.backup"])
    program += "; import sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
