"""Roots that are read at another place keep the paths that they live at."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from replicator.format.snapshot import RootFolder
from replicator.snapshot import mapped
from replicator.snapshot.mapped import LEFT_OUT, MappedSource
from replicator.snapshot.tree import TreeReader
from replicator.snapshot.walk import PosixFolder
from tests.snapshot.support import MemorySink, captured, open_fds


def names(sink: MemorySink, found: object) -> list[bytes]:
    return [b"/".join(path) for path, _ in TreeReader(sink).walk(found.tree)]  # type: ignore[attr-defined] # Captured


def test_what_is_read_elsewhere_is_called_as_it_lives(tmp_path: Path) -> None:
    for place, word in (("live", "now"), ("frozen", "then")):
        (tmp_path / place / "in").mkdir(parents=True)
        (tmp_path / place / "in" / word).write_text(word)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("as it is")
    sink = MemorySink()
    before = open_fds()
    source = MappedSource({os.fsencode(tmp_path / "live"): os.fsencode(tmp_path / "frozen")})
    found = captured(sink, tmp_path / "live", tmp_path / "other", source=source)
    assert names(sink, found) == [b"live", b"live/in", b"live/in/then", b"other", b"other/file"]
    assert found.roots[0] == RootFolder(path=os.fsencode(tmp_path / "live"), name=b"live")
    assert open_fds() == before


@pytest.mark.parametrize("gaps", [False, True])
def test_what_a_btrfs_snapshot_leaves_out_is_a_gap(gaps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "top" / "nested" / "in").mkdir(parents=True)
    (tmp_path / "top" / "plain").mkdir()
    placeholder = (tmp_path / "top" / "nested").stat().st_ino
    real = PosixFolder.here

    def here(self: PosixFolder) -> object:
        status = real(self)
        return SimpleNamespace(st_ino=mapped._PLACEHOLDER) if status.st_ino == placeholder else status

    sink = MemorySink()
    with monkeypatch.context() as patch:
        if gaps:
            patch.setattr(PosixFolder, "here", here)
        found = captured(sink, tmp_path / "top", source=MappedSource({}, btrfs_gaps=gaps))
    top = os.fsencode(tmp_path / "top")
    assert [tuple(gap) for gap in found.gaps] == ([(top + b"/nested", LEFT_OUT)] if gaps else [])
    assert names(sink, found) == [b"top", b"top/nested", *([] if gaps else [b"top/nested/in"]), b"top/plain"]
