"""How long a client waits for a provider, how much it listens to, and what it calls a wait that was too long."""

import os
from typing import Final

CONNECT_S: Final = 5.0
STALL_S: Final = 120.0
"""Seconds without progress after which a peer counts as gone; a check of 64 objects on a slow disk takes most of it."""
GRACE_S: Final = 60.0
MINIMUM_RATE: Final = 16 << 10
"""Bytes a second below which a transfer is given up."""
MAX_REFUSAL: Final = 64 << 10
MAX_REASON: Final = 200
"""Characters of why something did not come about that are kept and told: some are the other side's own words."""


def time_for(size: int, stall_s: float) -> float:
    """Return how many seconds a request may have taken when it has moved so many bytes, and no more.

    What is still to come gives nobody time: a peer that dribbles is given up as soon for a large answer as for a small.
    """
    return GRACE_S + stall_s + size / MINIMUM_RATE


def reason_of(error: BaseException) -> str:
    """Return what a broken or silent connection is called."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    plain = isinstance(error, ConnectionRefusedError) or type(error) is OSError
    if plain and isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own text has numbers and brackets
    return str(error) or type(error).__name__
