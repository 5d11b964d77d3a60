"""The words of a recovery sheet, from a file, a pipe, or a person who types them one by one."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from replicator.cli.base import Session, read_stdin
from replicator.errors import HomeError, KeyWrongError, UsageError
from replicator.fs import PosixFs, exposure, write_atomic

if TYPE_CHECKING:
    from replicator.cli.output import Output
    from replicator.rng import Rng

ASKED_AT_INIT = 3
TRIES = 3


def read_words(sheet: str, out: "Output") -> list[str]:
    """Return the words on a sheet; "-" reads standard input, or asks a person word by word and checks each.

    Raises:
        HomeError: the file cannot be read.
        KeyWrongError: it is no sheet.
    """
    return read_sheet_file(sheet, out)[0]


def read_sheet_file(sheet: str, out: "Output") -> tuple[list[str], list[str]]:
    """Return the words on a sheet, as :func:`read_words`, and what addresses of providers its text has."""
    from replicator.engine.sheet import addresses_in, read_sheet  # noqa: PLC0415 - commands import what they use

    if sheet == "-":
        if sys.stdin is not None and sys.stdin.isatty():
            return _asked(out), []
        text = read_stdin()
        return read_sheet(text), addresses_in(text)
    try:
        with open(sheet, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            text = file.read()
    except OSError as error:
        raise HomeError(f"{sheet}: the sheet cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise HomeError(f"{sheet}: this is not a sheet but binary data", hint="give the text file") from error
    problem = exposure(status.st_mode, status.st_uid, os.geteuid())
    if problem:
        # Told, not refused: a stick without modes must not stand between people and their data.
        out.notice(f"{sheet}: {problem}, and whoever does can read and erase everything")
    return read_sheet(text), addresses_in(text)


def _asked(out: "Output") -> list[str]:
    """Ask for all words; when they do not fit together, ask for the one that the checksum points at once more."""
    from replicator.crypto.recovery import WORD_COUNT, from_words, suspects  # noqa: PLC0415

    try:
        words = [_ask(number, WORD_COUNT, out) for number in range(1, WORD_COUNT + 1)]
        for _ in range(TRIES):
            try:
                from_words(words)
            except KeyWrongError as error:
                places = suspects(words)
                if len(places) != 1:
                    raise
                out.notice(f"{error.message}; {error.hint}")
                words[places[0] - 1] = _ask(places[0], WORD_COUNT, out)
            else:
                break
    except click.Abort:
        raise KeyWrongError("the sheet was not typed to its end", hint="nothing was changed") from None
    return words


def _ask(number: int, count: int, out: "Output") -> str:
    """Ask for one word until it is one of the list; its first four letters are enough."""
    from replicator.crypto.recovery import whole_word  # noqa: PLC0415

    while True:
        typed = str(click.prompt(f"Word {number} of {count}", err=True))
        word = whole_word(typed)
        if word is None:
            out.notice(f"'{typed.strip()}' is not a word of such sheets; look again (four letters are enough).")
            continue
        if word != typed.strip().lower():
            click.echo(f"  {word}", err=True)
        return word


def rehearse(words: Sequence[str], rng: "Rng", out: "Output") -> bool:
    """Ask a person for a few words from the paper, chosen at random; return whether all were right in the end."""
    places: list[int] = []
    while len(places) < ASKED_AT_INIT:
        place = int.from_bytes(rng.bytes(8), "little") % len(words)
        if place not in places:
            places.append(place)
    click.echo(
        "Is everything on paper? Read these words from it (Ctrl-D: later, with `replicator key check`).", err=True
    )
    for place in sorted(places):
        for _ in range(TRIES):
            try:
                if _ask(place + 1, len(words), out) == words[place]:
                    break
            except click.Abort:
                return False
            out.notice(f"that is not word {place + 1} of this sheet; look again")
        else:
            return False
    return True


def rehearse_at_terminal(session: Session, words: list[str]) -> None:
    """Ask a person at a terminal for a few words from the paper, and say what came of it."""
    if session.as_json or sys.stdin is None or not sys.stdin.isatty():
        return
    with session.edge() as edge:
        whole = rehearse(words, edge.rng, session.out)
    session.out.notice(
        "these words are right"
        if whole
        else "the words were not checked: run `replicator key check --sheet -` before you rely on them"
    )


def sheet_path(given: str | None) -> str | None:
    """Return where a new sheet goes, None for the screen; beside it goes a page to print.

    Raises:
        UsageError: something is there already, or the folder is not.
    """
    if given is None:
        return None
    sheet = os.path.abspath(given)
    for path in (sheet, f"{sheet}.html"):
        if os.path.lexists(path):
            raise UsageError(f"{path} exists already", hint="choose another --recovery-sheet")
    if not os.path.isdir(os.path.dirname(sheet)):
        raise UsageError(f"{os.path.dirname(sheet)}: no such folder", hint="choose another --recovery-sheet")
    return sheet


def write_sheet_files(fs: PosixFs, path: str, name: str, fingerprint: str, words: list[str]) -> None:
    """Write a sheet as text, and as a page to print.

    Raises:
        HomeError: that cannot be done; nothing else was changed.
    """
    from replicator.engine.sheet import sheet_page, sheet_text  # noqa: PLC0415 - commands import what they use

    try:
        write_atomic(fs, path, sheet_text(name, fingerprint, words, ()).encode())
        write_atomic(fs, f"{path}.html", sheet_page(name, fingerprint, words, ()).encode())
    except OSError as error:
        raise HomeError(
            f"{path}: the recovery sheet cannot be written ({error.strerror})", hint="nothing was changed; try again"
        ) from error
