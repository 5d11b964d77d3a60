"""Archives of Borg that become snapshots, with a real borg."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from replicator.catalog.snapshots import Dataset
from replicator.engine.importing import ImportReport, chosen, home_of, import_archives
from replicator.engine.node import NodeHome
from replicator.fs import PosixFs
from tests.borg import Repo, needs_borg
from tests.compare import Rules, compare
from tests.scenarios.world import PROMISE, World, write
from tests.snapshot.nasty import build, change

pytestmark = needs_borg
ROOT = os.geteuid() == 0


def plain_dataset(name: str) -> Dataset:
    return Dataset(
        name=name, roots=(), policy=PROMISE, exclude=(), one_file_system=False, keep_caches=True, created_ns=1
    )


async def bring(world: World, repo: Repo, glob: str | None = None, **said: Any) -> ImportReport:
    make = repo.maker(world.home)
    found = make(lambda: False).look()
    home = home_of(world.home, found)
    keeper, node = world.keeper(), world.node()
    try:
        return await import_archives(
            keeper,
            [node],
            world.edge,
            said.pop("make", make),
            found,
            chosen(found, glob),
            home=home,
            open_node=lambda: NodeHome(home, PosixFs()),
            dataset_of=plain_dataset,
            series=said.pop("series", None),
            staging=os.path.join(world.root, "staging"),
            privileged=ROOT,
            **said,
        )
    finally:
        keeper.close()
        node.close()


def outcome(report: ImportReport) -> list[tuple[str, Any, Any]]:
    return [
        (one.archive.name, one.error and one.error.message, one.report.gaps if one.report else None)
        for one in report.archives
    ]


async def test_every_archive_comes_back_as_borg_itself_extracts_it(world: World, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "b")
    source = tmp_path / "s" / "tree"
    source.mkdir(parents=True)
    build(source)
    (source / "socket").unlink()
    for number in range(200):  # most of it stays
        write(os.fsdecode(source / "many" / str(number)), b"%d" % number)
    repo.create("laptop-2024-03-01", "tree", folder=source.parent, at="2024-03-01T10:00:00", options=("--comment", "ett"))
    change(source)
    repo.create("laptop-2024-03-02", "tree", folder=source.parent, at="2024-03-02T10:00:00")
    report = await bring(world, repo)
    assert outcome(report) == [("laptop-2024-03-01", None, []), ("laptop-2024-03-02", None, [])]
    assert [one.dataset for one in report.archives] == ["laptop", "laptop"]
    assert report.ended
    first, second = report.archives
    assert first.items == first.extracted
    print(second.items, second.extracted)
    assert second.extracted < second.items / 2
    snapshots = await world.snapshots()
    assert [one.created.isoformat() for one in snapshots] == ["2024-03-01T10:00:00+00:00", "2024-03-02T10:00:00+00:00"]
    for number, one in enumerate(("laptop-2024-03-01", "laptop-2024-03-02")):
        target = tmp_path / f"restored-{number}"
        await world.restore(str(target), snapshots[number].id)
        alone = repo.extract(one, tmp_path / f"extracted-{number}")
        assert compare(alone, target, Rules(owners=ROOT)) == []
        shutil.rmtree(alone)
    assert snapshots[0].details.tags[0] == "borg:laptop-2024-03-01"
    assert snapshots[0].details.tags[2] == "comment:ett"
    again = await bring(world, repo)
    assert (again.archives, again.already) == ([], 2)
    assert not (tmp_path / "staging").exists()
