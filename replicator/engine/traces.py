"""Erasing a path: which snapshots hold it, what is lost with them, and from when on nobody has it any more.

A snapshot is signed by the node that wrote it and cannot be changed by anybody else, so the path goes with every
snapshot that holds it, whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from replicator.clock import NS
from replicator.engine import retain
from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot, candidates, label_of, newest_of_each
from replicator.engine.edge import Edge
from replicator.engine.forgetting import Forgotten
from replicator.engine.home import Half
from replicator.engine.naming import check_dataset
from replicator.engine.retain import Judged
from replicator.errors import FormatError, IntegrityError, NotFoundError
from replicator.format.forget import KeptChain
from replicator.snapshot.tree import TreeReader, escape


@dataclass(slots=True, kw_only=True)
class Traces:
    """What was found of some paths in one dataset's snapshots.

    ``holding`` are those with any of them, oldest first; ``newest`` of these the newest of their node, in which the
    next backup would find it again; ``gone`` were forgotten before and may still lie at providers; ``unread`` could not
    be looked through. ``until_ns``: no provider may delete what only they need before this, counted from now.
    """

    dataset: str
    paths: list[str]
    holding: list[OpenSnapshot] = field(default_factory=list)
    newest: list[OpenSnapshot] = field(default_factory=list)
    gone: list[OpenSnapshot] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    until_ns: int = 0


async def find_traces(library: Library, edge: Edge, dataset: str, paths: Sequence[str]) -> Traces:
    """Look for paths in every snapshot of a dataset, forgotten ones too. Names are as :func:`find_path` takes them.

    Raises:
        NotFoundError: there is no such dataset, or none of its snapshots holds one of the paths.
        UsageError: a path has ".." in it.
    """
    found = await library.snapshots()
    check_dataset([label_of(one) for one in found], dataset)
    wanted = [one for one in found if one.details.dataset == dataset]
    forgotten = [one for one in await library.snapshots(forgotten=True) if one.details.dataset == dataset]
    traces = Traces(dataset=dataset, paths=list(paths))
    met: set[str] = set()
    edge.progress.stage("looking into snapshots", len(wanted) + len(forgotten), "snapshots")
    for one in (*wanted, *forgotten):
        edge.progress.advance(1)
        try:
            here = await _paths_in(library, one, paths)
        except (NotFoundError, IntegrityError, FormatError) as error:
            traces.unread.append(f"snapshot {one.id[:12]} cannot be looked through: {error}")
            continue
        met |= here
        if here:
            (traces.holding if one in wanted else traces.gone).append(one)
    missing = [path for path in paths if path not in met]
    if missing and not traces.unread:
        shown = ", ".join(f"'{escape(path.encode(errors='surrogateescape'))}'" for path in missing)
        raise NotFoundError(f"no snapshot of '{dataset}' holds {shown}", hint="`replicator find` looks everywhere")
    last = {one.id for one in newest_of_each(wanted)}
    traces.newest = [one for one in traces.holding if one.id in last]
    traces.until_ns = edge.clock.now_ns() + _longest_wait_s(library) * NS
    return traces


def supposed_after(half: Half, traces: Traces) -> list[KeptChain]:
    """Return the chains as they will be when the snapshots are forgotten that hold the paths: for a plan to prune."""
    return retain.chains_after(half, Forgotten.of(half), {one.row.name for one in traces.holding}, undo=False)


async def forget_traces(library: Library, edge: Edge, traces: Traces) -> list[Judged]:
    """Forget every snapshot that holds the paths, also the last good one and those tagged to be kept.

    Raises:
        KeyMissingError, KeyWrongError, MinimumNotMetError: as forgetting does.
    """
    if not traces.holding:
        return []
    judged = await retain.by_name(library, edge, [one.id for one in traces.holding], even_last=True)
    await retain.forget(library, edge, library.keeper.maintenance, judged, undo=False)
    return judged


async def _paths_in(library: Library, snapshot: OpenSnapshot, paths: Sequence[str]) -> set[str]:
    """Return which of the paths a snapshot has, under any of the names that they can mean."""
    fetcher = ChunkFetcher(library, snapshot.snapshot.domain)

    def look(reader: TreeReader) -> set[str]:
        return {
            path
            for path in paths
            if any(reader.get(snapshot.details.tree, one) is not None for one in candidates(snapshot.details, path))
        }

    return await fetcher.in_thread(look)


def _longest_wait_s(library: Library) -> int:
    """Return how long any provider holds on to what nothing claims and maintenance marks, both from now on."""
    floors = library.keeper.charter.root.floors
    offers = [link.offer for link in library.federation.links.values()]
    return max(floors.lock_s, floors.grace_s, *(wait for one in offers for wait in (one.lock_s, one.grace_s)))
