"""Sealing and opening are tested together: ``seal`` and ``unseal`` are two files only so that nodes import one."""

import ast
import hashlib
import hmac
import inspect
import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from replicator.crypto import seal
from replicator.crypto.derive import commitment, content_key
from replicator.crypto.seal import (
    PURPOSE_BOX,
    PURPOSE_GRANT,
    PURPOSE_KEYBAG,
    PURPOSE_PACK,
    SEALED_SECRET_SIZE,
    seal_box,
    seal_to,
)
from replicator.crypto.unseal import COMMITMENT_SIZE, open_box, open_slot, public_of, unseal
from replicator.errors import IntegrityError, KeyWrongError
from tests.fakes import SeededRng

PRIVATE, OTHER = bytes(range(32)), bytes(range(7, 39))
PUBLIC = public_of(PRIVATE)
MIX, TENANT, DOMAIN = bytes([9]) * 32, bytes([1]) * 16, bytes([2]) * 16
PURPOSES = (PURPOSE_BOX, PURPOSE_GRANT, PURPOSE_KEYBAG, PURPOSE_PACK)


def rfc9180_open(private: bytes, sealed: bytes, info: bytes) -> bytes:
    """HPKE base mode, single shot, no associated data, as RFC 9180 §4–5 has it, for X25519 and AES-256-GCM."""

    def extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + secret, hashlib.sha256)

    def expand(suite: bytes, key: bytes, label: bytes, context: bytes, length: int) -> bytes:
        text = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(key, text + b"\x01", hashlib.sha256)[:length]

    encapsulated, ciphertext = sealed[:32], sealed[32:]
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    own = X25519PrivateKey.from_private_bytes(private)
    shared = own.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    kem_context = encapsulated + own.public_key().public_bytes_raw()
    secret = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", kem_context, 32)
    context = b"\x00" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    schedule = extract(suite, secret, b"secret", b"")
    key = expand(suite, schedule, b"key", context, 32)
    nonce = expand(suite, schedule, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_is_sealed_is_hpke_base_mode_of_rfc_9180(purpose: bytes) -> None:
    assert rfc9180_open(PRIVATE, seal_to(PUBLIC, b"a secret", purpose), purpose) == b"a secret"


@pytest.mark.parametrize("length", [0, 1, 32, 5000])
def test_what_was_sealed_opens_again_and_is_48_bytes_longer(length: int) -> None:
    sealed = seal_to(PUBLIC, bytes(length), PURPOSE_KEYBAG)
    assert len(sealed) == length + 48
    assert unseal(PRIVATE, sealed, PURPOSE_KEYBAG, "keybag") == bytes(length)


def test_a_sealed_secret_is_new_each_time() -> None:
    one, two = seal_to(PUBLIC, bytes(32), PURPOSE_PACK), seal_to(PUBLIC, bytes(32), PURPOSE_PACK)
    assert len(one) == SEALED_SECRET_SIZE
    assert one[:32] != two[:32]
    assert one[32:] != two[32:]


@pytest.mark.parametrize(("sealed_for", "opened_as"), list(itertools.permutations(PURPOSES, 2)))
def test_what_was_sealed_for_one_purpose_does_not_open_for_another(sealed_for: bytes, opened_as: bytes) -> None:
    with pytest.raises(KeyWrongError):
        unseal(PRIVATE, seal_to(PUBLIC, b"x", sealed_for), opened_as, "it")


def test_another_key_or_damage_does_not_open() -> None:
    sealed = seal_to(PUBLIC, b"secret", PURPOSE_KEYBAG)
    with pytest.raises(KeyWrongError, match="keybag: not sealed to this key, or damaged"):
        unseal(OTHER, sealed, PURPOSE_KEYBAG, "keybag")
    for at in range(len(sealed)):
        broken = bytearray(sealed)
        broken[at] ^= 1
        with pytest.raises(KeyWrongError):
            unseal(PRIVATE, bytes(broken), PURPOSE_KEYBAG, "keybag")
    for short in (b"", sealed[:31], sealed[:47], sealed[:-1], bytes(80)):
        with pytest.raises(KeyWrongError):
            unseal(PRIVATE, short, PURPOSE_KEYBAG, "keybag")


def slot(secret: bytes = bytes(32)) -> tuple[bytes, bytes]:
    """Return a sealed secret and the commitment of the key made from it."""
    return seal_to(PUBLIC, secret, PURPOSE_PACK), commitment(content_key(secret, MIX, TENANT, DOMAIN))


def test_a_slot_gives_the_content_key() -> None:
    sealed, expected = slot(b"s" * 32)
    assert open_slot(PRIVATE, MIX, TENANT, DOMAIN, sealed, expected, "slot") == content_key(
        b"s" * 32, MIX, TENANT, DOMAIN
    )


def test_a_slot_of_another_domain_tenant_or_mix_does_not_match_its_commitment() -> None:
    sealed, expected = slot()
    for mix, tenant, domain, wanted in (
        (bytes(32), TENANT, DOMAIN, expected),
        (MIX, DOMAIN, DOMAIN, expected),
        (MIX, TENANT, TENANT, expected),
        (MIX, TENANT, DOMAIN, bytes(32)),
        (MIX, TENANT, DOMAIN, expected[:-1]),
    ):
        with pytest.raises(IntegrityError, match="slot: the key does not match its commitment"):
            open_slot(PRIVATE, mix, tenant, domain, sealed, wanted, "slot")


def test_another_restore_key_cannot_open_a_slot() -> None:
    with pytest.raises(KeyWrongError):
        open_slot(OTHER, MIX, TENANT, DOMAIN, *slot(), "slot")


def box(plaintext: bytes = b"names", associated: bytes = b"context") -> bytes:
    """Return a box for the restore key."""
    return seal_box(PUBLIC, MIX, TENANT, DOMAIN, plaintext, associated, SeededRng("box"))


def test_a_box_is_sealed_secret_commitment_and_ciphertext() -> None:
    data = box()
    assert len(data) == SEALED_SECRET_SIZE + COMMITMENT_SIZE + len(b"names") + 16
    secret = unseal(PRIVATE, data[:80], PURPOSE_BOX, "it")
    key = content_key(secret, MIX, TENANT, DOMAIN)
    assert data[80:112] == commitment(key)
    assert AESGCM(key).decrypt(bytes(12), data[112:], b"context") == b"names"


def test_a_box_opens_for_its_key_domain_and_context() -> None:
    assert open_box(PRIVATE, MIX, TENANT, DOMAIN, box(), b"context", "box") == b"names"


def test_a_box_does_not_open_for_anything_else() -> None:
    with pytest.raises(KeyWrongError):
        open_box(OTHER, MIX, TENANT, DOMAIN, box(), b"context", "box")
    for mix, tenant, domain, associated in (
        (bytes(32), TENANT, DOMAIN, b"context"),
        (MIX, DOMAIN, DOMAIN, b"context"),
        (MIX, TENANT, TENANT, b"context"),
        (MIX, TENANT, DOMAIN, b"another"),
    ):
        with pytest.raises(IntegrityError):
            open_box(PRIVATE, mix, tenant, domain, box(), associated, "box")


def test_every_flipped_bit_of_a_box_is_found() -> None:
    data = box()
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 4
        with pytest.raises((IntegrityError, KeyWrongError)):
            open_box(PRIVATE, MIX, TENANT, DOMAIN, bytes(broken), b"context", "box")


@pytest.mark.parametrize("length", [0, 80, 111, 112, 127])
def test_a_box_cut_short_is_refused(length: int) -> None:
    with pytest.raises(IntegrityError):
        open_box(PRIVATE, MIX, TENANT, DOMAIN, box()[:length], b"context", "box")


def test_the_file_that_nodes_import_knows_no_private_key() -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(seal)))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert "X25519PrivateKey" not in imported
    assert "X25519PublicKey" in imported
