"""Moving the objects to another disk: while it serves, stopped anywhere, and never into or onto something else."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from replicator.errors import HomeError, NotFoundError, SpaceError
from replicator.format.merkle import name_of
from replicator.ids import ObjectName
from replicator.provider.alarms import alarms_of
from replicator.provider.moving import MOVED, NOTE, Copied
from replicator.wire.messages import InventoryRequest
from tests.crashfs import Crash, CrashFs, no_space
from tests.fakes import FakeClock
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import House, Tenant, data_object, put, settle

FIRST, SECOND, THIRD = (data_object(number) for number in (1, 2, 3))


def move(stand: Stand, target: Path | str) -> Copied:
    moving = stand.provider.move_to(str(target))
    moving.plan()
    moving.copy()
    stand.service.stop()
    done = moving.finish()
    stand.provider.close()
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    return done


def whole(stand: Stand) -> set[bytes]:
    page = stand.node.inventory(InventoryRequest(after=b"", limit=100))
    assert (page.missing, page.damaged) == (b"", b"")
    return {page.names[at : at + 32] for at in range(0, len(page.names), 32)}


def test_what_comes_and_goes_while_most_is_copied_is_followed_and_receipts_go_on(stand: Stand, tmp_path: Path) -> None:
    for data in (FIRST, SECOND):
        put(stand.node, data)
    incarnation, target = stand.service.incarnation, tmp_path / "other" / "disk"
    moving = stand.provider.move_to(str(target))
    plan = moving.plan()
    assert (plan.objects, plan.left_objects, plan.left) == (4, 4, plan.size)
    seen: list[int] = []
    assert moving.copy(seen.append).objects == len(seen) == 4
    put(stand.node, THIRD)
    os.unlink(stand.house.file(stand.tenant, name_of(SECOND)))  # as a sweep does
    assert moving.plan().left_objects == 1
    done = move(stand, target)
    assert (done.objects, done.removed, done.damaged) == (0, 1, []), "the third was copied before the daemon stopped"
    assert stand.provider.data == str(target)
    assert stand.service.incarnation == incarnation
    assert stand.node.get(ObjectName(name_of(THIRD))) == THIRD
    with pytest.raises(FileNotFoundError):
        os.stat(os.path.join(target, stand.tenant.id.hex(), "objects", name_of(SECOND).hex()))
    assert os.listdir(tmp_path / "other" / "disk").count(NOTE) == 0


def test_the_old_folder_is_no_store_and_goes_only_where_the_new_one_is_good(stand: Stand, tmp_path: Path) -> None:
    for data in (FIRST, SECOND):
        put(stand.node, data)
    old, target = stand.house.data, tmp_path / "new"
    assert stand.provider.mounted()
    move(stand, target)
    there = os.path.join(target, stand.tenant.id.hex(), "objects")
    (Path(there) / name_of(FIRST).hex()).write_bytes(b"rot" + FIRST[3:])
    moving = stand.provider.move_to(str(target))
    assert (os.path.exists(os.path.join(old, MOVED)), stand.provider.moved_from) == (True, old)
    assert moving.remove_old(stand.provider.is_stored, dry_run=True).objects == 4
    assert len(os.listdir(stand.house.objects(stand.tenant))) == 4
    done = moving.remove_old(stand.provider.is_stored, dry_run=False)
    assert (done.objects, done.kept) == (3, 1)
    assert os.listdir(stand.house.objects(stand.tenant)) == [name_of(FIRST).hex()]
    put(stand.node, FIRST)
    assert moving.remove_old(stand.provider.is_stored, dry_run=False).kept == 0
    assert os.listdir(old) == []
    assert stand.provider.moved_from == ""
    with pytest.raises(HomeError, match="lie there already"):
        stand.provider.move_to(str(target))


def test_who_comes_and_what_is_set_while_most_is_copied_is_there_afterwards(stand: Stand, tmp_path: Path) -> None:
    put(stand.node, FIRST)
    moving = stand.provider.move_to(str(tmp_path / "new"))
    moving.copy()
    late = Tenant("late")
    daemon = stand.house.open()
    settle(daemon, stand.service, late)
    put(stand.service.session(late.node.public), SECOND)
    daemon.set_hours(window="22:00-06:00", zone="UTC", streams=1)
    daemon.close()
    stand.service.stop()
    moving.finish()
    stand.provider.close()
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    assert stand.service.session(late.node.public).get(ObjectName(name_of(SECOND))) == SECOND
    assert (stand.provider.status()["window"], stand.provider.status()["streams"]) == ("22:00-06:00", 1)


def test_the_old_folder_goes_with_an_erased_tenants_and_whoever_came_later(stand: Stand, tmp_path: Path) -> None:
    put(stand.node, FIRST)
    late, old, target = Tenant("late"), stand.house.data, tmp_path / "new"
    move(stand, target)
    settle(stand.provider, stand.service, late)
    stand.service.erase(stand.tenant.erase_order())
    assert not os.path.exists(stand.house.objects(stand.tenant)), "erased is erased, there too"
    moving = stand.provider.move_to(str(target))
    done = moving.remove_old(stand.provider.is_stored, dry_run=False)
    assert (done.objects, done.kept, os.listdir(old), stand.provider.moved_from) == (0, 0, [], "")


def test_an_erasure_waits_for_an_old_folder_that_is_not_there(stand: Stand, tmp_path: Path) -> None:
    put(stand.node, FIRST)
    move(stand, tmp_path / "new")
    old, away = Path(stand.house.data), tmp_path / "in a drawer"
    old.rename(away)
    old.mkdir()  # where it was mounted
    assert refusal(lambda: stand.service.erase(stand.tenant.erase_order())) == "unavailable"
    [erased] = stand.provider.status()["erased"]
    assert not erased["done"], "and nobody is told that it is"
    stand.restart()
    assert not stand.provider.status()["erased"][0]["done"]
    stand.clock.advance(3600)
    assert "erasure.stuck" in {one.code for one in alarms_of(stand.provider.state())}
    old.rmdir()
    away.rename(old)
    stand.restart()
    assert stand.provider.status()["erased"][0]["done"]
    assert "erasure.stuck" not in {one.code for one in alarms_of(stand.provider.state())}
    assert list(old.rglob("objects/*")) == []


def test_an_erasure_does_not_wait_for_a_disk_that_is_no_more(stand: Stand, tmp_path: Path) -> None:
    move(stand, tmp_path / "new")
    shutil.rmtree(stand.house.data)
    assert refusal(lambda: stand.service.erase(stand.tenant.erase_order())) == "unavailable"
    assert stand.house.open().forget_old() == [stand.house.data]
    assert stand.service.erase(stand.tenant.erase_order()), "also while the daemon runs"


def test_of_several_moves_no_folder_is_forgotten(stand: Stand, tmp_path: Path) -> None:
    put(stand.node, FIRST)
    first, second, third = stand.house.data, str(tmp_path / "second"), str(tmp_path / "third")
    move(stand, second)
    move(stand, third)
    assert stand.provider.old_folders == [first, second]
    status = stand.provider.status()
    assert (status["moved_before"], status["moved_from"]) == ([first], second)
    put(stand.node, SECOND)
    late = Tenant("late")
    settle(stand.provider, stand.service, late)
    for folder, others in ((first, [second]), (second, [])):
        moving = stand.provider.move_to(third, source=folder)
        assert moving.remove_old(stand.provider.is_stored, dry_run=False).kept == 0
        assert (os.listdir(folder), stand.provider.old_folders) == ([], others)
    assert stand.node.get(ObjectName(name_of(FIRST))) == FIRST


def test_a_tenant_is_erased_in_every_folder_of_before(stand: Stand, tmp_path: Path) -> None:
    put(stand.node, FIRST)
    for name in ("second", "third"):
        move(stand, tmp_path / name)
    stand.service.erase(stand.tenant.erase_order())
    for folder in (stand.house.data, tmp_path / "second", tmp_path / "third"):
        assert not os.path.exists(os.path.join(folder, stand.tenant.id.hex()))


def test_what_a_disk_spoilt_is_set_aside_and_comes_along(stand: Stand, tmp_path: Path) -> None:
    put(stand.node, FIRST)
    Path(stand.house.file(stand.tenant, name_of(FIRST))).write_bytes(b"rot" + FIRST[3:])
    done = move(stand, tmp_path / "new")
    assert [name for _, name in done.damaged] == [name_of(FIRST)]
    aside = tmp_path / "new" / stand.tenant.id.hex() / "quarantine" / name_of(FIRST).hex()
    assert aside.read_bytes() == b"rot" + FIRST[3:]
    page = stand.node.inventory(InventoryRequest(after=b"", limit=100))
    assert page.damaged == name_of(FIRST)


def test_a_target_that_cannot_be_meant_is_refused_and_nothing_changes(stand: Stand, tmp_path: Path) -> None:
    put(stand.node, FIRST)
    data = Path(stand.house.data)
    (tmp_path / "link").symlink_to(data)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    shutil.copytree(data, tmp_path / "copy")
    for target in (data / "inside", tmp_path, tmp_path / "link", tmp_path / "full", tmp_path / "copy"):
        with pytest.raises(HomeError):
            stand.provider.move_to(str(target)).plan()
    with pytest.raises(HomeError, match="lie there already"):
        stand.provider.move_to(str(data))
    assert stand.provider.data == str(data)
    os.rename(data / ".replicator-store", tmp_path / "hidden")
    with pytest.raises(HomeError, match="not mounted"):
        stand.provider.move_to(str(tmp_path / "new")).plan()
    with pytest.raises(HomeError, match="not a folder that this provider has moved away from"):
        stand.provider.move_to(str(tmp_path / "new")).remove_old(stand.provider.is_stored, dry_run=False)


def test_a_disk_without_room_is_refused_before_and_one_that_fills_switches_nothing(tmp_path: Path) -> None:
    fs = CrashFs(str(tmp_path / "graveyard"))
    stand = Stand(str(tmp_path), fs)
    put(stand.node, FIRST)
    moving = stand.provider.move_to(str(tmp_path / "new"))
    fs.free = 1000
    with pytest.raises(SpaceError, match="have to fit"):
        moving.plan()
    fs.errors["write incoming"] = no_space()
    with pytest.raises(SpaceError):
        moving.copy()
    assert stand.provider.data == stand.house.data
    fs.errors, fs.free = {}, None
    assert moving.copy().objects == 3
    stand.provider.close()
    fs.close()


def _life(path: str, fs: CrashFs, clock: FakeClock) -> bool:
    """Move; return whether it came to its end."""
    provider = House(path, fs=fs, clock=clock).open()
    try:
        with suppress(Crash):
            moving = provider.move_to(os.path.join(path, "new"))
            if provider.data != os.path.join(path, "new"):
                moving.copy()
                moving.finish()
            else:
                moving.settle()
            return True
    finally:
        provider.close()
    return False


@pytest.mark.parametrize("power", [False, True])
def test_stopped_at_any_step_the_store_is_whole_in_one_place_and_the_same_command_goes_on(
    tmp_path: Path, power: bool
) -> None:
    settled = tmp_path / "settled"
    stand = Stand(str(settled))
    for data in (FIRST, SECOND):
        put(stand.node, data)
    stand.service.stop()
    stand.provider.close()
    steps: int | None = None
    at = 0
    while steps is None or at <= steps:
        path = tmp_path / ("undisturbed" if steps is None else f"life-{at}")
        shutil.copytree(settled, path)
        home = path / "home" / "provider" / "home.json"
        home.write_text(home.read_text().replace(str(settled), str(path)))
        fs = CrashFs(str(path / "graveyard"))
        fs.stop_at(None if steps is None else at)
        done = _life(str(path), fs, stand.clock)
        if steps is None:
            assert done
            steps = len(fs.steps)
            continue
        assert done == (at == steps)
        if power:
            fs.power_loss(keep=lambda _path: False, torn=True)
        fs.close()
        _is_whole(str(path), stand.tenant, stand.clock)
        again = CrashFs(str(path / "graveyard"))
        provider = House(str(path), clock=stand.clock).open()
        settled_there = provider.data == str(path / "new") and not provider.moved_from
        provider.close()
        if not settled_there:
            assert _life(str(path), again, stand.clock)
        again.close()
        assert _is_whole(str(path), stand.tenant, stand.clock) == str(path / "new")
        shutil.rmtree(path)
        at += 1 if power else min(3, max(1, steps - at))


def _is_whole(path: str, tenant: Tenant, clock: FakeClock) -> str:
    """Start on a copy of what is there, find every object, and return where they lie."""
    house = House(path, clock=clock)
    provider = house.open()
    try:
        assert provider.mounted()
        stores = [place for place in ("data", "new") if os.path.exists(os.path.join(path, place, ".replicator-store"))]
        assert stores, "there is a store"
        for data in (FIRST, SECOND):
            file = os.path.join(provider.data, tenant.id.hex(), "objects", name_of(data).hex())
            assert Path(file).read_bytes() == data
        return provider.data
    finally:
        provider.close()


def test_an_object_that_is_swept_while_it_is_copied_is_passed_over(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(stand.node, FIRST)
    from replicator.store.folder import FolderObjectStore

    def gone(*_: object) -> bytes:
        raise NotFoundError("swept")

    moving = stand.provider.move_to(str(tmp_path / "new"))
    monkeypatch.setattr(FolderObjectStore, "read", gone)
    assert moving.copy().objects == 0
