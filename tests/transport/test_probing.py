"""Dialling back: what is told of an address, how little, and whom it is told."""

import asyncio
import threading

import msgspec
import pytest

from replicator.crypto.sign import Context, SigningKey
from replicator.endpoints import relayed_name, via
from replicator.format.offer import encode_offer
from replicator.ids import Identity
from replicator.transport import probing
from replicator.transport.base import Target
from replicator.transport.probing import MOST_DIALLED, WHOLE_S, Prober
from replicator.transport.reachable import Reachable
from replicator.transport.server import PROBE_BURST
from replicator.transport.tls import PeerCertificate
from replicator.wire.messages import Offers, OffersRequest, ProbeReply, Signed
from tests.fakes import FakeClock, SeededRng
from tests.transport.live import Live, living, refused, run

ME = SigningKey(SeededRng("asker").bytes(32))
OTHER = Identity(bytes(range(32)))


class Net:
    """A network of addresses with who answers at each; what was dialled, and how long an answer took."""

    def __init__(self, answers: dict[str, Identity], names: dict[str, list[str]] | None = None) -> None:
        self.answers = answers
        self.names = names or {}
        self.dialled: list[tuple[str, int, str | None]] = []
        self.clock = FakeClock()

    async def look(self, host: str, port: int, *, timeout_s: float, server_name: str | None = None) -> PeerCertificate:
        assert timeout_s < WHOLE_S, "or it would be told by the time"
        self.dialled.append((host, port, server_name))
        if host not in self.answers:
            raise ConnectionRefusedError(111, "refused")
        return PeerCertificate(der=b"", identity=self.answers[host])

    def resolve(self, host: str, _port: int) -> list[str]:
        if host not in self.names and not host[0].isdigit() and ":" not in host:
            raise OSError(-2, "not known")
        return self.names.get(host, [host])

    def probe(self, *endpoints: str, words: tuple[str, ...] = ("public",)) -> list[tuple[str, int, str]]:
        prober = Prober(Reachable(words), look=self.look, resolve=self.resolve, wait=self.clock.sleep)
        found = asyncio.run(prober.probe(endpoints, ME.identity))
        return [(one.endpoint, one.family, one.answer) for one in found]


def test_each_family_of_each_endpoint_is_dialled_once_and_named() -> None:
    net = Net(
        {"198.51.100.1": ME.identity, "8.8.8.8": ME.identity, "9.9.9.9": OTHER},
        {"me.example": ["2600::1", "8.8.8.8", "8.8.4.4"], "other.example": ["9.9.9.9"]},
    )
    assert net.probe("me.example:7144", "other.example:1", "1.1.1.1:2") == [
        ("me.example:7144", 4, "your key"),
        ("me.example:7144", 6, "nothing"),
        ("other.example:1", 4, "another key"),
        ("1.1.1.1:2", 4, "nothing"),
    ]
    assert sorted(net.dialled) == [
        ("1.1.1.1", 2, None),
        ("2600::1", 7144, None),
        ("8.8.8.8", 7144, None),
        ("9.9.9.9", 1, None),
    ]


def test_an_address_inside_is_not_dialled_and_a_name_that_leads_there_is_nothing() -> None:
    net = Net({"192.168.1.1": ME.identity, "10.8.0.2": ME.identity}, {"printer.lan": ["192.168.1.1"]})
    inside = ("192.168.1.1:80", "127.0.0.1:7144", "[::1]:22", "printer.lan:80", "unknown.lan:80", "[fe80::1]:1")
    assert net.probe(*inside) == [
        ("192.168.1.1:80", 0, "private"),
        ("127.0.0.1:7144", 0, "private"),
        ("[::1]:22", 0, "private"),
        ("printer.lan:80", 0, "nothing"),
        ("unknown.lan:80", 0, "nothing"),
        ("[fe80::1]:1", 0, "private"),
    ]
    assert net.dialled == []
    assert net.probe("10.8.0.2:7144", words=("public", "10.8.0.0/24")) == [("10.8.0.2:7144", 4, "your key")]


def test_why_there_is_nothing_cannot_be_told_by_the_time_it_took() -> None:
    for endpoint, answer in (
        ("1.1.1.1:1", "nothing"),
        ("127.0.0.1:1", "private"),
        ("nowhere:1", "nothing"),
        ("junk", "nothing"),
    ):
        net = Net({})
        assert [one[2] for one in net.probe(endpoint)] == [answer]
        assert net.clock.monotonic() == WHOLE_S
    net = Net({"8.8.8.8": OTHER})
    net.probe("8.8.8.8:1")
    assert net.clock.monotonic() == WHOLE_S


def test_a_name_that_nobody_answers_for_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks may own the server that is asked for it."""
    monkeypatch.setattr(probing, "RESOLVE_S", 0.01)
    answered = threading.Event()
    net = Net({"8.8.8.8": ME.identity})

    def resolve(host: str, _port: int) -> list[str]:
        if host == "tar.example":
            answered.wait()
        return ["8.8.8.8"]

    async def work() -> None:
        prober = Prober(Reachable(["public"]), look=net.look, resolve=resolve, wait=net.clock.sleep)
        try:
            found = await prober.probe(["tar.example:1"] * probing.MOST_DIALLED, ME.identity)
            assert [one.answer for one in found] == ["nothing"] * probing.MOST_DIALLED
            assert net.clock.monotonic() == WHOLE_S, "as if nobody answered there"
            assert await asyncio.to_thread(lambda: 1) == 1, "what others do on threads goes on"
        finally:
            answered.set()

    asyncio.run(work())


def test_no_more_are_dialled_than_anybody_tries_and_a_relay_is_asked_by_name() -> None:
    many = {f"8.8.8.{n}": ME.identity for n in range(2 * MOST_DIALLED)}
    net = Net(many)
    found = net.probe(*(f"{host}:1" for host in many))
    assert len(net.dialled) == MOST_DIALLED
    assert [answer for _, _, answer in found].count("nothing") == MOST_DIALLED
    net = Net({"8.8.8.8": ME.identity})
    assert net.probe(via(OTHER, "8.8.8.8:7144"))[0][1:] == (4, "your key")
    assert net.dialled == [("8.8.8.8", 7144, relayed_name(ME.identity))]


def offer(at: Live, *endpoints: str, number: int = 1, key: SigningKey = ME) -> bytes:
    changes = {"provider_key": key.public, "number": number, "endpoints": list(endpoints)}
    return key.sign(Context.OFFER, encode_offer(msgspec.structs.replace(at.provider.offer(), **changes)))


def probe(at: Live, signed: bytes) -> "asyncio.Future[ProbeReply]":
    target = Target(identity=at.service.identity, name="a", endpoints=(at.endpoint,), key=ME, certificate=None)
    return asyncio.ensure_future(at.network.ask(target, "probe", Signed(statement=signed), ProbeReply))


def test_only_a_provider_that_a_tenant_told_of_has_itself_dialled_and_not_often(tmp_path: str) -> None:
    async def work() -> None:
        prober = Prober(Reachable(["127.0.0.0/8"]), wait=FakeClock().sleep)
        async with living(str(tmp_path), prober) as at:
            signed = offer(at, at.endpoint, "192.168.1.1:1")
            assert await refused(probe(at, signed)) == "not-found"
            connection = await at.connect()
            await connection.call("offers", OffersRequest(known=[], offers=[signed]), Offers)
            await connection.close()
            reply = await probe(at, signed)
            assert reply.seen == "127.0.0.1"
            assert [(one.family, one.answer) for one in reply.probed] == [(4, "another key"), (0, "private")]
            assert await refused(probe(at, signed[:-1] + b"\x01")) == "bad-request"
            found = [await _outcome(probe(at, signed)) for _ in range(PROBE_BURST)]
            assert "busy" in found

    run(work)


async def _outcome(asked: "asyncio.Future[ProbeReply]") -> str:
    try:
        await asked
    except Exception as error:
        return "busy" if "probes" in str(error) else str(error)
    return "answered"


def test_who_dials_nobody_says_so(tmp_path: str) -> None:
    async def work() -> None:
        async with living(str(tmp_path)) as at:
            assert await refused(probe(at, offer(at, at.endpoint))) == "forbidden"

    run(work)
