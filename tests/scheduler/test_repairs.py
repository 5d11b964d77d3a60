from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import Holders, Pack, PackId, Peer, Policy, Repair, repair_queue
from scheduler.hazards import YEAR_S, Hazards, assuming
from scheduler.outlook import loss_within
from tests.scheduler.problems import ids, pack, peer, policy, rosters

DAY = 86400.0
QUIET = assuming(["rot=0", "owner=0", "site=0", "region=0", "country=0", "common=0"])
ROSTER = [
    peer("p1", owner="eva", region="north"),
    peer("p2", owner="eva", region="south"),
    peer("p3", region="south"),
    peer("p4", country="NO"),
    peer("p5"),
    peer("gone", state="lost"),
    peer("mine", own=True),
    peer("mute", state="suspect"),
    peer("leaving", state="draining"),
]


def queue(
    placement: dict[str, Holders], rules: Policy | list[Policy] | None = None, packs: list[Pack] | None = None
) -> list[Repair]:
    wanted = packs or [pack(name) for name in placement]
    held = {PackId(name): holders for name, holders in placement.items()}
    return repair_queue(wanted, held, ROSTER, rules or policy(3, 2), within=2 * DAY)


def order(found: list[Repair]) -> list[str]:
    return [one.pack.id for one in found]


def test_what_one_loss_may_take_is_mended_first() -> None:
    found = queue(
        {
            "two": ids("p1", "p4"),
            "one": ids("p1"),
            "one and a silent one": ids("p1", "mute"),
            "in the wrong place": ids("p3", "p4", "p5", "leaving"),
            "none": ids("gone", "mine"),
        }
    )
    assert order(found) == ["none", "one", "one and a silent one", "two", "in the wrong place"]
    assert [one.urgency for one in found] == ["urgent", "urgent", "urgent", "lazy", "misplaced"]
    assert [round(one.chance, 6) for one in found] == sorted((round(one.chance, 6) for one in found), reverse=True)


def test_two_copies_that_one_household_takes_come_before_two_that_are_apart() -> None:
    found = queue({"apart": ids("p1", "p4"), "together": ids("p1", "p2")})
    assert order(found) == ["together", "apart"]
    assert "all of them in one household (eva)" in found[0].why
    assert "household" not in found[1].why


def test_coded_packs_are_ordered_by_what_they_can_still_lose() -> None:
    rules = [policy(3, 2, name="copies"), policy(6, 4, name="coded", coding=(4, 2))]
    packs = [pack("c", policy="copies"), pack("s", policy="coded")]
    found = queue({"c": ids("p1", "p4"), "s": ids("p1", "p2", "p3", "p4")}, rules, packs)
    assert order(found) == ["s", "c"]
    assert found[0].urgency == "urgent"
    assert found[0].why.startswith("four shards are left, on p1, p2, p3 and p4")


def test_each_says_what_is_left_and_how_likely_that_goes() -> None:
    found = queue({"one": ids("p4", "mute"), "two": ids("p1", "p4"), "leaving": ids("leaving"), "none": ids("gone")})
    said = {str(one.pack.id): one.why for one in found}
    assert said["one"].startswith("one copy is left, on p4; another on mute may be gone; lost before this is mended")
    assert said["two"].startswith(
        "two copies are left, on p1 and p4; lost before this is mended with a chance of 1 in "
    )
    assert said["leaving"].startswith("no copies are left; one on leaving is about to leave; ")
    assert said["none"] == "no copy counts any more"


def test_older_packs_then_larger_ones_come_first_where_all_else_is_equal() -> None:
    packs = [pack("new"), pack("old"), pack("small", 1), pack("large", 99)]
    held = dict.fromkeys((one.id for one in packs), ids("p1", "p4"))
    written = {PackId("new"): 9, PackId("old"): 5}
    for shuffled in itertools.permutations(packs):
        found = repair_queue(shuffled, held, reversed(ROSTER), policy(3, 2), within=DAY, written=written)
        assert order(found) == ["old", "new", "large", "small"]


def test_a_longer_queue_makes_every_loss_likelier() -> None:
    held = {PackId("two"): ids("p1", "p4")}
    day, year = (
        repair_queue([pack("two")], held, ROSTER, policy(3, 2), within=span, hazards=QUIET)[0].chance
        for span in (DAY, 100 * YEAR_S)
    )
    assert day == pytest.approx((1 - math.exp(-0.15 * DAY / YEAR_S)) ** 2)
    assert year == pytest.approx((1 - math.exp(-0.15)) ** 2), "no span is longer than a year"


@given(rosters(), st.integers(min_value=1, max_value=3), st.floats(min_value=0.5, max_value=50.0))
def test_the_chance_is_that_of_every_way_in_which_too_few_are_left(
    roster: list[Peer], needed: int, rate: float
) -> None:
    hazards = assuming([f"peer={rate}", "repair=20d"], QUIET)
    dies = 1 - math.exp(-rate * hazards.repair / YEAR_S)
    alive = [(0.5 if one.state == "suspect" else 1.0) * (1 - dies) for one in roster]
    expected = sum(
        math.prod(odds if lives else 1 - odds for odds, lives in zip(alive, way, strict=True))
        for way in itertools.product((True, False), repeat=len(roster))
        if sum(way) < needed
    )
    assert loss_within(roster, needed, hazards) == pytest.approx(expected)


@given(rosters(), st.data())
def test_one_more_loss_never_puts_a_pack_further_back(roster: list[Peer], data: st.DataObject) -> None:
    names = [one.id for one in roster]
    holders = tuple(data.draw(st.lists(st.sampled_from(names), unique=True, max_size=4)) if names else ())
    fewer = holders[1:]
    found = repair_queue(
        [pack("a-more"), pack("b-fewer")],
        {PackId("a-more"): holders, PackId("b-fewer"): fewer},
        roster,
        policy(3, 2),
        within=DAY,
        hazards=Hazards(),
    )
    chances = {one.pack.id: one.chance for one in found}
    assert chances[PackId("b-fewer")] >= chances[PackId("a-more")] - 1e-15
    if chances[PackId("b-fewer")] > chances[PackId("a-more")] + 1e-12:
        assert order(found) == ["b-fewer", "a-more"]
