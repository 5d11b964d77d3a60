"""forget."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command
from replicator.cli.browse import with_library
from replicator.cli.keeping import asked_rules, keep_options
from replicator.cli.output import moment, table
from replicator.cli.prune import prune_after
from replicator.config import counted, format_size
from replicator.errors import KeyMissingError, UsageError

if TYPE_CHECKING:
    from replicator.engine.browse import Library
    from replicator.engine.edge import Edge
    from replicator.engine.keeper import ReaderHome
    from replicator.engine.retain import Judged
    from replicator.format.forget import KeptChain
    from replicator.snapshot.retention import KeepRules


@click.command()
@click.argument("what", nargs=-1)
@keep_options
@click.option("--even-last", is_flag=True, help="By name: also the last good one of a dataset, or one tagged keep.")
@click.option("--undo", is_flag=True, help="By name: take forgotten ones back, while they are still there.")
@click.option("--dry-run", is_flag=True, help="Only say what would go and what would stay.")
@click.option("--prune", "pruning", is_flag=True, help="Then mark what nothing needs any more, as `prune` does.")
@command(keys="restore, to read names, and maintenance (keeper)", run="forget")
def forget(
    session: Session,
    what: tuple[str, ...],
    even_last: bool,
    undo: bool,
    dry_run: bool,
    pruning: bool,
    **said: Any,
) -> None:
    """Forget snapshots that no rule keeps, or certain ones. Nothing is deleted by this.

    With rules, WHAT are datasets, all by default, and each dataset of each node is judged by itself. Without rules,
    WHAT are snapshots: id prefix, latest, latest:DATASET, DATASET@2026-11-17. Without either, all datasets are judged
    by what `dataset set --keep-...` says on this keeper, else: last 3, daily 14, weekly 8, monthly 12. Days are those
    of UTC. The newest snapshot, the newest good one, and those with the tag keep always stay.
    """
    rules = asked_rules(said)
    if (rules is not None or not what) and (even_last or undo):
        raise UsageError("--even-last and --undo go with the names of snapshots, not with rules")
    if pruning and undo:
        raise UsageError("--prune deletes and --undo takes back", hint="do one of them")
    judged, supposed, lacking = _run(session, what, rules, even_last=even_last, undo=undo, dry_run=dry_run)
    if lacking is not None:
        session.worsen(exits.NO_KEY)
        session.out.notice(f"{lacking.message}, so this home could not do it: {lacking.hint}")
    changed = [one for one in judged if one.keep == undo]
    rows = [document(one, undo=undo, done=not dry_run) for one in judged]
    lines = [*_table(judged), "", _sentence(changed, undo=undo, dry_run=dry_run)]
    if not pruning:
        session.out.result(rows, lines)
        return
    pruned, told = prune_after(session, dry_run=dry_run, supposing=supposed if dry_run else None)
    session.out.result({"snapshots": rows, "prune": pruned}, [*lines, "", *told])


def forget_by_settings(session: Session) -> list[str]:
    """Forget what the rules of the datasets do not keep; return the ids of those snapshots."""
    judged, _, _ = _run(session, (), None, even_last=False, undo=False, dry_run=False)
    return [one.snapshot.id for one in judged if not one.keep]


def _run(
    session: Session, what: Sequence[str], rules: "KeepRules | None", *, even_last: bool, undo: bool, dry_run: bool
) -> "tuple[list[Judged], list[KeptChain], KeyMissingError | None]":
    """Judge and, unless it is a dry run, forget.

    Returns also the chains as they are after it, or would be, and why this home lacks the key for it.
    """
    from replicator.engine import retain  # noqa: PLC0415
    from replicator.engine.forgetting import Forgotten  # noqa: PLC0415
    from replicator.engine.keeping import rules_for  # noqa: PLC0415

    lacking: list[KeyMissingError] = []

    def look_for_key(keeper: "ReaderHome") -> None:
        try:
            keeper.maintenance()
        except KeyMissingError as error:
            if not dry_run:
                raise
            lacking.append(error)

    async def work(library: "Library", edge: "Edge") -> "tuple[list[Judged], list[KeptChain]]":
        keeper = library.keeper
        if rules is not None:
            judged = await retain.by_rules(library, edge, lambda _: rules, what)
        elif what:
            judged = await retain.by_name(library, edge, what, even_last=even_last, undo=undo)
        else:
            judged = await retain.by_rules(library, edge, lambda dataset: rules_for(keeper, dataset), ())
        names = {one.snapshot.row.name for one in judged if one.keep == undo}
        supposed = retain.chains_after(keeper, Forgotten.of(keeper), names, undo=undo)
        if not dry_run:
            await retain.forget(library, edge, keeper.maintenance, judged, undo=undo)
        return judged, supposed

    judged, supposed = with_library(session, work, first=look_for_key)
    return judged, supposed, next(iter(lacking), None)


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
    count = counted(len(changed), "snapshot")
    if dry_run:
        return f"{count} would be {'taken back' if undo else 'forgotten'}; nothing was done (--dry-run)."
    if undo:
        return f"{count} taken back."
    return f"{count} forgotten. `forget --undo` takes them back while they are still there (`snapshots --forgotten`)."
