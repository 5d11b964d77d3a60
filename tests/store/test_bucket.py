"""Objects in a bucket: nothing is believed that a bucket may get wrong, and no error becomes an absence."""

import errno
import os
from collections.abc import Iterator

import pytest

from replicator.errors import SpaceError
from replicator.format.merkle import name_of
from replicator.format.sizes import LARGEST, SMALLEST
from replicator.fs import PosixFs
from replicator.ids import ObjectName
from replicator.store.base import ObjectStore
from replicator.store.bucket import Anchored, BucketError, BucketObjectStore
from replicator.store.folder import FolderObjectStore
from tests.buckets import FaultyBucket, silent
from tests.crashfs import CrashFs, no_space
from tests.fakes import SeededRng
from tests.store.contract import NA, NB, A, B, Contract, Spoil, put

ANCHOR = "home/.replicator-store"
PREFIX = "home/tenant/"


@pytest.fixture
def bucket() -> FaultyBucket:
    made = FaultyBucket()
    made.put(ANCHOR, b"ours", fresh=True)
    return made


def store_in(bucket: FaultyBucket, path: str, fs: PosixFs | CrashFs | None = None) -> BucketObjectStore:
    anchored = Anchored(bucket, ANCHOR, b"ours")
    made = BucketObjectStore(anchored, PREFIX, fs or PosixFs(), os.path.join(path, "incoming"))
    made.prepare()
    return made


@pytest.fixture
def store(bucket: FaultyBucket, tmp_path: str) -> BucketObjectStore:
    return store_in(bucket, str(tmp_path))


class TestBucket(Contract):
    @pytest.fixture
    def spoil(self, bucket: FaultyBucket) -> Spoil:
        def spoil(name: ObjectName, data: bytes) -> None:
            bucket.inner.put(f"{PREFIX}objects/{name.hex()}", data, fresh=False)

        return spoil


class TestFolder(Contract):
    @pytest.fixture
    def store(self, tmp_path: str) -> ObjectStore:
        folders = {name: os.path.join(tmp_path, name) for name in ("folder", "incoming", "quarantine")}
        made = FolderObjectStore(PosixFs(), **folders)
        made.prepare()
        return made

    @pytest.fixture
    def spoil(self, tmp_path: str) -> Spoil:
        def spoil(name: ObjectName, data: bytes) -> None:
            with open(os.path.join(tmp_path, "folder", name.hex()), "wb") as file:
                file.write(data)

        return spoil


def test_a_write_that_the_bucket_lost_is_no_object(bucket: FaultyBucket, store: BucketObjectStore) -> None:
    bucket.losing = True
    with pytest.raises(BucketError):
        put(store, A)
    bucket.losing = False
    put(store, A)
    assert store.read(NA) == A


def test_what_is_larger_than_an_object_is_none_and_is_not_read_whole(
    bucket: FaultyBucket, store: BucketObjectStore
) -> None:
    """Whoever else has keys for the bucket may put there what he likes."""
    put(store, A)
    bucket.inner.put(f"{PREFIX}objects/{NA.hex()}", bytes(LARGEST + 3 * SMALLEST), fresh=False)
    assert len(store.read(NA)) == LARGEST + 1
    assert store.check(NA) == "damaged"
    put(store, A)
    assert store.check(NA) == "good"


def test_a_bucket_that_does_not_answer_says_nothing_about_an_object(
    bucket: FaultyBucket, store: BucketObjectStore, tmp_path: str
) -> None:
    put(store, A)
    bucket.fault = silent
    for work in (
        lambda: store.read(NA),
        lambda: store.size(NA),
        lambda: store.sizes([NA] * 9),
        lambda: store.check(NA),
        lambda: store.prove(NA, [0]),
        lambda: store.aside(NA),
        store.list,
        lambda: store.remove(NA),
        lambda: store.remove_all([NA]),
        lambda: put(store, B),
    ):
        with pytest.raises(BucketError):
            work()
    assert os.listdir(os.path.join(tmp_path, "incoming")) == []
    bucket.fault = lambda _verb, _key: None
    assert store.check(NA) == "good"
    assert not store.aside(NA)


def test_another_bucket_has_nothing_and_nothing_is_called_missing(
    bucket: FaultyBucket, store: BucketObjectStore
) -> None:
    put(store, A)
    bucket.elsewhere = True
    for work in (
        lambda: store.read(NA),
        lambda: store.size(NA),
        lambda: store.sizes([NA, NB] * 4),
        lambda: store.check(NA),
        lambda: store.prove(NA, [0]),
        lambda: store.remove(NA),
        lambda: store.remove_all([NA]),
    ):
        with pytest.raises(BucketError) as caught:
            work()
        assert caught.value.errno == errno.ENODEV


def test_what_a_bucket_says_to_have_deleted_and_has_not_is_an_error(
    bucket: FaultyBucket, store: BucketObjectStore
) -> None:
    put(store, A)
    bucket.keeping = True
    with pytest.raises(BucketError):
        store.remove(NA)
    with pytest.raises(BucketError):
        store.remove_all([NA])
    bucket.keeping = False
    store.remove_all([NA])
    assert store.size(NA) is None


def test_of_many_that_are_deleted_each_is_asked_for_and_the_anchor_once(
    bucket: FaultyBucket, store: BucketObjectStore
) -> None:
    names = sorted(ObjectName(SeededRng(f"gone {number}").bytes(32)) for number in range(300))
    keys = [f"{PREFIX}objects/{name.hex()}" for name in names]
    for key in keys:
        bucket.inner.put(key, b"x" * 10, fresh=True)
    put(store, A)  # which looks once what lies in quarantine
    bucket.asked.clear()
    store.remove_all(names)
    assert [key for verb, key in bucket.asked if verb == "size"] == keys
    assert [key for verb, key in bucket.asked if verb == "get"] == [ANCHOR]


@pytest.mark.parametrize("left", [0, 7, 29])
def test_one_of_many_that_is_still_there_is_an_error(bucket: FaultyBucket, store: BucketObjectStore, left: int) -> None:
    names = [ObjectName(SeededRng(f"left {number}").bytes(32)) for number in range(30)]
    keys = [f"{PREFIX}objects/{name.hex()}" for name in names]

    def comes_back(verb: str, key: str) -> None:
        if (verb, key) == ("size", keys[0]):
            bucket.inner.put(keys[left], b"x", fresh=False)

    bucket.fault = comes_back
    with pytest.raises(BucketError, match="Remote I/O error"):
        store.remove_all(names)


def test_a_bucket_that_is_another_after_the_deletion_has_deleted_nothing_for_sure(
    bucket: FaultyBucket, store: BucketObjectStore
) -> None:
    def changes(verb: str, _key: str) -> None:
        bucket.elsewhere |= verb == "size"

    put(store, A)
    put(store, B)
    bucket.fault = changes
    with pytest.raises(BucketError) as caught:
        store.remove_all([NA, NB])
    assert caught.value.errno == errno.ENODEV


def test_damaged_bytes_are_not_let_go_of_before_they_lie_aside(bucket: FaultyBucket, store: BucketObjectStore) -> None:
    put(store, A)
    key = f"{PREFIX}objects/{NA.hex()}"
    bucket.inner.put(key, b"rot" + A[3:], fresh=False)

    def no_copy(verb: str, _key: str) -> None:
        if verb == "copy":
            silent(verb, _key)

    bucket.fault = no_copy
    with pytest.raises(BucketError):
        store.check(NA)
    assert bucket.inner.get(key) == b"rot" + A[3:]
    bucket.fault = lambda _verb, _key: None
    assert store.check(NA) == "damaged"
    assert bucket.inner.get(f"{PREFIX}quarantine/{NA.hex()}") == b"rot" + A[3:]


def test_a_listing_that_lags_hides_nothing(bucket: FaultyBucket, store: BucketObjectStore) -> None:
    objects = [SeededRng(f"lag {number}").bytes(SMALLEST) for number in range(8)]
    for data in objects:
        put(store, data)
    bucket.last, bucket.blind = f"{PREFIX}objects/{name_of(objects[3]).hex()}", True
    assert list(store.sizes([name_of(data) for data in objects])) == [SMALLEST] * 8


def test_sizes_of_many_cost_a_request_for_each_page_not_for_each_name(
    bucket: FaultyBucket, store: BucketObjectStore
) -> None:
    names = sorted(ObjectName(SeededRng(f"page {number}").bytes(32)) for number in range(2500))
    for name in names:
        bucket.inner.put(f"{PREFIX}objects/{name.hex()}", b"x" * 10, fresh=True)
    bucket.asked.clear()
    assert list(store.sizes(names)) == [10] * 2500
    assert (bucket.count("list"), bucket.count("size")) == (3, 0)
    bucket.asked.clear()
    assert list(store.sizes([names[7], *names[2100:2107]])) == [10] * 8
    assert (bucket.count("list"), bucket.count("size")) == (2, 0)


def test_what_a_listing_lacks_is_asked_for_once_each(bucket: FaultyBucket, store: BucketObjectStore) -> None:
    put(store, A)
    names = [NA, *(ObjectName(SeededRng(f"lacking {number}").bytes(32)) for number in range(20))]
    bucket.asked.clear()
    assert list(store.sizes([*names, *names])) == [len(A), *[None] * 20] * 2
    assert bucket.count("size") == 20
    assert bucket.count("get") == len(["the anchor at the listing's end", "the anchor when all were asked for"])


def test_a_put_asks_twice_and_a_read_once(bucket: FaultyBucket, store: BucketObjectStore) -> None:
    put(store, A)
    bucket.asked.clear()
    put(store, B)
    assert [verb for verb, _ in bucket.asked] == ["put", "size"]
    bucket.asked.clear()
    store.read(NB)
    assert [verb for verb, _ in bucket.asked] == ["get"]


def test_quarantine_is_known_to_the_next_start(bucket: FaultyBucket, store: BucketObjectStore, tmp_path: str) -> None:
    put(store, A)
    bucket.inner.put(f"{PREFIX}objects/{NA.hex()}", b"rot" + A[3:], fresh=False)
    assert store.check(NA) == "damaged"
    after = store_in(bucket, str(tmp_path))
    assert after.aside(NA)
    put(after, A)
    assert bucket.held(f"{PREFIX}quarantine/") == []


def test_what_an_upload_left_behind_is_gone_at_the_next_start(bucket: FaultyBucket, tmp_path: str) -> None:
    first = store_in(bucket, str(tmp_path))
    incoming = first.begin(NA, len(A))
    incoming.hash(A[:10])
    incoming.write(A[:10])
    second = BucketObjectStore(Anchored(bucket, ANCHOR, b"ours"), PREFIX, PosixFs(), os.path.join(tmp_path, "incoming"))
    put(second, A)
    second.prepare()
    assert os.listdir(os.path.join(tmp_path, "incoming")) == []
    assert second.read(NA) == A


def test_a_full_disk_here_and_a_full_bucket_there_are_said_to_be_full(
    bucket: FaultyBucket, tmp_path: str, fs: CrashFs
) -> None:
    store = store_in(bucket, str(tmp_path), fs)
    fs.errors = {"write incoming": no_space()}
    with pytest.raises(SpaceError, match="No space left"):
        put(store, A)
    fs.errors = {}

    def full(verb: str, _key: str) -> None:
        if verb == "put":
            raise SpaceError("the bucket takes no more")

    bucket.fault = full
    with pytest.raises(SpaceError):
        put(store, A)
    assert os.listdir(os.path.join(tmp_path, "incoming")) == []


@pytest.fixture
def fs(tmp_path: str) -> Iterator[CrashFs]:
    found = CrashFs(os.path.join(tmp_path, "graveyard"))
    yield found
    found.close()


def test_keys_that_are_not_called_like_objects_are_passed_over(bucket: FaultyBucket, store: BucketObjectStore) -> None:
    put(store, A)
    bucket.inner.put(f"{PREFIX}objects/notes.txt", b"hello", fresh=True)
    bucket.inner.put(f"{PREFIX}objects/below/{NB.hex()}", b"hello", fresh=True)
    assert store.list() == [(NA, len(A))]
