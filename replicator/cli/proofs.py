"""What came of proofs, in words and as a document; and `audit`."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, wait
from replicator.cli.output import moment, table
from replicator.config import counted, format_size
from replicator.ids import Identity

if TYPE_CHECKING:
    from replicator.engine.audit import Audited, PeerView


class Proofs(Protocol):
    """Counts of proofs that were asked for."""

    @property
    def probes(self) -> int:
        """All of them."""
        ...

    @property
    def proved(self) -> int:
        """Of what is there."""
        ...

    @property
    def wrong(self) -> int:
        """Of other bytes."""
        ...

    @property
    def absent(self) -> int:
        """Of what was listed and cannot be shown."""
        ...

    @property
    def late(self) -> int:
        """Not in time."""
        ...


def proofs_document(found: Proofs) -> dict[str, int]:
    """Return the counts for JSON."""
    return {
        "probes": found.probes,
        "proved": found.proved,
        "wrong": found.wrong,
        "absent": found.absent,
        "late": found.late,
    }


def proofs_words(found: Proofs) -> str:
    """Return the counts for people; what did not happen is not named."""
    bad = [f"{count} {word}" for word in ("wrong", "absent", "late") if (count := getattr(found, word))]
    return f"{found.proved} of {counted(found.probes, 'proof')} {'is' if found.proved == 1 else 'are'} right" + (
        f", {', '.join(bad)}" if bad else ""
    )


def week_document(week: "Audited | None") -> dict[str, Any] | None:
    """Return a week of audits for JSON."""
    if week is None:
        return None
    return {
        **proofs_document(week),
        "asked": moment(week.asked_ns),
        "receipts": receipts_documents(week.signed),
        "one_percent_would_show": round(week.confidence, 4),
    }


def _shown(view: "PeerView | None") -> str:
    return "none" if view is None else proofs_words(view) + ", signed" * bool(view.signed)


def receipts_documents(signed: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return receipts for proofs for JSON, with what others need to check them: docs/spec/format.md, AuditReceipt."""
    from replicator.engine.audit import read_audit_receipt  # noqa: PLC0415 - commands import what they use

    return [
        {
            "id": receipt.question.hex(),
            "answer": receipt.answer.hex(),
            "auditor": receipt.auditor.hex(),
            "incarnation": receipt.incarnation.hex(),
            "probes": receipt.probes,
            "shown": receipt.shown,
            "at": moment(receipt.at_ns),
            "signed": base64.b64encode(one).decode(),
        }
        for one in signed
        for receipt in [read_audit_receipt(one)]
    ]


@click.command()
@click.option("--probes", type=click.IntRange(1, 10_000), help="Proofs asked of each provider; 100 unless said.")
@command(keys="none beyond being a member", run="audit")
def audit(session: Session, probes: int | None) -> None:
    """Ask every provider what it holds, and to prove parts of it that it could not foresee.

    A proof is 16 KiB and its path, checked against the object's name alone. Wrong: other bytes came. Absent: what was
    listed cannot be shown. Late: nothing came in time, which is an outage and no loss. Nothing is repaired. A provider
    signs what it was asked and what it answered; these receipts are kept for sixty days, and are in the JSON.
    """
    from replicator.engine.audit import PROBES, audited  # noqa: PLC0415 - commands import what they use
    from replicator.engine.audit import audit as work  # noqa: PLC0415

    with session.member() as half, session.edge() as edge:
        views, federation = wait(work(half, edge, count=probes or PROBES))
        week = audited(half, edge.clock.now_ns())
        pins = half.peers
    rows: list[dict[str, Any]] = []
    states: list[list[str]] = []
    for pin in pins:
        view = views.get(pin.identity)
        failure = federation.failures.get(Identity(pin.identity))
        problems = [str(failure)] if failure is not None else view.problems if view is not None else []
        states.append(problems)
        rows.append(
            {
                "id": pin.identity.hex(),
                "name": pin.name,
                "answered": view is not None,
                "objects": view.objects if view else 0,
                "bytes": view.bytes if view else 0,
                "missing": len(view.missing) if view else 0,
                "damaged": len(view.damaged) if view else 0,
                **(proofs_document(view) if view else {}),
                "receipts": receipts_documents(view.signed if view else ()),
                "week": week_document(week.get(pin.identity.hex())),
                "problems": problems,
            }
        )
        if view is None or view.missing or view.absent or view.late or problems:
            session.worsen(exits.GAPS)
    if federation.integrity:
        session.worsen(exits.INTEGRITY)
    for text in (*federation.notices, *(f"INTEGRITY: {one}" for one in federation.integrity)):
        session.out.notice(text)
    session.out.result(
        rows,
        table(
            ("PROVIDER", "OBJECTS", "SIZE", "PROOFS", "1% GONE WOULD SHOW", "STATE"),
            [
                (
                    pin.name,
                    row["objects"],
                    format_size(row["bytes"]),
                    _shown(views.get(pin.identity)),
                    f"{100 * one.confidence:.1f}% in a week" if (one := week.get(pin.identity.hex())) else "-",
                    "; ".join(said) or "good",
                )
                for pin, row, said in zip(pins, rows, states, strict=True)
            ],
        ),
    )
