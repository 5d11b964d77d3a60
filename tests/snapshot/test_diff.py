"""Differences between trees: what is told, and what is not read."""

from pathlib import Path
from typing import Any

import pytest

from replicator.errors import FormatError
from replicator.format.codec import encode
from replicator.format.pack import CHUNK_TREE
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import Entry, TreePiece
from replicator.snapshot.diff import Change, Summary, compare, top_pairs
from replicator.snapshot.tree import TreeReader
from tests.snapshot.support import MemorySink, captured, entry, file_entry, folder_of
from tests.snapshot.test_search import Counting, folder


def changes(sink: MemorySink, old: ChunkList, new: ChunkList) -> list[Change]:
    reader = TreeReader(sink)
    return list(compare(reader, top_pairs(reader, old, new)))


def told(found: list[Change]) -> list[tuple[str, str]]:
    return [(one.what, b"/".join(one.path).decode()) for one in found]


def summary(found: list[Change]) -> Summary:
    result = Summary()
    for one in found:
        result.count(one)
    return result


def of(sink: MemorySink, **files: Any) -> ChunkList:
    """Make a folder: bytes are files, chunk lists are folders, entries are what they are."""
    entries = []
    for name, value in sorted(files.items()):
        if isinstance(value, Entry):
            entries.append(value)
        elif isinstance(value, ChunkList):
            entries.append(folder(name.encode(), value))
        else:
            entries.append(file_entry(sink, name.encode(), value))
    return folder_of(sink, entries)


def test_equal_trees_do_not_differ_and_are_not_read() -> None:
    sink = Counting()
    tree = of(sink, a=b"1", d=of(sink, b=b"2"))
    assert changes(sink, tree, tree) == []
    assert sink.gets == 0


def test_of_equal_folders_not_even_the_list_of_pieces_is_read(sink: MemorySink) -> None:
    nowhere = ChunkList(depth=1, length=5000, chunks=[ChunkRef(id=bytes(32), length=5000)])
    old, new = (folder_of(sink, [folder(b"d", nowhere), file_entry(sink, b"f", data)]) for data in (b"1", b"2"))
    assert told(changes(sink, old, new)) == [("content", "f")]


def test_what_came_went_and_changed_is_told_in_order_of_names(sink: MemorySink) -> None:
    old = of(sink, a=b"1", b=b"12", c=b"123", d=of(sink, x=b"1", y=b"2"), e=b"e")
    new = of(sink, a=b"1", b=b"21 ", bb=b"12345", d=of(sink, y=b"2", z=b"3"), e=b"e")
    found = changes(sink, old, new)
    assert told(found) == [
        ("content", "b"),
        ("added", "bb"),
        ("removed", "c"),
        ("removed", "d/x"),
        ("added", "d/z"),
    ]
    assert summary(found) == Summary(added=2, removed=2, content=1, bytes_added=3 + 5 + 1, bytes_removed=2 + 3 + 1)
    assert told(changes(sink, new, old)) == [
        ("content", "b"),
        ("removed", "bb"),
        ("added", "c"),
        ("added", "d/x"),
        ("removed", "d/z"),
    ]


def test_a_folder_that_came_or_went_is_told_with_all_in_it(sink: MemorySink) -> None:
    with_folder = of(sink, d=of(sink, e=of(sink, x=b"12"), f=b"1"), z=b"z")
    without = of(sink, z=b"z")
    names = ["d", "d/e", "d/e/x", "d/f"]
    assert told(changes(sink, without, with_folder)) == [("added", name) for name in names]
    assert told(changes(sink, with_folder, without)) == [("removed", name) for name in names]
    assert summary(changes(sink, with_folder, without)) == Summary(removed=4, bytes_removed=3)


def test_another_kind_is_told_as_such_with_what_came_or_went_below(sink: MemorySink) -> None:
    one = of(sink, a=b"file", b=of(sink, x=b"1"), c=entry(b"c", "link"))
    other = of(sink, a=of(sink, y=b"2"), b=b"file", c=entry(b"c", "fifo"))
    found = changes(sink, one, other)
    assert told(found) == [("type", "a"), ("added", "a/y"), ("type", "b"), ("removed", "b/x"), ("type", "c")]
    assert summary(found) == Summary(added=1, removed=1, type=3, bytes_added=5, bytes_removed=5)


def test_metadata_alone_is_told_apart_and_counts_no_bytes(sink: MemorySink) -> None:
    def tree(data: bytes, **changed: Any) -> ChunkList:
        return folder_of(sink, [file_entry(sink, b"a", data, **changed)])

    [one] = changes(sink, tree(b"1"), tree(b"1", mode=0o600, mtime_ns=5))
    assert (one.what, one.aspects) == ("metadata", ("mode", "mtime"))
    assert summary([one]) == Summary(metadata=1)
    [one] = changes(sink, tree(b"1"), tree(b"2", mtime_ns=5))
    assert (one.what, one.aspects) == ("content", ("content", "mtime"))
    assert changes(sink, tree(b"1"), tree(b"1", ctime_ns=5)) == []


def test_a_folders_own_metadata_is_told_its_time_only_without_other_reason(sink: MemorySink) -> None:
    def tree(name: bytes, **changed: Any) -> ChunkList:
        return folder_of(sink, [folder(b"d", folder_of(sink, [entry(name)]), **changed)])

    assert told(changes(sink, tree(b"a"), tree(b"a", mtime_ns=1))) == [("metadata", "d")]
    assert told(changes(sink, tree(b"a"), tree(b"b", mtime_ns=1))) == [("removed", "d/a"), ("added", "d/b")]
    assert told(changes(sink, tree(b"a"), tree(b"b", mode=0))) == [
        ("metadata", "d"),
        ("removed", "d/a"),
        ("added", "d/b"),
    ]


def test_of_a_large_folder_only_the_pieces_that_changed_are_read() -> None:
    sink = Counting()
    names = [file_entry(sink, b"%06d" % number, b"x") for number in range(20_000)]
    changed = [*names[:9000], file_entry(sink, names[9000].name, b"other"), *names[9002:]]
    old, new = folder_of(sink, names), folder_of(sink, changed)
    assert told(changes(sink, old, new)) == [("content", "009000"), ("removed", "009001")]
    assert sink.gets <= 4
    assert len(old.chunks) > 30


def test_equal_entries_in_pieces_that_were_cut_elsewhere_do_not_differ(sink: MemorySink) -> None:
    entries = [entry(b"%d" % number) for number in range(9)]

    def cut(at: int) -> ChunkList:
        chunks = [sink.put(CHUNK_TREE, encode(TreePiece(entries=part))) for part in (entries[:at], entries[at:])]
        return ChunkList(depth=0, length=sum(ref.length for ref in chunks), chunks=chunks)

    assert changes(sink, cut(2), cut(7)) == []
    assert changes(sink, cut(3), folder_of(sink, entries)) == []


def test_a_single_pair_is_compared_with_what_is_below_it(sink: MemorySink) -> None:
    reader = TreeReader(sink)
    old, new = (folder(b"d", of(sink, x=data), mode=mode) for data, mode in ((b"1", 0o755), (b"2", 0o700)))
    path = (b"top", b"d")
    assert told(list(compare(reader, [(path, old, new)]))) == [("metadata", "top/d"), ("content", "top/d/x")]
    assert told(list(compare(reader, [(path, None, new)]))) == [("added", "top/d"), ("added", "top/d/x")]


def test_a_tree_that_never_ends_is_given_up() -> None:
    class Liar(MemorySink):
        def get(self, kind: int, ref: ChunkRef) -> bytes:
            return piece

    loop = ChunkList(depth=0, length=1, chunks=[ChunkRef(id=bytes(32), length=1)])
    piece = encode(TreePiece(entries=[folder(b"loop", loop)]))
    with pytest.raises(FormatError, match="deeper than 4096"):
        changes(Liar(), folder_of(MemorySink(), []), loop)


def test_two_captures_of_one_folder_differ_in_what_was_done_between(sink: MemorySink, tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "kept" / "deep").mkdir(parents=True)
    for name in ("kept/deep/one", "kept/two", "gone", "moved", "mode"):
        (top / name).write_text(name)
    before = captured(sink, top)
    (top / "gone").unlink()
    (top / "moved").rename(top / "kept" / "moved")
    (top / "mode").chmod(0o400)
    (top / "kept" / "two").write_text("two and more")
    (top / "link").symlink_to("kept")
    after = captured(sink, top)
    assert sorted(told(changes(sink, before.tree, after.tree))) == [
        ("added", "top/kept/moved"),
        ("added", "top/link"),
        ("content", "top/kept/two"),
        ("metadata", "top/mode"),
        ("removed", "top/gone"),
        ("removed", "top/moved"),
    ]
    assert changes(sink, after.tree, captured(sink, top).tree) == []
