"""The folder store: whole or not at all, never overwritten, answers from the disk."""

import errno
import itertools
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.errors import FormatError, IntegrityError, NotFoundError, SpaceError
from replicator.format.merkle import LEAF_SIZE, name_of, proves
from replicator.format.sizes import LARGEST, SMALLEST
from replicator.fs import Fs, PosixFs
from replicator.ids import ObjectName
from replicator.store.base import ObjectStore
from replicator.store.folder import FolderObjectStore, parse_name
from tests.crashfs import CrashFs, no_space
from tests.fakes import SeededRng

A, B = SeededRng("a").bytes(SMALLEST), SeededRng("b").bytes(2 * SMALLEST)
NA, NB = name_of(A), name_of(B)


def _store(path: str, fs: Fs | None = None) -> FolderObjectStore:
    store = FolderObjectStore(
        fs or PosixFs(),
        folder=os.path.join(path, "objects"),
        incoming=os.path.join(path, "incoming"),
        quarantine=os.path.join(path, "quarantine"),
    )
    store.prepare()
    return store


@pytest.fixture
def store(tmp_path: str) -> FolderObjectStore:
    return _store(str(tmp_path))


@pytest.fixture
def fs(tmp_path: str) -> Iterator[CrashFs]:
    found = CrashFs(os.path.join(tmp_path, "graveyard"))
    yield found
    found.close()


def _file(tmp_path: str, name: ObjectName, folder: str = "objects") -> str:
    return os.path.join(tmp_path, folder, name.hex())


def put(store: ObjectStore, data: bytes) -> None:
    """Store an object in one piece."""
    incoming = store.begin(name_of(data), len(data))
    try:
        incoming.hash(data)
        incoming.write(data)
        incoming.commit()
    finally:
        incoming.abort()


def test_what_was_put_can_be_read_listed_and_proved(store: FolderObjectStore) -> None:
    put(store, A)
    put(store, B)
    assert store.read(NB) == B
    assert store.read(NB, SMALLEST, 100) == B[SMALLEST : SMALLEST + 100]
    assert store.read(NB, SMALLEST) == B[SMALLEST:]
    assert store.size(NB) == len(B)
    assert store.list() == sorted([(NA, len(A)), (NB, len(B))])
    assert store.check(NA) == store.check(NB) == "good"
    [first, last] = store.prove(NB, [0, len(B) // LEAF_SIZE - 1])
    assert first is not None
    assert last is not None
    assert proves(NB, 0, first)
    assert proves(NB, last.index, last)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 2 * SMALLEST), max_size=12))
def test_pieces_of_any_size_make_the_same_object(store: FolderObjectStore, cuts: list[int]) -> None:
    incoming = store.begin(NB, len(B))
    edges = [0, *sorted(cuts), len(B)]
    for start, end in itertools.pairwise(edges):
        incoming.hash(memoryview(B)[start:end])
        incoming.write(memoryview(B)[start:end])
    incoming.commit()
    assert store.read(NB) == B


def test_nothing_is_seen_before_the_commit_and_nothing_is_left_after_an_abort(
    store: FolderObjectStore, tmp_path: str
) -> None:
    incoming = store.begin(NA, len(A))
    incoming.hash(A)
    incoming.write(A)
    assert store.list() == []
    assert store.size(NA) is None
    incoming.abort()
    incoming.abort()
    assert store.list() == []
    assert os.listdir(os.path.join(tmp_path, "incoming")) == []
    assert store.check(NA) == "missing"


def test_an_abort_after_a_commit_changes_nothing(store: FolderObjectStore) -> None:
    incoming = store.begin(NA, len(A))
    incoming.hash(A)
    incoming.write(A)
    incoming.commit()
    incoming.abort()
    assert store.read(NA) == A


@pytest.mark.parametrize("size", [0, 1, SMALLEST - 1, SMALLEST + 1, 3 * SMALLEST // 2, 2 * LARGEST, -SMALLEST])
def test_only_objects_of_the_allowed_sizes_are_stored(store: FolderObjectStore, size: int) -> None:
    with pytest.raises(FormatError, match="allowed size"):
        store.begin(NA, size)


def test_other_bytes_than_the_name_says_or_another_number_of_them_are_refused(
    store: FolderObjectStore, tmp_path: str
) -> None:
    wrong = store.begin(NA, len(A))
    wrong.hash(A[:-1] + b"x")
    wrong.write(A[:-1] + b"x")
    with pytest.raises(IntegrityError):
        wrong.commit()
    short = store.begin(NA, len(A))
    short.hash(A)
    short.write(A[:-1])
    with pytest.raises(FormatError, match="65535 of 65536"):
        short.commit()
    long = store.begin(NA, len(A))
    with pytest.raises(FormatError, match="more than"):
        long.hash(A + b"x")
    long.abort()
    assert store.list() == []
    assert os.listdir(os.path.join(tmp_path, "incoming")) == []


def test_the_same_object_again_leaves_the_file_as_it_is(store: FolderObjectStore, tmp_path: str) -> None:
    put(store, A)
    before = os.stat(_file(tmp_path, NA)).st_ino
    put(store, A)
    assert os.stat(_file(tmp_path, NA)).st_ino == before
    assert os.stat(_file(tmp_path, NA)).st_nlink == 1


def test_a_damaged_object_is_set_aside_replaced_and_then_forgotten(store: FolderObjectStore, tmp_path: str) -> None:
    put(store, A)
    with open(_file(tmp_path, NA), "r+b") as file:
        file.write(b"rot")
    assert store.check(NA) == "damaged"
    assert store.check(NA) == "damaged"
    assert store.aside(NA)
    assert store.size(NA) is None
    with open(_file(tmp_path, NA, "quarantine"), "rb") as file:
        assert file.read() == b"rot" + A[3:]
    put(store, A)
    assert not store.aside(NA)
    assert os.listdir(os.path.join(tmp_path, "quarantine")) == []


def test_a_proof_is_made_from_the_disk_each_time(store: FolderObjectStore, tmp_path: str) -> None:
    put(store, A)
    assert store.prove(NA, [3])[0] is not None
    with open(_file(tmp_path, NA), "r+b") as file:
        file.seek(3 * LEAF_SIZE)
        file.write(b"rot")
    assert store.prove(NA, [0]) == [None], "one leaf is right, but the object is not"
    assert store.aside(NA)


def test_what_a_disk_cannot_read_is_damaged_but_other_errors_say_nothing_about_it(tmp_path: str, fs: CrashFs) -> None:
    store = _store(str(tmp_path), fs)
    put(store, A)
    fs.errors["read objects"] = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(OSError, match="Too many"):
        store.check(NA)
    with pytest.raises(OSError, match="Too many"):
        store.prove(NA, [0])
    assert not store.aside(NA)
    fs.errors["read objects"] = OSError(errno.EIO, "Input/output error")
    assert store.prove(NA, [0]) == [None]
    assert store.aside(NA)


def test_a_full_disk_is_said_to_be_full(tmp_path: str, fs: CrashFs) -> None:
    store = _store(str(tmp_path), fs)
    for step in ("create incoming", "write incoming", "fsync file incoming", "link objects"):
        fs.errors = {step: no_space()}
        with pytest.raises(SpaceError, match="No space left") as caught:
            put(store, A)
        assert caught.value.hint
        assert os.listdir(os.path.join(tmp_path, "incoming")) == []
    fs.errors = {}
    put(store, A)


def test_a_failed_fsync_is_final_for_that_file(tmp_path: str, fs: CrashFs) -> None:
    """After a failed fsync the kernel may call the lost pages clean: trying again would succeed and mean nothing."""
    store = _store(str(tmp_path), fs)
    fs.errors["fsync file incoming"] = OSError(errno.EIO, "Input/output error")
    incoming = store.begin(NA, len(A))
    incoming.hash(A)
    incoming.write(A)
    with pytest.raises(OSError, match="Input/output"):
        incoming.commit()
    assert os.listdir(os.path.join(tmp_path, "incoming")) == []
    assert store.list() == []


def test_the_steps_of_a_put_are_in_the_order_that_makes_it_durable(tmp_path: str, fs: CrashFs) -> None:
    store = _store(str(tmp_path), fs)
    fs.stop_at(None)
    put(store, A)
    assert fs.steps == [
        "create incoming",
        "write incoming",
        "fsync file incoming",
        "link objects",
        "fsync folder objects",
        "unlink incoming",
    ]
    assert fs.pending() == [os.path.join(tmp_path, "incoming", name) for name in [f"{NA.hex()}.0"]]


def test_names_of_an_earlier_process_are_not_reused_and_go_at_the_next_start(tmp_path: str) -> None:
    first = _store(str(tmp_path))
    incoming = first.begin(NA, len(A))
    incoming.hash(A[:10])
    incoming.write(A[:10])
    second = FolderObjectStore(
        PosixFs(),
        folder=os.path.join(tmp_path, "objects"),
        incoming=os.path.join(tmp_path, "incoming"),
        quarantine=os.path.join(tmp_path, "quarantine"),
    )
    put(second, A)
    assert len(os.listdir(os.path.join(tmp_path, "incoming"))) == 1
    second.prepare()
    assert os.listdir(os.path.join(tmp_path, "incoming")) == []
    assert second.read(NA) == A


def test_links_folders_and_foreign_files_are_no_objects(store: FolderObjectStore, tmp_path: str) -> None:
    outside = os.path.join(tmp_path, "outside")
    with open(outside, "wb") as file:
        file.write(A)
    os.symlink(outside, _file(tmp_path, NA))
    os.mkdir(_file(tmp_path, NB))
    with open(os.path.join(tmp_path, "objects", "notes.txt"), "wb") as file:
        file.write(A)
    assert store.list() == []
    for name in (NA, NB):
        with pytest.raises(NotFoundError):
            store.read(name)
        assert store.check(name) == "missing"
        assert store.prove(name, [0]) == [None]
    put(store, A)
    put(store, B)
    assert store.list() == sorted([(NA, len(A)), (NB, len(B))])
    assert not os.path.islink(_file(tmp_path, NA))


def test_a_removed_object_is_gone_and_removing_it_again_is_no_error(store: FolderObjectStore) -> None:
    put(store, A)
    store.remove(NA)
    store.remove(NA)
    assert store.list() == []
    with pytest.raises(NotFoundError):
        store.read(NA)


def test_many_threads_putting_the_same_object_all_succeed(store: FolderObjectStore, tmp_path: str) -> None:
    with open(_file(tmp_path, NA), "wb") as file:
        file.write(b"in the way")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            put(store, A)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.check(NA) == "good"
    assert os.listdir(os.path.join(tmp_path, "incoming")) == []


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "0x" + "00" * 31, "AB" * 32, "zz" * 32, "٠" * 64])
def test_a_name_is_64_lower_case_hex_digits(text: str) -> None:
    assert parse_name(text) is None
    assert parse_name("ab" * 32) == bytes.fromhex("ab" * 32)
