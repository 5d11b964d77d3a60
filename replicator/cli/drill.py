"""drill."""

import os
from typing import TYPE_CHECKING

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, wait
from replicator.cli.browse import take_restore, with_library
from replicator.cli.care import share_of
from replicator.cli.drills import check_document, check_table, drill_document, drill_table
from replicator.config import parse_duration
from replicator.errors import NotFoundError, ReplicatorError, UsageError

if TYPE_CHECKING:
    from replicator.engine.browse import Library, OpenSnapshot
    from replicator.engine.checks import Wanted
    from replicator.engine.drill import DrillReport
    from replicator.engine.edge import Edge


@click.command()
@click.argument("snapshots", nargs=-1)
@click.option("--sample", default="100%", show_default=True, help="Share of the files to restore, chosen at random.")
@click.option(
    "--check",
    metavar="COMMAND",
    help="Run by /bin/sh where the files are, instead of the kept one; the drill fails with it.",
)
@click.option("--no-check", is_flag=True, help="Leave the kept check out this time.")
@click.option("--check-timeout", metavar="DURATION", help="How long it may take; 1h, or as it was kept.")
@click.option("--scratch", metavar="DIR", help="Where there is room; default: the folder for temporary files.")
@click.option("--keep", is_flag=True, help="Leave the restored files there.")
@click.option("--list", "only_list", is_flag=True, help="Only say how the newest drill of each dataset went.")
@click.option("--set-check", metavar="DATASET", help="Only keep --check for every later drill of DATASET.")
@click.option("--remove-check", metavar="DATASET", help="Only forget what is kept for DATASET.")
@click.option("--list-checks", is_flag=True, help="Only say which checks are kept.")
@command(keys="restore (keeper); to keep or forget a check, owner; none for --list", run="drill")
def drill(
    session: Session,
    snapshots: tuple[str, ...],
    sample: str,
    check: str | None,
    no_check: bool,
    check_timeout: str | None,
    scratch: str | None,
    keep: bool,
    only_list: bool,
    set_check: str | None,
    remove_check: str | None,
    list_checks: bool,
) -> None:
    """Restore SNAPSHOTS for trial, the newest of every dataset by default; sign and keep how it went.

    SNAPSHOT: id prefix, latest, latest:DATASET, DATASET@2026-11-17. A kept check looks at every whole drill of its
    dataset; a sample leaves it out. Checks are kept in the charter, where no node can read or change them.
    """
    import tempfile  # noqa: PLC0415 - commands import what they use

    from replicator.engine.checks import Wanted, limit_of  # noqa: PLC0415

    share = share_of(sample)
    limit_s = None if check_timeout is None else limit_of(parse_duration(check_timeout))
    only = [only_list, set_check is not None, remove_check is not None, list_checks]
    if sum(only) > 1 or (any(only) and (snapshots or no_check or keep or scratch)):
        raise UsageError(
            "that cannot be done in one go", hint="give one of --list, --list-checks, --set-check, --remove-check"
        )
    if check is not None and (no_check or only_list or remove_check is not None or list_checks):
        raise UsageError("--check has no meaning here", hint="give it for a drill, or with --set-check")
    if check is not None and not check.strip():
        raise UsageError("the check is empty", hint="--no-check leaves a kept one out")
    session.looked = any(only)
    if only_list:
        _list(session)
    elif list_checks:
        _list_checks(session)
    elif set_check is not None:
        if check is None:
            raise UsageError("there is no check to keep", hint="give the command with --check")
        _set_check(session, set_check, check, limit_s)
    elif remove_check is not None:
        _remove_check(session, remove_check)
    else:
        wanted = Wanted(command=check, limit_s=limit_s, none=no_check or (check is None and share < 1))
        _drill(session, snapshots, share, wanted, os.path.abspath(scratch or tempfile.gettempdir()), keep=keep)


def _list(session: Session) -> None:
    from replicator.engine.drills import drills, is_due  # noqa: PLC0415

    with session.reader() as reader:
        known = drills(reader)
    now = session.clock.now_ns()
    session.out.result([{**drill_document(one), "due": is_due(one, now)} for one in known], drill_table(known))


def _list_checks(session: Session) -> None:
    from replicator.engine.checks import kept_checks  # noqa: PLC0415

    with session.reader() as reader:
        known = list(kept_checks(reader).values())
    session.out.result([check_document(one) for one in known], check_table(known))


def _set_check(session: Session, dataset: str, command: str, limit_s: int | None) -> None:
    from replicator.engine.checks import keep_check, new_check  # noqa: PLC0415
    from replicator.format.drill import DEFAULT_CHECK_S  # noqa: PLC0415

    check = new_check(dataset, command, limit_s or DEFAULT_CHECK_S)
    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        notices = wait(keep_check(keeper, siblings, edge, check))
    for notice in notices:
        session.out.notice(notice)
    session.out.result(check_document(check), f"Every later drill of '{dataset}' runs: {command}")


def _remove_check(session: Session, dataset: str) -> None:
    from replicator.engine.checks import drop_check  # noqa: PLC0415

    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        notices = wait(drop_check(keeper, siblings, edge, dataset))
    for notice in notices:
        session.out.notice(notice)
    session.out.result({"id": dataset, "removed": True}, f"No check is kept for '{dataset}' any more.")


def _drill(
    session: Session, snapshots: tuple[str, ...], share: float, wanted: "Wanted", scratch: str, *, keep: bool
) -> None:
    from replicator.engine.browse import label_of, newest_of_each  # noqa: PLC0415
    from replicator.engine.checks import kept_checks  # noqa: PLC0415
    from replicator.engine.drill import drill as run  # noqa: PLC0415
    from replicator.engine.drills import remember_datasets  # noqa: PLC0415
    from replicator.engine.naming import choose  # noqa: PLC0415

    async def work(library: "Library", edge: "Edge") -> "list[DrillReport]":
        known = await library.snapshots()
        if not known:
            raise NotFoundError("there are no snapshots yet")
        labels = [label_of(one) for one in known]
        chosen = [known[choose(labels, text)] for text in snapshots] if snapshots else newest_of_each(known)
        kept = kept_checks(library.keeper)
        names = {one.details.dataset for one in known}
        remember_datasets(library.keeper, names)
        for name in sorted(kept.keys() - names):
            session.out.notice(f"a check is kept for '{name}', and there is no snapshot of such a dataset")

        async def one(snapshot: "OpenSnapshot") -> "DrillReport":
            check, left_out = wanted.of(snapshot.details.dataset, kept.get(snapshot.details.dataset))
            return await run(
                *(library, edge, snapshot),
                scratch=scratch,
                share=share,
                check=check,
                left_out=left_out,
                keep=keep,
                writers=os.cpu_count() or 1,
            )

        reports: list[DrillReport] = []
        failed: list[tuple[str, ReplicatorError]] = []
        for snapshot in chosen:
            try:
                reports.append(await one(snapshot))
            except ReplicatorError as error:  # says nothing of the others, and takes nothing of theirs away
                failed.append((snapshot.details.dataset, error))
        last = failed.pop()[1] if not reports else None
        for name, why in failed:
            session.out.notice(f"{name}: {why.message}")
            session.worsen(exits.code_of(why))
        if last is not None:
            raise last
        return reports

    reports = with_library(session, work)
    for report in reports:
        take_restore(session, report.restored)
        name, outcome = report.drill.dataset, report.drill.check
        if report.said:
            session.out.notice(f"{name}: {report.said}")
            session.worsen(exits.FAILED)
        if outcome == "not run":
            session.out.notice(f"{name}: the check was not run, as not everything came back")
        if outcome == "left out":
            session.out.notice(f"{name}: its kept check was left out")
        if report.folder:
            session.out.notice(f"{name}: what was restored is in {report.folder}")
    session.out.result(
        [{**drill_document(report.drill), "folder": report.folder, "said": report.said} for report in reports],
        drill_table([report.drill for report in reports]),
    )
