"""Where a provider is reached, as people write it: HOST:PORT, HOST:PORT/IDENTITY, and via:RELAY@HOST:PORT."""

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from replicator.errors import UsageError
from replicator.ids import Identity, address_form, parse_address_form

VIA = "via:"
RELAYED = ".via.replicator.invalid"
PUBLIC = "public"
NOBODY = "nobody"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[v6]:port".

    Raises:
        ValueError: not such an endpoint.
    """
    host, colon, port = endpoint.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"'{endpoint}': write an IPv6 address as [address]:port")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"'{endpoint}' is not HOST:PORT")
    return host, int(port)


def join_endpoint(host: str, port: int) -> str:
    """Return the endpoint that :func:`split_endpoint` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Way:
    """Where to knock. ``relay``: whose door it is, if that one only passes the connection on."""

    host: str
    port: int
    relay: Identity | None = None

    def server_name(self, identity: Identity) -> str | None:
        """Return the name to ask for there, so that a relay knows who is meant; None where the provider itself is."""
        return None if self.relay is None else relayed_name(identity)


def parse_way(endpoint: str) -> Way:
    """Return what an endpoint of an offer means: "host:port", or "via:IDENTITY@host:port" of a relay.

    Raises:
        ValueError: neither.
    """
    if not endpoint.startswith(VIA):
        return Way(*split_endpoint(endpoint))
    relay, at, rest = endpoint[len(VIA) :].partition("@")
    try:
        return Way(*split_endpoint(rest if at else endpoint), parse_address_form(relay))
    except ValueError as error:
        raise ValueError(f"'{endpoint}' is not via:IDENTITY@HOST:PORT ({error})") from error


def direct(endpoints: Iterable[str]) -> list[str]:
    """Return those that are of a provider itself and of no relay, without what a later release may mean by others."""
    found = []
    for endpoint in endpoints:
        with suppress(ValueError):
            if parse_way(endpoint).relay is None:
                found.append(endpoint)
    return found


def via(relay: Identity, endpoint: str) -> str:
    """Return the endpoint of who is reached through a relay that answers at "host:port"."""
    return f"{VIA}{address_form(relay)}@{endpoint}"


def relayed_name(identity: Identity) -> str:
    """Return the TLS server name under which a relay is asked for a provider: no name that DNS could ever give out."""
    return f"{address_form(identity)}{RELAYED}"


def relayed_identity(name: str) -> Identity | None:
    """Return whom such a name means; None for any other."""
    label, found, rest = name.lower().partition(RELAYED)
    if not found or rest:
        return None
    try:
        return parse_address_form(label)
    except ValueError:
        return None


def parse_address(text: str) -> tuple[str, Identity | None]:
    """Return endpoint and pin of "host:port" or "host:port/PIN" (PIN: hex or base32 identity); of "via:..." likewise.

    Raises:
        UsageError: not such an address.
    """
    endpoint, _, pin = text.strip().partition("/")
    try:
        way = parse_way(endpoint)
    except ValueError as error:
        raise UsageError(str(error), hint="write a provider's address as example.org:7144") from error
    if not pin:
        if way.relay is not None:
            raise UsageError(
                f"'{endpoint}' is a relay's, and does not say whom it shall pass on to",
                hint="write via:RELAY@HOST:PORT/IDENTITY, with the identity of the provider that is meant",
            )
        return endpoint, None
    return endpoint, parse_identity(pin)


def parse_identity(text: str) -> Identity:
    """Return an identity written in hex or base32.

    Raises:
        UsageError: not one.
    """
    try:
        return Identity(bytes.fromhex(text)) if len(text) == 64 else parse_address_form(text)
    except ValueError as error:
        raise UsageError(
            f"'{text}' is not a provider's identity ({error})", hint="copy all of it, or leave it out with its /"
        ) from error


def parse_reach(words: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks among words that say what may be dialled: "public", networks in CIDR form, or "nobody" alone.

    Raises:
        UsageError: a word that is none of these.
    """
    said = set(words)
    networks: list[Network] = []
    for word in sorted(said - {PUBLIC, NOBODY}):
        try:
            networks.append(ipaddress.ip_network(word))
        except ValueError as error:
            raise UsageError(
                f"'{word}' is no network ({error})", hint="write public, nobody, or a network such as 10.8.0.0/24"
            ) from error
    if NOBODY in said and len(said) > 1:
        raise UsageError("nobody, and others: which is it?", hint="give `nobody` alone")
    return tuple(networks)
