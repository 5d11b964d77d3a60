"""Find entries in many snapshots: each piece of a directory is read once, however many snapshots hold it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from replicator.errors import FormatError, UsageError
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import Entry, Kind
from replicator.snapshot.glob import Glob, States
from replicator.snapshot.tree import MAX_DEPTH, TreePath, TreeReader
from replicator.snapshot.versions import Version, version_of

MAX_MATCHES: Final = 10_000_000
"""Matches that are held at once: some gigabytes. A tree that refers to itself many times over could have any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What is looked for. Files beyond or below a size; times from ``newer_ns`` on, or before ``older_ns``."""

    pattern: Glob
    kinds: Collection[Kind] = ()
    larger: int | None = None
    smaller: int | None = None
    newer_ns: int | None = None
    older_ns: int | None = None

    def accept(self, entry: Entry) -> bool:
        """Return whether an entry is one of those, its name aside."""
        if self.kinds and entry.kind not in self.kinds:
            return False
        if (self.larger is not None or self.smaller is not None) and entry.kind != "file":
            return False
        return (
            (self.larger is None or entry.size > self.larger)
            and (self.smaller is None or entry.size < self.smaller)
            and (self.newer_ns is None or entry.mtime_ns >= self.newer_ns)
            and (self.older_ns is None or entry.mtime_ns < self.older_ns)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What was found in one piece of a directory and below it. Compared as the object it is."""

    own: tuple[tuple[bytes, Version], ...]
    below: "tuple[tuple[bytes, Parts], ...]"


Parts = tuple[Part, ...]
"""What was found in one directory; empty if nothing was."""
_NOTHING: Final = Part((), ())


class Searcher:
    """Searches trees, and remembers what is in every piece that it has read."""

    def __init__(self, criteria: Criteria) -> None:
        self._criteria = criteria
        self._known: dict[tuple[bytes, States], Part] = {}

    def search(self, reader: TreeReader, tree: ChunkList, aliases: Mapping[bytes, TreePath]) -> Parts:
        """Return what is found in a tree.

        ``aliases`` give the paths that its top entries had on the machine they came from: patterns may mean these.

        Raises:
            FormatError: a directory is not what the specification allows.
        """
        pattern = self._criteria.pattern
        stack = [_Open(reader.pieces(tree), pattern.start)]
        while True:
            here = stack[-1]
            entry = next(here.entries, None)
            if entry is not None:
                states = pattern.step(here.states, entry.name)
                if len(stack) == 1 and entry.name in aliases:
                    states |= pattern.walk(aliases[entry.name])
                if pattern.matches(states) and self._criteria.accept(entry):
                    here.own.append((entry.name, version_of(entry)))
                if entry.kind == "dir" and entry.content is not None and pattern.goes_on(states):
                    if len(stack) >= MAX_DEPTH:
                        raise FormatError(f"tree: deeper than {MAX_DEPTH} folders")
                    stack.append(_Open(reader.pieces(entry.content), states, entry.name))
                continue
            if here.key is not None:
                part = here.close()
                if len(stack) > 1:  # the top has aliases of its own, and a few names only
                    self._known[here.key] = part
                here.take(part)
                here.key = None
            ref = next(here.pieces, None)
            if ref is not None:
                key = (ref.id, here.states)
                known = self._known.get(key) if len(stack) > 1 else None
                if known is None:
                    here.open(key, reader.piece(ref))
                else:
                    here.take(known)
                continue
            stack.pop()
            if not stack:
                return tuple(here.parts)
            if here.parts:
                stack[-1].below.append((here.name, tuple(here.parts)))


class _Open:
    """A directory that is being searched, and the piece of it that is."""

    __slots__ = ("below", "entries", "key", "name", "own", "parts", "pieces", "states")

    def __init__(self, pieces: Iterator[ChunkRef], states: States, name: bytes = b"") -> None:
        self.pieces = pieces
        self.states = states
        self.name = name
        self.parts: list[Part] = []
        self.key: tuple[bytes, States] | None = None
        self.entries: Iterator[Entry] = iter(())
        self.own: list[tuple[bytes, Version]] = []
        self.below: list[tuple[bytes, Parts]] = []

    def open(self, key: tuple[bytes, States], entries: list[Entry]) -> None:
        """Begin with a piece."""
        self.key = key
        self.entries = iter(entries)
        self.own, self.below = [], []

    def close(self) -> Part:
        """Return what the piece held."""
        return Part(tuple(self.own), tuple(self.below)) if self.own or self.below else _NOTHING

    def take(self, part: Part) -> None:
        """Count a piece in."""
        if part is not _NOTHING:
            self.parts.append(part)


@dataclass(slots=True)
class Match:
    """An entry and the snapshots it is in: places of the first and the last one, and how many there are.

    ``version`` is that of the last one: what a directory holds, and with it its time, may change from one to the next.
    """

    path: TreePath
    version: Version
    first: int
    last: int = -1
    count: int = 0
    since: int = field(default=-1, repr=False)


class Matches:
    """Puts together what was found in one snapshot after the other; only what changed between two is looked at."""

    def __init__(self) -> None:
        self._matches: dict[tuple[TreePath, Version], Match] = {}
        self._latest: Parts = ()
        self._length = 0

    def add(self, parts: Parts) -> None:
        """Take what was found in the next snapshot.

        Raises:
            UsageError: there are more matches than can be held.
        """
        gone, come = _changes(self._latest, parts)
        for path, version in gone:
            self._end(self._matches[path, _same(version)])
        for path, version in come:
            key = (path, _same(version))
            match = self._matches.get(key)
            if match is None:
                if len(self._matches) >= MAX_MATCHES:
                    raise _too_many()
                match = self._matches[key] = Match(path, version, self._length)
            match.version = version
            match.since = self._length
        self._latest = parts
        self._length += 1

    def finish(self) -> list[Match]:
        """Return all matches by path, older ones first; nothing can be added any more."""
        for match in self._matches.values():
            if match.since >= 0:
                self._end(match)
        return sorted(self._matches.values(), key=lambda match: (match.path, match.first))

    def _end(self, match: Match) -> None:
        match.last = self._length - 1
        match.count += self._length - match.since
        match.since = -1


_Found = list[tuple[TreePath, Version]]


def _changes(old: Parts, new: Parts) -> tuple[_Found, _Found]:
    gone: _Found = []
    come: _Found = []
    stack: list[tuple[TreePath, Parts, Parts]] = [((), old, new)]
    while stack:
        at, before, after = stack.pop()
        shared = {id(part) for part in before} & {id(part) for part in after}
        before = tuple(part for part in before if id(part) not in shared)
        after = tuple(part for part in after if id(part) not in shared)
        own_before = {name: version for part in before for name, version in part.own}
        own_after = {name: version for part in after for name, version in part.own}
        gone += [((*at, name), one) for name, one in own_before.items() if own_after.get(name) != one]
        come += [((*at, name), one) for name, one in own_after.items() if own_before.get(name) != one]
        if max(len(gone), len(come)) > MAX_MATCHES:
            raise _too_many()
        below_before = {name: parts for part in before for name, parts in part.below}
        below_after = {name: parts for part in after for name, parts in part.below}
        stack += [
            ((*at, name), below_before.get(name, ()), below_after.get(name, ()))
            for name in below_before.keys() | below_after.keys()
        ]
    return gone, come


def _same(version: Version) -> Version:
    """Return what makes two versions one match: a directory stays the same when what it holds changes."""
    if version.kind != "dir":
        return version
    return msgspec.structs.replace(version, content=b"", mtime_ns=0)


def _too_many() -> UsageError:
    return UsageError(
        f"more than {MAX_MATCHES} entries match", hint="narrow it: a pattern, --dataset, --snapshot, --type or a size"
    )
