"""Packs of several sizes: how full a federation is when the first one is refused."""

from __future__ import annotations

from bench.placement.__main__ import COPIES, MIXED, SIZE, first_refusal
from bench.placement.federations import federation, uneven


def test_small_packs_fill_the_ends_that_large_ones_leave() -> None:
    """Without, 0.9971."""
    case = uneven(federation(300, COPIES, packs=18_000, size=SIZE, seed=2), seed=2)
    assert first_refusal(case, MIXED, 3) >= 0.998
