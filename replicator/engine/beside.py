"""A Borg archive beside the federation's copy: made of what the snapshot saw, thinned by the same rules, checked.

It lies outside of every promise: this node can read and delete it. So it is off unless asked for, and never a copy.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from replicator.catalog.snapshots import Dataset, SnapshotRow
from replicator.clock import DAY_S, HOUR_S, NS
from replicator.engine.borg import BESIDE_OLDEST, MARK, Archive, Borg, archive_name, is_full
from replicator.engine.edge import Edge
from replicator.engine.home import Half
from replicator.engine.node import NodeHome
from replicator.engine.threads import on_thread
from replicator.errors import ReplicatorError, SourceError, SpaceError
from replicator.fs import write_atomic
from replicator.process import Stop
from replicator.snapshot.capture import root_names
from replicator.snapshot.mapped import MappedSource
from replicator.snapshot.retention import KEEP_TAG, Candidate, KeepRules, decide
from replicator.snapshot.rules import Rules
from replicator.snapshot.walk import Entered, Found, Run, Source, Walker

CHECK_S: Final = 7 * DAY_S
LIMIT_S: Final = 12 * HOUR_S
"""For an archive: what a dataset's hooks have stopped must go on, and its snapshot is published only then."""
STATE_FILE: Final = "beside.json"
KEPT: Final = " keep"
"""Behind the snapshot's id in the comment of an archive that no rule drops."""

MakeBorg = Callable[[str, Stop], Borg]
"""Given a repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideState:
    """How the archives of a dataset stand, as this node remembers it. Times in ns, 0 for never."""

    repository: str
    archive: str = ""
    archived_ns: int = 0
    checked_ns: int = 0
    failed_ns: int = 0
    error: str = ""


@dataclass(slots=True, kw_only=True)
class BesideReport:
    """What one run came to."""

    repository: str
    archive: str = ""
    dropped: list[str] = field(default_factory=list)
    checked: bool = False
    warnings: list[str] = field(default_factory=list)
    error: ReplicatorError | None = None


def besides(half: Half) -> dict[str, BesideState]:
    """Return what a node remembers of them, by dataset. A damaged file is none: the next run writes it anew."""
    path = half.file(STATE_FILE)
    if half.fs.size(path) is None:
        return {}
    try:
        return {name: BesideState(**one) for name, one in json.loads(half.fs.read(path)).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _remember(node: NodeHome, dataset: str, state: BesideState) -> None:
    said = {name: asdict(one) for name, one in sorted({**besides(node), dataset: state}.items())}
    write_atomic(node.fs, node.file(STATE_FILE), json.dumps(said, indent=1).encode())


class Beside:
    """The archives beside the datasets of one run."""

    def __init__(self, node: NodeHome, edge: Edge, make_borg: MakeBorg, keep: Callable[[str], KeepRules]) -> None:
        self._node = node
        self._edge = edge
        self._make = make_borg
        self._keep = keep

    async def archive(self, dataset: Dataset, rules: Rules, source: Source, row: SnapshotRow) -> BesideReport:
        """Make an archive of what a snapshot was made of, while that is there; what fails is in the report."""
        report = BesideReport(repository=dataset.also_borg)
        name = archive_name(dataset.name, row.created_ns)
        self._edge.progress.stage(f"archive of {dataset.name} beside")

        def work(stop: Stop) -> None:
            borg = self._make(dataset.also_borg, stop)
            borg.version(BESIDE_OLDEST)
            listed = self._node.cache_file("beside", "paths")
            try:
                with open(listed, "wb") as file:
                    file.writelines(path + b"\0" for path in paths_of(dataset, rules, source))
                done = borg.create_of(
                    name,
                    listed,
                    at_ns=row.created_ns,
                    comment=comment_of(row),
                    limit_s=LIMIT_S,
                    progress=self._edge.progress,
                )
            finally:
                if os.path.exists(listed):
                    os.unlink(listed)
            said = [one.text for one in done.warnings]
            if is_full(said):
                raise SpaceError(f"{dataset.also_borg}: {said[0]}", hint="make room there")
            report.archive, report.warnings = name, said

        await self._try(dataset, report, work)
        return report

    async def tend(self, dataset: Dataset, report: BesideReport) -> None:
        """Drop what no rule keeps, and check now and then."""
        if report.error is not None:
            return
        known = self._known(dataset)
        now = self._edge.clock.now_ns()

        def work(stop: Stop) -> None:
            borg = self._make(dataset.also_borg, stop)
            ours = archives_of(borg.look().archives, dataset.name)
            gone = to_drop(ours, self._keep(dataset.name))
            if gone:
                borg.delete([one.name for one in gone])
                report.dropped = [one.name for one in gone]
            if now - known.checked_ns >= CHECK_S * NS:
                said = [one.text for one in borg.check().warnings]
                if said:
                    raise SourceError(f"{dataset.also_borg}: borg check: {said[0]}", hint="run `borg check` by hand")
                report.checked = True

        await self._try(dataset, report, work)

    def _known(self, dataset: Dataset) -> BesideState:
        known = besides(self._node).get(dataset.name)
        fits = known is not None and known.repository == dataset.also_borg
        return known if known is not None and fits else BesideState(repository=dataset.also_borg)

    async def _try(self, dataset: Dataset, report: BesideReport, work: Callable[[Stop], None]) -> None:
        """Do some of it, and remember what came of it."""
        now = self._edge.clock.now_ns()

        def attempt(stop: Stop) -> ReplicatorError | None:
            try:
                work(stop)
            except ReplicatorError as error:
                return error
            except Exception as error:  # whatever it is, it must not end what the federation gets
                return ReplicatorError(f"{type(error).__name__}: {error}")
            return None

        report.error, cancelled = await on_thread(attempt)
        state = self._known(dataset)
        if report.error is not None:
            state = replace(state, failed_ns=now, error=report.error.message)
        else:
            state = replace(
                state,
                archive=report.archive,
                archived_ns=now,
                checked_ns=now if report.checked else state.checked_ns,
                failed_ns=0,
                error="",
            )
        try:
            _remember(self._node, dataset.name, state)
        except OSError as error:
            report.error = report.error or ReplicatorError(f"{STATE_FILE} cannot be written: {error.strerror}")
        if cancelled is not None:
            raise cancelled


def comment_of(row: SnapshotRow) -> str:
    """Return the comment by which an archive is known as ours."""
    return f"{MARK}{row.name.hex()}{KEPT if KEEP_TAG in row.tags else ''}"


def archives_of(archives: Iterable[Archive], dataset: str) -> list[Archive]:
    """Return the archives of a dataset that were made beside its snapshots, and nobody else's."""
    return [one for one in archives if one.comment.startswith(MARK) and one.name == archive_name(dataset, one.start_ns)]


def to_drop(archives: Sequence[Archive], rules: KeepRules) -> list[Archive]:
    """Return which archives of a dataset no rule keeps, as for snapshots."""
    by_id = {bytes.fromhex(one.id): one for one in archives}
    candidates = [
        Candidate(
            name=bytes.fromhex(one.id),
            series="",
            number=number,
            at_ns=one.start_ns,
            tags=frozenset({KEEP_TAG} if one.comment.endswith(KEPT) else ()),
            partial=False,
            gaps=False,
            sure=True,
        )
        for number, one in enumerate(sorted(archives, key=lambda one: one.start_ns))
    ]
    return [by_id[one.candidate.name] for one in decide(candidates, rules) if not one.reasons]


def paths_of(dataset: Dataset, rules: Rules, source: Source) -> Iterator[bytes]:
    """Yield the paths of what a capture takes, as borg is to open them; it stores what is behind ``/./``.

    Raises:
        SourceError: two roots would have one name in the archive.
    """
    walker = Walker(source, rules, dataset.roots)
    for root in root_names(dataset.roots):
        place = source.place_of(root.path) if isinstance(source, MappedSource) else root.path
        above, name = os.path.split(place.rstrip(b"/"))
        if name != root.name:
            if len(dataset.roots) > 1:
                raise SourceError(
                    f"dataset '{dataset.name}' has several paths that an archive cannot hold under their own names",
                    hint="make a dataset of each for `--also-borg`",
                )
            above, name = place.rstrip(b"/"), b""
        for path in _walked(walker, root.path):
            below = path[len(root.path) :].strip(b"/")
            inner = b"/".join(part for part in (name, below) if part)
            if inner:
                yield above + b"/./" + inner


def _walked(walker: Walker, root: bytes) -> Iterator[bytes]:
    for event in walker.walk(root):
        match event:
            case Run():
                yield from (event.prefix + name for name in event.names)
            case Found() | Entered():
                yield event.path
            case _:
                pass
