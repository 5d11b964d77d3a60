"""Which charter is the newest of what providers show, and which number the next one can have."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from replicator.charter.newest import HIGHEST, excludes, forks, next_number, ranked
from replicator.charter.verify import MOST_AHEAD, VerifiedCharter


@dataclass(frozen=True)
class _Root:
    number: int


@dataclass(frozen=True)
class _Body:
    previous: bytes
    root: bytes


@dataclass(frozen=True)
class _Charter:
    """As much of a verified charter as is looked at."""

    number: int
    hash: bytes
    root: _Root
    charter: _Body = field(default=_Body(b"", b""))


def charter(number: int, name: str = "", *, after: str = "", root: int = 1, statement: str = "") -> VerifiedCharter:
    body = _Body(previous=after.encode(), root=f"root {root} {statement}".encode())
    found: Any = _Charter(number=number, hash=(name or str(number)).encode(), root=_Root(root), charter=body)
    return cast("VerifiedCharter", found)


def test_what_root_named_last_goes_before_any_number() -> None:
    old, new = charter(1000), charter(7, root=2)
    assert ranked([old, new, old, old])[0] is new
    assert [one.number for one in ranked([charter(5), charter(7), charter(6)])] == [7, 6, 5]


def test_of_two_with_one_number_the_one_that_more_show_is_gone_on_from() -> None:
    one, other = charter(7, "a"), charter(7, "b")
    assert ranked([other, one, one])[0] is one
    assert ranked([one, other, other])[0] is other
    assert len(ranked([one, other, other])) == 2


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (charter(7, "a"), charter(7, "a"), False),
        (charter(7, "a"), charter(7, "b"), True),
        (charter(7, "a"), charter(8, after="a"), False),
        (charter(7, "a"), charter(8, after="b"), True),
        (charter(7, "a"), charter(9, after="b"), False),
        (charter(7, "a"), charter(7, "b", root=2), False),
        (charter(7, "a"), charter(8, "b", root=2, after="c"), False),
        (charter(7, "a"), charter(9, statement="another"), True),
    ],
)
def test_two_exclude_each_other_if_one_chain_cannot_have_both(
    one: VerifiedCharter, other: VerifiedCharter, expected: bool
) -> None:
    assert excludes(one, other) is excludes(other, one) is expected
    assert [{a.hash, b.hash} for a, b in forks([one, other, one])] == ([{one.hash, other.hash}] if expected else [])


def test_the_next_number_can_be_taken_by_whoever_showed_something_else() -> None:
    base = charter(7, "a")
    assert next_number(base, [base, charter(6), charter(5)]) == 8
    assert next_number(base, [base, charter(7, "b")]) == 9
    assert next_number(base, [charter(12), base]) == 14
    assert next_number(base, [charter(HIGHEST), base, charter(HIGHEST - 1)]) == 8
    assert next_number(base, [charter(7 + MOST_AHEAD - 2), base]) == 7 + MOST_AHEAD
    assert next_number(base, [charter(7 + MOST_AHEAD - 1), base]) == 8, "who has the base would take none so far on"
    high = charter(HIGHEST - 5, "b")
    assert next_number(high, [charter(HIGHEST - 2), high]) == HIGHEST


def test_what_leaps_from_another_that_is_shown_comes_last() -> None:
    base, near, far = charter(7), charter(7 + MOST_AHEAD), charter(8 + MOST_AHEAD)
    assert ranked([far, base, near]) == [near, base, far]
    assert ranked([far])[0] is far, "nobody shows where it leaps from"
    assert ranked([far, base, charter(5, "new", root=2)])[0].number == 5
