"""What is marked for deletion at each provider: the digest that every node and keeper sees, whoever marked it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from replicator.engine.asking import ask_all
from replicator.engine.federation import Federation, Link
from replicator.engine.home import Half
from replicator.errors import RefusedError
from replicator.format.charter import Floors
from replicator.wire.messages import Marks, MarksRequest

WHOLE: Final = 100
"""A budget of so many percent is none."""
_HEARD: Final = "deletions heard"
"""A budget of so many percent is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletions:
    """Marked objects at one provider; ``first_ns`` is the day from which the first may go.

    ``swept`` bytes went in the last seven days, of ``budget`` that may. ``frozen_until_ns``: its clock leapt (0: no).
    ``unbraked`` names the brakes on deletions that are off there, by root's word and the provider's: for tests.
    """

    id: str
    name: str
    objects: int
    bytes: int
    first_ns: int
    swept: int
    budget: int
    frozen_until_ns: int
    unbraked: list[str] = field(default_factory=list)


async def digest(federation: Federation, floors: Floors) -> list[Deletions]:
    """Return what each provider that answers has marked or deleted lately; those with nothing to tell are left out.

    One that has no charter yet, under which alone it takes marks, is one of those. Who does not answer is named in
    the notices.
    """
    request = MarksRequest(after=b"", limit=1)
    asked = await ask_all(federation.links.values(), lambda link: link.connection.call("marks", request, Marks))
    federation.notices += [
        f"what is marked for deletion there is not known: {error}"
        for error in asked.failed.values()
        if not (isinstance(error, RefusedError) and error.code == "forbidden")
    ]
    found = []
    for identity, marks in asked.given.items():
        link = federation.links[identity]
        unbraked = _unbraked(floors, link)
        if marks.count or marks.swept or marks.frozen_until_ns or unbraked:
            found.append(
                Deletions(
                    id=identity.hex(),
                    name=link.pin.name,
                    objects=marks.count,
                    bytes=marks.size,
                    first_ns=marks.first_ns,
                    swept=marks.swept,
                    budget=marks.budget,
                    frozen_until_ns=marks.frozen_until_ns,
                    unbraked=unbraked,
                )
            )
    return found


class _Heard(msgspec.Struct, frozen=True):
    heard_ns: int
    rows: list[Deletions]


def remember_deletions(half: Half, found: Iterable[Deletions], now_ns: int) -> None:
    """Keep what was heard, for those who ask nobody."""
    half.catalog.set_meta(_HEARD, msgspec.msgpack.encode(_Heard(heard_ns=now_ns, rows=list(found))))


def heard_deletions(half: Half) -> tuple[int, list[Deletions]]:
    """Return when it was last asked what is marked, and what was; 0 if never, or if a later release kept it."""
    kept = half.catalog.meta(_HEARD)
    if kept is None:
        return 0, []
    try:
        heard = msgspec.msgpack.decode(kept, type=_Heard)
    except msgspec.MsgspecError:
        return 0, []
    return heard.heard_ns, heard.rows


def _unbraked(floors: Floors, link: Link) -> list[str]:
    off = [
        word
        for word, floor, offered in (
            ("grace", floors.grace_s, link.offer.grace_s),
            ("lock", floors.lock_s, link.offer.lock_s),
        )
        if not max(floor, offered)
    ]
    return [*off, "budget"] if floors.delete_budget_percent >= WHOLE else off
