"""Scrubbing: all is read within a round, what is bad is set aside, remembered and told."""

import os

from replicator.format.merkle import name_of
from replicator.provider.scrub import ROUND_S, read_log, share
from replicator.wire.messages import Inventory, InventoryRequest
from tests.provider.stand import Stand
from tests.provider.tenant import data_object, put
from tests.provider.test_session import break_file

OBJECTS = [data_object(seed) for seed in range(1, 7)]
NAMES = sorted(name_of(data) for data in OBJECTS)


def store_all(stand: Stand) -> None:
    for data in OBJECTS:
        put(stand.node, data)


def test_a_round_reads_everything_once_and_goes_on_where_it_stopped(stand: Stand) -> None:
    store_all(stand)
    total = stand.provider.status()["used"]
    objects = stand.provider.status()["tenants"][0]["objects"]
    looked = rounds = 0
    while True:
        done = stand.service.scrub(stand.provider.folder, stand.house.fs, most=1)
        looked += done.objects
        rounds += 1
        if done.whole:
            break
        stand.restart()
    assert (looked, rounds) == (objects, objects)
    log = read_log(stand.provider.folder, stand.house.fs)
    assert (log.objects, log.bytes, log.began_ns, log.tenant) == (objects, total, 0, "")
    assert log.ended_ns == stand.clock.now_ns()
    assert stand.provider.scrub(stand.service, seconds=None).objects == objects


def test_what_is_damaged_is_set_aside_remembered_and_told_to_its_tenant(stand: Stand) -> None:
    store_all(stand)
    break_file(stand.house.file(stand.tenant, NAMES[2]), "rotten")
    os.unlink(stand.house.file(stand.tenant, NAMES[4]))
    done = stand.provider.scrub(stand.service, seconds=None)
    assert {(one.name, one.state) for one in done.found} == {
        (NAMES[2].hex(), "damaged"),
        (NAMES[4].hex(), "missing"),
    }
    page = stand.call("inventory", InventoryRequest(after=b"", limit=1000))
    assert isinstance(page, Inventory)
    assert (page.damaged, page.missing) == (NAMES[2], NAMES[4])
    stand.clock.advance(60)
    stand.provider.scrub(stand.service, seconds=None)
    status = stand.provider.status()["scrub"]
    assert [one["id"] for one in status["found"]] == [one.name for one in done.found]
    for data in OBJECTS:
        put(stand.node, data)
    assert stand.provider.scrub(stand.service, seconds=None).found == ()
    assert stand.provider.status()["scrub"]["found"] == []


def test_a_lost_log_begins_the_round_anew(stand: Stand) -> None:
    store_all(stand)
    stand.service.scrub(stand.provider.folder, stand.house.fs, most=1)
    with open(os.path.join(stand.provider.folder, "scrub.json"), "w", encoding="utf-8") as file:
        file.write("{")
    assert stand.provider.scrub(stand.service, seconds=None).objects >= len(OBJECTS)


def test_shares_of_a_round_come_to_all_there_is() -> None:
    assert share(10**12, 1800) * (ROUND_S // 1800) >= 10**12
    assert share(10**12, 1800) < 10**12 / 1400
    assert share(1, 1800) == 1
    assert share(0, 1800) == 0


def test_of_what_is_not_kept_any_more_no_damage_is_remembered(stand: Stand) -> None:
    store_all(stand)
    os.unlink(stand.house.file(stand.tenant, NAMES[2]))
    assert stand.provider.scrub(stand.service, seconds=None).found
    stand.service.erase(stand.tenant.erase_order())
    stand.provider.scrub(stand.service, seconds=None)
    assert read_log(stand.provider.folder, stand.house.fs).found == []
