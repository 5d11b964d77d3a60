"""runs: what this home did, run by run."""

import json
from typing import TYPE_CHECKING, Any

import click

from replicator.cli.base import Session, command, common_options
from replicator.cli.output import moment, table
from replicator.clock import NS
from replicator.errors import NotFoundError

if TYPE_CHECKING:
    from replicator.catalog.runs import Run


@click.group()
@common_options
def runs() -> None:
    """What this home did: every run with its start, its end, and what it said; the last 500."""


@runs.command("list")
@click.option("--last", "count", default=30, show_default=True, type=click.IntRange(1, 500), help="How many.")
@command(keys="none beyond being a member")
def list_runs(session: Session, count: int) -> None:
    """List the last runs, the newest first. One without an end still runs, or was killed."""
    with session.member() as half:
        found = half.catalog.log.newest(count)
    session.out.result(
        [_row(run) for run in found],
        table(
            ("ID", "RUN", "STARTED", "SECONDS", "EXIT"),
            [(run.id, run.kind, moment(run.started_ns), *_outcome(run)) for run in found],
        ),
    )


@runs.command("show")
@click.argument("run")
@command(keys="none beyond being a member")
def show(session: Session, run: str) -> None:
    """Show all that a run said: every file, object and provider that it named. RUN: an id, or latest.

    Of long lists the first 200 entries are kept, and how many there were.
    """
    with session.member() as half:
        if run == "latest":
            newest = half.catalog.log.newest(1)
            number = newest[0].id if newest else 0
        else:
            number = int(run) if run.isascii() and run.isdigit() and len(run) < 19 else 0
        found = half.catalog.log.get(number)
    if found is None:
        raise NotFoundError(f"no run '{run}' in this home", hint="`replicator runs list` lists them")
    document = _row(found) | {"said": found.document}
    session.out.result(
        document,
        [
            f"{found.kind}, began {moment(found.started_ns)}, {_how(found)}",
            *json.dumps(found.document, indent=1, ensure_ascii=False).splitlines(),
        ],
    )


def _row(run: "Run") -> dict[str, Any]:
    return {
        "id": str(run.id),
        "run": run.kind,
        "started": moment(run.started_ns),
        "ended": moment(run.ended_ns),
        "exit": run.code if run.ended_ns else None,
    }


def _outcome(run: "Run") -> tuple[str, str]:
    return (f"{(run.ended_ns - run.started_ns) / NS:.0f}", str(run.code)) if run.ended_ns else ("", "")


def _how(run: "Run") -> str:
    if not run.ended_ns:
        return "no end: it still runs, or was killed"
    return f"ended {moment(run.ended_ns)} with {run.code}"
