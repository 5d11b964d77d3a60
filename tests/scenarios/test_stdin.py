"""Backing up what a command writes: streamed, whole or not at all, and never somebody else's."""

import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from replicator.cli import exits
from replicator.engine.backup import BackupReport
from replicator.engine.commands import PipedCommand
from replicator.errors import MinimumNotMetError, SourceError, UsageError
from replicator.format.consistency import Consistency
from tests.fakes import SeededRng
from tests.scenarios.world import PROMISE, World, read, write

pytestmark = pytest.mark.process


def shell(text: str, *, limit_s: float = 60) -> PipedCommand:
    return PipedCommand(name=b"db.sql", argv=("/bin/sh", "-c", text, "heron"), folder="/", limit_s=limit_s)


@pytest.fixture
def world(world: World) -> World:
    world.add_dataset("db")
    return world


async def restored(world: World, what: str = "latest:db") -> bytes:
    target = os.path.join(world.root, f"out-{world.rng.bytes(4).hex()}")
    await world.restore(target, what)
    assert os.listdir(target) == ["db.sql"]
    assert os.stat(os.path.join(target, "db.sql")).st_mode & 0o7777 == 0o600
    return read(os.path.join(target, "db.sql"))


def failed(report: BackupReport) -> str:
    [done] = report.datasets
    assert isinstance(done.error, SourceError)
    assert exits.code_of(done.error) == exits.FAILED
    assert (done.snapshot, done.published) == (None, False)
    assert "heron" not in done.error.message + done.error.hint
    return done.error.message


@pytest.mark.parametrize("overlap", [False, True])
async def test_what_a_command_writes_comes_back_as_one_file(overlap: bool, world: World) -> None:
    data = SeededRng("dump").bytes(7_000_000)
    path = os.path.join(world.root, "data")
    write(path, data)
    report = await world.backup("db", command=shell(f"cat {path}"), overlap=overlap, readers=2)
    [done] = report.datasets
    assert (done.error, done.published, done.files, done.bytes, done.gaps) == (None, True, 1, len(data), [])
    assert await restored(world) == data
    [again] = (await world.backup("db", command=shell(f"cat {path}"), overlap=overlap)).datasets
    assert (again.published, again.bytes_read) == (True, len(data))
    assert again.new_chunks == 1, "a directory with another time"
    assert (await world.verify()).problems == []
    assert (await world.status()).exit_code == 0


async def test_nothing_written_is_an_empty_file(world: World) -> None:
    [done] = (await world.backup("db", command=shell("true"))).datasets
    assert (done.error, done.published, done.bytes) == (None, True, 0)
    assert await restored(world) == b""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo half; echo no such table >&2; exit 3", "ended with exit code 3; it said last: no such table"),
        ("echo half; kill -9 $$", "was ended by signal 9; it said nothing"),
        ("exec >&-; sleep 0.2; echo late >&2; exit 1", "ended with exit code 1; it said last: late"),
    ],
)
async def test_a_command_that_fails_publishes_nothing(text: str, said: str, world: World) -> None:
    assert failed(await world.backup("db", command=shell(text))) == f"'/bin/sh' {said}"
    assert await world.snapshots() == []
    [done] = (await world.backup("db", command=shell("echo whole"))).datasets
    assert (done.error, done.published, done.snapshot and done.snapshot.number) == (None, True, 1)
    assert await restored(world) == b"whole\n"


async def test_a_command_that_hangs_is_ended(world: World) -> None:
    report = await world.backup("db", command=shell("echo half; exec sleep 1000", limit_s=0.3))
    assert failed(report).startswith("'/bin/sh' did not end within 0 s and was stopped")


async def test_a_command_that_is_not_there_is_named(world: World) -> None:
    command = PipedCommand(name=b"db.sql", argv=("/nowhere/dump",), folder="/", limit_s=60)
    assert failed(await world.backup("db", command=command)) == (
        "'/nowhere/dump' cannot be started: No such file or directory"
    )


async def test_a_cancelled_run_ends_its_command(world: World) -> None:
    path = os.path.join(world.root, "pid")
    text = f"echo $$ > {path}.new; mv {path}.new {path}; echo half; exec sleep 1000"
    work = asyncio.ensure_future(world.backup("db", command=shell(text), overlap=True))
    await asyncio.to_thread(_appears, path)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    with pytest.raises(ProcessLookupError):
        os.kill(int(read(path)), 0)
    assert await world.snapshots() == []


async def test_hooks_of_the_dataset_are_told_of_the_command(world: World) -> None:
    log = os.path.join(world.root, "log")
    write(log, b"")
    hook = f'echo "$REPLICATOR_STAGE $REPLICATOR_RESULT" >> {log}'
    node = world.node()
    one = node.catalog.datasets.get("db")
    node.catalog.datasets.update(
        dataclasses.replace(one, consistency=Consistency(before=hook, after=hook, snapshot="auto"))
    )
    node.close()
    await world.backup("db", command=shell("echo a"))
    await world.backup("db", command=shell("exit 1"))
    await world.backup("db", command=shell("exec sleep 1000", limit_s=0.2))
    assert read(log) == b"before \nafter success\n" + b"before \nafter failure\n" + b"before \nafter timeout\n"


async def test_a_command_has_the_callers_folder_and_environment_but_for_what_unlocks_keys(world: World) -> None:
    world.edge = dataclasses.replace(
        world.edge, environment={**os.environ, "PGUSER": "anna", "REPLICATOR_PASSPHRASE_FILE": "/secret"}
    )
    folder = _real(world.root)
    command = PipedCommand(name=b"db.sql", argv=("/bin/sh", "-c", "pwd; env"), folder=folder, limit_s=60)
    await world.backup("db", command=command)
    lines = (await restored(world)).splitlines()
    assert lines[0] == folder.encode()
    assert {b"PGUSER=anna", b"REPLICATOR_DATASET=db"} <= set(lines)
    assert not any(b"PASSPHRASE" in line for line in lines)


async def test_datasets_of_paths_and_of_commands_are_kept_apart(world: World) -> None:
    with pytest.raises(UsageError, match="'db' takes what a command writes, and there is no command"):
        await world.backup("db")
    assert (await world.backup()).datasets == []
    world.small_dataset("docs")
    with pytest.raises(UsageError, match="'docs' has paths and takes no command's output"):
        await world.backup("docs", command=shell("true"))
    for names in ((), ("db", "docs")):
        with pytest.raises(UsageError, match="one dataset's"):
            await world.backup(*names, command=shell("true"))
    assert [done.dataset for done in (await world.backup()).datasets] == ["docs"]


async def test_a_waiting_snapshot_of_a_command_that_makes_way_asks_for_its_command_again(world: World) -> None:
    """Without it there is nothing to be read; and never may another dataset's command stand in for it."""
    world.add_dataset("bold", policy=msgspec.structs.replace(PROMISE, residency=["IS"]))
    report = await world.backup("bold", command=shell("echo bold"))
    assert isinstance(report.datasets[0].error, MinimumNotMetError)
    report = await world.backup("db", command=shell("echo db"))
    assert [(done.error, done.published) for done in report.datasets] == [(None, True)]
    assert "'bold': its waiting snapshot made way for another; run its command again" in report.notices
    assert [one.details.dataset for one in await world.snapshots()] == ["db"]
    assert await restored(world) == b"db\n"


async def test_a_dataset_with_paths_that_makes_way_is_read_from_them_again(world: World) -> None:
    world.small_dataset("docs", policy=msgspec.structs.replace(PROMISE, residency=["IS"]))
    await world.backup("docs")
    [done] = (await world.backup("db", command=shell("echo db"))).datasets
    assert (done.error, done.published) == (None, True)
    node = world.node()
    rows = {row.dataset: (row.number, row.files) for row in node.catalog.snapshots.all()}
    node.close()
    assert rows == {"db": (1, 1), "docs": (2, 4)}


async def test_memory_does_not_grow_with_what_a_command_writes(world: World) -> None:
    """In the process that reads: the rest of a backup is bounded by the spool."""
    text = f'exec {sys.executable} -c "import sys; [sys.stdout.buffer.write(bytes(1 << 20)) for _ in range(200)]"'
    before = _peak()
    [done] = (await world.backup("db", command=shell(text), overlap=True)).datasets
    assert (done.error, done.bytes) == (None, 200 << 20)
    assert _peak() - before < 120 << 20


def _appears(path: str) -> None:
    for _ in range(6000):
        if os.path.exists(path):
            return
        time.sleep(0.01)
    raise TimeoutError(path)


def _real(path: str) -> str:
    return os.path.realpath(path)


def _peak() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        [line] = [line for line in file if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def test_names_are_checked() -> None:
    make: Callable[..., Any] = PipedCommand
    with pytest.raises(UsageError):
        make(name=b"a/b", argv=("x",), folder="/", limit_s=1)
