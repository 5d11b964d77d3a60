"""Time as a deletion may trust it: two counts that must both pass, and neither of which a wrong clock can push.

The wall clock alone would open every lock when somebody sets it forward. So each wait also counts days on which the
daemon ran, at most one in 22 hours of wall time, and a leap of the clock by more than an hour counts none and stops
all sweeps for a day. Stamps never go below the highest time that was seen: a clock that starts in 1970 makes a wait
longer, not shorter.
"""

import math
import sqlite3
from dataclasses import dataclass, replace

from replicator.clock import DAY_S, HOUR_S, NS
from replicator.provider.database import Database

LEAP_NS = HOUR_S * NS
FREEZE_NS = DAY_S * NS
DAY_APART_NS = 22 * HOUR_S * NS
"""Less than a day: a daemon that runs for an hour each night does not run exactly 24 hours apart."""
_COLUMNS = "clock_seen_ns, clock_high_ns, day_ns, days, frozen_until_ns, leap_ns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """What is remembered of the clock. ``leap_ns``: by how much it last leapt (+ forward), 0 if it never did.

    ``seen_ns`` is its last reading, ``high_ns`` its highest, ``day_ns`` that of the last counted day, ``days`` how
    many were counted.
    """

    seen_ns: int = 0
    high_ns: int = 0
    day_ns: int = 0
    days: int = 0
    frozen_until_ns: int = 0
    leap_ns: int = 0

    def stamp_ns(self, now_ns: int) -> int:
        """Return what to record as the time of something that a wait begins with."""
        return max(now_ns, self.high_ns)

    def frozen(self, now_ns: int) -> bool:
        """Return whether nothing may be deleted now."""
        return now_ns < self.frozen_until_ns or now_ns < self.seen_ns - LEAP_NS


def tick(before: Days, now_ns: int, elapsed_ns: int | None) -> Days:
    """Return the state after a look at the clock, ``elapsed_ns`` of steady time after the one before.

    None: the process has just begun, so a leap forward looks like time spent stopped, and only one back is seen.
    """
    after = replace(before, seen_ns=now_ns, high_ns=max(before.high_ns, now_ns))
    steady_ns = elapsed_ns if elapsed_ns is not None else max(0, now_ns - before.seen_ns)
    leap = now_ns - before.seen_ns - steady_ns
    if abs(leap) > LEAP_NS:
        return replace(after, day_ns=now_ns, frozen_until_ns=now_ns + FREEZE_NS, leap_ns=leap)
    if before.frozen_until_ns:
        if now_ns < before.frozen_until_ns:
            return after
        after = replace(after, frozen_until_ns=0, high_ns=now_ns)
    if now_ns - after.day_ns >= DAY_APART_NS:
        after = replace(after, day_ns=now_ns, days=after.days + 1)
    return after


def days_of(duration_ns: int) -> int:
    """Return how many counted days a wait takes."""
    return math.ceil(duration_ns / (DAY_S * NS))


def load_days(database: Database) -> Days:
    """Return what the database remembers."""
    row = database.row(f"SELECT {_COLUMNS} FROM meta")  # noqa: S608 - constant columns
    assert row is not None, "the row is made with the home"
    seen, high, day, days, frozen, leap = row
    return Days(seen_ns=seen, high_ns=high, day_ns=day, days=days, frozen_until_ns=frozen, leap_ns=leap)


def store_days(connection: sqlite3.Connection, days: Days) -> None:
    """Remember."""
    connection.execute(
        "UPDATE meta SET clock_seen_ns = ?, clock_high_ns = ?, day_ns = ?, days = ?, frozen_until_ns = ?, leap_ns = ?",
        (days.seen_ns, days.high_ns, days.day_ns, days.days, days.frozen_until_ns, days.leap_ns),
    )
