"""One question to several providers at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from replicator.engine.federation import Link
from replicator.errors import PeerError
from replicator.ids import Identity

T = TypeVar("T")

AT_ONCE: Final = 8
"""Providers that are asked at the same time. What they answer, at most 16 MiB each, is in memory together."""


@dataclass(slots=True)
class Answers(Generic[T]):
    """What providers answered, and why others did not; both in the order they were asked."""

    given: dict[Identity, T] = field(default_factory=dict)
    failed: dict[Identity, PeerError] = field(default_factory=dict)

    def reasons(self) -> list[str]:
        """Return in words who did not answer, and why."""
        return [str(error) for error in self.failed.values()]


async def ask_all(links: Iterable[Link], question: Callable[[Link], Awaitable[T]]) -> Answers[T]:
    """Put a question to providers, several at a time; one's fault keeps no other from answering.

    Raises:
        Exception: whatever is no :class:`PeerError`, after the last answer.
    """
    asked = list(links)
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(link: Link) -> T:
        async with places:
            return await question(link)

    answers: Answers[T] = Answers()
    for link, answer in zip(asked, await asyncio.gather(*map(ask, asked), return_exceptions=True), strict=True):
        if isinstance(answer, PeerError):
            answers.failed[link.identity] = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            answers.given[link.identity] = answer
    return answers
