"""Who is out of reach with whom: a provider that others reach only through one machine falls with that machine.

By what each provider's own newest offer says; a provider that keeps quiet about it is believed.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from replicator.catalog.objects import ObjectRow
from replicator.endpoints import Way, parse_way
from replicator.engine.home import Half
from replicator.engine.placing import Ground, pack_id, peer_id
from replicator.format.charter import PeerPin
from replicator.ids import Identity, short
from scheduler import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """A machine that passes others' connections on. ``falls``: the providers here that are out of reach without it."""

    identity: Identity
    name: str
    falls: frozenset[PeerId]


def ways(half: Half, pin: PeerPin) -> list[Way]:
    """Return where a provider is by its newest offer, or by the charter while none was heard."""
    found = []
    for endpoint in half.catalog.peers.get(Identity(pin.identity)).endpoints or pin.endpoints:
        with suppress(ValueError):  # a way that a later release knows
            found.append(parse_way(endpoint))
    return found


def behind(half: Half, pin: PeerPin) -> list[str]:
    """Return the names of the relays, one of which it takes to reach a provider; empty if it is dialled itself."""
    found = {way.relay: way for way in ways(half, pin)}
    return [] if None in found else sorted(_name(half, way) for way in found.values())


def relays(half: Half) -> list[Relay]:
    """Return the relays that some provider falls with, by name."""
    falls: dict[Identity, set[PeerId]] = {}
    known: dict[Identity, Way] = {}
    for pin in half.peers:
        found = {way.relay: way for way in ways(half, pin)}
        for relay, way in found.items() if len(found) == 1 else ():
            if relay is not None:
                falls.setdefault(relay, set()).add(peer_id(pin.identity))
                known[relay] = way
    here = {Identity(pin.identity) for pin in half.peers}
    for relay in falls.keys() & here:
        falls[relay].add(peer_id(relay))
    made = [Relay(identity=one, name=_name(half, known[one]), falls=frozenset(falls[one])) for one in falls]
    return sorted(made, key=lambda one: (one.name, one.identity))


def fallen_with(half: Half, pin: PeerPin) -> list[str]:
    """Return the names of the other providers that are out of reach while this one is."""
    falls = {name for one in relays(half) if one.identity == pin.identity for name in one.falls}
    return [other.name for other in half.peers if other.identity != pin.identity and peer_id(other.identity) in falls]


def hanging(found: Sequence[Relay], ground: Ground, rows: Iterable[ObjectRow]) -> list[Relay]:
    """Return the relays without which some of these objects, that can be read now, could not be."""
    if not found:
        return []
    rows = list(rows)
    counted = ground.counted(rows)
    each = set()
    for row in rows:
        shards = ground.shards(row)
        each.add((frozenset(counted[pack_id(row.name)]), 1 if shards is None else shards.needed))
    return [relay for relay in found if any(_hangs(relay, holders, needed) for holders, needed in each)]


def _hangs(relay: Relay, holders: frozenset[PeerId], needed: int) -> bool:
    """Return whether what ``needed`` of these give back waits for a relay, and not for what lies at that alone."""
    behind_it = (holders & relay.falls) - {peer_id(relay.identity)}
    return bool(behind_it) and len(holders - relay.falls) < needed <= len(holders)


def _name(half: Half, way: Way) -> str:
    """Return what a relay is called: its name if it is a provider here, else where it is."""
    assert way.relay is not None, "it is one"
    for pin in half.peers:
        if pin.identity == way.relay:
            return pin.name
    return f"{short(way.relay)} at {way.host}"
