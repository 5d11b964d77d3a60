"""A node's own chain: where it ends, and whether somebody else has gone on with it."""

from replicator.catalog.catalog import ADOPTED
from replicator.charter.chain import Link, kept_head
from replicator.engine.federation import Federation
from replicator.engine.heads import KnownHead, report
from replicator.engine.home import Half
from replicator.engine.memory import Memory
from replicator.format.finding import Statement


def chain_end(half: Half) -> Link | None:
    """Return the head after which this node's next one goes, as far as this home knows; None before the first.

    It may be one whose snapshot cannot be read here, or one that nobody has heard of yet.
    """
    witnessed = Memory(half).newest_witnessed(half.identity)
    ends = [link for link in (_own_end(half), witnessed) if link is not None]
    return max(ends, key=lambda link: link.number, default=None)


def note_continued(half: Half, federation: Federation, known: KnownHead) -> None:
    """Keep that somebody wrote on in our chain, if peers know more of it than this home: before that is adopted.

    As a rule it was this home, before it was put back to an earlier state. One that adopted once, published, and finds
    its chain gone on with again has another explanation: two machines take turns.
    """
    end = _own_end(half)
    if known.head.number <= (0 if end is None else end.number):
        return
    last = int.from_bytes(half.catalog.meta(ADOPTED) or b"", "big")
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
    half.catalog.set_meta(ADOPTED, known.head.number.to_bytes(8, "big"))


def _own_end(half: Half) -> Link | None:
    """Return the newest head among the snapshots of this node that are in its catalog."""
    row = half.catalog.snapshots.newest("writer = ? AND head != x''", (half.identity,))
    return None if row is None else kept_head(row.head)
