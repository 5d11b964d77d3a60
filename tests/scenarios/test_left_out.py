"""What a dataset leaves out stays out and is named; what a run is called by is found again."""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import pytest

from replicator.errors import MinimumNotMetError, UsageError
from tests.scenarios.world import TOO_MUCH, World, write
from tests.snapshot.fakesource import FakeSource


def choose(world: World, **changes: Any) -> None:
    """Change what the dataset leaves out."""
    node = world.node()
    try:
        node.catalog.datasets.update(dataclasses.replace(node.catalog.datasets.get("docs"), **changes))
    finally:
        node.close()


def below(top: str, paths: Iterable[str]) -> list[str]:
    """Return paths as they are below a folder."""
    return [os.path.relpath(path, top) for path in paths]


def files_in(top: str) -> set[str]:
    """Return all files below a folder."""
    return set(below(top, (os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names)))


async def test_every_rule_of_a_dataset_holds_and_is_told_apart_from_gaps(world: World, source: str) -> None:
    write(os.path.join(source, "draft.tmp"), b"x")
    write(os.path.join(source, "keep.tmp"), b"x")
    write(os.path.join(source, "full.log"), b"x")
    write(os.path.join(source, "browser", "CACHEDIR.TAG"), b"Signature: 8a477f597d28d172789f06886806bc55")
    write(os.path.join(source, "browser", "page"), b"x")
    write(os.path.join(source, "scratch", os.fsdecode(b"\xff.nobackup")), b"")
    write(os.path.join(source, "scratch", "work"), b"x")
    write(os.path.join(source, "film"), bytes(2_000_001))
    write(os.path.join(source, "share", "theirs"), b"x")

    def alter(path: bytes, fields: dict[str, Any]) -> None:
        if b"/share" in path:
            fields["st_dev"] = os.makedev(99, 1)

    choose(
        world,
        exclude=("*.tmp", "!keep.tmp", os.path.join(source, "full.log")),
        exclude_if_present=(os.fsdecode(b"\xff.nobackup"),),
        exclude_larger_than=2_000_000,
    )
    # As another file system can only be faked, this thread reads it: no process sees what a fake says.
    fake = FakeSource(alter=alter, mounted=b"36 35 99:1 / /elsewhere rw - nfs4 server:/ rw\n")
    [done] = (await world.backup(source=fake)).datasets
    assert (done.error, done.published, done.gaps) == (None, True, [])
    named = dict(zip(below(source, dict(done.skipped)), dict(done.skipped).values(), strict=True))
    assert named == {
        "browser": "what is in a cache folder (CACHEDIR.TAG)",
        "film": "larger than 2 MB",
        "scratch": r"what is beside a file called \xff.nobackup",
        "share": "a network file system (nfs4)",
    }
    assert done.skipped_by_reason == dict.fromkeys(named.values(), 1)
    out = os.path.join(world.root, "out")
    await world.restore(out)
    left_out = {"draft.tmp", "full.log", "browser/page", "scratch/work", "film", "share/theirs"}
    assert files_in(os.path.join(out, "docs")) == files_in(source) - left_out
    assert os.listdir(os.path.join(out, "docs", "share")) == []


async def test_what_is_left_out_later_leaves_the_next_snapshot_and_comes_back(world: World, source: str) -> None:
    write(os.path.join(source, "photos", "draft.tmp"), b"x")
    await world.backup()
    choose(world, exclude=("*.tmp",))
    [done] = (await world.backup()).datasets
    assert (done.bytes_read, done.skipped) == (0, [])
    assert await world.differences(source) != []
    choose(world, exclude=())
    await world.backup()
    assert await world.differences(source) == []


async def test_a_stored_pattern_that_means_nothing_fails_its_dataset_with_words(world: World, source: str) -> None:
    choose(world, exclude=("[",))
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, UsageError)
    assert "'['" in done.error.message


async def test_tags_are_sealed_in_the_snapshot_and_known_to_its_node(world: World, source: str) -> None:
    await world.backup(tags=["before the move", "ö", "ö"])
    await world.backup()
    assert [one.details.tags for one in await world.snapshots()] == [["before the move", "ö"], []]
    node = world.node()
    assert [row.tags for row in node.catalog.snapshots.all()] == [("before the move", "ö"), ()]
    node.close()
    keeper = world.keeper()
    assert [row.tags for row in keeper.catalog.snapshots.all()] == [(), ()], "a catalog in the clear holds no names"
    keeper.close()


async def test_tags_stay_with_a_snapshot_that_makes_way_and_is_committed_again(world: World, source: str) -> None:
    world.small_dataset("bold", TOO_MUCH)
    [waiting] = (await world.backup("bold", tags=["before"])).datasets
    assert isinstance(waiting.error, MinimumNotMetError)
    [done] = (await world.backup("docs", tags=["after"])).datasets
    assert done.published
    node = world.node()
    found = {row.dataset: (row.number, row.tags) for row in node.catalog.snapshots.all()}
    node.close()
    assert found == {"docs": (1, ("after",)), "bold": (2, ("before",))}


@pytest.mark.parametrize("overlap", [False, True])
async def test_rules_hold_where_processes_read(overlap: bool, world: World, source: str) -> None:
    write(os.path.join(source, "photos", "CACHEDIR.TAG"), b"Signature: 8a477f597d28d172789f06886806bc55")
    [done] = (await world.backup(overlap=overlap, readers=2)).datasets
    assert below(source, dict(done.skipped)) == ["photos"]
