"""BorgBackup, through its command line only: typed results, errors in our terms, and nothing of it left running.

Borg is found on PATH. Its environment is made from scratch (what :data:`_PASSED` names is handed on), with a fixed
locale and time zone, and without a terminal to ask on. It speaks JSON lines on standard error. A passphrase is never
an argument. On Ctrl-C or a limit in time it gets SIGTERM, upon which it gives its locks back.
"""

import codecs
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from replicator.clock import DAY_S, NS
from replicator.engine.commands import DEFAULT_PATH, complaint, how, last_words
from replicator.engine.edge import Progress
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
from replicator.process import Command, Ended, Programs, Stop
from replicator.snapshot.tree import escape

OLDEST: Final = (1, 2, 0)
"""Modern enough to extract by a list of paths, without flags, and with the locks given back upon SIGTERM."""
BESIDE_OLDEST: Final = (1, 4, 0)
"""Which stores a path from where it says so, so that it is the same from a snapshot of a file system."""
INSTALL: Final = "install borgbackup 1.2 or 1.4 (Debian: `apt install borgbackup`; else pip install 'replicator[borg]')"
MARK: Final = "replicator snapshot "
"""Before a snapshot's id in the comment of an archive that was made of it, or of what it was made of."""
LOCK_WAIT_S: Final = 30
QUESTION_S: Final = DAY_S
WORK_S: Final = 30 * DAY_S
_ANSWER: Final = 1 << 30
_BUFFER: Final = 1 << 18
_PASSED: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"),
    *("BORG_PASSPHRASE", "BORG_PASSCOMMAND", "BORG_RSH", "BORG_REMOTE_PATH", "BORG_KEY_FILE", "BORG_KEYS_DIR"),
    *("BORG_BASE_DIR", "BORG_CONFIG_DIR", "BORG_CACHE_DIR", "BORG_SECURITY_DIR", "BORG_HOST_ID"),
    *("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "BORG_RELOCATED_REPO_ACCESS_IS_OK"),
)
_DETAILS: Final = "{archive}{id}{start}{comment}{hostname}"
_BARE: Final = "{archive}{id}{start}"
"""What the repository's manifest knows of an archive, without a look into it."""
_OPTION: Final = re.compile(r"(\w+://)?-")
_SAID: Final = 1000
"""Warnings and errors that are kept of one command; others are counted."""

_FIELDS: Final = ("mode", "uid", "gid", "user", "group", "size", "num_chunks", "isomtime", "isoctime", "health")
_LISTING: Final = "".join(f"{{{name}}}{{NUL}}" for name in _FIELDS) + "{source}{NUL}{bpath}{NUL}é{NL}"
"""A record for each item. The last field tells whether names come as they are (:meth:`Borg.items`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One archive of a repository. ``id`` is what it is in hexadecimal; ``start_ns`` when it was begun."""

    name: str
    id: str
    start_ns: int
    comment: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """What a repository is, and its archives, oldest first."""

    id: str
    encryption: str
    archives: tuple[Archive, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One name in an archive, as borg lists it.

    ``mode`` is as ``ls`` writes it, with an ``h`` in front for a further name of the file that ``source`` is.
    ``source`` lacks what is no text. Times are text in UTC to the microsecond; without a ctime in the archive it is the
    mtime. ``exact`` is whether ``path`` is what is stored, to the byte.
    """

    path: bytes
    mode: str
    uid: int
    gid: int
    user: str
    group: str
    size: int
    chunks: int
    mtime: str
    ctime: str
    whole: bool
    source: str
    exact: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A warning or an error, in borg's words."""

    text: str
    level: str
    id: str = ""


@dataclass(slots=True)
class Done:
    """A command that came to its end. ``warnings`` are what it could not do of it, the first of ``count``.

    What borg warns of though it ends well (a lock that somebody who was killed had left, say) is none, and is noted.
    """

    warnings: list[Said] = field(default_factory=list)
    count: int = 0
    out: bytes = b""


@dataclass(slots=True)
class _Listener:
    """Takes in the JSON lines on standard error."""

    progress: Progress | None = None
    said: list[Said] = field(default_factory=list)
    count: int = 0
    _rest: bytes = b""
    _shown: int = 0

    def __call__(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        self._rest = rest[-_BUFFER:]

    def end(self) -> None:
        """Take in what has no end: all of it, where escapes were asked for, for newlines are escaped too."""
        rest, self._rest = self._rest, b""
        with suppress(UnicodeDecodeError):
            for line in rest.decode("unicode_escape").encode("utf-8", "surrogatepass").splitlines():
                self._line(line)

    def _line(self, line: bytes) -> None:
        try:
            message = json.loads(line[max(0, line.find(b'{"')) :])  # a question may stand before it
            kind = message["type"]
        except (ValueError, TypeError, KeyError):
            return  # ssh and the interpreter speak as they like; the tail of it is in what is said of a failure
        if kind == "log_message" and message.get("levelname") in {"WARNING", "ERROR", "CRITICAL"}:
            self.count += 1
            if len(self.said) < _SAID:
                text = escape(str(message.get("message", "")).encode("utf-8", "surrogateescape"))
                self.said.append(Said(text, str(message["levelname"]), str(message.get("msgid", ""))))
        elif self.progress is not None:
            at = message.get("current") if kind == "progress_percent" else message.get("original_size")
            if isinstance(at, int) and at > self._shown:
                self.progress.advance(at - self._shown)
                self._shown = at


def archive_name(dataset: str, at_ns: int) -> str:
    """Return what the archive of a snapshot is called."""
    return f"{dataset}-{datetime.fromtimestamp(at_ns // NS, UTC).strftime('%Y-%m-%dT%H:%M:%S')}"


def environment_of(own: Mapping[str, str]) -> dict[str, str]:
    """Return this program's environment for borg: a passphrase behind a descriptor, which can be read once, is read.

    Raises:
        UsageError: nothing can be read there.
    """
    found = dict(own)
    descriptor = found.pop("BORG_PASSPHRASE_FD", None)
    if descriptor is not None and not ({"BORG_PASSPHRASE", "BORG_PASSCOMMAND"} & found.keys()):
        try:
            with os.fdopen(int(descriptor), encoding="utf-8") as file:
                found["BORG_PASSPHRASE"] = file.read().rstrip("\n")
        except (ValueError, OSError) as error:
            raise UsageError(
                f"BORG_PASSPHRASE_FD={descriptor}: nothing can be read there ({error})",
                hint="as in: BORG_PASSPHRASE_FD=3 replicator borg ... 3< FILE",
            ) from error
    return found


def place_of(repository: str) -> str:
    """Return where a repository is, from any folder: a path is the caller's.

    Raises:
        UsageError: borg, or ssh, would take it for an option.
    """
    if ":" in repository and _OPTION.match(repository):
        raise UsageError(f"{repository!a} is no repository", hint="a path, or ssh://USER@HOST/PATH")
    return repository if ":" in repository else os.path.abspath(repository)


class Borg:
    """Borg on this machine, for one repository. Each method runs it once, to its end, on the calling thread.

    Raises, all methods:
        SourceError: borg is missing or too old, or went wrong in another way.
        KeyWrongError: the passphrase, or the key file, is missing or does not fit.
        LockedError: somebody else works in the repository.
        NotFoundError: there is no such repository or archive.
        IntegrityError: borg found damage.
        SpaceError: a disk or a quota is full.
    """

    def __init__(
        self,
        repository: str,
        *,
        programs: Programs,
        environment: Mapping[str, str],
        home: str,
        stop: Stop = lambda: False,
        reads: bool = False,
        wait_s: int = LOCK_WAIT_S,
    ) -> None:
        """``home`` is where borg keeps what it has to remember, if its user has no place of his own for that.

        ``wait_s`` is how long to wait for a lock.

        ``reads``: nothing is written to the repository, so that nothing is risked if it is another than it was.
        """
        self.repository = repository
        self._programs = programs
        self._stop = stop
        self._wait_s = wait_s
        passed = {name: environment[name] for name in _PASSED if environment.get(name)}
        if not ({"HOME", "BORG_BASE_DIR"} & passed.keys()):
            passed["BORG_BASE_DIR"] = home
        fixed = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "BORG_EXIT_CODES": "modern"}
        if reads:
            fixed |= dict.fromkeys(
                ("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "BORG_RELOCATED_REPO_ACCESS_IS_OK"), "yes"
            )
        self._environment = {"PATH": DEFAULT_PATH, **passed, **fixed}

    def version(self, oldest: tuple[int, int, int] = OLDEST) -> tuple[int, int, int]:
        """Return borg's version, which is at least ``oldest``."""
        command = self._command(["--version"])
        try:
            ended = self._programs.run(command, limit_s=60, stop=self._stop, keep=1 << 10)
        except SourceError as error:
            raise SourceError("borg is not on PATH", hint=INSTALL) from error
        if not ended.good:
            raise SourceError(complaint("`borg --version`", ended, 60), hint=INSTALL)
        said = ended.out.decode("utf-8", "replace").split()
        found = parse_version(said[-1] if said else "")
        if found is None or found[0] != 1:
            raise SourceError(f"this is not borg 1.x: it calls itself {escape(ended.out.strip())}", hint=INSTALL)
        if found < oldest:
            have, need = (".".join(map(str, one)) for one in (found, oldest))
            raise SourceError(f"borg is {have}, and at least {need} is needed", hint=INSTALL)
        return found

    def look(self) -> Repository:
        """Return what the repository is and what archives it has, of which one that is damaged hides no other."""
        try:
            return self._look(_DETAILS)
        except IntegrityError:
            found = self._look(_BARE)
            return replace(found, archives=tuple(self._about(one) for one in found.archives))

    def _about(self, archive: Archive) -> Archive:
        """Return an archive with its comment and host, as far as they can be read."""
        only = "".join(f"[{one}]" if one in "*?[" else one for one in archive.name)
        with suppress(IntegrityError):
            for one in self._look(_DETAILS, f"--glob-archives={only}").archives:
                if one.id == archive.id:
                    return one
        return archive

    def _look(self, fields: str, *more: str) -> Repository:
        return read_repository(self._run(["list", "--json", "--format", fields, *more, self.repository]).out)

    def items(self, archive: str) -> Iterator[Item]:
        """Yield what is in an archive, in its order.

        Python is told to write escapes: as text, borg would write a question mark for each byte that is none. A borg
        without an ear for that (as one file, frozen) shows by the last field; names with question marks are then not
        exact.
        """
        listener = _Listener()
        command = self._command(
            ["list", "--format", _LISTING, self._in(archive)], extra={"PYTHONIOENCODING": "unicode_escape"}
        )
        with closing(self._open(command, listener)) as output:
            yield from read_items(_pieces(output.read_into))
            self._judge(output.finish(), listener)

    def extract(self, archive: str, folder: str, *, patterns: str | None = None, progress: Progress) -> Done:
        """Extract an archive into a folder, all of it or what a file of patterns includes."""
        chosen = [] if patterns is None else ["--patterns-from", patterns]
        words = ["--progress", "extract", "--numeric-ids", "--noflags", "--sparse", *chosen, self._in(archive)]
        return self._run(words, folder=folder, limit_s=WORK_S, progress=progress)

    def create(
        self,
        archive: str,
        paths: Sequence[bytes],
        *,
        folder: str,
        at_ns: int,
        comment: str,
        progress: Progress,
    ) -> Done:
        """Make an archive of paths in a folder, all that is below them.

        Owners are stored as numbers: this machine's names may be others than those of where the tree comes from.
        Nothing is remembered of the files, which are copies.
        """
        words = ["--numeric-ids", "--files-cache", "disabled", *_about(at_ns, comment), self._in(archive), "--"]
        return self._create([*words, *paths], folder=folder, progress=progress)

    def create_of(
        self, archive: str, listed: str, *, at_ns: int, comment: str, limit_s: float, progress: Progress
    ) -> Done:
        """Make an archive of those paths, and no others, that a file lists with a NUL behind each.

        What stands before ``/./`` in a path is not stored (borg 1.4).
        """
        chosen = ["--paths-from-command", "--paths-delimiter", "\\0"]
        words = [*chosen, *_about(at_ns, comment), self._in(archive), "--", "cat", listed]
        return self._create(words, limit_s=limit_s, progress=progress)

    def _create(
        self, words: Sequence[str | bytes], *, folder: str = "/", limit_s: float = WORK_S, progress: Progress
    ) -> Done:
        usual = ("--progress", "create", "--noflags", "--compression", "zstd,3")
        return self._run([*usual, *words], folder=folder, limit_s=limit_s, progress=progress)

    def init(self, encryption: str) -> Done:
        """Make the repository."""
        return self._run(["init", "--encryption", encryption, self.repository])

    def delete(self, archives: Sequence[str]) -> Done:
        """Delete archives, and give their room back."""
        names = [_plain(name) for name in archives]
        done = self._run(["delete", self.repository, "--", *names], limit_s=WORK_S)
        self._run(["compact", self.repository], limit_s=WORK_S)
        return done

    def check(self) -> Done:
        """Check the repository and its archives, without reading all data."""
        return self._run(["check", self.repository], limit_s=WORK_S)

    def _in(self, archive: str) -> str:
        return f"{self.repository}::{_plain(archive)}"

    def _command(
        self, words: Sequence[str | bytes], *, folder: str = "/", extra: Mapping[str, str] | None = None
    ) -> Command:
        argv = ("borg", "--log-json", "--lock-wait", str(self._wait_s), *words)
        return Command(argv=argv, environment={**self._environment, **(extra or {})}, folder=folder)

    def _open(self, command: Command, listener: _Listener) -> Any:
        try:
            return self._programs.open(command, limit_s=WORK_S, stop=self._stop, heard=listener)
        except SourceError as error:
            raise SourceError("borg is not on PATH", hint=INSTALL) from error

    def _run(
        self,
        words: Sequence[str | bytes],
        *,
        folder: str = "/",
        limit_s: float = QUESTION_S,
        progress: Progress | None = None,
    ) -> Done:
        listener = _Listener(progress)
        command = self._command(words, folder=folder)
        try:
            ended = self._programs.run(command, limit_s=limit_s, stop=self._stop, keep=_ANSWER, heard=listener)
        except SourceError as error:
            raise SourceError("borg is not on PATH", hint=INSTALL) from error
        return self._judge(ended, listener, limit_s)

    def _judge(self, ended: Ended, listener: _Listener, limit_s: float = WORK_S) -> Done:
        listener.end()
        if ended.by != "itself":
            raise SourceError(
                f"{self.repository}: borg {how(ended, limit_s)}", hint="what it had stored is whole; run the same again"
            )
        outcome = outcome_of(ended.code)
        if outcome == "failed":
            raise error_of(self.repository, ended, listener.said)
        if outcome == "good":
            if listener.progress is not None:
                for one in listener.said:
                    listener.progress.note(f"borg: {one.text}")
            return Done(out=ended.out)
        return Done(warnings=listener.said, count=listener.count, out=ended.out)


def outcome_of(code: int) -> Literal["good", "warned", "failed"]:
    """Return what an exit code says, of the modern ones (borg 1.4) and of those before.

    127 may also be a shell that did not find borg behind ssh, or a wrapper: that it never is a warning is safe.
    """
    if code == 0:
        return "good"
    return "warned" if code == 1 or 100 <= code < 127 else "failed"


_MEANS: Final[Mapping[str, tuple[type[ReplicatorError], str]]] = {
    "PassphraseWrong": (KeyWrongError, "set BORG_PASSPHRASE, BORG_PASSCOMMAND or BORG_PASSPHRASE_FD to the right one"),
    "NoPassphraseFailure": (KeyWrongError, "set BORG_PASSPHRASE, BORG_PASSCOMMAND or BORG_PASSPHRASE_FD"),
    "PasscommandFailure": (KeyWrongError, "try the command in BORG_PASSCOMMAND by hand"),
    "PasswordRetriesExceeded": (KeyWrongError, "set BORG_PASSPHRASE, BORG_PASSCOMMAND or BORG_PASSPHRASE_FD"),
    "KeyfileNotFoundError": (KeyWrongError, "put the key where borg looks for it (BORG_KEYS_DIR, BORG_KEY_FILE)"),
    "RepoKeyNotFoundError": (KeyWrongError, "put the key back with `borg key import`"),
    "LockTimeout": (
        LockedError,
        "wait until the other borg has ended; if there surely is none, `borg break-lock REPO` takes its lock away",
    ),
    "LockFailed": (SourceError, "whoever runs this must be allowed to write in the repository's folder"),
    "Repository.DoesNotExist": (NotFoundError, "see that the path is right and its disk mounted"),
    "Repository.InvalidRepository": (NotFoundError, "see that the path is right and its disk mounted"),
    "Repository.AlreadyExists": (UsageError, "leave --init out: the repository is there"),
    "Archive.DoesNotExist": (NotFoundError, "`borg list REPO` says what there is"),
    "Archive.AlreadyExists": (UsageError, "choose another name"),
    "Repository.InsufficientFreeSpaceError": (SpaceError, "make room where the repository is"),
    "Repository.StorageQuotaExceeded": (SpaceError, "raise the repository's quota, or make room in it"),
    "Repository.CheckNeeded": (IntegrityError, "run `borg check REPO`"),
    "Repository.ObjectNotFound": (IntegrityError, "`borg check REPO` says what is damaged"),
    "Cache.RepositoryAccessAborted": (
        SourceError,
        "borg does not know this repository, or knew it elsewhere: run `borg info REPO` by hand once and answer it",
    ),
    "ConnectionClosed": (SourceError, "try `borg info REPO` by hand: can this user log in there without being asked?"),
    "ConnectionClosedWithHint": (SourceError, "try `borg info REPO` by hand: can this user log in there, and is borg?"),
}
_DAMAGE: Final = ("IntegrityError", "Data integrity error", "FileIntegrityError", "DecompressionError", "TAMInvalid")


def error_of(repository: str, ended: Ended, said: Sequence[Said]) -> ReplicatorError:
    """Return what a command that failed comes to: by borg's name for it, else by its code and words."""
    errors = [one for one in said if one.level in {"ERROR", "CRITICAL"}]
    text = errors[-1].text.partition("\\n")[0] if errors else _last_of(ended)
    if is_full([one.text for one in errors]):
        return SpaceError(f"{repository}: {text}", hint="make room and run it again")
    for one in reversed(errors):
        if one.id in _MEANS:
            kind, hint = _MEANS[one.id]
            return kind(f"{repository}: {text}", hint=hint)
    if 90 <= ended.code < 100 or any(word in one.id + one.text for one in errors for word in _DAMAGE):
        return IntegrityError(f"{repository}: {text}", hint="`borg check REPO` says what is damaged")
    return SourceError(f"{repository}: {text}", hint="try the same with borg by hand")


def _last_of(ended: Ended) -> str:
    """Return how borg ended and what was said last that is for people: by ssh, or by the interpreter."""
    lines = [line for line in ended.tail.splitlines() if b'"type": "' not in line]
    words = last_words(b"\n".join(lines))
    return f"borg {how(ended, WORK_S)}" + (f"; it said last: {words}" if words else "")


def is_full(said: Sequence[str]) -> bool:
    """Return whether somebody speaks of a disk without room."""
    return any(word in one for one in said for word in ("No space left", "[Errno 28]", "Disk quota exceeded"))


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Return "1.4.5", or "1.4.5rc1", as numbers."""
    numbers = []
    for part in text.split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            return None
        numbers.append(int(digits))
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def read_repository(text: bytes) -> Repository:
    """Return what ``borg list --json`` says of a repository, under TZ=UTC.

    Raises:
        SourceError: it says something else.
    """
    try:
        found = json.loads(text)
        archives = [
            Archive(
                name=one["name"],
                id=one["id"],
                start_ns=_ns(one["start"]),
                comment=one.get("comment") or "",
                host=one.get("hostname") or "",
            )
            for one in found["archives"]
        ]
        return Repository(
            id=found["repository"]["id"],
            encryption=found["encryption"]["mode"],
            archives=tuple(sorted(archives, key=lambda one: (one.start_ns, one.name))),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(f"what borg says of its repository is not understood: {error}") from error


def read_items(pieces: Iterator[bytes]) -> Iterator[Item]:
    """Yield the items of a listing that comes in pieces.

    Raises:
        SourceError: it is none.
    """
    decoder: codecs.IncrementalDecoder | None = None
    rest = ""
    for piece in pieces:
        if decoder is None:
            # As text, borg would write NUL as it is; as escapes there is none.
            kind = "utf-8" if b"\0" in piece else "unicode_escape"
            decoder = codecs.getincrementaldecoder(kind)("surrogateescape" if kind == "utf-8" else "strict")
        *records, rest = (rest + decoder.decode(piece)).split("\0é\n")
        for record in records:
            yield _item(record, exact=kind != "utf-8")
    if rest:
        raise SourceError("borg's listing ends within a line")


def _item(record: str, *, exact: bool) -> Item:
    fields = record.split("\0")
    if len(fields) != len(_FIELDS) + 2:
        raise SourceError("borg's listing is not understood", hint="is this borg 1.2 or 1.4?")
    mode, uid, gid, user, group, size, chunks, mtime, ctime, health, source, path = fields
    return Item(
        path=os.fsencode(path),
        mode=mode,
        uid=int(uid),
        gid=int(gid),
        user=user,
        group=group,
        size=int(size),
        chunks=int(chunks),
        mtime=mtime,
        ctime=ctime,
        whole=health == "healthy",
        source=source,
        exact=exact or "?" not in path,
    )


def _pieces(read_into: Callable[[memoryview], int]) -> Iterator[bytes]:
    buffer = memoryview(bytearray(_BUFFER))
    while count := read_into(buffer):
        yield bytes(buffer[:count])


def _ns(text: str) -> int:
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return round(at.timestamp()) * NS


def _about(at_ns: int, comment: str) -> list[str]:
    at = datetime.fromtimestamp(at_ns // NS, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return ["--timestamp", at, "--comment", _plain(comment)]


def _plain(text: str) -> str:
    """Return a text in which borg takes no brace for the beginning of a placeholder."""
    return text.replace("{", "{{").replace("}", "}}")
