"""backup, run."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from replicator.cli import exits
from replicator.cli.base import Session, as_error, command, wait, wait_in_order
from replicator.cli.output import moment
from replicator.cli.proofs import proofs_document, proofs_words
from replicator.config import LEAST_RATE, counted, format_size, parse_duration, parse_name, parse_size
from replicator.errors import UsageError

if TYPE_CHECKING:
    from replicator.engine.backup import BackupReport, DatasetReport, MakeBeside
    from replicator.engine.beside import BesideReport
    from replicator.engine.commands import PipedCommand
    from replicator.engine.edge import Edge
    from replicator.engine.node import NodeHome
    from replicator.engine.prepare import Troubles
    from replicator.engine.rebalance import RebalanceReport
    from replicator.engine.repair import RepairReport
    from replicator.process import Stop
    from replicator.settings import Config
    from replicator.snapshot.retention import KeepRules

T = TypeVar("T")
_NAMED = 5
"""Of what is left out for one reason; the document has all."""


@click.command()
@click.argument("datasets", nargs=-1)
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="A word by which the snapshots are found again.")
@click.option(
    "--stdin-from-command", is_flag=True, help="One DATASET, then -- COMMAND ARG...: back up what COMMAND writes."
)
@click.option("--as", "file", metavar="FILE", help="What the command's output is called in the snapshot.")
@click.option(
    "--command-timeout",
    metavar="DURATION",
    default="1d",
    show_default=True,
    help="How long the command may let the backup wait in all.",
)
@click.option("--now", is_flag=True, help="Send as by night (config.toml, [line]), whatever the clock says.")
@command(keys="write (a node's home)", run="backup")
def backup(
    session: Session,
    datasets: tuple[str, ...],
    tags: tuple[str, ...],
    stdin_from_command: bool,
    file: str | None,
    command_timeout: str,
    now: bool,
) -> None:
    """Capture, commit and send datasets, all of them by default. Finishes what an earlier run could not send.

    With --stdin-from-command: replicator backup DATASET --stdin-from-command --as FILE -- COMMAND ARG...
    If COMMAND fails, nothing of it is published.
    """
    from replicator.engine.commands import PipedCommand  # noqa: PLC0415 - commands import what they use

    words = [parse_name(tag, "a tag") for tag in tags]
    piped = None
    if stdin_from_command:
        if not datasets or not file:
            raise UsageError(
                "a command's output needs a dataset and a name",
                hint="replicator backup DATASET --stdin-from-command --as FILE -- COMMAND ARG...",
            )
        limit = parse_duration(command_timeout)
        piped = PipedCommand(name=os.fsencode(file), argv=datasets[1:], folder=os.getcwd(), limit_s=limit)
        datasets = datasets[:1]
    elif file:
        raise UsageError("--as names the output of a command, and there is none", hint="add --stdin-from-command")
    report = _backup(session, datasets, words, piped, now=now)
    session.out.result(_document(report), _text(report))


def _backup(
    session: Session,
    datasets: Sequence[str] = (),
    tags: Sequence[str] = (),
    piped: "PipedCommand | None" = None,
    *,
    now: bool = False,
    most_spool: int | None = None,
) -> "BackupReport":
    from replicator.cli.declared import apply_declared  # noqa: PLC0415 - commands import what they use
    from replicator.engine.backup import backup as work  # noqa: PLC0415 - likewise
    from replicator.engine.heap import settle_heap  # noqa: PLC0415 - likewise
    from replicator.settings import load_config  # noqa: PLC0415 - likewise

    config = load_config(session.home)
    settle_heap()
    with session.node() as node, session.edge(always_night=now) as edge:
        apply_declared(session, node, config)
        limits = [one for one in (config.spool_limit, most_spool) if one is not None]
        report = wait_in_order(
            work(
                node,
                edge,
                datasets,
                tags=tags,
                command=piped,
                spool_limit=min(limits, default=None),
                readers=os.cpu_count() or 1,
                beside=_beside(session, config),
            )
        )
        _take_troubles(session, report.troubles)
        for one in report.datasets:
            _take(session, one)
        if report.integrity:
            session.worsen(exits.INTEGRITY)
    for notice in (*report.notices, *report.unreachable):
        session.out.notice(notice)
    for problem in report.integrity:
        session.out.notice(f"INTEGRITY: {problem}")
    return report


def _beside(session: Session, config: "Config") -> "MakeBeside":
    """Return what makes archives beside, by the rules of a keeper in this home, else by those of config.toml."""
    from replicator.engine.beside import Beside  # noqa: PLC0415 - commands import what they use
    from replicator.engine.borg import Borg, environment_of  # noqa: PLC0415
    from replicator.engine.home import Half, has_half  # noqa: PLC0415
    from replicator.engine.keeping import USUAL, rules_for  # noqa: PLC0415

    declared = {one.name: _rules(one.keep) for one in config.datasets if one.keep}

    def keep(dataset: str) -> "KeepRules":
        if not has_half(session.home, "keeper"):
            return declared.get(dataset, USUAL)
        keeper = Half(session.home, "keeper", session.fs)
        try:
            return rules_for(keeper, dataset)
        finally:
            keeper.close()

    def make(node: "NodeHome", edge: "Edge") -> Beside:
        # Read when it is needed, where what is wrong with it stops nothing else; and once, as a descriptor can be.
        environment = functools.cache(lambda: environment_of(edge.environment))

        def borg(repository: str, stop: "Stop") -> Borg:
            return Borg(
                repository,
                programs=edge.programs,
                environment=environment(),
                home=os.path.join(session.home, "borg"),
                stop=stop,
            )

        return Beside(node, edge, borg, keep)

    return make


def _rules(said: "Sequence[tuple[str, int]]") -> "KeepRules":
    from replicator.snapshot.retention import KeepRules  # noqa: PLC0415 - commands import what they use

    counts: dict[str, Any] = dict(said)
    return KeepRules(**counts)


def _take_beside(session: Session, dataset: str, beside: "BesideReport") -> None:
    """Say what went wrong with the archive beside a snapshot; the snapshot is whole without it."""
    if beside.error is not None:
        session.out.notice(f"{dataset}: archive beside: {beside.error.message}")
        if beside.error.hint:
            session.out.notice(f"  {beside.error.hint}")
    for warning in beside.warnings[:20]:
        session.out.notice(f"{dataset}: archive beside: {warning}")
    if beside.error is not None or beside.warnings:
        session.worsen(exits.GAPS)


def _take(session: Session, one: "DatasetReport") -> None:
    if one.error is not None:
        code = exits.code_of(one.error)
        # A usage error of one dataset among several is a failure of this run, not of the command line.
        session.worsen(exits.FAILED if code == exits.USAGE else code)
        session.out.notice(f"{one.dataset}: {one.error.message}")
        if one.error.hint:
            session.out.notice(f"  {one.error.hint}")
    _take_troubles(session, one.troubles)
    if one.beside is not None:
        _take_beside(session, one.dataset, one.beside)
    for path, reason in one.gaps[:20]:
        session.out.notice(f"{one.dataset}: {path}: {reason}")
    if len(one.gaps) > 20:
        session.out.notice(f"{one.dataset}: ... and {counted(len(one.gaps) - 20, 'more gap')}")
    for debt in (*one.debts, *one.owed):
        session.out.notice(f"{one.dataset}: owed: {debt}")
    if one.gaps or one.debts or one.owed:
        session.worsen(exits.GAPS)


def _take_troubles(session: Session, troubles: "Troubles") -> None:
    for notice in (*troubles.notices, *troubles.warnings):
        session.out.notice(notice)
    for problem in troubles.problems:
        session.out.notice(problem.message)
        if problem.hint:
            session.out.notice(f"  {problem.hint}")
    if troubles.problems:
        session.worsen(exits.FAILED)
    if troubles.warnings:
        session.worsen(exits.GAPS)


def _document(report: "BackupReport") -> dict[str, Any]:
    return {
        "datasets": [
            {
                "id": one.dataset,
                "dataset": one.dataset,
                "snapshot": one.snapshot.name.hex() if one.snapshot else None,
                "published": one.published,
                "files": one.files,
                "unchanged": one.unchanged,
                "bytes": one.bytes,
                "bytes_read": one.bytes_read,
                "new_chunks": one.new_chunks,
                "new_bytes": one.new_bytes,
                "stored_bytes": one.stored_bytes,
                "gaps": [{"id": path, "reason": reason} for path, reason in one.gaps],
                "skipped": [{"id": path, "reason": reason} for path, reason in one.skipped],
                "skipped_by_reason": one.skipped_by_reason,
                "debts": one.debts,
                "owed": one.owed,
                "error": one.error.message if one.error else None,
                "beside": None if one.beside is None else _beside_document(one.beside),
                **_troubles(one.troubles),
            }
            for one in report.datasets
        ],
        "finished_before": [row.name.hex() for row in report.finished_before],
        "sent_objects": report.sent_objects,
        "sent_bytes": report.sent_bytes,
        "unreachable": report.unreachable,
        "integrity": report.integrity,
        **_troubles(report.troubles),
        "seconds": round(report.seconds, 3),
    }


def _troubles(troubles: "Troubles") -> dict[str, Any]:
    return {"problems": [problem.message for problem in troubles.problems], "warnings": troubles.warnings}


def _beside_document(beside: "BesideReport") -> dict[str, Any]:
    return {
        "repository": beside.repository,
        "archive": beside.archive or None,
        "dropped": beside.dropped,
        "checked": beside.checked,
        "warnings": beside.warnings,
        "error": beside.error.message if beside.error else None,
    }


def _text(report: "BackupReport") -> list[str]:
    lines = [
        f"{row.dataset}: snapshot {row.name.hex()[:12]} of an earlier run is published now"
        for row in report.finished_before
    ]
    for one in report.datasets:
        if one.snapshot is None:
            lines.append(f"{one.dataset}: NOT backed up")
            continue
        state = "published" if one.published else "kept in the spool, NOT published"
        lines.append(
            f"{one.dataset}: {counted(one.files, 'file')}, {format_size(one.bytes)}; "
            f"read {format_size(one.bytes_read)}, new {format_size(one.new_bytes)} "
            f"stored as {format_size(one.stored_bytes)}; snapshot {one.snapshot.name.hex()[:12]} {state}"
        )
        lines += _left_out(one)
        if one.beside is not None and one.beside.archive:
            dropped = f"; dropped {len(one.beside.dropped)}" if one.beside.dropped else ""
            lines.append(f"{one.dataset}: archive beside: {one.beside.archive} in {one.beside.repository}{dropped}")
    lines.append(
        f"sent {counted(report.sent_objects, 'object')}, {format_size(report.sent_bytes)}, in {report.seconds:.1f} s"
    )
    return lines


def _left_out(one: "DatasetReport") -> list[str]:
    """Name what was left out by rule, reason by reason: many sockets shall not hide one file system."""
    lines = []
    for reason, count in one.skipped_by_reason.items():
        named = [path for path, said in one.skipped if said == reason][:_NAMED]
        more = f" and {count - len(named)} more" if count > len(named) else ""
        lines.append(f"{one.dataset}: left out, {reason}: {', '.join(named)}{more}")
    return lines


@click.command()
@click.option(
    "--spread", metavar="DURATION", help="Begin within so long (1h), each home always equally late: for cron."
)
@click.option("--up", metavar="SIZE", help="Bytes a second that may be sent, whatever config.toml allows.")
@click.option("--spool", metavar="SIZE", help="Bytes that may wait to be sent, whatever config.toml allows.")
@click.option("--all", "everyone", is_flag=True, help="The night of every home below --homes, in fair turns.")
@click.option("--homes", metavar="DIR", help="For --all: the folder with a home for each tenant; or REPLICATOR_HOMES.")
@click.option("--at-a-time", default=2, show_default=True, type=click.IntRange(1, 64), help="For --all: how many run.")
@click.option("--slice", "slice_", default="1h", show_default=True, help="For --all: how long before others' turns.")
@click.option("--within", default="20h", show_default=True, help="For --all: how long it may take in all.")
@command(keys="whatever this home holds", run="run")
def run(
    session: Session,
    spread: str | None,
    up: str | None,
    spool: str | None,
    everyone: bool,
    homes: str | None,
    at_a_time: int,
    slice_: str,
    within: str,
) -> None:
    """Do the night's work as far as this home's keys go, and name what is due elsewhere.

    A node: repairs that are urgent, backup, audit, other repairs, rebalance, extra copies. A keeper whose passphrase is
    given (--passphrase-file, REPLICATOR_PASSPHRASE_FILE or a systemd credential): forget by each dataset's rules, then
    prune. A maintainer: prune.

    With --all many tenants' homes have their nights, each as a process of its own: who waited longest begins, line and
    disk are shared, and one that takes long makes room for others and goes on later. It never gets a passphrase. The
    exit code is the worst of all.
    """
    from replicator.engine.home import has_half  # noqa: PLC0415

    most_up, most_spool = _part(up, "--up"), _part(spool, "--spool")
    if everyone:
        from replicator.cli.everyone import Turns, run_all  # noqa: PLC0415 - only who has many tenants needs it

        if spread is not None:
            raise UsageError("--spread is for one home", hint="a timer's delay does the same for --all")
        turns = Turns(
            at_a_time=at_a_time,
            slice_s=max(1, parse_duration(slice_)),
            limit_s=max(1, parse_duration(within)),
            up=most_up,
            spool=most_spool,
        )
        run_all(session, homes, turns)
        return
    if homes is not None:
        raise UsageError("--homes is for --all", hint="give both, or --home DIR for one home")
    if most_up is not None and most_up < LEAST_RATE:
        raise UsageError(f"--up {up} a second is too little", hint=f"at least {format_size(LEAST_RATE)}")
    session.most_up = most_up

    if spread is not None:
        _wait_for_turn(session, parse_duration(spread))
    keeps = has_half(session.home, "keeper")
    maintains = keeps or has_half(session.home, "maintainer")
    document: dict[str, Any] = {}
    lines: list[str] = []
    if has_half(session.home, "node") or not maintains:
        _night_of_node(session, document, lines, most_spool)
        _night_of_extras(session, document, lines)
    if maintains and (session.has_passphrase or not keeps):
        _night_of_maintenance(session, document, lines, forgets=keeps)
        due = ["content checks and restores on the keeper (`verify` and `drill` there)"]
        if not keeps:
            due.append("forgetting by rules on the keeper (`forget` there, it needs names)")
    else:
        said = _last_said(session)
        due = [
            "content checks and restores on the keeper (`verify` there)",
            f"`forget` and `prune` {'with the passphrase of this home' if keeps else 'on the keeper'} ({said})",
        ]
    document["due"] = due
    session.out.result(document, [*lines, *(f"due elsewhere: {one}" for one in due)])


def _part(text: str | None, option: str) -> int | None:
    size = None if text is None else parse_size(text)
    if size == 0:
        raise UsageError(f"{option} of 0 lets nothing pass", hint="leave it out for no limit")
    return size


def _night_of_node(session: Session, document: dict[str, Any], lines: list[str], most_spool: int | None) -> None:
    from replicator.engine.rebalance import rebalance  # noqa: PLC0415
    from replicator.engine.repair import mend_urgent, repair  # noqa: PLC0415

    def urgently() -> "RepairReport":
        with session.node() as node, session.edge() as edge:
            return wait(mend_urgent(node, edge))

    def mend() -> "RepairReport":
        with session.node() as node, session.edge() as edge:
            return wait(repair(node, edge, by_hand=False))

    def move() -> "RebalanceReport":
        with session.node() as node, session.edge() as edge:
            return wait(rebalance(node, edge))

    with session.node():
        pass  # a home that cannot be opened is one failure, and none of each part
    urgent = _part_of_night(session, document, "urgent", urgently)
    report = _backup(session, most_spool=most_spool)
    document |= _document(report)
    lines += _text(report)
    mended = _part_of_night(session, document, "repair", mend)
    if mended is None:
        return
    session.worsen(mended.exit_code)
    for debt in mended.debts:
        session.out.notice(f"owed: {debt}")
    made_before = 0 if urgent is None else urgent.made
    document["audit"] = proofs_document(mended)
    document["repair"] = {
        "missing": mended.missing,
        "damaged": mended.damaged,
        "made": mended.made,
        "let_go": mended.let_go,
        "debts": mended.debts,
        "urgent": made_before,
        "waiting": [{"id": name, "state": word} for name, word in mended.waiting.items()],
    }
    lines.append(f"audit: {proofs_words(mended)}")
    waits = "".join(f"; {name} is {word}" for name, word in mended.waiting.items())
    made = f"{made_before + mended.made} made again" + f", {made_before} of them before the backup" * bool(made_before)
    lines.append(
        f"repair: {mended.missing} missing and {counted(mended.damaged, 'damaged copy', 'damaged copies')}, "
        f"{made}{waits}"
    )
    if mended.let_go:
        lines.append(
            f"repair: {counted(mended.let_go, 'copy more than promised is', 'copies more than promised are')} "
            "let go of, for `prune` to release"
        )
    document["rebalance"] = {"moved": 0}
    # What lacks copies has the line first; a night that ends with debts moves nothing.
    moved = None if mended.exit_code else _part_of_night(session, document, "rebalance", move)
    if moved is not None:
        session.worsen(moved.exit_code)
        for reason in (*moved.owed, *(f"has no place: {one}" for one in moved.refused)):
            session.out.notice(f"owed: {reason}")
        document["rebalance"] = {"moved": moved.made}
        if moved.moves:
            lines.append(f"rebalance: {moved.made} of {counted(len(moved.moves), 'copy', 'copies')} made elsewhere")


def _part_of_night(session: Session, document: dict[str, Any], name: str, work: Callable[[], T]) -> T | None:
    """Do a part of the night; what it ends with takes nothing from the others, and is in the document and the code."""
    try:
        return work()
    except BrokenPipeError:
        raise  # nobody reads any more: that is no part's failure
    except Exception as failure:  # a disk's too: what was done before is in the document
        error = as_error(failure)
        code = exits.code_of(error)
        session.worsen(exits.FAILED if code == exits.USAGE else code)
        session.out.notice(f"{name}: {error.message}")
        if error.hint:
            session.out.notice(f"  {error.hint}")
        document[name] = {"error": error.message}
        return None


def _night_of_extras(session: Session, document: dict[str, Any], lines: list[str]) -> None:
    from replicator.cli.extra import report_document, report_words, write_all  # noqa: PLC0415

    reports = _part_of_night(session, document, "extras", lambda: write_all(session))
    if reports is None:
        return
    document["extras"] = [report_document(one) for one in reports]
    lines += map(report_words, reports)


def _night_of_maintenance(session: Session, document: dict[str, Any], lines: list[str], *, forgets: bool) -> None:
    from replicator.cli.forget import forget_by_settings  # noqa: PLC0415
    from replicator.cli.prune import prune_document, prune_text, run_prune  # noqa: PLC0415

    if forgets:
        gone = forget_by_settings(session)
        document["forgotten"] = gone
        lines.append(f"forget: {counted(len(gone), 'snapshot')} that no rule keeps")
    report = run_prune(session, dry_run=False)
    document["prune"] = prune_document(report)
    lines += [f"prune: {line}" for line in prune_text(report) if line]


def _last_said(session: Session) -> str:
    """Return when maintenance spoke last, as far as this home has heard."""
    from replicator.engine.forgetting import Forgotten  # noqa: PLC0415

    with session.member() as half:
        said_ns = Forgotten.of(half).said_ns
    return f"last {moment(said_ns)[:10]}" if said_ns else "never yet, as far as is known here"


def _wait_for_turn(session: Session, span_s: int) -> None:
    from scheduler.night import start_offset  # noqa: PLC0415

    with session.member() as half:
        wait_s = start_offset(half.tenant + half.identity, span_s)
    session.out.notice(f"begins in {wait_s / 60:.0f} min")
    wait_in_order(session.clock.sleep(wait_s))
