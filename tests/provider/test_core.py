"""Starting, stopping, a disk that goes away, copies that were put back: what the rest relies on."""

import os
import shutil

import pytest

from replicator.clock import NS
from replicator.crypto.sign import body_of
from replicator.format.claim import Receipt
from replicator.format.codec import decode
from replicator.format.merkle import name_of
from replicator.provider.datadir import Presence
from replicator.wire.messages import CheckRequest, Inventory, InventoryRequest, ProveRequest, Signed
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import SMALL, House, data_object, put

A, B = data_object(1), data_object(2)
NA, NB = name_of(A), name_of(B)


def _inventory(stand: Stand) -> Inventory:
    return stand.node.inventory(InventoryRequest(after=b"", limit=1000))


def test_a_restart_keeps_everything_and_the_incarnation(stand: Stand) -> None:
    put(stand.node, A)
    incarnation, used = stand.service.incarnation, stand.node.info().used
    for orderly in (True, False, True):
        stand.restart(orderly=orderly)
        assert stand.service.incarnation == incarnation
        assert stand.node.info().used == used
        assert stand.node.get(NA) == A


def test_a_disk_that_is_not_mounted_is_unavailable_and_nothing_is_called_missing(stand: Stand) -> None:
    put(stand.node, A)
    away = stand.house.data + ".away"
    os.rename(stand.house.data, away)
    os.mkdir(stand.house.data)
    claim = Signed(statement=stand.tenant.claim(stand.service.identity, 1, [NA]))
    for ask in (
        lambda: stand.node.get(NA),
        lambda: put(stand.node, B),
        lambda: _inventory(stand),
        lambda: stand.node.check(CheckRequest(names=NA)),
        lambda: stand.node.prove(ProveRequest(names=NA, leaves=[0])),
        lambda: stand.node.claim(claim),
    ):
        assert refusal(ask) == "unavailable"
    assert os.listdir(stand.house.data) == [], "something was written below the mount point"
    info = stand.node.info()
    assert (info.free, info.used) == (0, 3 * SMALL)
    stand.node.head(Signed(statement=stand.tenant.head(1)))
    os.rmdir(stand.house.data)
    os.rename(away, stand.house.data)
    assert stand.node.get(NA) == A
    assert _inventory(stand).missing == b""


def test_a_disk_that_goes_before_it_is_taken_up_again_is_not(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    put(stand.node, A)
    away, incarnation = stand.house.data + ".away", stand.service.incarnation
    disk = stand.service._core._data
    real = disk.presence

    def goes() -> Presence:
        found = real()
        monkeypatch.setattr(disk, "presence", real)
        os.rename(stand.house.data, away)
        os.mkdir(stand.house.data)
        return found

    os.rename(stand.house.data, away)
    assert refusal(lambda: stand.node.get(NA)) == "unavailable"
    os.rename(away, stand.house.data)
    monkeypatch.setattr(disk, "presence", goes)
    assert refusal(lambda: stand.node.get(NA)) == "unavailable"
    assert os.listdir(stand.house.data) == [], "something was written below the mount point"
    os.rmdir(stand.house.data)
    os.rename(away, stand.house.data)
    assert stand.node.get(NA) == A
    assert stand.service.incarnation == incarnation


def test_a_start_without_its_disk_waits_for_it(stand: Stand) -> None:
    put(stand.node, A)
    incarnation = stand.service.incarnation
    stand.service.stop()
    stand.provider.close()
    away = stand.house.data + ".away"
    os.rename(stand.house.data, away)
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    assert refusal(lambda: stand.node.get(NA)) == "unavailable"
    assert stand.provider.status()["mounted"] is False
    stand.service.stop()
    os.rename(away, stand.house.data)
    assert stand.node.get(NA) == A
    assert stand.service.incarnation == incarnation


def test_another_providers_disk_is_not_ours(stand: Stand, tmp_path: str) -> None:
    other = House(os.path.join(tmp_path, "other"), rng=type(stand.house.rng)("other"))
    other.init().close()
    shutil.rmtree(stand.house.data)
    shutil.copytree(other.data, stand.house.data)
    assert refusal(lambda: _inventory(stand)) == "unavailable"


def test_a_disk_put_back_from_an_older_copy_gets_a_new_incarnation_and_shows_what_it_lacks(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    copy = stand.house.data + ".copy"
    put(stand.node, A)
    stand.service.stop()
    shutil.copytree(stand.house.data, copy)
    stand.restart()
    put(stand.node, B)
    incarnation = stand.service.incarnation
    stand.service.stop()
    shutil.rmtree(stand.house.data)
    os.rename(copy, stand.house.data)
    stand.restart(orderly=False)
    assert stand.service.incarnation != incarnation
    assert _inventory(stand).missing == NB
    assert _inventory(stand).incarnation == stand.node.info().incarnation == stand.service.incarnation
    assert "new incarnation" in caplog.text
    put(stand.node, B)
    assert _inventory(stand).missing == b""


def test_a_disk_rolled_back_under_a_running_provider_shows_what_it_lacks(stand: Stand) -> None:
    copy = stand.house.data + ".copy"
    put(stand.node, A)
    shutil.copytree(stand.house.data, copy)
    put(stand.node, B)
    shutil.rmtree(stand.house.data)
    os.rename(copy, stand.house.data)
    assert _inventory(stand).missing == NB
    assert stand.node.check(CheckRequest(names=NA + NB)).states == ["good", "missing"]
    assert refusal(lambda: stand.node.get(NB)) == "not-found"
    incarnation = stand.service.incarnation
    stand.service.stop()
    stand.restart(orderly=False)
    assert stand.service.incarnation == incarnation, "the running provider had already counted this disk in"


def test_a_disk_swapped_while_it_was_away_is_looked_at_anew(stand: Stand) -> None:
    copy = stand.house.data + ".copy"
    shutil.copytree(stand.house.data, copy)
    stand.restart()
    incarnation = stand.service.incarnation
    shutil.rmtree(stand.house.data)
    assert refusal(lambda: _inventory(stand)) == "unavailable"
    os.rename(copy, stand.house.data)
    _inventory(stand)
    assert stand.service.incarnation != incarnation


def test_a_database_put_back_from_an_older_copy_gets_a_new_incarnation_and_keeps_the_objects(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    folder = stand.provider.folder
    stand.service.stop()
    stand.provider.close()
    shutil.copy(os.path.join(folder, "provider.db"), os.path.join(folder, "copy"))
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    incarnation = stand.service.incarnation
    put(stand.node, A)
    put(stand.node, B)
    stand.service.stop()
    stand.provider.close()
    os.rename(os.path.join(folder, "copy"), os.path.join(folder, "provider.db"))
    with open(stand.house.file(stand.tenant, NB), "r+b") as file:
        file.write(b"rot")
    stand.provider = stand.house.open()
    stand.service = stand.provider.start()
    assert stand.service.incarnation != incarnation
    assert stand.node.get(NA) == A
    assert stand.node.info().used == 3 * SMALL, "the intact object counts again, the rotten one does not"
    assert _inventory(stand).names.find(NB) < 0
    assert _inventory(stand).names.find(NA) >= 0
    assert "found 2 objects without a row: 1 were intact" in caplog.text
    os.unlink(stand.house.file(stand.tenant, NA))
    assert _inventory(stand).missing == NA, "an adopted object is owed like any other"


def test_leftovers_of_an_interrupted_upload_are_removed_at_the_start(stand: Stand) -> None:
    upload = stand.node.begin_put(NA, SMALL)
    upload.hash(A[:1000])
    upload.write(A[:1000])
    incoming = stand.house.objects(stand.tenant, "incoming")
    assert len(os.listdir(incoming)) == 1
    stand.restart(orderly=False)
    assert os.listdir(incoming) == []


def test_a_changed_offer_takes_effect_without_a_restart(stand: Stand) -> None:
    other = stand.house.open()
    other.change_offer(lock_s=60)
    other.close()
    receipt = decode(Receipt, body_of(put(stand.node, A)))
    assert receipt.lock_until_ns - receipt.received_ns == 60 * NS
