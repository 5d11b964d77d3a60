"""Flows and small integer programs beside trying everything."""

from __future__ import annotations

import random
from itertools import product

import numpy as np

from scheduler.flow import Network
from scheduler.packing import most_packs


def cheapest(arcs: list[tuple[int, int, int, int]], nodes: int) -> tuple[int, int]:
    """The most that flows from 0 to 1, and the least that it costs, by trying every flow."""
    best = (0, 0)
    for flows in product(*(range(capacity + 1) for _, _, capacity, _ in arcs)):
        excess = [0] * nodes
        for (tail, head, _, _), flow in zip(arcs, flows, strict=True):
            excess[tail] -= flow
            excess[head] += flow
        if not any(excess[2:]) and excess[1] >= 0:
            cost = sum(flow * arc[3] for arc, flow in zip(arcs, flows, strict=True))
            best = min(best, (-excess[1], cost))
    return -best[0], best[1]


def test_a_flow_is_the_most_at_the_least_cost() -> None:
    flowed = 0
    for seed in range(80):
        source = random.Random(seed)
        nodes = source.randint(3, 5)
        arcs = []
        for _ in range(source.randint(3, 7)):
            tail, head = source.sample(range(nodes), 2)
            arcs.append((tail, head, source.randint(0, 2), source.randint(0, 3)))
        network = Network(nodes)
        numbers = [network.arc(*arc) for arc in arcs]
        sent = network.run(0, 1)
        cost = sum(network.through(number) * arc[3] for number, arc in zip(numbers, arcs, strict=True))
        assert (sent, cost) == cheapest(arcs, nodes), seed
        assert not network.reached(0)[1]
        flowed += sent > 0
    assert flowed > 30


def test_the_near_side_of_a_cut_is_what_can_still_be_reached() -> None:
    network = Network(4)
    network.arc(0, 2, 5)
    network.arc(2, 3, 2)
    network.arc(3, 1, 5)
    assert network.run(0, 1) == 2
    assert network.reached(0) == [True, False, True, False]


def test_a_packing_is_the_most_that_fits() -> None:
    for seed in range(60):
        source = random.Random(seed)
        uses = np.array([[source.randrange(2) for _ in range(5)] for _ in range(4)], dtype=np.int64)
        uses = uses[:, uses.any(axis=0)]
        room = np.array([source.randrange(4) for _ in range(4)])
        worth = np.array([source.randint(1, 3) for _ in range(uses.shape[1])])
        taken, proven = most_packs(uses, room, worth)
        best = max(
            int(worth @ np.array(some))
            for some in product(range(4), repeat=uses.shape[1])
            if (uses @ np.array(some) <= room).all()
        )
        assert proven
        assert (uses @ taken <= room).all()
        assert int(worth @ taken) == best, seed
