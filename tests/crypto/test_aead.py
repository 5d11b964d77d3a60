import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from replicator.crypto.aead import NONCE_SIZE, TAG_SIZE, Sealer, open_random, seal_random
from replicator.errors import IntegrityError
from tests.fakes import SeededRng

KEY = bytes(range(32))


@given(plaintext=st.binary(max_size=300), associated=st.binary(max_size=80), counter=st.integers(0, 2**64 - 1))
def test_what_was_sealed_opens_again(plaintext: bytes, associated: bytes, counter: int) -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal(counter, plaintext, associated)
    assert len(sealed) == len(plaintext) + TAG_SIZE
    assert sealer.open(counter, sealed, associated, "it") == plaintext


def test_the_nonce_is_the_counter_in_12_big_endian_bytes() -> None:
    assert Sealer(KEY).seal(258, b"text", b"aad") == AESGCM(KEY).encrypt(bytes(10) + b"\x01\x02", b"text", b"aad")


def test_sealing_in_place_gives_the_same_bytes() -> None:
    room = bytearray(4 + TAG_SIZE)
    Sealer(KEY).seal_into(7, memoryview(b"text"), b"aad", memoryview(room))
    assert room == Sealer(KEY).seal(7, b"text", b"aad")


def test_every_flipped_bit_another_nonce_key_or_context_is_found() -> None:
    sealed = Sealer(KEY).seal(1, b"text", b"aad")
    broken = []
    for at in range(len(sealed)):
        copy = bytearray(sealed)
        copy[at] ^= 0x10
        broken.append(bytes(copy))
    broken += [sealed[:-1], sealed + b"\x00", sealed[:15], b""]
    for bad in broken:
        with pytest.raises(IntegrityError, match="a thing: does not open"):
            Sealer(KEY).open(1, bad, b"aad", "a thing")
    for key, counter, associated in ((bytes(32), 1, b"aad"), (KEY, 2, b"aad"), (KEY, 1, b"aae"), (KEY, 1, b"")):
        with pytest.raises(IntegrityError):
            Sealer(key).open(counter, sealed, associated, "a thing")


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33, 64])
def test_no_key_but_one_of_256_bits_is_used(length: int) -> None:
    key = bytes(length)
    with pytest.raises(ValueError, match="AES-256"):
        Sealer(key)
    with pytest.raises(ValueError, match="AES-256"):
        seal_random(key, b"", b"", SeededRng(1))
    with pytest.raises(ValueError, match="AES-256"):
        open_random(key, bytes(40), b"", "it")


def test_a_random_nonce_comes_first_and_is_new_each_time() -> None:
    rng = SeededRng("nonces")
    one, two = seal_random(KEY, b"text", b"aad", rng), seal_random(KEY, b"text", b"aad", rng)
    assert one[:NONCE_SIZE] == SeededRng("nonces").bytes(NONCE_SIZE) != two[:NONCE_SIZE]
    assert one[NONCE_SIZE:] == AESGCM(KEY).encrypt(one[:NONCE_SIZE], b"text", b"aad")
    assert open_random(KEY, one, b"aad", "it") == open_random(KEY, two, b"aad", "it") == b"text"


def test_what_was_sealed_at_random_opens_for_its_key_and_context_only() -> None:
    sealed = seal_random(KEY, b"text", b"aad", SeededRng(1))
    for key, data, associated in (
        (bytes(32), sealed, b"aad"),
        (KEY, sealed, b"other"),
        (KEY, sealed[:-1], b"aad"),
        (KEY, sealed[1:], b"aad"),
        (KEY, sealed[:11], b"aad"),
        (KEY, b"", b"aad"),
    ):
        with pytest.raises(IntegrityError, match="it: does not open"):
            open_random(key, data, associated, "it")
