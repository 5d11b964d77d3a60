"""What all requests share: the rows, the disk, the key, and what must hold before either is touched."""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence

from replicator.charter.verify import VerifiedCharter
from replicator.clock import NS, Clock
from replicator.crypto.sign import SigningKey
from replicator.errors import HomeError, ReplicatorError
from replicator.format.offer import Offer
from replicator.ids import Identity, ObjectName, TenantId, identity_of
from replicator.lru import Lru
from replicator.provider.ballast import Ballast
from replicator.provider.charters import Charters
from replicator.provider.database import Database
from replicator.provider.datadir import Data
from replicator.provider.days import Days, load_days, store_days, tick
from replicator.provider.drain import limit_of
from replicator.provider.erasing import ERASED, Erasure, all_erasures, begin, finish
from replicator.provider.gate import Gate
from replicator.provider.hours import ALWAYS_TAKEN, Hours
from replicator.provider.objects import record, used, used_by, used_by_all
from replicator.provider.offers import own_offer
from replicator.provider.pulling import Pulls
from replicator.provider.quota import Levels, Quotas
from replicator.provider.relaying import Relayed
from replicator.provider.succession import begin_anew
from replicator.provider.sweep import Limits, Marked
from replicator.provider.sweeping import (
    Swept,
    TenantSweep,
    apply_sweep,
    finish_leaving,
    limits_of,
    nothing_of,
    plan_of,
)
from replicator.provider.tenants import Holder, Tenant, all_tenants, find_tenant
from replicator.provider.traffic import Traffic
from replicator.rng import Rng
from replicator.settings import DeclaredTenant
from replicator.store.base import ObjectStore
from replicator.store.bucket import BucketError
from replicator.transport.handler import RequestRefusedError
from replicator.transport.lanes import Lanes

log = logging.getLogger(__name__)

INCARNATION_SIZE = 16
CLAIMED_SETS = 32 << 20
"""Bytes of memory, for a million names in all."""
ERASING_AFTER_S = 10.0
NOBODY = b""
"""Holder of objects that were found on the disk without a row."""


class Core:
    """A running provider. One process at a time: starting counts the generation up and tidies the disk."""

    def __init__(
        self,
        *,
        key: SigningKey,
        database: Database,
        data: Data,
        ballast: Ballast,
        clock: Clock,
        rng: Rng,
        admitted: Mapping[bytes, DeclaredTenant],
        hours: Callable[[], Hours],
        pulls: Pulls | None = None,
        relay_for: Sequence[str] = (),
        erase_left: Callable[[TenantId], None] = lambda _tenant: None,
    ) -> None:
        self.key = key
        self.admitted = admitted
        self.identity: Identity = identity_of(key.public)
        self.database = database
        self.clock = clock
        self.rng = rng
        self.charters = Charters(database)
        self._hours = hours
        self.quotas = Quotas(lambda: self.hours.streams)
        self.lanes = Lanes(clock, down=lambda: self.hours.down, up=lambda: self.hours.up, small=ALWAYS_TAKEN)
        if pulls is not None:
            pulls.lane = self.lanes.down
        self.traffic = Traffic()
        self.relay_for = relay_for
        self.relayed = Relayed()
        self.pulls = pulls
        self.claimed_sets: Lru[bytes, bytes] = Lru(CLAIMED_SETS)
        """Names that were claimed lately, by the roots of their sets: the next claim changes a few of them."""
        self._data = data
        self._erase_left = erase_left
        self._attaching = threading.Lock()
        self._ticking = threading.Lock()
        self._erasing = threading.Lock()
        self._attached = False
        self._ticked_ns: int | None = None
        self.gate = Gate()
        self._stores: dict[TenantId, ObjectStore] = {}
        ballast.fill()
        self.incarnation = self._meta()[0]
        self.days = self.tick()
        self.available()

    @property
    def hours(self) -> Hours:
        """When this provider takes what is large, as its operator says now."""
        return self._hours()

    def tick(self) -> Days:
        """Look at the clock, and remember what it says; return what waits are counted by."""
        now_ns, steady_ns = self.clock.now_ns(), round(self.clock.monotonic() * NS)
        with self._ticking:
            before = load_days(self.database)
            after = tick(before, now_ns, None if self._ticked_ns is None else steady_ns - self._ticked_ns)
            self._ticked_ns = steady_ns
            self.database.write("clock", lambda connection: store_days(connection, after))
            self.days = after
            self._count(now_ns)
        if after.frozen_until_ns > before.frozen_until_ns:
            log.error("the clock leapt by %d s: nothing is swept for a day; check it", after.leap_ns // NS)
        return after

    def note_traffic(self) -> None:
        """Write down what came and went until now."""
        self._count(self.clock.now_ns())

    def _count(self, now_ns: int) -> None:
        """Write down what came and went; nothing that matters waits for that."""
        try:
            self.traffic.write_down(self.database, now_ns)
            self.relayed.write_down(self.database, now_ns)
        except (ReplicatorError, sqlite3.Error) as error:
            log.warning("what came and went was not written down (%s)", error)

    def limits(self, charter: VerifiedCharter) -> Limits:
        """Return how long and how much: see :func:`limits_of`."""
        return limits_of(self.offer()[1], charter)

    def sweep(self) -> list[Swept]:
        """Delete what may go now; return for each tenant what became of it. What stops one stops no other.

        Raises:
            RequestRefusedError: "unavailable": the disk is not mounted.
        """
        days = self.tick()
        now_ns = self.clock.now_ns()
        if not self.available():
            raise not_mounted()
        found = []
        for tenant in all_tenants(self.database):
            try:
                part = plan_of(self.database, self.charters, self.offer()[1], tenant, days=days, now_ns=now_ns)
            except (ReplicatorError, RequestRefusedError, sqlite3.Error) as error:
                log.error("a tenant is not swept (%s)", error)  # noqa: TRY400 - a traceback has names
                found.append(Swept(nothing_of(tenant), [], str(error)))
                continue
            if part is not None:
                found.append(self._sweep(part, days, now_ns))
        return found

    def _sweep(self, part: TenantSweep, days: Days, now_ns: int) -> Swept:
        gone: list[Marked] = []
        stopped = ""
        try:
            store = self.store(part.tenant)
            finish_leaving(self.database, part.tenant, store, self.gate)
            for batch in apply_sweep(self.database, store, self.gate, part, days=days, now_ns=now_ns):
                gone += batch
        except (ReplicatorError, RequestRefusedError, sqlite3.Error, OSError) as error:
            # Without an OSError's text: it holds the file's name.
            stopped = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            log.error("the sweep of a tenant stopped (%s); the next one goes on", stopped)  # noqa: TRY400 - as above
        if gone:
            size = sum(one.size for one in gone)
            log.info("swept %d objects of a tenant, %d bytes", len(gone), size, extra={"unit": "sweep"})
        return Swept(part, gone, stopped)

    def offer(self) -> tuple[bytes, Offer]:
        """Return the signed offer and what it says; another process of this home may have changed it."""
        return own_offer(self.database)

    def tenant(self, holder: Holder) -> Tenant:
        """Return the holder's tenant.

        Raises:
            RequestRefusedError: "unauthorized": it was erased since the holder was looked up.
        """
        found = find_tenant(self.database, holder.tenant)
        if found is None:
            raise RequestRefusedError(*ERASED)
        return found

    def erase(self, signed: bytes) -> bytes:
        """Obey root's order to erase a tenant; return the signed receipt.

        Raises:
            RequestRefusedError: "not-found", "forbidden"; "unavailable": the disk is not mounted, and nothing was
                begun. "busy": it has begun, and is not done.
            OSError: the disk does not delete; a start, or the same order, goes on.
        """
        if not self.available():
            raise not_mounted()
        erasure = begin(self.database, signed, now_ns=self.clock.now_ns())
        if erasure.receipt:
            return erasure.receipt
        if not self._erasing.acquire(blocking=False):
            raise RequestRefusedError("busy", "a tenant is being deleted; ask again", after_s=ERASING_AFTER_S)
        try:
            if not self.quotas.idle(erasure.tenant):
                raise RequestRefusedError("busy", "an upload of it is still running; ask again", after_s=1.0)
            return self._finish(erasure)
        finally:
            self._erasing.release()

    def _finish(self, erasure: Erasure) -> bytes:
        self._stores.pop(erasure.tenant, None)
        receipt = finish(
            self.database,
            erasure,
            self._remove,
            key=self.key,
            incarnation=self.incarnation,
            clock=self.clock,
        )
        if not erasure.receipt:
            log.warning(
                "a tenant was erased by its root's order: %d objects, %d bytes",
                erasure.objects,
                erasure.size,
                extra={"unit": "erase"},
            )
        return receipt

    def _remove(self, tenant: TenantId) -> None:
        self._data.remove(tenant)
        self._erase_left(tenant)  # from the folders that it was moved away from

    def available(self) -> bool:
        """Return whether our disk is there. One that comes back is taken up as at a start.

        A bucket that does not answer is not there for now, and nothing has to be taken up when it does. Nobody waits
        while another takes it up.
        """
        presence = self._data.presence()
        if presence == "silent":
            return False
        if not self._attaching.acquire(blocking=False):
            return presence == "there" and self._attached
        try:
            if presence == "away":
                if self._attached:
                    log.error("the objects are not there any more: the disk is not mounted, or the bucket is another")
                self._attached = False
            elif not self._attached and self._data.presence() == "there":  # still, now that nobody else takes it up
                try:
                    self._attach()
                except BucketError as error:
                    log.error("the bucket with the objects does not work as it should: %s", error.strerror)  # noqa: TRY400 - a traceback has names
                else:
                    self._attached = True
            return self._attached
        finally:
            self._attaching.release()

    def store(self, tenant: TenantId) -> ObjectStore:
        """Return a tenant's objects.

        Raises:
            RequestRefusedError: "unavailable": the disk is not mounted, which says nothing about the objects.
        """
        if not self.available():
            raise not_mounted()
        return self._stores.setdefault(tenant, self._data.tenant(tenant))

    def quota(self, tenant: Tenant, size: int | None = None) -> int:
        """Return how much a tenant may have here: less than was granted once this provider leaves or shrinks.

        Of what is as small as a record (``size``) it may have what was granted until the end.
        """
        limit = None if size is not None and size <= ALWAYS_TAKEN else limit_of(self.database, tenant.id)
        return tenant.quota if limit is None else min(limit, tenant.quota)

    def levels(self, tenant: Tenant, holder: Holder, holder_quota: int, size: int | None = None) -> Levels:
        """Return how full everything is, for an object of ``size`` bytes."""
        return Levels(
            tenant_quota=self.quota(tenant, size),
            tenant_used=used(self.database, tenant.id),
            holder_quota=holder_quota,
            holder_used=used_by(self.database, tenant.id, holder.identity),
            capacity=self.offer()[1].capacity,
            total_used=used_by_all(self.database),
            disk_free=self._data.free_bytes(),
        )

    def record(self, tenant: TenantId, name: ObjectName, size: int, holder: bytes) -> tuple[int, int]:
        """Record a durable object; return when it was received and until when it is locked."""
        now_ns = self.clock.now_ns()
        lock_ns = self.offer()[1].lock_s * NS

        def work(connection: sqlite3.Connection) -> int:
            return record(
                connection,
                tenant=tenant,
                name=name,
                size=size,
                holder=holder,
                received_ns=now_ns,
                received_day=self.days.days,
                lock_until_ns=now_ns + lock_ns,
            )

        try:
            return now_ns, self.database.write("object row", work)
        except sqlite3.IntegrityError as error:  # its tenant's row is gone
            raise RequestRefusedError(*ERASED) from error

    def stop(self) -> None:
        """Count the generation up once more, so that a copy of the disk made while it ran is told from it.

        Raises:
            HomeError: disk or database does not take it.
        """
        with self._attaching:
            try:
                self._count(self.clock.now_ns())
                if self._attached and self._data.mounted():
                    self._next_generation()
            except (OSError, sqlite3.Error) as error:
                raise HomeError(
                    f"disk or database cannot be left in good order ({error})",
                    hint="nothing that was promised is lost by this; the next start may show a new incarnation, "
                    "whereupon members look at everything anew",
                ) from error
            finally:
                self._attached = False

    def _meta(self) -> tuple[bytes, int]:
        row = self.database.row("SELECT incarnation, generation FROM meta")
        assert row is not None, "the row is made with the home"
        return row[0], row[1]

    def _attach(self) -> None:
        self._next_generation()
        for erasure in all_erasures(self.database):
            try:
                self._finish(erasure)  # what was begun; and what a disk that was put back from a copy brought again
            except OSError as error:
                log.error("a tenant that was erased cannot be deleted: %s", os.strerror(error.errno or 0))  # noqa: TRY400 - a traceback has names
        self._stores = {tenant: self._data.tenant(tenant) for tenant in all_tenants(self.database)}
        for tenant, store in self._stores.items():
            store.prepare()
            finish_leaving(self.database, tenant, store, self.gate)
            self._adopt(tenant, store)

    def _next_generation(self) -> None:
        incarnation, generation = self._meta()
        on_disk = self._data.generation()
        if on_disk != generation:
            # A crash between the two writes below looks the same: then this costs the clients an inventory.
            log.warning("database and disk are of different generations (%d, %d): new incarnation", generation, on_disk)
            incarnation = self.rng.bytes(INCARNATION_SIZE)
        number = max(generation, on_disk) + 1
        self._data.set_generation(number)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE meta SET incarnation = ?, generation = ?", (incarnation, number))
            if on_disk != generation:
                # Claims that spoke against a mark may be what was lost; what was leaving may have come back since.
                connection.execute("UPDATE meta SET lives = lives + 1")
                connection.execute("DELETE FROM marks")
                connection.execute("DELETE FROM leaving")
                connection.execute("DELETE FROM receipts")
                # What root objected to may be what was lost; members hand it on while it waits once more.
                begin_anew(connection, days=self.days, now_ns=self.clock.now_ns())

        self.database.write("generation", work)
        self.incarnation = incarnation

    def _adopt(self, tenant: TenantId, store: ObjectStore) -> None:
        # Left by a crash between link and row, or the database is an older copy: verify, then count it.
        known = {name for (name,) in self.database.rows("SELECT name FROM objects WHERE tenant = ?", (tenant,))}
        strays = [(name, size) for name, size in store.list() if name not in known]
        good = [(name, size) for name, size in strays if store.check(name) == "good"]
        for name, size in good:
            self.record(tenant, name, size, NOBODY)
        if strays:
            log.warning("found %d objects without a row: %d were intact and are kept", len(strays), len(good))


def not_mounted() -> RequestRefusedError:
    """Return the refusal while our disk is not there, which says nothing about the objects."""
    return RequestRefusedError("unavailable", "the disk with the objects is not mounted, or the bucket does not answer")
