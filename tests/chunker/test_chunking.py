import pytest

from chunker import SMALL, Chunker, ParameterError
from chunker import _kernel as extension
from chunker.kernels import select_kernel
from tests.chunker.data import KEY, noise


def test_a_chunker_knows_its_sizes_and_kernel() -> None:
    made = Chunker(KEY, 65536, 262144, 1048576)
    assert made.params == SMALL
    assert made.kernel == extension.KERNELS[0]


def test_the_two_ways_to_make_one_are_equal() -> None:
    data = noise(2_000_000)
    python = select_kernel({"CHUNKER_KERNEL": "python"})
    one, other = Chunker(KEY, 65536, 262144, 1048576), Chunker.from_params(KEY, SMALL)
    assert one.cuts(data) == other.cuts(data)
    assert Chunker.from_params(KEY, SMALL, kernel=python).kernel == "python"


def test_the_repr_shows_no_key() -> None:
    shown = repr(Chunker(KEY, 65536, 262144, 1048576))
    assert "minimum=65536" in shown
    assert KEY.hex() not in shown
    assert str(KEY) not in shown


def test_a_chunker_cannot_be_changed() -> None:
    made = Chunker.from_params(KEY, SMALL)
    with pytest.raises(AttributeError):
        made.params = SMALL  # type: ignore[misc]  # what the test is about
    with pytest.raises(AttributeError):
        made.more = 1  # type: ignore[attr-defined]  # what the test is about


def test_bad_keys_and_sizes_are_refused() -> None:
    with pytest.raises(ParameterError, match="key"):
        Chunker(b"short", 65536, 262144, 1048576)
    with pytest.raises(ParameterError, match="average"):
        Chunker(KEY, 65536, 65536, 1048576)


def test_scanned_counts_bytes_and_not_items() -> None:
    made = Chunker.from_params(KEY, SMALL)
    words = memoryview(bytes(800)).cast("Q")
    assert made.cuts(words, final=False, scanned=800)[1] == 800
    with pytest.raises(ParameterError, match="between 0 and the buffer's length, 800"):
        made.cuts(words, final=False, scanned=801)
