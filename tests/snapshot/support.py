"""A chunk store in memory, and a whole capture and restore with it."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from blake3 import blake3

from chunker import Chunker
from replicator.format.pack import CHUNK_DATA, CHUNK_LIST, CHUNK_TREE
from replicator.format.sizes import MAX_CHUNK
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import Entry, HardLink, Kind, Xattr
from replicator.snapshot.apply import Applied, Applier
from replicator.snapshot.capture import Captured, capture
from replicator.snapshot.chunklist import EMPTY, extents
from replicator.snapshot.folder import FolderBuilder
from replicator.snapshot.metadata import Rights
from replicator.snapshot.plan import Overwrite
from replicator.snapshot.tree import TreePath, TreeReader
from replicator.snapshot.walk import PosixSource
from tests.fakes import SeededRng

SMALL_CHUNKER = Chunker(bytes(range(32)), 1024, 16384, 65536)
"""Small chunks, so that small files have several."""
NOBODY = 65534
IS_ROOT = os.geteuid() == 0


AnyPath = bytes | str | os.PathLike[str]


class MemorySink:
    """A sink and source in a dict; ``puts`` counts by kind what was handed in."""

    def __init__(self) -> None:
        self.chunks: dict[tuple[int, bytes], bytes] = {}
        self.puts: dict[int, int] = {CHUNK_DATA: 0, CHUNK_TREE: 0, CHUNK_LIST: 0}
        self.relied: set[bytes] = set()

    def put(self, kind: int, data: bytes | memoryview) -> ChunkRef:
        assert 1 <= len(data) <= MAX_CHUNK
        name = blake3(bytes([kind]) + bytes(data)).digest()
        self.chunks[kind, name] = bytes(data)
        self.puts[kind] += 1
        self.relied.add(name)
        return ChunkRef(id=name, length=len(data))

    def known(self, chunks: Sequence[ChunkRef]) -> bool:
        for ref in chunks:
            if not any((kind, ref.id) in self.chunks for kind in self.puts):
                return False
            self.relied.add(ref.id)
        return True

    def get(self, kind: int, ref: ChunkRef) -> bytes:
        return self.chunks[kind, ref.id]


def entry(name: bytes = b"name", kind: Kind = "file", **changes: Any) -> Entry:
    """Make an entry that is allowed, but for what the test changes."""
    values: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "mode": 0o755 if kind == "dir" else 0o644,
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "user": "",
        "group": "",
        "mtime_ns": 1_600_000_000_123_456_789,
        "ctime_ns": 0,
        "size": 0,
        "content": EMPTY if kind in ("file", "dir") else None,
        "target": b"somewhere" if kind == "link" else b"",
        "rdev": os.makedev(1, 3) if kind in ("char", "block") else 0,
        "link": None,
        "xattrs": [],
        "holes": [],
        "changed": False,
    }
    return Entry(**(values | changes))


def file_entry(sink: MemorySink, name: bytes, data: bytes, **changes: Any) -> Entry:
    """Make a file of one chunk."""
    content = ChunkList(depth=0, length=len(data), chunks=[sink.put(CHUNK_DATA, data)]) if data else EMPTY
    return entry(name, size=len(data), content=content, **changes)


def folder_of(sink: MemorySink, entries: Iterable[Entry]) -> ChunkList:
    """Make a directory's content."""
    builder = FolderBuilder(sink)
    for one in entries:
        builder.add(one)
    return builder.finish()


def hard_link(inode: int = 7) -> HardLink:
    """Make a hard link's mark."""
    return HardLink(device=0, inode=inode)


def attribute(name: bytes, value: bytes = b"value") -> Xattr:
    """Make an extended attribute."""
    return Xattr(name=name, value=value)


def captured(sink: MemorySink, *roots: AnyPath, **options: Any) -> Captured:
    """Capture folders of the machine."""
    values: dict[str, Any] = {"sink": sink, "chunker": SMALL_CHUNKER, "source": PosixSource()}
    return capture([os.fspath(root) for root in roots], **(values | options))


def planned(
    source: MemorySink,
    tree: ChunkList,
    target: object,
    *,
    overwrite: Overwrite = "never",
    privileged: bool = IS_ROOT,
    paths: Iterable[TreePath] = ((),),
    **options: Any,
) -> Applier:
    """Plan a restore of a tree."""
    applier = Applier(
        str(target),
        rng=SeededRng(1),
        rights=Rights(privileged=privileged, numeric_ids=True),
        overwrite=overwrite,
        **options,
    )
    for path, one in TreeReader(source).select(tree, paths):
        applier.add(path, one)
    return applier


def restored(
    source: MemorySink,
    tree: ChunkList,
    target: object,
    order: Callable[[list[Any]], list[Any]] = list,
    **options: Any,
) -> Applied:
    """Restore a tree; ``order`` arranges the writes."""
    applier = planned(source, tree, target, **options)
    applier.begin()
    writes = [(job, offset, ref) for job in applier.jobs for offset, ref in extents(job.content, source)]
    for job, offset, ref in order(writes):
        applier.write(job, offset, source.get(CHUNK_DATA, ref))
    return applier.finish()


def open_fds() -> int:
    """Count this process's descriptors."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user without rights for a while (a process that is none already stays what it is)."""
    if not IS_ROOT:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
