"""The provider as its transports see it: who asks, and nothing about sockets."""

import logging
from collections.abc import Callable, Iterator

from replicator.charter.offers import VerifiedOffer
from replicator.config import counted
from replicator.crypto.certificates import client_certificate
from replicator.format.group import GroupFacts
from replicator.fs import Fs
from replicator.ids import Identity, TenantId
from replicator.provider.adopting import Adopted, adopt
from replicator.provider.core import Core
from replicator.provider.enrol import enrol_by_invite, enrol_by_order
from replicator.provider.groups import declared_member, join, settle_now
from replicator.provider.offers import announced, known
from replicator.provider.permits import read_pickup
from replicator.provider.refusals import refusing
from replicator.provider.relaying import who_waits
from replicator.provider.scrub import Scrubbed, scrub
from replicator.provider.session import ProviderSession
from replicator.provider.sweeping import Swept
from replicator.provider.tenants import find_holder
from replicator.store.carried import CarriedDisk
from replicator.transport.handler import RequestRefusedError
from replicator.transport.lanes import Lanes
from replicator.wire.messages import EnrolReply, EnrolRequest, JoinRequest

log = logging.getLogger(__name__)


class ProviderService:
    """A :class:`~replicator.transport.handler.Service`. Synchronous and safe for many threads.

    Rows change under the database's lock; bodies of objects are written outside of it.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def identity(self) -> Identity:
        """The hash of the provider's public key."""
        return self._core.identity

    @property
    def incarnation(self) -> bytes:
        """The store's; a new one voids receipts."""
        return self._core.incarnation

    @property
    def lanes(self) -> Lanes:
        """How fast objects come and go, as this provider's operator says now."""
        return self._core.lanes

    def enrol(self, request: EnrolRequest) -> EnrolReply:
        """Give a certificate for an unused invite, or on the word of a known tenant's root or owner.

        Raises:
            RequestRefusedError: "spent", "forbidden", "bad-request".
        """
        now_ns = self._core.clock.now_ns()
        with refusing(integrity="forbidden"):
            if bool(request.secret) == bool(request.order):
                raise RequestRefusedError("bad-request", "an invite's secret or an order, one of the two")
            if request.secret:
                tenant = enrol_by_invite(self._core.database, request, now_ns=now_ns)
            else:
                admitted, member = declared_member(self._core.database, request, self._core.admitted)
                tenant = enrol_by_order(
                    self._core.database,
                    self._core.charters,
                    request,
                    days=self._core.days,
                    now_ns=now_ns,
                    admitted=admitted,
                )
                if request.root:
                    settle_now(self._core.database, member)
            certificate = client_certificate(self._core.key, request.holder_key, self._core.rng)
            log.info("a holder was enrolled", extra={"unit": "enrol"})
            return EnrolReply(tenant=tenant, certificate=certificate, offer=self._core.offer()[0])

    def join(self, request: JoinRequest) -> GroupFacts:
        """Let in who brings a code of the group that this provider is in; without a code, hear who somebody is.

        Raises:
            RequestRefusedError: "not-found", "spent", "forbidden", "conflict", "full", "bad-request".
        """
        with refusing(integrity="forbidden"):
            return join(self._core.database, self._core.key, request, now_ns=self._core.clock.now_ns())

    def erase(self, order: bytes) -> bytes:
        """Delete a tenant by its root's signed order; return the signed receipt. Needs no certificate.

        Raises:
            RequestRefusedError: "not-found", "forbidden", "bad-request", "busy", "unavailable".
        """
        with refusing(integrity="forbidden"):
            return self._core.erase(order)

    def give(self, pickup: bytes) -> tuple[TenantId, bytes]:
        """Return an object, or a range of it, to another provider whose pickup has a permit of who may read it here.

        And whose it is.

        Raises:
            RequestRefusedError: "forbidden": the permit does not hold, or its signer may not; "busy" outside of this
                provider's hours; otherwise as of a GET.
        """
        with refusing(integrity="forbidden"):
            wanted = read_pickup(pickup, self._core.identity, self._core.clock.now_ns())
            holder = find_holder(self._core.database, wanted.signer)
            if holder is None or holder.tenant != wanted.tenant:
                raise RequestRefusedError("forbidden", "who signed this permit may not read here")
            return holder.tenant, ProviderSession(self._core, holder).give(wanted)

    def announce(self, offer: bytes) -> None:
        """Take the newer offer of another provider that a tenant has told of, whoever brings it. Needs no certificate.

        Raises:
            RequestRefusedError: "not-found": nobody here knows that provider. "bad-request": it did not sign this.
        """
        with refusing(integrity="bad-request"):
            announced(self._core.database, offer, clock=self._core.clock)

    def known(self, offer: bytes) -> VerifiedOffer:
        """Return what the offer of another provider says, if a tenant has told of that. Needs no certificate.

        Raises:
            RequestRefusedError: "not-found": nobody here knows that provider. "bad-request": it did not sign this.
        """
        with refusing(integrity="bad-request"):
            return known(self._core.database, offer)

    def relays(self, statement: bytes) -> Identity:
        """Return who asks to be passed on to by a signed word. Needs no certificate.

        Raises:
            RequestRefusedError: "forbidden": it is not passed on to here, or the word is not of now and for us.
        """
        with refusing(integrity="forbidden"):
            return who_waits(
                self._core.database,
                self._core.relay_for,
                statement,
                self._core.identity,
                self._core.clock.now_ns(),
            )

    def relayed(self, identity: Identity, moved: int) -> None:
        """Count a connection that was passed on, and its bytes."""
        self._core.relayed.passed(identity, moved)

    def offer(self) -> bytes:
        """Return this provider's newest offer, signed."""
        return self._core.offer()[0]

    def session(self, holder_key: bytes) -> ProviderSession:
        """Return the session of an enrolled holder.

        Raises:
            RequestRefusedError: "unauthorized".
        """
        holder = find_holder(self._core.database, holder_key)
        if holder is None:
            raise RequestRefusedError("unauthorized", "this key is not enrolled here")
        return ProviderSession(self._core, holder)

    def tick(self) -> None:
        """Look at the clock: more often than hourly, so that a leap is told from time."""
        self._core.tick()

    def sweep(self) -> list[Swept]:
        """Delete what may go now; return for each tenant what became of it.

        Raises:
            RequestRefusedError: "unavailable": the disk is not mounted.
        """
        return self._core.sweep()

    def scrub(self, folder: str, fs: Fs, *, most: int | None) -> Scrubbed:
        """Read ``most`` bytes of what is stored, from where the last call stopped, or all that is left of the round.

        Raises:
            RequestRefusedError: "unavailable": the disk is not mounted.
        """
        done = scrub(self._core, folder, fs, most=most)
        if done.found:
            log.error(
                "scrub: %s damaged or gone; their tenants see it and store such again",
                counted(len(done.found), "object is", "objects are"),
            )
        if done.whole:
            log.info("scrub: everything was read through", extra={"unit": "scrub"})
        return done

    def adopt(self, disk: CarriedDisk, advance: Callable[[int], None]) -> Iterator[Adopted]:
        """Take in what a disk brings, tenant by tenant."""
        return adopt(self._core, disk, advance)

    def stop(self) -> None:
        """Leave the disk in good order. The service answers no more."""
        if self._core.pulls is not None:
            self._core.pulls.stop()
        self._core.stop()
