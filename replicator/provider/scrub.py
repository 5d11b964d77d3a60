"""Reading everything again, a little at a time: each object once in thirty days, so that a disk's silence is noticed.

The part that is due follows from the time alone. What was due while the daemon did not run is due again a round later.
"""

from collections.abc import Callable, Iterable

from replicator.clock import DAY_S, NS
from replicator.ids import ObjectName
from replicator.store.base import State

ROUND_S = 30 * DAY_S
PART_S = 1800
"""As often as the daemon looks at the clock."""
PARTS = ROUND_S // PART_S


def part_at(now_ns: int) -> int:
    """Return which part of all objects is due at a time."""
    return now_ns // NS // PART_S % PARTS


def due(names: Iterable[ObjectName], part: int) -> list[ObjectName]:
    """Return the objects of a part. Names are hashes, so that all parts are about as large."""
    return [name for name in names if int.from_bytes(name[:4]) % PARTS == part]


def scrub(names: Iterable[ObjectName], check: Callable[[ObjectName], State], stopped: Callable[[], bool]) -> int:
    """Check objects until told to stop; return how many are damaged. ``check`` sets those aside."""
    damaged = 0
    for name in names:
        if stopped():
            break
        damaged += check(name) == "damaged"
    return damaged
