"""A folder of a million names: in bounded memory, in pieces, and known the next time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = 1_000_000
PROGRAM = """
import resource, sys
from tests.snapshot.support import MemorySink, captured
from replicator.snapshot.statcache import StatCache, StatCacheWriter
from replicator.fs import PosixFs
from replicator.format.pack import CHUNK_TREE
import time

top, cache = sys.argv[1], sys.argv[2]
sink = MemorySink()
trees = []
for _ in range(2):
    old = StatCache.open(cache, bytes(32))
    new = StatCacheWriter(cache + ".new", bytes(32), now_ns=time.time_ns() + 10**10)
    found = captured(sink, top, cache=old, record=new)
    new.commit_as(cache, PosixFs())
    old.close()
    trees.append(found.tree)
    print(found.counts.files, found.counts.unchanged, sink.puts[CHUNK_TREE])
assert trees[0] == trees[1]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_of_a_million_names(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    folder = os.open(top, os.O_RDONLY)
    for number in range(COUNT):
        os.close(os.open(f"{number:07}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=folder))
    os.close(folder)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(top), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    first, second, peak = result.stdout.splitlines()
    files, unchanged, pieces = map(int, first.split())
    assert (files, unchanged) == (COUNT, 0)
    assert COUNT / 4096 <= pieces <= COUNT / 128
    assert second == f"{COUNT} {COUNT} {pieces}", "nothing of it is written again"
    assert int(peak) < 1000, "the sink of the test holds every piece: 200 bytes a name"
