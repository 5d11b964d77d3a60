"""Hooks: what they see, what becomes of a dataset when they fail, and that what was begun is undone in every case."""

import asyncio
import dataclasses
import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from replicator.cli import exits
from replicator.engine.backup import BackupReport
from replicator.engine.commands import CommandError
from replicator.engine.edge import Edge
from replicator.engine.unfinished import Begun, Unfinished
from replicator.errors import MinimumNotMetError, SourceError
from replicator.format.consistency import Consistency
from replicator.fs import PosixFs
from replicator.process import Command, Ended, Stop
from tests.engine.programs import FakePrograms
from tests.scenarios.world import PROMISE, World, write

OWN = {"PATH": "/opt/bin", "REPLICATOR_PASSPHRASE": "heron"}


class PowerCut(BaseException):
    """The process is gone: nothing of it runs any more."""


class Stage:
    """Plays the shell: what a test wants to happen at each hook, and what has been asked for."""

    def __init__(self, world: World) -> None:
        self.acts: dict[str, Callable[[Stop], Ended]] = {}
        self.told: list[str] = []
        self.programs = FakePrograms(self.play)
        world.edge = dataclasses.replace(world.edge, programs=self.programs, environment=OWN)

    def play(self, command: Command, stop: Stop) -> Ended:
        assert command.argv[:2] == ("/bin/sh", "-c")
        seen = command.environment
        name = seen["REPLICATOR_STAGE"]
        result = f" {seen['REPLICATOR_RESULT']}" if "REPLICATOR_RESULT" in seen else ""
        self.told.append(f"{seen['REPLICATOR_DATASET']} {name}{result}")
        assert "heron" not in seen.values()
        assert command.folder == "/"
        act = self.acts.get(name)
        return Ended(code=0) if act is None else act(stop)


def ends(ended: Ended) -> Callable[[Stop], Ended]:
    """Play a hook that ends at once."""
    return lambda _stop: ended


@pytest.fixture
def stage(world: World) -> Stage:
    return Stage(world)


def set_hooks(world: World, dataset: str = "docs", **changes: Any) -> None:
    values: dict[str, Any] = {"before": "begin", "after": "finish"}
    node = world.node()
    try:
        one = node.catalog.datasets.get(dataset)
        node.catalog.datasets.update(dataclasses.replace(one, consistency=Consistency(**(values | changes))))
    finally:
        node.close()


def unfinished(world: World) -> list[Begun]:
    return Unfinished(os.path.join(world.home, "node", "unfinished.bin"), PosixFs()).all()


def good(report: BackupReport) -> None:
    assert [(done.error, done.published) for done in report.datasets] == [(None, True)]
    assert (report.datasets[0].troubles.problems, report.datasets[0].troubles.warnings) == ([], [])


async def test_the_capture_sees_what_the_hook_before_made_and_the_one_after_comes_behind_it(
    world: World, source: str, stage: Stage
) -> None:
    set_hooks(world, limit_s=77)
    dump = os.path.join(source, "dump")

    def before(stop: Stop) -> Ended:
        assert [(one.dataset, one.after) for one in unfinished(world)] == [("docs", True)]
        write(dump, b"a dump")
        os.utime(dump, (10**9, 10**9))
        return Ended(code=0)

    def after(stop: Stop) -> Ended:
        os.unlink(dump)
        return Ended(code=0)

    stage.acts |= {"before": before, "after": after}
    good(await world.backup())
    assert stage.told == ["docs before", "docs after success"]
    assert [command.argv[2] for command in stage.programs.ran] == ["begin", "finish"]
    assert stage.programs.limits == [77, 77]
    assert unfinished(world) == []
    write(dump, b"a dump")
    os.utime(dump, (10**9, 10**9))
    assert await world.differences(source) == []


async def test_without_hooks_nothing_is_run_and_nothing_remembered(world: World, source: str, stage: Stage) -> None:
    good(await world.backup())
    assert stage.told == []
    assert "unfinished.bin" not in os.listdir(os.path.join(world.home, "node"))


async def test_each_hook_may_be_alone(world: World, source: str, stage: Stage) -> None:
    set_hooks(world, after="")
    good(await world.backup())
    set_hooks(world, before="")
    good(await world.backup())
    assert stage.told == ["docs before", "docs after success"]


@pytest.mark.parametrize(
    ("ended", "outcome", "said"),
    [
        (Ended(code=3, tail=b"no space\x1b\n"), "failure", r"ended with exit code 3; it said last: no space\x1b"),
        (Ended(code=-11), "failure", "was ended by signal 11; it said nothing"),
        (Ended(code=-15, by="limit"), "timeout", "did not end within 600 s and was stopped; it said nothing"),
    ],
)
async def test_a_failing_hook_before_fails_its_dataset_and_no_other(
    ended: Ended, outcome: str, said: str, world: World, source: str, stage: Stage
) -> None:
    set_hooks(world)
    world.small_dataset("other")
    stage.acts["before"] = ends(ended)
    report = await world.backup()
    failed, other = report.datasets
    assert isinstance(failed.error, CommandError)
    assert failed.error.message == f"the before-hook {said}; nothing was captured"
    assert exits.code_of(failed.error) == exits.FAILED
    assert (failed.snapshot, failed.bytes_read) == (None, 0)
    assert (other.error, other.published) == (None, True)
    assert stage.told == ["docs before", f"docs after {outcome}"]
    assert unfinished(world) == []


async def test_a_hook_that_cannot_be_started_fails_as_one_that_ends_badly(
    world: World, source: str, stage: Stage
) -> None:
    set_hooks(world)

    def gone(stop: Stop) -> Ended:
        raise SourceError("'/bin/sh' cannot be started: no memory")

    stage.acts["before"] = gone
    [failed] = (await world.backup()).datasets
    assert failed.error is not None
    assert failed.error.message == ("the before-hook: '/bin/sh' cannot be started: no memory; nothing was captured")
    assert stage.told == ["docs before", "docs after failure"]


async def test_a_failing_hook_before_may_only_be_a_gap(world: World, source: str, stage: Stage) -> None:
    set_hooks(world, failure="warn")
    stage.acts["before"] = ends(Ended(code=1, tail=b"no server"))
    [done] = (await world.backup()).datasets
    assert (done.error, done.published, done.troubles.problems) == (None, True, [])
    [warning] = done.troubles.warnings
    assert warning == (
        "docs: the before-hook ended with exit code 1; it said last: no server; the dataset was captured all the same"
    )
    assert stage.told == ["docs before", "docs after success"]


@pytest.mark.parametrize("failure", ["fail", "warn"])
async def test_a_failing_hook_after_leaves_a_snapshot_and_is_told(
    failure: str, world: World, source: str, stage: Stage
) -> None:
    set_hooks(world, failure=failure)
    stage.acts["after"] = ends(Ended(code=1))
    [done] = (await world.backup()).datasets
    assert (done.error, done.published) == (None, True)
    problems = [problem.message for problem in done.troubles.problems]
    said = "docs: the after-hook ended with exit code 1; it said nothing; what it should undo may not be undone"
    assert (problems, done.troubles.warnings) == (([said], []) if failure == "fail" else ([], [said]))
    assert unfinished(world) == []


async def test_a_capture_that_fails_is_told_to_the_hook_after(world: World, source: str, stage: Stage) -> None:
    set_hooks(world)
    os.rename(source, f"{source}-away")
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, SourceError)
    assert stage.told == ["docs before", "docs after failure"]


async def interrupted(world: World, stage: Stage, name: str, times: int = 1) -> None:
    """Run a backup that is cancelled while a hook runs, so many times."""
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(world.backup(overlap=True))
    stopped: list[bool] = []

    def act(stop: Stop) -> Ended:
        for _ in range(times):
            loop.call_soon_threadsafe(work.cancel)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
        while not stop():
            if name == "after" and times == 1:
                return Ended(code=0)
        stopped.append(True)
        return Ended(code=-15, by="stop")

    stage.acts[name] = act
    with pytest.raises(asyncio.CancelledError):
        await work
    assert stopped == ([] if name == "after" and times == 1 else [True])
    del stage.acts[name]


async def test_a_hook_before_is_stopped_with_its_run_and_the_one_after_is_told(
    world: World, source: str, stage: Stage
) -> None:
    set_hooks(world)
    await interrupted(world, stage, "before")
    assert stage.told == ["docs before", "docs after killed"]
    assert unfinished(world) == []


async def test_a_hook_after_is_let_finish_when_its_run_is_stopped_once(world: World, source: str, stage: Stage) -> None:
    set_hooks(world)
    await interrupted(world, stage, "after")
    assert stage.told == ["docs before", "docs after success"]
    assert unfinished(world) == []


async def test_a_hook_after_that_is_stopped_too_runs_again_at_the_next_start(
    world: World, source: str, stage: Stage
) -> None:
    set_hooks(world)
    await interrupted(world, stage, "after", times=2)
    assert [(one.dataset, one.after) for one in unfinished(world)] == [("docs", True)]
    report = await world.backup()
    good(report)
    assert stage.told[2:] == ["docs after killed", "docs before", "docs after success"]
    assert report.troubles.notices == ["docs: an earlier run was killed; what it had begun is put right"]


async def test_a_capture_that_is_cancelled_has_ended_before_the_hook_after_runs(
    world: World, source: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_hooks(world)
    work = asyncio.ensure_future(world.backup(overlap=True))
    loop = asyncio.get_running_loop()
    order: list[str] = []

    def slow(*args: Any, **options: Any) -> None:
        loop.call_soon_threadsafe(work.cancel)
        for _ in range(3):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()
        order.append("capture ended")
        raise RuntimeError("stopped")

    def after(stop: Stop) -> Ended:
        order.append("after")
        return Ended(code=0)

    stage.acts["after"] = after
    monkeypatch.setattr("replicator.engine.backup.capture", slow)
    with pytest.raises(asyncio.CancelledError):
        await work
    assert order == ["capture ended", "after"]
    assert stage.told == ["docs before", "docs after killed"]


@pytest.mark.parametrize("name", ["before", "after"])
async def test_the_next_run_puts_right_what_a_killed_one_left_also_of_a_dataset_that_is_gone(
    name: str, world: World, source: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_hooks(world)
    world.small_dataset("other")

    def cut(stop: Stop) -> Ended:
        # What is on the disk now is all that the next run knows.
        monkeypatch.setattr(Unfinished, "_write", lambda *_: None)
        raise PowerCut

    stage.acts[name] = cut
    with pytest.raises(PowerCut):
        await world.backup("docs")
    monkeypatch.undo()
    del stage.acts[name]
    node = world.node()
    node.catalog.datasets.remove("docs")
    node.close()
    stage.told.clear()
    report = await world.backup("other")
    assert stage.told == ["docs after killed"]
    assert stage.programs.ran[-1].argv[2] == "finish"
    good(report)
    assert report.troubles.problems == []
    assert unfinished(world) == []


async def test_a_hook_that_fails_when_it_is_run_again_is_told_and_not_tried_for_ever(
    world: World, source: str, stage: Stage
) -> None:
    set_hooks(world)
    node = world.node()
    path, consistency = node.file("unfinished.bin"), Consistency(after="finish")
    node.close()
    Unfinished(path, PosixFs()).put(Begun(dataset="docs", consistency=consistency, after=True, volumes=[]))
    stage.acts["after"] = ends(Ended(code=1))
    report = await world.backup()
    assert [problem.message for problem in report.troubles.problems] == [
        "docs: the after-hook ended with exit code 1; it said nothing; what it should undo may not be undone"
    ]
    assert stage.told == ["docs after killed", "docs before", "docs after success"]
    assert (await world.backup()).troubles.problems == []


async def test_a_dataset_that_is_captured_twice_in_a_run_has_its_hooks_twice(
    world: World, source: str, stage: Stage
) -> None:
    """What the hook before made for the first capture is gone by then: another snapshot made way for this one."""
    bound = msgspec.structs.replace(PROMISE, residency=["IS"])
    world.small_dataset("bound", policy=bound)
    set_hooks(world)
    assert isinstance((await world.backup("bound")).datasets[0].error, MinimumNotMetError)
    good(await world.backup("docs"))
    assert stage.told == ["docs before", "docs after success"] * 2


def test_the_world_outside_has_real_programs_and_its_own_environment(world: World) -> None:
    edge = world.edge
    assert isinstance(edge, Edge)
    assert edge.environment["PATH"] == os.environ["PATH"]
