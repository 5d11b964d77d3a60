"""A writing process: ``python -m replicator.engine.writer FD``, started by :mod:`replicator.engine.writers` only.

It speaks over the inherited socket, ends when that closes, and leaves Ctrl-C to the process that started it.
"""

import os
import socket

from replicator.engine.mail import Inbox, framed, help_over_socket
from replicator.engine.slots import mapped
from replicator.engine.writeframes import Look, Setup, ToWriter, Write, Wrote, to_writer
from replicator.engine.writing import LookWork, WriteWork


def serve(sock: socket.socket) -> None:
    """Carry out what is asked until the other side has gone."""
    # Files are made with the modes that they had. Whatever else is made here has no name.
    os.umask(0)
    inbox: Inbox[ToWriter] = Inbox(to_writer)
    work: WriteWork | None = None
    looking: LookWork | None = None
    slots: list[memoryview] = []
    while True:
        message = inbox.next()
        if message is None:
            if not inbox.receive(sock):
                return
        elif isinstance(message, Setup):
            work = WriteWork(message)
            slots = [mapped(fd) for fd in inbox.take(message.slots)]
            if message.trees:
                trees = [mapped(fd) for fd in inbox.take(message.trees)]
                looking = LookWork(message, trees, *inbox.take(1))
        elif isinstance(message, Look):
            assert looking is not None, "set up to look"
            sock.sendall(framed(looking.look(message)))
        else:
            assert work is not None, "set up first"
            pack = slots[message.slot][: message.size]
            sock.sendall(framed(_written(work, message, pack, inbox)))


def _written(work: WriteWork, message: Write, pack: memoryview, inbox: Inbox[ToWriter]) -> Wrote:
    descriptors = inbox.take(len(message.folders) + len(message.files))
    try:
        return work.write(message, pack, descriptors)
    finally:
        for fd in descriptors:
            os.close(fd)


if __name__ == "__main__":
    help_over_socket(serve)
