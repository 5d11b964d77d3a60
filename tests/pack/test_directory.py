from typing import Any

import msgspec
import pytest

from replicator.errors import FormatError, IntegrityError
from replicator.format.codec import encode
from replicator.format.container import BODY_OFFSET, Kind
from replicator.format.pack import Directory, Segment
from replicator.format.sizes import LARGEST, SMALLEST, size_class
from replicator.pack.directory import directory_end, read_directory
from replicator.pack.sealed import seal_object, write_envelope
from tests.fakes import SeededRng
from tests.format.samples import DIRECTORY
from tests.pack.support import KEYS, POLICY, domain_keys, sealed

ONE = Segment(chunk_id=b"1" * 32, kind=1, slot=0, counter=0, encoding=0, offset=0, stored=100, length=84)
TWO = Segment(chunk_id=b"2" * 32, kind=1, slot=0, counter=1, encoding=0, offset=100, stored=50, length=34)


def hostile(
    *segments: Segment, kind: Kind = Kind.DATA_PACK, slots: int = 1, length: int | None = None
) -> tuple[Kind, Directory, int]:
    """Read a pack whose directory a careless or malicious writer made. The writer has the index key, so it opens."""
    directory = Directory(policy=POLICY, slots=list(DIRECTORY.slots) * slots, segments=list(segments))
    body = encode(directory)
    total = sum(segment.stored for segment in segments) if length is None else length
    out = bytearray(size_class(min(BODY_OFFSET + len(body) + 16 + total, LARGEST)))
    write_envelope(out, kind, body, 0, len(body), total, KEYS, SeededRng("hostile"))
    return read_directory(bytes(out), len(out), KEYS)


def but(segment: Segment, **changes: Any) -> Segment:
    """Return a segment with some fields changed."""
    return msgspec.structs.replace(segment, **changes)


def test_a_directory_is_read_with_the_index_key_and_the_front_of_the_pack_alone() -> None:
    pack = sealed([SeededRng(number).bytes(1000) for number in range(50)])
    end = directory_end(pack.data[:BODY_OFFSET], len(pack.data), KEYS)
    kind, directory, start = read_directory(pack.data[:end], len(pack.data), KEYS)
    assert kind == Kind.DATA_PACK
    assert start == end
    assert directory.policy == POLICY
    assert tuple(segment.chunk_id for segment in directory.segments) == pack.ids
    with pytest.raises(IntegrityError):
        read_directory(pack.data[: end - 1], len(pack.data), KEYS)


def test_segments_lie_one_behind_the_other() -> None:
    _, directory, _ = hostile(ONE, TWO)
    assert directory.segments == [ONE, TWO]
    assert hostile()[1].segments == []


@pytest.mark.parametrize(
    "second",
    [
        but(TWO, offset=0),  # over the first
        but(TWO, offset=99),  # overlapping by one byte
        but(TWO, offset=101),  # a gap
        but(TWO, offset=LARGEST),
    ],
)
def test_segments_that_overlap_or_leave_a_gap_are_refused(second: Segment) -> None:
    with pytest.raises(IntegrityError, match="overlap or leave a gap"):
        hostile(ONE, second)


def test_segments_out_of_order_are_refused() -> None:
    with pytest.raises(IntegrityError, match="overlap or leave a gap"):
        hostile(TWO, ONE)


@pytest.mark.parametrize("length", [0, 149, 151])
def test_segments_that_do_not_fill_what_the_locator_says_are_refused(length: int) -> None:
    with pytest.raises(IntegrityError, match="another length"):
        hostile(ONE, TWO, length=length)


def test_a_segment_beyond_the_pack_is_refused() -> None:
    with pytest.raises(FormatError, match="outside"):
        hostile(but(ONE, stored=LARGEST), length=LARGEST)
    with pytest.raises(IntegrityError, match="another length"):
        hostile(but(ONE, stored=LARGEST), length=100)


def test_a_thousand_segments_that_each_claim_the_whole_pack_are_refused_at_once() -> None:
    everywhere = [
        but(ONE, chunk_id=number.to_bytes(32, "big"), counter=number, stored=LARGEST) for number in range(1000)
    ]
    with pytest.raises(IntegrityError):
        hostile(*everywhere, length=SMALLEST)


def test_a_chunk_twice_is_refused() -> None:
    with pytest.raises(IntegrityError, match="twice"):
        hostile(ONE, but(TWO, chunk_id=ONE.chunk_id))


def test_a_nonce_twice_under_one_key_is_refused() -> None:
    with pytest.raises(IntegrityError, match="one nonce"):
        hostile(ONE, but(TWO, counter=0))
    hostile(ONE, but(TWO, counter=0, slot=1), slots=2)


def test_a_slot_that_is_not_there_is_refused() -> None:
    with pytest.raises(IntegrityError, match="no slot"):
        hostile(but(ONE, slot=1))
    hostile(but(ONE, slot=1), slots=2)


@pytest.mark.parametrize(
    ("pack", "chunk", "fine"),
    [
        (Kind.DATA_PACK, 1, True),
        (Kind.DATA_PACK, 2, False),
        (Kind.DATA_PACK, 3, False),
        (Kind.TREE_PACK, 1, False),
        (Kind.TREE_PACK, 2, True),
        (Kind.TREE_PACK, 3, True),
    ],
)
def test_each_kind_of_pack_holds_its_kinds_of_chunks(pack: Kind, chunk: int, fine: bool) -> None:
    if fine:
        assert hostile(but(ONE, kind=chunk), kind=pack)[0] == pack
    else:
        with pytest.raises(IntegrityError, match="wrong kind"):
            hostile(but(ONE, kind=chunk), kind=pack)


@pytest.mark.parametrize("kind", [Kind.INDEX, Kind.REFERENCES, Kind.SNAPSHOT])
def test_what_is_no_pack_is_named(kind: Kind) -> None:
    data = seal_object(kind, encode(DIRECTORY), KEYS, SeededRng("object"))
    with pytest.raises(IntegrityError, match=f"a {kind.name.lower()} where a pack should be"):
        read_directory(data, len(data), KEYS)


def test_another_domain_cannot_read_a_directory() -> None:
    pack = sealed([b"x"])
    with pytest.raises(IntegrityError):
        read_directory(pack.data, len(pack.data), domain_keys("another"))
