"""findings: evidence about chains, and how it and witnesses are shown."""

import base64
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from replicator.cli.base import Session, command, common_options, read_stdin
from replicator.cli.output import moment, table
from replicator.errors import IntegrityError, NotFoundError, UsageError
from replicator.ids import identity_of, short

if TYPE_CHECKING:
    from replicator.engine.findings import KeptFinding
    from replicator.engine.freshness import Freshness, Sighting
    from replicator.engine.home import Half


def finding_document(kept: "KeptFinding") -> dict[str, Any]:
    """Return a finding for JSON, complete: whoever has it can check it with `findings check`."""
    finding = kept.finding
    return {
        "id": kept.id,
        "kind": finding.kind,
        "writer": finding.writer.hex(),
        "provider": finding.provider.hex() if any(finding.provider) else "",
        "number": finding.number,
        "found": moment(finding.found_ns),
        "finder": finding.finder.hex(),
        "acknowledged": moment(kept.noted_ns),
        "note": kept.note,
        "statements": [
            {
                "id": str(place),
                "context": one.context,
                "signer": identity_of(one.signed[:32]).hex(),
                "signed": base64.b64encode(one.signed).decode(),
            }
            for place, one in enumerate(finding.statements)
        ],
        "signed": base64.b64encode(kept.signed).decode(),
    }


def seen_in_words(age_s: int, witnesses: "Iterable[Sighting]", *, asked: bool = True) -> str:
    """Return how old a snapshot is and who has seen it; who was not ``asked`` is not said to be silent."""
    from replicator.engine.freshness import age_in_words  # noqa: PLC0415 - commands import what they use

    seen = ", ".join(
        f"{one.name} ({moment(one.seen_ns)}{'' if one.answers or not asked else ', does not answer now'})"
        for one in witnesses
    )
    return f"newest snapshot {age_in_words(age_s)} old, seen by {seen or 'nobody'}"


def freshness_document(found: "Freshness") -> dict[str, Any]:
    """Return a snapshot's age and witnesses for JSON."""
    return {
        "age_s": found.age_s,
        "witnesses": [
            {"id": one.id, "name": one.name, "seen": moment(one.seen_ns), "answers": one.answers}
            for one in found.witnesses
        ],
        "warnings": list(found.warnings),
    }


@click.group()
@common_options
def findings() -> None:
    """Evidence that somebody forked, cut or went on with the history of a node."""


@contextmanager
def _halves(session: Session) -> "Iterator[list[Half]]":
    """Open both halves of this home, those that there are. No passphrase is asked for."""
    from replicator.engine.home import has_half  # noqa: PLC0415 - commands import what they use

    with ExitStack() as stack:
        found: list[Half] = []
        if has_half(session.home, "keeper"):
            found.append(stack.enter_context(session.keeper()))
        if has_half(session.home, "node") or not found:
            found.append(stack.enter_context(session.node()))
        yield found


def _all(session: Session) -> "list[tuple[str, KeptFinding]]":
    """Return the findings of this home, with what each says; of one that both halves made, the one that is open."""
    from replicator.engine.findings import Findings, in_words  # noqa: PLC0415 - commands import what they use

    found: dict[str, tuple[str, KeptFinding]] = {}
    with _halves(session) as halves:
        for half in halves:
            for kept in Findings(half).all():
                if kept.id not in found or kept.open:
                    found[kept.id] = (in_words(half, kept.finding), kept)
    return sorted(found.values(), key=lambda one: (one[1].finding.found_ns, one[1].id))


def one_finding(session: Session, text: str) -> "tuple[str, KeptFinding]":
    """Return the finding whose id begins so, with what it says.

    Raises:
        NotFoundError: none, or more than one.
    """
    found = [one for one in _all(session) if one[1].id.startswith(text.lower())]
    if len(found) != 1 or not text:
        raise NotFoundError(
            f"{'no' if not found else 'more than one'} finding '{text}' in this home",
            hint="`replicator findings list` lists them",
        )
    return found[0]


@findings.command("list")
@command(keys="none beyond being a member")
def list_findings(session: Session) -> None:
    """List what was found, oldest first; acknowledged findings stay."""
    rows = _all(session)
    session.out.result(
        [finding_document(kept) for _, kept in rows],
        table(
            ("ID", "FOUND", "ACKNOWLEDGED", "WHAT"),
            [(kept.id, moment(kept.finding.found_ns), moment(kept.noted_ns) or "no", text) for text, kept in rows],
        ),
    )


@findings.command("show")
@click.argument("finding")
@command(keys="none beyond being a member")
def show(session: Session, finding: str) -> None:
    """Show one finding, what to do, and the signed statements; --json has them whole, for `findings check`."""
    from replicator.engine.findings import advice_for  # noqa: PLC0415

    text, kept = one_finding(session, finding)
    session.out.result(
        finding_document(kept),
        [
            text,
            f"To do: {advice_for(kept.finding)}",
            f"Found {moment(kept.finding.found_ns)} by {short(kept.finding.finder)}; "
            + (f"acknowledged {moment(kept.noted_ns)} {kept.note}".strip() if kept.noted_ns else "not acknowledged"),
            *(
                f"{one.context}, {len(one.signed)} bytes, signed by {short(identity_of(one.signed[:32]))}"
                for one in kept.finding.statements
            ),
        ],
    )


@findings.command("acknowledge")
@click.argument("finding")
@click.option("--note", default="", metavar="TEXT", help="What it was, for whoever reads it later.")
@command(keys="none beyond being a member")
def acknowledge(session: Session, finding: str, note: str) -> None:
    """Say that you have seen a finding and done what it asks for. It stays, and stops no backup any more."""
    acknowledge_finding(session, finding, note)


def acknowledge_finding(session: Session, text: str, note: str) -> None:
    """Keep in every half that knows a finding that a person has seen it."""
    from replicator.engine.findings import Findings  # noqa: PLC0415 - commands import what they use

    _, kept = one_finding(session, text)
    with _halves(session) as halves:
        for half in halves:
            store = Findings(half)
            for one in store.all():
                if one.id == kept.id:
                    store.note(one, note, session.clock.now_ns())
    session.out.result({"id": kept.id, "acknowledged": True, "note": note}, f"Acknowledged {kept.id}; it stays.")


@findings.command("check")
@click.argument("file", type=click.Path(dir_okay=False), required=True)
@command(keys="none, and no home")
def check(session: Session, file: str) -> None:
    """Check what `findings show --json` gave, with the public keys in it alone. "-" reads standard input.

    Compare the identities that it prints with those you know: they say whose statements these are.
    """
    from replicator.charter.chain import check_finding  # noqa: PLC0415
    from replicator.engine.findings import read_finding  # noqa: PLC0415

    try:
        if file == "-":
            text = read_stdin()
        else:
            with open(file, encoding="utf-8") as opened:
                text = opened.read()
        document = json.loads(text)
        signed = base64.b64decode(document["signed"], validate=True)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: no finding ({error})", hint="give what `findings show ID --json` printed") from error
    finding = read_finding(signed)
    if identity_of(signed[:32]) != finding.finder:
        raise IntegrityError(f"{file}: signed by another home than the one it names")
    check_finding(finding)
    session.out.result(
        {
            "id": finding.kind,
            "holds": True,
            "kind": finding.kind,
            "number": finding.number,
            "writer": finding.writer.hex(),
            "provider": finding.provider.hex() if any(finding.provider) else "",
            "finder": finding.finder.hex(),
            "found": moment(finding.found_ns),
        },
        [
            f"It holds: {finding.kind} at snapshot {finding.number}.",
            f"writer    {finding.writer.hex()}",
            *([f"provider  {finding.provider.hex()}"] if any(finding.provider) else []),
            f"found by  {finding.finder.hex()}, {moment(finding.found_ns)}",
        ],
    )
