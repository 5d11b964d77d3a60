"""The recovery secret: 256 random bits, written down as SLIP-39 words, from which root is derived.

SLIP-39 (SatoshiLabs) by ``shamir-mnemonic``: one group, one share of one; a later two-of-three keeps the format.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import shamir_mnemonic
from shamir_mnemonic import rs1024
from shamir_mnemonic.wordlist import WORDLIST

from replicator.crypto.derive import hkdf
from replicator.crypto.sign import SigningKey
from replicator.errors import KeyWrongError
from replicator.rng import Rng

SECRET_SIZE = 32
WORD_COUNT = 33
PREFIX = 4
"""Letters that no two words of the list share at their beginning (SLIP-0039, the wordlist's rules)."""
_WORD_BITS = 10
_CHECKSUM = 3
_FLAG_WORD = 1
_WORDS = frozenset(WORDLIST)
_NUMBERS = {word: number for number, word in enumerate(WORDLIST)}
_BY_PREFIX = {word[:PREFIX]: word for word in WORDLIST}


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


def whole_word(typed: str) -> str | None:
    """Return the word of the list that is meant: itself, or by its first four letters or more; None if none is."""
    text = typed.strip().lower()
    if text in _WORDS:
        return text
    found = _BY_PREFIX.get(text[:PREFIX]) if len(text) >= PREFIX else None
    return found if found is not None and found.startswith(text) else None


def unknown_words(words: list[str]) -> list[tuple[int, str]]:
    """Return (position from 1, word) for each word that is not in the SLIP-39 list, nor the beginning of one."""
    return [(i, word) for i, word in enumerate(words, 1) if whole_word(word) is None]


def suspects(words: list[str]) -> list[int]:
    """Return the positions (from 1) at which one other word would make the checksum hold.

    The checksum of SLIP-39 tells any three wrong words (RS1024), so of a sheet with one wrong word it leaves one
    position. ``words`` are whole ones, as many as a sheet has.
    """
    numbers = [_NUMBERS[word] for word in words]
    data, given = numbers[:-_CHECKSUM], numbers[-_CHECKSUM:]
    wrong = _bits(a ^ b for a, b in zip(rs1024.create_checksum(data, _customization(numbers)), given, strict=True))
    zero = rs1024.create_checksum([0] * len(data), b"")
    found = []
    for place in range(len(data)):
        if place == _FLAG_WORD:
            tried = ([*numbers[:place], number, *numbers[place + 1 :]] for number in range(len(WORDLIST)))
            hit = any(rs1024.verify_checksum(one, _customization(one)) for one in tried)
        else:
            # The checksum is linear: what changing one word does to it does not depend on the others.
            reach = {0}
            for bit in range(_WORD_BITS):
                flipped = [0] * place + [1 << bit] + [0] * (len(data) - place - 1)
                step = _bits(a ^ b for a, b in zip(rs1024.create_checksum(flipped, b""), zero, strict=True))
                reach |= {one ^ step for one in reach}
            hit = wrong in reach
        if hit:
            found.append(place + 1)
    return found + [len(data) + i + 1 for i in range(_CHECKSUM) if wrong & ~(1023 << _WORD_BITS * i) == 0]


def _customization(numbers: list[int]) -> bytes:
    # Identifier (15 bits), the flag that chooses the checksum's customization, iteration exponent (4): two words.
    return b"shamir_extendable" if numbers[_FLAG_WORD] >> 4 & 1 else b"shamir"


def _bits(numbers: Iterable[int]) -> int:
    return sum(number << _WORD_BITS * i for i, number in enumerate(numbers))


def from_words(words: list[str]) -> bytes:
    """Return the recovery secret.

    Raises:
        KeyWrongError: a word is unknown, or the checksum says that one is wrong; the position is named if known.
    """
    bad = unknown_words(words)
    if bad:
        named = ", ".join(f"word {i} ('{word.strip().lower()}')" for i, word in bad[:3])
        raise KeyWrongError(f"the sheet has words that are not in the list: {named}", hint="look at the paper again")
    clean = [whole for word in words if (whole := whole_word(word)) is not None]
    if len(clean) != WORD_COUNT:
        raise KeyWrongError(f"the sheet has {WORD_COUNT} words, {len(clean)} were given")
    try:
        secret: bytes = shamir_mnemonic.combine_mnemonics([" ".join(clean)])
    except shamir_mnemonic.MnemonicError as error:
        raise KeyWrongError(
            "the words do not fit together: at least one is wrong or in the wrong place",
            hint=_where_to_look(clean),
        ) from error
    if len(secret) != SECRET_SIZE:
        raise KeyWrongError("these words are of another kind of sheet")
    return secret


def _where_to_look(words: list[str]) -> str:
    places = suspects(words)
    if len(places) == 1:
        return f"if one word alone is wrong, it is word {places[0]}: compare it with the paper"
    return "compare each word with the paper; the checksum tells that more than one is wrong, not which"
