"""The processes that write files beside a restore's planning, and look at what is there: who does what.

Packs lie in slots, memory that all of these processes share. What is decided or remembered stays in the restoring
process; a writer is given descriptors and resolves no path. The first packs are written without any, so that nothing
is started for a small restore.
"""

import os
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, Self, TypeVar

from msgspec.structs import replace

from replicator.engine.helpers import Helper, close
from replicator.engine.mail import MOST_DESCRIPTORS
from replicator.engine.slots import Slot, Slots
from replicator.engine.writeframes import (
    FromWriter,
    Look,
    NewFile,
    Saw,
    Setup,
    TreePack,
    Unfinished,
    Write,
    Wrote,
    from_writer,
)
from replicator.engine.writing import WriteWork
from replicator.format.tree import Hole
from replicator.snapshot.looking import Looked
from replicator.snapshot.looking import Part as LookPart

ALONE_BYTES: Final = 48 << 20
"""Bytes of packs that are written before a process is started, which takes half a second of a core."""

BEHIND: Final = 2
"""Packs that are written at the same time, or kept for the next part of a tree: at least so many, and one a writer."""
AT_FIRST: Final = 2
"""Packs that come at the same time until there are processes: what has come by then needs memory beside the slots."""
TREES: Final = 4
"""Packs of directories that those who look have at hand at the same time."""
MORE: Final = 2
"""Orders that a process may have more than another, to go on with a pack that it has opened."""
LOOKS: Final = 2
"""Tasks of looking that a process has at most: one that it is at, and the next."""

MOMENT_S: Final = 0.5
GO_ON: Final = "what has its name is whole: go on with --overwrite if-changed"

C = TypeVar("C")


class Selectable(Protocol):
    """What select takes."""

    def fileno(self) -> int:
        """Return a descriptor."""
        ...


@dataclass(slots=True)
class Order(Generic[C]):
    """What to write from one pack. ``descriptors`` (folders, then files) are closed when it was sent.

    ``context`` comes back with the answer.
    """

    context: C
    folders: list[list[NewFile]] = field(default_factory=list)
    files: list[Unfinished] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether no other folder or file can be added."""
        return len(self.descriptors) >= MOST_DESCRIPTORS

    def add_folder(self, fd: int) -> None:
        """Let files that follow be made in a folder, whose descriptor stays the caller's."""
        self.descriptors.append(os.dup(fd))
        self.folders.append([])

    def add_file(self, fd: int, holes: list[Hole]) -> None:
        """Let parts that follow be of a file; after all folders. The descriptor stays the caller's."""
        self.descriptors.append(os.dup(fd))
        self.files.append(Unfinished(holes, []))


@dataclass(slots=True)
class _Look:
    writer: Helper[FromWriter]
    trees: list[Slot]
    saw: Callable[[list[Looked]], None]


@dataclass(slots=True)
class _Task(Generic[C]):
    context: C
    slot: Slot
    writer: Helper[FromWriter]


class Writers(Generic[C]):
    """Up to ``count`` writing processes, none if 0. A context manager, for one thread.

    ``took`` is called with an order's context and what became of it. While they write as many packs, ``ahead`` others
    come or wait; while they wait, all of them may come.
    """

    def __init__(self, setup: Setup, count: int, took: Callable[[C, Wrote], None], *, ahead: int = 1) -> None:
        self._setup = setup
        self._count = count
        self._room = max(count, BEHIND) + ahead
        self._took = took
        self._alone: WriteWork | None = WriteWork(setup)
        self._alone_bytes = 0
        self._writers: list[Helper[FromWriter]] = []
        self._slots: Slots | None = None
        self._tasks: dict[int, _Task[C]] = {}
        self._looks: dict[int, _Look] = {}
        self._last: tuple[int, Helper[FromWriter]] | None = None
        self._number = 0
        self.trees: Slots | None = None
        """Memory for packs of directories; None if nobody looks."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def busy(self) -> bool:
        """Whether something is not answered."""
        return bool(self._tasks)

    @property
    def slots(self) -> Slots | None:
        """The memory to fetch packs into; None while they are taken as they are, and written without a process."""
        return self._slots

    @property
    def room(self) -> int:
        """Packs for which there is memory: on their way, waiting, being written."""
        return self._room if self._slots is not None or not self._count else AT_FIRST

    def keep(self, pack: int) -> bool:
        """Return whether a pack is still in a slot; then it stays there until it is sent from."""
        slot = self._slot_of(pack)
        if slot is not None:
            slot.uses += 1
        return slot is not None

    def has(self, pack: int) -> bool:
        """Return whether a pack is in a slot now."""
        return self._slot_of(pack) is not None

    def forget(self, pack: int) -> None:
        """Have a pack no more: what is in its slot is not right."""
        slot = self._slot_of(pack)
        if slot is not None:
            slot.pack = None

    def has_room(self) -> bool:
        """Return whether a pack can be taken now, or a slot to fetch it into."""
        return self._slots is None or self._slots.has_room

    def send(self, pack: int, data: bytes | None, orders: Sequence[Order[C]]) -> None:
        """Let orders be carried out from a pack; ``data`` is None for one that was kept.

        Call it when :meth:`has_room`, or with what was kept.

        Raises:
            ReplicatorError: a writer cannot go on.
        """
        if self._slots is None:
            assert data is not None, "nothing is kept without slots"
            self._write_alone(data, orders)
            return
        if data is not None:
            slot = self._slots.take()
            self._slots.filled(slot, pack, self._slots.put(slot.number, data))
        kept = self._slot_of(pack)
        assert kept is not None, "it was kept"
        self._send_from(kept, orders)

    def send_filled(self, pack: int, slot: Slot, size: int, orders: Sequence[Order[C]]) -> None:
        """Let orders be carried out from a pack that was fetched into a slot that was taken.

        Raises:
            ReplicatorError: a writer cannot go on.
        """
        assert self._slots is not None, "it was taken from there"
        self._slots.filled(slot, pack, size)
        self._send_from(slot, orders)

    def poll(self, *others: Selectable, wait: bool = False) -> bool:
        """Take what has come and return whether anything has; with ``wait`` allow it a moment.

        That also ends when something comes on descriptors of ``others``. So the caller can look whether it is to stop.

        Raises:
            ReplicatorError: a writer cannot go on.
        """
        if not any(writer.has_said for writer in self._writers):
            ready, _, _ = select.select([*self._writers, *others], [], [], MOMENT_S if wait else 0)
            for one in ready:
                if isinstance(one, Helper):
                    one.take_in()
        came = False
        for writer in self._writers:
            while (message := writer.next()) is not None:
                came = True
                if isinstance(message, Saw):
                    self._saw(message)
                    continue
                assert isinstance(message, Wrote), "what has failed was raised"
                writer.load -= 1
                task = self._tasks.pop(message.task)
                task.slot.uses -= 1
                self._took(task.context, message)
        return came

    def start(self, look_at: int | None = None) -> None:
        """Start the processes now: more than :data:`ALONE_BYTES` are known to come, or there is much to look at.

        That is below ``look_at``, a descriptor, which stays the caller's.
        """
        if self._count and self._alone is not None:
            self._start(look_at)

    @property
    def share(self) -> int:
        """Tasks of looking among which all that is known to be looked at should be divided."""
        return LOOKS * len(self._writers)

    @property
    def can_look(self) -> bool:
        """Whether a task of looking can be given."""
        return len(self._looks) < self.share

    def look(self, parts: list[LookPart], entries: int, saw: Callable[[list[Looked]], None]) -> None:
        """Let parts of the target be looked at, when :attr:`can_look`; ``saw`` is called with what was found of each.

        What is in :attr:`trees` now stays there until then.

        Raises:
            ReplicatorError: a writer cannot go on.
        """
        assert self.trees is not None, "they were started to look"
        busy = [look.writer for look in self._looks.values()]
        writer = min(self._writers, key=busy.count)
        trees = [slot for slot in self.trees if slot.pack is not None]
        self._number += 1
        packs = [TreePack(slot.number, slot.load, slot.size) for slot in trees]
        writer.say(Look(self._number, packs, entries, parts))
        for slot in trees:
            slot.uses += 1
        self._looks[self._number] = _Look(writer, trees, saw)

    def _saw(self, message: Saw) -> None:
        look = self._looks.pop(message.task)
        for slot in look.trees:
            slot.uses -= 1
        look.saw(message.found)

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        close(self._writers)
        self._writers = []
        for slots in (self._slots, self.trees):
            if slots is not None:
                slots.close()

    def _write_alone(self, data: bytes, orders: Sequence[Order[C]]) -> None:
        assert self._alone is not None, "until there are processes"
        self._number += 1
        load = self._number
        for order in orders:
            try:
                wrote = self._alone.write(
                    Write(0, load, 0, len(data), order.folders, order.files), memoryview(data), order.descriptors
                )
            finally:
                _close_descriptors(order)
            self._took(order.context, wrote)
        self._alone_bytes += len(data)
        if self._count and self._alone_bytes >= ALONE_BYTES:
            self._start()

    def _start(self, look_at: int | None = None) -> None:
        self._alone = None
        self._slots = Slots(self._room)
        descriptors = self._slots.descriptors
        setup = replace(self._setup, slots=len(descriptors))
        if look_at is not None:
            self.trees = Slots(TREES)
            setup = replace(setup, trees=TREES)
            descriptors += [*self.trees.descriptors, look_at]
        for _ in range(self._count):
            writer = Helper.start("replicator.engine.writer", from_writer, "a writing process", GO_ON)
            self._writers.append(writer)
            writer.say(setup, descriptors)

    def _slot_of(self, pack: int) -> Slot | None:
        return None if self._slots is None else self._slots.of(pack)

    def _send_from(self, slot: Slot, orders: Sequence[Order[C]]) -> None:
        try:
            for order in orders:
                self._give(slot, order)
        finally:
            slot.uses -= 1

    def _give(self, slot: Slot, order: Order[C]) -> None:
        writer = min(self._writers, key=lambda writer: writer.load)
        if self._last is not None and self._last[0] == slot.load and self._last[1].load <= writer.load + MORE:
            writer = self._last[1]
        self._last = slot.load, writer
        self._number += 1
        try:
            message = Write(self._number, slot.load, slot.number, slot.size, order.folders, order.files)
            writer.say(message, order.descriptors)
        finally:
            _close_descriptors(order)
        writer.load += 1
        slot.uses += 1
        self._tasks[self._number] = _Task(order.context, slot, writer)


def _close_descriptors(order: Order[C]) -> None:
    for fd in order.descriptors:
        os.close(fd)
    order.descriptors = []
