"""The address part of the recovery sheet: where providers are, as it was last printed, and whether any of it lives."""

import json
from dataclasses import dataclass
from typing import Final

from replicator.engine.federation import Federation
from replicator.engine.home import Half
from replicator.fs import write_atomic
from replicator.ids import Identity, address_form

PRINTED_FILE: Final = "printed.json"
PRINT: Final = "`replicator key sheet --addresses` prints the address part of the recovery sheet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where one provider is: ``endpoint`` is "host:port"."""

    name: str
    endpoint: str
    identity: Identity

    @property
    def line(self) -> str:
        """What `recover --peer` takes."""
        return f"{self.endpoint}/{address_form(self.identity)}"


def addresses_of(half: Half) -> list[Address]:
    """Return where each provider of the charter was last heard of, one line for each."""
    return [
        Address(name=pin.name, endpoint=_endpoints(half, Identity(pin.identity))[0], identity=Identity(pin.identity))
        for pin in half.peers
        if _endpoints(half, Identity(pin.identity))
    ]


def _endpoints(half: Half, identity: Identity) -> list[str]:
    pinned = [endpoint for pin in half.peers if pin.identity == identity for endpoint in pin.endpoints]
    return list(dict.fromkeys((*half.catalog.peers.get(identity).endpoints, *pinned)))


def remember_printed(half: Half, addresses: list[Address], now_ns: int) -> None:
    """Keep what stands on paper now."""
    rows = [{"name": one.name, "endpoint": one.endpoint, "identity": one.identity.hex()} for one in addresses]
    write_atomic(half.fs, half.file(PRINTED_FILE), json.dumps({"printed_ns": now_ns, "addresses": rows}).encode())


def last_printed(half: Half) -> list[Address] | None:
    """Return what was last printed from this home, None if nothing ever was or it cannot be read any more."""
    if half.fs.size(half.file(PRINTED_FILE)) is None:
        return None
    try:
        rows = json.loads(half.fs.read(half.file(PRINTED_FILE)))["addresses"]
        return [
            Address(
                name=str(row["name"]),
                endpoint=str(row["endpoint"]),
                identity=Identity(bytes.fromhex(row["identity"])),
            )
            for row in rows
        ]
    except (ValueError, TypeError, KeyError):
        return None


def address_advice(keeper: Half, federation: Federation, *, asked: bool) -> list[str]:
    """Return what is to be said of the printed addresses; nothing if one lives.

    One lives if its provider is in the charter, is found under that address still, and answers. When nobody answers
    at all, this machine may be the one that is cut off: then answers are not asked for.
    """
    if not keeper.peers:
        return []
    printed = last_printed(keeper)
    if printed is None:
        return [f"no address of a provider was printed from here yet: {PRINT}"]
    pinned = {pin.identity for pin in keeper.peers}
    living = [
        one
        for one in printed
        if one.identity in pinned
        and one.endpoint in _endpoints(keeper, one.identity)
        and (not asked or not federation.links or one.identity in federation.links)
    ]
    if living:
        return []
    return [f"no address on the recovery sheet lives any more, so the sheet alone finds nothing: {PRINT} anew"]
