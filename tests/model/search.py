"""Breadth-first search through every state of a machine."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tests.model.protocol import Protocol, States


@dataclass(frozen=True)
class Found:
    """What a search saw: ``trace`` leads to a broken state, the shortest way; empty if there is none.

    ``complete``: there are no other states. ``gone``: states in which a copy was deleted.
    """

    states: int
    depth: int
    complete: bool
    gone: int
    trace: tuple[str, ...]


def search(protocol: Protocol, *, limit: int) -> Found:
    """Visit states until one is broken, all are seen, or more than ``limit`` are."""
    frontier = protocol.start()
    seen = frontier
    levels = [frontier]
    gone = 0
    while len(frontier) and len(seen) <= limit:
        frontier = fresh(protocol, frontier, seen)
        seen = merge(seen, frontier)
        levels.append(frontier)
        gone += int((np.bitwise_and.reduce([bits.on(frontier) for bits in protocol.present]) == 0).sum())
        broken = frontier[protocol.broken(frontier)]
        if len(broken):
            return Found(len(seen), len(levels) - 1, complete=False, gone=gone, trace=way(protocol, levels, broken[0]))
    return Found(len(seen), len(levels) - 1, complete=not len(frontier), gone=gone, trace=())


def fresh(protocol: Protocol, frontier: States, seen: States) -> States:
    """Return the states one step on that were not seen, sorted."""
    found = np.unique(np.concatenate([after for _, after in moves(protocol, frontier)]))
    at = np.searchsorted(seen, found)
    known = np.zeros(len(found), dtype=np.bool_)
    inside = at < len(seen)
    known[inside] = seen[at[inside]] == found[inside]
    return found[~known]


def merge(seen: States, more: States) -> States:
    """Return two sorted arrays as one."""
    return np.insert(seen, np.searchsorted(seen, more), more)


def moves(protocol: Protocol, states: States) -> Iterator[tuple[str, States]]:
    """Yield each step with where it leads from the states in which it can be taken."""
    for name, step in protocol.steps.items():
        enabled, after = step(states)
        yield name, after[enabled]


def way(protocol: Protocol, levels: list[States], broken: np.uint64) -> tuple[str, ...]:
    """Return the steps that lead to a state, by walking back through the levels."""
    steps: list[str] = []
    goal = broken
    for level in reversed(levels[:-1]):
        for name, step in protocol.steps.items():
            enabled, after = step(level)
            hit = np.flatnonzero(enabled & (after == goal))
            if len(hit):
                steps.append(name)
                goal = level[hit[0]]
                break
    return tuple(reversed(steps))
