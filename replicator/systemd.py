"""What systemd and a service say to each other: sd_notify(3), watchdogs, sockets that are handed over."""

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Final

from replicator.errors import HomeError

FIRST_FD: Final = 3
"""Where handed-over sockets begin (sd_listen_fds(3))."""
PATIENCE_S: Final = 5.0
"""How long a word waits for systemd to read the ten before it: the loop that says it serves nobody meanwhile."""


def notify(state: str) -> None:
    """Tell systemd, if it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(PATIENCE_S)
        sender.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        sender.sendall(state.encode())


def watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    """Return how often to say WATCHDOG=1, in seconds: twice as often as it must be; None if nobody waits for it."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isascii() and text.isdigit() and int(text) else None


def handed_socket(environment: Mapping[str, str], pid: int) -> socket.socket | None:
    """Return the listening socket that systemd handed to this process, None if it handed over none.

    Raises:
        HomeError: several, or one that no connection comes in by.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return None
    count = environment.get("LISTEN_FDS", "0")
    if count == "0":
        return None
    if count != "1":
        raise HomeError(f"{count} sockets were handed over", hint="one ListenStream= in the socket unit")
    os.set_inheritable(FIRST_FD, False)  # noqa: FBT003 - its only argument
    handed = socket.socket(fileno=FIRST_FD)
    try:
        stream = handed.type == socket.SOCK_STREAM and handed.family in (socket.AF_INET, socket.AF_INET6)
        if stream and handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return handed
    except OSError:
        pass
    handed.close()
    raise HomeError("the socket that was handed over takes no connections", hint="ListenStream= HOST:PORT, Accept=no")
