"""Snapshots that become archives of Borg, with a real borg."""

import os
import shutil
from pathlib import Path

import pytest

from replicator.engine.borgexport import ExportedArchive, export_to_borg
from replicator.engine.browse import Library
from replicator.engine.federation import Federation
from replicator.errors import KeyWrongError, NotFoundError, UsageError
from tests.borg import Repo, needs_borg
from tests.compare import Rules, compare
from tests.scenarios.world import World
from tests.snapshot.nasty import build

pytestmark = needs_borg
ROOT = os.geteuid() == 0


async def take(
    world: World, repo: Repo, snapshot: str = "latest", *, name: str | None = None, encryption: str | None = None
) -> ExportedArchive:
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge, ticket=keeper.lazy_ticket) as federation:
            library = Library(keeper, federation)
            await library.refresh()
            return await export_to_borg(
                library,
                world.edge,
                await library.find(snapshot),
                repo.maker(world.home, reads=False),
                name=name,
                encryption=encryption,
                staging=os.path.join(world.root, "staging"),
                privileged=ROOT,
            )
    finally:
        keeper.close()


async def test_borg_extracts_what_a_restore_brings_back(world: World, tmp_path: Path) -> None:
    source = tmp_path / "s" / "tree"
    source.mkdir(parents=True)
    build(source)
    # What borg has no room for: times before 1970 and after 2242, and several names of one symbolic link.
    os.utime(source / "large", ns=(10**18, 10**18 + 1))
    os.utime(source / "empty folder", ns=(5, 2_000_000_000_000_000_001))
    (source / "hard symlink").unlink()
    world.add_dataset("odd", str(source))
    [done] = (await world.backup()).datasets
    repo = Repo(tmp_path / "b", encryption="")
    with pytest.raises(NotFoundError, match="does not exist"):
        await take(world, repo)
    made = await take(world, repo, encryption="repokey")
    assert made.warnings == []
    assert made.name == "odd-2040-01-01T00:01:00"
    [listed] = repo.listing()["archives"]
    assert done.snapshot is not None
    assert (listed["start"], listed["comment"]) == (
        "2040-01-01T00:01:00.000000",
        f"replicator snapshot {done.snapshot.name.hex()}",
    )
    await world.restore(str(tmp_path / "restored"))
    alone = repo.extract(made.name, tmp_path / "extracted")
    assert compare(tmp_path / "restored", alone, Rules(owners=ROOT)) == []
    assert "staging" not in os.listdir(world.root)
    again = await take(world, repo, encryption="repokey")
    assert (again.already, again.restored, repo.names()) == (True, None, [made.name])
    repo.create("taken", "links", folder=source)
    with pytest.raises(UsageError, match="another archive 'taken'"):
        await take(world, repo, name="taken")
    repo.environment["BORG_PASSPHRASE"] = "another"
    with pytest.raises(KeyWrongError, match="incorrect"):
        await take(world, repo, name="more")
    shutil.rmtree(alone)
