"""What a path is in one snapshot, as far as two snapshots are compared, and the history of one path over many."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from blake3 import blake3

from replicator.format.snapshot import ChunkList
from replicator.format.tree import Entry, Kind

Aspect = Literal["content", "mode", "owner", "mtime", "attributes", "holes"]
State = Literal["present", "absent", "deleted", "unreadable"]
_ID: Final = 32


class Version(msgspec.Struct, frozen=True, gc=False):
    """An entry without its name: equal ones are restored alike.

    Times of change, inode numbers of hard links and whether a file changed while it was read are no part of it: no
    restore brings them back. ``content`` is a digest of a file's or a directory's chunk list or a device's number,
    ``attributes`` and ``holes`` are digests too, empty if there are none.
    """

    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    target: bytes
    content: bytes
    attributes: bytes
    holes: bytes


def version_of(entry: Entry) -> Version:
    """Return what an entry is."""
    if entry.content is not None:
        content = content_id(entry.content)
    else:
        content = b"%d" % entry.rdev if entry.kind in ("char", "block") else b""
    return Version(
        kind=entry.kind,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        user=entry.user,
        group=entry.group,
        target=entry.target,
        content=content,
        attributes=_digest(entry.xattrs),
        holes=_digest(entry.holes),
    )


def content_id(content: ChunkList) -> bytes:
    """Return what tells the contents of one domain apart: equal ids are equal bytes, or equal directories.

    The same bytes that were cut under other parameters have another id.
    """
    if content.depth == 0 and len(content.chunks) <= 1:
        return b"".join(ref.id for ref in content.chunks)
    hasher = blake3(b"%d" % content.depth)
    for ref in content.chunks:
        hasher.update(ref.id)
    return hasher.digest(_ID)


def aspects(old: Version, new: Version) -> tuple[Aspect, ...]:
    """Return in what two versions of one kind differ.

    A directory's content is for who compares what is in it; its time counts only where that is the same, because it
    follows from it.
    """
    found: list[Aspect] = []
    folder = new.kind == "dir"
    if not folder and (old.content, old.target) != (new.content, new.target):
        found.append("content")
    if old.mode != new.mode:
        found.append("mode")
    if (old.uid, old.gid, old.user, old.group) != (new.uid, new.gid, new.user, new.group):
        found.append("owner")
    if old.mtime_ns != new.mtime_ns and not (folder and old.content != new.content):
        found.append("mtime")
    if old.attributes != new.attributes:
        found.append("attributes")
    if old.holes != new.holes:
        found.append("holes")
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one snapshot says of a path. ``complete`` is false where the path may only not have been reached yet."""

    version: Version | None
    complete: bool = True
    unreadable: bool = False


@dataclass(slots=True, kw_only=True)
class Period:
    """A version, or a time without one: the places of the first and last snapshot it is true for, and how many."""

    state: State
    version: Version | None
    first: int
    last: int
    count: int


def history(observations: Iterable[Observation]) -> list[Period]:
    """Return the distinct versions of a path, each once, and the times at which it was not there, oldest first.

    Observations come oldest first. A version that came back has one period with ``count`` less than what lies between
    its first and last snapshot. An incomplete snapshot proves no absence.
    """
    versions: dict[Version, Period] = {}
    periods: list[Period] = []
    running: Period | None = None
    for place, seen in enumerate(observations):
        if seen.version is not None:
            running = None
            known = versions.get(seen.version)
            if known is None:
                known = versions[seen.version] = Period(
                    state="present", version=seen.version, first=place, last=place, count=0
                )
                periods.append(known)
            known.last = place
            known.count += 1
            continue
        if not (seen.complete or seen.unreadable):
            continue
        state: State = "unreadable" if seen.unreadable else "deleted" if versions else "absent"
        if running is None or running.state != state:
            running = Period(state=state, version=None, first=place, last=place, count=0)
            periods.append(running)
        running.last = place
        running.count += 1
    return periods


def _digest(parts: Iterable[msgspec.Struct]) -> bytes:
    listed = list(parts)
    return blake3(msgspec.msgpack.encode(listed)).digest(_ID) if listed else b""
