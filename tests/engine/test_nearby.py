"""Which pack a chunk is in: the answer is always one of the catalog's, and the catalog is asked seldom."""

from collections.abc import Sequence

import pytest

from replicator.engine import nearby as module
from replicator.engine.nearby import Nearby
from replicator.errors import IntegrityError


class Catalog:
    """Packs of chunks, and how many chunks were looked up one by one."""

    def __init__(self, packs: dict[int, list[bytes]]) -> None:
        self.packs = packs
        self.asked = 0

    def places(self, ids: Sequence[bytes]) -> list[list[int]]:
        self.asked += len(ids)
        found = [[pack for pack, chunks in self.packs.items() if chunk in chunks] for chunk in ids]
        if not all(found):
            raise IntegrityError("no index names a pack for it")
        return found

    def nearby(self) -> Nearby:
        return Nearby(self.places, self.packs.__getitem__)


def chunks(begin: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(begin, end)]


def test_neighbours_are_known_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASKED", 3)
    catalog = Catalog({1: chunks(0, 100), 2: chunks(100, 200)})
    nearby = catalog.nearby()
    assert nearby.packs(chunks(0, 200)) == [1] * 100 + [2] * 100
    assert catalog.asked == 6
    assert nearby.packs([b"150", b"7", b"150"]) == [2, 1, 2]
    assert catalog.asked == 6
    assert nearby.packs([]) == []


def test_packs_that_were_asked_about_first_are_forgotten_and_asked_about_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDS", 150)
    catalog = Catalog({1: chunks(0, 100), 2: chunks(50, 150), 3: chunks(150, 400)})
    nearby = catalog.nearby()
    for chunk, pack in ((b"0", 1), (b"149", 2), (b"399", 3), (b"149", 2), (b"0", 1), (b"60", 1)):
        [found] = nearby.packs([chunk])
        assert found == pack or chunk in catalog.packs[found]
        assert len(nearby._pack_of) <= 150 or len(nearby._packs) == 1
    assert set(nearby._pack_of) == {chunk for pack in nearby._packs.values() for chunk in pack}


def test_a_chunk_that_is_nowhere_is_an_error() -> None:
    with pytest.raises(IntegrityError):
        Catalog({1: chunks(0, 10)}).nearby().packs([b"3", b"10"])
