"""Pruning for real: what is marked, who lets go of it, what providers delete in the end, and what all see of it."""

import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest

from replicator.catalog.objects import Objects, split_ids
from replicator.cli.prune import prune_text
from replicator.crypto.sign import body_of
from replicator.engine import backup as backup_module
from replicator.engine import pruning, retain
from replicator.engine.browse import Library
from replicator.engine.dismissed import dismissed_packs
from replicator.engine.federation import Federation
from replicator.engine.forgetting import Forgotten, records_in_force, say, with_chains
from replicator.engine.keys import rotate_maintenance
from replicator.engine.maintainer import MaintainerHome
from replicator.engine.marking import MarkedAt, mark_dead
from replicator.engine.members import revoke, revoke_node
from replicator.engine.placing import objects_of
from replicator.engine.prune import Look, look
from replicator.engine.pruneplan import DeadObject
from replicator.engine.pruning import PruneReport, prune
from replicator.engine.sync import knows_index, sync_all
from replicator.format.codec import decode
from replicator.format.mark import Mark
from replicator.ids import Identity
from replicator.pack.repack import Repacker
from replicator.snapshot.retention import KeepRules
from tests.compare import Rules, compare
from tests.fakes import NS, SeededRng
from tests.scenarios.conftest import Worlds
from tests.scenarios.joining import joined, keeping, opened
from tests.scenarios.test_forgetting import DAY_S, forget, keep, library_of, remove
from tests.scenarios.test_prune import changing_nights, check_restores
from tests.scenarios.world import PLACES, World, read, write

PROVIDERS = 3
WAIT_DAYS = 46
"""Longer than grace and lock, counted in days on which a provider ran."""


@pytest.fixture
def world(worlds: Worlds) -> World:
    """As many providers as a copy needs, as days pass quicker at fewer."""
    return worlds(PROVIDERS)


async def pruned(
    world: World, *, beside: bool = True, dry_run: bool = False, retiring: Collection[str] = (), max_unused: float = 0.3
) -> PruneReport:
    """Prune on the keeper; ``beside``: its node claims anew at once, as in one home."""
    keeper, node = world.keeper(), world.node()
    try:
        return await prune(
            keeper,
            world.edge,
            keeper.maintenance,
            ticket=lambda _: keeper.ticket(),
            order=keeper.ticket,
            nodes=[node] if beside else [],
            retiring=retiring,
            dry_run=dry_run,
            max_unused=max_unused,
        )
    finally:
        keeper.close()
        node.close()


def days_pass(world: World, count: int = WAIT_DAYS) -> int:
    """Let days go by on which every provider runs and looks once; return how many objects went."""
    gone = 0
    for _ in range(count):
        world.clock.advance(DAY_S)
        for service in world.services:
            gone += sum(len(one) for _, one, _ in service.sweep())  # type: ignore[attr-defined,misc] # not on the wire
    return gone


def marked_at(world: World, number: int) -> set[bytes]:
    """Return what is marked at a provider."""
    return {name for (name,) in world.opened[number]._database.rows("SELECT name FROM marks")}


def marks_of(world: World, number: int) -> list[Mark]:
    """Return the marks that a provider has accepted."""
    rows = world.opened[number]._database.rows("SELECT signed FROM mark_chain ORDER BY number")
    return [decode(Mark, body_of(signed)) for (signed,) in rows]


@asynccontextmanager
async def library_of_any(world: World) -> AsyncIterator[Library]:
    """Open the keeper's library, whatever is wrong."""
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            library = Library(keeper, federation)
            await library.refresh()
            yield library
    finally:
        keeper.close()


def used(world: World) -> int:
    """Return the bytes of all objects at all providers."""
    return sum(world.used(number) for number in range(world.providers))


async def test_what_is_forgotten_is_freed_at_every_provider_after_its_waits_and_the_rest_restores(world: World) -> None:
    copies = await changing_nights(world, 5)
    await keep(world, KeepRules(last=2))
    before = used(world)
    report = await pruned(world, max_unused=1.0)  # nothing new is put together of what stays
    assert (report.exit_code, report.plan.gaps) == (0, [])
    assert all(one.marked == one.objects > 0 for one in report.at)
    freed = sum(one.bytes for one in report.at)
    wait_ns = 30 * DAY_S * NS
    assert all(world.clock.now_ns() + wait_ns - NS <= one.first_ns <= one.last_ns for one in report.at)
    assert used(world) >= before  # nothing goes at once
    again = await pruned(world)
    assert [one.marked for one in again.at] == [one.objects for one in again.at]
    for number in range(PROVIDERS):
        names = [name for mark in marks_of(world, number) for name in split_ids(mark.dead)]
        assert len(set(names)) == len(names)  # a provider keeps every mark, and nothing is marked twice

    assert days_pass(world, 29) == 0
    assert days_pass(world, 17) > 0
    assert used(world) <= before - freed + PROVIDERS * 4 * (1 << 16)  # but for what was said about it
    await check_restores(world, copies)
    status = await world.status()
    assert [one for one in status.problems if "gone" in one] == []
    again = await pruned(world)
    assert again.exit_code == 0


async def test_packs_that_are_put_together_anew_are_taken_over_by_their_node_and_the_old_ones_go(world: World) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    report = await pruned(world, max_unused=0.01)
    assert (report.exit_code, report.plan.gaps) == (0, [])
    node = world.node()
    try:
        moved = Forgotten.of(node).moved
        assert moved
        assert all(knows_index(node, one.index) for one in moved)
        assert {name for one in moved for name in split_ids(one.packs)} <= dismissed_packs(node)
    finally:
        node.close()
    done = await world.backup("docs")
    assert done.datasets[0].new_chunks == 0  # nothing is stored again: the node relies on the new packs
    assert days_pass(world) > 0
    await world.backup("docs")
    copies |= dict.fromkeys((5, 6), copies[4])
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    shutil.rmtree(os.path.join(world.home, "keeper", "cache"))
    await check_restores(world, copies)
    for keeper in (False, True):
        status = await world.status(keeper=keeper)
        assert [one for one in status.problems if "gone" in one or "missing" in one] == []
    assert (await pruned(world, max_unused=0.01)).exit_code == 0


async def test_what_is_taken_back_loses_its_marks_and_stays(world: World) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    async with library_of(world) as library:
        second = (await library.snapshots(forgotten=True))[1]
    await forget(world, second.id, undo=True)
    node = world.node()
    try:
        needed = {row.name for row in objects_of(node, [second.row])}
    finally:
        node.close()
    for number in range(world.providers):
        assert not needed & marked_at(world, number)
    await world.backup("docs")
    copies[5] = copies[4]
    days_pass(world)
    await check_restores(world, copies)
    async with library_of(world) as library:
        assert [one.row.number for one in await library.snapshots()] == [2, 4, 5]


async def needed_by(world: World, number: int) -> set[bytes]:
    """Return the names of all that a snapshot needs."""
    node = world.node()
    try:
        [row] = node.catalog.snapshots.all("number = ?", (number,))
        return {row.name for row in objects_of(node, [row])}
    finally:
        node.close()


async def take_back_second(world: World) -> list[str]:
    """Take the second snapshot back; return what was said."""
    async with library_of(world) as library:
        [second] = [one.id for one in await library.snapshots(forgotten=True) if one.row.number == 2]
        judged = await retain.by_name(library, world.edge, [second], undo=True)
        await retain.forget(library, world.edge, library.keeper.maintenance, judged, undo=True)
        return library.federation.notices


async def test_what_is_taken_back_while_a_provider_is_away_loses_its_marks_there_with_the_next_prune(
    world: World,
) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    needed = await needed_by(world, 2)
    world.silence(2)
    said = await take_back_second(world)
    assert any(f"{PLACES[2][0]} did not answer: what is marked there" in one for one in said)
    world.answer(2)
    assert needed & marked_at(world, 2)
    report = await pruned(world, beside=False)  # its node has not come back
    assert (report.exit_code, report.plan.gaps) == (0, [])
    assert any("taken off what is needed again" in one for one in report.notices)
    for number in range(PROVIDERS):
        assert not needed & marked_at(world, number)
    days_pass(world)
    await check_restores(world, copies)


async def test_what_is_taken_back_while_a_maintainer_prunes_stays_though_its_node_never_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = await changing_nights(world, 4)
    home = await joined(world, "maintainer", "second machine")
    await keep(world, KeepRules(last=1))
    begun: list[bool] = []

    async def later(*args: Any, **kwargs: Any) -> list[MarkedAt]:
        if not begun:
            begun.append(True)
            await take_back_second(world)
        return await mark_dead(*args, **kwargs)

    monkeypatch.setattr(pruning, "mark_dead", later)
    maintainer, node = opened(home, "maintainer"), world.node()
    assert isinstance(maintainer, MaintainerHome)
    try:
        report = await prune(maintainer, world.edge, maintainer.maintenance, nodes=[node])
    finally:
        maintainer.close()
        node.close()
    assert (report.exit_code, report.plan.gaps) == (0, [])
    needed = await needed_by(world, 2)
    for number in range(PROVIDERS):
        assert not needed & marked_at(world, number)
    days_pass(world)
    async with library_of(world) as library:
        assert [one.row.number for one in await library.snapshots()] == [2, 4]
    await check_restores(world, copies)


async def taken_back_unseen(world: World) -> set[bytes]:
    """Take a snapshot back while a provider with marks is away; return the names of all that it needs."""
    await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    needed = await needed_by(world, 2)
    world.silence(2)
    await take_back_second(world)
    world.answer(2)
    assert needed & marked_at(world, 2)
    return needed


async def test_a_prune_that_does_not_know_everything_still_takes_marks_off_what_it_knows_to_be_needed(
    world: World,
) -> None:
    needed = await taken_back_unseen(world)
    last = await needed_by(world, 4)
    remove(world, [min(last - needed)])
    report = await pruned(world, beside=False)
    assert report.plan.gaps
    assert any("taken off what is needed again" in one for one in report.notices)
    assert not needed & marked_at(world, 2)
    assert marked_at(world, 2)  # what only the first and third needed is marked still


async def test_a_mark_that_is_not_known_to_be_right_any_more_goes_before_it_counts(world: World) -> None:
    needed = await taken_back_unseen(world)
    had = {name.hex() for name in needed} & set(os.listdir(world.objects(2)))
    node = world.node()
    [second] = [one.name.hex() for one in node.catalog.snapshots.all("number = 2")]
    node.close()
    away = [(os.path.join(world.objects(number), second), f"{world.root}/away-{number}") for number in range(PROVIDERS)]
    for path, aside in away:
        os.rename(path, aside)
    lose_catalog(world)
    for _ in range(10):
        days_pass(world, 5)
        assert (await pruned(world, beside=False)).plan.gaps
    for path, aside in away:
        os.rename(aside, path)
    assert had <= set(os.listdir(world.objects(2)))
    copy = os.path.join(world.root, "as it was", "2", "docs")
    assert await world.differences(copy, second[:12]) == []


async def test_what_was_marked_before_something_was_found_missing_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await changing_nights(world, 3)
    await keep(world, KeepRules(last=1))
    needed = await needed_by(world, 3)

    async def stale(*args: Any, **kwargs: Any) -> list[MarkedAt]:
        answers = await mark_dead(*args, **kwargs)
        os.unlink(os.path.join(world.objects(0), min(needed).hex()))
        answers[-1].outcome = "stale"
        return answers

    monkeypatch.setattr(pruning, "mark_dead", stale)
    report = await pruned(world, max_unused=1.0)
    assert report.exit_code == 3
    assert report.plan.gaps
    assert [one.marked for one in report.at] == [len(marked_at(world, number)) for number in range(PROVIDERS)]
    said = prune_text(report)
    assert said[0].startswith("Nothing more is marked")
    assert any(f"{report.at[0].marked} objects are marked" in line for line in said)


async def test_a_record_that_an_index_calls_a_pack_is_not_marked_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await changing_nights(world, 3)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    keeper = world.keeper()
    records = {*records_in_force(keeper)}
    assert len(records) > 2, "charter, keybag and a Forget"
    for name in records:
        size = len(read(os.path.join(world.objects(0), name.hex())))
        keeper.catalog.objects.add(
            name=name, writer=bytes(32), kind="data", size=size, policy=bytes(32), spooled=False, created_ns=1
        )
    keeper.close()

    async def looked(*args: Any, **kwargs: Any) -> Look:
        found = await look(*args, **kwargs)
        found.plan.dead += [DeadObject(name=name, kind="data", size=1 << 16) for name in records]
        return found

    monkeypatch.setattr(pruning, "look", looked)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    for number in range(PROVIDERS):
        assert marked_at(world, number)
        assert not marked_at(world, number) & records


async def test_who_is_told_something_new_each_time_says_that_it_is_not_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await changing_nights(world, 2)
    await keep(world, KeepRules(last=1))

    async def news(*_: object) -> bool:
        return True

    monkeypatch.setattr(pruning, "learn", news)
    report = await pruned(world)
    assert report.exit_code == 3
    assert all("run `prune` again" in one.problem for one in report.at)


async def test_old_packs_stay_while_too_few_providers_that_answer_have_the_new_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "mark_dead", _nothing_is_marked)
        await pruned(world, max_unused=0.01)
    keeper = world.keeper()
    replaced = Forgotten.of(keeper).replaced
    keeper.close()
    assert replaced
    world.silence(1, 2)
    report = await pruned(world, beside=False, max_unused=0.01)
    assert any("too few of the providers that answer" in one for one in report.stays)
    assert not replaced & marked_at(world, 0)
    world.answer(1, 2)
    assert (await pruned(world, beside=False, max_unused=0.01)).exit_code == 0
    assert replaced <= set().union(*(marked_at(world, number) for number in range(PROVIDERS)))


async def _nothing_is_marked(*_: object, **__: object) -> list[object]:
    return []


async def test_what_comes_back_to_a_source_is_stored_anew_where_its_pack_is_to_go(world: World) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    path = os.path.join(world.root, "source", "docs")
    shutil.copy2(os.path.join(copies[2], "new"), os.path.join(path, "new"))
    done = await world.backup("docs")
    assert done.datasets[0].new_bytes > 300_000
    copies[5] = shutil.copytree(path, os.path.join(world.root, "as it was", "5", "docs"), symlinks=True)
    await world.backup("docs")
    copies[6] = copies[5]
    days_pass(world)
    await check_restores(world, copies)


async def test_a_node_lets_go_of_nothing_that_a_snapshot_may_rely_on_which_maintenance_had_not_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    await pruned(world, beside=False, max_unused=0.01)
    path = os.path.join(world.root, "source", "docs")
    shutil.copy2(os.path.join(copies[1], "new"), os.path.join(path, "new"))
    with monkeypatch.context() as patch:  # a session that had begun before it was said
        patch.setattr(backup_module, "learn_what_is_gone", _nothing_is_learned)
        await world.backup("docs")
    copies[5] = shutil.copytree(path, os.path.join(world.root, "as it was", "5", "docs"), symlinks=True)
    await world.backup("docs")
    copies[6] = copies[5]
    node = world.node()
    try:
        assert Forgotten.of(node).view == {node.identity: 4}
        assert Forgotten.of(node).replaced
        assert dismissed_packs(node) == set()
    finally:
        node.close()
    await pruned(world, max_unused=0.01)
    days_pass(world)
    await check_restores(world, copies)


async def _nothing_is_learned(*_: object) -> None:
    return None


async def test_what_a_silent_node_claims_stays_until_it_has_heard_or_is_not_waited_for(world: World) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    report = await pruned(world, beside=False)
    assert report.exit_code == 0
    assert all(one.claimed == one.objects > 0 == one.marked for one in report.at)
    assert any("claims of it goes after its next run" in one for one in report.stays)
    days_pass(world)
    await check_restores(world, copies)

    name = world.node_name()
    report = await pruned(world, beside=False, retiring=[name])
    assert report.retired == [name]
    assert all(one.marked == one.objects > 0 for one in report.at)
    done = await world.backup("docs")  # it is back: it claims anew, and goes on
    assert (done.datasets[0].error, done.datasets[0].published) == (None, True)
    assert any("claimed anew" in one for one in done.notices)
    assert done.datasets[0].new_chunks == 0
    copies[5] = copies[4]
    assert days_pass(world) > 0
    await check_restores(world, copies)


async def test_a_revoked_node_is_not_waited_for(world: World) -> None:
    copies = await changing_nights(world, 3)
    await keep(world, KeepRules(last=1))
    with keeping(world) as (keeper, siblings):
        await revoke_node(keeper, siblings, world.edge, world.node_name())
    report = await pruned(world, beside=False)
    assert (report.exit_code, report.plan.gaps, report.retired) == (0, [], [world.node_name()])
    assert days_pass(world) > 0
    await check_restores(world, copies)  # the last one stays, by its references alone


async def test_where_a_provider_does_not_answer_nothing_is_marked_and_that_is_told(world: World) -> None:
    copies = await changing_nights(world, 3)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    other = await changing_nights(world, 2, "photos")
    await keep(world, KeepRules(last=1))
    world.silence(2)
    report = await pruned(world)
    assert report.exit_code == 3
    assert [one.name for one in report.at] == [place[0] for place in PLACES[:2]]
    assert any("did not answer" in one for one in report.stays)
    assert all(one.marked == one.objects > 0 for one in report.at)
    world.answer(2)
    report = await pruned(world)
    assert report.exit_code == 0
    assert all(one.marked == one.objects > 0 for one in report.at)
    days_pass(world)
    await check_restores(world, copies | other)


async def test_a_store_that_was_put_back_takes_no_marks_before_every_node_claimed_anew(world: World) -> None:
    await changing_nights(world, 3)
    await keep(world, KeepRules(last=1))
    world.stop_provider(1)
    kept = os.path.join(world.root, "kept")
    home = os.path.join(world.root, "provider-1")
    shutil.copytree(os.path.join(home, "provider"), kept)
    world.start_provider(1)
    world.stop_provider(1)
    shutil.rmtree(os.path.join(home, "provider"))
    shutil.copytree(kept, os.path.join(home, "provider"))
    world.start_provider(1)
    report = await pruned(world, beside=False)
    assert report.exit_code == 3
    [held] = [one for one in report.at if one.problem]
    assert "has not claimed anew" in held.problem
    await world.backup("docs")
    report = await pruned(world, beside=False)
    assert (report.exit_code, [one.problem for one in report.at]) == (0, [""] * PROVIDERS)


async def test_a_maintainer_prunes_without_a_key_that_reads(world: World) -> None:
    copies = await changing_nights(world, 3)
    home = await joined(world, "maintainer", "second machine")
    await keep(world, KeepRules(last=1))
    maintainer, node = opened(home, "maintainer"), world.node()
    assert isinstance(maintainer, MaintainerHome)
    try:
        report = await prune(maintainer, world.edge, maintainer.maintenance, nodes=[node], max_unused=0.01)
    finally:
        maintainer.close()
        node.close()
    assert (report.exit_code, report.plan.gaps) == (0, [])
    assert all(one.marked > 0 for one in report.at)
    await world.backup("docs")
    copies[4] = copies[3]
    days_pass(world)
    await check_restores(world, copies)


def lose_catalog(world: World) -> None:
    """Let the keeper know nothing but its keys."""
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    shutil.rmtree(os.path.join(world.home, "keeper", "cache"))


async def test_a_new_maintenance_key_says_anew_what_the_old_one_said(world: World) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    await pruned(world, max_unused=0.01)
    days_pass(world)
    with keeping(world) as (keeper, siblings):
        assert await rotate_maintenance(keeper, siblings, world.edge) == []
    lose_catalog(world)
    await check_restores(world, copies)
    report = await pruned(world)
    assert (report.exit_code, report.plan.gaps) == (0, [])


async def test_what_a_maintainer_moved_stays_readable_when_it_is_revoked(world: World) -> None:
    copies = await changing_nights(world, 4)
    home = await joined(world, "maintainer", "second machine")
    await keep(world, KeepRules(last=1))
    maintainer, node = opened(home, "maintainer"), world.node()
    assert isinstance(maintainer, MaintainerHome)
    try:
        await prune(maintainer, world.edge, maintainer.maintenance, nodes=[node], max_unused=0.01)
    finally:
        maintainer.close()
        node.close()
    days_pass(world)
    with keeping(world) as (keeper, siblings):
        await revoke(keeper, siblings, world.edge, "second machine")
    lose_catalog(world)
    async with library_of_any(world) as library:
        assert Forgotten.of(library.keeper).moved
        [newest] = [one.id for one in await library.snapshots() if one.row.number == 4]
    target = os.path.join(world.root, "back")
    assert (await world.restore(target, newest)).lost == []
    assert compare(copies[4], os.path.join(target, "docs"), Rules(owners=os.geteuid() == 0)) == []


async def test_what_was_moved_is_found_though_another_maintainer_spoke_without_having_heard_of_it(world: World) -> None:
    copies = await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    home = await joined(world, "maintainer", "second machine")
    other = opened(home, "maintainer")
    assert isinstance(other, MaintainerHome)
    try:
        async with Federation(other, world.edge) as federation:
            await sync_all(other, federation)
            before = Forgotten.of(other)
            await pruned(world, max_unused=0.01)  # by the keeper, meanwhile
            for _ in range(2):
                await say(
                    *(other, federation, world.edge, other.maintenance()),
                    lambda now: with_chains(now, list(now.chains.values())),
                )
            assert Forgotten.of(other).number > before.number + 1
    finally:
        other.close()
    days_pass(world)
    async with library_of_any(world) as library:
        assert Forgotten.of(library.keeper).signed
        assert Forgotten.of(library.keeper).moved
    await check_restores(world, copies)
    lose_catalog(world)
    report = await pruned(world)
    assert (report.plan.gaps, report.exit_code) == ([], 0)
    await check_restores(world, copies)


async def test_what_a_maintainer_moved_unheard_stays_readable_when_it_is_revoked(world: World) -> None:
    copies = await changing_nights(world, 4)
    home = await joined(world, "maintainer", "second machine")
    await keep(world, KeepRules(last=1))
    keeper, maintainer, node = world.keeper(), opened(home, "maintainer"), world.node()
    assert isinstance(maintainer, MaintainerHome)
    try:
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            await sync_all(keeper, federation)
            await prune(maintainer, world.edge, maintainer.maintenance, nodes=[node], max_unused=0.01)  # meanwhile
            moved = Forgotten.of(maintainer).moved
            assert moved
            for _ in range(5):
                await say(
                    *(keeper, federation, world.edge, keeper.maintenance()),
                    lambda now: with_chains(now, list(now.chains.values())),
                )
    finally:
        keeper.close()
        maintainer.close()
        node.close()
    days_pass(world)
    with keeping(world) as (keeper, siblings):
        await revoke(keeper, siblings, world.edge, "second machine")
    lose_catalog(world)
    async with library_of_any(world) as library:
        assert {one.index for one in moved} <= {one.index for one in Forgotten.of(library.keeper).moved}
    await check_restores(world, copies)


async def test_a_pack_that_is_not_what_it_replaces_is_not_taken_over(world: World) -> None:
    await changing_nights(world, 4)
    await keep(world, KeepRules(last=1))
    real = Repacker.flush

    def forged(self: Repacker) -> None:
        for part in self._filling.parts:
            object.__setattr__(part, "sealed", bytes(len(part.sealed)))  # the same chunk, by its name, of other bytes
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repacker, "flush", forged)
        report = await pruned(world, max_unused=0.01)
    assert any("not what they replace" in one for one in report.notices + report.integrity) or report.exit_code == 0
    node = world.node()
    try:
        moved = Forgotten.of(node).moved
        assert moved
        assert not {name for one in moved for name in split_ids(one.packs)} & dismissed_packs(node)
    finally:
        node.close()
    done = await world.backup("docs")
    assert any("are not what they replace" in one for one in done.integrity)
    async with library_of_any(world) as library:
        newest = (await library.snapshots())[-1]
    days_pass(world)
    assert (await world.restore(os.path.join(world.root, "back"), newest.id)).lost == []


class _Killed(BaseException):
    pass


async def test_what_a_claim_found_missing_is_known_though_the_run_was_killed_as_it_wrote_that_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.small_dataset()
    write(os.path.join(path, "old"), SeededRng("old").bytes(300_000))
    await world.backup()
    node = world.node()
    packs = {row.name for row in node.catalog.objects.all("kind IN ('data', 'tree')")}
    node.close()
    remove(world, packs)
    for number in range(PROVIDERS):  # a claim of everything is due
        world.opened[number]._database.write("retired", lambda db: db.execute("UPDATE claims SET retired = 1"))
    write(os.path.join(path, "more"), b"more")
    writes: list[str] = []

    def second_dies(name: str) -> Callable[..., None]:
        real = getattr(Objects, name)

        def write_down(self: Objects, peer: Identity, *args: Any, **kwargs: Any) -> None:
            if name == "set_claimed" or "missing" in args[0].values():
                writes.append(name)
                if len(writes) == 2:
                    raise _Killed
            real(self, peer, *args, **kwargs)

        return write_down

    with monkeypatch.context() as patch:
        for name in ("set_states", "set_claimed"):
            patch.setattr(Objects, name, second_dies(name))
        with pytest.raises(_Killed):
            await world.backup()
    assert sorted(writes) == ["set_claimed", "set_states"]
    for _ in range(2):  # the first one finds that all of it is gone, and makes it anew
        await world.backup()
    assert await world.differences(path) == []
