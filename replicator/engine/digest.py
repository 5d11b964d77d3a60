"""What is marked for deletion at each provider: the digest that every node and keeper sees, whoever marked it."""

from collections.abc import Iterable
from dataclasses import dataclass

from replicator.engine.federation import Link
from replicator.errors import PeerError
from replicator.wire.messages import Marks, MarksRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletions:
    """Marked objects at one provider; ``first_ns`` is the day from which the first may go.

    ``swept`` bytes went in the last seven days, of ``budget`` that may. ``frozen_until_ns``: its clock leapt (0: no).
    """

    id: str
    name: str
    objects: int
    bytes: int
    first_ns: int
    swept: int
    budget: int
    frozen_until_ns: int


async def digest(links: Iterable[Link]) -> list[Deletions]:
    """Return what each provider that answers has marked or deleted lately; those with nothing to tell are left out.

    One that does not know marks yet, or has no charter, is one of those.
    """
    found = []
    for link in links:
        try:
            marks = await link.connection.call("marks", MarksRequest(after=b"", limit=1), Marks)
        except PeerError:
            continue
        if marks.count or marks.swept or marks.frozen_until_ns:
            found.append(
                Deletions(
                    id=link.identity.hex(),
                    name=link.pin.name,
                    objects=marks.count,
                    bytes=marks.size,
                    first_ns=marks.first_ns,
                    swept=marks.swept,
                    budget=marks.budget,
                    frozen_until_ns=marks.frozen_until_ns,
                )
            )
    return found
