"""What is done around the capture of a dataset: hooks, snapshots of file systems, and undoing both in every case.

What has been begun is on the disk before it is done (:mod:`replicator.engine.unfinished`), so that the next run puts
right what a killed one left. Programs run on threads; a run that is cancelled asks them to end and waits for that.
"""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from msgspec.structs import replace

from replicator.catalog.snapshots import Dataset
from replicator.engine.commands import (
    DEFAULT_PATH,
    CommandError,
    Outcome,
    Stage,
    complaint,
    hook_environment,
    outcome_of,
)
from replicator.engine.edge import Edge
from replicator.engine.node import NodeHome
from replicator.engine.threads import on_thread
from replicator.engine.unfinished import Begun, Unfinished, Volume
from replicator.engine.volumes import (
    Argv,
    Mount,
    Plan,
    RootFacts,
    creation,
    is_there,
    is_within,
    listing,
    logical_volume_query,
    mount_of,
    parse_logical_volume,
    parse_mounts,
    plan_volumes,
    removal,
    snapshot_name,
)
from replicator.errors import ReplicatorError, SourceError
from replicator.format.consistency import Consistency, Failure
from replicator.process import Command, Ended, Stop
from replicator.snapshot.mapped import MappedSource
from replicator.snapshot.tree import escape
from replicator.snapshot.walk import PosixSource, Source

VOLUME_LIMIT_S: Final = 600
"""For a command that makes or removes a snapshot; LVM waits for the disk."""
SUBVOLUME_INODE: Final = 256
"""Of every btrfs subvolume's folder, and of no other."""
_ANSWER: Final = 16 << 20

T = TypeVar("T")


@dataclass(slots=True)
class Troubles:
    """What went wrong beside a snapshot that is whole: ``problems`` fail the run, ``warnings`` are gaps of it."""

    problems: list[ReplicatorError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def take(self, error: ReplicatorError, dataset: str, *, failure: Failure = "fail") -> None:
        """Take what went wrong with a dataset, as much as it is to count."""
        message = f"{dataset}: {error.message}"
        if failure == "warn":
            self.warnings.append(message)
        else:
            self.problems.append(ReplicatorError(message, hint=error.hint))


class Preparation:
    """Hooks and snapshots of one run, for whoever holds the home's lock. ``source`` is what is read otherwise."""

    def __init__(self, node: NodeHome, edge: Edge, source: Source) -> None:
        self._node = node
        self._edge = edge
        self._source = source
        self._unfinished = Unfinished(node.file("unfinished.bin"), node.fs)

    async def recover(self, troubles: Troubles) -> None:
        """Put right what killed runs left."""
        for begun in self._unfinished.all():
            troubles.notices.append(f"{begun.dataset}: an earlier run was killed; what it had begun is put right")
            await self._undo(begun, "killed", troubles)

    async def around(self, dataset: Dataset, troubles: Troubles, capture: Callable[[Source], Awaitable[T]]) -> T:
        """Capture a dataset between its hooks, from snapshots of its file systems if it wants them.

        Raises:
            CommandError: the before-hook failed, and that is to fail the dataset.
            SourceError: a snapshot cannot be made.
        """
        consistency = dataset.consistency
        if not dataset.roots:
            consistency = replace(consistency, snapshot="none")
        if consistency == Consistency():
            return await capture(self._source)
        # A snapshot that could not be removed yet is tried again with those of tonight.
        left = [volume for one in self._unfinished.all() if one.dataset == dataset.name for volume in one.volumes]
        begun = Begun(dataset=dataset.name, consistency=consistency, after=bool(consistency.after), volumes=left)
        self._unfinished.put(begun)
        outcome: Outcome = "killed"
        try:
            await self._before(begun, troubles)
            plan = await self._plan(dataset)
            troubles.notices += [f"{dataset.name}: {escape(root)} is read as it is: {why}" for root, why in plan.live]
            if plan.volumes:
                begun = replace(begun, volumes=[*plan.volumes, *(one for one in left if one not in plan.volumes)])
                self._unfinished.put(begun)
            result = await capture(await self._mapped(dataset, plan))
            outcome = "success"
        except CommandError as error:
            outcome = error.outcome
            raise
        except Exception:
            outcome = "failure"
            raise
        finally:
            await self._undo(begun, outcome, troubles)
        return result

    async def _undo(self, begun: Begun, outcome: Outcome, troubles: Troubles) -> None:
        """Remove snapshots, then run the after-hook; what could not be done is left for the next run."""
        left: list[Volume] = []
        cancelled: asyncio.CancelledError | None = None
        for volume in begun.volumes:
            error, later = await on_thread(partial(self._try_to_remove, volume), patience=1)
            cancelled = later or cancelled
            if error is not None:
                left.append(volume)
                troubles.take(error, begun.dataset)
        after = begun.after
        if after:
            # Whoever presses Ctrl-C once means the backup. Who does it again, or has done so before, means this too.
            patience = 0 if outcome == "killed" or cancelled else 1
            ended, later = await self._hook(begun, "after", outcome, patience)
            cancelled = later or cancelled
            after = isinstance(ended, Ended) and ended.by == "stop"
            if not after:
                self._judge(begun, "after", ended, troubles)
        if left or after:
            self._unfinished.put(replace(begun, volumes=left, after=after))
        else:
            self._unfinished.drop(begun.dataset)
        if cancelled is not None:
            raise cancelled

    # hooks

    async def _before(self, begun: Begun, troubles: Troubles) -> None:
        if not begun.consistency.before:
            return
        self._edge.progress.stage(f"before-hook of {begun.dataset}")
        ended, cancelled = await self._hook(begun, "before", None, 0)
        if cancelled is not None:
            raise cancelled
        self._judge(begun, "before", ended, troubles)

    def _judge(self, begun: Begun, stage: Stage, ended: Ended | SourceError, troubles: Troubles) -> None:
        """Take a hook's failure as the dataset says; a failed before-hook may end the capture."""
        if isinstance(ended, Ended) and ended.good:
            return
        error = _hook_error(begun, stage, ended)
        if stage == "before" and begun.consistency.failure == "fail":
            raise error
        troubles.take(error, begun.dataset, failure=begun.consistency.failure)

    async def _hook(
        self, begun: Begun, stage: Stage, outcome: Outcome | None, patience: int
    ) -> tuple[Ended | SourceError, asyncio.CancelledError | None]:
        consistency = begun.consistency
        command = Command(
            argv=("/bin/sh", "-c", consistency.before if stage == "before" else consistency.after),
            environment=hook_environment(self._edge.environment, begun.dataset, stage, outcome),
        )

        def run(stop: Stop) -> Ended | SourceError:
            try:
                return self._edge.programs.run(command, limit_s=consistency.limit_s, stop=stop)
            except SourceError as error:
                return error

        return await on_thread(run, patience=patience)

    # snapshots of file systems

    async def _plan(self, dataset: Dataset) -> Plan:
        if dataset.consistency.snapshot == "none" or not dataset.roots:
            return Plan(volumes=(), places={}, live=())
        mounts = parse_mounts(mountinfo())

        def look(stop: Stop) -> tuple[list[RootFacts], bytes]:
            folder = os.path.realpath(os.fsencode(self._node.cache_path))
            return [self._facts(root, mounts, stop) for root in dataset.roots], folder

        (facts, folder), cancelled = await on_thread(look)
        if cancelled is not None:
            raise cancelled
        return plan_volumes(
            dataset.consistency.snapshot,
            facts,
            mounts,
            name=snapshot_name(dataset.name, self._node.identity),
            folder=folder,
            one_file_system=dataset.one_file_system,
        )

    def _facts(self, root: bytes, mounts: Sequence[Mount], stop: Stop) -> RootFacts:
        real = os.path.realpath(root)
        mount = mount_of(mounts, real)
        if mount is None:
            return RootFacts(path=root, real=real)
        if mount.kind == "btrfs":
            return RootFacts(path=root, real=real, subvolume=_subvolume(real, mount.point))
        if mount.kind != "zfs" and mount.source.startswith(b"/dev/"):
            with suppress(SourceError):  # no LVM on this machine, or the device is none of its
                answer = self._command(logical_volume_query(mount.source), stop)
                return RootFacts(path=root, real=real, logical=parse_logical_volume(answer))
        return RootFacts(path=root, real=real)

    async def _mapped(self, dataset: Dataset, plan: Plan) -> Source:
        """Make the snapshots and return what reads from them."""
        if not plan.volumes:
            return self._source
        self._edge.progress.stage(f"snapshots for {dataset.name}")

        def make(stop: Stop) -> None:
            for volume in plan.volumes:
                self._remove(volume, stop)  # left by a run whose record was lost
                if volume.kind == "lvm":
                    self._node.fs.makedirs(os.fsdecode(volume.place))
                for argv in creation(volume):
                    self._command(argv, stop)

        _, cancelled = await on_thread(make)
        if cancelled is not None:
            raise cancelled
        gaps = not dataset.one_file_system and any(volume.kind == "btrfs" for volume in plan.volumes)
        return MappedSource(plan.places, btrfs_gaps=gaps)

    def _try_to_remove(self, volume: Volume, stop: Stop) -> ReplicatorError | None:
        try:
            self._remove(volume, stop)
        except ReplicatorError as error:
            return error
        return None

    def _remove(self, volume: Volume, stop: Stop) -> None:
        """Remove a snapshot if it is there."""
        if is_there(volume, self._command(listing(volume), stop)):
            for argv in removal(volume, parse_mounts(mountinfo())):
                self._command(argv, stop)
        if volume.kind == "lvm":
            with suppress(OSError):  # only an empty one that is not in use goes
                os.rmdir(volume.place)

    def _command(self, argv: Argv, stop: Stop) -> bytes:
        """Run a command of the system and return what it says.

        Raises:
            SourceError: it failed.
        """
        # A user's own PATH leaves out where mount and lvs are.
        path = ":".join(filter(None, (self._edge.environment.get("PATH"), DEFAULT_PATH)))
        command = Command(argv=argv, environment={"PATH": path, "LC_ALL": "C"})
        ended = self._edge.programs.run(command, limit_s=VOLUME_LIMIT_S, stop=stop, keep=_ANSWER)
        if not ended.good:
            words = " ".join(escape(os.fsencode(word)) for word in argv)
            raise SourceError(
                complaint(f"`{words}`", ended, VOLUME_LIMIT_S),
                hint="see what each kind of snapshot needs: docs/operate/consistent.md",
            )
        return ended.out


def _hook_error(begun: Begun, stage: Stage, ended: Ended | SourceError) -> CommandError:
    what = f"the {stage}-hook"
    end = "nothing was captured" if stage == "before" else "what it should undo may not be undone"
    if isinstance(ended, SourceError):
        return CommandError(f"{what}: {ended.message}; {end}", "failure", hint=ended.hint)
    said = complaint(what, ended, begun.consistency.limit_s)
    if stage == "before" and begun.consistency.failure == "warn":
        end = "the dataset was captured all the same"
    hint = "try it by hand, as the user who runs the backup; `dataset show` says what it is"
    return CommandError(f"{said}; {end}", outcome_of(ended), hint=hint)


def _subvolume(path: bytes, top: bytes) -> bytes | None:
    """Return the btrfs subvolume's folder that a path is in, as far up as ``top``."""
    while is_within(path, top):
        with suppress(OSError):
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode) and status.st_ino == SUBVOLUME_INODE:
                return path
        if path == top:
            return None
        path = os.path.dirname(path)
    return None


def mountinfo() -> bytes:
    """Return what is mounted, as :func:`~replicator.engine.volumes.parse_mounts` takes it."""
    return PosixSource().mounts()
