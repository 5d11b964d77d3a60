"""A snapshot as a tar archive: GNU tar brings back what was there, and nothing incomplete passes for whole."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from replicator.engine.browse import ChunkFetcher, find_path
from replicator.engine.export import ExportReport, export
from replicator.errors import IntegrityError, NotFoundError
from tests.compare import Rules, compare
from tests.scenarios.test_browsing import opened
from tests.scenarios.world import PROMISE, World, read, write
from tests.snapshot import nasty
from tests.snapshot.support import IS_ROOT

TAR = shutil.which("tar") or ""
pytestmark = pytest.mark.skipif(not TAR, reason="GNU tar is the judge")
RULES = Rules(owners=IS_ROOT, holes=True)
WINDOW = 100_000
"""So small that a few files make many windows."""


class Archive:
    """What was written, and what is to go wrong on the way."""

    def __init__(self, limit: int | None = None) -> None:
        self.data = b""
        self._limit = limit
        self.said: list[bytes] = []
        """What GNU tar said last, but for its surprise at times."""

    def write(self, data: bytes) -> None:
        if self._limit is not None and len(self.data) + len(data) > self._limit:
            raise BrokenPipeError
        self.data += data

    def extract(self, folder: Path) -> int:
        """Let GNU tar have it; return its exit code."""
        folder.mkdir(exist_ok=True)
        command = [TAR, "--xattrs", "--xattrs-include=*", "--acls", "-xpf", "-", "--same-owner" if IS_ROOT else "-p"]
        done = subprocess.run(command, input=self.data, cwd=folder, capture_output=True, check=False)
        self.said = [line for line in done.stderr.splitlines() if b"time stamp" not in line]
        return done.returncode


async def exported(
    world: World, archive: Archive, *paths: str, snapshot: str = "latest", window: int = WINDOW
) -> ExportReport:
    async with opened(world) as library:
        found = await library.find(snapshot)
        fetcher = ChunkFetcher(library, found.snapshot.domain)
        wanted = await fetcher.in_thread(lambda reader: [find_path(reader, found, path) for path in paths])
        return await export(library, world.edge, found, archive.write, paths=wanted, window_bytes=window)


async def test_gnu_tar_brings_back_one_of_everything(world: World, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nasty.build(tree)
    (tree / "socket").unlink()
    (tree / "moved").mkdir()
    (tree / "moved" / "twin").write_bytes((tree / "large").read_bytes())  # chunks that are in the stream twice
    if not IS_ROOT:
        nasty.take_privileges(tree)
    world.add_dataset("tree", str(tree))
    await world.backup()
    archive = Archive()
    report = await exported(world, archive, snapshot="latest:tree")
    assert archive.extract(tmp_path / "out") == 0
    assert {line for line in archive.said if b"hdrcharset" not in line} == set()
    assert compare(tree, tmp_path / "out" / "tree", RULES) == []
    assert (report.written, report.packs > 0) == (len(archive.data), True)


async def test_a_part_comes_with_the_folders_above_it(world: World, source: str, tmp_path: Path) -> None:
    await world.backup()
    archive = Archive()
    await exported(world, archive, "photos/two.raw", "link")
    assert archive.extract(tmp_path / "out") == 0
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*"))
    assert found == ["docs", "docs/link", "docs/photos", "docs/photos/two.raw"]
    assert read(str(tmp_path / "out/docs/photos/two.raw")) == read(os.path.join(source, "photos/two.raw"))


async def test_packs_of_many_nights_are_fetched_once_each(
    world: World, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.engine.export.OPEN_PACKS", 1)
    rng = random.Random(7)
    for night in range(6):  # each leaves files everywhere in the tree
        for number in range(12):
            write(os.path.join(source, f"{number:02}", f"{night}"), rng.randbytes(30_000))
        await world.backup()
    archive = Archive()
    report = await exported(world, archive)
    assert archive.extract(tmp_path / "out") == 0
    assert compare(source, tmp_path / "out" / "docs") == []
    async with opened(world) as library:
        packs = library.keeper.catalog.objects.all("kind = 'data'")
        trees = library.keeper.catalog.objects.all("kind = 'tree'")
        assert os.listdir(library.keeper.file("cache/export")) == [], "what waited there is gone"
    assert len(packs) >= 6
    assert report.fetched_bytes <= sum(row.size for row in (*packs, *trees))


async def test_a_chunk_that_is_bad_in_one_pack_comes_from_another_provider(
    world: World, source: str, tmp_path: Path
) -> None:
    await world.backup()
    for path in world.stored(0, ["data"]):
        spoil(path)
    archive = Archive()
    await exported(world, archive)
    assert archive.extract(tmp_path / "out") == 0
    assert compare(source, tmp_path / "out" / "docs") == []


def spoil(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(30_000)
        file.write(b"damage")


async def test_a_chunk_that_no_provider_has_whole_comes_from_another_pack(
    world: World, source: str, tmp_path: Path
) -> None:
    await world.backup()
    first = {os.path.basename(path) for number in range(5) for path in world.stored(number, ["data"])}
    stronger = msgspec.structs.replace(PROMISE, copies=4)
    world.set_policy("docs", stronger)  # so that all of it is stored again
    await world.backup()
    second = {os.path.basename(path) for number in range(5) for path in world.stored(number, ["data"])} - first
    assert second
    for number in range(5):
        for name in second & set(os.listdir(world.objects(number))):  # those that are known last, and asked for first
            os.unlink(os.path.join(world.objects(number), name))
    archive = Archive()
    await exported(world, archive)
    assert archive.extract(tmp_path / "out") == 0
    assert compare(source, tmp_path / "out" / "docs") == []


@pytest.mark.parametrize(("harm", "error"), [(spoil, (IntegrityError, NotFoundError)), (os.unlink, NotFoundError)])
async def test_what_cannot_be_had_ends_the_archive_in_the_middle(
    world: World, source: str, tmp_path: Path, harm: Callable[[str], None], error: type[Exception]
) -> None:
    await world.backup()
    rng = random.Random(3)
    for number in range(5):
        write(os.path.join(source, f"z{number}"), rng.randbytes(200_000))
    await world.backup()
    first = Archive()
    await exported(world, first)
    kept = {os.path.basename(path) for path in world.stored(0, ["data"])[:1]}
    for number in range(5):
        for path in world.stored(number, ["data"]):
            if os.path.basename(path) not in kept:
                harm(path)
    archive = Archive()
    with pytest.raises(error):
        await exported(world, archive)
    assert first.data.startswith(archive.data)
    assert archive.extract(tmp_path / "out") != 0


@pytest.mark.usefixtures("source")
async def test_who_stops_reading_ends_the_export(world: World, tmp_path: Path) -> None:
    await world.backup()
    whole = Archive()
    await exported(world, whole)
    for limit in range(0, len(whole.data) - 1, 40_000):
        archive = Archive(limit)
        with pytest.raises(BrokenPipeError):
            await exported(world, archive)
        assert archive.extract(tmp_path / "out") != 0
