"""Nights of two nodes, prune, repair and restore at the same time, some of them killed: nothing live is ever lost.

A provider was lost and came back, so of much there is a copy too many, which nodes let go of and prune releases. What
is dead or surplus is deleted in the end: at each provider, after its waits, whatever was killed in between.
"""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from replicator.engine.backup import BackupReport, backup
from replicator.engine.browse import Library
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.pruning import PruneReport, prune
from replicator.engine.repair import repair
from replicator.engine.restore import restore
from replicator.snapshot.retention import KeepRules
from tests.compare import Rules, compare
from tests.fakes import SeededRng
from tests.scenarios.joining import joined, opened
from tests.scenarios.test_forgetting import DAY_S, keep, library_of
from tests.scenarios.test_prune import planned
from tests.scenarios.test_pruning import days_pass, marked_at
from tests.scenarios.together import Actor, KilledError, together
from tests.scenarios.world import PROMISE, World, small_tree, write

PROVIDERS = 4
COPIES = PROMISE.copies
MOST = {"docs": 200, "photos": 200, "prune": 380, "repair": 90, "restore": 60}
"""About how many requests each makes."""
LAST = 9
"""The night on which everything happens at once."""
MAX_UNUSED = 0.05
"""Nearly everything is worth repacking."""


@dataclass
class Stage:
    """A world with two nodes and a maintainer, much of whose history is forgotten."""

    world: World
    dead: set[str]
    source: str
    copies: dict[tuple[str, int], str] = field(default_factory=dict)
    """Folders as they were, by dataset and snapshot number of their node."""

    def home(self, name: str) -> str:
        """Return the home of a member."""
        return os.path.join(self.world.root, name)


def change(stage: Stage, name: str, night: int) -> str:
    """Let a night's changes come about in the folder of a dataset, the same in every copy of the stage; return it."""
    path = os.path.join(stage.source, name)
    content = 1 if night == LAST else night  # what was forgotten comes back: a pack that is to go holds it
    write(os.path.join(path, "new"), SeededRng(f"{name} {content}").bytes(260_000))
    write(os.path.join(path, f"stays {night}"), SeededRng(f"{name} stays {night}").bytes(70_000))
    return path


async def prepare(stage: Stage) -> None:
    world = stage.world
    world.small_dataset("docs")
    await joined(world, "node", "second")
    await joined(world, "maintainer", "maintainer")
    path = small_tree(os.path.join(world.root, "source", "photos"), "photos")
    world.add_dataset("photos", path, home=stage.home("second"))
    for night in range(1, 4):
        world.clock.advance(DAY_S)
        await night_of(stage, "docs", night)
        await night_of(stage, "photos", night)
    world.silence(0)
    for home in (None, stage.home("second")):
        await world.repair(home)
    world.answer(0)
    assert max(copies_of(stage, unmarked=False).values()) == COPIES + 1
    world.clock.advance(9 * DAY_S)  # no receipt for a copy holds it any more
    await keep(world, KeepRules(last=1))
    stage.dead = {one.name.hex() for one in (await planned(world)).dead}


async def night_of(stage: Stage, name: str, night: int) -> None:
    """Change a dataset and back it up; keep a copy of what it was."""
    path = change(stage, name, night)
    report = await stage.world.backup(name, home=stage.home("second") if name == "photos" else None)
    remember(stage, name, path, report)


def remember(stage: Stage, name: str, path: str, report: object) -> None:
    """Keep a copy of a folder as the snapshot has it that a backup came to, if it came to one."""
    assert isinstance(report, BackupReport), report
    for one in report.datasets:
        assert one.error is None, one.error
        assert one.snapshot is not None
        number = one.snapshot.number
        copy = os.path.join(stage.world.root, "as it was", name, str(number), name)
        shutil.copytree(path, copy, symlinks=True)
        stage.copies[name, number] = copy


@pytest.fixture(scope="session")
def prepared(templates: Callable[[int], World], fast_folder: str) -> Stage:
    """The stage, which each test has a copy of."""
    world = templates(PROVIDERS).copy(os.path.join(fast_folder, "together"), seed="together")
    stage = Stage(world, set(), os.path.join(world.root, "source"))
    with ThreadPoolExecutor() as pool:
        pool.submit(asyncio.run, prepare(stage)).result()
    world.close()
    return stage


@pytest.fixture
def stage(prepared: Stage, fresh: str) -> "Stage":
    world = prepared.world.copy(os.path.join(fresh, "world"))
    return Stage(world, prepared.dead, prepared.source, dict(prepared.copies))


async def backing_up(stage: Stage, edge: Edge, name: str) -> BackupReport:
    node = stage.world.node(stage.home("second") if name == "photos" else None)
    try:
        return await backup(node, edge, (name,), overlap=False)
    finally:
        node.close()


async def night_at(stage: Stage, edge: Edge, name: str) -> BackupReport:
    """Back up, then mend and let go, as `run` does."""
    report = await backing_up(stage, edge, name)
    node = stage.world.node(stage.home("second") if name == "photos" else None)
    try:
        await repair(node, edge, by_hand=False)
    finally:
        node.close()
    return report


async def pruning(stage: Stage, edge: Edge) -> PruneReport:
    keeper = stage.world.keeper()
    try:
        return await prune(
            *(keeper, edge, keeper.maintenance),
            ticket=lambda _: keeper.ticket(),
            order=keeper.ticket,
            max_unused=MAX_UNUSED,
        )
    finally:
        keeper.close()


async def repairing(stage: Stage, edge: Edge) -> object:
    half = opened(stage.home("maintainer"), "maintainer")
    try:
        return await repair(half, edge)
    finally:
        half.close()


async def restoring(stage: Stage, edge: Edge) -> None:
    """Restore what can be listed, newest first, while all else goes on."""
    keeper = stage.world.keeper()
    try:
        async with Federation(keeper, edge, ticket=lambda _: keeper.ticket()) as federation:
            library = Library(keeper, federation)
            await library.refresh()
            for one in reversed(await library.snapshots()):
                copy = stage.copies.get((one.details.dataset, one.row.number))
                if copy is None:
                    continue  # it was just made
                target = os.path.join(stage.world.root, "restored", one.id[:8])
                shutil.rmtree(target, ignore_errors=True)  # begun by one that was killed
                report = await restore(library, edge, one, target, privileged=os.geteuid() == 0)
                assert (report.lost, report.damaged) == ([], [])
                assert compare(copy, os.path.join(target, os.path.basename(copy)), Rules(owners=False)) == []
                shutil.rmtree(target)
    finally:
        keeper.close()


async def act(stage: Stage, seed: object, kills: dict[str, int]) -> dict[str, object]:
    """Let everything happen at once, then again what was killed."""
    world = stage.world
    world.clock.advance(DAY_S)
    paths = {name: change(stage, name, LAST) for name in ("docs", "photos")}
    actors: dict[str, Actor] = {
        "docs": lambda edge: night_at(stage, edge, "docs"),
        "photos": lambda edge: night_at(stage, edge, "photos"),
        "prune": lambda edge: pruning(stage, edge),
        "repair": lambda edge: repairing(stage, edge),
        "restore": lambda edge: restoring(stage, edge),
    }
    came = await together(world.edge, world.network, actors, seed=seed, kills=kills)
    for name, result in came.items():
        if isinstance(result, KilledError):
            came[name] = await actors[name](world.edge)
        elif isinstance(result, BaseException):
            raise result
    for name, path in paths.items():
        remember(stage, name, path, came[name])
    return came


def copies_of(stage: Stage, *, unmarked: bool) -> dict[str, int]:
    """Return how many copies there are of each pack that nodes claim; ``unmarked``: that are not to be deleted."""
    world = stage.world
    claimed = set()
    found: Counter[str] = Counter()
    for number in range(PROVIDERS):
        claimed |= {name.hex() for (name,) in world.opened[number]._database.rows("SELECT name FROM claimed")}
        marked = {name.hex() for name in marked_at(world, number)} if unmarked else set()
        found.update(set(os.listdir(world.objects(number))) - marked)
    packs = set()
    for home in (None, stage.home("second")):
        node = world.node(home)
        packs |= {row.name.hex() for row in node.catalog.objects.all("kind IN ('data', 'tree')")}
        node.close()
    return {name: found[name] for name in claimed & packs}


async def check(stage: Stage) -> None:
    """Let time pass, and everything be tried again as every night; then all must be there, and the dead be gone."""
    world = stage.world
    for _ in range(2):
        for name in ("docs", "photos"):
            await night_at(stage, world.edge, name)
        assert min(copies_of(stage, unmarked=True).values()) >= COPIES
        report = await pruning(stage, world.edge)
        assert (report.plan.gaps, report.exit_code) == ([], 0), (report.plan.gaps, report.notices, report.at)
    days_pass(world)
    async with library_of(world) as library:
        listed = {(one.details.dataset, one.row.number) for one in await library.snapshots()}
    assert {key for key in stage.copies if key[1] >= 3} <= listed
    await restoring(stage, world.edge)
    left = {name for number in range(PROVIDERS) for name in os.listdir(world.objects(number))}
    assert not left & stage.dead, "what was dead was deleted everywhere"
    assert set(copies_of(stage, unmarked=False).values()) == {COPIES}, "what was too much was deleted"
    for home in (None, stage.home("second")):
        status = await world.status(home)
        assert [one for one in status.problems if "gone" in one] == []


async def case(stage: Stage, seed: object, kills: dict[str, int]) -> None:
    try:
        await act(stage, seed, kills)
        await check(stage)
    finally:
        stage.world.close()


@pytest.mark.parametrize(
    "kills",
    [
        {"prune": 90},
        {"docs": 110, "repair": 20, "restore": 12},
    ],
    ids=lambda kills: " ".join(f"{name} {after}" for name, after in kills.items()),
)
async def test_all_at_once_lose_nothing_and_what_is_dead_goes(stage: Stage, kills: dict[str, int]) -> None:
    await case(stage, str(kills), kills)


def kills_of(seed: int) -> dict[str, int]:
    """Return who is killed when: one or two of them, at any request."""
    choice = random.Random(f"kills {seed}")
    return {name: choice.randrange(1, MOST[name]) for name in choice.sample(sorted(MOST), choice.randrange(3))}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
async def test_in_whatever_order_and_whoever_is_killed(stage: Stage, seed: int) -> None:
    await case(stage, seed, kills_of(seed))
