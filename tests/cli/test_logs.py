"""The journal: one datagram a line, with a message id for each finished unit of work."""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.cli import logs
from replicator.cli.logs import MESSAGE_IDS, JournalHandler, in_journal, unit_ended


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket in the journal's place, to which stderr seems to be connected."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(10)
        monkeypatch.setattr(logs, "JOURNAL", str(tmp_path / "journal"))
        stderr = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{stderr.st_dev}:{stderr.st_ino}")
        yield listening


def fields(listening: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in listening.recv(65536).decode().splitlines())


def test_message_ids_are_all_different() -> None:
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in MESSAGE_IDS.values())


@pytest.mark.parametrize(("code", "priority"), [(0, "6"), (3, "4"), (1, "3"), (4, "3"), (5, "3")])
def test_a_run_that_ended_is_one_line_that_can_be_searched(journal: socket.socket, code: int, priority: str) -> None:
    unit_ended("backup", code, seconds=7)
    assert fields(journal) == {
        "PRIORITY": priority,
        "MESSAGE": f"replicator: backup ended with {code} after 7 s",
        "SYSLOG_IDENTIFIER": "replicator",
        "MESSAGE_ID": MESSAGE_IDS["run"],
        "REPLICATOR_RUN": "backup",
        "REPLICATOR_EXIT": str(code),
        "REPLICATOR_SECONDS": "7",
    }


def test_lines_without_a_unit_have_no_id_and_no_line_makes_two(journal: socket.socket) -> None:
    logger = logging.getLogger("somewhere")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = JournalHandler()
    logger.addHandler(handler)
    logger.warning("a text\nMESSAGE_ID=forged %s", "\udcff")
    found = fields(journal)
    assert found["MESSAGE"] == "somewhere: a text MESSAGE_ID=forged \\udcff"
    assert "MESSAGE_ID" not in found
    logger.info("swept", extra={"unit": "sweep"})
    assert fields(journal)["MESSAGE_ID"] == MESSAGE_IDS["sweep"]
    logger.removeHandler(handler)
    handler.close()


def test_nothing_is_sent_where_stderr_is_not_the_journals(
    journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert not in_journal()
    unit_ended("backup", 0, seconds=1)
    journal.settimeout(0)
    with pytest.raises(BlockingIOError):
        journal.recv(100)


def test_a_journal_that_does_not_listen_loses_no_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = JournalHandler("/nonexistent/socket")
    handler.emit(logging.LogRecord("x", logging.ERROR, "", 0, "lost?", (), None))
    handler.close()
    assert capsys.readouterr().err == "<3>x: lost?\n"


def test_what_a_stranger_answered_moves_no_cursor_where_no_journal_listens() -> None:
    text = (
        "import logging\n"
        "from replicator.cli import logs\n"
        "logs.configure()\n"
        "logging.getLogger('relay').warning('it answers: %s', '\\x1b[2Jall is well\\nERROR forged')\n"
    )
    run = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    [line] = run.stderr.splitlines()
    assert line.endswith(r" WARNING relay: it answers: \x1b[2Jall is well ERROR forged")
