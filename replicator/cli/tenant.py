"""init, recover."""

import os
import sys

import click

from replicator.cli.base import Session, command, wait
from replicator.cli.output import Output
from replicator.config import format_size
from replicator.errors import HomeError, UsageError
from replicator.fs import PosixFs, write_atomic
from replicator.ids import short


@click.command()
@click.option("--name", required=True, help="What the tenant is called.")
@click.option("--country", default="SE", show_default=True, help="Two-letter code; inside the EEA data stays there.")
@click.option("--keeper-only", is_flag=True, help="This home is only the keeper; nodes are added with `node add`.")
@click.option(
    "--recovery-sheet", metavar="FILE", help="Write the sheet here (and FILE.html to print), not to the screen."
)
@command(keys="makes root, owner, restore, maintenance and write keys")
def init(session: Session, name: str, country: str, keeper_only: bool, recovery_sheet: str | None) -> None:
    """Make a tenant: its keys, its charter and the recovery sheet.

    This home becomes the keeper and, unless --keeper-only, a node. The sheet is shown once and kept nowhere.
    """
    from replicator.engine.sheet import sheet_page, sheet_text  # noqa: PLC0415 - commands import what they use
    from replicator.engine.tenant import create_tenant  # noqa: PLC0415

    if recovery_sheet is not None:
        for path in (recovery_sheet, f"{recovery_sheet}.html"):
            if os.path.exists(path):
                raise UsageError(f"{path} exists already", hint="choose another --recovery-sheet")
    passphrase = session.passphrase("A passphrase for this keeper", confirm=True)
    with session.edge() as edge:
        made = create_tenant(
            session.home, edge, name=name, country=country, passphrase=passphrase, keeper_only=keeper_only
        )
    fingerprint = made.root_key.hex()[:16]
    document: dict[str, object] = {
        "id": made.tenant.hex(),
        "name": name,
        "root": made.root_key.hex(),
        "keeper": made.keeper.hex(),
        "node": made.node.hex() if made.node else None,
        "home": session.home,
        "sheet": None if recovery_sheet is None else os.path.abspath(recovery_sheet),
    }
    text = sheet_text(name, fingerprint, made.words, ())
    if recovery_sheet is not None:
        fs = PosixFs()
        write_atomic(fs, os.path.abspath(recovery_sheet), text.encode())
        page = sheet_page(name, fingerprint, made.words, ())
        write_atomic(fs, os.path.abspath(f"{recovery_sheet}.html"), page.encode())
        lines = [
            f"Tenant '{name}' is made in {session.home}.",
            f"The recovery sheet is in {recovery_sheet}; print {recovery_sheet}.html, then delete both files.",
        ]
    else:
        document["words"] = made.words
        lines = [f"Tenant '{name}' is made in {session.home}.", "", text]
    lines.append("Next: ask friends for invites (`replicator provider invite`) and add them: replicator peer add CODE")
    session.out.result(document, lines)


@click.command()
@click.option("--sheet", required=True, metavar="FILE", help='The recovery sheet; "-" to type or pipe the words.')
@click.option("--peer", required=True, metavar="ADDR", help="HOST:PORT of any one provider of yours that lives.")
@click.option("--target", metavar="DIR", help="Also restore the newest snapshot of every dataset below here.")
@click.option("--keeper-only", is_flag=True, help="Make no node key in this home.")
@command(keys="root (the sheet)")
def recover(session: Session, sheet: str, peer: str, target: str | None, keeper_only: bool) -> None:
    """Make a keeper's home, and a fresh node key, from the recovery sheet and one address.

    The address need not be trusted: everything is checked against the sheet. Earlier keepers lose their rights.
    """
    from replicator.engine.recover import recover as run  # noqa: PLC0415 - commands import what they use

    words = _words(sheet, session.out)
    passphrase = session.passphrase("A passphrase for this new keeper", confirm=True)
    with session.edge() as edge:
        found = wait(run(session.home, edge, words=words, address=peer, passphrase=passphrase, keeper_only=keeper_only))
    for notice in (*found.notices, *found.unreachable):
        session.out.notice(notice)
    document: dict[str, object] = {
        "name": found.name,
        "home": session.home,
        "keeper": found.keeper.hex(),
        "node": found.node.hex() if found.node else None,
        "charter": found.charter_number,
        "peers": found.peers,
        "unreachable": found.unreachable,
    }
    lines = [f"'{found.name}' is back: keeper's home in {session.home}, {found.peers} providers answer."]
    if target is not None:
        restored, more = _restore_all(session, target, passphrase)
        document["restored"] = restored
        lines += more
    session.out.result(document, lines)


def _words(sheet: str, out: Output) -> list[str]:
    from replicator.engine.sheet import read_sheet  # noqa: PLC0415 - commands import what they use

    if sheet != "-":
        try:
            with open(sheet, encoding="utf-8") as file:
                return read_sheet(file.read())
        except (OSError, UnicodeDecodeError) as error:
            raise HomeError(f"{sheet}: the sheet cannot be read ({error})") from error
    if not sys.stdin.isatty():
        return read_sheet(sys.stdin.read())
    from replicator.crypto.recovery import WORD_COUNT, unknown_words  # noqa: PLC0415

    words: list[str] = []
    while len(words) < WORD_COUNT:
        word = click.prompt(f"Word {len(words) + 1} of {WORD_COUNT}", err=True).strip().lower()
        if unknown_words([word]):
            out.notice(f"'{word}' is not a word of such sheets; look again.")
            continue
        words.append(word)
    return words


def _restore_all(session: Session, target: str, passphrase: str) -> tuple[list[dict[str, object]], list[str]]:
    """Restore the newest snapshot of every dataset; each below a folder of its own name if there are several."""
    from replicator.cli.browse import restore_document, take_restore  # noqa: PLC0415 - commands import what they use
    from replicator.engine.browse import Library, newest_of_each  # noqa: PLC0415
    from replicator.engine.federation import Federation  # noqa: PLC0415
    from replicator.engine.keeper import KeeperHome  # noqa: PLC0415
    from replicator.engine.restore import RestoreReport, restore  # noqa: PLC0415

    keeper = KeeperHome(session.home, session.fs, lambda _: passphrase)
    try:
        with session.edge() as edge:

            async def work() -> list[RestoreReport]:
                keeper.owner()
                async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
                    library = Library(keeper, federation)
                    await library.refresh()
                    newest = newest_of_each(await library.snapshots())
                    reports = []
                    for snapshot in newest:
                        folder = target if len(newest) == 1 else os.path.join(target, snapshot.details.dataset)
                        reports.append(await restore(library, edge, snapshot, folder, privileged=os.geteuid() == 0))
                    return reports

            reports = wait(work())
    finally:
        keeper.close()
    lines = []
    for report in reports:
        take_restore(session, report)
        snapshot = report.snapshot
        lines.append(
            f"{snapshot.details.dataset} of {snapshot.created.isoformat(timespec='seconds')} "
            f"({short(snapshot.row.name)}): {report.files} files, {format_size(report.bytes)} in {report.seconds:.1f} s"
        )
    if not reports:
        lines.append("There are no snapshots to restore.")
    return [restore_document(report) for report in reports], lines
