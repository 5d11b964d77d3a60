"""Secrets under a passphrase: Argon2id (RFC 9106), then AES-256-GCM with a key commitment.

The parameters travel with the wrapped secret and are held to bounds in both directions: at least RFC 9106's
second recommended option (64 MiB, 3 passes), and no more than 4 GiB, so that a hostile file cannot take the
machine's memory.
"""

import hmac
import unicodedata
from dataclasses import dataclass

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from replicator.crypto.aead import open_random, seal_random
from replicator.crypto.derive import commitment, hkdf
from replicator.errors import FormatError, KeyWrongError
from replicator.rng import Rng

MEMORY_KIB = 64 << 10
PASSES = 3
LANES = 4
MAX_MEMORY_KIB = 4 << 20
MAX_PASSES = 16
MAX_LANES = 16
SALT_SIZE = 16
MIN_LENGTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """The parts of a wrapped secret; a record of the format layer stores them."""

    salt: bytes
    memory_kib: int
    passes: int
    lanes: int
    commitment: bytes
    sealed: bytes


def _stretch(passphrase: str, salt: bytes, memory_kib: int, passes: int, lanes: int) -> bytes:
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib)
    # RFC 8265 §4.2: one keyboard writes é as one code point, another as two.
    return kdf.derive(unicodedata.normalize("NFC", passphrase).encode())


def wrap(passphrase: str, secret: bytes, label: bytes, rng: Rng) -> Wrapped:
    """Return ``secret`` under ``passphrase``; ``label`` says what it is and must be given again to open it."""
    salt = rng.bytes(SALT_SIZE)
    stretched = _stretch(passphrase, salt, MEMORY_KIB, PASSES, LANES)
    key = hkdf(stretched, label=b"passphrase", context=label)
    return Wrapped(
        salt=salt,
        memory_kib=MEMORY_KIB,
        passes=PASSES,
        lanes=LANES,
        commitment=commitment(key),
        sealed=seal_random(key, secret, label, rng),
    )


def unwrap(passphrase: str, wrapped: Wrapped, label: bytes) -> bytes:
    """Return the secret.

    Raises:
        KeyWrongError: the passphrase is wrong.
        IntegrityError: the passphrase is right and the bytes are damaged.
        FormatError: the parameters are out of bounds.
    """
    if not (
        MEMORY_KIB <= wrapped.memory_kib <= MAX_MEMORY_KIB
        and PASSES <= wrapped.passes <= MAX_PASSES
        and 1 <= wrapped.lanes <= MAX_LANES
    ):
        raise FormatError(
            f"wrapped key: made with {wrapped.memory_kib} KiB, {wrapped.passes} passes, {wrapped.lanes} lanes; "
            f"allowed are {MEMORY_KIB}–{MAX_MEMORY_KIB}, {PASSES}–{MAX_PASSES}, 1–{MAX_LANES}"
        )
    stretched = _stretch(passphrase, wrapped.salt, wrapped.memory_kib, wrapped.passes, wrapped.lanes)
    key = hkdf(stretched, label=b"passphrase", context=label)
    if not hmac.compare_digest(commitment(key), wrapped.commitment):
        raise KeyWrongError(
            "the passphrase is wrong",
            hint="try again; without it, the recovery sheet makes a new keeper's home (replicator recover)",
        )
    return open_random(key, wrapped.sealed, label, "wrapped key")
