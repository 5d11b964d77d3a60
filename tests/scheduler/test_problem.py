"""What is wrong with a problem is said in one line that names it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.problem import ProblemError, parse, read
from tests.scheduler.oracle import Json

GOOD: Json = {
    "peers": [
        {
            "id": "a",
            "capacity": 10,
            "used": 3,
            "owner": "al",
            "site": "x",
            "region": "umea",
            "country": "SE",
            "cost": 1,
        },
        {"id": "b", "capacity": 10, "state": "readonly"},
        {"id": "c", "capacity": 10, "country": "no"},
    ],
    "policies": [
        {"name": "p", "copies": 2, "max_per": {"site": 1, "household": 1}, "spread": ["owner"], "min_regions": 2},
        {"name": "q", "coding": [2, 1], "only_countries": ["EEA", "GB"]},
    ],
    "packs": [{"id": "k1", "size": 1, "policy": "p"}, {"id": "k2", "size": 3, "policy": "q"}],
    "placements": {"k1": ["a"], "k2": [None, "b", "c"]},
}


def changed(path: str, value: Any) -> Json:
    """``GOOD`` with one value put, or taken away by ``...``."""
    question = copy.deepcopy(GOOD)
    at: Any = question
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        at = at[step]
    if value is ...:
        del at[last]
    elif last == "+":
        at.append(value)
    else:
        at[last] = value
    return question


def test_a_problem_becomes_numbers() -> None:
    problem = parse(GOOD)
    assert problem.ground.ids == ("a", "b", "c")
    assert problem.room == (8, 10, 10)  # of the 3 that are used on a, 1 is k1
    assert problem.ground.takes.tolist() == [True, False, True]
    assert problem.ground.country == ("SE", None, "NO")
    assert [rule.caps for rule in problem.rules] == [{"owner": 1, "site": 1, "household": 1}, {}]
    assert problem.rules[1].shard(3) == 2
    assert problem.held == {0: (0, -1), 1: (-1, 1, 2)}


BAD = [
    ("peers", {}, "peers is an object: give a list"),
    ("peers.+", {"id": "a", "capacity": 1}, "peer 'a' occurs twice"),
    ("peers.0.id", "", 'peers[0]: id is "": give text'),
    ("peers.0.id", 7, "peers[0]: id is 7: give text"),
    ("peers.0.id", "a\nb", "some that do not print"),
    ("peers.0.id", ..., "peers[0]: id is missing"),
    ("peers.0.capacity", ..., "peers[0]: capacity is missing"),
    ("peers.0.capacity", -1, "peer 'a': capacity is -1: give a whole number from 0"),
    ("peers.0.capacity", 2**60 + 1, "peer 'a': capacity is 1152921504606846977"),
    ("peers.0.capacity", 1.5, "peer 'a': capacity is 1.5"),
    ("peers.0.capacity", True, "peer 'a': capacity is true"),
    ("peers.0.capacity", "10G", "peer 'a': capacity is \"10G\""),
    ("peers.0.used", -1, "peer 'a': used is -1"),
    ("peers.0.country", "UK", "peer 'a': unknown country 'UK' (did you mean GB?)"),
    ("peers.0.country", "Sweden", "peer 'a': unknown country 'Sweden'"),
    ("peers.0.site", "--", "has neither letters nor digits"),
    ("peers.0.state", "suspect", "peer 'a': state is \"suspect\": use ok, readonly, draining, lost"),
    ("peers.0.cost", -1, "peer 'a': cost is -1"),
    ("peers.0.capcity", 1, 'peers[0]: unknown key "capcity": known are id, capacity, used'),
    ("policies", [], "policies is empty"),
    ("policies", ..., "policies is missing"),
    ("policies.0.name", "q", "policy 'q' occurs twice"),
    ("policies.0.copies", 0, "policy 'p': copies is 0: give a whole number from 1 to 255"),
    ("policies.0.copies", ..., "policy 'p': give either copies, such as 3, or coding"),
    ("policies.0.coding", [1, 1], "policy 'p': give either copies, such as 3, or coding"),
    ("policies.1.coding", [4], "policy 'q': coding has 1 numbers"),
    ("policies.1.coding", [4, 0], "policy 'q': coding, parity shards is 0"),
    ("policies.1.coding", [250, 6], "policy 'q': coding, all shards is 256"),
    ("policies.0.max_per", {"rack": 1}, "policy 'p': max_per: unknown key \"rack\""),
    ("policies.0.max_per", {"site": 0}, "policy 'p': max_per site is 0"),
    ("policies.0.spread", ["rack"], "policy 'p': spread is \"rack\""),
    ("policies.0.min_regions", 3, "policy 'p': no federation can meet it: 2 shards cannot lie in 3 regions"),
    ("policies.1.only_countries", [], "policy 'q': only_countries names no country"),
    ("policies.1.only_countries", ["XX"], "policy 'q': only_countries: unknown residency 'XX'"),
    (
        "policies.1",
        {"name": "q", "copies": 3, "max_per": {"country": 1}, "only_countries": ["SE", "NO"]},
        "policy 'q': no federation can meet it: 3 shards, at most 1 in a country, do not fit in NO, SE",
    ),
    ("policies.0.copy", 1, 'policies[0]: unknown key "copy"'),
    ("packs", "many", "packs is text: give an object with count and size, or a list"),
    ("packs", {"count": 3, "policy": "p"}, "packs: size is missing"),
    ("packs", {"count": 3, "size": 1}, "packs: policy is missing, and there are several: p, q"),
    ("packs", {"count": -3, "size": 1, "policy": "p"}, "packs: count is -3"),
    ("packs", {"count": 10**9, "size": 1, "policy": "p"}, "packs: count is 1000000000"),
    ("packs.+", {"id": "k1", "size": 1, "policy": "p"}, "pack 'k1' occurs twice"),
    ("packs.0.size", 0, "pack 'k1': size is 0"),
    ("packs.0.policy", "r", "pack 'k1': policy is \"r\": use p, q"),
    ("placements", [], "placements is a list"),
    ("placements.k9", ["a"], "placements: pack 'k9' is not among the packs"),
    (
        "placements.k1",
        ["z"],
        "placements: pack 'k1' lies on \"z\", which is not among the peers: add that peer, as lost",
    ),
    ("placements.k1", "a", "placements: pack 'k1' is text: give a list"),
    ("placements.k1", [1], "placements: pack 'k1': 1 is no peer id"),
    ("placements.k1", ["a", "b", "c"], "placements: pack 'k1' names 3 holders, where policy 'p' has 2 shards"),
    ("extra", 1, 'the problem: unknown key "extra": known are peers, policies, packs, placements'),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=[f"{path}={value}"[:50] for path, value, _ in BAD])
def test_a_slip_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        parse(changed(path, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_used_that_is_less_than_what_the_placements_put_there_is_refused() -> None:
    question = changed("packs.0.size", 5)
    with pytest.raises(ProblemError, match="peer 'a': used is 3, less than the 5 that the placements put there"):
        parse(question)
    question["peers"][0]["state"] = "lost"  # what it held is gone, so nothing contradicts
    assert parse(question).room[0] == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: Expecting value at line 1, column 1"),
        ('{"peers": [}', "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"peers": [], "peers": []}', "the key 'peers' occurs twice"),
        ('{"peers": NaN}', "NaN is no number"),
        ("9" * 5000, "not JSON that can be read"),
        ("[]", "the problem is a list: give an object"),
    ],
)
def test_what_is_no_problem_at_all_is_said(text: str, message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read(text)
    assert message in str(caught.value)


def test_near_duplicates_are_one_place_and_queried() -> None:
    question = copy.deepcopy(GOOD)
    question["peers"][1]["region"] = "Umeå"
    question["peers"][2]["region"] = "Umeaa"
    problem = parse(question)
    assert problem.ground.place["region"].tolist() == [0, 0, 1]
    assert [query.labels for query in problem.queries] == [("Umeå", "umea"), ("Umeaa", "Umeå")]


def test_the_id_of_a_peer_without_a_label_is_no_label() -> None:
    question = copy.deepcopy(GOOD)
    question["peers"][0]["site"] = "b"  # as the peer b, which has none
    assert len(set(parse(question).ground.place["site"].tolist())) == 3


@settings(max_examples=50, deadline=None)
@given(
    path=st.sampled_from([path for path, _, _ in BAD if "+" not in path]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
        max_leaves=5,
    ),
)
def test_nothing_but_a_problem_error_comes_of_any_value(path: str, value: Any) -> None:
    try:
        read(json.dumps(changed(path, value)))
    except ProblemError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
