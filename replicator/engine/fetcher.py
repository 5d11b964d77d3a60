"""A fetching process: ``python -m replicator.engine.fetcher FD``, started by :mod:`replicator.engine.fetchers` only.

It speaks over the inherited socket, ends when that closes, and leaves Ctrl-C to the process that started it. It is a
process because a thread that receives has to wait for the interpreter's lock at each 16 KiB, and planning is what
holds that.
"""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from replicator.engine.fetchframes import Dial, Fetch, Fetched, GiveUp, Setup, ToFetcher, to_fetcher
from replicator.engine.mail import Inbox, failure_of, framed, help_over_socket
from replicator.engine.slots import mapped
from replicator.errors import BusyError, IntegrityError, PeerError, ProtocolError, RefusedError
from replicator.ids import ObjectName
from replicator.transport.base import Reach
from replicator.transport.pull import Pull


class Task:
    """One object on its way. ``given_up``: nobody waits for it."""

    def __init__(self, message: Fetch) -> None:
        self.message = message
        self.given_up = False
        self.pull: Pull | None = None


class Tasks:
    """What is asked for and not answered. For any threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tasks: dict[int, Task] = {}
        self._providers: dict[int, tuple[Reach, list[Pull]]] = {}

    def dial(self, message: Dial) -> None:
        """Know a provider: as many connections are made to it as objects are asked for at the same time."""
        self._providers[message.number] = message.reach, []

    def add(self, message: Fetch) -> Task:
        """Note what is asked for."""
        with self._lock:
            task = self._tasks[message.task] = Task(message)
        return task

    def give_up(self, number: int) -> None:
        """Break off a task, unless it is answered."""
        with self._lock:
            task = self._tasks.get(number)
            if task is not None:
                task.given_up = True
                if task.pull is not None:
                    task.pull.give_up()

    def fetch(self, task: Task, memory: memoryview) -> Fetched:
        """Bring an object into memory."""
        message = task.message
        reach, idle = self._providers[message.provider]
        with self._lock:
            if not task.given_up:
                task.pull = idle.pop() if idle else Pull(reach)
        try:
            if task.pull is None:
                return Fetched(message.task, problem="given up")
            return Fetched(message.task, task.pull.get_into(ObjectName(message.name), memory))
        except (PeerError, IntegrityError) as error:
            return Fetched(message.task, problem="given up") if task.given_up else _told(message.task, error)
        finally:
            with self._lock:
                del self._tasks[message.task]
                if task.pull is not None and not task.given_up:
                    idle.append(task.pull)


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
    tasks = Tasks()
    slots: list[memoryview] = []
    threads: ThreadPoolExecutor | None = None
    said = Lock()

    def fetch(task: Task) -> None:
        try:
            answer = framed(tasks.fetch(task, slots[task.message.slot]))
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
            threads = ThreadPoolExecutor(message.slots)
            slots = [mapped(fd) for fd in inbox.take(message.slots)]
        elif isinstance(message, Dial):
            tasks.dial(message)
        elif isinstance(message, GiveUp):
            tasks.give_up(message.task)
        else:
            assert threads is not None, "set up first"
            threads.submit(fetch, tasks.add(message))


if __name__ == "__main__":
    help_over_socket(serve)
