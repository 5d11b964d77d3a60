from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import LEAF, Auditable, RosterError, probes


def held(count: int, leaves: int = 4, **changes: int) -> list[Auditable]:
    return [Auditable(id=f"o{at:03}", size=leaves * LEAF, **changes) for at in range(count)]


@given(
    st.lists(st.integers(min_value=1, max_value=5 * LEAF), max_size=8),
    st.integers(min_value=0, max_value=40),
    st.binary(max_size=8),
)
def test_probes_are_distinct_existing_leaves_as_many_as_asked(sizes: list[int], count: int, seed: bytes) -> None:
    objects = {f"o{at}": Auditable(id=f"o{at}", size=size) for at, size in enumerate(sizes)}
    asked = probes(objects.values(), count, seed)
    assert len(set(asked)) == len(asked) == min(count, sum(row.leaves for row in objects.values()))
    assert all(0 <= leaf < objects[name].leaves for name, leaf in asked)


def test_a_last_short_leaf_is_a_leaf() -> None:
    assert [Auditable(id="o", size=size).leaves for size in (1, LEAF, LEAF + 1)] == [1, 1, 2]


def test_the_same_seed_asks_the_same_in_any_order_and_another_asks_other_things() -> None:
    objects = held(50)
    assert probes(objects, 20, b"x") == probes(objects[::-1], 20, b"x")
    assert probes(objects, 20, b"x") != probes(objects, 20, b"y")


def test_a_quarter_goes_to_objects_that_waited_longest_the_never_audited_first() -> None:
    objects = [*held(60, audited=9)]
    objects[7] = Auditable(id="old", size=LEAF * 4, audited=1)
    objects[50] = Auditable(id="new", size=LEAF * 4)
    asked = [name for name, _ in probes(objects, 8, b"x")]
    assert asked[:2] == ["new", "old"]


def test_a_time_of_zero_is_a_time() -> None:
    objects = [Auditable(id="zero", size=LEAF, audited=0), *held(9)]
    assert "zero" not in [name for name, _ in probes(objects, 8, b"x")][:2]


def test_probes_fall_on_bytes_evenly() -> None:
    """A tenth of the objects has half of the bytes, and so about half of the probes drawn by bytes."""
    objects = [Auditable(id=f"big{at}", size=90 * LEAF) for at in range(10)] + held(90, 10)
    drawn: Counter[bool] = Counter()
    for at in range(40):
        asked = probes(objects, 100, bytes([at]))
        drawn.update(name.startswith("big") for name, _ in asked[25:])
    assert abs(drawn[True] / 3000 - 0.5) < 0.05


def test_an_object_given_twice_or_without_bytes_is_refused() -> None:
    with pytest.raises(RosterError, match="occurs twice"):
        probes([*held(1), *held(1)], 1, b"")
    with pytest.raises(RosterError, match="size is 0"):
        Auditable(id="o", size=0)
    with pytest.raises(RosterError, match="fewer than none"):
        probes([], -1, b"")


def test_a_hundred_a_night_find_a_loss_of_one_percent_within_a_week() -> None:
    """By the binomial law 700 probes miss it once in 1135 weeks; a hundred weeks miss it hardly ever."""
    weeks, missed = 100, 0
    for week in range(weeks):
        objects = {f"o{number:03}": Auditable(id=f"o{number:03}", size=16 * LEAF) for number in range(300)}
        gone = {f"o{(week * 7 + number * 101) % 300:03}" for number in range(3)}
        found = False
        for night in range(7):
            for name, _ in probes(objects.values(), 100, b"%d %d" % (week, night)):
                found = found or name in gone
                objects[name] = Auditable(id=name, size=16 * LEAF, audited=night + 1)
            if found:
                break
        missed += not found
    assert missed == 0
