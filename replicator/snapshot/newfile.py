"""New files: in one step where all of the content is at hand, else part by part."""

import errno
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from replicator.format.tree import Entry, Hole
from replicator.snapshot.metadata import Metadata
from replicator.snapshot.target import Identity, identity_of

NO_LINKS_HERE: Final = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
"""What a file system says that has no hard links."""
_NO_UNNAMED_HERE: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Made:
    """A file that has its name. ``identity`` only if it was asked for; ``problems``: what was not set of it."""

    identity: Identity | None
    problems: list[str]


def make_whole(
    folder: int, entry: Entry, data: bytes | memoryview, metadata: Metadata, *, identify: bool
) -> Made | None:
    """Make a file in a folder, given as its descriptor, that has no name before it is whole.

    The answer is None where the file system cannot do that. Nothing is left of a file that could not be made.

    Raises:
        OSError: it cannot be written; FileExistsError: something has its name.
    """
    try:
        # Without a name nobody else can open it, whatever its mode is.
        fd = os.open(b".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, entry.mode & 0o777, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_UNNAMED_HERE:
            raise
        return None
    try:
        if entry.holes:
            os.ftruncate(fd, entry.size)
        write_part(fd, entry.holes, 0, data)
        problems = list(metadata.apply(fd, entry))
        try:
            os.link(b"/proc/self/fd/%d" % fd, entry.name, dst_dir_fd=folder, follow_symlinks=True)
        except OSError as error:
            if error.errno not in (*NO_LINKS_HERE, errno.ENOENT):
                raise
            return None
        return Made(identity_of(os.fstat(fd)) if identify else None, problems)
    finally:
        os.close(fd)


def write_part(fd: int, holes: Sequence[Hole], offset: int, data: bytes | memoryview) -> None:
    """Write part of a file at its place, all but the zeros that lie in holes (in order, apart).

    Raises:
        OSError: it cannot be written.
    """
    with memoryview(data) as view:
        done, end = offset, offset + len(view)
        nearest = bisect_right(holes, offset, key=lambda hole: hole.offset) - 1 if holes else 0
        for hole in holes[max(nearest, 0) :]:
            start, stop = max(hole.offset, offset), min(hole.offset + hole.length, end)
            if hole.offset >= end:
                break
            if start < stop and bytes(view[start - offset : stop - offset]) == bytes(stop - start):
                _write_all(fd, view[done - offset : start - offset], done)
                done = stop
        _write_all(fd, view[done - offset :], done)


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data = data[count:]
        offset += count
