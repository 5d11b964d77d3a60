from typing import Any

import msgspec
import pytest

from replicator.format.codec import encode
from replicator.format.tree import PIECE_ENTRIES, TreePiece
from tests.format.samples import TREE, accepted, inside, refused

entry = inside(TREE.entries[0], lambda part: TreePiece(entries=[part]))


@pytest.mark.parametrize(
    ("field", "bad", "good"),
    [
        ("name", (b"", bytes(256)), (b"x", b"\xff" * 255)),
        ("kind", ("socket", "", "File"), ("file", "dir", "link", "fifo", "char", "block")),
        ("mode", (-1, 0o10000), (0, 0o7777)),
        ("uid", (-1,), (0, 2**32 - 2)),
        ("mtime_ns", (-(2**63) - 1, 2**63), (-(2**63), 0, 2**63 - 1)),
        ("size", (-1,), (0, 2**62)),
        ("content", (), (None,)),
        ("link", (), (None,)),
    ],
)
def test_limits(field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    for value in bad:
        refused(entry(**{field: value}))
    for value in good:
        accepted(entry(**{field: value}))


def test_names_need_not_be_text() -> None:
    assert b"caf\xe9.raw" in encode(TREE)


def test_a_full_piece_of_usual_entries_fits_a_chunk() -> None:
    assert (
        len(encode(TreePiece(entries=[msgspec.structs.replace(TREE.entries[0], name=b"n" * 255)] * PIECE_ENTRIES)))
        < 4 << 20
    )
