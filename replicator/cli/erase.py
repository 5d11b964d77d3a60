"""erase path|domain|tenant|report."""

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, common_options, wait
from replicator.cli.browse import with_library
from replicator.cli.output import moment, plain, table
from replicator.cli.prune import prune_after
from replicator.cli.words import read_words
from replicator.config import counted, format_size
from replicator.errors import UsageError
from replicator.fs import write_atomic
from replicator.ids import Identity

if TYPE_CHECKING:
    from replicator.engine.browse import Library, OpenSnapshot
    from replicator.engine.closing import Closing, KeybagsAt
    from replicator.engine.edge import Edge
    from replicator.engine.erasing import Report, Told
    from replicator.engine.traces import Traces
    from replicator.format.forget import KeptChain


@click.group()
@common_options
def erase() -> None:
    """Erase a path from all snapshots, a domain, or a whole tenant: by the recovery sheet, and for good.

    docs/guide/erase.md says of each what it guarantees, and from when on.
    """


@erase.command("path")
@click.argument("dataset")
@click.argument("paths", nargs=-1, required=True)
@click.option("--sheet", required=True, metavar="FILE", help='The recovery sheet; "-" to type or pipe the words.')
@click.option("--even-newest", is_flag=True, help="Also from a node's newest snapshot; else nothing is done.")
@click.option("--dry-run", is_flag=True, help="Only say which snapshots would go, and until when copies remain.")
@click.option("--yes-erase", metavar="NAME", help="The dataset's name, instead of typing it when asked.")
@command(keys="root (the sheet), restore and maintenance (keeper)")
def erase_path(
    session: Session,
    dataset: str,
    paths: tuple[str, ...],
    sheet: str,
    even_newest: bool,
    dry_run: bool,
    yes_erase: str | None,
) -> None:
    """Forget every snapshot of DATASET that holds PATHS, with all else that is in them, and prune.

    A snapshot is signed as a whole, so it goes as a whole. First leave the path out of what is backed up, and make a
    backup: a newest snapshot that still has it stops this. What nothing else needs is marked, and goes as slowly as
    everything is deleted; until then the sheet and the restore key can still read it. The same content under another
    path, or in another dataset, stays.
    """
    from replicator.engine.keys import root_of_sheet  # noqa: PLC0415
    from replicator.engine.traces import find_traces, forget_traces, supposed_after  # noqa: PLC0415

    words = read_words(sheet, session.out)

    async def look(library: "Library", edge: "Edge") -> "tuple[Traces, list[KeptChain]]":
        root_of_sheet(library.keeper, words)
        found = await find_traces(library, edge, dataset, paths)
        return found, supposed_after(library.keeper, found)

    async def carry_out(library: "Library", edge: "Edge") -> None:
        await forget_traces(library, edge, found)

    with session.keeper():
        pass  # a home without the key says so before anything is asked
    found, supposed = with_library(session, look)
    for problem in found.unread:
        session.out.notice(problem)
    if found.unread:
        session.worsen(exits.GAPS)
    if found.newest and not even_newest and not dry_run:
        raise UsageError(
            f"the newest snapshot of '{plain(dataset)}' from {', '.join(one.node for one in found.newest)} holds it",
            hint="`dataset set --exclude` on the node and back up once more, or give --even-newest",
        )
    if not dry_run and found.holding:
        confirm(dataset, yes_erase)
        with_library(session, carry_out)
    pruned, told = prune_after(session, dry_run=dry_run, supposing=supposed if dry_run else None)
    session.out.result(
        {**_traces_document(found, done=not dry_run), "prune": pruned},
        [*_traces_lines(found, dry_run=dry_run), "", *told],
    )


def _traces_document(found: "Traces", *, done: bool) -> dict[str, Any]:
    gone = {one.id for one in found.gone}
    return {
        "dataset": found.dataset,
        "paths": found.paths,
        "snapshots": [
            {
                "id": one.id,
                "time": moment(one.row.created_ns),
                "node": one.node,
                "size": one.row.size,
                "newest": one in found.newest,
                "forgotten": done or one.id in gone,
            }
            for one in (*found.holding, *found.gone)
        ],
        "done": done,
        "complete": not found.unread,
        "until": moment(found.until_ns),
    }


def _traces_lines(found: "Traces", *, dry_run: bool) -> list[str]:
    gone = {one.id for one in found.gone}
    word = "would be forgotten" if dry_run else "forgotten"
    rows = [
        (one.id[:12], moment(one.row.created_ns), one.node, format_size(one.row.size), _fate(one, found, gone, word))
        for one in (*found.holding, *found.gone)
    ]
    count = counted(len(found.holding), "snapshot")
    return [
        *table(("ID", "TIME", "NODE", "SIZE", ""), rows),
        "",
        f"{count} of '{plain(found.dataset)}' {word}, with everything in them.",
        f"Copies remain at providers until {moment(found.until_ns)[:10]} at the earliest. Before that day counts, each",
        "node lets go with its next backup, and what nothing else needs is marked: `replicator prune` goes on with it.",
    ]


def _fate(one: "OpenSnapshot", found: "Traces", gone: set[str], word: str) -> str:
    if one.id in gone:
        return "was forgotten before"
    return f"{word} (the newest)" if one in found.newest else word


@erase.command("domain")
@click.argument("name")
@click.option("--sheet", required=True, metavar="FILE", help='The recovery sheet; "-" to type or pipe the words.')
@click.option("--dry-run", is_flag=True, help="Only say what would go, and who holds its keys.")
@click.option("--at-once", is_flag=True, help="Destroy its keys, though a node may not have heard and go on writing.")
@click.option("--yes-erase", metavar="NAME", help="The domain's name, instead of typing it when asked.")
@command(keys="root (the sheet), owner, restore and maintenance (keeper)")
def erase_domain(session: Session, name: str, sheet: str, dry_run: bool, at_once: bool, yes_erase: str | None) -> None:
    """Destroy the keys of domain NAME here, forget all its snapshots, and prune. There is no way back.

    Nobody may be backing up into it: move or end its datasets first. From then on nodes refuse to write into it. While
    so many providers have not heard that a node on another machine could publish at these alone, its keys stay here, as
    what such a node writes could never be read: run it again when they answer, or give --at-once. At
    providers its data, and earlier keybags with its key, go as slowly as everything is deleted; until then the sheet
    opens them. Run again, it does what was left: at providers that were away, or what a late node still wrote.
    """
    from replicator.engine.closing import (  # noqa: PLC0415 - commands import what they use
        carry_out,
        find_keybags,
        keybags_at,
        look,
        supposed_after,
    )
    from replicator.engine.keys import root_of_sheet  # noqa: PLC0415

    words = read_words(sheet, session.out)
    with session.edge() as edge, session.keeper() as keeper:
        root_of_sheet(keeper, words)  # a wrong sheet is known before anything is asked
        if not dry_run and all(one.name != name for one in keeper.private.erased):
            confirm(name, yes_erase)  # before anything is looked at: nobody knows how long an answer takes
        with session.siblings() as siblings:
            found = wait(look(keeper, siblings, edge, words, name))
            supposed = supposed_after(keeper, found)
            if not dry_run:
                wait(carry_out(keeper, siblings, edge, found, at_once=at_once))
        lying, problems = wait(find_keybags(keeper, edge, words, found.id)) if found.erased_ns else ({}, [])
    pruned, told = prune_after(session, dry_run=dry_run, supposing=supposed if dry_run else None)
    at: list[KeybagsAt] = []
    if found.erased_ns:
        with session.edge() as edge, session.keeper() as keeper:
            at = wait(keybags_at(keeper, edge, lying))
    for text in (*found.notices, *found.unread, *problems):
        session.out.notice(text)
    for text in found.integrity:
        session.out.notice(f"INTEGRITY: {text}")
    if found.integrity:
        session.worsen(exits.INTEGRITY)
    if found.unread or found.unheard or problems or any(not one.done for one in at):
        session.worsen(exits.GAPS)
    session.out.result(
        {**_closing_document(found, at, dry_run=dry_run), "prune": pruned},
        [*_closing_lines(found, at, dry_run=dry_run), "", *told],
    )


def _closing_document(found: "Closing", at: "list[KeybagsAt]", *, dry_run: bool) -> dict[str, Any]:
    return {
        "domain": found.name,
        "id": found.id.hex(),
        "erased": moment(found.erased_ns),
        "snapshots": sorted(one.hex() for one in found.snapshots),
        "writing": found.writing,
        "other_holders": found.holders,
        "keys_wait_for": found.unheard,
        "keybags": [
            {
                "id": one.id,
                "name": one.name,
                "there": one.there,
                "marked": one.marked,
                "not_before": moment(one.until_ns),
                "problem": one.problem,
            }
            for one in at
        ],
        "dry_run": dry_run,
        "complete": bool(at) and not found.unread and not found.unheard and all(one.done for one in at),
    }


def _closing_lines(found: "Closing", at: "list[KeybagsAt]", *, dry_run: bool) -> list[str]:
    would = "would be " if dry_run else ""
    name, count = plain(found.name), len(found.snapshots)
    lines = [f"Written into: {text}" for text in found.writing]
    lines.append(f"{counted(count, 'snapshot')} of domain '{name}' {would}forgotten.")
    if found.erased_ns:
        lines.append(f"Domain '{name}' is erased since {moment(found.erased_ns)}: nodes that hear of it refuse it.")
        if found.unheard:
            lines.append(
                f"Its keys STAY in this home: {', '.join(map(plain, found.unheard))} did not hear of it, and a node "
                "that reaches only these would write what nobody can read. Run this again when they answer, or with "
                "--at-once."
            )
        elif not dry_run:
            lines.append("Its keys are gone from this home.")
    if found.holders:
        lines.append(f"May hold its restore key: {', '.join(map(plain, found.holders))}. Destroy those homes too.")
    if at:
        rows = [(one.name, one.there, one.marked, moment(one.until_ns)[:10], one.problem) for one in at]
        lines += [
            "Earlier keybags with its key, which the recovery sheet opens until they are deleted:",
            *table(("PROVIDER", "THERE", "MARKED", "NOT BEFORE", "PROBLEM"), rows),
        ]
    return lines


@erase.command("tenant")
@click.option("--sheet", required=True, metavar="FILE", help='The recovery sheet; "-" to type or pipe the words.')
@click.option("--dry-run", is_flag=True, help="Only say who would be told to delete what.")
@click.option("--yes-erase", metavar="NAME", help="The tenant's name, instead of typing it when asked.")
@command(keys="root (the sheet)")
def erase_tenant(session: Session, sheet: str, dry_run: bool, yes_erase: str | None) -> None:
    """Have every provider delete all of this tenant at once, and destroy the keys in this home. There is no way back.

    The order is signed by root and stands above locks and grace. Each provider that answers deletes everything of the
    tenant and signs a receipt; those that do not are named, and asked again by `erase report`. What a provider, or
    anybody, has copied stays readable for who has the sheet: destroy that too, and the homes of nodes.
    """
    from replicator.engine.erasing import destroy_keys, order, providers_of, send  # noqa: PLC0415
    from replicator.engine.keys import root_of_sheet  # noqa: PLC0415

    with session.edge() as edge, session.keeper() as keeper:
        words = read_words(sheet, session.out)
        root_of_sheet(keeper, words)  # a wrong sheet is known before anything is asked
        told = [(one, keeper.catalog.peers.get(Identity(one.identity)).used) for one in providers_of(keeper)]
        if dry_run:
            rows = [{"id": one.identity.hex(), "name": one.name, "bytes": used} for one, used in told]
            listed = table(("PROVIDER", "HAD"), [(one.name, format_size(used)) for one, used in told])
            said = f"Would have all of '{keeper.member.name}' erased at these, and the keys in {keeper.path} destroyed."
            session.out.result(rows, [*listed, "", said])
            return
        confirm(keeper.member.name, yes_erase)
        order(keeper, edge, words)
        destroy_keys(keeper)
        report = wait(send(keeper, edge))
    _say(session, report)


@erase.command("report")
@click.option("--output", metavar="FILE", help="Also write the signed report here; replaces what is there.")
@click.option("--offline", is_flag=True, help="Ask nobody: the report as it is.")
@click.option(
    "--gone", metavar="PEER", multiple=True, help="This one cannot sign any more: its store or records are lost."
)
@command(keys="none: the order was signed")
def erase_report(session: Session, output: str | None, offline: bool, gone: tuple[str, ...]) -> None:
    """Ask those providers again that have not signed that the tenant is erased, and show who has.

    The signed report holds root's order and every provider's receipt, for whoever wants proof of it. With --gone it
    says, as your word and not a provider's, that one will never sign, and does not wait for it any more.
    """
    from replicator.engine.erasing import declare_gone, load_report, send  # noqa: PLC0415

    with session.edge() as edge, session.keeper() as keeper:
        if gone:
            declare_gone(keeper, edge, gone)
        report = load_report(keeper) if offline else wait(send(keeper, edge))
    if output is not None:
        write_atomic(session.fs, os.path.abspath(output), report.signed)
    _say(session, report)


def confirm(name: str, given: str | None) -> None:
    """Let a person type the name of what is to be erased; ``given`` is what was said on the command line.

    Raises:
        UsageError: another name, or nobody to ask.
    """
    if given is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError(
                "there is no terminal to ask on", hint=f"give --yes-erase '{plain(name)}' to say it is meant"
            )
        given = click.prompt(f"To erase it, type the name of '{plain(name)}'", err=True, default="", show_default=False)
    if given != name:
        raise UsageError(f"'{plain(given)}' is not its name, which is '{plain(name)}'", hint="nothing was erased")


def _say(session: Session, report: "Report") -> None:
    for problem in report.integrity:
        session.out.notice(f"INTEGRITY: {problem}")
    if report.integrity:
        session.worsen(exits.INTEGRITY)
    if report.outstanding:
        session.worsen(exits.GAPS)
    session.out.result(_document(report), _lines(report))


def _document(report: "Report") -> dict[str, Any]:
    return {
        "tenant": report.tenant,
        "ordered": moment(report.ordered_ns),
        "made": moment(report.made_ns),
        "complete": not report.outstanding,
        "providers": [
            {
                "id": one.identity.hex(),
                "name": one.name,
                "erased": one.receipt is not None,
                "gone": moment(one.gone_ns),
                "objects": one.receipt.objects if one.receipt else None,
                "bytes": one.receipt.bytes if one.receipt else None,
                "began": moment(one.receipt.began_ns) if one.receipt else "",
                "ended": moment(one.receipt.ended_ns) if one.receipt else "",
                "problem": one.problem,
            }
            for one in report.told
        ],
        "report": report.signed,
    }


def _state(one: "Told") -> str:
    if one.receipt:
        return f"erased {moment(one.receipt.ended_ns)}"
    return f"gone, as was said {moment(one.gone_ns)}" if one.gone_ns else "OUTSTANDING"


def _lines(report: "Report") -> list[str]:
    rows = [
        (
            one.name,
            _state(one),
            format_size(one.receipt.bytes) if one.receipt else "",
            one.problem,
        )
        for one in report.told
    ]
    left = [one.name for one in report.outstanding]
    return [
        f"Root ordered on {moment(report.ordered_ns)} that tenant '{plain(report.tenant)}' is erased.",
        *table(("PROVIDER", "STATE", "WAS", "PROBLEM"), rows),
        "",
        f"Outstanding: {', '.join(map(plain, left))}. `replicator erase report` asks again."
        if left
        else f"Every {'other ' if report.gone else ''}provider has signed that nothing of it is left there.",
        "What was copied elsewhere cannot be read without the recovery sheet: destroy that, and all its homes.",
    ]
