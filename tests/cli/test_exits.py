import itertools

import pytest

from replicator.cli.exits import DONE, FAILED, GAPS, INTEGRITY, MINIMUM, NO_KEY, USAGE, code_of, worst
from replicator.errors import (
    HomeError,
    IntegrityError,
    KeyMissingError,
    KeyWrongError,
    LockedError,
    MinimumNotMetError,
    SpaceError,
    UnreachableError,
    UsageError,
)


def test_the_worst_of_two_codes_wins() -> None:
    order = [INTEGRITY, FAILED, NO_KEY, MINIMUM, GAPS, DONE]
    assert order == [4, 1, 6, 5, 3, 0]
    for worse, better in itertools.combinations(order, 2):
        assert worst((better, worse)) == worst((worse, better)) == worse
    assert worst(()) == DONE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (IntegrityError("x"), INTEGRITY),
        (KeyMissingError("x"), NO_KEY),
        (KeyWrongError("x"), FAILED),
        (MinimumNotMetError("x"), MINIMUM),
        (UsageError("x"), USAGE),
        (HomeError("x"), FAILED),
        (LockedError("x"), FAILED),
        (SpaceError("x"), FAILED),
        (UnreachableError("bob", "x"), FAILED),
        (ValueError("x"), FAILED),
    ],
)
def test_each_error_has_its_code(error: Exception, code: int) -> None:
    assert code_of(error) == code
