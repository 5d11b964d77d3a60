"""Importing a Borg repository: every archive becomes a snapshot with its own time, host, owners and names.

Snapshots of an import are a chain of their own: a node that the keeper enrols for it, whose half of a home lies in
``imports/`` of the keeper's, and that loses its right when nothing is left to bring: what is damaged in the repository
comes, once it is whole, with a key that follows. What is in is known by the ids of repository and archive, which are
tags of the snapshot.
"""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from replicator.catalog.snapshots import Dataset
from replicator.charter.chain import created_of
from replicator.engine.backup import BackupReport, DatasetReport, Past, Run, begun
from replicator.engine.borg import Archive, Borg, Repository, Said
from replicator.engine.edge import Edge
from replicator.engine.handing import name_of_key
from replicator.engine.home import Half, has_half
from replicator.engine.keeper import KeeperHome
from replicator.engine.members import accept_grant, add_node, request_node, request_renewal, revoke_node
from replicator.engine.node import NodeHome
from replicator.engine.ownchain import chain_end
from replicator.engine.publish import pending
from replicator.engine.staging import Staged, Stagings, stagings
from replicator.engine.threads import on_thread
from replicator.errors import IntegrityError, MinimumNotMetError, ReplicatorError
from replicator.process import Stop
from replicator.snapshot.walk import PosixSource

ID_TAG: Final = "borg-id:"
NAME_TAG: Final = "borg:"
COMMENT_TAG: Final = "comment:"
MAX_TAG: Final = 200
_SHORT: Final = 16
_DATE: Final = re.compile(r"[-_.+@:T ]*((19|20)\d\d[-_.]?\d\d|\d{9,}).*$")
_NOT_IN_NAMES: Final = re.compile(r"[@,:/\\]|^[.-]+")

MakeBorg = Callable[[Stop], Borg]
MakeDataset = Callable[[str], Dataset]


@dataclass(slots=True, kw_only=True)
class ImportedArchive:
    """What one archive's import came to. ``lacking`` counts items by what this user may not set of them."""

    archive: Archive
    dataset: str
    report: DatasetReport | None = None
    items: int = 0
    extracted: int = 0
    broken: int = 0
    lacking: Counter[str] = field(default_factory=Counter)
    warnings: list[Said] = field(default_factory=list)
    error: ReplicatorError | None = None


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What an import came to.

    ``already`` archives were in before, ``finished`` waited only to be published, ``left`` were not come to.
    """

    repository: str
    encryption: str
    archives: list[ImportedArchive] = field(default_factory=list)
    already: int = 0
    finished: list[Archive] = field(default_factory=list)
    left: list[Archive] = field(default_factory=list)
    node: str = ""
    ended: bool = False
    """Whether the key that wrote them has lost its right: all is in, or damaged where it lies."""
    backup: BackupReport = field(default_factory=BackupReport)
    notices: list[str] = field(default_factory=list)


def series_of(archive: Archive) -> str:
    """Return what the dataset of an archive is called: its name up to a date in it, else its host, else "borg"."""
    for candidate in (_DATE.sub("", archive.name), archive.host, archive.name):
        name = _NOT_IN_NAMES.sub("", "".join(one for one in candidate if one.isprintable())).strip()[:60]
        if name:
            return name
    return "borg"


def chosen(repository: Repository, glob: str | None) -> list[Archive]:
    """Return the archives whose names match, oldest first; checkpoints of interrupted runs are none."""
    pattern = re.compile(fnmatch.translate(glob)) if glob else None
    return [
        one
        for one in repository.archives
        if not re.search(r"\.checkpoint(\.\d+)?$", one.name) and (pattern is None or pattern.fullmatch(one.name))
    ]


def home_of(home: str, repository: Repository) -> str:
    """Return the home of a repository's import, in that of the keeper."""
    return os.path.join(home, "imports", repository.id[:_SHORT])


def imported(node: NodeHome, *, waiting: bool = False) -> set[str]:
    """Return the ids of the archives that are in: their snapshots are published, or wait for that."""
    rows = node.catalog.snapshots.all("1" if waiting else "published_ns != 0")
    return {tag.removeprefix(ID_TAG).rpartition("/")[2] for row in rows for tag in row.tags if tag.startswith(ID_TAG)}


def tags_of(repository: Repository, archive: Archive, more: Sequence[str]) -> tuple[str, ...]:
    """Return the tags of an archive's snapshot."""
    said = [f"{NAME_TAG}{on_one_line(archive.name)}", f"{ID_TAG}{repository.id[:_SHORT]}/{archive.id}"]
    if archive.comment:
        said.append(f"{COMMENT_TAG}{on_one_line(archive.comment)}")
    return tuple(dict.fromkeys((*said, *more)))


def on_one_line(text: str) -> str:
    """Return what a repository says of itself so that it cannot look like another line of ours."""
    return "".join(one if one.isprintable() else " " for one in text)[:MAX_TAG].strip()


async def import_archives(
    keeper: KeeperHome,
    siblings: list[Half],
    edge: Edge,
    make_borg: MakeBorg,
    repository: Repository,
    archives: Sequence[Archive],
    *,
    home: str,
    open_node: Callable[[], NodeHome],
    dataset_of: MakeDataset,
    series: str | None,
    staging: str,
    tags: Sequence[str] = (),
    privileged: bool,
    readers: int = 0,
) -> ImportReport:
    """Import archives, oldest first, leaving out those that are in; one that is damaged keeps back no other.

    ``home`` is the import's own, ``open_node`` opens the node in it. ``dataset_of`` gives the dataset of a series;
    ``series`` is the one of all archives, None for what each is called by. ``staging`` is a folder for whole archives.

    Raises:
        KeyWrongError, PeerError, ...: the import's key cannot be enrolled.
        MinimumNotMetError: a snapshot of an earlier import cannot be published still.
    """
    report = ImportReport(repository=repository.id, encryption=repository.encryption)
    known: set[str] = set()
    waiting: set[str] = set()
    if has_half(home, "node"):
        node = open_node()
        try:
            known, waiting = imported(node), imported(node, waiting=True)
        finally:
            node.close()
    wanted = sorted((one for one in archives if one.id not in known), key=lambda one: (one.start_ns, one.name))
    report.already = len(archives) - len(wanted)
    if not wanted and not writer_left(keeper, home, open_node):
        return report
    behind = [one.start_ns for one in wanted if one.id not in waiting]
    await _enrol(keeper, siblings, edge, home, open_node, repository, min(behind, default=None), report)
    node = open_node()
    try:
        report.node = name_of_key(keeper.private, node.identity)
        with stagings(staging, edge.fs) as folders:
            async with begun(node, edge, report.backup, source=PosixSource(), commands={}, readers=readers) as run:
                _nothing_waits(node)
                known = imported(node)
                report.finished = [one for one in wanted if one.id in known]
                wanted = [one for one in wanted if one.id not in known]
                report.left = list(wanted)
                for archive in wanted:
                    one = ImportedArchive(archive=archive, dataset=series or series_of(archive))
                    report.archives.append(one)
                    report.left.remove(archive)
                    said = tags_of(repository, archive, tags)
                    await _one(run, edge, make_borg, one, folders, dataset_of, said, privileged=privileged)
                    if one.error is not None and not isinstance(one.error, IntegrityError):
                        break  # a lock, a passphrase, a full disk, a provider: the next would meet the same
                if all(one.error is None for one in report.archives):
                    run.tidy_spool()
        identity, waits = node.identity, bool(pending(node))
    finally:
        node.close()
    stopped = any(one.error is not None and not isinstance(one.error, IntegrityError) for one in report.archives)
    if not (report.left or stopped or waits):
        report.notices += await revoke_node(keeper, siblings, edge, identity.hex())
        report.ended = True
    return report


def writer_left(keeper: KeeperHome, home: str, open_node: Callable[[], NodeHome]) -> str:
    """Return what the node of an import is called if its key has its right still: it is waited for, as any other is."""
    if not has_half(home, "node"):
        return ""
    node = open_node()
    try:
        right = keeper.charter.right_of(node.signing.public)
        return "" if right is None or right.revoked else name_of_key(keeper.private, node.identity)
    finally:
        node.close()


async def _enrol(
    keeper: KeeperHome,
    siblings: list[Half],
    edge: Edge,
    home: str,
    open_node: Callable[[], NodeHome],
    repository: Repository,
    oldest_ns: int | None,
    report: ImportReport,
) -> None:
    """See to it that there is a node for the import whose chain can go on with an archive of this age.

    Where it has ended, or is past that, a key that follows begins another; what was stored is not stored again.
    """
    if has_half(home, "node"):
        node = open_node()
        try:
            right = keeper.charter.right_of(node.signing.public)
            end = chain_end(node)
            fits = oldest_ns is None or end is None or created_of(end) < oldest_ns
            if right is not None and not right.revoked and fits:
                return
        finally:
            node.close()
        code = request_renewal(home, edge)
    else:
        code = request_node(home, edge, name=f"import of borg {repository.id[:8]}")
    added = await add_node(keeper, siblings, edge, code, again=True)
    report.notices += added.notices
    node_spool = None
    if has_half(home, "node"):
        node = open_node()
        node_spool = node.spool_path
        node.close()
    accept_grant(home, edge, added.code, spool_path=node_spool)


def _nothing_waits(node: NodeHome) -> None:
    if pending(node):
        raise MinimumNotMetError(
            "a snapshot of an earlier import waits to be published, and others go behind it",
            hint="run the import again when more providers answer",
        )


async def _one(
    run: Run,
    edge: Edge,
    make_borg: MakeBorg,
    one: ImportedArchive,
    folders: Stagings,
    dataset_of: MakeDataset,
    tags: tuple[str, ...],
    *,
    privileged: bool,
) -> None:
    """Import one archive; what goes wrong is in ``one``."""
    archive = one.archive
    try:
        edge.progress.stage(f"extracting {on_one_line(archive.name)}")
        staging = folders.of(one.dataset)

        def stage(stop: Stop) -> Staged:
            return staging.stage(
                make_borg(stop), archive, name=one.dataset, privileged=privileged, progress=edge.progress
            )

        staged, cancelled = await on_thread(stage)
        if cancelled is not None:
            raise cancelled
        one.items, one.extracted, one.broken = staged.items, staged.extracted, staged.broken
        one.lacking, one.warnings = staged.lacking, staged.warnings
        dataset = replace(dataset_of(one.dataset), roots=staged.roots)
        past = Past(created_ns=archive.start_ns, host=_host(archive, edge), owners=staged.owners, gaps=staged.gaps)
        one.report = await run.past_dataset(dataset, staged.source, past, tags)
        one.error = one.report.error
        if one.error is None and not one.report.published:
            one.error = MinimumNotMetError("the snapshot waits to be published")
    except ReplicatorError as error:
        one.error = error


def _host(archive: Archive, edge: Edge) -> str:
    return on_one_line(archive.host)[:60] or edge.host
