import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from replicator.crypto import sign
from replicator.crypto.sign import SIGNED_HEAD, Context, SigningKey, body_of, signer_of, verify, verify_once
from replicator.errors import FormatError, IntegrityError
from replicator.ids import identity_of

KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(range(1, 33)))
SIGNED = KEY.sign(Context.CLAIM, b"a claim")


def test_a_signed_record_is_key_signature_body() -> None:
    assert SIGNED[:32] == KEY.public == signer_of(SIGNED)
    assert SIGNED[SIGNED_HEAD:] == b"a claim" == body_of(SIGNED)
    Ed25519PublicKey.from_public_bytes(KEY.public).verify(
        SIGNED[32:96], b"replicator/1 claim\x00" + KEY.public + b"a claim"
    )


def test_a_signature_holds_for_its_key_among_others() -> None:
    assert verify(SIGNED, Context.CLAIM, [OTHER.public, KEY.public]) == b"a claim"


@pytest.mark.parametrize(("signed_for", "read_as"), list(itertools.permutations(Context, 2)))
def test_a_signature_for_one_thing_never_holds_for_another(signed_for: Context, read_as: Context) -> None:
    with pytest.raises(IntegrityError, match=f"{read_as.value.decode()}: the signature does not hold"):
        verify(KEY.sign(signed_for, b"body"), read_as, [KEY.public])


def test_no_context_runs_into_the_bytes_behind_it() -> None:
    for one, other in itertools.permutations(Context, 2):
        assert not (one.value + b"\x00").startswith(other.value + b"\x00")
        assert b"\x00" not in one.value


def test_every_flipped_bit_is_found() -> None:
    for at in range(len(SIGNED)):
        broken = bytearray(SIGNED)
        broken[at] ^= 1
        with pytest.raises(IntegrityError):
            verify(bytes(broken), Context.CLAIM, [KEY.public, bytes(broken[:32])])


def test_a_signer_that_may_not_is_named() -> None:
    with pytest.raises(IntegrityError, match=f"claim: signed by a key that may not .{KEY.identity.hex()[:12]}"):
        verify(SIGNED, Context.CLAIM, [OTHER.public])
    with pytest.raises(IntegrityError):
        verify(SIGNED, Context.CLAIM, [])


def test_anothers_signature_does_not_hold_under_a_key_that_may() -> None:
    stolen = KEY.public + OTHER.sign(Context.CLAIM, b"a claim")[32:]
    with pytest.raises(IntegrityError, match="does not hold"):
        verify(stolen, Context.CLAIM, [KEY.public])


def test_a_signature_that_held_is_not_checked_again_and_one_that_did_not_is(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    check = sign._check

    def noting(public: bytes, signature: bytes, message: bytes) -> None:
        checked.append(signature)
        check(public, signature, message)

    monkeypatch.setattr(sign, "_check", noting)
    monkeypatch.setattr(sign, "_held", set())
    monkeypatch.setattr(sign, "MOST_HELD", 2)
    assert [verify_once(SIGNED, Context.CLAIM) for _ in range(3)] == [b"a claim"] * 3
    assert len(checked) == 1
    for broken in (SIGNED[:-1] + b"M", SIGNED[:32] + bytes(64) + SIGNED[96:], OTHER.public + SIGNED[32:]):
        for _ in range(2):
            with pytest.raises(IntegrityError, match="does not hold"):
                verify_once(broken, Context.CLAIM)
    with pytest.raises(IntegrityError, match="does not hold"):
        verify_once(SIGNED, Context.WITNESS)
    assert len(checked) == 8
    for number in range(5):
        verify_once(KEY.sign(Context.CLAIM, bytes([number])), Context.CLAIM)
        assert len(sign._held) <= 2


def test_a_key_that_is_no_point_is_refused() -> None:
    nobody = b"\xff" * 32
    with pytest.raises(IntegrityError):
        verify(nobody + SIGNED[32:], Context.CLAIM, [nobody])


@pytest.mark.parametrize("length", [0, 31, 32, 95, 96])
def test_what_is_too_short_to_be_signed_is_refused(length: int) -> None:
    for act in (signer_of, body_of, lambda data: verify(data, Context.CLAIM, [KEY.public])):
        with pytest.raises(FormatError, match="too short"):
            act(SIGNED[:length])


def test_signing_again_gives_the_same_bytes() -> None:
    assert KEY.sign(Context.CLAIM, b"a claim") == SIGNED


def test_a_key_gives_its_seed_back_and_never_shows_it() -> None:
    assert KEY.seed() == bytes(range(32))
    assert SigningKey(KEY.seed()).public == KEY.public
    assert KEY.identity == identity_of(KEY.public)
    assert repr(KEY) == f"SigningKey({KEY.identity.hex()[:12]})"


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_damaged_seed_is_named(length: int) -> None:
    with pytest.raises(FormatError, match=f"{length} bytes"):
        SigningKey(bytes(length))


def test_ed25519_is_that_of_rfc_8032() -> None:
    # RFC 8032 §7.1, test 1
    key = SigningKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
