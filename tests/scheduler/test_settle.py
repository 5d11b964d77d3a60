"""What is due, and where it goes, one set after another."""

from __future__ import annotations

from typing import Any

import numpy as np

from scheduler.problem import parse
from scheduler.settle import Kind, Settler, kept
from scheduler.shape import Field, Rule, Sets


def ground(*rows: dict[str, Any]) -> Field:
    peers = [{"id": f"p{at}", "capacity": 0, **row} for at, row in enumerate(rows)]
    return parse({"peers": peers, "policies": [{"copies": 1}]}).ground


def held(*rows: tuple[int, ...], packs: tuple[int, ...]) -> Sets:
    return Sets(tuples=np.array(rows, dtype=np.int64), packs=np.array(packs, dtype=np.int64))


RULE = Rule(name="p", width=2, caps={"site": 1})


def test_what_leaves_for_another_reason_counts_towards_a_grant_that_was_cut() -> None:
    field = ground({"site": "a", "state": "readonly"}, {"site": "a"}, {"site": "b"}, {"site": "c"})
    kind = Kind(rule=RULE, size=1, held=held((0, 1), (0, 2), packs=(4, 6)))
    settler = Settler(field, np.array([6 - 10, 0, 0, 50]), [kind])
    settler.find()
    assert [(row.origin, row.packs, row.due) for row in settler.rows] == [(0, 4, {0: "limits"})]
    settler = Settler(field, np.array([3 - 10, 0, 0, 50]), [kind])
    settler.find()
    assert [(row.origin, row.packs, row.due) for row in settler.rows] == [
        (0, 4, {0: "limits"}),
        (1, 3, {0: "grant"}),
    ]
    assert settler.settle()
    assert settler.free.tolist() == [0, 0, 0, 43]
    assert settler.still[0].tolist() == [0, 3]


def test_of_unequal_shards_the_fewest_leave_that_are_enough() -> None:
    field = ground({}, {}, {})
    kinds = [
        Kind(rule=Rule(name="p", width=1), size=size, held=held((0,), packs=(packs,)))
        for size, packs in ((4, 2), (10, 3), (7, 1))
    ]
    settler = Settler(field, np.array([-13, 100, 100]), kinds)
    settler.find()
    assert sorted((kinds[row.kind].size, row.packs) for row in settler.rows) == [(4, 1), (10, 1)]


def test_shards_go_where_later_packs_could_not_use_the_room() -> None:
    # Later packs need p1 or p2 beside p3, so most of the room of p3 is of no use to them.
    field = ground({"state": "lost"}, {"site": "x"}, {"site": "y"}, {"site": "z"})
    kind = Kind(rule=RULE, size=1, held=held((0, 1), packs=(10,)))
    settler = Settler(field, np.array([0, 20, 20, 90]), [kind])
    settler.find()
    assert settler.settle()
    assert {tuple(row.now) for row in settler.rows} == {(3, 1)}


def test_of_shards_that_cannot_all_stay_the_most_do() -> None:
    field = ground({"site": "a"}, {"site": "a"}, {"site": "b"}, {"site": "b", "state": "readonly"}, {"site": "c"})
    rule = Rule(name="p", width=5, caps={"site": 1})
    assert kept(field, rule, [0, 1, 2, 3, 4]) in ({0, 2, 4}, {1, 2, 4})
    assert kept(field, rule, [4, 4, -1, 3, -1]) == {0, 3}
    assert len(kept(field, Rule(name="p", width=3, min_regions=3), [0, 1, 2])) == 3
