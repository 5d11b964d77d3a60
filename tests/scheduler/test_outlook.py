from __future__ import annotations

import math

import pytest

from scheduler import PackId, Peer
from scheduler.hazards import Hazards, assuming
from scheduler.outlook import nines, outlook, set_rate
from tests.scheduler.problems import ids, peer, policy

A, B, C = PackId("a"), PackId("b"), PackId("c")
QUIET = assuming(["rot=0", "owner=0", "site=0", "region=0", "country=0", "common=0", "repair=3d"])


def test_nines_are_of_the_chance_within_a_year() -> None:
    assert nines(1e-6) == pytest.approx(6, abs=1e-4)
    assert nines(0.0) == math.inf
    assert nines(1e9) == 0.0


def test_three_friends_at_fifteen_percent_and_three_days_give_six_nines() -> None:
    found = outlook({A: ids("p1", "p2", "p3")}, [peer("p1"), peer("p2"), peer("p3")], policy(3), QUIET)
    assert nines(found.independent.worst) == pytest.approx(6.16, abs=0.02)
    assert found.shocks == found.independent
    assert found.causes == (("peer", 1.0),)


def test_copies_in_one_region_are_worth_what_the_region_is() -> None:
    hazards = assuming(["region=1%", "country=0", "repair=3d"])
    apart = outlook({A: ids("p1", "p2", "p3")}, [peer("p1"), peer("p2"), peer("p3")], policy(3), hazards)
    there = [peer(name, region="umea") for name in ("p1", "p2", "p3")]
    together = outlook({A: ids("p1", "p2", "p3")}, there, policy(3), hazards)
    assert together.independent == apart.independent
    assert nines(apart.shocks.worst) > 4.5
    assert nines(together.shocks.worst) == pytest.approx(2.0, abs=0.05)
    assert together.causes[0][0] == "region"


def test_an_owner_with_two_houses_takes_both_copies() -> None:
    roster = [peer("p1", owner="eva"), peer("p2", owner="Éva")]
    assert set_rate(roster, 1, assuming(["owner=2%"])) > 0.02
    assert set_rate([peer("p1"), peer("p2")], 1, assuming(["owner=2%"])) < 0.01


def test_copies_that_do_not_count_are_worth_nothing() -> None:
    roster = [peer("p1"), peer("gone", state="lost"), peer("mine", own=True), peer("us", country="US")]
    found = outlook({A: ids("p1", "gone", "mine", "us")}, roster, policy(3, only_countries=frozenset({"SE"})), QUIET)
    assert found.fewest == 1
    assert found.independent.worst == pytest.approx(0.15, rel=0.01)


def test_what_cannot_be_read_now_is_gone_and_in_no_rate() -> None:
    roster = [peer(f"p{number}") for number in range(3)] + [peer("gone", state="lost")]
    rule = policy(3, 2, coding=(2, 1))
    found = outlook({A: ids("p0", "p1", "p2"), B: (None, *ids("p1", "gone"))}, roster, rule, QUIET)
    assert (found.packs, found.gone, found.fewest) == (2, 1, 1)
    assert 0 < found.independent.worst < 0.1


def test_a_suspect_peer_is_half_trusted() -> None:
    sure = outlook({A: ids("p1", "p2")}, [peer("p1"), peer("p2")], policy(2), QUIET)
    half = outlook({A: ids("p1", "p2")}, [peer("p1"), peer("p2", state="suspect")], policy(2), QUIET)
    assert half.independent.worst > 100 * sure.independent.worst


def test_any_loss_counts_an_event_once_however_many_packs_it_takes() -> None:
    roster = [peer(name) for name in ("p1", "p2")]
    many = {PackId(f"k{number}"): ids("p1") for number in range(500)} | {
        PackId(f"l{number}"): ids("p2") for number in range(500)
    }
    found = outlook(many, roster, policy(1), QUIET)
    assert found.shocks.any == pytest.approx(0.3, rel=0.01)
    assert found.shocks.pack == pytest.approx(0.15, rel=0.01)
    rotten = outlook(many, roster, policy(1), assuming(["peer=0", "rot=0.1%", "common=0", "owner=0", "site=0"]))
    assert rotten.independent.any == pytest.approx(1.0, rel=0.01)  # each copy by itself


def test_the_worst_loss_of_each_kind_is_the_one_that_takes_most() -> None:
    roster: list[Peer] = [
        peer("p1", owner="eva", region="north"),
        peer("p2", owner="eva", region="south"),
        peer("p3", region="south"),
        peer("p4", country="NO"),
    ]
    found = outlook({A: ids("p1", "p2"), B: ids("p2", "p3", "p4"), C: ids("p1", "p4")}, roster, policy(2), Hazards())
    left = {one.kind: one for one in found.left}
    assert (left["owner"].place, left["owner"].peers, left["owner"].lost, left["owner"].copies) == (
        "eva",
        ids("p1", "p2"),
        1,
        0,
    )
    assert (left["region"].place, left["region"].lost, left["region"].copies) == ("south", 0, 1)
    assert (left["country"].place, left["country"].lost) == ("SE", 1)
    assert left["peer"].copies == 1
    assert left["peer"].rate > 0.15


def test_nothing_placed_has_no_rate_and_no_loss() -> None:
    found = outlook({}, [peer("p1")], policy(2), Hazards())
    assert (found.packs, found.sets, found.independent.worst, found.causes) == (0, 0, 0.0, ())
    assert [one.place for one in found.left] == [None] * 5
