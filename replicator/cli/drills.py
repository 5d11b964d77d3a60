"""How trial restores are shown, by `drill` and by `status`."""

from typing import TYPE_CHECKING, Any

from replicator.cli.output import moment, table
from replicator.config import format_size

if TYPE_CHECKING:
    from replicator.format.drill import Drill


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
        "check": one.check,
        "passed": drill_passed(one),
    }


def drill_passed(one: "Drill") -> bool:
    """Return whether everything came back and the check, if there was one, was content."""
    return not one.problems and one.check != "failed"


def drill_table(found: "list[Drill]") -> list[str]:
    """Return drills for people."""
    return table(
        ("DATASET", "TIME", "RESULT", "RESTORED", "FILES", "SIZE", "CHECK"),
        [
            (
                one.dataset,
                moment(one.ended_ns),
                "passed" if drill_passed(one) else "FAILED",
                "all" if one.whole else "a sample",
                one.files,
                format_size(one.bytes),
                one.check,
            )
            for one in found
        ],
    )
