"""The provider's HTTP face: who asks is the key of the TLS connection, and every body is bounded.

Nothing is decided here; :class:`~replicator.transport.handler.Service` is called on a few threads, because it
blocks. Logs hold operation, status, bytes and milliseconds, never an object's name or a path.
"""

import asyncio
import contextlib
import functools
import logging
import socket
import traceback
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from ssl import SSLContext
from typing import ParamSpec, TypeVar

from aiohttp import web

from replicator.clock import Clock
from replicator.crypto.certificates import key_of_certificate
from replicator.endpoints import join_endpoint
from replicator.errors import FormatError
from replicator.format.codec import Record, decode, encode
from replicator.format.offer import MAX_OFFER
from replicator.format.sizes import LARGEST, is_allowed
from replicator.ids import NAME_SIZE, Identity, ObjectName, TenantId
from replicator.transport.door import listening, opened
from replicator.transport.handler import RequestRefusedError, Service, Session
from replicator.transport.lanes import Spend
from replicator.transport.probing import Prober
from replicator.transport.reachable import source_of
from replicator.transport.relay import Relay
from replicator.transport.via import AdmitThrough
from replicator.wire.messages import (
    BARE,
    MAX_REQUEST,
    OPS,
    STATUS,
    Empty,
    JoinRequest,
    ProbeReply,
    Signed,
    WaitReply,
    read_enrol_request,
)
from scheduler.lanes import Places

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

THREADS = 8
PIECE = 1 << 20
"""Bytes of a body that are handed to a thread at once."""
ARRIVING = 512 << 10
"""Bytes of a body that may wait for a thread; aiohttp's 64 KiB stop and start a connection all the time."""
SLICE = 256 << 10
"""Bytes written to a connection at once; aiohttp's FileResponse over TLS goes in steps of 16 KiB (4 times slower)."""
DOWNLOADS = 16
"""Whole objects in memory for clients that read slowly, for all tenants together; one tenant alone has half of them."""
STALL_S = 30.0
MINIMUM_RATE = 16 << 10
"""Bytes a second below which a body is given up."""
GRACE_S = 30.0
"""Seconds that any body may take, however small."""
MAX_ORDER = 4096
"""Bytes of an order to erase, which anybody may bring."""
ENROL_BURST = 30
ENROL_PER_S = 1.0
MAX_PICKUP = 16384
"""Bytes of a pickup with its permit, which anybody may bring."""
MAX_ANNOUNCED = 2 * MAX_OFFER
"""Bytes of an offer that anybody may bring."""
PROBE_BURST = 8
PROBES_PER_S = 1 / 30
WAIT_BURST = 60
WAITS_PER_S = 20.0
"""Questions of providers that are relayed: each asks again when somebody came, and once a minute else."""
GIFTS = 3
"""Objects that are on their way to other providers at the same time: they leave the line to whoever restores."""
GIFT_BURST = 60
GIFTS_PER_S = 20.0
SOURCES = 4096
"""Sources that are remembered, the last ones: who has more addresses than that is all strangers together."""
CAME = 1024
"""Connections of which is remembered through which relay they came, the last ones."""
SHAKE_S = 10.0
"""How long a client that comes through a relay has for its handshake: it holds one of the few places there."""
SHUTDOWN_S = 60.0
LINGER_S = 2.0
"""How long a refused body is still read, so that the refusal reaches a client that is writing."""
INCARNATION = "Replicator-Incarnation"
_MEDIA = "application/octet-stream"


class TokenBucket:
    """At most ``burst`` at once and ``per_s`` a second in the long run, of all together, and half of it of one source.

    The lower half of what is left is for who has not asked lately: those that ask without end leave it to others.
    """

    def __init__(self, clock: Clock, *, burst: int, per_s: float) -> None:
        self._clock = clock
        self._burst = burst
        self._per_s = per_s
        self._all = (float(burst), clock.monotonic())
        self._of: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Tokens that are left, and when that was so, by source; the one that was heard longest ago first."""

    def take(self, source: str = "") -> float:
        """Take one and return 0, or return how many seconds to wait. Without a ``source`` only all together count."""
        now = self._clock.monotonic()
        shared = _filled(self._all, now, self._burst, self._per_s)
        if not source:
            wait_s = (1 - shared) / self._per_s
            self._all = (shared - (wait_s <= 0), now)
            return max(0.0, wait_s)
        most, per_s = max(1.0, self._burst / 2), self._per_s / 2
        own = _filled(self._of.get(source), now, most, per_s)
        reserve = 0.0 if own == most else self._burst / 2
        wait_s = max((1 - own) / per_s, (1 + reserve - shared) / self._per_s)
        taken = wait_s <= 0
        self._all = (shared - taken, now)
        self._of[source] = (own - taken, now)
        self._of.move_to_end(source)
        if len(self._of) > SOURCES:
            self._of.popitem(last=False)
        return max(0.0, wait_s)


def _filled(known: tuple[float, float] | None, now: float, burst: float, per_s: float) -> float:
    """Return how many tokens are there now."""
    return burst if known is None else min(burst, known[0] + (now - known[1]) * per_s)


class Face:
    """The handlers of one provider."""

    def __init__(self, service: Service, clock: Clock, prober: Prober | None, relay: Relay | None) -> None:
        self._service = service
        self._prober = prober
        self._relay = relay
        self._clock = clock
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="provider")
        self._enrolments = TokenBucket(clock, burst=ENROL_BURST, per_s=ENROL_PER_S)
        self._erasures = TokenBucket(clock, burst=ENROL_BURST, per_s=ENROL_PER_S)
        self._announcements = TokenBucket(clock, burst=ENROL_BURST, per_s=ENROL_PER_S)
        self._joins = TokenBucket(clock, burst=ENROL_BURST, per_s=ENROL_PER_S)
        self._gifts = TokenBucket(clock, burst=GIFT_BURST, per_s=GIFTS_PER_S)
        self._probes = TokenBucket(clock, burst=PROBE_BURST, per_s=PROBES_PER_S)
        self._waits = TokenBucket(clock, burst=WAIT_BURST, per_s=WAITS_PER_S)
        self._came: OrderedDict[tuple[object, object], str] = OrderedDict()
        self._downloads = Places()
        self._giving = 0
        self._closing = False
        self._running = 0
        self._idle = asyncio.Event()
        service.lanes.open()

    def comes(self, client: socket.socket, through: str) -> None:
        """Remember through which relay a client comes: its address is the relay's, and says nothing of who it is."""
        self._came[client.getsockname(), client.getpeername()] = through
        if len(self._came) > CAME:
            self._came.popitem(last=False)

    def _source(self, request: web.Request) -> str:
        """Return for whom a request counts that anybody may make: by key, before that by relay, else by address.

        So a stranger behind a relay takes nothing from who shows a certificate, nor from who does not come through it.
        """
        key = peer_key(request)
        if key is not None:
            return f"key {key.hex()}"
        ends = request.get_extra_info("sockname"), request.get_extra_info("peername")
        return self._came.get(ends) or source_of(request.remote or "")

    async def drain(self) -> None:
        """Take no more requests and wait for those that run, uploads too, for at most :data:`SHUTDOWN_S`.

        aiohttp's own shutdown drops the rest of a body that is still arriving.
        """
        self._closing = True
        self._service.lanes.close()
        if self._running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHUTDOWN_S):
                    await self._idle.wait()

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(middlewares=[self._answer], client_max_size=MAX_REQUEST)
        app.router.add_post("/v1/enrol", self._enrol)
        app.router.add_post("/v1/erase", self._erase)
        app.router.add_put("/v1/objects/{name}", self._put, expect_handler=_expect_later)
        app.router.add_get("/v1/objects/{name}", self._get, allow_head=False)
        app.router.add_post("/v2/give", self._give)
        app.router.add_post("/v2/announce", self._announce)
        app.router.add_post("/v2/probe", self._probe)
        app.router.add_post("/v2/wait", self._wait)
        app.router.add_post("/v2/join", self._join)
        app.router.add_post("/v{version:[12]}/{op}", self._call)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, _app: web.Application) -> None:
        await asyncio.to_thread(self._pool.shutdown)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, functools.partial(work, *args, **kwargs))

    async def _session(self, request: web.Request) -> Session:
        key = peer_key(request)
        if key is None:
            raise RequestRefusedError(
                "unauthorized", "without a certificate there is enrolment, and root's order to erase"
            )
        return await self._run(self._service.session, key)

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        began = self._clock.monotonic()
        self._running += 1
        try:
            response = await (_stopping if self._closing else handler)(request)
        except RequestRefusedError as error:
            response = _refusal(error)
        except web.HTTPException:
            # No such path or method. A later protocol has another first part of the path.
            if request.path.startswith(("/v1/", "/v2/")):
                response = _refusal(RequestRefusedError("bad-request", "no such operation"))
            else:
                response = _refusal(RequestRefusedError("unsupported", "this is protocol 1 and 2"))
        except (TimeoutError, ConnectionError):
            response = _refusal(RequestRefusedError("bad-request", "the body came too slowly"))
            response.force_close()
        except Exception as error:  # any bug becomes an answer; the log gets where it is, without values
            where = "; ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__))
            log.error("%s at %s", type(error).__name__, where)  # noqa: TRY400 - messages of errors hold names
            response = _refusal(RequestRefusedError("unavailable", "internal error; see the provider's log"))
        finally:
            self._running -= 1
            if self._closing and not self._running:
                self._idle.set()
        if not response.prepared:
            response.headers[INCARNATION] = self._service.incarnation.hex()
        elapsed_ms = round((self._clock.monotonic() - began) * 1000)
        log.info("%s %d %d ms", _operation(request), response.status, elapsed_ms)
        return response

    async def _from_anybody(
        self, request: web.Request, bucket: TokenBucket, what: str, limit: int, read: Callable[[bytes], T]
    ) -> T:
        """Return what is asked without a certificate: few at a time, fewer of one source, and as little as it takes."""
        wait_s = bucket.take(self._source(request))
        if wait_s:
            raise RequestRefusedError("busy", f"too many {what}", after_s=wait_s)
        body = await _read_body(request, limit)
        try:
            return read(body)
        except FormatError as error:
            raise RequestRefusedError("bad-request", error.message) from error

    async def _enrol(self, request: web.Request) -> web.Response:
        wanted = await self._from_anybody(request, self._enrolments, "enrolments", MAX_REQUEST, read_enrol_request)
        return _record(await self._run(self._service.enrol, wanted))

    async def _join(self, request: web.Request) -> web.Response:
        wanted = await self._from_anybody(request, self._joins, "who want to join", MAX_REQUEST, _join_request)
        return _record(await self._run(self._service.join, wanted))

    async def _erase(self, request: web.Request) -> web.Response:
        order = await self._from_anybody(request, self._erasures, "orders", MAX_ORDER, _statement)
        return _record(Signed(statement=await self._run(self._service.erase, order)))

    async def _announce(self, request: web.Request) -> web.Response:
        offer = await self._from_anybody(request, self._announcements, "announcements", MAX_ANNOUNCED, _statement)
        await self._run(self._service.announce, offer)
        return _record(Empty())

    async def _probe(self, request: web.Request) -> web.Response:
        if self._prober is None:
            raise RequestRefusedError("forbidden", "this provider dials nobody")
        signed = await self._from_anybody(request, self._probes, "probes", MAX_ANNOUNCED, _statement)
        known = await self._run(self._service.known, signed)
        probed = await self._prober.probe(known.offer.endpoints, known.identity)
        seen = (request.remote or "")[:64]
        return _record(ProbeReply(incarnation=self._service.incarnation, probed=probed, seen=seen))

    async def _wait(self, request: web.Request) -> web.Response:
        if self._relay is None:
            raise RequestRefusedError("forbidden", "this provider passes connections on to nobody")
        signed = await self._from_anybody(request, self._waits, "questions", MAX_ORDER, _statement)
        tokens = await self._relay.wait(await self._run(self._service.relays, signed))
        offer = await self._run(self._service.offer)
        return _record(WaitReply(incarnation=self._service.incarnation, tokens=tokens, offer=offer))

    async def _call(self, request: web.Request) -> web.Response:
        op = request.match_info["op"]
        session = await self._session(request)
        if op not in OPS or OPS[op].since != int(request.match_info["version"]):
            raise RequestRefusedError("bad-request", "no such operation")
        body = await _read_body(request)
        return web.Response(body=await self._run(session.handle, op, body), content_type=_MEDIA)

    async def _put(self, request: web.Request) -> web.Response:
        session = await self._session(request)
        name = _name(request)
        size = request.content_length
        if size is None or not is_allowed(size):
            raise RequestRefusedError("bad-request", "Content-Length must be a size that an object may have")
        upload = await self._run(session.begin_put, name, size)
        try:
            async with self._service.lanes.down.moving(session.tenant, size) as spend:
                if request.headers.get("Expect", "").lower() == "100-continue":
                    # Only now: what has no room is refused before a byte of it travels.
                    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    request.writer.output_size = 0
                async for piece in _pieces(request, size):
                    await spend(len(piece))
                    # Here and not on the thread: 64 leaves in C each, and as many fights of two threads for the lock.
                    upload.hash(piece)
                    await self._run(upload.write, piece)
            receipt = await self._run(upload.commit)
        finally:
            await asyncio.shield(self._run(upload.abort))
        return _record(Signed(statement=receipt))

    async def _get(self, request: web.Request) -> web.StreamResponse:
        session = await self._session(request)
        name = _name(request)
        offset = _number(request, "offset")
        length = _number(request, "length")
        async with self._download(session.tenant):
            return await self._send(request, session.tenant, await self._run(session.get, name, offset or 0, length))

    async def _give(self, request: web.Request) -> web.StreamResponse:
        pickup = await self._from_anybody(request, self._gifts, "pickups", MAX_PICKUP, _statement)
        if self._giving >= GIFTS:
            raise RequestRefusedError("busy", "enough is given to others", after_s=1.0)
        self._giving += 1
        try:
            async with self._download(b""):  # whose it is, is known when it was read: all together are as one tenant
                return await self._send(request, *await self._run(self._service.give, pickup))
        finally:
            self._giving -= 1

    async def _send(self, request: web.Request, tenant: TenantId, data: bytes) -> web.StreamResponse:
        async with self._service.lanes.up.moving(tenant, len(data)) as spend:
            return await self._written(request, data, spend)

    async def _written(self, request: web.Request, data: bytes, spend: Spend) -> web.StreamResponse:
        response = web.StreamResponse(headers={INCARNATION: self._service.incarnation.hex()})
        response.content_type = _MEDIA
        response.content_length = len(data)
        await response.prepare(request)
        view = memoryview(data)
        try:
            for at in range(0, len(view), SLICE):
                await spend(len(view[at : at + SLICE]))
                async with asyncio.timeout(STALL_S):
                    await response.write(view[at : at + SLICE])
            await response.write_eof()
        except (TimeoutError, ConnectionError):
            response.force_close()  # the head is sent: a short body is all that can still say no
            if request.transport is not None:
                request.transport.abort()
        return response

    @contextlib.asynccontextmanager
    async def _download(self, who: bytes) -> AsyncIterator[None]:
        if not self._downloads.begin_at_once(who, DOWNLOADS):
            raise RequestRefusedError("busy", "many objects are being read", after_s=1.0)
        try:
            yield
        finally:
            self._downloads.end(who)


def peer_key(request: web.Request) -> bytes | None:
    """Return the public key that the client proved to hold, None without a certificate."""
    tls = request.get_extra_info("ssl_object")
    der = None if tls is None else tls.getpeercert(binary_form=True)
    if der is None:
        return None
    try:
        return key_of_certificate(der)
    except FormatError:
        return None


async def _stopping(_request: web.Request) -> web.StreamResponse:
    raise RequestRefusedError("unavailable", "the provider is stopping")


async def _expect_later(request: web.Request) -> None:
    """Leave "100 Continue" to the handler, which sends it when space is reserved."""


async def _pieces(request: web.Request, size: int) -> AsyncIterator[memoryview]:
    """Yield a body of exactly ``size`` bytes in pieces of a mebibyte, the last one shorter, while it keeps coming.

    A piece is valid until the next is asked for: all lie in one buffer.
    """
    gathered = memoryview(bytearray(min(PIECE, size)))
    at = received = 0
    loop = asyncio.get_running_loop()
    deadline = loop.time() + GRACE_S + size / MINIMUM_RATE
    while received < size:
        async with asyncio.timeout_at(min(deadline, loop.time() + STALL_S)):
            arrived, _ = await request.content.readchunk()
        if not arrived:
            raise RequestRefusedError("bad-request", f"the body ended after {received} of {size} bytes")
        received += len(arrived)
        rest = memoryview(arrived)
        while rest:
            take = rest[: len(gathered) - at]
            gathered[at : at + len(take)] = take
            at += len(take)
            rest = rest[len(take) :]
            if at == len(gathered) or (received == size and not rest):
                held = loop.time()
                yield gathered[:at]
                deadline += loop.time() - held  # who is held up by us is not slow
                at = 0


async def _read_body(request: web.Request, limit: int = MAX_REQUEST) -> bytes:
    length = request.content_length
    if length is None or length > limit:
        raise RequestRefusedError("bad-request", f"a body of at most {limit} bytes, with Content-Length")
    return b"".join([bytes(piece) async for piece in _pieces(request, length)])


def _join_request(body: bytes) -> JoinRequest:
    return decode(JoinRequest, body, limit=MAX_REQUEST)


def _statement(body: bytes) -> bytes:
    return decode(Signed, body).statement


def _name(request: web.Request) -> ObjectName:
    text = request.match_info["name"]
    if len(text) != 2 * NAME_SIZE or set(text) - set("0123456789abcdef"):
        raise RequestRefusedError("bad-request", "an object's name is 64 lower-case hex digits")
    return ObjectName(bytes.fromhex(text))


def _number(request: web.Request, key: str) -> int | None:
    text = request.query.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(LARGEST)):
        raise RequestRefusedError("bad-request", f"{key} is a number of bytes")
    return int(text)


def _operation(request: web.Request) -> str:
    if request.path.startswith("/v1/objects/"):
        return f"{request.method} object"
    op = request.path[len("/v1/") :]
    return op if op in OPS or op in BARE else "unknown"


def _record(record: Record) -> web.Response:
    return web.Response(body=encode(record), content_type=_MEDIA)


def _refusal(error: RequestRefusedError) -> web.Response:
    response = web.Response(status=STATUS[error.code], body=encode(error.record()), content_type=_MEDIA)
    if error.after_s:
        response.headers["Retry-After"] = str(max(1, round(error.after_s)))
    return response


Outside = Callable[[AdmitThrough], contextlib.AbstractAsyncContextManager[None]]
"""What brings connections that came another way than through the listener."""


@contextlib.asynccontextmanager
async def serving(
    service: Service,
    clock: Clock,
    *,
    host: str,
    port: int,
    context: SSLContext,
    sock: socket.socket | None = None,
    prober: Prober | None = None,
    relay: Relay | None = None,
    outside: Outside | None = None,
) -> AsyncIterator[list[str]]:
    """Answer requests inside the block; yields the endpoints ("host:port") listened on, with their real ports.

    ``sock`` listens already; it is taken instead of host and port, and closed at the end. ``prober`` dials back,
    ``relay`` passes connections on, ``outside`` brings others.

    On leaving, nothing new is taken and requests in flight are finished, for at most a minute.
    """
    face = Face(service, clock, prober, relay)
    runner = web.AppRunner(
        face.application(),
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=75,
        lingering_time=LINGER_S,
        read_bufsize=ARRIVING,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()

    async def admit(client: socket.socket, shake_s: float | None = None) -> None:
        server = runner.server
        assert server is not None, "it is set up"
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(server, client, ssl=context, ssl_handshake_timeout=shake_s)

    async def admit_through(client: socket.socket, relay: Identity) -> None:
        try:
            face.comes(client, f"relay {relay.hex()}")
        except OSError:  # it has gone again
            client.close()
        else:
            await admit(client, SHAKE_S)

    @contextlib.asynccontextmanager
    async def listened() -> AsyncIterator[list[str]]:
        if relay is not None:
            listeners = [sock] if sock is not None else listening(host, port)
            async with opened(listeners, relay, service.identity, admit) as endpoints:
                yield endpoints
            return
        site: web.BaseSite
        if sock is None:
            site = web.TCPSite(runner, host, port, ssl_context=context)
        else:
            site = web.SockSite(runner, sock, ssl_context=context)
        await site.start()
        try:
            yield [join_endpoint(address[0], address[1]) for address in runner.addresses]
        finally:
            await site.stop()

    try:
        async with contextlib.AsyncExitStack() as ways:
            endpoints = await ways.enter_async_context(listened())
            if outside is not None:
                await ways.enter_async_context(outside(admit_through))
            yield endpoints
        await face.drain()
    finally:
        await runner.cleanup()
