"""find, versions, diff."""

from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command
from replicator.cli.browse import look_document, with_library
from replicator.cli.output import moment, table
from replicator.config import counted, format_size, parse_moment, parse_size
from replicator.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.engine.browse import Library, OpenSnapshot
    from replicator.engine.edge import Edge
    from replicator.engine.history import HistoryReport, PathVersion
    from replicator.engine.search import Found, SearchReport, Trouble
    from replicator.snapshot.diff import Change, Summary
    from replicator.snapshot.tree import TreePath
    from replicator.snapshot.versions import Version

_KINDS = {"f": "file", "d": "dir", "l": "link"}
_ID = 12


@click.command()
@click.argument("pattern")
@click.option("--snapshot", metavar="SNAPSHOT", help="Look in this one only.")
@click.option("--dataset", metavar="NAME", help="Look in the snapshots of this dataset only.")
@click.option("--type", "kind", type=click.Choice(list(_KINDS)), help="Files, directories (folders) or links only.")
@click.option("--larger", metavar="SIZE", help="Files of more than this, such as 1M.")
@click.option("--smaller", metavar="SIZE", help="Files of less than this, such as 1G.")
@click.option("--newer", metavar="WHEN", help="Modified since a day (2026-01-01, UTC) or so long ago (7d).")
@click.option("--older", metavar="WHEN", help="Modified before that.")
@click.option("--ignore-case", is_flag=True, help="Let upper and lower case be the same.")
@command(keys="restore (keeper)")
def find(
    session: Session,
    pattern: str,
    snapshot: str | None,
    dataset: str | None,
    kind: str | None,
    larger: str | None,
    smaller: str | None,
    newer: str | None,
    older: str | None,
    ignore_case: bool,
) -> None:
    """Look for names in all snapshots; what stayed the same is told once, with the first and the last one it is in.

    PATTERN is compared with names, or with paths if it has a slash: * and ? match no slash, ** any number of folders,
    a slash in front means the whole path, in the snapshot or as it was on the node. Quote it: '*.jpg'.
    """
    from replicator.engine.search import search, select  # noqa: PLC0415 - commands import what they use
    from replicator.snapshot.glob import Glob  # noqa: PLC0415
    from replicator.snapshot.search import Criteria  # noqa: PLC0415

    now_ns = session.clock.now_ns()
    criteria = Criteria(
        pattern=Glob.parse(pattern, ignore_case=ignore_case),
        kinds=() if kind is None else (_KINDS[kind],),  # type: ignore[arg-type] # the table's values are kinds
        larger=None if larger is None else parse_size(larger),
        smaller=None if smaller is None else parse_size(smaller),
        newer_ns=None if newer is None else parse_moment(newer, now_ns),
        older_ns=None if older is None else parse_moment(older, now_ns),
    )

    async def work(library: "Library", edge: "Edge") -> "SearchReport":
        return await search(library, edge, await select(library, snapshot=snapshot, dataset=dataset), criteria)

    report = with_library(session, work)
    take_trouble(session, report.trouble)
    if not report.found:
        session.out.notice(f"Nothing matches in {counted(report.snapshots, 'snapshot')}.")
    session.out.result(
        [_found_document(one) for one in report.found],
        _times((one, "present") for one in report.found) if report.found else [],
    )


def _found_document(one: "Found") -> dict[str, Any]:
    path = _text(one.path)
    return {
        "id": f"{one.last.id}:{path}",
        "path": path,
        "snapshot": one.last.id,
        "snapshots": one.count,
        **_span(one.first, one.last),
        **look_document(one.version),
    }


@click.command()
@click.argument("path")
@click.option("--dataset", metavar="NAME", help="Look in the snapshots of this dataset only.")
@command(keys="restore (keeper)")
def versions(session: Session, path: str, dataset: str | None) -> None:
    """List every version of one file or folder over all snapshots, and when it was not there.

    Restore one with `replicator restore SNAPSHOT PATH`, with the id in column IN.
    """
    from replicator.engine.history import versions as look  # noqa: PLC0415
    from replicator.engine.search import select  # noqa: PLC0415

    async def work(library: "Library", edge: "Edge") -> "HistoryReport":
        return await look(library, edge, await select(library, dataset=dataset), path)

    report = with_library(session, work)
    take_trouble(session, report.trouble)
    session.out.result(
        [_version_row(one) for one in report.versions], _times((one, one.state) for one in report.versions)
    )


def _times(found: "Iterable[tuple[Found | PathVersion, str]]") -> list[str]:
    """Return what there was (or, without a version, how there was nothing) and in which snapshots, for people."""
    rows: list[tuple[object, ...]] = []
    for one, state in found:
        span = (moment(one.first.row.created_ns), moment(one.last.row.created_ns), one.count)
        version = one.version
        look: tuple[object, ...] = ("-", state, "-", "-")
        if version is not None:
            look = (one.last.id[:_ID], version.kind, version.size, moment(version.mtime_ns))
        rows.append((*span, *look, _shown(one.path, version)))
    return table(("FIRST", "LAST", "SNAPSHOTS", "IN", "TYPE", "SIZE", "MODIFIED", "PATH"), rows)


def _version_row(one: "PathVersion") -> dict[str, Any]:
    return {
        # A snapshot has one version of a path or none, so this is the id of the row too.
        "id": one.last.id,
        "path": _text(one.path),
        "state": one.state,
        "snapshot": one.last.id if one.version else None,
        "snapshots": one.count,
        **_span(one.first, one.last),
        **(look_document(one.version) if one.version else {}),
    }


@click.command()
@click.argument("old")
@click.argument("new")
@click.argument("path", required=False, default="")
@command(keys="restore (keeper)")
def diff(session: Session, old: str, new: str, path: str) -> None:
    """Say what changed from snapshot OLD to snapshot NEW, at PATH and below it, and how many bytes that is.

    OLD, NEW: id prefix, latest, latest:DATASET, DATASET@2026-11-17. The exit code does not say whether they differ.
    """
    from replicator.engine.diff import diff as compare  # noqa: PLC0415
    from replicator.engine.naming import choose  # noqa: PLC0415

    documents: list[dict[str, Any]] = []

    def take(change: "Change") -> None:
        if session.as_json:
            documents.append(_change_document(change))
        else:
            session.out.result(None, _change_line(change))

    async def work(library: "Library", _edge: "Edge") -> "tuple[OpenSnapshot, OpenSnapshot, Summary]":
        from replicator.engine.browse import label_of  # noqa: PLC0415

        found = await library.snapshots()
        labels = [label_of(one) for one in found]
        before, after = (found[choose(labels, name)] for name in (old, new))
        return before, after, await compare(library, before, after, path, take)

    before, after, summary = with_library(session, work)
    counts = {
        "added": summary.added,
        "removed": summary.removed,
        "content": summary.content,
        "metadata": summary.metadata,
        "type": summary.type,
    }
    session.out.result(
        {
            "id": f"{before.id}..{after.id}",
            "old": before.id,
            "new": after.id,
            "changes": documents,
            "summary": {
                **counts,
                "changes": sum(counts.values()),
                "bytes_added": summary.bytes_added,
                "bytes_removed": summary.bytes_removed,
            },
        },
        f"{summary.added} added, {summary.removed} removed, {summary.content} with other content, "
        f"{summary.metadata} with other metadata only, {summary.type} of another type; "
        f"{format_size(summary.bytes_added)} came, {format_size(summary.bytes_removed)} went",
    )


def _change_line(change: "Change") -> str:
    sizes = []
    for sign, one in (("-", change.old), ("+", change.new)):
        if one is not None and one.kind == "file" and change.what != "metadata":
            sizes.append(f"{sign}{one.size}")
    new = change.new or change.old
    assert new is not None, "a change has one side at least"
    aspects = f" ({', '.join(change.aspects)})" if change.what == "metadata" else ""
    kinds = f" ({change.old.kind} -> {change.new.kind})" if change.what == "type" and change.old and change.new else ""
    slash = "/" if new.kind == "dir" else ""
    return f"{change.what:<8}  {' '.join(sizes):>16}  {_text(change.path)}{slash}{aspects}{kinds}"


def _change_document(change: "Change") -> dict[str, Any]:
    from replicator.snapshot.versions import version_of  # noqa: PLC0415

    path = _text(change.path)
    return {
        "id": path,
        "path": path,
        "change": change.what,
        "aspects": change.aspects,
        "old": None if change.old is None else look_document(version_of(change.old)),
        "new": None if change.new is None else look_document(version_of(change.new)),
    }


def take_trouble(session: Session, trouble: "Trouble") -> None:
    """Name the snapshots that could not be read, and take over the exit code."""
    for one, error in trouble:
        session.out.notice(
            f"snapshot {one.id[:_ID]} of {one.details.dataset}, {moment(one.row.created_ns)}: {error.message}"
        )
        session.worsen(exits.GAPS if isinstance(error, NotFoundError) else exits.INTEGRITY)


def _span(first: "OpenSnapshot", last: "OpenSnapshot") -> dict[str, Any]:
    return {
        "dataset": last.details.dataset,
        "node": last.node,
        "first": moment(first.row.created_ns),
        "last": moment(last.row.created_ns),
        "first_snapshot": first.id,
        "last_snapshot": last.id,
    }


def _text(path: "TreePath") -> str:
    from replicator.snapshot.tree import escape  # noqa: PLC0415

    return escape(b"/".join(path))


def _shown(path: "TreePath", version: "Version | None") -> str:
    """Return a path as lists show it: links with what they point to, folders with a slash."""
    from replicator.snapshot.tree import escape  # noqa: PLC0415

    if version is not None and version.kind == "link":
        return f"{_text(path)} -> {escape(version.target)}"
    return _text(path) + ("/" if version is not None and version.kind == "dir" else "")
