"""The network over TLS: one aiohttp session to each provider, pinned to its key.

Nothing is retried here: what an error means is the caller's to decide.
"""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from replicator.aio import aiohttp
from replicator.endpoints import join_endpoint, parse_way, split_endpoint
from replicator.errors import FormatError, PeerError, ProtocolError, UnreachableError
from replicator.format.codec import Record, decode, encode
from replicator.format.group import GroupFacts
from replicator.format.sizes import LARGEST
from replicator.ids import Identity, ObjectName
from replicator.transport.base import Reach, Target
from replicator.transport.handler import refusal_of
from replicator.transport.patience import CONNECT_S, MAX_REFUSAL, STALL_S, reason_of, time_for
from replicator.transport.tls import PeerCertificate, client_context, fetch_certificate
from replicator.wire.messages import (
    BARE,
    MAX_ANSWER,
    OPS,
    WIRE_VERSION,
    EnrolReply,
    EnrolRequest,
    JoinRequest,
    Signed,
    written_enrol_request,
)

A = TypeVar("A", bound=Record)
Moved = Callable[[int], None]
"""Told how many bytes of an answer have come, which gives the rest time."""

SLICE = 256 << 10


class TlsNetwork:
    """A :class:`~replicator.transport.base.Network` over TLS 1.3.

    ``scratch``: where a private key may lie in a file for a moment (see :func:`.tls.client_context`).
    """

    def __init__(self, *, connect_s: float = CONNECT_S, stall_s: float = STALL_S, scratch: str | None = None) -> None:
        self._connect_s = connect_s
        self._stall_s = stall_s
        self._scratch = scratch

    async def identify(self, endpoint: str) -> Identity:
        """Return the identity that answers at an address."""
        try:
            host, port = split_endpoint(endpoint)
            peer = await fetch_certificate(host, port, timeout_s=self._connect_s)
        except (OSError, ValueError, FormatError) as error:
            raise UnreachableError(
                endpoint, f"does not answer ({reason_of(error)})", hint="try the address of another provider"
            ) from error
        return peer.identity

    async def enrol(self, target: Target, request: EnrolRequest) -> EnrolReply:
        """Ask for a certificate without having one."""
        return await self.ask(target, "enrol", written_enrol_request(request), EnrolReply)

    async def erase(self, target: Target, order: bytes) -> bytes:
        """Hand over root's signed order to erase a tenant; return the signed receipt."""
        return (await self.ask(target, "erase", Signed(statement=order), Signed)).statement

    async def ask(self, target: Target, op: str, request: Record, answer: type[A]) -> A:
        """Ask one of :data:`replicator.wire.messages.BARE`; who has a certificate shows it, and counts by it."""
        connection = await self.connect(target)
        try:
            return await connection.call(op, request, answer)
        finally:
            await connection.close()

    async def reach(self, target: Target) -> "TlsConnection":
        """Return a connection without a certificate, to ask again and again."""
        return await self._dial(target, certificate=None)

    async def join(self, target: Target, request: JoinRequest) -> GroupFacts:
        """Bring a group's code, or one's own word."""
        return await self.ask(target, "join", request, GroupFacts)

    async def connect(self, target: Target) -> "TlsConnection":
        """Return a connection to a provider; the handshake has proved that it holds the pinned key."""
        return await self._dial(target, certificate=target.certificate)

    async def _dial(self, target: Target, *, certificate: bytes | None) -> "TlsConnection":
        problems: list[str] = []
        impostor = False
        for endpoint in target.endpoints:
            try:
                way = parse_way(endpoint)
                name = way.server_name(target.identity)
                peer = await fetch_certificate(way.host, way.port, server_name=name, timeout_s=self._connect_s)
            except (OSError, ValueError, FormatError) as error:
                problems.append(f"{endpoint} ({reason_of(error)})")
                continue
            if peer.identity != target.identity:
                impostor = True
                problems.append(f"{endpoint} (answers with another key)")
                continue
            key = target.key if certificate is not None else None
            context = client_context(peer, key=key, certificate=certificate, scratch=self._scratch)
            reach = Reach(
                name=target.name,
                endpoint=endpoint,
                host=way.host,
                port=way.port,
                server_name=name,
                peer=peer.der,
                seed=target.key.seed() if certificate is not None else b"",
                certificate=certificate or b"",
                scratch=self._scratch,
                connect_s=self._connect_s,
                stall_s=self._stall_s,
            )
            return TlsConnection(target, reach, peer, context)
        listed = ", ".join(problems) or "no endpoint is known"
        if impostor:
            raise ProtocolError(
                target.name,
                f"not the peer that was pinned: {listed}",
                hint="its address may be someone else's now; ask its operator for the current one",
            )
        raise UnreachableError(target.name, f"no endpoint answers: {listed}")


class TlsConnection:
    """A :class:`~replicator.transport.base.Connection` over TLS."""

    def __init__(
        self,
        target: Target,
        reach: Reach,
        peer: PeerCertificate,
        context: ssl.SSLContext,
    ) -> None:
        self.target = target
        self.endpoint = reach.endpoint
        self._reach = reach
        self._base = f"https://{join_endpoint(reach.host, reach.port)}"
        self._context = context
        self._stall_s = reach.stall_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(peer.fingerprint), limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=reach.connect_s, sock_read=reach.stall_s),
            auto_decompress=False,
            trust_env=False,
        )

    async def call(self, op: str, request: Record, answer: type[A]) -> A:
        """Send a request and return its answer."""
        body = encode(request)
        since = OPS[op].since if op in OPS else BARE.get(op, WIRE_VERSION)
        async with self._request("POST", f"/v{since}/{op}", body=body) as (response, moved):
            return self._decode(answer, await self._read(response, MAX_ANSWER, moved))

    async def put(self, name: ObjectName, data: bytes) -> bytes:
        """Store an object; it is sent only after the provider has reserved space for it."""
        path = f"/v1/objects/{name.hex()}"
        async with self._request("PUT", path, body=data, wait_for_go=True) as (response, moved):
            return self._decode(Signed, await self._read(response, MAX_REFUSAL, moved)).statement

    async def get(self, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of an object."""
        path = f"/v1/objects/{name.hex()}?offset={offset}"
        if length is not None:
            path += f"&length={length}"
        limit = LARGEST if length is None else length
        async with self._request("GET", path, body=b"") as (response, moved):
            data = await self._read(response, limit, moved)
        if length is not None and len(data) != length:
            raise ProtocolError(self.target.name, f"{len(data)} bytes came where {length} were asked for")
        return data

    def reach(self) -> Reach | None:
        """Return how another process gets to this provider, if it may ask for objects."""
        return self._reach if self._reach.certificate else None

    async def close(self) -> None:
        """Let go of sockets."""
        await self._session.close()

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, *, body: bytes, wait_for_go: bool = False
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Moved]]:
        """Yield the answer, and what has to be told how many bytes of it have come."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            whole_s = time_for(len(body), self._stall_s)
            async with asyncio.timeout(whole_s) as whole, asyncio.timeout(self._stall_s) as stall:

                def moved(size: int) -> None:
                    whole.reschedule(began + time_for(len(body) + size, self._stall_s))

                async def slices() -> AsyncIterator[memoryview]:
                    view = memoryview(body)
                    for at in range(0, len(view), SLICE):
                        if wait_for_go and self.target.pace is not None:
                            stall.reschedule(None)
                            await self.target.pace(len(view[at : at + SLICE]))
                        stall.reschedule(loop.time() + self._stall_s)
                        yield view[at : at + SLICE]
                    stall.reschedule(loop.time() + self._stall_s)

                async with self._session.request(
                    method,
                    self._base + path,
                    data=slices() if body else None,
                    headers={"Content-Length": str(len(body))} if body else {},
                    expect100=wait_for_go,
                    ssl=self._context,
                    server_hostname=self._reach.server_name,
                    allow_redirects=False,
                ) as response:
                    stall.reschedule(None)  # from here sock_read watches
                    if response.status != 200:
                        told = await self._read(response, MAX_REFUSAL, moved)
                        raise refusal_of(self.target.name, response.status, told)
                    yield response, moved
        except PeerError:
            raise
        except aiohttp.ServerFingerprintMismatch as error:
            raise ProtocolError(self.target.name, "answers with another key than before") from error
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
            # A body cut short is a broken connection; a head that is not HTTP is another protocol.
            if isinstance(error, aiohttp.ClientPayloadError):
                raise UnreachableError(self.target.name, "the connection broke in the middle of an answer") from error
            raise ProtocolError(self.target.name, f"an answer that is not HTTP: {error.message}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(self.target.name, reason_of(error)) from error

    async def _read(self, response: aiohttp.ClientResponse, limit: int, moved: Moved) -> bytes:
        # Whose value is what was written, not a copy: pieces of a pack, joined, would be twice its size for a moment.
        whole = io.BytesIO()
        async for part in response.content.iter_any():
            size = whole.tell() + len(part)
            if size > limit:
                raise ProtocolError(self.target.name, f"an answer of more than {limit} bytes")
            whole.write(part)
            moved(size)
        return whole.getvalue()

    def _decode(self, kind: type[A], body: bytes) -> A:
        try:
            return decode(kind, body, limit=MAX_ANSWER)
        except FormatError as error:
            raise ProtocolError(self.target.name, f"an answer that cannot be read: {error.message}") from error
