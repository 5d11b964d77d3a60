"""One provider asks another for an object: a plain connection that blocks, made for it and closed after it."""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Final, Protocol

from replicator.crypto.certificates import key_of_certificate
from replicator.endpoints import join_endpoint, parse_way
from replicator.errors import FormatError, ProtocolError, UnreachableError
from replicator.format.codec import encode
from replicator.ids import Identity, identity_of
from replicator.transport.handler import refusal_of
from replicator.transport.patience import CONNECT_S, MAX_REFUSAL, STALL_S, reason_of, time_for
from replicator.transport.reachable import Reachable
from replicator.wire.messages import Signed

PIECE: Final = 1 << 20
MOST_DIALLED: Final = 8
"""Addresses that are tried of one source: who makes up an offer writes as many as he likes into it."""
Take = Callable[[memoryview], None]
"""Is handed the bytes of an object as they come; each piece is valid only meanwhile."""


class Sources(Protocol):
    """Where objects of others are fetched from. Blocks."""

    def fetch(self, endpoints: Sequence[str], source: Identity, pickup: bytes, size: int, take: Take) -> None:
        """Hand over exactly ``size`` bytes that a source gives for a signed pickup, unverified.

        Raises:
            PeerError: it does not answer, may not be dialled, is another, or refuses.
            ReplicatorError: whatever ``take`` raises.
        """
        ...

    def announce(self, endpoints: Sequence[str], other: Identity, offer: bytes) -> None:
        """Hand our own signed offer to another provider.

        Raises:
            PeerError: it does not answer, may not be dialled, is another, or does not know us.
        """
        ...

    def close(self) -> None:
        """Break off what is being done; idempotent. Called from another thread."""
        ...


class TlsSources:
    """A :class:`Sources` over TLS 1.3."""

    def __init__(self, reachable: Reachable, *, connect_s: float = CONNECT_S, stall_s: float = STALL_S) -> None:
        self._reachable = reachable
        self._connect_s = connect_s
        self._stall_s = stall_s
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    def close(self) -> None:
        """See :meth:`Sources.close`."""
        with self._lock:
            self._closed = True
            for one in self._open:
                _cut(one)

    def fetch(self, endpoints: Sequence[str], source: Identity, pickup: bytes, size: int, take: Take) -> None:
        """See :meth:`Sources.fetch`. Nothing is said before the source has proved its key."""
        with self._dial(endpoints, source) as tls, self._within(time_for(size, self._stall_s), tls):
            try:
                with _posted(tls, "/v2/give", pickup) as response:
                    self._take(response, size, take)
            except (OSError, http.client.HTTPException) as error:
                raise UnreachableError("the source", reason_of(error)) from error

    def announce(self, endpoints: Sequence[str], other: Identity, offer: bytes) -> None:
        """See :meth:`Sources.announce`."""
        with self._dial(endpoints, other) as tls, self._within(time_for(len(offer), self._stall_s), tls):
            try:
                with _posted(tls, "/v2/announce", offer) as response:
                    told = response.read(MAX_REFUSAL)
                    if response.status != http.client.OK:
                        raise refusal_of("the other provider", response.status, told)
            except (OSError, http.client.HTTPException) as error:
                raise UnreachableError("the other provider", reason_of(error)) from error

    @contextmanager
    def _within(self, seconds: float, connection: socket.socket) -> Iterator[None]:
        """Cut a connection that takes longer in all, however often something comes, or when all is closed."""
        with self._lock:
            if self._closed:
                raise UnreachableError("the source", "this provider is stopping")
            self._open.add(connection)
        timer = threading.Timer(seconds, _cut, [connection])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._open.discard(connection)

    def _dial(self, endpoints: Sequence[str], source: Identity) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the key is compared below, before a byte is sent
        context.set_alpn_protocols(["http/1.1"])
        for address, port, name in islice(self._addresses(endpoints[:MOST_DIALLED], source), MOST_DIALLED):
            tls = None if self._closed else self._greet(context, (address, port), name, source)
            if tls is not None:
                return tls
        raise UnreachableError("the source", "no address that may be dialled answers with its key")

    def _addresses(self, endpoints: Sequence[str], source: Identity) -> Iterator[tuple[str, int, str | None]]:
        for endpoint in endpoints:
            with suppress(OSError, ValueError):
                way = parse_way(endpoint)
                for address, port in self._reachable.addresses(join_endpoint(way.host, way.port)):
                    yield address, port, way.server_name(source)

    def _greet(
        self, context: ssl.SSLContext, address: tuple[str, int], name: str | None, source: Identity
    ) -> ssl.SSLSocket | None:
        """Return a connection to an address whose holder proved that key, None if there is none; says nothing yet."""
        try:
            plain = socket.create_connection(address, timeout=self._connect_s)
        except OSError:
            return None
        tls = context.wrap_socket(plain, do_handshake_on_connect=False, server_hostname=name)
        try:
            with self._within(2 * self._connect_s, tls):
                tls.do_handshake()
            der = tls.getpeercert(binary_form=True)
            if der is not None and identity_of(key_of_certificate(der)) == source:
                tls.settimeout(self._stall_s)
                return tls
        except (OSError, FormatError):
            pass
        tls.close()
        return None

    def _take(self, response: http.client.HTTPResponse, size: int, take: Take) -> None:
        if response.status != http.client.OK:
            raise refusal_of("the source", response.status, response.read(MAX_REFUSAL))
        if response.length != size:
            raise ProtocolError("the source", "gives another number of bytes")
        buffer = memoryview(bytearray(min(PIECE, size)))
        left = size
        while left:
            piece = buffer[: min(len(buffer), left)]
            if response.readinto(piece) != len(piece):
                raise UnreachableError("the source", "the connection broke in the middle of an object")
            take(piece)
            left -= len(piece)


def _posted(tls: ssl.SSLSocket, path: str, statement: bytes) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("other")
    connection.auto_open = 0  # it has its socket: by itself it would speak to somebody else, without TLS
    connection.sock = tls
    connection.request(
        "POST",
        path,
        body=encode(Signed(statement=statement)),
        headers={"Content-Type": "application/octet-stream", "Connection": "close"},
    )
    return connection.getresponse()


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which is not for two threads
