"""The recovery secret: 256 random bits, written down as SLIP-39 words, from which root is derived.

SLIP-39 (SatoshiLabs) by ``shamir-mnemonic``: one group, one share of one; a later two-of-three keeps the format.
"""

from dataclasses import dataclass, field

import shamir_mnemonic
from shamir_mnemonic.wordlist import WORDLIST

from replicator.crypto.derive import hkdf
from replicator.crypto.sign import SigningKey
from replicator.errors import KeyWrongError
from replicator.rng import Rng

SECRET_SIZE = 32
WORD_COUNT = 33
_WORDS = frozenset(WORDLIST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """What the sheet gives: a signing key and the private half of the seal key. Lives only while needed."""

    signing: SigningKey
    seal_private: bytes = field(repr=False)


def new_secret(rng: Rng) -> bytes:
    """Return a new recovery secret."""
    return rng.bytes(SECRET_SIZE)


def root_of(secret: bytes) -> Root:
    """Return the root keys of a recovery secret."""
    return Root(
        signing=SigningKey(hkdf(secret, label=b"root sign")),
        seal_private=hkdf(secret, label=b"root seal"),
    )


def to_words(secret: bytes) -> list[str]:
    """Return the 33 words of the sheet."""
    [[words]] = shamir_mnemonic.generate_mnemonics(1, [(1, 1)], secret)
    return str(words).split()


def unknown_words(words: list[str]) -> list[tuple[int, str]]:
    """Return (position from 1, word) for each word that is not in the SLIP-39 list."""
    return [(i, word) for i, word in enumerate(words, 1) if word not in _WORDS]


def from_words(words: list[str]) -> bytes:
    """Return the recovery secret.

    Raises:
        KeyWrongError: a word is unknown, or the checksum says that one is wrong; the position is named if known.
    """
    clean = [word.strip().lower() for word in words]
    bad = unknown_words(clean)
    if bad:
        named = ", ".join(f"word {i} ('{word}')" for i, word in bad[:3])
        raise KeyWrongError(f"the sheet has words that are not in the list: {named}", hint="look at the paper again")
    if len(clean) != WORD_COUNT:
        raise KeyWrongError(f"the sheet has {WORD_COUNT} words, {len(clean)} were given")
    try:
        secret: bytes = shamir_mnemonic.combine_mnemonics([" ".join(clean)])
    except shamir_mnemonic.MnemonicError as error:
        raise KeyWrongError(
            "the words do not fit together: at least one is wrong or in the wrong place",
            hint="compare each word with the paper; the checksum finds any wrong word but cannot say which",
        ) from error
    if len(secret) != SECRET_SIZE:
        raise KeyWrongError("these words are of another kind of sheet")
    return secret
