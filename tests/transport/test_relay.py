"""A provider that nobody can dial is reached through one that passes on what it cannot read."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.clock import SystemClock
from replicator.crypto.sign import Context, SigningKey
from replicator.endpoints import parse_way, relayed_identity, relayed_name, via
from replicator.errors import BusyError, ProtocolError, RefusedError, SpaceError, UnreachableError
from replicator.format.codec import encode
from replicator.format.merkle import name_of
from replicator.format.offer import encode_offer
from replicator.format.relay import Waiting
from replicator.fs import PosixFs
from replicator.ids import Identity, address_form
from replicator.provider.daemon import run_daemon
from replicator.provider.home import Provider, init_provider, open_provider
from replicator.rng import SystemRng
from replicator.transport import door as doors
from replicator.transport import relay as relaying
from replicator.transport import server
from replicator.transport import via as waiting
from replicator.transport.base import Target
from replicator.transport.client import TlsNetwork
from replicator.transport.door import listening, opened
from replicator.transport.hello import MOST, needed, wanted
from replicator.transport.pull import Pull
from replicator.transport.reachable import Reachable
from replicator.transport.relay import MAGIC, Rate, Relay, spliced
from replicator.transport.sources import TlsSources
from replicator.wire.messages import Empty, EnrolRequest, Offers, OffersRequest, Signed, WaitReply
from tests.fakes import START_NS, FakeClock, SeededRng
from tests.provider.tenant import MIB, Tenant, data_object, secret_of, terms
from tests.transport.live import living, refused, run

SOMEBODY = Identity(bytes(range(32)))


@dataclass
class Place:
    """One provider's daemon in this process, which can be stopped and started."""

    path: str
    endpoint: str = ""
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """It has waited at a relay."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """It has noted that a relay is lost."""

    def __post_init__(self) -> None:
        made = init_provider(self.path, data=f"{self.path}/data", terms=terms(), **self._world)
        self.identity = made.key.identity
        made.close()

    @property
    def _world(self) -> dict[str, Any]:
        return {"fs": PosixFs(), "clock": SystemClock(), "rng": SystemRng()}

    def set(self, work: Callable[[Provider], object]) -> None:
        provider = open_provider(self.path, **self._world)
        work(provider)
        provider.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Provider]:
        provider = open_provider(self.path, **self._world)
        lines: asyncio.Queue[str] = asyncio.Queue()
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        known, noted = provider.reached_via, provider.relay_lost

        def reached_via(relay: Identity, endpoints: list[str]) -> None:
            known(relay, endpoints)
            loop.call_soon_threadsafe(self.heard.set)

        def relay_lost(relay: Identity, since_ns: int, reason: str) -> None:
            noted(relay, since_ns, reason)
            loop.call_soon_threadsafe(self.lost.set)

        provider.reached_via = reached_via  # type: ignore[method-assign,assignment]
        provider.relay_lost = relay_lost  # type: ignore[method-assign]
        self.heard.clear()
        daemon = asyncio.ensure_future(
            run_daemon(
                provider, SystemClock(), listen="127.0.0.1:0", announce=lines.put_nowait, stop=stop, rng=SystemRng()
            )
        )
        said = asyncio.ensure_future(lines.get())
        await asyncio.wait((daemon, said), return_when=asyncio.FIRST_COMPLETED)
        if not said.done():
            await daemon
        self.endpoint = said.result().removeprefix("listening on ")
        try:
            yield provider
        finally:
            stop.set()
            await daemon
            provider.close()


@dataclass
class Pair:
    """A relay, and a provider behind a router that waits there."""

    relay: Place
    hidden: Place
    provider: Provider
    tenant: Tenant = field(default_factory=lambda: Tenant("far away"))
    network: TlsNetwork = field(default_factory=TlsNetwork)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where the hidden one says that it is reached."""
        return tuple(self.provider.offer().endpoints)

    def target(self, certificate: bytes | None = None) -> Target:
        return Target(
            identity=self.hidden.identity,
            name="hidden",
            endpoints=self.endpoints,
            key=self.tenant.node,
            certificate=certificate,
        )

    async def enrol(self) -> bytes:
        secret = secret_of(self.provider.invite(quota=100 * MIB, label=""))
        node, root = self.tenant.node.public, self.tenant.root_statement()
        request = EnrolRequest(holder_key=node, secret=secret, order=b"", root=root)
        return (await self.network.enrol(self.target(), request)).certificate


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial a lost relay again at once."""
    monkeypatch.setattr(waiting, "FIRST_S", 0.01)
    monkeypatch.setattr(waiting, "LAST_S", 0.05)


def places(path: Path) -> tuple[Place, Place]:
    """Return a relay and who is to be relayed, as their operators set them; the relay's port is not known yet."""
    relay, hidden = (Place(str(path / name)) for name in ("relay", "hidden"))
    relay.set(lambda provider: provider.set_relay([hidden.identity.hex()], None))
    return relay, hidden


@asynccontextmanager
async def pair(path: Path) -> AsyncIterator[Pair]:
    relay, hidden = places(path)
    async with relay.serving() as middle:
        middle.advertise([relay.endpoint])
        hidden.set(lambda provider: provider.set_via([f"{relay.endpoint}/{address_form(relay.identity)}"]))
        async with hidden.serving() as provider:
            await hidden.heard.wait()
            yield Pair(relay, hidden, provider)


def test_everything_goes_through_a_relay_and_the_pin_holds(tmp_path: Path) -> None:
    async def work() -> None:
        async with pair(tmp_path) as both:
            assert both.endpoints == (via(both.relay.identity, both.relay.endpoint),), "nowhere else"
            certificate = await both.enrol()
            one, two = [await both.network.connect(both.target(certificate)) for _ in range(2)]
            assert one.endpoint.startswith("via:")
            objects = [data_object(seed, MIB) for seed in range(4)]
            await asyncio.gather(*(one.put(name_of(data), data) for data in objects[:2]))
            await asyncio.gather(*(two.put(name_of(data), data) for data in objects[2:]))
            assert list(await asyncio.gather(*(one.get(name_of(data)) for data in objects))) == objects

            # A restore's fetching process, and a provider that is sent there for a copy.
            reach, memory = one.reach(), memoryview(bytearray(16 * MIB))
            assert reach is not None
            fetching = Pull(reach)
            assert await asyncio.to_thread(fetching.get_into, name_of(objects[0]), memory) == MIB
            fetching.close()
            assert bytes(memory[:MIB]) == objects[0]
            sources, hidden = TlsSources(Reachable(["127.0.0.0/8"])), both.hidden.identity
            with pytest.raises(RefusedError):  # by who is meant, that this is no pickup
                await asyncio.to_thread(sources.fetch, both.endpoints, hidden, b"", 1, lambda _: None)
            await one.close()
            await two.close()

    run(work)


def test_a_lost_relay_is_found_again_where_it_moved_to_and_what_it_passed_on_is_counted(tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            relay, hidden = places(tmp_path)
            async with relay.serving() as middle:
                middle.advertise([relay.endpoint])
                hidden.set(lambda provider: provider.set_via([f"{relay.endpoint}/{address_form(relay.identity)}"]))
                both = Pair(relay, hidden, await stack.enter_async_context(hidden.serving()))
                await hidden.heard.wait()
                certificate = await both.enrol()
                connection = await both.network.connect(both.target(certificate))
                data = data_object(1, MIB)
                await connection.put(name_of(data), data)
                before = both.endpoints
            with pytest.raises(UnreachableError):
                await connection.get(name_of(data))
            await connection.close()
            with pytest.raises(UnreachableError):
                await both.network.connect(both.target(certificate))
            await hidden.lost.wait()
            [known] = both.provider.relays()
            assert known.lost_ns > 0
            assert "no endpoint answers" in known.reason
            async with relay.serving() as middle:
                middle.advertise([relay.endpoint])
                # Somebody in the same house, as a tenant that also has the relay among its providers.
                near = await both.network.connect(replace(both.target(certificate), endpoints=(hidden.endpoint,)))
                offers = [own_offer(middle)]
                await near.call("offers", OffersRequest(known=[], offers=offers), Offers)
                await near.close()
                while both.endpoints == before:
                    hidden.heard.clear()
                    await hidden.heard.wait()
                assert both.endpoints == (via(relay.identity, relay.endpoint),)
                connection = await both.network.connect(both.target(certificate))
                assert await connection.get(name_of(data)) == data
                await connection.close()
                assert [one.lost_ns for one in both.provider.relays()] == [0]
                [month] = middle.status()["relayed"]
        assert month["provider"] == address_form(hidden.identity)
        assert month["connections"] >= 2
        assert MIB < month["bytes"] < 2 * MIB, "of the first life of the relay"

    run(work)


def test_strangers_behind_a_relay_take_nothing_from_who_shows_a_certificate_or_comes_directly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ENROL_BURST", 8)
    monkeypatch.setattr(server, "ENROL_PER_S", 1 / 1800)

    async def work() -> None:
        async with pair(tmp_path) as both:
            certificate = await both.enrol()
            network, relayed = both.network, both.target()
            junk = Signed(statement=bytes(96))

            async def answer(target: Target, key: SigningKey | None = None) -> str:
                try:
                    await network.ask(replace(target, key=key or target.key), "announce", junk, Empty)
                except BusyError:
                    return "busy"
                except RefusedError as error:
                    return error.code
                raise AssertionError("nothing to take")

            strangers = [Tenant(f"stranger {number}").node for number in range(6)]
            said = [await answer(relayed, key) for key in strangers]
            assert said == ["bad-request"] * 4 + ["busy"] * 2, "half of all that may be asked, all together"
            assert await answer(both.target(certificate)) == "bad-request", "through the same relay"
            assert await answer(relayed) == "busy", "without its certificate it is one of them"
            near = replace(relayed, endpoints=(both.hidden.endpoint,))
            assert await answer(near) == "bad-request", "from the relay's own address"

    run(work)


def own_offer(provider: Provider) -> bytes:
    """The signed offer of a provider, as any contact shows it."""
    return provider.key.sign(Context.OFFER, encode_offer(provider.offer()))


def test_nobody_is_passed_on_to_who_did_not_ask_or_may_not(tmp_path: Path) -> None:
    async def work() -> None:
        relay, hidden = places(tmp_path)
        relay.set(lambda provider: provider.set_relay([SOMEBODY.hex()], None))
        network = TlsNetwork()
        stranger = Tenant("stranger").node

        def waiting_word(by_relay: Identity, asked_ns: int) -> Signed:
            return Signed(statement=stranger.sign(Context.WAITING, encode(Waiting(relay=by_relay, asked_ns=asked_ns))))

        async with relay.serving() as middle:
            at = Target(
                identity=relay.identity, name="relay", endpoints=(relay.endpoint,), key=stranger, certificate=None
            )
            now_ns = SystemClock().now_ns()
            for word in (
                waiting_word(relay.identity, now_ns),
                waiting_word(hidden.identity, now_ns),
                waiting_word(relay.identity, now_ns - 3600 * 10**9),
            ):
                assert await refused(network.ask(at, "wait", word, WaitReply)) == "forbidden"
            for bad in (b"", bytes(200)):
                answer = await refused(network.ask(at, "wait", Signed(statement=bad), WaitReply))
                assert answer in ("forbidden", "bad-request")
            hidden_at = Target(
                identity=hidden.identity,
                name="hidden",
                endpoints=(via(relay.identity, relay.endpoint),),
                key=stranger,
                certificate=None,
            )
            with pytest.raises(UnreachableError):
                await network.connect(hidden_at)
            assert middle.status()["relayed"] == []

    run(work)


def test_a_relay_that_answers_itself_is_found_out(tmp_path: Path) -> None:
    """As one of an earlier release does, or one that would like to read."""

    async def work() -> None:
        async with living(str(tmp_path)) as live:
            target = Target(
                identity=SOMEBODY,
                name="hidden",
                endpoints=(via(live.service.identity, live.endpoint),),
                key=live.tenant.node,
                certificate=None,
            )
            with pytest.raises(ProtocolError, match="another key"):
                await TlsNetwork().connect(target)
            word = live.tenant.node.sign(Context.WAITING, encode(Waiting(relay=live.service.identity, asked_ns=0)))
            asked = live.network.ask(live.target(), "wait", Signed(statement=word), WaitReply)
            assert await refused(asked) == "forbidden"

    run(work)


# The parts


@contextmanager
def pairs(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Connected sockets that do not block."""
    made = [socket.socketpair() for _ in range(count)]
    for one in made:
        for end in one:
            end.settimeout(0)
    try:
        yield made
    finally:
        for one in made:
            for end in one:
                end.close()


async def read(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 1 << 20)


def a_relay(clock: FakeClock | None = None) -> tuple[Relay, list[int]]:
    counted: list[int] = []
    relay = Relay(clock or FakeClock(), SeededRng("relay"), lambda _, moved: counted.append(moved))
    return relay, counted


async def asked(relay: Relay) -> "asyncio.Future[list[bytes]]":
    """Let somebody wait, who was told before that it may."""
    assert await relay.wait(SOMEBODY) == []
    asking = asyncio.ensure_future(relay.wait(SOMEBODY))
    await asyncio.sleep(0)
    return asking


def test_bytes_go_both_ways_and_each_end_may_stop_speaking_first() -> None:
    async def work() -> None:
        with pairs(2) as ((client, door), (provider, back)):
            relay, counted = a_relay()
            asking = await asked(relay)
            passing = asyncio.ensure_future(relay.pass_on(door, "a", SOMEBODY))
            [token] = await asking
            relay.join(back, token)
            client.send(b"hello")
            assert await read(provider) == b"hello"
            client.shutdown(socket.SHUT_WR)
            assert await read(provider) == b""
            provider.send(b"hello yourself")
            assert await read(client) == b"hello yourself"
            provider.close()
            assert await read(client) == b""
            await passing
            assert counted == [len(b"hellohello yourself")]

    run(work)


def test_a_token_is_for_one_and_a_made_up_one_for_nobody() -> None:
    async def work() -> None:
        with pairs(4) as ((_client, door), (provider, back), (again, second), (stranger, third)):
            relay, _ = a_relay()
            asking = await asked(relay)
            passing = asyncio.ensure_future(relay.pass_on(door, "a", SOMEBODY))
            [token] = await asking
            relay.join(third, bytes(16))
            assert await read(stranger) == b""
            relay.join(back, token)
            relay.join(second, token)
            assert await read(again) == b""
            relay.close()
            await passing
            assert await read(provider) == b""

    run(work)


def test_a_client_that_nobody_comes_back_for_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(relaying, "COMING_S", 0.0)
        monkeypatch.setattr(relaying, "POLL_S", 0.0)
        clock = FakeClock()
        with pairs(2) as ((client, door), (late, second)):
            relay, counted = a_relay(clock)
            await relay.pass_on(second, "a", SOMEBODY)
            assert await read(late) == b"", "it never waited"
            assert await relay.wait(SOMEBODY) == []
            assert relay.waits(SOMEBODY), "between two questions"
            await relay.pass_on(door, "a", SOMEBODY)
            assert await read(client) == b""
            assert await relay.wait(SOMEBODY) == [], "nobody is sent to a client that has gone"
            clock.advance(relaying.PRESENT_S)
            assert not relay.waits(SOMEBODY)
            assert counted == []

    run(work)


def test_who_has_gone_is_forgotten() -> None:
    """A tenant's own provider may tell of another one each time, and let that wait."""

    async def work() -> None:
        clock = FakeClock()
        relay, _ = a_relay(clock)
        asking = await asked(relay)
        with pairs(1) as ((client, door),):
            for number in range(100):
                clock.advance(relaying.PRESENT_S / 2)
                assert await relay.wait(Identity(number.to_bytes(32, "big"))) == []
            assert len(relay._held) <= 4
            passing = asyncio.ensure_future(relay.pass_on(door, "a", SOMEBODY))
            [_] = await asking
            clock.advance(2 * relaying.PRESENT_S)
            assert await relay.wait(Identity(bytes(32))) == []
            assert SOMEBODY in relay._held, "somebody is passed on to it"
            relay.close()
            await passing
            assert await read(client) == b""

    run(work)


def test_no_stranger_takes_every_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "MOST_OF_ONE", 2)
    monkeypatch.setattr(relaying, "MOST", 3)

    async def work() -> None:
        with pairs(5) as made:
            relay, _ = a_relay()
            asking = await asked(relay)
            passing = [
                asyncio.ensure_future(relay.pass_on(door, source, SOMEBODY))
                for (_, door), source in zip(made, "aaabc", strict=True)
            ]
            assert await read(made[2][0]) == b"", "the third of one address"
            assert await read(made[4][0]) == b"", "the fourth of all"
            tokens = await asking
            tokens += [] if len(tokens) == 3 else await relay.wait(SOMEBODY)
            assert len(tokens) == 3
            relay.close()
            await asyncio.gather(*passing)
            assert all(await asyncio.gather(*(read(client) for client, _ in made))) is False

    run(work)


def test_what_moves_nothing_for_long_is_cut_and_the_rate_is_kept() -> None:
    async def work() -> None:
        clock = FakeClock()
        rate = Rate(clock, 1000)
        for _ in range(5):
            await rate.spend(1000)
        assert clock.monotonic() == pytest.approx(4.0), "the first second's worth goes at once"
        with pairs(2) as ((client, door), (provider, back)):
            assert await spliced(door, back, rate, idle_s=0.0) == 0
            assert (await read(client), await read(provider)) == (b"", b"")

    run(work)


def hello(name: str | None) -> bytes:
    """The first bytes of a TLS connection to a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return sent.read()


HELLO = hello(relayed_name(SOMEBODY))


def test_whom_a_connection_wants_is_read_from_its_first_record() -> None:
    assert wanted(HELLO) == SOMEBODY
    assert needed(HELLO) == len(HELLO)
    for name in ("example.org", None, "x.via.replicator.invalid", f"{relayed_name(SOMEBODY)}.x"):
        assert wanted(hello(name)) is None
    for size in range(len(HELLO)):
        assert wanted(HELLO[:size]) is None
        assert needed(HELLO[:size]) > size
    assert needed(b"GET / HTTP/1.1\r\n") == 16
    assert needed(b"\x16\x03\x01\xff\xff") == MOST


@given(st.integers(0, len(HELLO) - 1), st.binary(min_size=1, max_size=4))
def test_a_changed_greeting_is_for_somebody_or_for_who_answers(at: int, other: bytes) -> None:
    found = wanted(HELLO[:at] + other + HELLO[at + len(other) :])
    assert found is None or len(found) == len(SOMEBODY)
    assert wanted(other) is None


def test_a_way_is_written_and_read() -> None:
    way = parse_way(via(SOMEBODY, "[2001:db8::1]:7144"))
    assert (way.host, way.port, way.relay) == ("2001:db8::1", 7144, SOMEBODY)
    assert relayed_identity(relayed_name(SOMEBODY).upper()) == SOMEBODY
    assert way.server_name(SOMEBODY) == relayed_name(SOMEBODY)
    assert parse_way("a.example:1").server_name(SOMEBODY) is None
    for bad in ("via:", "via:abc@a:1", f"via:{address_form(SOMEBODY)}", f"via:{address_form(SOMEBODY)}@a", "via:@a:1"):
        with pytest.raises(ValueError, match="via:"):
            parse_way(bad)


@asynccontextmanager
async def a_door(relay: Relay, admitted: list[bytes]) -> AsyncIterator[tuple[str, int]]:
    loop = asyncio.get_running_loop()

    async def admit(client: socket.socket) -> None:
        admitted.append(await loop.sock_recv(client, 1 << 16))
        client.close()

    async with opened(listening("127.0.0.1", 0), relay, Identity(bytes(32)), admit) as endpoints:
        way = parse_way(endpoints[0])
        yield way.host, way.port


def test_a_greeting_in_pieces_is_waited_for_and_all_else_is_for_who_lives_there() -> None:
    async def work() -> None:
        loop, admitted = asyncio.get_running_loop(), list[bytes]()
        relay, _ = a_relay()
        async with a_door(relay, admitted) as where:

            async def say(*pieces: bytes) -> socket.socket:
                client = socket.socket()
                client.settimeout(0)
                await loop.sock_connect(client, where)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    await loop.sock_sendall(client, piece)
                    await asyncio.sleep(0.001)
                return client

            asking = await asked(relay)
            client = await say(HELLO[:3], HELLO[3:200], HELLO[200:])
            [token] = await asking
            provider = await say(MAGIC[:2], MAGIC[2:] + token[:5], token[5:] + b"answer")
            assert await read(client) == b"answer"
            assert await read(provider) == HELLO
            for words in (hello("example.org"), hello(relayed_name(Identity(bytes(32)))), b"GET / HTTP/1.1\r\n\r\n"):
                with await say(words) as other:
                    assert await read(other) == b""
                assert admitted[-1] == words
            for silent in (b"", b"\x16", MAGIC[:3]):
                (await say(*([silent] if silent else []))).close()
            client.close()
            provider.close()

    run(work)


def test_who_says_nothing_takes_no_place_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MOST_UNSEEN_OF_ONE", 2)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        relay, _ = a_relay()
        admitted: list[bytes] = []
        async with AsyncExitStack() as stack:
            where = await stack.enter_async_context(a_door(relay, admitted))

            async def knock(source: str) -> socket.socket:
                client = stack.enter_context(socket.socket())
                client.bind((source, 0))
                client.settimeout(0)
                await loop.sock_connect(client, where)
                return client

            for _ in range(2):
                await knock("127.0.0.1")
            assert await read(await knock("127.0.0.1")) == b"", "the third of one source"
            other = await knock("127.0.0.2")
            await loop.sock_sendall(other, b"GET / HTTP/1.1")
            assert await read(other) == b""
            assert admitted == [b"GET / HTTP/1.1"]

    run(work)


def test_a_relay_that_answers_without_end_is_not_asked_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty:
        """A connection to a relay that has an answer at once."""

        endpoint = "relay.example:1"

        def __init__(self, tokens: list[bytes]) -> None:
            self.answers = 0
            self.tokens = tokens

        async def call(self, *_: object) -> WaitReply:
            self.answers += 1
            if self.answers > 50:
                raise asyncio.CancelledError
            return WaitReply(incarnation=bytes(16), tokens=self.tokens, offer=b"")

        async def close(self) -> None:
            pass

    class Nowhere:
        def relay_endpoints(self, _relay: Identity) -> list[str]:
            return []

        def reached_via(self, _relay: Identity, _endpoints: list[str]) -> None:
            pass

        def relay_lost(self, _relay: Identity, _since_ns: int, _reason: str) -> None:
            raise AssertionError("it answers")

        def relay_found(self, _relay: Identity) -> None:
            pass

    async def nobody(*_: object) -> socket.socket:
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(waiting, "_greeted", nobody)

    async def asked_for(tokens: list[bytes]) -> float:
        clock, connection = FakeClock(), Hasty(tokens)

        async def reach(_target: Target) -> Hasty:
            return connection

        async def admit(_client: socket.socket, _relay: Identity) -> None:
            raise AssertionError("nobody comes from there")

        at = waiting.RelayAddress(endpoint="relay.example:1", identity=SOMEBODY)
        waiter = waiting._Waiter(admit, at, Nowhere(), Tenant("far away").node, clock, SeededRng("waiter"))
        waiter._network.reach = reach  # type: ignore[method-assign,assignment]
        with pytest.raises(asyncio.CancelledError):
            await waiter.run()
        return clock.monotonic()

    async def work() -> None:
        assert await asked_for([]) == pytest.approx(49 * waiting.QUIET_S)
        assert await asked_for([bytes(16)]) == pytest.approx(50 * waiting.PAUSE_S)

    run(work)


def test_a_relay_that_stays_away_is_noted_once_and_so_is_its_return() -> None:
    """Tries go on whatever becomes of the notes; one connection that broke is none."""
    notes: list[str] = []
    tries = iter(("found", "broke", "found", "down", "down", "down", "barred", "full", "barred", "found", "found", ""))
    full = False

    class Notebook:
        def relay_endpoints(self, _relay: Identity) -> list[str]:
            return []

        def reached_via(self, _relay: Identity, _endpoints: list[str]) -> None:
            pass

        def relay_lost(self, _relay: Identity, since_ns: int, reason: str) -> None:
            if full:
                raise SpaceError("no space", hint="free some")
            notes.append(f"{reason} since {(since_ns - START_NS) // 10**9 // 100}")

        def relay_found(self, _relay: Identity) -> None:
            notes.append("found")

    class Connection:
        endpoint = "relay.example:1"
        answered = False

        async def call(self, *_: object) -> WaitReply:
            if self.answered:
                raise UnreachableError("the relay", "broke")
            self.answered = True
            return WaitReply(incarnation=bytes(16), tokens=[], offer=b"")

        async def close(self) -> None:
            pass

    clock = FakeClock()

    async def reach(_target: Target) -> Connection:
        nonlocal full
        clock.set_wall(clock.now_ns() + 100 * 10**9)
        word = next(tries)
        if not word:
            raise asyncio.CancelledError
        full = word == "full"
        if word == "barred":
            raise RefusedError("the relay", word, code="forbidden")
        if word != "found":
            raise UnreachableError("the relay", "down" if word == "broke" else word)
        return Connection()

    async def admit(_client: socket.socket, _relay: Identity) -> None:
        raise AssertionError("nobody comes from there")

    async def work() -> None:
        at = waiting.RelayAddress(endpoint="relay.example:1", identity=SOMEBODY)
        waiter = waiting._Waiter(admit, at, Notebook(), Tenant("far away").node, clock, SeededRng("waiter"))
        waiter._network.reach = reach  # type: ignore[method-assign,assignment]
        with pytest.raises(asyncio.CancelledError):
            await waiter.run()

    run(work)
    first, down, barred, found = notes[0], *notes[-3:]
    assert (first, down, found) == ("found", "down since 3", "found"), "an earlier process may have left it lost"
    assert barred == "it answers: barred since 3"
    assert notes[1:-3] == ["down since 1", "found"], "the second try in a row that came to nothing"


def test_who_knocks_at_the_moment_of_closing_is_let_go_of() -> None:
    async def work() -> None:
        relay, _ = a_relay()
        [listener] = listening("127.0.0.1", 0)
        where = listener.getsockname()
        before = asyncio.all_tasks()

        class Closing:
            """Has everything cancelled that was begun, before what a new connection begins can take its first step."""

            def __getattr__(self, name: str) -> Any:
                return getattr(listener, name)

            def accept(self) -> Any:
                found = listener.accept()
                asyncio.get_running_loop().call_soon(
                    lambda: [task.cancel() for task in asyncio.all_tasks() - before if "_greet" in repr(task)]
                )
                return found

        async with opened([Closing()], relay, SOMEBODY, admit=never):  # type: ignore[list-item]  # a socket in all it has
            with socket.socket() as client:
                client.settimeout(0)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, where)
                for _ in range(10):
                    await asyncio.sleep(0)
        with pytest.raises(ConnectionError):
            socket.create_connection(where)

    async def never(_client: socket.socket) -> None:
        raise AssertionError

    run(work)
