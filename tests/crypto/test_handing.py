import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA512, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.crypto.handing import PURPOSE_HANDED, hand, montgomery_of, take
from replicator.crypto.seal import PURPOSE_GRANT, PURPOSE_KEYBAG, seal_to
from replicator.crypto.sign import SigningKey
from replicator.errors import IntegrityError

ONE, OTHER = SigningKey(bytes(31) + b"1"), SigningKey(bytes(31) + b"2")


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_the_public_key_is_the_one_of_the_private_scalar(seed: bytes) -> None:
    digest = Hash(SHA512())
    digest.update(seed)
    private = X25519PrivateKey.from_private_bytes(digest.finalize()[:32])
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert montgomery_of(SigningKey(seed).public) == public


def test_libsodiums_own_example_of_the_map_holds() -> None:
    """Of libsodium's test/default/ed25519_convert.c."""
    seed = bytes.fromhex("421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee")
    assert montgomery_of(SigningKey(seed).public).hex() == (
        "f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50"
    )


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=500))
def test_what_is_handed_to_a_key_is_taken_with_it(content: bytes) -> None:
    assert take(ONE, hand(ONE.public, content), "it") == content


def test_nobody_else_takes_it_and_every_changed_bit_is_found() -> None:
    sealed = hand(ONE.public, b"index keys")
    with pytest.raises(IntegrityError, match="not handed to this key, or damaged"):
        take(OTHER, sealed, "it")
    for at in range(len(sealed)):
        broken = bytearray(sealed)
        broken[at] ^= 1
        with pytest.raises(IntegrityError):
            take(ONE, bytes(broken), "it")
    for short in (b"", sealed[:31], sealed[:-1]):
        with pytest.raises(IntegrityError):
            take(ONE, short, "it")


@pytest.mark.parametrize("purpose", [PURPOSE_GRANT, PURPOSE_KEYBAG])
def test_what_was_sealed_for_something_else_is_not_taken(purpose: bytes) -> None:
    assert purpose != PURPOSE_HANDED
    with pytest.raises(IntegrityError):
        take(ONE, seal_to(montgomery_of(ONE.public), b"x", purpose), "it")


def test_nothing_is_handed_to_the_neutral_point() -> None:
    with pytest.raises(IntegrityError, match="small order"):
        montgomery_of((1).to_bytes(32, "little"))
