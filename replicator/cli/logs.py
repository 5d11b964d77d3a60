"""The only place that configures logging: daemons write lines to stderr, or to the journal where it listens.

One line for each finished unit of work has a message id, which stays the same from release to release:

    journalctl MESSAGE_ID=2cdfdfb687ca465a9e34e73ed9c4c337     every run that ended
"""

import logging
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from replicator.cli.output import plain

JOURNAL: Final = "/run/systemd/journal/socket"
MESSAGE_IDS: Final[Mapping[str, str]] = {
    "run": "2cdfdfb687ca465a9e34e73ed9c4c337",
    "sweep": "eb965aa94de54f35a28da0c75c5298dd",
    "scrub": "620e150be7de4d96a6835d6193180df6",
    "enrol": "3c4f8a6ae0bf41c9a37e98f1b3fdaa6e",
    "erase": "97ad0eeff40d4920a71c301b688a1f6d",
    "start": "f66ec4c4ae844457bc286c9577def951",
    "stop": "2715b51c2cb445aba151a56940894a76",
    "told": "c8c9df3ad6c643aa817d478e7f21cc48",
}
"""By unit of work: what a line is given as ``extra={"unit": ...}``."""
_PRIORITY: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_LEVELS: Final = {0: logging.INFO, 3: logging.WARNING}


class JournalHandler(logging.Handler):
    """Sends records by the journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), one datagram each."""

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        self._path = path or JOURNAL
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; one that the journal does not take goes to stderr."""
        fields = {
            "PRIORITY": str(_PRIORITY.get(record.levelno, 6)),
            "MESSAGE": f"{record.name}: {record.getMessage()}",
            "SYSLOG_IDENTIFIER": "replicator",
        }
        unit = getattr(record, "unit", "")
        if unit in MESSAGE_IDS:
            fields["MESSAGE_ID"] = MESSAGE_IDS[unit]
        fields |= {f"REPLICATOR_{key.upper()}": str(value) for key, value in getattr(record, "fields", {}).items()}
        text = "".join(f"{key}={_one_line(value)}\n" for key, value in fields.items())
        try:
            self._socket.sendto(text.encode("utf-8", "backslashreplace"), self._path)
        except OSError:
            with suppress(OSError):
                sys.stderr.write(f"<{fields['PRIORITY']}>{_one_line(fields['MESSAGE'])}\n")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def configure() -> None:
    """Send log lines of INFO and above to the journal if stderr is connected to it, else to stderr."""
    handler: logging.Handler
    if in_journal():
        handler = JournalHandler()
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def unit_ended(kind: str, code: int, *, seconds: int) -> None:
    """Tell the journal that a run has ended. On a terminal, or under cron, its own words are enough."""
    if not in_journal():
        return
    handler = JournalHandler()
    try:
        record = logging.LogRecord(
            "replicator",
            _LEVELS.get(code, logging.ERROR),
            "",
            0,
            "%s ended with %d after %d s",
            (kind, code, seconds),
            None,
        )
        record.unit, record.fields = "run", {"run": kind, "exit": code, "seconds": seconds}
        handler.emit(record)
    finally:
        handler.close()


def in_journal() -> bool:
    """Return whether stderr is the journal's: JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    named = os.environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


class _Lines(logging.Formatter):
    """A line holds what other people's machines answered: it stays one, and moves nobody's cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        return _one_line(super().formatMessage(record))


def _one_line(text: str) -> str:
    return plain(" ".join(text.splitlines()))
