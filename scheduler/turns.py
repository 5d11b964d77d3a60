"""Whose turn it is where many tenants share one machine: who waited longest, for how long, and with what share.

Some lanes run beside each other. Whoever has not ended within a slice while others wait is stopped at a safe border
and goes on later, with a slice twice as long each time: so what it does again at each start (reading what it knows) is
an ever smaller part, and it ends at last. While some have not had a turn yet, all lanes but one are for those that were
stopped, and what these leave for the others: neither a hundred small tenants nor a few with a first upload of weeks
keep anybody from the line. Moments are seconds, given as arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Active", "Waiting", "in_turn", "next_of", "share", "slice_of", "to_stop"]

_DOUBLINGS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Who wants a turn. ``ended``: when a turn of it last came to its end, 0 if never. ``stopped``: how often since."""

    id: str
    ended: float = 0.0
    stopped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """Whose turn it is: since when, until when nobody takes it away, and whether it was asked to stop."""

    waiting: Waiting
    since: float
    until: float
    stopping: bool = False


def in_turn(waiting: Sequence[Waiting]) -> list[Waiting]:
    """Return who waits in the order of their turns: whose last one ended first, and those that never had any."""
    return sorted(waiting, key=lambda one: (one.ended, one.id))


def next_of(fresh: Sequence[Waiting], again: Sequence[Waiting], active: Sequence[Active], lanes: int) -> Waiting | None:
    """Return who begins now; None if all lanes are taken or nobody waits.

    ``fresh`` had no turn yet, ``again`` were stopped; both in their order.
    """
    if len(active) >= lanes:
        return None
    if again and (not fresh or sum(one.waiting.stopped > 0 for one in active) < lanes - 1):
        return again[0]
    return fresh[0] if fresh else None


def slice_of(one: Waiting, seconds: float) -> float:
    """Return how long a turn is left alone: twice as long each time it was stopped."""
    return seconds * (1 << min(one.stopped, _DOUBLINGS))


def to_stop(active: Sequence[Active], waiting: int, now: float) -> list[Active]:
    """Return whose turn ends now because others wait, who had it longest first; no more than there are waiting."""
    stopping = sum(one.stopping for one in active)
    due = sorted(
        (one for one in active if not one.stopping and one.until <= now),
        key=lambda one: (one.since, one.waiting.id),
    )
    return due[: max(0, waiting - stopping)]


def share(total: int | None, lanes: int) -> int | None:
    """Return what each lane may take of something; None of what has no limit."""
    return None if total is None else total // lanes
