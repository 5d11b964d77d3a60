"""Which addresses a provider dials because a tenant asked it to: none that lead into its own house.

A tenant names the source, so it chooses the address. Whoever speaks TLS there has to prove the source's key before
anything is asked; but a connection alone can tell what listens inside a network. So only addresses of the public
internet are dialled, and those that the operator named (a VPN among friends).

And whom an address that asks stands for, where strangers are counted: a household, not each of its addresses.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable

from replicator.endpoints import NOBODY, PUBLIC, parse_reach, split_endpoint

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

CUSTOMER_BITS = 56
"""What a household is given of IPv6, usually (RIPE-690): 256 networks."""
_INSIDE = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10")))
"""IPv6 that a gateway turns into IPv4, whose own address may be one of the house; and what was site-local once."""


class Reachable:
    """The operator's word: ``public``, networks in CIDR form, or ``nobody``.

    Raises:
        UsageError: a word that is none of these.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(dict.fromkeys(words))
        self._networks = parse_reach(self.words)

    def __bool__(self) -> bool:
        return bool(self.words) and NOBODY not in self.words

    def allows(self, text: str) -> bool:
        """Return whether an IP address may be dialled."""
        address: Address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._networks if network.version == address.version):
            return True
        if PUBLIC not in self.words or not address.is_global or address.is_multicast or address.is_reserved:
            return False
        return not any(address in network for network in _INSIDE)

    def addresses(self, endpoint: str, resolve: Resolve | None = None) -> list[tuple[str, int]]:
        """Return what may be dialled of "host:port": addresses, not names, which could mean another the next moment.

        Raises:
            OSError: the name is not known.
            ValueError: no endpoint.
        """
        host, port = split_endpoint(endpoint)
        return [(found, port) for found in (resolve or resolved)(host, port) if port and self.allows(found)]


def resolved(host: str, port: int) -> list[str]:
    """Return the addresses of a name, in the system's order, each once."""
    rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in rows))


def is_number(host: str) -> bool:
    """Return whether a host is written as an IP address."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def source_of(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the network of an IPv6 address that one customer is given.

    "" for what is none, which counts with all together alone.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return str(ipaddress.ip_network((found, CUSTOMER_BITS), strict=False))
        found = found.ipv4_mapped
    return str(found)
