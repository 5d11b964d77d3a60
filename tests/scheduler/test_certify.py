"""Every invariant of placement sets is broken once by hand, and the check names it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scheduler.certify import certify
from scheduler.planner import solve
from scheduler.problem import parse
from scheduler.settle import Kind, Settled
from scheduler.shape import Rule, Sets
from tests.scheduler.oracle import Json

PEERS: list[Json] = [
    {"id": f"p{at}", "capacity": 8, "site": f"s{at // 2}", "region": f"r{at // 3}", "country": "SE"} for at in range(8)
]
PEERS[6]["state"] = "draining"
PEERS[7].update(country="US")
GROUND = parse({"peers": PEERS, "policies": [{"copies": 1}]}).ground
ROOM = [8] * 8
RULE = Rule(name="p", width=3, caps={"site": 1}, min_regions=2, countries=frozenset({"SE"}))


def sets(*rows: tuple[int, ...], packs: int = 2) -> Sets:
    return Sets(tuples=np.array(rows, dtype=np.int64).reshape(-1, 3), packs=np.full(len(rows), packs, dtype=np.int64))


def found(
    held: Sets, now: Sets, *, fresh: Sets | None = None, new: int = 0, refused: int = 0, **changes: Any
) -> set[str]:
    kind = Kind(rule=RULE, size=1, held=held, new=new)
    result = Settled(
        sets=now,
        origin=np.arange(len(now.packs)),
        due=now.tuples < 0,
        fresh=sets() if fresh is None else fresh,
        refused=refused,
    )
    return {row.kind for row in certify(GROUND, ROOM, [kind], [replace(result, **changes)])}


def test_what_the_planner_makes_is_in_order() -> None:
    kind = Kind(rule=RULE, size=1, held=sets((0, 2, 4), (6, 1, 3)), new=4)
    assert certify(GROUND, ROOM, [kind], solve(GROUND, ROOM, [kind])) == []


def test_what_did_not_move_is_not_judged() -> None:
    bad = sets((0, 1, 7))
    assert found(bad, bad) == set()


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ((0, 0, 4), "twice"),
        ((0, 1, 4), "site"),
        ((0, 2, 7), "residency"),
        ((0, 2, 6), "state"),
        ((0, 2, -1), "copies"),
        ((0, 2, 2), "twice"),
    ],
)
def test_a_new_pack_must_lie_as_its_policy_says(row: tuple[int, ...], kind: str) -> None:
    assert kind in found(sets(), sets(), fresh=sets(row), new=2)
    assert found(sets(), sets(), fresh=sets((0, 2, 4)), new=2) == set()


def test_new_packs_must_reach_their_regions() -> None:
    three = Rule(name="p", width=2, min_regions=2)
    kind = Kind(rule=three, size=1, held=Sets.none(2), new=1)
    one = Sets(tuples=np.array([[0, 2]]), packs=np.array([1]))
    result = Settled(
        sets=Sets.none(2),
        origin=np.zeros(0, dtype=np.int64),
        due=np.zeros((0, 2), dtype=bool),
        fresh=one,
        refused=0,
    )
    assert {row.kind for row in certify(GROUND, ROOM, [kind], [result])} == {"min-regions"}


@pytest.mark.parametrize(
    ("old", "now", "kind"),
    [
        ((0, 2, 4), (0, 2, 6), "state"),
        ((0, 2, 4), (0, 3, 2), "site"),
        ((0, 2, 4), (0, 2, 7), "residency"),
        ((0, 2, 4), (0, 2, -1), "copies"),
        ((6, 2, 4), (-1, 2, 4), "copies"),
        ((6, 2, 4), (5, 2, 4), "site"),
    ],
)
def test_what_moves_must_go_where_it_may(old: tuple[int, ...], now: tuple[int, ...], kind: str) -> None:
    assert kind in found(sets(old), sets(now))


def test_nobody_gets_more_than_there_is_room_for() -> None:
    assert found(sets(), sets(), fresh=sets((0, 2, 4), packs=9), new=9) == {"capacity"}
    assert found(sets((0, 2, 4), packs=8), sets((0, 2, 5), packs=8), fresh=sets((1, 2, 5), packs=1), new=1) == {
        "capacity"
    }


def test_who_has_too_much_and_gets_nothing_is_no_fault_of_the_plan() -> None:
    much = sets((0, 2, 4), packs=9)
    assert found(much, much) == set()
    assert found(much, sets((0, 2, 5), packs=9)) == {"capacity"}


def test_every_pack_is_accounted_for() -> None:
    assert found(sets((0, 2, 4)), sets((0, 2, 4), packs=1)) == {"account"}
    assert found(sets((0, 2, 4)), sets()) == {"account"}
    assert found(sets(), sets(), new=3) == {"account"}
    assert found(sets(), sets(), new=3, refused=3) == set()
