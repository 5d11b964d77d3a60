"""mount."""

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command
from replicator.cli.browse import with_library
from replicator.cli.output import moment
from replicator.config import counted
from replicator.errors import NotFoundError

if TYPE_CHECKING:
    from replicator.engine.browse import Library
    from replicator.engine.edge import Edge
    from replicator.engine.mount import Mounted, MountReport, Shown


@click.command()
@click.argument("directory")
@click.argument("snapshots", nargs=-1)
@click.option(
    "--allow-other",
    is_flag=True,
    help="Let other users of this machine look in, as far as the modes and ACLs of the files let them.",
)
@command(keys="restore (keeper)")
def mount(session: Session, directory: str, snapshots: tuple[str, ...], allow_other: bool) -> None:
    """Show snapshots as folders below DIRECTORY, read-only, until Ctrl-C, SIGTERM or `fusermount3 -u DIRECTORY`.

    Without SNAPSHOTS, or with several, each is DATASET/TIME-ID in there (UTC), beside a link `latest` to the newest
    one; where several nodes have a dataset of one name, DATASET@NODE. With one snapshot its files are right below
    DIRECTORY. SNAPSHOT: id prefix, latest, latest:DATASET, DATASET@2026-11-17. Snapshots that come later show when it
    is mounted again.

    What cannot be read is an input/output error for the program that reads it, and named here. Nothing that is read
    is written to a disk. Needs Linux with FUSE and pip install 'replicator[mount]'.
    """
    from replicator.engine.browse import label_of  # noqa: PLC0415 - commands import what they use
    from replicator.engine.fuse import check_machine, check_place, settle  # noqa: PLC0415
    from replicator.engine.mounting import show  # noqa: PLC0415
    from replicator.engine.naming import choose  # noqa: PLC0415

    check_place(directory)
    check_machine()
    place = os.path.abspath(directory)

    async def work(library: "Library", edge: "Edge") -> "MountReport":
        found = await library.snapshots()
        if not found:
            raise NotFoundError("there are no snapshots yet", hint="`replicator backup` on a node makes one")
        labels = [label_of(one) for one in found]
        chosen = sorted({choose(labels, text) for text in snapshots}) or range(len(found))
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[None] = loop.create_future()
        caught = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]  # nohup, for one, means it
        for number in caught:
            loop.add_signal_handler(number, settle, stop)
        try:
            return await show(
                library,
                edge,
                [found[number] for number in chosen],
                place,
                direct=len(snapshots) == 1,
                allow_other=allow_other,
                announce=lambda mounted: _announce(session, place, mounted),
                stop=stop,
            )
        finally:
            for number in caught:
                loop.remove_signal_handler(number)

    report = with_library(session, work)
    if report.lost:
        session.worsen(exits.GAPS)
    if report.failed:
        session.worsen(exits.FAILED)
    if report.damaged:
        session.worsen(exits.INTEGRITY)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _announce(session: Session, place: str, mounted: "Mounted") -> None:
    rows = [_row(one, path) for one, path in zip(mounted.shown, mounted.paths, strict=True)]
    count = counted(len(rows), "snapshot")
    session.out.result(
        {"mounted": place, "snapshots": rows},
        f"{count} in {place}, read-only. Ctrl-C or `fusermount3 -u {place}` ends it.",
    )


def _row(shown: "Shown", path: bytes) -> dict[str, Any]:
    from replicator.snapshot.tree import escape  # noqa: PLC0415

    one = shown.snapshot
    return {
        "id": one.id,
        "dataset": one.details.dataset,
        "time": moment(one.row.created_ns),
        "node": one.node,
        "path": escape(path),
    }
