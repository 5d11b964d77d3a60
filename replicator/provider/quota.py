"""Who may still store how much: decided and reserved before a body is taken."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from replicator.ids import TenantId
from replicator.transport.handler import RequestRefusedError

STREAMS = 3
"""Uploads of one tenant at a time, unless the operator says otherwise."""
BUSY_AFTER_S = 1.0
FLOOR_PERCENT = 5
FLOOR_BYTES = 10 << 30


def floor_of(capacity: int) -> int:
    """Return how much of the disk stays free: 5 % of what is offered, at most 10 GiB."""
    return min(capacity * FLOOR_PERCENT // 100, FLOOR_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What counts when space is asked for, in bytes. ``holder_quota`` 0: as much as the tenant."""

    tenant_quota: int
    tenant_used: int
    holder_quota: int
    holder_used: int
    capacity: int
    total_used: int
    disk_free: int

    def free_beside(self, mine: int, everyone: int) -> int:
        """Return what the tenant may still store beside what is reserved for it and for all.

        The least of its quota, the capacity and the disk.
        """
        return max(
            0,
            min(
                self.tenant_quota - self.tenant_used - mine,
                self.capacity - self.total_used - everyone,
                self.disk_free - floor_of(self.capacity) - everyone,
            ),
        )


Measure = Callable[[], tuple[Levels, int]]
"""Returns the levels now and how many bytes the upload would add to the tenant's use."""


@dataclass(slots=True, kw_only=True)
class _Pledged:
    streams: int = 0
    charged: int = 0


class Reservation:
    """Space for one upload. ``charged`` is what it adds to the tenant's use, ``size`` what it adds to the disk's."""

    def __init__(self, quotas: "Quotas", tenant: TenantId, holder: bytes, size: int, charged: int) -> None:
        self.tenant = tenant
        self.holder = holder
        self.size = size
        self.charged = charged
        self._quotas = quotas
        self._held = True

    def release(self) -> None:
        """Give the space back; idempotent."""
        if self._held:
            self._held = False
            self._quotas.release(self)


class Quotas:
    """The reservations that are open now, in memory: after a crash there are none."""

    def __init__(self, streams: Callable[[], int] = lambda: STREAMS) -> None:
        self._streams = streams
        self._lock = threading.Lock()
        self._open: set[Reservation] = set()

    def reserve(self, tenant: TenantId, holder: bytes, *, size: int, measure: Measure) -> Reservation:
        """Reserve, or refuse in the words of the wire.

        ``measure`` is asked under the lock: an upload that ends meanwhile is still reserved or already counted.

        Raises:
            RequestRefusedError: "busy", "quota" or "full".
        """
        with self._lock:
            mine = self._pledged(tenant)
            streams = self._streams()
            if mine.streams >= streams:
                text = f"{streams} uploads of this tenant are running"
                raise RequestRefusedError("busy", text, after_s=BUSY_AFTER_S)
            levels, charged = measure()
            if levels.tenant_used + mine.charged + charged > levels.tenant_quota:
                raise RequestRefusedError("quota", f"the quota of {levels.tenant_quota} bytes is used up")
            own = sum(one.charged for one in self._open if one.tenant == tenant and one.holder == holder)
            if levels.holder_quota and levels.holder_used + own + charged > levels.holder_quota:
                raise RequestRefusedError("quota", f"this holder's quota of {levels.holder_quota} bytes is used up")
            everyone = sum(one.charged for one in self._open)
            if levels.total_used + everyone + charged > levels.capacity:
                raise RequestRefusedError("full", "the offered capacity is used up")
            arriving = sum(one.size for one in self._open)
            if levels.disk_free - arriving - size < floor_of(levels.capacity):
                raise RequestRefusedError("full", "the disk is full up to its reserve")
            reservation = Reservation(self, tenant, holder, size, charged)
            self._open.add(reservation)
            return reservation

    def idle(self, tenant: TenantId) -> bool:
        """Return whether nothing of a tenant is being stored."""
        with self._lock:
            return not self._pledged(tenant).streams

    def release(self, reservation: Reservation) -> None:
        """Forget a reservation."""
        with self._lock:
            self._open.discard(reservation)

    def pledged(self, tenant: TenantId) -> tuple[int, int]:
        """Return the bytes reserved for one tenant and for all."""
        with self._lock:
            return self._pledged(tenant).charged, sum(one.charged for one in self._open)

    def _pledged(self, tenant: TenantId) -> _Pledged:
        found = _Pledged()
        for one in self._open:
            if one.tenant == tenant:
                found.streams += 1
                found.charged += one.charged
        return found
