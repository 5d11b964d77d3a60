"""The group: commands by name, loaded when they are used, so that a small one starts quickly."""

import contextlib
import gc
import importlib
import os
import sys
import threading
from typing import Final

import click

from replicator import __version__
from replicator.cli import exits
from replicator.cli.base import Session, common_options, interrupted
from replicator.cli.output import output_error
from replicator.errors import UsageError

COMMANDS = {
    "init": ("replicator.cli.tenant", "init"),
    "recover": ("replicator.cli.tenant", "recover"),
    "key": ("replicator.cli.key", "key"),
    "node": ("replicator.cli.members", "node"),
    "peer": ("replicator.cli.members", "peer"),
    "provider": ("replicator.cli.provider", "provider"),
    "group": ("replicator.cli.group", "group"),
    "domain": ("replicator.cli.domain", "domain"),
    "dataset": ("replicator.cli.dataset", "dataset"),
    "backup": ("replicator.cli.backup", "backup"),
    "run": ("replicator.cli.backup", "run"),
    "snapshots": ("replicator.cli.browse", "snapshots"),
    "ls": ("replicator.cli.browse", "ls"),
    "find": ("replicator.cli.search", "find"),
    "versions": ("replicator.cli.search", "versions"),
    "diff": ("replicator.cli.search", "diff"),
    "cat": ("replicator.cli.browse", "cat"),
    "mount": ("replicator.cli.mount", "mount"),
    "restore": ("replicator.cli.browse", "restore"),
    "export": ("replicator.cli.export", "export"),
    "borg": ("replicator.cli.borg", "borg"),
    "verify": ("replicator.cli.care", "verify"),
    "drill": ("replicator.cli.drill", "drill"),
    "status": ("replicator.cli.care", "status"),
    "runs": ("replicator.cli.runs", "runs"),
    "notify": ("replicator.cli.notify", "notify"),
    "ack": ("replicator.cli.notify", "ack"),
    "findings": ("replicator.cli.findings", "findings"),
    "register": ("replicator.cli.register", "register"),
    "erase": ("replicator.cli.erase", "erase"),
    "why": ("replicator.cli.care", "why"),
    "audit": ("replicator.cli.proofs", "audit"),
    "repair": ("replicator.cli.care", "repair"),
    "rebalance": ("replicator.cli.care", "rebalance"),
    "forget": ("replicator.cli.forget", "forget"),
    "simulate": ("replicator.cli.simulate", "simulate"),
    "prune": ("replicator.cli.prune", "prune"),
    "check-config": ("replicator.cli.checkconfig", "check_config"),
    "service": ("replicator.cli.service", "service"),
    "host": ("replicator.cli.host", "host"),
    "extra": ("replicator.cli.extra", "extra"),
}

NEW_OBJECTS: Final = 50_000
"""Between two looks for cycles: importing makes as many objects, and none."""
OTHER_WORDS = {
    "compact": "look at `replicator prune`",
    "check": "look at `replicator verify`",
    "dump": "look at `replicator cat`",
    "extract": "look at `replicator restore`",
    "list": "look at `replicator snapshots` and `replicator ls`",
    "stats": "look at `replicator status`",
    "unlock": "nothing needs it: a lock goes away with the process that held it",
}
"""Words that people bring from restic and borg, and what to say to them."""


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; answer what other programs call it with our word."""
        if args and args[0] in OTHER_WORDS:
            ctx.fail(f"There is no '{args[0]}' here: {OTHER_WORDS[args[0]]}.")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="replicator")
@common_options
def cli() -> None:
    """Sealed, deduplicated, geo-replicated backup for people who run their own servers together."""


def main() -> None:
    """Run the program."""
    os.umask(0o077)  # databases too: what is in a home is nobody else's business
    gc.set_threshold(NEW_OBJECTS)
    session = Session()
    try:
        code = cli.main(prog_name="replicator", standalone_mode=False, obj=session)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = exits.USAGE
    except click.Abort:
        code = session.fail(interrupted(), exits.INTERRUPTED)
    except click.ClickException as error:
        # The line was not read to its end: --json may stand in the part that was not.
        session.as_json = session.as_json or "--json" in sys.argv[1:]
        context = getattr(error, "ctx", None)
        place = context.command_path if context is not None else "replicator"
        text = " ".join(error.format_message().split()).removesuffix(".")
        code = session.fail(UsageError(text, hint=f"`{place} --help` says what is possible"), exits.USAGE)
    except OSError as error:  # from --help, which click prints itself
        code = session.fail(output_error(error), exits.FAILED)
    raise SystemExit(code)


def run() -> None:
    """Run the program as a process of its own, and end that at once.

    To take an interpreter apart that is done takes a tenth of a second, as long as to list a folder. What was written
    is on its way, and databases are closed, when a command returns.
    """
    try:
        main()
    except SystemExit as ended:
        others = any(not one.daemon for one in threading.enumerate() if one is not threading.main_thread())
        if others or not isinstance(ended.code, int) or sys.stdout is None or sys.stderr is None:
            raise
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            raise ended from None  # the interpreter says what it says of this
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(ended.code)


if __name__ == "__main__":
    run()
