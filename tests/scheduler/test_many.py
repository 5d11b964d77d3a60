"""The front door with many packs and many peers: placement sets, with the same promises."""

from __future__ import annotations

import random
from collections import Counter

import pytest

import scheduler.many
from scheduler import Pack, PackId, Peer, PeerId, Plan, Policy, check, place
from scheduler.geography import households
from tests.scheduler.problems import pack, peer, policy


def crowd(count: int, *, seed: int = 1, capacity: int = 400) -> list[Peer]:
    """Unequal peers, up to three in a house, and owners with two houses now and then."""
    source = random.Random(seed)
    return [
        peer(
            f"p{at:03d}",
            capacity=int(capacity * source.paretovariate(1.5)),
            owner=f"owner {at // 3 if source.random() < 0.9 else source.randrange(count)}",
            site=f"site {at // 2}",
            region=f"region {at // 2 % 9}",
        )
        for at in range(count)
    ]


def packs(count: int, size: int = 10, **changes: str) -> list[Pack]:
    return [pack(f"k{at:05d}", size, **changes) for at in range(count)]


def filled(plan: Plan, roster: list[Peer], size: int) -> dict[PeerId, float]:
    load = Counter(name for row in plan.placement.values() for name in row)
    return {row.id: size * load[row.id] / row.capacity for row in roster}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many packs the placement sets were asked for, each time."""
    seen: list[int] = []
    real = scheduler.many.sets_for

    def counted(*args: object, **kwargs: object) -> object:
        seen.append(args[3])  # type: ignore[arg-type] # the number of packs
        return real(*args, **kwargs)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(scheduler.many, "sets_for", counted)
    return seen


def test_many_new_packs_go_by_sets_and_fill_all_peers_alike(asked: list[int]) -> None:
    roster = crowd(40)
    plan = place(packs(800), roster, policy(3, 2))
    assert asked == [800]
    assert plan.met
    assert check(plan, packs(800), roster, policy(3, 2)) == []
    home = households(roster)
    assert all(len({home[name] for name in row if name is not None}) == 3 for row in plan.placement.values())
    fill = filled(plan, roster, 10)
    assert max(fill.values()) - min(fill.values()) < 0.35
    assert len(set(plan.placement.values())) < 4 * (40 + 3)


def test_few_packs_or_few_peers_are_placed_one_by_one(asked: list[int]) -> None:
    place(packs(199), crowd(40), policy(3, 2))
    place(packs(300), crowd(4), policy(3, 2))
    place(packs(300), [peer("dear", cost=10), *crowd(40)], policy(3, 2))
    assert asked == []


def test_where_room_is_short_the_minimum_of_all_comes_before_the_promise_of_some(asked: list[int]) -> None:
    roster = [peer(f"p{at:02d}", capacity=1000, country="SE" if at < 6 else "US") for at in range(12)]
    plan = place(packs(220), roster, policy(3, 2, only_countries=frozenset({"SE"})))
    assert asked == [220]
    assert plan.refused == ()
    assert sum(map(len, plan.placement.values())) == 6 * 1000 // 10
    assert len(plan.debts) == 3 * 220 - 600
    assert "more room at" in " ".join(plan.gaps[0].would_help)


def test_packs_that_no_peer_may_take_are_told_as_ever(asked: list[int]) -> None:
    roster = [peer(f"p{at:02d}", country="US") for at in range(12)]
    plan = place(packs(220), roster, policy(3, 2, only_countries=frozenset({"SE"})))
    assert asked == []
    assert len(plan.refused) == 220
    assert "residency does not allow US" in plan.gaps[0].why[0]


def test_packs_that_lie_somewhere_stay_and_new_ones_go_beside_them(asked: list[int]) -> None:
    roster = crowd(30)
    old = packs(250)
    first = place(old, roster, policy(3, 2))
    load = Counter(name for row in first.placement.values() for name in row)
    later = [
        Peer(
            id=row.id,
            capacity=row.capacity,
            used=10 * load[row.id],
            owner=row.owner,
            site=row.site,
            region=row.region,
            country=row.country,
        )
        for row in roster
    ]
    batch = [*old, *(pack(f"n{at:05d}") for at in range(250))]
    plan = place(batch, later, policy(3, 2), first.placement)
    assert asked == [250, 250]
    assert {addition.pack[0] for addition in plan.additions} == {"n"}
    assert plan.met


def test_several_policies_and_sizes_share_the_room(asked: list[int]) -> None:
    roster = crowd(40, capacity=900)
    rules = [policy(3, 2), policy(2, 1, name="near", spread=frozenset({"region"}))]
    batch = [*packs(300, 16), *(pack(f"s{at:05d}", 4) for at in range(50))]
    batch += [pack(f"n{at:05d}", 16, policy="near") for at in range(250)]
    plan = place(batch, roster, rules)
    assert asked == [250, 300]
    assert plan.met
    assert check(plan, batch, roster, rules) == []


def test_the_order_of_what_is_given_does_not_matter() -> None:
    roster, batch = crowd(30), packs(300)
    there: Policy = policy(3, 2)
    assert place(batch, roster, there, seed=b"a") == place(batch[::-1], roster[::-1], there, seed=b"a")
    assert place(batch, roster, there, seed=b"a") != place(batch, roster, there, seed=b"b")


def test_all_the_room_there_is_gets_used() -> None:
    roster = crowd(60, capacity=60)
    rule = policy(3, 3, spread=frozenset({"region"}))
    plan = place(packs(2000), roster, rule)
    placed = sum(len(row) == 3 for row in plan.placement.values())
    regions: dict[str, int] = {}
    for row in roster:
        regions[row.region] = regions.get(row.region, 0) + row.capacity // 10
    most = max(count for count in range(2000) if sum(min(count, room) for room in regions.values()) >= 3 * count)
    assert placed == most < 2000
    assert PackId("k00000") in plan.placement
