"""What the documents say can be typed, can be typed; what can be typed, they say."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from replicator.cli.main import cli
from replicator.notify.alarms import CODES
from tests.make_reference import PAGE, commands, page

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("guide/*.md")), *sorted((ROOT / "docs").glob("operate/*.md")))
LINKED = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "nix").rglob("*.md")),
)
IN_PROSE = re.compile(r"`(?:[A-Z_]+=\S+ )?replicator ([^`]+)`")
QUOTED = re.compile(r"\"[^\"]*\"")
IN_BLOCK = re.compile(r"(?:^|[\s/=(])replicator (?!replicator )(\S.*)$")


class NotTypeableError(Exception):
    """A line that the program would refuse."""


def lines_of(text: str) -> Iterator[tuple[str, bool]]:
    """Yield what follows "replicator" in code, and whether it has to be complete (blocks) or not (prose)."""
    in_fence, joined = False, ""
    for line in text.splitlines():
        if line.startswith("```"):
            in_fence = not in_fence
            continue
        if in_fence or line.startswith("    "):
            joined += line.strip()
            if joined.endswith("\\"):
                joined = joined[:-1]
                continue
            for part in commands_of(joined):
                found = IN_BLOCK.search(part.strip())
                if found and not part.strip().startswith("#"):
                    yield found[1], True
            joined = ""
            continue
        for found in IN_PROSE.finditer(line):
            yield found[1], False


def commands_of(line: str) -> Iterator[str]:
    """Yield the commands on a line of shell; what is quoted for one of ours is a word of it."""
    quoted = line if not line.startswith("replicator ") else QUOTED.sub(lambda found: "x" * len(found[0]), line)
    start = 0
    for found in re.finditer(r"\||&&|;|\$\(|$", quoted):
        yield line[start : found.start()]
        start = found.end()


def check_line(line: str, *, complete: bool) -> None:
    """Parse what follows "replicator" with the program's own commands and options.

    Raises:
        NotTypeableError: there is no such command or option, or a value that it does not take.
    """
    words = shlex.split(re.split(r" [#<>]", line)[0].rstrip(")"))
    if words == ["--version"]:
        return
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        if found is None:
            if not complete and words[0] == "COMMAND":
                return
            raise NotTypeableError(f"no command '{words[0]}' in: replicator {line}")
        command, words = found, words[1:]
        context = click.Context(command)
    if isinstance(command, click.Group):
        if complete:
            raise NotTypeableError(f"only half a command: replicator {line}")
        return
    try:
        values, left, _ = command.make_parser(context).parse_args(list(words))
        if left:
            raise NotTypeableError(f"too many words: replicator {line}")
        for param in command.get_params(context):
            value = values.get(param.name or "")
            if complete and param.required and value in (None, ()):
                raise NotTypeableError(f"{param.name} is missing: replicator {line}")
            if isinstance(value, str) and not (isinstance(param, click.Option) and param.is_flag):
                param.type_cast_value(context, value)
    except click.UsageError as error:
        raise NotTypeableError(f"{error.format_message()} in: replicator {line}") from error


def test_the_reference_is_what_the_program_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.make_reference"


@pytest.mark.parametrize("path", [" ".join(path) for path, _ in commands(cli)])
def test_every_command_is_in_the_reference_and_has_help(path: str) -> None:
    assert f" replicator {path}\n" in PAGE.read_text(encoding="utf-8")
    command: click.Command = cli
    for word in path.split():
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    assert command.help


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_line_in_a_document_can_be_typed(path: Path) -> None:
    found = list(lines_of(path.read_text(encoding="utf-8")))
    for line, complete in found:
        check_line(line, complete=complete)


def test_documents_do_show_commands() -> None:
    counted = {path.name: len(list(lines_of(path.read_text(encoding="utf-8")))) for path in PAGES}
    assert all(counted.values()), counted
    assert counted["README.md"] >= 10


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize(
    ("line", "complete"),
    [
        ("restore latest --target out --home here", True),
        ("provider invite --quota 100G --for bob > code", True),
        ("peer add - --home keeper", True),
        ("provider", False),
        ("backup # the night", True),
    ],
)
def test_lines_that_can_be_typed_pass(line: str, complete: bool) -> None:
    check_line(line, complete=complete)


@pytest.mark.parametrize(
    "line",
    [
        "restored latest --target out",
        "restore latest",
        "restore latest --target out --fast",
        "restore latest --target out --overwrite perhaps",
        "dataset add photos /srv --copies many",
        "provider",
        "provider vanish",
        "node list everything",
    ],
)
def test_lines_that_cannot_be_typed_are_found(line: str) -> None:
    with pytest.raises(NotTypeableError):
        check_line(line, complete=True)


def test_lines_are_found_in_blocks_and_in_prose() -> None:
    text = r"""Run `replicator status` or `X=1 replicator why photos`; replicator itself is no command.

    $ replicator provider invite --quota 1G \
        --for bob | ssh there replicator peer add -
```
ExecStart=/opt/replicator/bin/replicator run
sudo -u replicator replicator status
# replicator comments are not lines
```
"""
    assert list(lines_of(text)) == [
        ("status", False),
        ("why photos", False),
        ("provider invite --quota 1G --for bob", True),
        ("peer add -", True),
        ("run", True),
        ("status", True),
    ]


def test_every_alarm_is_on_the_page_of_alarms_and_nothing_else_is() -> None:
    text = (ROOT / "docs/operate/alarms.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\S+)\n\n((?:(?!^#).*\n)+)", text, flags=re.MULTILINE))
    assert set(sections) == set(CODES)
    for code, kind in CODES.items():
        history = code.startswith("history.")
        assert ("*can be known" in sections[code].lower() or history) == kind.known, code
        assert ("*patient*" in sections[code]) == bool(kind.patience_s), code
