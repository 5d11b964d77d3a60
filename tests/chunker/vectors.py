"""The frozen cut points of tests/vectors. They never change: a difference is a bug in the code.

fgcdc.json was made by the prototype of the algorithm; the source of its two `text` cases was not kept, so they
cannot be replayed. chunker.json was made by the Python reference, over more keys, sizes and kinds of data.
"""

import hashlib
import json
import pathlib
from dataclasses import dataclass
from typing import Any

from tests.chunker.data import GENERATORS

_FOLDER = pathlib.Path(__file__).parent.parent / "vectors"


@dataclass(frozen=True)
class Vector:
    source: str
    key: bytes
    name: str
    length: int
    sha256: str
    sizes: tuple[int, int, int]
    cuts: list[int]

    def __str__(self) -> str:
        return f"{self.source}-{self.key[:2].hex()}-{self.name}-{self.sizes[1]}"

    def data(self) -> bytes:
        made = GENERATORS[self.name](self.length)
        assert hashlib.sha256(made).hexdigest() == self.sha256, "the generator no longer makes the vector's data"
        return made


def _load(name: str) -> Any:
    return json.loads((_FOLDER / f"{name}.json").read_text())


def cut_vectors() -> list[Vector]:
    prototype, own = _load("fgcdc"), _load("chunker")
    rows = [("fgcdc", prototype["key"], case) for case in prototype["cases"] if case["name"] != "text"]
    rows += [("chunker", case["key"], case) for case in own["cases"]]
    return [
        Vector(
            source,
            bytes.fromhex(key),
            case["name"],
            case["len"],
            case["sha256"],
            (case["min"], case["avg"], case["max"]),
            case["cuts"],
        )
        for source, key, case in rows
    ]


def key_vectors() -> list[tuple[bytes, tuple[int, ...], int, int, int]]:
    """Key, words, k1, k2, t."""
    return [
        (
            bytes.fromhex(row["key"]),
            tuple(int(word, 16) for word in row["words"]),
            row["K1"],
            row["K2"],
            row["t"],
        )
        for row in [_load("fgcdc"), *_load("chunker")["keys"]]
    ]
