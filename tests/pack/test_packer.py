import random
import re
from collections.abc import Iterable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from chunker import Compressor
from replicator.crypto.aead import TAG_SIZE, Sealer
from replicator.crypto.seal import PURPOSE_PACK
from replicator.crypto.unseal import unseal
from replicator.errors import IntegrityError
from replicator.format.container import Kind
from replicator.format.merkle import name_of
from replicator.format.pack import SEGMENT_ROOM, Segment
from replicator.format.sizes import LARGEST, SMALLEST, is_allowed, size_class
from replicator.pack.directory import read_directory
from replicator.pack.packer import (
    OPEN_PACKS,
    Packer,
    SealedPack,
    _OpenPack,
    check_sealed,
    seal_pack,
    segment_associated,
    segment_context,
)
from replicator.rng import Rng
from tests.fakes import SeededRng
from tests.pack.support import HASHERS, KEYS, POLICY, RESTORE, Chunk, chunk, contents, sealed

MIB = 1 << 20


def packed(chunks: Iterable[Chunk], kind: Kind = Kind.DATA_PACK, rng: Rng | None = None) -> list[SealedPack]:
    """Return the packs that a packer makes of these chunks."""
    packs: list[SealedPack] = []
    packer = Packer(kind, POLICY, KEYS, rng or SeededRng("packer"), packs.append)
    for one in chunks:
        packer.add(*one)
    packer.flush()
    return packs


def all_of(packs: list[SealedPack]) -> dict[bytes, bytes]:
    """Return every chunk of some packs."""
    found: dict[bytes, bytes] = {}
    for pack in packs:
        assert pack.name == name_of(pack.data)
        assert is_allowed(len(pack.data))
        inside = contents(pack.data)
        assert tuple(inside) == pack.ids
        found |= inside
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=2000), unique=True, min_size=1, max_size=40), st.booleans())
def test_every_chunk_comes_back_raw_or_compressed(plains: list[bytes], raw: bool) -> None:
    packs = packed(chunk(plain, raw=raw) for plain in plains)
    assert sorted(all_of(packs).values()) == sorted(plains)


def test_an_empty_chunk_and_one_of_4_mib_come_back() -> None:
    plains = [b"", bytes(4 * MIB), SeededRng("large").bytes(4 * MIB), b"\x00"]
    packs = packed(chunk(plain) for plain in plains)
    assert len(packs) == 1
    assert set(all_of(packs).values()) == set(plains)


def test_thousands_of_tiny_chunks_fit_one_pack() -> None:
    plains = [str(number).encode() for number in range(5000)]
    [pack] = packed(chunk(plain) for plain in plains)
    assert sorted(all_of([pack]).values()) == sorted(plains)
    assert len(pack.data) == 512 << 10


@pytest.mark.parametrize("length", [6, 40, 700])
def test_packs_of_very_many_chunks_are_smaller_and_full_all_the_same(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.pack.packer.MANY", 1000)
    plains = [number.to_bytes(length, "big") for number in range(9000)]
    packs = packed(chunk(plain, raw=True) for plain in plains)
    assert sorted(all_of(packs).values()) == sorted(plains)
    *whole, _, _ = packs
    assert whole, "those that were sealed before the end"
    for pack in packs:
        assert len(pack.ids) <= 2000
    for pack in whole:
        assert len(pack.ids) >= 1000
        assert len(pack.data) < LARGEST
        needed = sum(SEGMENT_ROOM + length + TAG_SIZE for _ in pack.ids)
        assert needed + SEGMENT_ROOM + length + TAG_SIZE + 4096 > len(pack.data), "no room for another"


def test_a_session_of_many_sizes_gives_full_packs_and_a_padded_rest() -> None:
    rng = SeededRng("sizes")
    plains = [rng.bytes(64 * 1024 + rng.below(MIB)) for _ in range(90)]
    packs = packed(chunk(plain, raw=True) for plain in plains)
    assert sum(len(pack.data) for pack in packs) < sum(map(len, plains)) * 1.25
    assert sorted(len(pack.data) for pack in packs)[-2:] == [LARGEST, LARGEST]
    assert set(all_of(packs).values()) == set(plains)


def test_a_pack_is_handed_on_as_soon_as_it_is_full() -> None:
    packs: list[SealedPack] = []
    packer = Packer(Kind.DATA_PACK, POLICY, KEYS, SeededRng("packer"), packs.append)
    count = 0
    while not packs:
        packer.add(*chunk(SeededRng(count).bytes(MIB), raw=True))
        count += 1
    assert len(packs) == 1
    assert count <= OPEN_PACKS * 15 + 1
    packer.flush()
    assert len(all_of(packs)) == count


def test_neighbours_in_a_file_are_spread_over_packs_and_shuffled_inside() -> None:
    plains = [SeededRng(number).bytes(300_000) for number in range(104)]
    where = {plain: number for number, plain in enumerate(plains)}
    packs = packed(chunk(plain, raw=True) for plain in plains)
    assert len(packs) == OPEN_PACKS
    for pack in packs:
        order = [where[plain] for plain in contents(pack.data).values()]
        assert order != sorted(order)
        assert max(order) - min(order) > len(order) * 1.5


def test_the_packs_of_a_large_session_are_full() -> None:
    """By their stored bytes alone: what is in them costs nothing, and a session of 4 GB would take a minute."""
    rng = random.Random(3)
    used: list[int] = []

    class Counting(Packer):
        def _seal(self, pack: _OpenPack) -> None:
            used.append(pack.used)

    packer = Counting(Kind.DATA_PACK, POLICY, KEYS, SeededRng("large"), lambda _pack: None)
    raw = bytes(MIB)
    total = 0
    while total < 4 * 10**9:
        stored = memoryview(raw)[: min(MIB, (64 << 10) + int(rng.expovariate(1 / 200_000)))]
        packer.add(b"", 0, 0, 0, stored)
        total += len(stored)
    packer.flush()
    sizes = sum(size_class(room) for room in used)
    assert sizes - sum(used) < sizes * 0.005


@pytest.mark.parametrize("used_mib", [4.1, 5.9, 6.1, 8.5, 9, 11.9, 12.1, 15.9])
def test_the_last_pack_of_a_session_is_padded_by_a_third_at_most(used_mib: float) -> None:
    count = int(used_mib * 16)
    packs = packed(chunk(SeededRng(number).bytes(MIB // 16), raw=True) for number in range(count))
    assert len(packs) <= 2
    assert sum(len(pack.data) for pack in packs) <= count * (MIB // 16) * 1.36


def test_a_small_session_is_one_pack() -> None:
    assert len(packed(chunk(SeededRng(number).bytes(1000)) for number in range(20))) == 1


def test_flushing_nothing_makes_nothing_and_a_packer_can_be_used_on() -> None:
    assert packed([]) == []
    packs: list[SealedPack] = []
    packer = Packer(Kind.DATA_PACK, POLICY, KEYS, SeededRng("packer"), packs.append)
    for text in (b"one", b"two"):
        packer.add(*chunk(text))
        packer.flush()
        packer.flush()
    assert [list(contents(pack.data).values()) for pack in packs] == [[b"one"], [b"two"]]


def test_padding_is_less_than_the_pack_itself_or_up_to_the_smallest_size() -> None:
    for length in (1, 60_000, 66_000, 130_000, 3 * MIB):
        pack = sealed([SeededRng(length).bytes(length)])
        assert len(pack.data) == SMALLEST or len(pack.data) < 2 * (length + 400)


def test_a_pack_never_shows_what_is_in_it() -> None:
    canary = b"the canary sings at midnight in the coal mine. "
    plains = [canary * 50, canary[:40] + bytes(range(200)), b"unpressed" + SeededRng("x").bytes(400)]
    pack = seal_pack(
        [chunk(plains[0]), chunk(plains[1], raw=True), chunk(plains[2], raw=True)],
        Kind.DATA_PACK,
        POLICY,
        KEYS,
        SeededRng("pack"),
        HASHERS,
    )
    secrets = [canary[:8], canary[8:16], b"unpressed", bytes(Compressor().compress(plains[0])[1])[:12], POLICY[:8]]
    secrets += [one[:8] for one in pack.ids]
    secrets += [key[:8] for key in (KEYS.mix, KEYS.id_key, KEYS.cut_key, KEYS.tenant, KEYS.domain, RESTORE)]
    # A msgpack directory begins with 0x94 0x01 0xc4 0x10 and names each id with 0xc4 0x20.
    secrets += [
        bytes([0x94, 0x01, 0xC4, 0x10]) + POLICY[:4],
        len(plains[0]).to_bytes(8, "little"),
        b"\xc4\x20" + pack.ids[0][:6],
    ]
    for secret in secrets:
        assert secret not in pack.data
    body = pack.data[64:]
    assert not re.search(rb"(.)\1{7}", body)  # no run: padding is random, not zeros
    assert len(set(body)) == 256


def test_packs_of_other_contents_look_alike_and_two_of_the_same_have_nothing_in_common() -> None:
    one, two = sealed([b"x" * 1000], rng=SeededRng(1)), sealed([b"x" * 1000], rng=SeededRng(2))
    assert len(one.data) == len(two.data) == len(sealed([bytes(30_000)]).data)
    same = sum(a == b for a, b in zip(one.data[64:], two.data[64:], strict=True))
    assert same < len(one.data) / 100


def test_two_machines_with_one_random_state_use_other_keys_for_other_chunks() -> None:
    secrets = []
    for text in (b"one", b"two"):
        _, directory, _ = read_directory(sealed([text], rng=SeededRng("cloned")).data, SMALLEST, KEYS)
        secrets.append(unseal(RESTORE, directory.slots[0].sealed, PURPOSE_PACK, "slot"))
    assert secrets[0] != secrets[1]


def test_a_chunk_of_the_wrong_kind_or_twice_in_one_pack_is_not_sealed() -> None:
    for chunks in ([chunk(b"a tree", 2)], [chunk(b"data"), chunk(b"data")]):
        with pytest.raises(IntegrityError):
            seal_pack(chunks, Kind.DATA_PACK, POLICY, KEYS, SeededRng("pack"), HASHERS)


def test_a_tree_pack_holds_trees_and_lists() -> None:
    chunks = [chunk(b"a tree", 2), chunk(b"a list", 3)]
    [pack] = packed(chunks, Kind.TREE_PACK)
    assert set(contents(pack.data).values()) == {b"a tree", b"a list"}


class TestCheckedBeforeItLeaves:
    """Whatever goes wrong while a pack is made, it is found before anyone stores it."""

    def refused(self, chunks: list[Chunk]) -> None:
        handed: list[SealedPack] = []
        packer = Packer(Kind.DATA_PACK, POLICY, KEYS, SeededRng("packer"), handed.append)
        for one in chunks:
            packer.add(*one)
        with pytest.raises(IntegrityError):
            packer.flush()
        assert handed == []

    def test_a_compressor_that_loses_a_byte(self) -> None:
        chunk_id, kind, encoding, length, stored = chunk(bytes(5000))
        assert encoding == 1
        self.refused([(chunk_id, kind, encoding, length, stored[:-1])])

    def test_a_compressor_that_gives_another_text(self) -> None:
        good, other = chunk(bytes(5000)), chunk(b"\x01" * 5000)
        self.refused([(*good[:4], other[4])])

    def test_raw_bytes_that_changed_in_memory(self) -> None:
        good = chunk(b"some text", raw=True)
        self.refused([(*good[:4], b"some tex" + bytes([ord("t") ^ 1]))])

    def test_a_wrong_length_encoding_or_id(self) -> None:
        chunk_id, kind, encoding, length, stored = chunk(b"some text", raw=True)
        self.refused([(chunk_id, kind, encoding, length + 1, stored)])
        self.refused([(chunk_id, kind, 1, length, stored)])
        self.refused([(bytes(32), kind, encoding, length, stored)])

    def test_a_cipher_that_flips_a_bit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = Sealer.seal_into

        def flip(self: Sealer, counter: int, plaintext: Any, associated: bytes, out: memoryview) -> None:
            real(self, counter, plaintext, associated, out)
            out[len(out) // 2] ^= 1

        monkeypatch.setattr(Sealer, "seal_into", flip)
        self.refused([chunk(b"some text")])

    def test_a_cipher_that_uses_another_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def wrong(_: Sealer, counter: int, plaintext: Any, associated: bytes, out: memoryview) -> None:
            out[:] = AESGCM(bytes(32)).encrypt(counter.to_bytes(12, "big"), bytes(plaintext), associated)

        monkeypatch.setattr(Sealer, "seal_into", wrong)
        self.refused([chunk(b"some text")])

    def test_a_commitment_to_another_key(self) -> None:
        pack = sealed([b"some text"])
        with pytest.raises(IntegrityError, match="commitment"):
            check_sealed(pack.data, pack.ids, bytes(32), KEYS, HASHERS)

    def test_a_directory_of_other_chunks(self) -> None:
        pack = sealed([b"some text"])
        with pytest.raises(IntegrityError, match="directory"):
            check_sealed(pack.data, (bytes(32),), bytes(32), KEYS, HASHERS)


def test_the_first_bytes_of_a_pack_are_all_a_provider_can_read() -> None:
    pack = sealed([b"x"])
    assert pack.data[:12].hex() == "52504c4f424a000101000000"


def test_a_segment_is_bound_to_these_131_bytes() -> None:
    segment = Segment(
        chunk_id=b"i" * 32, kind=2, slot=5, counter=0x0102, encoding=1, offset=77, stored=99, length=0x030405
    )
    associated = segment_associated(segment_context(b"t" * 16, b"d" * 16), segment, b"c" * 32)
    assert associated == (
        b"replicator/1 segment\x00" + b"t" * 16 + b"d" * 16 + b"c" * 32 + b"i" * 32
        + b"\x02" + b"\x01" + b"\x05\x04\x03\x00" + b"\x02\x01" + bytes(6)
    )  # fmt: skip
    assert len(associated) == 131
