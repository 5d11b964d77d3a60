"""forget."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command
from replicator.cli.browse import with_library
from replicator.cli.output import moment, table
from replicator.config import format_size, parse_duration, parse_name
from replicator.errors import KeyMissingError, UsageError

if TYPE_CHECKING:
    from replicator.engine.browse import Library
    from replicator.engine.edge import Edge
    from replicator.engine.keeper import ReaderHome
    from replicator.engine.retain import Judged
    from replicator.snapshot.retention import KeepRules


@click.command()
@click.argument("what", nargs=-1)
@click.option("--keep-last", type=int, default=0, metavar="N", help="Keep the last N snapshots.")
@click.option("--keep-hourly", type=int, default=0, metavar="N", help="The newest of each of the last N hours.")
@click.option("--keep-daily", type=int, default=0, metavar="N", help="The newest of each of the last N days.")
@click.option("--keep-weekly", type=int, default=0, metavar="N", help="The newest of each of the last N weeks.")
@click.option("--keep-monthly", type=int, default=0, metavar="N", help="The newest of each of the last N months.")
@click.option("--keep-yearly", type=int, default=0, metavar="N", help="The newest of each of the last N years.")
@click.option("--keep-within", metavar="DURATION", help="All that are not older than this before the newest one.")
@click.option("--keep-tag", "tags", metavar="TAG", multiple=True, help="All with this tag; of several, with any.")
@click.option("--even-last", is_flag=True, help="By name: also the last good one of a dataset, or one tagged keep.")
@click.option("--undo", is_flag=True, help="By name: take forgotten ones back, while they are still there.")
@click.option("--dry-run", is_flag=True, help="Only say what would go and what would stay.")
@command(keys="restore, to read names, and maintenance (keeper)")
def forget(
    session: Session,
    what: tuple[str, ...],
    keep_last: int,
    keep_hourly: int,
    keep_daily: int,
    keep_weekly: int,
    keep_monthly: int,
    keep_yearly: int,
    keep_within: str | None,
    tags: tuple[str, ...],
    even_last: bool,
    undo: bool,
    dry_run: bool,
) -> None:
    """Forget snapshots that no rule keeps, or certain ones. Nothing is deleted by this.

    With rules, WHAT are datasets, all by default, and each dataset of each node is judged by itself. Without rules,
    WHAT are snapshots: id prefix, latest, latest:DATASET, DATASET@2026-11-17. Days are those of UTC. The newest
    snapshot, the newest good one, and those with the tag keep always stay.
    """
    from replicator.snapshot.retention import KeepRules  # noqa: PLC0415 - commands import what they use

    given = any((keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, keep_within, tags))
    if given and (even_last or undo):
        raise UsageError("--even-last and --undo go with the names of snapshots, not with rules")
    if not given and not what:
        raise UsageError(
            "nothing says what to forget", hint="give rules, such as --keep-daily 14, or name snapshots to forget"
        )
    rules = None
    if given:
        rules = KeepRules(
            last=keep_last,
            hourly=keep_hourly,
            daily=keep_daily,
            weekly=keep_weekly,
            monthly=keep_monthly,
            yearly=keep_yearly,
            within_s=parse_duration(keep_within) if keep_within else 0,
            tags=frozenset(parse_name(tag, "a tag") for tag in tags),
        )
    judged, lacking = _run(session, what, rules, even_last=even_last, undo=undo, dry_run=dry_run)
    changed = [one for one in judged if one.keep == undo]
    session.out.result(
        [document(one, undo=undo, done=not dry_run) for one in judged],
        [*_table(judged), "", _sentence(changed, undo=undo, dry_run=dry_run)],
    )
    if lacking is not None:
        session.worsen(exits.NO_KEY)
        session.out.notice(f"{lacking.message}, so this home could not do it: {lacking.hint}")


def _run(
    session: Session, what: Sequence[str], rules: "KeepRules | None", *, even_last: bool, undo: bool, dry_run: bool
) -> "tuple[list[Judged], KeyMissingError | None]":
    """Judge and, unless it is a dry run, carry out; return also why this home lacks the key for it."""
    from replicator.engine import retain  # noqa: PLC0415

    lacking: list[KeyMissingError] = []

    def look_for_key(keeper: "ReaderHome") -> None:
        try:
            keeper.maintenance()
        except KeyMissingError as error:
            if not dry_run:
                raise
            lacking.append(error)

    async def work(library: "Library", edge: "Edge") -> "list[Judged]":
        if rules is not None:
            judged = await retain.by_rules(library, edge, rules, what)
        else:
            judged = await retain.by_name(library, edge, what, even_last=even_last, undo=undo)
        if not dry_run:
            await retain.forget(library, edge, library.keeper.maintenance, judged, undo=undo)
        return judged

    return with_library(session, work, first=look_for_key), next(iter(lacking), None)


def document(one: "Judged", *, undo: bool, done: bool) -> dict[str, Any]:
    """Return what is said of one snapshot to programs; ``done`` is whether it was carried out."""
    return {
        "id": one.snapshot.id,
        "dataset": one.snapshot.details.dataset,
        "node": one.snapshot.node,
        "time": moment(one.snapshot.row.created_ns),
        "counted": moment(one.counted_ns),
        "size": one.snapshot.row.size,
        "tags": list(one.snapshot.details.tags),
        "keep": one.keep,
        "reasons": list(one.reasons),
        "done": done and one.keep == undo,
    }


def _table(judged: "Sequence[Judged]") -> list[str]:
    return table(
        ("ID", "DATASET", "TIME", "NODE", "SIZE", "", "WHY"),
        [
            (
                one.snapshot.id[:12],
                one.snapshot.details.dataset,
                moment(one.counted_ns),
                one.snapshot.node,
                format_size(one.snapshot.row.size),
                "keep" if one.keep else "forget",
                ", ".join(one.reasons),
            )
            for one in judged
        ],
    )


def _sentence(changed: "Sequence[Judged]", *, undo: bool, dry_run: bool) -> str:
    if not changed:
        return "There is nothing to forget."
    count = f"{len(changed)} snapshot{'' if len(changed) == 1 else 's'}"
    if dry_run:
        return f"{count} would be {'taken back' if undo else 'forgotten'}; nothing was done (--dry-run)."
    if undo:
        return f"{count} taken back."
    return f"{count} forgotten. `forget --undo` takes them back while they are still there (`snapshots --forgotten`)."
