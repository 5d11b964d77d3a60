"""What watches beside a provider that serves: people who are told, Prometheus, and systemd's watchdog."""

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from replicator.clock import Clock
from replicator.errors import HomeError, ReplicatorError
from replicator.fs import Fs
from replicator.notify.metrics import exposition, write_textfile
from replicator.notify.teller import Teller
from replicator.provider.alarms import alarms_of, metrics_of, standing
from replicator.provider.home import Provider
from replicator.settings import MetricsSettings
from replicator.systemd import notify, watchdog_s

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """All of it may be missing. Nothing here stops a provider."""

    teller: Teller | None = None
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    fs: Fs | None = None

    async def look(self, provider: Provider) -> None:
        """Tell people what is new, and write down the metrics."""
        if self.teller is None and self.metrics.textfile is None:
            return
        try:
            state = await asyncio.to_thread(provider.state)
            if self.metrics.textfile is not None and self.fs is not None:
                await asyncio.to_thread(write_textfile, self.fs, self.metrics.textfile, exposition(metrics_of(state)))
            if self.teller is None:
                return
            alarms = alarms_of(state)
            for one in await self.teller.tell(alarms, standing(state)):
                if one.problem:
                    log.warning("notify: %s: %s", one.channel, one.problem)
                elif one.message is not None:
                    log.info("told by %s", one.channel, extra={"unit": "told"})
            problem = await self.teller.ping(0, standing(state))
            if problem:
                log.warning("notify: ping: %s", problem)
        except (ReplicatorError, sqlite3.Error) as error:
            log.error("nobody is told how this provider stands (%s)", error)  # noqa: TRY400 - a traceback has names
        except OSError as error:
            log.error("nobody is told how this provider stands (%s)", os.strerror(error.errno or 0))  # noqa: TRY400 - as above

    @contextlib.asynccontextmanager
    async def beside(self, provider: Provider, clock: Clock) -> AsyncIterator[None]:
        """Answer Prometheus and keep the watchdog quiet while the block runs.

        Raises:
            HomeError: the metrics' address cannot be listened on.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self.metrics.listen is not None:
                from replicator.notify.listener import metrics_listener  # noqa: PLC0415 - off by default

                async def text() -> str:
                    return exposition(metrics_of(await asyncio.to_thread(provider.state)))

                try:
                    await stack.enter_async_context(metrics_listener(self.metrics.listen, text))
                except OSError as error:
                    raise HomeError(
                        f"cannot listen on {self.metrics.listen} for Prometheus: {error.strerror or error}",
                        hint="choose another address in config.toml, [metrics]",
                    ) from error
            every_s = watchdog_s(os.environ, os.getpid())
            if every_s is not None:
                dog = asyncio.ensure_future(keep_quiet(provider, clock, every_s))
                stack.callback(dog.cancel)
            yield


async def keep_quiet(provider: Provider, clock: Clock, every_s: float) -> None:
    """Say that this provider lives as long as loop, threads and database answer; systemd ends it when they do not."""
    while True:
        try:
            await asyncio.to_thread(provider.offer)
        except (ReplicatorError, sqlite3.Error) as error:
            log.error("the database does not answer (%s)", error)  # noqa: TRY400 - a traceback has names
        else:
            notify("WATCHDOG=1")
        await clock.sleep(every_s)
