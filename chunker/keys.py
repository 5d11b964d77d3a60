"""From a 32-byte chunker key to the secret constants of the algorithm.

The key makes cut points differ between domains. It is hygiene, not the defence: whoever sees the lengths of
chunks can recover it from a few cuts, which is why lengths stay hidden inside fixed-size packs. Changing the
key, or a byte of this derivation, loses deduplication against everything stored before.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from chunker.errors import ChunkerError, ParameterError

KEY_BYTES: Final = 32
_CONTEXT: Final = b"fgcdc-v1"
_WORDS: Final = 9
_DRAWS: Final = 256  # a key is accepted after 2.9 draws on average; 18 rejections were the most in 3,000 keys
_STRIDE_STEPS: Final = range(8)
_COMMON_FILL: Final = frozenset((0x00, 0x20, 0xFF))


@dataclass(frozen=True, slots=True)
class KernelKey:
    """The constants that the kernels compute with; secret, so they are left out of the repr.

    `words` are N_0..N_8 of the stage-2 hash (64 bits); `k1`, `k2` (odd) and `t` are those of the stage-1
    filter (16 bits).
    """

    words: tuple[int, ...] = field(repr=False)
    k1: int = field(repr=False)
    k2: int = field(repr=False)
    t: int = field(repr=False)


def derive_key(key: bytes) -> KernelKey:
    """Derive the constants from BLAKE3 in keyed mode over the context, as extendable output.

    Output bytes: [0, 72) are the nine words; from 72 on, draws of eight bytes (a, b, t as 16-bit numbers and
    two unused bytes), of which the first that starves no constant run is taken. Everything is little-endian.

    Raises:
        ParameterError: the key is not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        raise ParameterError("key", f"{len(key)} bytes", f"{KEY_BYTES} bytes")
    stream = blake3(_CONTEXT, key=bytes(key)).digest(length=8 * (_WORDS + _DRAWS))
    words = struct.unpack_from("<9Q", stream)
    for draw in range(_DRAWS):
        a, b, t = struct.unpack_from("<3H", stream, 8 * (_WORDS + draw))
        k1, k2 = a | 1, b | 1
        if _spares_constant_runs(k1, k2, t):
            return KernelKey(words, k1, k2, t)
    raise ChunkerError("no usable filter constants follow from this key; make a new key")


def _spares_constant_runs(k1: int, k2: int, t: int) -> bool:
    """Whether no run of one repeated byte consists of candidates.

    Such a run would send every position to the slow second stage. The fill bytes that real data is full of
    (zero, space, 0xFF) must fail on two particular bits, which also keeps the edges of such runs thin.
    """
    for byte in range(256):
        u = (k1 + k2) * 257 * byte & 0xFFFF
        value = 0
        for step in _STRIDE_STEPS:
            value ^= u >> 2 * step
        if (value ^ t) & (0x300 if byte in _COMMON_FILL else 0x3FF) == 0:
            return False
    return True
