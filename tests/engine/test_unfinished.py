from pathlib import Path

import pytest

from replicator.engine.unfinished import Begun, Unfinished, Volume
from replicator.errors import HomeError
from replicator.format.consistency import Consistency
from replicator.fs import PosixFs

VOLUME = Volume(kind="lvm", origin=b"vg/\xff", name="replicator-db-00000000", place=b"/m", file_system="xfs", thin=True)


def begun(dataset: str, *volumes: Volume, after: bool = True) -> Begun:
    return Begun(dataset=dataset, consistency=Consistency(after="true"), after=after, volumes=list(volumes))


def test_what_is_begun_is_known_until_it_is_undone(tmp_path: Path) -> None:
    path = str(tmp_path / "unfinished.bin")
    assert Unfinished(path, PosixFs()).all() == []
    Unfinished(path, PosixFs()).put(begun("a"))
    Unfinished(path, PosixFs()).put(begun("b", VOLUME))
    Unfinished(path, PosixFs()).put(begun("a", VOLUME, after=False))
    unfinished = Unfinished(path, PosixFs())
    assert unfinished.all() == [begun("b", VOLUME), begun("a", VOLUME, after=False)]
    unfinished.drop("b")
    assert Unfinished(path, PosixFs()).all() == [begun("a", VOLUME, after=False)]


def test_a_damaged_file_says_what_to_look_for(tmp_path: Path) -> None:
    (tmp_path / "unfinished.bin").write_bytes(b"\x92\x01")
    with pytest.raises(HomeError, match="damaged") as caught:
        Unfinished(str(tmp_path / "unfinished.bin"), PosixFs()).all()
    assert "replicator-..." in caught.value.hint
