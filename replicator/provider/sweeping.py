"""The sweep: what :mod:`.sweep` decides, shown or done.

An object goes in this order, and each step is durable before the next:

    1. its row and mark are deleted, its name noted in ``leaving``, its bytes counted, in one transaction that
       decides once more whether it may go: from here on a claim of it hears "missing"
    2. its file is unlinked, the folder synced
    3. the note is deleted

A start, and the next sweep, do steps 2 and 3 for what is noted. While the steps run nobody stores the same object
(:mod:`.gate`); who stores it between a crash and that start takes its name off the list.
"""

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from replicator.charter.verify import VerifiedCharter
from replicator.clock import DAY_S, NS
from replicator.format.offer import Offer
from replicator.ids import ObjectName, TenantId
from replicator.provider.charters import Charters
from replicator.provider.database import Database
from replicator.provider.days import Days
from replicator.provider.gate import Gate
from replicator.provider.marks import kept_names, marked_page, marked_rows, marked_sums
from replicator.provider.objects import used_now
from replicator.provider.sweep import WEEK_DAYS, Limits, Marked, SweepPlan, budget_of, plan_sweep
from replicator.provider.tenants import all_tenants, find_tenant
from replicator.wire.messages import Marks, Outstanding

log = logging.getLogger(__name__)

BATCH = 256
"""Objects that go in one transaction: few enough that who stores one of them does not wait long."""


class Store(Protocol):
    """What a sweep needs of a tenant's objects."""

    def remove_all(self, names: list[ObjectName]) -> None:
        """Remove objects for good; durable on return."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSweep:
    """A tenant's part of a sweep."""

    tenant: TenantId
    plan: SweepPlan
    limits: Limits
    kept: frozenset[bytes]


def limits_of(offer: Offer, charter: VerifiedCharter) -> Limits:
    """Return the longer wait of what root demands and the provider offers, and root's budget."""
    floors = charter.root.floors
    return Limits(
        grace_s=max(floors.grace_s, offer.grace_s),
        lock_s=max(floors.lock_s, offer.lock_s),
        percent=floors.delete_budget_percent,
    )


class Swept(NamedTuple):
    """What became of a tenant's part: what is gone, and in words what stopped the rest, if something did."""

    part: TenantSweep
    gone: list[Marked]
    stopped: str = ""


def nothing_of(tenant: TenantId) -> TenantSweep:
    """Return the part of a tenant of whom nothing can be decided."""
    return TenantSweep(
        tenant=tenant,
        plan=SweepPlan(gone=(), waiting=0, over_budget=0, budget=0, swept=0, frozen=False),
        limits=Limits(grace_s=0, lock_s=0, percent=0),
        kept=frozenset(),
    )


def plan_all(database: Database, charters: Charters, offer: Offer, *, days: Days, now_ns: int) -> list[TenantSweep]:
    """Return what a sweep would delete now, for each tenant that has a charter here."""
    plans = (plan_of(database, charters, offer, one, days=days, now_ns=now_ns) for one in all_tenants(database))
    return [plan for plan in plans if plan is not None]


def plan_of(
    database: Database, charters: Charters, offer: Offer, tenant: TenantId, *, days: Days, now_ns: int
) -> TenantSweep | None:
    """Return what a sweep would delete of a tenant now; None without a charter, or if it was erased meanwhile."""
    under = _under_charter(database, charters, offer, tenant)
    if under is None:
        return None
    limits, kept = under
    plan = database.read(lambda connection: plan_for(connection, tenant, kept, limits=limits, days=days, now_ns=now_ns))
    return TenantSweep(tenant=tenant, plan=plan, limits=limits, kept=kept)


def _under_charter(
    database: Database, charters: Charters, offer: Offer, tenant_id: TenantId
) -> tuple[Limits, frozenset[bytes]] | None:
    tenant = find_tenant(database, tenant_id)
    if tenant is None:  # erased since it was listed
        return None
    charter = charters.current(tenant)
    return None if charter is None else (limits_of(offer, charter), kept_names(tenant.charter_name, charter))


def plan_for(
    connection: sqlite3.Connection,
    tenant: TenantId,
    kept: frozenset[bytes],
    *,
    limits: Limits,
    days: Days,
    now_ns: int,
    names: list[ObjectName] | None = None,
) -> SweepPlan:
    """Decide about a tenant's marked objects, or about those of the given names."""
    return plan_sweep(
        marked_rows(connection, tenant, kept, names),
        limits=limits,
        days=days,
        now_ns=now_ns,
        held=used_now(connection, tenant),
        swept=swept_bytes(connection, tenant, days=days, now_ns=now_ns),
    )


def swept_bytes(connection: sqlite3.Connection, tenant: TenantId, *, days: Days, now_ns: int) -> int:
    """Return what was deleted in the last week: a week is over when both the wall and the counted days say so."""
    [total] = connection.execute(
        "SELECT coalesce(sum(bytes), 0) FROM sweeps WHERE tenant = ? AND (swept_ns > ? OR day > ?)",
        (tenant, now_ns - WEEK_DAYS * DAY_S * NS, days.days - WEEK_DAYS),
    ).fetchone()
    return int(total)


def marks_page(
    database: Database,
    tenant: TenantId,
    *,
    after: bytes,
    limit: int,
    kept: frozenset[bytes],
    limits: Limits,
    days: Days,
    now_ns: int,
    incarnation: bytes,
) -> Marks:
    """Return a page of what is marked, with the sums of all of it."""
    rows, (count, size, first_ns), held, swept = database.read(
        lambda connection: (
            marked_page(connection, tenant, kept, after=after, limit=limit + 1),
            marked_sums(connection, tenant, limits, days, now_ns),
            used_now(connection, tenant),
            swept_bytes(connection, tenant, days=days, now_ns=now_ns),
        )
    )
    return Marks(
        incarnation=incarnation,
        marks=[
            Outstanding(
                name=one.name,
                size=one.size,
                why=one.why,
                marked_ns=one.marked_ns,
                due_ns=one.earliest_ns(limits, days, now_ns),
            )
            for one in rows[:limit]
        ],
        more=len(rows) > limit,
        count=count,
        size=size,
        first_ns=first_ns,
        swept=swept,
        budget=budget_of(limits, held, swept),
        frozen_until_ns=days.frozen_until_ns if days.frozen(now_ns) else 0,
    )


def deletions(
    database: Database, charters: Charters, offer: Offer, *, days: Days, now_ns: int
) -> list[dict[str, object]]:
    """Return for each tenant with a charter what is marked and how it is braked: for the operator's status."""
    found: list[dict[str, object]] = []
    for tenant in all_tenants(database):
        under = _under_charter(database, charters, offer, tenant)
        if under is None:
            continue
        limits, kept = under
        marks = marks_page(
            database,
            tenant,
            after=b"",
            limit=1,
            kept=kept,
            limits=limits,
            days=days,
            now_ns=now_ns,
            incarnation=b"\0" * 16,
        )
        found.append(
            {
                "id": tenant.hex(),
                "marked": marks.count,
                "marked_bytes": marks.size,
                "first_ns": marks.first_ns,
                "swept": marks.swept,
                "budget": marks.budget,
                "grace_s": limits.grace_s,
                "lock_s": limits.lock_s,
                "percent": limits.percent,
                "unbraked": limits.unbraked,
            }
        )
    return found


def apply_sweep(
    database: Database,
    store: Store,
    gate: Gate,
    part: TenantSweep,
    *,
    days: Days,
    now_ns: int,
) -> Iterator[tuple[Marked, ...]]:
    """Delete what was planned and may still go; yield that, batch by batch.

    Raises:
        OSError: the disk does not do it. What was begun is finished by the next sweep.
    """
    names = [one.name for one in part.plan.gone]
    for at in range(0, len(names), BATCH):
        with gate.leaving(part.tenant, names[at : at + BATCH]) as free:

            def take(connection: sqlite3.Connection, free: list[ObjectName] = free) -> tuple[Marked, ...]:
                plan = plan_for(
                    connection, part.tenant, part.kept, limits=part.limits, days=days, now_ns=now_ns, names=free
                )
                _take(connection, part.tenant, plan, days=days, now_ns=now_ns)
                return plan.gone

            gone = database.write("sweep", take)
            if gone:
                _finish(database, part.tenant, store, [one.name for one in gone])
        yield gone


def finish_leaving(database: Database, tenant: TenantId, store: Store, gate: Gate) -> None:
    """Delete the files of what a sweep had decided on when it was stopped."""
    names = _noted(database, tenant)
    if names:
        with gate.leaving(tenant, names) as free:
            # Looked up again: one may have been stored in between.
            _finish(database, tenant, store, sorted(set(free) & set(_noted(database, tenant))))


def _noted(database: Database, tenant: TenantId) -> list[ObjectName]:
    return [ObjectName(name) for (name,) in database.rows("SELECT name FROM leaving WHERE tenant = ?", (tenant,))]


def _take(connection: sqlite3.Connection, tenant: TenantId, plan: SweepPlan, *, days: Days, now_ns: int) -> None:
    if not plan.gone:
        return
    keys = [(tenant, one.name) for one in plan.gone]
    for key in keys:
        size, holder = connection.execute(
            "SELECT size, holder FROM objects WHERE tenant = ? AND name = ?", key
        ).fetchone()
        connection.execute("UPDATE usage SET bytes = bytes - ? WHERE tenant = ? AND holder = ?", (size, tenant, holder))
    connection.executemany("DELETE FROM marks WHERE tenant = ? AND name = ?", keys)
    connection.executemany("DELETE FROM objects WHERE tenant = ? AND name = ?", keys)
    connection.executemany("INSERT OR IGNORE INTO leaving (tenant, name) VALUES (?, ?)", keys)
    connection.execute(
        "INSERT INTO sweeps (tenant, swept_ns, day, objects, bytes) VALUES (?, ?, ?, ?, ?)",
        (tenant, days.stamp_ns(now_ns), days.days, len(keys), plan.size),
    )


def _finish(database: Database, tenant: TenantId, store: Store, names: list[ObjectName]) -> None:
    store.remove_all(names)
    keys = [(tenant, name) for name in names]
    database.write(
        "sweep done",
        lambda connection: connection.executemany("DELETE FROM leaving WHERE tenant = ? AND name = ?", keys),
    )
