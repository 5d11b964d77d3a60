"""Reading a snapshot's tree: every name and number is checked before anyone acts on it."""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.codec import decode
from replicator.format.pack import CHUNK_TREE
from replicator.format.sizes import MAX_CHUNK
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import PIECE_ENTRIES, Entry, TreePiece
from replicator.snapshot.chunklist import check_list, leaves, list_piece
from replicator.snapshot.sink import ChunkSource

MAX_NAME = 255
MAX_TARGET = 4096
MAX_XATTR_NAME = 255
MAX_XATTR_VALUE = 64 << 10
MAX_DEPTH = 4096
"""Folders inside folders; deeper trees are neither captured nor restored."""
MAX_ENTRIES = 1 << 32
"""Entries in one walk."""

Lost = Callable[["TreePath", ReplicatorError], None]
"""Told which directory could not be read, and why."""
TreePath = tuple[bytes, ...]
"""Names from the top of the tree down; there is no path string that could be traversed."""


class TreeReader:
    """Reads directories and finds paths in a tree of chunks."""

    def __init__(self, source: ChunkSource) -> None:
        self._source = source

    def pieces(self, content: ChunkList) -> Iterator[ChunkRef]:
        """Yield the pieces of a directory in order; none of them is read."""
        return leaves(content, self._source)

    def entries(self, content: ChunkList, *, without: Collection[bytes] = (), after: bytes = b"") -> Iterator[Entry]:
        """Yield the entries of a directory in strictly rising byte order of names, all of them ``after`` one.

        Pieces whose ids are in ``without`` are left out, and not read.

        Raises:
            FormatError: an entry is not what the specification allows, or out of order.
        """
        last = after
        for ref in self.pieces(content):
            if ref.id in without:
                continue
            for entry in self.piece(ref):
                if entry.name <= last:
                    raise FormatError(f"directory: {escape(entry.name)} comes after {escape(last)}")
                last = entry.name
                yield entry

    def lookup(self, tree: ChunkList, path: Sequence[bytes]) -> Entry:
        """Return the entry at ``path`` below ``tree``; a large directory is searched, not read.

        Raises:
            NotFoundError: there is none.
            FormatError: as :meth:`entries`.
        """
        if not path:
            raise NotFoundError("the top of a snapshot has no entry of its own")
        entry = self.get(tree, path)
        if entry is None:
            raise NotFoundError(
                f"no such path in this snapshot: {escape(b'/'.join(path))}",
                hint="`replicator ls SNAPSHOT FOLDER` shows what there is, `find` looks through all snapshots",
            )
        return entry

    def get(self, tree: ChunkList, path: Sequence[bytes]) -> Entry | None:
        """Return what :meth:`lookup` does, None if the tree has no such path: so that a chunk nobody has is no absence.

        Raises:
            FormatError: as :meth:`entries`.
        """
        folder: ChunkList | None = tree
        entry: Entry | None = None
        for name in path:
            entry = None if folder is None else self._find(folder, name)
            if entry is None:
                return None
            folder = entry.content if entry.kind == "dir" else None
        return entry

    def walk(
        self,
        tree: ChunkList,
        *,
        at: TreePath = (),
        max_depth: int = MAX_DEPTH,
        max_entries: int = MAX_ENTRIES,
        lost: Lost | None = None,
        after: bytes = b"",
    ) -> Iterator[tuple[TreePath, Entry]]:
        """Yield (path, entry) of everything below ``tree``, a directory before what it holds.

        ``at`` is the path of ``tree`` itself and comes before each path; in it names are ``after`` one.
        With ``lost`` a directory that cannot be read, or not to its end, is told and the rest goes on.

        Raises:
            FormatError: as :meth:`entries`, or deeper or larger than allowed.
        """
        stack: list[tuple[TreePath, Iterator[Entry]]] = [(at, self.entries(tree, after=after))]
        count = 0
        while stack:
            path, entries = stack[-1]
            try:
                entry = next(entries, None)
            except (NotFoundError, IntegrityError, FormatError) as error:
                if lost is None:
                    raise
                lost(path, error)
                entry = None
            if entry is None:
                stack.pop()
                continue
            count += 1
            if count > max_entries:
                raise FormatError(f"tree: more than {max_entries} entries")
            here = (*path, entry.name)
            yield here, entry
            if entry.kind == "dir" and entry.content is not None and entry.content.chunks:
                if len(here) >= max_depth:
                    raise FormatError(f"tree: deeper than {max_depth} folders")
                stack.append((here, self.entries(entry.content)))

    def select(
        self, tree: ChunkList, paths: Iterable[TreePath], *, lost: Lost | None = None
    ) -> Iterator[tuple[TreePath, Entry]]:
        """Yield what restoring ``paths`` needs in tree order: their parents and everything below them.

        ``lost`` as in :meth:`walk`.

        Raises:
            NotFoundError: one of them is not in the tree; nothing was yielded yet.
            FormatError: as :meth:`walk`.
        """
        wanted = sorted(set(paths))
        if () in wanted:
            yield from self.walk(tree, lost=lost)
            return
        found = {path[:end]: self.lookup(tree, path[:end]) for path in wanted for end in range(1, len(path) + 1)}
        chosen = set(wanted)
        for path in sorted(found):
            if any(path[:end] in chosen for end in range(1, len(path))):
                continue  # below a chosen folder, so it comes with that
            entry = found[path]
            yield path, entry
            if path in chosen and entry.kind == "dir" and entry.content is not None:
                yield from self.walk(entry.content, at=path, lost=lost)

    def _find(self, folder: ChunkList, name: bytes) -> Entry | None:
        # A list at a time: all pieces of a folder together may be more than there is memory for.
        check_list(folder)
        refs: Sequence[ChunkRef] = folder.chunks
        for depth in range(folder.depth, -1, -1):
            low, high = 0, len(refs)  # the last one that begins with this name or before it is at low - 1
            while low < high:
                middle = (low + high) // 2
                if name < self._first_name(refs[middle], depth):
                    high = middle
                else:
                    low = middle + 1
            if low == 0:
                return None
            if depth:
                refs = list_piece(refs[low - 1], depth, self._source)
        return next((entry for entry in self.piece(refs[low - 1]) if entry.name == name), None)

    def _first_name(self, ref: ChunkRef, depth: int) -> bytes:
        for below in range(depth, 0, -1):
            ref = list_piece(ref, below, self._source)[0]
        return self.piece(ref)[0].name

    def piece(self, ref: ChunkRef) -> list[Entry]:
        """Return the entries of one piece; their order is the business of who puts pieces together.

        Raises:
            FormatError: an entry is not what the specification allows, or there are none or too many.
        """
        return checked_entries(self._source.get(CHUNK_TREE, ref))


def checked_entries(data: bytes) -> list[Entry]:
    """Return the entries in a piece of a directory.

    Raises:
        FormatError: as :meth:`TreeReader.piece`.
    """
    entries = decode(TreePiece, data, limit=MAX_CHUNK).entries
    if not 1 <= len(entries) <= PIECE_ENTRIES:
        raise FormatError(f"directory: {len(entries)} entries in one piece, 1 to {PIECE_ENTRIES} are allowed")
    for entry in entries:
        if not _is_plain(entry):
            check_entry(entry)
    return entries


def _is_plain(entry: Entry) -> bool:
    """Return whether an entry is what most are, a file of one chunk and nothing else, for which that is no problem."""
    content, name = entry.content, entry.name
    return (
        entry.kind == "file"
        and content is not None
        and content.depth == 0
        and len(content.chunks) == 1
        and 0 < content.chunks[0].length == content.length == entry.size <= MAX_CHUNK
        and not (entry.target or entry.rdev or entry.xattrs or entry.holes)
        and is_name(name)
    )


def is_name(name: bytes) -> bool:
    """Return whether this is one component of a path and nothing more."""
    return 0 < len(name) <= MAX_NAME and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def check_entry(entry: Entry) -> None:
    """Check that an entry's fields are allowed and agree with its kind.

    Raises:
        FormatError: names the entry and what is wrong.
    """
    problem = _problem(entry)
    if problem:
        raise FormatError(f"directory entry {escape(entry.name)}: {problem}")


def _problem(entry: Entry) -> str:
    if not is_name(entry.name):
        return "not a name"
    if entry.kind in ("file", "dir"):
        if entry.content is None:
            return f"a {entry.kind} without content"
        check_list(entry.content)
    elif entry.content is not None:
        return f"a {entry.kind} with content"
    if entry.size != (entry.content.length if entry.content is not None and entry.kind == "file" else 0):
        return f"a size of {entry.size}, which its content contradicts"
    if entry.kind == "link":
        if not 0 < len(entry.target) <= MAX_TARGET or b"\0" in entry.target:
            return "a symbolic link without a proper target"
    elif entry.target:
        return f"a {entry.kind} with a link's target"
    if entry.rdev and entry.kind not in ("char", "block"):
        return f"a {entry.kind} with a device number"
    if entry.kind == "dir" and entry.link is not None:
        return "a hard link to a directory"
    return (entry.holes and _hole_problem(entry)) or (entry.xattrs and _xattr_problem(entry)) or ""


def _hole_problem(entry: Entry) -> str:
    end = 0
    for place, hole in enumerate(entry.holes):
        if hole.length == 0 or hole.offset < end or (place and hole.offset == end):
            return "holes that are empty, touch or overlap"
        end = hole.offset + hole.length
    return "a hole behind its end" if end > entry.size else ""


def _xattr_problem(entry: Entry) -> str:
    last = b""
    for attribute in entry.xattrs:
        if not 0 < len(attribute.name) <= MAX_XATTR_NAME or b"\0" in attribute.name:
            return "an attribute without a proper name"
        if attribute.name <= last:
            return "attributes out of order"
        if len(attribute.value) > MAX_XATTR_VALUE:
            return f"an attribute of more than {MAX_XATTR_VALUE} bytes"
        last = attribute.name
    return ""


def escape(name: bytes) -> str:
    r"""Return a name or path for people: control, format and undecodable bytes as ``\xNN`` or ``\uNNNN``."""
    return "".join(map(_shown, name.decode("utf-8", "surrogateescape")))


def _shown(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    # Other, and line or paragraph separators: what moves a cursor, reorders text or is not there to be seen.
    if unicodedata.category(character)[0] != "C" and unicodedata.category(character) not in ("Zl", "Zp"):
        return character
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
