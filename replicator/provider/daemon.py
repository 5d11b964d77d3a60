"""The provider as a process: one a home, until it is told to stop."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from replicator.clock import Clock
from replicator.crypto.sign import SigningKey
from replicator.endpoints import split_endpoint
from replicator.errors import HomeError, LockedError, ReplicatorError
from replicator.fs import Fs
from replicator.provider.declared import open_declared
from replicator.provider.home import Provider, open_provider, relays_in
from replicator.provider.service import ProviderService
from replicator.provider.watch import Watch
from replicator.rng import Rng
from replicator.settings import DeclaredProvider
from replicator.systemd import handed_socket, notify
from replicator.transport.handler import RequestRefusedError
from replicator.transport.probing import Prober
from replicator.transport.relay import Relay
from replicator.transport.server import serving
from replicator.transport.sources import TlsSources
from replicator.transport.tls import server_context
from replicator.transport.via import AdmitThrough, held

log = logging.getLogger(__name__)

TICK_S = 1800.0
TICKS_A_SWEEP = 48


def serve(
    home: str,
    *,
    fs: Fs,
    clock: Clock,
    rng: Rng,
    announce: Callable[[str], None],
    listen: str | None = None,
    declared: DeclaredProvider | None = None,
    key: SigningKey | None = None,
    watch: Watch | None = None,
    via: Sequence[str] = (),
) -> None:
    """Answer requests until SIGTERM or SIGINT; requests in flight are finished first.

    ``declared``: the home is made, or brought up to this, first; ``key`` is the one that this machine was given for it.

    ``announce`` is called with "listening on HOST:PORT" when ready; port 0 in ``listen`` takes any free one. A socket
    that systemd hands over is taken instead. ``watch`` tells people and Prometheus. ``via``: relays to wait at from now
    on, "HOST:PORT/IDENTITY".

    Raises:
        LockedError: another daemon serves this home.
        HomeError: the home is unusable, or the address cannot be listened on.
    """
    if declared is None:
        provider = open_provider(home, fs=fs, clock=clock, rng=rng)
    else:
        provider = open_declared(home, declared, key=key, fs=fs, clock=clock, rng=rng)
    try:
        with only_daemon(provider.folder):
            if via:
                provider.set_via(via)
            asyncio.run(_until_told(provider, clock, rng, listen or provider.listen, announce, watch))
    finally:
        provider.close()


async def run_daemon(
    provider: Provider,
    clock: Clock,
    *,
    listen: str,
    announce: Callable[[str], None],
    stop: asyncio.Event,
    rng: Rng,
    watch: Watch | None = None,
    sock: socket.socket | None = None,
) -> None:
    """Answer requests until ``stop`` is set. The caller holds the home's lock.

    ``watch`` tells people and Prometheus; ``sock`` listens already, and ``listen`` then says nothing.
    """
    watch = watch or Watch()
    try:
        host, port = split_endpoint(listen)
    except ValueError as error:
        raise HomeError(str(error), hint="give --listen HOST:PORT") from error
    reachable = provider.reachable()
    sources = TlsSources(reachable) if reachable else None
    service = await asyncio.to_thread(provider.start, sources)
    context = server_context(*provider.certificate_paths())
    relay_for, rate = provider.relay
    relay = Relay(clock, rng, service.relayed, per_s=rate) if relay_for else None
    relays = relays_in(provider.via)

    def outside(admit: AdmitThrough) -> contextlib.AbstractAsyncContextManager[None]:
        return held(admit, relays, provider, provider.key, clock, rng)

    try:
        async with serving(
            service,
            clock,
            host=host,
            port=port,
            context=context,
            sock=sock,
            prober=Prober(reachable) if reachable else None,
            relay=relay,
            outside=outside if relays else None,
        ) as endpoints:
            provider.listening_on(endpoints[0])
            announce(f"listening on {endpoints[0]}")
            log.info("serving", extra={"unit": "start"})
            notify("READY=1")
            async with watch.beside(provider, clock):
                await _keep_house(
                    service,
                    clock,
                    stop,
                    partial(provider.scrub, service, seconds=TICK_S),
                    partial(watch.look, provider),
                    None if sources is None else provider.announcements(sources).announce,
                )
            notify("STOPPING=1")
    except OSError as error:
        raise HomeError(
            f"cannot listen on {listen}: {error.strerror or error}", hint="choose another address with --listen"
        ) from error
    finally:
        await asyncio.to_thread(service.stop)
        log.info("stopped", extra={"unit": "stop"})


async def _keep_house(
    service: ProviderService,
    clock: Clock,
    stop: asyncio.Event,
    scrub: Callable[[], object],
    tell: Callable[[], Awaitable[None]],
    announce: Callable[[], object] | None,
) -> None:
    """Look at the clock, scrub a little and tell people every half hour; sweep once a day, first after half an hour.

    Other providers hear of a new address at once and at each look.
    """
    told = asyncio.ensure_future(stop.wait())
    announcing = asyncio.ensure_future(_announce(announce))
    looks = 0
    try:
        while not told.done():
            nap = asyncio.ensure_future(clock.sleep(TICK_S))
            try:
                await asyncio.wait((told, nap), return_when=asyncio.FIRST_COMPLETED)
            finally:
                nap.cancel()
            if not told.done():
                await asyncio.to_thread(_look, service, sweep=looks % TICKS_A_SWEEP == 0)
                await asyncio.to_thread(_carefully, "the scrub stopped (%s); it goes on later", scrub)
                await tell()
                if announcing.done():
                    announcing = asyncio.ensure_future(_announce(announce))
                looks += 1
    finally:
        told.cancel()
        announcing.cancel()  # what is dialled at this moment is broken off when the service stops


async def _announce(announce: Callable[[], object] | None) -> None:
    if announce is not None:
        await asyncio.to_thread(_carefully, "other providers were not told (%s); later", announce)


def _look(service: ProviderService, *, sweep: bool) -> None:
    if sweep:
        _carefully("the sweep stopped (%s); the next one goes on", service.sweep)
    else:
        _carefully("the clock was not noted (%s)", service.tick)


def _carefully(what: str, work: Callable[[], object]) -> None:
    """Do what must not end the daemon; ``what`` says it did not work."""
    try:
        work()
    except RequestRefusedError as refused:
        log.warning(what, refused.message)
    except (ReplicatorError, sqlite3.Error) as error:
        log.error(what, error)  # noqa: TRY400 - a traceback has names
    except OSError as error:
        # Without the error's text: it holds the file's name.
        log.error(what, os.strerror(error.errno or 0))  # noqa: TRY400 - a traceback has names


async def _until_told(
    provider: Provider, clock: Clock, rng: Rng, listen: str, announce: Callable[[str], None], watch: Watch | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    handed = handed_socket(os.environ, os.getpid())
    await run_daemon(provider, clock, listen=listen, announce=announce, stop=stop, rng=rng, watch=watch, sock=handed)


@contextlib.contextmanager
def only_daemon(folder: str) -> Iterator[None]:
    """Hold a home's lock; the kernel drops it with the process, however that ends.

    Raises:
        LockedError: another process holds it.
    """
    descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"{folder}: a daemon serves this home already", hint="stop it first") from error
        yield
    finally:
        os.close(descriptor)
