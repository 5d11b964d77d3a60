from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from scheduler import Pack, PackId, Policy, PolicyError, RosterError, default_copies
from scheduler.model import MAX_BYTES
from tests.scheduler.problems import peer, policy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity": -1}, "capacity is -1"),
        ({"capacity": MAX_BYTES + 1}, "1 EiB"),
        ({"capacity": 1.5}, "whole number of bytes"),
        ({"capacity": True}, "whole number of bytes"),
        ({"used": -1}, "used is -1"),
        ({"country": "XX"}, "unknown country 'XX'"),
        ({"country": "se"}, "write country 'se' as SE"),
        ({"owner": " "}, "owner is empty"),
        ({"site": "a\nb"}, "control characters"),
        ({"region": "x" * 300}, "too long"),
        ({"region": "--"}, "neither letters nor digits"),
        ({"state": "gone"}, "unknown state 'gone'"),
        ({"cost": -1}, "cost is -1"),
        ({"id": ""}, "peer id is empty"),
    ],
)
def test_a_peer_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RosterError, match=message):
        dataclasses.replace(peer("a"), **changes)


def test_a_grant_may_be_cut_below_what_is_used() -> None:
    assert peer("a", capacity=10, used=20).free == 0
    assert peer("a", capacity=20, used=5).free == 15


@pytest.mark.parametrize("size", [0, -5, MAX_BYTES + 1])
def test_a_pack_of_no_or_absurd_size_is_refused(size: int) -> None:
    with pytest.raises(RosterError, match="size is"):
        Pack(id=PackId("a"), size=size, policy="p")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"copies": 0}, "copies is 0"),
        ({"minimum": 0}, "minimum is 0"),
        ({"minimum": 4}, "minimum 4 is more than copies 3"),
        ({"min_regions": 4}, "min_regions 4 is more than copies 3"),
        ({"spread": frozenset({"rack"})}, "unknown failure domain rack"),
        ({"max_per": {"planet": 1}}, "unknown failure domain planet"),
        ({"max_per": {"site": 0}}, "max_per site is 0"),
        ({"only_countries": frozenset()}, "names no country"),
        ({"only_countries": frozenset({"SE", "XX"})}, "unknown country XX"),
        ({"coding": (4, 2)}, "makes 6 shards, copies says 3"),
        ({"coding": (3, 0)}, "coding m is 0"),
        ({"coding": (2, 1), "minimum": 1}, "below the 2 shards needed"),
        ({"name": " "}, "no name"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        dataclasses.replace(policy(3, 2), **changes)


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(peer("a"), "capacity", 5)  # noqa: B010 -- the type checker already forbids the plain form
    limits = {"site": 1}
    rule = policy(3, max_per=limits)
    limits["site"] = 3
    assert rule.most("site") == 1
    assert hash(rule) == hash(policy(3, max_per={"site": 1}))


def test_spread_is_a_limit_of_one_and_stronger_than_max_per() -> None:
    rule = policy(3, spread=frozenset({"region"}), max_per={"region": 2, "country": 2})
    assert [rule.most(domain) for domain in ("owner", "site", "region", "country")] == [None, None, 1, 2]


def test_how_many_holders_suffice_to_read_depends_on_the_coding() -> None:
    assert policy(3).needed == 1
    assert policy(6, 4, coding=(4, 2)).needed == 4


def test_the_default_spread_is_the_household() -> None:
    assert Policy(name="p", copies=2, minimum=1).spread == {"owner"}


def test_default_copies_follow_the_number_of_peers() -> None:
    assert [default_copies(count) for count in (3, 4, 5)] == [(2, 1), (2, 1), (3, 2)]
