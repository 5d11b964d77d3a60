import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunker import Compressor
from replicator.crypto.aead import Sealer
from replicator.crypto.derive import object_key
from replicator.errors import FormatError, IntegrityError, KeyMissingError
from replicator.format.container import BODY_OFFSET, HEADER_SIZE, Kind, Locator, encode_locator
from replicator.format.sizes import LARGEST, SMALLEST, is_allowed
from replicator.pack.sealed import open_body, open_locator, open_object, seal_object, write_envelope
from tests.fakes import SeededRng
from tests.pack.support import KEYS, domain_keys

RECORDS = (Kind.INDEX, Kind.REFERENCES, Kind.SNAPSHOT)


@settings(max_examples=30, deadline=None)
@given(body=st.binary(max_size=3000), kind=st.sampled_from(RECORDS))
def test_an_object_gives_its_body_back_and_has_an_allowed_size(body: bytes, kind: Kind) -> None:
    data = seal_object(kind, body, KEYS, SeededRng("object"))
    assert is_allowed(len(data))
    assert open_object(data, kind, KEYS) == body


@pytest.mark.parametrize("length", [0, 1, SMALLEST - 128, SMALLEST - 127, 4 << 20, (4 << 20) + 1, LARGEST - 128])
def test_bodies_up_to_the_largest_object_are_kept_whole(length: int) -> None:
    body = SeededRng("body").bytes(length)
    data = seal_object(Kind.INDEX, body, KEYS, SeededRng("object"))
    assert is_allowed(len(data))
    assert open_object(data, Kind.INDEX, KEYS) == body


def test_a_body_larger_than_any_object_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        seal_object(Kind.INDEX, bytes(LARGEST - 127), KEYS, SeededRng("object"))


def test_what_compresses_is_compressed() -> None:
    assert len(seal_object(Kind.INDEX, bytes(3 << 20), KEYS, SeededRng("object"))) == SMALLEST


def test_the_layout_is_the_specifications() -> None:
    body = SeededRng("body").bytes(100)
    data = seal_object(Kind.SNAPSHOT, body, KEYS, SeededRng("object"))
    header = data[:HEADER_SIZE]
    assert header[16:48] == SeededRng("object").bytes(32)
    sealer = Sealer(object_key(KEYS.index_keys[1], header[16:48], KEYS.tenant, KEYS.domain))
    locator = Locator(kind=Kind.SNAPSHOT, encoding=0, body_length=116, raw_length=100, segments_length=0)
    assert data[64:112] == sealer.seal(0, encode_locator(locator), header)
    assert data[112:228] == sealer.seal(1, body, header)


def test_every_flipped_bit_before_the_fill_is_found() -> None:
    data = seal_object(Kind.SNAPSHOT, b"body" * 10, KEYS, SeededRng("object"))
    end = BODY_OFFSET + open_locator(data, len(data), KEYS).body_length
    for at in range(end):
        broken = bytearray(data)
        broken[at] ^= 0x20
        with pytest.raises((FormatError, IntegrityError, KeyMissingError)):
            open_object(bytes(broken), Kind.SNAPSHOT, KEYS)


def test_an_object_cut_short_or_grown_is_refused() -> None:
    data = seal_object(Kind.SNAPSHOT, b"body", KEYS, SeededRng("object"))
    for broken in (b"", data[:63], data[:100], data[:112], data[:-1], data + b"\x00"):
        with pytest.raises((FormatError, IntegrityError)):
            open_object(broken, Kind.SNAPSHOT, KEYS)


def test_an_object_of_another_kind_is_named() -> None:
    data = seal_object(Kind.INDEX, b"body", KEYS, SeededRng("object"))
    with pytest.raises(IntegrityError, match="a index where a snapshot should be"):
        open_object(data, Kind.SNAPSHOT, KEYS)


def test_an_object_of_another_tenant_domain_or_index_key_does_not_open() -> None:
    data = seal_object(Kind.INDEX, b"body", KEYS, SeededRng("object"))
    for changed in (
        {"tenant": bytes(16)},
        {"domain": bytes(16)},
        {"index_keys": {1: bytes(32)}},
    ):
        with pytest.raises(IntegrityError, match="object locator"):
            open_object(data, Kind.INDEX, dataclasses.replace(KEYS, **changed))


def test_an_object_is_sealed_under_the_epoch_that_its_header_names() -> None:
    later = domain_keys(epoch=2)
    data = seal_object(Kind.INDEX, b"body", later, SeededRng("object"))
    assert int.from_bytes(data[12:16], "little") == 2
    assert open_object(data, Kind.INDEX, KEYS) == b"body"
    unknown = bytearray(data)
    unknown[12] = 9
    with pytest.raises(KeyMissingError, match="epoch 9"):
        open_object(bytes(unknown), Kind.INDEX, KEYS)


def test_parts_of_two_objects_do_not_mix() -> None:
    one, two = (seal_object(Kind.INDEX, text, KEYS, SeededRng(text.decode())) for text in (b"one!", b"two!"))
    for mixed in (one[:64] + two[64:], one[:112] + two[112:], one[:64] + two[64:112] + one[112:]):
        with pytest.raises(IntegrityError):
            open_object(mixed, Kind.INDEX, KEYS)


def envelope(body: bytes, encoding: int, raw_length: int) -> bytes:
    """Return an object whose locator says what a writer would never say."""
    out = bytearray(SMALLEST)
    write_envelope(out, Kind.INDEX, body, encoding, raw_length, 0, KEYS, SeededRng("hostile"))
    return bytes(out)


def test_a_body_of_another_length_than_the_locator_names_is_refused() -> None:
    _, frame = Compressor().compress(bytes(5000))
    for hostile in (
        envelope(b"body", 0, 5),
        envelope(b"body", 0, 3),
        envelope(bytes(frame), 1, 4999),
        envelope(bytes(frame), 1, 5001),
        envelope(bytes(frame) + b"x", 1, 5000),
        envelope(b"no frame", 1, 5000),
    ):
        with pytest.raises(IntegrityError, match="object body"):
            open_object(hostile, Kind.INDEX, KEYS)


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    _, frame = Compressor().compress(bytes(4 << 20))
    assert len(frame) < 1000
    with pytest.raises(IntegrityError, match="object body"):
        open_object(envelope(bytes(frame), 1, LARGEST), Kind.INDEX, KEYS)


def test_the_front_of_an_object_is_enough_for_its_body() -> None:
    data = seal_object(Kind.INDEX, bytes(SeededRng("x").bytes(200_000)), KEYS, SeededRng("object"))
    locator = open_locator(data[:112], len(data), KEYS)
    assert open_body(memoryview(data)[: BODY_OFFSET + locator.body_length], locator, KEYS) == SeededRng("x").bytes(
        200_000
    )
    with pytest.raises(IntegrityError):
        open_body(data[: BODY_OFFSET + locator.body_length - 1], locator, KEYS)
