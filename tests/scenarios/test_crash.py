"""Stop a node at every step of a backup, by a kill or a power loss, and find the old state or the new.

One backup of a small change is lived undisturbed to count its steps. Then it is stopped before each of them; once
as if the process were killed, once with everything undone that no sync had made durable. What peers have seen must
restore at once. Then the home is opened again and backs up: first without the peers that had seen the new head,
then with all of them. Nothing may be lost, nothing be there twice, and there must be one chain.

The same search must find a broken promise as soon as a single protecting step is left out.
"""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from replicator.crypto.sign import body_of
from replicator.engine.backup import backup
from replicator.engine.node import NodeHome
from replicator.engine.placing import objects_of
from replicator.engine.publish import pending
from replicator.errors import ReplicatorError
from replicator.format.codec import decode, encode
from replicator.format.policy import Policy, policy_id
from replicator.format.snapshot import Head
from replicator.ids import Identity, ObjectName
from replicator.transport.memory import Phase
from replicator.wire.messages import Heads, HeadsRequest
from tests.crashfs import Crash, CrashFs
from tests.fakes import SeededRng
from tests.scenarios.world import World, write

EASY = Policy(
    copies=2, minimum=1, coding=None, spread=["owner"], residency=["EEA"], count_own=False, stale_after_s=30 * 86400
)
"""With a minimum of one, a snapshot is out as soon as one peer has seen it."""
PEERS = 3
SEEN = policy_id(EASY).hex()
"""The folder of the dataset's seen-index."""

PROTECTING = (
    "write incoming",
    "fsync file incoming",
    "fsync file objects",
    "link objects",
    "fsync folder objects",
    "commit peer row",
    "commit policy row",
    "commit object row",
    "commit index row",
    "commit snapshot row",
    "commit holding row",
    "commit claim row",
    "commit meta row",
    "commit published row",
    "commit spool row",
    "commit head rows",
    "commit word row",
    "commit word rows",
)
"""Steps of a backup that cannot be left out."""
FREE = {
    "unlink incoming": "leftovers go when the spool is opened",
    "unlink objects": "what the catalog does not call spooled goes when the spool is opened",
    "replace cache": "a cache is checksummed, and one that is empty, torn, old or not there costs a reading",
    "fsync folder cache": "likewise",
    "commit stat cache": "likewise",
    "fsync file needed": "likewise, once it has been renamed",
    "unlink needed": "there is something only after a backup that did not end",
    f"write {SEEN}": "the seen-index is a cache too: what it has not is added from the catalog when it is opened",
    f"fsync file {SEEN}": "likewise",
    f"fsync folder {SEEN}": "likewise",
}
"""Steps of a backup that may fail to happen, and why nothing is lost then."""
NEEDED_BY_THE_NEXT = {"create incoming", "create needed", "write needed", f"create {SEEN}", "commit arrival rows"}
"""Without these the steps after them are others: a file is not there, or a transaction is still open."""
ASKING = {"after info", "after offers", "after heads", "after arrivals"}
"""Requests that every peer gets before anything is sent, and that change nothing anywhere."""


@pytest.fixture(scope="module")
def settled(templates: Callable[[int], World], fast_folder: str) -> World:
    """A world with one published snapshot of A and a change B that is not backed up yet."""
    world = templates(PEERS).copy(os.path.join(fast_folder, "settled"))
    source = os.path.join(world.root, "source", "docs")
    write(os.path.join(source, "kept"), SeededRng("kept").bytes(30_000))
    write(os.path.join(source, "changed"), b"before")
    world.add_dataset("docs", source, policy=EASY)
    asyncio.run(world.backup())
    shutil.copytree(source, os.path.join(world.root, "states", "0", "docs"), copy_function=shutil.copy2)
    shutil.copystat(source, os.path.join(world.root, "states", "0", "docs"))
    write(os.path.join(source, "changed"), b"after")
    write(os.path.join(source, "new"), SeededRng("new").bytes(20_000))
    world.close()
    return world


@dataclass
class Life:
    """One backup that is stopped, and what is found after it."""

    world: World
    skip: str = ""
    stop: int | None = None
    stop_call: int | None = None
    overlap: bool = False
    steps: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    committed: list[ObjectName] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fs = CrashFs(os.path.join(self.world.root, "graveyard"), skip=self.skip)
        self.dead = False
        self.complete = False

    def _call(self, identity: Identity, op: str, phase: Phase) -> None:
        if phase == "during":
            return
        if self.dead or len(self.calls) == self.stop_call:
            self.dead = True
            raise Crash(f"{phase} {op}")
        self.calls.append(f"{phase} {op}")
        self.steps.append(f"{phase} {op}")

    async def live(self) -> None:
        """Back up until the stop."""
        world = self.world
        world.clock.advance(60)
        step = self.fs.step

        def counted(label: str) -> bool:
            if self.dead:
                raise Crash(label)
            done = step(label)
            self.steps.append(label)
            return done

        node = world.node(fs=self.fs)
        self.fs.step = counted  # type: ignore[method-assign]
        self.fs.stop_at(self.stop)
        world.network.faults = self._call
        try:
            with suppress(Crash):
                await backup(node, world.edge, overlap=self.overlap)
                self.complete = True
        finally:
            node.close()
            world.network.faults = lambda _identity, _op, _phase: None

    async def look(self, *, power_loss: bool, torn: bool = False, kept: bool = False) -> None:
        """End the life and check everything that was ever promised. ``kept``: names are there, but not all bytes."""
        if power_loss:
            self.fs.power_loss(keep=lambda _entry: kept, torn=torn)
        self.fs.close()
        world = self.world
        heads = self.heads()
        assert await self.restores() == max(heads), "what peers have seen restores at once"
        node = world.node()
        self.committed = [row.name for row in pending(node)]
        if self.complete:
            self.remembers(node)
        node.close()
        seen = [number for number, head in enumerate(heads) if head == 2]
        world.silence(*seen)
        if 0 < len(seen) < PEERS:
            report = await world.backup()
            assert report.integrity == []
        world.answer(*seen)
        report = await world.backup()
        assert report.integrity == []
        assert [(one.error, one.published, one.owed) for one in report.datasets] == [(None, True, [])]
        found = await world.status()
        assert (found.exit_code, found.problems, found.spooled_bytes) == (0, [], 0)
        checked = await world.verify()
        assert (checked.problems, checked.absent) == ([], [])
        for name in ("objects", "incoming", "quarantine"):
            assert os.listdir(os.path.join(world.home, "node", "spool", name)) == [], "a leftover in the spool"
        newest = await self.restores()
        assert set(self.heads()) == {newest}
        names = {one.row.name for one in await world.snapshots()}
        assert set(self.committed) <= names, "what was committed is published from the same bytes"

    def remembers(self, node: NodeHome) -> None:
        """Check that a backup that ended knows what it did, without asking anybody."""
        newest = node.catalog.snapshots.all()[-1]
        assert newest.number == 2
        assert newest.published_ns
        assert (self.committed, node.catalog.objects.all("spooled")) == ([], [])
        needed = {row.id for row in objects_of(node, [newest])}
        held = {one.object_id for one in node.catalog.objects.holdings() if one.state == "held"}
        claimed = set().union(*(node.catalog.objects.claimed(identity) for identity in self.world.network.services))
        own = node.catalog.objects.by_name(newest.name)
        assert own is not None
        assert needed <= held
        assert needed - {own.id} <= claimed

    def heads(self) -> list[int]:
        """Return the number that each peer has witnessed last; nobody may hold a fork."""
        keeper = self.world.keeper()
        answers = [
            decode(
                Heads, service.session(keeper.signing.public).handle("heads", encode(HeadsRequest(challenge=bytes(32))))
            )
            for service in self.world.services
        ]
        keeper.close()
        assert [answer.forks for answer in answers] == [[]] * PEERS
        by_number: dict[int, bytes] = {}
        numbers = []
        for answer in answers:
            [signed] = answer.heads
            head = decode(Head, body_of(signed))
            assert by_number.setdefault(head.number, head.snapshot) == head.snapshot, "two heads of one number"
            numbers.append(head.number)
        return numbers

    async def restores(self) -> int:
        """Restore every snapshot that a fresh keeper sees; return the newest number."""
        for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.world.home, "keeper", name))
        found = await self.world.snapshots()
        assert [one.row.number for one in found] == list(range(1, len(found) + 1)), "a chain without holes"
        for one in found:
            before = os.path.join(self.world.root, "states", "0", "docs")
            now = os.path.join(self.world.root, "source", "docs")
            assert await self.world.differences(before if one.row.number == 1 else now, one.id) == []
        return len(found)


Lives = Callable[..., Life]


@pytest.fixture
def lives(settled: World, fast_folder: str) -> Iterator[Callable[..., Life]]:
    """Make lives, each in a copy of the settled world."""
    made: list[World] = []

    def make(**how: object) -> Life:
        for world in made:
            world.close()
            shutil.rmtree(world.root)
        made[:] = [settled.copy(os.path.join(fast_folder, "life"))]
        return Life(made[0], **how)  # type: ignore[arg-type] # fields by name

    yield make
    for world in made:
        world.close()
        shutil.rmtree(world.root)


@pytest.fixture(scope="module")
def undisturbed(settled: World, fast_folder: str) -> list[str]:
    """The steps of a backup that nobody stops."""
    life = Life(settled.copy(os.path.join(fast_folder, "life")))

    async def whole() -> None:
        await life.live()
        await life.look(power_loss=True)

    asyncio.run(whole())
    life.world.close()
    shutil.rmtree(life.world.root)
    return life.steps


async def one(lives: Lives, *, power_loss: bool, torn: bool = False, kept: bool = False, **how: object) -> None:
    """Live once and look."""
    life = lives(**how)
    await life.live()
    await life.look(power_loss=power_loss, torn=torn, kept=kept)


def is_call(step: str) -> bool:
    return step.startswith(("before ", "after "))


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_backup_that_is_stopped_at_any_step_leaves_the_old_state_or_the_new(
    every: int, lives: Lives, undisturbed: list[str]
) -> None:
    files = [step for step in undisturbed if not is_call(step)]
    firsts = {files.index(step) + 1 for step in files}  # of each kind in any case
    for stop in sorted(firsts.union(range(0, len(files) + 1, every))):
        await one(lives, stop=stop, power_loss=True)
        last = files[stop - 1] if stop else ""
        if last.startswith("write"):
            await one(lives, stop=stop, power_loss=True, torn=True)
        if last == "commit object row":
            # A pack's row is durable before the pack is.
            await one(lives, stop=stop, power_loss=True, kept=True)
            await one(lives, stop=stop, power_loss=True, kept=True, torn=True)
        if last.startswith(("link", "unlink", "replace", "commit snapshot", "commit index")):
            # A kill keeps what a power loss takes; after any other step both find the same.
            await one(lives, stop=stop, power_loss=False)
    assert set(files) >= set(PROTECTING)


async def test_a_backup_that_is_stopped_at_any_request_leaves_the_old_state_or_the_new(
    lives: Lives, undisturbed: list[str]
) -> None:
    calls = [step for step in undisturbed if is_call(step)]
    tried = ""
    for number, call in enumerate(calls):
        if not call.startswith("after "):
            continue
        # The peer has done it, and nobody hears of it. Where all are asked at first, each stop finds the same bytes.
        if call != tried or call not in ASKING:
            await one(lives, stop_call=number, power_loss=True)
        tried = call
    assert {"after put", "after claim", "after head"} <= set(calls)


@pytest.mark.parametrize("stop", range(0, 90, 10))
async def test_a_backup_that_sends_while_it_reads_may_be_stopped_too(stop: int, lives: Lives) -> None:
    await one(lives, stop=stop, power_loss=True, overlap=True)


@pytest.mark.parametrize("step", PROTECTING)
async def test_no_protecting_step_of_a_backup_can_be_left_out(step: str, lives: Lives, undisturbed: list[str]) -> None:
    assert step in undisturbed
    committed = undisturbed.index("commit snapshot row")
    files = sum(not is_call(name) for name in undisturbed[: committed + 1])

    async def find() -> None:
        # A backup that ends has to remember what it did; one that is stopped has to keep what it committed.
        for stop in (len(undisturbed), *range(files, files + 5)):
            await one(lives, skip=step, stop=stop, power_loss=True)

    with pytest.raises((AssertionError, ReplicatorError, sqlite3.Error)):
        await find()


async def test_every_step_of_a_backup_is_known_here(undisturbed: list[str]) -> None:
    """A new step must get its place among those that cannot be left out, or be named as free with its reason."""
    steps = {step for step in undisturbed if not is_call(step)}
    assert steps == set(PROTECTING) | set(FREE) | NEEDED_BY_THE_NEXT


@pytest.mark.parametrize("step", FREE)
async def test_a_step_that_is_free_costs_time_at_most(step: str, lives: Lives, undisturbed: list[str]) -> None:
    files = [name for name in undisturbed if not is_call(name)]
    for stop in (len(files), files.index("commit snapshot row") + 1, len(files) // 2):
        await one(lives, skip=step, stop=stop, power_loss=True)


@pytest.mark.parametrize("lost", ["snapshot", "index", "data"])
async def test_the_number_of_a_head_that_was_sent_is_never_used_again(
    lost: str, lives: Lives, undisturbed: list[str]
) -> None:
    """One peer saw the head; what it stands on is lost everywhere else, and that peer is away for a night."""
    calls = [step for step in undisturbed if is_call(step)]
    life = lives(stop_call=calls.index("after head"))
    await life.live()
    life.fs.close()
    world = life.world
    [seen] = [number for number, head in enumerate(life.heads()) if head == 2]
    node = world.node()
    names = {row.name.hex() for row in node.catalog.objects.all() if row.kind == lost and row.spooled}
    node.close()
    assert names
    shutil.rmtree(os.path.join(world.home, "node", "spool", "objects"))
    for number in range(PEERS):
        if number != seen:
            for name in names & set(os.listdir(world.objects(number))):
                os.unlink(os.path.join(world.objects(number), name))
    world.silence(seen)
    await world.backup()
    world.answer(seen)
    for _ in range(2):
        report = await world.backup()
    assert report.integrity == []
    assert report.datasets[0].published
    await life.restores()
    assert len(set(life.heads())) == 1
    assert (await world.repair()).exit_code == 0
    assert (await world.status()).exit_code == 0


class Acts:
    """Changes of a home that are one file each."""

    @staticmethod
    def charter(world: World, node: NodeHome) -> None:
        keeper = world.keeper()
        node.adopt_charter(keeper.charter_object()[1])
        keeper.close()

    @staticmethod
    def datasets(_world: World, node: NodeHome) -> None:
        node.catalog.datasets.remove("docs")


WRITE_ATOMIC = ("write node", "fsync file node", "replace node", "fsync folder node")


def changed_home(lives: Lives, act: str, *, skip: str = "", stop: int | None = None, torn: bool = False) -> list[str]:
    """Change a home until the stop, lose power, and check that it is as before or as after; return the steps."""
    world = lives().world
    keeper = world.keeper()
    keeper.write_charter(world.edge)
    newer = keeper.charter.number
    keeper.close()
    fs = CrashFs(os.path.join(world.root, "graveyard"), skip=skip)
    node = world.node(fs=fs)
    fs.stop_at(stop)
    done = False
    try:
        with suppress(Crash):
            getattr(Acts, act)(world, node)
            done = True
    finally:
        node.close()
    fs.power_loss(keep=lambda _entry: False, torn=torn)
    fs.close()
    node = world.node()
    try:
        now = (node.charter.number, len(node.catalog.datasets.all()))
    finally:
        node.close()
    after = (newer, 1) if act == "charter" else (newer - 1, 0)
    assert now in ((after,) if done else ((newer - 1, 1), after))
    return fs.steps


@pytest.mark.parametrize("act", ["charter", "datasets"])
def test_a_file_of_a_home_is_as_before_or_as_after(act: str, lives: Lives) -> None:
    steps = changed_home(lives, act)
    assert set(WRITE_ATOMIC) <= set(steps)
    for stop in range(len(steps) + 1):
        for torn in (False, True):
            changed_home(lives, act, stop=stop, torn=torn)


@pytest.mark.parametrize("step", WRITE_ATOMIC)
@pytest.mark.parametrize("act", ["charter", "datasets"])
def test_no_step_of_replacing_a_file_can_be_left_out(act: str, step: str, lives: Lives) -> None:
    count = len(changed_home(lives, act))

    def find() -> None:
        for stop in range(count + 1, 0, -1):
            for torn in (False, True):
                changed_home(lives, act, skip=step, stop=stop, torn=torn)

    with pytest.raises((AssertionError, ReplicatorError)):
        find()
