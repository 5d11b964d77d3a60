"""What each holder gave and took, month by month: counted in memory, written down with every look at the clock.

A crash loses what came since the last look, half an hour at most: it is for the operator's curiosity and for fairness
among friends, and nothing is decided by it.
"""

import sqlite3
import threading
from dataclasses import dataclass
from typing import Final

from replicator.clock import day_of
from replicator.provider.database import Database

MONTHS: Final = 24
"""How many are kept."""
MONTH: Final = len("2026-01")
"""Characters of a day that name its month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """One tenant's month. ``taken`` bytes came in, ``given`` went out, ``kept`` is the most that lay here."""

    tenant: bytes
    month: str
    taken: int
    given: int
    kept: int


class Traffic:
    """Counts for a running provider; any thread adds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[bytes, bytes], list[int]] = {}

    def took(self, tenant: bytes, holder: bytes, count: int) -> None:
        """Count bytes that were stored for a holder."""
        self._add(tenant, holder, count, 0)

    def gave(self, tenant: bytes, holder: bytes, count: int) -> None:
        """Count bytes that were read by a holder."""
        self._add(tenant, holder, 0, count)

    def _add(self, tenant: bytes, holder: bytes, taken: int, given: int) -> None:
        with self._lock:
            counts = self._counts.setdefault((tenant, holder), [0, 0])
            counts[0] += taken
            counts[1] += given

    def write_down(self, database: Database, now_ns: int) -> None:
        """Add what was counted to this month, and note how much lies here now; of old months nothing stays."""
        with self._lock:
            counts, self._counts = self._counts, {}
        month = day_of(now_ns)[:MONTH]
        try:
            database.write("traffic", lambda connection: _write_down(connection, counts, month))
        except BaseException:
            for (tenant, holder), (taken, given) in counts.items():
                self._add(tenant, holder, taken, given)
            raise


def _write_down(connection: sqlite3.Connection, counts: dict[tuple[bytes, bytes], list[int]], month: str) -> None:
    there = {tenant for (tenant,) in connection.execute("SELECT id FROM tenants")}
    connection.executemany(
        "INSERT INTO traffic (tenant, holder, month, taken, given) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (tenant, holder, month) DO UPDATE SET taken = taken + excluded.taken, "
        "given = given + excluded.given",
        [
            (tenant, holder, month, taken, given)
            for (tenant, holder), (taken, given) in counts.items()
            if tenant in there  # it may have been erased since
        ],
    )
    connection.execute(
        "INSERT INTO kept (tenant, month, bytes) SELECT tenant, ?, sum(bytes) FROM usage GROUP BY tenant "
        "ON CONFLICT (tenant, month) DO UPDATE SET bytes = max(bytes, excluded.bytes)",
        (month,),
    )
    oldest = connection.execute(
        "SELECT DISTINCT month FROM kept ORDER BY month DESC LIMIT 1 OFFSET ?", (MONTHS,)
    ).fetchone()
    if oldest is not None:
        connection.execute("DELETE FROM kept WHERE month <= ?", oldest)
        connection.execute("DELETE FROM traffic WHERE month <= ?", oldest)


def months(database: Database) -> list[Month]:
    """Return each tenant's months, the newest first."""
    rows = database.rows(
        "SELECT tenant, month, sum(taken), sum(given), sum(kept) FROM ("
        "SELECT tenant, month, taken, given, 0 AS kept FROM traffic UNION ALL "
        "SELECT tenant, month, 0, 0, bytes FROM kept) GROUP BY tenant, month ORDER BY month DESC, tenant"
    )
    return [Month(tenant=t, month=m, taken=int(a), given=int(b), kept=int(c)) for t, m, a, b, c in rows]


def by_holder(database: Database) -> list[tuple[bytes, bytes, int, int]]:
    """Return tenant, holder, bytes taken and bytes given, of all months that are kept."""
    return [
        (tenant, holder, int(taken), int(given))
        for tenant, holder, taken, given in database.rows(
            "SELECT tenant, holder, sum(taken), sum(given) FROM traffic GROUP BY tenant, holder ORDER BY tenant, holder"
        )
    ]
