"""One question to several providers: all are asked, a bounded number at a time, and none hides another."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from replicator.engine.asking import AT_ONCE, ask_all
from replicator.engine.federation import Link
from replicator.errors import UnreachableError
from replicator.ids import Identity


def _links(count: int) -> list[Link]:
    return [cast("Link", SimpleNamespace(identity=Identity(bytes([number]) * 32))) for number in range(count)]


async def test_all_are_asked_at_once_up_to_a_bound_and_answers_keep_their_order() -> None:
    links = _links(3 * AT_ONCE)
    running = most = 0
    gates = [asyncio.Event() for _ in links]

    async def question(link: Link) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gates[link.identity[0]].wait()
        running -= 1
        return int(link.identity[0])

    async def open_from_the_last() -> None:
        for gate in reversed(gates):
            gate.set()
            await asyncio.sleep(0)

    answers, _ = await asyncio.gather(ask_all(links, question), open_from_the_last())
    assert most == AT_ONCE
    assert list(answers.given.values()) == list(range(len(links)))


async def test_who_does_not_answer_is_named_and_the_others_are_heard() -> None:
    links = _links(3)

    async def question(link: Link) -> str:
        if link is links[1]:
            raise UnreachableError("bo", "gone away")
        return "here"

    answers = await ask_all(links, question)
    assert list(answers.given) == [links[0].identity, links[2].identity]
    assert list(answers.failed) == [links[1].identity]
    assert answers.reasons() == ["bo: gone away"]


async def test_what_is_no_fault_of_a_provider_ends_the_question() -> None:
    heard = []

    async def question(link: Link) -> None:
        if link.identity[0] == 0:
            raise ValueError("ours")
        heard.append(link.identity[0])

    with pytest.raises(ValueError, match="ours"):
        await ask_all(_links(3), question)
    assert heard == [1, 2], "and the others are not left running"
