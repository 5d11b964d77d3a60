"""Where a provider is reached, as people write it: HOST:PORT, and HOST:PORT/IDENTITY."""

import ipaddress
from collections.abc import Iterable

from replicator.errors import UsageError
from replicator.ids import Identity, parse_address_form

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


def parse_address(text: str) -> tuple[str, Identity | None]:
    """Return endpoint and pin of "host:port" or "host:port/PIN" (PIN: hex or base32 identity).

    Raises:
        UsageError: not such an address.
    """
    endpoint, _, pin = text.strip().partition("/")
    try:
        split_endpoint(endpoint)
    except ValueError as error:
        raise UsageError(str(error), hint="write a provider's address as example.org:7144") from error
    if not pin:
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
