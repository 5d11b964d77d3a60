"""Looking at snapshots on a keeper: what is read again, what is kept, what is said when a part cannot be had."""

import dataclasses
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from replicator.engine.browse import ChunkFetcher, Library, candidates
from replicator.engine.diff import diff
from replicator.engine.federation import Federation
from replicator.engine.history import versions, was_unreadable
from replicator.engine.inspect import verify_content
from replicator.engine.restore import restore
from replicator.engine.search import SearchReport, search, select
from replicator.errors import IntegrityError, NotFoundError, UsageError
from replicator.format.snapshot import RootFolder, SnapshotDetails
from replicator.snapshot.chunklist import EMPTY
from replicator.snapshot.diff import Change
from replicator.snapshot.glob import Glob
from replicator.snapshot.search import Criteria
from tests.scenarios.test_vertical import second_node
from tests.scenarios.world import World, read, small_tree, write


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[Library]:
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            library = Library(keeper, federation)
            await library.refresh()
            yield library
    finally:
        keeper.close()


async def listed(world: World, snapshot: str = "latest") -> list[str]:
    async with opened(world) as library:
        found = await library.find(snapshot)
        fetcher = ChunkFetcher(library, found.snapshot.domain)
        return await fetcher.in_thread(
            lambda reader: [b"/".join(path).decode() for path, _ in reader.walk(found.details.tree)]
        )


async def searched(world: World, pattern: str, dataset: str | None = None) -> SearchReport:
    async with opened(world) as library:
        snapshots = await select(library, dataset=dataset)
        return await search(library, world.edge, snapshots, Criteria(pattern=Glob.parse(pattern)))


def told(report: SearchReport) -> list[tuple[str, int]]:
    return [(b"/".join(one.path).decode(), one.count) for one in report.found]


def tree_packs(world: World) -> set[str]:
    """Return the names of all packs of directories there are now."""
    return {os.path.basename(path) for number in range(5) for path in world.stored(number, ["tree"])}


def lose(world: World, names: set[str]) -> None:
    """Remove objects from every provider's disk."""
    for number in range(5):
        for name in names & set(os.listdir(world.objects(number))):
            os.unlink(os.path.join(world.objects(number), name))


def damage(path: str) -> None:
    write(path, b"damage" + read(path)[6:])


def kept(world: World) -> str:
    return os.path.join(world.home, "keeper", "cache", "trees")


async def test_what_was_looked_at_can_be_looked_at_without_any_provider(world: World, source: str) -> None:
    await world.backup()
    names = await listed(world)
    assert "docs/photos/one.raw" in names
    world.silence(*range(5))
    assert await listed(world) == names
    assert told(await searched(world, "*.raw")) == [("docs/photos/one.raw", 1), ("docs/photos/two.raw", 1)]
    async with opened(world) as library:
        found = await library.find("latest")
        report = await restore(library, world.edge, found, "/nowhere", privileged=False, dry_run=True)
        assert report.bytes == 13 * 300 + 400_000 + 20_000
    async with opened(world) as library:
        with pytest.raises(NotFoundError, match="no reachable peer"):
            await ChunkFetcher(library.uncached(), found.snapshot.domain).in_thread(
                lambda reader: list(reader.walk(found.details.tree))
            )


async def test_a_kept_pack_that_is_damaged_is_fetched_again(world: World, source: str) -> None:
    await world.backup()
    names = await listed(world)
    [pack] = tree_packs(world)
    path = os.path.join(kept(world), pack)
    damage(path)
    assert await listed(world) == names
    assert await world.differences(source) == []
    world.silence(*range(5))
    assert await listed(world) == names


async def test_nothing_of_what_is_kept_can_be_read(world: World) -> None:
    secret = "canary-of-a-name-0815"
    folder = small_tree(os.path.join(world.root, "source", secret))
    write(os.path.join(folder, f"{secret}.txt"), b"canary content")
    world.add_dataset("secret", folder)
    await world.backup()
    assert f"{secret}/{secret}.txt" in await listed(world)
    seen = 0
    for top, _, files in os.walk(os.path.join(world.home, "keeper", "cache")):
        for name in files:
            data = read(os.path.join(top, name))
            assert secret.encode() not in data
            assert b"letter.txt" not in data
            seen += 1
    assert seen >= 3, "a pack, the order, a snapshot"
    assert tree_packs(world) <= set(os.listdir(kept(world)))


async def test_a_check_of_what_providers_hold_does_not_believe_what_lies_here(world: World, source: str) -> None:
    await world.backup()
    await listed(world)
    lose(world, tree_packs(world))
    async with opened(world) as library:
        report = await verify_content(library, world.edge, share=0.0)
    assert any(line.startswith("snapshot ") and "no reachable peer" in line for line in report.absent)
    assert "docs" in await listed(world), "while it lies here it can be looked at"


async def three_days(world: World, source: str) -> list[set[str]]:
    """Make three snapshots of changes; return the packs of directories that each brought."""
    packs: list[set[str]] = []
    for number, text in enumerate((b"one", b"two", None)):
        path = os.path.join(source, "notes", "diary")
        if text is None:
            os.unlink(path)
        else:
            write(path, text)
        write(os.path.join(source, "notes", f"day-{number}"), b"%d" % number)
        [done] = (await world.backup()).datasets
        assert done.published
        packs.append(tree_packs(world) - set().union(*packs))
    return packs


async def test_files_are_found_in_all_snapshots_and_told_once(world: World, source: str) -> None:
    await three_days(world, source)
    report = await searched(world, "d[ai]*")
    assert told(report) == [
        ("docs/notes/day-0", 3),
        ("docs/notes/day-1", 2),
        ("docs/notes/day-2", 1),
        ("docs/notes/diary", 1),
        ("docs/notes/diary", 1),
    ]
    first, last = report.found[0].first, report.found[0].last
    assert (first.row.number, last.row.number, report.snapshots) == (1, 3, 3)
    assert [(one.first.row.number, one.version.size) for one in report.found[3:]] == [(1, 3), (2, 3)]
    assert told(await searched(world, os.path.join(source, "notes", "diary"))) == told(report)[3:]
    with pytest.raises(NotFoundError, match="no snapshot of dataset 'nope'"):
        await searched(world, "*", "nope")


async def test_a_snapshot_that_cannot_be_read_is_named_and_the_others_are_searched(world: World, source: str) -> None:
    packs = await three_days(world, source)
    lose(world, packs[1])
    report = await searched(world, "d[ai]*")
    assert [(one.row.number, type(error)) for one, error in report.trouble] == [(2, NotFoundError)]
    assert report.snapshots == 2
    assert told(report)[0] == ("docs/notes/day-0", 2)
    async with opened(world) as library:
        history = await versions(library, world.edge, await select(library), "docs/notes/diary")
    assert [(one.state, one.first.row.number, one.last.row.number) for one in history.versions] == [
        ("present", 1, 1),
        ("deleted", 3, 3),
    ]
    assert len(history.trouble) == 1
    lose(world, packs[0] | packs[2])
    shutil.rmtree(kept(world))
    with pytest.raises(NotFoundError, match="no reachable peer"):
        await searched(world, "nothing")
    async with opened(world) as library:
        with pytest.raises(NotFoundError, match="no reachable peer"):
            await versions(library, world.edge, await select(library), "docs/none")


async def test_a_snapshot_that_is_damaged_everywhere_is_trouble_of_its_own_kind(world: World, source: str) -> None:
    packs = await three_days(world, source)
    for number in range(5):
        for name in packs[2] & set(os.listdir(world.objects(number))):
            damage(os.path.join(world.objects(number), name))
    async with opened(world) as library:
        report = await search(library, world.edge, await select(library), Criteria(pattern=Glob.parse("diary")))
        assert [one.row.number for one, _ in report.trouble] == [3]
        assert library.federation.integrity != []
    assert told(report) == [("docs/notes/diary", 1), ("docs/notes/diary", 1)]


async def test_a_path_has_a_history_by_any_of_its_names(world: World, source: str) -> None:
    await three_days(world, source)
    async with opened(world) as library:
        snapshots = await select(library)
        for name in ("docs/notes/diary", "notes/diary", os.path.join(source, "notes", "diary")):
            report = await versions(library, world.edge, snapshots, name)
            assert [(one.state, one.first.row.number, one.count) for one in report.versions] == [
                ("present", 1, 1),
                ("present", 2, 1),
                ("deleted", 3, 1),
            ]
            assert {one.path for one in report.versions} == {(b"docs", b"notes", b"diary")}
        with pytest.raises(NotFoundError, match="no snapshot has a path 'docs/none'"):
            await versions(library, world.edge, snapshots, "docs/none")
        with pytest.raises(UsageError):
            await versions(library, world.edge, snapshots, "/")


async def test_a_snapshot_that_is_not_complete_deletes_nothing(world: World, source: str) -> None:
    await three_days(world, source)
    async with opened(world) as library:
        *others, last = await select(library)
        part = dataclasses.replace(last, row=dataclasses.replace(last.row, partial=True))
        report = await versions(library, world.edge, [*others, part], "docs/notes/diary")
        assert [one.state for one in report.versions] == ["present", "present"]


async def test_datasets_and_nodes_have_histories_of_their_own(world: World, source: str) -> None:
    other = await second_node(world)
    world.add_dataset("docs", source, home=other)
    await world.backup()
    await world.backup(home=other)
    await world.backup()
    async with opened(world) as library:
        snapshots = await select(library)
        report = await search(library, world.edge, snapshots, Criteria(pattern=Glob.parse("letter.txt")))
        assert sorted((one.first.node, one.count) for one in report.found) == [("second", 1), ("testhost", 2)]
        history = await versions(library, world.edge, snapshots, "docs/letter.txt")
        assert sorted((one.last.node, one.count) for one in history.versions) == [("second", 1), ("testhost", 2)]


async def test_two_snapshots_are_compared_as_a_whole_or_at_a_path(world: World, source: str) -> None:
    await three_days(world, source)

    async def changes(old: int, new: int, path: str = "") -> list[tuple[str, str]]:
        found: list[Change] = []
        async with opened(world) as library:
            snapshots = await select(library)
            summary = await diff(library, snapshots[old], snapshots[new], path, found.append)
        assert summary.added + summary.removed + summary.content + summary.metadata == len(found)
        return [(one.what, b"/".join(one.path).decode()) for one in found]

    first = [("added", "docs/notes/day-1"), ("content", "docs/notes/diary")]
    assert await changes(0, 1) == await changes(0, 1, "notes") == await changes(0, 1, "/") == first
    assert await changes(0, 1, "docs/notes/diary") == first[1:]
    assert await changes(1, 2, "docs/notes/diary") == [("removed", "docs/notes/diary")]
    assert await changes(2, 1, os.path.join(source, "notes", "diary")) == [("added", "docs/notes/diary")]
    assert await changes(0, 2, "docs/photos") == []
    assert await changes(1, 1) == []
    with pytest.raises(NotFoundError, match="neither snapshot has a path 'docs/none'"):
        await changes(0, 1, "docs/none")


async def test_a_difference_that_cannot_be_read_is_no_difference_that_is_told(world: World, source: str) -> None:
    packs = await three_days(world, source)
    lose(world, packs[2])
    async with opened(world) as library:
        snapshots = await select(library)
        with pytest.raises((NotFoundError, IntegrityError)):
            await diff(library, snapshots[1], snapshots[2], "", lambda _: None)


async def test_one_snapshot_or_one_dataset_is_chosen_not_both(world: World, source: str) -> None:
    await world.backup()
    async with opened(world) as library:
        assert len(await select(library, snapshot="latest:docs")) == 1
        with pytest.raises(UsageError):
            await select(library, snapshot="latest", dataset="docs")


def test_what_could_not_be_read_is_no_deletion() -> None:
    details = SnapshotDetails(
        dataset="docs",
        host="host",
        roots=[RootFolder(path=b"/srv/docs", name=b"docs"), RootFolder(path=b"/srv/x/docs", name=b"docs~2")],
        tree=EMPTY,
        tags=[],
        gaps=[b"/srv/docs/locked", b"/srv/docs/notes/one"],
    )
    for text, expected in {
        "docs/notes/one": True,
        "docs/notes/two": False,
        "docs/notes": False,
        "docs/locked/deep/file": True,
        "docs~2/locked": False,
        "/srv/docs/notes/one": True,
        "other/notes/one": False,
    }.items():
        assert was_unreadable(details, candidates(details, text)) == expected, text
