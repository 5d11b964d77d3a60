"""Reading trees: every name and number is checked, and what is shown to people cannot move their cursor."""

from typing import Any

import pytest

from replicator.errors import FormatError, IntegrityError, NotFoundError
from replicator.format.codec import encode
from replicator.format.pack import CHUNK_LIST, CHUNK_TREE
from replicator.format.snapshot import LIST_LIMIT, ChunkList, ChunkRef
from replicator.format.tree import PIECE_ENTRIES, Entry, Hole, ListPiece, TreePiece
from replicator.snapshot.chunklist import EMPTY
from replicator.snapshot.tree import MAX_TARGET, TreePath, TreeReader, check_entry, escape, is_name
from tests.snapshot.support import MemorySink, attribute, entry, file_entry, folder_of, hard_link

ONE_BYTE = ChunkList(depth=0, length=1, chunks=[ChunkRef(id=bytes(32), length=1)])


def raw_folder(sink: MemorySink, *pieces: list[Entry]) -> ChunkList:
    """Make a directory of exactly these pieces, allowed or not."""
    chunks = [sink.put(CHUNK_TREE, encode(TreePiece(entries=entries))) for entries in pieces]
    return ChunkList(depth=0, length=sum(ref.length for ref in chunks), chunks=chunks)


def small_tree(sink: MemorySink) -> ChunkList:
    inner = folder_of(sink, [file_entry(sink, b"x", b"1"), entry(b"y", "fifo")])
    middle = folder_of(sink, [entry(b"a", "dir", content=inner), entry(b"b", "dir"), entry(b"c", "link")])
    return folder_of(sink, [entry(b"a!"), entry(b"m", "dir", content=middle), entry(b"z")])


def paths_of(found: Any) -> list[bytes]:
    return [b"/".join(path) for path, _ in found]


@pytest.mark.parametrize("name", [b".", b"..", b"a/b", b"/", b"a\0b", b"../etc", b"\0"])
def test_a_name_that_is_not_one_component_is_refused(sink: MemorySink, name: bytes) -> None:
    assert not is_name(name)
    with pytest.raises(FormatError, match="not a name"):
        list(TreeReader(sink).entries(raw_folder(sink, [entry(name)])))


@pytest.mark.parametrize("name", [b"", b"n" * 256])
def test_a_name_of_no_or_too_many_bytes_is_refused(sink: MemorySink, name: bytes) -> None:
    assert not is_name(name)
    with pytest.raises(FormatError):
        list(TreeReader(sink).entries(raw_folder(sink, [entry(name)])))


@pytest.mark.parametrize("names", [[b"b", b"a"], [b"a", b"a"]])
def test_names_out_of_order_or_twice_are_refused_within_and_across_pieces(sink: MemorySink, names: list[bytes]) -> None:
    one, other = (entry(name) for name in names)
    for content in (raw_folder(sink, [one, other]), raw_folder(sink, [one], [other])):
        with pytest.raises(FormatError, match="comes after"):
            list(TreeReader(sink).entries(content))


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (entry(kind="file", content=None), "without content"),
        (entry(kind="dir", content=None), "without content"),
        (entry(kind="link", content=EMPTY), "with content"),
        (entry(kind="fifo", content=ONE_BYTE, size=1), "with content"),
        (entry(kind="file", size=1), "contradicts"),
        (entry(kind="file", size=2, content=ONE_BYTE), "contradicts"),
        (entry(kind="dir", size=1, content=ONE_BYTE), "contradicts"),
        (entry(kind="link", size=9), "contradicts"),
        (entry(kind="file", content=ChunkList(depth=0, length=1, chunks=[])), "0 chunks"),
        (entry(kind="link", target=b""), "proper target"),
        (entry(kind="link", target=b"a\0b"), "proper target"),
        (entry(kind="link", target=b"a" * (MAX_TARGET + 1)), "proper target"),
        (entry(kind="file", target=b"a"), "link's target"),
        (entry(kind="fifo", rdev=1), "device number"),
        (entry(kind="dir", link=hard_link()), "hard link to a directory"),
        (entry(size=1, content=ONE_BYTE, holes=[Hole(offset=0, length=0)]), "holes that"),
        (entry(size=1, content=ONE_BYTE, holes=[Hole(offset=0, length=2)]), "a hole behind"),
        (entry(size=1, content=ONE_BYTE, holes=[Hole(offset=0, length=1), Hole(offset=0, length=1)]), "holes that"),
        (entry(size=1, content=ONE_BYTE, holes=[Hole(offset=0, length=1), Hole(offset=1, length=1)]), "holes that"),
        (entry(kind="dir", holes=[Hole(offset=0, length=1)]), "a hole behind"),
        (entry(xattrs=[attribute(b"")]), "proper name"),
        (entry(xattrs=[attribute(b"a\0b")]), "proper name"),
        (entry(xattrs=[attribute(b"a" * 256)]), "proper name"),
        (entry(xattrs=[attribute(b"b"), attribute(b"a")]), "out of order"),
        (entry(xattrs=[attribute(b"a"), attribute(b"a")]), "out of order"),
        (entry(xattrs=[attribute(b"a", bytes(65537))]), "more than 65536"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(bad: Entry, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        check_entry(bad)


@pytest.mark.parametrize("kind", ["file", "dir", "link", "fifo", "char", "block"])
def test_a_plain_entry_of_every_kind_is_allowed(kind: Any) -> None:
    check_entry(entry(kind=kind))


@pytest.mark.parametrize(
    "entries", [[], [entry(b"%05d" % number) for number in range(PIECE_ENTRIES + 1)]], ids=["none", "too many"]
)
def test_a_piece_without_entries_or_with_too_many_is_refused(sink: MemorySink, entries: list[Entry]) -> None:
    with pytest.raises(FormatError, match="entries in one piece"):
        list(TreeReader(sink).entries(raw_folder(sink, entries)))


def test_a_walk_visits_everything_a_folder_before_its_content(sink: MemorySink) -> None:
    tree = small_tree(sink)
    everything = [b"a!", b"m", b"m/a", b"m/a/x", b"m/a/y", b"m/b", b"m/c", b"z"]
    assert paths_of(TreeReader(sink).walk(tree)) == everything
    assert paths_of(TreeReader(sink).walk(tree, at=(b"top",))) == [b"top/" + path for path in everything]


def test_a_walk_has_an_end_in_depth_and_number(sink: MemorySink) -> None:
    tree = small_tree(sink)
    reader = TreeReader(sink)
    assert len(list(reader.walk(tree, max_depth=3, max_entries=8))) == 8
    with pytest.raises(FormatError, match="deeper than 2"):
        list(reader.walk(tree, max_depth=2))
    with pytest.raises(FormatError, match="more than 7"):
        list(reader.walk(tree, max_entries=7))


def test_a_folder_that_holds_itself_ends_at_the_depth_limit(sink: MemorySink) -> None:
    # Hashes allow no cycle; a store that lies about what it was asked for makes one all the same.
    class Liar(MemorySink):
        def get(self, kind: int, ref: ChunkRef) -> bytes:
            return piece

    ref = ChunkRef(id=bytes(32), length=1)
    loop = entry(b"loop", "dir", content=ChunkList(depth=0, length=1, chunks=[ref]))
    piece = encode(TreePiece(entries=[loop]))
    with pytest.raises(FormatError, match="deeper than 4096"):
        list(TreeReader(Liar()).walk(ChunkList(depth=0, length=1, chunks=[ref])))


def test_a_path_is_found_in_large_folders_without_reading_all_of_them(sink: MemorySink) -> None:
    entries = [entry(b"%06d" % (2 * number)) for number in range(20_000)]
    tree = folder_of(sink, entries)

    class Counting(MemorySink):
        gets = 0

        def get(self, kind: int, ref: ChunkRef) -> bytes:
            self.gets += 1
            return sink.get(kind, ref)

    source = Counting()
    for wanted in (entries[0], entries[9999], entries[-1]):
        assert TreeReader(source).lookup(tree, (wanted.name,)) == wanted
    assert source.gets <= 3 * 8
    for absent in (b"", b"000001", b"019999", b"zzz"):
        with pytest.raises(NotFoundError):
            TreeReader(source).lookup(tree, (absent,))


@pytest.mark.parametrize(
    "path", [(), (b"q",), (b"m", b"q"), (b"z", b"x"), (b"m", b"c", b"x"), (b"m", b"a", b"x", b"y")]
)
def test_a_path_that_is_not_there_is_named(sink: MemorySink, path: TreePath) -> None:
    with pytest.raises(NotFoundError, match=b"/".join(path).decode() or "top"):
        TreeReader(sink).lookup(small_tree(sink), path)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([()], [b"a!", b"m", b"m/a", b"m/a/x", b"m/a/y", b"m/b", b"m/c", b"z"]),
        ([(b"m", b"a", b"y")], [b"m", b"m/a", b"m/a/y"]),
        ([(b"z",), (b"m", b"a"), (b"a!",)], [b"a!", b"m", b"m/a", b"m/a/x", b"m/a/y", b"z"]),
        ([(b"m", b"a", b"x"), (b"m", b"a"), (b"m", b"b")], [b"m", b"m/a", b"m/a/x", b"m/a/y", b"m/b"]),
        ([], []),
    ],
)
def test_a_selection_brings_parents_and_all_below_in_tree_order(
    sink: MemorySink, paths: list[TreePath], expected: list[bytes]
) -> None:
    assert paths_of(TreeReader(sink).select(small_tree(sink), paths)) == expected


def test_a_selection_with_an_unknown_path_yields_nothing(sink: MemorySink) -> None:
    found = TreeReader(sink).select(small_tree(sink), [(b"a!",), (b"nowhere",)])
    with pytest.raises(NotFoundError, match="nowhere"):
        next(found)


def test_what_a_source_refuses_is_passed_on(sink: MemorySink) -> None:
    class Broken(MemorySink):
        def get(self, kind: int, ref: ChunkRef) -> bytes:
            raise IntegrityError("damaged")

    with pytest.raises(IntegrityError):
        list(TreeReader(Broken()).walk(small_tree(sink)))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name", "plain name"),
        ("åäö 日本".encode(), "åäö 日本"),
        (b"a\nb\x1b[2J\x7f", "a\\x0ab\\x1b[2J\\x7f"),
        (b"\xff\xe5", "\\xff\\xe5"),
        (b"back\\slash", "back\\\\slash"),
        ("bidi\u202e".encode(), "bidi\\u202e"),
        ("c1\x9b".encode(), "c1\\u009b"),
        ("line\u2028".encode(), "line\\u2028"),
        ("tag\U000e0001".encode(), "tag\\U000e0001"),
    ],
)
def test_names_are_shown_without_anything_that_acts(name: bytes, shown: str) -> None:
    assert escape(name) == shown


def nested_folder(sink: MemorySink, names: list[bytes], *, fan: int) -> ChunkList:
    """Make a directory with one name in a piece, and lists of lists of so many entries."""
    refs = list(raw_folder(sink, *([entry(name)] for name in names)).chunks)
    length, depth = sum(ref.length for ref in refs), 0
    while len(refs) > fan:
        parts = [refs[at : at + fan] for at in range(0, len(refs), fan)]
        pieces = [sink.put(CHUNK_LIST, encode(ListPiece(chunks=part))) for part in parts]
        refs = [
            ChunkRef(id=piece.id, length=sum(ref.length for ref in part))
            for piece, part in zip(pieces, parts, strict=True)
        ]
        depth += 1
    return ChunkList(depth=depth, length=length, chunks=refs)


class Counting:
    """A source that counts what is read of it."""

    def __init__(self, sink: MemorySink) -> None:
        self.sink = sink
        self.count = 0

    def get(self, kind: int, ref: ChunkRef) -> bytes:
        self.count += 1
        return self.sink.get(kind, ref)


def test_a_name_is_looked_up_in_lists_of_lists(sink: MemorySink) -> None:
    names = [b"%03d" % number for number in range(100)]
    content = nested_folder(sink, names, fan=3)
    assert content.depth == 4
    reader = TreeReader(sink)
    for name in names:
        assert reader.lookup(content, [name]).name == name
        assert reader.get(content, [name + b"a"]) is None
    assert reader.get(content, [b"0"]) is None
    assert reader.get(content, [b"z"]) is None


def test_a_folder_that_claims_more_pieces_than_memory_holds_is_looked_up_in_a_few(sink: MemorySink) -> None:
    piece = sink.put(CHUNK_TREE, encode(TreePiece(entries=[entry(b"m")])))
    refs, length = [piece] * LIST_LIMIT, piece.length * LIST_LIMIT
    for _ in range(4):
        stored = sink.put(CHUNK_LIST, encode(ListPiece(chunks=refs)))
        refs, length = [ChunkRef(id=stored.id, length=length)] * LIST_LIMIT, length * LIST_LIMIT
    source = Counting(sink)
    content = ChunkList(depth=4, length=length, chunks=refs)
    for name, found in ((b"a", False), (b"m", True), (b"z", False)):
        assert (TreeReader(source).get(content, [name]) is not None) is found
    assert source.count < 1000
    with pytest.raises(FormatError, match="m comes after m"):
        list(TreeReader(source).entries(content))
