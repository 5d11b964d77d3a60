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
from replicator.errors import FormatError, KeyWrongError, SpaceError, UsageError
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
class Cost:
    """What one try of a passphrase costs.

    Raises:
        UsageError: out of bounds.
    """

    memory_kib: int = MEMORY_KIB
    passes: int = PASSES
    lanes: int = LANES

    def __post_init__(self) -> None:
        problem = _out_of_bounds(self.memory_kib, self.passes, self.lanes)
        if problem:
            raise UsageError(problem)


def _out_of_bounds(memory_kib: int, passes: int, lanes: int) -> str:
    """Return in words what is wrong with parameters, nothing if they are allowed."""
    if MEMORY_KIB <= memory_kib <= MAX_MEMORY_KIB and PASSES <= passes <= MAX_PASSES and 1 <= lanes <= MAX_LANES:
        return ""
    return (
        f"{memory_kib} KiB, {passes} passes, {lanes} lanes; "
        f"allowed are {MEMORY_KIB}–{MAX_MEMORY_KIB}, {PASSES}–{MAX_PASSES}, 1–{MAX_LANES}"
    )


DEFAULT_COST = Cost()


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
    try:
        return kdf.derive(unicodedata.normalize("NFC", passphrase).encode())
    except MemoryError as error:
        raise SpaceError(
            f"the passphrase takes {memory_kib // 1024} MiB of memory to try, which are not free"
        ) from error


def wrap(passphrase: str, secret: bytes, label: bytes, rng: Rng, cost: Cost = DEFAULT_COST) -> Wrapped:
    """Return ``secret`` under ``passphrase``; ``label`` says what it is and must be given again to open it."""
    salt = rng.bytes(SALT_SIZE)
    stretched = _stretch(passphrase, salt, cost.memory_kib, cost.passes, cost.lanes)
    key = hkdf(stretched, label=b"passphrase", context=label)
    return Wrapped(
        salt=salt,
        memory_kib=cost.memory_kib,
        passes=cost.passes,
        lanes=cost.lanes,
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
    problem = _out_of_bounds(wrapped.memory_kib, wrapped.passes, wrapped.lanes)
    if problem:
        raise FormatError(f"wrapped key: made with {problem}")
    stretched = _stretch(passphrase, wrapped.salt, wrapped.memory_kib, wrapped.passes, wrapped.lanes)
    key = hkdf(stretched, label=b"passphrase", context=label)
    if not hmac.compare_digest(commitment(key), wrapped.commitment):
        raise KeyWrongError(
            "the passphrase is wrong",
            hint="try again; if it is lost, the recovery sheet makes a new one (replicator key reset)",
        )
    return open_random(key, wrapped.sealed, label, "wrapped key")
