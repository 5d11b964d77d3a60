"""prune."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, as_error, command, wait
from replicator.cli.output import moment, table
from replicator.config import counted, format_size

if TYPE_CHECKING:
    from replicator.engine.pruneplan import DeadObject
    from replicator.engine.pruning import AtProvider, PruneReport
    from replicator.format.forget import KeptChain


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted, where, and from which day on.")
@click.option(
    "--retire",
    "retiring",
    metavar="NODE",
    multiple=True,
    help="Do not wait for this node, which is silent; it claims anew if it comes back.",
)
@command(keys="maintenance (keeper or maintainer); no content key", run="prune")
def prune(session: Session, dry_run: bool, retiring: tuple[str, ...]) -> None:
    """Mark for deletion, at every provider, what no snapshot needs that is not forgotten.

    Copies beyond the promise are released too, once the node that made them has let go of them. Providers delete it all
    after their waits, no more in a week than root allows; `status` shows what is marked. What is needed is decided from
    references and indexes alone. If anything is not known, nothing is marked.
    """
    report = run_prune(session, dry_run=dry_run, retiring=retiring)
    session.out.result(prune_document(report), prune_text(report))


def run_prune(
    session: Session,
    *,
    dry_run: bool,
    retiring: Sequence[str] = (),
    supposing: "Iterable[KeptChain] | None" = None,
) -> "PruneReport":
    """Prune with the maintenance key of this home, tell what providers said, and take over the exit code."""
    from replicator.engine.keeper import KeeperHome  # noqa: PLC0415 - commands import what they use
    from replicator.engine.node import NodeHome  # noqa: PLC0415
    from replicator.engine.pruning import prune as work  # noqa: PLC0415

    with session.maintaining() as half, session.siblings() as siblings, session.edge() as edge:
        report = wait(
            work(
                half,
                edge,
                half.maintenance,
                ticket=half.lazy_ticket if isinstance(half, KeeperHome) else None,
                order=half.ticket if isinstance(half, KeeperHome) else None,
                nodes=[one for one in siblings if isinstance(one, NodeHome)],
                retiring=retiring,
                dry_run=dry_run,
                supposing=supposing,
            )
        )
    for notice in report.notices:
        session.out.notice(notice)
    for problem in report.integrity:
        session.out.notice(f"INTEGRITY: {problem}")
    session.worsen(report.exit_code)
    return report


def prune_after(
    session: Session, *, dry_run: bool, supposing: "Iterable[KeptChain] | None" = None
) -> tuple[dict[str, Any], list[str]]:
    """Prune after something that is done already; return what came of it for programs and for people.

    A failure is a part of that, with its exit code taken over: whoever called says first what was done.
    """
    try:
        report = run_prune(session, dry_run=dry_run, supposing=supposing)
    except Exception as error:
        said = as_error(error)
        code = exits.code_of(said)
        session.worsen(exits.FAILED if code == exits.USAGE else code)
        session.out.notice(f"pruning failed: {said.message}" + (f" ({said.hint})" if said.hint else ""))
        told = {"kind": type(said).__name__, "message": said.message, "hint": said.hint}
        return {"error": told}, ["Pruning failed. What is said above is done all the same."]
    return prune_document(report), prune_text(report)


def prune_document(report: "PruneReport") -> dict[str, Any]:
    """Return what came of it for programs."""
    plan = report.plan
    return {
        "dry_run": report.dry_run,
        "gaps": plan.gaps,
        "dead": [{"id": one.name.hex(), "kind": one.kind, "size": one.size} for one in plan.dead],
        "dead_bytes": plan.dead_bytes,
        "unnamed": [{"id": one.name.hex(), "kind": one.kind, "size": one.size} for one in report.unnamed],
        "repack": [
            {
                "id": one.packs[0].facts.name.hex(),
                "packs": len(one.packs),
                "bytes": one.old_bytes,
                "new_bytes": one.new_bytes,
            }
            for one in plan.groups
        ],
        "repacked_bytes": plan.repacked_bytes,
        "packs": plan.packs,
        "providers": [_provider(one) for one in report.at],
        "stays": report.stays,
        "retired": report.retired,
        "integrity": report.integrity,
    }


def _provider(one: "AtProvider") -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "objects": one.objects,
        "bytes": one.bytes,
        "marked": one.marked,
        "marked_bytes": one.marked_bytes,
        "claimed": one.claimed,
        "claimed_bytes": one.claimed_bytes,
        "first": moment(one.first_ns),
        "last": moment(one.last_ns),
        "weekly_budget": one.budget,
        "surplus": one.spare,
        "surplus_bytes": one.spare_bytes,
        "surplus_claimed": one.spare_claimed,
        "surplus_young": one.spare_young,
        "released": one.released,
        "released_bytes": one.released_bytes,
        "released_first": moment(one.released_ns),
        "problem": one.problem,
    }


def prune_text(report: "PruneReport") -> list[str]:
    """Return what came of it for people."""
    plan = report.plan
    retired = [f"{name} is not waited for any more." for name in report.retired]
    if plan.gaps:
        before = [
            f"{one.name}: {counted(one.marked, 'object is', 'objects are')} marked, as it was all known before."
            for one in report.at
            if one.marked
        ]
        head = f"Nothing {'more ' if before else ''}is marked, because not everything is known:"
        return [head, *(f"  {gap}" for gap in plan.gaps), *before, *retired]
    if not plan.dead and not plan.groups and not report.unnamed:
        return [
            "There is nothing to prune.",
            *_surplus_text(report),
            *report.stays,
            *(f"{one.name}: {one.problem}" for one in report.at if one.problem),
            *retired,
        ]
    lines = [
        (
            f"{counted(len(plan.dead), 'object is', 'objects are')} needed by nothing: "
            f"{format_size(plan.dead_bytes)} in each copy."
        ),
        *_by_kind(plan.dead),
    ]
    if report.unnamed:
        size = format_size(sum(one.size for one in report.unnamed))
        lines += [
            (
                f"{counted(len(report.unnamed), 'object is', 'objects are')} left behind, named by nothing: "
                f"{size} in each copy."
            )
        ]
        lines += _by_kind(report.unnamed)
    if plan.groups:
        packs = sum(len(one.packs) for one in plan.groups)
        lines.append(
            f"{counted(packs, 'pack is', 'packs are')} worth repacking, which frees about "
            f"{format_size(plan.repacked_bytes)} in each copy."
        )
    if report.at:
        lines += ["", *table(("PROVIDER", "FREED", "OBJECTS", "STILL CLAIMED", "FROM", "ALL BY"), _rows(report))]
    lines += _surplus_text(report)
    lines += ["", *report.stays]
    lines += [f"{one.name}: {one.problem}" for one in report.at if one.problem]
    lines += retired
    marked = sum(one.marked for one in report.at)
    if report.dry_run:
        lines.append("Nothing was done (--dry-run).")
    elif marked:
        lines.append(
            "Until then everything is there: `forget --undo` takes snapshots back, `status` shows what is marked."
        )
    return lines


def _surplus_text(report: "PruneReport") -> list[str]:
    """Say what is more than was promised, and what becomes of it."""
    lines = []
    for one in report.at:
        found = []
        if one.spare and report.dry_run:
            found.append(f"{counted(one.spare, 'copy', 'copies')} ({format_size(one.spare_bytes)}) would be released")
        if one.spare_claimed:
            found.append(
                f"{counted(one.spare_claimed, 'copy stays', 'copies stay')} until the node that relies on "
                f"{'it' if one.spare_claimed == 1 else 'them'} lets go, in its next run"
            )
        if one.spare_young:
            found.append(
                f"{counted(one.spare_young, 'copy stays until it has', 'copies stay until they have')} been there for "
                "eight days"
            )
        if one.released:
            found.append(
                f"{counted(one.released, 'copy is', 'copies are')} released ({format_size(one.released_bytes)})"
            )
        if found:
            day = f", to go from {moment(one.released_ns)[:10]} on" if one.released_ns else ""
            lines.append(f"Beyond the promise at {one.name}: {'; '.join(found)}{day}.")
    return ["", *lines] if lines else []


def _by_kind(objects: "Iterable[DeadObject]") -> list[str]:
    words = {
        "data": ("pack of data", "packs of data"),
        "tree": ("pack of folders", "packs of folders"),
        "index": ("index", "indexes"),
        "references": ("list of references", "lists of references"),
    }
    kinds: dict[str, list[int]] = {}
    for one in objects:
        kinds.setdefault(one.kind, []).append(one.size)
    return [
        f"  {counted(len(sizes), *words.get(kind, (kind,)))}, {format_size(sum(sizes))}"
        for kind, sizes in sorted(kinds.items())
    ]


def _rows(report: "PruneReport") -> list[tuple[object, ...]]:
    return [
        (
            one.name,
            format_size(one.bytes if report.dry_run else one.marked_bytes),
            one.objects if report.dry_run else one.marked,
            format_size(one.claimed_bytes) if one.claimed else "",
            moment(one.first_ns)[:10],
            moment(one.last_ns)[:10],
        )
        for one in report.at
    ]
