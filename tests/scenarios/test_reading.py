"""Backups whose files are read by other processes, and what is done when known chunks turn out not to be there."""

import os
import shutil
from pathlib import Path

import pytest

from replicator.cli import exits
from replicator.engine import sink as sink_module
from replicator.engine.backup import BackupReport
from replicator.engine.readers import Readers
from replicator.errors import SpaceError
from replicator.fs import PosixFs
from tests.compare import Rules, compare
from tests.fakes import SeededRng
from tests.scenarios.world import World, write
from tests.snapshot import nasty


def good(report: BackupReport) -> None:
    assert [(done.error, done.published) for done in report.datasets] == [(None, True)]


@pytest.mark.process
@pytest.mark.parametrize("overlap", [False, True])
async def test_what_processes_read_comes_back_as_it_was(overlap: bool, world: World, tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    nasty.build(top)
    if os.geteuid():
        nasty.take_privileges(top)
    (top / "socket").unlink()
    (top / "image").write_bytes(SeededRng("image").bytes(6_000_000) * 2)
    os.utime(top, (10**9, 10**9))
    world.add_dataset("tree", str(top))
    good(await world.backup(readers=2, overlap=overlap))
    await world.restore(str(tmp_path / "out"))
    assert compare(top, tmp_path / "out" / "tree", Rules(owners=os.geteuid() == 0)) == []
    [again] = (await world.backup(readers=2, overlap=overlap)).datasets
    assert (again.error, again.published, again.new_chunks) == (None, True, 0)
    assert (await world.verify()).problems == []
    assert (await world.status()).exit_code == 0


@pytest.mark.process
async def test_processes_and_one_thread_know_each_others_chunks(world: World, source: str) -> None:
    good(await world.backup(readers=2))
    shutil.rmtree(os.path.join(world.home, "node", "cache"))
    [done] = (await world.backup()).datasets
    assert done.bytes_read > 0
    assert done.new_chunks == 0
    shutil.rmtree(os.path.join(world.home, "node", "cache"))
    [done] = (await world.backup(readers=1)).datasets
    assert done.bytes_read > 0
    assert done.new_chunks == 0


@pytest.mark.process
async def test_a_full_spool_stops_reading_processes_too(world: World, source: str) -> None:
    for number in range(4):
        write(os.path.join(source, f"large {number}"), SeededRng(f"large {number}").bytes(16_000_000))
    world.silence(*range(5))
    [done] = (await world.backup(readers=2, overlap=True, spool_limit=40_000_000)).datasets
    assert isinstance(done.error, SpaceError)
    world.answer(*range(5))
    good(await world.backup(readers=2, overlap=True, spool_limit=200_000_000))
    assert await world.differences(source) == []


@pytest.mark.parametrize("most", [sink_module.MOST_MISSING, 0])
async def test_known_files_whose_chunks_are_lost_are_read_and_stored_again(
    most: int, world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many missing, or with few: then only the files that need them are read."""
    monkeypatch.setattr(sink_module, "MOST_MISSING", most)
    monkeypatch.setattr("replicator.engine.backup.MOST_MISSING", most)
    good(await world.backup())
    write(os.path.join(source, "unrelated"), b"kept" * 9)
    good(await world.backup())
    node = world.node(fs=PosixFs())
    first = node.catalog.objects.all("kind = 'data'")[0]
    node.catalog.objects.set_lost([first.id])
    node.close()
    [done] = (await world.backup()).datasets
    assert (done.error, done.published) == (None, True)
    everything = done.bytes
    assert done.bytes_read == (everything if most == 0 else everything - 36)
    assert done.new_bytes == everything - 36
    assert await world.differences(source) == []


async def test_a_lost_directory_is_written_again(world: World, source: str) -> None:
    good(await world.backup())
    node = world.node(fs=PosixFs())
    node.catalog.objects.set_lost([row.id for row in node.catalog.objects.all("kind = 'tree'")])
    node.close()
    [done] = (await world.backup()).datasets
    assert (done.error, done.published, done.bytes_read) == (None, True, 0)
    assert done.new_chunks > 0
    assert await world.differences(source) == []


@pytest.mark.process
async def test_a_killed_reader_fails_its_dataset_with_words_and_the_next_run_finishes(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write(os.path.join(source, f"large {number}"), SeededRng(f"large {number}").bytes(9_000_000))
    start = Readers._start

    def killed(pool: Readers) -> None:
        start(pool)
        pool._readers[-1].process.kill()

    with monkeypatch.context() as patch:
        patch.setattr(Readers, "_start", killed)
        [done] = (await world.backup(readers=2, overlap=True)).datasets
    assert done.error is not None
    assert done.error.message == "a reading process was ended by signal 9"
    assert "nothing is lost, run again" in (done.error.hint or "")
    assert exits.code_of(done.error) == exits.FAILED
    assert done.snapshot is None
    good(await world.backup(readers=2, overlap=True))
    assert await world.differences(source) == []
    assert os.listdir(os.path.join(world.home, "node", "spool", "objects")) == []
