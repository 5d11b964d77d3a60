"""Nested limits: the bound, shares that reach it, and tuples cut from shares."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from scheduler.laminar import Group, Tree, nest, numbers

Ints = npt.NDArray[np.int64]


def group(cap: int, *members: int, domain: str = "site") -> Group:
    return Group(domain=domain, label=str(members), cap=cap, members=np.array(members, dtype=np.int64))


def tree(count: int, width: int, *groups: Group, regions: int = 1) -> Tree:
    inside, parents, crossing = nest(groups, count)
    assert not crossing
    return Tree(count, width, inside, parents, regions=regions)


def random_tree(source: random.Random, count: int) -> Tree:
    """Sites in regions in countries, each with a limit or none."""
    width = source.randint(1, 5)
    groups = []
    edges = sorted({0, count, *(source.randrange(count) for _ in range(3))})
    for begin, end in pairwise(edges):
        groups.append(group(source.randint(1, width), *range(begin, end)))
        middle = (begin + end) // 2
        if begin < middle:
            groups.append(group(source.randint(1, width), *range(begin, middle)))
    return tree(count, width, *groups)


def test_groups_that_overlap_do_not_nest() -> None:
    inside, parents, crossing = nest([group(1, 0, 1, 2), group(1, 2, 3), group(1, 0, 1), group(2, 3, 4)], 5)
    assert [row.members.tolist() for row in inside] == [[0, 1, 2], [0, 1], [3, 4]]
    assert parents == [0, 1, 0]
    assert [row.members.tolist() for row in crossing] == [[2, 3]]


@pytest.mark.parametrize("unit", [1, 2**50])
def test_a_share_uses_the_bound_in_full_and_keeps_every_limit(unit: int) -> None:
    source = random.Random(1)
    reached = 0
    for _ in range(60):
        count = source.randint(2, 12)
        whole = random_tree(source, count)
        room = numbers([source.randint(0, 40) * unit for _ in range(count)])
        bound = whole.bound(room)
        for packs in {bound, bound // 3}:
            shards = whole.share(room, packs)
            assert shards.sum() == packs * whole.width
            assert (shards <= np.minimum(room, packs)).all()
            for node in whole.nodes:
                assert shards[node.members].sum() <= node.cap * packs
        assert whole.lacking(room, bound) == 0 < whole.lacking(room, bound + 1)
        reached += bound > 0
    assert reached > 25


def test_a_cut_serves_every_pack_with_distinct_peers_and_no_limit_broken() -> None:
    source = random.Random(2)
    for seed in range(60):
        whole = random_tree(source, source.randint(2, 12))
        room = numbers([source.randint(0, 40) for _ in range(whole.count)])
        bound = whole.bound(room)
        if not bound:
            continue
        shards = whole.share(room, bound)
        tuples, begins, stops = whole.cut(shards, bound, np.random.default_rng(seed))
        assert begins[0] == 0
        assert stops[-1] == bound
        assert (begins[1:] == stops[:-1]).all()
        load = np.zeros(whole.count, dtype=np.int64)
        for row, packs in zip(tuples.tolist(), (stops - begins).tolist(), strict=True):
            assert len(set(row)) == whole.width
            load[row] += packs
            for node in whole.nodes:
                assert len({*row} & {*node.members.tolist()}) <= node.cap
        assert (load == shards).all()
        assert len(tuples) <= whole.count + whole.width


def test_tuples_reach_the_regions_they_must() -> None:
    regions = [group(2, 0, 1, 2), group(2, 3, 4), group(2, 5)]
    whole = tree(6, 3, *regions, regions=2)
    room = numbers([30, 30, 30, 5, 9, 4])
    bound = whole.bound(room)
    assert bound == 18  # each pack needs one of the 18 outside the large region
    assert whole.regional(room, bound + 1)
    tuples, _, _ = whole.cut(whole.share(room, bound), bound, np.random.default_rng(3))
    place = np.array([0, 0, 0, 1, 1, 2])
    assert min(len(set(row)) for row in place[tuples].tolist()) == 2


def test_every_peer_gets_its_part_of_what_its_places_can_take() -> None:
    whole = tree(6, 2, group(1, 0, 1, 2, 3))
    shards = whole.share(numbers([100, 100, 200, 400, 300, 300]), 200)
    assert shards.tolist() == [22, 22, 45, 45, 133, 133]


def test_the_cheapest_peers_come_first_as_far_as_limits_go() -> None:
    whole = tree(4, 2, group(1, 0, 1))
    shards = whole.cheapest(numbers([6, 6, 6, 6]), 5, np.array([0, 1, 2, 3]))
    assert shards.tolist() == [5, 0, 5, 0]
    shards = whole.cheapest(numbers([3, 6, 3, 6]), 5, np.array([0, 1, 2, 3]))
    assert shards.tolist() == [3, 2, 3, 2]


def test_what_is_tight_is_named() -> None:
    whole = tree(5, 2, group(1, 0, 1, 2))
    room = numbers([50, 50, 50, 3, 4])
    assert whole.bound(room) == 7
    nodes, full = whole.tight(room, 8)
    assert [whole.nodes[node - 1].members.tolist() for node in nodes] == [[0, 1, 2]]
    assert full.tolist() == [3, 4]
