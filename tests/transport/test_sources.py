"""One provider fetches from another over TLS; and where it does not even knock."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from replicator.clock import NS
from replicator.crypto.sign import Context, SigningKey
from replicator.errors import PeerError, RefusedError, UnreachableError, UsageError
from replicator.format.codec import encode
from replicator.format.merkle import name_of
from replicator.format.offer import encode_offer
from replicator.format.permit import Permit, Pickup
from replicator.ids import Identity
from replicator.transport.reachable import Reachable
from replicator.transport.sources import MOST_DIALLED, TlsSources
from replicator.wire.messages import KnownOffer, Offers, OffersRequest
from tests.fakes import SeededRng
from tests.provider.tenant import MIB, data_object, put
from tests.transport.live import Live, living, run

LOOPBACK = Reachable(["127.0.0.0/8"])
DATA = data_object(3, MIB)
PULLER = SigningKey(SeededRng("puller").bytes(32))


def pickup(live: Live, by: SigningKey = PULLER) -> bytes:
    now_ns = live.house.clock.now_ns()
    permit = Permit(
        tenant=live.tenant.id,
        source=live.service.identity,
        puller=PULLER.identity,
        names=name_of(DATA),
        offset=0,
        length=0,
        issued_ns=now_ns,
        expires_ns=now_ns + 3600 * NS,
    )
    asked = Pickup(
        permit=live.tenant.node.sign(Context.PERMIT, encode(permit)),
        source=live.service.identity,
        name=name_of(DATA),
        offset=0,
        length=0,
        asked_ns=now_ns,
    )
    return by.sign(Context.PICKUP, encode(asked))


def fetch(
    sources: TlsSources, endpoints: tuple[str, ...], source: Identity, asked: bytes, size: int = len(DATA)
) -> Awaitable[bytes]:
    def work() -> bytes:
        found: list[bytes] = []
        sources.fetch(endpoints, source, asked, size, lambda piece: found.append(bytes(piece)))
        return b"".join(found)

    return asyncio.to_thread(work)


async def failing(work: Awaitable[object]) -> PeerError:
    with pytest.raises(PeerError) as caught:
        await work
    return caught.value


def test_an_object_comes_from_the_provider_whose_key_was_named_and_from_no_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(str(tmp_path)) as live:
            put(live.service.session(live.tenant.node.public), DATA)
            sources = TlsSources(LOOPBACK)
            where, who = ("127.0.0.1:1", live.endpoint), live.service.identity
            assert await fetch(sources, where, who, pickup(live)) == DATA
            error = await failing(fetch(sources, where, who, pickup(live, live.tenant.node)))
            assert isinstance(error, RefusedError)
            assert error.code == "forbidden"
            other = await failing(fetch(sources, where, Identity(bytes(32)), pickup(live)))
            assert isinstance(other, UnreachableError), "another key answers there"
            await failing(fetch(sources, where, who, pickup(live), size=len(DATA) // 2))
            nowhere = await failing(fetch(TlsSources(Reachable(["public"])), where, who, pickup(live)))
            assert "may be dialled" in str(nowhere)

    run(work)


def test_a_provider_announces_itself_to_one_that_knows_it_and_to_no_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(str(tmp_path)) as live:
            first, second = (
                PULLER.sign(
                    Context.OFFER,
                    encode_offer(replace(live.provider.offer(), provider_key=PULLER.public, number=number)),
                )
                for number in (1, 2)
            )
            sources = TlsSources(LOOPBACK)

            def announce(who: Identity = live.service.identity) -> Awaitable[None]:
                return asyncio.to_thread(sources.announce, ("127.0.0.1:1", live.endpoint), who, second)

            unknown = await failing(announce())
            assert isinstance(unknown, RefusedError)
            assert unknown.code == "not-found"
            connection = await live.connect()
            known = [KnownOffer(identity=PULLER.identity, number=0)]
            await connection.call("offers", OffersRequest(known=[], offers=[first]), Offers)
            await announce()
            found = await connection.call("offers", OffersRequest(known=known, offers=[]), Offers)
            assert found.offers == [second]
            assert isinstance(await failing(announce(PULLER.identity)), UnreachableError)
            await connection.close()

    run(work)


def test_an_address_that_is_not_allowed_is_not_even_dialled() -> None:
    """A listener on loopback, as a service inside a house would be, hears nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0)
    port = listener.getsockname()[1]
    sources = TlsSources(Reachable(["public", "10.8.0.0/24"]), connect_s=1.0)
    with pytest.raises(UnreachableError):
        sources.fetch((f"127.0.0.1:{port}", f"[::ffff:127.0.0.1]:{port}"), Identity(bytes(32)), b"", 1, lambda _: None)
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()


def test_closing_breaks_off_a_source_that_never_answers() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    sources = TlsSources(LOOPBACK, connect_s=60.0)
    failed: list[PeerError] = []

    def work() -> None:
        try:
            where = (f"127.0.0.1:{listener.getsockname()[1]}",)
            sources.fetch(where, Identity(bytes(32)), b"", 1, lambda _: None)
        except PeerError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    connection, _ = listener.accept()
    connection.recv(5)
    sources.close()
    thread.join(timeout=30)
    connection.close()
    listener.close()
    assert failed
    assert not thread.is_alive()


def test_nothing_is_said_to_who_cannot_prove_the_key_and_redirects_lead_nowhere(tmp_path: Path) -> None:
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def impostor() -> None:
        connection, _ = listener.accept()
        heard.append(connection.recv(5))
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: https://169.254.169.254/\r\n\r\n")
        connection.close()

    thread = threading.Thread(target=impostor)
    thread.start()
    sources = TlsSources(LOOPBACK, connect_s=2.0)
    with pytest.raises(UnreachableError):
        sources.fetch((f"127.0.0.1:{listener.getsockname()[1]}",), Identity(bytes(32)), b"secret", 1, lambda _: None)
    thread.join()
    listener.close()
    assert heard[0][:1] == b"\x16", "a TLS handshake, and no more"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),  # noqa: S104 - looked at
        *("255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:0:1::"),
        "fec0::1",
    ],
)
def test_what_is_not_the_public_internet_is_not_dialled(address: str) -> None:
    assert not Reachable(["public"]).allows(address)
    assert not Reachable([]).allows(address)


def test_what_the_operator_names_is_and_so_is_the_public_internet() -> None:
    both = Reachable(["public", "10.8.0.0/24", "fd12::/64"])
    assert all(both.allows(one) for one in ("10.8.0.7", "::ffff:10.8.0.7", "fd12::1", "1.1.1.1", "2606:4700::1111"))
    assert not any(both.allows(one) for one in ("10.8.1.7", "fd13::1", "127.0.0.1"))
    vpn = Reachable(["10.8.0.0/24"])
    assert vpn.allows("10.8.0.7")
    assert not vpn.allows("1.1.1.1")
    assert both
    assert not Reachable(["nobody"])
    assert not Reachable(["nobody"]).allows("1.1.1.1")


@pytest.mark.parametrize("words", [["everybody"], ["10.8.0.1/24"], [""], ["nobody", "public"], ["10.0.0.0/33"]])
def test_words_that_mean_no_network_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        Reachable(words)


def test_a_name_is_resolved_once_and_each_of_its_addresses_looked_at() -> None:
    """What is dialled is the address that was looked at: a name could mean another a moment later."""
    answers = iter([["10.0.0.1", "1.1.1.1", "127.0.0.1"], ["127.0.0.1"]])
    resolve: Callable[[str, int], list[str]] = lambda _host, _port: next(answers)  # noqa: E731 - two answers in turn
    assert Reachable(["public"]).addresses("a.example:7144", resolve) == [("1.1.1.1", 7144)]
    assert Reachable(["public"]).addresses("a.example:7144", resolve) == []


def test_who_makes_up_an_offer_does_not_have_everything_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address that does not answer costs seconds, and an offer has room for thousands, as a name has."""
    dialled: list[str] = []

    def dial(where: tuple[str, int], **_: float) -> socket.socket:
        dialled.append(where[0])
        raise TimeoutError

    many = [f"127.0.0.{number}" for number in range(1, 100)]
    monkeypatch.setattr("replicator.transport.reachable.resolved", lambda _host, _port: many)
    monkeypatch.setattr("socket.create_connection", dial)
    sources = TlsSources(LOOPBACK)
    for endpoints in (["many.example:1"], [f"{one}.example:1" for one in range(100)]):
        dialled.clear()
        with pytest.raises(UnreachableError):
            sources.fetch(endpoints, Identity(bytes(32)), b"", 1, lambda _: None)
        assert len(dialled) == MOST_DIALLED
    sources.close()
    dialled.clear()
    with pytest.raises(UnreachableError):
        sources.fetch(["many.example:1"], Identity(bytes(32)), b"", 1, lambda _: None)
    assert dialled == [], "one that is stopping dials nobody"
