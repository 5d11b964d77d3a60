"""The options of hooks and of file systems' snapshots, for the commands that make and change datasets."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from replicator.config import parse_duration
from replicator.errors import UsageError

if TYPE_CHECKING:
    from replicator.format.consistency import Consistency

SNAPSHOTS = ("none", "btrfs", "zfs", "lvm", "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was said on the line; None is nothing."""

    before: str | None
    after: str | None
    limit: str | None
    failure: Any
    snapshot: Any

    def change(self, old: "Consistency", *, stdin: bool) -> "Consistency":
        """Return what was before with what was said.

        Raises:
            UsageError: a value that cannot be meant, or a snapshot for a dataset without paths.
        """
        from msgspec.structs import replace  # noqa: PLC0415 - commands import what they use

        from replicator.format.consistency import MAX_COMMAND, MAX_LIMIT_S  # noqa: PLC0415

        for option, command in (("--before", self.before), ("--after", self.after)):
            if command and ("\0" in command or len(command) > MAX_COMMAND or not _is_text(command)):
                raise UsageError(
                    f"{option} cannot be a command", hint=f"text of at most {MAX_COMMAND} characters; or name a script"
                )
        said: dict[str, Any] = {"before": self.before, "after": self.after, "failure": self.failure}
        said["snapshot"] = self.snapshot
        if self.limit is not None:
            said["limit_s"] = parse_duration(self.limit)
            if not 1 <= said["limit_s"] <= MAX_LIMIT_S:
                raise UsageError(f"--hook-timeout {self.limit} is out of bounds", hint="between 1s and 7d")
        new = replace(old, **{field: value for field, value in said.items() if value is not None})
        if stdin and new.snapshot != "none":
            raise UsageError(
                "a dataset that takes a command's output has no file system to make a snapshot of",
                hint="leave out --snapshot",
            )
        return new


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def consistency_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets them together, as ``consistency``."""

    @functools.wraps(function)
    def packed(
        *args: Any,
        before: str | None,
        after: str | None,
        hook_timeout: str | None,
        hook_failure: str | None,
        snapshot: str | None,
        **others: Any,
    ) -> Any:
        asked = Asked(before=before, after=after, limit=hook_timeout, failure=hook_failure, snapshot=snapshot)
        return function(*args, consistency=asked, **others)

    options = (
        click.option("--before", metavar="COMMAND", help="Run by /bin/sh before each capture; '' for none."),
        click.option(
            "--after", metavar="COMMAND", help="Run by /bin/sh after each capture, however that went; '' for none."
        ),
        click.option("--hook-timeout", metavar="DURATION", help="How long either may take; 10m unless set."),
        click.option(
            "--hook-failure",
            type=click.Choice(("fail", "warn")),
            help="What a hook that fails does: fail the dataset (unless set), or be named as a gap.",
        ),
        click.option(
            "--snapshot",
            type=click.Choice(SNAPSHOTS),
            help="Read from a snapshot of the file system, made and removed around the capture; none unless set.",
        ),
    )
    result: Callable[..., Any] = packed
    for option in reversed(options):
        result = option(result)
    return result


def consistency_document(one: "Consistency") -> dict[str, Any]:
    """Return it for people, by the names of the options."""
    return {
        "before": one.before,
        "after": one.after,
        "hook_timeout": f"{one.limit_s}s",
        "hook_failure": one.failure,
        "snapshot": one.snapshot,
    }
