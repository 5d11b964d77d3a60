"""Exporting a snapshot to a Borg repository: it is restored to a folder, and borg makes an archive of that."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from replicator.engine.borg import Archive, Borg, Done, Said, is_full
from replicator.engine.browse import Library, OpenSnapshot
from replicator.engine.edge import Edge
from replicator.engine.restore import RestoreReport, restore
from replicator.engine.staging import remove_tree
from replicator.engine.threads import on_thread
from replicator.errors import NotFoundError, SourceError, SpaceError, UsageError
from replicator.process import Stop

T = TypeVar("T")

MARK = "replicator snapshot "
"""Before a snapshot's id in the comment of its archive."""


@dataclass(slots=True, kw_only=True)
class ExportedArchive:
    """What an export came to. ``restored`` is None where the archive was there ``already``."""

    snapshot: OpenSnapshot
    name: str
    already: bool
    restored: RestoreReport | None = None
    warnings: list[Said] = field(default_factory=list)


async def export_to_borg(
    library: Library,
    edge: Edge,
    snapshot: OpenSnapshot,
    make_borg: Callable[[Stop], Borg],
    *,
    name: str | None,
    encryption: str | None,
    staging: str,
    privileged: bool,
    writers: int = 0,
) -> ExportedArchive:
    """Make an archive of a snapshot, called ``name`` or as its dataset and time, in a repository.

    The repository is made, with this ``encryption``, if it is not there; without one it must be. ``staging`` is a
    folder for the whole snapshot, that is removed again. What could not be restored is not in the archive either, and
    is in the report.

    Raises:
        UsageError: there is another archive of that name.
        SourceError, KeyWrongError, LockedError, ...: see :class:`Borg`; NotFoundError, SpaceError: and ``restore``.
    """
    called = name or f"{snapshot.details.dataset}-{snapshot.created.strftime('%Y-%m-%dT%H:%M:%S')}"

    def prepare(stop: Stop) -> tuple[Archive, ...]:
        borg = make_borg(stop)
        borg.version()
        try:
            return borg.look().archives
        except NotFoundError as error:
            if encryption is None:
                raise NotFoundError(error.message, hint="`--init repokey` makes the repository") from error
        borg.init(encryption)
        return ()

    edge.progress.stage("reading what the repository has")
    there = next((one for one in await _done(prepare) if one.name == called), None)
    comment = f"{MARK}{snapshot.id}"
    if there is not None:
        if there.comment != comment:
            raise UsageError(f"there is another archive '{called}' already", hint="give another name with --archive")
        return ExportedArchive(snapshot=snapshot, name=called, already=True)
    target = os.path.join(staging, "tree")
    remove_tree(staging)  # left by a run that was killed
    edge.fs.makedirs(staging)
    try:
        restored = await restore(library, edge, snapshot, target, privileged=privileged, writers=writers)
        names = [b"./" + name for name in sorted(os.listdir(os.fsencode(target)))]
        if not names:
            raise SourceError("nothing of the snapshot could be restored, so there is nothing to export")
        edge.progress.stage(f"writing archive {called}")
        done = await _done(
            lambda stop: make_borg(stop).create(
                *(called, names),
                folder=target,
                at_ns=snapshot.row.created_ns,
                comment=comment,
                progress=edge.progress,
            )
        )
    finally:
        remove_tree(staging)
    _check_room(done)
    return ExportedArchive(snapshot=snapshot, name=called, already=False, restored=restored, warnings=done.warnings)


def _check_room(done: Done) -> None:
    said = [one.text for one in done.warnings]
    if is_full(said):
        raise SpaceError(f"borg ran out of room: {said[0]}", hint="make room where the repository is")


async def _done(work: Callable[[Stop], T]) -> T:
    result, cancelled = await on_thread(work)
    if cancelled is not None:
        raise cancelled
    return result
