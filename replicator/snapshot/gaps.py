"""What is not as it should be, named as far as names help."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_NAMED: Final = 10_000
"""Gaps named one by one; the rest is only counted, so that memory and records stay small."""


class Gap(NamedTuple):
    """A path and what is wrong with it, in words."""

    path: bytes
    reason: str


@dataclass(slots=True)
class Gaps:
    """Gaps in the order they were met: the first :data:`MAX_NAMED` by name, all of them by number."""

    named: list[Gap] = field(default_factory=list)
    by_reason: Counter[str] = field(default_factory=Counter)
    total: int = 0

    def add(self, path: bytes, reason: str) -> None:
        """Take note of one."""
        self.by_reason[reason] += 1
        self.total += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(Gap(path, reason))
