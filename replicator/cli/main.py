"""The group: commands by name, loaded when they are used, so that a small one starts quickly."""

import importlib
import sys
from typing import Any

import click

from replicator import __version__
from replicator.cli.base import Session, common_options

COMMANDS = {
    "init": ("replicator.cli.tenant", "init"),
    "recover": ("replicator.cli.tenant", "recover"),
    "node": ("replicator.cli.members", "node"),
    "peer": ("replicator.cli.members", "peer"),
    "provider": ("replicator.cli.provider", "provider"),
    "dataset": ("replicator.cli.dataset", "dataset"),
    "backup": ("replicator.cli.backup", "backup"),
    "run": ("replicator.cli.backup", "run"),
    "snapshots": ("replicator.cli.browse", "snapshots"),
    "ls": ("replicator.cli.browse", "ls"),
    "cat": ("replicator.cli.browse", "cat"),
    "restore": ("replicator.cli.browse", "restore"),
    "verify": ("replicator.cli.care", "verify"),
    "status": ("replicator.cli.care", "status"),
    "why": ("replicator.cli.care", "why"),
    "repair": ("replicator.cli.care", "repair"),
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(module), name)
        return found


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="replicator")
@common_options
def cli() -> None:
    """Sealed, deduplicated, geo-replicated backup for people who run their own servers together."""


def main() -> None:
    """Run the program."""
    arguments: dict[str, Any] = {"obj": Session()}
    try:
        cli.main(prog_name="replicator", standalone_mode=True, **arguments)
    except BrokenPipeError:
        # The reader went away (a pager, head): not our failure, and nothing more can be said to it.
        sys.stderr.close()
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
