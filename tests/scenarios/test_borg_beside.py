"""Archives of Borg beside the federation's copy, with a real borg."""

import dataclasses
import os
from pathlib import Path

import pytest

from replicator.catalog.snapshots import SnapshotRow
from replicator.engine.backup import BackupReport, DatasetReport, backup
from replicator.engine.beside import Beside, BesideReport, archives_of, comment_of, paths_of, to_drop
from replicator.engine.borg import Archive, Borg
from replicator.errors import SpaceError
from replicator.ids import ObjectName
from replicator.process import Stop, SystemPrograms
from replicator.snapshot.mapped import MappedSource
from replicator.snapshot.retention import KeepRules
from replicator.snapshot.rules import Rules
from replicator.snapshot.walk import PosixSource
from tests.borg import Repo, disk, needs_borg, needs_root
from tests.compare import Rules as Compared
from tests.compare import compare
from tests.fakes import SeededRng
from tests.scenarios.world import World, write
from tests.snapshot.nasty import build

DAY_S = 86_400
RULES = KeepRules(daily=2)


def ask_for(world: World, repository: str, name: str = "docs") -> None:
    node = world.node()
    try:
        one = node.catalog.datasets.get(name)
        node.catalog.datasets.update(dataclasses.replace(one, also_borg=repository))
    finally:
        node.close()


async def night(world: World, repo: Repo, *, programs: SystemPrograms | None = None) -> DatasetReport:
    world.clock.advance(DAY_S)
    node = world.node()
    make = repo.maker(world.home, reads=False, programs=programs)
    try:
        report: BackupReport = await backup(
            node,
            world.edge,
            overlap=False,
            beside=lambda node, edge: Beside(node, edge, lambda _, stop: make(stop), lambda _: RULES),
        )
    finally:
        node.close()
    [done] = report.datasets
    assert (done.error, done.published) == (None, True)
    return done


def beside(done: DatasetReport) -> BesideReport:
    assert done.beside is not None
    return done.beside


@pytest.mark.slow
@needs_borg
async def test_an_archive_beside_has_what_the_snapshot_has_and_is_thinned_and_checked(
    world: World, tmp_path: Path
) -> None:
    repo = Repo(tmp_path / "b")
    source = tmp_path / "s" / "docs"
    source.mkdir(parents=True)
    build(source)
    (source / "hard symlink").unlink()
    for path in ("large", "empty folder"):
        os.utime(source / path, ns=(10**18, 10**18))
    write(str(source / "cache" / "CACHEDIR.TAG"), b"Signature: 8a477f597d28d172789f06886806bc55 it is")
    write(str(source / "cache" / "much"), b"left out")
    world.add_dataset("docs", str(source))
    ask_for(world, str(repo.path))
    first = await night(world, repo)
    assert (beside(first).error, beside(first).warnings, beside(first).checked) == (None, [], True)
    await world.restore(str(tmp_path / "restored"))
    alone = repo.extract(beside(first).archive, tmp_path / "extracted")
    assert compare(tmp_path / "restored", alone, Compared(owners=os.geteuid() == 0)) == []
    assert not (alone / "docs" / "cache" / "much").exists()
    repo.create("mine", "links", folder=source)
    second, third = await night(world, repo), await night(world, repo)
    assert (beside(third).dropped, beside(third).checked) == ([beside(first).archive], False)
    assert sorted(repo.names()) == sorted(["mine", beside(second).archive, beside(third).archive])
    status = await world.status()
    assert [one.copies for one in status.datasets] == [3]
    assert status.besides["docs"].archive == beside(third).archive
    assert not [problem for problem in status.problems if "beside" in problem]


@needs_borg
async def test_an_archive_that_fails_never_stops_the_copy_and_is_named_until_one_is_made(
    world: World, tmp_path: Path
) -> None:
    world.small_dataset()
    repo = Repo(tmp_path / "b", encryption="")
    ask_for(world, str(repo.path))
    status = await world.status()
    assert any("none yet" in problem for problem in status.problems)
    failed = await night(world, repo)
    assert "does not exist" in str(beside(failed).error)
    status = await world.status(offline=True)
    assert (status.exit_code, [one.state for one in status.datasets]) == (3, ["safe"])
    assert any("beside" in problem and "does not exist" in problem for problem in status.problems)
    repo("init", "--encryption", "repokey", str(repo.path))
    assert beside(await night(world, repo)).error is None
    status = await world.status(offline=True)
    assert not [problem for problem in status.problems if "beside" in problem]
    world.clock.advance(4 * DAY_S)
    status = await world.status(offline=True)
    assert any("96 hours old" in problem for problem in status.problems)


@pytest.mark.slow
@needs_borg
@needs_root
async def test_an_archive_for_which_there_is_no_room_is_named_and_the_next_one_is_made(
    world: World, tmp_path: Path
) -> None:
    source = tmp_path / "s" / "docs"
    write(str(source / "large"), SeededRng("large").bytes(3_000_000))
    world.add_dataset("docs", str(source))
    with disk(tmp_path / "small", 2_000_000) as resize:
        repo = Repo(tmp_path / "small" / "b")
        ask_for(world, str(repo.path))
        failed = await night(world, repo)
        assert isinstance(beside(failed).error, SpaceError)
        assert any("beside" in problem for problem in (await world.status(offline=True)).problems)
        resize(30_000_000)
        made = await night(world, repo)
        assert (beside(made).error, repo.names()) == (None, [beside(made).archive])
    assert await world.differences(str(source)) == []


async def test_whatever_goes_wrong_beside_ends_nothing_else(world: World, tmp_path: Path) -> None:
    world.small_dataset()
    ask_for(world, "/srv/borg")

    def broken(_repository: str, _stop: Stop) -> Borg:
        raise RuntimeError("nobody thought of this")

    node = world.node()
    make = lambda node, edge: Beside(node, edge, broken, lambda _: RULES)  # noqa: E731
    try:
        [done] = (await backup(node, world.edge, overlap=False, beside=make)).datasets
    finally:
        node.close()
    assert (done.error, done.published) == (None, True)
    assert str(beside(done).error) == "RuntimeError: nobody thought of this"
    assert any("nobody thought of this" in problem for problem in (await world.status(offline=True)).problems)


def row(tags: tuple[str, ...] = ()) -> SnapshotRow:
    return SnapshotRow(
        name=ObjectName(bytes(32)),
        writer=bytes(32),
        number=1,
        dataset="docs",
        created_ns=0,
        published_ns=0,
        policy=bytes(32),
        files=0,
        size=0,
        partial=False,
        indexes=(),
        references=(),
        head=b"",
        gaps=(),
        tags=tags,
    )


def archive(day: int, comment: str = "replicator snapshot 00", name: str = "") -> Archive:
    return Archive(
        name=name or f"docs-2024-01-{day:02d}T00:00:00",
        id=f"{day:064x}",
        start_ns=(1_704_067_200 + (day - 1) * DAY_S) * 10**9,
        comment=comment,
    )


def test_only_our_own_archives_are_ever_dropped_and_none_that_is_to_be_kept() -> None:
    mine = archive(1, comment="by hand")
    renamed = archive(2, name="docs-for-ever")
    other = archive(3, name="docs2-2024-01-03T00:00:00")
    ours = [archive(day) for day in range(4, 9)]
    kept = archive(9, comment="replicator snapshot 00 keep")
    assert archives_of([mine, renamed, other, *ours, kept], "docs") == [*ours, kept]
    assert [comment_of(row(tags)) for tags in ((), ("keep",))] == [
        f"replicator snapshot {'00' * 32}{end}" for end in ("", " keep")
    ]
    gone = to_drop([kept, *ours], KeepRules(last=1, daily=2))
    assert gone == ours[:4]
    assert to_drop([archive(1, comment="replicator snapshot 00 keep"), *ours], KeepRules(last=1)) == ours[:4]


def test_paths_are_stored_as_the_snapshot_has_them_wherever_they_are_read(world: World, tmp_path: Path) -> None:
    write(str(tmp_path / "snap" / "docs" / "a" / "b"), b"x")
    write(str(tmp_path / "docs" / "only live"), b"x")
    world.add_dataset("docs", str(tmp_path / "docs"))
    node = world.node()
    dataset = node.catalog.datasets.get("docs")
    node.close()
    live = list(paths_of(dataset, Rules(), PosixSource()))
    above = os.fsencode(tmp_path)
    assert live == [above + b"/./docs", above + b"/./docs/only live"]
    mapped = MappedSource({above + b"/docs": above + b"/snap/docs"})
    assert list(paths_of(dataset, Rules(), mapped)) == [
        above + b"/snap/./docs",
        above + b"/snap/./docs/a",
        above + b"/snap/./docs/a/b",
    ]
    at_top = MappedSource({above + b"/docs": above + b"/snap"})
    assert next(iter(paths_of(dataset, Rules(), at_top))) == above + b"/snap/./docs"
