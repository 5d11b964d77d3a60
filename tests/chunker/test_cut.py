"""One class for every kernel: the readable reference and the compiled ones cut alike, everywhere."""

import functools
import gc
import mmap
import random
import struct
import sys
import threading
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunker import LARGE, SMALL, Chunker, ParameterError
from chunker import _kernel as extension
from chunker.cut import PythonCutter
from chunker.kernels import Kernel, select_kernel
from chunker.keys import derive_key
from chunker.params import ChunkerParams
from tests.chunker.data import GENERATORS, KEY, noise, periodic, real
from tests.chunker.vectors import Vector, cut_vectors

SIZES = (1024, 16384, 65536)
KERNELS = ("python", *extension.KERNELS)
PERIODS = (*range(1, 9), 12, 16, 38, 63, 64, 65, 75, 76, 77, 80, 128, 152, 228, 532, 536, 1000, 1024, 4095, 4096)


def kernel_named(name: str) -> Kernel:
    return select_kernel({"CHUNKER_KERNEL": name})


def chunker_with(name: str, sizes: tuple[int, int, int] = SIZES, key: bytes = KEY) -> Chunker:
    return Chunker(key, *sizes, kernel=kernel_named(name))


def cut(name: str, data: bytes, sizes: tuple[int, int, int] = SIZES, key: bytes = KEY) -> list[int]:
    return list(chunker_with(name, sizes, key).cuts(data)[0])


@functools.lru_cache(maxsize=4096)
def reference(data: bytes, sizes: tuple[int, int, int] = SIZES, key: bytes = KEY) -> list[int]:
    return cut("python", data, sizes, key)


@functools.cache
def dense() -> list[tuple[bytes, bool, int]]:
    """Data, whether it is the end, and how far it was scanned: at all distances from both ends."""
    data = noise(2500, "dense")
    return [
        (data[:length], final, scanned)
        for at in range(150)
        for length, scanned in ((1025 + at, 0), (1300, 1020 + at), (1500 + at, 1400), (2500 - at, at))
        for final in (True, False)
    ]


@functools.cache
def dense_cuts(mask: int, ramp: int) -> list[tuple[bytes, int]]:
    """What the reference, which takes its time, says of each with far more candidates than a configuration has."""
    readable = PythonCutter(derive_key(KEY), ChunkerParams(*SIZES))
    readable._mask, readable._ramp = mask, ramp
    return [readable.cuts(*one) for one in dense()]


def streamed(name: str, data: bytes, piece: int, sizes: tuple[int, int, int]) -> list[int]:
    """The cuts of a stream that arrives in pieces of one length."""
    chunker, cuts = chunker_with(name, sizes), [0]
    scanned = end = 0
    while end < len(data):
        end = min(len(data), end + piece)
        with memoryview(data)[cuts[-1] : end] as window:
            offsets, scanned = chunker.cuts(window, final=end == len(data), scanned=scanned)
        base = cuts[-1]
        cuts += [base + offset for offset in offsets]
    return cuts[1:]


def naive_cuts(key: bytes, sizes: tuple[int, int, int], data: bytes) -> list[int]:
    """The definition of csrc/scan.h, term by term, with no cleverness at all."""
    params, derived = ChunkerParams(*sizes), derive_key(key)
    mask = 2**params.filter_bits - 1
    cuts, start = [], 0
    for i in range(len(data)):
        length = i + 1 - start
        if length >= params.minimum and length < params.maximum:
            value = 0
            for k in range(8):
                at = i - 76 * k
                w = data[at - 1] + 256 * data[at]
                w2 = data[at - 3] + 256 * data[at - 2]
                value ^= ((derived.k1 * w + derived.k2 * w2) % 2**16) >> (2 * k)
            if value & mask != derived.t & mask:
                continue
            words = struct.unpack_from("<8Q", data, i - 63)
            total = 0
            for j in (0, 2, 4, 6):
                total += ((words[j] + derived.words[j]) % 2**64) * ((words[j + 1] + derived.words[j + 1]) % 2**64)
            total %= 2**128
            x = ((total % 2**64 ^ total >> 64) * (derived.words[8] | 1)) % 2**64
            if x >> 32 >= min(2**32 - 1, (length - params.minimum) * params.ramp >> 16):
                continue
        elif length != params.maximum:
            continue
        cuts.append(i + 1)
        start = i + 1
    return cuts if start == len(data) else [*cuts, len(data)]


@pytest.mark.parametrize("name", KERNELS)
class TestEveryKernel:
    @pytest.mark.parametrize("vector", cut_vectors(), ids=str)
    def test_cuts_equal_the_golden_vectors(self, name: str, vector: Vector) -> None:
        chunker = chunker_with(name, vector.sizes, vector.key)
        offsets, scanned = chunker.cuts(vector.data())
        assert list(offsets) == vector.cuts
        assert scanned == 0

    @pytest.mark.parametrize("kind", GENERATORS)
    @pytest.mark.parametrize(
        "sizes", [SIZES, (1024, 16384, 16385), (16000, 16384, 17000), (15000, 40000, 50000)], ids=str
    )
    def test_cuts_equal_the_definition(self, name: str, kind: str, sizes: tuple[int, int, int]) -> None:
        data = GENERATORS[kind](90000)
        assert list(chunker_with(name, sizes).cuts(data)[0]) == naive_cuts(KEY, sizes, data)

    def test_an_empty_stream_has_no_chunk(self, name: str) -> None:
        offsets, scanned = chunker_with(name).cuts(b"")
        assert (list(offsets), scanned) == ([], 0)

    @pytest.mark.parametrize("length", [1, 2, 63, 64, 535, 536, 1023, 1024])
    def test_a_stream_up_to_the_minimum_is_one_chunk(self, name: str, length: int) -> None:
        assert list(chunker_with(name).cuts(noise(length))[0]) == [length]

    @pytest.mark.parametrize("length", [1025, 1026, 2047, 2048, 2049, 3071, 65535, 65536, 65537, 66560, 66561])
    def test_lengths_around_the_bounds(self, name: str, length: int) -> None:
        data = bytes(length)
        full = [65536] if length > 65536 else []
        assert list(chunker_with(name).cuts(data)[0]) == [*full, length]

    def test_an_unfinished_chunk_is_not_emitted_but_counted(self, name: str) -> None:
        chunker = chunker_with(name)
        assert [(list(cuts), scanned) for cuts, scanned in [chunker.cuts(bytes(500), final=False)]] == [([], 500)]
        offsets, scanned = chunker.cuts(bytes(65536 + 5000), final=False)
        assert (list(offsets), scanned) == ([65536], 5000)
        offsets, scanned = chunker.cuts(bytes(65536), final=False)
        assert (list(offsets), scanned) == ([65536], 0)
        offsets, scanned = chunker.cuts(bytes(65535), final=False, scanned=65535)
        assert (list(offsets), scanned) == ([], 65535)
        offsets, scanned = chunker.cuts(b"", final=False)
        assert (list(offsets), scanned) == ([], 0)

    def test_the_search_resumes_where_it_stopped(self, name: str) -> None:
        chunker, data = chunker_with(name), noise(200000)
        first = chunker.cuts(data)[0][0]
        assert 3000 < first < 60000
        # told that the cut was searched already, it must not be found again
        skipped = chunker.cuts(data, final=True, scanned=first)[0][0]
        assert skipped > first
        assert chunker.cuts(data, final=True, scanned=first - 1)[0][0] == first

    def test_the_same_cuts_come_from_any_contiguous_buffer(self, name: str) -> None:
        chunker, data = chunker_with(name), noise(80000)
        expected = list(chunker.cuts(data)[0])
        assert len(expected) > 2
        with mmap.mmap(-1, len(data)) as mapped:
            mapped[:] = data
            for buffer in (bytearray(data), memoryview(data), mapped, array("Q", data), memoryview(array("I", data))):
                assert list(chunker.cuts(buffer)[0]) == expected
        odd = memoryview(b"x" + data)[1:]
        assert list(chunker.cuts(odd)[0]) == expected

    def test_the_buffer_is_free_again_after_the_call(self, name: str) -> None:
        buffer = bytearray(noise(70000))
        offsets, _ = chunker_with(name).cuts(buffer)
        buffer += b"resizing fails while a buffer is exported"
        assert offsets[-1] == 70000

    def test_the_offsets_own_their_memory_and_cannot_be_written(self, name: str) -> None:
        offsets, _ = chunker_with(name).cuts(noise(70000))
        gc.collect()
        assert offsets.format == "Q"
        assert offsets.readonly
        assert offsets[-1] == 70000

    def test_a_buffer_with_gaps_is_refused(self, name: str) -> None:
        with pytest.raises(BufferError):
            chunker_with(name).cuts(memoryview(bytes(4096))[::2])

    def test_what_is_no_buffer_is_refused(self, name: str) -> None:
        with pytest.raises(TypeError):
            chunker_with(name).cuts("text")  # type: ignore[arg-type]  # what the test is about

    def test_a_wrong_scanned_is_refused(self, name: str) -> None:
        for scanned in (-1, 101):
            with pytest.raises(ParameterError, match="scanned is"):
                chunker_with(name).cuts(bytes(100), final=False, scanned=scanned)

    def test_other_keys_cut_elsewhere(self, name: str) -> None:
        data = noise(200000)
        mine = set(chunker_with(name).cuts(data)[0])
        theirs = set(chunker_with(name, key=b"k" * 32).cuts(data)[0])
        assert mine & theirs == {200000}

    def test_an_insertion_moves_only_the_cuts_near_it(self, name: str) -> None:
        data = noise(300000)
        edited = data[:100000] + b"a few more bytes" + data[100000:]
        chunker = chunker_with(name)

        def pieces(content: bytes) -> set[bytes]:
            ends = list(chunker.cuts(content)[0])
            return {content[start:end] for start, end in zip([0, *ends], ends, strict=False)}

        assert len(pieces(data) - pieces(edited)) <= 3 < len(pieces(data))

    @given(data=st.data())
    @settings(max_examples=25, deadline=None)
    def test_a_stream_is_cut_alike_however_it_is_divided(self, name: str, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(sorted(GENERATORS)))
        stream = GENERATORS[kind](data.draw(st.integers(4, 100000)))
        chunker = chunker_with(name)
        expected = list(chunker.cuts(stream)[0])
        cuts: list[int] = []
        base = scanned = end = 0
        while end < len(stream):
            end = min(len(stream), end + data.draw(st.integers(1, 30000)))
            offsets, scanned = chunker.cuts(stream[base:end], final=end == len(stream), scanned=scanned)
            cuts += [base + offset for offset in offsets]
            base = cuts[-1] if cuts else 0
            assert scanned == (end - base)
        assert cuts == expected

    def test_threads_share_one_chunker(self, name: str) -> None:
        chunker = chunker_with(name)
        streams = [noise(150000, f"thread {number}") for number in range(4)]
        expected = [list(chunker.cuts(stream)[0]) for stream in streams]
        found: list[list[int]] = [[] for _ in streams]
        start = threading.Barrier(len(streams))

        def cut(number: int) -> None:
            start.wait()
            for _ in range(3):
                found[number] = list(chunker.cuts(streams[number])[0])

        threads = [threading.Thread(target=cut, args=(number,)) for number in range(len(streams))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == expected


@given(
    seed=st.integers(0, 2**32),
    length=st.integers(0, 60000),
    period=st.integers(1, 600),
    average=st.integers(16384, 40000),
    minimum=st.integers(1024, 12000),
)
@settings(max_examples=40, deadline=None)
def test_compiled_kernels_equal_the_reference_on_any_data_and_sizes(
    seed: int, length: int, period: int, average: int, minimum: int
) -> None:
    rng = random.Random(seed)
    key, sizes = rng.randbytes(32), (minimum, average, average + rng.randrange(1, 50000))
    for data in (rng.randbytes(length), (rng.randbytes(period) * (length // period + 1))[:length]):
        for final in (True, False):
            reference = chunker_with("python", sizes, key).cuts(data, final=final)
            for name in extension.KERNELS:
                compiled = chunker_with(name, sizes, key).cuts(data, final=final)
                assert (list(compiled[0]), compiled[1]) == (list(reference[0]), reference[1]), name


@pytest.mark.parametrize("name", extension.KERNELS)
class TestCompiledKernels:
    def test_more_cuts_than_fit_on_the_stack_are_all_returned(self, name: str) -> None:
        sizes = (1024, 16384, 16385)
        data = bytes(200 * 16385)
        assert list(chunker_with(name, sizes).cuts(data)[0]) == list(range(16385, len(data) + 1, 16385))

    @pytest.mark.parametrize("pattern", ["*.py", "*.so"])
    def test_they_equal_the_reference_on_real_files(self, name: str, pattern: str) -> None:
        data = real(pattern, 500_000)
        for sizes in (SIZES, (3000, 20000, 50000)):
            assert cut(name, data, sizes) == reference(data, sizes)

    @pytest.mark.parametrize("pattern", ["*.py", "*.so"])
    @pytest.mark.parametrize("params", [SMALL, LARGE], ids=str)
    def test_they_equal_the_portable_one_on_much_data_whole_and_in_odd_pieces(
        self, name: str, pattern: str, params: ChunkerParams
    ) -> None:
        data = real(pattern, 3_000_000) + noise(8_000_001) + real(pattern, 2_999_999)
        sizes = params.minimum, params.average, params.maximum
        expected = cut("portable", data, sizes)
        assert len(expected) > 3
        assert cut(name, data, sizes) == expected
        for piece in (70_001, 1_234_567):
            assert streamed(name, data, piece, sizes) == expected

    @pytest.mark.parametrize("number", range(3))
    def test_they_equal_the_reference_on_periodic_data(self, name: str, number: int) -> None:
        key = noise(32, f"key {number}")
        for period in PERIODS:
            data = periodic(20_000, period)
            assert cut(name, data, key=key) == reference(data, key=key)

    @pytest.mark.slow
    def test_they_equal_the_reference_at_every_period(self, name: str) -> None:
        for period in range(1, 4097):
            key = noise(32, f"key {period % 16}")
            assert cut(name, periodic(17_000, period), key=key) == reference(periodic(17_000, period), key=key)
            long = periodic(300_000, period)
            assert cut(name, long, key=key) == cut("portable", long, key=key)

    @pytest.mark.parametrize("kind", ["xof", "zeros", "log"])
    def test_they_equal_the_reference_at_every_length_near_a_bound(self, name: str, kind: str) -> None:
        sizes = (1024, 16384, 16500)
        data = GENERATORS[kind](40_000)
        for bound in (0, 1024, 16500, 16500 + 1024):
            for length in range(max(0, bound - 3), bound + 100, 1 if bound < 2000 else 7):
                assert cut(name, data[:length], sizes) == reference(data[:length], sizes)

    @pytest.mark.parametrize("mask", [0, 1, 7, 0x3FF, 0xFFF])
    @pytest.mark.parametrize("ramp", [1 << 40, 1 << 47])
    def test_they_find_each_candidate_wherever_it_stands(self, name: str, mask: int, ramp: int) -> None:
        """With far more candidates and cuts than any real configuration has, at all distances from both ends."""
        derived = derive_key(KEY)
        state = struct.pack("<9QQ2I4H", *derived.words, ramp, *SIZES[::2], derived.k1, derived.k2, derived.t, mask)
        compiled = extension.Cutter(state, name)
        assert [compiled.cuts(*one) for one in dense()] == dense_cuts(mask, ramp)

    def test_whole_lanes_of_candidates_are_handled(self, name: str) -> None:
        """A period that divides the filter's stride makes whole lanes candidates at once for some keys."""
        for number in range(30):
            key, data = noise(32, f"dense {number}"), periodic(40000, 76)
            assert cut(name, data, key=key) == reference(data, key=key)

    @pytest.mark.parametrize(("length", "released"), [(64 * 1024, True), (64 * 1024 - 1, False)])
    def test_the_gil_is_released_from_64_kib_on(self, name: str, length: int, released: bool) -> None:
        chunker, data = chunker_with(name), noise(length)
        gate, ran = threading.Lock(), []
        gate.acquire()

        def waiter() -> None:
            with gate:
                ran.append(True)

        thread = threading.Thread(target=waiter)
        interval = sys.getswitchinterval()
        thread.start()
        try:
            # Nobody is asked to give up the GIL any more: the waiter can run only if a call lets it go.
            sys.setswitchinterval(1000)
            gate.release()
            for _ in range(20000):
                chunker.cuts(data)
                if ran:
                    break
            assert bool(ran) == released
        finally:
            sys.setswitchinterval(interval)
            thread.join()
