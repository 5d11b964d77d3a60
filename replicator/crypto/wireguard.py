"""Key pairs of WireGuard: Curve25519 (RFC 7748), with the private half clamped as ``wg genkey`` does."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from replicator.rng import Rng

KEY_SIZE = 32


def new_private(rng: Rng) -> bytes:
    """Return a new private key."""
    key = bytearray(rng.bytes(KEY_SIZE))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return bytes(key)


def public_of(private: bytes) -> bytes:
    """Return the public half."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
