from typing import Any

import msgspec
import pytest

from replicator.format.snapshot import LIST_LIMIT
from tests.format.samples import CONTENT, DETAILS, HEAD, SNAPSHOT, accepted, inside, refused

content = inside(CONTENT, lambda part: msgspec.structs.replace(DETAILS, tree=part))
seen = inside(SNAPSHOT.seen[0], lambda part: msgspec.structs.replace(SNAPSHOT, seen=[part]))
ref = inside(
    CONTENT.chunks[0],
    lambda part: msgspec.structs.replace(DETAILS, tree=msgspec.structs.replace(CONTENT, chunks=[part])),
)


@pytest.mark.parametrize(
    ("record", "field", "bad", "good"),
    [
        (SNAPSHOT, "number", (0,), (1,)),
        (SNAPSHOT, "charter", (-1,), (0,)),
        (SNAPSHOT, "previous", (b"", bytes(31)), (bytes(32),)),
        (SNAPSHOT, "previous_snapshot", (b"", bytes(31)), (bytes(32),)),
        (SNAPSHOT, "indexes", ([bytes(31)],), ([], [bytes(32)] * 3)),
        (SNAPSHOT, "references", ([bytes(33)],), ([bytes(32)],)),
        (SNAPSHOT, "created_ns", (-1, 2**62 + 1), (0,)),
        (HEAD, "number", (0,), (1,)),
        (HEAD, "snapshot", (bytes(31),), (bytes(32),)),
        (HEAD, "writer", (bytes(31),), (bytes(32),)),
        (DETAILS, "dataset", ("", "x" * 65, "a\nb"), ("photos", "Bilder 2026")),
        (DETAILS, "gaps", (), ([], [b"\xff/\n"])),
    ],
)
def test_limits(record: Any, field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    for value in bad:
        refused(record, **{field: value})
    for value in good:
        accepted(record, **{field: value})


def test_limits_of_parts() -> None:
    for depth in (-1, 5):
        refused(content(depth=depth))
    for depth in (0, 4):
        accepted(content(depth=depth))
    refused(ref(id=bytes(31)))
    refused(ref(length=-1))
    refused(seen(number=0))
    refused(seen(head=bytes(31)))


def test_lists_are_split_before_a_piece_outgrows_a_chunk() -> None:
    assert LIST_LIMIT * (1 + 34 + 9) < 4 << 20
