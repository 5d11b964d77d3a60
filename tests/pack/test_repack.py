import dataclasses
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.errors import FormatError, IntegrityError
from replicator.format.codec import encode
from replicator.format.container import BODY_OFFSET, Kind
from replicator.format.merkle import name_of
from replicator.format.pack import MAX_SLOTS, Directory, Segment, Slot
from replicator.format.sizes import LARGEST, is_allowed, size_class
from replicator.pack.directory import read_directory
from replicator.pack.keys import DomainKeys
from replicator.pack.packer import SealedPack, seal_pack
from replicator.pack.reader import PackReader
from replicator.pack.repack import Repacker, room_for
from replicator.pack.sealed import write_envelope
from tests.fakes import SeededRng
from tests.pack.support import HASHERS, KEYS, POLICY, READER, chunk, contents, domain_keys, sealed

MAINTAINER = dataclasses.replace(KEYS, mix=bytes(32), id_key=bytes(32), cut_key=bytes(32), restore_key=bytes(32))
"""What a maintainer has: index keys alone. Anything else would make a pack that no reader opens."""


def repacked(
    *sources: tuple[SealedPack | bytes, set[bytes]], kind: Kind = Kind.DATA_PACK, keys: DomainKeys = MAINTAINER
) -> list[SealedPack]:
    """Return the packs that these chunks of these packs move into."""
    found: list[SealedPack] = []
    repacker = Repacker(kind, POLICY, keys, SeededRng("repack"), found.append)
    for pack, live in sources:
        repacker.add(pack if isinstance(pack, bytes) else pack.data, live)
    repacker.flush()
    return found


def of(*plains: bytes) -> set[bytes]:
    """Return the ids of chunks of data."""
    return {chunk(plain)[0] for plain in plains}


def large(count: int, size: int, seed: str) -> SealedPack:
    """Return a pack of chunks that do not compress."""
    rng = SeededRng(seed)
    chunks = [chunk(rng.bytes(size), raw=True) for _ in range(count)]
    return seal_pack(chunks, Kind.DATA_PACK, POLICY, KEYS, rng, HASHERS)


def test_what_is_needed_of_several_packs_is_read_from_the_new_one_as_it_was() -> None:
    one, other = sealed([b"a", b"b" * 3000, b"c"]), sealed([b"d" * 70_000, b"e"], rng=SeededRng("other"))
    [new] = repacked((one, of(b"a", b"c")), (other, of(b"d" * 70_000)))
    assert contents(new.data) == {chunk(plain)[0]: plain for plain in (b"a", b"c", b"d" * 70_000)}
    assert set(new.ids) == of(b"a", b"c", b"d" * 70_000)
    assert (new.kind, new.policy, new.name) == (Kind.DATA_PACK, POLICY, name_of(new.data))


def test_ciphertext_counters_and_keys_are_those_of_the_old_packs() -> None:
    one, other = sealed([b"a", b"b", b"c"]), sealed([b"d"], rng=SeededRng("other"))
    [new] = repacked((one, of(b"a", b"c")), (other, of(b"d")))
    before = {}
    for pack in (one, other):
        _, directory, start = read_directory(pack.data, len(pack.data), KEYS)
        for segment in directory.segments:
            at = start + segment.offset
            slot = directory.slots[segment.slot]
            before[segment.chunk_id] = (slot, segment.counter, pack.data[at : at + segment.stored])
    _, directory, start = read_directory(new.data, len(new.data), KEYS)
    assert len(directory.slots) == 2
    assert [segment.counter for segment in directory.segments] != list(range(3))
    for segment in directory.segments:
        at = start + segment.offset
        moved = (directory.slots[segment.slot], segment.counter, new.data[at : at + segment.stored])
        assert moved == before[segment.chunk_id]


def test_trees_and_lists_move_too_and_kinds_do_not_mix() -> None:
    tree = sealed([b"tree"], kind=Kind.TREE_PACK)
    [new] = repacked((tree, set(tree.ids)), kind=Kind.TREE_PACK)
    assert (new.kind, list(contents(new.data).values())) == (Kind.TREE_PACK, [b"tree"])
    with pytest.raises(IntegrityError, match="tree_pack"):
        repacked((tree, set(tree.ids)))


def test_a_new_pack_can_be_repacked_again_with_the_pack_it_came_from() -> None:
    old = sealed([b"a", b"b", b"c"])
    [once] = repacked((old, of(b"a", b"b")))
    [twice] = repacked((once, of(b"a")), (old, of(b"a", b"c")))
    assert sorted(contents(twice.data).values()) == [b"a", b"c"]
    assert len(read_directory(twice.data, len(twice.data), KEYS)[1].slots) == 1


def test_more_packs_than_a_directory_has_slots_become_two() -> None:
    packs = [sealed([str(n).encode()], rng=SeededRng(n)) for n in range(MAX_SLOTS + 1)]
    found = repacked(*((pack, set(pack.ids)) for pack in packs))
    assert [len(read_directory(new.data, len(new.data), KEYS)[1].slots) for new in found] == [MAX_SLOTS, 1]
    assert sorted(plain for new in found for plain in contents(new.data).values()) == sorted(
        str(n).encode() for n in range(MAX_SLOTS + 1)
    )


def test_what_does_not_fit_one_pack_goes_into_the_next_and_every_size_is_allowed() -> None:
    packs = [large(10, 1_000_000, seed) for seed in "abc"]
    found = repacked(*((pack, set(pack.ids)) for pack in packs))
    assert len(found[0].data) == LARGEST
    assert all(is_allowed(len(new.data)) for new in found)
    assert sum(len(new.ids) for new in found) == 30
    assert len({one for new in found for one in new.ids}) == 30


def test_padding_is_not_what_is_saved() -> None:
    pack = large(10, 900_000, "nine")
    found = repacked((pack, set(pack.ids)))
    assert sorted(len(new.data) for new in found) == [1 << 20, 8 << 20]


@pytest.mark.parametrize("count", [1, 100, 3000])
def test_the_room_that_is_reckoned_with_is_enough(count: int) -> None:
    pack = large(count, 30, "small")
    _, directory, start = read_directory(pack.data, len(pack.data), KEYS)
    stored = sum(segment.stored for segment in directory.segments)
    assert start + stored <= room_for(count, stored, 1) <= start + stored + 40 * count + 200


def test_a_new_pack_is_full_to_the_byte_that_it_may_have() -> None:
    pack = large(15, 1_118_000, "full")
    [new] = repacked((pack, set(pack.ids)))
    assert len(new.data) == LARGEST


def test_what_nobody_needs_makes_no_pack() -> None:
    assert repacked((sealed([b"a"]), set())) == []
    assert repacked() == []


def test_a_chunk_that_the_pack_lacks_stops_the_repack_before_anything_is_taken() -> None:
    found: list[SealedPack] = []
    repacker = Repacker(Kind.DATA_PACK, POLICY, MAINTAINER, SeededRng("repack"), found.append)
    with pytest.raises(IntegrityError, match="lacks 1 chunks"):
        repacker.add(sealed([b"a"]).data, of(b"a", b"not there"))
    repacker.flush()
    assert found == []


def test_another_domains_pack_is_refused() -> None:
    pack = sealed([b"a"])
    with pytest.raises(IntegrityError):
        repacked((pack, set(pack.ids)), keys=domain_keys("another"))


def forged(slots: list[Slot], parts: list[tuple[Segment, bytes]]) -> bytes:
    """Return a pack that a writer made by hand."""
    placed, offset = [], 0
    for segment, _ in parts:
        placed.append(msgspec.structs.replace(segment, offset=offset))
        offset += segment.stored
    body = encode(Directory(policy=POLICY, slots=slots, segments=placed))
    out = bytearray(size_class(BODY_OFFSET + len(body) + 16 + offset))
    start = write_envelope(out, Kind.DATA_PACK, body, 0, len(body), offset, KEYS, SeededRng("forged"))
    out[start : start + offset] = b"".join(sealed for _, sealed in parts)
    return bytes(out)


def test_a_pack_that_takes_another_ones_commitment_spoils_no_key_but_its_own() -> None:
    good = sealed([b"precious"])
    _, directory, _ = read_directory(good.data, len(good.data), KEYS)
    false = msgspec.structs.replace(directory.slots[0], sealed=bytes(80))
    segment = msgspec.structs.replace(directory.segments[0], chunk_id=bytes(32), stored=16)
    bad = forged([false], [(segment, bytes(16))])
    [new] = repacked((bad, {bytes(32)}), (good, of(b"precious")))
    _, directory, _ = read_directory(new.data, len(new.data), KEYS)
    assert {slot.commitment for slot in directory.slots} == {false.commitment}
    assert PackReader(new.data, READER).chunk(1, chunk(b"precious")[0]) == b"precious"


def test_two_segments_with_one_nonce_are_refused() -> None:
    good = sealed([b"a"])
    _, directory, start = read_directory(good.data, len(good.data), KEYS)
    [segment] = directory.segments
    other = msgspec.structs.replace(segment, chunk_id=bytes(32))
    bad = forged(directory.slots, [(other, good.data[start : start + segment.stored])])
    with pytest.raises(IntegrityError, match="one nonce"):
        repacked((good, of(b"a")), (bad, {bytes(32)}))


def test_a_bit_that_flips_while_a_chunk_is_moved_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def misplaces(out: memoryview, *values: Any) -> int:
        return write_envelope(out, *values) + 1

    monkeypatch.setattr("replicator.pack.repack.write_envelope", misplaces)
    pack = sealed([b"a" * 70_000])
    with pytest.raises((IntegrityError, FormatError), match="on its way"):
        repacked((pack, set(pack.ids)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_every_live_chunk_comes_through_and_no_other(seed: int, packs: int) -> None:
    choice = random.Random(seed)
    sources, plains = [], {}
    for number in range(packs):
        pool = [f"{number} {n}".encode() * choice.randrange(1, 400) for n in range(choice.randrange(1, 8))]
        pack = sealed(pool, rng=SeededRng(seed + number))
        live = {one for one in pack.ids if choice.random() < 0.6}
        sources.append((pack, live))
        plains.update({one: plain for plain in pool if (one := chunk(plain)[0]) in live})
    found: dict[bytes, bytes] = {}
    for new in repacked(*sources):
        found |= contents(new.data)
    assert found == plains
