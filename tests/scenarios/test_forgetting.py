"""Forgetting: what it hides, who learns of it, how it is undone, and what stays findable behind what is gone."""

import os
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import pytest

from replicator.charter.verify import signed_hash
from replicator.crypto.sign import Context, SigningKey
from replicator.engine import retain
from replicator.engine.arrivals import Arrived
from replicator.engine.browse import Library
from replicator.engine.federation import Federation, Link
from replicator.engine.forgetting import Forgotten, learn, say, with_chains
from replicator.engine.home import Half
from replicator.engine.sync import sync_all
from replicator.errors import BusyError, KeyMissingError, MinimumNotMetError, NotFoundError, UsageError
from replicator.format.codec import encode
from replicator.format.container import Kind
from replicator.format.forget import Forget1, KeptChain
from replicator.format.merkle import name_of
from replicator.pack.sealed import seal_object
from replicator.snapshot.retention import KeepRules
from tests.scenarios.world import World, read, write

DAY_S = 86400


@asynccontextmanager
async def library_of(world: World, home: str | None = None) -> AsyncIterator[Library]:
    """Open the keeper's library, up to date."""
    keeper = world.keeper(home)
    try:
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            library = Library(keeper, federation)
            await library.refresh()
            yield library
            assert federation.integrity == []
    finally:
        keeper.close()


async def nights(world: World, count: int) -> str:
    """Back a small dataset up for some nights; return its folder."""
    path = world.small_dataset()
    for night in range(count):
        write(os.path.join(path, "diary"), f"night {night}".encode())
        world.clock.advance(DAY_S)
        await world.backup()
    return path


async def forget(world: World, *names: str, undo: bool = False, even_last: bool = False) -> None:
    """Forget snapshots by name."""
    async with library_of(world) as library:
        judged = await retain.by_name(library, world.edge, names, undo=undo, even_last=even_last)
        await retain.forget(library, world.edge, library.keeper.maintenance, judged, undo=undo)


async def keep(world: World, rules: KeepRules, *datasets: str) -> int:
    """Forget by rules."""
    async with library_of(world) as library:
        judged = await retain.by_rules(library, world.edge, lambda _: rules, datasets)
        return await retain.forget(library, world.edge, library.keeper.maintenance, judged, undo=False)


async def numbers(world: World, home: str | None = None, *, forgotten: bool = False) -> list[int]:
    """Return the numbers of the snapshots that a keeper lists."""
    async with library_of(world, home) as library:
        return [one.row.number for one in await library.snapshots(forgotten=forgotten)]


def remove(world: World, names: Iterable[bytes]) -> None:
    """Let every provider lose objects, as a sweep does."""
    wanted = {name.hex() for name in names}
    for number in range(world.providers):
        for name in wanted & set(os.listdir(world.objects(number))):
            os.unlink(os.path.join(world.objects(number), name))
        world.opened[number]._database.write("swept", partial(forget_rows, names=wanted))


def forget_rows(connection: sqlite3.Connection, *, names: Iterable[str]) -> None:
    """Delete a provider's rows of objects."""
    connection.executemany("DELETE FROM objects WHERE name = ?", [(bytes.fromhex(one),) for one in names])


async def test_rules_hide_what_they_do_not_keep_and_the_rest_restores(world: World) -> None:
    path = await nights(world, 5)
    assert await keep(world, KeepRules(daily=2)) == 3
    assert await numbers(world) == [4, 5]
    assert await numbers(world, forgotten=True) == [1, 2, 3]
    assert await world.differences(path) == []
    assert await keep(world, KeepRules(daily=2)) == 0


async def test_what_was_forgotten_can_be_taken_back_while_it_is_there(world: World) -> None:
    await nights(world, 3)
    async with library_of(world) as library:
        [first, second, _] = [one.id for one in await library.snapshots()]
    await forget(world, first, second)
    assert await numbers(world) == [3]
    await forget(world, first, undo=True)
    assert await numbers(world) == [1, 3]
    with pytest.raises(NotFoundError):
        await forget(world, first, undo=True)
    assert (await world.restore(os.path.join(world.root, "back"), first)).lost == []


async def test_every_home_learns_it_from_any_provider(world: World) -> None:
    await nights(world, 3)
    await keep(world, KeepRules(last=1))
    world.silence(0, 1, 2, 3)
    await world.status()
    node = world.node()
    try:
        state = Forgotten.of(node)
        assert [state.hides(row) for row in node.catalog.snapshots.all()] == [True, True, False]
    finally:
        node.close()


async def test_a_lost_catalog_learns_it_again_and_never_an_older_state(world: World) -> None:
    await nights(world, 3)
    await keep(world, KeepRules(last=2))
    await keep(world, KeepRules(last=1))
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    assert await numbers(world) == [3]
    assert await numbers(world, forgotten=True) == [1, 2]


async def test_snapshots_behind_forgotten_ones_that_are_gone_are_found_by_a_home_that_knows_nothing(
    world: World,
) -> None:
    path = await nights(world, 5)
    async with library_of(world) as library:
        names = {one.row.number: one.row.name for one in await library.snapshots()}
    await forget(world, names[2].hex(), names[4].hex())
    remove(world, [names[2], names[4]])
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    async with library_of(world) as library:
        assert [one.row.number for one in await library.snapshots()] == [1, 3, 5]
        assert library.federation.notices == []
        await library.refresh()
        assert library.federation.notices == []
        assert await library.snapshots(forgotten=True) == []
    target = os.path.join(world.root, "back")
    assert (await world.restore(target, names[1].hex())).lost == []
    assert read(os.path.join(target, os.path.basename(path), "diary")) == b"night 0"


async def test_status_repair_and_verify_do_not_wait_for_what_is_forgotten_and_gone(world: World) -> None:
    await nights(world, 2)
    async with library_of(world) as library:
        [first, _] = [one.row.name for one in await library.snapshots()]
    await forget(world, first.hex())
    remove(world, [first])
    for keeper in (True, False):
        assert (await world.repair(keeper=keeper)).unreadable == []
    assert (await world.verify()).problems == []


async def test_a_later_backup_is_not_forgotten_and_goes_on_from_the_chain(world: World) -> None:
    path = await nights(world, 3)
    await keep(world, KeepRules(last=1))
    world.clock.advance(DAY_S)
    await world.backup()
    assert await numbers(world) == [3, 4]
    assert await world.differences(path) == []


async def test_the_last_good_snapshot_and_a_kept_one_are_not_forgotten_by_their_name_alone(world: World) -> None:
    path = world.small_dataset()
    await world.backup(tags=["keep"])
    write(os.path.join(path, "diary"), b"more")
    await world.backup()
    async with library_of(world) as library:
        [first, second] = [one.id for one in await library.snapshots()]
    with pytest.raises(UsageError, match="tagged 'keep'"):
        await forget(world, first)
    with pytest.raises(UsageError, match="tagged 'keep'"):
        await forget(world, first, second)
    await forget(world, first, even_last=True)
    with pytest.raises(UsageError, match="last good one of 'docs'"):
        await forget(world, second)
    await forget(world, second, even_last=True)
    assert await numbers(world) == []


async def test_only_the_named_datasets_are_judged(world: World) -> None:
    for name in ("docs", "photos"):
        world.small_dataset(name)
    for _ in range(2):
        await world.backup()
    with pytest.raises(NotFoundError, match="no snapshot of dataset 'mail'"):
        await keep(world, KeepRules(last=1), "mail")
    assert await keep(world, KeepRules(last=1), "photos") == 1
    async with library_of(world) as library:
        assert [one.details.dataset for one in await library.snapshots()] == ["docs", "docs", "photos"]


async def test_a_dry_run_changes_nothing(world: World) -> None:
    await nights(world, 2)
    async with library_of(world) as library:
        judged = await retain.by_rules(library, world.edge, lambda _: KeepRules(last=1), ())
        assert [one.keep for one in judged] == [False, True]
    assert await numbers(world) == [1, 2]


@pytest.mark.parametrize("leap", [3, 4000])
async def test_a_clock_that_leaps_costs_no_snapshot_that_was_taken_after_it(world: World, leap: int) -> None:
    await nights(world, 2)
    world.clock.advance(leap * DAY_S)
    await world.backup()
    world.clock.advance(-leap * DAY_S)
    for _ in range(4):
        world.clock.advance(DAY_S)
        await world.backup()
    async with library_of(world) as library:
        judged = await retain.by_rules(library, world.edge, lambda _: KeepRules(daily=2), ())
        reasons = {one.snapshot.row.number: one.reasons for one in judged}
        assert all("time in doubt" in reasons[number] for number in (4, 5))
        assert all(reasons[number] for number in (6, 7))


async def test_too_few_providers_are_said_and_those_that_were_away_get_it_later(world: World) -> None:
    await nights(world, 2)
    world.silence(0, 1, 2, 3)
    with pytest.raises(MinimumNotMetError, match="1 of at least 2"):
        await keep(world, KeepRules(last=1))
    assert await numbers(world) == [2]
    world.answer(0, 1, 2, 3)
    world.silence(4)
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    assert await numbers(world) == [1, 2]
    world.answer(4)
    assert await numbers(world) == [2]
    world.silence(4)
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    assert await numbers(world) == [2]


async def forged(world: World, key: SigningKey, created_ns: int = 0, tenant: bytes | None = None) -> bytes:
    """Store a first Forget of everything, signed by some key, at a provider; return it."""
    keeper = world.keeper()
    try:
        rows = keeper.catalog.snapshots.all()
        record = Forget1(
            tenant=tenant or world.tenant_id,
            number=1,
            previous=bytes(32),
            chains=[KeptChain(writer=rows[0].writer, upto=rows[-1].number, kept=[])],
            created_ns=created_ns,
        )
        signed = key.sign(Context.FORGET, encode(record))
        data = seal_object(Kind.FORGET, signed, keeper.keys(), world.rng)
        async with Federation(keeper, world.edge) as federation:
            link = next(iter(federation.links.values()))
            await link.connection.put(name_of(data), data)
        return signed
    finally:
        keeper.close()


async def test_a_provider_that_does_not_list_what_it_holds_is_still_read_from(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await nights(world, 1)

    async def refuses(_half: Half, link: Link, *_: object) -> Arrived:
        raise BusyError(link.pin.name, "busy", after_s=1.0)

    monkeypatch.setattr("replicator.engine.arrivals._arrived", refuses)
    assert await world.differences(path) == []


async def test_what_a_node_or_another_tenants_maintainer_signs_forgets_nothing(world: World) -> None:
    await nights(world, 1)
    assert await numbers(world) == [1]
    node, keeper = world.node(), world.keeper()
    maintenance = keeper.maintenance()
    for half in (node, keeper):
        half.close()
    await forged(world, node.signing)
    await forged(world, maintenance, tenant=bytes(16))
    assert await numbers(world) == [1]
    await forged(world, maintenance)
    assert await numbers(world) == []


async def test_of_two_with_one_number_all_homes_take_the_same_and_it_is_said(world: World) -> None:
    await nights(world, 2)
    await keep(world, KeepRules(last=1))
    keeper = world.keeper()
    maintenance = keeper.maintenance()
    rivals = [Forgotten.of(keeper).signed]
    keeper.close()
    for moment in range(4):
        rivals.append(await forged(world, maintenance, moment))
        async with library_of(world) as library:
            assert any("forgot at the same time" in notice for notice in library.federation.notices)
            assert Forgotten.of(library.keeper).signed == min(rivals, key=signed_hash)
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    async with library_of(world) as library:
        assert Forgotten.of(library.keeper).signed == min(rivals, key=signed_hash)


async def test_what_a_provider_has_alone_is_not_looked_at_again_when_it_was_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await nights(world, 1)
    assert await numbers(world) == [1]
    await forged(world, SigningKey(bytes(32)))
    assert await numbers(world) == [1]
    world.silence(0)
    assert await numbers(world) == [1]
    world.answer(0)
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge) as federation:
            assert len(federation.links) == world.providers
            fetched: list[bytes] = []

            async def fetch(name: bytes, _holders: object) -> bytes:
                fetched.append(name)
                raise AssertionError

            monkeypatch.setattr(federation, "fetch", fetch)
            assert not await learn(keeper, federation)
            assert fetched == []
    finally:
        keeper.close()


async def test_a_key_without_the_right_cannot_say_it(world: World) -> None:
    await nights(world, 1)
    async with library_of(world) as library:
        with pytest.raises(KeyMissingError, match="no right of a maintainer"):
            await say(
                library.keeper,
                library.federation,
                world.edge,
                SigningKey(bytes(32)),
                lambda before: with_chains(before, []),
            )


async def test_a_snapshot_out_of_sight_stops_forgetting_in_its_chain(world: World) -> None:
    await nights(world, 3)
    async with library_of(world) as library:
        second = (await library.snapshots())[1].row.name
    remove(world, [second])
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            library = Library(keeper, federation)
            await library.refresh()
            [_, third] = await library.snapshots()
            judged = await retain.by_name(library, world.edge, [third.id], even_last=True)
            with pytest.raises(NotFoundError, match=r"snapshot 2 of .* is out of sight"):
                await retain.forget(library, world.edge, keeper.maintenance, judged, undo=False)
    finally:
        keeper.close()


async def test_what_was_looked_at_once_is_not_fetched_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await nights(world, 1)
    await keep(world, KeepRules(last=1))
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge) as federation:
            await sync_all(keeper, federation)
            fetched: list[bytes] = []

            async def fetch(name: bytes, _holders: object) -> bytes:
                fetched.append(name)
                raise AssertionError

            monkeypatch.setattr(federation, "fetch", fetch)
            assert not await learn(keeper, federation)
            assert fetched == []
    finally:
        keeper.close()
