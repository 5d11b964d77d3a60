"""The extension's own contract, below the checks of its Python callers."""

import ctypes
import mmap
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chunker import _kernel as extension
from chunker.kernels import _pack_state
from chunker.keys import derive_key
from chunker.params import SMALL, ChunkerParams
from tests.chunker.data import KEY

PARAMS = ChunkerParams(1024, 16384, 65536)
STATE = _pack_state(derive_key(KEY), PARAMS)
NAME = extension.KERNELS[0]
FINAL, UNFINISHED = True, False
PROT_NONE = 0  # mmap has no name for it before Python 3.13


def state(minimum: int = 1024, maximum: int = 65536, ramp: int = 1) -> bytes:
    sizes = minimum.to_bytes(4, "little") + maximum.to_bytes(4, "little")
    return bytes(72) + ramp.to_bytes(8, "little") + sizes + bytes(8)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        STATE[:-1],
        STATE + b"\0",
        state(minimum=1023),
        state(minimum=65536),
        state(maximum=(4 << 20) + 1),
        state(ramp=2**64 - 1),
    ],
)
def test_a_state_that_could_lead_outside_the_buffer_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError):
        extension.Cutter(bad, NAME)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="no kernel named 'avx9'"):
        extension.Cutter(STATE, "avx9")


def test_the_kernels_are_those_of_the_host_best_first() -> None:
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert flags is not None
    vectors = {
        "x86_64": ("avx2", "sse2") if "avx2" in flags[1].split() else ("sse2",),
        "aarch64": ("neon",),
    }.get(platform.machine(), ())
    assert (*vectors, "portable") == extension.KERNELS


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        extension.Cutter(STATE)  # type: ignore[call-arg]  # what the test is about
    with pytest.raises(TypeError):
        extension.Cutter(STATE, NAME, final=True)  # type: ignore[call-arg]  # what the test is about
    cutter = extension.Cutter(STATE, NAME)
    with pytest.raises(TypeError):
        cutter.cuts(b"", FINAL)  # type: ignore[call-arg]  # what the test is about
    with pytest.raises(TypeError):
        cutter.cuts(b"", FINAL, "0")  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(OverflowError):
        cutter.cuts(b"", FINAL, -1)


def test_a_truth_value_that_fails_is_passed_on() -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise LookupError

    with pytest.raises(LookupError):
        extension.Cutter(STATE, NAME).cuts(b"", Undecided(), 0)  # type: ignore[arg-type]  # what the test is about


def test_a_scanned_beyond_the_buffer_reads_nothing() -> None:
    assert extension.Cutter(STATE, NAME).cuts(bytes(4096), UNFINISHED, 1 << 62) == (b"", 4096)


def test_neither_type_nor_object_can_be_changed() -> None:
    with pytest.raises(TypeError):
        extension.Cutter.cuts = None  # type: ignore[method-assign, assignment]  # what the test is about
    with pytest.raises(AttributeError):
        extension.Cutter(STATE, NAME).more = 1  # type: ignore[attr-defined]  # what the test is about


def test_no_reference_is_lost_or_kept() -> None:
    data = bytearray(100000)
    cutter = extension.Cutter(STATE, NAME)
    before = sys.getrefcount(data), sys.getrefcount(extension.Cutter)
    for _ in range(1000):
        cutter.cuts(data, FINAL, 0)
        extension.Cutter(STATE, NAME)
        with pytest.raises(BufferError):
            cutter.cuts(memoryview(data)[::2], FINAL, 0)
    assert (sys.getrefcount(data), sys.getrefcount(extension.Cutter)) == before


def test_no_byte_outside_the_buffer_is_read() -> None:
    """Buffers that end, or begin, where memory does: a read outside ends the process."""
    program = "from tests.chunker.test_kernel_module import scan_between_guard_pages as scan; scan()"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def scan_between_guard_pages() -> None:
    page, room = mmap.PAGESIZE, 1 << 18
    libc = ctypes.CDLL(None, use_errno=True)
    arena = mmap.mmap(-1, page + room + page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(arena))
    for guard in (base, base + page + room):
        if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    states = (STATE, _pack_state(derive_key(KEY), SMALL))
    cutters = [extension.Cutter(packed, name) for packed in states for name in extension.KERNELS]
    lengths = [*range(70), *range(1000, 1100), *range(3000, 5200, 7), *range(65500, 65600), room - 1, room]
    for fill in (0, 1):
        ctypes.memset(base + page, fill * 0xA5, room)
        for length in lengths:
            for start in (base + page, base + page + room - length):
                buffer = (ctypes.c_char * length).from_address(start)
                for final in (FINAL, UNFINISHED):
                    for scanned in (0, length // 2, length):
                        for cutter in cutters:
                            cutter.cuts(memoryview(buffer), final, scanned)
