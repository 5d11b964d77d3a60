"""Objects are read again without anybody asking, and what is damaged is set aside and shown."""

import os

import pytest

from replicator.clock import NS
from replicator.format.merkle import name_of
from replicator.ids import ObjectName
from replicator.provider.scrub import PART_S, PARTS, ROUND_S, due, part_at, scrub
from replicator.store.base import State
from replicator.wire.messages import InventoryRequest
from tests.fakes import SeededRng
from tests.provider.stand import Stand
from tests.provider.tenant import data_object, put

A, B = data_object(1), data_object(2)
NAMES = [ObjectName(SeededRng(f"name {number}").bytes(32)) for number in range(300)]


def damage(stand: Stand, name: ObjectName) -> None:
    path = stand.house.file(stand.tenant, name)
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00\xff")


def test_every_object_is_due_once_in_a_round() -> None:
    seen = [name for part in range(PARTS) for name in due(NAMES, part)]
    assert sorted(seen) == sorted(NAMES)
    start = 1_800_000_000 * NS
    assert {part_at(start + number * PART_S * NS) for number in range(PARTS)} == set(range(PARTS))
    assert part_at(start) == part_at(start + ROUND_S * NS)


def test_what_is_damaged_is_set_aside_when_its_part_is_due(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    put(stand.node, A)
    put(stand.node, B)
    damage(stand, name_of(A))
    found = []
    for _ in range(PARTS):
        found.append(stand.service.scrub(lambda: False))
        stand.clock.advance(PART_S)
    assert sorted(found)[-2:] == [0, 1], "once in a round, and what is good is left alone"
    assert "1 objects are damaged and in quarantine" in caplog.text
    assert name_of(A).hex() not in caplog.text, "logs hold no names"
    assert os.listdir(stand.house.objects(stand.tenant, "quarantine")) == [name_of(A).hex()]
    assert stand.node.get(name_of(B)) == B
    inventory = stand.node.inventory(InventoryRequest(after=b"", limit=1000))
    assert inventory.damaged == name_of(A)


def test_a_daemon_that_is_told_to_stop_reads_no_further() -> None:
    read: list[ObjectName] = []

    def check(name: ObjectName) -> State:
        read.append(name)
        return "good"

    scrub(NAMES, check, lambda: len(read) >= 3)
    assert read == NAMES[:3]
