"""What changed between two snapshots."""

from collections.abc import Callable

from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot, candidates
from replicator.errors import NotFoundError, UsageError
from replicator.format.tree import Entry
from replicator.ids import short
from replicator.snapshot.diff import Change, Summary, compare, top_pairs
from replicator.snapshot.tree import TreePath, TreeReader


async def diff(
    library: Library, old: OpenSnapshot, new: OpenSnapshot, text: str, take: Callable[[Change], None]
) -> Summary:
    """Hand each change at ``text`` and below it to ``take``, from a worker thread, and return how many there are.

    Raises:
        NotFoundError: neither snapshot has such a path, or a piece of a tree cannot be had.
        UsageError: the snapshots cannot be compared.
    """
    if old.snapshot.domain != new.snapshot.domain:
        raise UsageError(
            f"snapshots {short(old.row.name)} and {short(new.row.name)} lie in different domains",
            hint="equal contents have different names there; restore both and compare the files",
        )
    fetcher = ChunkFetcher(library, new.snapshot.domain)

    def work(reader: TreeReader) -> Summary:
        summary = Summary()
        before, after = _resolve(reader, old, text), _resolve(reader, new, text)
        if before is None or after is None:
            found = [one for one in (after, before) if one is not None]
            if not found:
                raise NotFoundError(f"neither snapshot has a path '{text}'")
            path = found[0][0]
            pairs = iter([(path, before and before[1], after and after[1])])
        elif not after[0]:
            pairs = top_pairs(reader, old.details.tree, new.details.tree)
        else:
            pairs = iter([(after[0], before[1], after[1])])
        for change in compare(reader, pairs):
            summary.count(change)
            take(change)
        return summary

    return await fetcher.in_thread(work)


def _resolve(reader: TreeReader, snapshot: OpenSnapshot, text: str) -> tuple[TreePath, Entry | None] | None:
    """Return where ``text`` is in a snapshot and what is there, None if nothing is; the top has no entry."""
    places = candidates(snapshot.details, text)
    if not places:
        return (), None
    for path in places:
        entry = reader.get(snapshot.details.tree, path)
        if entry is not None:
            return path, entry
    return None
