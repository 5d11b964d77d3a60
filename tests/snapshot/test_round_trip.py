"""What was captured comes back as it was: kinds, bytes, modes, owners, times, attributes, links, holes."""

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.snapshot.metadata import GUARDED, OWNER, SETID
from replicator.snapshot.walk import SKIPPED_SOCKET
from tests.compare import Rules, compare
from tests.snapshot import nasty
from tests.snapshot.support import IS_ROOT, MemorySink, as_nobody, captured, open_fds, restored


def test_a_nasty_tree_comes_back_whole(sink: MemorySink, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    nasty.build(source)
    before = open_fds()
    found = captured(sink, source)
    assert [(gap.path, gap.reason) for gap in found.skipped] == [(os.fsencode(source / "socket"), SKIPPED_SOCKET)]
    if IS_ROOT:
        assert found.gaps == []
    applied = restored(sink, found.tree, tmp_path / "target")
    assert open_fds() == before
    if IS_ROOT:
        assert applied.gaps == []
    os.unlink(source / "socket")
    if not IS_ROOT:
        nasty.take_privileges(source)
    assert compare(tmp_path / "source", tmp_path / "target" / "source", Rules(holes=True)) == []


def test_the_order_of_writes_does_not_matter(sink: MemorySink, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    nasty.build(source)
    os.unlink(source / "socket")
    found = captured(sink, source)

    def shuffled(writes: list[Any]) -> list[Any]:
        random.Random(3).shuffle(writes)
        return writes

    restored(sink, found.tree, tmp_path / "target", order=shuffled, open_files=3)
    if not IS_ROOT:
        nasty.take_privileges(source)
    assert compare(source, tmp_path / "target" / "source") == []


def test_a_second_capture_of_a_restored_tree_is_the_same_tree(sink: MemorySink, tmp_path: Path) -> None:
    source = tmp_path / "a" / "top"
    source.mkdir(parents=True)
    for name in ("x", "y"):
        (source / name).write_bytes(name.encode() * 30_000)
    first = captured(sink, source)
    restored(sink, first.tree, tmp_path / "b")
    data = {key for key in sink.chunks if key[0] == 1}
    second = captured(sink, tmp_path / "b" / "top")
    assert {key for key in sink.chunks if key[0] == 1} == data
    assert second.counts == first.counts


def test_without_rights_all_but_the_forbidden_comes_back_and_the_rest_is_named(
    sink: MemorySink, tmp_path: Path, open_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    missing = nasty.build(source)
    os.unlink(source / "socket")
    found = captured(sink, source)
    with as_nobody():
        applied = restored(sink, found.tree, open_path / "target", privileged=False)
    if IS_ROOT and "devices" not in missing:
        assert {gap.path for gap in applied.unset.named if "device" in gap.reason} == {b"source/null", b"source/disk"}
        os.unlink(source / "null")
        os.unlink(source / "disk")
    if IS_ROOT:
        assert applied.unset.by_reason[OWNER] > 10
        if "security.capability" not in missing:
            assert applied.unset.by_reason[GUARDED] == 2
    setid = {gap.path for gap in applied.unset.named if gap.reason == SETID}
    assert setid >= {b"source/mode 4755", b"source/mode 6711"}
    assert applied.gaps == []
    nasty.take_privileges(source)
    assert compare(source, open_path / "target" / "source", Rules(owners=False)) == []


def test_a_users_own_files_come_back_without_rights_and_without_gaps(sink: MemorySink, open_path: Path) -> None:
    with as_nobody():
        source = open_path / "source"
        source.mkdir()
        (source / "read-only").mkdir()
        (source / "read-only" / "file").write_bytes(b"x" * 5000)
        os.symlink("file", source / "read-only" / "link")
        os.chmod(source / "read-only", 0o500)
        found = captured(sink, source)
        applied = restored(sink, found.tree, open_path / "target", privileged=False)
        assert (applied.gaps, applied.unset.total) == ([], 0)
        assert compare(source, open_path / "target" / "source") == []
        for place in (source, open_path / "target" / "source"):
            os.chmod(place / "read-only", 0o700)


NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))
FILES = st.tuples(
    st.sampled_from([0, 1, 1000, 1024, 1025, 20_000, 140_000]),
    st.integers(0, 3),
    st.sampled_from([0o600, 0o644, 0o755]),
)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(FILES, st.binary(min_size=1, max_size=30).filter(lambda target: 0 not in target)),
    lambda inner: st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


def _make(path: bytes, tree: Any) -> None:
    match tree:
        case dict():
            os.mkdir(path)
            for name, inner in tree.items():
                _make(path + b"/" + name, inner)
        case bytes():
            os.symlink(tree, path)
        case (size, seed, mode):
            with open(path, "wb") as file:
                file.write(random.Random(seed).randbytes(size))
            os.chmod(path, mode)
            os.utime(path, ns=(0, size * 1_000_000_007 + seed))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=st.dictionaries(NAMES, TREES, max_size=5))
def test_any_small_tree_comes_back(tree: dict[bytes, Any]) -> None:
    top = tempfile.mkdtemp(prefix="replicator-test-").encode()
    try:
        _make(top + b"/source", tree)
        sink = MemorySink()
        found = captured(sink, top + b"/source")
        assert found.gaps == []
        applied = restored(sink, found.tree, os.fsdecode(top) + "/target")
        assert applied.gaps == []
        assert compare(top + b"/source", top + b"/target/source") == []
    finally:
        shutil.rmtree(top)


@pytest.mark.skipif(not IS_ROOT, reason="root reads everything")
def test_what_cannot_be_read_is_named_and_the_rest_is_there(sink: MemorySink, open_path: Path) -> None:
    with as_nobody():
        source = open_path / "source"
        source.mkdir()
        (source / "closed").write_bytes(b"secret")
        os.chmod(source / "closed", 0)
        (source / "shut").mkdir()
        (source / "shut" / "in it").write_bytes(b"")
        os.chmod(source / "shut", 0)
        (source / "open").write_bytes(b"public")
        found = captured(sink, source)
    assert [(gap.path, gap.reason) for gap in found.gaps] == [
        (os.fsencode(source / "closed"), "Permission denied"),
        (os.fsencode(source / "shut"), "Permission denied"),
    ]
    restored(sink, found.tree, open_path / "target")
    assert sorted(os.listdir(open_path / "target" / "source")) == ["open", "shut"]
