"""Status must not read back its own hopes: what was done to a provider's disk behind its back is said before a restore.

Then repair makes it whole where that is possible, and says where it is not.
"""

import os
import shutil
from collections.abc import Callable

import pytest

from replicator.clock import DAY_S
from replicator.engine import federation
from replicator.engine.alarms import alarms_of, standing
from replicator.engine.repair import repair
from replicator.engine.status import Status
from replicator.engine.why import explain
from replicator.transport.handler import RequestRefusedError, Session
from tests.fakes import SeededRng
from tests.scenarios.liars import Liar
from tests.scenarios.world import World, read, write

Damage = Callable[[World, str], None]


def delete(_world: World, path: str) -> None:
    os.unlink(path)


def empty(_world: World, path: str) -> None:
    os.truncate(path, 0)


def truncate(_world: World, path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def shorten(_world: World, path: str) -> None:
    os.truncate(path, os.path.getsize(path) - 1)


def lengthen(_world: World, path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def swap(_world: World, path: str) -> None:
    """Put another object's bytes of the same size in its place."""
    folder, size = os.path.dirname(path), os.path.getsize(path)
    others = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    other = next((one for one in others if one != path and os.path.getsize(one) == size), None)
    write(path, read(other) if other else SeededRng("swap").bytes(size))


def flip(_world: World, path: str) -> None:
    data = bytearray(read(path))
    data[len(data) // 3] ^= 0x10
    write(path, bytes(data))


def replace_by_folder(_world: World, path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


DAMAGES: tuple[Damage, ...] = (delete, empty, truncate, shorten, lengthen, swap, flip, replace_by_folder)


async def whole_again(world: World, source: str) -> None:
    """Repair, and find everything as it was promised."""
    repaired = await world.repair()
    assert (repaired.exit_code, repaired.debts, repaired.owed, repaired.unreadable) == (0, [], [], [])
    found = await world.status()
    assert (found.exit_code, found.problems) == (0, [])
    report = await world.verify()
    assert (report.problems, report.absent) == ([], [])
    assert await world.differences(source) == []


def peer(found: Status, number: int) -> str:
    return " ".join(found.peers[number].problems)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_to_everything_at_one_provider_is_said_and_repaired(
    damage: Damage, world: World, source: str
) -> None:
    await world.backup()
    for path in world.stored(2, ["data", "tree", "index", "references", "snapshot"]):
        damage(world, path)
    found = await world.status()
    assert found.exit_code in {3, 4, 5}
    assert peer(found, 2) != ""
    assert found.datasets[0].state != "safe"
    report = await world.verify(share=0.0)
    assert any("carol" in line for line in [*report.problems, *report.absent])
    assert await world.differences(source) == []
    await whole_again(world, source)


@pytest.mark.parametrize("kind", ["data", "tree", "index", "references", "snapshot"])
@pytest.mark.parametrize("damage", [delete, truncate, swap, flip])
async def test_damage_to_a_single_object_is_said_and_repaired(
    damage: Damage, kind: str, world: World, source: str
) -> None:
    await world.backup()
    number = next(number for number in range(5) if world.stored(number, [kind]))
    [path] = world.stored(number, [kind])
    damage(world, path)
    found = None
    for _ in range(8):  # a night proves a hundred leaves of each provider
        found = await world.status()
        if found.exit_code:
            break
    assert found is not None
    assert found.exit_code == (3 if damage is delete else 4)
    assert peer(found, number) != ""
    assert ("gone" if damage is delete else "damaged") in peer(found, number)
    await whole_again(world, source)


@pytest.mark.parametrize("damage", [delete, truncate, flip])
@pytest.mark.parametrize("which", ["charter", "keybag"])
async def test_what_recovery_begins_with_is_missed_too(which: str, damage: Damage, world: World, source: str) -> None:
    await world.backup()
    keeper = world.keeper()
    name = keeper.charter_object()[0] if which == "charter" else keeper.charter.charter.keybag
    keeper.close()
    damage(world, os.path.join(world.objects(2), name.hex()))
    for _ in range(30):  # one leaf of four is asked for each time
        found = await world.status()
        if found.exit_code:
            break
    assert found.exit_code == (3 if damage is delete else 4)
    assert which in peer(found, 2)
    assert (await world.repair()).exit_code == 0
    for _ in range(5):
        assert (await world.status()).exit_code == 0


@pytest.mark.parametrize("damage", DAMAGES)
async def test_below_the_minimum_it_is_red(damage: Damage, world: World, source: str) -> None:
    await world.backup()
    holders = [number for number in range(5) if world.stored(number, ["data"])]
    for number in holders[:2]:
        for path in world.stored(number, ["data"]):
            damage(world, path)
    found = await world.status()
    assert found.exit_code in {4, 5}
    assert found.datasets[0].copies == 1
    assert await world.differences(source) == []
    await whole_again(world, source)


async def test_what_is_nowhere_any_more_is_said_and_the_next_backup_stores_it_anew(world: World, source: str) -> None:
    await world.backup()
    for number in range(5):
        for path in world.stored(number, ["data"]):
            os.unlink(path)
    found = await world.status()
    assert (found.exit_code, found.datasets[0].copies) == (5, 0)
    repaired = await world.repair()
    assert (repaired.exit_code, len(repaired.unreadable)) == (4, 1)
    report = await world.verify()
    assert report.absent != []
    for _ in range(2):
        last = await world.backup()
    assert [(one.error, one.published, one.debts) for one in last.datasets] == [(None, True, [])]
    assert (await world.status()).exit_code == 0, "every chunk of the lost pack is stored again"
    assert await world.differences(source) == []
    for one in await world.snapshots():
        assert await world.differences(source, one.id) == []


async def test_what_is_nowhere_and_not_in_the_source_any_more_stays_red(world: World, source: str) -> None:
    write(os.path.join(source, "gone"), SeededRng("gone").bytes(200_000))
    await world.backup()
    for number in range(5):
        for path in world.stored(number, ["data"]):
            os.unlink(path)
    os.unlink(os.path.join(source, "gone"))
    for _ in range(2):
        last = await world.backup()
    assert [(one.error, one.published) for one in last.datasets] == [(None, True)], "later snapshots go on"
    assert (await world.status()).exit_code == 5
    assert (await world.repair()).exit_code == 4
    assert await world.differences(source) == []


async def test_a_provider_that_is_gone_is_below_the_promise_and_repaired_by_hand(world: World, source: str) -> None:
    await world.backup()
    number = next(number for number in range(5) if world.stored(number, ["data"]))
    world.silence(number)
    found = await world.status()
    assert found.exit_code == 3
    assert not found.peers[number].reachable
    assert "no endpoint answers" in peer(found, number)
    repaired = await world.repair()
    assert (repaired.exit_code, repaired.debts) == (0, [])
    assert len(repaired.lost_peers) == 1
    assert [one.state for one in (await world.status()).datasets] == ["safe"]
    others = [other for other in range(5) if other != number]
    world.silence(others[0], others[1])
    assert await world.differences(source) == []


async def test_at_night_silence_counts_as_loss_after_a_fortnight(world: World, source: str) -> None:
    await world.backup()
    number = next(number for number in range(5) if world.stored(number, ["data"]))
    world.silence(number)
    await world.status()
    assert (await world.repair(by_hand=False)).made == 0
    world.clock.advance(13 * DAY_S)
    assert (await world.repair(by_hand=False)).made == 0
    world.clock.advance(2 * DAY_S)
    assert (await world.repair(by_hand=False)).made > 0


async def test_a_copy_that_comes_back_is_no_trouble(world: World, source: str) -> None:
    await world.backup()
    number = next(number for number in range(5) if world.stored(number, ["data"]))
    world.silence(number)
    await world.repair()
    world.answer(number)
    found = await world.status()
    assert (found.exit_code, found.problems) == (0, [])
    await whole_again(world, source)


async def test_two_providers_gone_of_three_copies_is_below_the_minimum(world: World, source: str) -> None:
    await world.backup()
    holders = [number for number in range(5) if world.stored(number, ["data"])]
    world.silence(*holders[:2])
    found = await world.status()
    assert found.exit_code in {3, 5}
    assert (await world.repair()).exit_code == 0
    assert [one.state for one in (await world.status()).datasets] == ["safe"]


# disks and databases put back from older copies


async def test_a_disk_put_back_from_an_older_copy_is_said_before_a_restore(world: World, source: str) -> None:
    await world.backup()
    world.stop_provider(2)
    shutil.copytree(world.data(2), world.data(2) + ".old")
    world.start_provider(2)
    write(os.path.join(source, "later"), SeededRng("later").bytes(300_000))
    await world.backup()
    assert (await world.status()).exit_code == 0
    later = len(world.stored(2, ["data", "tree", "index", "references", "snapshot"]))
    world.kill_provider(2)
    shutil.rmtree(world.data(2))
    os.rename(world.data(2) + ".old", world.data(2))
    world.start_provider(2)
    assert len(world.stored(2, ["data", "tree", "index", "references", "snapshot"])) < later
    found = await world.status()
    assert found.exit_code in {3, 4, 5}
    assert any("its store is not the one it was" in line for line in found.notices)
    assert "gone" in peer(found, 2)
    await whole_again(world, source)


async def test_a_disk_swapped_for_an_older_copy_under_a_running_provider_is_said(world: World, source: str) -> None:
    await world.backup()
    shutil.copytree(world.data(2), world.data(2) + ".old")
    write(os.path.join(source, "later"), SeededRng("later").bytes(300_000))
    await world.backup()
    shutil.rmtree(world.data(2))
    os.rename(world.data(2) + ".old", world.data(2))
    found = await world.status()
    assert found.exit_code in {3, 4, 5}
    assert "gone" in peer(found, 2)
    await whole_again(world, source)


async def test_receipts_of_an_older_store_count_for_nothing_until_it_was_asked(
    worlds: Callable[[int], World],
) -> None:
    world = worlds(3)
    world.small_dataset()
    world.stop_provider(2)
    shutil.copytree(world.data(2), world.data(2) + ".old")
    world.start_provider(2)
    await world.backup()
    world.kill_provider(2)
    shutil.rmtree(world.data(2))
    os.rename(world.data(2) + ".old", world.data(2))
    world.start_provider(2)

    def mute(_session: Session, _body: bytes) -> bytes:
        raise RequestRefusedError("unavailable", "not now")

    world.network.add(Liar(world.services[2], ops={"inventory": mute}))
    found = await world.status()
    assert (found.exit_code, found.datasets[0].copies) == (3, 2)


async def test_an_unmounted_disk_is_not_a_loss(world: World, source: str) -> None:
    await world.backup()
    os.rename(world.data(2), world.data(2) + ".away")
    found = await world.status()
    assert found.exit_code in {0, 3}
    assert found.peers[2].missing == 0
    assert "not mounted" in peer(found, 2)
    os.rename(world.data(2) + ".away", world.data(2))
    found = await world.status()
    assert found.datasets[0].state == "safe"


async def test_a_database_put_back_from_an_older_copy_owes_its_claims(world: World, source: str) -> None:
    await world.backup()
    folder = os.path.join(world.root, "provider-2", "provider")
    world.stop_provider(2)
    shutil.copy2(os.path.join(folder, "provider.db"), os.path.join(folder, "older"))
    world.start_provider(2)
    write(os.path.join(source, "later"), SeededRng("later").bytes(300_000))
    await world.backup()
    world.stop_provider(2)
    os.replace(os.path.join(folder, "older"), os.path.join(folder, "provider.db"))
    world.start_provider(2)
    for _ in range(2):
        found = await world.status()
        assert found.exit_code == 3
        assert "no claim" in peer(found, 2)
    await whole_again(world, source)
    assert (await world.backup()).integrity == []


async def test_a_provider_that_was_made_anew_from_an_empty_database_is_said(world: World, source: str) -> None:
    folder = os.path.join(world.root, "provider-2", "provider")
    stranger = World(os.path.join(world.root, "stranger"), providers=1)
    stranger.close()
    await world.backup()
    world.stop_provider(2)
    shutil.copy2(os.path.join(stranger.root, "provider-0", "provider", "provider.db"), folder)
    world.start_provider(2)
    found = await world.status()
    assert found.exit_code == 3
    assert not found.peers[2].reachable
    assert await world.differences(source) == []


async def test_an_inventory_of_many_pages_is_read_to_its_end(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation, "INVENTORY_PAGE", 2)
    await world.backup()
    assert (await world.status()).exit_code == 0
    gone = world.stored(2, ["data", "tree", "index", "references", "snapshot"])
    for path in gone:
        os.unlink(path)
    found = await world.status()
    assert (found.peers[2].missing, found.peers[2].objects) == (len(gone), len(os.listdir(world.objects(2))))
    await whole_again(world, source)


async def test_a_provider_that_lost_everything_starts_over(world: World, source: str) -> None:
    await world.backup()
    for name in os.listdir(world.objects(2)):
        os.unlink(os.path.join(world.objects(2), name))
    found = await world.status()
    assert found.exit_code in {3, 5}
    await whole_again(world, source)


async def test_status_of_the_keeper_tells_the_same(world: World, source: str) -> None:
    await world.backup()
    await world.snapshots()
    assert (await world.status(keeper=True)).exit_code == 0
    for path in world.stored(2, ["data", "tree", "index", "references", "snapshot"]):
        os.unlink(path)
    found = await world.status(keeper=True)
    assert found.exit_code in {3, 5}
    repaired = await world.repair(keeper=True)
    assert repaired.exit_code == 0
    assert (await world.status(keeper=True)).exit_code == 0


async def test_a_keeper_that_never_counted_a_copy_sees_what_is_missing(world: World, source: str) -> None:
    """A fresh keeper has no receipts: it knows what must be there from the chain alone."""
    await world.backup()
    for number in range(5):
        for path in world.stored(number, ["data"]):
            os.unlink(path)
    assert (await world.status(keeper=True)).exit_code == 5


async def test_an_offline_answer_asks_nobody_and_says_as_of_when(world: World, source: str) -> None:
    await world.backup()
    node = world.node()
    sizes = {row.id: row.size for row in node.catalog.objects.all()}
    held = [[sizes[one.object_id] for one in node.catalog.objects.holdings(peer=world.identity(at))] for at in range(5)]
    node.close()
    asked = world.clock.now_ns()
    world.clock.advance(3600)
    world.silence(*range(5))
    found = await world.status(offline=True)
    assert [(one.objects, one.bytes) for one in found.peers] == [(len(row), sum(row)) for row in held]
    assert all(one.bytes for one in found.peers)
    assert (found.exit_code, found.asked, found.as_of_ns) == (0, False, asked)


async def test_who_has_only_read_does_not_know_offline_who_holds_what(world: World, source: str) -> None:
    await world.backup()
    await world.snapshots()
    found = await world.status(keeper=True, offline=True)
    assert (found.exit_code, found.datasets[0].state) == (3, "unknown")
    assert "was not asked yet" in standing(found)
    assert alarms_of(found) == []
    assert (await world.status(keeper=True)).exit_code == 0
    found = await world.status(keeper=True, offline=True)
    assert (found.exit_code, found.datasets[0].state) == (0, "safe")
    write(os.path.join(source, "new.txt"), b"new")
    await world.backup()
    await world.snapshots()
    found = await world.status(keeper=True, offline=True)
    assert (found.exit_code, found.datasets[0].state) == (3, "unknown")
    assert "1 of 2 snapshots" in found.datasets[0].gaps[-1]
    for path in world.stored(0, ["data"]):
        os.unlink(path)
    await world.status(keeper=True)
    found = await world.status(keeper=True, offline=True)
    assert found.datasets[0].state != "unknown", "who looked and found it missing knows"


async def test_of_an_old_snapshot_that_nobody_was_asked_about_it_is_not_said_that_it_is_lost(
    world: World, source: str
) -> None:
    await world.backup()
    await world.snapshots()
    world.clock.advance(80 * 3600)
    found = await world.status(keeper=True, offline=True)
    assert (found.datasets[0].state, found.datasets[0].unasked) == ("stale", True)
    assert "was not asked yet" in standing(found)
    assert "NO copy" not in standing(found)
    found = await world.status(keeper=True)
    assert "can be restored, from" in standing(found)


@pytest.mark.parametrize(
    ("hours", "code", "state", "old"),
    [(35, 0, "safe", ""), (37, 0, "safe", "37 hours"), (71, 0, "safe", "2 days"), (73, 3, "stale", "")],
)
async def test_an_old_snapshot_is_warned_of_and_then_stale(
    hours: int, code: int, state: str, old: str, world: World, source: str
) -> None:
    await world.backup()
    world.clock.advance(hours * 3600)
    found = await world.status()
    assert (found.exit_code, found.datasets[0].state) == (code, state)
    warnings = [said for said in found.datasets[0].warnings if "is it backed up every night?" in said]
    assert warnings == ([f"the newest snapshot is {old} old: is it backed up every night?"] if old else [])


async def test_copies_that_nobody_has_heard_of_for_long_do_not_count(world: World, source: str) -> None:
    """The limit is the policy's: here a month."""
    await world.backup()
    world.silence(*range(5))
    world.clock.advance(31 * DAY_S)
    found = await world.status()
    assert (found.exit_code, found.datasets[0].copies) == (5, 0)
    world.answer(*range(5))
    assert (await world.status()).datasets[0].copies == 3


async def test_nothing_backed_up_is_not_green(world: World) -> None:
    world.small_dataset()
    found = await world.status()
    assert (found.exit_code, found.datasets[0].state) == (3, "nothing yet")


async def test_a_dry_repair_changes_nothing_and_says_what_it_would_do(world: World, source: str) -> None:
    await world.backup()
    for path in world.stored(2):
        os.unlink(path)
    before = [sorted(os.listdir(world.objects(number))) for number in range(5)]
    node = world.node()
    report = await repair(node, world.edge, dry_run=True)
    node.close()
    assert report.planned != []
    assert report.made == 0
    assert [sorted(os.listdir(world.objects(number))) for number in range(5)] == before


async def test_what_is_short_while_a_provider_is_away_says_that_and_what_would_help(world: World, source: str) -> None:
    assert source
    world.silence(2, 3, 4)
    await world.backup()
    stands = await world.status()
    assert stands.exit_code == 3
    [dataset] = stands.datasets
    short = [gap for gap in dataset.gaps if "2 of 3 promised copies" in gap]
    assert short
    assert all("takes nothing new (offline)" in gap and "readonly" not in gap for gap in short)
    assert all("; what would help: " in gap for gap in short)
    node = world.node()
    try:
        found = await explain(node, world.edge, node.catalog.snapshots.all())
    finally:
        node.close()
    assert any(line.startswith("not on carol") and "(offline)" in line for line in found.reasons)
    assert any(line.endswith(": 1 copy of every object is left") for line in found.survives)
