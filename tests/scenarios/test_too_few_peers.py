"""Below the minimum nothing is published and nothing is lost; below the promise the debt is named, and paid later."""

import os
from collections.abc import Callable

import pytest

from replicator.errors import MinimumNotMetError, SpaceError
from replicator.format.codec import decode, encode
from replicator.format.policy import Policy
from replicator.ids import ObjectName
from replicator.transport.handler import Session, Upload
from replicator.wire.messages import Heads, HeadsRequest
from tests.fakes import SeededRng
from tests.scenarios.liars import Liar
from tests.scenarios.world import TOO_MUCH, World, write


def witnessed(world: World) -> list[int]:
    """How many heads each provider has witnessed."""
    keeper = world.keeper()
    try:
        sessions: list[Session] = [service.session(keeper.signing.public) for service in world.services]
    finally:
        keeper.close()
    return [
        len(decode(Heads, session.handle("heads", encode(HeadsRequest(challenge=bytes(32))))).heads)
        for session in sessions
    ]


def spool(world: World) -> set[str]:
    return set(os.listdir(os.path.join(world.home, "node", "spool", "objects")))


async def test_with_one_peer_of_two_nothing_is_published_and_everything_is_kept(world: World, source: str) -> None:
    world.silence(1, 2, 3, 4)
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, MinimumNotMetError)
    assert "have 0 of 3 promised copies" in str(done.error)
    assert not done.published
    assert witnessed(world) == [0, 0, 0, 0, 0]
    assert len(spool(world)) == 5, "a data and a tree pack, an index, references, a snapshot"
    found = await world.status()
    assert (found.exit_code, found.datasets[0].state) == (5, "waiting")
    assert found.spooled_bytes > 400_000


async def test_without_any_peer_a_backup_commits_and_waits(world: World, source: str) -> None:
    world.silence(*range(5))
    report = await world.backup()
    assert isinstance(report.datasets[0].error, MinimumNotMetError)
    assert len(report.unreachable) == 5
    assert len(spool(world)) == 5


async def test_a_tenant_without_peers_can_commit(worlds: Callable[[int], World]) -> None:
    world = worlds(0)
    source = world.small_dataset()
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, MinimumNotMetError)
    assert (await world.status()).exit_code == 5
    for number in range(3):
        await world.add_peer(world.start_provider(number))
    report = await world.backup()
    assert [row.name for row in report.finished_before] == [done.snapshot.name if done.snapshot else b""]
    assert (await world.status()).exit_code == 0
    assert await world.differences(source) == []


@pytest.mark.parametrize("overlap", [False, True])
async def test_the_next_run_publishes_the_same_snapshot_from_the_same_bytes_before_a_new_one(
    overlap: bool, world: World, source: str
) -> None:
    world.silence(1, 2, 3, 4)
    [first] = (await world.backup(overlap=overlap)).datasets
    kept = spool(world)
    assert first.snapshot is not None
    world.answer(1, 2, 3, 4)
    write(os.path.join(source, "later"), b"later")
    report = await world.backup(overlap=overlap)
    assert [row.name for row in report.finished_before] == [first.snapshot.name]
    assert [done.published for done in report.datasets] == [True]
    found = await world.snapshots()
    assert [one.row.number for one in found] == [1, 2]
    assert found[0].row.name == first.snapshot.name
    for number in range(5):
        assert kept & set(os.listdir(world.objects(number))), "what was sealed then"
    assert kept <= set().union(*(os.listdir(world.objects(number)) for number in range(5)))
    assert report.datasets[0].new_bytes < 10_000, "what waited is not stored again"
    assert spool(world) == set()
    assert await world.differences(source) == []


async def test_several_waiting_snapshots_are_published_in_their_order(world: World, source: str) -> None:
    world.silence(*range(5))
    for number in range(3):
        write(os.path.join(source, f"file {number}"), SeededRng(f"{number}").bytes(70_000))
        await world.backup()
    world.answer(*range(5))
    report = await world.backup()
    assert [row.number for row in report.finished_before] == [1, 2, 3]
    assert [one.row.number for one in await world.snapshots()] == [1, 2, 3, 4]
    assert spool(world) == set()
    assert (await world.status()).exit_code == 0
    assert await world.differences(source) == []


async def test_a_snapshot_that_waits_is_nobodys_loss_and_goes_in_its_turn(world: World, source: str) -> None:
    await world.backup()
    world.silence(*range(5))
    write(os.path.join(source, "later"), b"later")
    [done] = (await world.backup()).datasets
    assert done.snapshot is not None
    world.answer(*range(5))
    report = await world.verify()
    assert (report.problems, report.absent) == ([], [])
    repaired = await world.repair()
    assert (repaired.exit_code, repaired.made, repaired.planned) == (0, 0, [])
    for number in range(5):
        assert done.snapshot.name.hex() not in os.listdir(world.objects(number))
    found = await world.status()
    assert (found.exit_code, found.datasets[0].state) == (3, "below promise")
    assert "1 newer snapshot waits to be published" in found.datasets[0].gaps


async def test_below_the_promise_it_publishes_and_names_the_debt(world: World, source: str) -> None:
    world.silence(2, 3, 4)
    [done] = (await world.backup()).datasets
    assert (done.error, done.published) == (None, True)
    assert any("have 2 of 3 promised copies" in debt for debt in done.debts)
    found = await world.status()
    assert (found.exit_code, found.datasets[0].state, found.datasets[0].copies) == (3, "below promise", 2)


async def test_a_debt_is_paid_by_repair_when_a_peer_joins(worlds: Callable[[int], World]) -> None:
    world = worlds(2)
    source = world.small_dataset()
    [done] = (await world.backup()).datasets
    assert done.published
    assert done.debts
    assert (await world.repair()).exit_code == 3
    await world.add_peer(world.start_provider(2))
    repaired = await world.repair()
    assert (repaired.exit_code, repaired.debts, repaired.owed) == (0, [], [])
    assert repaired.made >= 2
    found = await world.status()
    assert (found.exit_code, found.datasets[0].copies) == (0, 3)
    assert (await world.backup()).datasets[0].debts == []
    world.silence(0, 1)
    assert await world.differences(source) == []


async def test_a_debt_is_paid_by_the_next_backup_too(worlds: Callable[[int], World]) -> None:
    world = worlds(2)
    world.small_dataset()
    await world.backup()
    await world.add_peer(world.start_provider(2))
    [done] = (await world.backup()).datasets
    assert done.debts == []
    assert (await world.status()).exit_code == 0


async def test_the_keeper_can_pay_the_debt(worlds: Callable[[int], World]) -> None:
    world = worlds(2)
    world.small_dataset()
    await world.backup()
    await world.add_peer(world.start_provider(2))
    assert (await world.repair(keeper=True)).exit_code == 0
    assert (await world.status(keeper=True)).exit_code == 0


async def test_the_minimum_counts_distinct_households(worlds: Callable[[int], World]) -> None:
    """The own household holds a copy and it does not count."""
    world = worlds(1)
    await world.add_peer(world.start_provider(1), own=True)
    world.small_dataset()
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, MinimumNotMetError)
    await world.add_peer(world.start_provider(2))
    assert (await world.backup()).datasets[0].published


async def test_residency_is_never_relaxed(worlds: Callable[[int], World]) -> None:
    world = worlds(3)
    policy = Policy(
        copies=3, minimum=2, coding=None, spread=["owner"], residency=["NO"], count_own=False, stale_after_s=30 * 86400
    )
    world.small_dataset(policy=policy)
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, MinimumNotMetError)
    assert world.stored(0, ["data", "tree", "index", "references", "snapshot"]) == []
    assert world.stored(1, ["data", "tree", "index", "references", "snapshot"]) == []


async def test_one_dataset_that_cannot_be_placed_stops_no_other(world: World, source: str) -> None:
    world.small_dataset("bold", TOO_MUCH)
    for _ in range(2):
        report = await world.backup()
        done = {one.dataset: one for one in report.datasets}
        assert isinstance(done["bold"].error, MinimumNotMetError)
        assert (done["docs"].error, done["docs"].published) == (None, True)
    found = {one.name: one.state for one in (await world.status()).datasets}
    assert found == {"bold": "waiting", "docs": "safe"}
    assert await world.differences(source, "latest:docs") == []
    for number in (5, 6):
        await world.add_peer(world.start_provider(number))
    report = await world.backup()
    assert [(one.error, one.published) for one in report.datasets] == [(None, True)] * 2
    numbers = [one.row.number for one in await world.snapshots()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert spool(world) == set()


async def test_a_peer_that_stops_answering_midway_leaves_the_rest_to_the_others(world: World, source: str) -> None:
    count = 0

    def vanish(session: Session, name: ObjectName, size: int) -> Upload:
        nonlocal count
        count += 1
        if count > 1:
            world.silence(0)
        return session.begin_put(name, size)

    world.network.add(Liar(world.services[0], begin_put=vanish))
    [done] = (await world.backup()).datasets
    assert done.published
    assert await world.differences(source) == []


async def test_a_spool_that_lost_an_object_makes_it_again(world: World, source: str) -> None:
    world.silence(*range(5))
    await world.backup()
    folder = os.path.join(world.home, "node", "spool", "objects")
    largest = max(os.scandir(folder), key=lambda entry: entry.stat().st_size)
    os.unlink(largest)
    world.answer(*range(5))
    await world.backup()
    [done] = (await world.backup()).datasets
    assert (done.error, done.published) == (None, True)
    assert (await world.status()).exit_code == 0
    assert (await world.verify()).problems == []
    assert spool(world) == set()
    for one in await world.snapshots():
        assert await world.differences(source, one.id) == []


@pytest.mark.parametrize("kind", ["data", "tree", "index", "references", "snapshot"])
async def test_a_spool_that_lost_any_kind_of_object_makes_it_again(kind: str, world: World, source: str) -> None:
    world.silence(*range(5))
    await world.backup()
    node = world.node()
    [row] = [row for row in node.catalog.objects.all() if row.kind == kind]
    node.close()
    path = os.path.join(world.home, "node", "spool", "objects", row.name.hex())
    write(path, b"rot")
    world.answer(*range(5))
    for _ in range(2):
        report = await world.backup()
    assert [(one.error, one.published) for one in report.datasets] == [(None, True)]
    assert (await world.status()).exit_code == 0
    assert (await world.verify()).problems == []
    assert spool(world) == set()
    for one in await world.snapshots():
        assert await world.differences(source, one.id) == []


async def test_a_whole_lost_spool_is_made_again(world: World, source: str) -> None:
    world.silence(*range(5))
    await world.backup()
    folder = os.path.join(world.home, "node", "spool", "objects")
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    world.answer(*range(5))
    for _ in range(2):
        report = await world.backup()
    assert [(one.error, one.published) for one in report.datasets] == [(None, True)]
    assert (await world.status()).exit_code == 0
    assert await world.differences(source) == []


async def test_what_no_snapshot_needs_leaves_the_spool(world: World, source: str) -> None:
    """A run that failed after sealing leaves packs that the next one uses, or lets go."""
    world.silence(*range(5))
    write(os.path.join(source, "passing"), SeededRng("passing").bytes(3_000_000))
    [done] = (await world.backup(spool_limit=2_000_000)).datasets
    assert isinstance(done.error, (SpaceError, MinimumNotMetError))
    os.unlink(os.path.join(source, "passing"))
    world.answer(*range(5))
    [done] = (await world.backup()).datasets
    assert done.published
    assert spool(world) == set()
    assert (await world.status()).spooled_bytes == 0
