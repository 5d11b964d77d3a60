"""Who is out of reach with whom: a provider that others reach only through one machine falls with that machine.

By what each provider's own newest offer says; a provider that keeps quiet about it is believed.
"""

from contextlib import suppress
from dataclasses import dataclass

from replicator.endpoints import Way, parse_way
from replicator.engine.home import Half
from replicator.format.charter import PeerPin
from replicator.ids import Identity, short


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """A machine that passes others' connections on. ``falls``: the providers here that are out of reach without it."""

    identity: Identity
    name: str
    falls: frozenset[Identity]


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
    falls: dict[Identity, set[Identity]] = {}
    known: dict[Identity, Way] = {}
    for pin in half.peers:
        found = {way.relay: way for way in ways(half, pin)}
        for relay, way in found.items() if len(found) == 1 else ():
            if relay is not None:
                falls.setdefault(relay, set()).add(Identity(pin.identity))
                known[relay] = way
    here = {Identity(pin.identity) for pin in half.peers}
    for relay in falls.keys() & here:
        falls[relay].add(relay)
    made = [Relay(identity=one, name=_name(half, known[one]), falls=frozenset(falls[one])) for one in falls]
    return sorted(made, key=lambda one: (one.name, one.identity))


def fallen_with(half: Half, pin: PeerPin) -> list[str]:
    """Return the names of the other providers that are out of reach while this one is."""
    falls = {name for one in relays(half) if one.identity == pin.identity for name in one.falls}
    return [other.name for other in half.peers if other.identity != pin.identity and other.identity in falls]


def _name(half: Half, way: Way) -> str:
    """Return what a relay is called: its name if it is a provider here, else where it is."""
    assert way.relay is not None, "it is one"
    for pin in half.peers:
        if pin.identity == way.relay:
            return pin.name
    return f"{short(way.relay)} at {way.host}"
