"""Patterns for names and paths, matched name by name on the way down, so that whole folders can be left out."""

import fnmatch
import os
import re
from collections.abc import Iterable
from typing import Self

from replicator.errors import UsageError

States = int
"""How far a pattern has come at a place: bit n is set if its first n parts are matched. 0: nothing below can match."""


class Glob:
    """A shell pattern.

    Without a slash it is compared with the name. With one it is compared with the path: ``*`` and ``?`` match no
    slash, ``**`` matches any number of folders, and unless the pattern begins with a slash it may begin anywhere.
    """

    def __init__(self, parts: Iterable[str | None], *, ignore_case: bool = False) -> None:
        """``parts`` are patterns for one name each; None is any number of names."""
        flags = re.IGNORECASE if ignore_case else 0
        self._parts = [None if part is None else re.compile(fnmatch.translate(part), flags) for part in parts]
        self._end: States = 1 << len(self._parts)
        self.start: States = self._skip(1)

    @classmethod
    def parse(cls, text: str, *, ignore_case: bool = False) -> Self:
        """Return the pattern that a person wrote.

        Raises:
            UsageError: it has no name in it.
        """
        # Names are compared as UTF-8, whatever the locale says of the arguments.
        clean = os.fsencode(text).decode("utf-8", "surrogateescape")
        names = [part for part in clean.split("/") if part not in ("", ".")]
        if not names:
            raise UsageError(f"'{text}' is no pattern of a name", hint="write it like '*.jpg' or 'photos/2026/*'")
        if "/" not in clean:
            return cls([None, clean], ignore_case=ignore_case)
        parts = [None if name == "**" else name for name in names]
        return cls(parts if clean.startswith("/") else [None, *parts], ignore_case=ignore_case)

    def step(self, states: States, name: bytes) -> States:
        """Return how far the pattern has come at an entry of a folder where it had come as far as ``states``."""
        text = name.decode("utf-8", "surrogateescape")
        found = 0
        for place, part in enumerate(self._parts):
            if not states >> place & 1:
                continue
            if part is None:
                found |= 1 << place
            elif part.match(text):
                found |= 1 << place + 1
        return self._skip(found)

    def walk(self, path: Iterable[bytes]) -> States:
        """Return how far the pattern has come at a path from the top."""
        states = self.start
        for name in path:
            states = self.step(states, name)
        return states

    def matches(self, states: States) -> bool:
        """Return whether the whole pattern is matched."""
        return bool(states & self._end)

    def goes_on(self, states: States) -> bool:
        """Return whether anything below can match."""
        return bool(states & (self._end - 1))

    def _skip(self, states: States) -> States:
        for place, part in enumerate(self._parts):
            if part is None and states >> place & 1:
                states |= 1 << place + 1
        return states
