import contextlib
import mmap
import random
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyzstd import ZstdCompressor, get_frame_info

from chunker import Compressor, CorruptChunkError, Encoding, ParameterError, decompress
from tests.chunker.data import log, noise

LIMIT = 4 << 20


def frame_of(data: bytes) -> bytes:
    compressor = ZstdCompressor(3)
    return compressor.compress(data, ZstdCompressor.FLUSH_FRAME)


def frame_without_size(data: bytes) -> bytes:
    compressor = ZstdCompressor(3)
    return compressor.compress(data) + compressor.flush()


def refusal(encoding: int, stored: bytes, raw_length: int) -> str:
    with pytest.raises(CorruptChunkError) as caught:
        decompress(encoding, stored, raw_length)
    return caught.value.reason


def unused(size: int) -> str:
    return f"zstd refuses it (compressed input contains {size} bytes of unused data, which is disallowed)"


def test_the_numbers_of_the_encodings_are_fixed() -> None:
    assert (Encoding.RAW, Encoding.ZSTD) == (0, 1)


@pytest.mark.parametrize("length", [200, 5000, 65535, 65536, 700000, LIMIT])
def test_text_is_compressed_into_a_frame_that_declares_its_size(length: int) -> None:
    data = (log(60000) * 80)[:length]
    encoding, stored = Compressor().compress(data)
    assert encoding is Encoding.ZSTD
    assert len(stored) <= length - length // 32
    assert get_frame_info(stored).decompressed_size == length
    assert decompress(encoding, stored, length) == data


@pytest.mark.parametrize("length", [0, 1, 40, 65535, 65536, 700000])
def test_what_does_not_shrink_is_returned_itself(length: int) -> None:
    data = noise(length)
    encoding, stored = Compressor().compress(data)
    assert encoding is Encoding.RAW
    assert stored is data
    assert decompress(encoding, stored, length) is data


@pytest.mark.parametrize(("zeros", "encoding"), [(300, Encoding.RAW), (600, Encoding.ZSTD)])
def test_a_saving_below_one_in_32_is_not_taken(zeros: int, encoding: Encoding) -> None:
    assert Compressor().compress(noise(16384 - zeros) + bytes(zeros))[0] is encoding


def test_a_long_chunk_whose_sample_does_not_shrink_is_not_compressed() -> None:
    piece = noise(128 << 10)
    repeated = piece * 2
    assert len(frame_of(repeated)) < len(repeated) * 0.6
    assert Compressor().compress(repeated) == (Encoding.RAW, repeated)


def test_a_sample_reaches_to_both_ends() -> None:
    for data in (bytes(5000) + noise(120000), noise(120000) + bytes(5000)):
        assert Compressor().compress(data)[0] is Encoding.ZSTD


def test_one_compressor_makes_independent_frames() -> None:
    compressor, data = Compressor(), log(100000)
    first, second = compressor.compress(data), compressor.compress(data)
    assert first == second
    compressor.compress(noise(100000))
    assert compressor.compress(data) == first


def test_every_kind_of_buffer_is_taken() -> None:
    data = log(80000)
    expected = Compressor().compress(data)
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        for buffer in (bytearray(data), memoryview(data), mapped, memoryview(data).cast("Q")):
            encoding, stored = Compressor().compress(buffer)
            assert (encoding, stored) == expected
            assert decompress(encoding, memoryview(stored), len(data)) == data


def test_no_export_of_the_buffer_is_kept() -> None:
    buffer = bytearray(log(80000))
    Compressor().compress(buffer)
    buffer.append(0)


def test_the_level_matters_and_is_checked() -> None:
    data = log(200000)
    assert len(Compressor(19).compress(data)[1]) < len(Compressor(1).compress(data)[1])
    for level in (23, -131073):
        with pytest.raises(ParameterError, match="level is"):
            Compressor(level)


def test_a_chunk_longer_than_the_format_allows_is_refused() -> None:
    with pytest.raises(ParameterError, match="data is 4194305 bytes"):
        Compressor().compress(bytes(LIMIT + 1))


@given(seed=st.integers(0, 2**32), length=st.integers(0, 200000), spread=st.integers(1, 256))
@settings(max_examples=40, deadline=None)
def test_what_was_compressed_comes_back(seed: int, length: int, spread: int) -> None:
    data = bytes(byte % spread for byte in random.Random(seed).randbytes(length))
    encoding, stored = Compressor().compress(data)
    assert decompress(encoding, stored, length) == data


class TestHostileBytes:
    def test_raw_bytes_of_another_length(self) -> None:
        assert refusal(0, b"four", 5) == "4 raw bytes are stored for a length of 5"

    @pytest.mark.parametrize("encoding", [-1, 2, 255])
    def test_an_unknown_encoding(self, encoding: int) -> None:
        assert refusal(encoding, b"four", 4) == f"encoding {encoding} is unknown"

    @pytest.mark.parametrize("encoding", [0, 1])
    @pytest.mark.parametrize("length", [-1, LIMIT + 1])
    def test_a_length_outside_the_format(self, encoding: int, length: int) -> None:
        assert "is not between 0 and 4194304" in refusal(encoding, frame_of(b"x"), length)

    def test_a_frame_for_an_empty_chunk(self) -> None:
        assert "stored raw" in refusal(1, frame_of(b""), 0)

    def test_a_bomb_is_refused_by_its_declared_size(self) -> None:
        bomb = frame_of(bytes(256 << 20))
        assert len(bomb) < 30000
        assert refusal(1, bomb, LIMIT) == f"the frame declares {256 << 20} bytes for a length of {LIMIT}"

    def test_a_bomb_that_declares_nothing(self) -> None:
        assert "the frame declares no size" in refusal(1, frame_without_size(bytes(64 << 20)), LIMIT)

    def test_a_bomb_that_lies_about_its_size(self) -> None:
        bomb = bytearray(frame_of(bytes(64 << 20)))
        assert struct.unpack_from("<I", bomb, 6) == (64 << 20,)
        struct.pack_into("<I", bomb, 6, 1 << 20)
        assert get_frame_info(bomb).decompressed_size == 1 << 20
        assert refusal(1, bytes(bomb), 1 << 20).startswith("zstd refuses it")

    def test_a_frame_that_holds_less_than_it_declares(self) -> None:
        frame = bytearray(frame_of(bytes(3 << 20)))
        struct.pack_into("<I", frame, 6, 4 << 20)
        assert get_frame_info(frame).decompressed_size == 4 << 20
        assert refusal(1, bytes(frame), 4 << 20).startswith("zstd refuses it")

    def test_a_window_larger_than_any_chunk(self) -> None:
        frame = bytearray(frame_of(bytes(4 << 20)))
        assert decompress(1, bytes(frame), 4 << 20) == bytes(4 << 20)
        frame[5] = (23 - 10) << 3  # window descriptor: 8 MiB
        assert refusal(1, bytes(frame), 4 << 20) == "the frame has a window of 8388608 bytes"

    def test_bytes_after_the_frame(self) -> None:
        assert refusal(1, frame_of(log(5000)) + b"tail", 5000) == unused(4)

    def test_a_second_frame(self) -> None:
        frame = frame_of(log(5000))
        assert refusal(1, frame + frame, 5000) == unused(len(frame))

    def test_an_empty_frame_after_the_frame(self) -> None:
        empty = frame_of(b"")
        assert refusal(1, frame_of(log(5000)) + empty, 5000) == unused(len(empty))

    def test_a_skippable_frame_before_the_frame(self) -> None:
        skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
        assert "declares 4 bytes" in refusal(1, skippable + frame_of(log(5000)), 5000)
        assert "zstd refuses it" in refusal(1, skippable, 4)

    def test_every_truncation(self) -> None:
        frame = frame_of(log(3000))
        reasons = {refusal(1, frame[:length], 3000) for length in range(len(frame))}
        assert reasons >= {"zstd refuses it (decompression error: did not decompress full frame)"}

    def test_every_thread_has_a_context_of_its_own(self) -> None:
        data = [log(40_000 + seed) for seed in range(64)]
        frames = [(frame_of(one), len(one)) for one in data]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda frame: decompress(1, *frame), frames * 20))
        assert found == data * 20

    def test_bytes_that_are_no_frame(self) -> None:
        assert refusal(1, noise(500), 500).startswith("zstd refuses it")

    @given(seed=st.integers(0, 2**32))
    @settings(max_examples=200, deadline=None)
    def test_damage_is_refused_or_keeps_the_length(self, seed: int) -> None:
        rng = random.Random(seed)
        frame = bytearray(frame_of(log(2000)))
        for _ in range(rng.randint(1, 3)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        with contextlib.suppress(CorruptChunkError):
            assert len(decompress(1, bytes(frame), 2000)) == 2000
