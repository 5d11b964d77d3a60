"""Work on threads that is waited for to its end, also by a run that is cancelled."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from replicator.process import Stop

T = TypeVar("T")


async def on_thread(work: Callable[[Stop], T], *, patience: int = 0) -> tuple[T, asyncio.CancelledError | None]:
    """Run something on a thread to its end, also if this task is cancelled meanwhile; return that with the result.

    A cancellation asks the work to stop, after as many as ``patience`` that do not.
    """
    asked = threading.Event()
    running = asyncio.get_running_loop().run_in_executor(None, work, asked.is_set)
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            return await asyncio.shield(running), cancelled
        except asyncio.CancelledError as error:
            cancelled = error
            if patience <= 0:
                asked.set()
            patience -= 1
        except BaseException as error:
            if cancelled is not None:
                raise cancelled from error
            raise
