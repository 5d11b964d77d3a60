"""How trial restores are shown, by `drill` and by `status`."""

from typing import TYPE_CHECKING, Any

from replicator.cli.output import moment, table
from replicator.config import format_size

if TYPE_CHECKING:
    from replicator.format.drill import Drill, DrillCheck


def drill_document(one: "Drill") -> dict[str, Any]:
    """Return a drill for JSON."""
    return {
        "id": one.snapshot.hex(),
        "dataset": one.dataset,
        "time": moment(one.ended_ns),
        "whole": one.whole,
        "files": one.files,
        "bytes": one.bytes,
        "problems": one.problems,
        "unset": one.unset,
        "check": one.check,
        "passed": one.passed,
    }


def drill_words(one: "Drill") -> str:
    """Return how a drill went, with its check."""
    said = {"none": "no check", "passed": "check passed", "failed": "check FAILED"}
    sample = "" if one.whole else "a sample, "
    return f"{'passed' if one.passed else 'FAILED'} ({sample}{said.get(one.check, f'check {one.check}')})"


def check_table(checks: "list[DrillCheck]") -> list[str]:
    """Return kept checks for people."""
    return table(("DATASET", "TIMEOUT", "CHECK"), [(one.dataset, f"{one.limit_s}s", one.command) for one in checks])


def check_document(one: "DrillCheck") -> dict[str, Any]:
    """Return a kept check for JSON."""
    return {"id": one.dataset, "check": one.command, "check_timeout": f"{one.limit_s}s"}


def drill_table(found: "list[Drill]") -> list[str]:
    """Return drills for people."""
    return table(
        ("DATASET", "TIME", "RESULT", "RESTORED", "FILES", "SIZE", "CHECK"),
        [
            (
                one.dataset,
                moment(one.ended_ns),
                "passed" if one.passed else "FAILED",
                "all" if one.whole else "a sample",
                one.files,
                format_size(one.bytes),
                one.check,
            )
            for one in found
        ],
    )
