"""How a provider stands, as values: for its alarms, its metrics and its status."""

from dataclasses import dataclass
from typing import Final

from replicator.clock import DAY_S, NS
from replicator.provider.database import Database
from replicator.provider.drain import Emptying

GROWTH_DAYS: Final = 30
"""What came and went in so many days says how fast it fills."""


FEW: Final = 4 << 20
"""Bytes: a charter and a keybag for each change of them, and no backup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantState:
    """One tenant here. ``heard_ns`` is when a node of it last published; 0: never, and it is here since ``since_ns``.

    ``marked`` objects wait for their deletion, the first from ``first_ns`` on; at most ``budget`` bytes go in a week.
    ``root_changes`` are other roots that wait to follow, ``forks`` histories that part.
    """

    id: str
    label: str
    used: int
    quota: int
    since_ns: int
    heard_ns: int
    marked: int = 0
    marked_bytes: int = 0
    first_ns: int = 0
    budget: int = 0
    unbraked: tuple[str, ...] = ()
    root_changes: int = 0
    forks: int = 0

    @property
    def stores(self) -> bool:
        """Whether it ever backed up to here, or stored more than its charter and keys."""
        return bool(self.heard_ns) or self.used > FEW

    @property
    def name(self) -> str:
        """What its operator called it, else the beginning of its id."""
        return self.label or self.id[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayState:
    """A relay that this provider waits at. ``lost_ns``: since when it cannot, for this ``reason``; 0: it does."""

    address: str
    lost_ns: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedState:
    """A tenant whose root ordered it away, by id. ``done``: nothing of it is left, in old folders neither."""

    id: str
    began_ns: int
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderState:
    """The whole. ``room`` is what may still be stored; ``growth`` is bytes a day, as of late; below 0 it empties.

    ``damaged`` are objects that scrubs set aside.
    ``dialled``: its operator says where it is dialled, beside ``relays``.
    """

    now_ns: int
    mounted: bool
    capacity: int
    used: int
    disk_free: int
    room: int
    growth: int
    clock_leap_s: int
    frozen: bool
    damaged: int
    scrub_ended_ns: int
    tenants: tuple[TenantState, ...]
    draining: tuple[Emptying, ...] = ()
    erased: tuple[ErasedState, ...] = ()
    relays: tuple[RelayState, ...] = ()
    dialled: bool = True

    @property
    def days_left(self) -> float | None:
        """In how many days it is full if all goes on as of late; None if it does not fill."""
        return self.room / self.growth if self.growth > 0 else None


def growth(database: Database, now_ns: int) -> int:
    """Return by how many bytes a day the store grew lately. What lies here is not older than its oldest object."""
    since_ns = now_ns - GROWTH_DAYS * DAY_S * NS
    row = database.row("SELECT min(received_ns) FROM objects")
    first_ns = row[0] if row is not None and row[0] is not None else now_ns
    days: float = min(GROWTH_DAYS, (now_ns - first_ns) / NS / DAY_S)
    if days < 1:
        return 0  # a first backup says nothing of what comes after it
    [came] = database.row("SELECT coalesce(sum(size), 0) FROM objects WHERE received_ns >= ?", (since_ns,)) or (0,)
    [went] = database.row("SELECT coalesce(sum(bytes), 0) FROM sweeps WHERE swept_ns >= ?", (since_ns,)) or (0,)
    return int((came - went) / days)


def heard(database: Database) -> dict[bytes, int]:
    """Return when a node of each tenant last published or claimed here, in ns."""
    rows = database.rows(
        "SELECT tenant, max(at) FROM (SELECT tenant, seen_ns AS at FROM heads UNION ALL "
        "SELECT tenant, claimed_ns FROM claims) GROUP BY tenant"
    )
    return dict(rows)


def counts(database: Database, table: str) -> dict[bytes, int]:
    """Return how many rows each tenant has in ``forks`` or ``root_changes``."""
    statements = {
        "forks": "SELECT tenant, count(*) FROM forks GROUP BY tenant",
        "root_changes": "SELECT tenant, count(*) FROM root_changes GROUP BY tenant",
    }
    return dict(database.rows(statements[table]))
