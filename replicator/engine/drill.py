"""Trial restores: a snapshot comes back to a scratch folder, a command looks at it, the result is signed and kept."""

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from replicator.crypto.sign import Context
from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot
from replicator.engine.commands import complaint, plain_environment
from replicator.engine.drills import RUN
from replicator.engine.edge import Edge
from replicator.engine.restore import RestoreReport, restore
from replicator.engine.threads import on_thread
from replicator.errors import FormatError, IntegrityError, NotFoundError, RestoreError
from replicator.format.codec import encode
from replicator.format.drill import Checked, Drill, DrillCheck
from replicator.process import Command
from replicator.rng import Rng
from replicator.snapshot.tree import TreePath, TreeReader

PREFIX: Final = "replicator-drill-"
_ONE: Final = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """One drill. ``said`` is why the check failed.

    ``folder`` is where everything still lies: it was to be kept, or could not be removed.
    """

    restored: RestoreReport
    drill: Drill
    said: str = ""
    folder: str = ""

    @property
    def exit_code(self) -> int:
        """As in design: 4 damaged, 1 the check failed, 3 something could not be had, else 0."""
        if self.restored.damaged:
            return 4
        if self.drill.check == "failed":
            return 1
        return 3 if self.drill.problems else 0


async def drill(
    library: Library,
    edge: Edge,
    snapshot: OpenSnapshot,
    *,
    scratch: str,
    share: float = 1.0,
    check: DrillCheck | None = None,
    left_out: bool = False,
    keep: bool = False,
    writers: int = 0,
) -> DrillReport:
    """Restore a snapshot, or about ``share`` of its files, into a new folder below ``scratch``, which then goes again.

    Nothing is read from the keeper's own cache. ``check`` is run by /bin/sh in that folder if all content could be
    restored; ``left_out`` says that there is one which is not wanted this time. What a user may not set is no problem:
    the drill asks whether the data comes back, and this user's restore would come to the same. ``writers`` as in
    :func:`~replicator.engine.restore.restore`.

    The result is signed with this keeper's key and kept in its catalog, also that nothing could be had.

    Raises:
        RestoreError: no folder can be made in ``scratch``.
        SpaceError: there is no room for it. Neither says anything of the snapshot, so nothing is kept.
    """
    started_ns = edge.clock.now_ns()
    try:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=scratch)
    except OSError as error:
        raise RestoreError(f"{scratch}: {error.strerror}", hint="choose a folder with --scratch") from error
    left = folder
    try:
        restored = await _restored(library.uncached(), edge, snapshot, folder, share, writers)
        outcome: Checked = "left out" if left_out else "none"
        said = ""
        if check is not None and not restored.has_every_byte:
            outcome = "not run"
        elif check is not None:
            edge.progress.stage(f"checking {snapshot.details.dataset}")
            said = await _check(edge, snapshot, folder, check)
            outcome = "failed" if said else "passed"
    finally:
        if not keep:
            left = await asyncio.to_thread(_remove, folder)
    keeper = library.keeper
    result = Drill(
        tenant=keeper.tenant,
        keeper=keeper.identity,
        dataset=snapshot.details.dataset,
        snapshot=snapshot.row.name,
        started_ns=started_ns,
        ended_ns=edge.clock.now_ns(),
        whole=share >= 1,
        files=restored.files,
        bytes=restored.bytes,
        problems=restored.reasons.total() + len(restored.lost) + len(restored.damaged),
        unset=restored.unset_reasons.total(),
        check=outcome,
    )
    report = DrillReport(restored=restored, drill=result, said=said, folder=left)
    keeper.catalog.record_run(
        RUN,
        started_ns=started_ns,
        ended_ns=result.ended_ns,
        exit_code=report.exit_code,
        summary={"signed": keeper.signing.sign(Context.DRILL, encode(result)).hex()},
    )
    return report


async def _restored(
    library: Library, edge: Edge, snapshot: OpenSnapshot, folder: str, share: float, writers: int
) -> RestoreReport:
    try:
        paths: Sequence[TreePath] = ()
        if share < 1:
            fetcher = ChunkFetcher(library, snapshot.snapshot.domain)
            paths = await fetcher.in_thread(lambda reader: sample(reader, snapshot, share, edge.rng))
        privileged = os.geteuid() == 0
        return await restore(library, edge, snapshot, folder, paths=paths, privileged=privileged, writers=writers)
    except NotFoundError as error:
        return RestoreReport(snapshot=snapshot, lost=[str(error)])
    except (IntegrityError, FormatError) as error:
        return RestoreReport(snapshot=snapshot, damaged=[str(error)])


def sample(reader: TreeReader, snapshot: OpenSnapshot, share: float, rng: Rng) -> list[TreePath]:
    """Return the paths of about so many of a snapshot's files, chosen at random; of one at least, if it has any."""
    chosen: list[TreePath] = []
    first: TreePath | None = None
    for path, entry in reader.walk(snapshot.details.tree):
        if entry.kind != "file":
            continue
        first = first or path
        if int.from_bytes(rng.bytes(8), "little") < share * _ONE:
            chosen.append(path)
    return chosen or ([first] if first else [()])


async def _check(edge: Edge, snapshot: OpenSnapshot, folder: str, check: DrillCheck) -> str:
    """Run the check; return what is wrong, nothing if it is content."""
    told = {"REPLICATOR_SNAPSHOT": snapshot.id}
    environment = plain_environment(edge.environment, snapshot.details.dataset) | told
    command = Command(argv=["/bin/sh", "-c", check.command], environment=environment, folder=folder)
    ended, cancelled = await on_thread(lambda stop: edge.programs.run(command, limit_s=check.limit_s, stop=stop))
    if cancelled is not None:
        raise cancelled
    return "" if ended.good else complaint("the check", ended, check.limit_s)


def _remove(folder: str) -> str:
    """Remove what was restored, folders that are closed to their owner too; return the folder if it is still there."""
    for path, folders, _ in os.walk(folder):
        for name in folders:
            inner = os.path.join(path, name)
            if not os.path.islink(inner):
                with suppress(OSError):
                    os.chmod(inner, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)
    return folder if os.path.lexists(folder) else ""
