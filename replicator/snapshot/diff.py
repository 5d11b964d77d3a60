"""What is different between two trees of one domain; what is equal is not read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from replicator.errors import FormatError
from replicator.format.snapshot import ChunkList
from replicator.format.tree import Entry
from replicator.snapshot.tree import MAX_DEPTH, TreePath, TreeReader
from replicator.snapshot.versions import Aspect, aspects, content_id, version_of

What = Literal["added", "removed", "content", "metadata", "type"]
Pair = tuple[TreePath, Entry | None, Entry | None]
"""A path and what is there before and after; at least one of the two is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that is not what it was. ``aspects`` says in what an entry of the same kind differs."""

    path: TreePath
    what: What
    old: Entry | None
    new: Entry | None
    aspects: tuple[Aspect, ...] = ()


@dataclass(slots=True)
class Summary:
    """How many entries changed in which way, and bytes of files that came and went with that."""

    added: int = 0
    removed: int = 0
    content: int = 0
    metadata: int = 0
    type: int = 0
    bytes_added: int = 0
    bytes_removed: int = 0

    def count(self, change: Change) -> None:
        """Count a change. A file whose content changed is removed in its old size and added in its new one."""
        setattr(self, change.what, getattr(self, change.what) + 1)
        if change.what != "metadata":
            self.bytes_added += change.new.size if change.new is not None else 0
            self.bytes_removed += change.old.size if change.old is not None else 0


def top_pairs(reader: TreeReader, old: ChunkList, new: ChunkList) -> Iterator[Pair]:
    """Yield the pairs of two directories, for :func:`compare`.

    Raises:
        FormatError: as :meth:`TreeReader.entries`.
    """
    return _pairs(reader, (), old, new)


def compare(reader: TreeReader, pairs: Iterable[Pair]) -> Iterator[Change]:
    """Yield the changes at these pairs and below them, a directory before what it holds, names in byte order.

    A directory that came or went is told with everything in it.

    Raises:
        FormatError: as :meth:`TreeReader.walk`.
    """
    stack = [iter(pairs)]
    while stack:
        pair = next(stack[-1], None)
        if pair is None:
            stack.pop()
            continue
        path, old, new = pair
        change = _change(path, old, new)
        if change is not None:
            yield change
        before, after = _folder(old), _folder(new)
        if before is None and after is None:
            continue
        if before is not None and after is not None and content_id(before) == content_id(after):
            continue
        if len(stack) >= MAX_DEPTH:
            raise FormatError(f"tree: deeper than {MAX_DEPTH} folders")
        stack.append(_pairs(reader, path, before, after))


def _pairs(reader: TreeReader, at: TreePath, old: ChunkList | None, new: ChunkList | None) -> Iterator[Pair]:
    # Names rise from piece to piece, so a piece that both have holds the same names in both, and no other piece does.
    shared: frozenset[bytes] = frozenset()
    if old is not None and new is not None:
        shared = frozenset(ref.id for ref in reader.pieces(old)) & frozenset(ref.id for ref in reader.pieces(new))
    before: Iterator[Entry] = iter(()) if old is None else reader.entries(old, without=shared)
    after: Iterator[Entry] = iter(()) if new is None else reader.entries(new, without=shared)
    one, other = next(before, None), next(after, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.name < other.name):
            assert one is not None, "one of the two is there"
            yield (*at, one.name), one, None
            one = next(before, None)
        elif one is None or other.name < one.name:
            yield (*at, other.name), None, other
            other = next(after, None)
        else:
            yield (*at, one.name), one, other
            one, other = next(before, None), next(after, None)


def _folder(entry: Entry | None) -> ChunkList | None:
    return entry.content if entry is not None and entry.kind == "dir" else None


def _change(path: TreePath, old: Entry | None, new: Entry | None) -> Change | None:
    if old is None or new is None:
        return Change(path=path, what="added" if old is None else "removed", old=old, new=new)
    if old.kind != new.kind:
        return Change(path=path, what="type", old=old, new=new)
    found = aspects(version_of(old), version_of(new))
    if not found:
        return None
    return Change(path=path, what="content" if "content" in found else "metadata", old=old, new=new, aspects=found)
