"""A provider that leaves or shrinks: its tenant hears of it, makes copies elsewhere, and says what has no place."""

import os
from typing import cast

import msgspec

from replicator.clock import DAY_S, NS
from replicator.config import format_size
from replicator.engine.alarms import alarms_of
from replicator.engine.notices import notice_of
from replicator.engine.status import PeerStatus
from replicator.provider.drain import Emptying
from replicator.transport.handler import RequestRefusedError, Service
from tests.scenarios.test_rebalance import move, several
from tests.scenarios.test_repair import holders, night, say
from tests.scenarios.world import PLACES, TOO_MUCH, World

PACKS = ("data", "tree")


def leave(world: World, number: int, days: float = 60, *, size: int | None = None, promised: int = 0) -> None:
    """`provider drain --by DATE [--to SIZE] --yes`."""
    provider = world.opened[number]
    provider.change_offer(notice_s=promised)
    plan = provider.plan_drain(tenant=None, size=size)
    by_ns = world.clock.now_ns() + round(days * DAY_S * NS)
    provider.drain(plan, size=size, whole=True, by_ns=by_ns, consent=True)


def progress(world: World, number: int) -> Emptying:
    [found] = world.opened[number].draining()[1]
    return found


async def stands(world: World, number: int) -> PeerStatus:
    found = await world.status()
    return next(peer for peer in found.peers if peer.name == PLACES[number][0])


async def test_copies_are_made_elsewhere_and_the_provider_hears_how_far_that_is(world: World, source: str) -> None:
    await several(world)
    await world.backup()
    number = holders(world)[0]
    had = len(world.stored(number, PACKS))
    leave(world, number)
    assert progress(world, number).left > 0, "by claims, before anybody said anything"
    before = await world.status()
    assert (before.exit_code, {one.state for one in before.datasets}) == (0, {"safe"}), "until the day all is there"
    [peer] = [one for one in before.peers if one.leaves_ns]
    assert peer.stands == "leaving"
    assert peer.left > 0
    assert "peer.leaving" in {one.code for one in alarms_of(before)}
    found = await night(world)
    assert found.made > 0
    told = progress(world, number)
    assert (told.left, told.stuck, told.told_ns > 0) == (0, 0, True)
    assert len(world.stored(number, PACKS)) == had, "nothing is deleted for it"
    after = await world.status()
    assert (after.exit_code, (await stands(world, number)).left) == (0, 0)
    assert (await night(world)).made == 0


async def test_after_its_day_a_silent_one_is_gone_at_once_and_nobody_waits_for_it(world: World, source: str) -> None:
    await several(world)
    number = holders(world)[0]
    leave(world, number, days=2)
    await world.status()
    world.silence(number)
    world.clock.advance(1.5 * DAY_S)
    assert (await stands(world, number)).stands == "leaving"
    world.clock.advance(1 * DAY_S)
    assert (await stands(world, number)).stands == "gone"
    assert (await night(world)).made > 0
    assert (await night(world)).made == 0
    other = os.path.join(world.root, "source", "more 3")
    assert await world.differences(other) == []


async def test_who_has_nowhere_to_go_says_so_on_both_sides(world: World, source: str) -> None:
    policy = msgspec.structs.replace(TOO_MUCH, copies=5, minimum=2)
    world.set_policy("docs", policy)
    await world.backup()
    number = holders(world)[0]
    leave(world, number, days=10, promised=60 * DAY_S)
    await night(world)
    told = progress(world, number)
    assert told.left == told.stuck > 0
    found = await world.status()
    assert found.exit_code == 3
    [alarm] = [one for one in alarms_of(found) if one.code == "peer.stuck"]
    assert format_size(told.stuck) in alarm.what
    assert "it says so 10 days before, and had promised 60" in alarm.what
    await world.add_peer(world.start_provider(5))
    await night(world)
    assert (progress(world, number).left, (await world.status()).exit_code) == (0, 0)


async def test_who_shrinks_keeps_what_it_may_and_the_rest_moves(world: World, source: str) -> None:
    await several(world)
    number = max(range(world.providers), key=world.used)
    keeps = world.used(number) * 3 // 4
    leave(world, number, size=keeps)
    heard = await stands(world, number)
    assert (heard.keeps, heard.stands) == (keeps, "answers")
    assert progress(world, number).left > 0
    await night(world)
    assert (await move(world)).made > 0
    await night(world)
    assert (await move(world)).moves == []
    told = progress(world, number)
    assert (told.left, told.stuck, told.told_ns > 0) == (0, 0, True)


async def test_what_is_taken_back_is_forgotten_and_the_tenants_own_word_stands_above_it(
    world: World, source: str
) -> None:
    await several(world)
    number = holders(world)[0]
    leave(world, number)
    assert (await stands(world, number)).stands == "leaving"
    await say(world, number, "gone")
    assert (await stands(world, number)).stands == "gone"
    await say(world, number, "ok")
    world.opened[number].cancel_drain(None)
    found = await world.status()
    assert any("stays after all" in notice for notice in found.notices)
    assert (await stands(world, number)).stands == "answers"
    node = world.node()
    try:
        assert notice_of(node, world.identity(number)) is None
    finally:
        node.close()


async def test_a_build_that_is_older_than_the_question_is_taken_as_one_that_grants_less(
    world: World, source: str
) -> None:
    await several(world)
    number = holders(world)[0]
    leave(world, number)
    world.services[number] = cast("Service", _Older(world.services[number]))
    world.answer(number)
    peer = await stands(world, number)
    assert (peer.leaves_ns, peer.stands, peer.problems) == (0, "answers", [])


class _Older:
    """A provider that knows no `leaving`."""

    def __init__(self, service: object) -> None:
        self._service = service

    def __getattr__(self, name: str) -> object:
        return getattr(self._service, name)

    def session(self, holder_key: bytes) -> object:
        session = self._service.session(holder_key)  # type: ignore[attr-defined]

        class Session:
            def handle(self, op: str, body: bytes) -> bytes:
                if op == "leaving":
                    raise RequestRefusedError("bad-request", "no such operation")
                return bytes(session.handle(op, body))

            def __getattr__(self, name: str) -> object:
                return getattr(session, name)

        return Session()
