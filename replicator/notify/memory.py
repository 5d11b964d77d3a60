"""What was told to whom, and what a person has said is known: told.json beside the half or the provider it is about.

    {"format": 1, "seen": {KEY: ns}, "told": {CHANNEL: {KEY: extent}}, "failed": {CHANNEL: ...}, "known": {KEY: ...}}

KEY is an alarm's code and what it is about. Nothing in here is needed for anything else: who loses it is told once
more what is so, and says once more what is known.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from replicator.errors import LockedError
from replicator.fs import Fs, write_atomic

FILE: Final = "told.json"
FORMAT: Final = 1
_LOCK: Final = "told.lock"
_LARGEST: Final = 4 << 20


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Since when a way to somebody does not work, and why; ``reason`` holds no address and no secret."""

    since_ns: int
    reason: str


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """That a person has said of an alarm of this extent that it is known."""

    extent: int
    noted_ns: int
    note: str


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. ``seen`` is since when an alarm has been there without a break."""

    format: int = FORMAT
    seen: dict[str, int] = {}
    told: dict[str, dict[str, int]] = {}
    failed: dict[str, Failed] = {}
    known: dict[str, Known] = {}


def load(fs: Fs, folder: str) -> Memory:
    """Return what is remembered; nothing if the file is missing, damaged or of another release."""
    with suppress(OSError, msgspec.MsgspecError):
        found = msgspec.json.decode(fs.read(os.path.join(folder, FILE), 0, _LARGEST), type=Memory)
        if found.format == FORMAT:
            return found
    return Memory()


def save(fs: Fs, folder: str, memory: Memory) -> None:
    """Remember."""
    write_atomic(fs, os.path.join(folder, FILE), msgspec.json.format(msgspec.json.encode(memory)) + b"\n")


@contextmanager
def alone(folder: str, *, wait: bool) -> Iterator[None]:
    """Keep other processes from changing or telling what is remembered, for as long as the block takes.

    Raises:
        LockedError: another one is at it, and we do not ``wait``.
    """
    descriptor = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise LockedError(f"{folder}: another process is telling already", hint="it tells the same") from error
        yield
    finally:
        os.close(descriptor)
