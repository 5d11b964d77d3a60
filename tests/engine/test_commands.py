"""What commands are told, what is said of them, and what becomes of what one writes."""

import signal

import pytest

from replicator.engine.commands import (
    DEFAULT_PATH,
    CommandError,
    CommandFile,
    PipedCommand,
    command_environment,
    complaint,
    hook_environment,
    last_words,
)
from replicator.errors import UsageError
from replicator.process import Ended

OWN = {
    "PATH": "/opt/bin",
    "HOME": "/root",
    "LC_TIME": "sv_SE.UTF-8",
    "PGPASSWORD": "heron",
    "REPLICATOR_HOME": "/home/x",
    "REPLICATOR_PASSPHRASE": "mill",
    "REPLICATOR_PASSPHRASE_FILE": "/secret",
    "CREDENTIALS_DIRECTORY": "/run/credentials",
}


def test_a_hook_sees_what_it_needs_and_what_it_is_told() -> None:
    seen = {"PATH": "/opt/bin", "HOME": "/root", "LC_TIME": "sv_SE.UTF-8", "REPLICATOR_DATASET": "db"}
    assert hook_environment(OWN, "db", "before", None) == {**seen, "REPLICATOR_STAGE": "before"}
    assert hook_environment(OWN, "db", "after", "timeout") == {
        **seen,
        "REPLICATOR_STAGE": "after",
        "REPLICATOR_RESULT": "timeout",
    }
    assert hook_environment({}, "db", "before", None)["PATH"] == DEFAULT_PATH


def test_what_is_told_stands_above_what_was_there() -> None:
    assert hook_environment({"LC_ALL": "C", "REPLICATOR_RESULT": "x"}, "db", "before", None) == {
        "PATH": DEFAULT_PATH,
        "LC_ALL": "C",
        "REPLICATOR_DATASET": "db",
        "REPLICATOR_STAGE": "before",
    }


def test_a_command_sees_its_callers_environment_but_for_what_unlocks_keys() -> None:
    seen = command_environment(OWN, "db")
    assert seen == {name: OWN[name] for name in ("PATH", "HOME", "LC_TIME", "PGPASSWORD", "REPLICATOR_HOME")} | {
        "REPLICATOR_DATASET": "db"
    }


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"", ""),
        (b"\n  \n", ""),
        (b"one\ntwo\r\nthree\n\nfour\n", "two | three | four"),
        (b"\x1b[31mred\x07\rbar", r"\x1b[31mred\x07 | bar"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"x" * 500, "x" * 200),
    ],
)
def test_last_lines_are_few_short_and_safe_for_a_terminal(tail: bytes, said: str) -> None:
    assert last_words(tail) == said


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Ended(code=3, tail=b"no space\n"), "it ended with exit code 3; it said last: no space"),
        (Ended(code=-9), "it was ended by signal 9; it said nothing"),
        (Ended(code=-15, by="limit"), "it did not end within 60 s and was stopped; it said nothing"),
        (Ended(code=-15, by="stop"), "it was stopped with the run; it said nothing"),
    ],
)
def test_it_is_said_how_a_command_ended(ended: Ended, said: str) -> None:
    assert complaint("it", ended, 60) == said


class FakeOutput:
    """Writes what it is given, and ends as it is told."""

    def __init__(self, data: bytes, ended: Ended) -> None:
        self.data = data
        self.ended = ended
        self.closed = False

    def read_into(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self.data))
        buffer[:count] = self.data[:count]
        self.data = self.data[count:]
        return count

    def finish(self) -> Ended:
        return self.ended

    def close(self) -> None:
        self.closed = True


def piped(*argv: str, name: bytes = b"db.sql") -> PipedCommand:
    return PipedCommand(name=name, argv=argv, folder="/", limit_s=60)


def test_what_a_command_writes_ends_when_it_has_ended_well() -> None:
    output = FakeOutput(b"abc", Ended(code=0))
    file = CommandFile(output, piped("dump"))
    buffer = bytearray(2)
    assert [file.read_into(memoryview(buffer)) for _ in range(3)] == [2, 1, 0]
    file.close()
    assert output.closed


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(code=1, tail=b"no such table\n"), "failure"),
        (Ended(code=-signal.SIGPIPE), "failure"),
        (Ended(code=0, by="limit"), "timeout"),
    ],
)
def test_the_end_of_a_failed_command_is_an_error_that_names_the_program_alone(ended: Ended, outcome: str) -> None:
    file = CommandFile(FakeOutput(b"", ended), piped("my\x1bdump", "--password=heron"))
    with pytest.raises(CommandError) as caught:
        file.read_into(memoryview(bytearray(2)))
    assert caught.value.message == complaint(r"'my\x1bdump'", ended, 60)
    assert caught.value.outcome == outcome
    assert "heron" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"x" * 256])
def test_what_cannot_be_a_files_name_is_refused(name: bytes) -> None:
    with pytest.raises(UsageError, match="cannot be a file's name"):
        piped("dump", name=name)
    with pytest.raises(UsageError, match="no command is given"):
        piped()
