"""A reading process: ``python -m replicator.engine.reader FD``, started by :mod:`replicator.engine.readers` only.

It speaks over the inherited socket, ends when that closes, and leaves Ctrl-C to the process that started it.
"""

import socket
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from chunker import Chunker
from replicator.engine.frames import (
    Finish,
    Finished,
    FromReader,
    Read,
    Setup,
    ToReader,
    Wanted,
    to_reader,
)
from replicator.engine.mail import Inbox, framed, help_over_socket
from replicator.engine.reading import FileWork
from replicator.engine.spool import spool_store
from replicator.fs import PosixFs
from replicator.pack.keys import writer_keys
from replicator.rng import SystemRng
from replicator.snapshot.walk import PosixFolder, PosixSource


class _ClosedError(Exception):
    """The other side has gone."""


class SocketMail:
    """Messages over a socket; answers are taken before anything else that waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._inbox: Inbox[ToReader] = Inbox(to_reader)
        self._answers: deque[bytes] = deque()
        self._others: deque[Setup | Read | Finish] = deque()

    def say(self, message: FromReader) -> None:
        """Send a message."""
        self._socket.sendall(framed(message))

    def answer(self) -> bytes:
        """Wait for an answer."""
        while not self._answers:
            self._receive()
        return self._answers.popleft()

    def answered(self) -> bool:
        """Return whether an answer is there."""
        if not self._answers:
            self._receive(wait=False)
        return bool(self._answers)

    def other(self) -> "Setup | Read | Finish | None":
        """Return what else was asked, if anything was yet."""
        return self._others.popleft() if self._others else None

    def wait(self) -> None:
        """Wait until something comes."""
        if not self._answers and not self._others:
            self._receive()

    def folders(self, count: int) -> list[int]:
        """Return the descriptors that came with a message."""
        return self._inbox.take(count)

    def _receive(self, *, wait: bool = True) -> None:
        self._socket.settimeout(None if wait else 0)
        try:
            if not self._inbox.receive(self._socket):
                raise _ClosedError
        except BlockingIOError:
            return
        finally:
            self._socket.settimeout(None)
        while (message := self._inbox.next()) is not None:
            if isinstance(message, Wanted):
                self._answers.append(message.chunks)
            else:
                self._others.append(message)


def serve(sock: socket.socket) -> None:
    """Carry out what is asked until the other side has gone."""
    mail = SocketMail(sock)
    work: FileWork | None = None
    proc = PosixSource().proc
    with suppress(_ClosedError):
        while True:
            if work is not None and work.catch_up():
                continue
            message = mail.other()
            if isinstance(message, Setup):
                work = _work(message, mail)
            elif isinstance(message, Read):
                assert work is not None, "set up first"
                _read(work, message, [PosixFolder(fd, proc) for fd in mail.folders(len(message.folders))])
            elif isinstance(message, Finish):
                assert work is not None, "set up first"
                work.finish()
                mail.say(Finished())
            else:
                mail.wait()


def _read(work: FileWork, message: Read, folders: Sequence[PosixFolder]) -> None:
    try:
        work.read(message, folders)
    finally:
        for folder in folders:
            folder.close()


def _work(setup: Setup, mail: SocketMail) -> FileWork:
    keys = writer_keys(setup.tenant, setup.domain)
    return FileWork(
        keys=keys,
        policy=setup.policy,
        coding=setup.coding,
        chunker=Chunker(keys.cut_key, *setup.sizes),
        spool=spool_store(setup.spool, PosixFs()),
        rng=SystemRng(),
        mail=mail,
        threads=ThreadPoolExecutor(setup.threads) if setup.threads > 1 else None,
    )


if __name__ == "__main__":
    help_over_socket(serve)
