"""drill."""

import os
from typing import TYPE_CHECKING

import click

from replicator.cli import exits
from replicator.cli.base import Session, command
from replicator.cli.browse import take_restore, with_library
from replicator.cli.care import share_of
from replicator.cli.drills import drill_document, drill_table
from replicator.config import parse_duration
from replicator.errors import NotFoundError

if TYPE_CHECKING:
    from replicator.engine.browse import Library
    from replicator.engine.drill import DrillReport
    from replicator.engine.edge import Edge


@click.command()
@click.argument("snapshots", nargs=-1)
@click.option("--sample", default="100%", show_default=True, help="Share of the files to restore, chosen at random.")
@click.option(
    "--check", default="", metavar="COMMAND", help="Run by /bin/sh where the files are; the drill fails with it."
)
@click.option("--check-timeout", default="1h", show_default=True, metavar="DURATION", help="How long it may take.")
@click.option("--scratch", metavar="DIR", help="Where there is room; default: the folder for temporary files.")
@click.option("--keep", is_flag=True, help="Leave the restored files there.")
@click.option("--list", "only_list", is_flag=True, help="Only say how the newest drill of each dataset went.")
@command(keys="restore (keeper)")
def drill(
    session: Session,
    snapshots: tuple[str, ...],
    sample: str,
    check: str,
    check_timeout: str,
    scratch: str | None,
    keep: bool,
    only_list: bool,
) -> None:
    """Restore SNAPSHOTS for trial, the newest of every dataset by default; sign and keep how it went.

    SNAPSHOT: id prefix, latest, latest:DATASET, DATASET@2026-11-17.
    """
    import tempfile  # noqa: PLC0415 - commands import what they use

    from replicator.engine.browse import newest_of_each  # noqa: PLC0415
    from replicator.engine.drill import drill as run  # noqa: PLC0415
    from replicator.engine.drills import drills  # noqa: PLC0415

    if only_list:
        with session.keeper() as keeper:
            known = drills(keeper)
        session.out.result([drill_document(one) for one in known], drill_table(known))
        return
    share, limit_s = share_of(sample), parse_duration(check_timeout)
    place = os.path.abspath(scratch or tempfile.gettempdir())

    async def work(library: "Library", edge: "Edge") -> "list[DrillReport]":
        if snapshots:
            chosen = [await library.find(one) for one in snapshots]
        else:
            chosen = newest_of_each(await library.snapshots())
        if not chosen:
            raise NotFoundError("there are no snapshots yet")
        return [
            await run(library, edge, one, scratch=place, share=share, check=check, limit_s=limit_s, keep=keep)
            for one in chosen
        ]

    reports = with_library(session, work)
    for report in reports:
        take_restore(session, report.restored)
        if report.said:
            session.out.notice(f"{report.drill.dataset}: {report.said}")
            session.worsen(exits.FAILED)
        if report.folder:
            session.out.notice(f"{report.drill.dataset}: what was restored is in {report.folder}")
    session.out.result(
        [{**drill_document(report.drill), "folder": report.folder, "said": report.said} for report in reports],
        drill_table([report.drill for report in reports]),
    )
