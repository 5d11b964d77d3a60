"""What all commands share: --home, --passphrase-file, --json, opening halves, running use cases, exit codes."""

import asyncio
import functools
import getpass
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from replicator.cli import exits
from replicator.cli.output import Output, aside, silence
from replicator.clock import SystemClock
from replicator.config import CONFIG_VARIABLE, LineSettings, at_most, config_path, default_home
from replicator.credentials import credential, read_secret
from replicator.errors import KeyMissingError, KeyWrongError, ReplicatorError, UsageError
from replicator.fs import PosixFs
from replicator.rng import SystemRng

if TYPE_CHECKING:
    from replicator.engine.edge import Edge
    from replicator.engine.home import Half
    from replicator.engine.keeper import KeeperHome, ReaderHome
    from replicator.engine.line import Line
    from replicator.engine.maintainer import MaintainerHome
    from replicator.engine.node import NodeHome
    from replicator.format.group import GroupFacts
    from replicator.ids import Identity
    from replicator.transport.base import Connection, Network, Target
    from replicator.wire.messages import EnrolReply, EnrolRequest, JoinRequest

P = ParamSpec("P")
T = TypeVar("T")
CREDENTIAL = "replicator-passphrase"
NEW_CREDENTIAL = "replicator-new-passphrase"
IDENTITY_CREDENTIAL = "replicator-identity"


class _LateNetwork:
    """The network over TLS, imported when somebody is asked: what answers offline does not wait for it."""

    @functools.cached_property
    def _tls(self) -> "Network":
        from replicator.transport.client import TlsNetwork  # noqa: PLC0415

        return TlsNetwork()

    async def identify(self, endpoint: str) -> "Identity":
        """Return the identity that answers at an address."""
        return await self._tls.identify(endpoint)

    async def enrol(self, target: "Target", request: "EnrolRequest") -> "EnrolReply":
        """Ask for a certificate without having one."""
        return await self._tls.enrol(target, request)

    async def erase(self, target: "Target", order: bytes) -> bytes:
        """Hand over root's signed order to erase a tenant."""
        return await self._tls.erase(target, order)

    async def join(self, target: "Target", request: "JoinRequest") -> "GroupFacts":
        """Bring a group's code, or one's own word."""
        return await self._tls.join(target, request)

    async def connect(self, target: "Target") -> "Connection":
        """Return a connection to a provider."""
        return await self._tls.connect(target)


def load_network() -> None:
    """Begin to load what speaks to providers, beside work that takes a passphrase: either takes a sixth of a second."""
    threading.Thread(target=importlib.import_module, args=("replicator.transport.client",), daemon=True).start()


@contextmanager
def unlocking(home: "ReaderHome") -> Iterator[None]:
    """Open what a home can read with while the block runs, which imports: either takes a fifth of a second.

    Raises:
        KeyWrongError: there is no passphrase, or it is wrong.
    """
    domains = home.living_ids
    if not domains:
        yield
        return
    home.passphrase()  # asked for by who may be interrupted
    with ThreadPoolExecutor(1) as beside:
        unlocked = beside.submit(lambda: [home.reader(domain) for domain in domains])
        yield
        unlocked.result()


class Session:
    """One run of one command: options from anywhere on the line, the injected world, the output."""

    def __init__(self) -> None:
        self.home_option: str | None = None
        self.passphrase_file: str | None = None
        self.as_json = False
        self.progress: str | None = None
        self.fs = PosixFs()
        self.clock = SystemClock()
        self.rng = SystemRng()
        self.code = exits.DONE
        self.open_code = exits.DONE
        """The code without what is for copies that the home has as damaged from now on, where they heal."""
        self.error: ReplicatorError | None = None
        """What was said to have gone wrong, last."""
        self.most_up: int | None = None
        """Bytes a second that may be sent, beside what config.toml says."""
        self.looked = False
        """A command that can be a run only showed something this time."""

    @functools.cached_property
    def out(self) -> Output:
        """The output; after the options are read."""
        return Output(as_json=self.as_json, events=self._progress == "json")

    @property
    def _progress(self) -> str:
        return self.progress or os.environ.get("REPLICATOR_PROGRESS") or "auto"

    @property
    def home(self) -> str:
        """The home's absolute path."""
        return os.path.abspath(self.home_option or os.environ.get("REPLICATOR_HOME") or default_home())

    def worsen(self, code: int, *, remembered: bool = False) -> None:
        """Take over a worse exit code. ``remembered``: it is for copies that the home has as damaged from now on."""
        self.code = exits.worst((self.code, code))
        if not remembered:
            self.open_code = exits.worst((self.open_code, code))

    def fail(self, error: ReplicatorError, code: int) -> int:
        """Say what went wrong and return ``code``. Nothing is raised if it cannot be said."""
        self.error = error
        try:
            self.out.error(error, code)
        except (OSError, ReplicatorError):
            silence()
        return code

    @contextmanager
    def edge(self, *, always_night: bool = False) -> "Iterator[Edge]":
        """Give the injected world, with TLS and a progress display. ``always_night``: whatever the clock says."""
        from replicator.cli.progress import progress  # noqa: PLC0415 - commands import what they use
        from replicator.engine.edge import Edge  # noqa: PLC0415

        shown = progress(self._progress, self.clock)
        try:
            yield Edge(
                fs=self.fs,
                clock=self.clock,
                rng=self.rng,
                network=_LateNetwork(),
                progress=shown,
                host=socket.gethostname().split(".")[0][:60] or "host",
                line=self._line(always_night=always_night),
            )
        finally:
            shown.close()

    def _line(self, *, always_night: bool) -> "Line | None":
        settings = LineSettings()
        if os.path.lexists(config_path(self.home)) or CONFIG_VARIABLE in os.environ:
            from replicator.settings import load_config  # noqa: PLC0415 - reading settings takes more than having none

            settings = load_config(self.home).line
        if self.most_up is not None:
            settings = at_most(settings, self.most_up)
        if settings == LineSettings():
            return None
        from replicator.engine.line import Line  # noqa: PLC0415 - only who limits the line needs the scheduler for it

        return Line(settings, self.clock, always_night=always_night)

    @contextmanager
    def node(self) -> "Iterator[NodeHome]":
        """Open the node half. Raises KeyMissingError (exit 6) if this home has none."""
        from replicator.engine.node import NodeHome  # noqa: PLC0415
        from replicator.settings import load_config  # noqa: PLC0415

        config = load_config(self.home)
        half = NodeHome(self.home, self.fs, spool_path=config.spool, cache_path=config.cache)
        try:
            yield half
        finally:
            half.close()

    @contextmanager
    def keeper(self) -> "Iterator[KeeperHome]":
        """Open the keeper half. Raises KeyMissingError (exit 6) if this home has none."""
        from replicator.engine.keeper import KeeperHome  # noqa: PLC0415

        half = KeeperHome(self.home, self.fs, self.passphrase)
        try:
            yield half
        finally:
            half.close()

    @contextmanager
    def reader(self) -> "Iterator[ReaderHome]":
        """Open what can read: the keeper, else a drill host. Raises KeyMissingError (exit 6) if there is neither."""
        from replicator.engine.home import has_half  # noqa: PLC0415
        from replicator.engine.keeper import DrillHome  # noqa: PLC0415

        if has_half(self.home, "keeper") or not has_half(self.home, "drill"):
            with self.keeper() as keeper:
                yield keeper
            return
        half = DrillHome(self.home, self.fs, self.passphrase)
        try:
            yield half
        finally:
            half.close()

    @contextmanager
    def siblings(self) -> "Iterator[list[Half]]":
        """Open the node half beside a keeper, if there is one."""
        from replicator.engine.home import has_half  # noqa: PLC0415

        if not has_half(self.home, "node"):
            yield []
            return
        with self.node() as node:
            yield [node]

    @contextmanager
    def drilling(self, half: "Half") -> "Iterator[Half | None]":
        """Give the half of this home that makes the drills, None if it has none; ``half`` is open already."""
        from replicator.engine.home import has_half  # noqa: PLC0415

        if half.role in {"keeper", "drill"}:
            yield half
            return
        if not (has_half(self.home, "keeper") or has_half(self.home, "drill")):
            yield None
            return
        with self.reader() as reader:
            yield reader

    @contextmanager
    def member(self) -> "Iterator[Half]":
        """Open what knows most without a passphrase: a node with datasets, else keeper, drill host, maintainer."""
        from replicator.engine.home import has_half  # noqa: PLC0415
        from replicator.engine.maintainer import MaintainerHome  # noqa: PLC0415

        if has_half(self.home, "node"):
            with self.node() as node:
                known = node.catalog.datasets.all() or node.catalog.snapshots.all()
                if known or not has_half(self.home, "keeper"):
                    yield node
                    return
        if has_half(self.home, "keeper") or has_half(self.home, "drill"):
            with self.reader() as reader:
                yield reader
            return
        if not has_half(self.home, "maintainer"):
            raise KeyMissingError(
                f"{self.home}: this home is neither keeper nor node of a tenant",
                hint="make a tenant with `init`, or name another --home",
            )
        maintainer = MaintainerHome(self.home, self.fs)
        try:
            yield maintainer
        finally:
            maintainer.close()

    @contextmanager
    def maintaining(self) -> "Iterator[KeeperHome | MaintainerHome]":
        """Open what holds a maintenance key: the keeper, else a maintainer. Raises KeyMissingError (exit 6)."""
        from replicator.engine.home import has_half  # noqa: PLC0415
        from replicator.engine.maintainer import MaintainerHome  # noqa: PLC0415

        if has_half(self.home, "keeper"):
            with self.keeper() as keeper:
                yield keeper
            return
        if not has_half(self.home, "maintainer"):
            raise KeyMissingError(
                f"{self.home}: this home has no maintenance key",
                hint="run this on the keeper, or on a maintainer: where `node request --role maintainer` was run",
            )
        maintainer = MaintainerHome(self.home, self.fs)
        try:
            yield maintainer
        finally:
            maintainer.close()

    @property
    def has_passphrase(self) -> bool:
        """Whether a passphrase is given without anybody being asked."""
        given = self.passphrase_file or os.environ.get("REPLICATOR_PASSPHRASE_FILE") or credential(CREDENTIAL)
        return given is not None

    def passphrase(self, what: str, *, confirm: bool = False) -> str:
        """Return the passphrase: from --passphrase-file, the environment's file, a systemd credential, or a prompt.

        Raises:
            KeyWrongError: none of them can give one, or two typed ones differ.
        """
        load_network()  # what asks for it asks providers next
        path = self.passphrase_file or os.environ.get("REPLICATOR_PASSPHRASE_FILE")
        return secret(
            path or credential(CREDENTIAL),
            what,
            confirm=confirm,
            hint="give --passphrase-file FILE, or set REPLICATOR_PASSPHRASE_FILE",
        )

    def new_passphrase(self, path: str | None) -> str:
        """Return the passphrase that is to replace another: from a file, a systemd credential, or a prompt, twice.

        Raises:
            KeyWrongError: none of them can give one, or two typed ones differ.
        """
        return secret(
            path or credential(NEW_CREDENTIAL),
            "The new passphrase",
            confirm=True,
            hint="give --new-passphrase-file FILE",
        )


def secret(path: str | None, what: str, *, confirm: bool, hint: str) -> str:
    """Return a passphrase from a file or, where none is named, from the terminal.

    Raises:
        CredentialError: the file cannot be read, or is not private.
        KeyWrongError: there is no terminal, nothing was typed, or two typed ones differ.
    """
    if path is not None:
        return read_secret(path, "the passphrase")
    if sys.stdin is None or not sys.stdin.isatty():
        raise KeyWrongError(f"{what} is needed and there is no terminal to ask on", hint=hint)
    try:
        first = getpass.getpass(f"{what}: ")
        if confirm and getpass.getpass("Again: ") != first:
            raise KeyWrongError("the two passphrases differ", hint="nothing was made; try again")
    except EOFError:
        raise KeyWrongError("no passphrase was given") from None
    return first


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        session = context.ensure_object(Session)
        if value:
            setattr(session, name, value)
        return value

    return callback


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command and group takes; they count wherever they stand on the line."""
    for option in (
        click.option("--json", is_flag=True, expose_value=False, callback=_set("as_json"), help="One JSON document."),
        click.option(
            "--progress",
            type=click.Choice(("auto", "json")),
            expose_value=False,
            callback=_set("progress"),
            help="On standard error: a bar or few lines, or JSON lines; else REPLICATOR_PROGRESS, or auto.",
        ),
        click.option(
            "--passphrase-file",
            metavar="FILE",
            expose_value=False,
            callback=_set("passphrase_file"),
            help="Unlocks the keeper half; else REPLICATOR_PASSPHRASE_FILE, a systemd credential, or a prompt.",
        ),
        click.option(
            "--home",
            metavar="DIR",
            expose_value=False,
            callback=_set("home_option"),
            help="All state of one identity; else REPLICATOR_HOME.",
        ),
    ):
        function = option(function)
    return function


def command(*, keys: str, run: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a command: common options, a Session as first argument, errors to exit codes.

    ``keys`` names the key class that the command needs, for its help. ``run``: what it does is a run of this kind,
    which the home keeps and people are told of (:mod:`replicator.cli.telling`).
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> None:
            session = click.get_current_context().ensure_object(Session)
            if run:
                _recorded(session, run, function, args, kwargs)
            else:
                _guarded(session, function, args, kwargs)
            raise SystemExit(session.code)

        doc = (function.__doc__ or "").rstrip()
        call.__doc__ = f"{doc}\n\n    Keys: {keys}.\n\n    {exits.HELP}\n    "
        return common_options(call)

    return wrap


def _recorded(
    session: Session, kind: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    from replicator.cli.telling import begin, finish  # noqa: PLC0415 - only runs need it

    session.looked = bool(kwargs.get("dry_run"))
    begun = begin(session, kind)
    try:
        error = _guarded(session, function, args, kwargs)
    except SystemExit as ended:
        finish(session, begun, session.error, int(ended.code or 0))
        raise
    finish(session, begun, error, session.code)


def _guarded(
    session: Session, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ReplicatorError | None:
    """Call a command; say its error and return it. What ends the process at once is raised as SystemExit."""
    try:
        function(session, *args, **kwargs)
    except KeyboardInterrupt:
        raise SystemExit(session.fail(interrupted(), exits.INTERRUPTED)) from None
    except BrokenPipeError:
        # The reader went away (a pager, head): nothing more can be said to it.
        silence()
        session.worsen(exits.FAILED)
    except Exception as error:  # nobody above this can say it better
        said = as_error(error)
        code = exits.code_of(said)
        if code == exits.USAGE:
            raise SystemExit(session.fail(said, code)) from None
        session.worsen(code)
        session.fail(said, session.code)
        return said
    return None


def as_error(error: Exception) -> ReplicatorError:
    """Return an error for people. What is not one of ours is a disk's, or a fault of this program.

    With REPLICATOR_DEBUG set such a fault is raised again, with its traceback.
    """
    if isinstance(error, ReplicatorError):
        return error
    if isinstance(error, click.ClickException):
        return UsageError(error.format_message())
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return ReplicatorError(f"{where}{error.strerror or error}")
    if os.environ.get("REPLICATOR_DEBUG"):
        raise error
    return ReplicatorError(
        f"unexpected {type(error).__name__}: {error}",
        hint="this is a fault of replicator; with REPLICATOR_DEBUG=1 it says where",
    )


def interrupted() -> ReplicatorError:
    """Return what to say after Ctrl-C."""
    return ReplicatorError("interrupted", hint="what was stored is whole; the same command goes on from there")


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Run an asynchronous use case to its end."""
    return asyncio.run(work)


def wait_in_order(work: Coroutine[Any, Any, T]) -> T:
    """Run a use case that has something to undo: SIGTERM and SIGHUP first cancel it, and then end the process."""
    caught: list[int] = []

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None, "it runs in one"

        def cancel(number: int) -> None:
            caught.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup, for one, means it
                loop.add_signal_handler(number, cancel, number)
        return await work

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        if not caught:
            raise
        aside(f"replicator: ended by {signal.Signals(caught[0]).name}")
        # The loop that has ended gave the signals back: whoever waits for this process sees what it died of.
        signal.raise_signal(caught[0])
        raise


def read_stdin() -> str:
    """Return all of standard input, which may be closed, as text."""
    return "" if sys.stdin is None else sys.stdin.buffer.read().decode(errors="replace")


def read_code(code: str) -> str:
    """Return a code from the line or, for "-", from standard input.

    Raises:
        UsageError: standard input is empty.
    """
    text = read_stdin() if code == "-" else code
    if not text.strip():
        raise UsageError("no code was given", hint='"-" reads it from standard input')
    return text.strip()
