import dataclasses

import msgspec
import pytest

from replicator.crypto.derive import commitment
from replicator.errors import FormatError, IntegrityError
from replicator.format.codec import encode
from replicator.format.container import BODY_OFFSET, Kind
from replicator.format.merkle import name_of
from replicator.format.pack import Directory, Segment, Slot
from replicator.format.sizes import size_class
from replicator.pack.directory import read_directory
from replicator.pack.keys import DomainKeys
from replicator.pack.reader import PackReader, ReaderKeys
from replicator.pack.sealed import write_envelope
from tests.fakes import SeededRng
from tests.pack.support import HASHERS, KEYS, POLICY, READER, RESTORE, contents, domain_keys, sealed

DAMAGE = (FormatError, IntegrityError)
Parts = list[tuple[Segment, bytes]]


def parts_of(data: bytes) -> tuple[list[Slot], Parts]:
    """Return the slots and the (segment, ciphertext) of a pack, as a maintainer sees them: without any content key."""
    _, directory, start = read_directory(data, len(data), KEYS)
    return directory.slots, [(one, data[start + one.offset :][: one.stored]) for one in directory.segments]


def assemble(slots: list[Slot], parts: Parts, keys: DomainKeys = KEYS) -> bytes:
    """Return a new pack of segments as they are, in this order, as a repack without keys makes it."""
    placed, offset = [], 0
    for segment, _ in parts:
        placed.append(msgspec.structs.replace(segment, offset=offset))
        offset += segment.stored
    body = encode(Directory(policy=POLICY, slots=slots, segments=placed))
    out = bytearray(size_class(BODY_OFFSET + len(body) + 16 + offset))
    start = write_envelope(out, Kind.DATA_PACK, body, 0, len(body), offset, keys, SeededRng("repack"))
    out[start : start + offset] = b"".join(sealed for _, sealed in parts)
    return bytes(out)


def moved(part: tuple[Segment, bytes], **changes: int) -> tuple[Segment, bytes]:
    """Return a part whose directory entry says something else."""
    return msgspec.structs.replace(part[0], **changes), part[1]


def test_a_flipped_byte_is_found_on_opening_or_lies_in_the_fill_and_always_changes_the_name() -> None:
    pack = sealed([b"a short chunk", bytes(3000), SeededRng("x").bytes(500)])
    good = contents(pack.data)
    _, directory, start = read_directory(pack.data, len(pack.data), KEYS)
    end = start + sum(segment.stored for segment in directory.segments)
    assert end < 1500
    for at in [*range(end), *range(end, len(pack.data), 997), len(pack.data) - 1]:
        broken = bytearray(pack.data)
        broken[at] ^= 0x04
        assert name_of(broken) != pack.name
        if at < end:
            with pytest.raises(DAMAGE):
                contents(bytes(broken))
        else:
            assert contents(bytes(broken)) == good


def test_a_pack_cut_short_is_refused() -> None:
    pack = sealed([bytes(3000)])
    for length in (0, 63, 64, 111, 112, 300, len(pack.data) - 1, len(pack.data) // 2 + 1):
        with pytest.raises(DAMAGE):
            contents(pack.data[:length])


class Elsewhere:
    """A pack that is not in memory: keeps what was asked for, and fails from byte ``until`` on."""

    def __init__(self, data: bytes, until: int | None = None) -> None:
        self._data = data
        self._until = len(data) if until is None else until
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(len(self))
        self.asked.append((start, stop))
        if stop > self._until:
            raise OSError("the disk fails here")
        return self._data[part]


def test_a_pack_that_lies_elsewhere_is_read_as_far_as_it_is_asked_for() -> None:
    plain = [b"a short chunk", bytes(3000), SeededRng("x").bytes(500)]
    pack = sealed(plain)
    _, directory, start = read_directory(pack.data, len(pack.data), KEYS)
    there = Elsewhere(pack.data)
    reader = PackReader(there, READER)
    assert there.asked == [(0, BODY_OFFSET), (0, start)]
    for segment, data in zip(directory.segments, plain, strict=True):
        del there.asked[:]
        assert reader.chunk(segment.kind, segment.chunk_id) == data
        assert there.asked == [(start + segment.offset, start + segment.offset + segment.stored)]
    last = directory.segments[-1]
    failing = PackReader(Elsewhere(pack.data, start + last.offset), READER)
    assert failing.chunk(directory.segments[0].kind, directory.segments[0].chunk_id) == plain[0]
    with pytest.raises(OSError, match="the disk fails here"):
        failing.chunk(last.kind, last.chunk_id)
    with pytest.raises(OSError, match="the disk fails here"):
        PackReader(Elsewhere(pack.data, start - 1), READER)


def test_the_wrong_restore_key_is_told_from_damage() -> None:
    with pytest.raises(IntegrityError, match="pack slot 0"):
        contents(sealed([b"x"]).data, ReaderKeys(keys=KEYS, restore_private=bytes(32)))


def test_the_right_restore_key_without_the_domains_mix_opens_nothing() -> None:
    keys = dataclasses.replace(KEYS, mix=bytes(32))
    with pytest.raises(IntegrityError, match="commitment"):
        contents(sealed([b"x"]).data, ReaderKeys(keys=keys, restore_private=RESTORE))


def test_another_domain_opens_nothing() -> None:
    with pytest.raises(IntegrityError):
        contents(sealed([b"x"]).data, ReaderKeys(keys=domain_keys("another"), restore_private=RESTORE))


def test_a_commitment_to_another_key_is_refused() -> None:
    slots, parts = parts_of(sealed([b"x"]).data)
    forged = [msgspec.structs.replace(slots[0], commitment=commitment(bytes(32)))]
    with pytest.raises(IntegrityError, match="commitment"):
        contents(assemble(forged, parts))


def test_a_chunk_that_is_not_there_is_named() -> None:
    pack = PackReader(sealed([b"x"]).data, READER)
    with pytest.raises(IntegrityError, match="not in the pack"):
        pack.chunk(1, bytes(32))


def test_a_chunk_of_another_kind_is_not_given_out() -> None:
    pack = PackReader(sealed([b"x"]).data, READER)
    [segment] = pack.directory.segments
    assert pack.chunk(1, segment.chunk_id) == b"x"
    for kind in (2, 3):
        with pytest.raises(IntegrityError, match="not in the pack"):
            pack.chunk(kind, segment.chunk_id)


class TestMovedWithoutKeys:
    """A maintainer moves ciphertext between packs; it holds the index key and no content key."""

    one = sealed([b"first", bytes(2000), b"third"], rng=SeededRng("one"))
    two = sealed([b"fourth", b"fifth"], rng=SeededRng("two"))

    def test_segments_of_two_packs_open_in_a_new_one_under_other_slot_numbers_and_in_any_order(self) -> None:
        slots_one, parts_one = parts_of(self.one.data)
        slots_two, parts_two = parts_of(self.two.data)
        unused = Slot(sealed=bytes(80), commitment=bytes(32))
        merged = [moved(part, slot=2) for part in parts_one[1:]] + [moved(part, slot=0) for part in reversed(parts_two)]
        data = assemble([*slots_two, unused, *slots_one], merged)
        kept = parts_one[1:] + parts_two
        found = contents(data)
        assert set(found) == {segment.chunk_id for segment, _ in kept}
        assert all(HASHERS[1](plain) == name for name, plain in found.items())

    def test_an_index_key_of_a_later_epoch_changes_nothing(self) -> None:
        later = dataclasses.replace(KEYS, epoch=2)
        data = assemble(*parts_of(self.one.data), keys=later)
        assert data[12] == 2
        assert contents(data).keys() == contents(self.one.data).keys()

    def test_a_slot_that_does_not_open_costs_its_own_chunks_only(self) -> None:
        slots_one, parts_one = parts_of(self.one.data)
        slots_two, parts_two = parts_of(self.two.data)
        broken = msgspec.structs.replace(slots_two[0], sealed=bytes(80))
        pack = PackReader(
            assemble([*slots_one, broken], parts_one + [moved(part, slot=1) for part in parts_two]), READER
        )
        for segment, _ in parts_one:
            assert HASHERS[1](pack.chunk(1, segment.chunk_id)) == segment.chunk_id
        for segment, _ in parts_two:
            with pytest.raises(IntegrityError, match="pack slot 1"):
                pack.chunk(1, segment.chunk_id)

    def test_a_segment_does_not_open_under_another_slot(self) -> None:
        slots_one, parts_one = parts_of(self.one.data)
        slots_two, _ = parts_of(self.two.data)
        with pytest.raises(IntegrityError, match="does not open"):
            contents(assemble([*slots_two, *slots_one], parts_one))

    @pytest.mark.parametrize("changes", [{"counter": 9}, {"length": 4}, {"encoding": 1}])
    def test_what_a_segment_means_cannot_be_changed(self, changes: dict[str, int]) -> None:
        slots, parts = parts_of(sealed([b"first"]).data)
        with pytest.raises(IntegrityError, match="does not open"):
            contents(assemble(slots, [moved(parts[0], **changes)]))

    def test_a_segment_does_not_pass_for_another_chunk(self) -> None:
        slots, parts = parts_of(self.two.data)
        (first, sealed_first), (second, sealed_second) = parts
        with pytest.raises(IntegrityError, match="does not open"):
            contents(assemble(slots, [(first, sealed_second), (second, sealed_first)]))
        with pytest.raises(IntegrityError, match="does not open"):
            contents(assemble(slots, [(msgspec.structs.replace(first, chunk_id=bytes(32)), sealed_first)]))

    def test_a_tree_does_not_pass_for_data(self) -> None:
        tree = sealed([b"a tree"], kind=Kind.TREE_PACK)
        slots, parts = parts_of(tree.data)
        with pytest.raises(IntegrityError, match="does not open"):
            contents(assemble(slots, [moved(parts[0], kind=1)]))
