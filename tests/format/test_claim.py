from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from replicator.format.claim import set_root
from tests.format.samples import CLAIM, RECEIPT, WITNESS, accepted, refused, run


def test_the_root_of_a_set_is_the_hash_of_its_sorted_names() -> None:
    names = [run(7, 32), run(3, 32), run(200, 32)]
    assert set_root(names) == blake3(run(3, 32) + run(7, 32) + run(200, 32)).digest()
    assert set_root([]) == blake3(b"").digest()


@given(st.sets(st.binary(min_size=32, max_size=32), max_size=6), st.randoms())
def test_order_does_not_matter_to_the_root_of_a_set(names: set[bytes], random: Any) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)
    assert set_root(shuffled) == set_root(names)
    for name in names:
        assert set_root(names - {name}) != set_root(names)


@pytest.mark.parametrize("field", ["added", "dropped"])
def test_names_in_a_claim_are_whole(field: str) -> None:
    for bad in (b"x", bytes(31), bytes(33)):
        refused(CLAIM, **{field: bad})
    for good in (b"", bytes(32), bytes(640)):
        accepted(CLAIM, **{field: good})


@pytest.mark.parametrize(
    ("record", "field", "bad", "good"),
    [
        (CLAIM, "number", (0, -1), (1,)),
        (CLAIM, "base", (-1,), (0, 4)),
        (CLAIM, "tenant", (bytes(15),), (bytes(16),)),
        (CLAIM, "root", (bytes(31),), (bytes(32),)),
        (RECEIPT, "name", (bytes(16), bytes(33)), (bytes(32),)),
        (RECEIPT, "size", (-1,), (0, 1 << 24)),
        (RECEIPT, "incarnation", (b"", bytes(15), bytes(17)), (bytes(16),)),
        (RECEIPT, "lock_until_ns", (-1, 2**62 + 1), (0,)),
        (WITNESS, "number", (0,), (1,)),
        (WITNESS, "head", (bytes(31),), (bytes(32),)),
        (WITNESS, "incarnation", (bytes(32),), (bytes(16),)),
    ],
)
def test_limits(record: Any, field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    for value in bad:
        refused(record, **{field: value})
    for value in good:
        accepted(record, **{field: value})
