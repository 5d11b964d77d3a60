import mmap

import pytest
from blake3 import blake3

from chunker import ChunkHasher, ParameterError, chunk_id
from chunker.identity import ID_BYTES
from tests.chunker.data import KEY, noise

# BLAKE3's official test vectors: this key, input bytes i mod 251.
OFFICIAL_KEY = b"whats the Elvish word for friend"
OFFICIAL = {
    0: "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
    1: "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b",
    1024: "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4",
}


@pytest.mark.parametrize(("length", "expected"), OFFICIAL.items())
def test_ids_are_keyed_blake3(length: int, expected: str) -> None:
    assert chunk_id(OFFICIAL_KEY, bytes(at % 251 for at in range(length))).hex() == expected


def test_the_hasher_and_the_function_agree() -> None:
    hasher, data = ChunkHasher(KEY), noise(300000)
    assert hasher(data) == chunk_id(KEY, data) == blake3(data, key=KEY).digest()
    assert len(hasher(data)) == ID_BYTES
    assert hasher(b"") != hasher(data) == hasher(data)


def test_every_kind_of_buffer_has_the_same_id() -> None:
    hasher, data = ChunkHasher(KEY), noise(5000)
    with mmap.mmap(-1, 5000) as mapped:
        mapped[:] = data
        same = [hasher(buffer) for buffer in (data, bytearray(data), memoryview(data), mapped)]
    assert set(same) == {hasher(data)}


def test_other_keys_give_other_ids() -> None:
    assert chunk_id(KEY, b"data") != chunk_id(bytes(32), b"data")


def test_a_later_change_of_the_callers_key_does_not_matter() -> None:
    key = bytearray(KEY)
    hasher = ChunkHasher(key)  # type: ignore[arg-type]  # what the test is about
    key[:] = bytes(32)
    assert hasher(b"data") == chunk_id(KEY, b"data")


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ParameterError, match="key is 31 bytes"):
        ChunkHasher(bytes(31))
