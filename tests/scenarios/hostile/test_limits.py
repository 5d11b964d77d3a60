"""Trees that are too deep, too large or without end: the limit is told, and neither memory nor the disk is filled."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from replicator.engine.browse import ChunkFetcher
from replicator.errors import FormatError, NotFoundError, SpaceError
from replicator.snapshot import plan
from replicator.snapshot.tree import TreeReader
from tests.scenarios.hostile.specwriter import DATA, TREE, Writer, encoded, entry
from tests.scenarios.hostile.stage import Stage

LIST_LIMIT = 4096


def deep(writer: Writer, depth: int) -> list[Any]:
    """Return the top of folders in folders."""
    inner = [writer.file(b"file", b"x")]
    for _ in range(depth):
        inner = [writer.directory(b"d", inner)]
    return writer.folder(inner)


@pytest.mark.parametrize("stage", ["user"], indirect=True)
async def test_a_tree_of_more_folders_than_allowed_is_told_by_all_that_walk_it(stage: Stage) -> None:
    writer = stage.writer()
    await stage.write(writer, deep(writer, 4097))
    async with stage.library() as library:
        found = await library.find("latest:evil")
        fetcher = ChunkFetcher(library, found.snapshot.domain)

        def walk(reader: TreeReader) -> None:
            for _ in reader.walk(found.details.tree):
                pass

        with pytest.raises(FormatError, match="deeper than 4096 folders"):
            await fetcher.in_thread(walk)


@pytest.mark.parametrize("stage", ["user"], indirect=True)
@pytest.mark.parametrize("limit", ["max_depth", "max_entries"])
async def test_a_restore_ends_at_the_limit(stage: Stage, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    defaults = TreeReader.walk.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, limit, 20)
    writer = stage.writer()
    await stage.write(writer, deep(writer, 30))
    async with stage.library() as library:
        with pytest.raises(FormatError, match=r"deeper than 20|more than 20"):
            await stage.restore(library, await library.find("latest:evil"))
    assert len(list(os.walk(stage.target))) <= 22


async def test_whoever_walks_the_tree_the_planner_has_a_limit_of_its_own(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MAX_DEPTH", 20)
    writer = stage.writer()
    await stage.write(writer, deep(writer, 30))
    async with stage.library() as library:
        with pytest.raises(FormatError, match="under the path"):
            await stage.restore(library, await library.find("latest:evil"))


def endless(writer: Writer, ref: list[Any], levels: int = 4) -> list[Any]:
    """Return a list that names one chunk 4096**5 times."""
    refs = [ref] * LIST_LIMIT
    for _ in range(levels):
        refs = [writer.piece(refs)] * LIST_LIMIT
    return [levels, sum(one[1] for one in refs), refs]


async def test_a_file_without_end_is_refused_before_the_disk_is_full(stage: Stage) -> None:
    """The snapshot says that all its files together have no bytes."""
    writer = stage.writer()
    content = endless(writer, writer.chunk(DATA, b"x"))
    assert content[1] == 4096**5
    await stage.write(writer, writer.folder([entry(b"file", size=content[1], content=content)]))
    async with stage.library() as library:
        with pytest.raises(SpaceError):
            await stage.restore(library, await library.find("latest:evil"))
    assert os.listdir(stage.target) == []


async def test_a_folder_without_end_is_one_that_is_out_of_order(stage: Stage) -> None:
    writer = stage.writer()
    piece = encoded([1, [writer.file(b"m", b"x")]])
    content = endless(writer, writer.chunk(TREE, piece), 3)
    await stage.write(writer, writer.folder([entry(b"evil", "dir", content=content, mode=0o755)]))
    async with stage.library() as library:
        found = await library.find("latest:evil")
        fetcher = ChunkFetcher(library, found.snapshot.domain)
        with pytest.raises(NotFoundError):
            await fetcher.in_thread(lambda reader: reader.lookup(found.details.tree, (b"evil", b"z")))
        report = await stage.restore(library, found)
        assert report.damaged == ["directory: m comes after m"]


def test_a_bomb_takes_no_more_memory_than_what_it_should_be() -> None:
    """In a process of its own: the most that this one ever held says nothing any more."""
    here = Path(__file__)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(here.with_name("test_objects.py")), "-k", "bomb"],
        cwd=here.parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
