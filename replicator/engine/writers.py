"""The processes that write files beside a restore's planning: who writes what, and what became of it.

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
from replicator.engine.writeframes import FromWriter, NewFile, Setup, Unfinished, Write, Wrote, from_writer
from replicator.engine.writing import WriteWork
from replicator.format.tree import Hole

ALONE_BYTES: Final = 48 << 20
"""Bytes of packs that are written before a process is started, which takes half a second of a core."""

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
class _Slot:
    """Memory for a pack. ``uses`` counts tasks that read it, and who relies on it."""

    fd: int
    pack: int | None = None
    load: int = 0
    size: int = 0
    uses: int = 0


@dataclass(slots=True)
class _Task(Generic[C]):
    context: C
    slot: _Slot
    writer: Helper[FromWriter]


class Writers(Generic[C]):
    """Up to ``count`` writing processes, none if 0. A context manager, for one thread.

    ``took`` is called with an order's context and what became of it.
    """

    def __init__(self, setup: Setup, count: int, took: Callable[[C, Wrote], None]) -> None:
        self._setup = setup
        self._count = count
        self._took = took
        self._alone: WriteWork | None = WriteWork(setup)
        self._alone_bytes = 0
        self._writers: list[Helper[FromWriter]] = []
        self._slots: list[_Slot] = []
        self._tasks: dict[int, _Task[C]] = {}
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def busy(self) -> bool:
        """Whether something is not answered."""
        return bool(self._tasks)

    def keep(self, pack: int) -> bool:
        """Return whether a pack is still in a slot; then it stays there until it is sent from."""
        slot = self._slot_of(pack)
        if slot is not None:
            slot.uses += 1
        return slot is not None

    def has(self, pack: int) -> bool:
        """Return whether a pack is in a slot now."""
        return self._slot_of(pack) is not None

    def has_room(self) -> bool:
        """Return whether a pack can be taken now."""
        return self._alone is not None or any(not slot.uses for slot in self._slots)

    def send(self, pack: int, data: bytes | None, orders: Sequence[Order[C]]) -> None:
        """Let orders be carried out from a pack; ``data`` is None for one that was kept.

        Call it when :meth:`has_room`, or with what was kept.

        Raises:
            ReplicatorError: a writer cannot go on.
        """
        if self._alone is not None and data is not None:
            self._write_alone(data, orders)
            return
        slot = self._slot_of(pack) if data is None else self._filled(pack, data)
        assert slot is not None, "it was kept"
        try:
            for order in orders:
                self._give(slot, order)
        finally:
            slot.uses -= 1

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
                assert isinstance(message, Wrote), "what has failed was raised"
                came = True
                writer.load -= 1
                task = self._tasks.pop(message.task)
                task.slot.uses -= 1
                self._took(task.context, message)
        return came

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        close(self._writers)
        for slot in self._slots:
            os.close(slot.fd)
        self._writers, self._slots = [], []

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

    def _start(self) -> None:
        self._alone = None
        # One for each writer to work on and one that is being filled or waits.
        self._slots = [_Slot(os.memfd_create("pack", os.MFD_CLOEXEC)) for _ in range(self._count + 1)]
        for _ in range(self._count):
            writer = Helper.start("replicator.engine.writer", from_writer, "a writing process", GO_ON)
            self._writers.append(writer)
            writer.say(replace(self._setup, slots=len(self._slots)), [slot.fd for slot in self._slots])

    def _slot_of(self, pack: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.pack == pack), None)

    def _filled(self, pack: int, data: bytes) -> _Slot:
        # The one that was filled first, so that those stay longest that the next part of a tree may need.
        slot = min((slot for slot in self._slots if not slot.uses), key=lambda slot: slot.load)
        slot.pack, slot.size, slot.uses = None, len(data), 1
        if os.fstat(slot.fd).st_size < len(data):
            os.ftruncate(slot.fd, len(data))
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                done += os.pwrite(slot.fd, view[done:], done)
        self._number += 1
        slot.pack, slot.load = pack, self._number
        return slot

    def _give(self, slot: _Slot, order: Order[C]) -> None:
        writer = min(self._writers, key=lambda writer: writer.load)
        self._number += 1
        try:
            message = Write(self._number, slot.load, self._slots.index(slot), slot.size, order.folders, order.files)
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
