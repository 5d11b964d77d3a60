"""A tenant is erased: everywhere that answers, at once; who does not is named and asked again; all of it is signed."""

import os

import msgspec
import pytest

from replicator.crypto.recovery import to_words
from replicator.crypto.sign import Context, SigningKey
from replicator.engine import erasing
from replicator.engine.erasing import Report
from replicator.engine.members import remove_peer
from replicator.errors import (
    IntegrityError,
    KeyWrongError,
    NotFoundError,
    ReplicatorError,
    UnreachableError,
    UsageError,
)
from replicator.format.codec import encode, version_of
from replicator.format.erasure import EraseReceipt, read_erasure_report
from replicator.ids import Identity
from tests.fakes import NS
from tests.scenarios.liars import Liar
from tests.scenarios.world import World

pytestmark = pytest.mark.usefixtures("source")


async def erase(world: World, words: list[str] | None = None) -> Report:
    assert world.tenant is not None
    keeper = world.keeper()
    try:
        erasing.order(keeper, world.edge, words or world.tenant.words)
        erasing.destroy_keys(keeper)
        return await erasing.send(keeper, world.edge)
    finally:
        keeper.close()


async def again(world: World) -> Report:
    keeper = world.keeper()
    try:
        return await erasing.send(keeper, world.edge)
    finally:
        keeper.close()


def left(world: World, number: int) -> list[str]:
    """Return the files that a provider has of any tenant."""
    return [file for folder, _, files in os.walk(world.data(number)) for file in files if len(file) == 64]


async def test_everything_is_gone_everywhere_and_signed_for(world: World) -> None:
    await world.backup()
    used = [world.used(number) for number in range(5)]
    report = await erase(world)
    assert (report.outstanding, report.integrity) == ([], [])
    by_identity = {one.identity: one for one in report.told}
    for number in range(5):
        assert left(world, number) == []
        receipt = by_identity[world.identity(number)].receipt
        assert receipt is not None
        assert (receipt.bytes, receipt.tenant) == (used[number], world.tenant_id)
    with pytest.raises(ReplicatorError):
        await world.restore(os.path.join(world.root, "out"))
    [done] = (await world.backup()).datasets
    assert not done.published
    assert [left(world, number) for number in range(5)] == [[]] * 5


async def test_who_is_silent_is_outstanding_and_asked_again_without_the_sheet(world: World) -> None:
    await world.backup()
    keeper = world.keeper()
    await remove_peer(keeper, [], world.edge, "bob")  # what it holds is still there
    keeper.close()
    world.silence(0, 1)
    report = await erase(world)
    assert {one.identity for one in report.outstanding} == {world.identity(0), world.identity(1)}
    assert all("no endpoint answers" in one.problem for one in report.outstanding)
    assert [bool(left(world, number)) for number in range(5)] == [True, True, False, False, False]
    first = {one.identity: one.receipt for one in report.told if one.receipt}
    world.answer(1)
    report = await again(world)
    assert [one.name for one in report.outstanding] == ["alice"]
    assert left(world, 1) == []
    world.answer(0)
    report = await again(world)
    assert report.outstanding == []
    assert first.items() <= {one.identity: one.receipt for one in report.told}.items()


async def test_an_answer_that_is_lost_is_the_same_the_next_time(world: World) -> None:
    await world.backup()
    lost = world.identity(2)

    def faults(identity: Identity, op: str, phase: str) -> None:
        if (identity, op, phase) == (lost, "erase", "after"):
            raise UnreachableError("carol", "the connection broke")

    world.network.faults = faults
    report = await erase(world)
    assert [one.identity for one in report.outstanding] == [lost]
    assert left(world, 2) == [], "it obeyed"
    world.network.faults = lambda *_: None
    assert (await again(world)).outstanding == []


async def test_a_keeper_that_was_stopped_in_between_goes_on(world: World) -> None:
    await world.backup()
    assert world.tenant is not None
    keeper = world.keeper()
    erasing.order(keeper, world.edge, world.tenant.words)
    before = erasing.load_report(keeper)
    keeper.close()
    assert len(before.outstanding) == 5
    world.clock.advance(10)
    report = await erase(world)
    assert (report.ordered_ns, report.outstanding) == (before.ordered_ns, [])


async def test_the_keys_of_the_home_are_gone_and_no_other_file(world: World) -> None:
    await world.backup()
    await world.snapshots()
    folder = os.path.join(world.home, "keeper")
    before = set(os.listdir(folder))
    assert {"owner.key", "maintenance.key", "keybag.obj"} < before
    await erase(world)
    gone = before - set(os.listdir(folder))
    assert gone == {name for name in before if name.endswith(".key")} | {"keybag.obj"}
    assert any("erase report" in line for line in (await world.status(keeper=True)).advice)


async def test_without_the_right_sheet_nothing_is_ordered(world: World) -> None:
    await world.backup()
    keeper = world.keeper()
    other = to_words(bytes(32))
    with pytest.raises(KeyWrongError, match="this is the sheet of tenant"):
        erasing.order(keeper, world.edge, other)
    with pytest.raises(NotFoundError):
        await erasing.send(keeper, world.edge)
    with pytest.raises(ReplicatorError, match="no order"):
        erasing.destroy_keys(keeper)
    keeper.close()
    assert all(left(world, number) for number in range(5))


async def test_a_receipt_that_does_not_hold_is_an_integrity_failure_and_no_receipt(world: World) -> None:
    await world.backup()
    honest = world.services[3]

    class Forger(Liar):
        def erase(self, order: bytes) -> bytes:
            assert order
            values = dict.fromkeys(("objects", "bytes", "began_ns", "ended_ns"), 1)
            body = EraseReceipt(tenant=world.tenant_id, order=bytes(32), incarnation=bytes(16), **values)
            return SigningKey(bytes(32)).sign(Context.ERASE_RECEIPT, encode(body))

    world.network.add(Forger(honest))
    report = await erase(world)
    assert [one.identity for one in report.outstanding] == [world.identity(3)]
    assert len(report.integrity) == 1
    world.network.add(honest)
    assert (await again(world)).outstanding == []


async def test_a_report_that_was_changed_is_found_out(world: World) -> None:
    await world.backup()
    report = await erase(world)
    keeper = world.keeper()
    root_key = keeper.member.root_key
    assert erasing.read_report(report.signed, root_key=root_key).outstanding == []
    with pytest.raises(IntegrityError):
        erasing.read_report(report.signed, root_key=bytes(32))
    record = read_erasure_report(report.signed[96:])
    one, other = record.providers[:2]
    swapped = [msgspec.structs.replace(one, receipt=other.receipt), *record.providers[1:]]
    for changed in (
        msgspec.structs.replace(record, providers=swapped),
        msgspec.structs.replace(record, tenant=bytes(16)),
        msgspec.structs.replace(record, keeper=bytes(32)),
    ):
        signed = keeper.signing.sign(Context.ERASURE_REPORT, encode(changed))
        with pytest.raises(IntegrityError):
            erasing.read_report(signed, root_key=root_key)
    keeper.close()


async def test_who_cannot_sign_any_more_is_said_to_be_gone_and_not_waited_for(world: World) -> None:
    await world.backup()
    world.silence(3)
    report = await erase(world)
    [lost] = report.outstanding
    keeper = world.keeper()
    signed = next(one for one in report.told if one.receipt)
    with pytest.raises(NotFoundError, match="no provider 'nobody'"):
        erasing.declare_gone(keeper, world.edge, ["nobody"])
    with pytest.raises(UsageError, match="has signed"):
        erasing.declare_gone(keeper, world.edge, [signed.name])
    assert version_of(report.signed[96:]) == 1  # as earlier releases read it, as long as that says it all
    erasing.declare_gone(keeper, world.edge, [lost.name])
    keeper.close()
    world.clock.advance(60)
    report = await again(world)
    assert report.outstanding == []
    assert [(one.name, one.gone_ns) for one in report.gone] == [(lost.name, world.clock.now_ns() - 60 * NS)]
    world.answer(3)
    report = await again(world)
    assert report.gone == []
    assert all(one.receipt for one in report.told)
