import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from replicator.ids import Identity, address_form, identity_of, parse_address_form, short

IDENTITY = Identity(bytes(range(32)))


def test_an_identity_is_the_hash_of_a_public_key() -> None:
    assert identity_of(b"k" * 32) == blake3(b"k" * 32).digest()


def test_the_short_form_is_12_hex_digits() -> None:
    assert short(IDENTITY) == "000102030405"


@given(st.binary(min_size=32, max_size=32))
def test_an_identity_can_be_typed_and_read_back(raw: bytes) -> None:
    text = address_form(Identity(raw))
    assert len(text) == 52
    assert text == text.lower()
    assert parse_address_form(text) == raw
    assert parse_address_form(text.upper()) == raw
    assert parse_address_form("-".join(text[at : at + 4] for at in range(0, 52, 4))) == raw


@pytest.mark.parametrize(
    "text", ["", "a", "aaaa", "a" * 51, "a" * 53, "a" * 60, "1" * 52, "é" * 52, "\u0131" * 52, "=" * 52]
)
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address_form(text)


def test_no_two_texts_are_one_identity() -> None:
    text = address_form(IDENTITY)
    accepted = []
    for letter in "abcdefghijklmnopqrstuvwxyz234567":
        try:
            accepted.append((letter, parse_address_form(text[:-1] + letter)))
        except ValueError:
            continue
    assert len({identity for _, identity in accepted}) == len(accepted) == 2
