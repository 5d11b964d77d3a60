"""Asking others to dial this provider back, and what their answers mean for who has to open something."""

import contextlib
import copy
import socket
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from replicator.cli.base import Session, wait
from replicator.cli.output import Alarm
from replicator.crypto.sign import SigningKey
from replicator.endpoints import parse_address, parse_way
from replicator.engine.federation import Federation
from replicator.engine.home import Half, has_half
from replicator.errors import NotFoundError, PeerError, RefusedError, UnreachableError, UsageError
from replicator.ids import Identity
from replicator.transport.base import Target
from replicator.transport.client import TlsNetwork
from replicator.transport.reachable import Reachable, Resolve, is_number, resolved
from replicator.wire.messages import PULLS_VERSION, Offers, OffersRequest, ProbeReply, Signed

MOST_ASKED = 3
_EVERYWHERE = Reachable(["public"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one peer found, or why it could not be asked."""

    name: str
    reply: ProbeReply | None
    problem: str = ""


def ask(session: Session, key: SigningKey, offer: bytes, peer: str | None, tenant_home: str | None) -> list[Asked]:
    """Ask a peer of the tenant, or the provider at an address; without either the first peers that answer.

    ``tenant_home``: where the tenant's half is, if not beside the provider.

    Raises:
        UsageError: there is nobody to ask.
        PeerError: nobody answered.
    """
    if peer is not None and "/" in peer:
        endpoint, identity = parse_address(peer)
        assert identity is not None, "there is something behind the /"
        target = Target(identity=identity, name=endpoint, endpoints=(endpoint,), key=key, certificate=None)
        asked = [wait(_asked(target, offer))]
    else:
        if tenant_home is not None:
            session = copy.copy(session)
            session.home_option = tenant_home
        if not any(has_half(session.home, role) for role in ("node", "keeper", "drill", "maintainer")):
            raise UsageError(
                f"{session.home} is of no tenant whose peers could be asked",
                hint="name the home of your keeper or node with --tenant-home, or HOST:PORT/IDENTITY of a provider",
            )
        with session.edge() as edge, session.member() as half:
            if peer is not None:
                half.peer(peer)  # its error says which there are
            asked = wait(_ask_peers(Federation(half, edge), half, key, offer, peer))
    if not any(one.reply for one in asked):
        raise UnreachableError("nobody dialled back", "; ".join(f"{one.name}: {one.problem}" for one in asked))
    return asked


async def _ask_peers(
    federation: Federation, half: Half, key: SigningKey, offer: bytes, peer: str | None
) -> list[Asked]:
    asked: list[Asked] = []
    async with federation:
        wanted = [pin for pin in half.peers if pin.name == peer or (peer is None and pin.identity != key.identity)]
        for pin in wanted:
            link = federation.links.get(Identity(pin.identity))
            if link is None or PULLS_VERSION not in link.info.wire:
                error = federation.failures.get(Identity(pin.identity))
                asked.append(Asked(name=pin.name, reply=None, problem=str(error or "is of an earlier release")))
                continue
            # It dials back only whom it knows, and knows who is told of by a tenant.
            with contextlib.suppress(RefusedError):
                await link.connection.call("offers", OffersRequest(known=[], offers=[offer]), Offers)
            endpoint = link.connection.endpoint
            target = Target(identity=link.identity, name=pin.name, endpoints=(endpoint,), key=key, certificate=None)
            asked.append(await _asked(target, offer))
            if sum(one.reply is not None for one in asked) >= (1 if peer else MOST_ASKED):
                break
    if not wanted:
        raise NotFoundError("this tenant has no peer that could be asked", hint="`peer add` one, or name an address")
    return asked


async def _asked(target: Target, offer: bytes) -> Asked:
    try:
        reply = await TlsNetwork().ask(target, "probe", Signed(statement=offer), ProbeReply)
    except RefusedError as error:
        known = {
            "bad-request": "is of an earlier release, which does not dial back",
            "not-found": "does not know this provider: none of its tenants uses both (ask with --tenant-home)",
            "forbidden": "dials nobody, by its operator's word",
        }
        return Asked(name=target.name, reply=None, problem=known.get(error.code, error.reason))
    except PeerError as error:
        return Asked(name=target.name, reply=None, problem=error.reason)
    return Asked(name=target.name, reply=reply)


def in_words(
    asked: list[Asked], endpoints: list[str], listen: str, resolve: Resolve = resolved
) -> tuple[dict[str, Any], list[str], bool]:
    """Return a document, lines for people, and whether every endpoint answers with the right key to somebody.

    ``listen`` is where this provider listens, ``resolve`` what this machine knows of names.
    """
    rows, lines, good = [], [], True
    for endpoint in endpoints:
        found = [
            (one.name, probed.family, probed.answer)
            for one in asked
            if one.reply is not None
            for probed in one.reply.probed
            if probed.endpoint == endpoint
        ]
        answers = {answer for _, _, answer in found}
        families = sorted({family for _, family, answer in found if answer == "your key"})
        rows.append({"id": endpoint, "open": "your key" in answers, "families": families, "answers": sorted(answers)})
        if "your key" in answers:
            lines.append(f"{endpoint}: open, with your key ({_families(endpoint, families)})")
            closed = sorted({family for _, family, answer in found if answer != "your key" and family})
            lines += [f"  but not over IPv{family}: {_advice(endpoint, listen, family, resolve)}" for family in closed]
        else:
            good = False
            lines.append(Alarm(f"{endpoint}: {_closed(endpoint, answers, listen, resolve)}"))
    lines += [f"{one.name} could not be asked: {one.problem}" for one in asked if one.reply is None]
    # Another one's word: what has lines of its own is none.
    words = {one.reply.seen for one in asked if one.reply is not None}
    seen = sorted(one for one in words if one and one.isprintable())
    if seen:
        lines.append(f"This machine was seen as {', '.join(seen)}: that is your router's address, or your own.")
    names = [one.name for one in asked if one.reply is not None]
    return {"id": ", ".join(names), "asked": names, "seen": seen, "endpoints": rows}, lines, good


def _families(endpoint: str, families: Sequence[int]) -> str:
    how = " and ".join(f"IPv{family}" for family in families)
    return f"through a relay, {how}" if parse_way(endpoint).relay is not None else how


def _closed(endpoint: str, answers: AbstractSet[str], listen: str, resolve: Resolve) -> str:
    way = parse_way(endpoint)
    if not answers:
        return "was not dialled"
    if "private" in answers:
        return (
            "a number of a private network: nobody outside can dial it. Advertise your public address or a name "
            "(`provider set --advertise`); or, for a VPN, its operator allows the network with --pull-from"
        )
    if "another key" in answers:
        if way.relay is not None:
            return "the relay answered itself: it is of an earlier release, or passes nothing on to anybody"
        return "another provider answers there: the address is somebody else's now, or the router forwards elsewhere"
    if way.relay is not None:
        return (
            "nothing comes through the relay: is `provider serve` running, and does the relay's --relay-for name you?"
        )
    return f"nothing answers. {_advice(endpoint, listen, 0, resolve)}"


def _advice(endpoint: str, listen: str, family: int, resolve: Resolve) -> str:
    way = parse_way(endpoint)
    if not is_number(way.host):
        try:
            addresses = resolve(way.host, way.port)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, socket.gaierror) else error
            return f"its name is not known ({reason}): set a DNS record for {way.host}"
        outside = [one for one in addresses if _EVERYWHERE.allows(one)]
        if not outside:
            return f"its name leads to {', '.join(addresses)}, which is no public address: correct its DNS record"
        if family == 6:
            return "allow the port in the router's IPv6 firewall, or take the AAAA record away"
    port = parse_way(listen).port
    return (
        f"Have the router forward TCP {way.port} to this machine's port {port}, allow {port} in its firewall, and see "
        "that `provider serve` runs; a line without an address of its own (CGNAT) needs --via"
    )
