"""The versions of one path over many snapshots."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot, candidates
from replicator.engine.edge import Edge
from replicator.engine.search import UNREADABLE, Series, Trouble, aliases, series_of
from replicator.errors import NotFoundError, UsageError
from replicator.format.snapshot import SnapshotDetails
from replicator.snapshot.tree import TreePath, TreeReader
from replicator.snapshot.versions import Observation, State, Version, history, version_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PathVersion:
    """A version of a path, or a time without one, with the first and last snapshot of it and how many there are.

    ``path`` is where it is in the last one; where nothing is, what was there last.
    """

    path: TreePath
    state: State
    version: Version | None
    first: OpenSnapshot
    last: OpenSnapshot
    count: int


@dataclass(slots=True)
class HistoryReport:
    """What a look at one path came to: versions by dataset and node, oldest first."""

    versions: list[PathVersion] = field(default_factory=list)
    trouble: Trouble = field(default_factory=list)


async def versions(library: Library, edge: Edge, snapshots: Sequence[OpenSnapshot], text: str) -> HistoryReport:
    """Return every distinct version of a path, and when it was not there, in each series that has it at all.

    Raises:
        NotFoundError: no snapshot that could be read has it.
        UsageError: it is no path to anything.
    """
    report = HistoryReport()
    edge.progress.stage("searching", len(snapshots), "snapshots")
    fetchers: dict[bytes, ChunkFetcher] = {}
    for series in series_of(snapshots):
        fetcher = fetchers.setdefault(series.domain, ChunkFetcher(library, series.domain))
        await fetcher.in_thread(partial(_versions, series, text, edge, report))
    if not report.versions:
        if report.trouble:
            raise report.trouble[0][1]
        raise NotFoundError(
            f"no snapshot has a path '{text}'",
            hint="a path begins with the name of a dataset's folder; `find` looks for names",
        )
    return report


def _versions(series: Series, text: str, edge: Edge, report: HistoryReport, reader: TreeReader) -> None:
    read: list[OpenSnapshot] = []
    seen: list[Observation] = []
    paths: list[TreePath] = []
    for one in series.snapshots:
        places = candidates(one.details, text)
        if not places:
            raise UsageError(f"'{text}' is the top of a snapshot, which has no versions of its own")
        try:
            entries = ((path, reader.get(one.details.tree, path)) for path in places)
            path, entry = next(((path, entry) for path, entry in entries if entry is not None), (places[0], None))
        except UNREADABLE as error:
            report.trouble.append((one, error))
            continue
        edge.progress.advance(1)
        read.append(one)
        paths.append(path)
        seen.append(
            Observation(
                version=None if entry is None else version_of(entry),
                complete=not one.row.partial,
                unreadable=entry is None and was_unreadable(one.details, places),
            )
        )
    there = [path for path, one in zip(paths, seen, strict=True) if one.version is not None]
    if there:
        report.versions += [
            PathVersion(
                path=paths[period.last] if period.version else there[-1],
                state=period.state,
                version=period.version,
                first=read[period.first],
                last=read[period.last],
                count=period.count,
            )
            for period in history(seen)
        ]


def was_unreadable(details: SnapshotDetails, places: Sequence[TreePath]) -> bool:
    """Return whether one of these paths, or a folder above it, is named among what could not be read."""
    gaps = set(details.gaps)
    originals = aliases(details)
    for path in places:
        if not path or path[0] not in originals:
            continue
        whole = (*originals[path[0]], *path[1:])
        if any(b"/" + b"/".join(whole[:end]) in gaps for end in range(len(whole), 0, -1)):
            return True
    return False
