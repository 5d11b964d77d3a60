"""The cache of fetched packs: what it keeps, what it gives, what goes first, and that nobody's work ends in it."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.engine.packcache import PackCache
from replicator.format.merkle import name_of
from replicator.fs import PosixFs, ReadHandle, WriteHandle
from replicator.ids import ObjectName

SIZE = 1000


def pack(letter: str) -> tuple[ObjectName, bytes]:
    data = letter.encode() * SIZE
    return name_of(data), data


def cache(path: Path, limit: int = 3 * SIZE) -> PackCache:
    return PackCache(str(path / "cache" / "trees"), PosixFs(), limit)


def held(path: Path) -> str:
    """Return the letters of the packs on disk."""
    return "".join(letter for letter in "abcdefgh" if (path / "cache" / "trees" / pack(letter)[0].hex()).exists())


def test_what_is_put_in_comes_out_in_this_process_and_the_next(tmp_path: Path) -> None:
    first = cache(tmp_path)
    name, data = pack("a")
    assert first.get(name) is None
    first.put(name, data)
    assert first.get(name) == data
    assert cache(tmp_path).get(name) == data
    assert cache(tmp_path).get(pack("b")[0]) is None


@pytest.mark.parametrize("damaged", [b"a" * (SIZE - 1) + b"b", b"a" * (SIZE - 1), b""])
def test_other_bytes_than_the_names_are_not_given_and_removed(tmp_path: Path, damaged: bytes) -> None:
    name, data = pack("a")
    cache(tmp_path).put(name, data)
    path = tmp_path / "cache" / "trees" / name.hex()
    path.write_bytes(damaged)
    again = cache(tmp_path)
    assert again.get(name) is None
    assert not path.exists()
    again.put(name, data)
    assert again.get(name) == data


@pytest.mark.parametrize("damaged", [b"a" * (SIZE - 1) + b"b", b"a" * (SIZE - 1), b""])
def test_what_is_opened_is_read_from_the_disk_and_is_what_its_name_says(tmp_path: Path, damaged: bytes) -> None:
    name, data = pack("a")
    one = cache(tmp_path)
    assert one.open(name) is None
    one.put(name, data)
    opened = one.open(name)
    assert opened is not None
    assert (len(opened), opened[:10], opened[SIZE - 5 :], opened[SIZE - 5 : SIZE + 5], opened[SIZE:]) == (
        *(SIZE, data[:10], data[-5:], data[-5:]),
        b"",
    )
    path = tmp_path / "cache" / "trees" / name.hex()
    path.write_bytes(damaged)
    assert cache(tmp_path).open(name) is None
    assert not path.exists()


def test_a_large_pack_is_compared_with_its_name_piece_by_piece_and_nothing_of_it_stays_open(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_000)
    one = cache(tmp_path, len(data))
    one.put(name_of(data), data)
    before = len(os.listdir("/proc/self/fd"))
    opened = one.open(name_of(data))
    assert opened is not None
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert (opened[:], opened[200_000:100_000], opened[2_999_999:]) == (data, b"", data[-1:])
    del opened
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_opened_pack_stays_whole_when_it_is_dropped_or_makes_room(tmp_path: Path) -> None:
    one = cache(tmp_path)
    for letter in "ab":
        one.put(*pack(letter))
    first, second = (one.open(pack(letter)[0]) for letter in "ab")
    assert first is not None
    assert second is not None
    one.drop(pack("a")[0])
    assert held(tmp_path) == "b"
    assert one.get(pack("a")[0]) is None
    for letter in "cde":
        one.put(*pack(letter))
    assert held(tmp_path) == "cde"
    assert (first[:], second[:]) == (pack("a")[1], pack("b")[1])


@pytest.mark.parametrize("use", [PackCache.get, PackCache.open])
def test_what_was_used_longest_ago_goes_first(tmp_path: Path, use: Callable[[PackCache, ObjectName], object]) -> None:
    one = cache(tmp_path)
    for letter in "abc":
        one.put(*pack(letter))
    use(one, pack("a")[0])
    one.put(*pack("d"))
    assert held(tmp_path) == "acd"
    one.put(*pack("c"))
    one.put(*pack("e"))
    assert held(tmp_path) == "cde"


def test_the_next_process_knows_what_was_used_if_it_was_settled(tmp_path: Path) -> None:
    one = cache(tmp_path)
    for letter in "abc":
        one.put(*pack(letter))
    one.settle()
    two = cache(tmp_path)
    two.get(pack("a")[0])
    two.settle()
    three = cache(tmp_path)
    three.put(*pack("d"))
    three.put(*pack("e"))
    assert held(tmp_path) == "ade"


def test_what_no_order_names_goes_before_all_others(tmp_path: Path) -> None:
    one = cache(tmp_path)
    one.put(*pack("a"))
    one.settle()
    cache(tmp_path).put(*pack("b"))
    two = cache(tmp_path)
    two.put(*pack("c"))
    two.put(*pack("d"))
    assert held(tmp_path) == "acd"


def test_the_limit_holds_for_what_is_there_already_and_for_large_packs(tmp_path: Path) -> None:
    one = cache(tmp_path, 8 * SIZE)
    for letter in "abcdefgh":
        one.put(*pack(letter))
    one.settle()
    cache(tmp_path).put(*pack("h"))
    assert held(tmp_path) == "fgh"
    large = b"x" * (3 * SIZE + 1)
    cache(tmp_path).put(name_of(large), large)
    assert not (tmp_path / "cache" / "trees" / name_of(large).hex()).exists()


def test_what_a_crash_left_is_removed_and_a_damaged_order_is_no_harm(tmp_path: Path) -> None:
    one = cache(tmp_path)
    one.put(*pack("a"))
    one.settle()
    folder = tmp_path / "cache" / "trees"
    (folder / f"{pack('b')[0].hex()}.new").write_bytes(b"half")
    (folder / "order").write_bytes(b"\0" * 45)
    assert cache(tmp_path).get(pack("a")[0]) == pack("a")[1]
    assert sorted(os.listdir(folder)) == sorted([pack("a")[0].hex(), "order"])


class FullFs(PosixFs):
    """A disk that takes nothing and gives nothing."""

    def create(self, path: str) -> WriteHandle:
        raise OSError(28, "No space left on device")

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        raise OSError(5, "Input/output error")

    def open(self, path: str) -> ReadHandle:
        raise OSError(5, "Input/output error")


def test_a_disk_that_fails_costs_the_cache_and_nothing_else(tmp_path: Path) -> None:
    name, data = pack("a")
    cache(tmp_path).put(name, data)
    broken = PackCache(str(tmp_path / "cache" / "trees"), FullFs())
    assert broken.get(name) is None
    assert broken.open(name) is None
    broken.put(*pack("b"))
    broken.settle()
    assert held(tmp_path) == "a"


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    one = cache(tmp_path)
    one.put(*pack("a"))
    one.settle()
    folder = tmp_path / "cache" / "trees"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
