"""Disks that are brought: taken in as uploads are, and whatever a hostile or dying one has on it harms nothing."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from replicator.crypto.sign import Context, SigningKey, verify
from replicator.errors import HomeError
from replicator.format.carried import Carried
from replicator.format.claim import Receipt
from replicator.format.codec import decode, encode
from replicator.format.merkle import name_of
from replicator.fs import Fs, PosixFs
from replicator.ids import ObjectName, TenantId
from replicator.provider.adopting import Adopted
from replicator.store.carried import CarriedDisk, CarriedWriter
from replicator.wire.messages import InventoryRequest, Receipts, ReceiptsRequest
from tests.crashfs import Crash, CrashFs, no_space
from tests.fakes import FakeClock, SeededRng
from tests.provider.stand import Stand
from tests.provider.tenant import MIB, House, Tenant, data_object, publish_charter, put, right

OBJECTS = [data_object(number) for number in range(1, 5)]
NAMES = sorted(name_of(data) for data in OBJECTS)


def bring(
    stand: Stand, disk: Path, objects: list[bytes] = OBJECTS, *, by: SigningKey | None = None, **changes: object
) -> Path:
    """Write a disk as a tenant does."""
    disk.mkdir(exist_ok=True)
    writer = CarriedWriter(PosixFs(), str(disk), TenantId(stand.tenant.id))
    for data in objects:
        writer.put(name_of(data), data)
    values: dict[str, object] = {
        "tenant": stand.tenant.id,
        "provider": stand.service.identity,
        "names": b"".join(sorted(name_of(data) for data in objects)),
        "made_ns": 1,
    }
    carried = Carried(**(values | changes))  # type: ignore[arg-type] # a test names the field it changes
    writer.state("first", (by or stand.tenant.node).sign(Context.CARRIED, encode(carried)))
    return disk


def adopt(stand: Stand, disk: Path) -> Adopted:
    [found] = stand.service.adopt(CarriedDisk(str(disk)), lambda _size: None)
    return found


def folder(stand: Stand, disk: Path) -> Path:
    return disk / stand.tenant.id.hex() / "objects"


def stored(stand: Stand) -> set[bytes]:
    page = stand.node.inventory(InventoryRequest(after=b"", limit=100))
    return {page.names[at : at + 32] for at in range(0, len(page.names), 32)}


def receipts(stand: Stand, got: Sequence[bytes] = ()) -> list[Receipt]:
    answer = stand.call("receipts", ReceiptsRequest(got=b"".join(got)))
    assert isinstance(answer, Receipts)
    return [decode(Receipt, verify(signed, Context.RECEIPT, [stand.provider.key.public])) for signed in answer.receipts]


def test_what_is_signed_for_is_taken_in_and_its_receipts_wait_until_they_are_had(stand: Stand, tmp_path: Path) -> None:
    disk = bring(stand, tmp_path / "disk")
    found = adopt(stand, disk)
    assert (found.objects, found.size, found.here, found.missing, found.damaged) == (4, sum(map(len, OBJECTS)), 0, 0, 0)
    assert set(NAMES) <= stored(stand)
    assert stand.node.get(ObjectName(NAMES[0])) in OBJECTS
    stand.restart()
    waiting = receipts(stand)
    assert [one.name for one in waiting] == NAMES
    assert {one.incarnation for one in waiting} == {stand.service.incarnation}
    assert [one.name for one in receipts(stand, NAMES[:3])] == NAMES[3:]
    assert receipts(stand, NAMES[3:]) == []
    assert adopt(stand, disk).here == 4, "again: it lies here, and is receipted anew"


def test_quotas_hold_as_for_uploads_and_the_rest_is_taken_when_there_is_room(stand: Stand, tmp_path: Path) -> None:
    disk = bring(stand, tmp_path / "disk")
    used = stand.node.info().used
    stand.provider.set_quota(stand.tenant.id.hex(), used + len(OBJECTS[0]) + len(OBJECTS[1]))
    found = adopt(stand, disk)
    assert (found.objects, "quota" in found.refused) == (2, True)
    stand.provider.set_quota(stand.tenant.id.hex(), 100 * MIB)
    again = adopt(stand, disk)
    assert (again.objects, again.here, again.refused) == (2, 2, "")


def test_a_full_disk_stops_it_and_what_was_taken_in_stays(tmp_path: Path) -> None:
    fs = CrashFs(str(tmp_path / "graveyard"))
    stand = Stand(str(tmp_path), fs)
    disk = bring(stand, tmp_path / "disk")
    first = {"left": 2}
    create = fs.create

    def filling(path: str) -> object:
        if path.split(os.sep)[-2] == "incoming":
            first["left"] -= 1
            if first["left"] < 0:
                raise no_space()
        return create(path)

    fs.create = filling  # type: ignore[method-assign, assignment]
    found = adopt(stand, disk)
    assert (found.objects, bool(found.refused)) == (2, True)
    first["left"] = 100
    assert (adopt(stand, disk).objects, set(NAMES) <= stored(stand)) == (2, True)
    stand.provider.close()
    fs.close()


def test_what_is_damaged_here_is_healed_from_the_disk_and_told_as_no_fault_of_it(stand: Stand, tmp_path: Path) -> None:
    put(stand.node, OBJECTS[0])
    Path(stand.house.file(stand.tenant, name_of(OBJECTS[0]))).write_bytes(b"rot" + OBJECTS[0][3:])
    found = adopt(stand, bring(stand, tmp_path / "disk"))
    assert (found.objects, found.here, found.damaged, found.refused) == (4, 0, 0, "")
    assert stand.node.get(ObjectName(name_of(OBJECTS[0]))) == OBJECTS[0]
    assert {one.name for one in receipts(stand)} == set(NAMES)


@pytest.mark.parametrize("step", ["write incoming", "fsync file incoming"])
def test_our_own_disk_that_fails_is_told_as_that_and_not_as_damage_on_the_one_that_was_brought(
    tmp_path: Path, step: str
) -> None:
    fs = CrashFs(str(tmp_path / "graveyard"))
    stand = Stand(str(tmp_path), fs)
    disk = bring(stand, tmp_path / "disk")
    fs.errors[step] = OSError(errno.EIO, os.strerror(errno.EIO))
    found = adopt(stand, disk)
    assert (found.objects, found.damaged, found.missing) == (0, 0, 0)
    assert "does not work as it should" in found.refused
    os.rename(os.path.join(stand.house.data, ".replicator-store"), tmp_path / "away")
    assert "not mounted" in adopt(stand, disk).refused
    os.rename(tmp_path / "away", os.path.join(stand.house.data, ".replicator-store"))
    fs.errors.clear()
    assert (adopt(stand, disk).objects, set(NAMES) <= stored(stand)) == (4, True)
    stand.provider.close()
    fs.close()


def _signed_by_nobody(stand: Stand, disk: Path) -> None:
    bring(stand, disk, by=SigningKey(SeededRng("thief").bytes(32)))


def _signed_by_another_tenant(stand: Stand, disk: Path) -> None:
    from tests.provider.tenant import settle

    other = Tenant("other")
    settle(stand.provider, stand.service, other)
    bring(stand, disk, by=other.node)


def _for_another_provider(stand: Stand, disk: Path) -> None:
    bring(stand, disk, provider=bytes(32))


def _of_another_tenant(stand: Stand, disk: Path) -> None:
    bring(stand, disk, tenant=bytes(16))


def _no_statement(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    shutil.rmtree(disk / stand.tenant.id.hex() / "carried")


def _statement_is_noise(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    (disk / stand.tenant.id.hex() / "carried" / "first").write_bytes(SeededRng("noise").bytes(100_000))


def _statement_is_giant(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    os.truncate(disk / stand.tenant.id.hex() / "carried" / "first", 1 << 40)


def _statement_is_a_pipe(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    os.unlink(disk / stand.tenant.id.hex() / "carried" / "first")
    os.mkfifo(disk / stand.tenant.id.hex() / "carried" / "first")


def _folder_is_a_link(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    os.rename(folder(stand, disk), disk / "elsewhere")
    folder(stand, disk).symlink_to(disk / "elsewhere")


def _tenant_is_a_link(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    os.rename(disk / stand.tenant.id.hex(), disk / "elsewhere")
    (disk / stand.tenant.id.hex()).symlink_to(disk / "elsewhere")


def _objects_are_links(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    for name in NAMES:
        os.rename(folder(stand, disk) / name.hex(), disk / name.hex())
        (folder(stand, disk) / name.hex()).symlink_to(disk / name.hex())


def _objects_are_giants(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    for name in NAMES:
        os.truncate(folder(stand, disk) / name.hex(), 1 << 40)


def _objects_are_pipes(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    for name in NAMES:
        os.unlink(folder(stand, disk) / name.hex())
        os.mkfifo(folder(stand, disk) / name.hex())


def _objects_are_others(stand: Stand, disk: Path) -> None:
    bring(stand, disk)
    for name in NAMES:
        (folder(stand, disk) / name.hex()).write_bytes(data_object(99))


@pytest.mark.parametrize(
    "hostile",
    [
        _signed_by_nobody,
        _signed_by_another_tenant,
        _for_another_provider,
        _of_another_tenant,
        _no_statement,
        _statement_is_noise,
        _statement_is_giant,
        _statement_is_a_pipe,
        _folder_is_a_link,
        _tenant_is_a_link,
        _objects_are_links,
        _objects_are_giants,
        _objects_are_pipes,
        _objects_are_others,
    ],
)
def test_a_disk_that_is_not_what_it_should_be_adds_nothing_and_is_named(
    stand: Stand, tmp_path: Path, hostile: Callable[[Stand, Path], None]
) -> None:
    hostile(stand, tmp_path / "disk")
    before, used = stored(stand), stand.node.info().used
    found = adopt(stand, tmp_path / "disk")
    assert found.objects == 0
    assert found.refused or found.missing == 4 or found.damaged == 4
    assert (stored(stand), stand.node.info().used) == (before, used)
    assert receipts(stand) == []
    assert os.listdir(stand.house.objects(stand.tenant, "incoming")) == []


def test_what_the_statement_does_not_name_and_who_is_no_tenant_here_are_passed_over(
    stand: Stand, tmp_path: Path
) -> None:
    disk = bring(stand, tmp_path / "disk", OBJECTS[:1])
    (folder(stand, disk) / name_of(OBJECTS[1]).hex()).write_bytes(OBJECTS[1])
    (folder(stand, disk) / "../../holiday.jpg").write_bytes(b"")
    (disk / ("ab" * 16) / "objects").mkdir(parents=True)
    ours, other = sorted(
        stand.service.adopt(CarriedDisk(str(disk)), lambda _size: None), key=lambda one: bool(one.refused)
    )
    assert (ours.objects, other.refused) == (1, "no tenant here")
    with pytest.raises(HomeError, match="no such folder"):
        CarriedDisk(str(tmp_path / "nowhere"))


def test_who_lost_the_right_to_write_has_nothing_taken_in_and_no_lock_renewed(stand: Stand, tmp_path: Path) -> None:
    disk = bring(stand, tmp_path / "disk")
    put(stand.node, OBJECTS[0])
    locks = "SELECT name, lock_until_ns FROM objects ORDER BY name"
    before = stand.provider._database.rows(locks)
    keybag = data_object(7)
    rights = [right(stand.tenant.keeper, "keeper"), right(stand.tenant.node, "node", revoked=True)]
    publish_charter(stand.keeper, stand.tenant.charter(rights, keybag=name_of(keybag)))
    stand.clock.advance(86400)
    found = adopt(stand, disk)
    assert (found.objects, found.here, "revoked" in found.refused) == (0, 0, True)
    after = dict(stand.provider._database.rows(locks))
    assert [after[name] for name, _ in before] == [lock for _, lock in before]


def test_a_store_that_was_put_back_knows_no_receipts_that_wait(stand: Stand, tmp_path: Path) -> None:
    adopt(stand, bring(stand, tmp_path / "disk"))
    generation = Path(stand.house.data, ".generation")
    stand.service.stop()
    stand.provider.close()
    generation.write_bytes(b"1\n")
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    assert receipts(stand) == []


def _life(path: str, disk: str, fs: Fs, clock: FakeClock) -> None:
    provider = House(path, fs=fs, clock=clock).open()
    try:
        service = provider.start()
        list(service.adopt(CarriedDisk(disk), lambda _size: None))
        service.stop()
    finally:
        provider.close()


@pytest.mark.parametrize("power", [False, True])
def test_stopped_at_any_step_what_has_a_receipt_is_there_and_the_same_command_goes_on(
    tmp_path: Path, power: bool
) -> None:
    settled = tmp_path / "settled"
    stand = Stand(str(settled))
    disk = bring(stand, tmp_path / "disk", OBJECTS[:2])
    stand.service.stop()
    stand.provider.close()
    steps, at, stride = 0, -1, 2 if power else 5
    while at <= steps:
        path = tmp_path / f"life {at}"
        shutil.copytree(settled, path)
        home = path / "home" / "provider" / "home.json"
        home.write_text(home.read_text().replace(str(settled), str(path)))
        fs = CrashFs(str(path / "graveyard"))
        fs.stop_at(None if at < 0 else at)
        with suppress(Crash):
            _life(str(path), str(disk), fs, stand.clock)
        steps = max(steps, len(fs.steps))
        if power:
            fs.power_loss(keep=lambda _path: False, torn=True)
        fs.close()
        _life(str(path), str(disk), PosixFs(), stand.clock)
        life = House(str(path), clock=stand.clock)
        provider = life.open()
        session = provider.start().session(stand.tenant.node.public)
        for data in OBJECTS[:2]:
            assert session.get(ObjectName(name_of(data))) == data
        answer = session.receipts(ReceiptsRequest(got=b""))
        assert len(answer.receipts) == 2
        provider.close()
        shutil.rmtree(path)
        at = 0 if at < 0 else at + stride
