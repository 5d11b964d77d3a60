"""Nights: when a machine may send, when a provider takes anything, and what is said of what is left."""

import dataclasses

import pytest

from replicator.config import LineSettings, read_window
from replicator.engine import send
from replicator.engine.line import Line
from replicator.ids import Identity
from replicator.provider import hours
from replicator.transport.memory import Phase
from tests.scenarios.world import World

DAY = read_window("10:00-20:00", "UTC")  # the world begins at midnight
NIGHT = read_window("22:00-06:00", "UTC")
HOUR = 3600


def limited(world: World, **settings: object) -> None:
    line = Line(LineSettings(**settings), world.clock)  # type: ignore[arg-type] # each test's own
    world.edge = dataclasses.replace(world.edge, line=line)


async def test_by_day_all_is_kept_and_the_night_sends_it(world: World, source: str) -> None:
    limited(world, night=DAY, up_day=0)
    first = await world.backup()
    assert not first.datasets[0].published
    assert [world.stored(number) for number in range(5)] == [[]] * 5
    assert first.sent_bytes < 1 << 20
    assert "sending stops for the day and goes on at 10:00 UTC" in first.notices
    world.clock.advance(10 * HOUR)
    second = await world.backup()
    assert second.finished_before
    assert (await world.status()).exit_code == 0
    assert await world.differences(source) == []


async def test_when_the_night_ends_what_was_begun_is_finished_and_nothing_else_begun(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "STREAMS", 1)
    world.clock.advance(6 * HOUR - 90)
    limited(world, night=NIGHT, up_day=0)
    puts = 0

    def slow(_identity: Identity, op: str, phase: Phase) -> None:
        nonlocal puts
        if op == "put" and phase == "before":
            puts += 1
            world.clock.advance(20)

    world.network.faults = slow
    report = await world.backup()
    assert 0 < report.sent_objects == puts < 20
    assert "sending stops for the day and goes on at 22:00 UTC" in report.notices
    world.clock.advance(16 * HOUR)
    world.network.faults = lambda _identity, _op, _phase: None
    await world.backup()
    assert (await world.status()).exit_code == 0


async def test_a_night_that_will_be_too_short_is_said_while_it_lasts(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "STREAMS", 1)
    world.clock.advance(6 * HOUR - 300)
    limited(world, night=NIGHT, up_day=0)

    def slow(_identity: Identity, op: str, phase: Phase) -> None:
        if op == "put" and phase == "before":
            world.clock.advance(100)

    world.network.faults = slow
    report = await world.backup()
    [said] = [notice for notice in report.notices if "will not finish by" in notice]
    assert said.startswith("will not finish by 06:00 UTC: ")
    assert "wait for the next night" in said


async def test_a_provider_outside_of_its_window_is_owed_and_not_waited_for(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hours, "ALWAYS_TAKEN", 0)
    for number in range(3):
        world.opened[number].set_hours(window="10:00-20:00", zone="UTC", streams=None)
        world.stop_provider(number)
        world.start_provider(number)
    before = world.clock.monotonic()
    report = await world.backup()
    assert world.clock.monotonic() - before < HOUR
    assert any("takes nothing large until 10:00 UTC" in notice for notice in report.notices)
    assert report.datasets[0].debts
    world.clock.advance(11 * HOUR)
    await world.backup()
    repaired = await world.repair(by_hand=False)
    assert repaired.exit_code == 0
    assert await world.differences(source) == []


async def test_a_line_that_is_limited_sends_everything_all_the_same(world: World, source: str) -> None:
    limited(world, up=1 << 20, down=1 << 20)
    before = world.clock.monotonic()
    report = await world.backup()
    assert (report.unreachable, report.datasets[0].debts) == ([], [])
    assert world.clock.monotonic() - before >= report.sent_bytes / (1 << 20) - 2
    assert await world.differences(source) == []
