"""Commands that people give: their environment, what is said of how they ended, and reading what one writes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from replicator.errors import SourceError, UsageError
from replicator.format.tree import Hole
from replicator.process import Command, Ended, Output, Programs, Stop
from replicator.snapshot.tree import MAX_NAME, escape
from replicator.snapshot.walk import Status

Stage = Literal["before", "after"]
Outcome = Literal["success", "failure", "timeout", "killed"]

HOOKS_SEE: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR")
"""What a hook sees of this program's environment, beside LC_*."""
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LINES: Final = 3
LINE: Final = 200


class CommandError(SourceError):
    """A command that a dataset relies on went wrong; ``outcome`` is what its after-hook is told."""

    def __init__(self, message: str, outcome: Outcome, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.outcome = outcome


def outcome_of(ended: Ended) -> Outcome:
    """Return what an after-hook is told of a command that did not do what it should."""
    return "timeout" if ended.by == "limit" else "failure"


def hook_environment(own: Mapping[str, str], dataset: str, stage: Stage, outcome: Outcome | None) -> dict[str, str]:
    """Return the whole environment of a hook; ``outcome`` is what an after-hook is told."""
    told: dict[str, str] = {"REPLICATOR_STAGE": stage}
    if outcome is not None:
        told["REPLICATOR_RESULT"] = outcome
    return plain_environment(own, dataset) | told


def plain_environment(own: Mapping[str, str], dataset: str) -> dict[str, str]:
    """Return what every command sees that works for a dataset and for which nobody set an environment up."""
    seen = {name: value for name, value in own.items() if name in HOOKS_SEE or name.startswith("LC_")}
    return {"PATH": DEFAULT_PATH, **seen, "REPLICATOR_DATASET": dataset}


def command_environment(own: Mapping[str, str], dataset: str) -> dict[str, str]:
    """Return the environment of a command whose output is backed up: the caller's own, but for what unlocks keys."""
    kept = {
        name: value
        for name, value in own.items()
        if not name.startswith("REPLICATOR_PASSPHRASE") and name != "CREDENTIALS_DIRECTORY"
    }
    return {**kept, "REPLICATOR_DATASET": dataset}


def how(ended: Ended, limit_s: float) -> str:
    """Return how a command ended, in words."""
    if ended.by == "limit":
        return f"did not end within {limit_s:.0f} s and was stopped"
    if ended.by == "stop":
        return "was stopped with the run"
    return f"was ended by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"


def last_words(tail: bytes) -> str:
    """Return the last lines that a command said, on one line and safe for a terminal; empty if it said nothing."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return " | ".join(escape(line[-LINE:]) for line in lines[-LINES:])


def complaint(what: str, ended: Ended, limit_s: float) -> str:
    """Return one sentence about a command that went wrong."""
    words = last_words(ended.tail)
    return f"{what} {how(ended, limit_s)}" + (f"; it said last: {words}" if words else "; it said nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipedCommand:
    """A command whose standard output becomes one file, called ``name``.

    ``limit_s`` is how long it may let the backup wait in all.
    """

    name: bytes
    argv: tuple[str, ...]
    folder: str
    limit_s: float

    def __post_init__(self) -> None:
        if not self.argv:
            raise UsageError("no command is given", hint="write it behind --, as in: -- pg_dump shop")
        if not 0 < len(self.name) <= MAX_NAME or self.name in (b".", b"..") or b"/" in self.name or b"\0" in self.name:
            raise UsageError(
                f"'{escape(self.name)}' cannot be a file's name",
                hint=f"one name of at most {MAX_NAME} bytes, without a folder before it",
            )

    def begin(self, programs: Programs, own: Mapping[str, str], dataset: str, stop: Stop) -> "CommandFile":
        """Start the command.

        Raises:
            SourceError: it cannot be started.
        """
        started = Command(argv=self.argv, environment=command_environment(own, dataset), folder=self.folder)
        return CommandFile(programs.open(started, limit_s=self.limit_s, stop=stop), self)


class CommandFile:
    """What a command writes, as a file that is read once.

    Reading its end raises CommandError unless the command has ended well: half a dump is no backup.
    """

    def __init__(self, output: Output, command: PipedCommand) -> None:
        self._output = output
        self._command = command

    def read_into(self, buffer: memoryview, /) -> int:
        """Read on."""
        count = self._output.read_into(buffer)
        if not count:
            ended = self._output.finish()
            if not ended.good:
                name = escape(os.fsencode(self._command.argv[0]))
                raise CommandError(
                    complaint(f"'{name}'", ended, self._command.limit_s),
                    outcome_of(ended),
                    hint="nothing of it was kept; run the command by hand to see what it lacks",
                )
        return count

    def close(self) -> None:
        """End the command if it still runs."""
        self._output.close()

    def status(self) -> Status:
        """A stream has none; nobody asks."""
        raise NotImplementedError

    def skip(self, count: int) -> None:
        """A stream has no holes to skip; nobody asks."""
        raise NotImplementedError

    def holes(self, size: int) -> list[Hole]:
        """A stream has no holes; nobody asks."""
        raise NotImplementedError
