from __future__ import annotations

from scheduler import Loss, PackId, survives
from tests.scheduler.problems import ids, peer, policy

A, B = PackId("a"), PackId("b")
ROSTER = [
    peer("p1", owner="eva", region="north"),
    peer("p2", owner="eva", region="south"),
    peer("p3", region="south"),
    peer("p4", country="NO"),
    peer("gone", state="lost"),
    peer("mine", own=True),
    peer("mute", state="suspect"),
]


def test_the_worst_single_loss_of_each_kind_is_that_of_the_pack_it_hits_hardest() -> None:
    placement = {A: ids("p1", "p2", "p3", "p4"), B: ids("p1", "p3", "p4", "gone")}
    left = survives(placement, ROSTER, policy(3))
    assert {kind: loss.left for kind, loss in left.items()} == {
        "peer": 2,
        "owner": 2,
        "site": 2,
        "region": 2,
        "country": 1,
    }
    assert left["country"] == Loss(kind="country", place="SE", pack=A, left=1)
    assert left["peer"].pack == B


def test_losing_a_household_takes_all_its_houses() -> None:
    left = survives({A: ids("p1", "p2", "p4")}, ROSTER, policy(3))
    assert left["owner"] == Loss(kind="owner", place="eva", pack=A, left=1)


def test_copies_that_do_not_count_do_not_survive() -> None:
    left = survives({A: ids("p4", "mine", "gone")}, ROSTER, policy(2, only_countries=frozenset({"SE"})))
    assert left["peer"] == Loss(kind="peer", place=None, pack=A, left=0)
    assert survives({A: ids("p1", "mine")}, ROSTER, policy(2, count_own=True))["peer"].left == 1


def test_an_empty_placement_has_no_copies_to_lose() -> None:
    assert set(survives({}, ROSTER, policy(2))) == {"peer", "owner", "site", "region", "country"}
    assert survives({}, ROSTER, policy(2))["peer"].left == 0
