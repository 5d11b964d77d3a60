"""What a restore and its writing processes, which also look, say to each other (:mod:`replicator.engine.mail`)."""

from typing import TypeAlias

import msgspec

from replicator.engine.mail import Failed, Message
from replicator.format.tree import Entry, Hole
from replicator.pack.keys import DomainKeys
from replicator.snapshot.looking import Looked
from replicator.snapshot.looking import Part as LookPart


class Setup(Message, frozen=True):
    """To a writer, first: what it needs. Descriptors of so many ``slots`` come along, memory that holds a pack each.

    If it is to look, there are so many ``trees``, likewise, and a descriptor of the target.
    """

    keys: DomainKeys
    restore_private: bytes
    privileged: bool
    numeric_ids: bool
    slots: int = 0
    trees: int = 0
    formers: tuple[bytes, ...] = ()


class NewFile(msgspec.Struct, frozen=True, array_like=True):
    """A file that one chunk is all of. ``identify``: device and inode are asked for."""

    entry: Entry
    chunk: bytes
    identify: bool


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A chunk of a file and where it belongs."""

    chunk: bytes
    offset: int
    length: int


class Unfinished(msgspec.Struct, frozen=True, array_like=True):
    """Parts of a file that has its name later."""

    holes: list[Hole]
    parts: list[Part]


class Write(Message, frozen=True):
    """To a writer: write these from the pack in a slot.

    ``load`` is another number whenever another pack is in the slot. The descriptors of the folders come along, then
    those of the unfinished files. Places are numbered in the order of new files, then parts.
    """

    task: int
    load: int
    slot: int
    size: int
    folders: list[list[NewFile]]
    files: list[Unfinished]


class Wrote(Message, frozen=True):
    """From a writer: what came of a task; by the numbers of places, all that are not named were written.

    ``unreadable``: why nothing of the pack could be opened. ``bad``: a chunk is not what it should be, and why.
    ``failed``: the file could not be written, and the number of the error. ``again``: the file system makes no files
    in one step. ``unset``: what was not set of a new file. ``made``: device and inode of those that were to be
    identified.
    """

    task: int
    unreadable: str = ""
    bad: list[tuple[int, str]] = msgspec.field(default_factory=list)
    failed: list[tuple[int, int]] = msgspec.field(default_factory=list)
    again: list[int] = msgspec.field(default_factory=list)
    unset: list[tuple[int, list[str]]] = msgspec.field(default_factory=list)
    made: list[tuple[int, int, int]] = msgspec.field(default_factory=list)


class TreePack(msgspec.Struct, frozen=True, array_like=True):
    """A pack of directories, in one of the ``trees``. ``load`` as in :class:`Write`."""

    slot: int
    load: int
    size: int


class Look(Message, frozen=True):
    """To a writer: look at parts of the target, with what these packs hold, and at so many ``entries`` in all."""

    task: int
    packs: list[TreePack]
    entries: int
    parts: list[LookPart]


class Saw(Message, frozen=True):
    """From a writer: what was found of each part."""

    task: int
    found: list[Looked]


ToWriter: TypeAlias = Setup | Write | Look
FromWriter: TypeAlias = Wrote | Saw | Failed

to_writer = msgspec.msgpack.Decoder(ToWriter)
from_writer = msgspec.msgpack.Decoder(FromWriter)
