"""New packs exchange peers so that few are out of reach with one relay, and nothing else changes."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import Pack, PackId, Peer, PeerId, Plan, check, place
from scheduler.hanging import Relays, exchange
from scheduler.problem import ProblemError, parse
from scheduler.report import plan as planned
from tests.scheduler.oracle import Json, objections
from tests.scheduler.problems import holdings, ids, pack, peer, policies, policy, rosters

Behind = dict[PeerId, frozenset[PeerId]]
Row = tuple[int, ...]
A, B, C, D, E = ids("a", "b", "c", "d", "e")


def hangs(holders: Collection[object], behind: Mapping[PeerId, Collection[PeerId]], needed: int = 1) -> bool:
    """Whether a pack can be read, but not without some relay and those behind it."""
    return any(
        len(set(holders) - {relay, *others}) < needed <= len(holders) and set(holders) & (set(others) - {relay})
        for relay, others in behind.items()
    )


def hanging(plan: Plan, behind: Behind, needed: int = 1) -> list[PackId]:
    return [name for name, row in plan.placement.items() if hangs(row, behind, needed)]


def load(plan: Plan, packs: Sequence[Pack]) -> Counter[PeerId]:
    size = {row.id: row.size for row in packs}
    found: Counter[PeerId] = Counter()
    for addition in plan.additions:
        found[addition.peer] += size[addition.pack]
    return found


@pytest.mark.parametrize(
    ("holders", "needed", "lacks"),
    [
        ((A, B), 1, {A: 1}),
        ((B, C), 1, {A: 1}),
        ((B,), 1, {A: 1}),
        ((A,), 1, {}),
        ((A, D), 1, {}),
        ((B, D), 1, {}),
        ((), 1, {}),
        ((A, B, C, D), 3, {A: 2}),
        ((A, B, D), 2, {A: 1}),
        ((A, D, E), 2, {}),
        ((B, C), 3, {}),
    ],
)
def test_a_pack_hangs_on_a_relay_where_too_few_of_its_holders_are_reached_without_it(
    holders: tuple[PeerId, ...], needed: int, lacks: dict[PeerId, int]
) -> None:
    assert Relays({A: {A, B, C}}).lacks(holders, needed) == lacks
    assert hangs(holders, {A: {B, C}}, needed) == bool(lacks)


def test_two_copies_of_eight_equal_peers_hang_on_no_relay_that_three_are_behind() -> None:
    roster = [peer(f"p{at}", capacity=100_000) for at in range(8)]
    names = [row.id for row in roster]
    packs = [pack(f"k{at:04d}") for at in range(1000)]
    behind: Behind = {names[0]: frozenset(names[1:4])}
    before = place(packs, roster, policy(2))
    after = place(packs, roster, policy(2), relays=behind)
    assert len(hanging(before, behind)) > 100
    assert hanging(after, behind) == []
    assert load(after, packs) == load(before, packs)
    assert check(after, packs, roster, policy(2)) == []
    moved = [name for name in before.placement if before.placement[name] != after.placement[name]]
    assert len(moved) <= 2 * len(hanging(before, behind)), "the others stay as they were"


def test_what_cannot_be_cleared_is_left_and_told() -> None:
    roster = [peer(name) for name in "abc"]
    packs = [pack(f"k{at}") for at in range(30)]
    plan = place(packs, roster, policy(2), relays={A: {B}})
    assert list(plan.hanging) == hanging(plan, {A: frozenset({B})})
    assert len(plan.hanging) == 30 - load(plan, packs)[C] // 10 > 0
    assert plan.met


def test_a_pack_that_is_stored_stays_though_it_hangs() -> None:
    roster = [peer(name) for name in "abcde"]
    held = {PackId("k0"): [A, B]}
    plan = place([pack(f"k{at}") for at in range(20)], roster, policy(2), held, relays={A: {B}})
    assert plan.placement[PackId("k0")] == (A, B)
    assert plan.hanging == (PackId("k0"),)
    half = place([pack("k0"), pack("k1")], roster, policy(2), {PackId("k0"): [B]}, relays={A: {B}})
    assert half.kept[PackId("k0")] == (B,)


def test_a_pack_that_leaves_a_peer_is_not_new() -> None:
    roster = [*(peer(name) for name in "abcde"), peer("x", used=200, state="draining")]
    packs = [pack(f"k{at:02d}") for at in range(20)]
    held = {row.id: ids("x") for row in packs}
    before, after = (place(packs, roster, policy(2), held, relays=relays) for relays in (None, {A: {C}}))
    assert after.placement == before.placement
    assert len(after.hanging) > 0


def test_a_pack_of_another_size_is_no_partner() -> None:
    roster = [peer("a", capacity=20), peer("b", capacity=20), peer("d", capacity=10), peer("e", capacity=10)]
    plan = place([pack("large", 20), pack("small", 10)], roster, policy(2), relays={A: {B}})
    assert {name: set(row) for name, row in plan.placement.items()} == {"large": {A, B}, "small": {D, E}}
    assert plan.hanging == (PackId("large"),)


def test_a_pack_that_has_less_than_promised_is_no_partner() -> None:
    roster = [peer("b", capacity=10), peer("d", capacity=15), peer("e", capacity=15)]
    plan = place([pack("k0"), pack("k1")], roster, policy(2), relays={PeerId("elsewhere"): {B}})
    assert {name: set(row) for name, row in plan.placement.items()} == {"k0": {D, E}, "k1": {B}}
    assert plan.hanging == (PackId("k1"),)


def test_looking_ends_and_leaves_what_it_has_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[exchange.__module__], "_STEPS", 0)
    roster = [peer(name) for name in "abcde"]
    packs = [pack(f"k{at:02d}") for at in range(40)]
    before, after = (place(packs, roster, policy(2), relays=relays) for relays in (None, {A: {C}}))
    assert after.placement == before.placement
    assert len(after.hanging) > 0


@st.composite
def relayed(draw: st.DrawFn, roster: Sequence[Peer]) -> Behind:
    """Up to three machines, peers or not; whoever is behind one of them is behind no other, or says so all the same."""
    names = [row.id for row in roster]
    some = st.frozensets(st.sampled_from(names), max_size=4) if names else st.just(frozenset[PeerId]())
    return draw(st.dictionaries(st.sampled_from([*names, PeerId("elsewhere")]), some, max_size=3))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_fewer_hang_and_loads_rules_and_what_is_stored_stay(data: st.DataObject) -> None:
    roster, rule = data.draw(rosters(7)), data.draw(policies())
    behind = data.draw(relayed(roster))
    packs = [
        pack(f"k{at}", size) for at, size in enumerate(data.draw(st.lists(st.sampled_from([1, 1, 1, 2]), max_size=8)))
    ]
    held = {row.id: data.draw(holdings(roster)) for row in packs if data.draw(st.sampled_from([False, False, True]))}
    before = place(packs, roster, rule, held)
    with patch.object(sys.modules[exchange.__module__], "_STEPS", data.draw(st.sampled_from([1, 200]))):
        after = place(packs, roster, rule, held, relays=behind)
    assert check(after, packs, roster, rule, held) == []
    assert load(after, packs) == load(before, packs)
    assert len(hanging(after, behind)) <= len(hanging(before, behind))
    assert list(after.hanging) == hanging(after, behind)
    for name, there in held.items():
        assert there == frozenset() or after.placement[name] == before.placement[name]
    for part in ("kept", "surplus", "misplaced", "debts", "refused", "relaxations", "gaps"):
        assert getattr(after, part) == getattr(before, part), part
    if not hanging(before, behind):
        assert after.placement == before.placement


def test_the_order_of_what_is_given_does_not_matter() -> None:
    roster = [peer(f"p{at}") for at in range(6)]
    names = [row.id for row in roster]
    packs = [pack(f"k{at:02d}") for at in range(60)]
    one = place(packs, roster, policy(3), relays={names[0]: names[1:3], names[5]: names[3:5]})
    other = place(packs[::-1], roster[::-1], policy(3), relays={names[5]: names[4:2:-1], names[0]: names[2:0:-1]})
    assert one == other


# -- beside trying everything -----------------------------------------------------------------------------


def fewest(sets: Counter[Row], apart: Callable[[Row], bool], bad: Callable[[Row], bool]) -> int:
    """How few packs can hang with the loads that there are, by trying every way."""
    width = len(next(iter(sets)))
    room: Counter[int] = Counter()
    for row, packs in sets.items():
        room.update(dict.fromkeys(row, packs))
    rows = [row for row in combinations(sorted(room), width) if apart(row)]

    def ways(left: int, room: Counter[int], start: int) -> Iterator[int]:
        if not left:
            yield 0
        for at in range(start, len(rows)) if left else ():
            if all(room[peer] for peer in rows[at]):
                rest = room.copy()
                rest.subtract(rows[at])
                yield from (bad(rows[at]) + more for more in ways(left - 1, rest, at))

    return min(ways(sets.total(), room, 0))


def test_small_exchanges_are_nearly_always_as_good_as_any() -> None:
    tried = best = 0
    for seed in range(600):
        source = random.Random(seed)
        peers, width = source.randint(3, 6), source.choice([2, 2, 3])
        needed = source.choice([1, 1, width - 1])
        place_of = [source.randrange(4) if source.random() < 0.4 else 10 + at for at in range(peers)]
        behind = {0: source.sample(range(1, peers), source.randint(1, peers - 1))}
        if source.random() < 0.4:
            behind[-1] = [at for at in range(1, peers) if at not in behind[0]][:2]

        def apart(row: Row, place_of: Sequence[int] = place_of) -> bool:
            return len({place_of[at] for at in row}) == len(row)

        rows = [row for row in combinations(range(peers), width) if apart(row)]
        if not rows:
            continue
        relays = Relays(behind)

        def bad(row: Row, relays: Relays[int] = relays, needed: int = needed) -> bool:
            return bool(relays.lacks(row, needed))

        weights = [5 if bad(row) else 1 for row in rows]
        sets = Counter(source.choices(rows, weights, k=source.randint(2, 5)))
        found = exchange(sets, relays, needed, apart)
        assert all(apart(row) and len(set(row)) == width for row in found), seed
        counts = [Counter(at for row, packs in one.items() for at in row * packs) for one in (sets, found)]
        assert counts[0] == counts[1], seed
        before, after = (sum(packs for row, packs in one.items() if bad(row)) for one in (sets, found))
        least = fewest(sets, apart, bad)
        assert least <= after <= before, seed
        tried, best = tried + (before > least), best + (before > least == after)
    assert tried > 50
    assert best >= tried - 1


@pytest.mark.parametrize("copies", [2, 3])
def test_where_all_may_lie_with_all_only_what_there_is_no_copy_elsewhere_for_hangs(copies: int) -> None:
    for seed in range(60):
        source = random.Random(seed)
        roster = [peer(f"p{at}", capacity=source.randint(20, 90) * 10) for at in range(source.randint(4, 9))]
        names = [row.id for row in roster]
        behind = {names[0]: frozenset(names[1 : source.randint(2, len(names) - 1)])}
        packs = [pack(f"k{at:03d}") for at in range(source.randint(1, 60))]
        plan = place(packs, roster, policy(copies), relays=behind)
        if not plan.met:
            continue
        elsewhere = sum(packs for name, packs in load(plan, packs).items() if name not in {*behind, *behind[names[0]]})
        assert len(plan.hanging) == max(0, len(packs) - elsewhere // 10), seed


# -- as a problem -----------------------------------------------------------------------------------------


def question(count: int, via: Mapping[str, str] | None = None, **promise: object) -> Json:
    peers = [{"id": f"p{at}", "capacity": 2000, "site": f"s{at}"} for at in range(8)]
    return {
        "peers": [{**row, "via": (via or {}).get(str(row["id"]))} for row in peers],
        "policies": [{"spread": ["site"], **(promise or {"copies": 2})}],
        "packs": {"count": count, "size": 1},
    }


@pytest.mark.parametrize("relay", ["p0", "a machine that is no peer"])
def test_a_problem_says_who_is_reached_through_whom_and_the_plan_how_many_hang(relay: str) -> None:
    asked = question(1000, dict.fromkeys(("p1", "p2", "p3"), relay))
    behind = {PeerId(relay): ids("p1", "p2", "p3")}
    plain, found = planned(parse(question(1000))), planned(parse(asked))
    assert objections(asked, found) == []
    assert sum(hangs(row, behind) for row in plain["placements"].values()) > 50
    assert plain["hanging"] == found["hanging"] == 0
    assert not any(hangs(row, behind) for row in found["placements"].values())
    loads = [Counter(name for row in one["placements"].values() for name in row) for one in (plain, found)]
    assert loads[0] == loads[1]


def test_packs_that_lie_somewhere_are_counted_and_stay() -> None:
    asked = {**question(10, {"p1": "p0"}), "placements": {"3": ["p0", "p1"], "4": ["p1", None]}}
    found = planned(parse(asked))
    assert objections(asked, found) == []
    assert found["placements"]["3"] == ["p0", "p1"]
    assert found["hanging"] == sum(hangs(row, {PeerId("p0"): [PeerId("p1")]}) for row in found["placements"].values())
    assert found["hanging"] >= 1


def test_a_plan_where_nothing_hangs_is_the_plan_without_relays() -> None:
    apart = {f"p{at}": f"relay {at}" for at in range(8)}
    assert planned(parse(question(500, apart))) == planned(parse(question(500)))


def test_a_coded_pack_hangs_where_too_few_of_its_shards_are_elsewhere() -> None:
    found = planned(parse(question(400, dict.fromkeys(("p1", "p2", "p3"), "p4"), coding=[2, 2])))
    behind = {PeerId("p4"): ids("p1", "p2", "p3")}
    assert sum(hangs(row, behind, 2) for row in found["placements"].values()) == found["hanging"] == 0
    plain = planned(parse(question(400, coding=[2, 2])))
    assert sum(hangs(row, behind, 2) for row in plain["placements"].values()) > 0


def test_a_way_that_is_no_text_is_refused() -> None:
    with pytest.raises(ProblemError, match="peer 'p0': via is 7: give text"):
        parse({"peers": [{"id": "p0", "capacity": 1, "via": 7}], "policies": [{"copies": 1}]})
