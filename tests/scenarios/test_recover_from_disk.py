"""Recovering where a disk is all there is, or is older, or was made by somebody who means harm."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from replicator.crypto.sign import SigningKey
from replicator.engine.browse import Library
from replicator.engine.carried import CarriedFederation, DisksBeside
from replicator.engine.federation import Federation
from replicator.engine.keeper import KeeperHome
from replicator.engine.keys import rotate_index
from replicator.engine.recover import Recovered, recover
from replicator.engine.restore import restore
from replicator.engine.tenant import create_tenant
from replicator.errors import IntegrityError, NotFoundError, UsageError
from replicator.format.container import RECORD_MAGIC
from replicator.format.merkle import name_of
from replicator.fs import PosixFs
from replicator.ids import ObjectName, short
from replicator.store.carried import CarriedDisk, CarriedObjects, CarriedWriter
from tests.scenarios.joining import keeping
from tests.scenarios.test_carried import same, write_disk
from tests.scenarios.test_extra import add, place_of, written
from tests.scenarios.test_recovering import NEW, address, charters
from tests.scenarios.world import PASSPHRASE, World, read


async def from_paper(world: World, *disks: Path | str, peers: tuple[int, ...] = ()) -> tuple[Recovered, KeeperHome]:
    """Recover from these disks, and providers; the caller closes the home."""
    assert world.tenant is not None
    home = os.path.join(world.root, f"recovered-{world.rng.bytes(4).hex()}")
    found = await recover(
        home,
        world.edge,
        words=world.tenant.words,
        addresses=[address(world, number) for number in peers],
        disks=[CarriedDisk(str(disk)) for disk in disks],
        passphrase=NEW,
    )
    return found, KeeperHome(home, PosixFs(), lambda _: NEW)


def everyone(world: World) -> range:
    return range(world.providers)


def copied(world: World, path: Path, number: int = 0) -> Path:
    shutil.copytree(world.data(number), path)
    return path


def records(world: World, disk: Path) -> list[Path]:
    """Return the charters and keybags on a disk."""
    folder = disk / world.tenant_id.hex() / "objects"
    return sorted(path for path in folder.iterdir() if path.read_bytes()[: len(RECORD_MAGIC)] == RECORD_MAGIC)


async def newer_charter(world: World) -> int:
    with keeping(world) as (keeper, siblings):
        await rotate_index(keeper, siblings, world.edge)
        return keeper.charter.number


async def comes_back(world: World, keeper: KeeperHome, source: str, *disks: Path | str) -> list[str]:
    """Restore the newest snapshot from disks alone; return what differs."""
    target = os.path.join(world.root, f"back-{world.rng.bytes(4).hex()}")
    async with CarriedFederation(keeper, world.edge, [CarriedDisk(str(disk)) for disk in disks]) as federation:
        await federation.learn()
        library = Library(keeper, federation)
        report = await restore(library, world.edge, await library.find("latest"), target, privileged=os.geteuid() == 0)
        assert (report.gaps, report.lost, federation.integrity) == ([], [], [])
    return same(source, target)


async def test_paper_and_disks_are_enough_and_earlier_keepers_lose_their_rights_when_a_provider_is_reached(
    world: World, source: str, tmp_path: Path
) -> None:
    await world.backup()
    await world.repair()
    disks = [copied(world, tmp_path / f"copy-{number}", number) for number in range(3)]
    earlier = world.keeper()
    number = earlier.charter.number
    world.silence(*everyone(world))
    found, home = await from_paper(world, *disks)
    assert (found.peers, found.charter_number, found.integrity) == (0, number + 1, [])
    assert [one.id for one in found.shown] == [str(disk) for disk in disks]
    [gap] = found.gaps
    assert gap.startswith("NOT DONE YET")
    [notice] = [line for line in found.notices if "no provider could be asked" in line]
    assert notice.startswith("this is as of 2040-01-01T")
    assert await comes_back(world, home, source, *disks) == []
    world.answer(*everyone(world))
    assert await charters(world, earlier) == {number}
    home.owner()
    async with Federation(home, world.edge, ticket=home.lazy_ticket) as federation:
        assert (federation.integrity, federation.failures) == ([], {})
    assert await charters(world, home) == {number + 1}
    async with Federation(earlier, world.edge) as refused:
        assert all("has revoked this key" in str(error) for error in refused.failures.values())
        assert len(refused.failures) == 5
        assert sum("go on in the home that did" in one for one in refused.notices) == 1
    earlier.close()
    home.close()


async def test_a_seeded_disk_and_an_extra_copy_have_what_recovery_begins_with(
    world: World, source: str, tmp_path: Path
) -> None:
    await world.backup()
    add(world, place_of(world))
    await written(world)
    await write_disk(world, 0, tmp_path / "seed")
    number = await newer_charter(world)
    await write_disk(world, 0, tmp_path / "seed")
    world.silence(*everyone(world))
    found, home = await from_paper(world, tmp_path / "seed")
    home.close()
    assert (found.charter_number, found.integrity) == (number + 1, [])
    found, home = await from_paper(world, place_of(world))
    assert (found.charter_number, found.integrity) == (number, []), "it was written before the newest charter"
    assert await comes_back(world, home, source, place_of(world)) == []
    home.close()
    world.answer(0)
    for path in world.stored(0):
        os.unlink(path)
    found, home = await from_paper(world, place_of(world), tmp_path / "seed")
    async with Federation(home, world.edge) as federation:
        library = Library(home, federation)
        await library.refresh()
        beside = DisksBeside(federation, [CarriedDisk(place_of(world)), CarriedDisk(str(tmp_path))])
        [nothing] = beside.join()
        assert "nothing of this tenant lies there" in nothing.message
        await beside.learn()
        target = os.path.join(world.root, "of-both")
        report = await restore(library, world.edge, await library.find("latest"), target, privileged=os.geteuid() == 0)
        assert (report.gaps, report.lost) == ([], [])
        assert same(source, target) == []
    home.close()
    assert found.charter_number == number + 1
    assert found.away == ["bob", "carol", "dave", "erin"]
    assert any(f"{place_of(world)}: shows charter {number - 1}; " in line for line in found.notices)


async def test_a_seeded_disk_without_room_for_them_or_a_node_without_a_keybag_is_told(
    world: World, source: str, tmp_path: Path
) -> None:
    await world.backup()
    world.silence(*everyone(world))
    os.unlink(os.path.join(world.home, "node", "keybag.obj"))
    report = await write_disk(world, 0, tmp_path / "seed")
    assert any("`recover --from` cannot begin with this disk" in line for line in report.notices)


async def test_providers_that_the_disk_names_are_asked_and_the_newest_charter_wins(
    world: World, tmp_path: Path
) -> None:
    disk = copied(world, tmp_path / "copy")
    number = await newer_charter(world)
    found, home = await from_paper(world, disk)
    home.close()
    assert (found.peers, found.charter_number, found.gaps, found.integrity) == (5, number + 1, [], [])
    assert any(line.startswith(f"{disk}: shows charter {number - 1}; ") for line in found.notices)
    assert not any("as of" in line for line in found.notices)
    found, home = await from_paper(world, disk, peers=(2,))
    home.close()
    assert (found.charter_number, found.gaps) == (number + 2, [])


@pytest.mark.parametrize("missed", [1, 2])
async def test_an_old_disk_and_no_provider_make_a_home_that_is_told_when_one_knows_better(
    world: World, tmp_path: Path, missed: int
) -> None:
    disk = copied(world, tmp_path / "copy")
    for _ in range(missed):
        number = await newer_charter(world)
    world.silence(*everyone(world))
    found, home = await from_paper(world, disk)
    assert found.charter_number == number - missed + 1
    assert "recover again, with --peer ADDR, into another --home" in found.gaps[0]
    world.answer(*everyone(world))
    home.owner()
    async with Federation(home, world.edge, ticket=home.lazy_ticket) as federation:
        said = [*federation.notices, *federation.integrity]
    home.close()
    assert any("a charter that does not hold" in line or "two different charters" in line for line in said), said
    found, home = await from_paper(world, disk, peers=(0,))
    assert await charters(world, home) == {found.charter_number}
    assert found.peers == 5
    home.close()


async def test_a_disk_of_an_early_build_has_no_charter_which_is_said_and_an_address_helps(
    world: World, source: str, tmp_path: Path
) -> None:
    await world.backup()
    disk = copied(world, tmp_path / "copy")
    for path in records(world, disk):
        path.unlink()
    world.silence(*everyone(world))
    with pytest.raises(NotFoundError, match="no charter under this sheet") as caught:
        await from_paper(world, disk)
    assert "give --peer ADDR too" in caught.value.hint
    world.answer(*everyone(world))
    found, home = await from_paper(world, disk, peers=(0,))
    home.close()
    assert (found.peers, found.gaps) == (5, [])
    assert any(line.startswith(f"{disk}: no charter") for line in found.notices)
    with pytest.raises(UsageError, match="something to begin with"):
        await from_paper(world)


async def test_what_somebody_put_on_a_disk_is_no_charter_and_is_not_followed(world: World, tmp_path: Path) -> None:
    disk = copied(world, tmp_path / "copy")
    folder = disk / world.tenant_id.hex() / "objects"
    good = {path.name: path.read_bytes() for path in records(world, disk)}
    keeper = world.keeper()
    charter, number = keeper.charter_object()[0].hex(), keeper.charter.number
    keeper.close()
    other = create_tenant(
        *(str(tmp_path / "other"), world.edge),
        name="other",
        country="SE",
        passphrase=PASSPHRASE,
        keeper_only=True,
    )
    writer = CarriedWriter(world.fs, str(disk), world.tenant_id)  # type: ignore[arg-type] # a tenant's id, as bytes
    foreign = read(str(tmp_path / "other" / "keeper" / "charter.obj"))
    writer.put(name_of(foreign), foreign)
    CarriedWriter(world.fs, str(disk), other.tenant).put(name_of(good[charter]), good[charter])  # type: ignore[arg-type] # likewise
    body = RECORD_MAGIC + (200).to_bytes(4, "little") + SigningKey(bytes(32)).public + bytes(4096 - 44)
    writer.put(name_of(body), body)
    os.symlink("/dev/zero", folder / ("1" * 64))
    os.mkfifo(folder / ("2" * 64))
    (folder / ("3" * 64)).write_bytes(RECORD_MAGIC)
    os.truncate(folder / ("3" * 64), 1 << 40)
    os.symlink(folder.parent, disk / ("4" * 32))
    (disk / ("5" * 32)).write_bytes(b"no folder")
    world.silence(*everyone(world))
    found, home = await from_paper(world, disk)
    home.close()
    assert (found.charter_number, found.integrity) == (number + 1, [])
    damaged = bytearray(good[charter])
    damaged[40] ^= 1
    (folder / charter).write_bytes(damaged)
    found, home = await from_paper(world, disk)
    home.close()
    assert found.charter_number == number, "the charter before it"
    [line] = found.integrity
    assert line.startswith(f"{disk}: 1 of its charters and keybags are damaged")
    shutil.rmtree(folder)
    os.symlink(disk / other.tenant.hex() / "objects", folder)
    with pytest.raises(NotFoundError, match="no charter under this sheet"):
        await from_paper(world, disk)


async def test_a_keybag_that_is_damaged_or_gone_leaves_the_charter_before_it(world: World, tmp_path: Path) -> None:
    number = await newer_charter(world)
    disk = copied(world, tmp_path / "copy")
    keeper = world.keeper()
    path = disk / world.tenant_id.hex() / "objects" / keeper.charter.charter.keybag.hex()
    keeper.close()
    world.silence(*everyone(world))
    path.write_bytes(path.read_bytes()[::-1])
    found, home = await from_paper(world, disk)
    home.close()
    assert found.charter_number == number + 2, "upon the one before; one is left out"
    assert any(f"nobody has a keybag for charter {number} that opens" in line for line in found.integrity)
    assert f"{disk}: the keybag of charter {number} on this disk is damaged" in found.integrity
    for record in records(world, disk):
        record.unlink()
    with pytest.raises(NotFoundError, match="no charter under this sheet"):
        await from_paper(world, disk)


async def test_a_bad_sector_hides_what_lies_on_it_and_no_other_charter(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await newer_charter(world)
    disk = copied(world, tmp_path / "copy")
    keeper = world.keeper()
    charter, keybag = keeper.charter_object()[0], keeper.charter.charter.keybag
    keeper.close()
    world.silence(*everyone(world))
    honest = CarriedObjects.read
    bad: set[bytes] = set()

    def failing(objects: CarriedObjects, name: ObjectName, size: int) -> bytes:
        if name in bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return honest(objects, name, size)

    monkeypatch.setattr(CarriedObjects, "read", failing)
    bad.add(charter)
    found, home = await from_paper(world, disk)
    home.close()
    assert found.charter_number == number, "upon the one before"
    [line] = found.integrity
    assert line.startswith(f"{disk}: 1 small object there cannot be read, {short(charter)} first")
    bad.clear()
    bad.add(keybag)
    found, home = await from_paper(world, disk)
    home.close()
    assert found.charter_number == number + 2, "one is left out"
    assert any(f"the keybag of charter {number} cannot be read" in one for one in found.integrity)
    bad.update(bytes.fromhex(record.name) for record in records(world, disk))
    with pytest.raises(IntegrityError, match="cannot be read"):
        await from_paper(world, disk)
