"""Directories as records. A directory's content is a chunk list of such pieces, in byte order of names."""

from typing import Annotated, Literal

import msgspec

from replicator.format.charter import Count
from replicator.format.codec import Part, Record
from replicator.format.snapshot import ChunkList, ChunkRef

NameBytes = Annotated[bytes, msgspec.Meta(min_length=1, max_length=255)]
Kind = Literal["file", "dir", "link", "fifo", "char", "block"]
Ns = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Xattr(Part, frozen=True, kw_only=True):
    """One extended attribute; POSIX ACLs and file capabilities are attributes too."""

    name: bytes
    value: bytes


class HardLink(Part, frozen=True, kw_only=True):
    """Which inode of this snapshot's source a file with several names was: same pair, same file."""

    device: Count
    inode: Count


class Hole(Part, frozen=True, kw_only=True):
    """A range without data in a sparse file."""

    offset: Count
    length: Count


class Entry(Part, frozen=True, kw_only=True):
    """One name in a directory.

    ``mode`` is the permission bits with setuid, setgid and sticky (07777); ``target`` is a symlink's content;
    ``rdev`` a device number; ``content`` a file's bytes or a directory's pieces. ``changed`` marks a file that
    changed while it was read.
    """

    name: NameBytes
    kind: Kind
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
    uid: Count
    gid: Count
    user: str
    group: str
    mtime_ns: Ns
    ctime_ns: Ns
    size: Count
    content: ChunkList | None
    target: bytes
    rdev: Count
    link: HardLink | None
    xattrs: list[Xattr]
    holes: list[Hole]
    changed: bool


class TreePiece(Record, frozen=True, kw_only=True):
    """A run of entries in strictly rising byte order of names."""

    entries: list[Entry]


class ListPiece(Record, frozen=True, kw_only=True):
    """A run of a chunk list that is too long for its place."""

    chunks: list[ChunkRef]


PIECE_ENTRIES = 1024
"""Entries in one piece at most, so that a directory of any size is read in bounded memory."""
