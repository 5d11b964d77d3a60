from typing import Any

import msgspec
import pytest

from replicator.format.codec import encode
from replicator.format.pack import DIRECTORY_ROOM, MAX_SLOTS, SEGMENT_ROOM, Segment, Slot
from replicator.format.sizes import LARGEST, MAX_CHUNK
from tests.format.samples import DIRECTORY, accepted, inside, refused

segment = inside(DIRECTORY.segments[0], lambda part: msgspec.structs.replace(DIRECTORY, segments=[part]))
slot = inside(DIRECTORY.slots[0], lambda part: msgspec.structs.replace(DIRECTORY, slots=[part]))
LARGE = Segment(
    chunk_id=bytes(32),
    kind=3,
    slot=0,
    counter=2**32 - 1,
    encoding=1,
    offset=LARGEST,
    stored=LARGEST,
    length=MAX_CHUNK,
)


@pytest.mark.parametrize(
    ("make", "field", "bad", "good"),
    [
        (segment, "chunk_id", (bytes(31), bytes(33)), (bytes(32),)),
        (segment, "kind", (0, 4), (1, 2, 3)),
        (segment, "slot", (-1, MAX_SLOTS), (0, MAX_SLOTS - 1)),
        (segment, "counter", (-1, 2**32), (0, 2**32 - 1)),
        (segment, "encoding", (-1, 2), (0, 1)),
        (segment, "offset", (-1, LARGEST + 1), (0, LARGEST)),
        (segment, "stored", (15, LARGEST + 1), (16, LARGEST)),
        (segment, "length", (-1, MAX_CHUNK + 1), (0, MAX_CHUNK)),
        (slot, "sealed", (bytes(79), bytes(81)), (bytes(80),)),
        (slot, "commitment", (bytes(31), bytes(33)), (bytes(32),)),
    ],
)
def test_limits(make: Any, field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    for value in bad:
        refused(make(**{field: value}))
    for value in good:
        accepted(make(**{field: value}))


def test_a_pack_has_1_to_64_slots() -> None:
    one: Slot = DIRECTORY.slots[0]
    refused(DIRECTORY, slots=[])
    refused(DIRECTORY, slots=[one] * (MAX_SLOTS + 1))
    accepted(DIRECTORY, slots=[one] * MAX_SLOTS)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65535, 65536])
def test_the_room_set_aside_for_a_directory_is_enough(count: int) -> None:
    directory = msgspec.structs.replace(DIRECTORY, segments=[LARGE] * count)
    assert len(encode(directory)) <= DIRECTORY_ROOM + count * SEGMENT_ROOM
