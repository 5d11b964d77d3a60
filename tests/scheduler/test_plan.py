"""Plans beside a naive solver that tries everything, and what must not change them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from scheduler.problem import parse
from scheduler.report import plan
from tests.scheduler.oracle import Json, federation, greatest, least, objections, place, problem, promise, width


def solved(question: Json) -> Json:
    answer = plan(parse(question))
    assert objections(question, answer) == []
    return answer


def small(source: random.Random, *, nested: bool) -> Json:
    """A federation with nothing on it and one kind of packs."""
    peers = federation(source, source.randint(1, 6), nested=nested)
    policy = promise(source)
    size = source.randint(5, 12)
    return {"peers": peers, "policies": [policy], "packs": {"count": 0, "size": size, "policy": "p"}}


# -- beside the oracle ------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [True, False])
def test_the_bound_is_what_trying_everything_finds_and_is_reached(nested: bool) -> None:
    reached = 0
    for seed in range(200):
        source = random.Random(seed)
        question = small(source, nested=nested)
        for peer in question["peers"]:
            peer["used"] = source.choice([0, 0, 7])
        most = greatest(question["peers"], question["policies"][0], question["packs"]["size"])
        question["packs"]["count"] = most
        answer = solved(question)
        assert (answer["bound"], answer["bounds"][0]["exact"]) == (most, True), seed
        assert answer["feasible"], seed
        question["packs"]["count"] = most + 2
        assert len(solved(question)["refused"]) == 2, seed
        reached += most > 0
    assert reached > 80


@pytest.mark.parametrize("nested", [True, False])
def test_a_small_plan_is_as_good_as_any_in_every_respect(nested: bool) -> None:
    whole = moved = short = 0
    for seed in range(200):
        question = problem(seed, nested=nested)
        answer = solved(question)
        homeless, refused, moves = least(question)
        old = [row for row in answer["refused"] if row["pack"] in question["placements"]]
        assert bool(old) == (homeless > 0), seed
        if not old:
            assert (len(answer["refused"]), len(answer["moves"])) == (refused, moves), seed
            whole, moved, short = whole + 1, moved + (moves > 0), short + (refused > 0)
    assert whole > 90
    assert moved > 5
    assert short > 30


@pytest.mark.slow
@pytest.mark.parametrize("nested", [True, False])
def test_many_small_plans_are_as_good_as_any(nested: bool) -> None:
    for seed in range(200, 4000):
        question = problem(seed, nested=nested)
        answer = solved(question)
        homeless, refused, moves = least(question)
        old = [row for row in answer["refused"] if row["pack"] in question["placements"]]
        assert bool(old) == (homeless > 0), seed
        assert old or (len(answer["refused"]), len(answer["moves"])) == (refused, moves), seed


def test_what_the_bottleneck_names_lets_the_next_pack_in() -> None:
    named = 0
    for seed in range(150):
        question = small(random.Random(seed), nested=bool(seed % 2))
        answer = solved(question)
        bottleneck = answer["bottleneck"]
        for peer in question["peers"]:
            if peer["id"] == bottleneck["peer"]:
                peer["capacity"] += bottleneck["lacking"]
                assert solved(question)["bound"] > answer["bound"], seed
                peer["capacity"] -= bottleneck["lacking"]
                named += 1
        for held in bottleneck["held"]:
            for peer in question["peers"]:
                if place(question["peers"], peer, held["domain"]) == held["label"]:
                    peer["capacity"] += 1000
            assert solved(question)["bound"] == answer["bound"], (seed, held)
            for peer in question["peers"]:
                if place(question["peers"], peer, held["domain"]) == held["label"]:
                    peer["capacity"] -= 1000
            named += 1
    assert named > 60


def test_after_the_worst_loss_is_what_trying_every_loss_finds() -> None:
    for seed in range(100):
        question = problem(seed, nested=False)
        answer = solved(question)
        rows = list(answer["placements"].values())
        for domain, left in answer["after_worst_loss"].items():
            worst = []
            for peer in question["peers"]:
                there = {
                    other["id"]
                    for other in question["peers"]
                    if (
                        other is peer
                        if domain == "peer"
                        else place(question["peers"], other, domain) == place(question["peers"], peer, domain)
                    )
                }
                worst += [sum(name is not None and name not in there for name in row) for row in rows if there & {*row}]
            assert left == min(worst, default=None), (seed, domain)


# -- households -------------------------------------------------------------------------------------------


def four(**changes: Any) -> Json:
    """Anna has two houses, Bo lives in one of hers and in one of his own; Cy lives alone."""
    rows = [
        ("a1", "anna", "one"),
        ("a2", "anna", "two"),
        ("b2", "bo", "two"),
        ("b3", "bo", "three"),
        ("c4", "cy", "four"),
    ]
    peers = [{"id": name, "capacity": 10, "owner": owner, "site": site} for name, owner, site in rows]
    return {
        "peers": peers,
        "policies": [{"copies": 2, **changes}],
        "packs": {"count": 3, "size": 1},
    }


@pytest.mark.parametrize(
    ("limits", "bound"),
    [
        ({}, 25),
        ({"owner": 1}, 25),
        ({"owner": 1, "site": 1}, 25),
        ({"household": 1}, 10),
    ],
)
def test_owners_and_houses_cross_and_a_household_is_all_they_tie_together(limits: dict[str, int], bound: int) -> None:
    question = four(max_per=limits)
    answer = solved(question)
    assert answer["bound"] == bound
    assert answer["bound"] == greatest(question["peers"], question["policies"][0], 1)


def test_three_copies_in_three_houses_of_three_owners_are_found_where_few_triples_are_right() -> None:
    question = four(copies=3, max_per={"owner": 1, "site": 1})
    answer = solved(question)
    assert answer["bound"] == 10
    assert {frozenset(row) for row in answer["placements"].values()} <= {
        frozenset({"a1", "b2", "c4"}),
        frozenset({"a1", "b3", "c4"}),
        frozenset({"a2", "b3", "c4"}),
    }


# -- changes ----------------------------------------------------------------------------------------------


def filled(copies: int = 3, count: int = 60) -> Json:
    """Eight equal peers in as many sites and four regions, 60 packs on them."""
    peers = [
        {"id": f"p{at}", "capacity": 50, "site": f"s{at}", "region": f"r{at // 2}", "country": "SE"} for at in range(8)
    ]
    question = {
        "peers": peers,
        "policies": [{"name": "p", "copies": copies, "max_per": {"region": 1}}],
        "packs": {"count": count, "size": 1, "policy": "p"},
    }
    question["placements"] = solved(question)["placements"]
    return question


def held_by(question: Json, name: str) -> int:
    return sum(name in row for row in question["placements"].values())


def test_a_plan_that_is_carried_out_is_the_end_of_it() -> None:
    question = filled()
    answer = solved(question)
    assert answer["moves"] == []
    assert answer["placements"] == question["placements"]


def test_a_join_moves_nothing_and_new_packs_use_it() -> None:
    question = filled()
    question["peers"].append({"id": "new", "capacity": 500, "region": "far", "country": "NO"})
    question["packs"]["count"] = 80
    answer = solved(question)
    assert answer["moves"] == []
    assert held_by(answer, "new") > 10


@pytest.mark.parametrize("state", ["lost", "draining"])
def test_a_peer_that_goes_moves_what_it_held_and_nothing_else(state: str) -> None:
    question = filled()
    question["peers"][2]["state"] = state
    answer = solved(question)
    assert len(answer["moves"]) == held_by(question, "p2") > 0
    assert {move["from"] for move in answer["moves"]} == {"p2"}
    assert {move["why"] for move in answer["moves"]} == {f"p2 is {state}"}


def test_a_readonly_peer_keeps_what_it_has_and_gets_nothing() -> None:
    question = filled()
    question["peers"][2]["state"] = "readonly"
    question["packs"]["count"] = 80
    answer = solved(question)
    assert answer["moves"] == []
    assert held_by(answer, "p2") == held_by(question, "p2")


def test_a_grant_that_was_cut_lets_go_of_just_so_much() -> None:
    question = filled()
    question["peers"][3]["capacity"] = 10
    answer = solved(question)
    assert len(answer["moves"]) == held_by(question, "p3") - 10 > 0
    assert {move["why"] for move in answer["moves"]} == {"p3 holds more than its capacity"}


def test_a_label_that_was_corrected_moves_one_copy_of_each_pack_that_it_brings_together() -> None:
    question = filled()
    question["peers"][0]["region"] = "r3"
    bad = sum("p0" in row and bool({"p6", "p7"} & {*row}) for row in question["placements"].values())
    answer = solved(question)
    assert len(answer["moves"]) == bad > 0
    assert "region r3 may hold 1 and also has" in answer["moves"][0]["why"]


def test_a_residency_that_was_narrowed_moves_what_lies_outside() -> None:
    question = filled(copies=2)
    question["peers"][1]["country"] = "US"
    question["policies"][0]["only_countries"] = ["SE", "NO"]
    answer = solved(question)
    assert len(answer["moves"]) == held_by(question, "p1") > 0
    assert {move["why"] for move in answer["moves"]} == {"residency does not allow US"}


def test_packs_make_room_for_new_ones_that_could_lie_nowhere_else() -> None:
    question = {
        "peers": [{"id": name, "capacity": 1, "country": country} for name, country in (("a", "SE"), ("b", "NO"))],
        "policies": [{"name": "any", "copies": 1}, {"name": "home", "copies": 1, "only_countries": ["SE"]}],
        "packs": [{"id": "old", "size": 1, "policy": "any"}, {"id": "new", "size": 1, "policy": "home"}],
        "placements": {"old": ["a"]},
    }
    answer = solved(question)
    assert answer["placements"] == {"old": ["b"], "new": ["a"]}
    assert [move["why"] for move in answer["moves"]] == ["makes room for other shards"]


def test_what_finds_no_place_stays_and_is_told_with_what_would_help() -> None:
    question = filled(copies=4)
    question["peers"][0]["state"] = "draining"
    question["peers"][1]["state"] = "lost"
    answer = solved(question)
    assert not answer["feasible"]
    assert held_by(answer, "p0") == held_by(question, "p0")
    assert held_by(answer, "p1") == 0
    stuck = next(row for row in answer["refused"] if "p0" in question["placements"][row["pack"]])
    assert "p0 is draining" in stuck["why"]
    assert "another peer in another region than" in stuck["would_help"]


def test_coded_shards_keep_their_numbers() -> None:
    question = filled()
    question["policies"][0] = {"name": "p", "coding": [2, 1], "max_per": {"region": 1}}
    question["peers"][5]["state"] = "lost"
    answer = solved(question)
    for name, row in answer["placements"].items():
        before = question["placements"][name]
        assert [old for old in before if old != "p5"] == [
            now for old, now in zip(before, row, strict=True) if old != "p5"
        ]


def test_several_kinds_share_the_peers_and_each_has_its_bound() -> None:
    question = filled()
    question["policies"].append({"name": "q", "coding": [2, 2], "only_countries": ["SE"]})
    packs = [{"id": f"p{at}", "size": 2, "policy": "p"} for at in range(20)]
    packs += [{"id": f"q{at}", "size": 6, "policy": "q"} for at in range(20)]
    question.update(packs=packs, placements={})
    answer = solved(question)
    assert answer["feasible"]
    assert [(row["policy"], row["size"], row["shard"], row["bound"]) for row in answer["bounds"]] == [
        ("p", 2, 2, 66),
        ("q", 6, 3, 32),
    ]
    assert answer["bound"] == 32  # of the kind with the most bytes


def test_dear_peers_come_last() -> None:
    question = filled(copies=2, count=0)
    question["placements"] = {}
    for peer in question["peers"][:4]:
        peer["cost"] = 5
    question["packs"]["count"] = 40
    assert all(held_by(solved(question), f"p{at}") == 0 for at in range(4))


def test_used_counts_what_the_placements_say_and_the_rest_is_others() -> None:
    question = filled()
    for peer in question["peers"]:
        peer["used"] = held_by(question, peer["id"])
    assert solved(question)["bound"] == solved(filled())["bound"]
    for peer in question["peers"]:
        peer["used"] += 20
    answer = solved(question)
    assert answer["bound"] == (8 * (50 - 20)) // 3
    assert answer["feasible"]
    assert answer["moves"] == []


# -- what must not matter ---------------------------------------------------------------------------------


def sizes_and_counts(answer: Json) -> tuple[object, ...]:
    return (
        answer["feasible"],
        answer["bound"],
        len(answer["moves"]),
        len(answer["refused"]),
        answer["bottleneck"]["lacking"],
        len(answer["bottleneck"]["full"]),
    )


def test_the_order_of_peers_and_keys_does_not_matter() -> None:
    for seed in range(60):
        question = problem(seed, nested=True)
        turned = {**question, "peers": [dict(reversed(peer.items())) for peer in reversed(question["peers"])]}
        assert solved(turned) == solved(question), seed


def test_other_names_make_the_same_plan_but_for_the_names() -> None:
    for seed in range(60):
        question = problem(seed, nested=True)
        named = {peer["id"]: f"{'zyxwvu'[at]}-{at}" for at, peer in enumerate(question["peers"])}
        other = {
            **question,
            "peers": [
                {**peer, "id": named[peer["id"]], "site": f"house {peer['site']}", "region": f"in {peer['region']}"}
                for peer in question["peers"]
            ],
            "placements": {
                pack: [None if name is None else named[name] for name in row]
                for pack, row in question["placements"].items()
            },
        }
        assert sizes_and_counts(solved(other)) == sizes_and_counts(solved(question)), seed


def test_another_unit_makes_the_same_plan() -> None:
    for seed in range(60):
        question = problem(seed, nested=True)
        larger = {
            **question,
            "peers": [{**peer, "capacity": peer["capacity"] * 2**40} for peer in question["peers"]],
            "packs": [{**pack, "size": pack["size"] * 2**40} for pack in question["packs"]],
        }
        answer, scaled = solved(question), solved(larger)
        assert scaled["placements"] == answer["placements"], seed
        assert scaled["bound"] == answer["bound"], seed


def test_more_room_never_refuses_more() -> None:
    for seed in range(60):
        question = problem(seed, nested=True)
        before = solved(question)
        for peer in question["peers"]:
            peer["capacity"] += 10
        after = solved(question)
        assert after["bound"] >= before["bound"], seed
        assert len(after["refused"]) <= len(before["refused"]), seed


def test_a_peer_of_no_stated_place_is_a_place_of_its_own() -> None:
    question = filled()
    for peer in question["peers"]:
        del peer["site"], peer["region"], peer["country"]
    question["placements"] = {}
    answer = solved(question)
    assert answer["bound"] == 8 * 50 // width(question["policies"][0])
    assert answer["after_worst_loss"] == dict.fromkeys(("peer", "owner", "site", "region", "country"), 2)


def test_the_whole_range_of_sizes_is_exact() -> None:
    question = filled()
    question["placements"] = {}
    for peer in question["peers"]:
        peer["capacity"] = 2**60
    question["packs"]["count"] = 50
    assert solved(question)["bound"] == 8 * 2**60 // 3
