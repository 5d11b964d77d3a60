"""Losing and repairing one pack, event by event: what the closed form of `scheduler.lossrate` is held against.

It shares nothing with that but the strikes. What is common is counted (:func:`years`). What is rare is made
frequent and weighed (:func:`cycles`): while a copy is missing all strikes come ``bias`` times as often, rare
kinds of them are drawn more often than they come, and those that only sometimes hit a copy hit it half the
time; each history then counts by how much rarer it really is. The state without a missing copy ends a cycle,
so that losses a year are losses a cycle by cycles a year.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from scheduler.lossrate import Strike

_LIFTED = 0.5


def years(count: int, needed: int, strikes: Sequence[Strike], *, span: float, seed: int) -> float:
    """Losses a year over ``span`` years; a lost pack begins anew, whole."""
    rng = Random(seed)
    rates = [strike.rate for strike in strikes]
    until, now, lost = [0.0] * count, 0.0, 0
    while True:
        now += rng.expovariate(sum(rates))
        if now > span:
            return lost / span
        [strike] = rng.choices(strikes, rates)
        for place in strike.reach:
            if rng.random() < strike.chance:
                until[place] = max(until[place], now + strike.window)
        if sum(end <= now for end in until) < needed:
            lost += 1
            until = [0.0] * count


def cycles(
    count: int, needed: int, strikes: Sequence[Strike], *, bias: float, runs: int, seed: int
) -> tuple[float, float]:
    """Losses a year and the standard error of that, from ``runs`` cycles."""
    rng = Random(seed)
    rate = sum(strike.rate for strike in strikes)
    total = squares = 0.0
    for _ in range(runs):
        weight = _cycle(count, needed, strikes, bias=bias, rng=rng)
        total += weight
        squares += weight * weight
    mean = total / runs
    return mean * rate, math.sqrt(max(0.0, squares / runs - mean * mean) / runs) * rate


def _cycle(count: int, needed: int, strikes: Sequence[Strike], *, bias: float, rng: Random) -> float:
    """The weight of one history that begins with a strike and ends whole (0) or lost."""
    rate = sum(strike.rate for strike in strikes)
    true = [strike.rate / rate for strike in strikes]
    drawn = [(odds + 1 / len(strikes)) / 2 for odds in true]
    until, now, weight = [0.0] * count, 0.0, 1.0
    while True:
        [number] = rng.choices(range(len(strikes)), drawn)
        strike = strikes[number]
        weight *= true[number] / drawn[number]
        odds = strike.chance if strike.chance == 1.0 else max(_LIFTED, strike.chance)
        for place in sorted(strike.reach):
            if rng.random() < odds:
                weight *= strike.chance / odds
                until[place] = max(until[place], now + strike.window)
            else:
                weight *= (1 - strike.chance) / (1 - odds)
        if sum(end <= now for end in until) < needed:
            return weight
        wait = rng.expovariate(rate * bias)
        if now + wait >= max(until):
            return 0.0
        # The wait was drawn from the biased density: this is the true one over it.
        weight *= math.exp((bias - 1) * rate * wait) / bias
        now += wait
