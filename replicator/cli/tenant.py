"""init, recover."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, wait
from replicator.cli.findings import freshness_document, seen_in_words
from replicator.cli.words import read_sheet_file, rehearse_at_terminal, sheet_path, write_sheet_files
from replicator.config import counted, format_size, parse_name
from replicator.errors import ReplicatorError, UsageError
from replicator.ids import root_fingerprint, short

if TYPE_CHECKING:
    from replicator.engine.browse import OpenSnapshot
    from replicator.store.carried import CarriedDisk

_NOT_IN_NAMES = re.compile(r"^\.|/")
"""A writer that was taken over must not choose where its snapshot goes."""


@click.command()
@click.option("--name", required=True, help="What the tenant is called.")
@click.option("--country", default="SE", show_default=True, help="Two-letter code; inside the EEA data stays there.")
@click.option("--keeper-only", is_flag=True, help="This home is only the keeper; nodes are added with `node add`.")
@click.option(
    "--recovery-sheet", metavar="FILE", help="Write the sheet here (and FILE.html to print), not to the screen."
)
@click.option("--yes", is_flag=True, help="Do not ask for words from the paper afterwards.")
@command(keys="makes root, owner, restore, maintenance and write keys")
def init(session: Session, name: str, country: str, keeper_only: bool, recovery_sheet: str | None, yes: bool) -> None:
    """Make a tenant: its keys, its charter and the recovery sheet.

    This home becomes the keeper and, unless --keeper-only, a node. The sheet's words are shown once and kept nowhere;
    at a terminal you are asked for a few of them from the paper. `key sheet --addresses` prints the rest of it.
    """
    from replicator.engine.sheet import sheet_text  # noqa: PLC0415 - commands import what they use
    from replicator.engine.tenant import create_tenant  # noqa: PLC0415

    parse_name(name, "a tenant's name")
    sheet = sheet_path(recovery_sheet)
    passphrase = session.passphrase("A passphrase for this keeper", confirm=True)

    def write_sheet(words: list[str], root_key: bytes) -> None:
        if sheet is not None:
            write_sheet_files(session.fs, sheet, name, root_fingerprint(root_key), words)

    with session.edge() as edge:
        made = create_tenant(
            session.home,
            edge,
            name=name,
            country=country,
            passphrase=passphrase,
            keeper_only=keeper_only,
            write_sheet=write_sheet,
        )
    document: dict[str, object] = {
        "id": made.tenant.hex(),
        "name": name,
        "root": made.root_key.hex(),
        "keeper": made.keeper.hex(),
        "node": made.node.hex() if made.node else None,
        "home": session.home,
        "sheet": sheet,
    }
    if sheet is not None:
        lines = [
            f"Tenant '{name}' is made in {session.home}.",
            f"The recovery sheet is in {sheet}; print {sheet}.html, then delete both files.",
        ]
    else:
        document["words"] = made.words
        text = sheet_text(name, root_fingerprint(made.root_key), made.words, ())
        lines = [f"Tenant '{name}' is made in {session.home}.", "", text]
    lines += [
        "Next: ask friends for invites (`replicator provider invite`) and add them: replicator peer add CODE",
        "Friends who all keep each other's backups are quicker with a group: replicator group join CODE",
    ]
    session.out.result(document, lines)
    if not yes:
        rehearse_at_terminal(session, made.words)


@click.command()
@click.option("--sheet", required=True, metavar="FILE", help='The recovery sheet; "-" to type or pipe the words.')
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="ADDR",
    help="HOST:PORT of a provider of yours that lives; one is enough, more are asked too.",
)
@click.option(
    "--from",
    "disks",
    multiple=True,
    metavar="DISK",
    help="A folder with your objects: a seeded disk, an extra copy, one off a provider; repeatable.",
)
@click.option("--target", metavar="DIR", help="Also restore the newest snapshot of every dataset below here.")
@click.option("--keeper-only", is_flag=True, help="Make no node key in this home.")
@command(keys="root (the sheet)")
def recover(
    session: Session,
    sheet: str,
    peers: tuple[str, ...],
    disks: tuple[str, ...],
    target: str | None,
    keeper_only: bool,
) -> None:
    """Make a keeper's home, and a fresh node key, from the recovery sheet and one address, or a disk, or both.

    Neither need be trusted: everything is checked against the sheet, and every provider that is named by what another
    or a disk shows, or in the sheet's file, is asked for a newer charter. Earlier keepers lose their rights, at each
    provider when it is reached; while none is, that is said and the exit code is 3. What comes from disks alone is as
    old as they are.
    """
    from replicator.engine.recover import recover as run  # noqa: PLC0415 - commands import what they use
    from replicator.snapshot.target import Target  # noqa: PLC0415
    from replicator.store.carried import CarriedDisk  # noqa: PLC0415

    if not peers and not disks:
        raise UsageError("recover needs something to begin with", hint="give --peer ADDR, --from DISK, or both")
    brought = [CarriedDisk(disk) for disk in disks]
    words, printed = read_sheet_file(sheet, session.out)
    if target is not None:
        Target(target)  # known to be in the way before a home is made
    passphrase = session.passphrase("A passphrase for this new keeper", confirm=True)
    with session.edge() as edge:
        found = wait(
            run(
                *(session.home, edge),
                words=words,
                addresses=(*peers, *printed),
                disks=brought,
                passphrase=passphrase,
                keeper_only=keeper_only,
            )
        )
    for notice in (*found.integrity, *found.notices, *found.unreachable, *found.gaps):
        session.out.notice(notice)
    if found.peers and found.unreachable:
        session.out.notice(
            f"{', '.join(found.away)}: earlier keepers keep their rights there until `replicator snapshots` reaches it"
        )
    session.worsen(exits.INTEGRITY if found.integrity else exits.GAPS if found.gaps else exits.DONE)
    document: dict[str, object] = {
        "name": found.name,
        "home": session.home,
        "keeper": found.keeper.hex(),
        "node": found.node.hex() if found.node else None,
        "charter": found.charter_number,
        "peers": found.peers,
        "unreachable": found.unreachable,
        "shown": [{"id": one.id, "name": one.name, "charter": one.number} for one in found.shown],
        "integrity": found.integrity,
        "gaps": found.gaps,
    }
    lines = [
        (
            f"'{found.name}' is back: keeper's home in {session.home}, "
            f"{counted(found.peers, 'provider answers', 'providers answer')}."
        )
    ]
    if target is not None:
        restored, more = _restore_all(session, target, passphrase, brought, ask=found.peers > 0)
        document["restored"] = restored
        lines += more
    session.out.result(document, lines)


def _restore_all(
    session: Session, target: str, passphrase: str, disks: "Sequence[CarriedDisk]", *, ask: bool
) -> tuple[list[dict[str, object]], list[str]]:
    """Restore the newest snapshot of every dataset; each below a folder of its own name if there are several.

    What goes wrong with one of them does not keep the others from being restored. Without ``ask`` everything comes from
    the disks; with it, what is newest at providers or there.
    """
    from replicator.cli.browse import (  # noqa: PLC0415 - commands import what they use
        restore_document,
        take_federation,
        take_restore,
    )
    from replicator.engine.browse import Library, newest_of_each  # noqa: PLC0415
    from replicator.engine.carried import DisksBeside, SilentFederation  # noqa: PLC0415
    from replicator.engine.federation import Federation  # noqa: PLC0415
    from replicator.engine.freshness import Freshness, freshness  # noqa: PLC0415
    from replicator.engine.heap import MANY, settle_heap  # noqa: PLC0415
    from replicator.engine.keeper import KeeperHome  # noqa: PLC0415
    from replicator.engine.restore import RestoreReport, restore  # noqa: PLC0415

    settle_heap(MANY)
    seen: dict[str, Freshness] = {}
    keeper = KeeperHome(session.home, session.fs, lambda _: passphrase)
    try:
        with session.edge() as edge:

            async def work() -> list[RestoreReport]:
                keeper.owner()
                providers = Federation if ask else SilentFederation
                async with providers(keeper, edge, ticket=keeper.lazy_ticket) as federation:
                    library = Library(keeper, federation)
                    if ask:
                        await library.refresh()
                    beside = DisksBeside(federation, disks)
                    for problem in beside.join():
                        session.worsen(exits.GAPS)
                        session.out.notice(problem.message)
                    await beside.learn()
                    newest = newest_of_each(await library.snapshots())
                    reports = []
                    for snapshot, folder in zip(newest, folders_of(target, newest), strict=True):
                        known = library.heads.get(snapshot.row.writer)
                        seen[snapshot.id] = freshness(keeper, snapshot.row, known, edge.clock.now_ns())
                        try:
                            reports.append(
                                await restore(
                                    library,
                                    edge,
                                    snapshot,
                                    folder,
                                    privileged=os.geteuid() == 0,
                                    writers=os.cpu_count() or 1,
                                )
                            )
                        except ReplicatorError as error:
                            session.worsen(exits.code_of(error))
                            session.out.notice(f"{snapshot.details.dataset}: NOT restored: {error.message}")
                    take_federation(session, federation)
                    return reports

            reports = wait(work())
    finally:
        keeper.close()
    lines = []
    for report in reports:
        take_restore(session, report)
        snapshot, new = report.snapshot, seen[report.snapshot.id]
        lines.append(
            f"{snapshot.details.dataset} of {snapshot.created.isoformat(timespec='seconds')} "
            f"({short(snapshot.row.name)}): {counted(report.files, 'file')}, {format_size(report.bytes)} "
            f"in {report.seconds:.1f} s; "
            f"{seen_in_words(new.age_s, new.witnesses)}"
        )
        for warning in new.warnings:
            session.out.notice(f"{snapshot.details.dataset}: {warning}")
    if not reports:
        session.worsen(exits.GAPS)
        lines.append("No snapshot was restored.")
    return [{**restore_document(report), **freshness_document(seen[report.snapshot.id])} for report in reports], lines


def folders_of(target: str, snapshots: "Sequence[OpenSnapshot]") -> list[str]:
    """Return a folder for each snapshot, all apart and none outside of the target, whatever the datasets' names."""
    if len(snapshots) == 1:
        return [target]
    names = [_NOT_IN_NAMES.sub("_", one.details.dataset) for one in snapshots]
    return [
        os.path.join(target, name if names.count(name) == 1 else f"{name}.{short(one.row.writer)}")
        for name, one in zip(names, snapshots, strict=True)
    ]
