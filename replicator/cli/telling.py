"""What follows a run: its row in the home, a line in the journal, the metrics, and telling people what is new.

None of it makes a run fail: what does not work is a notice, and is shown by `status`.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.cli import exits
from replicator.cli.base import Session, as_error, wait
from replicator.cli.logs import unit_ended
from replicator.cli.output import moment
from replicator.clock import NS
from replicator.errors import HomeError, KeyMissingError, NotFoundError, ReplicatorError, UsageError
from replicator.notify.alarms import BY_HAND, Alarm, by_weight
from replicator.notify.memory import Memory, load
from replicator.notify.telling import failing, look, waiting

if TYPE_CHECKING:
    from replicator.catalog.runs import Run
    from replicator.engine.edge import Edge
    from replicator.engine.home import Half
    from replicator.engine.status import Status
    from replicator.notify.teller import Teller, Told
    from replicator.settings import Config

BACKUPS = frozenset({"backup", "run"})
"""Either is a backup: the later one says how that stands."""
REMEMBERED = "damage_remembered"
"""Of a run's document: all damage that it met is of copies that the home has as damaged since."""
OTHERWISE = "otherwise"
"""Of a run's document: the exit code that it would have had without that damage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A run whose row is written. ``number`` None: the home could not be opened, which the command itself says.

    ``folder`` is that of the half whose row it is: by its end another one may answer for this home.
    """

    kind: str
    number: int | None
    folder: str
    started_ns: int


def begin(session: Session, kind: str) -> Begun:
    """Note that a run begins."""
    now_ns = session.clock.now_ns()
    number, folder = None, ""
    with suppress(Exception), session.member() as half:
        number, folder = half.catalog.log.begin(kind, now_ns), half.path
    return Begun(kind=kind, number=number, folder=folder, started_ns=now_ns)


def finish(session: Session, begun: Begun, error: ReplicatorError | None, code: int) -> None:
    """Do what follows a run. A request that meant nothing here, or only looked, was none."""
    idle = session.looked or isinstance(error, UsageError | NotFoundError | KeyMissingError)
    _carefully(session, lambda: _write_down(session, begun, error, code, idle=idle))
    if not idle and _concerns_others(begun.kind, code):
        _carefully(session, lambda: _tell(session, begun, code, "" if error is None else error.message))


def _concerns_others(kind: str, code: int) -> bool:
    """Say whether people are to hear of a run's end: who stopped it, or asked for it and waits for it, knows."""
    return code == exits.INTEGRITY if kind in BY_HAND else code != exits.INTERRUPTED


def _carefully(session: Session, work: Callable[[], None]) -> None:
    """Do what must not change how a run ended."""
    try:
        work()
    except Exception as error:  # whatever it is, the run is over
        with suppress(OSError):  # there may be nobody to say it to
            session.out.notice(f"what follows a run was not done: {as_error(error).message}")


def _write_down(session: Session, begun: Begun, error: ReplicatorError | None, code: int, *, idle: bool) -> None:
    now_ns = session.clock.now_ns()
    if not idle:
        unit_ended(begun.kind, code, seconds=(now_ns - begun.started_ns) // NS)
    if begun.number is None:
        return
    document = session.out.document
    if error is not None:
        document = {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}
    elif code == exits.INTEGRITY != session.open_code and isinstance(document, dict):
        document = {REMEMBERED: True, OTHERWISE: session.open_code} | document
    with session.member() as half:
        log, number = half.catalog.log, begun.number
        if half.path != begun.folder:  # the first datasets of a node beside a keeper came with this run
            number = log.begin(begun.kind, begun.started_ns)
        if idle:
            log.drop(number)
        else:
            log.end(number, now_ns=now_ns, code=code, document=document)


def _tell(session: Session, begun: Begun, code: int, why: str) -> None:
    from replicator.notify.channels import channels  # noqa: PLC0415 - a restore, as a rule, tells nobody
    from replicator.settings import load_config  # noqa: PLC0415 - likewise

    config = load_config(session.home)
    if not (channels(config.notify) or config.notify.ping or config.metrics.textfile):
        return
    said = f"`{begun.kind}` ended with {code}{f': {why}' if why else ''}."
    whole = True
    try:
        with session.member() as half, session.drilling(half) as keeper, session.edge() as edge:
            found, present = present_alarms(half, keeper, edge)
            standing = in_words(found)
            if code in (exits.FAILED, exits.NO_KEY) and f"run.failed run {begun.kind}" not in {
                one.key for one in present
            }:
                present.append(run_alarm(begun.kind, code, why))  # its row could not be written
            if config.metrics.textfile is not None:
                write_metrics(session, config.metrics.textfile, half, found, present)
    except Exception as error:  # whatever ails the home, of which somebody has to hear
        # It cannot be looked at: that much can be told without it, and that the rest is over cannot.
        wrong = as_error(error).message
        present, whole = [run_alarm(begun.kind, code, why or wrong)], False
        standing = f"{said} Nothing more is known, because the home cannot be looked at: {wrong}."
    folder = memory_folder(session)
    if folder is None:
        return
    teller = make_teller(session, config, folder)

    async def work() -> "list[Told]":
        told = await teller.tell(present, standing, whole=whole)
        problem = "" if begun.kind in BY_HAND else await teller.ping(code, f"{said}\n{standing}")
        return [*told, *([_ping_told(problem)] if problem else [])]

    for one in wait(work()):
        if one.problem:
            session.out.notice(f"notify: {one.channel}: {one.problem}")


def _ping_told(problem: str) -> "Told":
    from replicator.notify.teller import PING, Told  # noqa: PLC0415 - commands import what they use

    return Told(channel=PING, message=None, problem=problem)


def run_alarm(kind: str, code: int, why: str) -> Alarm:
    """Return the alarm of a run in a home that cannot be looked at."""
    return Alarm(
        code="run.failed",
        about=f"run {kind}",
        what=f"the last `{kind}` ended with {code}{f': {why}' if why else ''}",
        todo="run it by hand and read what it says",
    )


def present_alarms(half: "Half", keeper: "Half | None", edge: "Edge") -> "tuple[Status, list[Alarm]]":
    """Return how things stand, asking nobody, and what a person should know of it."""
    from replicator.engine.status import status  # noqa: PLC0415 - commands import what they use

    found = asyncio.run(status(half, edge, keeper=keeper, offline=True))
    return found, alarms_now(half, found)


def alarms_now(half: "Half", found: "Status") -> list[Alarm]:
    """Return what a person should know, of how things stand and of the last runs."""
    from replicator.engine.alarms import alarms_of  # noqa: PLC0415 - commands import what they use

    last = half.catalog.log.last()
    backup = max((run.id for run in last if run.kind in BACKUPS), default=0)
    ended = [(run.kind, _open_code(run), run.why) for run in last if run.kind not in BACKUPS or run.id == backup]
    return by_weight(alarms_of(found, ended))


def _open_code(run: "Run") -> int:
    """Return how a run ended, but for damage that stands in the catalog, where it heals, and is an alarm by itself."""
    return int(run.document.get(OTHERWISE, exits.GAPS)) if run.document.get(REMEMBERED) else run.code


def in_words(found: "Status") -> str:
    """Return whether the data is safe and as of when."""
    from replicator.engine.alarms import standing  # noqa: PLC0415 - commands import what they use

    return standing(found)


def memory_folder(session: Session) -> str | None:
    """Return the folder that remembers what was told: of the half that answers for this home, or of its provider."""
    from replicator.engine.home import has_half  # noqa: PLC0415 - commands import what they use

    with suppress(ReplicatorError, sqlite3.Error), session.member() as half:
        return half.path
    for role in ("node", "keeper", "drill", "maintainer"):  # one that cannot be opened
        if has_half(session.home, role):
            return os.path.join(session.home, role)
    return provider_folder(session)


def provider_folder(session: Session) -> str | None:
    """Return the folder of the provider in this home, None if there is none."""
    path = os.path.join(session.home, "provider")
    return path if os.path.exists(os.path.join(path, "home.json")) else None


def make_teller(session: Session, config: "Config", folder: str) -> "Teller":
    """Return who tells for this home."""
    from replicator.notify.channels import World  # noqa: PLC0415 - commands import what they use
    from replicator.notify.teller import Teller  # noqa: PLC0415 - likewise
    from replicator.process import SystemPrograms  # noqa: PLC0415 - likewise

    world = World(
        fs=session.fs,
        clock=session.clock,
        web=LateWeb(),
        programs=SystemPrograms(),
        environment=dict(os.environ),
    )
    return Teller(settings=config.notify, folder=folder, who=config.notify.name or host_name(), world=world)


def host_name() -> str:
    """Return what this machine calls itself."""
    return os.uname().nodename.split(".")[0] or "this machine"


class LateWeb:
    """The web, imported when somebody is asked there: most homes tell nobody anything on most nights."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the status of the answer."""
        from replicator.notify.web import HttpWeb  # noqa: PLC0415 - see the class

        return await HttpWeb().post(url, body, headers)


def write_metrics(session: Session, path: str, half: "Half", found: "Status", present: Sequence[Alarm]) -> None:
    """Write the text file for Prometheus' node exporter."""
    from replicator.engine.metrics import metrics_of  # noqa: PLC0415 - commands import what they use
    from replicator.notify.metrics import exposition, write_textfile  # noqa: PLC0415 - likewise

    now_ns = session.clock.now_ns()
    try:
        write_textfile(session.fs, path, exposition(metrics_of(half, found, present, now_ns)))
    except OSError as error:
        session.out.notice(f"{path}: the metrics cannot be written: {error.strerror}")


def alarm_documents(memory: Memory, present: Sequence[Alarm], now_ns: int) -> list[dict[str, Any]]:
    """Return alarms for JSON: since when, who was told, whether it is known."""
    memory = look(memory, present, now_ns)
    left = waiting(memory, present, now_ns)
    return [
        {
            "id": one.id,
            "code": one.code,
            "weight": one.kind.weight,
            "about": one.about,
            "what": one.what,
            "todo": one.todo,
            "extent": one.extent,
            "since": moment(memory.seen[one.key]),
            "told": sorted(channel for channel, told in memory.told.items() if told.get(one.key)),
            "told_in_s": left.get(one.key, 0),
            "acknowledged": moment(memory.known[one.key].noted_ns) if one.key in memory.known else "",
            "note": memory.known[one.key].note if one.key in memory.known else "",
        }
        for one in present
    ]


def remembered(session: Session, folder: str, now_ns: int, present: Sequence[Alarm]) -> tuple[Memory, list[Alarm]]:
    """Return what was told before, after a look, and what is so now with the channels that do not work."""
    memory = load(session.fs, folder)
    whole = [*present, *failing(memory)]
    return look(memory, whole, now_ns), whole


def one_alarm(present: Sequence[Alarm], text: str) -> Alarm:
    """Return the alarm whose id begins so, or whose code it is.

    Raises:
        NotFoundError: none, or more than one.
    """
    found = [one for one in present if text and (one.id.startswith(text.lower()) or one.code == text)]
    if len(found) != 1:
        raise NotFoundError(
            f"{'no' if not found else 'more than one'} alarm '{text}' now", hint="`replicator status` lists them"
        )
    return found[0]


def require_folder(session: Session) -> str:
    """Return the folder that remembers what was told.

    Raises:
        HomeError: there is no home here.
    """
    folder = memory_folder(session)
    if folder is None:
        raise HomeError(f"{session.home}: nobody lives here", hint="is this the right --home?")
    return folder
