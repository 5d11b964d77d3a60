import pytest
from blake3 import blake3

from chunker import keys
from chunker.errors import ChunkerError, ParameterError
from chunker.keys import KernelKey, derive_key
from tests.chunker.data import KEY
from tests.chunker.vectors import key_vectors


@pytest.mark.parametrize(("key", "words", "k1", "k2", "t"), key_vectors())
def test_the_derivation_equals_its_vectors(key: bytes, words: tuple[int, ...], k1: int, k2: int, t: int) -> None:
    assert derive_key(key) == KernelKey(words, k1, k2, t)


def test_the_multipliers_are_odd_and_everything_fits_its_width() -> None:
    for number in range(50):
        derived = derive_key(blake3(b"%d" % number).digest())
        assert derived.k1 % 2 == derived.k2 % 2 == 1
        assert max(derived.k1, derived.k2, derived.t) < 1 << 16
        assert len(derived.words) == 9
        assert max(derived.words) < 1 << 64


def test_no_run_of_a_repeated_byte_passes_the_narrowest_filter() -> None:
    for number in range(20):
        derived = derive_key(blake3(b"%d" % number).digest())
        for byte in range(256):
            w = byte * 257
            u = (derived.k1 * w + derived.k2 * w) % 2**16
            value = 0
            for step in range(8):
                value ^= u >> (2 * step)
            assert (value ^ derived.t) % 1024 != 0


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ParameterError, match=f"key is {length} bytes"):
        derive_key(bytes(length))


def test_a_key_whose_draws_are_all_rejected_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_spares_constant_runs", lambda *_: False)
    with pytest.raises(ChunkerError, match="make a new key"):
        derive_key(KEY)


def test_the_repr_does_not_show_the_constants() -> None:
    assert repr(derive_key(KEY)) == "KernelKey()"
