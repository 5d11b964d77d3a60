"""Programs that a test plays."""

from collections.abc import Callable
from dataclasses import dataclass, field

from replicator.process import Command, Ended, Heard, Output, Stop

Play = Callable[[Command, Stop], Ended]


def ends_well(command: Command, stop: Stop) -> Ended:
    """Do nothing, well."""
    return Ended(code=0)


@dataclass(slots=True)
class FakePrograms:
    """Runs what the test plays and remembers what was asked for, and with which limit."""

    play: Play = ends_well
    ran: list[Command] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)

    def run(self, command: Command, *, limit_s: float, stop: Stop, keep: int = 0, heard: Heard | None = None) -> Ended:
        self.ran.append(command)
        self.limits.append(limit_s)
        return self.play(command, stop)

    def open(self, command: Command, *, limit_s: float, stop: Stop, heard: Heard | None = None) -> Output:
        raise NotImplementedError
