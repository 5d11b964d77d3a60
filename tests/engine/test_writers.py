"""Files written by processes beside a restore: the same result as without, and an end in every case."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.engine import writers as module
from replicator.engine.writeframes import NewFile, Part, Setup, Unfinished, Wrote
from replicator.engine.writers import Order, Writers
from replicator.errors import ReplicatorError
from replicator.format.tree import Hole
from tests.fakes import SeededRng
from tests.pack.support import HASHERS, KEYS, RESTORE, sealed
from tests.snapshot.support import entry, open_fds

SETUP = Setup(keys=KEYS, restore_private=RESTORE, privileged=False, numeric_ids=True)
DATA = 1
ME = {"uid": os.geteuid(), "gid": os.getegid()}


def plain(number: int) -> bytes:
    return b"%d " % number * 1000


def name_of(data: bytes) -> bytes:
    return HASHERS[DATA](data)


def pack_of(*plains: bytes) -> bytes:
    return sealed(list(plains), rng=SeededRng(str(plains))).data


def new_file(name: bytes, data: bytes, *, identify: bool = False, size: int | None = None) -> NewFile:
    made = entry(name, "file", size=len(data) if size is None else size, mode=0o640, mtime_ns=7, **ME)
    return NewFile(made, name_of(data), identify)


def folder_order(context: int, folder: Path, *files: NewFile) -> Order[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    return Order(context, folders=[list(files)], descriptors=[fd])


class Answers:
    """What became of the orders."""

    def __init__(self) -> None:
        self.got: dict[int, Wrote] = {}

    def __call__(self, context: int, wrote: Wrote) -> None:
        self.got[context] = wrote


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture(params=[0, 2])
def pool(request: pytest.FixtureRequest, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writers[int]]:
    """Writers, none and two processes, started for the first byte."""
    before = open_fds()
    with started(request.param, answers, monkeypatch) as writers:
        yield writers
    assert open_fds() == before
    assert children() == []


def started(count: int, answers: Callable[[int, Wrote], None], monkeypatch: pytest.MonkeyPatch) -> Writers[int]:
    monkeypatch.setattr(module, "ALONE_BYTES", 0)
    return Writers(SETUP, count, answers)


def children() -> list[str]:
    pid = os.getpid()
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


def finish(writers: Writers[int]) -> None:
    while writers.busy:
        writers.poll(wait=True)


def send_and_finish(writers: Writers[int], pack: bytes, order: Order[int]) -> None:
    writers.send(1, pack, [order])
    finish(writers)


def test_files_are_made_whole_from_many_packs(pool: Writers[int], answers: Answers, tmp_path: Path) -> None:
    for number in range(9):
        while not pool.has_room():
            pool.poll(wait=True)
        name = b"%d" % number
        pool.send(number, pack_of(plain(number)), [folder_order(number, tmp_path, new_file(name, plain(number)))])
    finish(pool)
    assert sorted(answers.got) == list(range(9))
    for number in range(9):
        path = tmp_path / str(number)
        assert path.read_bytes() == plain(number)
        assert (path.stat().st_mode & 0o7777, path.stat().st_mtime_ns) == (0o640, 7)
        assert answers.got[number] == Wrote(answers.got[number].task)


@pytest.mark.process
def test_orders_from_one_pack_go_to_who_has_opened_it_until_another_waits(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(2, answers, monkeypatch) as writers:
        writers.start()
        orders = [folder_order(number, tmp_path, new_file(b"%d" % number, plain(1))) for number in range(6)]
        writers.send(1, pack_of(plain(1)), orders)
        first, second = (writers._writers.index(task.writer) for task in list(writers._tasks.values())[::3])
        assert [writers._writers.index(task.writer) for task in writers._tasks.values()] == [first] * 3 + [second] * 3
        assert first != second
        finish(writers)
    assert sorted(os.listdir(tmp_path)) == [f"{number}" for number in range(6)]


def test_parts_are_written_around_holes_through_a_descriptor(
    pool: Writers[int], answers: Answers, tmp_path: Path
) -> None:
    path = tmp_path / "unfinished"
    zeros = bytes(1 << 16)
    for number in range(2):
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 200_000)
        parts = [Part(name_of(zeros), 0, len(zeros)), Part(name_of(b"end"), 199_997, 3)]
        order = Order(number, files=[Unfinished([Hole(offset=0, length=1 << 16)], parts)], descriptors=[fd])
        pool.send(1 + number, pack_of(zeros, b"end"), [order])
        finish(pool)
    assert path.read_bytes() == bytes(199_997) + b"end"
    assert path.stat().st_blocks * 512 < 1 << 16
    assert [wrote.bad + wrote.failed for wrote in answers.got.values()] == [[], []]


def test_what_is_not_as_it_should_be_is_named_by_its_place_and_the_rest_is_written(
    pool: Writers[int], answers: Answers, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_bytes(b"mine")
    fd = os.open(tmp_path / "read only", os.O_RDONLY | os.O_CREAT)
    files = [
        new_file(b"good", plain(1), identify=True),
        new_file(b"missing", b"in no pack"),
        new_file(b"taken", plain(2)),
        new_file(b"longer", plain(2), size=len(plain(2)) + 1),
        new_file(b"last", plain(2)),
    ]
    for number in range(2):  # alone, then with processes if there are any
        folder = tmp_path / str(number)
        folder.mkdir()
        os.link(tmp_path / "taken", folder / "taken")
        order = folder_order(number, folder, *files)
        order.files.append(Unfinished([], [Part(name_of(plain(1)), 0, len(plain(1))), Part(bytes(32), 0, 1)]))
        order.descriptors.append(os.dup(fd))
        pool.send(number, pack_of(plain(1), plain(2)), [order])
        finish(pool)
        wrote = answers.got[number]
        status = os.stat(folder / "good")
        assert wrote.made == [(0, status.st_dev, status.st_ino)]
        assert [place for place, _ in wrote.bad] == [1, 3, 6]
        assert "not in the pack" in wrote.bad[0][1]
        assert "the list that names it says" in wrote.bad[1][1]
        assert wrote.failed == [(2, errno.EEXIST), (5, errno.EBADF)]
        assert sorted(os.listdir(folder)) == ["good", "last", "taken"]
        assert (folder / "taken").read_bytes() == b"mine"
    os.close(fd)


def test_a_pack_that_cannot_be_opened_is_said(pool: Writers[int], answers: Answers, tmp_path: Path) -> None:
    damaged = bytearray(pack_of(plain(1)))
    damaged[200] ^= 1
    for number in range(2):
        pool.send(number, bytes(damaged), [folder_order(number, tmp_path, new_file(b"a", plain(1)))])
        finish(pool)
        assert answers.got[number].unreadable
    assert os.listdir(tmp_path) == []


@pytest.mark.process
def test_a_pack_that_is_kept_is_sent_from_again(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(2, answers, monkeypatch) as pool:
        pool.send(0, pack_of(plain(0)), [folder_order(0, tmp_path, new_file(b"alone", plain(0)))])
        assert not pool.has(0), "the first ones are written without slots"
        for number in (1, 2, 3):
            pool.send(number, pack_of(plain(number)), [])
        assert not pool.keep(0)
        assert pool.keep(1)
        pool.send(4, pack_of(plain(4)), [])
        pool.send(5, pack_of(plain(5)), [])
        pool.send(6, pack_of(plain(6)), [])
        assert pool.has(1)
        assert not pool.has(2)
        pool.send(1, None, [folder_order(1, tmp_path, new_file(b"kept", plain(1)))])
        finish(pool)
        assert (tmp_path / "kept").read_bytes() == plain(1)
        for number in (7, 8, 9):
            pool.send(number, pack_of(plain(number)), [])
        assert not pool.has(1), "it is let go once it was sent from"


@pytest.mark.process
def test_a_slot_is_not_filled_again_before_all_that_read_it_are_done(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(2, answers, monkeypatch) as pool:
        pool.send(0, pack_of(b"x"), [])
        for writer in pool._writers:
            os.kill(writer.process.pid, signal.SIGSTOP)
        for number in range(3):
            for at in range(2):
                (tmp_path / f"{number}-{at}").mkdir()
            orders = [
                folder_order(number * 2 + at, tmp_path / f"{number}-{at}", new_file(b"%d" % at, plain(at)))
                for at in range(2)
            ]
            assert pool.has_room()
            pool.send(number, pack_of(plain(0), plain(1)), orders)
        assert not pool.has_room()
        for writer in pool._writers:
            os.kill(writer.process.pid, signal.SIGCONT)
        finish(pool)
        assert pool.has_room()
        for number in range(3):
            for at in range(2):
                assert (tmp_path / f"{number}-{at}" / str(at)).read_bytes() == plain(at)


@pytest.mark.process
def test_a_writer_that_is_gone_ends_the_restore(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(1, answers, monkeypatch) as pool:
        pool.send(0, pack_of(b"x"), [])
        os.kill(pool._writers[0].process.pid, signal.SIGKILL)
        order = folder_order(1, tmp_path, new_file(b"a", plain(1)))
        with pytest.raises(ReplicatorError, match="a writing process was ended by signal 9") as raised:
            send_and_finish(pool, pack_of(plain(1)), order)
        assert "--overwrite if-changed" in raised.value.hint, "the same command again would refuse what is there"
    assert children() == []


@pytest.mark.process
def test_what_a_writer_cannot_go_on_for_is_the_error(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without its descriptor."""
    with started(1, answers, monkeypatch) as pool:
        pool.send(0, pack_of(b"x"), [])
        order = folder_order(1, tmp_path, new_file(b"a", plain(1)))
        order.folders.append([])
        with pytest.raises(ReplicatorError, match="argument 2 is longer"):
            send_and_finish(pool, pack_of(plain(1)), order)
