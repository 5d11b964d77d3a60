"""run --all, status --all: many tenants on one machine, each in a home of its own below one folder."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from replicator.cli import exits
from replicator.cli.base import Session, as_error, wait_in_order
from replicator.cli.output import Output, table
from replicator.clock import HOUR_S
from replicator.config import CONFIG_VARIABLE, LEAST_RATE, counted, format_size
from replicator.engine.home import has_half
from replicator.engine.spool import MOST, SHARE_OF_FREE
from replicator.engine.turns import Came, Memory, Outcome, Pass
from replicator.errors import HomeError, LockedError, UsageError
from scheduler.turns import share

if TYPE_CHECKING:
    from replicator.engine.home import Role

Look = Callable[[Session], tuple[dict[str, Any], list[str]]]
"""Says how the home of a session stands, as a document and in words, and worsens the session's exit code."""

HOMES_VARIABLE: Final = "REPLICATOR_HOMES"
LOCK: Final = "turns.lock"
SAID: Final = 20
"""Lines kept of the last that a tenant's run said on standard error."""
LONGEST_LINE: Final = 500
GRACE_S: Final = 900.0
"""Between the request to stop and the end: what is in flight is finished, and hooks run."""
LEFT_S: Final = 60.0
"""Between the end and going on without it: a disk that hangs holds even what was killed, and what it started may have
gone out of its group with the pipes that are read here."""
_ALONE: Final = frozenset(
    {
        "REPLICATOR_HOME",
        "REPLICATOR_HOMES",
        "REPLICATOR_PASSPHRASE_FILE",
        "REPLICATOR_PROGRESS",
        "CREDENTIALS_DIRECTORY",
        "NOTIFY_SOCKET",
        "STATE_DIRECTORY",
    }
)
"""What is the host's own, and no tenant's: a passphrase or a credential of one would open, or speak for, all."""
_NIGHT: "Final[tuple[Role, ...]]" = ("node", "maintainer")
_MEMBER: "Final[tuple[Role, ...]]" = ("node", "maintainer", "keeper", "drill")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How a pass is made: so many at a time, so long (s) each while others wait, so long in all; and with what of it.

    ``up`` is in bytes a second, ``spool`` in bytes, both for all together; None: no limit, and the usual share of disk.
    """

    at_a_time: int
    slice_s: int
    limit_s: int
    up: int | None = None
    spool: int | None = None


def homes_folder(given: str | None) -> str:
    """Return the folder that has all homes.

    Raises:
        UsageError: nobody says which, or one file of settings is named for all of them.
    """
    folder = given or os.environ.get(HOMES_VARIABLE)
    if not folder:
        raise UsageError(
            "--all is for the homes below a folder, and none was named",
            hint=f"give --homes DIR, or set {HOMES_VARIABLE}",
        )
    if os.environ.get(CONFIG_VARIABLE):
        raise UsageError(f"{CONFIG_VARIABLE} names one file for all homes", hint="each has a config.toml of its own")
    return os.path.abspath(folder)


def homes_in(folder: str, roles: "Sequence[Role]") -> list[str]:
    """Return the names of the homes below a folder that have one of these halves. Links are not followed.

    Raises:
        HomeError: the folder cannot be read, or there are none.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError as error:
        raise HomeError(f"{folder}: {error.strerror}", hint="give --homes DIR with a home for each tenant") from error
    found = [name for name in names if any(has_half(os.path.join(folder, name), role) for role in roles)]
    if not found:
        raise HomeError(
            f"{folder}: no home of a tenant is in it",
            hint=f"make one: replicator node request --home {os.path.join(folder, 'NAME')}",
        )
    return found


def run_all(session: Session, given: str | None, turns: Turns) -> None:
    """Run the night of every home below a folder, and say what became of each."""
    session.looked = True  # whatever home this machine has besides, it is not its run
    folder = homes_folder(given)
    names = homes_in(folder, _NIGHT)
    lanes = _lanes(turns, len(names))
    options = _shares(session, folder, turns, lanes)
    with _only_pass(folder):
        outcomes = wait_in_order(
            Pass(
                names=names,
                launch=_launcher(folder, options),
                clock=session.clock,
                memory=Memory(session.fs, folder),
                lanes=lanes,
                slice_s=turns.slice_s,
                limit_s=turns.limit_s,
            ).go()
        )
    rows = [_row(folder, one) for one in outcomes]
    for row in rows:
        session.worsen(row["exit"])
        if row["exit"]:
            for line in row["said"]:
                session.out.notice(f"{row['id']}: {line}")
    session.out.result({"tenants": rows, "exit": session.code}, _text(rows))


def _lanes(turns: Turns, tenants: int) -> int:
    """Return how many run at a time: with less than a least rate, each upload would take longer than providers wait."""
    most = tenants if turns.up is None else turns.up // LEAST_RATE
    if most < 1:
        raise UsageError(
            f"--up {format_size(turns.up or 0)} a second is too little for one tenant",
            hint=f"at least {format_size(LEAST_RATE)}",
        )
    return max(1, min(turns.at_a_time, tenants, most))


def _shares(session: Session, folder: str, turns: Turns, lanes: int) -> list[str]:
    """Return the options by which each run takes no more than its part of line and disk."""
    free = min(MOST, session.fs.free_bytes(folder) // SHARE_OF_FREE)
    spool = share(free if turns.spool is None else turns.spool, lanes)
    up = share(turns.up, lanes)
    return ["--spool", str(spool), *([] if up is None else ["--up", str(up)])]


@contextlib.contextmanager
def _only_pass(folder: str) -> Iterator[None]:
    try:
        descriptor = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HomeError(f"{folder}: {error.strerror}", hint="run this as who owns the homes") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"{folder}: another `run --all` is working here", hint="wait for it") from None
        yield
    finally:
        os.close(descriptor)


def _launcher(folder: str, options: Sequence[str]) -> "Callable[[str], _Child]":
    program = [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", "replicator"]
    environment = {key: value for key, value in os.environ.items() if key not in _ALONE}

    def launch(name: str) -> _Child:
        return _Child([*program, "run", "--json", *options, "--home", os.path.join(folder, name)], environment)

    return launch


class _Child:
    """A tenant's run as a process of its own: what it breaks, eats or leaks is its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._asked = False
        self._ended = False
        self._left = asyncio.Event()

    async def wait(self) -> Came:
        """Run it to its end, or to when it was killed and did not go."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for who decides about all of them
        )
        self._process = process
        if self._asked:
            self._terminate()
        assert process.stdout is not None
        assert process.stderr is not None
        said: deque[str] = deque(maxlen=SAID)
        ending = asyncio.ensure_future(_to_the_end(process, process.stdout, process.stderr, said))
        leaving = asyncio.ensure_future(self._left.wait())
        await asyncio.wait([ending, leaving], return_when="FIRST_COMPLETED")
        leaving.cancel()
        self._ended = True
        if ending.done():
            code, out = ending.result()
            return Came(code=code, document=_document(out), said=tuple(said))
        ending.cancel()
        # Pipes that somebody has the other end of are let go of by nothing else.
        process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001 - asyncio shows no way to it
        said.append(f"killed, and something of it is there still (process {process.pid}): it is waited for no longer")
        return Came(code=-signal.SIGKILL, said=tuple(said))

    def stop(self) -> None:
        """Ask it to stop; end it if it does not within a quarter of an hour."""
        self._asked = True
        self._terminate()
        asyncio.get_running_loop().call_later(GRACE_S, self._kill)

    def _terminate(self) -> None:
        if self._process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def _kill(self) -> None:
        """End it with the processes that it reads with: one that hangs would hold what is waited for here."""
        if self._process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            asyncio.get_running_loop().call_later(LEFT_S, self._left.set)


async def _to_the_end(
    process: asyncio.subprocess.Process, out: asyncio.StreamReader, err: asyncio.StreamReader, said: deque[str]
) -> tuple[int, bytes]:
    """Return a process's exit code and what it wrote, once nobody has the other end of its pipes any more."""
    written, _ = await asyncio.gather(out.read(), _keep_last(err, said))
    return await process.wait(), written


async def _keep_last(stream: asyncio.StreamReader, lines: deque[str]) -> None:
    rest = b""
    while piece := await stream.read(1 << 16):
        *whole, rest = (rest + piece).split(b"\n")
        lines.extend(line.decode(errors="replace")[:LONGEST_LINE] for line in whole if line.strip())
        rest = rest[-LONGEST_LINE:]
    if rest.strip():
        lines.append(rest.decode(errors="replace"))


def _document(out: bytes) -> Any:
    try:
        return json.loads(out)
    except ValueError:
        return None


def _row(folder: str, one: Outcome) -> dict[str, Any]:
    came = one.came or Came(code=0)
    code, why = _code_of(one, came)
    return {
        "id": one.id,
        "home": os.path.join(folder, one.id),
        "state": one.state,
        "exit": code,
        "why": why,
        "waited_s": round(one.waited_s),
        "took_s": round(one.took_s, 1),
        "turns": one.turns,
        "said": list(came.said),
        "run": came.document,
    }


def _code_of(one: Outcome, came: Came) -> tuple[int, str]:
    """Return what a tenant's part does to the exit code of all, and why, in words."""
    if one.state == "not begun":
        return exits.GAPS, "no time was left; it comes first the next time"
    if one.state == "stopped":
        return exits.GAPS, "not done within its time; it goes on the next time"
    if came.code < 0:
        return exits.FAILED, f"ended by {signal.Signals(-came.code).name}"
    if came.code not in (exits.DONE, exits.GAPS, exits.INTEGRITY, exits.MINIMUM, exits.NO_KEY):
        return exits.FAILED, _error_of(came) or f"ended with {came.code}"
    return came.code, "" if came.code == exits.DONE else _error_of(came)


def _error_of(came: Came) -> str:
    document = came.document if isinstance(came.document, dict) else {}
    error = document.get("error")
    if isinstance(error, dict):
        return str(error.get("message", ""))
    rows = document.get("datasets")
    rows = [one for one in rows if isinstance(one, dict)] if isinstance(rows, list) else []
    errors = [f"{one.get('dataset')}: {one['error']}" for one in rows if one.get("error")]
    return "; ".join(errors) or (came.said[-1] if came.said else "")


def _text(rows: Sequence[dict[str, Any]]) -> list[str]:
    good = sum(row["exit"] == exits.DONE for row in rows)
    lines = [f"{good} of {counted(len(rows), 'tenant')} {'has all its' if good == 1 else 'have all their'} copies.", ""]
    shown = [
        (row["id"], row["state"], row["exit"], _hours(row["waited_s"]), f"{row['took_s']:.0f} s", row["turns"])
        for row in rows
    ]
    lines += table(("TENANT", "RUN", "EXIT", "WAITED", "TOOK", "TURNS"), shown)
    lines += ["", *(f"{row['id']}: {row['why']}" for row in rows if row["why"])]
    return lines if any(row["why"] for row in rows) else lines[:-1]


def _hours(seconds: int) -> str:
    return "first run" if seconds < 0 else f"{seconds / HOUR_S:.0f} h"


def status_all(session: Session, given: str | None, look: Look) -> None:
    """Say of every home below a folder whether its data is safe."""
    folder = homes_folder(given)
    rows = [_looked(session, os.path.join(folder, name), look) for name in homes_in(folder, _MEMBER)]
    for row in rows:
        session.worsen(row["exit"])
        if row["status"] is None:
            session.out.notice(f"{row['id']}: {row['problems'][0]}")
    safe = sum(row["safe"] for row in rows)
    first = "All data is safe" if safe == len(rows) else "SOMETHING NEEDS ATTENTION"
    lines = [f"{first}: {safe} of {counted(len(rows), 'tenant')} {'is' if safe == 1 else 'are'} safe.", ""]
    lines += table(
        ("TENANT", "SAFE", "EXIT", "NEWEST", "DATASETS"),
        [
            (row["id"], "yes" if row["safe"] else "NO", row["exit"], row["newest"] or "never", row["datasets"])
            for row in rows
        ],
    )
    said = [f"{row['id']}: {line}" for row in rows for line in row["problems"]]
    session.out.result({"tenants": rows, "exit": session.code}, [*lines, *([""] if said else []), *said])


def _looked(session: Session, home: str, look: Look) -> dict[str, Any]:
    one = Session()
    one.home_option, one.fs, one.clock, one.rng = home, session.fs, session.clock, session.rng
    one.__dict__["out"] = Output(as_json=True)  # it says nothing by itself
    row: dict[str, Any] = {"id": os.path.basename(home), "home": home}
    try:
        document, _ = look(one)
    except Exception as error:  # whatever ails this home, the others are looked at
        said = as_error(error)
        code = exits.code_of(said)
        code = exits.FAILED if code == exits.USAGE else code
        return row | {
            "safe": False,
            "exit": code,
            "newest": "",
            "datasets": 0,
            "problems": [said.message],
            "status": None,
        }
    datasets = document["datasets"]
    newest = max((one["newest"] for one in datasets), default="")
    problems = [f"{one['name']} is {one['state']}" for one in datasets if one["state"] != "safe"]
    return row | {
        "safe": bool(document["safe"]),
        "exit": one.code,
        "newest": newest,
        "datasets": len(datasets),
        "problems": [*problems, *document["problems"]] or ([] if datasets else ["nothing is backed up from here yet"]),
        "status": document,
    }
