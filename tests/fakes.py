"""A clock and a random source that a test controls."""

import asyncio
import random

NS = 1_000_000_000
START_NS = 1_767_225_600 * NS
"""2026-01-01 00:00 UTC."""


class FakeClock:
    """Time that stands still until it is moved; wall and monotonic time move together."""

    def __init__(self, now_ns: int = START_NS) -> None:
        self._now_ns = now_ns
        self._monotonic_ns = 0

    def now_ns(self) -> int:
        """Return the wall time in nanoseconds."""
        return self._now_ns

    def monotonic(self) -> float:
        """Return the seconds that were advanced so far."""
        return self._monotonic_ns / NS

    async def sleep(self, seconds: float) -> None:
        """Advance, and let other tasks run once."""
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Move both times on."""
        self._now_ns += round(seconds * NS)
        self._monotonic_ns += round(seconds * NS)

    def set_wall(self, now_ns: int) -> None:
        """Set the wall time alone, as a bad NTP server would."""
        self._now_ns = now_ns


class SeededRng:
    """The same bytes and numbers for the same seed."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(f"replicator tests {seed}")

    def bytes(self, count: int) -> bytes:
        """Return ``count`` bytes."""
        return self._random.randbytes(count)

    def below(self, bound: int) -> int:
        """Return an integer in ``[0, bound)``."""
        return self._random.randrange(bound)
