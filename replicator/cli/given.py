"""provider usage: what a provider kept, took and gave, tenant by tenant and month by month."""

import re
from typing import Final

import click

from replicator.cli.base import Session, command
from replicator.cli.output import table
from replicator.config import format_size
from replicator.errors import UsageError

_MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@click.command("usage")
@click.option("--month", metavar="YYYY-MM", help="Only this one, in UTC; else all that are kept.")
@command(keys="provider identity")
def usage(session: Session, month: str | None) -> None:
    """Show what each tenant kept here at the most, sent and fetched, month by month.

    These are the figures that a tenant sees with `peer usage`; a running daemon writes them down every half hour. They
    are kept for 24 months, and go with the tenant when it is erased.
    """
    from replicator.provider.home import open_provider  # noqa: PLC0415 - commands import what they use

    if month is not None and _MONTH.fullmatch(month) is None:
        raise UsageError(f"'{month}' is no month", hint="write it like --month 2026-11")
    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    try:
        found = [(one, label) for one, label in opened.months() if month in (None, one.month)]
    finally:
        opened.close()
    rows = [
        {
            "id": f"{one.tenant.hex()} {one.month}",
            "tenant": one.tenant.hex(),
            "label": label,
            "month": one.month,
            "kept": one.kept,
            "taken": one.taken,
            "given": one.given,
        }
        for one, label in found
    ]
    lines = table(
        ("MONTH", "TENANT", "LABEL", "KEPT AT MOST", "CAME IN", "WENT OUT"),
        [
            (one.month, one.tenant.hex()[:12], label, *map(format_size, (one.kept, one.taken, one.given)))
            for one, label in found
        ],
    )
    nothing = f"for {month}" if month else "yet; a running daemon does it every half hour"
    session.out.result(rows, lines if rows else [f"Nothing was written down {nothing}."])
