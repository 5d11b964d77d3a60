"""export."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from replicator.cli.base import Session, command
from replicator.cli.browse import with_library
from replicator.cli.findings import freshness_document
from replicator.cli.output import moment
from replicator.config import counted, format_size
from replicator.errors import ReplicatorError, RestoreError, UsageError

if TYPE_CHECKING:
    from replicator.engine.browse import Library
    from replicator.engine.edge import Edge
    from replicator.engine.export import ExportReport
    from replicator.engine.freshness import Freshness


@click.command()
@click.argument("snapshot")
@click.argument("paths", nargs=-1)
@click.option("--output", default="-", metavar="FILE", help="Where to; - is standard output, and the default.")
@command(keys="restore (keeper)", run="export")
def export(session: Session, snapshot: str, paths: tuple[str, ...], output: str) -> None:
    """Write a snapshot, or PATHS of it, as a tar archive that needs nothing of this program to be read.

    SNAPSHOT: id prefix, latest, latest:DATASET, DATASET@2026-11-17. The archive is PAX as GNU tar writes it; with all
    that is in it, as root, `tar --xattrs --xattrs-include='*' --acls -xf FILE` brings it back. Every byte is checked
    before it is written. If anything cannot be had, the archive has no end and tar says so; FILE appears when it is
    whole, and is never replaced.
    """
    from replicator.engine.browse import ChunkFetcher, find_path  # noqa: PLC0415 - commands import what they use
    from replicator.engine.export import export as run  # noqa: PLC0415
    from replicator.engine.freshness import freshness  # noqa: PLC0415
    from replicator.engine.heap import settle_heap  # noqa: PLC0415

    if output == "-" and session.as_json:
        raise UsageError("the archive is standard output, where JSON would be", hint="name a file with --output")
    if output == "-" and sys.stdout.isatty():
        raise UsageError("an archive is nothing for a terminal", hint="name a file with --output, or pipe it to tar")
    settle_heap()
    seen: list[Freshness] = []

    async def work(library: "Library", edge: "Edge") -> "ExportReport":
        found = await library.find(snapshot)
        seen.append(
            freshness(library.keeper, found.row, library.heads.get(found.row.writer), edge.clock.now_ns()),
        )
        fetcher = ChunkFetcher(library, found.snapshot.domain)
        wanted = await fetcher.in_thread(lambda reader: [find_path(reader, found, path) for path in paths])
        with _opened(session, output) as write:
            try:
                return await run(library, edge, found, write, paths=wanted)
            except ReplicatorError:
                session.out.notice("the archive is not whole and has no end; `restore` brings back all that can be had")
                raise

    report = with_library(session, work)
    for warning in seen[0].warnings:
        session.out.notice(f"about how new this snapshot is: {warning}")
    text = (
        f"Exported {counted(report.files, 'file')} ({format_size(report.bytes)}) of {report.snapshot.details.dataset}, "
        f"{report.snapshot.created.isoformat(timespec='seconds')}, from {counted(report.packs, 'pack')} in "
        f"{report.seconds:.1f} s."
    )
    if output == "-":
        session.out.notice(text)
        return
    session.out.result(
        {
            "id": report.snapshot.id,
            "dataset": report.snapshot.details.dataset,
            "time": moment(report.snapshot.row.created_ns),
            "output": os.path.abspath(output),
            "members": report.members,
            "files": report.files,
            "bytes": report.bytes,
            "archive_bytes": report.written,
            "packs": report.packs,
            "fetched_bytes": report.fetched_bytes,
            "seconds": round(report.seconds, 3),
            **freshness_document(seen[0]),
        },
        text,
    )


@contextmanager
def _opened(session: Session, output: str) -> Iterator[Callable[[bytes], None]]:
    """Give what writes to the output: to a file under a name of our own, that gets its own when all went well.

    Raises:
        RestoreError: there is something of this name already.
    """
    if output == "-":
        with _said("standard output"):
            yield lambda data: _put(sys.stdout.fileno(), data)
        return
    path = os.path.abspath(output)
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        with _said(path):  # a tape, or a pipe that has a name
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                yield lambda data: _put(fd, data)
            finally:
                os.close(fd)
        return
    if os.path.lexists(path):
        raise RestoreError(f"{path} exists", hint="name a file that does not; nothing is replaced")
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name[:200]}.{session.rng.bytes(8).hex()}")
    with _said(path):
        handle = session.fs.create(temporary)
        try:
            yield handle.write
            handle.fsync()
            _name(session, temporary, path)
        finally:
            handle.close()
            if session.fs.size(temporary) is not None:
                session.fs.unlink(temporary)
        session.fs.fsync_dir(folder)


def _name(session: Session, temporary: str, path: str) -> None:
    try:
        session.fs.link(temporary, path)
    except PermissionError:  # what Linux says of file systems without further names, such as FAT
        if os.path.lexists(path):
            raise
        session.fs.replace(temporary, path)


def _put(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def _said(where: str) -> Iterator[None]:
    """Say where it was that something could not be written; who reads no further knows it already."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ReplicatorError(f"{where} cannot be written: {error.strerror or error}") from error
