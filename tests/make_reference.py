"""Write docs/reference/cli.md from the commands themselves: ``python -m tests.make_reference``."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from replicator.cli import exits
from replicator.cli.main import cli

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
COMMON = {"--home", "--passphrase-file", "--json", "--progress"}
EVERYWHERE_ELSE = {"--help", "--version"}
HEAD = """# Commands

For whoever wants to know every option. This page is written by `python -m tests.make_reference` from the program
itself, and a test keeps it so; `replicator COMMAND --help` says the same.

Every command takes these, anywhere on the line, and `--help`; `replicator --version` says what is installed.

| option | |
|---|---|
"""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below a group, groups first, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, "a listed command exists"
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def page() -> str:
    """Return the reference as Markdown."""
    common = "".join(_row(option) for option in _options(cli, common=True))
    parts = [HEAD + common + f"\n{exits.HELP}\n"]
    parts += [_section(path, command) for path, command in commands(cli)]
    return "\n".join(parts)


def _section(path: tuple[str, ...], command: click.Command) -> str:
    words = " ".join(("replicator", *path))
    text = inspect.cleandoc(command.help or "").replace(exits.HELP, "").strip()
    paragraphs = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
    if isinstance(command, click.Group):
        return f"## {words}\n\n{paragraphs}\n"
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    options = _options(command, common=False)
    usage = " ".join([words, *("[OPTIONS]" for _ in options[:1]), *(_usage(argument) for argument in arguments)])
    table = "\n| option | |\n|---|---|\n" + "".join(_row(option) for option in options) if options else ""
    return f"### {words}\n\n    {usage}\n\n{paragraphs}\n{table}"


def _usage(argument: click.Argument) -> str:
    name = (argument.name or "").upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _options(command: click.Command, *, common: bool) -> list[click.Option]:
    context = click.Context(command)
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    shown = [option for option in options if not EVERYWHERE_ELSE & set(option.opts)]
    return [option for option in shown if bool(COMMON & set(option.opts)) == common]


def _row(option: click.Option) -> str:
    names = ", ".join((*option.opts, *option.secondary_opts))
    number = isinstance(option.type, click.IntRange)
    metavar = "N" if number else option.make_metavar(click.Context(cli))
    value = "" if option.is_flag else f" {metavar}"
    facts = [(option.help or "").rstrip(".")]
    if option.required:
        facts.append("required")
    if option.multiple and "repeatable" not in facts[0]:
        facts.append("repeatable")
    if option.show_default and option.default is not None:
        facts.append(f"default {option.default}")
    said = "; ".join(fact for fact in facts if fact).replace("|", "\\|")
    return f"| `{names}{value}`".replace("|", "\\|")[1:] + f" | {said} |\n"


def main() -> int:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(PAGE.parent.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
