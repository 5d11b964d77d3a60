"""Objects that a provider fetches itself from another one, because a tenant said so: one answer now, the rest later.

The upload is reserved, verified, stored and receipted as any PUT is, by the same code. Only who brings the bytes
differs. A pull that is asked for again is the same pull; its outcome is told once, to who brings the same permit:
what nobody came back for must not be the answer to another request, when the object may be gone.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from replicator.crypto.sign import Context, SigningKey
from replicator.errors import BusyError, IntegrityError, PeerError, RefusedError
from replicator.format.codec import encode
from replicator.format.offer import Offer
from replicator.format.permit import Pickup
from replicator.ids import Identity, ObjectName, TenantId
from replicator.transport.handler import RequestRefusedError, Upload
from replicator.transport.lanes import Lane
from replicator.transport.sources import Sources
from replicator.wire.messages import PullFailure

log = logging.getLogger(__name__)

AT_ONCE: Final = 3
"""Objects that are fetched at the same time, for all tenants together: each holds a thread and a reservation."""
EACH: Final = 2
"""Of these those of one tenant: slow sources of his keep no other's waiting."""
AGAIN_S: Final = 2.0
"""When to ask how a pull went."""
_KEPT: Final = 256
"""Outcomes that nobody asked for yet; the oldest goes first, and costs the tenant another pull."""

Key = tuple[TenantId, ObjectName]
Run = Callable[[Callable[[], None]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What is to be fetched, with which permit, and where the source is by its own word."""

    permit: bytes
    offer: Offer
    source: Identity
    name: ObjectName
    size: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pull ended: with a receipt, or why it did not."""

    receipt: bytes = b""
    failed: PullFailure | None = None


class Pulls:
    """The pulls of one provider. ``run`` is given the work to do beside; at most :data:`AT_ONCE` are begun."""

    def __init__(self, sources: Sources, key: SigningKey, now_ns: Callable[[], int], run: Run | None = None) -> None:
        self._sources = sources
        self._key = key
        self._now_ns = now_ns
        self._pool = None if run else ThreadPoolExecutor(AT_ONCE, thread_name_prefix="pull")
        self._run: Run = run or self._beside
        self.lane: Lane | None = None
        """What is fetched shares with what tenants send; None: nothing holds it up."""
        self._lock = threading.Lock()
        self._running: set[Key] = set()
        self._ended: OrderedDict[tuple[Key, bytes], Outcome] = OrderedDict()

    def outcome(self, key: Key, permit: bytes) -> Outcome | None:
        """Return how the pull with this permit ended, once; None if it runs, or none was begun."""
        with self._lock:
            return self._ended.pop((key, permit), None)

    def runs(self, key: Key) -> bool:
        """Return whether a pull is under way."""
        with self._lock:
            return key in self._running

    def begin(self, key: Key, errand: Errand, reserve: Callable[[], Upload]) -> None:
        """Begin to fetch an object into what ``reserve`` returns.

        Raises:
            RequestRefusedError: "busy": enough is being fetched; or whatever ``reserve`` raises.
        """
        with self._lock:
            if key in self._running:
                return
            mine = sum(tenant == key[0] for tenant, _ in self._running)
            if len(self._running) >= AT_ONCE or mine >= EACH:
                raise RequestRefusedError("busy", "enough is being fetched from others", after_s=AGAIN_S)
            self._running.add(key)
        try:
            upload = reserve()
        except BaseException:
            with self._lock:
                self._running.discard(key)
            raise
        try:
            self._run(lambda: self._fetch(key, errand, upload))
        except RuntimeError as error:  # the pool takes nothing any more
            upload.abort()
            with self._lock:
                self._running.discard(key)
            raise RequestRefusedError("unavailable", "the provider is stopping") from error

    def stop(self) -> None:
        """Break off what runs, and wait for it: nothing is stored after the disk was left in good order."""
        self._sources.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def _beside(self, work: Callable[[], None]) -> object:
        assert self._pool is not None, "without a runner there is a pool"
        return self._pool.submit(work)

    def _fetch(self, key: Key, errand: Errand, upload: Upload) -> None:
        outcome = Outcome(failed="unreachable")
        try:
            outcome = self._fetched(key[0], errand, upload)
        except Exception as error:  # whatever goes wrong on this thread must not leave the pull running for ever
            log.error("a pull broke off (%s)", type(error).__name__)  # noqa: TRY400 - messages of errors hold names
        finally:
            upload.abort()
            with self._lock:
                self._running.discard(key)
                self._ended[key, errand.permit] = outcome
                while len(self._ended) > _KEPT:
                    self._ended.popitem(last=False)

    def _moving(self, tenant: TenantId, size: int) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda _piece: None) if self.lane is None else self.lane.moving_beside(tenant, size)

    def _fetched(self, tenant: TenantId, errand: Errand, upload: Upload) -> Outcome:
        pickup = Pickup(
            permit=errand.permit,
            source=errand.source,
            name=errand.name,
            offset=0,
            length=0,
            asked_ns=self._now_ns(),
        )
        signed = self._key.sign(Context.PICKUP, encode(pickup))

        try:
            with self._moving(tenant, errand.size) as spend:

                def take(piece: memoryview) -> None:
                    spend(len(piece))
                    upload.hash(piece)
                    upload.write(piece)

                self._sources.fetch(tuple(errand.offer.endpoints), errand.source, signed, errand.size, take)
        except RefusedError:
            return Outcome(failed="refused")
        except BusyError:
            return Outcome(failed="busy")
        except PeerError:
            return Outcome(failed="unreachable")
        except RequestRefusedError as refused:
            return Outcome(failed="busy" if refused.code == "busy" else "no room")
        try:
            receipt = upload.commit()
        except RequestRefusedError as refused:
            return Outcome(failed="wrong bytes" if refused.code == "wrong-name" else "no room")
        except IntegrityError:
            return Outcome(failed="wrong bytes")
        return Outcome(receipt=receipt)
