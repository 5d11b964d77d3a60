from __future__ import annotations

from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.lossrate import Strike, loss_rates
from tests.scheduler.lossworld import cycles, years

DAY = 1 / 365.25


def strike(reach: range | list[int], rate: float, window: float, chance: float = 1.0) -> Strike:
    return Strike(reach=frozenset(reach), rate=rate, window=window, chance=chance)


def alone(count: int, rate: float, window: float) -> list[Strike]:
    return [strike([place], rate, window) for place in range(count)]


def rate_of(count: int, needed: int, strikes: list[Strike]) -> float:
    return sum(loss_rates(count, needed, strikes))


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 1), (3, 1), (6, 4), (8, 4), (10, 6)])
def test_equal_independent_peers_follow_the_known_formula(count: int, needed: int) -> None:
    rate, window, spare = 0.15, 3 * DAY, count - needed
    expected = count * comb(count - 1, spare) * rate * (rate * window) ** spare
    assert rate_of(count, needed, alone(count, rate, window)) == pytest.approx(expected, rel=0.01)


# Rates that no friend has, so that a few thousand years hold hundreds of losses.
FREQUENT = {
    "three copies": (3, 1, alone(3, 0.8, 0.15)),
    "4+2, two in one house": (6, 4, [*alone(6, 0.3, 0.05), strike([0, 1], 0.05, 0.1)]),
    "an owner in two houses": (4, 1, [*alone(4, 0.8, 0.2), strike([0, 1], 0.3, 0.2), strike([1, 2], 0.3, 0.2)]),
    "everybody at times": (4, 2, [*alone(4, 0.3, 0.1), strike([0, 1, 2], 0.05, 0.1), strike(range(4), 0.4, 0.3, 0.3)]),
}


@pytest.mark.parametrize("case", FREQUENT)
def test_the_closed_form_is_what_happens_event_by_event(case: str) -> None:
    count, needed, strikes = FREQUENT[case]
    assert rate_of(count, needed, strikes) == pytest.approx(years(count, needed, strikes, span=8000, seed=11), rel=0.15)


RARE = {
    "three copies": (3, 1, alone(3, 0.15, 3 * DAY)),
    "4+4, 10 nines": (8, 4, alone(8, 0.15, 3 * DAY)),
    "3 copies, two in a region, with shocks": (
        3,
        1,
        [*alone(3, 0.15, 3 * DAY), strike([0, 1], 0.002, 3 * DAY), strike(range(3), 0.05, 3 * DAY, 0.05)],
    ),
    "8+4, four in a country, with shocks": (
        12,
        8,
        [*alone(12, 0.15, 3 * DAY), strike(range(4), 0.0025, 3 * DAY), strike(range(12), 0.05, 3 * DAY, 0.05)],
    ),
}


@pytest.mark.parametrize("case", RARE)
def test_losses_that_nobody_could_wait_for_are_weighed_and_agree(case: str) -> None:
    count, needed, strikes = RARE[case]
    found, error = cycles(count, needed, strikes, bias=120, runs=30_000, seed=5)
    expected = rate_of(count, needed, strikes)
    assert error < 0.35 * expected
    assert abs(found - expected) < 4 * error


def test_each_strike_is_told_what_it_completes() -> None:
    strikes = [*alone(2, 0.1, 0.01), strike([0, 1], 0.002, 0.01)]
    first, second, both = loss_rates(2, 1, strikes)
    assert first == second == pytest.approx(0.1 * 0.1 * 0.01, rel=0.05)
    assert both == pytest.approx(0.002, rel=0.01)


def test_a_copy_in_doubt_is_half_gone() -> None:
    sure, unsure = rate_of(2, 1, alone(2, 0.1, 0.01)), sum(loss_rates(2, 1, alone(2, 0.1, 0.01), [0.5, 0.0]))
    assert unsure == pytest.approx(0.1 * 0.5, rel=0.01)
    assert unsure > 100 * sure


def test_too_many_crossing_strikes_are_taken_for_worse_than_they_are() -> None:
    ring = [strike([place, (place + 1) % 9], 0.01, 0.01) for place in range(9)]
    few = rate_of(9, 8, [*alone(9, 0.1, 0.01), *ring[:6]])
    assert rate_of(9, 8, [*alone(9, 0.1, 0.01), *ring]) > few + 0.02


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_more_strikes_and_fewer_copies_are_never_safer(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 5))
    places = st.frozensets(st.integers(0, count - 1), min_size=1)
    strikes = [
        Strike(reach=data.draw(places), rate=data.draw(st.floats(0.001, 0.5)), window=0.02, chance=1.0)
        for _ in range(data.draw(st.integers(1, 5)))
    ] + alone(count, 0.1, 0.02)
    needed = data.draw(st.integers(1, count - 1))
    rate = rate_of(count, needed, strikes)
    assert 0 < rate <= sum(one.rate for one in strikes)
    assert rate <= rate_of(count, needed + 1, strikes) * (1 + 1e-9)
    assert rate <= rate_of(count, needed, [*strikes, strike(range(count), 0.01, 0.02)]) * (1 + 1e-9)
