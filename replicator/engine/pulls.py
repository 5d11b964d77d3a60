"""New holders fetch what they are to hold from old ones: this machine signs who may fetch what, and carries nothing."""

from functools import partial
from typing import Final

from replicator.catalog.objects import ObjectRow
from replicator.clock import HOUR_S, NS
from replicator.crypto.sign import Context
from replicator.engine.edge import Edge
from replicator.engine.federation import MAX_BUSY_WAITS, Federation, Link, patiently
from replicator.engine.home import Half
from replicator.errors import BusyError, ProtocolError, RefusedError
from replicator.format.codec import encode
from replicator.format.permit import Permit
from replicator.ids import Identity
from replicator.transport.patience import GRACE_S, MINIMUM_RATE, STALL_S
from replicator.wire.messages import PULLS_VERSION, PullReply, PullRequest
from scheduler.night import backoff

PERMIT_S: Final = HOUR_S
"""How long a permit holds: longer than the slowest transfer of an object, and not much longer."""
_NOT_ABLE: Final = frozenset({"bad-request", "forbidden", "unsupported", "not-found", "unauthorized"})
"""Words with which a provider says that it does not fetch, or not so; any other is about the object's place there."""


class Pulls:
    """Copies made from provider to provider in one run. Who cannot reach whom is found out once."""

    def __init__(self, half: Half, edge: Edge, federation: Federation) -> None:
        self._half = half
        self._edge = edge
        self._federation = federation
        self._apart: set[tuple[Identity, Identity]] = set()
        self._given: dict[Identity, int] = {}
        self.objects = 0
        self.bytes = 0

    def source_of(self, row: ObjectRow, holders: set[Identity], to: Identity) -> Link | None:
        """Return from which of the holders a provider is to fetch an object: of those it may reach the least asked."""
        links = self._federation.links
        able = [
            links[one]
            for one in sorted(holders)
            if one in links and to in links and one != to and self._may(links[one], links[to])
        ]
        if not able:
            return None
        chosen = min(able, key=lambda link: self._given.get(link.identity, 0))
        self._given[chosen.identity] = self._given.get(chosen.identity, 0) + row.size
        return chosen

    def _may(self, source: Link, to: Link) -> bool:
        speaks = PULLS_VERSION in source.info.wire and PULLS_VERSION in to.info.wire
        return speaks and (source.identity, to.identity) not in self._apart

    async def pull(self, row: ObjectRow, source: Link, to: Link) -> bytes | None:
        """Have ``to`` fetch an object from ``source``; return its signed receipt, which is not verified.

        None: it could not, and this machine has to carry it.

        Raises:
            PeerError: as of a PUT at ``to``: it is full, busy, or does not answer.
        """
        now_ns = self._edge.clock.now_ns()
        permit = Permit(
            tenant=self._half.tenant,
            source=source.identity,
            puller=to.identity,
            names=row.name,
            offset=0,
            length=0,
            issued_ns=now_ns,
            expires_ns=now_ns + PERMIT_S * NS,
        )
        request = PullRequest(
            name=row.name,
            size=row.size,
            permit=self._half.signing.sign(Context.PERMIT, encode(permit)),
            offer=source.info.offer,
        )
        turned_away = 0
        patience_s = GRACE_S + STALL_S + row.size / MINIMUM_RATE
        until = self._edge.clock.monotonic() + patience_s
        while True:
            try:
                reply = await patiently(self._edge, partial(to.connection.call, "pull", request, PullReply))
            except BusyError:
                return None  # with others' errands: what is carried there has streams of its own
            except RefusedError as error:
                if error.code not in _NOT_ABLE:
                    raise
                self._give_up(source, to, "it does not fetch from others")
                return None
            if reply.receipt:
                self.objects += 1
                self.bytes += row.size
                return reply.receipt
            if reply.failed == "busy" and turned_away < MAX_BUSY_WAITS:
                turned_away += 1
                await self._edge.clock.sleep(backoff(turned_away, 1.0, self._edge.rng.below(1 << 20) / (1 << 20)))
                continue
            if reply.failed is not None:
                self._failed(reply, source, to)
                return None
            if not reply.after_s:
                raise ProtocolError(to.pin.name, "neither fetched an object, nor failed to, nor is about to")
            if self._edge.clock.monotonic() > until:
                self._give_up(source, to, "too slow")
                return None
            await self._edge.clock.sleep(min(reply.after_s, patience_s))

    def _failed(self, reply: PullReply, source: Link, to: Link) -> None:
        if reply.failed == "wrong bytes":
            # Whose fault it is shows when this machine reads the object there itself: a puller can say anything.
            self._federation.notices.append(
                f"{to.pin.name} says that {source.pin.name} gave other bytes than an object; it is read from here"
            )
        elif reply.failed == "unreachable":
            self._give_up(source, to, "no address of it may be dialled there, or none answers")
        # "busy", "refused" and "no room" are about this object or moment: the next may go.

    def _give_up(self, source: Link, to: Link, why: str) -> None:
        self._apart.add((source.identity, to.identity))
        said = f"{to.pin.name} cannot fetch from {source.pin.name} ({why}): copies go through this machine"
        if said not in self._federation.notices:
            self._federation.notices.append(said)
