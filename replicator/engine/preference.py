"""Whom to ask for a pack: who would have given it soonest, by how fast each was and what it is asked for already."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Final

from replicator.clock import Clock
from replicator.ids import Identity

if TYPE_CHECKING:
    from scheduler.reading import Speeds

AGAIN: Final = 32
"""One pack in so many goes to whoever was asked least of late: a line that was slow may be so no more."""


class Preference:
    """What one reader has asked of whom. For one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked: Counter[Identity] = Counter()  # bytes, of what has not come
        self._turns: Counter[Identity] = Counter()
        self._count = 0

    @cached_property
    def _speeds(self) -> "Speeds[Identity]":
        from scheduler.reading import Speeds  # noqa: PLC0415 - who finds all on his own disk does without the scheduler

        return Speeds()

    def order(
        self,
        pack: int,
        size: int,
        holders: Sequence[Identity],
        others: Sequence[Identity],
        denied: Collection[Identity],
    ) -> list[Identity]:
        """Return all of them: holders before others, who had it not, or damaged, last.

        Where all are alike, packs begin with different ones.
        """
        self._count += 1
        again = self._count % AGAIN == 0

        def soon(identity: Identity) -> float:
            return self._turns[identity] if again else (self._asked[identity] + size) / self._speeds.of(identity)

        order = [*_turned(holders, pack), *_turned(others, pack)]
        order.sort(key=lambda identity: (identity in denied, identity not in holders, soon(identity)))
        return order

    @contextmanager
    def of(self, identity: Identity | None, size: int) -> Iterator[Callable[[], None]]:
        """Count a pack as asked of somebody while the block runs; what it is given is called when the pack has come."""
        if identity is None:
            yield lambda: None
            return
        began = self._clock.monotonic()
        self._asked[identity] += size
        self._turns[identity] += 1
        try:
            yield lambda: self._speeds.measured(identity, size, self._clock.monotonic() - began)
        finally:
            self._asked[identity] -= size


def _turned(identities: Sequence[Identity], by: int) -> list[Identity]:
    place = by % len(identities) if identities else 0
    return [*identities[place:], *identities[:place]]
