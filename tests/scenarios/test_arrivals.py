"""Looking costs what is new: whole listings are for who counts copies, and nothing new is ever passed over."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from replicator.engine.arrivals import MAX_PAGES
from replicator.engine.federation import Federation
from replicator.engine.forgetting import Forgotten, lacks
from replicator.engine.sync import sync_all
from replicator.errors import MinimumNotMetError, RefusedError, UnreachableError
from replicator.fs import PosixFs
from replicator.ids import Identity, ObjectName
from replicator.provider.session import ProviderSession
from replicator.snapshot.retention import KeepRules
from replicator.transport.memory import Phase
from replicator.wire.messages import Arrivals, ArrivalsRequest
from tests.scenarios.test_forgetting import DAY_S, forged, forget, keep, library_of, nights, numbers
from tests.scenarios.world import World, write


@contextmanager
def counted(world: World) -> Iterator[Counter[str]]:
    """Count the requests that all providers hear."""
    found: Counter[str] = Counter()

    def note(_identity: Identity, op: str, phase: Phase) -> None:
        if phase == "before":
            found[op] += 1

    before, world.network.faults = world.network.faults, note
    try:
        yield found
    finally:
        world.network.faults = before


async def state(world: World) -> tuple[bool, ...]:
    """Return which snapshots the node takes for forgotten, after a look that counts no copies."""
    node = world.node()
    try:
        async with Federation(node, world.edge) as federation:
            await sync_all(node, federation)
        forgotten = Forgotten.of(node)
        return tuple(forgotten.hides(row) for row in node.catalog.snapshots.all())
    finally:
        node.close()


def forget_objects(world: World) -> list[ObjectName]:
    """Return the names of the objects that hold the newest Forget, by the keeper's catalog."""
    keeper = world.keeper()
    try:
        joined = keeper.catalog.meta("forget objects") or b""
        return [ObjectName(joined[at : at + 32]) for at in range(0, len(joined), 32)]
    finally:
        keeper.close()


def size_at(world: World, name: ObjectName) -> int:
    """Return the size of an object's file at the first provider, 0 if there is none."""
    return PosixFs().size(os.path.join(world.objects(0), name.hex())) or 0


async def test_looking_takes_no_listing_and_fetches_nothing_that_is_known(world: World) -> None:
    await nights(world, 2)
    await numbers(world)
    with counted(world) as asked:
        assert await numbers(world) == [1, 2]
    assert (asked["inventory"], asked["get"]) == (0, 0)
    assert asked["arrivals"] == asked["heads"] == world.providers


async def test_status_takes_one_listing_of_each_provider(world: World) -> None:
    await nights(world, 1)
    with counted(world) as asked:
        await world.status()
    assert asked["inventory"] == world.providers


async def test_a_look_that_failed_is_made_again(world: World) -> None:
    await nights(world, 2)
    assert await state(world) == (False, False)
    await keep(world, KeepRules(last=1))

    def lost(_identity: Identity, op: str, _phase: Phase) -> None:
        if op == "get":
            raise UnreachableError("a peer", "went away")

    world.network.faults = lost
    assert await state(world) == (False, False)
    world.network.faults = lambda *_: None
    assert await state(world) == (True, False)


async def test_an_object_that_is_damaged_at_its_provider_is_asked_for_once_and_reported(world: World) -> None:
    await nights(world, 1)
    await numbers(world)
    keeper = world.keeper()
    await forged(world, keeper.maintenance(), tenant=bytes(16))
    newest = max(os.scandir(world.objects(0)), key=lambda entry: entry.stat().st_mtime_ns)
    write(newest.path, bytes(newest.stat().st_size))
    try:
        async with Federation(keeper, world.edge) as federation:
            await sync_all(keeper, federation)
            assert [said for said in federation.integrity if "damaged" in said]
        with counted(world) as asked:
            async with Federation(keeper, world.edge) as federation:
                await sync_all(keeper, federation)
                assert federation.integrity == []
        assert asked["get"] == 0
    finally:
        keeper.close()


async def test_a_store_that_was_put_back_is_looked_through_from_the_first(world: World) -> None:
    await nights(world, 2)
    assert await state(world) == (False, False)
    world.silence(1, 2, 3, 4)
    with pytest.raises(MinimumNotMetError):
        await keep(world, KeepRules(last=1))
    put_back(world)
    node = world.node()
    node.catalog.set_meta(f"arrivals {world.identity(0).hex()}", _far(node.catalog.meta(_key(world))))
    node.close()
    assert await state(world) == (True, False)


def put_back(world: World) -> None:
    """Let the first provider start as after its disk was put back from an older copy."""
    world.stop_provider(0)
    write(os.path.join(world.data(0), ".generation"), b"1")
    world.start_provider(0)


def _key(world: World) -> str:
    return f"arrivals {world.identity(0).hex()}"


def _far(kept: bytes | None) -> bytes:
    """Return a place as kept, but far beyond all that arrived."""
    assert kept is not None
    return kept[:-8] + (10**6).to_bytes(8, "big")


async def test_a_place_beyond_the_end_is_no_place(world: World) -> None:
    """A provider whose disk and database were put back together shows its old incarnation."""
    await nights(world, 2)
    assert await state(world) == (False, False)
    node = world.node()
    for number in range(world.providers):
        key = f"arrivals {world.identity(number).hex()}"
        node.catalog.set_meta(key, _far(node.catalog.meta(key)))
    node.close()
    await keep(world, KeepRules(last=1))
    assert await state(world) == (True, False)


async def test_numbers_that_a_store_used_again_hide_nothing_for_longer_than_a_week(world: World) -> None:
    """It was put back with its database, and what came since has numbers that a home has looked at before."""
    await nights(world, 2)
    assert await state(world) == (False, False)
    await keep(world, KeepRules(last=1))
    node = world.node()
    for number in range(world.providers):
        [[last]] = world.opened[number]._database.rows("SELECT arrivals FROM tenants")
        key = f"arrivals {world.identity(number).hex()}"
        place = node.catalog.meta(key)
        assert place is not None
        node.catalog.set_meta(key, place[:-8] + last.to_bytes(8, "big"))
    node.close()
    world.clock.advance(DAY_S)
    assert await state(world) == (False, False)
    world.clock.advance(6 * DAY_S)
    assert await state(world) == (True, False)


async def test_with_other_keys_a_home_looks_again(world: World) -> None:
    await nights(world, 2)
    await keep(world, KeepRules(last=1))
    node = world.node()
    keys = node.member.domains
    node.member = msgspec.structs.replace(node.member, domains=[])
    try:
        async with Federation(node, world.edge) as federation:
            await sync_all(node, federation)
            assert Forgotten.of(node).signed == b""
            node.member = msgspec.structs.replace(node.member, domains=keys)
            await sync_all(node, federation)
            assert Forgotten.of(node).signed
    finally:
        node.close()


async def test_a_provider_that_lost_what_is_forgotten_gets_it_with_the_next_repair(world: World) -> None:
    await nights(world, 2)
    await keep(world, KeepRules(last=1))
    await state(world)
    [name] = forget_objects(world)
    path = os.path.join(world.objects(0), name.hex())
    os.unlink(path)
    with counted(world) as asked:
        await state(world)
    assert asked["put"] == 0, "a look does not count copies"
    await world.repair()
    assert size_at(world, name) > 5
    os.truncate(path, 5)
    await world.status()
    await state(world)
    assert size_at(world, name) > 5


async def test_a_provider_of_a_new_store_is_given_what_is_forgotten(world: World) -> None:
    await nights(world, 2)
    await keep(world, KeepRules(last=1))
    [name] = forget_objects(world)
    shutil.rmtree(world.objects(0))
    put_back(world)
    await numbers(world)
    assert size_at(world, name) > 0


async def test_what_too_few_know_is_owed_until_enough_do(world: World) -> None:
    await nights(world, 2)
    world.silence(0, 1, 2, 3)
    with pytest.raises(MinimumNotMetError, match="1 of at least 2"):
        await keep(world, KeepRules(last=1))
    with pytest.raises(MinimumNotMetError, match="1 of at least 2"):
        await keep(world, KeepRules(last=1))
    # The one that knows is away, and so nobody but this home can tell the others.
    world.silence(4)
    world.answer(0, 1, 2)
    assert await keep(world, KeepRules(last=1)) == 0
    with counted(world) as asked:
        assert await keep(world, KeepRules(last=1)) == 0
    assert asked["put"] == 0
    world.answer(3, 4)
    assert await numbers(world) == [2]
    keeper = world.keeper()
    try:
        assert [lacks(keeper, world.identity(number)) for number in range(5)] == [[]] * 5
        signed = Forgotten.of(keeper).signed
    finally:
        keeper.close()
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    world.silence(3, 4)
    assert await numbers(world) == [2]
    keeper = world.keeper()
    try:
        assert Forgotten.of(keeper).signed == signed
    finally:
        keeper.close()


async def test_all_that_arrived_is_looked_through_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicator.engine.arrivals.ARRIVALS_PAGE", 3)
    await nights(world, 3)
    async with library_of(world) as library:
        [first, *_] = [one.id for one in await library.snapshots()]
    await forget(world, first)
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    assert await numbers(world) == [2, 3]


async def test_a_provider_of_an_earlier_build_is_named_with_what_to_do_and_no_other_is_lost(world: World) -> None:
    await nights(world, 2)
    await keep(world, KeepRules(last=1))
    old = world.identity(0)

    def unknown(identity: Identity, op: str, _phase: Phase) -> None:
        if (identity, op) == (old, "arrivals"):
            raise RefusedError("alice", "no such operation", code="bad-request")

    world.network.faults = unknown
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    async with library_of(world) as library:
        assert [one.row.number for one in await library.snapshots()] == [2]
        [said] = [notice for notice in library.federation.notices if notice.startswith("alice: ")]
    assert said.endswith("update it")


@pytest.mark.parametrize("fault", ["repeats", "too many", "half a name", "another store", "no end"])
async def test_a_provider_that_tells_nonsense_is_named_and_the_others_are_heard(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    await nights(world, 2)
    await keep(world, KeepRules(last=1))
    liar = world.services[0]
    asked = 0
    honest = ProviderSession.arrivals

    def lies(self: ProviderSession, request: ArrivalsRequest) -> Arrivals:
        nonlocal asked
        found = honest(self, request)
        if self._core.identity != liar.identity:
            return found
        asked += 1
        return {
            "repeats": Arrivals(incarnation=found.incarnation, names=b"", last=request.after, more=True),
            "too many": Arrivals(incarnation=found.incarnation, names=bytes(64), last=request.after + 1, more=False),
            "half a name": Arrivals(incarnation=found.incarnation, names=bytes(40), last=9, more=False),
            "another store": Arrivals(incarnation=bytes(16), names=found.names, last=found.last, more=False),
            "no end": Arrivals(incarnation=found.incarnation, names=b"", last=request.after + 1, more=True),
        }[fault]

    monkeypatch.setattr(ProviderSession, "arrivals", lies)
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    async with library_of(world) as library:
        assert [one.row.number for one in await library.snapshots()] == [2]
        assert [notice for notice in library.federation.notices if notice.startswith("alice: ")]
    assert asked <= MAX_PAGES
