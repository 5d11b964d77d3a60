"""Mounting: snapshots of the federation shown in a folder until somebody ends it."""

import asyncio
import os
from collections.abc import Callable, Sequence

from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.fuse import serve
from replicator.engine.mount import Mounted, MountReport, Shown
from replicator.engine.packmemory import RETRY_S, Chunks, PackMemory
from replicator.errors import FormatError, IntegrityError, ReplicatorError
from replicator.ids import Identity


class Reach:
    """Keeps in touch with providers for as long as a mount is there, and tells what they do wrong as it happens."""

    def __init__(self, federation: Federation, edge: Edge, report: MountReport) -> None:
        self._federation = federation
        self._clock = edge.clock
        self._report = report
        self._next_s = edge.clock.monotonic()
        self._dialling = asyncio.Lock()

    async def redial(self) -> bool:
        """Try those that did not answer, at most every half minute; return whether one does now."""
        federation = self._federation
        async with self._dialling:
            silent = [pin for pin in federation.half.peers if Identity(pin.identity) in federation.failures]
            if not silent or self._clock.monotonic() < self._next_s:
                return False
            self._next_s = self._clock.monotonic() + RETRY_S
            before = set(federation.links)
            await federation.dial(silent)
            return bool(set(federation.links) - before)

    def settle(self) -> None:
        """Pass on what was noticed since the last time, so that it neither waits for the end nor piles up."""
        for problem in self._federation.integrity:
            self._report.damage(problem)
        for notice in self._federation.notices:
            self._report.notice(notice)
        self._federation.integrity.clear()
        self._federation.notices.clear()

    def told(self, error: ReplicatorError) -> None:
        """Tell that one pack did not give what another one did."""
        if isinstance(error, IntegrityError | FormatError):
            self._report.damage(str(error))
        else:
            self._report.notice(str(error))


async def show(
    library: Library,
    edge: Edge,
    snapshots: Sequence[OpenSnapshot],
    folder: str,
    *,
    direct: bool,
    allow_other: bool,
    announce: Callable[[Mounted], None],
    stop: asyncio.Future[None],
) -> MountReport:
    """Show snapshots, which come oldest first, in a folder until ``stop`` has a result or somebody unmounts it.

    ``direct``: the files of the only one are right in the folder.

    Raises:
        MountError: it could not be mounted.
    """
    report = MountReport(say=edge.progress.note)
    reach = Reach(library.federation, edge, report)
    memory = PackMemory(edge.clock, redial=reach.redial, settled=reach.settle)
    fetchers: dict[bytes, ChunkFetcher] = {}
    shown = []
    for one in snapshots:
        domain = one.snapshot.domain
        fetcher = fetchers.setdefault(domain, ChunkFetcher(library, domain))
        shown.append(Shown(snapshot=one, source=Chunks(memory, fetcher, reach.told)))
    mounted = Mounted(shown, owner=(os.geteuid(), os.getegid()), direct=direct)
    try:
        await serve(
            mounted,
            report,
            folder,
            allow_other=allow_other,
            announce=lambda: announce(mounted),
            stop=stop,
            close=memory.close,
        )
    finally:
        if library.trees is not None:
            await asyncio.to_thread(library.trees.settle)
    return report
