"""A first backup by car, and one that comes back by car: disks in place of lines."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path

import pytest

from replicator.engine.browse import Library
from replicator.engine.carried import CarriedFederation
from replicator.engine.receipts import is_carried
from replicator.engine.restore import restore
from replicator.engine.seeding import SeedReport, seed
from replicator.errors import NotFoundError
from replicator.ids import ObjectName
from replicator.provider.adopting import Adopted
from replicator.store.carried import CarriedDisk, CarriedObjects
from tests.compare import Rules, compare
from tests.crashfs import Crash, CrashFs
from tests.scenarios.test_repair import holders, night, say
from tests.scenarios.test_status import flip
from tests.scenarios.world import World


async def write_disk(world: World, number: int, disk: Path, *, dry_run: bool = False) -> SeedReport:
    os.makedirs(disk, exist_ok=True)
    node = world.node()
    try:
        pin = next(pin for pin in node.peers if pin.identity == world.identity(number))
        return await seed(node, world.edge, pin, str(disk), dry_run=dry_run)
    finally:
        node.close()


def take_in(world: World, number: int, disk: Path) -> Adopted:
    world.answer(number)
    [found] = world.services[number].adopt(CarriedDisk(str(disk)), lambda _size: None)  # type: ignore[attr-defined] # as the operator does
    return found  # type: ignore[no-any-return] # likewise


async def from_disks(world: World, *disks: str) -> tuple[str, list[str]]:
    """Restore the newest snapshot without any provider; return where to, and what was said to be wrong."""
    target = os.path.join(world.root, f"from-{world.rng.bytes(4).hex()}")
    keeper = world.keeper()
    try:
        async with CarriedFederation(keeper, world.edge, [CarriedDisk(disk) for disk in disks]) as federation:
            await federation.learn()
            library = Library(keeper, federation)
            found = await library.find("latest")
            report = await restore(library, world.edge, found, target, privileged=os.geteuid() == 0)
            assert (report.gaps, report.lost) == ([], [])
            return target, federation.integrity
    finally:
        keeper.close()


def same(source: str, target: str) -> list[str]:
    return compare(source, os.path.join(target, os.path.basename(source)), Rules(owners=os.geteuid() == 0))


NEWCOMER = 5


async def short_of_one(world: World) -> None:
    """A sixth provider joins, and one with copies is gone; of the others one answers."""
    await world.backup()
    await world.add_peer(world.start_provider(NEWCOMER))
    await world.status()
    gone, answers, *_ = holders(world)
    await say(world, gone, "gone")
    world.silence(*(number for number in range(world.providers) if number != answers))


async def test_what_a_new_provider_is_to_hold_comes_by_disk_and_nothing_of_it_by_line(
    world: World, source: str, tmp_path: Path
) -> None:
    await short_of_one(world)
    disk = tmp_path / "disk"
    planned = await write_disk(world, NEWCOMER, disk, dry_run=True)
    assert planned.objects > 0
    assert os.listdir(disk) == []
    done = await write_disk(world, NEWCOMER, disk)
    assert (done.objects, done.size, done.left, done.nowhere) == (planned.objects, planned.size, 0, [])
    assert (await write_disk(world, NEWCOMER, disk)).here == done.objects, "a second run writes nothing again"
    uploaded = world.network.uploaded.get(world.identity(NEWCOMER), 0)
    taken = take_in(world, NEWCOMER, disk)
    assert (taken.objects + taken.here, taken.damaged, taken.missing) == (done.objects, 0, 0)
    node = world.node()
    assert is_carried(node, world.identity(NEWCOMER))
    node.close()
    world.answer(*range(world.providers))
    found = await world.status()
    assert any("took in" in notice for notice in found.notices)
    node = world.node()
    try:
        assert not is_carried(node, world.identity(NEWCOMER))
        statement = "SELECT count(*) FROM holdings WHERE peer = ? AND state = 'held' AND receipt != x''"
        [(receipted,)] = node.catalog.database.rows(statement, (world.identity(NEWCOMER),))
        assert receipted == taken.objects + taken.here
    finally:
        node.close()
    assert (await night(world)).made == 0, "nothing is sent again"
    assert world.network.uploaded.get(world.identity(NEWCOMER), 0) - uploaded < 1 << 20, "a charter, at most"


async def test_a_disk_without_room_says_what_is_left_and_the_next_one_takes_it(
    world: World, source: str, tmp_path: Path
) -> None:
    await short_of_one(world)
    fs = CrashFs(str(tmp_path / "graveyard"))
    fs.free = 1000
    world.edge = dataclasses.replace(world.edge, fs=fs)
    full = await write_disk(world, NEWCOMER, tmp_path / "full")
    assert (full.objects, full.left > 0, os.listdir(tmp_path / "full")) == (0, True, [])
    fs.free = None
    assert (await write_disk(world, NEWCOMER, tmp_path / "next")).objects == full.left_objects
    fs.close()


async def test_stopped_at_any_step_the_disk_is_good_for_what_it_says_and_the_same_command_goes_on(
    world: World, source: str, tmp_path: Path
) -> None:
    await short_of_one(world)
    edge, at, steps = world.edge, 0, 1
    while at <= steps:
        fs = CrashFs(str(tmp_path / "graveyard"))
        fs.stop_at(at or None)
        world.edge = dataclasses.replace(edge, fs=fs)
        disk = tmp_path / f"disk-{at}"
        try:
            await write_disk(world, NEWCOMER, disk)
            steps = max(steps, len(fs.steps))
        except Crash:
            fs.power_loss(keep=lambda _path: False, torn=True)
        fs.close()
        world.edge = edge
        report = await write_disk(world, NEWCOMER, disk)
        assert report.objects + report.here > 0
        objects = disk / world.tenant_id.hex() / "objects"
        assert not [name for name in os.listdir(objects) if name.endswith(".new")]
        at += 7
    taken = take_in(world, NEWCOMER, disk)
    assert (taken.damaged, taken.missing, bool(taken.objects)) == (0, 0, True)


async def test_everything_comes_back_from_a_folder_copied_off_a_provider_without_any_network(
    world: World, source: str, tmp_path: Path
) -> None:
    await world.backup()
    await world.repair()
    copies = [str(tmp_path / f"copy-{number}") for number in range(world.providers)]
    for number, copy in enumerate(copies):
        shutil.copytree(world.data(number), copy)
    world.silence(*range(world.providers))
    for _ in range(2):
        target, wrong = await from_disks(world, *copies[:3])
        assert (same(source, target), wrong) == ([], [])
        shutil.rmtree(os.path.join(world.home, "keeper", "cache"))
    with pytest.raises(NotFoundError, match="nothing of this tenant"):
        await from_disks(world, str(tmp_path))


async def test_a_damaged_disk_is_told_and_makes_no_provider_damaged(world: World, source: str, tmp_path: Path) -> None:
    await world.backup()
    await world.repair()
    copies = [str(tmp_path / f"copy-{number}") for number in range(world.providers)]
    for number, copy in enumerate(copies):
        shutil.copytree(world.data(number), copy)
    spoilt = os.path.join(copies[0], world.tenant_id.hex(), "objects")
    for name in os.listdir(spoilt):
        flip(world, os.path.join(spoilt, name))
    world.silence(*range(world.providers))
    target, wrong = await from_disks(world, *copies)
    assert same(source, target) == []
    assert any(copies[0] in one for one in wrong)
    keeper = world.keeper()
    try:
        assert not [one for one in keeper.catalog.objects.holdings() if one.state == "damaged"]
    finally:
        keeper.close()


async def test_what_one_disk_lacks_or_does_not_give_comes_from_the_next_also_in_a_later_run(
    world: World, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    node = world.node()
    indexes = {row.name for row in node.catalog.objects.all("kind = 'index'")}
    node.close()
    assert indexes
    copies = [str(tmp_path / f"copy-{number}") for number in range(world.providers)]
    for number, copy in enumerate(copies):
        shutil.copytree(world.data(number), copy)
    world.silence(*range(world.providers))
    for name in indexes:
        os.unlink(os.path.join(copies[0], world.tenant_id.hex(), "objects", name.hex()))
    with pytest.raises(NotFoundError):
        await from_disks(world, copies[0])
    target, wrong = await from_disks(world, *copies)
    assert (same(source, target), wrong) == ([], [])
    read = CarriedObjects.read

    def dying(objects: CarriedObjects, name: ObjectName, size: int) -> bytes:
        if copies[1] in objects._path and size <= 1 << 20:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(objects, name, size)

    monkeypatch.setattr(CarriedObjects, "read", dying)
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    target, wrong = await from_disks(world, *copies[1:])
    assert same(source, target) == []
    assert any("cannot be read" in one for one in wrong)
