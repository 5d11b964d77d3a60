"""The exact choice against trying every subset."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.selection import Limit, select


@st.composite
def limits(draw: st.DrawFn, peers: int) -> Limit:
    return Limit(
        group=draw(st.lists(st.integers(min_value=0, max_value=3), min_size=peers, max_size=peers)),
        cap=draw(st.integers(min_value=1, max_value=2)),
        hard=draw(st.booleans()),
    )


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_the_choice_is_as_large_and_as_cheap_as_any_subset(data: st.DataObject) -> None:
    peers = data.draw(st.integers(min_value=0, max_value=7))
    region = data.draw(st.lists(st.integers(0, 3), min_size=peers, max_size=peers))
    cost = data.draw(st.lists(st.integers(0, 20), min_size=peers, max_size=peers))
    rules = data.draw(st.lists(limits(peers), max_size=3))
    target = data.draw(st.integers(min_value=1, max_value=4))
    min_regions = data.draw(st.integers(min_value=1, max_value=3))
    regions_hard = data.draw(st.booleans())
    candidates = [at for at in range(peers) if data.draw(st.booleans())]

    def price(chosen: tuple[int, ...]) -> int | None:
        total = sum(cost[at] for at in chosen)
        for rule in rules:
            groups = [rule.group[at] for at in chosen]
            over = sum(max(0, groups.count(group) - rule.cap) for group in set(groups))
            if over and rule.hard:
                return None
            total += 100 * over
        short = max(0, min(len(chosen), min_regions) - len({region[at] for at in chosen}))
        if short and regions_hard:
            return None
        return total + 100 * short

    chosen = select(
        candidates,
        cost,
        rules,
        target=target,
        region=region,
        min_regions=min_regions,
        regions_hard=regions_hard,
        penalty=100,
    )
    possible = [
        (-size, total)
        for size in range(target + 1)
        for some in combinations(candidates, size)
        if (total := price(some)) is not None
    ]
    assert len(set(chosen)) == len(chosen)
    assert (-len(chosen), price(chosen)) == min(possible)


def test_fifty_peers_in_crossing_households_are_searched_not_enumerated() -> None:
    """Ten copies in ten regions from five peers each, and households that each span two regions."""
    peers = range(50)
    region = [at // 5 for at in peers]
    home = [at * 7 % 25 for at in peers]
    chosen = select(
        peers,
        [at * 31 % 50 for at in peers],
        [Limit(group=region, cap=1, hard=True), Limit(group=home, cap=1, hard=True)],
        target=10,
        region=region,
        min_regions=10,
        penalty=10**6,
    )
    assert len({region[at] for at in chosen}) == len({home[at] for at in chosen}) == 10
