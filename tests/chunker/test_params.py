import dataclasses

import pytest

from chunker.errors import ParameterError
from chunker.params import LARGE, SMALL, ChunkerParams


def test_the_presets_are_those_of_the_design() -> None:
    assert dataclasses.astuple(SMALL) == (65536, 262144, 1048576)
    assert dataclasses.astuple(LARGE) == (262144, 1048576, 4194304)


@pytest.mark.parametrize(
    ("average", "bits"),
    [(16384, 10), (32767, 10), (32768, 11), (65535, 11), (65536, 12), (262144, 12), (1 << 21, 12)],
)
def test_the_filter_has_four_bits_less_than_the_average_and_at_most_twelve(average: int, bits: int) -> None:
    assert ChunkerParams(4096, average, 4 << 20).filter_bits == bits


def test_the_ramp_follows_its_formula() -> None:
    assert SMALL.ramp == 355 * 2**60 // (226 * (262144 - 65536) ** 2)
    assert ChunkerParams(4096, 16384, 65536).ramp == 355 * 2**58 // (226 * 12288**2)


@pytest.mark.parametrize(
    ("minimum", "average", "maximum", "culprit"),
    [
        (1023, 16384, 65536, "minimum"),
        (0, 16384, 65536, "minimum"),
        (1024, 16383, 65536, "average"),
        (16384, 16384, 65536, "average"),
        (1024, 16384, 16384, "maximum"),
        (1024, 16384, (4 << 20) + 1, "maximum"),
        (16383, 16384, 16500, "average"),
    ],
)
def test_sizes_out_of_range_are_refused(minimum: int, average: int, maximum: int, culprit: str) -> None:
    with pytest.raises(ParameterError) as caught:
        ChunkerParams(minimum, average, maximum)
    assert caught.value.name == culprit


@pytest.mark.parametrize(
    ("minimum", "average", "maximum"),
    [(1024, 16384, 16385), (1024, 16384, 4 << 20), (16383, 16384, 16385)],
)
def test_sizes_at_the_edge_of_the_range_are_accepted(minimum: int, average: int, maximum: int) -> None:
    params = ChunkerParams(minimum, average, maximum)
    assert (maximum - minimum) * params.ramp < 2**64


def test_parameters_cannot_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.minimum = 1  # type: ignore[misc]  # what the test is about
