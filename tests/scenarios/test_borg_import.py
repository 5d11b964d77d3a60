"""Archives of Borg that become snapshots, with a real borg."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from replicator.catalog.snapshots import Dataset
from replicator.engine.importing import ImportReport, chosen, home_of, import_archives
from replicator.engine.node import NodeHome
from replicator.engine.retain import counted
from replicator.errors import KeyWrongError, LockedError, SourceError
from replicator.fs import PosixFs
from replicator.process import Command, Ended, Heard, Stop, SystemPrograms
from tests.borg import OTHER, PHRASE, Repo, disk, listening, needs_borg, needs_root, needs_ssh
from tests.compare import Rules, compare
from tests.fakes import SeededRng
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
            staging=said.pop("staging", os.path.join(world.root, "staging")),
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
    repo.create(
        "laptop-2024-03-01", "tree", folder=source.parent, at="2024-03-01T10:00:00", options=("--comment", "ett")
    )
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


class Failing(SystemPrograms):
    """Lets borg's extraction of the n-th archive end as a test wants, after it has done its work."""

    def __init__(self, number: int, code: int, said: bytes = b"") -> None:
        self.number = number
        self.code = code
        self.said = said

    def run(self, command: Command, *, limit_s: float, stop: Stop, keep: int = 0, heard: Heard | None = None) -> Ended:
        ended = super().run(command, limit_s=limit_s, stop=stop, keep=keep, heard=heard)
        if "extract" not in command.argv:
            return ended
        self.number -= 1
        if self.number or heard is None:
            return ended
        heard(self.said)
        return Ended(code=self.code, out=ended.out)


def series(tmp_path: Path, count: int = 3) -> tuple[Repo, list[Path]]:
    """Make a repository with archives "a-1", "a-2", ...; return it and the largest file that each has added."""
    repo = Repo(tmp_path / "b")
    data, added = repo.path / "data" / "0", []
    write(str(tmp_path / "s" / "tree" / "all"), SeededRng("all").bytes(400_000))
    for number in range(1, count + 1):
        write(str(tmp_path / "s" / "tree" / "own"), SeededRng(str(number)).bytes(100_000))
        before = set(data.glob("*"))
        repo.create(f"a-{number}", "tree", folder=tmp_path / "s", at=f"2024-03-0{number}T10:00:00")
        added.append(max(set(data.glob("*")) - before, key=lambda path: path.stat().st_size))
    return repo, added


def bad(report: ImportReport) -> list[str]:
    return [f"{one.archive.name} {type(one.error).__name__}" for one in report.archives if one.error is not None]


NO_ROOM = b'{"type": "log_message", "levelname": "WARNING", "message": "tree: write: [Errno 28] No space left"}\n'


@pytest.mark.slow
async def test_what_stops_an_import_is_named_and_the_next_run_goes_on(world: World, tmp_path: Path) -> None:
    repo, _ = series(tmp_path)
    killed = await bring(world, repo, make=repo.maker(world.home, programs=Failing(2, -9)))
    assert (bad(killed), [one.name for one in killed.left], killed.ended) == (["a-2 SourceError"], ["a-3"], False)
    assert "signal 9" in str(killed.archives[1].error)
    full = await bring(world, repo, make=repo.maker(world.home, programs=Failing(1, 1, NO_ROOM)))
    assert (full.already, bad(full)) == (1, ["a-2 SpaceError"])
    world.silence(1, 2, 3, 4)
    alone = await bring(world, repo)
    assert (alone.already, bad(alone), alone.ended) == (1, ["a-2 MinimumNotMetError"], False)
    world.answer(1, 2, 3, 4)
    assert len(await world.snapshots()) == 1
    rest = await bring(world, repo)
    assert [one.name for one in rest.finished] == ["a-2"]
    assert (rest.already, bad(rest), rest.left, rest.ended) == (1, [], [], True)
    found = [one.details.tags[0] for one in await world.snapshots()]
    assert found == ["borg:a-1", "borg:a-2", "borg:a-3"]
    status = await world.status(keeper=True)
    assert [one.state for one in status.datasets if "import" in one.name] == ["safe"]  # and not waited for


@pytest.mark.slow
async def test_a_damaged_archive_keeps_back_no_other_and_comes_with_its_own_time_once_it_is_whole(
    world: World, tmp_path: Path
) -> None:
    repo, added = series(tmp_path)
    whole = added[1].read_bytes()
    os.truncate(added[1], len(whole) // 2)
    report = await bring(world, repo)
    assert (bad(report), report.left, report.ended) == (["a-2 IntegrityError"], [], True)  # nobody waits for it
    added[1].write_bytes(whole)
    again = await bring(world, repo)
    assert (again.already, bad(again), again.ended) == (2, [], True)
    snapshots = await world.snapshots()
    assert [one.details.tags[0] for one in snapshots] == ["borg:a-1", "borg:a-2", "borg:a-3"]
    keeper = world.keeper()
    times, unknown = counted(keeper.catalog.snapshots.all(), world.clock.now_ns())
    keeper.close()
    assert ([times[one.row.name] for one in snapshots], unknown) == ([one.row.created_ns for one in snapshots], set())
    assert again.archives[0].report is not None
    assert again.archives[0].report.new_bytes < 200_000  # what all have is not stored again


async def test_a_repository_that_is_locked_or_does_not_open_is_left_as_it_is_and_comes_in_later(
    world: World, tmp_path: Path
) -> None:
    repo, _ = series(tmp_path, 1)
    lock = repo.path / "lock.exclusive"
    lock.mkdir()
    (lock / "elsewhere@7.1-0").touch()
    with pytest.raises(LockedError, match=r"Failed to create/acquire the lock") as caught:
        await bring(world, repo)
    assert "break-lock" in caught.value.hint
    assert (lock / "elsewhere@7.1-0").exists()
    shutil.rmtree(lock)
    repo.environment["BORG_PASSPHRASE"] = "another"
    with pytest.raises(KeyWrongError, match="incorrect"):
        await bring(world, repo)
    assert await world.snapshots() == []
    repo.environment["BORG_PASSPHRASE"] = PHRASE
    assert outcome(await bring(world, repo)) == [("a-1", None, [])]


@needs_ssh
async def test_a_repository_behind_ssh_comes_in_as_any_other(world: World, tmp_path: Path) -> None:
    repo, _ = series(tmp_path, 1)
    with listening(tmp_path / "ssh") as command:
        repo.place = f"ssh://127.0.0.1{repo.path}"
        repo.environment |= {"BORG_RSH": command, "BORG_REMOTE_PATH": str(shutil.which("borg"))}
        report = await bring(world, repo)
        assert (outcome(report), report.ended) == ([("a-1", None, [])], True)
        repo.environment["BORG_RSH"] = command.replace("ssh ", "ssh -p 1 ", 1)
        with pytest.raises(SourceError, match="Connection closed") as caught:
            await bring(world, repo)
        assert "can this user log in there" in caught.value.hint
    assert await world.differences(str(tmp_path / "s" / "tree")) == []


@pytest.mark.slow
@needs_root
async def test_an_import_whose_disk_is_full_ends_and_goes_on_when_there_is_room(world: World, tmp_path: Path) -> None:
    repo, _ = series(tmp_path, 2)
    with disk(tmp_path / "small", 300_000) as resize:
        staging = str(tmp_path / "small" / "staging")
        full = await bring(world, repo, staging=staging)
        assert (bad(full), len(full.left), full.ended) == (["a-1 SpaceError"], 1, False)
        assert full.archives[0].error is not None
        assert "--staging" in full.archives[0].error.hint
        assert (await world.snapshots(), os.listdir(tmp_path / "small")) == ([], [])
        resize(10_000_000)
        assert outcome(await bring(world, repo, staging=staging)) == [("a-1", None, []), ("a-2", None, [])]
    assert await world.differences(str(tmp_path / "s" / "tree")) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_an_archive_of_a_hundred_thousand_names_comes_in_and_its_successor_in_a_moment(
    world: World, tmp_path: Path
) -> None:
    repo = Repo(tmp_path / "b")
    for number in range(100_000):
        folder = tmp_path / "s" / "tree" / str(number // 1000)
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number}").write_bytes(b"%d" % number)
    os.utime(folder / "99999", (1, 1))  # without a change time of its own in it, an archive is taken to have none
    repo.create("a-2024-03-01", "tree", folder=tmp_path / "s", at="2024-03-01T10:00:00")
    (tmp_path / "s" / "tree" / "7" / "new").write_bytes(b"new")
    repo.create("a-2024-03-02", "tree", folder=tmp_path / "s", at="2024-03-02T10:00:00")
    report = await bring(world, repo)
    assert [(one.error, one.items) for one in report.archives] == [(None, 100_101), (None, 100_102)]
    assert report.archives[1].extracted == 3
    assert report.archives[1].report is not None
    assert report.archives[1].report.bytes_read < 10_000


@pytest.mark.slow
@pytest.mark.skipif(not OTHER, reason="REPLICATOR_TEST_BORG names no other borg (1.2)")
async def test_a_repository_of_an_older_borg_is_read_by_that_borg(world: World, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "b", encryption="none", program=OTHER)
    source = tmp_path / "s" / "tree"
    source.mkdir(parents=True)
    build(source)
    (source / "socket").unlink()
    repo.create("a-2024-03-01", "tree", folder=source.parent, at="2024-03-01T10:00:00")
    write(str(source / "more"), b"more")
    repo.create("a-2024-03-02", "tree", folder=source.parent, at="2024-03-02T10:00:00")
    report = await bring(world, repo)
    assert (outcome(report), report.encryption) == ([("a-2024-03-01", None, []), ("a-2024-03-02", None, [])], "none")
    await world.restore(str(tmp_path / "restored"))
    alone = repo.extract("a-2024-03-02", tmp_path / "extracted")
    assert compare(alone, tmp_path / "restored", Rules(owners=ROOT)) == []
