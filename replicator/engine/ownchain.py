"""A node's own chain: where it ends, and whether somebody else has gone on with it."""

from replicator.charter.chain import Link, kept_head
from replicator.engine.federation import Federation
from replicator.engine.heads import KnownHead, report
from replicator.engine.home import Half
from replicator.engine.memory import Memory
from replicator.format.finding import Statement

_ADOPTED = "chain adopted"


def chain_end(half: Half) -> Link | None:
    """Return the head after which this node's next one goes, as far as this home knows; None before the first.

    It may be one whose snapshot cannot be read here, or one that nobody has heard of yet.
    """
    witnessed = Memory(half).newest_witnessed(half.identity)
    return max([*_own_links(half), *([witnessed] if witnessed is not None else [])], key=_number, default=None)


def note_continued(half: Half, federation: Federation, known: KnownHead) -> None:
    """Keep that somebody wrote on in our chain, if peers know more of it than this home: before that is adopted.

    As a rule it was this home, before it was put back to an earlier state. One that adopted once, published, and finds
    its chain gone on with again has another explanation: two machines take turns.
    """
    end = max(_own_links(half), key=_number, default=None)
    if known.head.number <= (0 if end is None else end.number):
        return
    last = int.from_bytes(half.catalog.meta(_ADOPTED) or b"", "big")
    wrote = half.catalog.snapshots.all(
        "writer = ? AND number > ? AND published_ns != 0 AND dataset != ''", (half.identity, last)
    )
    report(
        *(half, federation, "interleaved" if last and wrote else "continued"),
        writer=half.identity,
        number=known.head.number,
        statements=[
            *([end.statement] if end is not None else []),
            Statement(context="head", signed=known.signed),
        ],
    )
    half.catalog.set_meta(_ADOPTED, known.head.number.to_bytes(8, "big"))


def _own_links(half: Half) -> list[Link]:
    """Return the heads of the snapshots of this node that are in its catalog."""
    rows = half.catalog.snapshots.all("writer = ? AND head != x''", (half.identity,))
    return [kept_head(row.head) for row in rows]


def _number(link: Link) -> int:
    return link.number
