import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA512, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.crypto.handing import (
    PURPOSE_HANDED,
    hand,
    is_proven,
    montgomery_of,
    prove,
    restore_statement,
    take,
)
from replicator.crypto.seal import PURPOSE_GRANT, PURPOSE_KEYBAG, seal_to
from replicator.crypto.sign import SigningKey
from replicator.crypto.unseal import public_of
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


STATEMENT = restore_statement(bytes(16), bytes(range(16)), public_of(b"f" * 32), public_of(b"n" * 32))


def test_a_successor_is_proven_by_the_private_half_of_the_former_to_one_member_alone() -> None:
    former, proof = public_of(b"f" * 32), prove(b"f" * 32, ONE.public, STATEMENT)
    assert is_proven(ONE, former, STATEMENT, proof)
    assert not is_proven(OTHER, former, STATEMENT, proof)
    assert not is_proven(ONE, public_of(b"n" * 32), STATEMENT, proof)
    assert not is_proven(ONE, former, STATEMENT[:-1] + b"?", proof)
    assert not is_proven(ONE, former, STATEMENT, bytes(32))
    assert not is_proven(ONE, bytes(32), STATEMENT, proof), "a key of small order"
    assert not is_proven(ONE, former, STATEMENT, prove(b"n" * 32, ONE.public, STATEMENT)), "of another key's holder"


def test_the_proof_is_what_the_specification_says() -> None:
    """By the library's own primitives, put together anew."""
    private = X25519PrivateKey.from_private_bytes(b"f" * 32)
    shared = private.exchange(X25519PublicKey.from_public_bytes(montgomery_of(ONE.public)))
    info = b"replicator/1 restore successor\x00" + ONE.public + STATEMENT
    expected = HKDF(algorithm=SHA256(), length=32, salt=b"", info=info).derive(shared)
    assert prove(b"f" * 32, ONE.public, STATEMENT) == expected
