"""snapshots, ls, cat, restore."""

import base64
import importlib
import os
import stat
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, unlocking, wait, wait_in_order
from replicator.cli.findings import freshness_document, seen_in_words
from replicator.cli.output import moment, output_error, table
from replicator.config import counted, format_size
from replicator.errors import NotFoundError
from replicator.ids import short

if TYPE_CHECKING:
    from replicator.engine.browse import Library
    from replicator.engine.carried import CarriedFederation
    from replicator.engine.edge import Edge
    from replicator.engine.federation import Federation
    from replicator.engine.freshness import Freshness
    from replicator.engine.keeper import ReaderHome
    from replicator.engine.node import NodeHome
    from replicator.engine.restore import RestoreReport
    from replicator.format.tree import Entry
    from replicator.snapshot.tree import TreePath, TreeReader
    from replicator.snapshot.versions import Version

T = TypeVar("T")
_FROM = click.option(
    "--from",
    "disks",
    metavar="DISK",
    multiple=True,
    help="Read this folder, a carried disk or one off a provider, and ask nobody; repeatable.",
)
_LETTERS = {"file": "-", "dir": "d", "link": "l", "fifo": "p", "char": "c", "block": "b"}


def with_library(
    session: Session,
    work: "Callable[[Library, Edge], Coroutine[Any, Any, T]]",
    *,
    first: "Callable[[ReaderHome], object] | None" = None,
    uses: str = "replicator.engine.browse",
    in_order: bool = False,
    disks: tuple[str, ...] = (),
) -> T:
    """Run a use case on a home that can read, in touch with its peers and knowing every chain.

    ``first`` raises what is known before anybody is asked, as a wrong passphrase is. ``uses`` is the module that the
    use case needs most of, loaded while keys are unlocked. What providers did not do or did wrong is said also if the
    use case fails. ``in_order``: it has something to undo when it is ended by a signal. ``disks``: what lies there is
    read, and nobody is asked.
    """
    with session.reader() as keeper, session.edge() as edge:
        with unlocking(keeper):
            importlib.import_module(uses)
            from replicator.engine.browse import Library  # noqa: PLC0415 - commands import what they use
            from replicator.engine.federation import Federation  # noqa: PLC0415
        if first is not None:
            first(keeper)

        async def run() -> T:
            carried = _from_disks(keeper, edge, disks) if disks else None
            async with carried or Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
                library = Library(keeper, federation)
                if carried is None:
                    await library.refresh()
                else:
                    await carried.learn()
                try:
                    return await work(library, edge)
                finally:
                    take_federation(session, federation)

        return wait_in_order(run()) if in_order else wait(run())


def _from_disks(keeper: "ReaderHome", edge: "Edge", disks: tuple[str, ...]) -> "CarriedFederation":
    from replicator.engine.carried import CarriedFederation  # noqa: PLC0415 - commands import what they use
    from replicator.store.carried import CarriedDisk  # noqa: PLC0415

    return CarriedFederation(keeper, edge, [CarriedDisk(disk) for disk in disks])


def take_federation(session: Session, federation: "Federation") -> None:
    """Say what providers did not do or did wrong, and take over the exit code."""
    for notice in (*federation.notices, *(str(error) for error in federation.failures.values())):
        session.out.notice(notice)
    for problem in federation.integrity:
        session.out.notice(f"INTEGRITY: {problem}")
    if federation.integrity:
        session.worsen(exits.INTEGRITY, remembered=federation.noted == len(federation.integrity))


@click.command()
@click.argument("dataset", required=False)
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Only those with this tag; of several, with all.")
@click.option("--forgotten", is_flag=True, help="Those that were forgotten and may still be there, instead.")
@_FROM
@command(keys="restore (keeper); a node lists what it wrote itself")
def snapshots(
    session: Session, dataset: str | None, tags: tuple[str, ...], forgotten: bool, disks: tuple[str, ...]
) -> None:
    """List snapshots, oldest first."""
    from replicator.engine.home import has_half  # noqa: PLC0415

    if has_half(session.home, "keeper") or has_half(session.home, "drill") or disks:
        rows = with_library(session, partial(_snapshot_rows, forgotten=forgotten), disks=disks)
    else:
        with session.node() as node:
            rows = _own_rows(session, node, forgotten=forgotten)
    if dataset is not None:
        rows = [row for row in rows if row["dataset"] == dataset]
    rows = [row for row in rows if set(tags) <= set(row["tags"])]
    text = table(
        ("ID", "DATASET", "TIME", "NODE", "FILES", "SIZE", "TAGS"),
        [
            (
                str(row["id"])[:12],
                row["dataset"],
                row["time"],
                row["node"],
                row["files"],
                format_size(int(row["size"])),
                ", ".join(row["tags"]),
            )
            for row in rows
        ],
    )
    for row in rows:
        seen = row.pop("seen")
        if row["newest"]:
            text.append(f"{row['dataset']} of {row['node']}: {seen}")
            for warning in row["warnings"]:
                session.out.notice(f"{row['dataset']} of {row['node']}: {warning}")
    session.out.result(rows, text)


def _own_rows(session: Session, node: "NodeHome", *, forgotten: bool) -> list[dict[str, Any]]:
    """Return what a node lists, which asks nobody: its own snapshots, and who is known to have seen them."""
    from replicator.engine.forgetting import Forgotten  # noqa: PLC0415 - commands import what they use
    from replicator.engine.freshness import freshness  # noqa: PLC0415

    now, state = session.clock.now_ns(), Forgotten.of(node)
    rows = node.catalog.snapshots.all("writer = ?", (node.identity,))
    own = [row for row in rows if row.dataset and state.hides(row) == forgotten]
    newest = {row.dataset: row.name for row in own}
    return [
        {
            "id": row.name.hex(),
            "dataset": row.dataset,
            "time": moment(row.created_ns),
            "node": session_name(node),
            "size": row.size,
            "files": row.files,
            "tags": list(row.tags),
            "published": bool(row.published_ns),
            "gaps": len(row.gaps),
            "newest": row.name == newest[row.dataset],
            **_freshness_row(freshness(node, row, None, now)),
        }
        for row in own
    ]


def session_name(node: Any) -> str:
    """Return a node's petname."""
    for one in node.private.nodes:
        if one.identity == node.identity:
            return str(one.name)
    return short(node.identity)


async def _snapshot_rows(library: "Library", edge: "Edge", *, forgotten: bool) -> list[dict[str, Any]]:
    from replicator.engine.browse import newest_of_each  # noqa: PLC0415 - commands import what they use
    from replicator.engine.freshness import freshness  # noqa: PLC0415

    now = edge.clock.now_ns()
    found = await library.snapshots(forgotten=forgotten)
    newest = {one.id for one in newest_of_each(found)}
    return [
        {
            "id": one.id,
            "dataset": one.details.dataset,
            "time": moment(one.row.created_ns),
            "node": one.node,
            "size": one.row.size,
            "files": one.row.files,
            "tags": list(one.details.tags),
            "host": one.details.host,
            "paths": [os.fsdecode(root.path) for root in one.details.roots],
            "partial": one.row.partial,
            "gaps": len(one.details.gaps),
            "newest": one.id in newest,
            **_freshness_row(freshness(library.keeper, one.row, library.heads.get(one.row.writer), now)),
        }
        for one in found
    ]


def _freshness_row(found: "Freshness") -> dict[str, Any]:
    return {**freshness_document(found), "seen": seen_in_words(found.age_s, found.witnesses)}


@click.command()
@click.argument("snapshot")
@click.argument("path", required=False, default="")
@click.option("-R", "--recursive", is_flag=True, help="Also what is below the folders.")
@command(keys="restore (keeper)")
def ls(session: Session, snapshot: str, path: str, recursive: bool) -> None:
    """List what a snapshot holds at PATH. SNAPSHOT: id prefix, latest, latest:DATASET, DATASET@2026-11-17."""

    async def work(library: "Library", _edge: "Edge") -> None:
        from replicator.engine.browse import ChunkFetcher, find_path  # noqa: PLC0415 - while keys are unlocked

        found = await library.find(snapshot)
        fetcher = ChunkFetcher(library, found.snapshot.domain)

        def rows(reader: "TreeReader") -> "Iterator[tuple[TreePath, Entry]]":
            here = find_path(reader, found, path)
            content = found.details.tree
            if here:
                entry = reader.lookup(content, here)
                if entry.kind != "dir" or entry.content is None:
                    yield here, entry
                    return
                content = entry.content
            if recursive:
                yield from reader.walk(content, at=here)
            else:
                yield from (((*here, entry.name), entry) for entry in reader.entries(content))

        # Printed from the thread that reads, row by row: a folder of any size needs no memory as text.
        await fetcher.in_thread(lambda reader: session.out.rows(rows(reader), _ls_document, _ls_line, _LS_HEADER))

    with_library(session, work)


_LS_COLUMNS = "{:<10}  {:<8}  {:<8}  {:>12}  {:<25}  {}"
_LS_HEADER = _LS_COLUMNS.format("MODE", "USER", "GROUP", "SIZE", "TIME", "PATH")


def _ls_document(row: "tuple[TreePath, Entry]") -> dict[str, Any]:
    from replicator.snapshot.tree import escape  # noqa: PLC0415

    where, entry = row
    name = escape(b"/".join(where))
    return {
        "id": name,
        "path": name,
        "name": escape(entry.name),
        **look_document(entry),
    }


def look_document(one: "Entry | Version") -> dict[str, Any]:
    """Return what something in a snapshot is, for JSON."""
    from replicator.snapshot.tree import escape  # noqa: PLC0415

    return {
        "type": one.kind,
        "mode": f"{one.mode:04o}",
        "size": one.size,
        "mtime": moment(one.mtime_ns),
        "user": escape(one.user.encode()) or str(one.uid),
        "group": escape(one.group.encode()) or str(one.gid),
        "target": escape(one.target),
    }


def _ls_line(row: "tuple[TreePath, Entry]") -> str:
    one = _ls_document(row)
    return _LS_COLUMNS.format(
        _LETTERS[one["type"]] + stat.filemode(row[1].mode)[1:],
        one["user"],
        one["group"],
        one["size"],
        one["mtime"],
        f"{one['path']} -> {one['target']}" if one["type"] == "link" else one["path"],
    )


@click.command()
@click.argument("snapshot")
@click.argument("path")
@command(keys="restore (keeper)")
def cat(session: Session, snapshot: str, path: str) -> None:
    """Write one file's content to standard output; with --json as base64."""
    parts: list[bytes] = []

    async def work(library: "Library", _edge: "Edge") -> str:
        from replicator.engine.browse import ChunkFetcher, find_path  # noqa: PLC0415 - while keys are unlocked
        from replicator.format.pack import CHUNK_DATA  # noqa: PLC0415
        from replicator.snapshot.chunklist import leaves  # noqa: PLC0415
        from replicator.snapshot.tree import escape  # noqa: PLC0415

        found = await library.find(snapshot)
        fetcher = ChunkFetcher(library, found.snapshot.domain)

        def write(reader: "TreeReader") -> str:
            here = find_path(reader, found, path)
            entry = reader.lookup(found.details.tree, here)
            if entry.kind != "file" or entry.content is None:
                raise NotFoundError(f"'{path}' is a {entry.kind}, not a file")
            for ref in leaves(entry.content, fetcher):
                data = fetcher.get(CHUNK_DATA, ref)
                if session.as_json:
                    parts.append(data)
                else:
                    _put(data)
            return escape(b"/".join(here))

        return await fetcher.in_thread(write)

    name = with_library(session, work)
    if session.as_json:
        content = b"".join(parts)
        session.out.result(
            {"id": name, "path": name, "size": len(content), "base64": base64.b64encode(content).decode()}
        )


def _put(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error(error) from error


@click.command()
@click.argument("snapshot")
@click.argument("paths", nargs=-1)
@click.option("--target", required=True, metavar="DIR", help="Where to; made if it is not there.")
@click.option(
    "--overwrite",
    type=click.Choice(["if-changed", "always", "never"]),
    default="never",
    show_default=True,
    help="What to do with files that are there already.",
)
@click.option(
    "--delete", is_flag=True, help="Remove what the snapshot does not have from the folders that are restored whole."
)
@click.option("--dry-run", is_flag=True, help="Read the tree and say what would be restored, and deleted.")
@_FROM
@command(keys="restore (keeper)", run="restore")
def restore(
    session: Session,
    snapshot: str,
    paths: tuple[str, ...],
    target: str,
    overwrite: Literal["if-changed", "always", "never"],
    delete: bool,
    dry_run: bool,
    disks: tuple[str, ...],
) -> None:
    """Restore a snapshot, or PATHS of it, below --target; each root folder under its own name.

    SNAPSHOT: id prefix, latest, latest:DATASET, DATASET@2026-11-17. Every byte is checked before a file gets its
    name. As root, owners, devices and guarded attributes come back too; as anybody else they are counted, and no gap.
    Where a file is there in another version, only what differs is fetched: if-changed takes files of the same size and
    time for the same, always compares their bytes. A restore that was stopped goes on with --overwrite if-changed.
    With --from nobody is asked: everything comes from disks (`peer seed`), or folders copied off providers.
    """
    seen: list[Freshness] = []

    async def work(library: "Library", edge: "Edge") -> "RestoreReport":
        from replicator.engine.browse import ChunkFetcher, find_path  # noqa: PLC0415 - while keys are unlocked
        from replicator.engine.freshness import freshness  # noqa: PLC0415
        from replicator.engine.heap import MANY, settle_heap  # noqa: PLC0415
        from replicator.engine.restore import restore as run  # noqa: PLC0415

        settle_heap(MANY)
        found = await library.find(snapshot)
        known = library.heads.get(found.row.writer)
        seen.append(freshness(library.keeper, found.row, known, edge.clock.now_ns()))
        fetcher = ChunkFetcher(library, found.snapshot.domain)
        wanted = await fetcher.in_thread(lambda reader: [find_path(reader, found, path) for path in paths])
        return await run(
            library,
            edge,
            found,
            target,
            paths=wanted,
            overwrite=overwrite,
            delete=delete,
            privileged=os.geteuid() == 0,
            dry_run=dry_run,
            writers=os.cpu_count() or 1,
        )

    report = with_library(session, work, uses="replicator.engine.restore", disks=disks)
    take_restore(session, report)
    for warning in seen[0].warnings:
        session.out.notice(f"about how new this snapshot is: {warning}")
    what = "Would restore" if dry_run else "Restored"
    deleted = f"; {'would delete' if dry_run else 'deleted'} {len(report.removed)}" if delete else ""
    if dry_run:
        for path in report.removed:
            session.out.notice(f"would delete {path}")
    session.out.result(
        {
            **restore_document(report),
            **freshness_document(seen[0]),
            "target": os.path.abspath(target),
            "dry_run": dry_run,
        },
        f"{what} {counted(report.files, 'file')} ({format_size(report.bytes)}) of {report.snapshot.details.dataset}, "
        f"{report.snapshot.created.isoformat(timespec='seconds')}, from {counted(report.packs, 'pack')} in "
        f"{report.seconds:.1f} s{deleted}. "
        f"Snapshot {seen_in_words(seen[0].age_s, seen[0].witnesses).removeprefix('newest snapshot ')}",
    )


def restore_document(report: "RestoreReport") -> dict[str, Any]:
    """Return a restore's outcome for JSON."""
    return {
        "id": report.snapshot.id,
        "dataset": report.snapshot.details.dataset,
        "time": moment(report.snapshot.row.created_ns),
        "files": report.files,
        "folders": report.folders,
        "links": report.links,
        "others": report.others,
        "kept": report.kept,
        "bytes": report.bytes,
        "packs": report.packs,
        "fetched_bytes": report.fetched_bytes,
        "reused_bytes": report.reused_bytes,
        "deleted": report.removed,
        "seconds": round(report.seconds, 3),
        "gaps": [{"id": path, "reason": reason} for path, reason in report.gaps],
        "gap_count": report.reasons.total(),
        "unset": [{"id": path, "reason": reason} for path, reason in report.unset],
        "unset_count": report.unset_reasons.total(),
        "lost": report.lost,
        "damaged": report.damaged,
    }


def take_restore(session: Session, report: "RestoreReport") -> None:
    """Say what a restore could not bring back, and take over its exit code.

    What a user may not set is said, and no gap: it is so for every restore that is not root's.
    """
    from replicator.snapshot.metadata import unset_in_words  # noqa: PLC0415

    for path, reason in report.gaps[:20]:
        session.out.notice(f"{path}: {reason}")
    if report.reasons.total() > 20:
        session.out.notice(f"... and {report.reasons.total() - 20} more")
    if unset := unset_in_words(report.unset_reasons):
        session.out.notice(unset)
    for problem in (*report.lost, *report.damaged):
        session.out.notice(problem)
    if report.gaps or report.lost:
        session.worsen(exits.GAPS)
    if report.damaged:
        session.worsen(exits.INTEGRITY)
