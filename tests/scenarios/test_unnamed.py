"""What nothing names at providers: it goes at last, and nothing that anybody may still name or need goes with it."""

import os
import shutil
from typing import Any

import pytest

from replicator.cli.prune import prune_text
from replicator.engine.federation import Federation
from replicator.engine.keys import rotate_index
from replicator.engine.pruning import PruneReport
from replicator.engine.publish import Publisher
from replicator.engine.recover import recover
from replicator.engine.succession import announce_root
from replicator.format.container import MAGIC, Kind
from replicator.format.merkle import name_of
from replicator.ids import Identity, ObjectName
from replicator.pack.sealed import seal_object
from tests.fakes import SeededRng
from tests.scenarios.conftest import Worlds
from tests.scenarios.joining import keeping
from tests.scenarios.test_forgetting import DAY_S
from tests.scenarios.test_prune import changing_nights, check_restores
from tests.scenarios.test_pruning import days_pass, marked_at, pruned
from tests.scenarios.world import PASSPHRASE, World, write

PROVIDERS = 3


class KilledError(Exception):
    """Ends a run in the middle."""


@pytest.fixture
def world(worlds: Worlds) -> World:
    """As many providers as a copy needs, as days pass quicker at fewer."""
    return worlds(PROVIDERS)


def everywhere(world: World) -> list[set[str]]:
    return [set(os.listdir(world.objects(number))) for number in range(len(world.opened))]


def lose_node(world: World) -> None:
    """Take away all that a node remembers of what it did, but for its keys and datasets."""
    for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
        path = os.path.join(world.home, "node", name)
        if os.path.exists(path):
            os.unlink(path)
    for name in ("spool", "cache"):
        shutil.rmtree(os.path.join(world.home, "node", name), ignore_errors=True)


async def given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Kill a backup that has sent all but its snapshot, and lose what its node remembers; return what it left."""
    before = everywhere(world)

    async def killed(*_: object) -> bool:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "claim_everywhere", killed)
        with pytest.raises(KilledError):
            await world.backup("docs")
    lose_node(world)
    return [now - then for now, then in zip(everywhere(world), before, strict=True)]


def change(world: World, seed: str) -> None:
    write(os.path.join(world.root, "source", "docs", "new"), SeededRng(seed).bytes(300_000))


async def test_what_a_session_left_that_was_given_up_goes_after_a_week_without_a_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = await changing_nights(world, 2)
    change(world, "never published")
    left = await given_up(world, monkeypatch)
    assert all(len(one) >= 3 for one in left)  # packs, index, references
    change(world, "docs 3")
    await world.backup("docs")
    copies[3] = os.path.join(world.root, "source", "docs")
    first = await pruned(world)
    assert (first.exit_code, first.unnamed) == (0, [])
    assert any("are named by nothing yet" in one for one in first.stays)
    assert not any(marked_at(world, number) for number in range(PROVIDERS))
    world.clock.advance(8 * DAY_S)
    assert len((await pruned(world, dry_run=True)).unnamed) == len(set.union(*left))
    assert not any(marked_at(world, number) for number in range(PROVIDERS))
    second = await pruned(world)
    assert {one.name.hex() for one in second.unnamed} == set.union(*left)
    assert {"data", "index", "references"} <= {one.kind for one in second.unnamed}
    for number in range(PROVIDERS):
        assert {name.hex() for name in marked_at(world, number)} == left[number]
    assert any("left behind, named by nothing" in line for line in prune_text(second))
    days_pass(world)
    assert not any(now & then for now, then in zip(everywhere(world), left, strict=True))
    await check_restores(world, copies)
    again = await pruned(world)
    assert (again.unnamed, again.stays) == ([], [])


async def test_a_home_that_only_looks_remembers_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await changing_nights(world, 1)
    change(world, "never published")
    await given_up(world, monkeypatch)
    await pruned(world, dry_run=True)
    world.clock.advance(8 * DAY_S)
    assert (await pruned(world)).unnamed == []  # it is seen for the first time


async def months_with_prunes(world: World) -> PruneReport:
    """Let so much time go by, with prunes, that what nothing names is swept."""
    await pruned(world, beside=False)
    world.clock.advance(8 * DAY_S)
    report = await pruned(world, beside=False)
    days_pass(world)
    return report


async def test_a_session_that_hung_until_its_packs_were_swept_stores_them_again_before_it_publishes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = await changing_nights(world, 2)
    change(world, "hung")
    work, hung = Publisher.claim_everywhere, list[PruneReport]()

    async def hang(self: Publisher, *args: Any) -> bool:
        if not hung:
            hung.append(PruneReport.__new__(PruneReport))
            hung[0] = await months_with_prunes(world)
        return await work(self, *args)

    monkeypatch.setattr(Publisher, "claim_everywhere", hang)
    before = everywhere(world)
    done = await world.backup("docs")
    assert len(hung[0].unnamed) >= 3
    assert done.datasets[0].published
    assert all(now > then for now, then in zip(everywhere(world), before, strict=True))
    copies[3] = os.path.join(world.root, "source", "docs")
    await check_restores(world, copies)


async def test_a_snapshot_whose_head_may_still_come_is_never_marked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = await changing_nights(world, 2)
    change(world, "hung")
    work, hung = Publisher._witness, list[PruneReport]()

    async def hang(self: Publisher, *args: Any, last: bool) -> tuple[int, list[Identity]]:
        if not hung:
            hung.append(await months_with_prunes(world))
        return await work(self, *args, last=last)

    monkeypatch.setattr(Publisher, "_witness", hang)
    done = await world.backup("docs")
    assert not any(one.kind == "snapshot" for one in hung[0].unnamed)
    assert done.datasets[0].published
    copies[3] = os.path.join(world.root, "source", "docs")
    await check_restores(world, copies)


async def new_charters(world: World, count: int) -> list[set[str]]:
    """Write charters with new keybags; return the names of each one's two objects."""
    found = []
    for _ in range(count):
        with keeping(world) as (keeper, siblings):
            await rotate_index(keeper, siblings, world.edge)
            found.append({keeper.charter_object()[0].hex(), keeper.charter.charter.keybag.hex()})
    return found


async def test_charters_of_old_go_with_their_keybags_but_for_the_last_ones_before_the_one_in_force(
    world: World,
) -> None:
    copies = await changing_nights(world, 1)
    *old, first, second, newest = await new_charters(world, 5)
    assert (await pruned(world)).unnamed == []
    world.clock.advance(89 * DAY_S)
    assert (await pruned(world)).unnamed == []
    world.clock.advance(2 * DAY_S)
    report = await pruned(world)
    marked = {one.name.hex() for one in report.unnamed}
    assert {one.kind for one in report.unnamed} == {"charter", "keybag"}
    assert set.union(*old) < marked  # and those that the world began with
    assert not marked & (first | second | newest)
    days_pass(world)
    assert not any(marked & here for here in everywhere(world))
    assert all(first | second | newest <= here for here in everywhere(world))
    home = os.path.join(world.root, "recovered")
    assert world.tenant is not None
    address = f"somewhere.example:7144/{world.identity(1).hex()}"
    await recover(home, world.edge, words=world.tenant.words, addresses=[address], passphrase=PASSPHRASE)
    assert [one.row.number for one in await world.snapshots(home)] == sorted(copies)


async def test_while_another_root_is_announced_no_charter_and_no_keybag_is_marked(world: World) -> None:
    await changing_nights(world, 1)
    await new_charters(world, 4)
    await pruned(world)
    with keeping(world) as (keeper, siblings):
        await announce_root(keeper, siblings, world.edge, lambda _words, _key: None)
        await rotate_index(keeper, siblings, world.edge)
    world.clock.advance(95 * DAY_S)
    assert (await pruned(world)).unnamed == []


async def test_what_no_key_opens_and_what_was_said_of_forgetting_stays(world: World) -> None:
    await changing_nights(world, 1)
    node, rng = world.node(), SeededRng("of another domain")
    said = seal_object(Kind.FORGET, b"by a key that has no right any more", node.keys(), rng)
    async with Federation(node, world.edge) as federation:
        for link in federation.links.values():
            for data in (MAGIC + rng.bytes((1 << 16) - len(MAGIC)), said):
                await link.connection.put(ObjectName(name_of(data)), data)
    node.close()
    await pruned(world)
    world.clock.advance(95 * DAY_S)
    report = await pruned(world)
    assert report.unnamed == []
    assert any("3 objects" in one and "opened by no key of this home" in one for one in report.stays)
