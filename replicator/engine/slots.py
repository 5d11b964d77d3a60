"""Memory for packs that several processes share, in slots of one pack each."""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from replicator.format.sizes import LARGEST

SIZE: Final = LARGEST
"""Bytes of a slot; what nothing was written to costs nothing."""


def mapped(fd: int) -> memoryview:
    """Return a slot's memory as another process sees it; the descriptor is closed."""
    try:
        # Once for all packs: to map and unmap 4096 pages for each took a fiftieth of a writer's time.
        return memoryview(mmap.mmap(fd, SIZE, mmap.MAP_SHARED))
    finally:
        os.close(fd)


def write(fd: int, data: bytes) -> int:
    """Write a pack to a slot's memory; return its size."""
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], done)
    return len(data)


@dataclass(slots=True)
class Slot:
    """Memory for a pack. ``uses`` counts tasks that read it, and who relies on it or fills it.

    ``load`` is another number whenever another pack is in it.
    """

    number: int
    fd: int
    pack: int | None = None
    load: int = 0
    size: int = 0
    uses: int = 0


class Held:
    """A descriptor of its own for a slot's memory, closed when nobody has it any more.

    A thread that copies may outlive the slots, whose descriptors are then those of other files.
    """

    def __init__(self, fd: int) -> None:
        self.fd = os.dup(fd)

    def __del__(self) -> None:
        os.close(self.fd)


class Slots:
    """A fixed number of slots."""

    def __init__(self, count: int) -> None:
        self._slots: list[Slot] = []
        self._loads = 0
        for number in range(count):
            self._slots.append(Slot(number, os.memfd_create("pack", os.MFD_CLOEXEC)))
            os.ftruncate(self._slots[-1].fd, SIZE)

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    @property
    def descriptors(self) -> list[int]:
        """What each is opened by."""
        return [slot.fd for slot in self._slots]

    def of(self, pack: int) -> Slot | None:
        """Return the slot that a pack is in."""
        return next((slot for slot in self._slots if slot.pack == pack), None)

    @property
    def has_room(self) -> bool:
        """Whether one can be taken."""
        return any(not slot.uses for slot in self._slots)

    @property
    def has_empty(self) -> bool:
        """Whether one can be taken that nothing is in."""
        return any(not slot.uses and slot.pack is None for slot in self._slots)

    def take(self) -> Slot:
        """Return a slot to be filled: of those in nobody's use the one that was filled first.

        So those packs stay longest that the next part of a tree may need.
        """
        slot = min((slot for slot in self._slots if not slot.uses), key=lambda slot: slot.load)
        slot.pack, slot.uses = None, 1
        return slot

    def filled(self, slot: Slot, pack: int, size: int) -> None:
        """Take note of what is in a slot that was taken."""
        self._loads += 1
        slot.pack, slot.size, slot.load = pack, size, self._loads

    def put(self, number: int, data: bytes) -> int:
        """Write a pack to a slot; return its size."""
        return write(self._slots[number].fd, data)

    def close(self) -> None:
        """Let go of the memory; idempotent."""
        for slot in self._slots:
            os.close(slot.fd)
        self._slots = []
