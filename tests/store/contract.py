"""What every store is held to: folders, buckets in memory, buckets behind real servers."""

import itertools
import threading
from collections.abc import Callable

import pytest

from replicator.errors import FormatError, IntegrityError, NotFoundError
from replicator.format.merkle import LEAF_SIZE, name_of, proves
from replicator.format.sizes import LARGEST, SMALLEST
from replicator.ids import ObjectName
from replicator.store.base import ObjectStore
from tests.fakes import SeededRng

A, B = SeededRng("a").bytes(SMALLEST), SeededRng("b").bytes(2 * SMALLEST)
NA, NB = name_of(A), name_of(B)
Spoil = Callable[[ObjectName, bytes], None]
"""Writes other bytes in an object's place, behind its store's back."""


def put(store: ObjectStore, data: bytes, name: ObjectName | None = None) -> None:
    """Store an object in pieces."""
    incoming = store.begin(name or name_of(data), len(data))
    try:
        for at in range(0, len(data), 1 << 20):
            incoming.hash(data[at : at + (1 << 20)])
            incoming.write(data[at : at + (1 << 20)])
        incoming.commit()
    finally:
        incoming.abort()


class Contract:
    """A subclass gives the fixtures ``store`` and ``spoil``."""

    def test_what_was_put_can_be_read_listed_measured_and_proved(self, store: ObjectStore) -> None:
        put(store, A)
        put(store, B)
        assert store.read(NB) == B
        assert store.read(NB, SMALLEST, 100) == B[SMALLEST : SMALLEST + 100]
        assert store.read(NB, SMALLEST) == B[SMALLEST:]
        assert store.read(NB, SMALLEST, 10 * SMALLEST) == B[SMALLEST:]
        assert store.size(NB) == len(B)
        assert store.list() == sorted([(NA, len(A)), (NB, len(B))])
        assert store.check(NA) == store.check(NB) == "good"
        [first, last, none] = store.prove(NB, [0, len(B) // LEAF_SIZE - 1, len(B)])
        assert first is not None
        assert last is not None
        assert proves(NB, 0, first)
        assert proves(NB, last.index, last)
        assert none is None

    def test_the_largest_object_comes_back_whole(self, store: ObjectStore) -> None:
        data = SeededRng("large").bytes(LARGEST)
        put(store, data)
        assert store.read(name_of(data)) == data
        assert store.size(name_of(data)) == LARGEST
        store.remove(name_of(data))

    def test_sizes_of_many_are_those_of_each(self, store: ObjectStore) -> None:
        objects = [SeededRng(f"many {number}").bytes(SMALLEST) for number in range(12)]
        for data in objects[::2]:
            put(store, data)
        names = [name_of(data) for data in objects]
        assert list(store.sizes(names)) == [SMALLEST, None] * 6
        assert list(store.sizes(names[:2])) == [SMALLEST, None]
        assert list(store.sizes([])) == []

    def test_nothing_is_seen_before_the_commit_nor_left_after_an_abort(self, store: ObjectStore) -> None:
        incoming = store.begin(NA, len(A))
        incoming.hash(A)
        incoming.write(A)
        assert store.list() == []
        assert store.size(NA) is None
        incoming.abort()
        incoming.abort()
        assert store.list() == []
        assert store.check(NA) == "missing"

    def test_wrong_bytes_sizes_and_lengths_are_refused(self, store: ObjectStore) -> None:
        with pytest.raises(IntegrityError):
            put(store, A[:-1] + b"x", NA)
        with pytest.raises(FormatError, match="allowed size"):
            store.begin(NA, SMALLEST + 1)
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

    def test_the_same_object_again_is_no_error(self, store: ObjectStore) -> None:
        put(store, A)
        put(store, A)
        assert store.list() == [(NA, len(A))]

    @pytest.mark.parametrize("length", [len(A), len(A) // 2])
    def test_a_damaged_object_is_set_aside_replaced_and_then_forgotten(
        self, store: ObjectStore, spoil: Spoil, length: int
    ) -> None:
        put(store, A)
        spoil(NA, b"rot" + A[3:length])
        assert store.check(NA) == "damaged"
        assert store.check(NA) == "damaged"
        assert store.aside(NA)
        assert store.size(NA) is None
        put(store, A)
        assert not store.aside(NA)
        assert store.check(NA) == "good"

    def test_what_is_damaged_is_replaced_by_a_put_and_proves_nothing(self, store: ObjectStore, spoil: Spoil) -> None:
        put(store, A)
        spoil(NA, b"rot" + A[3:])
        assert store.prove(NA, [3]) == [None], "one leaf is right, but the object is not"
        assert store.aside(NA)
        spoil(NA, b"rot" + A[3:])
        put(store, A)
        assert store.read(NA) == A

    def test_what_is_removed_is_gone_also_from_quarantine(self, store: ObjectStore, spoil: Spoil) -> None:
        for data in (A, B):
            put(store, data)
        store.remove(NA)
        store.remove(NA)
        spoil(NB, b"rot" + B[3:])
        assert store.check(NB) == "damaged"
        store.remove_all([NA, NB])
        assert store.list() == []
        assert [store.check(name) for name in (NA, NB)] == ["missing", "missing"]
        with pytest.raises(NotFoundError):
            store.read(NA)

    def test_many_threads_putting_the_same_object_all_succeed(self, store: ObjectStore, spoil: Spoil) -> None:
        spoil(NA, b"in the way")
        failures: list[BaseException] = []

        def work() -> None:
            try:
                put(store, A)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.check(NA) == "good"

    def test_pieces_of_any_size_make_the_same_object(self, store: ObjectStore) -> None:
        incoming = store.begin(NB, len(B))
        for start, end in itertools.pairwise([0, 0, 1, 7, SMALLEST, SMALLEST + 3, len(B)]):
            incoming.hash(memoryview(B)[start:end])
            incoming.write(memoryview(B)[start:end])
        incoming.commit()
        incoming.abort()
        assert store.read(NB) == B
