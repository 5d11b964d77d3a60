"""When a provider takes what is large, how many uploads of one tenant at a time, and how fast all together."""

from dataclasses import dataclass

from replicator.clock import NS, Clock
from replicator.provider.quota import STREAMS
from replicator.transport.handler import RequestRefusedError
from scheduler.night import Window

ALWAYS_TAKEN = 1 << 20
"""Bytes up to which an object is taken at any hour: the records without which a snapshot is not published."""
_LONGEST_S = 86400.0  # that a refusal can name


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """``window`` None: always. ``down`` and ``up``: bytes a second that come and go at the most, 0 for any number."""

    window: Window | None = None
    streams: int = STREAMS
    down: int = 0
    up: int = 0

    def check(self, size: int, clock: Clock) -> None:
        """Refuse a large object outside of the window, and say when to come back. What was begun is let end.

        Raises:
            RequestRefusedError: "busy".
        """
        now = clock.now_ns() / NS
        if self.window is None or size <= ALWAYS_TAKEN or self.window.is_open(now):
            return
        opens = self.window.opens(now)
        raise RequestRefusedError(
            "busy", f"takes nothing large until {self.window.wall(opens)}", after_s=min(opens - now, _LONGEST_S)
        )
