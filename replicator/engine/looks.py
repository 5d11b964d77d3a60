"""A walk through a tree that leaves out what lies in a restore's target as it should: several processes look.

Each is given parts of the tree in its order, comes back after some thousand entries, and names what it did not come to;
that is parts again. What they found is put together in the order of the tree.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from replicator.engine.browse import ChunkFetcher
from replicator.engine.writers import Writers
from replicator.errors import FormatError, IntegrityError, NotFoundError
from replicator.format.pack import CHUNK_TREE
from replicator.format.snapshot import ChunkList
from replicator.format.tree import Entry
from replicator.snapshot.looking import Enter, Leave, Looked, Need, Part, Rest
from replicator.snapshot.tree import Lost, TreePath, TreeReader

ENTRIES: Final = 2_000
"""Entries that a process looks at before it tells what it has found: some 20 ms."""
MOST_PARTS: Final = 64
MOST_BYTES: Final = 1 << 20
"""Of pieces of directories in one task, about."""
OFTEN: Final = 16
"""Pieces of one pack that are handed over one by one, before all of it is, in the place of another."""
AHEAD: Final = 10_000
"""What was found is not looked for further ahead than so many things."""

Skipped = Callable[[int, int, int], None]
"""Told of so many folders and files, with so many bytes, that are as they should be."""


@dataclass(slots=True, eq=False)
class _Todo:
    """A part, and what was found of it; None until it was looked at."""

    part: Part
    plain: bool = False
    found: "list[Enter | Leave | Need | _Todo] | None" = None

    def __lt__(self, other: "_Todo") -> bool:
        return self.place < other.place

    @property
    def place(self) -> list[tuple[bytes, bool]]:
        """Where it begins, in the order of the tree: what is in a folder comes before what follows on it."""
        place = [(name, False) for name in self.part.path]
        return [*place, (self.part.after, True)] if self.part.after else place


class Looks:
    """One walk. For the thread that also lets the writers' answers in."""

    def __init__(self, fetcher: ChunkFetcher, writers: Writers, skipped: Skipped) -> None:  # type: ignore[type-arg]
        """Look with writers that were started for it."""
        self._fetcher = fetcher
        self._writers = writers
        self._skipped = skipped
        self._reader = TreeReader(fetcher)
        self._waiting: list[_Todo] = []
        self._missed: Counter[int] = Counter()
        self._held = 1
        self._folders: list[Entry] = []
        self._told = 0
        """Of these folders, those that were yielded."""

    def walk(self, tree: ChunkList, *, lost: Lost) -> Iterator[tuple[TreePath, Entry] | None]:
        """Yield what a walk through a tree does (:meth:`TreeReader.walk`), but for what needs nothing.

        None is yielded as often as answers have to be let in first.

        Raises:
            ReplicatorError: a writer cannot go on.
        """
        first = _Todo(Part([], tree))
        self._waiting.append(first)
        stack: list[Iterator[Enter | Leave | Need | _Todo]] = [iter([first])]
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
                continue
            self._held -= 1
            if isinstance(item, _Todo):
                self._give_out(item)
                while item.found is None and not item.plain:
                    yield None
                    self._give_out(item)
                if item.found is None:
                    yield from self._tell()
                    part = item.part
                    yield from self._reader.walk(part.content, at=tuple(part.path), lost=lost, after=part.after)
                else:
                    stack.append(iter(item.found))
                    item.found = None
            else:
                yield from self._take(item)

    def _take(self, item: Enter | Leave | Need) -> Iterator[tuple[TreePath, Entry]]:
        if isinstance(item, Need):
            yield from self._tell()
            yield (*(folder.name for folder in self._folders), item.entry.name), item.entry
        elif isinstance(item, Enter):
            self._folders.append(item.entry)
            if item.needed:
                yield from self._tell()
        else:
            if self._told < len(self._folders):
                self._skipped(1, 0, 0)
            self._folders.pop()
            self._told = min(self._told, len(self._folders))

    def _tell(self) -> Iterator[tuple[TreePath, Entry]]:
        """Yield the folders that something is in."""
        while self._told < len(self._folders):
            self._told += 1
            path = tuple(folder.name for folder in self._folders[: self._told])
            yield path, self._folders[self._told - 1]

    # -- giving out, in the order of the tree --

    def _give_out(self, needed: _Todo | None = None) -> None:
        """Let be looked at what comes next; ``needed`` in any case, as soon as that can be."""
        while self._waiting and self._writers.can_look:
            if self._held >= AHEAD and self._waiting[0] is not needed:
                return
            most = min(MOST_PARTS, 1 + len(self._waiting) // self._writers.share)
            parts: list[Part] = []
            todos: list[_Todo] = []
            size = 0
            while self._waiting and len(todos) < most and size < MOST_BYTES:
                todo = heapq.heappop(self._waiting)
                try:
                    piece = self._piece(todo.part.content)
                except (NotFoundError, IntegrityError, FormatError):
                    todo.plain = True
                    continue
                size += len(piece)
                todos.append(todo)
                parts.append(msgspec.structs.replace(todo.part, piece=piece))
            if todos:
                self._writers.look(parts, ENTRIES, partial(self._saw, todos))

    def _piece(self, content: ChunkList) -> bytes:
        """Return what a part begins with, nothing if those who look have the pack that it is in.

        Raises:
            NotFoundError, IntegrityError, FormatError: it cannot be had, and may be tried again.
        """
        trees = self._writers.trees
        assert trees is not None, "they were started to look"
        if content.depth or not content.chunks:
            raise NotFoundError("not one of the pieces that parts begin with")
        first = content.chunks[0]
        [pack] = self._fetcher.place([first.id])
        if trees.of(pack) is not None:
            return b""
        self._missed[pack] += 1
        # A tree that changed over months lies in many packs, of which each holds a little.
        if not (trees.has_empty or (trees.has_room and self._missed[pack] > OFTEN)):
            return self._fetcher.get(CHUNK_TREE, first)
        data = self._fetcher.begin(pack).result()
        slot = trees.take()
        trees.filled(slot, pack, trees.put(slot.number, data))
        slot.uses -= 1
        del self._missed[pack]
        return b""

    def _saw(self, todos: list[_Todo], found: list[Looked]) -> None:
        for todo, looked in zip(todos, found, strict=True):
            self._skipped(looked.folders, looked.files, looked.bytes)
            todo.found = self._placed(todo, looked)
            self._held += len(todo.found)
        self._give_out()

    def _placed(self, todo: _Todo, looked: Looked) -> "list[Enter | Leave | Need | _Todo]":
        """Return what was found with a todo for each part that was not looked at."""
        path = list(todo.part.path)
        found: list[Enter | Leave | Need | _Todo] = []
        for item in looked.items:
            if isinstance(item, Rest):
                rest = _Todo(Part(list(path), item.content, item.after), plain=item.plain)
                if not item.plain:
                    heapq.heappush(self._waiting, rest)
                found.append(rest)
            else:
                found.append(item)
                if isinstance(item, Enter):
                    path.append(item.entry.name)
                elif isinstance(item, Leave):
                    path.pop()
        return found
