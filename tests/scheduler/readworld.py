"""Fetching packs over lines whose speeds drift, and the least time in which anybody could have done it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from scheduler.reading import Fetch, ReadQueue

STEP = 10.0
"""Seconds for which a line keeps a speed."""


@dataclass(frozen=True)
class World:
    """Packs (size and holders) and for each peer its speed in each step; ``link`` is the client's own."""

    packs: Mapping[str, tuple[int, frozenset[str]]]
    speeds: Mapping[str, Sequence[float]]
    link: float = math.inf

    def speed(self, peer: str, now: float) -> float:
        row = self.speeds[peer]
        return row[min(int(now / STEP), len(row) - 1)]


def drifting(seed: int, *, peers: int, packs: int, copies: int, skew: float = 8.0, link: float = math.inf) -> World:
    """Speeds from 1 to ``skew`` MB/s, each wandering within half and double of its own."""
    rng = Random(seed)
    names = [f"p{number}" for number in range(peers)]
    speeds = {}
    for name in names:
        base, at, row = 1e6 * math.exp(rng.uniform(0, math.log(skew))), 1.0, []
        for _ in range(4000):
            at = min(2.0, max(0.5, at * math.exp(rng.gauss(0, 0.2))))
            row.append(base * at)
        speeds[name] = row
    weights = [rng.uniform(0.3, 1) for _ in names]
    wanted = {}
    for number in range(packs):
        holders: set[str] = set()
        while len(holders) < copies:
            holders.add(rng.choices(names, weights)[0])
        wanted[f"k{number}"] = (rng.choice([8, 16, 16, 16]) * 2**20, frozenset(holders))
    return World(wanted, speeds, link)


def least(world: World) -> float:
    """The time below which no choice of holders can come, speeds being known beforehand and packs being sand.

    By max-flow = min-cut: packs that only some peers hold need what these peers give, for every set of peers.
    """
    names = sorted(world.speeds)
    bits = {name: 1 << at for at, name in enumerate(names)}
    held: dict[int, int] = {}
    for size, holders in world.packs.values():
        mask = sum(bits[name] for name in holders)
        held[mask] = held.get(mask, 0) + size
    needs = []
    for count in range(1, len(names) + 1):
        for some in combinations(names, count):
            mask = sum(bits[name] for name in some)
            size = sum(part for one, part in held.items() if one & ~mask == 0)
            if size:
                needs.append((size, some))
    return max(_time(world, size, some) for size, some in needs)


def _time(world: World, size: float, some: Sequence[str]) -> float:
    now, left = 0.0, size
    while True:
        speed = min(world.link, sum(world.speed(name, now) for name in some))
        if speed * STEP >= left:
            return now + left / speed
        left -= speed * STEP
        now += STEP


def fetch_all(world: World, queue: ReadQueue[str, str], *, at_once: int = 99) -> tuple[float, int]:
    """Run every peer's worker to the end. Returns the seconds it took and the bytes that came for nothing."""
    for pack, (size, holders) in world.packs.items():
        queue.add(pack, size, holders)
    now, wasted, got = 0.0, 0.0, set()
    running: dict[str, tuple[Fetch[str, str], float]] = {}
    while len(queue):
        for peer in queue.order([name for name in world.speeds if name not in running]):
            if len(running) < at_once and (fetch := queue.next(peer, now)) is not None:
                running[peer] = (fetch, 0.0)
        assert running, "somebody has something to do"
        speeds = _shared({peer: world.speed(peer, now) for peer in running}, world.link)
        ends = {peer: (fetch.size - done) / speeds[peer] for peer, (fetch, done) in running.items()}
        wait = min(*ends.values(), (math.floor(now / STEP + 1e-9) + 1) * STEP - now)
        now += wait
        for peer, (fetch, done) in running.items():
            running[peer] = (fetch, done + speeds[peer] * wait)
        for peer in [peer for peer, end in ends.items() if end <= wait + 1e-9]:
            if peer not in running:
                continue  # another one was as quick
            fetch, _ = running.pop(peer)
            assert fetch.pack not in got
            got.add(fetch.pack)
            for other in queue.arrived(fetch, now):
                wasted += running.pop(other.peer)[1]
    assert got == set(world.packs)
    return now, round(wasted)


def _shared(speeds: dict[str, float], link: float) -> dict[str, float]:
    """Max-min shares of the client's link."""
    left, found = link, {}
    for rank, peer in enumerate(sorted(speeds, key=lambda name: speeds[name])):
        found[peer] = min(speeds[peer], left / (len(speeds) - rank))
        left -= found[peer]
    return found
