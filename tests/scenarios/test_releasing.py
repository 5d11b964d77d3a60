"""Copies beyond the promise: writers let go of them, maintenance releases them, providers delete them in the end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from replicator.catalog.objects import split_ids
from replicator.cli.prune import prune_text
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.givenup import given_up
from replicator.engine.maintainer import MaintainerHome
from replicator.engine.members import set_peer
from replicator.engine.placing import Ground
from replicator.engine.pruning import AtProvider, PruneReport, prune
from replicator.engine.repair import repair
from replicator.engine.status import Status, SurplusAt
from replicator.engine.why import explain
from replicator.snapshot.retention import KeepRules
from replicator.wire.messages import VouchRequest
from tests.scenarios.conftest import Worlds
from tests.scenarios.joining import joined, keeping, opened
from tests.scenarios.test_forgetting import DAY_S, keep
from tests.scenarios.test_pruning import days_pass, marked_at, marks_of, pruned
from tests.scenarios.together import KilledError, together
from tests.scenarios.world import PROMISE, World, write

PROVIDERS = 4
COPIES = PROMISE.copies
EVERYWHERE = range(PROVIDERS)


@pytest.fixture
def world(worlds: Worlds) -> World:
    """One provider more than copies."""
    return worlds(PROVIDERS)


def lying(world: World, *, unmarked: bool = False) -> dict[str, set[int]]:
    """Return where each pack of the node lies; ``unmarked``: and is not marked."""
    node = world.node()
    try:
        found: dict[str, set[int]] = {
            row.name.hex(): set() for row in node.catalog.objects.all("kind IN ('data', 'tree')")
        }
    finally:
        node.close()
    for number in range(world.providers):
        marked = {name.hex() for name in marked_at(world, number)} if unmarked else set()
        for name in set(os.listdir(world.objects(number))) & found.keys() - marked:
            found[name].add(number)
    return found


def fewest(world: World) -> int:
    """Return the fewest copies of any pack that nobody has given up."""
    return min(len(where) for where in lying(world, unmarked=True).values())


def most(world: World) -> int:
    """Return the most copies of any pack that are there, given up or not."""
    return max(len(where) for where in lying(world).values())


def planned_with(world: World, number: int) -> int:
    """Return what the planner takes a provider to have of us."""
    node = world.node()
    try:
        [peer] = [
            one for one in Ground(node, Federation(node, world.edge)).roster() if one.id == world.identity(number).hex()
        ]
        return peer.used
    finally:
        node.close()


async def returned(world: World) -> str:
    """Back up, lose a provider, mend, and have it back: of what it held there is a copy more than promised."""
    path = world.small_dataset()
    await world.backup()
    lost = next(number for number in EVERYWHERE if world.stored(number))
    world.silence(lost)
    await world.repair()
    world.answer(lost)
    world.clock.advance(9 * DAY_S)
    assert (fewest(world), most(world)) == (COPIES, COPIES + 1)
    return path


def spare(report: PruneReport) -> AtProvider:
    """Return the one provider at which copies are found to be too many."""
    [found] = [one for one in report.at if one.spare]
    return found


def surplus(status: Status) -> SurplusAt:
    [found] = status.surplus
    return found


def released(world: World) -> dict[int, set[bytes]]:
    """Return what is marked as surplus, by provider where there is any."""
    found = {}
    for number in EVERYWHERE:
        rows = world.opened[number]._database.rows("SELECT name FROM marks WHERE why = 'surplus'")
        if rows:
            found[number] = {name for (name,) in rows}
    return found


async def test_a_copy_too_many_is_let_go_then_released_and_deleted_after_its_waits(world: World) -> None:
    path = await returned(world)
    assert (surplus(await world.status()).objects, surplus(await world.status()).released) == (1, 0)
    mended = await world.repair(by_hand=False)
    assert (len(mended.surplus), mended.let_go, mended.exit_code) == (1, 1, 0)
    assert "3 promised copies lie on" in mended.surplus[0].why
    assert (surplus(await world.status()).objects, surplus(await world.status()).released) == (0, 1)

    planned = await pruned(world, dry_run=True)
    there = spare(planned)
    assert (there.name, there.spare_bytes, there.released) == (mended.surplus[0].peer, mended.surplus[0].size, 0)
    assert there.released_ns > world.clock.now_ns()
    assert any("1 copy (65.5 kB) would be released" in line for line in prune_text(planned))
    assert released(world) == {}, "a dry run released something"

    report = await pruned(world)
    there = spare(report)
    assert (report.exit_code, there.released, there.spare_claimed) == (0, 1, 0)
    assert any("1 copy is released (65.5 kB), to go from 20" in line for line in prune_text(report))
    [(number, names)] = released(world).items()
    [mark] = marks_of(world, number)
    assert (split_ids(mark.surplus), mark.dead, mark.copies) == (sorted(names), b"", COPIES)
    assert len(mark.receipts) == COPIES
    assert fewest(world) == COPIES
    assert most(world) == COPIES + 1, "nothing goes at once"
    await world.status()
    used = planned_with(world, number)

    assert days_pass(world, 29) == 0
    await world.status()
    assert planned_with(world, number) == used, "a released copy takes its room until it is deleted"
    assert days_pass(world, 17) == 1
    await world.status()
    assert planned_with(world, number) < used
    assert (fewest(world), most(world)) == (COPIES, COPIES)
    for keeper in (False, True):
        status = await world.status(keeper=keeper)
        assert (status.problems, status.surplus) == ([], [])
    assert await world.differences(path) == []
    again = await pruned(world)
    assert (again.exit_code, [one for one in again.at if one.spare or one.released]) == (0, [])


async def test_nothing_is_released_before_its_writer_let_go_and_why_says_what_waits(world: World) -> None:
    await returned(world)
    report = await pruned(world, beside=False)
    there = spare(report)
    assert (report.exit_code, there.spare, there.spare_claimed, there.released) == (0, 1, 1, 0)
    assert any("stays until the node that relies on it lets go" in line for line in prune_text(report))
    assert released(world) == {}
    node = world.node()
    try:
        found = await explain(node, world.edge, node.catalog.snapshots.all())
    finally:
        node.close()
    assert any(f"on {there.name}, surplus: 3 promised copies lie on" in line for line in found.reasons)
    report = await pruned(world)  # the node of the same home lets go at once
    assert (spare(report).spare_claimed, spare(report).released) == (0, 1)
    node = world.node()
    try:
        found = await explain(node, world.edge, node.catalog.snapshots.all())
    finally:
        node.close()
    assert any(f"on {there.name}, given up as surplus: counted no more" in line for line in found.reasons)
    # The next night changes nothing about it: what was given up is not claimed again.
    for _ in range(2):
        world.clock.advance(DAY_S)
        await world.backup()
        await world.repair(by_hand=False)
        assert len(released(world)) == 1
        assert fewest(world) == COPIES


@pytest.mark.parametrize("mender", ["node", "keeper", "prune"])
async def test_a_released_copy_is_taken_back_if_another_is_lost_meanwhile(world: World, mender: str) -> None:
    path = await returned(world)
    await world.repair(by_hand=False)
    await pruned(world)
    [[name]] = released(world).values()
    [other, *_] = lying(world, unmarked=True)[name.hex()]
    os.unlink(os.path.join(world.objects(other), name.hex()))
    assert fewest(world) == COPIES - 1
    sent = 0
    if mender == "prune":
        report = await pruned(world, beside=False)
        assert report.plan.gaps, "it lacks what it had receipted: repair comes first"
        world.silence(other)
        world.clock.advance(15 * DAY_S)
        await pruned(world, beside=False)
    else:
        sent = (await world.repair(keeper=mender == "keeper", by_hand=False)).made
    assert sent == 0, "it was there, and was stored again"
    assert released(world) == {}
    world.answer(other)
    await world.backup()
    assert days_pass(world) == 0
    assert fewest(world) == COPIES
    assert await world.differences(path) == []


async def test_a_copy_that_was_stored_lately_waits_until_no_other_release_can_stand_on_its_receipt(
    world: World,
) -> None:
    await returned(world)
    await world.repair(by_hand=False)
    there = spare(await pruned(world, dry_run=True))
    [number] = [number for number in EVERYWHERE if world.identity(number).hex() == there.id]
    node = world.node()
    try:
        [given] = given_up(Ground(node, Federation(node, world.edge)))[world.identity(number)]
        world.services[number].session(node.signing.public).vouch(VouchRequest(names=given.name))  # type: ignore[attr-defined]
    finally:
        node.close()
    report = await pruned(world)
    there = spare(report)
    assert (there.spare, there.spare_young, there.released, report.exit_code) == (1, 1, 0, 0)
    assert any("1 copy stays until it has been there for eight days" in line for line in prune_text(report))
    world.clock.advance(9 * DAY_S)
    report = await pruned(world)
    assert (spare(report).spare, spare(report).released) == (1, 1)


@contextmanager
def maintaining(home: str) -> Iterator[MaintainerHome]:
    half = opened(home, "maintainer")
    assert isinstance(half, MaintainerHome)
    try:
        yield half
    finally:
        half.close()


async def prune_there(home: str, edge: Edge) -> PruneReport:
    with maintaining(home) as half:
        return await prune(half, edge, half.maintenance)


async def test_a_maintainer_shows_owners_word_on_whose_receipts_count_and_releases_nothing_without(
    world: World,
) -> None:
    await returned(world)
    home = await joined(world, "maintainer", "maintainer")
    await world.repair(by_hand=False)
    with maintaining(home) as half:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(half, "holders", lambda: b"")  # a charter of an earlier release
            report = await prune(half, world.edge, half.maintenance)
        assert (spare(report).released, released(world)) == (0, {})
        assert any("does not say yet whose receipts count" in line for line in report.stays)
    report = await prune_there(home, world.edge)
    assert (spare(report).released, report.exit_code) == (1, 0)
    [(number, _)] = released(world).items()
    [mark] = marks_of(world, number)
    assert mark.holders
    # Every charter says it anew; providers take that of the one in force alone.
    before = mark.holders
    with keeping(world) as (keeper, siblings):
        await set_peer(keeper, siblings, world.edge, keeper.peers[0].name, {"region": "elsewhere"}, {})
    with maintaining(home) as half:
        await prune(half, world.edge, half.maintenance)
        assert half.holders() not in {b"", before}


async def test_a_provider_that_was_put_back_forgets_the_release_and_gets_it_again(world: World) -> None:
    path = await returned(world)
    await world.repair(by_hand=False)
    await pruned(world)
    [(number, _)] = released(world).items()
    world.stop_provider(number)
    write(os.path.join(world.data(number), ".generation"), b"999\n")
    world.start_provider(number)
    assert released(world) == {}
    report = await pruned(world, beside=False)
    assert (released(world), report.exit_code) == ({}, 3), "its node did not claim anew yet"
    await world.backup()
    await world.repair(by_hand=False)
    world.clock.advance(9 * DAY_S)
    await world.backup()
    await pruned(world)
    assert list(released(world)) == [number]
    days_pass(world)
    assert (fewest(world), most(world)) == (COPIES, COPIES)
    assert await world.differences(path) == []


async def at_once(world: World, homes: list[str], *, seed: object, kills: dict[str, int]) -> None:
    """Mend and prune, at two maintainers, at the same time, some of them killed."""

    async def mending(edge: Edge) -> object:
        node = world.node()
        try:
            return await repair(node, edge, by_hand=False)
        finally:
            node.close()

    actors = {"repair": mending} | {
        f"prune {place}": (lambda edge, home=home: prune_there(home, edge)) for place, home in enumerate(homes)
    }
    came = await together(world.edge, world.network, actors, seed=seed, kills=kills)
    for result in came.values():
        if isinstance(result, BaseException) and not isinstance(result, KilledError):
            raise result
    assert fewest(world) >= COPIES


async def case(world: World, seed: object, kills: list[dict[str, int]]) -> None:
    path = await returned(world)
    homes = [await joined(world, "maintainer", name) for name in ("first", "second")]
    for one in (*kills, {}):
        await at_once(world, homes, seed=seed, kills=one)
    for home in homes:
        await prune_there(home, world.edge)
    assert fewest(world) == COPIES
    days_pass(world)
    assert (fewest(world), most(world)) == (COPIES, COPIES)
    assert await world.differences(path) == []
    assert (await world.status()).problems == []


async def test_two_maintainers_at_once_and_kills_in_between_leave_all_copies_that_are_promised(world: World) -> None:
    await case(world, "two", [{"repair": 20}, {"prune 0": 30, "prune 1": 45}])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
async def test_wherever_they_are_killed_as_many_copies_stay_as_are_promised(world: World, seed: int) -> None:
    await case(world, seed, [{"repair": 5 + 2 * seed % 60}, {"prune 0": 7 * seed % 90, "prune 1": 11 * seed % 100}])


async def test_fewer_copies_are_kept_once_no_snapshot_is_left_that_was_promised_more(world: World) -> None:
    path = world.small_dataset()
    await world.backup()
    world.set_policy("docs", msgspec.structs.replace(PROMISE, copies=2))
    world.clock.advance(9 * DAY_S)
    await world.backup()
    assert (await world.repair(by_hand=False)).let_go == 0, "the first snapshot is kept as it was promised"
    await keep(world, KeepRules(last=1))
    mended = await world.repair(by_hand=False)
    assert mended.let_go == len(mended.surplus) == len(lying(world))
    assert {row.why[:1] for row in mended.surplus} == {"2"}
    report = await pruned(world)
    assert (sum(one.released for one in report.at), fewest(world)) == (mended.let_go, 2)
    # What asks for more again has it at once: nothing is sent that is still there.
    world.set_policy("docs", PROMISE)
    done = await world.backup()
    assert (done.datasets[0].published, done.datasets[0].debts, released(world)) == (True, [], {})
    assert fewest(world) == COPIES
    assert await world.differences(path) == []
    assert (await world.status()).datasets[0].copies == COPIES


async def test_a_keeper_that_was_away_prunes_on_and_settles_what_was_released_meanwhile(world: World) -> None:
    await returned(world)
    home = await joined(world, "maintainer", "maintainer")
    assert (await world.status(keeper=True)).problems == []  # it has seen all copies
    await world.repair(by_hand=False)
    await prune_there(home, world.edge)
    days_pass(world)
    assert most(world) == COPIES
    report = await pruned(world, beside=False)
    assert (report.plan.gaps, report.exit_code) == ([], 0)
    assert any("gone" in one for one in (await world.status(keeper=True)).problems)
    await world.repair(keeper=True)
    assert (await world.status(keeper=True)).problems == []
    [other, *_] = (where for where in lying(world).values())
    for path in world.stored(min(other)):
        os.unlink(path)
    assert (await pruned(world, beside=False)).plan.gaps, "what nobody made up for is a gap"


async def test_a_provider_that_calls_surplus_what_it_lost_is_found_by_the_node_that_claims_it(world: World) -> None:
    world.small_dataset()
    await world.backup()
    [path, *_] = world.stored(0)
    lie = "INSERT INTO marks (tenant, name, why, marked_ns, marked_day) VALUES (?, ?, 'surplus', 1, 1)"
    name = bytes.fromhex(os.path.basename(path))
    world.opened[0]._database.write("lie", lambda connection: connection.execute(lie, (world.tenant_id, name)))
    assert (await world.status()).surplus == []
    os.unlink(path)
    status = await world.status()
    assert any("1 object that it had receipted is gone" in one for one in status.problems)
    assert status.datasets[0].state == "below promise"
