"""Every invariant is broken once by hand, and the check names it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import (
    Addition,
    Debt,
    PackId,
    PeerId,
    Plan,
    Policy,
    Refusal,
    Relaxation,
    RosterError,
    check,
    place,
)
from tests.scheduler.problems import BENDS, ids, obeys, pack, peer, policies, policy, rosters

A = PackId("a")
ROSTER = [peer("p1"), peer("p2"), peer("p3"), peer("full", capacity=5)]


def kinds(placement: dict[PackId, tuple[PeerId | None, ...]], rule: Policy, *roster: Any) -> set[str]:
    return {row.kind for row in check(placement, [pack("a")], roster or ROSTER, rule)}


def test_a_good_placement_has_no_violation() -> None:
    assert kinds({A: ids("p1", "p2")}, policy(2)) == set()


@pytest.mark.parametrize(
    ("holders", "kind"),
    [
        (("p1", "p1", "p2"), "twice"),
        (("p1", "p2", "ghost"), "unknown-peer"),
        (("p1", "p2", "lost"), "state"),
        (("p1", "p2", "us"), "residency"),
        (("p1", "p2", "mine"), "own-household"),
        (("p1", "p2", "twin"), "owner"),
        (("p1", "p2", "near"), "region"),
        (("p1",), "copies"),
    ],
)
def test_each_broken_rule_of_a_placement_is_named(holders: tuple[str, ...], kind: str) -> None:
    roster = [
        *ROSTER,
        peer("lost", state="lost"),
        peer("us", country="US"),
        peer("mine", own=True),
        peer("twin", owner="OWNER P1"),
        peer("near", region="region p1"),
    ]
    rule = policy(2, only_countries=frozenset({"SE"}), spread=frozenset({"owner", "region"}))
    assert kinds({A: ids(*holders)}, rule, *roster) == {kind}


def test_caps_and_the_number_of_regions_are_checked() -> None:
    roster = [peer(name, region="r", site="s") for name in ("p1", "p2", "p3")]
    rule = policy(3, spread=frozenset(), max_per={"site": 2}, min_regions=2)
    assert kinds({A: ids("p1", "p2", "p3")}, rule, *roster) == {"site", "min-regions"}


def test_a_copy_that_does_not_count_leaves_the_minimum_unmet() -> None:
    roster = [peer("us", country="US")]
    assert kinds({A: ids("us")}, policy(1, only_countries=frozenset({"SE"})), *roster) == {
        "residency",
        "copies",
        "minimum",
    }


def test_shards_that_nobody_holds_are_missing_copies() -> None:
    assert kinds({A: (PeerId("p1"), None)}, policy(2)) == {"copies"}


def test_a_placement_of_an_unknown_pack_is_named() -> None:
    found = check({PackId("z"): ids("p1")}, [], ROSTER, policy(1))
    assert [(row.kind, row.pack) for row in found] == [("unknown-pack", "z")]


def test_a_roster_with_a_peer_twice_is_refused() -> None:
    with pytest.raises(RosterError, match="occurs twice"):
        check({}, [], [peer("a"), peer("a")], policy(1))


def spoiled(**changes: Any) -> set[str]:
    """The kinds of violation in a good plan for two copies on p1 (held) and p2 with something changed."""
    roster = [peer("p1"), peer("p2"), peer("ro", state="readonly"), peer("small", capacity=5)]
    rule = policy(2, 2)
    held = {A: ids("p1")}
    plan = place([pack("a")], roster, rule, held)
    assert plan.placement == {A: ids("p1", "p2")}
    return {row.kind for row in check(replace(plan, **changes), [pack("a")], roster, rule, held)}


def to(name: str, of: str = "a") -> Addition:
    return Addition(pack=PackId(of), peer=PeerId(name), why="")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, None),
        ({"additions": (to("small"),), "placement": {A: ids("p1", "small")}}, "capacity"),
        ({"additions": (to("ro"),), "placement": {A: ids("p1", "ro")}}, "state"),
        ({"additions": (to("p1"),), "placement": {A: ids("p1", "p1")}}, "twice"),
        ({"additions": (to("ghost"),), "placement": {A: ids("p1", "ghost")}}, "unknown-peer"),
        ({"additions": (to("p2"), to("p2", "z"))}, "unknown-pack"),
        ({"kept": {A: ids("p1"), PackId("z"): ids("p1")}}, "unknown-pack"),
        ({"additions": (), "placement": {A: ids("p1")}}, "account"),
        ({"placement": {A: ids("p1")}}, "account"),
        ({"kept": {A: ids("p1", "p2")}, "additions": ()}, "account"),
        ({"additions": (to("p2"), to("p3"))}, "copies"),
        ({"debts": (Debt(pack=A, have=2, promised=2, missing=(), would_help=()),)}, "account"),
        ({"refused": (Refusal(pack=A, have=2, minimum=2, why=(), would_help=()),)}, "account"),
        ({"relaxations": (Relaxation(pack=A, domains=("owner",), would_help=()),)}, "owner"),
    ],
)
def test_each_broken_rule_of_a_plan_is_named(changes: dict[str, Any], kind: str | None) -> None:
    found = spoiled(**changes)
    assert (kind in found) if kind else not found


def test_a_debt_that_misstates_what_is_there_is_named() -> None:
    plan = place([pack("a")], [peer("p1")], policy(2))
    wrong = replace(plan, debts=(replace(plan.debts[0], have=0),))
    assert [row.kind for row in check(wrong, [pack("a")], [peer("p1")], policy(2))] == ["account"]


def test_sharing_a_region_without_saying_so_is_named() -> None:
    roster = [peer("p1", region="r"), peer("p2", region="r")]
    rule = policy(2, spread=frozenset({"region"}))
    plan = place([pack("a")], roster, rule)
    assert check(plan, [pack("a")], roster, rule) == []
    silent: Plan = replace(plan, relaxations=())
    assert {row.kind for row in check(silent, [pack("a")], roster, rule)} == {"region"}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_check_finds_what_the_naive_rules_find(data: st.DataObject) -> None:
    roster = [replace(row, own=False, state="ok") for row in data.draw(rosters())]
    rule = replace(data.draw(policies()), only_countries=None)
    chosen = [row for row in roster if data.draw(st.booleans())]
    found = check({A: tuple(row.id for row in chosen)}, [pack("a")], roster, rule)
    faults = [row for row in found if row.kind not in ("copies", "minimum")]
    assert bool(faults) != obeys(chosen, roster, rule, BENDS[0])
