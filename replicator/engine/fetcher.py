"""A fetching process: ``python -m replicator.engine.fetcher FD``, started by :mod:`replicator.engine.fetchers` only.

It speaks over the inherited socket, ends when that closes, and leaves Ctrl-C to the process that started it. It is a
process because a thread that receives has to wait for the interpreter's lock at each 16 KiB, and planning is what
holds that.
"""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from replicator.engine.fetchframes import Dial, Fetch, Fetched, Setup, ToFetcher, to_fetcher
from replicator.engine.mail import Inbox, failure_of, framed, help_over_socket
from replicator.engine.slots import mapped
from replicator.errors import BusyError, IntegrityError, PeerError, ProtocolError, RefusedError
from replicator.ids import ObjectName
from replicator.transport.base import Reach
from replicator.transport.pull import Pull


class Pulls:
    """Connections to one provider: as many as are asked at the same time."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._idle: list[Pull] = []

    def fetch(self, message: Fetch, memory: memoryview) -> Fetched:
        """Bring an object into memory."""
        pull = self._idle.pop() if self._idle else Pull(self._reach)
        try:
            return Fetched(message.task, pull.get_into(ObjectName(message.name), memory))
        except (PeerError, IntegrityError) as error:
            return _told(message.task, error)
        finally:
            self._idle.append(pull)


def _told(task: int, error: PeerError | IntegrityError) -> Fetched:
    if isinstance(error, IntegrityError):
        return Fetched(task, problem="bytes", text=error.message)
    if isinstance(error, BusyError):
        return Fetched(task, problem="busy", text=error.reason, after_s=error.after_s)
    if isinstance(error, RefusedError):
        return Fetched(task, problem="refused", text=error.reason, code=error.code)
    problem = "protocol" if isinstance(error, ProtocolError) else "unreachable"
    return Fetched(task, problem=problem, text=error.reason)  # type: ignore[arg-type] # one of two words


def serve(sock: socket.socket) -> None:
    """Carry out what is asked until the other side has gone."""
    inbox: Inbox[ToFetcher] = Inbox(to_fetcher)
    providers: dict[int, Pulls] = {}
    slots: list[memoryview] = []
    threads: ThreadPoolExecutor | None = None
    said = Lock()

    def fetch(message: Fetch) -> None:
        try:
            answer = framed(providers[message.provider].fetch(message, slots[message.slot]))
        except Exception as error:
            answer = framed(failure_of(error))
        with said:
            sock.sendall(answer)

    while True:
        message = inbox.next()
        if message is None:
            if not inbox.receive(sock):
                # Whoever asked has gone: nobody waits for what is on its way.
                os._exit(0)
        elif isinstance(message, Setup):
            threads = ThreadPoolExecutor(message.at_once)
            slots = [mapped(fd) for fd in inbox.take(message.slots)]
        elif isinstance(message, Dial):
            providers[message.number] = Pulls(message.reach)
        else:
            assert threads is not None, "set up first"
            threads.submit(fetch, message)


if __name__ == "__main__":
    help_over_socket(serve)
