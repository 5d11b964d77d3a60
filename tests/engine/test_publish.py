"""The order of publishing, step by step, on the disk and on the network."""

import os
import re

from replicator.engine.backup import backup
from replicator.ids import Identity, ObjectName
from replicator.transport.handler import Session, Upload
from replicator.transport.memory import Phase
from tests.crashfs import CrashFs
from tests.scenarios.liars import Liar
from tests.scenarios.world import World, write

ORDER = ("pack", "index", "references", "claim", "snapshot", "head", "published")


class Recorder:
    """All steps of one backup, in order: what goes to peers by the kind of object, what goes to the disk."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps: list[tuple[str, str]] = []
        self.fs = CrashFs(os.path.join(world.root, "graveyard"))
        inner = self.fs.step

        def step(label: str) -> bool:
            self.steps.append(("disk", label))
            return inner(label)

        self.fs.step = step  # type: ignore[method-assign]
        for number, service in enumerate(world.services):
            world.network.add(Liar(service, begin_put=self._put))
            assert world.identity(number) == service.identity
        world.network.faults = self._call

    def _put(self, session: Session, name: ObjectName, size: int) -> Upload:
        self.steps.append(("put", name.hex()))
        return session.begin_put(name, size)

    def _call(self, _identity: Identity, op: str, phase: Phase) -> None:
        if phase == "before" and op != "put":
            self.steps.append(("call", op))

    async def backup(self) -> None:
        """Back up and name the kinds of what was put."""
        node = self.world.node(fs=self.fs)
        try:
            [done] = (await backup(node, self.world.edge, overlap=False)).datasets
            assert done.published
            kinds = {row.name.hex(): row.kind for row in node.catalog.objects.all()}
        finally:
            node.close()
            self.fs.close()
        self.steps = [(how, _word(kinds[what]) if how == "put" else what) for how, what in self.steps]

    def phases(self) -> list[str]:
        """Return the phases of publishing in the order in which they began, a phase that comes back again too."""
        words: list[str] = []
        for how, what in self.steps:
            word = what if how == "put" or what in ("claim", "head") else "published" if "published row" in what else ""
            if word and words[-1:] != [word]:
                words.append(word)
        return words


def _word(kind: str) -> str:
    return "pack" if kind in ("data", "tree") else kind


async def test_packs_come_before_index_references_claim_snapshot_head_and_our_own_rows(
    world: World, source: str
) -> None:
    recorder = Recorder(world)
    await recorder.backup()
    assert tuple(recorder.phases()) == ORDER


async def test_the_order_is_the_same_for_a_later_snapshot(world: World, source: str) -> None:
    await world.backup()
    write(os.path.join(source, "new"), b"new" * 10_000)
    world.clock.advance(60)
    recorder = Recorder(world)
    await recorder.backup()
    assert tuple(recorder.phases()) == ORDER


async def test_nothing_leaves_before_the_signed_snapshot_is_durable_in_the_spool(world: World, source: str) -> None:
    recorder = Recorder(world)
    await recorder.backup()
    first = next(at for at, (how, _) in enumerate(recorder.steps) if how == "put")
    disk = [what for how, what in recorder.steps[:first] if how == "disk"]
    assert disk.count("link objects") == 5
    assert disk.count("fsync file objects") == 2, "the packs, together"
    assert disk.count("fsync file incoming") == 3, "what relies on them, one by one"
    assert disk.count("fsync folder objects") == 1 + 3
    assert disk.index("fsync folder objects") < disk.index("fsync file incoming")
    row = len(disk) - 1 - disk[::-1].index("commit snapshot row")
    sealed = [re.sub(" .*", "", what) for what in disk[row - 6 : row]]
    assert sealed == ["create", "write", "fsync", "link", "fsync", "unlink"], "the last object before its row"


async def test_everything_is_received_at_the_minimum_before_the_snapshot_goes(world: World, source: str) -> None:
    recorder = Recorder(world)
    await recorder.backup()
    steps = recorder.steps
    snapshot = steps.index(("put", "snapshot"))
    before = steps[:snapshot]
    assert before.count(("put", "pack")) == 2 * 3
    assert before.count(("put", "index")) == before.count(("put", "references")) == 5
    assert before.count(("call", "claim")) == 5
    assert before.count(("disk", "commit holding row")) == 6 + 10, "each receipt is kept"
    head = steps.index(("call", "head"))
    assert steps[snapshot:head].count(("put", "snapshot")) == 5
    published = steps.index(("disk", "commit published row"))
    assert steps[head:published].count(("call", "head")) == 5
    assert ("disk", "unlink objects") not in steps[:published], "the spool keeps everything until it is out"
