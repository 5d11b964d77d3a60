"""Handing a member keys that came after it joined: HPKE to the key that is its identity.

An Ed25519 key pair is an X25519 key pair in another dress (the birational map of RFC 7748 §4.1), so whoever has a
place in the charter can be sealed to, and no second public key has to be registered, pinned and rotated beside the
first. That both uses of one key do not weaken each other is Thormarker, *On using the same key pair for Ed25519 and
an X25519 based KEM* (eprint 2021/509); age and libsodium do the same.

A node may import this: it opens only what was handed to the node's own key, never what restore keys or root open.

Handing has no sender: the owner who signs the charter is believed, and may be a thief. That a restore key follows
another is shown by the private half of that one, which the owner key alone does not give: by a MAC under the X25519
secret that it shares with the member (static-static Diffie-Hellman, as HPKE's authenticated mode has it, RFC 9180
§5.1.3). Nobody but that member, and who holds the restore key, can check it, or make it.
"""

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA512, Hash

from replicator.crypto.derive import hkdf
from replicator.crypto.seal import SUITE
from replicator.crypto.sign import SigningKey
from replicator.errors import IntegrityError

PURPOSE_HANDED: Final = b"replicator/1 handed keys"
_P: Final = 2**255 - 19


def montgomery_of(public: bytes) -> bytes:
    """Return the X25519 public key of an Ed25519 public key: u = (1 + y) / (1 - y).

    Raises:
        IntegrityError: the neutral point, which no key pair has.
    """
    y = int.from_bytes(public, "little") & (2**255 - 1)
    if (1 - y) % _P == 0:
        raise IntegrityError("key: of small order, nothing can be sealed to it")
    return ((1 + y) * pow(1 - y, -1, _P) % _P).to_bytes(32, "little")


def hand(public: bytes, plaintext: bytes) -> bytes:
    """Return ``plaintext`` sealed to the holder of an Ed25519 key."""
    return SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(montgomery_of(public)), PURPOSE_HANDED)


def restore_statement(tenant: bytes, domain: bytes, former: bytes, successor: bytes) -> bytes:
    """Return what is proven when a restore key follows another; all parts have fixed lengths."""
    return tenant + domain + former + successor


def prove(private: bytes, public: bytes, statement: bytes) -> bytes:
    """Return what shows the holder of an Ed25519 key that who says ``statement`` has this X25519 private key."""
    shared = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(montgomery_of(public))
    )
    return hkdf(shared, label=b"restore successor", context=public + statement)


def is_proven(key: SigningKey, public: bytes, statement: bytes, proof: bytes) -> bool:
    """Return whether who had the private half of an X25519 key said ``statement`` to the holder of this key."""
    try:
        shared = _scalar(key).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # a key of small order
        return False
    return hmac.compare_digest(hkdf(shared, label=b"restore successor", context=key.public + statement), proof)


def take(key: SigningKey, sealed: bytes, what: str) -> bytes:
    """Return what was handed to this key.

    Raises:
        IntegrityError: it was handed to another, or is damaged.
    """
    try:
        return SUITE.decrypt(sealed, _scalar(key), PURPOSE_HANDED)
    except (InvalidTag, ValueError) as error:
        raise IntegrityError(f"{what}: not handed to this key, or damaged") from error


def _scalar(key: SigningKey) -> X25519PrivateKey:
    digest = Hash(SHA512())
    digest.update(key.seed())
    # The scalar of RFC 8032 §5.1.5; X25519 clamps it as Ed25519 does.
    return X25519PrivateKey.from_private_bytes(digest.finalize()[:32])
