"""Tells each channel its news and remembers what was told. Never raises: who tells of trouble makes none."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicator.errors import LockedError, ReplicatorError
from replicator.notify.alarms import Alarm
from replicator.notify.channels import World, channels, ping, send
from replicator.notify.memory import Memory, alone, load, save
from replicator.notify.telling import (
    Message,
    News,
    after_failure,
    after_success,
    after_telling,
    failing,
    look,
    news,
    only,
    write,
)
from replicator.settings import NotifySettings

PING = "ping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of one channel. ``message`` None: nothing to say. ``problem`` empty: it took what there was."""

    channel: str
    message: Message | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Who tells: the machine's name, the folder that remembers, the channels, the world."""

    settings: NotifySettings
    folder: str
    who: str
    world: World

    async def tell(
        self, present: Sequence[Alarm], standing: str, *, dry_run: bool = False, whole: bool = True
    ) -> list[Told]:
        """Tell every channel what is new to it; with ``dry_run`` only say what that is. See :func:`look` for ``whole``.

        Another process that is telling meanwhile tells the same: then nobody is told here.
        """
        if dry_run:
            now_ns = self.world.clock.now_ns()
            memory = self._look(load(self.world.fs, self.folder), present, now_ns)
            found = []
            for channel in self._names:
                said = news(memory, channel, _for(channel, memory, present), now_ns)
                found.append(Told(channel=channel, message=self._message(said, standing)))
            return found
        try:
            with alone(self.folder, wait=False):
                return await self._tell(present, standing, whole=whole)
        except LockedError:
            return []
        except OSError as error:
            return [Told(channel=one, message=None, problem=error.strerror or str(error)) for one in self._names]

    def _look(self, memory: Memory, present: Sequence[Alarm], now_ns: int, *, whole: bool = True) -> Memory:
        names = [*self._names, *([PING] if self.settings.ping is not None else [])]
        return look(only(memory, names), [*present, *failing(only(memory, names))], now_ns, whole=whole)

    async def ping(self, exit_code: int, text: str) -> str:
        """Say that a run has ended, and remember whether that worked; return why it did not, or nothing."""
        if self.settings.ping is None:
            return ""
        try:
            await ping(self.settings, self.world, exit_code=exit_code, text=text)
        except ReplicatorError as error:
            return await asyncio.to_thread(self._remember, {PING: error.message}) or error.message
        return await asyncio.to_thread(self._remember, {PING: ""})

    async def test(self) -> list[Told]:
        """Send every channel a message that says it is a test, and remember which of them work."""
        message = Message(
            subject=f"{self.who}: this is a test",
            text="replicator can reach you this way. Nothing is wrong.\nCode: notify.test",
            level="good",
            codes=("notify.test",),
        )
        problems = {channel: await self._send(channel, message) for channel in self._names}
        if self.settings.ping is not None:
            try:
                await ping(self.settings, self.world, exit_code=0, text=message.text)
                problems[PING] = ""
            except ReplicatorError as error:
                problems[PING] = error.message
        await asyncio.to_thread(self._remember, problems)
        return [Told(channel=channel, message=message, problem=problem) for channel, problem in problems.items()]

    def _remember(self, problems: Mapping[str, str]) -> str:
        """Remember which channels work; return why that cannot be done, or nothing."""
        try:
            with alone(self.folder, wait=True):
                before = memory = load(self.world.fs, self.folder)
                for channel, problem in problems.items():
                    if problem:
                        memory = after_failure(memory, channel, problem, self.world.clock.now_ns())
                    else:
                        memory = after_success(memory, channel)
                if memory != before:
                    save(self.world.fs, self.folder, memory)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    @property
    def _names(self) -> list[str]:
        return channels(self.settings)

    async def _tell(self, present: Sequence[Alarm], standing: str, *, whole: bool) -> list[Told]:
        fs, now_ns = self.world.fs, self.world.clock.now_ns()
        before = load(fs, self.folder)
        memory = self._look(before, present, now_ns, whole=whole)
        told = []
        for channel in self._names:
            all_of_it = _for(channel, memory, present)
            said = news(memory, channel, all_of_it, now_ns, whole=whole)
            message = self._message(said, standing)
            problem = await self._send(channel, message) if message is not None else ""
            if problem:
                memory = after_failure(memory, channel, problem, now_ns)
            else:
                memory = after_telling(memory, channel, said, all_of_it, whole=whole)
            told.append(Told(channel=channel, message=message, problem=problem))
        if memory != before:
            save(fs, self.folder, memory)
        return told

    def _message(self, said: News, standing: str) -> Message | None:
        return write(said, who=self.who, standing=standing) if said else None

    async def _send(self, channel: str, message: Message) -> str:
        try:
            await send(self.settings, channel, message, self.world)
        except ReplicatorError as error:
            return error.message
        except OSError as error:
            return error.strerror or str(error)
        return ""


def _for(channel: str, memory: Memory, present: Sequence[Alarm]) -> list[Alarm]:
    """Return what is for a channel: all that is so, and that others do not work."""
    return [*present, *(one for one in failing(memory) if one.about != f"channel {channel}")]
