"""Opening what was sealed to a restore key or to root. Never imported by a node's nightly code."""

import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from replicator.crypto.aead import Sealer
from replicator.crypto.derive import commitment, content_key
from replicator.crypto.seal import PURPOSE_BOX, PURPOSE_PACK, SEALED_SECRET_SIZE, SUITE
from replicator.errors import IntegrityError, KeyWrongError

COMMITMENT_SIZE = 32


def public_of(private_key: bytes) -> bytes:
    """Return the raw X25519 public key of a raw private key."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def unseal(private_key: bytes, sealed: bytes, purpose: bytes, what: str) -> bytes:
    """Return what :func:`replicator.crypto.seal.seal_to` sealed.

    Raises:
        KeyWrongError: not sealed to this key, or damaged; the two cannot be told apart.
    """
    try:
        return SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(private_key), purpose)
    except (InvalidTag, ValueError) as error:
        raise KeyWrongError(f"{what}: not sealed to this key, or damaged") from error


def open_with_any(private_keys: Sequence[bytes], opened: Callable[[bytes], bytes]) -> bytes:
    """Return what the first of these keys opens that it was sealed to: which one that is, no sealed bytes say.

    Raises:
        KeyWrongError: none of them.
    """
    for private_key in private_keys[:-1]:
        with suppress(KeyWrongError):
            return opened(private_key)
    return opened(private_keys[-1])


def open_slot(
    private_key: bytes, mix: bytes, tenant: bytes, domain: bytes, sealed: bytes, expected: bytes, what: str
) -> bytes:
    """Return a pack's content key from a slot, after its commitment was checked.

    Raises:
        KeyWrongError: another restore key's slot.
        IntegrityError: the commitment does not match.
    """
    return _committed(private_key, mix, tenant, domain, sealed, expected, PURPOSE_PACK, what)


def open_box(
    private_key: bytes, mix: bytes, tenant: bytes, domain: bytes, box: bytes, associated: bytes, what: str
) -> bytes:
    """Return the plaintext of :func:`replicator.crypto.seal.seal_box`.

    Raises:
        KeyWrongError: another key's box.
        IntegrityError: changed bytes.
    """
    end = SEALED_SECRET_SIZE + COMMITMENT_SIZE
    if len(box) < end:
        raise IntegrityError(f"{what}: too short")
    expected = box[SEALED_SECRET_SIZE:end]
    key = _committed(private_key, mix, tenant, domain, box[:SEALED_SECRET_SIZE], expected, PURPOSE_BOX, what)
    return Sealer(key).open(0, box[end:], associated, what)


def _committed(
    private_key: bytes,
    mix: bytes,
    tenant: bytes,
    domain: bytes,
    sealed: bytes,
    expected: bytes,
    purpose: bytes,
    what: str,
) -> bytes:
    secret = unseal(private_key, sealed, purpose, what)
    key = content_key(secret, mix, tenant, domain)
    if not hmac.compare_digest(commitment(key), expected):
        raise IntegrityError(f"{what}: the key does not match its commitment")
    return key
