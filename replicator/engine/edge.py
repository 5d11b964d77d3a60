"""What every use case is handed instead of reaching for it: file system, clock, randomness, network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from replicator.clock import Clock
from replicator.fs import Fs
from replicator.rng import Rng
from replicator.transport.base import Network


class Progress(Protocol):
    """How long work tells a person where it is. Called from any thread."""

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Begin a stage of ``total`` units, None if it is not known."""
        ...

    def advance(self, amount: int) -> None:
        """Report units done since the last call."""
        ...

    def note(self, text: str) -> None:
        """Say something a person should read now."""
        ...


class NoProgress:
    """Says nothing."""

    def stage(self, name: str, total: int | None = None, unit: str = "bytes") -> None:
        """Ignore."""

    def advance(self, amount: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The injected world. ``host`` is this machine's name, for records."""

    fs: Fs
    clock: Clock
    rng: Rng
    network: Network
    progress: Progress
    host: str


PassphraseSource = Callable[[str], str]
"""Returns the passphrase; the argument says what for."""
