"""Audits: what a provider proves, and how wrong, absent and late are told apart."""

import os
from pathlib import Path

import msgspec
import pytest

from replicator.crypto.sign import Context, body_of, verify
from replicator.engine import audit as auditing
from replicator.engine.audit import DEEPER, PROBES, audit, audited
from replicator.errors import UnreachableError
from replicator.format.claim import AuditReceipt
from replicator.format.codec import decode, encode
from replicator.ids import Identity
from replicator.provider.session import ProviderSession
from replicator.transport.handler import RequestRefusedError, Session
from replicator.transport.memory import Phase
from replicator.wire.messages import AttestReply, Info, ProveReply, ProveRequest
from tests.scenarios.liars import Liar, proving
from tests.scenarios.world import World


async def look(world: World, *, count: int = PROBES) -> tuple[dict[str, auditing.PeerView], list[str]]:
    node = world.node()
    try:
        views, federation = await audit(node, world.edge, count=count)
    finally:
        node.close()
    return {pin.name: views[pin.identity] for pin in node.peers if pin.identity in views}, federation.integrity


def counts(view: auditing.PeerView) -> tuple[int, int, int, int, int]:
    return view.probes, view.proved, view.wrong, view.absent, view.late


def spoil(session: Session, body: bytes) -> bytes:
    """A proof of other bytes in every tenth place."""
    assert isinstance(session, ProviderSession)
    reply = decode(ProveReply, session.handle("prove", body))
    good = next(proof for proof in reply.proofs if proof is not None)
    proofs = [good if at % 10 == 3 else proof for at, proof in enumerate(reply.proofs)]
    return encode(ProveReply(incarnation=reply.incarnation, proofs=proofs))


async def test_all_that_is_asked_of_a_good_provider_is_proved_and_kept(world: World, source: str) -> None:
    await world.backup()
    for _ in range(2):
        views, integrity = await look(world, count=5)
        assert integrity == []
        assert {counts(view) for view in views.values()} == {(5, 5, 0, 0, 0)}
    node = world.node()
    try:
        week = audited(node, world.clock.now_ns())
        assert set(week) == {pin.identity.hex() for pin in node.peers}
        one = week[world.identity(0).hex()]
        assert (one.probes, one.proved, one.asked_ns) == (10, 10, world.clock.now_ns())
        assert one.confidence == pytest.approx(1 - 0.99**10)
        assert audited(node, world.clock.now_ns() + 8 * 86400 * 10**9) == {}
    finally:
        node.close()
    offline = await world.status(offline=True)
    assert all(peer.week is not None and peer.week.proved == 10 for peer in offline.peers)


async def test_wrong_proofs_are_an_integrity_failure_and_more_are_asked_for_at_once(world: World, source: str) -> None:
    await world.backup()
    world.network.add(Liar(world.services[1], ops=proving(spoil)))
    views, integrity = await look(world, count=20)
    view = views["bob"]
    assert view.wrong >= 2
    assert view.absent == view.late == 0
    assert 20 < view.probes <= 20 + DEEPER
    assert view.proved + view.wrong == view.probes
    assert any("proofs are wrong" in text for text in integrity)
    assert views["alice"].probes == views["alice"].proved > 0
    assert (await world.status()).exit_code == 4


async def test_what_was_listed_and_cannot_be_shown_is_absent(world: World, source: str) -> None:
    await world.backup()

    def nothing(_session: Session, body: bytes) -> bytes:
        request = decode(ProveRequest, body)
        return encode(ProveReply(incarnation=world.services[1].incarnation, proofs=[None] * len(request.leaves)))

    world.network.add(Liar(world.services[1], ops=proving(nothing)))
    views, integrity = await look(world, count=5)
    view = views["bob"]
    assert (view.proved, view.wrong, view.late) == (0, 0, 0)
    assert view.absent == view.probes >= 5
    assert view.damaged
    assert integrity


async def test_silence_is_an_outage_and_no_loss(world: World, source: str) -> None:
    await world.backup()

    def silent(identity: Identity, op: str, phase: Phase) -> None:
        if op in {"prove", "attest"} and phase == "before" and identity == world.identity(1):
            raise UnreachableError("bob", "no answer in time")

    world.network.faults = silent
    views, integrity = await look(world, count=5)
    assert counts(views["bob"]) == (5, 0, 0, 0, 5)
    assert (views["bob"].missing, views["bob"].damaged, integrity) == ([], [], [])
    status = await world.status()
    assert status.exit_code == 3
    assert [peer.late for peer in status.peers if peer.name == "bob"] == [
        peer.probes for peer in status.peers if peer.name == "bob"
    ]
    assert any("none of" in text and "an outage, for now" in text for text in status.problems)
    world.network.faults = lambda _identity, _op, _phase: None
    assert (await world.status()).exit_code == 0


async def test_who_never_proves_anything_does_not_count_for_ever(world: World, source: str) -> None:
    await world.backup()

    def silent(identity: Identity, op: str, phase: Phase) -> None:
        if op in {"prove", "attest"} and phase == "before" and identity == world.identity(1):
            raise UnreachableError("bob", "no answer in time")

    world.network.faults = silent
    for _ in range(4):
        world.clock.advance(10 * 86400)
        await world.status()
    node = world.node()
    try:
        held = [one for one in node.catalog.objects.holdings(peer=world.identity(1)) if one.state == "held"]
        assert held
        assert all(one.checked_ns < world.clock.now_ns() - 39 * 86400 * 10**9 for one in held)
    finally:
        node.close()


async def test_a_proof_that_took_minutes_shows_nothing(world: World, source: str) -> None:
    await world.backup()

    def slow(identity: Identity, op: str, phase: Phase) -> None:
        if op in {"prove", "attest"} and phase == "after" and identity == world.identity(1):
            world.clock.advance(auditing.LATE_S + 1)

    world.network.faults = slow
    views, integrity = await look(world, count=5)
    view = views["bob"]
    assert (view.late, view.wrong, view.absent) == (view.probes, 0, 0)
    assert integrity == []


async def test_who_takes_his_time_for_each_answer_is_waited_for_so_long_in_all(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    monkeypatch.setattr(auditing, "ALL_S", 2 * auditing.LATE_S)
    monkeypatch.setattr(auditing, "MAX_PROBES", 16)
    path = Path(world.root) / "large"
    path.write_bytes(os.urandom(3 << 20))
    world.add_dataset("large", str(path))
    await world.backup()
    fullest = max(range(5), key=lambda at: sum(one.stat().st_size for one in Path(world.objects(at)).iterdir()))
    asked = []

    def slow(identity: Identity, op: str, phase: Phase) -> None:
        if op == "attest" and phase == "after" and identity == world.identity(fullest):
            asked.append(op)
            world.clock.advance(auditing.LATE_S)

    world.network.faults = slow
    views, integrity = await look(world, count=1 << 20)
    view = views[("alice", "bob", "carol", "dave", "erin")[fullest]]
    assert (len(asked), view.proved) == (3, 3 * 16), "in time each, and then it was long enough"
    assert view.probes > view.proved
    assert (view.late, view.wrong, view.absent) == (view.probes - view.proved, 0, 0)
    assert integrity == []


async def test_a_night_of_proofs_is_less_than_two_mebibytes(world: World) -> None:
    path = Path(world.root) / "large"
    path.write_bytes(os.urandom(24 << 20))
    world.add_dataset("large", str(path))
    await world.backup()
    taken: dict[Identity, int] = {}

    def weigh(session: Session, body: bytes) -> bytes:
        assert isinstance(session, ProviderSession)
        answer = session.handle("attest", body)
        taken[world.identity(1)] = taken.get(world.identity(1), 0) + len(answer)
        return answer

    world.network.add(Liar(world.services[1], ops={"attest": weigh}))
    views, _ = await look(world)
    assert views["bob"].proved == PROBES
    assert 1 << 20 < taken[world.identity(1)] < 2 << 20


async def test_a_provider_signs_what_it_was_asked_and_answered_and_the_receipt_is_kept(
    world: World, source: str
) -> None:
    await world.backup()
    views, _ = await look(world, count=5)
    [signed] = views["bob"].signed
    receipt = auditing.read_audit_receipt(signed)
    node = world.node()
    try:
        assert verify(signed, Context.AUDIT_RECEIPT, [world.opened[1].key.public])
        assert (receipt.tenant, receipt.auditor) == (node.tenant, node.identity)
        assert (receipt.probes, receipt.shown, receipt.at_ns) == (5, 5, world.clock.now_ns())
        assert audited(node, world.clock.now_ns())[world.identity(1).hex()].signed == (signed,)
    finally:
        node.close()
    await look(world, count=5)
    offline = await world.status(offline=True)
    assert all(peer.week is not None and len(peer.week.signed) == 2 for peer in offline.peers)


async def test_who_signs_a_wrong_proof_is_convicted_by_its_own_receipt(world: World, source: str) -> None:
    await world.backup()
    world.network.add(Liar(world.services[1], ops=proving(spoil)))
    views, _ = await look(world, count=20)
    assert views["bob"].wrong
    assert len(views["bob"].signed) == 2, "one for each question: it was asked again at once"


@pytest.mark.parametrize("what", ["question", "answer", "auditor", "tenant", "incarnation", "shown", "key"])
async def test_a_receipt_for_something_else_is_told_and_not_kept(what: str, world: World, source: str) -> None:
    await world.backup()

    def forge(session: Session, body: bytes) -> bytes:
        assert isinstance(session, ProviderSession)
        reply = decode(AttestReply, session.handle("attest", body))
        receipt = decode(AuditReceipt, body_of(reply.receipt))
        key = world.opened[2 if what == "key" else 1].key
        if what != "key":
            value = getattr(receipt, what)
            other = value + 1 if isinstance(value, int) else bytes(len(value))
            receipt = msgspec.structs.replace(receipt, **{what: other})
        return encode(msgspec.structs.replace(reply, receipt=key.sign(Context.AUDIT_RECEIPT, encode(receipt))))

    world.network.add(Liar(world.services[1], ops={"attest": forge}))
    views, _ = await look(world, count=5)
    assert counts(views["bob"]) == (5, 5, 0, 0, 0), "the proofs are right all the same"
    assert views["bob"].signed == []
    assert any("its receipt for proofs" in text for text in views["bob"].problems)
    assert len(views["alice"].signed) == 1


async def test_a_provider_of_an_earlier_build_proves_without_signing(world: World, source: str) -> None:
    await world.backup()

    def unknown(_session: Session, _body: bytes) -> bytes:
        raise RequestRefusedError("bad-request", "no such operation")

    def old(session: Session, body: bytes) -> bytes:
        found = decode(Info, session.handle("info", body))
        return encode(msgspec.structs.replace(found, wire=[1]))

    world.network.add(Liar(world.services[1], ops={"attest": unknown}))
    world.network.add(Liar(world.services[2], ops={"attest": unknown, "info": old}))
    views, _ = await look(world, count=5)
    for name in ("bob", "carol"):
        assert (counts(views[name]), views[name].signed, views[name].problems) == ((5, 5, 0, 0, 0), [], [])
