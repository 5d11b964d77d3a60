"""What borg says, and what it means."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from replicator.engine.borg import (
    INSTALL,
    Borg,
    error_of,
    outcome_of,
    parse_version,
    place_of,
    read_items,
    read_repository,
)
from replicator.engine.edge import NoProgress
from replicator.errors import (
    IntegrityError,
    KeyWrongError,
    LockedError,
    NotFoundError,
    ReplicatorError,
    SourceError,
    SpaceError,
    UsageError,
)
from replicator.process import Command, Ended, Heard, Output, Stop


class Played:
    """A borg that says and does what a test wants."""

    def __init__(self, code: int = 0, said: Sequence[bytes] = (), out: bytes = b"", by: Any = "itself") -> None:
        self.ended = Ended(code=code, out=out, by=by)
        self.said = said
        self.ran: list[Command] = []

    def run(self, command: Command, *, limit_s: float, stop: Stop, keep: int = 0, heard: Heard | None = None) -> Ended:
        self.ran.append(command)
        for piece in self.said:
            if heard is not None:
                heard(piece)
        return self.ended

    def open(self, command: Command, *, limit_s: float, stop: Stop, heard: Heard | None = None) -> Output:
        raise NotImplementedError


class Counting(NoProgress):
    """Counts."""

    def __init__(self) -> None:
        self.amount = 0
        self.notes: list[str] = []

    def advance(self, amount: int) -> None:
        self.amount += amount

    def note(self, text: str) -> None:
        self.notes.append(text)


def borg(played: Played, **environment: str) -> Borg:
    return Borg("/r", programs=played, environment=environment, home="/h/borg")


def line(message: str, *, level: str = "ERROR", msgid: str = "") -> bytes:
    return (f'{{"type": "log_message", "levelname": "{level}", "message": "{message}", "msgid": "{msgid}"}}\n').encode()


@pytest.mark.parametrize(
    ("code", "means"),
    [(0, "good"), (1, "warned"), (100, "warned"), (107, "warned")]
    + [(code, "failed") for code in (2, 13, 52, 73, 90, 99, 127, 128, 143, -9, -15)],
)
def test_codes_of_both_kinds_are_told_apart(code: int, means: str) -> None:
    assert outcome_of(code) == means


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (52, line("Passphrase supplied is incorrect.", msgid="PassphraseWrong"), KeyWrongError),
        (2, line("passphrase supplied is incorrect.", msgid="PassphraseWrong"), KeyWrongError),
        (2, b"Enter passphrase for key /r: " + line("cannot", msgid="NoPassphraseFailure"), KeyWrongError),
        (73, line("Failed to create the lock", msgid="LockTimeout"), LockedError),
        (13, line("Repository /r does not exist.", msgid="Repository.DoesNotExist"), NotFoundError),
        (2, line("Archive a does not exist", msgid="Archive.DoesNotExist"), NotFoundError),
        (90, line("Data integrity error: Segment entry header", msgid="IntegrityError"), IntegrityError),
        (2, line("Data integrity error: Segment entry header"), IntegrityError),
        (95, line("Archive authentication did not verify", msgid="ArchiveTAMInvalid"), IntegrityError),
        (2, line("[Errno 28] No space left on device: 'x'"), SpaceError),
        (20, line("The storage quota has been exceeded", msgid="Repository.StorageQuotaExceeded"), SpaceError),
        (80, line("Connection closed by remote host", msgid="ConnectionClosed"), SourceError),
        (2, b"Traceback of somebody\n", SourceError),
        (-9, b"", SourceError),
    ],
)
def test_a_failure_is_an_error_of_ours_with_what_to_do(code: int, said: bytes, kind: type[ReplicatorError]) -> None:
    with pytest.raises(kind) as caught:
        borg(Played(code, [said[:7], said[7:]])).look()
    assert type(caught.value) is kind
    assert caught.value.message.startswith("/r: ")
    assert caught.value.hint


def test_a_borg_that_was_stopped_or_took_too_long_is_a_failure_whatever_its_code() -> None:
    for by in ("stop", "limit"):
        with pytest.raises(SourceError, match="stopped"):
            borg(Played(0, by=by)).check()
    tail = b'{"type": "archive_progress", "path": "a secret name"}\nssh: no route\n'
    assert error_of("/r", Ended(code=2, tail=tail), []).message == (
        "/r: borg ended with exit code 2; it said last: ssh: no route"
    )
    assert isinstance(error_of("/r", Ended(code=2), []), SourceError)


def test_warnings_are_kept_and_progress_is_passed_on() -> None:
    progress = Counting()
    said = [line("a: vanished", level="WARNING"), line("fine", level="INFO")]
    said += [b'{"type": "progress_percent", "current": %d}\n' % at for at in (5, 20, 15)]
    done = borg(Played(1, said)).extract("a", "/x", progress=progress)
    assert ([one.text for one in done.warnings], done.count, progress.amount) == (["a: vanished"], 1, 20)
    assert progress.notes == []
    done = borg(Played(0, [line("Killed stale lock", level="WARNING")])).extract("a", "/x", progress=progress)
    assert (done.warnings, progress.notes) == ([], ["borg: Killed stale lock"])  # and so no gap


def test_the_environment_is_made_from_scratch_and_no_secret_is_an_argument() -> None:
    played = Played()
    borg(played, PATH="/p", HOME="/home/a", BORG_PASSPHRASE="hush", PYTHONPATH="/evil", LC_ALL="tr_TR", TZ="X").check()
    [ran] = played.ran
    assert ran.environment == {
        "PATH": "/p",
        "HOME": "/home/a",
        "BORG_PASSPHRASE": "hush",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "BORG_EXIT_CODES": "modern",
    }
    assert not any("hush" in str(word) for word in ran.argv)
    borg(played).check()
    assert played.ran[1].environment["BORG_BASE_DIR"] == "/h/borg"  # a service without a home of its own


def test_braces_in_names_and_comments_are_no_placeholders() -> None:
    played = Played()
    borg(played).create("{now}", [b"./x"], folder="/f", at_ns=86_400 * 10**9, comment="{user}", progress=NoProgress())
    [ran] = played.ran
    assert ran.argv[-3:] == ("/r::{{now}}", "--", b"./x")
    assert "{{user}}" in ran.argv
    assert "1970-01-02T00:00:00" in ran.argv


@pytest.mark.parametrize(
    ("said", "problem"),
    [("borg 1.1.18", "borg is 1.1.18, and at least 1.2.0 is needed"), ("borg 2.0.0b19", "not borg 1.x"), ("", "not")],
)
def test_a_borg_that_is_too_old_or_too_new_is_refused_with_what_to_install(said: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        borg(Played(out=said.encode())).version()
    assert caught.value.hint == INSTALL
    assert borg(Played(out=b"borg 1.4.5\n")).version() == (1, 4, 5)
    assert [parse_version(one) for one in ("1.2.8rc1", "1.2", "x")] == [(1, 2, 8), None, None]


def test_a_missing_borg_is_named_with_what_to_install() -> None:
    class Missing(Played):
        def run(self, *_args: Any, **_more: Any) -> Ended:
            raise SourceError("'borg' cannot be started: No such file or directory")

    for call in (borg(Missing()).version, borg(Missing()).look):
        with pytest.raises(SourceError, match="borg is not on PATH") as caught:
            call()
        assert "apt install borgbackup" in caught.value.hint


FIELDS = "-rw-r--r--|0|7|root||3|1|2024-01-01T00:00:00.000001|2024-01-01T00:00:00.000002|healthy"


def record(path: str, source: str = "") -> str:
    return "".join(f"{field}\0" for field in (*FIELDS.split("|"), source, path)) + "é\n"


def bytes_of(text: str, size: int) -> Iterator[bytes]:
    data = text.encode()
    yield from (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_names_come_to_the_byte_where_borg_writes_escapes(size: int) -> None:
    text = record("a\\x00é\udce5\nend", "s") + record("b\\")
    escaped = text.encode("unicode_escape").decode()
    first, second = read_items(bytes_of(escaped, size))
    assert (first.path, first.source, first.exact) == ("a\\x00é".encode() + b"\xe5\nend", "s", True)
    assert (first.mode, first.uid, first.gid, first.user, first.group, first.size) == (
        "-rw-r--r--",
        0,
        7,
        "root",
        "",
        3,
    )
    assert (second.path, second.whole, second.mtime[-6:], second.ctime[-6:]) == (b"b\\", True, "000001", "000002")


def test_where_borg_writes_text_a_question_mark_may_be_any_byte() -> None:
    text = record("sure é") + record("unsure ?")
    found = [(one.path, one.exact) for one in read_items(iter([text.encode()]))]
    assert found == [("sure é".encode(), True), (b"unsure ?", False)]


def test_a_listing_that_is_none_is_refused() -> None:
    for text, problem in ((record("a")[:-4], "within a line"), ("x\0é\n", "not understood")):
        with pytest.raises(SourceError, match=problem):
            list(read_items(iter([text.encode()])))
    for said in (b"", b"[]", b'{"archives": [{}], "repository": {"id": "x"}}'):
        with pytest.raises(SourceError, match="not understood"):
            read_repository(said)


@pytest.mark.parametrize("text", ["--rsh=touch x:y", "-x://y", "--rsh=x://y", "ssh://-oProxyCommand=x/y", "-h:p"])
def test_a_repository_is_never_an_option(text: str) -> None:
    with pytest.raises(UsageError):
        place_of(text)
    assert place_of("-x") == os.path.abspath("-x")
    assert place_of("ssh://a@b-c/-d") == "ssh://a@b-c/-d"
