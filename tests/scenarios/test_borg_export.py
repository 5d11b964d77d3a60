"""Snapshots that become archives of Borg, with a real borg."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from replicator.engine.borg import Done
from replicator.engine.borgexport import ExportedArchive, export_to_borg
from replicator.engine.browse import Library
from replicator.engine.edge import NoProgress
from replicator.engine.federation import Federation
from replicator.errors import KeyWrongError, NotFoundError, SourceError, UsageError
from replicator.process import Command, Ended, Heard, Programs, Stop, SystemPrograms
from tests.borg import Repo, needs_borg
from tests.compare import Rules, compare
from tests.scenarios.world import World
from tests.snapshot.nasty import build

pytestmark = needs_borg
ROOT = os.geteuid() == 0


async def take(
    world: World,
    repo: Repo,
    *,
    name: str | None = None,
    encryption: str | None = None,
    programs: Programs | None = None,
) -> ExportedArchive:
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge, ticket=keeper.lazy_ticket) as federation:
            library = Library(keeper, federation)
            await library.refresh()
            return await export_to_borg(
                library,
                world.edge,
                await library.find("latest"),
                repo.maker(world.home, reads=False, programs=programs),
                name=name,
                encryption=encryption,
                staging=os.path.join(world.root, "staging"),
                privileged=ROOT,
            )
    finally:
        keeper.close()


def test_a_borg_that_is_stopped_leaves_no_lock_and_the_lock_of_a_killed_one_is_in_nobodys_way(tmp_path: Path) -> None:
    repo, told = Repo(tmp_path / "b"), Noting()
    source = tmp_path / "large"
    source.touch()
    os.truncate(source, 1 << 36)  # takes borg a minute
    make = repo.maker(str(tmp_path), reads=False, wait_s=30)

    def create(name: str, stop: Stop) -> Done:
        return make(stop).create(name, [b"./large"], folder=str(tmp_path), at_ns=0, comment="", progress=told)

    with pytest.raises(SourceError, match="was stopped"):
        create("stopped", lambda: told.amount > 0)
    assert list(repo.path.glob("lock.*")) == []
    words = [repo.program, "--log-json", "create", "--progress", f"{repo.path}::killed", "large"]
    with subprocess.Popen(words, env=repo.environment, cwd=tmp_path, stderr=subprocess.PIPE) as killed:
        assert killed.stderr is not None, "it was asked for"
        while b"archive_progress" not in killed.stderr.readline():
            pass
        killed.kill()
    assert list(repo.path.glob("lock.*")) != []
    os.truncate(source, 1)
    assert create("whole", lambda: False).warnings == []
    assert repo.names() == ["whole"]


class Noting(NoProgress):
    """Knows whether anything was read."""

    amount = 0

    def advance(self, amount: int) -> None:
        self.amount += amount


class Dying(SystemPrograms):
    """Kills borg when it has made an archive, before it can say so."""

    def run(self, command: Command, *, limit_s: float, stop: Stop, keep: int = 0, heard: Heard | None = None) -> Ended:
        ended = super().run(command, limit_s=limit_s, stop=stop, keep=keep, heard=heard)
        return Ended(code=-9) if "create" in command.argv else ended


async def test_an_export_whose_borg_is_killed_is_none_and_the_next_one_is_whole(world: World, tmp_path: Path) -> None:
    world.small_dataset()
    await world.backup()
    repo = Repo(tmp_path / "b")
    with pytest.raises(SourceError, match="signal 9"):
        await take(world, repo, programs=Dying())
    assert "staging" not in os.listdir(world.root)
    again = await take(world, repo)
    assert (again.already, repo.names()) == (True, [again.name])


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
