"""The folder that holds one archive after another: what of this machine it leaves alone."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replicator.engine.borg import Archive, Done, Item
from replicator.engine.edge import NoProgress
from replicator.engine.staging import Staging
from replicator.fs import PosixFs
from tests.engine.test_borgitems import item


class Extracting:
    """A borg that makes what it lists: folders, links, and files of one byte."""

    def __init__(self, items: list[Item]) -> None:
        self._items = items

    def items(self, _archive: str) -> Iterator[Item]:
        return iter(self._items)

    def extract(self, _archive: str, folder: str, **_said: Any) -> Done:
        for one in self._items:
            path = os.path.join(os.fsencode(folder), one.path)
            if one.mode.startswith("d"):
                os.makedirs(path, exist_ok=True)
            elif not os.path.lexists(path):
                if one.mode.startswith("l"):
                    os.symlink(one.source, path)
                else:
                    Path(os.fsdecode(path)).write_bytes(b"1")
        return Done()


def test_a_link_that_becomes_a_folder_leaves_what_it_led_to_as_it_was(tmp_path: Path) -> None:
    """As /var/run did: in yesterday's archive a link to a folder of this machine, in today's a folder."""
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner").chmod(0o755)
    rest = [item(b"rest", "drwxr-xr-x"), *(item(b"rest/%d" % number, at=1) for number in range(20))]
    staging = Staging(str(tmp_path / "staging"), PosixFs())
    for archive in (
        [item(b"run", "lrwxrwxrwx", source=str(outside)), *rest],
        [item(b"run", "drwxr-xr-x"), item(b"run/inner", "drwxr-xr-x"), *rest],
    ):
        borg: Any = Extracting(archive)
        about = Archive(name="a", id="00", start_ns=1)
        found = staging.stage(borg, about, name="a", privileged=False, progress=NoProgress())
    assert found.extracted == 2, "only what changed"
    assert (outside / "inner").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "staging" / "tree" / "run" / "inner").is_dir()
    staging.close()
