import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import FormatError, UnsupportedVersionError
from replicator.format.container import (
    BODY_OFFSET,
    HEADER_SIZE,
    LOCATOR_SIZE,
    RECORD_MAGIC,
    TAG_SIZE,
    Header,
    Kind,
    Locator,
    decode_header,
    decode_locator,
    encode_header,
    encode_locator,
    record_fill,
    unwrap_record,
    wrap_record,
)
from replicator.format.sizes import LARGEST, SMALLEST, is_allowed, size_class
from tests.fakes import SeededRng
from tests.format.samples import run

HEADER = encode_header(Header(epoch=0x01020304, salt=run(0x40, 32)))
FITS = Locator(
    kind=Kind.DATA_PACK, encoding=0, body_length=1000, raw_length=984, segments_length=SMALLEST - BODY_OFFSET - 1000
)


def test_the_header_is_these_64_bytes() -> None:
    assert HEADER.hex() == (
        "52504c4f424a0001"  # RPLOBJ 0, version 1
        "01000000"  # suite 1, no flags, zero
        "04030201" + run(0x40, 32).hex() + "00" * 16  # epoch, little-endian
    )
    assert len(HEADER) == HEADER_SIZE
    assert BODY_OFFSET == 112


def test_the_locator_is_these_32_bytes() -> None:
    locator = Locator(kind=Kind.SNAPSHOT, encoding=1, body_length=0x1122, raw_length=0x3344, segments_length=0)
    data = encode_locator(locator)
    assert data.hex() == "0501" + "00" * 6 + "2211" + "00" * 6 + "4433" + "00" * 6 + "00" * 8
    assert len(data) == LOCATOR_SIZE
    assert decode_locator(data, LARGEST) == locator


@given(epoch=st.integers(0, 2**32 - 1), salt=st.binary(min_size=32, max_size=32))
def test_a_header_is_read_as_it_was_written(epoch: int, salt: bytes) -> None:
    header = Header(epoch=epoch, salt=salt)
    assert decode_header(encode_header(header)) == header
    assert decode_header(bytearray(encode_header(header) + b"more")) == header


def test_every_bit_of_the_header_outside_epoch_and_salt_matters() -> None:
    for at in (*range(12), *range(48, 64)):
        for bit in range(8):
            broken = bytearray(HEADER)
            broken[at] ^= 1 << bit
            with pytest.raises(FormatError):
                decode_header(broken)


@pytest.mark.parametrize(("at", "value"), [(7, 2), (8, 2), (9, 1)])
def test_a_later_version_suite_or_flag_asks_for_a_newer_release(at: int, value: int) -> None:
    later = bytearray(HEADER)
    later[at] = value
    with pytest.raises(UnsupportedVersionError) as caught:
        decode_header(later)
    assert "newer release" in caught.value.hint


def test_a_header_cut_short_is_refused() -> None:
    for end in range(HEADER_SIZE):
        with pytest.raises(FormatError, match="too few"):
            decode_header(HEADER[:end])


def test_a_locator_may_fill_its_object_to_the_last_byte() -> None:
    assert decode_locator(encode_locator(FITS), SMALLEST) == FITS


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (24, SMALLEST - BODY_OFFSET - 999),
        (24, 2**64 - 1),
        (8, 2**64 - 1),
        (8, 1001),
        (8, 15),
        (8, 0),
        (16, LARGEST + 1),
        (16, 2**64 - 1),
    ],
)
def test_a_locator_that_points_outside_its_object_is_refused(at: int, value: int) -> None:
    data = bytearray(encode_locator(FITS))
    struct.pack_into("<Q", data, at, value)
    with pytest.raises(FormatError, match="outside"):
        decode_locator(bytes(data), SMALLEST)


@pytest.mark.parametrize(("at", "value"), [(0, 0), (0, 7), (0, 255), (1, 2), (2, 1), (7, 1)])
def test_an_unknown_kind_or_encoding_or_a_reserved_byte_is_refused(at: int, value: int) -> None:
    data = bytearray(encode_locator(FITS))
    data[at] = value
    with pytest.raises(FormatError, match="not known"):
        decode_locator(bytes(data), SMALLEST)


@pytest.mark.parametrize("size", [SMALLEST - 1, SMALLEST + 1, 3 * SMALLEST, LARGEST * 2])
def test_an_object_of_a_size_that_none_has_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="allowed size"):
        decode_locator(encode_locator(FITS), size)


@pytest.mark.parametrize("length", [0, 1, SMALLEST - 13, SMALLEST - 12, SMALLEST - 11, 200_000, LARGEST - 12])
def test_a_record_object_gives_its_record_back_and_has_an_allowed_size(length: int) -> None:
    body = SeededRng("record").bytes(length)
    fill = SeededRng("fill").bytes(record_fill(length))
    data = wrap_record(body, fill)
    assert is_allowed(len(data))
    assert len(data) == size_class(12 + length)
    assert data == RECORD_MAGIC + length.to_bytes(4, "little") + body + fill
    assert unwrap_record(data) == body


def test_more_fill_than_needed_is_left_out() -> None:
    assert len(wrap_record(b"body", bytes(SMALLEST))) == SMALLEST


def test_a_record_object_of_another_size_length_or_magic_is_refused() -> None:
    data = wrap_record(b"body", bytes(SMALLEST))
    longer = bytearray(data)
    longer[8:12] = (SMALLEST - 11).to_bytes(4, "little")
    for broken in (
        b"",
        data[:-1],
        data + b"\x00",
        data + data,  # a larger class than its length needs
        b"RPLREC\x00\x02" + data[8:],
        HEADER + data[64:],
        bytes(longer),
    ):
        with pytest.raises(FormatError, match="record object"):
            unwrap_record(broken)


def test_a_sealed_object_is_not_taken_for_a_record_object() -> None:
    assert HEADER[: len(RECORD_MAGIC)] != RECORD_MAGIC
    assert TAG_SIZE == 16
