from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from replicator.format.codec import decode, encode
from replicator.format.policy import Policy, at_least_as_strong, policy_id
from tests.format.samples import CODED, POLICY, accepted, refused


def but(**changes: Any) -> Policy:
    """Return the sample policy with some fields changed."""
    return msgspec.structs.replace(POLICY, **changes)


def test_a_policy_is_named_by_its_bytes() -> None:
    assert policy_id(POLICY) == blake3(encode(POLICY)).digest()[:16]
    assert policy_id(but(copies=4)) != policy_id(POLICY)
    assert policy_id(decode(Policy, encode(POLICY))) == policy_id(POLICY)


@pytest.mark.parametrize("field", ["spread", "residency"])
def test_one_promise_has_one_name(field: str) -> None:
    refused(POLICY, **{field: ["b", "a"]})
    refused(POLICY, **{field: ["a", "a"]})
    accepted(POLICY, **{field: ["a", "b"]})
    accepted(POLICY, **{field: []})


@pytest.mark.parametrize(
    ("field", "bad", "good"),
    [
        ("copies", (0, 65, -1), (1, 64)),
        ("minimum", (0, 65), (1, 64)),
        ("coding", ((0, 1), (1, 0), (65, 1), (1,), (1, 2, 3)), (None, (10, 4))),
        ("spread", ([""], ["x" * 65], ["a\n"]), (["owner", "site"],)),
        ("stale_after_s", (3599, 366 * 86400 + 1), (3600, 366 * 86400)),
    ],
)
def test_limits(field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    for value in bad:
        refused(POLICY, **{field: value})
    for value in good:
        accepted(POLICY, **{field: value})


@pytest.mark.parametrize(
    "weaker",
    [
        {"copies": 2},
        {"minimum": 1},
        {"coding": (4, 2)},
        {"spread": ["owner"]},
        {"spread": ["owner", "site"]},
        {"residency": []},
        {"residency": ["EEA", "NO"]},
        {"residency": ["US"]},
        {"count_own": True},
        {"stale_after_s": 37 * 3600},
    ],
)
def test_a_policy_weaker_in_one_part_does_not_count(weaker: dict[str, Any]) -> None:
    assert not at_least_as_strong(but(**weaker), POLICY)


@pytest.mark.parametrize(
    "stronger",
    [
        {},
        {"copies": 4},
        {"minimum": 3},
        {"spread": ["country", "owner", "region"]},
        {"stale_after_s": 3600},
    ],
)
def test_a_policy_no_weaker_in_any_part_counts(stronger: dict[str, Any]) -> None:
    assert at_least_as_strong(but(**stronger), POLICY)


def test_fewer_countries_are_stronger_and_none_named_is_the_weakest() -> None:
    wide, narrow, free = but(residency=["NO", "SE"]), but(residency=["SE"]), but(residency=[])
    assert at_least_as_strong(narrow, wide)
    assert not at_least_as_strong(wide, narrow)
    assert at_least_as_strong(narrow, free)
    assert not at_least_as_strong(free, narrow)


def test_not_counting_ones_own_household_is_stronger() -> None:
    assert at_least_as_strong(POLICY, but(count_own=True))


policies = st.builds(
    Policy,
    copies=st.integers(1, 4),
    minimum=st.integers(1, 2),
    coding=st.sampled_from([None, (2, 1)]),
    spread=st.sets(st.sampled_from(["owner", "region", "site"])).map(sorted),
    residency=st.sets(st.sampled_from(["NO", "SE"])).map(sorted),
    count_own=st.booleans(),
    stale_after_s=st.sampled_from([3600, 7200]),
)


@given(policies, policies, policies)
def test_strength_is_a_partial_order(a: Policy, b: Policy, c: Policy) -> None:
    assert at_least_as_strong(a, a)
    if at_least_as_strong(a, b) and at_least_as_strong(b, a):
        assert a == b
    if at_least_as_strong(a, b) and at_least_as_strong(b, c):
        assert at_least_as_strong(a, c)


def test_different_codings_never_compare() -> None:
    assert at_least_as_strong(CODED, CODED)
    assert not at_least_as_strong(CODED, POLICY)
    assert not at_least_as_strong(POLICY, CODED)
