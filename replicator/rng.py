"""The only source of randomness; a simulator hands in a seeded one.

HPKE's ephemeral keys are the one exception: they are made inside ``cryptography`` and cannot be injected,
so two simulated runs agree in everything but those 80 bytes per slot.
"""

import secrets
from collections.abc import MutableSequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Rng(Protocol):
    """Unpredictable bytes and numbers."""

    def bytes(self, count: int) -> bytes:
        """Return ``count`` random bytes."""
        ...

    def below(self, bound: int) -> int:
        """Return a uniform integer in ``[0, bound)``."""
        ...


class SystemRng:
    """The kernel's generator."""

    def bytes(self, count: int) -> bytes:
        """Return ``count`` random bytes."""
        return secrets.token_bytes(count)

    def below(self, bound: int) -> int:
        """Return a uniform integer in ``[0, bound)``."""
        return secrets.randbelow(bound)


def shuffle(rng: Rng, items: MutableSequence[T]) -> None:
    """Shuffle in place (Fisher-Yates)."""
    for last in range(len(items) - 1, 0, -1):
        other = rng.below(last + 1)
        items[last], items[other] = items[other], items[last]
