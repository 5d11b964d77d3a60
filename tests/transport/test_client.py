"""Over real TLS on loopback: who gets in, what comes through, and what each mishap is called."""

import asyncio
import errno
import hashlib
import logging
import os
import socket
import ssl
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from replicator.charter.group import Voice, found_group, hash_of_secret, merge
from replicator.crypto.certificates import certificate_pem, client_certificate, private_pem, provider_certificate
from replicator.crypto.sign import Context, SigningKey, verify
from replicator.endpoints import split_endpoint
from replicator.errors import BusyError, ProtocolError, UnreachableError
from replicator.format.claim import Receipt
from replicator.format.codec import decode, encode
from replicator.format.group import Fact, Group, Member, Voucher
from replicator.format.merkle import name_of
from replicator.format.sizes import LARGEST
from replicator.ids import ObjectName
from replicator.provider.session import ProviderSession
from replicator.rng import SystemRng
from replicator.transport import client, server
from replicator.transport.base import Reach, Target
from replicator.transport.client import TlsConnection, TlsNetwork
from replicator.transport.patience import reason_of
from replicator.transport.reachable import source_of
from replicator.transport.tls import PeerCertificate, client_context, fetch_certificate
from replicator.wire.messages import (
    ClaimReply,
    Empty,
    Heads,
    HeadsRequest,
    Info,
    Inventory,
    InventoryRequest,
    JoinRequest,
    ProveReply,
    ProveRequest,
    Refused,
    Signed,
)
from tests.fakes import FakeClock, SeededRng
from tests.provider.tenant import MIB, SMALL, Tenant, data_object, publish_charter, right, settle
from tests.provider.test_session import break_file
from tests.transport.live import Live, living, refused, run

STRANGER = SigningKey(SeededRng("stranger").bytes(32))


def live(path: str, work: Callable[[Live], Awaitable[None]], **terms: object) -> None:
    """Run a test against a living provider."""

    async def inner() -> None:
        async with living(path, **terms) as found:
            await work(found)

    run(inner)


def test_objects_of_every_size_come_back_whole_and_in_ranges(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        connection = await at.connect()
        for size in (SMALL, MIB, LARGEST):
            data = data_object(size, size)
            signed = await connection.put(name_of(data), data)
            receipt = decode(Receipt, verify(signed, Context.RECEIPT, [at.provider.key.public]))
            assert (receipt.name, receipt.size) == (name_of(data), size)
            assert await connection.get(name_of(data)) == data
        assert await connection.get(name_of(data), 3 * MIB, 2 * MIB) == data[3 * MIB : 5 * MIB]
        assert await connection.get(name_of(data), 15 * MIB) == data[15 * MIB :]
        await connection.close()
        await connection.close()

    live(str(tmp_path), work)


def test_every_operation_comes_through(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        connection = await at.connect()
        data = data_object(1)
        await connection.put(name_of(data), data)
        claim = at.tenant.claim(at.service.identity, 1, [name_of(data)])
        assert (await connection.call("claim", Signed(statement=claim), ClaimReply)).missing == b""
        await connection.call("head", Signed(statement=at.tenant.head(1)), Signed)
        assert (await connection.call("heads", HeadsRequest(challenge=bytes(32)), Heads)).heads == [at.tenant.head(1)]
        found = await connection.call("inventory", InventoryRequest(after=b"", limit=10), Inventory)
        assert name_of(data) in {found.names[i : i + 32] for i in range(0, len(found.names), 32)}
        proved = await connection.call("prove", ProveRequest(names=name_of(data), leaves=[2]), ProveReply)
        assert proved.proofs[0] is not None
        assert (await connection.call("info", Empty(), Info)).claim == 1
        await connection.close()

    live(str(tmp_path), work)


def test_many_requests_of_one_connection_run_at_the_same_time(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        connection = await at.connect()
        objects = [data_object(seed) for seed in range(3)]
        await asyncio.gather(*(connection.put(name_of(data), data) for data in objects))
        assert list(await asyncio.gather(*(connection.get(name_of(data)) for data in objects))) == objects
        await connection.close()

    live(str(tmp_path), work)


def test_roots_order_to_erase_needs_no_certificate(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        connection = await at.connect()
        await connection.put(name_of(data_object(1)), data_object(1))
        assert await refused(at.network.erase(at.target(STRANGER), at.tenant.erase_order(by=STRANGER))) == "forbidden"
        assert await refused(at.network.erase(at.target(STRANGER), bytes(5000))) == "bad-request"
        assert await connection.get(name_of(data_object(1))) == data_object(1)
        receipt = await at.network.erase(at.target(STRANGER), at.tenant.erase_order())
        verify(receipt, Context.ERASE_RECEIPT, [at.provider.key.public])
        assert await refused(connection.get(name_of(data_object(1)))) == "unauthorized"
        assert await at.network.erase(at.target(STRANGER), at.tenant.erase_order()) == receipt
        await connection.close()

    live(str(tmp_path), work)


def test_a_code_of_a_group_needs_no_certificate(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ENROL_BURST", 6)  # of which one source may have half
    monkeypatch.setattr(server, "ENROL_PER_S", 0.001)

    async def work(at: Live) -> None:
        door, comer = Voice(key=at.provider.key), Voice(key=STRANGER)

        def word(name: str) -> Callable[[bytes], Member]:
            return lambda group: Member(group=group, number=1, name=name, root=b"", provider=b"", state="in", said_ns=1)

        known = found_group(door, Group(name="friends", salt=bytes(16), root=b"", created_ns=1), word("alice"))
        voucher = Voucher(
            group=known.group,
            root=b"",
            door=at.service.identity,
            code=hash_of_secret(bytes(16), door.member),
            label="",
            expires_ns=2**61,
            revoked=False,
        )
        known = merge(known, [Fact(kind="voucher", signed=door.say(Context.VOUCHER, voucher))])
        said = comer.say(Context.MEMBER, word("bob")(known.group))
        request = JoinRequest(group=known.group, secret=bytes(16), word=said, facts=[])
        assert await refused(at.network.join(at.target(STRANGER), request)) == "not-found"
        at.provider.enter_group(known, at.service.identity)
        found = merge(None, (await at.network.join(at.target(STRANGER), request)).facts, group=known.group)
        assert [one.name for one in found.members() if one.state == "in"] == ["alice", "bob"]
        wrong = msgspec.structs.replace(request, secret=bytes(15) + b"x")
        assert await refused(at.network.join(at.target(STRANGER), wrong)) == "spent"
        with pytest.raises(BusyError):
            await at.network.join(at.target(STRANGER), wrong)

    live(str(tmp_path), work)


def test_without_a_certificate_there_is_only_enrolment(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        connection = await at.network.connect(at.target(STRANGER))
        name = name_of(data_object(7))
        assert await refused(connection.call("info", Empty(), Info)) == "unauthorized"
        assert await refused(connection.get(name)) == "unauthorized"
        assert await refused(connection.put(name, data_object(7))) == "unauthorized"
        await connection.close()
        reply = await at.network.enrol(at.target(STRANGER), at.invitation(Tenant("new"), STRANGER))
        connection = await at.network.connect(at.target(STRANGER, reply.certificate))
        assert (await connection.call("info", Empty(), Info)).used == 0
        await connection.close()

    live(str(tmp_path), work)


def test_a_certificate_of_another_authority_or_for_another_key_is_worth_nothing(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        forged = client_certificate(STRANGER, at.tenant.node.public, SystemRng())
        connection = await at.network.connect(at.target(at.tenant.node, forged))
        with pytest.raises(UnreachableError):
            await connection.call("info", Empty(), Info)
        await connection.close()
        own = client_certificate(at.provider.key, STRANGER.public, SystemRng())
        connection = await at.network.connect(at.target(STRANGER, own))
        assert await refused(connection.call("info", Empty(), Info)) == "unauthorized"
        await connection.close()

    live(str(tmp_path), work)


def test_another_key_than_the_pinned_one_is_refused_before_anything_is_sent(
    tmp_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(at: Live) -> None:
        wrong = replace(at.target(), identity=STRANGER.identity)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            with pytest.raises(ProtocolError, match="another key") as caught:
                await at.network.connect(wrong)
            with pytest.raises(ProtocolError, match="another key"):
                await at.network.enrol(wrong, at.invitation(Tenant("new"), STRANGER))
        assert caught.value.hint
        assert not [record for record in caplog.records if record.name == server.__name__], "a request was made"

    live(str(tmp_path), work)


def test_endpoints_are_tried_in_order_until_the_pinned_key_answers(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        async with living(os.path.join(tmp_path, "other"), owner="eve") as other:
            with closed_port() as port:
                nobody = f"127.0.0.1:{port}"
                target = at.target(at.tenant.node, None, nobody, "no endpoint", other.endpoint, at.endpoint)
                impostor = replace(target, endpoints=(nobody, other.endpoint), identity=STRANGER.identity)
                connection = await at.network.connect(target)
                await connection.close()
                with pytest.raises(ProtocolError):
                    await at.network.connect(impostor)

    live(str(tmp_path), work)


def test_nobody_there_is_unreachable_with_every_endpoint_named() -> None:
    async def work() -> None:
        with closed_port() as one, closed_port() as two:
            target = dead_target(*(f"127.0.0.1:{port}" for port in (one, two)))
            with pytest.raises(UnreachableError) as caught:
                await TlsNetwork().connect(target)
        assert all(str(port) in str(caught.value) for port in (one, two))
        with pytest.raises(UnreachableError, match="no endpoint is known"):
            await TlsNetwork().connect(dead_target())

    run(work)


def test_a_peer_that_accepts_and_says_nothing_is_unreachable() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            target = dead_target(f"127.0.0.1:{listener.getsockname()[1]}")
            with pytest.raises(UnreachableError, match="no answer in time"):
                await TlsNetwork(connect_s=0.2).connect(target)

    run(work)


def test_refusals_keep_their_word_and_busy_its_seconds(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        connection = await at.connect()
        data = data_object(1)
        assert await refused(connection.get(name_of(data))) == "not-found"
        assert await refused(connection.get(name_of(data_object(7)), 1, 5)) == "bad-request"
        assert await refused(connection.put(ObjectName(bytes(32)), data)) == "wrong-name"
        assert await refused(connection.put(name_of(b"x"), b"x")) == "bad-request"
        assert await refused(connection.call("destroy", Empty(), Info)) == "bad-request"
        session = at.service.session(at.tenant.node.public)
        uploads = [session.begin_put(name_of(data_object(seed)), SMALL) for seed in range(3)]
        with pytest.raises(BusyError) as caught:
            await connection.put(name_of(data), data)
        assert caught.value.after_s == 1.0
        for upload in uploads:
            upload.abort()
        await connection.put(name_of(data), data)
        await connection.close()

    live(str(tmp_path), work)


def test_a_damaged_object_is_refused_not_served(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        connection = await at.connect()
        data = data_object(1)
        await connection.put(name_of(data), data)
        break_file(at.house.file(at.tenant, name_of(data)), "rotten")
        assert await refused(connection.get(name_of(data))) == "damaged"
        await connection.close()

    live(str(tmp_path), work)


def test_a_body_without_room_is_refused_before_it_is_sent(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        connection = await at.connect()
        at.provider.change_offer(capacity=MIB)
        data = data_object(1, LARGEST)
        head = f"PUT /v1/objects/{name_of(data).hex()} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGEST}\r\n"
        reader, writer = await raw(at)
        writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
        status = await reader.readline()
        assert b" 507 " in status
        writer.transport.abort()
        assert await refused(connection.put(name_of(data), data)) == "full"
        await connection.close()

    live(str(tmp_path), work)


def test_an_upload_cut_short_leaves_nothing_and_frees_its_reservation(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        data = data_object(1, MIB)
        for _ in range(4):
            reader, writer = await raw(at)
            head = f"PUT /v1/objects/{name_of(data).hex()} HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n"
            writer.write(head.encode() + data[: MIB // 2])
            await writer.drain()
            await until(lambda: os.listdir(at.house.objects(at.tenant, "incoming")))
            writer.transport.abort()
            await until(lambda: not os.listdir(at.house.objects(at.tenant, "incoming")))
            with suppress(ConnectionError):
                await reader.read()
        connection = await at.connect()
        await connection.put(name_of(data), data)
        assert await connection.get(name_of(data)) == data
        await connection.close()

    live(str(tmp_path), work)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("PUT /v1/objects/{name} HTTP/1.1\r\nContent-Length: 33554432", 400),
        ("PUT /v1/objects/{name} HTTP/1.1\r\nTransfer-Encoding: chunked", 400),
        ("PUT /v1/objects/short HTTP/1.1\r\nContent-Length: 65536", 400),
        ("GET /v1/objects/{name}?offset=x HTTP/1.1", 400),
        ("GET /v1/objects/{name}?offset=99999999999999999999 HTTP/1.1", 400),
        ("GET /v1/objects/../../etc/passwd HTTP/1.1", 400),
        ("POST /v1/claim HTTP/1.1\r\nContent-Length: 8388609", 400),
        ("POST /v1/claim HTTP/1.1\r\nTransfer-Encoding: chunked", 400),
        ("POST /v1/enrol HTTP/1.1\r\nContent-Length: 8388609", 400),
        ("DELETE /v1/objects/{name} HTTP/1.1", 400),
        ("GET /v1/info HTTP/1.1", 400),
        ("POST /v2/info HTTP/1.1\r\nContent-Length: 2", 400),
        ("POST /v1/pull HTTP/1.1\r\nContent-Length: 2", 400),
        ("POST /v2/give HTTP/1.1\r\nContent-Length: 16385", 400),
        ("POST /v3/info HTTP/1.1\r\nContent-Length: 2", 505),
        ("GET / HTTP/1.1", 505),
    ],
)
def test_requests_that_the_protocol_does_not_have_are_refused_unread(tmp_path: str, head: str, status: int) -> None:
    async def work(at: Live) -> None:
        reader, writer = await raw(at)
        filled = head.format(name=name_of(data_object(7)).hex())
        first, *fields = filled.split("\r\n")
        writer.write("\r\n".join([first, "Host: x", *fields, "", ""]).encode())
        line = await reader.readline()
        assert int(line.split()[1]) == status
        headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert f"replicator-incarnation: {at.service.incarnation.hex()}" in headers
        length = int(headers.split("content-length: ")[1].split("\r\n")[0])
        code = decode(Refused, await reader.readexactly(length)).code
        assert code == ("unsupported" if status == 505 else "bad-request")
        writer.transport.abort()

    live(str(tmp_path), work)


def test_a_body_that_dribbles_is_given_up(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALL_S", 0.1)

    async def work(at: Live) -> None:
        reader, writer = await raw(at)
        name = name_of(data_object(1)).hex()
        writer.write(f"PUT /v1/objects/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {SMALL}\r\n\r\nabc".encode())
        assert b" 400 " in await reader.readline()
        assert os.listdir(at.house.objects(at.tenant, "incoming")) == []
        writer.transport.abort()

    live(str(tmp_path), work)


def test_an_answer_is_given_time_for_what_has_come_of_it_alone(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []

    def time_for(size: int, _stall_s: float) -> float:
        moved.append(size)
        return 30.0

    async def work(at: Live) -> None:
        data = data_object(3)
        keeper = await at.connect()
        await keeper.put(name_of(data), data)
        monkeypatch.setattr(client, "time_for", time_for)
        assert await keeper.get(name_of(data)) == data
        await keeper.close()

    live(str(tmp_path), work)
    assert moved[0] == 0
    assert moved == sorted(moved)
    assert moved[-1] == SMALL


def test_orders_to_erase_are_rationed_apart_from_enrolments(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ENROL_BURST", 4)  # of which one source may have half
    monkeypatch.setattr(server, "ENROL_PER_S", 0.001)

    async def work(at: Live) -> None:
        for _ in range(2):
            assert await refused(at.network.erase(at.target(STRANGER), b"nothing")) != "busy"
        with pytest.raises(BusyError):
            await at.network.erase(at.target(STRANGER), at.tenant.erase_order())
        await at.network.enrol(at.target(STRANGER), at.invitation(Tenant("new"), STRANGER))

    live(str(tmp_path), work)


def test_enrolments_are_rationed(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ENROL_BURST", 4)  # of which one source may have half
    monkeypatch.setattr(server, "ENROL_PER_S", 0.001)

    async def work(at: Live) -> None:
        for _ in range(2):
            await at.network.enrol(at.target(STRANGER), at.invitation(Tenant("new"), STRANGER))
        with pytest.raises(BusyError) as caught:
            await at.network.enrol(at.target(STRANGER), at.invitation(Tenant("new"), STRANGER))
        assert caught.value.after_s > 100

    live(str(tmp_path), work)


def test_the_token_bucket_fills_with_time() -> None:
    clock = FakeClock()
    bucket = server.TokenBucket(clock, burst=2, per_s=0.5)
    assert [bucket.take() for _ in range(3)] == [0, 0, 2]
    clock.advance(2)
    assert [bucket.take(), bucket.take()] == [0, 2]
    clock.advance(1000)
    assert [bucket.take() for _ in range(3)] == [0, 0, 2]


def test_who_asks_without_end_leaves_others_what_they_need() -> None:
    clock = FakeClock()
    bucket = server.TokenBucket(clock, burst=30, per_s=1.0)
    greedy = ["192.0.2.1", "2001:db8:0:1:aa::1", "2001:db8:0:ff:bb::2", "::ffff:192.0.2.1"]
    sources = {source_of(one) for one in greedy}
    assert len(sources) == 2, "one address, and one household's networks"
    served = 0
    for _ in range(600):
        clock.advance(0.1)
        served += sum(bucket.take(source_of(one)) == 0 for one in greedy)
    assert 15 <= served <= 15 + 60, "in a minute no more than the rate, from both together"
    assert bucket.take(sources.pop()) > 0
    others = [source_of(f"198.51.100.{number}") for number in range(12)]
    assert [bucket.take(one) for one in others] == [0] * 12
    assert bucket.take(others[0]) > 0, "who asks again is no newcomer"


def test_sources_that_were_heard_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SOURCES", 2)
    bucket = server.TokenBucket(FakeClock(), burst=100, per_s=1.0)
    assert [bucket.take(one) for one in ("a", "a", "b", "c")] == [0] * 4
    assert set(bucket._of) == {"b", "c"}
    assert bucket.take(source_of("no address")) == 0
    assert set(bucket._of) == {"b", "c"}


def test_only_tls_1_3_is_spoken(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        host, port = split_endpoint(at.endpoint)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(host, port, ssl=context)

    live(str(tmp_path), work)


def unproved(at: Live, endpoint: str, peer: PeerCertificate) -> TlsConnection:
    """Return a connection to whoever is at an endpoint now, for one who has seen a peer's certificate before."""
    host, port = split_endpoint(endpoint)
    reach = Reach(
        name="alice",
        endpoint="",
        host=host,
        server_name=None,
        port=port,
        peer=peer.der,
        seed=b"",
        certificate=b"",
        scratch=None,
        connect_s=5,
        stall_s=5,
    )
    return TlsConnection(at.target(), reach, peer, client_context(peer, key=None, certificate=None))


@pytest.mark.parametrize("usage", ["client", "server"])
def test_another_client_of_the_provider_cannot_stand_in_for_it(tmp_path: str, usage: str) -> None:
    """Its certificate has the provider's signature, so the chain verifies; the connection must not.

    Ours are for clients only, which OpenSSL checks too; one for servers shows that nothing rests on that.
    """

    async def work(at: Live) -> None:
        peer = await fetch_certificate(*split_endpoint(at.endpoint), timeout_s=5)
        issued = client_certificate(at.provider.key, STRANGER.public, SystemRng())
        if usage == "server":
            issued = server_certificate(at.provider.key, issued)
        async with impostor(str(tmp_path), STRANGER, issued) as endpoint:
            connection = unproved(at, endpoint, peer)
            expected = UnreachableError if usage == "client" else ProtocolError
            with pytest.raises(expected, match=r"certificate|another key"):
                await connection.call("info", Empty(), Info)
            await connection.close()

    live(str(tmp_path), work)


def test_a_key_that_changes_behind_the_address_is_noticed_on_the_next_connection(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        peer = await fetch_certificate(*split_endpoint(at.endpoint), timeout_s=5)
        again = provider_certificate(at.provider.key, SystemRng())
        assert hashlib.sha256(again).digest() != peer.fingerprint
        async with impostor(str(tmp_path), at.provider.key, again) as endpoint:
            connection = unproved(at, endpoint, peer)
            with pytest.raises((UnreachableError, ProtocolError)):
                await connection.call("info", Empty(), Info)
            await connection.close()

    live(str(tmp_path), work)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\nabc", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", UnreachableError),
        (b"HTTP/1.1 302 Found\r\nLocation: https://example.org/\r\nContent-Length: 0\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", ProtocolError),
        (b"220 smtp.example.org ESMTP\r\n", ProtocolError),
        (b"", UnreachableError),
    ],
)
def test_answers_that_the_protocol_does_not_have_are_errors_of_the_peer(
    tmp_path: str, answer: bytes, error: type[Exception]
) -> None:
    async def work() -> None:
        key = SigningKey(SeededRng("odd").bytes(32))
        async with impostor(str(tmp_path), key, provider_certificate(key, SystemRng()), answer) as endpoint:
            target = replace(dead_target(endpoint), identity=key.identity)
            connection = await TlsNetwork().connect(target)
            with pytest.raises(error):
                await connection.call("info", Empty(), Info)
            await connection.close()

    run(work)


@pytest.mark.parametrize("size", [5, 2 * MIB + 1, LARGEST + 1])
def test_an_object_of_another_length_than_asked_for_is_an_error_of_the_peer(tmp_path: str, size: int) -> None:
    async def work() -> None:
        key = SigningKey(SeededRng("odd").bytes(32))
        answer = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size)
        async with impostor(str(tmp_path), key, provider_certificate(key, SystemRng()), answer) as endpoint:
            target = replace(dead_target(endpoint), identity=key.identity)
            connection = await TlsNetwork().connect(target)
            with pytest.raises(ProtocolError, match="bytes"):
                await connection.get(ObjectName(bytes(32)), 0, 2 * MIB)
            if size > LARGEST:
                with pytest.raises(ProtocolError, match="more than"):
                    await connection.get(ObjectName(bytes(32)))
            await connection.close()

    run(work)


def test_a_refusal_whose_status_is_another_is_not_believed(tmp_path: str) -> None:
    async def work() -> None:
        key = SigningKey(SeededRng("odd").bytes(32))
        body = encode(Refused(code="quota", message="no", after_s=0.0))
        answer = f"HTTP/1.1 404 No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        async with impostor(str(tmp_path), key, provider_certificate(key, SystemRng()), answer) as endpoint:
            connection = await TlsNetwork().connect(replace(dead_target(endpoint), identity=key.identity))
            with pytest.raises(ProtocolError, match="404"):
                await connection.call("info", Empty(), Info)
            await connection.close()

    run(work)


def test_a_peer_that_falls_silent_in_the_middle_is_unreachable(tmp_path: str) -> None:
    async def work() -> None:
        key = SigningKey(SeededRng("odd").bytes(32))
        certificate = provider_certificate(key, SystemRng())
        for answer in (None, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"):
            async with impostor(str(tmp_path), key, certificate, answer, silent=True) as endpoint:
                target = replace(dead_target(endpoint), identity=key.identity)
                connection = await TlsNetwork(stall_s=0.2).connect(target)
                with pytest.raises(UnreachableError, match=r"no answer in time|[Tt]imeout"):
                    await connection.call("info", Empty(), Info)
                with pytest.raises(UnreachableError, match=r"no answer in time|[Tt]imeout"):
                    await connection.put(ObjectName(bytes(32)), bytes(SMALL))
                await connection.close()

    run(work)


def test_the_private_key_lies_in_a_file_for_a_moment_only(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = os.path.join(tmp_path, "scratch")
    os.mkdir(scratch)
    seen: list[int] = []
    real = tempfile.TemporaryDirectory.cleanup

    def cleanup(folder: tempfile.TemporaryDirectory[str]) -> None:
        [name] = os.listdir(folder.name)
        seen.append(stat.S_IMODE(os.stat(os.path.join(folder.name, name)).st_mode))
        seen.append(stat.S_IMODE(os.stat(folder.name).st_mode))
        real(folder)

    monkeypatch.setattr(tempfile.TemporaryDirectory, "cleanup", cleanup)

    async def work(at: Live) -> None:
        peer = await fetch_certificate(*split_endpoint(at.endpoint), timeout_s=5)
        certificate = client_certificate(at.provider.key, STRANGER.public, SystemRng())
        client_context(peer, key=STRANGER, certificate=certificate, scratch=scratch)
        assert os.listdir(scratch) == []

    live(str(tmp_path), work)
    assert seen == [0o600, 0o700]


def test_the_log_has_operations_and_no_names(tmp_path: str, caplog: pytest.LogCaptureFixture) -> None:
    data = data_object(1)

    async def work(at: Live) -> None:
        connection = await at.connect()
        await connection.put(name_of(data), data)
        await connection.get(name_of(data))
        await refused(connection.get(ObjectName(bytes(32))))
        await refused(connection.put(ObjectName(bytes(32)), data))
        await connection.close()

    with caplog.at_level(logging.DEBUG):
        live(str(tmp_path), work)
    assert "PUT object 200" in caplog.text
    assert "GET object 404" in caplog.text
    assert name_of(data).hex() not in caplog.text
    assert bytes(32).hex() not in caplog.text


def test_a_bug_in_the_provider_is_answered_and_logged_without_values(
    tmp_path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(at: Live) -> None:
        connection = await at.connect()

        def broken(_key: bytes) -> None:
            raise KeyError("a secret name")

        monkeypatch.setattr(at.service, "session", broken)
        assert await refused(connection.call("info", Empty(), Info)) == "unavailable"
        await connection.close()

    live(str(tmp_path), work)
    assert "KeyError at " in caplog.text
    assert "a secret name" not in caplog.text


def test_too_many_readers_are_asked_to_wait(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DOWNLOADS", 0)

    async def work(at: Live) -> None:
        connection = await at.connect()
        with pytest.raises(BusyError):
            await connection.get(name_of(data_object(7)))
        await connection.close()

    live(str(tmp_path), work)


def test_one_tenant_whose_reads_take_long_leaves_places_to_others(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "DOWNLOADS", 4)
    data, real, let = data_object(7), ProviderSession.get, threading.Event()

    async def work(at: Live) -> None:
        loop, reading = asyncio.get_running_loop(), asyncio.Semaphore(0)

        def get(session: ProviderSession, name: ObjectName, offset: int, length: int | None) -> bytes:
            if session.tenant == at.tenant.id:
                loop.call_soon_threadsafe(reading.release)
                assert let.wait(60)
            return real(session, name, offset, length)

        monkeypatch.setattr(ProviderSession, "get", get)
        other = Tenant("other")
        settle(at.provider, at.service, other)
        certificate = client_certificate(at.provider.key, other.node.public, SystemRng())
        near, far = await at.connect(), await at.network.connect(at.target(other.node, certificate))
        reads = [asyncio.ensure_future(near.get(name_of(data))) for _ in range(2)]
        try:
            for _ in reads:
                await reading.acquire()
            with pytest.raises(BusyError):
                await near.get(name_of(data))
            assert await far.get(name_of(data)) == data
        finally:
            let.set()
        assert await asyncio.gather(*reads) == [data, data]
        for _ in range(100):  # a place is given back when its answer is sent, which may be after it has come
            with suppress(BusyError):
                assert await near.get(name_of(data)) == data
                break
        else:
            raise AssertionError("no place was given back")
        await near.close()
        await far.close()

    live(str(tmp_path), work)


def test_a_reader_that_stops_reading_is_dropped(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALL_S", 0.1)

    async def work(at: Live) -> None:
        connection = await at.connect()
        data = data_object(1, LARGEST)
        await connection.put(name_of(data), data)
        reader, writer = await raw(at, limit=1024)
        writer.write(f"GET /v1/objects/{name_of(data).hex()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 200 " in await reader.readline()
        await asyncio.sleep(0.5)
        got = 0
        with suppress(ConnectionError, ssl.SSLError):
            while part := await reader.read(1 << 20):
                got += len(part)
        assert got < LARGEST
        writer.transport.abort()
        await connection.close()

    live(str(tmp_path), work)


def test_revocation_takes_effect_on_an_open_connection(tmp_path: str) -> None:
    async def work(at: Live) -> None:
        connection = await at.connect()
        await connection.get(name_of(data_object(7)))
        rights = [right(at.tenant.keeper, "keeper"), right(at.tenant.node, "node", revoked=True)]
        keeper = at.service.session(at.tenant.keeper.public)
        publish_charter(keeper, at.tenant.charter(rights, keybag=name_of(data_object(7))))
        assert await refused(connection.get(name_of(data_object(7)))) == "forbidden"
        await connection.close()

    live(str(tmp_path), work)


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:x", "host:99999", "::1:80", "host:８０"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|\[address\]:port"):
        split_endpoint(text)


def test_endpoints_with_names_and_both_kinds_of_addresses_are_read() -> None:
    assert split_endpoint("backup.example:443") == ("backup.example", 443)
    assert split_endpoint("192.0.2.1:1") == ("192.0.2.1", 1)
    assert split_endpoint("[2001:db8::1]:7710") == ("2001:db8::1", 7710)


async def raw(at: Live, *, limit: int = 1 << 16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a TLS connection of the node without an HTTP client on it."""
    peer = await fetch_certificate(*split_endpoint(at.endpoint), timeout_s=5)
    certificate = client_certificate(at.provider.key, at.tenant.node.public, SystemRng())
    context = client_context(peer, key=at.tenant.node, certificate=certificate)
    host, port = split_endpoint(at.endpoint)
    return await asyncio.open_connection(host, port, ssl=context, limit=limit)


def server_certificate(authority: SigningKey, issued: bytes) -> bytes:
    """Return a certificate like the issued one, but for any use."""
    model = x509.load_der_x509_certificate(issued)
    key = model.public_key()
    assert isinstance(key, Ed25519PublicKey)
    return (
        x509.CertificateBuilder()
        .subject_name(model.subject)
        .issuer_name(model.issuer)
        .public_key(key)
        .serial_number(model.serial_number)
        .not_valid_before(model.not_valid_before_utc)
        .not_valid_after(model.not_valid_after_utc)
        .sign(authority.private, None)
        .public_bytes(Encoding.DER)
    )


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that another process or thread does to the disk."""
    while not condition():  # noqa: ASYNC110 - a disk tells nobody
        await asyncio.sleep(0.005)


def write_file(path: str, data: bytes) -> None:
    """Write a file."""
    with open(path, "wb") as file:
        file.write(data)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and nobody can while the block runs: not another test, nor the dialler itself."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@asynccontextmanager
async def impostor(
    folder: str, key: SigningKey, certificate: bytes, answer: bytes | None = b"", *, silent: bool = False
) -> AsyncIterator[str]:
    """Answer every connection on loopback with this certificate and these bytes; yields the endpoint.

    ``silent``: keep the connection open afterwards (``answer`` None: without having said anything).
    """
    names = [os.path.join(folder, f"impostor.{kind}") for kind in ("certificate", "key")]
    for name, pem in zip(names, (certificate_pem(certificate), private_pem(key)), strict=True):
        await asyncio.to_thread(write_file, name, pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*names)
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer or b"")
            await writer.drain()
            if not silent:
                writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for writer in writers:
            writer.transport.abort()


def dead_target(*endpoints: str) -> Target:
    """Return a target with these endpoints."""
    return Target(identity=STRANGER.identity, name="nobody", endpoints=endpoints, key=STRANGER, certificate=None)


def test_why_nobody_answers_is_said_without_the_numbers_of_asyncio() -> None:
    called = "Connect call failed ('192.0.2.1', 7144)"
    assert reason_of(ConnectionRefusedError(errno.ECONNREFUSED, called)) == "Connection refused"
    assert reason_of(OSError(errno.EHOSTUNREACH, called)) == "No route to host"
    assert reason_of(socket.gaierror(socket.EAI_NONAME, "no such name")) == f"[Errno {socket.EAI_NONAME}] no such name"
    assert reason_of(OSError("Multiple exceptions")) == "Multiple exceptions"
    assert reason_of(TimeoutError()) == "no answer in time"
