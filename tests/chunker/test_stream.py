import io
import pathlib
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunker import Chunker, ParameterError, chunks
from chunker.stream import DEFAULT_BUFFER
from tests.chunker.data import GENERATORS, KEY, noise

CHUNKER = Chunker(KEY, 1024, 16384, 65536)
ROOM = 65536 + (1 << 20)


class Dribble:
    """A source that gives its bytes in pieces of any size."""

    def __init__(self, data: bytes, rng: random.Random, most: int) -> None:
        self.rest = memoryview(data)
        self.rng = rng
        self.most = most

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self.rest), self.rng.randint(1, self.most))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def whole(data: bytes) -> list[bytes]:
    ends = list(CHUNKER.cuts(data)[0])
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def test_an_empty_source_has_no_chunks() -> None:
    assert list(chunks(io.BytesIO(), CHUNKER)) == []


@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(sorted(GENERATORS)),
    length=st.integers(4, 3 << 20),
    most=st.sampled_from([5000, 70000, 1 << 20, 1 << 24]),
    slack=st.integers(0, 5000),
)
@settings(max_examples=40, deadline=None)
def test_reads_of_any_length_give_the_chunks_of_the_whole(
    seed: int, kind: str, length: int, most: int, slack: int
) -> None:
    data = GENERATORS[kind](length)
    source = Dribble(data, random.Random(seed), most)
    assert [bytes(chunk) for chunk in chunks(source, CHUNKER, bytearray(ROOM + slack))] == whole(data)


@pytest.mark.parametrize("length", [ROOM - 1, ROOM, ROOM + 1, 2 * ROOM])
def test_lengths_around_the_buffer_are_no_exception(length: int) -> None:
    data = noise(length)
    assert [bytes(chunk) for chunk in chunks(io.BytesIO(data), CHUNKER, bytearray(ROOM))] == whole(data)


def test_a_chunk_that_ends_with_the_buffer_leaves_no_tail() -> None:
    data = bytes(17 * 65536 + 10)
    found = [len(chunk) for chunk in chunks(io.BytesIO(data), CHUNKER, bytearray(17 * 65536))]
    assert found == [65536] * 17 + [10]


def test_a_function_is_a_source_too() -> None:
    data = noise(100000)
    assert [bytes(chunk) for chunk in chunks(io.BytesIO(data).readinto, CHUNKER)] == whole(data)


def test_an_unbuffered_file_is_a_source(tmp_path: pathlib.Path) -> None:
    data = noise(DEFAULT_BUFFER + 12345)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb", buffering=0) as source:
        assert [bytes(chunk) for chunk in chunks(source, CHUNKER)] == whole(data)


def test_a_chunk_is_read_only_and_lies_in_the_callers_buffer() -> None:
    buffer = bytearray(ROOM)
    for chunk in chunks(io.BytesIO(noise(50000)), CHUNKER, buffer):
        assert chunk.readonly
        assert chunk.obj is buffer


def test_a_chunk_kept_too_long_is_released_and_not_other_bytes() -> None:
    steps = chunks(io.BytesIO(noise(200000)), CHUNKER)
    kept = next(steps)
    next(steps)
    with pytest.raises(ValueError, match="released"):
        bytes(kept)


def test_an_export_held_over_a_step_is_an_error() -> None:
    steps = chunks(io.BytesIO(noise(200000)), CHUNKER)
    held = pickle.PickleBuffer(next(steps))
    with pytest.raises(BufferError):
        next(steps)
    held.release()


def test_the_buffer_is_free_when_the_iterator_ends_or_is_closed() -> None:
    buffer = bytearray(ROOM)
    for _ in chunks(io.BytesIO(noise(100000)), CHUNKER, buffer):
        pass
    buffer.append(0)
    steps = chunks(io.BytesIO(noise(100000)), CHUNKER, buffer)
    next(steps)
    with pytest.raises(BufferError):
        buffer.append(0)
    steps.close()
    buffer.append(0)


def test_an_error_of_the_source_is_passed_on_and_frees_the_buffer() -> None:
    def broken(room: memoryview) -> int:
        raise OSError(5, "Input/output error")

    buffer = bytearray(ROOM)
    with pytest.raises(OSError, match="Input/output error"):
        list(chunks(broken, CHUNKER, buffer))
    buffer.append(0)


def test_a_buffer_that_is_too_short_is_refused_at_the_call() -> None:
    with pytest.raises(ParameterError, match="buffer is"):
        chunks(io.BytesIO(), CHUNKER, bytearray(ROOM - 1))


@pytest.mark.parametrize("count", [None, -1, ROOM + 1])
def test_a_source_that_breaks_its_contract_is_refused(count: int | None) -> None:
    with pytest.raises(ParameterError, match="what the source returned"):
        list(chunks(lambda _room: count, CHUNKER, bytearray(ROOM)))
