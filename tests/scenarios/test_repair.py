"""Repairs: who counts as lost, what comes first, and that peers which come and go make no traffic."""

import contextlib
import os
from collections.abc import Iterable
from typing import Literal

import msgspec
import pytest

from replicator.catalog.objects import ObjectRow
from replicator.engine.federation import Federation, Link
from replicator.engine.members import set_peer
from replicator.engine.publish import Publisher
from replicator.engine.repair import RepairReport, mend_urgent, repair
from replicator.engine.send import Sender
from replicator.errors import MinimumNotMetError, RefusedError
from replicator.format.codec import decode, encode
from replicator.ids import Identity, short
from replicator.transport.handler import RequestRefusedError, Session
from replicator.transport.memory import Phase
from replicator.wire.messages import ProveReply
from tests.fakes import NS
from tests.scenarios.liars import Handle, Liar
from tests.scenarios.world import PLACES, PROMISE, World

DAY = 86400
Said = Literal["ok", "away", "readonly", "draining", "gone"]


async def say(world: World, number: int, state: Said, until_s: float = 0) -> None:
    """`peer set NAME --state STATE`; the node of the home hears of it at once."""
    keeper, node = world.keeper(), world.node()
    try:
        name = next(pin.name for pin in keeper.peers if pin.identity == world.identity(number))
        until_ns = world.clock.now_ns() + round(until_s * NS) if state == "away" else 0
        await set_peer(keeper, [node], world.edge, name, {}, {}, (state, until_ns))
    finally:
        keeper.close()
        node.close()


async def night(world: World) -> RepairReport:
    return await world.repair(by_hand=False)


async def planned(world: World, *, by_hand: bool = True) -> RepairReport:
    node = world.node()
    try:
        return await repair(node, world.edge, dry_run=True, by_hand=by_hand)
    finally:
        node.close()


def holders(world: World, kinds: Iterable[str] = ("data",)) -> list[int]:
    return [number for number in range(world.providers) if world.stored(number, kinds)]


async def test_a_peer_that_comes_and_goes_makes_no_traffic(world: World, source: str) -> None:
    await world.backup()
    number = holders(world)[0]
    before = sum(world.used(one) for one in range(world.providers))
    for nights in (3, 1, 6, 2, 13):
        for _ in range(nights):
            world.silence(number)
            world.clock.advance(DAY)
            assert (await night(world)).made == 0
        world.answer(number)
        world.clock.advance(DAY)
        found = await night(world)
        assert (found.made, found.exit_code, found.waiting) == (0, 0, {})
    assert sum(world.used(one) for one in range(world.providers)) == before


async def test_copies_that_come_back_are_kept_and_not_made_again(world: World, source: str) -> None:
    await world.backup()
    number = holders(world)[0]
    world.silence(number)
    await night(world)
    world.clock.advance(15 * DAY)
    assert (await night(world)).made > 0
    kept = len(world.stored(number, ["data"]))
    world.answer(number)
    for silent in (False, True, True, False):
        (world.silence if silent else world.answer)(number)
        world.clock.advance(DAY)
        found = await night(world)
        assert (found.made, found.exit_code) == (0, 0)
    assert len(world.stored(number, ["data"])) == kept


async def test_a_peer_whose_absence_was_announced_is_waited_for_also_by_hand(world: World, source: str) -> None:
    await world.backup()
    number = holders(world)[0]
    await say(world, number, "away", until_s=14 * DAY)
    world.silence(number)
    for days in (1, 11):
        world.clock.advance(days * DAY)
        assert (await night(world)).made == 0
    found = await world.repair()
    assert (found.made, list(found.waiting.values()), found.lost_peers) == (0, ["away"], [])
    world.clock.advance(3 * DAY)
    assert list((await night(world)).waiting.values()) == ["late"]
    world.clock.advance(13.5 * DAY)
    late = await night(world)
    assert late.made > 0
    assert len(late.lost_peers) == 1


async def test_who_is_gone_counts_at_once_as_lost_although_it_answers(world: World, source: str) -> None:
    await world.backup()
    number = holders(world)[0]
    await say(world, number, "gone")
    assert (await night(world)).made > 0
    world.silence(number)
    others = [other for other in range(world.providers) if other != number]
    world.silence(others[0], others[1])
    assert await world.differences(source) == []
    world.answer(*range(world.providers))
    await say(world, number, "ok")
    assert (await night(world)).made == 0, "what it holds counts again"


async def test_a_claim_at_one_that_is_gone_keeps_no_promise_of_a_snapshot(world: World, source: str) -> None:
    await world.backup()
    name = next(iter(world.stored(holders(world)[0], ["data"]))).rpartition("/")[2]
    first, second, *others = [number for number in holders(world) if name in os.listdir(world.objects(number))]
    node = world.node()
    for number in others:
        node.catalog.objects.set_claimed(world.identity(number), 1, ())
    node.close()
    for state in ("ok", "gone"):
        await say(world, first, state)
        node = world.node()
        try:
            row = node.catalog.objects.by_name(bytes.fromhex(name))
            assert row is not None
            async with Federation(node, world.edge) as federation:
                publisher = Publisher(node, federation, world.edge, node.spool())
                with pytest.raises(MinimumNotMetError) if state == "gone" else contextlib.nullcontext():
                    publisher._demand_claims([row], PROMISE)
        finally:
            node.close()
    assert PROMISE.minimum == 2, "one that stays, and the one that is gone"
    assert name in os.listdir(world.objects(second))


async def test_one_that_is_draining_is_emptied_while_it_gives_its_copies(world: World, source: str) -> None:
    await world.backup()
    number = holders(world)[0]
    await say(world, number, "draining")
    found = await planned(world)
    assert {one.urgency for one in found.planned} == {"lazy"}
    done = await night(world)
    assert (done.made, done.exit_code) == (len(found.planned), 0)
    assert (await night(world)).made == 0
    world.silence(number)
    assert (await world.status()).exit_code == 0


async def test_a_disk_that_is_not_mounted_is_neither_silence_nor_loss(world: World, source: str) -> None:
    await world.backup()
    number = holders(world)[0]

    def unmounted(identity: Identity, op: str, phase: Phase) -> None:
        if identity == world.identity(number) and op not in ("connect", "info", "charter") and phase == "before":
            raise RefusedError("it", "the disk with the objects is not mounted", code="unavailable")

    world.network.faults = unmounted
    for _ in range(14):
        found = await world.repair()
        assert (found.made, list(found.waiting.values()), found.lost_peers) == (0, ["unmounted"], [])
        world.clock.advance(DAY)
    world.clock.advance(DAY)
    late = await night(world)
    assert late.made > 0, "it was away for a fortnight, although it answered every day"
    world.network.faults = lambda _identity, _op, _phase: None
    back = await night(world)
    assert (back.made, back.waiting, back.lost_peers) == (0, {}, [])


async def test_of_two_holders_that_are_silent_the_last_copy_is_doubled_after_a_week(world: World, source: str) -> None:
    await world.backup()
    where = {number: {path.rpartition("/")[2] for path in world.stored(number, ["data"])} for number in range(5)}
    name = next(iter(where[holders(world)[0]]))
    having = [number for number in where if name in where[number]]
    world.silence(*having[:2])
    await night(world)
    world.clock.advance(6 * DAY)
    assert (await night(world)).made == 0
    world.clock.advance(2 * DAY)
    found = await planned(world, by_hand=False)
    assert found.planned[0].urgency == "urgent"
    assert found.planned[0].reason.startswith("one copy is left, on ")
    assert "may be gone" in found.planned[0].reason
    assert (await night(world)).made > 0


async def test_the_plan_says_what_from_whom_to_whom_why_and_in_which_order(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    for number in range(4):
        world.small_dataset(f"more {number}")
        await world.backup(f"more {number}")
    where = {number: {path.rpartition("/")[2][:12] for path in world.stored(number)} for number in range(5)}
    first, second = holders(world)[:2]
    world.silence(first, second)
    found = await planned(world)
    packs = [one for one in found.planned if one.kind in ("data", "tree")]
    assert len({one.object for one in packs}) > 3
    assert len({one.chance for one in packs}) > 1
    assert [one.chance for one in packs] == sorted((one.chance for one in packs), reverse=True)
    both = where[first] & where[second]
    assert {one.urgency for one in packs if one.object in both} <= {"urgent"}
    names = {pin.identity: pin.name for pin in world.node().peers}
    silent = {names[world.identity(first)], names[world.identity(second)]}
    for one in packs:
        assert one.source not in silent
        assert one.peer not in {*silent, one.source}
        assert one.size > 0
        assert one.reason
        assert one.why
    sent: list[str] = []
    one_by_one = Sender._send_one

    async def noting(sender: Sender, row: ObjectRow, link: Link) -> None:
        sent.append(short(row.name))
        await one_by_one(sender, row, link)

    monkeypatch.setattr(Sender, "_send_one", noting)
    done = await world.repair()
    assert done.made == len(found.planned)
    assert sent[: len(packs)] == [one.object for one in packs]


@pytest.mark.parametrize("state", ["readonly", "away"])
async def test_what_is_new_goes_to_nobody_who_is_readonly_or_away(world: World, source: str, state: Said) -> None:
    number = 2
    await say(world, number, state, until_s=DAY)
    report = await world.backup()
    assert report.datasets[0].published
    assert world.stored(number, ["data"]) == []


async def test_before_a_backup_only_what_is_urgent_is_made(world: World, source: str) -> None:
    await world.backup()
    for number in range(4):
        world.small_dataset(f"more {number}")
        await world.backup(f"more {number}")
    where = {number: {path.rpartition("/")[2] for path in world.stored(number)} for number in range(5)}
    first, second = holders(world)[:2]
    both, either = where[first] & where[second], where[first] | where[second]
    assert both
    assert either - both
    await say(world, first, "gone")
    await say(world, second, "gone")
    node = world.node()
    try:
        urgent = await mend_urgent(node, world.edge)
        again = await mend_urgent(node, world.edge)
    finally:
        node.close()
    assert again.made == 0
    rest = await night(world)
    assert rest.made > 0
    later = {number: {path.rpartition("/")[2] for path in world.stored(number)} for number in range(5)}
    assert urgent.made == sum(
        len((later[number] - where[number]) & both) for number in range(5) if number not in (first, second)
    )


def shows_nothing(world: World, number: int, how: str) -> None:
    """Have a provider say hello and take everything, and show nothing of what it holds."""

    def refuse(_session: Session, _body: bytes) -> bytes:
        raise RequestRefusedError("unavailable", "the disk is busy")

    def empty(session: Session, body: bytes) -> bytes:
        reply = decode(ProveReply, session.handle("prove", body))
        return encode(msgspec.structs.replace(reply, proofs=[None for _ in reply.proofs]))

    ops: dict[str, Handle] = {"inventory": refuse} if how == "lists nothing" else {"prove": empty}
    world.network.add(Liar(world.services[number], ops=ops))


@pytest.mark.parametrize("how", ["lists nothing", "proves nothing"])
async def test_who_only_says_hello_is_as_lost_after_a_fortnight_as_who_does_not_answer(
    how: str, world: World, source: str
) -> None:
    await world.backup()
    one = holders(world)[0]
    world.silence(one)
    await night(world)
    shows_nothing(world, one, how)
    world.clock.advance(10 * DAY)
    early = await night(world)
    assert (early.made, early.lost_peers) == (0, [])
    assert PLACES[one][0] in early.waiting
    world.clock.advance(5 * DAY)
    late = await night(world)
    assert late.lost_peers == [PLACES[one][0]]
    assert late.made > 0
    world.answer(one)
    back = await night(world)
    assert (back.lost_peers, back.waiting) == ([], {})


async def test_silence_that_a_wrong_clock_dated_ahead_begins_with_the_next_look(world: World, source: str) -> None:
    await world.backup()
    one = holders(world)[0]
    world.silence(one)
    world.clock.advance(1000 * DAY)
    await night(world)
    world.clock.set_wall(world.clock.now_ns() - 1000 * DAY * NS)
    assert (await night(world)).lost_peers == []
    world.clock.advance(15 * DAY)
    assert (await night(world)).lost_peers == [PLACES[one][0]]
