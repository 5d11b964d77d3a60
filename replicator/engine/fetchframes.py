"""What a restore and its fetching process say to each other (:mod:`replicator.engine.mail`)."""

from typing import Literal, TypeAlias

import msgspec

from replicator.engine.mail import Failed, Message
from replicator.transport.base import Reach

Problem = Literal["", "bytes", "unreachable", "busy", "refused", "protocol", "given up"]
"""Why an object did not come: other bytes than those of its name, what the provider did or said, or nobody wants it."""


class Setup(Message, frozen=True):
    """To a fetcher, first: descriptors of so many ``slots`` come along, memory that holds an object each."""

    slots: int


class Dial(Message, frozen=True):
    """To a fetcher: a provider that will be asked by this number."""

    number: int
    reach: Reach


class Fetch(Message, frozen=True):
    """To a fetcher: bring an object from a provider into a slot."""

    task: int
    provider: int
    name: bytes
    slot: int


class GiveUp(Message, frozen=True):
    """To a fetcher: nobody waits for a task. It is answered all the same, once nothing more goes to its slot."""

    task: int


class Fetched(Message, frozen=True):
    """From a fetcher: what came of it. ``code`` of a refusal, ``after_s`` of a busy provider."""

    task: int
    size: int = 0
    problem: Problem = ""
    text: str = ""
    code: str = ""
    after_s: float = 0.0


ToFetcher: TypeAlias = Setup | Dial | Fetch | GiveUp
FromFetcher: TypeAlias = Fetched | Failed

to_fetcher = msgspec.msgpack.Decoder(ToFetcher)
from_fetcher = msgspec.msgpack.Decoder(FromFetcher)
