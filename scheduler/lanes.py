"""Who of several moves bytes next where all share one line. Moments are seconds, given as arguments.

Two questions: who may begin (:class:`Places`), so that each one that began is fast enough for the other end to wait
for it; and whose the next bytes are of those that did (:class:`Round`). To both, one with many at a time counts as
much as one with a single one.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, Generic, TypeVar

__all__ = ["Places", "Round"]

T = TypeVar("T")

_KEPT_S: Final = 90.0
"""How long a place is kept for whoever was told to come back: longer than it is told to wait."""


class Places:
    """Transfers that run, by whose they are; and who asked for one and has none yet."""

    def __init__(self) -> None:
        self._running: Counter[bytes] = Counter()
        self._asked: dict[bytes, tuple[float, float]] = {}  # when first, and when last

    def begin(self, who: bytes, now: float, most: int | None) -> bool:
        """Begin one more, if ``most`` (None: any number) leaves one that is nobody's before; return whether it has.

        Before comes who has fewer, then who asked first. Whoever was told no is expected to ask again soon.
        """
        self._asked = {one: (first, last) for one, (first, last) in self._asked.items() if now - last < _KEPT_S}
        first, _ = self._asked.get(who, (now, now))
        mine = (self._running[who], first)
        before = sum((self._running[one], asked) < mine for one, (asked, _) in self._asked.items() if one != who)
        if most is not None and most - self._running.total() <= before:
            self._asked[who] = (first, now)
            return False
        self._asked.pop(who, None)
        self._running[who] += 1
        return True

    def begin_at_once(self, who: bytes, most: int) -> bool:
        """Begin one more, if more of ``most`` are free than this one has; return whether it has. Nothing is kept.

        So one alone has half of them, the next one half of what is left, and what is given back where all are taken
        goes to whoever has fewest: nobody can take the last ones from all others.
        """
        if self._running[who] >= most - self._running.total():
            return False
        self._running[who] += 1
        return True

    def end(self, who: bytes) -> None:
        """End one that began."""
        self._running[who] -= 1
        if not self._running[who]:
            del self._running[who]


class Round(Generic[T]):
    """What waits for its turn, by whose it is: the turn is of whoever had none for the longest."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[T]] = {}
        self._had: dict[bytes, int] = {}
        self._turns = 0

    def add(self, who: bytes, what: T, *, soon: bool = False) -> None:
        """Let something wait; ``soon``: before what waits already for the same one."""
        queue = self._waiting.setdefault(who, deque())
        if soon:
            queue.appendleft(what)
        else:
            queue.append(what)

    def remove(self, who: bytes, what: T) -> None:
        """Let something wait no more, if it does."""
        queue = self._waiting.get(who)
        if queue is not None and what in queue:
            queue.remove(what)
            if not queue:
                del self._waiting[who]

    def had(self, who: bytes) -> None:
        """Note a turn that nobody had to wait for."""
        self._turns += 1
        self._had[who] = self._turns

    def next(self) -> T | None:
        """Take out what has the next turn; None if nothing waits."""
        if not self._waiting:
            self._had.clear()  # all are alike again
            return None
        who = min(self._waiting, key=lambda one: self._had.get(one, 0))
        queue = self._waiting[who]
        what = queue.popleft()
        if not queue:
            del self._waiting[who]
        self.had(who)
        return what
