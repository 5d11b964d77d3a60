"""What was stored at providers since this home last looked: the small objects that its catalog does not know.

How far it looked is kept in the catalog for each provider, and holds for one incarnation of its store and for what this
home could make of an object then: with other keys it may read what it could not, so it looks again from the first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from replicator.catalog.objects import split_ids
from replicator.clock import DAY_S, NS
from replicator.engine.asking import ask_all
from replicator.engine.federation import Federation, Link
from replicator.engine.home import Half
from replicator.errors import PeerError, ProtocolError, RefusedError
from replicator.ids import NAME_SIZE, Identity, ObjectName
from replicator.wire.messages import ARRIVALS_PAGE, Arrivals, ArrivalsRequest

MAX_PAGES: Final = 1000
"""Of one provider's answers in a run: twenty million objects."""
WHOLE_NS: Final = 7 * DAY_S * NS
"""After so long a home looks from the first again: a store that was put back together with its disk shows by nothing
else that its numbers begin anew, and would hide what came in between."""
_NUMBER: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What is new at one provider. ``place`` is how far it was looked through, as it is kept.

    ``whole_ns``: when it was looked through from the first.
    """

    names: tuple[ObjectName, ...]
    place: bytes
    whole_ns: int


async def arrivals(half: Half, federation: Federation, *, largest: int, able: bytes) -> dict[Identity, Arrived]:
    """Return for each provider that answers what came since :func:`remember_places`, of at most ``largest`` bytes.

    ``able`` is a hash of all that decides what this home makes of an object. A provider that does not answer is named
    in the notices: it may still give what a restore needs.
    """
    now_ns = federation.edge.clock.now_ns()
    found = await ask_all(federation.links.values(), lambda link: _arrived(half, link, able, largest, now_ns))
    federation.notices += [f"{error}{_hint(error)}" for error in found.failed.values()]
    return found.given


def _hint(error: PeerError) -> str:
    if isinstance(error, RefusedError) and error.code == "bad-request":
        return ": it cannot be asked yet what is new there; update it"
    return ""


def remember_places(half: Half, arrived: Mapping[Identity, Arrived], *, but: Iterable[Identity]) -> None:
    """Keep how far was looked at each provider; ``but`` where something could not be: it is told again."""
    moved = {
        key: value
        for identity, one in arrived.items()
        if identity not in set(but)
        for key, value in ((_meta(identity), one.place), (_whole(identity), _kept(one.whole_ns)))
        if half.catalog.meta(key) != value
    }
    if moved:  # a look that shows nothing new costs no commit
        with half.catalog.database.transaction("arrival rows"):
            for key, place in moved.items():
                half.catalog.set_meta(key, place)


async def _arrived(half: Half, link: Link, able: bytes, largest: int, now_ns: int) -> Arrived:
    life = link.info.incarnation + able
    after = _number(half.catalog.meta(_meta(link.identity)), life)
    whole_ns = _number(half.catalog.meta(_whole(link.identity)), b"")
    if not after or abs(now_ns - whole_ns) >= WHOLE_NS:
        after, whole_ns = 0, now_ns
    unknown: list[bytes] = []
    for _ in range(MAX_PAGES):
        request = ArrivalsRequest(after=after, largest=largest, limit=ARRIVALS_PAGE)
        page = await link.connection.call("arrivals", request, Arrivals)
        if page.incarnation != link.info.incarnation:
            raise ProtocolError(link.pin.name, "its store became another one while it was asked")
        if page.last < after:  # it was put back together with the disk, and says so by this alone
            after, unknown, whole_ns = 0, [], now_ns
            continue
        names = split_ids(page.names)
        if len(page.names) % NAME_SIZE or len(names) > page.last - after or (page.more and page.last == after):
            raise ProtocolError(link.pin.name, "what it says of arrivals does not add up")
        unknown += half.catalog.objects.unknown(names)
        after = page.last
        if not page.more:
            return Arrived(
                names=tuple(ObjectName(name) for name in sorted(set(unknown))),
                place=life + _kept(after),
                whole_ns=whole_ns,
            )
    raise ProtocolError(link.pin.name, "its list of what arrived has no end")


def _number(kept: bytes | None, life: bytes) -> int:
    """Return how far was looked in this life of the store."""
    if kept is None or kept[:-_NUMBER] != life:
        return 0
    return int.from_bytes(kept[-_NUMBER:], "big")


def _kept(number: int) -> bytes:
    return number.to_bytes(_NUMBER, "big")


def _whole(identity: Identity) -> str:
    return f"arrivals whole {identity.hex()}"


def _meta(identity: Identity) -> str:
    return f"arrivals {identity.hex()}"
