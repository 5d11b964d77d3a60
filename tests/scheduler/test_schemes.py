from __future__ import annotations

import pytest

from scheduler import Peer, PolicyError
from scheduler.hazards import assuming
from scheduler.outlook import nines
from scheduler.schemes import MOST_OF_EACH, MOST_SHARDS, choose, evaluate, spread_out
from tests.scheduler.problems import peer, policy

QUICK = assuming(["repair=3d"])
ALONE = QUICK.independent
COUNTRIES = ("SE", "NO", "DK", "FI", "IS", "DE", "NL", "FR")


def friends(count: int, **changes: object) -> list[Peer]:
    return [peer(f"p{number:02}", **({"country": COUNTRIES[number % 8]} | changes)) for number in range(count)]


def test_nine_nines_cannot_be_had_with_three_friends() -> None:
    choice = choose(friends(3), policy(3), QUICK, 9)
    assert (choice.chosen, choice.alone, choice.apart) == (None, None, 3)
    assert choice.strongest is not None
    assert choice.strongest.name == "3 copies"
    assert 4.5 < nines(choice.strongest.shocks) < 6 < nines(choice.strongest.independent)


@pytest.mark.parametrize(("count", "target", "name"), [(3, 6, "3 copies"), (5, 9, "5 copies"), (8, 9, "4+4")])
def test_the_cheapest_scheme_that_reaches_the_target_is_chosen(count: int, target: float, name: str) -> None:
    choice = choose(friends(count), policy(3), ALONE, target)
    assert choice.chosen is not None
    assert choice.chosen.name == name
    assert choice.chosen == choice.alone
    assert nines(choice.chosen.shocks) >= target


def test_a_target_is_reached_with_shocks_too() -> None:
    choice = choose(friends(8), policy(3), QUICK, 9)
    assert choice.chosen is not None
    assert choice.alone is not None
    assert nines(choice.chosen.shocks) >= 9
    assert choice.alone.overhead < choice.chosen.overhead
    assert nines(choice.alone.shocks) < 9


def test_coding_is_offered_from_six_households_on() -> None:
    for count, coded in ((5, False), (6, True)):
        found = choose(friends(count), policy(3), ALONE, 4).chosen
        assert found is not None
        assert (found.needed > 1) == coded
    same_house = [peer(f"p{number}", owner="eva") for number in range(8)]
    assert choose(same_house, policy(3), ALONE, 1).apart == 1


def test_shards_lie_over_as_many_places_as_there_are_and_where_they_may() -> None:
    roster = [
        *(peer(f"se{number}", country="SE", region="umea", capacity=9000) for number in range(5)),
        peer("no", country="NO"),
        peer("dk", country="DK"),
        peer("us", country="US"),
        peer("mine", country="FI", own=True),
        peer("leaving", country="FI", state="draining"),
    ]
    rule = policy(3, only_countries=frozenset({"SE", "NO", "DK", "FI"}))
    assert {one.country for one in spread_out(roster, rule, 3)} == {"SE", "NO", "DK"}
    assert len(spread_out(roster, rule, 20)) == 7
    assert len(spread_out(roster, policy(3, spread=frozenset({"owner", "country"})), 20)) == 4


def test_room_is_what_the_smallest_households_leave() -> None:
    roster = [peer("p1", capacity=1000), peer("p2", capacity=1000), peer("p3", capacity=100)]
    assert evaluate(roster, policy(2), QUICK, needed=1, shards=2).usable == 1050
    assert evaluate(roster, policy(2), QUICK, needed=1, shards=3).usable == 100
    assert evaluate(roster, policy(2), QUICK, needed=1, shards=4).usable == 0
    crowded = [peer(f"p{number}", region="one" if number else "two") for number in range(4)]
    assert evaluate(crowded, policy(2, spread=frozenset({"region"})), QUICK, needed=1, shards=2).usable == 1000


@pytest.mark.parametrize("target", [0, -1, 31, float("nan")])
def test_a_target_that_is_none_is_refused(target: float) -> None:
    with pytest.raises(PolicyError, match="nines"):
        choose(friends(3), policy(3), QUICK, target)


def test_of_many_friends_some_are_left_to_repair_to() -> None:
    assert choose(friends(4), policy(3), ALONE, 7).is_all
    many = choose(friends(MOST_SHARDS + 1), policy(3), ALONE, 9)
    assert (many.apart, many.households, many.is_all) == (MOST_SHARDS, MOST_SHARDS + 1, False)


def test_without_peers_nothing_is_chosen() -> None:
    choice = choose([], policy(3), QUICK, 3)
    assert (choice.chosen, choice.strongest, choice.apart) == (None, None, 0)


@pytest.mark.parametrize("target", [1.5, 2, 3, 4, 5, 6])
def test_nothing_is_recommended_that_packs_are_not_cut_into(target: float) -> None:
    choice = choose(friends(30), policy(3), ALONE, target)
    assert choice.chosen is not None
    assert choice.chosen.needed == 1 or choice.chosen.needed <= MOST_OF_EACH
    assert choice.chosen.needed == 1 or 1 <= choice.chosen.shards - choice.chosen.needed <= MOST_OF_EACH
    assert choice.strongest is not None
    assert choice.strongest.needed <= MOST_OF_EACH
