import hashlib
import hmac

import pytest

from replicator.crypto.derive import chunk_id_key, commitment, content_key, hkdf, object_key

SECRET = bytes(range(32))
TENANT, DOMAIN = bytes([1]) * 16, bytes([2]) * 16


def rfc5869(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 as RFC 5869 §2 has it."""
    key = hmac.digest(salt or bytes(32), secret, hashlib.sha256)
    out, block, count = b"", b"", 0
    while len(out) < length:
        count += 1
        block = hmac.digest(key, block + info + bytes([count]), hashlib.sha256)
        out += block
    return out[:length]


@pytest.mark.parametrize("length", [8, 32, 64])
def test_a_key_is_hkdf_sha256_with_project_version_and_label(length: int) -> None:
    got = hkdf(SECRET, label=b"a label", salt=b"salt", context=b"context", length=length)
    assert got == rfc5869(SECRET, b"salt", b"replicator/1 a label\x00context", length)


def test_the_implementation_that_we_compare_with_is_the_rfcs() -> None:
    # RFC 5869 A.1
    okm = rfc5869(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert okm.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def test_label_and_context_do_not_run_into_each_other() -> None:
    assert hkdf(SECRET, label=b"ab", context=b"c") != hkdf(SECRET, label=b"a", context=b"bc")
    assert hkdf(SECRET, label=b"a") != hkdf(SECRET, label=b"a", context=b"\x00")


def test_derived_keys_are_these() -> None:
    info = b"replicator/1 "
    assert chunk_id_key(SECRET, 3) == rfc5869(SECRET, b"", info + b"chunk id\x00\x03", 32)
    assert object_key(SECRET, b"s" * 32, TENANT, DOMAIN) == rfc5869(
        SECRET, b"s" * 32, info + b"object\x00" + TENANT + DOMAIN, 32
    )
    assert content_key(SECRET, b"m" * 32, TENANT, DOMAIN) == rfc5869(
        SECRET, b"m" * 32, info + b"content\x00" + TENANT + DOMAIN, 32
    )
    assert commitment(SECRET) == rfc5869(SECRET, b"", info + b"commitment\x00", 32)


def test_each_use_tenant_domain_salt_and_kind_has_a_key_of_its_own() -> None:
    keys = [
        *(chunk_id_key(SECRET, kind) for kind in (1, 2, 3)),
        object_key(SECRET, b"a" * 32, TENANT, DOMAIN),
        object_key(SECRET, b"b" * 32, TENANT, DOMAIN),
        object_key(SECRET, b"a" * 32, DOMAIN, TENANT),
        content_key(SECRET, b"a" * 32, TENANT, DOMAIN),
        content_key(SECRET, b"b" * 32, TENANT, DOMAIN),
        content_key(SECRET, b"a" * 32, DOMAIN, TENANT),
        commitment(SECRET),
    ]
    assert len(set(keys)) == len(keys)
