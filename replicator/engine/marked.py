"""What is marked at providers, and taking marks off: by having them read what is marked, and vouch for it."""

from collections.abc import Collection, Sequence
from typing import Final

from replicator.engine.federation import Federation, Link
from replicator.errors import PeerError, RefusedError
from replicator.wire.messages import MAX_CHECKS, Marks, MarksRequest, Outstanding, VouchReply, VouchRequest

MARKS_PAGE: Final = 10_000


async def outstanding(link: Link) -> list[Outstanding]:
    """Return everything that is marked at a provider, with the time at which it may go at the earliest.

    Raises:
        PeerError: it does not answer, or knows no marks.
    """
    found: list[Outstanding] = []
    after = b""
    while True:
        page = await link.connection.call("marks", MarksRequest(after=after, limit=MARKS_PAGE), Marks)
        found += page.marks
        if not page.more or not page.marks:
            return found
        after = page.marks[-1].name


async def take_back(federation: Federation, names: Collection[bytes], *, due_by_ns: int = 0) -> int:
    """Have providers read what is marked as dead of some objects, and take the marks off; return how many they took.

    Also of all others that may be deleted by ``due_by_ns``. What was deleted already, or is damaged, stays as it is; so
    does what was released and is not due, as other copies are there.
    """
    count = 0
    for link in list(federation.links.values()):
        try:
            wanted = sorted(
                one.name
                for one in await outstanding(link)
                if (one.why == "dead" and one.name in names) or one.due_ns <= due_by_ns
            )
            count += len(await vouch(link, wanted))
        except RefusedError as error:
            federation.notices.append(str(error))
        except PeerError as error:
            await federation.drop(link, error)
    return count


async def vouch(link: Link, names: Sequence[bytes]) -> dict[bytes, bytes]:
    """Have a provider read objects whole, and take marks off; return its fresh receipts for those that are intact.

    They are as it signed them: to be checked by who counts on them.

    Raises:
        PeerError: it does not answer, or may not be asked that.
    """
    found: dict[bytes, bytes] = {}
    for at in range(0, len(names), MAX_CHECKS):
        part = names[at : at + MAX_CHECKS]
        reply = await link.connection.call("vouch", VouchRequest(names=b"".join(part)), VouchReply)
        found.update((name, receipt) for name, receipt in zip(part, reply.receipts, strict=False) if receipt)
    return found
