"""The only source of randomness; a simulator hands in a seeded one.

HPKE's ephemeral keys are the one exception: they are made inside ``cryptography`` and cannot be injected,
so two simulated runs agree in everything but those 80 bytes per slot.
"""

import secrets
from collections.abc import MutableSequence
from typing import Protocol, TypeVar

T = TypeVar("T")
_WORDS = 1 << 32
_RESERVE = 8 << 10


class Rng(Protocol):
    """Unpredictable bytes and numbers."""

    def bytes(self, count: int) -> bytes:
        """Return ``count`` random bytes."""
        ...

    def below(self, bound: int) -> int:
        """Return a uniform integer in ``[0, bound)``."""
        ...


class SystemRng:
    """The kernel's generator. Not to be carried over a fork: both sides would draw the same numbers.

    Numbers below 2**32 are drawn from a reserve, as every chunk needs two and a system call for each is a thirtieth of
    a backup's time in its readers; bytes, which keys are made of, never are.
    """

    def __init__(self) -> None:
        self._reserve: list[int] = []

    def bytes(self, count: int) -> bytes:
        """Return ``count`` random bytes."""
        return secrets.token_bytes(count)

    def below(self, bound: int) -> int:
        """Return a uniform integer in ``[0, bound)``."""
        if not 0 < bound <= _WORDS:
            return secrets.randbelow(bound)
        fair = _WORDS - _WORDS % bound  # what lies above would make the lower numbers likelier
        while True:
            try:
                word = self._reserve.pop()  # one step for any thread: no two get the same word
            except IndexError:
                self._reserve = list(memoryview(secrets.token_bytes(_RESERVE)).cast("I"))
                continue
            if word < fair:
                return word % bound


def shuffle(rng: Rng, items: MutableSequence[T]) -> None:
    """Shuffle in place (Fisher-Yates)."""
    for last in range(len(items) - 1, 0, -1):
        other = rng.below(last + 1)
        items[last], items[other] = items[other], items[last]
