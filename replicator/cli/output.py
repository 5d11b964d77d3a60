"""What a command says: text or one JSON document on stdout; errors, notices and progress on stderr."""

import contextlib
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from replicator.clock import moment_of
from replicator.errors import ReplicatorError

T = TypeVar("T")
moment = moment_of
"""A time as it is shown: ISO 8601, UTC; empty for 0."""
_AT_ONCE = 256
"""Lines that are written in one go."""
_MOVES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a cursor, gives a terminal orders or turns text round; new lines and tabs are our own."""


class Alarm(str):
    """A line that must be seen: red on a terminal, unless NO_COLOR is set (no-color.org)."""

    __slots__ = ()


class Output:
    """Where results go. With ``as_json`` exactly one document is printed, also when a command fails.

    With ``events`` all that is said beside it is one JSON object a line (docs/operate/progress.md).
    """

    def __init__(self, *, as_json: bool, events: bool = False) -> None:
        self.as_json = as_json
        self.document: Any = None
        """The result that was given last, whether it was printed as JSON or as text."""
        self._events = events
        self._printed = False

    def result(self, document: Any, text: str | Sequence[str] = "") -> None:
        """Print the result: ``document`` as JSON, or ``text``.

        Raises:
            ReplicatorError: standard output takes no more.
        """
        self.document = document
        if self.as_json:
            if self._printed:
                return
            self._printed = True
            text = _json(document)
        self._write([text] if isinstance(text, str) else text)

    def rows(self, rows: Iterable[T], document: Callable[[T], Any], line: Callable[[T], str], header: str) -> None:
        """Print a list row by row as it comes: each as a line of text, or all of them as one JSON list.

        JSON is printed when the last row was there: an error on the way is then the one document. Until then a row is
        held as the text that it will be.

        Raises:
            ReplicatorError: standard output takes no more.
        """
        if not self.as_json:
            self._write(itertools.chain([header], map(line, rows)))
            return
        parts = [_json(document(row)) for row in rows]
        self._printed = True
        self._write(_listed(parts))

    def _write(self, lines: Iterable[str]) -> None:
        encoding = "utf-8" if self.as_json else getattr(sys.stdout, "encoding", None) or "utf-8"
        held: list[str] = []

        def write() -> None:
            text = "\n".join(held)
            held.clear()
            try:
                click.echo(text.encode(encoding, "backslashreplace"))  # names on a disk are bytes, not always text
            except BrokenPipeError:
                raise
            except OSError as error:
                raise output_error(error) from error

        try:
            for line in lines:
                said = plain(line, "u" if self.as_json else "")
                held.append(f"\x1b[1;31m{said}\x1b[0m" if isinstance(line, Alarm) and _in_colour() else said)
                if len(held) == _AT_ONCE:
                    write()
        finally:
            if held:  # what came before something went wrong is true
                write()

    def error(self, error: ReplicatorError, code: int) -> None:
        """Print an error: what happened and what to do."""
        said = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        if self.as_json:
            self.result({"error": said, "exit": code})
        if self._events:
            say_event("error", **said, exit=code)
            return
        aside(plain(f"replicator: {error.message}"))
        if error.hint:
            aside(plain(f"  {error.hint}"))

    def notice(self, text: str) -> None:
        """Say something beside the result."""
        if self._events:
            say_event("notice", text=text)
        else:
            aside(plain(text))


def _in_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def say_event(event: str, /, **fields: object) -> None:
    """Print one JSON object on a line of standard error."""
    aside(json.dumps({"event": event, **fields}))


def aside(text: str) -> None:
    """Print a line on standard error.

    Where that takes no more, as on a disk full of logs, a night goes on all the same, and its exit code is true.
    """
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def plain(text: str, escape: str = "") -> str:
    r"""Return text whose control characters are written out: ``\x1b``, or ``\u001b`` with ``escape`` "u", as in JSON.

    Messages and lists hold what other people's machines wrote (tags, hosts, answers of peers).
    """

    def written(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code:02x}" if code < 0x80 and escape != "u" else f"\\u{code:04x}"

    return _MOVES.sub(written, text)


def silence() -> None:
    """Send what is still to come on standard output nowhere: Python tries once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def output_error(error: OSError) -> ReplicatorError:
    """Return what to say of a standard output that cannot be written, and give up on it."""
    silence()
    return ReplicatorError(
        f"standard output cannot be written: {error.strerror or error}",
        hint="what the command did is done; only its answer is lost",
    )


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, default=_plain)


def _listed(parts: Sequence[str]) -> Iterator[str]:
    """Yield a JSON list of parts that are JSON already."""
    yield "["
    for place, part in enumerate(parts, 1):
        yield part if place == len(parts) else f"{part},"
    yield "]"


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return rows as aligned text, each on one line; numbers are for the caller to format."""
    cells = [[_on_one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(headers, widths, strict=True)).rstrip()]
    lines += ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return lines


def _on_one_line(text: str) -> str:
    return plain(text).replace("\n", "\\x0a").replace("\t", "\\x09")


def fields(document: Mapping[str, object]) -> list[str]:
    """Return a document of plain values as a line for each: lists in one line, "-" for what is empty or not said."""
    width = max(map(len, document)) + 2
    return [f"{key.replace('_', ' '):{width}}{_field(value)}" for key, value in document.items()]


def _field(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(_field, value)) or "-"
        case None | "":
            return "-"
        case _:
            return _on_one_line(str(value))
