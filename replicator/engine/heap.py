"""How processes that make millions of short-lived values, and buffers of many megabytes, treat their memory."""

import ctypes
import gc
from typing import Final

MANY: Final = 1_000_000
"""Values that a restore holds while two windows of it are planned: none of them is looked at in vain."""
_SELDOM: Final = 50_000
_OLDER: Final = (20, 100)
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE: Final = 4 << 20
_ARENAS: Final = 2


def settle_heap(objects: int = _SELDOM) -> None:
    """Let the cycle collector look seldom, and give large buffers back to the system as soon as they are freed.

    It looks whenever there are so many new ``objects``.

    Neither a backup nor a restore makes cycles to speak of; with the defaults a twentieth of a backup's time went into
    looking for some. The GNU C library learns to keep buffers of up to 32 MiB in its heaps, one for each thread, where
    what is allocated between them keeps them from being given back: a reader of small files grew to twice its size.
    Other C libraries have no such knobs and need none.
    """
    gc.freeze()
    gc.set_threshold(objects, *_OLDER)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, _ARENAS)
