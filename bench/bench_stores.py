"""What a put and a get of an object cost in a folder, and in a bucket whose server is this process's own memory.

What a real server and the way to it cost comes on top; here is what this program does beside: the request for the size
after each put, the file that an object waits in, one copy of it.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from obstore.store import MemoryStore

from replicator.config import parse_bucket
from replicator.fs import PosixFs
from replicator.ids import ObjectName
from replicator.store.base import ObjectStore
from replicator.store.bucket import Anchored, BucketObjectStore
from replicator.store.folder import FolderObjectStore
from replicator.store.s3 import ObstoreBucket, open_s3
from tests import swift
from tests.fakes import SeededRng
from tests.store.contract import put

SIZES = {"64 KiB": 64 << 10, "16 MiB": 16 << 20}


@pytest.fixture(params=["folder", "bucket in memory", "bucket of Swift"])
def store(request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Each kind; Swift only where it is installed (`make swift`)."""
    if request.param == "folder":
        parts = {part: os.path.join(tmp_path, part) for part in ("incoming", "quarantine")}
        yield FolderObjectStore(PosixFs(), folder=os.path.join(tmp_path, "objects"), **parts)
        return
    if request.param == "bucket in memory":
        yield _in(ObstoreBucket(MemoryStore()), str(tmp_path))
        return
    programs = swift.programs()
    if programs is None:
        pytest.skip("Swift is not installed: `make swift`")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", swift.USER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", swift.KEY)
    with swift.serving(programs, tmp_path / "swift") as endpoint:
        yield _in(open_s3(parse_bucket("s3://attic/bench", endpoint=endpoint)), str(tmp_path))


def _in(bucket: ObstoreBucket, path: str) -> ObjectStore:
    bucket.put("bench/anchor", b"ours", fresh=True)
    anchored = Anchored(bucket, "bench/anchor", b"ours")
    return BucketObjectStore(anchored, "bench/", PosixFs(), os.path.join(path, "incoming"))


@pytest.mark.parametrize("size", SIZES)
def test_put(benchmark: Any, store: ObjectStore, size: str) -> None:
    """A new object each time."""
    rng = SeededRng("bench")
    benchmark.extra_info["bytes"] = SIZES[size]
    benchmark.pedantic(put, setup=lambda: ((store, rng.bytes(SIZES[size])), {}), rounds=20)


@pytest.mark.parametrize("size", SIZES)
def test_get(benchmark: Any, store: ObjectStore, size: str) -> None:
    """The same object again and again."""
    data = SeededRng("bench").bytes(SIZES[size])
    put(store, data)
    [(name, _)] = store.list()
    benchmark.extra_info["bytes"] = SIZES[size]
    assert benchmark.pedantic(store.read, args=(ObjectName(name),), rounds=20) == data
