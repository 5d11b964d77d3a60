"""peer seed and provider adopt: objects that travel on a disk instead of the line."""

import os
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, wait_in_order
from replicator.cli.output import table
from replicator.config import counted, format_size
from replicator.errors import HomeError

if TYPE_CHECKING:
    from replicator.provider.adopting import Adopted


@click.command("seed")
@click.argument("name")
@click.option("--dir", "disk", required=True, metavar="DISK", help="A folder on the disk that is to be carried.")
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@command(keys="write (a node's home)")
def seed(session: Session, name: str, disk: str, *, dry_run: bool) -> None:
    """Write what a provider is to hold onto a disk: sealed objects, taken from the spool or from other providers.

    Carry the disk there and run `replicator provider adopt` on it; at the next contact this home hears what was taken
    in. Stopped anywhere, the same command goes on; what has no room is named (exit 3) and goes onto the next disk, once
    this one was taken in. The provider has to be added with `peer add` and contacted once before.
    """
    from replicator.engine.seeding import seed as work  # noqa: PLC0415 - commands import what they use

    folder = os.path.abspath(disk)
    if not os.path.isdir(folder):
        raise HomeError(f"{folder}: no such folder", hint="is the disk mounted?")
    with session.node() as node, session.edge(always_night=True) as edge:
        pin = node.peer(name)
        report = wait_in_order(work(node, edge, pin, folder, dry_run=dry_run))
    for notice in report.notices:
        session.out.notice(notice)
    if report.left:
        session.worsen(exits.GAPS)
        session.out.notice(
            f"no room for {counted(report.left_objects, 'object')}, {format_size(report.left)}: have this disk taken "
            "in, then run the same command with the next one"
        )
    if report.nowhere:
        session.worsen(exits.INTEGRITY)
        session.out.notice(f"INTEGRITY: nobody who answers has {len(report.nowhere)} of them: {report.nowhere[0]}")
    word = "would be written" if dry_run else "written"
    what = f"{counted(report.objects, 'object')} for '{pin.name}', {format_size(report.size)}, {word} to {folder}"
    session.out.result(
        {
            "id": pin.identity.hex(),
            "peer": pin.name,
            "dir": folder,
            "objects": report.objects,
            "bytes": report.size,
            "here": report.here,
            "left_objects": report.left_objects,
            "left_bytes": report.left,
            "nowhere": [{"id": one} for one in report.nowhere],
            "dry_run": dry_run,
        },
        [
            f"{what}; {report.here} were there already.",
            *(["At the provider: replicator provider adopt DISK"] if report.objects or report.here else []),
        ],
    )


@click.command("adopt")
@click.argument("disk")
@command(keys="provider identity")
def adopt(session: Session, disk: str) -> None:
    """Take in what a tenant's disk brings (`peer seed`), exactly as if it were uploaded; while no daemon runs.

    Each object's name is computed from its bytes, quotas hold, and receipts are kept until the tenant's next contact.
    Nothing is deleted on the disk. Stopped anywhere, the same command goes on.
    """
    from replicator.provider.daemon import only_daemon  # noqa: PLC0415 - commands import what they use
    from replicator.provider.home import open_provider  # noqa: PLC0415
    from replicator.store.carried import CarriedDisk  # noqa: PLC0415

    brought = CarriedDisk(disk)
    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    try:
        with only_daemon(opened.folder):
            service = opened.start()
            try:
                found = list(service.adopt(brought, lambda _size: None))
            finally:
                service.stop()
    finally:
        opened.close()
    for one in found:
        _judge(session, one)
    if not found:
        session.worsen(exits.GAPS)
        session.out.notice(
            f"{brought.path}: nothing of any tenant lies there; is it the folder that `peer seed` wrote to?"
        )
    session.out.result([_document(one) for one in found], _text(found))


def _judge(session: Session, one: "Adopted") -> None:
    who = one.tenant.hex()[:12]
    for notice in one.notices:
        session.out.notice(f"{who}: {notice}")
    if one.refused:
        session.worsen(exits.GAPS)
        session.out.notice(f"{who}: {one.refused}; what was taken in before stays, and the same command goes on")
    if one.missing or one.notices:
        session.worsen(exits.GAPS)
    if one.damaged:
        session.worsen(exits.INTEGRITY)
        session.out.notice(
            f"INTEGRITY: {who}: {counted(one.damaged, 'damaged object lies', 'damaged objects lie')} on the disk"
        )


def _document(one: "Adopted") -> dict[str, Any]:
    return {
        "id": one.tenant.hex(),
        "objects": one.objects,
        "bytes": one.size,
        "here": one.here,
        "missing": one.missing,
        "damaged": one.damaged,
        "refused": one.refused or None,
    }


def _text(found: "list[Adopted]") -> list[str]:
    rows = [
        (one.tenant.hex()[:12], one.objects, format_size(one.size), one.here, one.missing, one.damaged) for one in found
    ]
    return table(("TENANT", "TAKEN IN", "BYTES", "WERE HERE", "MISSING", "DAMAGED"), rows) if rows else ["Nothing."]
