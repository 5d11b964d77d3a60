"""What may be deleted now: decided from rows, clocks and floors alone, so that a dry run shows what a sweep does."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from replicator.clock import DAY_S, NS
from replicator.format.mark import LEAST_BUDGET
from replicator.ids import ObjectName
from replicator.provider.days import Days, days_of

DAY_NS = DAY_S * NS
WEEK_DAYS = 7
BUDGET_BYTES = LEAST_BUDGET
"""A week, for tenants of whom a tenth is less than that."""

WHOLE = 100

Why = Literal["dead", "surplus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how much: the longer wait of root's floor and of what the provider offered; root's percentage."""

    grace_s: int
    lock_s: int
    percent: int

    @property
    def unbraked(self) -> list[str]:
        """Which brakes are off: for tests, or until root sets them; people are told in red."""
        off = [word for word, value in (("grace", self.grace_s), ("lock", self.lock_s)) if not value]
        return [*off, "budget"] if self.percent >= WHOLE else off


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A marked object. ``..._day`` are counted days; ``unclaimed_ns`` 0: no claim that named it ever ended.

    ``needed``: somebody claims it, or the charter in force names it. The mark should have gone then.
    """

    name: ObjectName
    size: int
    why: Why
    marked_ns: int
    marked_day: int
    received_ns: int
    received_day: int
    lock_until_ns: int
    unclaimed_ns: int
    unclaimed_day: int
    needed: bool

    def due_ns(self, limits: Limits) -> int:
        """Return the wall time before which it stays."""
        claim_ns = self.unclaimed_ns + limits.lock_s * NS if self.unclaimed_ns else 0
        return max(self.marked_ns + limits.grace_s * NS, claim_ns, self.lock_until_ns)

    def due_day(self, limits: Limits) -> int:
        """Return the counted day before which it stays."""
        claim_day = self.unclaimed_day + days_of(limits.lock_s * NS) if self.unclaimed_ns else 0
        lock_day = self.received_day + days_of(max(0, self.lock_until_ns - self.received_ns))
        return max(self.marked_day + days_of(limits.grace_s * NS), claim_day, lock_day)

    def earliest_ns(self, limits: Limits, days: Days, now_ns: int) -> int:
        """Return when it may go at the earliest, if a day is counted every day from now on."""
        return max(self.due_ns(limits), now_ns + max(0, self.due_day(limits) - days.days) * DAY_NS)


EARLIEST = (
    "max(marked_ns + :grace_ns, iif(unclaimed_ns, unclaimed_ns + :lock_ns, 0), lock_until_ns, "
    ":now_ns + :day_ns * max(0, max(marked_day + :grace_days, iif(unclaimed_ns, unclaimed_day + :lock_days, 0), "
    "received_day + (max(0, lock_until_ns - received_ns) + :day_ns - 1) / :day_ns) - :days))"
)
""":meth:`Marked.earliest_ns` for SQLite, on the columns of marks and objects and :func:`earliest_values`."""


def earliest_values(limits: Limits, days: Days, now_ns: int) -> dict[str, int]:
    """Return what :data:`EARLIEST` is made of besides columns."""
    return {
        "grace_ns": limits.grace_s * NS,
        "lock_ns": limits.lock_s * NS,
        "grace_days": days_of(limits.grace_s * NS),
        "lock_days": days_of(limits.lock_s * NS),
        "days": days.days,
        "day_ns": DAY_NS,
        "now_ns": now_ns,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What goes now, the longest marked first, and what stays for which reason."""

    gone: tuple[Marked, ...]
    waiting: int
    over_budget: int
    budget: int
    swept: int
    frozen: bool

    @property
    def size(self) -> int:
        """Bytes that go."""
        return sum(one.size for one in self.gone)


def budget_of(limits: Limits, held: int, swept: int) -> int:
    """Return how many bytes of a tenant may go in a week: of what there was before this week's sweeps."""
    return max(BUDGET_BYTES, (held + swept) * limits.percent // 100)


def plan_sweep(
    marked: Iterable[Marked], *, limits: Limits, days: Days, now_ns: int, held: int, swept: int
) -> SweepPlan:
    """Decide. ``held`` are the tenant's bytes now, ``swept`` those deleted in the last week, by either clock."""
    budget = budget_of(limits, held, swept)
    frozen = days.frozen(now_ns)
    gone: list[Marked] = []
    waiting = over_budget = 0
    left = budget - swept
    for one in sorted(marked, key=lambda one: (one.marked_ns, one.name)):
        if one.needed or frozen or now_ns < one.due_ns(limits) or days.days < one.due_day(limits):
            waiting += 1
        elif one.size > left:
            over_budget += 1
        else:
            left -= one.size
            gone.append(one)
    return SweepPlan(
        gone=tuple(gone), waiting=waiting, over_budget=over_budget, budget=budget, swept=swept, frozen=frozen
    )
