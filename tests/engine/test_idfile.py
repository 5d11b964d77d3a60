"""Sets of ids that do not fit memory."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.engine import idfile
from replicator.engine.idfile import ID_SIZE, IdCollector, IdFile, changes, remembered
from replicator.fs import PosixFs
from tests.fakes import SeededRng

FS = PosixFs()


def name(number: int) -> bytes:
    """Return an id; some end in zero bytes, which numpy's strings are careless about."""
    if number % 5 == 0:
        return number.to_bytes(4, "big") + bytes(28)
    return blake3(number.to_bytes(4, "big")).digest()


@pytest.fixture
def collect(tmp_path: Path) -> Callable[..., IdFile]:
    """Write a set to a file."""

    def make(numbers: list[int] | set[int], called: str = "set", held: int = 1 << 20, each: int = 1) -> IdFile:
        collector = IdCollector(FS, str(tmp_path / called), held)
        ordered = list(numbers)
        for at in range(0, len(ordered), each):
            collector.add(b"".join(map(name, ordered[at : at + each])))
        return collector.finish()

    return make


def ids_of(found: IdFile) -> list[bytes]:
    joined = b"".join(found.blocks())
    return [joined[at : at + ID_SIZE] for at in range(0, len(joined), ID_SIZE)]


@pytest.mark.parametrize("held", [ID_SIZE, 7 * ID_SIZE, 1000 * ID_SIZE, 1 << 20])
@pytest.mark.parametrize("each", [1, 13])
def test_ids_come_back_in_order_and_once_however_little_is_held(
    collect: Callable[..., IdFile], tmp_path: Path, held: int, each: int
) -> None:
    rng = SeededRng("ids")
    numbers = [rng.below(300) for _ in range(1000)]
    found = collect(numbers, held=held, each=each)
    assert ids_of(found) == sorted({name(number) for number in numbers})
    assert found.count == len(set(numbers))
    assert found.digest == blake3(b"".join(ids_of(found))).digest()
    assert os.listdir(tmp_path) == ["set.ids"], "the parts are gone"


@settings(deadline=None, max_examples=60)
@given(old=st.sets(st.integers(0, 400)), new=st.sets(st.integers(0, 400)), block=st.sampled_from([1, 3, 64]))
def test_changes_are_those_of_sets(
    old: set[int], new: set[int], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sets")
    before, after = IdCollector(FS, str(folder / "a")), IdCollector(FS, str(folder / "b"))
    before.add(b"".join(map(name, old)))
    after.add(b"".join(map(name, new)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idfile, "BLOCK", block * ID_SIZE)
        found = list(changes(before.finish(), after.finish()))
    added = b"".join(more for more, _ in found)
    dropped = b"".join(less for _, less in found)
    assert added == b"".join(sorted(map(name, new - old)))
    assert dropped == b"".join(sorted(map(name, old - new)))


def test_without_an_older_set_everything_is_added(collect: Callable[..., IdFile]) -> None:
    numbers = set(range(50))
    assert list(changes(None, collect(numbers))) == [(b"".join(sorted(map(name, numbers))), b"")]
    assert list(changes(None, collect(set(), "none"))) == []


def test_a_file_is_remembered_only_as_what_it_was(collect: Callable[..., IdFile]) -> None:
    found = collect(set(range(50)))
    assert remembered(FS, found.path, found.digest) == found
    assert remembered(FS, found.path + "x", found.digest) is None
    data = bytearray(Path(found.path).read_bytes())
    for damaged in (data[:-1], data[:-ID_SIZE], data + bytes(ID_SIZE), data[:70] + bytes([data[70] ^ 1]) + data[71:]):
        Path(found.path).write_bytes(damaged)
        assert remembered(FS, found.path, found.digest) is None


def test_a_file_that_is_cut_short_is_an_error_and_not_a_smaller_set(collect: Callable[..., IdFile]) -> None:
    found = collect(set(range(50)))
    os.truncate(found.path, 40 * ID_SIZE)
    with pytest.raises(OSError, match="cut short"):
        ids_of(found)
