"""status, why, verify, repair, rebalance."""

import asyncio
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, wait
from replicator.cli.drills import drill_document, drill_words
from replicator.cli.extra import extra_document
from replicator.cli.findings import finding_document, seen_in_words
from replicator.cli.output import Alarm, moment, table
from replicator.cli.proofs import proofs_words, week_document
from replicator.config import counted, format_size
from replicator.endpoints import join_endpoint, parse_way
from replicator.engine.naming import Label, choose
from replicator.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from replicator.catalog.snapshots import SnapshotRow
    from replicator.engine.browse import Library
    from replicator.engine.edge import Edge
    from replicator.engine.home import Half
    from replicator.engine.rebalance import Move
    from replicator.engine.repair import PlannedCopy
    from replicator.engine.status import Status, SurplusAt
    from replicator.engine.verify import VerifyReport


@click.command()
@click.option("--offline", is_flag=True, help="Ask nobody; answer from what was last heard.")
@click.option("--all", "everyone", is_flag=True, help="Of every home below --homes: one line each.")
@click.option("--homes", metavar="DIR", help="For --all: the folder with a home for each tenant; or REPLICATOR_HOMES.")
@command(keys="none beyond being a member")
def status(session: Session, offline: bool, everyone: bool, homes: str | None) -> None:
    """Say whether the data is safe, as of when, and what to do. Asks every provider for inventory and proof.

    With --all the exit code is the worst of all homes', and one that cannot be opened keeps no other from being looked
    at.
    """
    if everyone:
        from replicator.cli.everyone import status_all  # noqa: PLC0415 - only who has many tenants needs it

        status_all(session, homes, lambda one: _look(one, offline=offline))
        return
    if homes is not None:
        raise UsageError("--homes is for --all", hint="give both, or --home DIR for one home")
    session.out.result(*_look(session, offline=offline))


def _look(session: Session, *, offline: bool) -> tuple[dict[str, Any], list[str]]:
    """Return how the home of a session stands, as a document and in words; its exit code becomes the worse of both."""
    from replicator.cli.telling import alarm_documents, alarms_now, remembered  # noqa: PLC0415 - commands import what they use
    from replicator.engine.alarms import acknowledged_exit  # noqa: PLC0415 - likewise
    from replicator.engine.status import status as work  # noqa: PLC0415 - likewise

    with session.member() as half, session.drilling(half) as keeper, session.edge() as edge:
        found = wait(work(half, edge, keeper=keeper, offline=offline))
        now_ns = session.clock.now_ns()
        memory, present = remembered(session, half.path, now_ns, alarms_now(half, found))
    found.exit_code = acknowledged_exit(found, memory.known)
    alarms = alarm_documents(memory, present, now_ns)
    session.worsen(found.exit_code)
    return _status_document(found) | {"alarms": alarms}, [*_status_text(found), *_alarms_text(alarms)]


def _alarms_text(alarms: list[dict[str, Any]]) -> list[str]:
    if not alarms:
        return []
    rows = [(one["code"], one["id"], one["about"], one["since"], _told_text(one)) for one in alarms]
    known = [
        f"KNOWN: {one['what']}" + (f" ({one['note']})" if one["note"] else "") for one in alarms if one["acknowledged"]
    ]
    not_told = [f"NOT TOLD: {one['what']}; {one['todo']}" for one in alarms if one["code"] == "notify.failed"]
    return ["", *table(("ALARM", "ID", "ABOUT", "SINCE", "TOLD"), rows), *known, *not_told]


def _told_text(one: dict[str, Any]) -> str:
    if one["acknowledged"]:
        return f"known since {one['acknowledged'][:10]}"
    if one["told"]:
        return ", ".join(one["told"])
    return f"not for {one['told_in_s'] // 3600 + 1} h" if one["told_in_s"] else "nobody"


def _status_document(found: "Status") -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415

    document = asdict(found)
    document["deletions_as_of"] = moment(document.pop("deletions_ns"))
    document["safe"] = found.exit_code == 0 and bool(found.datasets)
    document["as_of"] = moment(document.pop("as_of_ns"))
    document["exit"] = document.pop("exit_code")
    for one in document["datasets"]:
        one["id"] = one["id"] or one["name"]  # what was adopted has no dataset's name
        one["newest"] = moment(one.pop("newest_ns"))
        for witness in one["witnesses"]:
            witness["seen"] = moment(witness.pop("seen_ns"))
    document["findings"] = [finding_document(kept) for kept in found.findings]
    document["drills"] = [drill_document(one) for one in found.drills]
    document["besides"] = [
        {
            "id": name,
            "repository": one.repository,
            "archive": one.archive or None,
            "archived": moment(one.archived_ns),
            "checked": moment(one.checked_ns),
            "error": one.error or None,
        }
        for name, one in found.besides.items()
    ]
    document["extras"] = [extra_document(one) for one in found.extras]
    document["undrilled"] = [{"id": name} for name in found.undrilled]
    for one in document["peers"]:
        one["contacted"] = moment(one.pop("contacted_ns"))
        one["leaves"] = moment(one.pop("leaves_ns")) or None
    for one in document["roots"]:
        one["id"] = one.pop("fingerprint")
        for name in ("announced", "heard", "due"):
            one[name] = moment(one.pop(f"{name}_ns"))
    for one, peer in zip(document["peers"], found.peers, strict=True):
        one["week"] = week_document(peer.week)
    for one in document["deletions"]:
        one["first"] = moment(one.pop("first_ns"))
        one["frozen_until"] = moment(one.pop("frozen_until_ns"))
    return document


def _answers(endpoint: str) -> str:
    way = parse_way(endpoint)
    return "answers" if way.relay is None else f"answers through a relay at {join_endpoint(way.host, way.port)}"


def _not_asked(behind: list[str]) -> str:
    return f"not asked; only through {' or '.join(behind)}" if behind else "not asked"


def _deletions_text(found: "Status") -> list[str]:
    lines: list[str] = []
    for one in found.deletions:
        if one.objects or one.swept or one.frozen_until_ns:
            lines.append(
                f"Marked for deletion at {one.name}: {counted(one.objects, 'object')}, {format_size(one.bytes)}"
                + (f", the first may go on {moment(one.first_ns)[:10]}" if one.first_ns else "")
                + f"; {format_size(one.swept)} of at most {format_size(one.budget)} went in the last 7 days."
                + (" Its clock leapt, so nothing goes now." if one.frozen_until_ns else "")
            )
        if one.unbraked:
            brakes = " AND NO ".join(one.unbraked).upper()
            lines.append(
                Alarm(f"{one.name}: NO {brakes} on deletions: what is marked there can be gone before anybody looks.")
            )
    return lines


def _surplus_text(one: "SurplusAt") -> str:
    said = []
    if one.objects:
        said.append(
            f"{counted(one.objects, 'copy is', 'copies are')} more than promised ({format_size(one.bytes)}): "
            "`run` or `repair` of the node lets go of that"
        )
    if one.released:
        said.append(
            f"{counted(one.released, 'copy is', 'copies are')} given up ({format_size(one.released_bytes)}), "
            "as enough lie elsewhere: `prune` releases what is not marked yet, and all of it counts there as used "
            "until it is deleted"
        )
    return f"Surplus at {one.name}: {'; '.join(said)}."


def _status_text(found: "Status") -> list[str]:
    lines = [line for one in found.roots for line in (f"!! {one.text}.", f"!! {one.advice}", "")]
    if not found.datasets:
        lines.append("Nothing is backed up from here yet.")
    elif found.exit_code == 0:
        lines.append(f"Your data is safe, as of {moment(found.as_of_ns) or 'never'}.")
    else:
        lines.append(f"Something needs attention, as of {moment(found.as_of_ns) or 'never'}.")
    if not found.asked:
        lines.append("(Nobody was asked: this is what was last heard.)")
    lines.append("")
    if found.datasets:
        lines += table(
            ("DATASET", "STATE", "COPIES", "NEWEST", "FILES", "SIZE"),
            [
                (
                    one.name,
                    one.state,
                    f"{one.copies} of {one.promised}" + (f" ({one.coding})" if one.coding else ""),
                    moment(one.newest_ns),
                    one.files,
                    format_size(one.bytes),
                )
                for one in found.datasets
            ],
        )
        lines.append("")
    if found.peers:
        lines += table(
            ("PROVIDER", "PLACE", "OBJECTS", "SIZE", "PROOFS", "STATE"),
            [
                (
                    one.name,
                    f"{one.site}, {one.region}, {one.country}",
                    one.objects,
                    format_size(one.bytes),
                    one.probes if one.proved == one.probes else proofs_words(one),
                    "; ".join((*([] if one.stands == "answers" else [one.stands]), *one.problems))
                    or (_answers(one.reached) if one.reachable else _not_asked(one.behind)),
                )
                for one in found.peers
            ],
        )
        lines.append("")
    lines += _deletions_text(found)
    lines += [_surplus_text(one) for one in found.surplus]
    if found.spooled_bytes:
        lines.append(f"{format_size(found.spooled_bytes)} wait in the spool for more copies.")
    lines += [
        f"Beside {name}, counted as no copy: {one.archive or 'no archive yet'} in {one.repository}"
        + (f", checked {moment(one.checked_ns)[:10]}" if one.checked_ns else "")
        for name, one in found.besides.items()
    ]
    lines += [
        f"Extra copy '{one.name}', counted as no copy: {counted(one.objects, 'object')} in {one.place}, "
        f"{moment(one.written_ns) or 'never whole'}"
        for one in found.extras
    ]
    lines += [f"!! {problem}" for problem in found.late.values()]
    lines += [f"Trial restore of {one.dataset}: {drill_words(one)}, {moment(one.ended_ns)}" for one in found.drills]
    lines += [f"{one.name}: {gap}" for one in found.datasets for gap in one.gaps]
    lines += [
        f"{one.name}: {seen_in_words(one.age_s, one.witnesses, asked=found.asked)}"
        for one in found.datasets
        if one.newest_ns
    ]
    lines += [f"{one.name}: {warning}" for one in found.datasets for warning in one.warnings]
    lines += [f"INTEGRITY: {problem}" for problem in found.integrity]
    lines += [f"KNOWN: {text}" for text in found.acknowledged]
    lines += found.notices
    lines += [f"To do: {advice}" for advice in found.advice]
    return lines


@click.command()
@click.argument("what")
@command(keys="none beyond being a member; restore where a keeper is asked by a dataset's name")
def why(session: Session, what: str) -> None:
    """Explain where the copies of WHAT lie, and why there.

    WHAT: a dataset, id prefix, latest, latest:DATASET or DATASET@2026-11-17.
    """
    from replicator.engine.why import explain  # noqa: PLC0415

    with session.member() as half, session.edge() as edge:
        chosen = _chosen(session, half, what)
        found = wait(explain(half, edge, chosen))
    session.out.result(
        {"id": what, "places": found.places, "reasons": found.reasons, "survives": found.survives},
        [
            *table(
                ("PROVIDER", "PLACE", "OBJECTS", "SIZE"),
                [
                    (
                        one["name"],
                        f"{one['site']}, {one['region']}, {one['country']}",
                        one["objects"],
                        format_size(one["bytes"]),
                    )
                    for one in found.places
                ],
            ),
            "",
            *found.reasons,
            "",
            *found.survives,
        ],
    )


def _chosen(session: Session, half: "Half", what: str) -> "list[SnapshotRow]":
    """Return the snapshot that is meant. A keeper opens names with its restore key, and only if it must."""
    from replicator.engine.forgetting import without_forgotten  # noqa: PLC0415

    rows = without_forgotten(half, half.catalog.snapshots.all())
    labels = [Label(id=row.name.hex(), dataset=row.dataset, created_ns=row.created_ns) for row in rows]
    try:
        return [rows[choose(labels, _in_full(labels, what))]]
    except NotFoundError as error:
        if half.role in {"keeper", "drill"}:
            return _opened(session, what)
        if any(one.name == what.removeprefix("latest:") for one in half.catalog.datasets.all()):
            raise NotFoundError(
                f"dataset '{what.removeprefix('latest:')}' has no snapshot yet", hint="run `replicator backup`"
            ) from error
        raise _unknown(labels, what, error) from error


def _opened(session: Session, what: str) -> "list[SnapshotRow]":
    from replicator.cli.browse import with_library  # noqa: PLC0415
    from replicator.engine.browse import label_of  # noqa: PLC0415

    async def work(library: "Library", _edge: "Edge") -> "list[SnapshotRow]":
        found = await library.snapshots()
        labels = [label_of(one) for one in found]
        try:
            return [found[choose(labels, _in_full(labels, what))].row]
        except NotFoundError as error:
            raise _unknown(labels, what, error) from error

    return with_library(session, work)


def _in_full(labels: "list[Label]", what: str) -> str:
    """Return what is meant where a dataset's name alone means its newest snapshot."""
    return f"latest:{what}" if what and any(one.dataset == what for one in labels) else what


def _unknown(labels: "list[Label]", what: str, error: NotFoundError) -> NotFoundError:
    """Return what to say of a word that may have been meant as a dataset's name; other forms say it themselves."""
    ambiguous = any(one.id.startswith(what.lower()) for one in labels)
    if ambiguous or "@" in what or what.startswith("latest"):
        return error
    return NotFoundError(
        f"'{what}' is neither a dataset of this home nor the beginning of one snapshot's id",
        hint="`dataset list` and `snapshots` list them",
    )


@click.command()
@click.option("--sample", default="5%", show_default=True, help="Share of the objects to fetch and open.")
@click.option("--all", "everything", is_flag=True, help="Fetch and open every object.")
@command(keys="none beyond being a member for the sealed check; restore (keeper) to open content too", run="verify")
def verify(session: Session, sample: str, everything: bool) -> None:
    """Check stored objects themselves. On a node: names, seals, directories, references. On a keeper: content too."""
    from replicator.engine.home import has_half  # noqa: PLC0415

    share = 1.0 if everything else share_of(sample)
    reads = has_half(session.home, "keeper") or has_half(session.home, "drill")
    report = _verify_content(session, share) if reads else _verify_sealed(session, share)
    if report.problems:
        session.worsen(exits.INTEGRITY)
    if report.absent:
        session.worsen(exits.GAPS)
    for text in (*report.notices, *report.problems, *report.absent):
        session.out.notice(text)
    session.out.result(
        {
            "level": report.level,
            "snapshots": report.snapshots,
            "objects": report.objects,
            "proofs": report.proofs,
            "fetched": report.fetched,
            "fetched_bytes": report.fetched_bytes,
            "chunks": report.chunks,
            "problems": report.problems,
            "absent": report.absent,
        },
        f"{report.level} check: {counted(report.proofs, 'proof')}, {report.fetched} of "
        f"{counted(report.objects, 'object')} ({format_size(report.fetched_bytes)}) fetched, "
        f"{counted(report.chunks, 'chunk')}; {counted(len(report.problems), 'problem')}, {len(report.absent)} absent",
    )


def share_of(text: str) -> float:
    """Return a share between 0 and 1.

    Raises:
        UsageError: it is none.
    """
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError as error:
        raise UsageError(f"'{text}' is not a share such as 5%") from error
    if not 0 <= value <= 1:
        raise UsageError(f"'{text}' is not between 0% and 100%")
    return value


def _verify_sealed(session: Session, share: float) -> "VerifyReport":
    from replicator.engine.federation import Federation  # noqa: PLC0415
    from replicator.engine.verify import verify_sealed  # noqa: PLC0415

    with session.member() as half, session.edge() as edge:

        async def work() -> "VerifyReport":
            async with Federation(half, edge) as federation:
                return await verify_sealed(half, federation, edge, share=share)

        return asyncio.run(work())


def _verify_content(session: Session, share: float) -> "VerifyReport":
    from replicator.cli.browse import with_library  # noqa: PLC0415
    from replicator.engine.inspect import verify_content  # noqa: PLC0415

    return with_library(session, lambda library, edge: verify_content(library, edge, share=share))


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show which copies would be made, and why there.")
@click.option("--unattended", is_flag=True, help="As in `run`: who does not answer now is not taken as lost yet.")
@command(keys="write (a node) or any keeper's; no content key", run="repair")
def repair(session: Session, dry_run: bool, unattended: bool) -> None:
    """Make missing and damaged copies again, the likeliest lost first. Nothing is deleted.

    Providers that do not answer now are taken as lost, except those that are away (`peer set --state away`) or whose
    disk is not mounted.
    """
    from replicator.engine.repair import repair as work  # noqa: PLC0415

    with session.member() as half, session.edge() as edge:
        report = wait(work(half, edge, dry_run=dry_run, by_hand=not unattended))
    session.worsen(report.exit_code)
    for notice in (*report.notices, *report.debts, *report.owed, *(f"lost: {one}" for one in report.unreadable)):
        session.out.notice(notice)
    lines: list[str] = []
    if dry_run:
        lines += _planned_table(report.planned)
        if report.surplus:
            lines += table(
                ("OBJECT", "KIND", "SIZE", "SURPLUS AT", "WHY"),
                [(one.object, one.kind, format_size(one.size), one.peer, one.why) for one in report.surplus],
            )
        if report.hanging:
            lines.append(
                f"{counted(report.hanging, 'pack')} would still be reached through one machine alone: no repair moves "
                "what is stored for that (docs/operate/behind-a-router.md)"
            )
    lost = f"; taken as lost: {', '.join(report.lost_peers)}" if report.lost_peers else ""
    waits = "".join(f"; {name} is {word}" for name, word in report.waiting.items())
    lines.append(
        f"{report.missing} missing and {counted(report.damaged, 'damaged copy', 'damaged copies')} found{lost}{waits}; "
        + (
            f"{counted(len(report.planned), 'copy', 'copies')} would be made "
            f"({format_size(sum(one.size for one in report.planned))})"
            if dry_run
            else f"{report.made} made ({format_size(report.made_bytes)})"
            + (f", {report.pulled} of them from one provider to another" if report.pulled else "")
        )
    )
    if report.exit_code == exits.DONE and not dry_run:
        lines.append("Every object has its promised copies.")
    if report.surplus:
        size = format_size(sum(one.size for one in report.surplus))
        done = f"; this node let go of {report.let_go}" if report.let_go else ""
        lines.append(
            f"{counted(len(report.surplus), 'copy is', 'copies are')} more than promised ({size}){done}: "
            "`prune` releases that"
        )
    session.out.result(
        {
            "planned": [
                {
                    "id": one.object,
                    "kind": one.kind,
                    "size": one.size,
                    "from": one.source or None,
                    "way": one.way,
                    "peer": one.peer,
                    "why": one.why,
                    "urgency": one.urgency,
                    "chance": one.chance,
                    "reason": one.reason,
                }
                for one in report.planned
            ],
            "surplus": [
                {"id": one.object, "kind": one.kind, "size": one.size, "peer": one.peer, "why": one.why}
                for one in report.surplus
            ],
            "let_go": report.let_go,
            "hanging": report.hanging,
            "missing": report.missing,
            "damaged": report.damaged,
            "made": report.made,
            "made_bytes": report.made_bytes,
            "pulled": report.pulled,
            "lost_peers": report.lost_peers,
            "waiting": [{"id": name, "state": word} for name, word in report.waiting.items()],
            "debts": report.debts,
            "owed": report.owed,
            "unreadable": report.unreadable,
            "dry_run": dry_run,
        },
        lines,
    )


def _planned_table(planned: "list[PlannedCopy]") -> list[str]:
    """Return copies to be made in their order, those that are alike in one row."""
    alike: dict[tuple[str, ...], list[PlannedCopy]] = {}
    for one in planned:
        source = one.source or "this machine"
        alike.setdefault((one.kind, source, one.way, one.peer, one.urgency, one.reason, one.why), []).append(one)
    return table(
        ("OBJECTS", "SIZE", "KIND", "FROM", "WAY", "TO", "URGENCY", "WHY NOW", "WHY THERE"),
        [
            (
                ones[0].object if len(ones) == 1 else len(ones),
                format_size(sum(one.size for one in ones)),
                *(kind, source, way, peer, urgency, reason, why),
            )
            for (kind, source, way, peer, urgency, reason, why), ones in alike.items()
        ],
    )


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would move, from where to where, and why.")
@command(keys="write (a node) or any keeper's; no content key", run="rebalance")
def rebalance(session: Session, dry_run: bool) -> None:
    """Bring copies where they should lie, after a provider is to be emptied, gives less room, or stands elsewhere.

    Moves as little as possible; a provider that joins moves nothing. Copies are made first. Where they lay they are
    surplus then, which `prune` releases; this deletes nothing.
    """
    from replicator.engine.rebalance import rebalance as work  # noqa: PLC0415

    with session.member() as half, session.edge() as edge:
        report = wait(work(half, edge, dry_run=dry_run))
    session.worsen(report.exit_code)
    for notice in (*report.notices, *report.owed, *(f"has no place: {one}" for one in report.refused)):
        session.out.notice(notice)
    alike: dict[tuple[str, ...], list[Move]] = {}
    for one in report.moves:
        alike.setdefault((one.leaves, one.peer, one.source or "this machine", one.way, one.why), []).append(one)
    lines = table(
        ("OBJECTS", "SIZE", "LEAVES", "TO", "FROM", "WAY", "WHY"),
        [
            (
                ones[0].object if len(ones) == 1 else len(ones),
                format_size(sum(one.size for one in ones)),
                *(leaves or "nowhere", peer, source, way, why),
            )
            for (leaves, peer, source, way, why), ones in alike.items()
        ],
    )
    size = format_size(sum(one.size for one in report.moves))
    done = f"{report.made} of {counted(len(report.moves), 'copy', 'copies')} made ({format_size(report.made_bytes)})"
    text = f"{counted(len(report.moves), 'copy', 'copies')} would move ({size})" if dry_run else done
    if not report.moves:
        text = "Nothing has to move."
    if report.surplus:
        done = f"; this node let go of {report.let_go}" if report.let_go else ""
        text += f"; {counted(report.surplus, 'copy is', 'copies are')} surplus: `replicator prune` releases that{done}"
    session.out.result(
        {
            "moves": [
                {
                    "id": one.object,
                    "size": one.size,
                    "leaves": one.leaves or None,
                    "peer": one.peer,
                    "from": one.source or None,
                    "way": one.way,
                    "why": one.why,
                }
                for one in report.moves
            ],
            "refused": report.refused,
            "made": report.made,
            "made_bytes": report.made_bytes,
            "pulled": report.pulled,
            "surplus": report.surplus,
            "let_go": report.let_go,
            "owed": report.owed,
            "dry_run": dry_run,
        },
        [*(lines if report.moves else []), text],
    )
