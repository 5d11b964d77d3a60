"""Copies from provider to provider: what travels how, and what comes through this machine after all."""

from collections.abc import Callable

import pytest

from replicator.engine.repair import RepairReport, repair
from replicator.errors import UnreachableError
from replicator.format.codec import decode, encode
from replicator.ids import Identity, TenantId
from replicator.provider.session import ProviderSession
from replicator.transport.handler import RequestRefusedError, Session
from replicator.transport.memory import Phase
from replicator.wire.messages import Info, PullReply
from tests.scenarios.liars import Liar
from tests.scenarios.world import World


async def lose_one(world: World) -> int:
    await world.backup()
    number = next(number for number in range(5) if world.stored(number, ["data"]))
    world.silence(number)
    return number


def traffic(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Identity]]:
    """What each provider is asked to take or give from here on."""
    seen: list[tuple[str, Identity]] = []

    def note(identity: Identity, op: str, phase: Phase) -> None:
        if phase == "before" and op in ("get", "put", "pull", "give"):
            seen.append((op, identity))

    monkeypatch.setattr(world.network, "faults", note)
    return seen


async def whole(world: World, source: str, report: RepairReport) -> None:
    assert (report.exit_code, report.debts, report.unreadable) == (0, [], [])
    again = await world.repair()
    assert (again.made, again.exit_code) == (0, 0)
    assert await world.differences(source) == []


async def test_new_holders_fetch_from_old_ones_and_nothing_comes_through_here(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lose_one(world)
    node = world.node()
    try:
        planned = await repair(node, world.edge, dry_run=True)
    finally:
        node.close()
    assert {one.way for one in planned.planned} == {"pulled"}
    seen = traffic(world, monkeypatch)
    report = await world.repair()
    assert report.made > 0
    assert report.pulled == report.made
    assert [op for op, _ in seen].count("give") == report.made
    packs = {row.name for row in _packs(world)}
    assert packs
    assert [op for op, _ in seen if op == "get"] == []
    monkeypatch.undo()
    await whole(world, source, report)


def _packs(world: World) -> list:  # type: ignore[type-arg]
    node = world.node()
    try:
        return [row for row in node.catalog.objects.all() if row.kind == "data"]
    finally:
        node.close()


def _old(session: Session, body: bytes) -> bytes:
    """An Info as a provider gave it that knows no pulls."""
    assert isinstance(session, ProviderSession)
    info = decode(Info, session.handle("info", body))
    return encode(Info(**{**{name: getattr(info, name) for name in Info.__struct_fields__}, "wire": [1]}))


def _no_such(_session: Session, _body: bytes) -> bytes:
    raise RequestRefusedError("bad-request", "no such operation")


def _fetches_from_nobody(_session: Session, _body: bytes) -> bytes:
    raise RequestRefusedError("forbidden", "this provider fetches from nobody")


def _claims_failure(session: Session, _body: bytes) -> bytes:
    assert isinstance(session, ProviderSession)
    incarnation = session.info().incarnation
    return encode(PullReply(incarnation=incarnation, receipt=b"", failed="unreachable", after_s=0.0))


def _claims_a_receipt(session: Session, _body: bytes) -> bytes:
    assert isinstance(session, ProviderSession)
    return encode(PullReply(incarnation=session.info().incarnation, receipt=bytes(200), failed=None, after_s=0.0))


@pytest.mark.parametrize(
    ("ops", "told"),
    [
        ({"info": _old}, False),
        ({"pull": _no_such}, True),
        ({"pull": _fetches_from_nobody}, True),
        ({"pull": _claims_failure}, True),
    ],
    ids=["an earlier release", "says no such operation", "fetches from nobody", "reaches nobody"],
)
async def test_where_they_cannot_reach_each_other_copies_go_through_this_machine(
    world: World,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
    ops: dict[str, Callable[[Session, bytes], bytes]],
    told: bool,
) -> None:
    lost = await lose_one(world)
    for number in range(5):
        if number != lost:
            world.network.add(Liar(world.services[number], ops=ops))
    seen = traffic(world, monkeypatch)
    report = await world.repair()
    assert report.made > 0
    assert report.pulled == 0
    assert any(op == "put" for op, _ in seen)
    assert any("copies go through this machine" in notice for notice in report.notices) == told
    if not told:
        assert not any(op == "pull" for op, _ in seen), "one that does not say it is not asked"
    monkeypatch.undo()
    await whole(world, source, report)


async def test_a_source_that_gives_other_bytes_spoils_nothing(world: World, source: str) -> None:
    lost = await lose_one(world)

    def other(pickup: bytes, honest: Callable[[bytes], tuple[TenantId, bytes]]) -> tuple[TenantId, bytes]:
        tenant, data = honest(pickup)
        return tenant, data[:-1] + bytes([data[-1] ^ 1])

    for number in range(5):
        if number != lost:
            service = world.services[number]
            world.network.add(Liar(service, gives=lambda pickup, honest=service.give: other(pickup, honest)))  # type: ignore[misc] # bound as it is now
    report = await world.repair()
    assert report.pulled == 0
    assert any("gave other bytes" in notice for notice in report.notices)
    await whole(world, source, report)


async def test_a_source_that_breaks_off_is_no_loss(world: World, source: str) -> None:
    await lose_one(world)

    def broken(_identity: Identity, op: str, phase: Phase) -> None:
        if op == "give" and phase == "during":
            raise UnreachableError("the source", "the connection broke")

    world.network.faults = broken
    report = await world.repair()
    assert (report.pulled, report.exit_code) == (0, 0)
    world.network.faults = lambda _identity, _op, _phase: None
    await whole(world, source, report)


async def test_a_receipt_that_the_new_holder_did_not_sign_is_no_copy(world: World, source: str) -> None:
    lost = await lose_one(world)
    liar = next(number for number in range(5) if number != lost and not world.stored(number, ["data"]))
    world.network.add(Liar(world.services[liar], ops={"pull": _claims_a_receipt}))
    report = await world.repair()
    assert not world.stored(liar, ["data"])
    assert report.exit_code in (0, 3)
    world.network.add(world.services[liar])
    assert (await world.repair()).exit_code == 0
    assert await world.differences(source) == []
