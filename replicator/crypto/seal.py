"""Sealing to a public key: HPKE base mode (RFC 9180), X25519, HKDF-SHA256, AES-256-GCM.

Only the public half lives here. Opening is :mod:`replicator.crypto.unseal`, which a node never imports.

A *box* is a larger secret for a restore key: HPKE-sealed random secret (80 bytes), key commitment (32), then
AES-256-GCM under the key mixed from that secret and the domain's mix, nonce 0.
"""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from replicator.crypto.aead import Sealer
from replicator.crypto.derive import commitment, content_key
from replicator.rng import Rng

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
SECRET_SIZE = 32
SEALED_SECRET_SIZE = 80
PURPOSE_PACK = b"replicator/1 pack slot"
PURPOSE_BOX = b"replicator/1 box"
PURPOSE_KEYBAG = b"replicator/1 keybag"
PURPOSE_RESTORE = b"replicator/1 restore key"
PURPOSE_GRANT = b"replicator/1 node grant"


def seal_to(public_key: bytes, plaintext: bytes, purpose: bytes) -> bytes:
    """Return encapsulation and ciphertext (48 bytes more than the plaintext) for a raw X25519 public key."""
    return SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(public_key), purpose)


def seal_box(
    public_key: bytes, mix: bytes, tenant: bytes, domain: bytes, plaintext: bytes, associated: bytes, rng: Rng
) -> bytes:
    """Return a box that only the restore key's holder, knowing the domain's mix, can open."""
    secret = rng.bytes(SECRET_SIZE)
    key = content_key(secret, mix, tenant, domain)
    return seal_to(public_key, secret, PURPOSE_BOX) + commitment(key) + Sealer(key).seal(0, plaintext, associated)
