"""Searching many trees: what is found, how often it is told, and what is not read twice."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from replicator.errors import FormatError, UsageError
from replicator.format.codec import encode
from replicator.format.pack import CHUNK_TREE
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import Entry, TreePiece
from replicator.snapshot import search as module
from replicator.snapshot.glob import Glob
from replicator.snapshot.search import Criteria, Match, Matches, Searcher
from replicator.snapshot.tree import TreePath, TreeReader
from tests.snapshot.support import MemorySink, entry, file_entry, folder_of

NS = 1_000_000_000


class Counting(MemorySink):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.gets = 0

    def get(self, kind: int, ref: ChunkRef) -> bytes:
        self.gets += 1
        return super().get(kind, ref)


def folder(name: bytes, content: ChunkList, **changes: Any) -> Entry:
    return entry(name, "dir", content=content, **changes)


def found(sink: MemorySink, pattern: str, *trees: ChunkList, aliases: Any = None, **options: Any) -> list[Match]:
    searcher = Searcher(Criteria(pattern=Glob.parse(pattern), **options))
    matches = Matches()
    for tree in trees:
        matches.add(searcher.search(TreeReader(sink), tree, aliases or {}))
    return matches.finish()


def paths(matches: Iterable[Match]) -> list[str]:
    return [b"/".join(one.path).decode() for one in matches]


def spans(matches: Iterable[Match]) -> list[tuple[str, int, int, int]]:
    return [(b"/".join(one.path).decode(), one.first, one.last, one.count) for one in matches]


def library(sink: MemorySink, *extra: Entry) -> ChunkList:
    year = folder_of(sink, [file_entry(sink, b"a.jpg", b"aaaa"), file_entry(sink, b"b.txt", b"b"), *extra])
    photos = folder_of(sink, [folder(b"2026", year), entry(b"index.jpg", "link")])
    return folder_of(sink, [folder(b"photos", photos), file_entry(sink, b"z.jpg", b"z" * 100)])


def test_names_are_found_at_any_depth_in_order_of_paths(sink: MemorySink) -> None:
    tree = library(sink)
    assert paths(found(sink, "*.jpg", tree)) == ["photos/2026/a.jpg", "photos/index.jpg", "z.jpg"]
    assert paths(found(sink, "*", tree)) == [
        *("photos", "photos/2026", "photos/2026/a.jpg", "photos/2026/b.txt", "photos/index.jpg", "z.jpg")
    ]
    assert paths(found(sink, "photos/*", tree)) == ["photos/2026", "photos/index.jpg"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kinds": ("file",)}, ["photos/2026/a.jpg", "photos/2026/b.txt", "z.jpg"]),
        ({"kinds": ("dir",)}, ["photos", "photos/2026"]),
        ({"kinds": ("link",)}, ["photos/index.jpg"]),
        ({"larger": 4}, ["z.jpg"]),
        ({"larger": 3, "smaller": 100}, ["photos/2026/a.jpg"]),
        ({"smaller": 4}, ["photos/2026/b.txt"]),
        ({"smaller": 4, "kinds": ("link",)}, []),
    ],
)
def test_kinds_and_sizes_narrow_it(sink: MemorySink, options: dict[str, Any], expected: list[str]) -> None:
    assert paths(found(sink, "*", library(sink), **options)) == expected


def test_times_narrow_it_the_moment_itself_is_newer(sink: MemorySink) -> None:
    tree = folder_of(sink, [entry(b"%d" % second, mtime_ns=second * NS) for second in (1, 2, 3)])
    assert paths(found(sink, "*", tree, newer_ns=2 * NS)) == ["2", "3"]
    assert paths(found(sink, "*", tree, older_ns=2 * NS)) == ["1"]
    assert paths(found(sink, "*", tree, newer_ns=2 * NS, older_ns=3 * NS)) == ["2"]


def test_what_stayed_the_same_is_told_once(sink: MemorySink) -> None:
    first = library(sink)
    second = library(sink, file_entry(sink, b"c.jpg", b"new"))
    assert spans(found(sink, "*.jpg", first, second, second, first)) == [
        ("photos/2026/a.jpg", 0, 3, 4),
        ("photos/2026/c.jpg", 1, 2, 2),
        ("photos/index.jpg", 0, 3, 4),
        ("z.jpg", 0, 3, 4),
    ]


def test_versions_are_told_apart_and_one_that_comes_back_is_the_same(sink: MemorySink) -> None:
    one, other, none = (
        folder_of(sink, [file_entry(sink, b"a", b"one")]),
        folder_of(sink, [file_entry(sink, b"a", b"other")]),
        folder_of(sink, []),
    )
    matches = found(sink, "a", one, one, other, none, one)
    assert spans(matches) == [("a", 0, 4, 3), ("a", 2, 2, 1)]
    assert [match.version.size for match in matches] == [3, 5]


def test_a_folder_is_the_same_while_only_what_it_holds_changes(sink: MemorySink) -> None:
    trees = [
        folder_of(sink, [folder(b"d", folder_of(sink, [entry(name)]), mtime_ns=when, mode=mode)])
        for name, when, mode in ((b"x", 1, 0o755), (b"y", 2, 0o755), (b"y", 2, 0o700))
    ]
    matches = found(sink, "d", *trees)
    assert spans(matches) == [("d", 0, 1, 2), ("d", 2, 2, 1)]
    assert matches[0].version.mtime_ns == 2


def test_unchanged_folders_and_unchanged_pieces_of_large_ones_are_read_once() -> None:
    sink = Counting()
    names = [file_entry(sink, b"%06d" % number, b"x") for number in range(20_000)]
    still = folder_of(sink, [folder(b"deep", folder_of(sink, names[:9]))])

    def tree(*extra: Entry) -> ChunkList:
        large = folder_of(sink, sorted([*names, *extra], key=lambda one: one.name))
        return folder_of(sink, [folder(b"large", large), folder(b"still", still)])

    first, second = tree(), tree(entry(b"010000.new"))
    searcher = Searcher(Criteria(pattern=Glob.parse("*.new")))
    matches = Matches()
    read = []
    for one in (first, second, first, second):
        before = sink.gets
        matches.add(searcher.search(TreeReader(sink), one, {}))
        read.append(sink.gets - before)
    assert read[0] > 30
    assert read[1] <= 3, "the top and the piece that changed, which may have become two"
    assert read[2:] == [1, 1]
    assert spans(matches.finish()) == [("large/010000.new", 1, 3, 2)]


def test_equal_folders_in_two_places_are_read_once_and_found_in_both() -> None:
    sink = Counting()
    inner = folder_of(sink, [file_entry(sink, b"a", b"x")])
    tree = folder_of(sink, [folder(b"one", inner), folder(b"two", inner)])
    before = sink.gets
    assert paths(found(sink, "a", tree)) == ["one/a", "two/a"]
    assert sink.gets - before == 2
    assert paths(found(sink, "/two/*", tree)) == ["two/a"]


def test_equal_folders_are_searched_apart_where_the_pattern_has_come_another_way(sink: MemorySink) -> None:
    inner = folder_of(sink, [file_entry(sink, b"x", b"x")])
    tree = folder_of(sink, [folder(b"a", inner), folder(b"one", inner), folder(b"two", inner)])
    assert paths(found(sink, "one/**/x", tree)) == ["one/x"]


def test_folders_in_which_nothing_can_match_are_not_read() -> None:
    sink = Counting()
    other = folder_of(sink, [entry(b"%03d" % number) for number in range(10)])
    tree = folder_of(sink, [folder(b"a", other), folder(b"b", other)])
    assert paths(found(sink, "/c/*", tree)) == []
    assert sink.gets == 1


def test_a_pattern_may_mean_the_path_on_the_machine(sink: MemorySink) -> None:
    tree = library(sink)
    aliases = {b"photos": (b"srv", b"media", b"photos")}
    for pattern in ("/srv/media/photos/2026/*.jpg", "media/photos/**/a.jpg", "/photos/2026/a.*", "/srv/**/a.jpg"):
        assert paths(found(sink, pattern, tree, aliases=aliases)) == ["photos/2026/a.jpg"]
    assert paths(found(sink, "/srv/media/z.jpg", tree, aliases=aliases)) == []


def test_a_root_that_moved_is_searched_as_what_it_is_in_each_snapshot(sink: MemorySink) -> None:
    tree = library(sink)
    searcher = Searcher(Criteria(pattern=Glob.parse("/new/photos/2026/*")))
    reader = TreeReader(sink)
    assert searcher.search(reader, tree, {b"photos": (b"old", b"photos")}) == ()
    assert searcher.search(reader, tree, {b"photos": (b"new", b"photos")}) != ()
    assert searcher.search(reader, tree, {b"photos": (b"old", b"photos")}) == ()


def test_a_top_folder_is_not_taken_for_an_equal_one_below(sink: MemorySink) -> None:
    tree = folder_of(sink, [folder(b"photos", folder_of(sink, [entry(b"x")]))])
    outer = folder_of(sink, [folder(b"box", tree)])
    inside: dict[bytes, TreePath] = {b"photos": (b"old", b"photos")}
    outside: dict[bytes, TreePath] = {b"box": (b"box",)}
    order = [(tree, inside), (outer, outside)]
    for trees in (order, order[::-1]):
        searcher = Searcher(Criteria(pattern=Glob.parse("old/photos/x")))
        for one, names in trees:
            assert bool(searcher.search(TreeReader(sink), one, names)) == (one is tree)


def test_every_order_of_trees_is_told_as_looking_at_each_would(sink: MemorySink) -> None:
    """The short way, by what changed, against the long one."""
    inner = [
        folder_of(sink, [file_entry(sink, name, data) for name, data in sorted(files.items())])
        for files in ({}, {b"a": b"1"}, {b"a": b"2", b"b": b"1"})
    ]
    trees = [
        folder_of(sink, [folder(b"d", one), *([folder(b"e", other)] if other.chunks else [])])
        for one, other in itertools.product(inner, inner)
    ]
    for order in itertools.product(range(len(trees)), repeat=3):
        chosen = [trees[place] for place in order]
        expected: dict[tuple[str, int], list[int]] = {}
        for place, tree in enumerate(chosen):
            for path, one in TreeReader(sink).walk(tree):
                if one.kind == "file":
                    expected.setdefault((b"/".join(path).decode(), hash(one.content.chunks[0].id)), []).append(place)  # type: ignore[union-attr]
        told = sorted((path, places[0], places[-1], len(places)) for (path, _), places in expected.items())
        assert sorted(spans(found(sink, "*", *chosen, kinds=("file",)))) == told


def test_a_tree_that_never_ends_is_given_up(sink: MemorySink) -> None:
    class Liar(MemorySink):
        def get(self, kind: int, ref: ChunkRef) -> bytes:
            self.asked = getattr(self, "asked", 0) + 1
            inner = ChunkList(depth=0, length=1, chunks=[ChunkRef(id=self.asked.to_bytes(32, "big"), length=1)])
            return encode(TreePiece(entries=[folder(b"loop", inner)]))

    top = ChunkList(depth=0, length=1, chunks=[ChunkRef(id=bytes(32), length=1)])
    with pytest.raises(FormatError, match="deeper than 4096"):
        Searcher(Criteria(pattern=Glob.parse("x"))).search(TreeReader(Liar()), top, {})


def test_a_tree_with_more_names_than_can_be_held_is_given_up(sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MATCHES", 1000)
    tree = folder_of(sink, [entry(b"a"), entry(b"b")])
    for _ in range(40):  # 2^40 names in 40 pieces
        tree = folder_of(sink, [folder(b"a", tree), folder(b"b", tree)])
    with pytest.raises(UsageError, match="more than 1000"):
        found(sink, "*", tree)
    assert found(sink, "nothing", tree) == []


def test_pieces_are_checked(sink: MemorySink) -> None:
    bad = sink.put(CHUNK_TREE, encode(TreePiece(entries=[entry(b"a/b")])))
    with pytest.raises(FormatError, match="not a name"):
        found(sink, "*", ChunkList(depth=0, length=bad.length, chunks=[bad]))
