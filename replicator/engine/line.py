"""This machine's line: how fast may be sent and fetched now, and whether at all. Restores do not ask."""

from replicator.clock import NS, Clock
from replicator.config import LineSettings
from scheduler.night import Bucket, Forecast

_TRICKLE = 64 << 10
"""Bytes a second of one upload, at least: a piece of 256 KiB has to come within half a minute."""


class Line:
    """The limits of one process. ``always_night``: somebody said that it shall be done now."""

    def __init__(self, settings: LineSettings, clock: Clock, *, always_night: bool = False) -> None:
        self._settings = settings
        self._clock = clock
        self._always_night = always_night
        self._up = Bucket()
        self._down = Bucket()

    @property
    def _now(self) -> float:
        return self._clock.now_ns() / NS

    @property
    def is_night(self) -> bool:
        """Whether the night's limits hold."""
        return self._always_night or self._settings.night is None or self._settings.night.is_open(self._now)

    @property
    def is_closed(self) -> bool:
        """Whether nothing may be begun to be sent now."""
        return self._settings.up_day == 0 and not self.is_night

    @property
    def opens(self) -> str:
        """When sending goes on, by the clock on the wall."""
        night = self._settings.night
        assert night is not None, "it is closed"
        return night.wall(night.opens(self._now))

    @property
    def streams(self) -> int | None:
        """How many uploads there may be at a time, None for any number: providers do not wait for a trickle."""
        rates = [rate for rate in (self._settings.up, self._settings.up_day) if rate]
        return max(1, min(rates) // _TRICKLE) if rates else None

    async def up(self, size: int) -> None:
        """Wait until so many bytes may be sent. What was begun may be ended after the night, at its rate."""
        settings = self._settings
        rate = settings.up if self.is_night or not settings.up_day else settings.up_day
        if rate:
            await self._clock.sleep(self._up.take(size, self._now, rate))

    async def down(self, size: int) -> None:
        """Wait until so many bytes may be fetched."""
        rate = self._settings.down if self.is_night else self._settings.down_day or self._settings.down
        if rate:
            await self._clock.sleep(self._down.take(size, self._now, rate))

    def forecast(self, left: int, rate: float) -> Forecast | None:
        """Return what the end of the night would leave of ``left`` bytes; None if nothing ends then."""
        night = self._settings.night
        if night is None or self._settings.up_day != 0 or self._always_night or not night.is_open(self._now):
            return None
        return Forecast(left=left, rate=rate, now=self._now, closes=night.closes(self._now))

    def wall(self, moment: float) -> str:
        """Return a moment as the clock on the wall shows it, where nights are set."""
        night = self._settings.night
        assert night is not None, "a forecast was made"
        return night.wall(moment)
