import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.format.sizes import LARGEST, RANGE_ALIGN, SMALLEST, is_class, size_class

CLASSES = [SMALLEST << i for i in range(9)]


def test_there_are_nine_sizes_from_64_kib_to_16_mib() -> None:
    assert CLASSES[-1] == LARGEST == 16 << 20
    assert SMALLEST == 64 << 10
    assert LARGEST % RANGE_ALIGN == 0


@given(st.integers(0, LARGEST))
def test_the_smallest_size_that_is_enough_is_chosen(needed: int) -> None:
    assert size_class(needed) == next(size for size in CLASSES if size >= needed)


@pytest.mark.parametrize("size", CLASSES)
def test_the_size_itself_fits_and_one_byte_more_does_not(size: int) -> None:
    assert size_class(size) == size
    if size < LARGEST:
        assert size_class(size + 1) == 2 * size


def test_more_than_the_largest_fits_nowhere() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        size_class(LARGEST + 1)


@given(st.integers(-5, LARGEST * 4))
def test_only_the_nine_sizes_are_allowed(size: int) -> None:
    assert is_class(size) == (size in CLASSES)


@pytest.mark.parametrize("size", CLASSES)
def test_sizes_beside_an_allowed_one_are_not(size: int) -> None:
    assert is_class(size)
    assert not is_class(size - 1)
    assert not is_class(size + 1)
    assert not is_class(-size)
