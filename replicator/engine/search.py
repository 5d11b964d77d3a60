"""Looking through many snapshots: which belong together, and what in them matches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot, label_of
from replicator.engine.edge import Edge
from replicator.engine.naming import check_dataset, choose
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError, UsageError
from replicator.format.snapshot import SnapshotDetails
from replicator.snapshot.search import Criteria, Matches, Searcher
from replicator.snapshot.tree import TreePath, TreeReader
from replicator.snapshot.versions import Version

Trouble = list[tuple[OpenSnapshot, ReplicatorError]]
"""Snapshots of which something could not be read, and why."""
UNREADABLE = (NotFoundError, IntegrityError, FormatError)
"""What one snapshot may raise without ending a look at many: nobody has a piece of it, or it is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The snapshots of one dataset by one node in one domain, oldest first: versions of the same files."""

    domain: bytes
    snapshots: tuple[OpenSnapshot, ...]


def series_of(found: Sequence[OpenSnapshot]) -> list[Series]:
    """Return snapshots, which come oldest first, as series, by dataset and node."""
    groups: dict[tuple[str, bytes, bytes], list[OpenSnapshot]] = {}
    for one in found:
        groups.setdefault((one.details.dataset, one.snapshot.writer, one.snapshot.domain), []).append(one)
    return [Series(domain=key[2], snapshots=tuple(groups[key])) for key in sorted(groups)]


async def select(library: Library, *, snapshot: str | None = None, dataset: str | None = None) -> list[OpenSnapshot]:
    """Return one snapshot, those of a dataset, or all of them.

    Raises:
        NotFoundError: there is none of that name.
        UsageError: both are given.
    """
    if snapshot is not None and dataset is not None:
        raise UsageError("a snapshot and a dataset are given", hint="give one of --snapshot and --dataset")
    found = await library.snapshots()
    labels = [label_of(one) for one in found]
    if snapshot is not None:
        return [found[choose(labels, snapshot)]]
    if dataset is None:
        return found
    check_dataset(labels, dataset)
    return [one for one in found if one.details.dataset == dataset]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An entry, and the first and the last snapshot that it is in, and how many those are."""

    path: TreePath
    version: Version
    first: OpenSnapshot
    last: OpenSnapshot
    count: int


@dataclass(slots=True)
class SearchReport:
    """What a search came to. ``snapshots`` were read to their end."""

    found: list[Found] = field(default_factory=list)
    snapshots: int = 0
    trouble: Trouble = field(default_factory=list)


async def search(library: Library, edge: Edge, snapshots: Sequence[OpenSnapshot], criteria: Criteria) -> SearchReport:
    """Return the entries that meet the criteria, by dataset, node and path; each version of one once.

    Raises:
        NotFoundError, IntegrityError, FormatError: no snapshot could be read at all; of several, the first one's.
        UsageError: too many match.
    """
    report = SearchReport()
    searcher = Searcher(criteria)
    fetchers: dict[bytes, ChunkFetcher] = {}
    edge.progress.stage("searching", len(snapshots), "snapshots")
    for series in series_of(snapshots):
        fetcher = fetchers.setdefault(series.domain, ChunkFetcher(library, series.domain))
        await fetcher.in_thread(partial(_search, searcher, series, edge, report))
    if report.trouble and not report.snapshots:
        raise report.trouble[0][1]
    return report


def _search(searcher: Searcher, series: Series, edge: Edge, report: SearchReport, reader: TreeReader) -> None:
    matches = Matches()
    read: list[OpenSnapshot] = []
    for one in series.snapshots:
        try:
            parts = searcher.search(reader, one.details.tree, aliases(one.details))
        except UNREADABLE as error:
            report.trouble.append((one, error))
            continue
        matches.add(parts)
        read.append(one)
        edge.progress.advance(1)
    report.snapshots += len(read)
    report.found += [
        Found(path=one.path, version=one.version, first=read[one.first], last=read[one.last], count=one.count)
        for one in matches.finish()
    ]


def aliases(details: SnapshotDetails) -> dict[bytes, TreePath]:
    """Return the paths that a snapshot's roots had on the machine they come from, by their names in the tree."""
    return {root.name: tuple(part for part in root.path.split(b"/") if part) for root in details.roots}
