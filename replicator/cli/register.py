"""register."""

import csv
import html
import io
import os
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command
from replicator.cli.browse import with_library
from replicator.cli.output import moment, plain, table
from replicator.cli.proofs import week_document
from replicator.config import counted, format_size
from replicator.errors import UsageError
from replicator.fs import write_atomic

if TYPE_CHECKING:
    from replicator.engine.audit import Audited
    from replicator.engine.register import Register

COLUMNS = (
    "holder", "legal name", "contact", "country", "dataset", "bytes", "from", "until", "as of", "proved in a week",
)  # fmt: skip
OTHER = "(keys, charters, and what no snapshot names)"
_AS_FORMULA = re.compile("(^|;)(?=[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")
"""Before what spreadsheets take for the beginning of a formula, or cut off before one; the last four are full-width.

Where a comma is in numbers, which is most of Europe, they begin a cell after each semicolon.
"""


@click.command()
@click.option("--csv", "as_csv", is_flag=True, help="As comma-separated values, for a spreadsheet.")
@click.option("--html", "as_html", is_flag=True, help="As a page to print, or to hand over.")
@click.option("--output", metavar="FILE", help="Where to, with --csv or --html; replaces what is there.")
@command(keys="restore, to read names (keeper)")
def register(session: Session, as_csv: bool, as_html: bool, output: str | None) -> None:
    """Say who keeps how much of which dataset, in which country, since when and until when.

    A record of processors as the GDPR's article 30 asks for. Legal names and contacts are those of `peer set`, else
    those that providers state themselves. An object that datasets share is counted for each of them. `until` is empty
    as long as snapshots are kept; what is marked has the first day on which all of it may be gone. The last column is
    what the holder proved to this home within a week, of all that lies there; the JSON has its signed receipts.
    """
    from replicator.engine.home import has_half  # noqa: PLC0415 - commands import what they use
    from replicator.engine.register import register as run  # noqa: PLC0415

    if as_csv and as_html:
        raise UsageError("--csv and --html are two forms", hint="give one of them")
    form = _csv if as_csv else _html if as_html else None
    if output is not None and form is None:
        raise UsageError("--output is for one of two forms", hint="give --csv or --html too")
    if session.as_json and form is not None and output is None:
        raise UsageError("--json and another form cannot both be standard output", hint="give --output FILE too")
    with ExitStack() as stack:
        node = stack.enter_context(session.node()) if has_half(session.home, "node") else None
        found = with_library(session, lambda library, edge: run(library, edge, node=node))
    for gap in found.gaps:
        session.out.notice(gap)
    if found.gaps:
        session.worsen(exits.GAPS)
    for entry in found.entries:
        if entry.dataset and not (entry.holder.legal_name and entry.holder.contact):
            session.out.notice(
                "some holders have no legal name or contact: `peer set NAME --legal-name ... --contact ...`"
            )
            break
    text = form(found) if form is not None else "\n".join(_table(found))
    if output is not None:
        write_atomic(session.fs, os.path.abspath(output), text.encode())
        text = f"{len(found.entries)} rows are in {os.path.abspath(output)}."
    session.out.result(document(found), text.removesuffix("\n"))


def document(found: "Register") -> list[dict[str, Any]]:
    """Return the register for programs."""
    return [
        {
            "id": f"{entry.holder.identity.hex()}/{entry.dataset}{'/dying' if entry.until_ns else ''}",
            "holder": entry.holder.name,
            "identity": entry.holder.identity.hex(),
            "peer": entry.holder.is_peer,
            "legal_name": entry.holder.legal_name,
            "contact": entry.holder.contact,
            "country": entry.holder.country,
            "dataset": entry.dataset,
            "objects": entry.objects,
            "bytes": entry.bytes,
            "from": moment(entry.from_ns),
            "until": moment(entry.until_ns),
            "as_of": moment(entry.as_of_ns),
            "week": week_document(found.proofs.get(entry.holder.identity)),
        }
        for entry in found.entries
    ]


def _rows(found: "Register") -> list[tuple[str, ...]]:
    return [
        tuple(
            plain(cell)
            for cell in (
                entry.holder.name if entry.holder.is_peer else f"{entry.holder.name} (no peer any more)",
                entry.holder.legal_name,
                entry.holder.contact,
                entry.holder.country,
                entry.dataset or OTHER,
                str(entry.bytes),
                moment(entry.from_ns)[:10],
                moment(entry.until_ns)[:10],
                moment(entry.as_of_ns),
                _proved(found.proofs.get(entry.holder.identity)),
            )
        )
        for entry in found.entries
    ]


def _proved(week: "Audited | None") -> str:
    """Return what a holder proved, and until when, of all that lies there."""
    if week is None:
        return ""
    return f"{week.proved} of {counted(week.probes, 'proof')}, {moment(week.asked_ns)[:10]}" + ", signed" * bool(
        week.signed
    )


def _table(found: "Register") -> list[str]:
    rows = [(*row[:5], format_size(int(row[5])), *row[6:]) for row in _rows(found)]
    return table([one.upper() for one in COLUMNS], rows)


def _csv(found: "Register") -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([_AS_FORMULA.sub(r"\1'", cell) for cell in row] for row in _rows(found))
    return text.getvalue()


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid #999; padding: 0.3em 0.6em; text-align: left; vertical-align: top; }}
td.bytes {{ text-align: right; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>Made {made}, for {tenant} ({country}). All that is kept is encrypted; no holder has a key to it.</p>
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p>What datasets share is counted for each of them. Without a date under "until", it is kept as long as its snapshots
are; with one, the holder was told to delete it, and will have on that day at the earliest.</p>
{gaps}</body>
</html>
"""


def _html(found: "Register") -> str:
    rows = [
        "<tr>"
        + "".join(
            f'<td class="bytes">{html.escape(cell)}</td>' if head == "bytes" else f"<td>{html.escape(cell)}</td>"
            for head, cell in zip(COLUMNS, row, strict=True)
        )
        + "</tr>"
        for row in _rows(found)
    ]
    return _PAGE.format(
        title="Who keeps our backups",
        made=html.escape(moment(found.made_ns)),
        tenant=html.escape(plain(found.tenant)),
        country=html.escape(found.country),
        heads="".join(f"<th>{head}</th>" for head in COLUMNS),
        rows="\n".join(rows),
        gaps="".join(f"<p>{html.escape(plain(gap))}.</p>\n" for gap in found.gaps),
    )
