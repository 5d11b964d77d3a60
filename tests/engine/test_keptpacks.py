"""Packs kept beside a restore: what was put in comes out, the oldest goes, and nobody's work ends in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.engine import keptpacks as module
from replicator.engine.keptpacks import KeptPacks
from replicator.engine.slots import SIZE, Slots
from tests.snapshot.support import open_fds


@pytest.fixture
def slots() -> Iterator[Slots]:
    """Two slots."""
    made = Slots(2)
    yield made
    made.close()


def content(slots: Slots, number: int, size: int) -> bytes:
    return os.pread(slots[number].fd, size, 0)


def test_a_pack_comes_back_as_it_was_and_the_longest_unused_makes_room(
    tmp_path: Path, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 2 * SIZE)
    before = open_fds()
    kept = KeptPacks(str(tmp_path), needed=0)
    for pack in (1, 2):
        kept.put(pack, slots[0].fd, slots.put(0, b"%d" % pack * 5000))
    assert kept.get(1, slots[1].fd) == 5000
    assert content(slots, 1, 5000) == b"1" * 5000
    kept.put(3, slots[0].fd, slots.put(0, b"three"))
    assert kept.get(2, slots[1].fd) is None, "it was used longest ago"
    assert kept.get(3, slots[1].fd) == 5
    assert content(slots, 1, 5) == b"three"
    assert kept.get(1, slots[1].fd) == 5000
    assert os.listdir(tmp_path) == [], "it has no name that a crash could leave"
    kept.close()
    kept.close()
    assert kept.get(1, slots[1].fd) is None
    assert open_fds() == before


def test_what_was_dropped_is_neither_given_nor_kept_again(tmp_path: Path, slots: Slots) -> None:
    kept = KeptPacks(str(tmp_path), needed=0)
    kept.put(1, slots[0].fd, slots.put(0, b"one"))
    kept.drop(1)
    assert kept.get(1, slots[1].fd) is None
    kept.put(1, slots[0].fd, 3)
    assert kept.get(1, slots[1].fd) is None
    kept.close()


@pytest.mark.parametrize("why", ["no folder", "no room"])
def test_where_nothing_can_be_kept_nothing_is(tmp_path: Path, slots: Slots, why: str) -> None:
    folder, needed = (str(tmp_path / "none"), 0) if why == "no folder" else (str(tmp_path), 1 << 62)
    kept = KeptPacks(folder, needed=needed)
    kept.put(1, slots[0].fd, slots.put(0, b"one"))
    assert kept.get(1, slots[1].fd) is None
    kept.close()


def test_a_disk_that_is_full_ends_the_keeping_and_nothing_else(
    tmp_path: Path, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptPacks(str(tmp_path), needed=0)
    kept.put(1, slots[0].fd, slots.put(0, b"one"))

    def full(*_: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sendfile", full)
    kept.put(2, slots[0].fd, 3)
    monkeypatch.undo()
    assert kept.get(1, slots[1].fd) is None
    kept.put(3, slots[0].fd, 3)
    assert kept.get(3, slots[1].fd) is None
    kept.close()
