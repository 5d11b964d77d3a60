"""The options that say how long snapshots stay, for the commands that take them."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from replicator.config import parse_duration, parse_name

if TYPE_CHECKING:
    from replicator.snapshot.retention import KeepRules

_COUNTS = {
    "last": "Keep the last N snapshots.",
    "hourly": "The newest of each of the last N hours.",
    "daily": "The newest of each of the last N days.",
    "weekly": "The newest of each of the last N weeks.",
    "monthly": "The newest of each of the last N months.",
    "yearly": "The newest of each of the last N years.",
}


def keep_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; all of them come to :func:`asked_rules`."""
    options = [
        click.option(f"--keep-{word}", type=int, default=0, metavar="N", help=help_) for word, help_ in _COUNTS.items()
    ]
    options += [
        click.option(
            "--keep-within", metavar="DURATION", help="All that are not older than this before the newest one."
        ),
        click.option("--keep-tag", metavar="TAG", multiple=True, help="All with this tag; of several, with any."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def asked_rules(said: Mapping[str, Any]) -> "KeepRules | None":
    """Return the rules that options say, None if they say nothing.

    Raises:
        UsageError: a number, duration or tag that cannot be meant.
    """
    from replicator.snapshot.retention import KeepRules  # noqa: PLC0415 - commands import what they use

    counts = {word: said[f"keep_{word}"] for word in _COUNTS}
    within, tags = said["keep_within"], said["keep_tag"]
    if not any(counts.values()) and not within and not tags:
        return None
    return KeepRules(
        **counts,
        within_s=parse_duration(within) if within else 0,
        tags=frozenset(parse_name(tag, "a tag") for tag in tags),
    )
