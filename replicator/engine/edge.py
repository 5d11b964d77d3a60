"""What every use case is handed instead of reaching for it: file system, clock, randomness, network, programs."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from replicator.clock import Clock
from replicator.fs import Fs
from replicator.process import Programs, SystemPrograms
from replicator.rng import Rng
from replicator.transport.base import Network

if TYPE_CHECKING:
    from replicator.engine.line import Line


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
    """The injected world. ``host`` is this machine's name, for records; ``environment`` this program's own.

    ``line`` limits what is sent, and what is fetched to be sent on; None: nothing does.
    """

    fs: Fs
    clock: Clock
    rng: Rng
    network: Network
    progress: Progress
    host: str
    line: "Line | None" = None
    programs: Programs = field(default_factory=SystemPrograms)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


PassphraseSource = Callable[[str], str]
"""Returns the passphrase; the argument says what for."""
