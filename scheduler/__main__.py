"""``python -m scheduler plan PROBLEM.json``: placement as a tool for other programs (docs/spec/placement.md)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Final

from scheduler.problem import ProblemError, read
from scheduler.report import plan

__all__ = ["main"]

DONE: Final = 0
USAGE: Final = 2
MINIMUM: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scheduler",
        description="Decide which peers hold which packs.",
        epilog="Exit: 0 everything has its place, 2 the problem cannot be used, 5 something is refused. "
        "Problem and plan are specified in docs/spec/placement.md.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("plan", help="read a problem, print the plan; both are JSON")
    command.add_argument("problem", metavar="PROBLEM.json", help="a file, or - for standard input")
    command.add_argument("--seed", default="", help="settles what is otherwise equal; the same seed, the same plan")
    given = parser.parse_args(arguments)
    try:
        problem = read(_text(given.problem))
    except (ProblemError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"error: {given.problem}: {error}\n")
        return USAGE
    found = plan(problem, seed=given.seed.encode())
    for query in problem.queries:
        sys.stderr.write(f"query: {query.message}\n")
    sys.stdout.write(json.dumps(found) + "\n")
    return DONE if found["feasible"] else MINIMUM


def _text(name: str) -> str:
    if name == "-":
        return sys.stdin.buffer.read().decode()
    with open(name, "rb") as file:
        return file.read().decode()


if __name__ == "__main__":
    sys.exit(main())
