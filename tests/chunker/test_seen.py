"""The index on disk as its users see it: against a model, across crashes, with damaged files."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chunker import ChunkId, Location, ParameterError
from chunker.seen import DiskSeenIndex, SeenIndexError, rebuild
from chunker.seen import index as index_module
from replicator.fs import Fs, PosixFs
from tests.crashfs import Crash, CrashFs, no_space

OWNER = b"catalog of tests"
SMALL = 16  # rows of a table, so that few rows make many runs


@cache
def chunk(number: int) -> ChunkId:
    return ChunkId(random.Random(number).randbytes(32))


def chunks(*numbers: int) -> list[ChunkId]:
    return [chunk(number) for number in numbers]


def opened(folder: Path, files: Fs | None = None, *, writable: bool = True, table_rows: int = SMALL) -> DiskSeenIndex:
    return DiskSeenIndex(str(folder), files or PosixFs(), owner=OWNER, writable=writable, table_rows=table_rows)


class Model:
    """What an index may answer: the newest row that lives or, if a newer one was forgotten, perhaps an older one."""

    def __init__(self) -> None:
        self.rows: dict[ChunkId, list[tuple[Location, bool]]] = {}
        self.everything: set[ChunkId] = set()

    def add(self, number: int, ids: list[ChunkId]) -> None:
        for entry, name in enumerate(ids):
            self.rows.setdefault(name, []).append((Location(number, entry), True))
            self.everything.add(name)

    def forget(self, numbers: set[int]) -> None:
        for name, rows in self.rows.items():
            self.rows[name] = [(place, alive and place.object_number not in numbers) for place, alive in rows]

    def allows(self, name: ChunkId, answer: Location | None) -> bool:
        rows = self.rows.get(name, [])
        if rows and rows[-1][1]:
            return answer == rows[-1][0]
        return answer is None or (answer, True) in rows

    def check(self, index: DiskSeenIndex) -> None:
        names = sorted(self.everything)
        absent = chunks(*range(10_000, 10_040))
        for name, answer in zip(names, index.lookup(names), strict=True):
            assert self.allows(name, answer)
        assert index.lookup(absent) == [None] * len(absent)
        for name in names[:20]:
            assert self.allows(name, index.lookup([name])[0])


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 6), st.lists(st.integers(0, 60), max_size=24)),
        st.tuples(st.just("forget"), st.integers(0, 6), st.lists(st.integers(0, 6), max_size=3)),
        st.tuples(st.sampled_from(["reopen", "sync", "compact"]), st.just(0), st.just([])),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_the_index_answers_as_a_model_does(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int, list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("seen")
    model = Model()
    index = opened(folder, table_rows=4)
    for name, number, numbers in operations:
        if name == "add":
            index.add(number, chunks(*numbers))
            model.add(number, chunks(*numbers))
        elif name == "forget":
            index.forget({number, *numbers})
            model.forget({number, *numbers})
        elif name == "reopen":
            index.close()
            index = opened(folder, table_rows=4)
        elif name == "sync":
            index.sync()
        else:
            index.compact()
            assert index.runs <= 1
        model.check(index)
        with opened(folder, writable=False) as reader:
            model.check(reader)
    index.close()
    shutil.rmtree(folder)


def test_answers_come_in_the_order_asked_for_few_and_for_many(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        index.add(7, chunks(*range(100)))
        asked = [150, 3, 99, 3, 151, 0]
        expected = [None, (7, 3), (7, 99), (7, 3), None, (7, 0)]
        assert index.lookup(chunks(*asked)) == expected
        assert index.lookup(chunks(*asked * 50)) == expected * 50
        assert index.lookup([]) == []
        answer = index.lookup(chunks(5))[0]
        assert isinstance(answer, Location)
        many = index.lookup(chunks(*range(100)))
        assert all(isinstance(place, Location) and place.entry == at for at, place in enumerate(many))


def test_a_batch_larger_than_what_is_looked_up_at_a_time_is_answered_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_PART", 37)
    with opened(tmp_path / "seen") as index:
        index.add(1, chunks(*range(100)))
        answers = index.lookup(chunks(*range(120)))
    assert answers == [*(Location(1, at) for at in range(100)), *[None] * 20]


def test_a_chunk_stored_again_is_found_in_the_newer_object(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        for number in range(1, 6):
            index.add(number, chunks(*range(20)))
            assert index.lookup(chunks(4)) == [(number, 4)]
            assert index.lookup(chunks(*range(20))) == [(number, at) for at in range(20)]
        index.compact()
        assert index.rows == 20


def test_merging_several_runs_keeps_the_newest_row_of_each_chunk(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        index.add(1, chunks(*range(100)))
        index.add(2, chunks(*range(20)))
        index.add(3, chunks(*range(5)))
        assert index.runs == 2
        expected = [Location(3 if at < 5 else 2 if at < 20 else 1, at) for at in range(100)]
        assert index.lookup(chunks(*range(100))) == expected
        index.compact()
        assert (index.runs, index.rows) == (1, 100)
        assert index.lookup(chunks(*range(100))) == expected


def test_an_object_forgotten_and_added_again_is_found_again(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        index.add(1, chunks(*range(40)))
        index.forget([1])
        assert index.lookup(chunks(*range(40))) == [None] * 40
        assert index.lookup(chunks(1)) == [None]
        index.add(1, chunks(*range(5, 40)))
        expected = [None] * 5 + [Location(1, at) for at in range(35)]
        assert index.lookup(chunks(*range(40))) == expected
        index.compact()
        assert index.lookup(chunks(*range(40))) == expected
        assert index.rows == 35


def test_forgetting_everything_leaves_empty_files(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        for number in range(10):
            index.add(number, chunks(*range(number * 10, number * 10 + 10)))
        index.forget(range(10))
        index.compact()
        assert (index.rows, index.runs) == (0, 0)
        assert os.listdir(tmp_path / "seen") == ["manifest"]


def test_many_forgettings_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_FORGOTTEN", 10)
    model = Model()
    with opened(tmp_path / "seen") as index:
        for number in range(60):
            names = chunks(*range(number * 5, number * 5 + 5))
            index.add(number, names)
            model.add(number, names)
            if number % 2:
                index.forget([number])
                model.forget({number})
        model.check(index)
        assert os.path.getsize(tmp_path / "seen" / "manifest") < 500
        assert len(os.listdir(tmp_path / "seen")) < 20


def test_runs_stay_few_and_each_far_larger_than_the_next(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        most = 0
        for number in range(600):
            index.add(number, chunks(*range(number * 10, number * 10 + 10)))
            most = max(most, index.runs)
        counts = [run.count for run in index._runs]
        assert all(large >= index_module.RATIO * small for large, small in pairwise(counts))
        assert most <= 5
        assert index.lookup(chunks(5999, 3)) == [(599, 9), (0, 3)]


def test_sessions_that_add_little_do_not_leave_many_journals(tmp_path: Path) -> None:
    model = Model()
    for number in range(40):
        with opened(tmp_path / "seen", table_rows=10_000) as index:
            index.add(number, chunks(number))
            model.add(number, chunks(number))
            assert len(os.listdir(tmp_path / "seen")) < index_module.MAX_JOURNALS + 6
            model.check(index)


def test_ids_that_come_again_and_again_do_not_grow_the_files(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        for number in range(300):
            index.add(number, chunks(*range(10)))
            assert sum(os.path.getsize(tmp_path / "seen" / name) for name in os.listdir(tmp_path / "seen")) < 4000
        assert index.lookup(chunks(9)) == [(299, 9)]


def test_the_last_object_that_became_durable_is_known_after_opening(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        assert index.last_object == -1
        index.add(3, chunks(1))
    with opened(tmp_path / "seen") as index:
        assert index.last_object == 3
        index.add(9, [])
        index.add(4, chunks(*range(50)))
        index.forget([9, 4])
    with opened(tmp_path / "seen") as index:
        assert index.last_object == 9


def test_values_out_of_range_are_refused_and_change_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        for number in (-1, 2**32):
            with pytest.raises(ParameterError, match="object number"):
                index.add(number, chunks(1))
            with pytest.raises(ParameterError, match="object number"):
                index.forget([number])
        for wrong in (b"", bytes(31), bytes(33)):
            with pytest.raises(ParameterError, match="32 bytes"):
                index.add(1, [chunk(1), ChunkId(wrong)])
            with pytest.raises(ParameterError, match="32 bytes"):
                index.lookup([ChunkId(wrong)])
        index.forget([])
        assert index.rows == 0
        index.add(2**32 - 1, chunks(1))
        assert index.lookup(chunks(1)) == [(2**32 - 1, 0)]
    with pytest.raises(ParameterError, match="owner"):
        DiskSeenIndex(str(tmp_path / "seen"), PosixFs(), owner=b"short")
    with pytest.raises(ParameterError, match="table_rows"):
        opened(tmp_path / "seen", table_rows=0)


def test_an_index_of_another_owner_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "seen") as index:
        index.add(1, chunks(1))
    with pytest.raises(SeenIndexError, match=r"belongs to another catalog.*; rebuild it from the packs"):
        DiskSeenIndex(str(tmp_path / "seen"), PosixFs(), owner=b"another catalog!")


def test_a_reader_sees_what_was_there_and_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    with opened(folder, writable=False) as reader:
        assert reader.lookup(chunks(1)) == [None]
    assert not folder.exists()
    with opened(folder) as index:
        index.add(1, chunks(*range(20)))
        index.add(2, chunks(20, 21))
        with opened(folder, writable=False) as reader:
            index.add(3, chunks(*range(22, 60)))
            index.forget([1])
            index.compact()
            assert reader.lookup(chunks(0, 21, 22)) == [(1, 0), (2, 1), None]
            before = sorted(os.listdir(folder))
            changes: list[Callable[[], None]] = [partial(reader.add, 4, chunks(1)), partial(reader.forget, [1])]
            for change in [*changes, reader.sync, reader.compact]:
                with pytest.raises(SeenIndexError, match="reading only"):
                    change()
            assert sorted(os.listdir(folder)) == before
        assert index.lookup(chunks(0, 21, 22)) == [None, (2, 1), (3, 0)]


def test_a_reader_that_opens_while_a_writer_merges_looks_again(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    index = opened(folder)
    index.add(1, chunks(*range(20)))

    class Late(PosixFs):
        """Merges once, between the reader's look at the manifest and at what it names."""

        merges = 1

        def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
            data = super().read(path, offset, length)
            if path.endswith("manifest") and self.merges:
                self.merges = 0
                index.add(2, chunks(*range(20, 40)))
            return data

    with opened(folder, Late(), writable=False) as reader:
        assert reader.lookup(chunks(0, 39)) == [(1, 0), (2, 19)]
    index.close()


def test_a_closed_index_says_so(tmp_path: Path) -> None:
    index = opened(tmp_path / "seen")
    index.close()
    index.close()
    with pytest.raises(SeenIndexError, match="is closed"):
        index.lookup(chunks(1))
    with pytest.raises(SeenIndexError, match="is closed"):
        index.add(1, chunks(1))


def story(index: DiskSeenIndex, told: Callable[[str, int, list[ChunkId]], None]) -> None:
    """Tell each act before it begins (``add``, ``forget``, ``sync``) and ``done`` after it ended."""

    def act(name: str, number: int, ids: list[ChunkId], do: Callable[[], None]) -> None:
        told(name, number, ids)
        do()
        told("done", number, ids)

    for number in range(1, 9):
        ids = chunks(*range(number * 5, number * 5 + 7))
        act("add", number, ids, partial(index.add, number, ids))
        if number % 2:
            act("sync", 0, [], index.sync)
        if number in {3, 4, 6, 7}:
            act("forget", number - 1, [], partial(index.forget, [number - 1]))
    act("compact", 0, [], index.compact)
    act("add", 9, chunks(1, 2), lambda: index.add(9, chunks(1, 2)))


class Told:
    """What a crash must leave: rows that were made durable, and no row of an object whose forgetting ended."""

    def __init__(self) -> None:
        self.added: list[tuple[int, list[ChunkId]]] = []
        self.durable = 0
        self.forgotten: set[int] = set()
        self.forgetting: set[int] = set()
        self._now = ""

    def __call__(self, name: str, number: int, ids: list[ChunkId]) -> None:
        if name == "add":
            self.added.append((number, ids))
        elif name == "forget":
            self.forgetting.add(number)
        elif name == "done":
            if self._now == "forget":
                self.forgotten.add(number)
            if self._now in {"forget", "sync", "compact"}:
                self.durable = len(self.added)
        self._now = name

    def check(self, index: DiskSeenIndex) -> None:
        for number, ids in self.added:
            for entry, (name, answer) in enumerate(zip(ids, index.lookup(ids), strict=True)):
                places = {(n, names.index(name)) for n, names in self.added if name in names}
                assert answer is None or (answer in places and answer.object_number not in self.forgotten)
                newer = any(name in names for n, names in self.added if n > number)
                if number <= self.durable and number not in self.forgetting and not newer:
                    assert answer == (number, entry)
        assert index.damaged == 0


@pytest.mark.parametrize(
    "loss", ["kill", "power", "power, torn", "power, odd entries kept", "power, only the manifest kept"]
)
def test_a_crash_at_any_step_leaves_all_that_was_durable_and_nothing_forgotten(tmp_path: Path, loss: str) -> None:
    for stop in range(400):
        folder = tmp_path / str(stop) / "seen"
        folder.parent.mkdir()
        life = CrashFs(str(tmp_path / f"grave{stop}"))
        life.stop_at(stop)
        told = Told()
        ended = False
        try:
            story(opened(folder, life), told)
            ended = True
        except Crash:
            pass
        if loss != "kill":
            kept = set(life.pending()[1::2]) if "odd" in loss else set()
            kept |= {str(folder / "manifest")} if "manifest" in loss else set()
            life.power_loss(keep=kept.__contains__, torn="torn" in loss)
        life.close()
        for _ in range(2):
            with opened(folder) as index:
                told.check(index)
                index.add(20, chunks(999))
                assert index.lookup(chunks(999)) == [(20, 0)]
        with opened(folder) as index:
            index.compact()
            told.check(index)
        shutil.rmtree(folder.parent)
        if ended:
            assert stop > 80
            return
    raise AssertionError("the story has more steps than were tried")


@pytest.mark.parametrize("skip", ["fsync file seen", "fsync folder seen"])
def test_the_crash_test_notices_a_sync_that_is_left_out(tmp_path: Path, skip: str) -> None:
    life = CrashFs(str(tmp_path / "grave"), skip=skip)
    told = Told()
    story(opened(tmp_path / "seen", life), told)
    life.power_loss(keep=lambda _: False, torn=False)
    life.close()
    with pytest.raises((AssertionError, SeenIndexError)), opened(tmp_path / "seen") as index:
        told.check(index)


def test_a_crash_while_a_crash_is_cleaned_up_does_no_harm(tmp_path: Path) -> None:
    for first in range(20, 93, 9):
        for second in range(12):
            folder = tmp_path / f"{first}-{second}" / "seen"
            folder.parent.mkdir()
            told = Told()
            for stop in (first, second):
                life = CrashFs(str(tmp_path / f"grave-{first}-{second}-{stop}"))
                life.stop_at(stop)
                try:
                    index = opened(folder, life, table_rows=SMALL // 2 if stop == second else SMALL)
                    if stop == first:
                        story(index, told)
                    else:
                        index.close()
                except Crash:
                    pass
                life.power_loss(keep=lambda _: False, torn=True)
                life.close()
            with opened(folder) as index:
                told.check(index)
            shutil.rmtree(folder.parent)


@pytest.mark.parametrize("label", ["write seen", "fsync file seen", "replace seen", "fsync folder seen", "create seen"])
def test_after_a_failed_write_the_index_refuses_until_it_is_opened_again(tmp_path: Path, label: str) -> None:
    errors: dict[str, BaseException] = {}
    files = CrashFs(str(tmp_path / "grave"), errors=errors)
    index = opened(tmp_path / "seen", files)
    index.add(1, chunks(*range(12)))
    index.sync()
    errors[label] = no_space()
    with pytest.raises(OSError, match="No space left"):
        index.add(2, chunks(*range(12, 30)))
    errors.clear()
    for use in (lambda: index.lookup(chunks(1)), index.sync, lambda: index.forget([1])):
        with pytest.raises(SeenIndexError, match="must be opened again"):
            use()
    with opened(tmp_path / "seen") as index:
        assert index.lookup(chunks(*range(12))) == [(1, at) for at in range(12)]
        assert set(index.lookup(chunks(*range(12, 30)))) <= {None, *(Location(2, at) for at in range(18))}
    files.close()


def damaged_copies(path: Path) -> Iterator[bytes]:
    """The content with one flipped bit at each position in turn, then cut short at many."""
    good = path.read_bytes()
    rng = random.Random(len(good))
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << rng.randrange(8)
        yield bytes(bad)
    for length in range(0, len(good), 11):
        yield good[:length]


def test_a_flipped_bit_or_a_cut_anywhere_is_a_miss_or_a_refusal_and_never_a_wrong_place(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    model = Model()
    with opened(folder) as index:
        for number in range(1, 9):
            names = chunks(*range(number * 4, number * 4 + 7))
            index.add(number, names)
            model.add(number, names)
        index.forget([4, 8])
        model.forget({4, 8})
        index.add(10, chunks(100, 101))
        model.add(10, chunks(100, 101))
        index.add(11, chunks(102))
        model.add(11, chunks(102))
        assert index.runs
    names = sorted(model.everything)
    kinds = set()
    for name in sorted(os.listdir(folder)):
        good = (folder / name).read_bytes()
        kinds.add(name.split("-")[0])
        refused = answered = 0
        for bad in damaged_copies(folder / name):
            (folder / name).write_bytes(bad)
            try:
                with opened(folder, writable=False) as reader:
                    for asked in (names, names[:3]):
                        for chunk_id, answer in zip(asked, reader.lookup(asked), strict=True):
                            rows = model.rows[chunk_id]
                            assert answer is None or (answer, True) in rows
                answered += 1
            except SeenIndexError:
                refused += 1
        (folder / name).write_bytes(good)
        assert (refused > 0) == (not name.startswith("journal"))
        assert (answered > 0) == (name != "manifest")
    assert kinds == {"manifest", "run", "journal"}
    with opened(folder) as index:
        model.check(index)


def test_merging_a_damaged_run_drops_its_bad_rows_and_counts_them(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    with opened(folder) as index:
        index.add(1, chunks(*range(40)))
        [run] = [name for name in os.listdir(folder) if name.startswith("run-")]
    content = bytearray((folder / run).read_bytes())
    content[16 + 40 * 8 + 40 * 7 + 25] ^= 4  # the location of a row
    (folder / run).write_bytes(content)
    with opened(folder) as index:
        assert index.verify() == 1
        assert index.damaged == 0
        assert index.lookup(chunks(*range(40))).count(None) == 1
        assert index.damaged == 1
        index.add(2, chunks(*range(50, 70)))
        index.compact()
        assert index.rows == 59
        assert index.damaged == 2
        assert index.verify() == 0


def test_a_missing_run_is_refused_and_a_missing_manifest_is_an_empty_index(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    with opened(folder) as index:
        index.add(1, chunks(*range(40)))
    [run] = [name for name in os.listdir(folder) if name.startswith("run-")]
    os.rename(folder / run, tmp_path / "away")
    with pytest.raises(SeenIndexError, match=f"lacks {run}"):
        opened(folder)
    with pytest.raises(SeenIndexError, match=f"lacks {run}"):
        opened(folder, writable=False)
    os.rename(tmp_path / "away", folder / run)
    os.unlink(folder / "manifest")
    with opened(folder) as index:
        assert (index.rows, index.last_object) == (0, -1)
        assert os.listdir(folder) == ["manifest"]


def test_files_of_an_earlier_index_that_come_back_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    with opened(folder, table_rows=1000) as index:
        index.add(1, chunks(*range(20)))
    old = {name: (folder / name).read_bytes() for name in os.listdir(folder) if name != "manifest"}
    assert old
    rebuild(str(folder), PosixFs(), owner=OWNER, objects=[]).close()
    for name, content in old.items():
        (folder / name).write_bytes(content)
    with opened(folder) as index:
        assert index.lookup(chunks(*range(20))) == [None] * 20
    assert os.listdir(folder) == ["manifest"]


def test_rebuilding_replaces_whatever_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    with opened(folder) as index:
        index.add(1, chunks(*range(40)))
    (folder / "manifest").write_bytes(b"nonsense")
    with pytest.raises(SeenIndexError, match="rebuild"):
        opened(folder)
    objects = [(number, chunks(*range(number * 10, number * 10 + 15))) for number in range(2, 7)]
    model = Model()
    for number, ids in objects:
        model.add(number, ids)
    with rebuild(str(folder), PosixFs(), owner=OWNER, objects=iter(objects), table_rows=SMALL) as index:
        model.check(index)
        assert (index.runs, index.last_object) == (1, 6)
        assert index.lookup(chunks(0)) == [None]
    with opened(folder) as index:
        model.check(index)
        assert len(os.listdir(folder)) == 2


def test_a_rebuilding_that_fails_leaves_an_index_of_the_objects_so_far(tmp_path: Path) -> None:
    def objects() -> Iterator[tuple[int, list[ChunkId]]]:
        yield 1, chunks(*range(20))
        yield 2, chunks(20, 21)
        raise KeyError("a directory is unreadable")

    with pytest.raises(KeyError):
        rebuild(str(tmp_path / "seen"), PosixFs(), owner=OWNER, objects=objects(), table_rows=SMALL)
    with opened(tmp_path / "seen") as index:
        assert index.last_object == 2
        assert index.lookup(chunks(0, 21)) == [(1, 0), (2, 1)]


def test_a_crash_while_rebuilding_leaves_an_index_that_answers_rightly(tmp_path: Path) -> None:
    objects = [(number, chunks(*range(number * 10, number * 10 + 10))) for number in range(1, 6)]
    for stop in range(200):
        folder = tmp_path / str(stop) / "seen"
        with opened(folder) as index:
            index.add(1, chunks(*range(50)))  # another row for each chunk that is rebuilt: all are wrong by now
        life = CrashFs(str(tmp_path / f"grave{stop}"))
        life.stop_at(stop)
        ended = False
        try:
            rebuild(str(folder), life, owner=OWNER, objects=objects, table_rows=SMALL).close()
            ended = True
        except Crash:
            pass
        life.power_loss(keep=lambda _: False, torn=True)
        life.close()
        with opened(folder) as index:
            found = index.lookup(chunks(*range(60)))
            old = [*(Location(1, at) for at in range(50)), *[None] * 10]
            new = [None] * 10 + [Location(at // 10, at % 10) for at in range(10, 60)]
            assert found == old or all(place in {None, right} for place, right in zip(found, new, strict=True))
            assert not ended or found == new
        shutil.rmtree(folder.parent)
        if ended:
            assert stop > 30
            return
    raise AssertionError("rebuilding has more steps than were tried")


def test_a_hundred_thousand_rows_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    rng = random.Random(1)
    names = [ChunkId(rng.randbytes(32)) for _ in range(100_000)]
    absent = [ChunkId(rng.randbytes(32)) for _ in range(100_000)]
    with opened(folder, table_rows=20_000) as index:
        for number in range(1000):
            index.add(number, names[number * 100 : number * 100 + 100])
        index.forget([500])
    with opened(folder, table_rows=20_000) as index:
        expected = [None if at // 100 == 500 else Location(at // 100, at % 100) for at in range(100_000)]
        assert index.lookup(names) == expected
        assert index.lookup(absent) == [None] * len(absent)
        index.compact()
        assert index.lookup(names) == expected
        assert index.rows == 99_900
    assert sum(os.path.getsize(folder / name) for name in os.listdir(folder)) < 56 * 100_000


MEMORY = """
import random, sys
from chunker import Location
from chunker.seen import DiskSeenIndex
from replicator.fs import PosixFs

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

folder, objects = sys.argv[1], int(sys.argv[2])
before = peak()

def ids(number):
    raw = random.Random(number).randbytes(32 * 256)
    return [raw[at : at + 32] for at in range(0, len(raw), 32)]

with DiskSeenIndex(folder, PosixFs(), owner=bytes(16)) as index:
    for number in range(objects):
        index.add(number, ids(number))
    index.sync()
with DiskSeenIndex(folder, PosixFs(), owner=bytes(16)) as index:
    for start in range(0, objects, max(objects // 20, 1)):
        number = min(start, objects - 200)
        asked = sorted((chunk, Location(at, entry)) for at in range(number, number + 200)
                       for entry, chunk in enumerate(ids(at)))
        assert index.lookup([chunk for chunk, _ in asked]) == [place for _, place in asked]
        del asked
    index.compact()
    assert index.rows == objects * 256
print(peak() - before)
"""


def added_mib(folder: Path, objects: int) -> float:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder), str(objects)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_million_rows_take_no_more_memory_than_the_budget_and_few_bytes(tmp_path: Path) -> None:
    """Beyond the interpreter and numpy: additions, merges, batches of 51,200 ids and these ids themselves."""
    objects = 39_063
    assert added_mib(tmp_path / "seen", objects) < 64
    size = sum(os.path.getsize(tmp_path / "seen" / name) for name in os.listdir(tmp_path / "seen"))
    assert size < 56 * objects * 256
