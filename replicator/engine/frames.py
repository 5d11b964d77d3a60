"""What the walking process and its reading processes say to each other (:mod:`replicator.engine.mail`)."""

from typing import NamedTuple, TypeAlias

import msgspec

from replicator.engine.mail import Failed, Message
from replicator.format.keybag import WriterDomain
from replicator.format.tree import Hole, Xattr


class Setup(Message, frozen=True):
    """To a reader, first: what it needs. Keys travel here, never in arguments or environment."""

    tenant: bytes
    domain: WriterDomain
    policy: bytes
    sizes: tuple[int, int, int]
    spool: str
    threads: int
    coding: tuple[int, int] | None = None


class Read(Message, frozen=True):
    """To a reader: read these files, given as names in each of the folders whose descriptors come along."""

    task: int
    folders: list[list[bytes]]


class Wanted(Message, frozen=True):
    """To a reader: which of the chunks named longest ago to store, a byte for each: 1 or 0."""

    chunks: bytes


class Finish(Message, frozen=True):
    """To a reader: everything is read; seal what is open."""


class FileStatus(NamedTuple):
    """A :class:`~replicator.snapshot.walk.Status` as it travels."""

    st_mode: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_uid: int
    st_gid: int
    st_dev: int
    st_ino: int
    st_nlink: int
    st_rdev: int
    st_blocks: int


class File(msgspec.Struct, frozen=True, array_like=True):
    """What came of a file. ``status`` is None if it was not read; ``later``: it is large, and follows by itself.

    ``chunks`` counts those of the message that are its own, in the order of files.
    """

    status: FileStatus | None
    holes: list[Hole]
    xattrs: list[Xattr]
    xattrs_gap: str
    changed: bool
    gap: str
    chunks: int
    later: bool = False


class Files(Message, frozen=True):
    """From a reader: the small files of a task, and their chunks (32-byte ids, 4-byte lengths), to be answered."""

    task: int
    files: list[File]
    ids: bytes
    lengths: bytes


class Part(Message, frozen=True):
    """From a reader: more chunks of the large file at a place in a task, to be answered. ``again``: from its start.

    ``repeated``: so often in a row, which only the zeros of a hole are.
    """

    task: int
    place: int
    again: bool
    ids: bytes
    lengths: bytes
    repeated: int = 1


class Whole(Message, frozen=True):
    """From a reader: all parts of a large file were sent."""

    task: int
    place: int
    file: File


class Sealed(Message, frozen=True):
    """From a reader: a pack is in the spool; as ``shards``, their names joined, if it was cut."""

    name: bytes
    size: int
    ids: bytes
    shards: bytes = b""


class Finished(Message, frozen=True):
    """From a reader: nothing is left."""


ToReader: TypeAlias = Setup | Read | Wanted | Finish
FromReader: TypeAlias = Files | Part | Whole | Sealed | Failed | Finished

to_reader = msgspec.msgpack.Decoder(ToReader)
from_reader = msgspec.msgpack.Decoder(FromReader)
