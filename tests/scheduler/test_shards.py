"""Who counts for which shard, and that packs which are mended again and again come to rest."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Peer, PeerId, place
from scheduler.check import Ground
from scheduler.shards import count_shards
from tests.scheduler.problems import ids, pack, peer, policy

CODED = policy(4, minimum=3, coding=(2, 2))
A, B, C, D, E, F = ids("a", "b", "c", "d", "e", "f")
NAMES = (A, B, C, D, E, F)


def counted(held: list[set[PeerId]], roster: list[Peer]) -> dict[PeerId, int]:
    return count_shards(held, Ground(roster), CODED)


def test_what_lies_once_counts_as_it_lies() -> None:
    assert counted([{A}, {B}, set(), {D}], [peer(name) for name in "abcd"]) == {A: 0, B: 1, D: 3}


def test_one_shard_on_two_peers_counts_once() -> None:
    assert len(counted([{A, B}, {C}], [peer(name) for name in "abc"])) == 2


def test_two_shards_on_one_peer_count_once() -> None:
    assert counted([{A}, {A}], [peer("a")]) in ({A: 0}, {A: 1})


def test_a_peer_with_two_shards_counts_for_the_one_that_nobody_else_has() -> None:
    assert counted([{A, B}, {A}], [peer("a"), peer("b")]) == {A: 1, B: 0}


@pytest.mark.parametrize("state", ["suspect", "draining", "lost"])
def test_a_peer_that_lives_counts_before_one_that_does_not(state: str) -> None:
    assert counted([{A, B}], [peer("a", state=state), peer("b")]) == {B: 0}
    assert counted([{A}], [peer("a", state=state)]) == {A: 0}


def test_peers_apart_count_before_those_that_share_a_household() -> None:
    roster = [peer("a", owner="x"), peer("b", owner="x"), peer("c")]
    assert counted([{A, C}, {B}], roster) == {C: 0, B: 1}


def test_a_living_peer_in_a_shared_household_counts_before_one_that_is_lost() -> None:
    roster = [peer("a", owner="x"), peer("b", owner="x"), peer("c", state="lost")]
    assert counted([{A, C}, {B}], roster) == {A: 0, B: 1}


def test_the_own_household_and_foreign_countries_count_last() -> None:
    rule = policy(4, minimum=3, coding=(2, 2), only_countries=frozenset({"SE"}))
    roster = [peer("a", own=True), peer("b", country="US"), peer("c")]
    assert count_shards([{A, B, C}], Ground(roster), rule) == {C: 0}


def test_unknown_peers_count_for_nothing() -> None:
    assert counted([{A}, {B}], [peer("a")]) == {A: 0}


def test_peers_that_hold_everything_are_matched_too() -> None:
    names = [PeerId(f"p{at:02}") for at in range(20)]
    roster = [peer(str(name)) for name in names]
    rule = policy(20, minimum=11, coding=(10, 10))
    found = count_shards([set(names)] * 20, Ground(roster), rule)
    assert sorted(found.values()) == list(range(20))


_held = st.lists(st.frozensets(st.sampled_from(NAMES), max_size=3), min_size=1, max_size=4)


@given(_held)
@settings(max_examples=150, deadline=None)
def test_as_many_count_as_can(held: list[frozenset[PeerId]]) -> None:
    roster = [peer(str(name)) for name in NAMES]
    found = count_shards(held, Ground(roster), CODED)
    assert all(name in held[number] for name, number in found.items())
    assert len(set(found.values())) == len(found)
    most = max(
        sum(name in shard for name, shard in zip(order, held, strict=False)) for order in permutations(NAMES, len(held))
    )
    assert len(found) == most


@given(
    _held,
    st.lists(st.sampled_from(["x", "y", "z", "v", "w"]), min_size=6, max_size=6),
    st.lists(st.sampled_from(["ok", "ok", "ok", "lost", "suspect", "draining"]), min_size=6, max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_mending_comes_to_rest(held: list[frozenset[PeerId]], owners: list[str], states: list[str]) -> None:
    """However shards lie about, what a plan adds is enough: the next one adds nothing."""
    roster = [
        peer(str(name), owner=owner, state=state) for name, owner, state in zip(NAMES, owners, states, strict=True)
    ]
    shards = [set(one) for one in held] + [set[PeerId]()] * (4 - len(held))
    shards = [set(one) for one in shards]
    rounds = 0
    while True:
        found = count_shards(shards, Ground(roster), CODED)
        plan = place([pack("a")], roster, CODED, {pack("a").id: set(found)})
        if not plan.additions:
            break
        kept = {found[name] for name in plan.kept[pack("a").id]}
        left = [number for number in range(4) if number not in kept]
        for addition, number in zip(plan.additions, left, strict=False):
            shards[number].add(addition.peer)
        rounds += 1
        assert rounds <= 1, "all was planned at once"


class TestPlacing:
    def test_a_coded_pack_lies_on_as_many_peers_as_it_has_shards(self) -> None:
        roster = [peer(str(name)) for name in NAMES]
        plan = place([pack("a")], roster, CODED)
        assert len(set(plan.placement[pack("a").id])) == 4
        assert plan.met

    def test_many_coded_packs_are_placed_by_sets(self) -> None:
        roster = [peer(str(name), capacity=10_000) for name in NAMES]
        packs = [pack(f"{number:04}") for number in range(600)]
        plan = place(packs, roster, CODED)
        assert plan.met
        assert all(len(set(holders)) == 4 for holders in plan.placement.values())

    def test_below_the_minimum_a_new_pack_goes_nowhere(self) -> None:
        plan = place([pack("a")], [peer("a"), peer("b")], CODED)
        assert [row.minimum for row in plan.refused] == [3]
        assert plan.additions == ()

    def test_below_the_minimum_a_pack_that_can_be_read_gets_what_it_can(self) -> None:
        roster = [peer("a"), peer("b"), peer("c", state="lost")]
        plan = place([pack("a")], [*roster, peer("d", capacity=0)], CODED, {pack("a").id: {A, B, C}})
        assert [row.have for row in plan.refused] == [2]
        assert plan.kept[pack("a").id] == (A, B)

    def test_a_pack_with_too_few_living_shards_and_too_few_peers_gets_none(self) -> None:
        roster = [peer("a"), peer("b", state="lost"), peer("d")]
        plan = place([pack("a")], roster, CODED, {pack("a").id: {A, B}})
        assert plan.refused
        assert plan.additions == ()
