"""key list|check|rotate|object|revoke|passphrase|reset|sheet."""

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, common_options, wait
from replicator.cli.output import moment, table
from replicator.cli.words import read_words, rehearse_at_terminal, sheet_path, write_sheet_files
from replicator.config import counted, parse_size
from replicator.errors import HomeError, UsageError
from replicator.ids import root_fingerprint

if TYPE_CHECKING:
    from replicator.crypto.passphrase import Cost
    from replicator.engine.keeper import KeeperHome
    from replicator.engine.keys import Checked, KeyRow
    from replicator.engine.signedhere import Entry, UnconfirmedError

KIB = 1024


@click.group()
@common_options
def key() -> None:
    """Keys: which there are, whether they open what they should, new ones in place of old."""


@key.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that were revoked.")
@command(keys="none beyond being a member")
def key_list(session: Session, everything: bool) -> None:
    """List every key of the tenant: who holds it, since when, what it can do, and where it lies in this home."""
    from replicator.engine.home import has_half  # noqa: PLC0415 - commands import what they use
    from replicator.engine.keys import list_keys  # noqa: PLC0415

    with session.member() as half:
        if half.role == "keeper":
            with session.siblings() as siblings:
                rows = list_keys(half, siblings)
        elif has_half(session.home, "keeper"):
            with session.keeper() as keeper:
                rows = list_keys(keeper, [half])
        else:
            rows = list_keys(half)
    rows = [row for row in rows if everything or not row.revoked]
    session.out.result([_row_document(row) for row in rows], _row_lines(rows))


def _row_document(row: "KeyRow") -> dict[str, Any]:
    document = asdict(row)
    document["since"] = moment(document.pop("since_ns"))
    document["revoked_at"] = moment(document.pop("revoked_ns"))
    return document


def _row_lines(rows: "list[KeyRow]") -> list[str]:
    lines = table(
        ("KEY", "ID", "NAME", "HELD BY", "SINCE", "STATE", "CAN"),
        [
            (
                row.kind,
                row.id[:12],
                row.name,
                row.held_by,
                moment(row.since_ns)[:10] or "-",
                f"revoked {moment(row.revoked_ns)[:10]}".strip() if row.revoked else "good",
                row.can,
            )
            for row in rows
        ],
    )
    here = [row for row in rows if row.here]
    return [
        *lines,
        "",
        "In this home:",
        *table(("KEY", "ID", "FILE"), [(row.kind, row.id[:12], row.here) for row in here]),
    ]


@key.command("check")
@click.option("--sheet", metavar="FILE", help='Also recover for trial with this sheet; "-" to type or pipe the words.')
@command(keys="owner and restore by their passphrase; root too with --sheet")
def key_check(session: Session, sheet: str | None) -> None:
    """See that the passphrase, and with --sheet the recovery sheet, open everything they should. Changes no key.

    With --sheet the keybag is fetched from every provider that answers, opened with the sheet and looked through.
    """
    from replicator.engine.keys import check_sheet, check_wrapped  # noqa: PLC0415

    if sheet is None:
        with session.reader() as reader:
            found = check_wrapped(reader, session.clock.now_ns())
    else:
        with session.edge() as edge, session.keeper() as keeper:
            found = check_wrapped(keeper, session.clock.now_ns())
            found += wait(check_sheet(keeper, edge, read_words(sheet, session.out)))
    wrong = [one for one in found if one.problem]
    if wrong:
        session.worsen(exits.GAPS)
    if any(one.integrity for one in wrong):
        session.worsen(exits.INTEGRITY)
    session.out.result([_checked_document(one) for one in found], _checked_lines(found))


def _checked_document(one: "Checked") -> dict[str, object]:
    return {"id": one.id, "opens": not one.problem, "problem": one.problem}


def _checked_lines(found: "list[Checked]") -> list[str]:
    return table(("WHAT", "STATE"), [(one.id, one.problem or "opens, and is the right one") for one in found])


@key.command("rotate")
@click.argument("what", type=click.Choice(("index", "maintenance", "owner", "restore", "root")))
@click.option("--sheet", metavar="FILE", help='The recovery sheet, which "owner" needs; "-" to type or pipe the words.')
@click.option("--recovery-sheet", metavar="FILE", help="root: write the new sheet here (and FILE.html to print).")
@click.option("--finish", is_flag=True, help="root: hand over to the sheet that was announced thirty days ago.")
@click.option("--withdraw", is_flag=True, help="root: take back what was announced.")
@click.option("--domain", metavar="NAME", help="restore: whose, if there are several.")
@click.option("--keep", multiple=True, metavar="NAME", help="owner: this stays, though this home did not sign it.")
@click.option("--drop", multiple=True, metavar="NAME", help="owner: this loses its right, or its place.")
@command(keys="owner; for owner itself also root (the sheet)")
def key_rotate(
    session: Session,
    what: str,
    sheet: str | None,
    recovery_sheet: str | None,
    domain: str | None,
    keep: tuple[str, ...],
    drop: tuple[str, ...],
    *,
    finish: bool,
    withdraw: bool,
) -> None:
    """Put a new key in the place of WHAT. Members and providers learn of it from the next charter.

    index: what is written from now on is under a new index key. maintenance: the keeper's own. owner: root names
    another, by the sheet; keys, providers, domains and drill checks that this home did not sign itself are shown, and
    of each it has to be said whether it stays (at a terminal you are asked). root: for a sheet that is lost, a new
    one is announced; it counts after thirty days, if the one before does not object, and with --finish. restore: what
    is written in a domain from now on is for a new restore key; all before stays readable. A node's key:
    `node renew`; a maintainer's or drill host's: revoke it and let the machine ask anew.
    """
    from replicator.engine.keys import rotate_index, rotate_maintenance, rotate_restore  # noqa: PLC0415

    if what != "restore" and domain is not None:
        raise UsageError(f"--domain has no meaning for '{what}'")
    if what != "owner" and (keep or drop):
        raise UsageError(f"--keep and --drop have no meaning for '{what}'")
    if what != "root" and (finish or withdraw or recovery_sheet is not None):
        raise UsageError(f"--recovery-sheet, --finish and --withdraw have no meaning for '{what}'")
    if finish + withdraw + (recovery_sheet is not None) > 1:
        raise UsageError("--recovery-sheet, --finish and --withdraw exclude each other")
    if what == "root":
        if sheet is not None:
            raise UsageError("--sheet has no meaning for 'root'", hint="with the sheet there is nothing to replace")
        _rotate_root(session, recovery_sheet, finish=finish, withdraw=withdraw)
        return
    if (what == "owner") != (sheet is not None):
        raise UsageError(
            "only root can name another owner" if sheet is None else f"--sheet has no meaning for '{what}'",
            hint="`key rotate owner --sheet FILE`; the others need the passphrase alone",
        )
    if sheet is not None:
        _rotate_owner(session, read_words(sheet, session.out), keep, drop)
        return
    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        if what == "restore":
            work = rotate_restore(keeper, siblings, edge, _one_domain(keeper, domain))
        else:
            work = (rotate_index if what == "index" else rotate_maintenance)(keeper, siblings, edge)
        notices = wait(work)
        number = keeper.charter.number
    for notice in notices:
        session.out.notice(notice)
    session.out.result({"id": what, "charter": number}, f"There is a new {what} key; charter {number} says so.")


def _one_domain(keeper: "KeeperHome", named: str | None) -> str:
    """Return the domain that is meant.

    Raises:
        UsageError: none was named, and there are several.
    """
    names = [one.name for one in keeper.private.domains]
    if named is None and len(names) != 1:
        raise UsageError(f"this tenant has several domains: {', '.join(names)}", hint="say which: --domain NAME")
    return names[0] if named is None else named


def _rotate_owner(session: Session, words: list[str], keep: tuple[str, ...], drop: tuple[str, ...]) -> None:
    from replicator.engine.keys import rotate_owner  # noqa: PLC0415 - commands import what they use
    from replicator.engine.signedhere import UnconfirmedError  # noqa: PLC0415

    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        kept, dropped = list(keep), list(drop)
        try:
            done = wait(rotate_owner(keeper, siblings, edge, words, keep=kept, drop=dropped))
        except UnconfirmedError as error:
            if session.as_json:
                said = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
                rows = [_entry_document(one) for one in error.entries]
                session.out.result({"error": said, "exit": exits.USAGE, "unconfirmed": rows})
            if session.as_json or sys.stdin is None or not sys.stdin.isatty():
                raise
            _show_unconfirmed(session, error)
            for one in error.entries:
                stays = click.confirm(f"Is {one.kind} '{one.name}' yours, and stays?", default=False, err=True)
                (kept if stays else dropped).append(one.id)
            done = wait(rotate_owner(keeper, siblings, edge, words, keep=kept, drop=dropped))
        number = keeper.charter.number
    for notice in done.notices:
        session.out.notice(notice)
    for one in done.gone:
        session.out.notice(f"somebody else took away: {one.kind} '{one.name}' ({one.id[:12]})")
    for name in done.restored:
        session.out.notice(f"domain '{name}' had another restore key in the charter; it has this keeper's again")
    session.out.result(
        {
            "id": "owner",
            "charter": number,
            "dropped": [_entry_document(one) for one in done.dropped],
            "gone": [_entry_document(one) for one in done.gone],
        },
        [
            f"There is a new owner key, with it new index keys and a new maintenance key; charter {number} says so.",
            *(f"Dropped: {one.kind} '{one.name}' ({one.id[:12]})" for one in done.dropped),
        ],
    )


def _show_unconfirmed(session: Session, error: "UnconfirmedError") -> None:
    session.out.notice("In the charter, and not signed by this home (dates are those of whoever signed):")
    for line in table(
        ("WHAT", "ID", "NAME", "SINCE"),
        [(one.kind, one.id[:12], one.name, moment(one.since_ns)[:10] or "-") for one in error.entries],
    ):
        session.out.notice(line)


def _entry_document(one: "Entry") -> dict[str, object]:
    return {"id": one.id, "kind": one.kind, "name": one.name, "since": moment(one.since_ns)}


def _rotate_root(session: Session, recovery_sheet: str | None, *, finish: bool, withdraw: bool) -> None:
    from replicator.engine.sheet import sheet_text  # noqa: PLC0415 - commands import what they use
    from replicator.engine.succession import announce_root, finish_root, withdraw_root  # noqa: PLC0415

    if finish or withdraw:
        with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
            notices = wait((finish_root if finish else withdraw_root)(keeper, siblings, edge))
            number = keeper.charter.number
            fingerprint = root_fingerprint(keeper.member.root_key)
        for notice in notices:
            session.out.notice(notice)
        said = (
            f"The new sheet ({fingerprint}) is root now; the one before recovers nothing any more."
            if finish
            else f"No other root is announced any more; the sheet is {fingerprint} as before."
        )
        session.out.result({"id": "root", "charter": number, "root": fingerprint}, said)
        return
    path = sheet_path(recovery_sheet)

    def write_sheet(words: list[str], root_key: bytes) -> None:
        if path is not None:
            write_sheet_files(session.fs, path, keeper.private.name, root_fingerprint(root_key), words)

    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        made = wait(announce_root(keeper, siblings, edge, write_sheet))
        name, number = keeper.private.name, keeper.charter.number
    for notice in made.notices:
        session.out.notice(notice)
    fingerprint = root_fingerprint(made.root_key)
    document: dict[str, object] = {
        "id": "root",
        "charter": number,
        "root": fingerprint,
        "due": moment(made.due_ns),
        "sheet": path,
    }
    if path is None:
        document["words"] = made.words
        lines = [sheet_text(name, fingerprint, made.words, ())]
    else:
        lines = [f"The new sheet is in {path}; print {path}.html, then delete both files."]
    lines += [
        f"It counts from {moment(made.due_ns)[:10]} on, if the sheet before does not object.",
        "Until then `status` on every machine tells of it. Then: replicator key rotate root --finish",
    ]
    session.out.result(document, lines)
    rehearse_at_terminal(session, made.words)


@key.command("object")
@click.option("--sheet", required=True, metavar="FILE", help='The recovery sheet; "-" to type or pipe the words.')
@command(keys="root (the sheet)")
def key_object(session: Session, sheet: str) -> None:
    """Object, with the recovery sheet, to another root that was announced: it never counts then.

    Providers that answer keep the objection, and every home that hears of it hands it on to the others.
    """
    from replicator.engine.succession import object_root  # noqa: PLC0415 - commands import what they use

    words = read_words(sheet, session.out)
    with session.edge() as edge, session.member() as half:
        found = wait(object_root(half, edge, words))
        asked = len(half.peers)
    for notice in found.notices:
        session.out.notice(notice)
    if len(found.told) < asked:
        session.worsen(exits.GAPS)
    session.out.result(
        {"id": "root", "told": found.told, "providers": asked},
        [
            (
                f"{len(found.told)} of {counted(asked, 'provider')} "
                f"{'keeps' if len(found.told) == 1 else 'keep'} root's objection: no other root follows this one."
            ),
            "Whoever announced it has the owner key: `replicator key rotate owner --sheet -` on the keeper.",
        ],
    )


@key.command("revoke")
@click.argument("name")
@command(keys="owner")
def key_revoke(session: Session, name: str) -> None:
    """Take the right of a node, maintainer, drill host or other keeper away, by name or identity.

    A new index key begins, which it is not given. What it wrote stays; what it has read is read.
    """
    from replicator.engine.members import revoke  # noqa: PLC0415

    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        right, notices = wait(revoke(keeper, siblings, edge, name))
    for notice in notices:
        session.out.notice(notice)
    lines = [f"{right.role.capitalize()} '{name}' has no right any more."]
    if right.role in {"drill", "keeper"}:
        lines.append("It had restore keys: what was written until now it can read, where it gets hold of it.")
        lines.append("What is written from now on is for a new restore key, which it has not.")
    session.out.result({"id": name, "role": right.role, "revoked": True}, lines)


def _cost(memory: str, passes: int) -> "Cost":
    from replicator.crypto.passphrase import Cost  # noqa: PLC0415

    return Cost(memory_kib=parse_size(memory) // KIB, passes=passes)


def _cost_options(function: Any) -> Any:
    for option in (
        click.option("--passes", type=int, default=3, show_default=True, help="3 to 16."),
        click.option(
            "--memory", default="64Mi", show_default=True, help="What one try of the passphrase takes: 64Mi to 4Gi."
        ),
        click.option("--new-passphrase-file", metavar="FILE", help="Holds the new one; else a credential or a prompt."),
    ):
        function = option(function)
    return function


@key.command("passphrase")
@_cost_options
@command(keys="what the passphrase so far opens: keeper or drill host")
def key_passphrase(session: Session, new_passphrase_file: str | None, memory: str, passes: int) -> None:
    """Give this home another passphrase. The keys stay the same; stopped anywhere, one of the two opens all."""
    from replicator.engine.keys import change_passphrase  # noqa: PLC0415

    cost = _cost(memory, passes)
    with session.edge() as edge, session.reader() as reader:
        reader.contents()  # a wrong passphrase is known before a new one is asked for
        change_passphrase(reader, edge, session.new_passphrase(new_passphrase_file), cost)
    session.out.result({"id": session.home, "changed": True}, "The new passphrase opens this home.")


@key.command("reset")
@click.option("--sheet", required=True, metavar="FILE", help='The recovery sheet; "-" to type or pipe the words.')
@_cost_options
@command(keys="root (the sheet)")
def key_reset(session: Session, sheet: str, new_passphrase_file: str | None, memory: str, passes: int) -> None:
    """Make a new passphrase for this keeper in place of one that was forgotten, by the recovery sheet.

    Nothing else changes, and no provider needs to answer.
    """
    from replicator.engine.keys import reset_passphrase, root_of_sheet  # noqa: PLC0415

    cost = _cost(memory, passes)
    with session.edge() as edge, session.keeper() as keeper:
        words = read_words(sheet, session.out)
        root_of_sheet(keeper, words)  # a wrong sheet is known before a passphrase is asked for
        wait(reset_passphrase(keeper, edge, words, session.new_passphrase(new_passphrase_file), cost))
    session.out.result({"id": session.home, "changed": True}, "The new passphrase opens this home.")


@key.command("sheet")
@click.option("--addresses", is_flag=True, required=True, help="The address part. (The words are shown once, at init.)")
@click.option("--file", "path", metavar="FILE", help="Write it here instead of to the screen.")
@command(keys="none beyond being a keeper")
def key_sheet(session: Session, addresses: bool, path: str | None) -> None:  # noqa: ARG001 - there is no other part
    """Print the address part of the recovery sheet: where any provider is found. There is no secret in it."""
    from replicator.engine.printed import addresses_of, remember_printed  # noqa: PLC0415
    from replicator.engine.sheet import addresses_text  # noqa: PLC0415
    from replicator.fs import write_atomic  # noqa: PLC0415

    now = session.clock.now_ns()
    with session.keeper() as keeper:
        found = addresses_of(keeper)
        name, fingerprint = keeper.private.name, root_fingerprint(keeper.member.root_key)
        if not found:
            raise UsageError("there are no providers yet", hint="`replicator peer add CODE` first")
        text = addresses_text(name, fingerprint, [f"{one.name}: {one.line}" for one in found], moment(now)[:10])
        if path is not None:
            target = os.path.abspath(path)
            if os.path.lexists(target):
                raise UsageError(f"{target} exists already", hint="choose another --file")
            try:
                write_atomic(session.fs, target, text.encode())
            except OSError as error:
                raise HomeError(f"{target}: {error.strerror}") from error
        remember_printed(keeper, found, now)
    rows = [
        {"id": one.identity.hex(), "name": one.name, "endpoint": one.endpoint, "address": one.line} for one in found
    ]
    said = text if path is None else f"The address part is in {path}: print it, and keep it with the words."
    session.out.result({"id": fingerprint, "name": name, "addresses": rows, "file": path}, said)
