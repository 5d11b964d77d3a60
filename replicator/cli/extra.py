"""extra add|list|write|tidy|remove: copies in a plain folder or bucket, which count for no promise."""

from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, common_options, wait_in_order
from replicator.cli.output import moment, table
from replicator.cli.places import parse_place
from replicator.config import counted, format_size, parse_name
from replicator.errors import UsageError

if TYPE_CHECKING:
    from replicator.engine.extra import Extra
    from replicator.engine.extrawriting import ExtraReport


@click.group()
@common_options
def extra() -> None:
    """Copies in a plain folder or bucket: sealed, useful, guarded by nobody, and never counted for a promise."""


@extra.command("add")
@click.argument("name")
@click.argument("place")
@click.option("--s3-endpoint", default="", metavar="URL", help="A bucket's server; Amazon's own if nobody says.")
@click.option("--s3-region", default="", help="Its region, us-east-1 if nobody says.")
@click.option("--s3-credentials", default="", metavar="FILE", help="Its keys, as for `provider init`.")
@command(keys="write (a node's home)")
def add(session: Session, name: str, place: str, s3_endpoint: str, s3_region: str, s3_credentials: str) -> None:
    """Let each night write to PLACE, a folder that is there or s3://BUCKET/PREFIX, what the snapshots need.

    It may be a disk that is mounted now and then: it is known by a mark that is put there.
    """
    from replicator.engine.extra import Extra, add_extra  # noqa: PLC0415 - commands import what they use

    where, keys = parse_place(
        place,
        endpoint=s3_endpoint,
        region=s3_region,
        credentials=s3_credentials,
        hint="give s3://BUCKET/PREFIX as the place",
    )
    wanted = Extra(
        name=parse_name(name, "the name of an extra copy"),
        place=where,
        mark="",
        endpoint=s3_endpoint,
        region=s3_region,
        credentials=keys,
    )
    with session.node() as node, session.edge() as edge:
        made = add_extra(node, edge, wanted)
    session.out.result(
        extra_document(made), f"Each night writes to {made.place}. Now: replicator extra write {made.name}"
    )


@extra.command("list")
@command(keys="none beyond a node's home")
def list_extras(session: Session) -> None:
    """List the places and how they stand, as this node last wrote them."""
    from replicator.engine.extra import extras  # noqa: PLC0415 - commands import what they use

    with session.node() as node:
        found = extras(node)
    session.out.result(
        [extra_document(one) for one in found],
        table(
            ("NAME", "PLACE", "WRITTEN", "OBJECTS", "STATE"),
            [
                (one.name, one.place, moment(one.written_ns) or "never", one.objects, one.error or "as it should be")
                for one in found
            ],
        )
        if found
        else "No extra copy. `replicator extra add NAME PLACE` makes one.",
    )


@extra.command("write")
@click.argument("names", nargs=-1)
@command(keys="write (a node's home)")
def write(session: Session, names: tuple[str, ...]) -> None:
    """Write now what the named places lack, all of them by default. Providers give what is not here any more."""
    from replicator.engine.extra import extras  # noqa: PLC0415 - commands import what they use

    with session.node() as node:
        if not names and not extras(node):
            raise UsageError("there is no extra copy", hint="add one: replicator extra add NAME PLACE")
    reports = write_all(session, names)
    session.out.result([report_document(one) for one in reports], [report_words(one) for one in reports])


@extra.command("tidy")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted there.")
@command(keys="write (a node's home)")
def tidy(session: Session, name: str, dry_run: bool) -> None:
    """Delete from a place what no snapshot needs that was not forgotten. Nothing else ever deletes there."""
    from replicator.engine.extrawriting import tidy_extra  # noqa: PLC0415 - commands import what they use

    with session.node() as node:
        gone = tidy_extra(node, name, dry_run=dry_run)
    word = "would go" if dry_run else "gone"
    session.out.result(
        {"id": name, "gone": [one.hex() for one in gone], "dry_run": dry_run},
        f"{name}: {counted(len(gone), 'object')} {word}",
    )


@extra.command("remove")
@click.argument("name")
@command(keys="write (a node's home)")
def remove(session: Session, name: str) -> None:
    """Write there no more. What lies there stays."""
    from replicator.engine.extra import remove_extra  # noqa: PLC0415 - commands import what they use

    with session.node() as node:
        gone = remove_extra(node, name)
    session.out.result(extra_document(gone), f"'{name}' is written no more. What lies in {gone.place} stays.")


def write_all(session: Session, names: tuple[str, ...] = ()) -> "list[ExtraReport]":
    """Write places, and say what went wrong. A place that is behind for a week is a gap, and none of the promise."""
    from replicator.engine.extra import extras, overdue  # noqa: PLC0415 - commands import what they use
    from replicator.engine.extrawriting import write_extras  # noqa: PLC0415 - commands import what they use

    with session.node() as node, session.edge() as edge:
        reports = wait_in_order(write_extras(node, edge, names))
        late = {one.name for one in extras(node) if overdue(one, session.clock.now_ns())}
    for one in reports:
        if one.error is not None or one.unreadable:
            if one.unreadable or one.name in late or names:
                session.worsen(exits.GAPS)
            session.out.notice(f"extra copy {one.name}: {one.why}")
            if one.error is not None and one.error.hint:
                session.out.notice(f"  {one.error.hint}")
    return reports


def report_document(one: "ExtraReport") -> dict[str, Any]:
    """Return what a run did for a place."""
    return {
        "id": one.name,
        "place": one.place,
        "written": one.written,
        "written_bytes": one.written_bytes,
        "objects": one.objects,
        "unreadable": one.unreadable,
        "error": one.error.message if one.error else None,
    }


def report_words(one: "ExtraReport") -> str:
    """Return the same in a line."""
    if one.error is not None:
        return f"extra copy {one.name}: NOT written"
    return (
        f"extra copy {one.name}: {counted(one.written, 'object')} ({format_size(one.written_bytes)}) written, "
        f"{one.objects} in {one.place}; it counts for no promise"
    )


def extra_document(one: "Extra") -> dict[str, Any]:
    """Return a place and how it stands."""
    return {
        "id": one.name,
        "place": one.place,
        "endpoint": one.endpoint,
        "written": moment(one.written_ns),
        "objects": one.objects,
        "failed": moment(one.failed_ns),
        "error": one.error or None,
    }
