"""AES-256-GCM (NIST SP 800-38D) with the nonces this project uses: constants and counters under fresh keys."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from replicator.errors import IntegrityError
from replicator.rng import Rng

TAG_SIZE = 16
NONCE_SIZE = 12
KEY_SIZE = 32


def _aes256(key: bytes) -> AESGCM:
    # The library would take a key of 16 or 24 bytes and quietly be AES-128 or AES-192.
    if len(key) != KEY_SIZE:
        raise ValueError(f"a key of {len(key)} bytes, AES-256 has {KEY_SIZE}")
    return AESGCM(key)


class Sealer:
    """One key, used with counters: never the same counter twice."""

    def __init__(self, key: bytes) -> None:
        self._aead = _aes256(key)

    def seal(self, counter: int, plaintext: bytes | bytearray | memoryview, associated: bytes) -> bytes:
        """Return ciphertext and tag."""
        return self._aead.encrypt(counter.to_bytes(NONCE_SIZE, "big"), plaintext, associated)

    def seal_into(
        self, counter: int, plaintext: bytes | bytearray | memoryview, associated: bytes, out: memoryview
    ) -> None:
        """Write ciphertext and tag into ``out``, which is exactly ``len(plaintext) + 16`` bytes."""
        self._aead.encrypt_into(counter.to_bytes(NONCE_SIZE, "big"), plaintext, associated, out)

    def open(self, counter: int, sealed: bytes | bytearray | memoryview, associated: bytes, what: str) -> bytes:
        """Return the plaintext.

        Raises:
            IntegrityError: wrong key, other associated data, or changed bytes; ``what`` names the thing.
        """
        try:
            return self._aead.decrypt(counter.to_bytes(NONCE_SIZE, "big"), sealed, associated)
        except (InvalidTag, ValueError) as error:
            raise IntegrityError(f"{what}: does not open; the bytes are damaged or belong to something else") from error


def seal_random(key: bytes, plaintext: bytes, associated: bytes, rng: Rng) -> bytes:
    """Return a random nonce, ciphertext and tag: for keys that seal few things (charters, wrapped secrets)."""
    nonce = rng.bytes(NONCE_SIZE)
    return nonce + _aes256(key).encrypt(nonce, plaintext, associated)


def open_random(key: bytes, sealed: bytes, associated: bytes, what: str) -> bytes:
    """Return the plaintext of :func:`seal_random`.

    Raises:
        IntegrityError: wrong key or changed bytes.
    """
    aead = _aes256(key)
    try:
        return aead.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], associated)
    except (InvalidTag, ValueError) as error:
        raise IntegrityError(f"{what}: does not open; wrong key or damaged bytes") from error
