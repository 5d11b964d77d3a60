"""Marks and what goes with them: what cannot be written."""

import msgspec
import pytest

from replicator.format.mark import SeenWriter, sorted_names
from tests.format.samples import HOLDERS, MARK, accepted, refused, run

LOW, HIGH = run(0x00, 32), run(0x20, 32)


def test_names_are_sorted_and_in_one_of_the_two_lists() -> None:
    accepted(MARK, dead=LOW + HIGH, surplus=b"")
    for wrong in (HIGH + LOW, LOW + LOW, LOW[:31]):
        refused(MARK, dead=wrong)
        refused(MARK, surplus=wrong)
        refused(HOLDERS, providers=wrong)
    refused(MARK, dead=LOW, surplus=LOW)


def test_a_view_has_each_writer_once_and_sorted() -> None:
    low, high = (SeenWriter(writer=name, claim=0, head=0) for name in (LOW, HIGH))
    accepted(MARK, view=[low, high])
    refused(MARK, view=[high, low])
    refused(MARK, view=[low, low])
    refused(MARK, view=[msgspec.structs.replace(low, claim=-1)])


def test_a_mark_is_numbered_from_1_and_asks_for_at_least_one_copy() -> None:
    refused(MARK, number=0)
    refused(MARK, copies=0)
    refused(MARK, copies=65)


def test_a_run_that_is_not_sorted_is_named() -> None:
    assert sorted_names(LOW + HIGH, "dead") == [LOW, HIGH]
    with pytest.raises(ValueError, match="dead"):
        sorted_names(HIGH + LOW, "dead")
