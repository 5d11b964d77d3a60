"""Objects straight into memory: a plain connection that blocks, for a process that does nothing else.

Every record of TLS is decrypted to where it belongs; asyncio and aiohttp copy a byte five times on its way.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from replicator.crypto.certificates import key_of_certificate
from replicator.crypto.sign import SigningKey
from replicator.errors import IntegrityError, ProtocolError, UnreachableError
from replicator.format.merkle import NameHasher
from replicator.ids import ObjectName, identity_of, short
from replicator.transport.base import Reach
from replicator.transport.handler import refusal_of
from replicator.transport.patience import MAX_REFUSAL, reason_of, time_for
from replicator.transport.tls import PeerCertificate, client_context

PIECE: Final = 256 << 10
"""Bytes that are hashed when they have come, while they are in the processor's cache."""


class Pull:
    """One connection to one provider, made when it is needed and made anew when it broke. For one thread at a time."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        peer = PeerCertificate(der=reach.peer, identity=identity_of(key_of_certificate(reach.peer)))
        self._context = client_context(
            peer, key=SigningKey(reach.seed), certificate=reach.certificate, scratch=reach.scratch
        )
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._late = False
        self._given_up = False
        self._moved = 0

    def get_into(self, name: ObjectName, memory: memoryview) -> int:
        """Bring an object into memory that has room for the largest one; return its size. What was there is lost.

        Raises:
            IntegrityError: the provider answered with other bytes.
            PeerError: it did not answer, or refused.
        """
        with self._naming(), self._in_time():
            response = self._ask(f"/v1/objects/{name.hex()}?offset=0")
            if response.status != http.client.OK:
                told = response.read(MAX_REFUSAL)
                self.close()  # what follows of a longer one is nobody's matter
                raise refusal_of(self._reach.name, response.status, told)
            size = response.length
            if size is None or size > len(memory):
                raise ProtocolError(self._reach.name, f"an answer of more than {len(memory)} bytes")
            hasher = NameHasher()
            for at in range(0, size, PIECE):
                self._check()
                piece = memory[at : min(at + PIECE, size)]
                if response.readinto(piece) != len(piece):
                    raise UnreachableError(self._reach.name, "the connection broke in the middle of an answer")
                self._moved += len(piece)
                hasher.update(piece)
            response.read()  # its end, after which the connection may be asked again
        if hasher.name() != name:
            raise IntegrityError(f"{self._reach.name}: answered with other bytes than object {short(name)}")
        return size

    def give_up(self) -> None:
        """Let what is being brought end without an answer, now or at the next piece; called from any thread.

        This is used no more then.
        """
        self._given_up = True
        self._cut()

    def close(self) -> None:
        """Let go of the socket; idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, path: str) -> http.client.HTTPResponse:
        if self._connection is not None and self._connection.sock is not None:
            try:
                self._connection.request("GET", path)
                return self._connection.getresponse()
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                self.close()  # a provider closes what was idle: that says nothing about the request
        connection = self._dial()
        connection.request("GET", path)
        return connection.getresponse()

    def _check(self) -> None:
        if self._given_up:
            raise UnreachableError(self._reach.name, "given up")

    def _dial(self) -> http.client.HTTPConnection:
        reach = self._reach
        connection = http.client.HTTPConnection(reach.host, reach.port)
        connection.auto_open = 0  # by itself it would speak without TLS
        self._check()
        self._socket = socket.create_connection((reach.host, reach.port), timeout=reach.connect_s)
        self._socket = connection.sock = self._context.wrap_socket(
            self._socket, do_handshake_on_connect=False, server_hostname=reach.server_name
        )
        self._connection = connection
        connection.sock.do_handshake()
        self._check()
        if connection.sock.getpeercert(binary_form=True) != reach.peer:
            raise ProtocolError(reach.name, "answers with another key than before")
        connection.sock.settimeout(reach.stall_s)
        return connection

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """End a request that takes too long for what has come, however often something comes."""
        self._late = False
        self._moved = 0
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended, time.monotonic()), daemon=True)
        watch.start()
        try:
            yield
        finally:
            ended.set()

    def _watch(self, ended: threading.Event, began: float) -> None:
        while not ended.wait(left := began + time_for(self._moved, self._reach.stall_s) - time.monotonic()):
            if left <= 0:
                self._cut()
                return

    def _cut(self) -> None:
        self._late = True
        if self._socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # not TLS's own, which is not for two threads

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn what goes wrong with the connection into the error that it is, and use it no more."""
        try:
            yield
        except ProtocolError:
            self.close()
            raise
        except (UnreachableError, OSError, http.client.RemoteDisconnected, http.client.IncompleteRead) as error:
            self.close()
            why = "no answer in time" if self._late else getattr(error, "reason", "") or reason_of(error)
            raise UnreachableError(self._reach.name, why) from error
        except http.client.HTTPException as error:
            self.close()
            raise ProtocolError(self._reach.name, f"an answer that is not HTTP: {reason_of(error)}") from error
