import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import FormatError, UnsupportedVersionError
from replicator.format.charter import CharterPrivate, EnrolOrder
from replicator.format.codec import MAX_RECORD, Record, check_run, decode, encode
from replicator.format.keybag import NodeRequest1
from tests.format.samples import ORDER, REQUEST, SAMPLES

EVERY = pytest.mark.parametrize("name", SAMPLES)


def places(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield (path, value) for a plain msgpack value and everything in it."""
    yield path, value
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield from places(item, (*path, at))


def changed(value: Any, path: tuple[int, ...], new: Any) -> bytes:
    """Return the msgpack bytes of a plain value with one place changed."""
    if not path:
        return msgspec.msgpack.encode(new)
    whole = copy.deepcopy(value)
    at = whole
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = new
    return msgspec.msgpack.encode(whole)


def plain(record: Record) -> Any:
    """Return a record as plain lists."""
    return msgspec.msgpack.decode(encode(record))


@EVERY
def test_a_record_is_read_as_it_was_written(name: str) -> None:
    record = SAMPLES[name]
    data = encode(record)
    again = decode(type(record), data)
    assert again == record
    assert encode(again) == data


VERSIONS = {
    "charter": 2,
    "charter private": 7,
    "erasure report": 2,
    "charter private 2": 2,
    "charter private 3": 3,
    "charter private 4": 4,
    "charter private 5": 5,
    "charter private 6": 6,
    "member keys": 3,
    "member keys 2": 2,
    "drill": 2,
    "offer": 3,
    "offer 2": 2,
    "forget": 2,
    "node grant": 2,
    "node request": 2,
}


@EVERY
def test_a_record_begins_with_its_version(name: str) -> None:
    assert plain(SAMPLES[name])[0] == VERSIONS.get(name, 1)


@EVERY
def test_nothing_may_follow_a_record(name: str) -> None:
    record = SAMPLES[name]
    with pytest.raises(FormatError, match=type(record).__name__):
        decode(type(record), encode(record) + b"\x00")


@EVERY
def test_a_record_cut_short_anywhere_is_refused(name: str) -> None:
    record = SAMPLES[name]
    data = encode(record)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            decode(type(record), data[:end])


@EVERY
def test_a_field_more_or_less_is_refused_at_every_depth(name: str) -> None:
    record = SAMPLES[name]
    value = plain(record)
    # A run of things (rights, segments, ids) may be longer; every other array has a fixed number of fields.
    for path, item in places(value):
        if not isinstance(item, list):
            continue
        with pytest.raises(FormatError):
            decode(type(record), changed(value, path, [*item, {}]))
        is_fields = not path or any(not isinstance(field, type(item[0])) for field in item)
        if is_fields:
            with pytest.raises(FormatError):
                decode(type(record), changed(value, path, item[:-1]))


@EVERY
def test_a_whole_number_is_no_bool_float_or_text(name: str) -> None:
    record = SAMPLES[name]
    value = plain(record)
    for path, item in places(value):
        if isinstance(item, int) and not isinstance(item, bool):
            for other in (bool(item), float(item), str(item), None, [item]):
                with pytest.raises(FormatError):
                    decode(type(record), changed(value, path, other))


@EVERY
def test_bytes_and_text_are_not_taken_for_each_other(name: str) -> None:
    record = SAMPLES[name]
    value = plain(record)
    for path, item in places(value):
        if isinstance(item, (str, bytes)):
            other = item.encode() if isinstance(item, str) else item.decode("latin-1")
            with pytest.raises(FormatError):
                decode(type(record), changed(value, path, other))


@EVERY
def test_a_flag_is_no_number(name: str) -> None:
    record = SAMPLES[name]
    value = plain(record)
    for path, item in places(value):
        if isinstance(item, bool):
            with pytest.raises(FormatError):
                decode(type(record), changed(value, path, int(item)))


@EVERY
def test_a_flipped_bit_is_refused_or_gives_another_canonical_record(name: str) -> None:
    record = SAMPLES[name]
    data = encode(record)
    for at in range(len(data)):
        for bit in (0, 3, 7):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            try:
                other = decode(type(record), broken)
            except FormatError:
                continue
            assert other != record
            assert encode(other) == broken


@EVERY
def test_a_longer_form_of_the_same_array_header_is_refused(name: str) -> None:
    record = SAMPLES[name]
    data = encode(record)
    count = len(plain(record))
    body = data[1:] if count < 16 else data[3:]
    longer = [b"\xdd" + count.to_bytes(4, "big")]
    if count < 16:
        longer.append(b"\xdc" + count.to_bytes(2, "big"))
    for head in longer:
        with pytest.raises(FormatError, match="canonical"):
            decode(type(record), head + body)


def test_a_longer_form_of_the_same_number_is_refused() -> None:
    data = encode(EnrolOrder(holder_key=ORDER.holder_key, expires_ns=5))
    assert data.endswith(b"\x05")
    for longer in (b"\xcc\x05", b"\xcd\x00\x05", b"\xce\x00\x00\x00\x05", b"\xcf" + bytes(7) + b"\x05", b"\xd0\x05"):
        with pytest.raises(FormatError, match="canonical"):
            decode(EnrolOrder, data[:-1] + longer)


def test_a_longer_form_of_the_version_is_refused() -> None:
    data = encode(ORDER)
    with pytest.raises(FormatError, match="canonical"):
        decode(EnrolOrder, data[:1] + b"\xcc\x01" + data[2:])


@pytest.mark.parametrize(
    "head", [b"\x93\x02", b"\xdc\x00\x03\x02", b"\xdd\x00\x00\x00\x03\x02", b"\x91\x7f", b"\x9f\x02"]
)
def test_a_later_version_is_told_from_damage_whatever_its_shape(head: bytes) -> None:
    with pytest.raises(UnsupportedVersionError, match="version") as caught:
        decode(EnrolOrder, head + b"whatever")
    assert "newer release" in caught.value.hint


@pytest.mark.parametrize(
    "data", [b"", b"\x90", b"\x93", b"\x93\x00", b"\x93\x01", b"\x93\xff", b"\xc0", b"\x81\x02\x02", b"\xdc\x00"]
)
def test_damage_is_not_taken_for_a_later_version(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        decode(EnrolOrder, data)
    assert not isinstance(caught.value, UnsupportedVersionError)


def test_deep_nesting_and_huge_counts_are_refused_at_once() -> None:
    for data in (b"\x91" * 100_000, b"\x93\x01" + b"\x91" * 100_000, b"\x97\x02\xa1a\xa2SE\xdd\xff\xff\xff\xff"):
        with pytest.raises(FormatError):
            decode(CharterPrivate, data)


def test_size_is_bounded_before_anything_is_parsed() -> None:
    data = encode(ORDER)
    assert decode(EnrolOrder, data, limit=len(data)) == ORDER
    with pytest.raises(FormatError, match="at most"):
        decode(EnrolOrder, data, limit=len(data) - 1)
    with pytest.raises(FormatError, match="at most"):
        decode(EnrolOrder, bytes(MAX_RECORD + 1))


def test_text_that_is_not_utf8_is_refused() -> None:
    data = encode(NodeRequest1(name="ab", key=REQUEST.key, seal_key=REQUEST.seal_key))
    with pytest.raises(FormatError, match="NodeRequest1"):
        decode(NodeRequest1, data.replace(b"\xa2ab", b"\xa2\xff\xfe"))


@pytest.mark.parametrize("name", ["", "x" * 65, "\udc80"])
def test_what_could_not_be_read_is_not_written(name: str) -> None:
    with pytest.raises(FormatError, match="NodeRequest1: cannot be written"):
        encode(NodeRequest1(name=name, key=REQUEST.key, seal_key=REQUEST.seal_key))


def test_a_number_beyond_msgpack_is_not_written() -> None:
    with pytest.raises(FormatError, match="cannot be written"):
        encode(EnrolOrder(holder_key=ORDER.holder_key, expires_ns=1 << 70))


def test_any_buffer_can_be_read() -> None:
    data = encode(ORDER)
    assert decode(EnrolOrder, bytearray(data)) == decode(EnrolOrder, memoryview(data)) == ORDER


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_a_format_error(data: bytes) -> None:
    for record in SAMPLES.values():
        with pytest.raises(FormatError):
            decode(type(record), data)


@pytest.mark.parametrize("length", [0, 32, 64, 3200])
def test_a_run_of_names_is_whole(length: int) -> None:
    check_run(bytes(length), "names")


@pytest.mark.parametrize("length", [1, 31, 33, 95])
def test_a_run_with_a_piece_of_a_name_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="names"):
        check_run(bytes(length), "names")
