"""Files read by processes beside the walk: the same result as on one thread, and an end in every case."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chunker import Chunker
from replicator.engine import readers as module
from replicator.engine.frames import Setup, from_reader
from replicator.engine.mail import failure_of, framed
from replicator.engine.readers import Readers, _Reader
from replicator.engine.reading import SMALL_FILE
from replicator.engine.spool import Spool
from replicator.errors import ReplicatorError, SpaceError
from replicator.format.keybag import IndexKey, WriterDomain
from replicator.format.pack import CHUNK_DATA
from replicator.format.snapshot import ChunkRef
from replicator.fs import PosixFs
from replicator.ids import ObjectName
from replicator.snapshot.capture import Captured, capture
from replicator.snapshot.walk import PosixSource
from tests.pack.support import KEYS, POLICY, contents
from tests.snapshot import nasty

SIZES = (4096, 16384, 65536)


DOMAIN = WriterDomain(
    id=KEYS.domain,
    name="home",
    restore_key=KEYS.restore_key,
    mix=KEYS.mix,
    id_key=KEYS.id_key,
    cut_key=KEYS.cut_key,
    index_keys=[IndexKey(epoch=1, key=KEYS.index_keys[1])],
)
CHUNKER = Chunker(KEYS.cut_key, *SIZES)


class Store:
    """Remembers what was wanted and sealed; chunks count as new once."""

    def __init__(self, spool: Spool) -> None:
        self.hashers = KEYS.hashers()
        self.spool = spool
        self.wanted_ids: set[bytes] = set()
        self.sealed_ids: set[bytes] = set()
        self.named: set[bytes] = set()
        self.packs: list[ObjectName] = []
        self.delay = 0.0

    def put(self, kind: int, data: bytes | memoryview) -> ChunkRef:
        chunk = self.hashers[kind](data)
        if kind == CHUNK_DATA:
            self.named.add(chunk)
        return ChunkRef(id=chunk, length=len(data))

    def known(self, chunks: Sequence[ChunkRef]) -> bool:
        raise AssertionError(f"{len(chunks)} chunks, and no cache that knows any")

    def wanted(self, ids: bytes, lengths: tuple[int, ...]) -> bytes:
        time.sleep(self.delay)
        answer = bytearray()
        for at in range(0, len(ids), 32):
            chunk = ids[at : at + 32]
            answer.append(chunk not in self.wanted_ids)
            self.wanted_ids.add(chunk)
        assert len(answer) == len(lengths)
        return bytes(answer)

    def sealed(self, name: bytes, size: int, ids: bytes, shards: bytes = b"") -> None:
        self.spool.came(size)
        self.packs.append(ObjectName(name))
        new = {ids[at : at + 32] for at in range(0, len(ids), 32)}
        assert not new & self.sealed_ids, "a chunk is stored once"
        self.sealed_ids |= new


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "spool").mkdir()
    return Store(Spool(str(tmp_path / "spool"), PosixFs(), 1 << 40))


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "top").mkdir()
    return tmp_path / "top"


def setup_of(store: Store, threads: int) -> Setup:
    return Setup(tenant=KEYS.tenant, domain=DOMAIN, policy=POLICY, sizes=SIZES, spool=store.spool.path, threads=threads)


def readers(store: Store, count: int = 2) -> Readers:
    return Readers(setup_of(store, count), store, count)


def parallel(store: Store, top: Path, count: int = 2, **options: Any) -> Captured:
    with readers(store, count) as pool:
        found = capture([str(top)], sink=store, source=PosixSource(), chunker=CHUNKER, reader=pool.attach, **options)
        pool.finish()
    assert running(os.getpid()) == []
    return found


def inline(top: Path, spool: Spool) -> tuple[Captured, set[bytes]]:
    store = Store(spool)
    found = capture([str(top)], sink=store, source=PosixSource(), chunker=CHUNKER)
    return found, store.named


def running(parent: int) -> list[int]:
    """Return the processes that a process has started and not waited for."""
    with open(f"/proc/self/task/{parent}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def plain(store: Store) -> dict[bytes, bytes]:
    """Open all packs in the spool."""
    found: dict[bytes, bytes] = {}
    for name in store.packs:
        found |= contents(store.spool.get(name))
    return found


def fill(top: Path) -> None:
    """Make a tree of small, large, equal, empty and sparse files."""
    rng = random.Random(7)
    nasty.build(top)
    for number in range(700):
        folder = top / "many" / str(number % 40)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {number}").write_bytes(rng.randbytes(rng.randrange(3000)) * rng.randrange(1, 5))
    same = rng.randbytes(300_000)
    for number in range(20):
        (top / f"same {number}").write_bytes(same)
    for number, size in enumerate((SMALL_FILE - 1, SMALL_FILE, SMALL_FILE + 1, 20 << 20, 9 << 20, 33 << 20)):
        (top / f"large {number}").write_bytes(rng.randbytes(size // 2) + bytes(size - size // 2))


@pytest.mark.process
@pytest.mark.parametrize(("count", "delay"), [(1, 0.0), (3, 0.0), (2, 0.002)])
def test_processes_find_what_one_thread_finds(store: Store, top: Path, count: int, delay: float) -> None:
    fill(top)
    store.delay = delay
    expected, named = inline(top, store.spool)
    found = parallel(store, top, count)
    assert found.tree == expected.tree
    assert found.counts == expected.counts
    assert (found.gaps, found.skipped) == (expected.gaps, expected.skipped)
    assert store.sealed_ids == store.wanted_ids == named
    chunks = plain(store)
    assert chunks.keys() == named
    assert all(store.hashers[CHUNK_DATA](data) == chunk for chunk, data in chunks.items())


@pytest.mark.process
def test_nothing_is_started_for_nothing(store: Store, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Readers, "_start", lambda _self: pytest.fail("a process for no file"))
    (top / "folder").mkdir()
    os.symlink("x", top / "link")
    assert parallel(store, top).counts.others == 1


@pytest.mark.process
def test_a_tebibyte_of_nothing_takes_seconds_and_one_chunk(store: Store, top: Path) -> None:
    size = SIZES[2] << 20  # 64 GiB in as many of these short chunks as 1 TiB has of the usual ones
    with open(top / "sparse", "wb") as file:
        file.truncate(size)
    found = parallel(store, top)
    assert found.counts.bytes == size
    assert found.counts.bytes_read == 0
    assert len(store.wanted_ids) == 1
    assert found.tree == inline(top, store.spool)[0].tree


def altered(store: Store, top: Path, before: Callable[[bytes], None]) -> Captured:
    """Capture with one reader; ``before`` is told each file's name after the walk saw it and before it is read."""

    class Altering(Readers):
        def read(self, event: Any, done: Callable[[Any], None]) -> None:
            before(event.name)
            super().read(event, done)

    with Altering(setup_of(store, 1), store, 1) as pool:
        found = capture([str(top)], sink=store, source=PosixSource(), chunker=CHUNKER, reader=pool.attach)
        pool.finish()
    return found


@pytest.mark.process
def test_a_file_that_cannot_be_read_is_a_gap_and_the_rest_is_there(store: Store, top: Path) -> None:
    for number in range(10):
        (top / f"{number}").write_bytes(b"x" * number * 1000)
    (top / "gone").write_bytes(b"gone")

    def before(name: bytes) -> None:
        if name == b"gone":
            os.unlink(top / "gone")
        if name == b"7":
            os.unlink(top / "7")
            os.mkdir(top / "7")

    found = altered(store, top, before)
    assert sorted(os.path.basename(gap.path) for gap in found.gaps) == [b"7", b"gone"]
    assert found.counts.files == 9


@pytest.mark.process
def test_a_file_that_grows_beyond_what_is_read_beside_others_is_read_by_itself(store: Store, top: Path) -> None:
    for name in ("a", "b", "c"):
        (top / name).write_bytes(name.encode() * 5000)

    def before(name: bytes) -> None:
        if name == b"b":
            (top / "b").write_bytes(b"b" * (SMALL_FILE + 5))

    found = altered(store, top, before)
    assert found.counts.bytes == SMALL_FILE + 5 + 2 * 5000
    assert found.tree == inline(top, store.spool)[0].tree


@contextmanager
def ending(seconds: float = 20) -> Iterator[None]:
    """Insist that it takes no longer, and leaves no process and no descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds
    assert running(os.getpid()) == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.process
@pytest.mark.parametrize("after", [0, 300])
def test_a_reader_that_is_killed_ends_the_capture_with_a_clear_error(store: Store, top: Path, after: int) -> None:
    fill(top)
    told = 0

    def progress(_counts: object, _path: bytes) -> None:
        nonlocal told
        told += 1
        if told >= after:
            for pid in running(os.getpid()):
                os.kill(pid, signal.SIGKILL)

    with ending(), pytest.raises(ReplicatorError, match="a reading process was ended by signal 9"):
        parallel(store, top, progress=progress)


@pytest.mark.process
@pytest.mark.parametrize("at", [1, 200, 600])
def test_an_error_on_the_walking_side_ends_the_readers(store: Store, top: Path, at: int) -> None:
    fill(top)
    told = 0

    def progress(_counts: object, _path: bytes) -> None:
        nonlocal told
        told += 1
        if told == at:
            raise KeyboardInterrupt

    with ending(), pytest.raises(KeyboardInterrupt):
        parallel(store, top, progress=progress)


@pytest.mark.process
def test_an_error_of_a_reader_keeps_its_kind_and_words(
    store: Store, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(top)
    (Path(store.spool.path) / "incoming").rmdir()
    (Path(store.spool.path) / "incoming").write_bytes(b"in the way")
    with ending(), pytest.raises(ReplicatorError, match=r"incoming"):
        parallel(store, top)


@pytest.mark.process
def test_a_full_spool_ends_the_readers(store: Store, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(top)

    def full(ids: bytes, lengths: tuple[int, ...]) -> bytes:
        raise SpaceError(f"no room for {len(ids)}, {len(lengths)}")

    monkeypatch.setattr(store, "wanted", full)
    with ending(), pytest.raises(SpaceError, match="no room"):
        parallel(store, top)


@pytest.mark.process
def test_keys_are_in_no_argument_and_no_environment_of_a_reader(store: Store, top: Path) -> None:
    (top / "file").write_bytes(b"content")
    seen: list[bytes] = []

    def progress(_counts: object, _path: bytes) -> None:
        for pid in running(os.getpid()):
            for what in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{what}", "rb") as file:
                    seen.append(file.read())

    with readers(store) as pool:
        capture([str(top)], sink=store, source=PosixSource(), chunker=CHUNKER, reader=pool.attach, progress=progress)
        progress(None, b"")
        pool.finish()
    assert seen
    for secret in (KEYS.id_key, KEYS.cut_key, KEYS.mix, *KEYS.index_keys.values()):
        assert not any(secret in text or secret.hex().encode() in text for text in seen)


@pytest.mark.process
def test_batches_bound_what_is_under_way(store: Store, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(top)
    most = 0
    send = Readers._send_batch

    def watched(self: Readers, weight: int = 1) -> None:
        nonlocal most
        send(self, weight)
        most = max(most, *(reader.load for reader in self._readers), 0)

    monkeypatch.setattr(Readers, "_send_batch", watched)
    parallel(store, top)
    assert 0 < most < 2 * module.BATCHES


@pytest.mark.process
@pytest.mark.parametrize("said", [SpaceError("spool: No space left on device", hint="free some space"), None])
def test_what_a_reader_said_last_is_the_error_also_if_it_was_not_listened_to(
    store: Store, top: Path, monkeypatch: pytest.MonkeyPatch, said: SpaceError | None
) -> None:
    """The disk filled up while the walk was sending the next batch: what it meets is a closed socket."""
    (top / "file").write_bytes(b"content")

    def failing(pool: Readers) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            if said is not None:
                theirs.sendall(framed(failure_of(said)))
        pool._readers.append(_Reader(subprocess.Popen(["true"]), ours, from_reader, "a reading process", "run again"))

    monkeypatch.setattr(Readers, "_start", failing)
    with ending(), pytest.raises(ReplicatorError) as raised:
        parallel(store, top)
    if said is None:
        assert "a reading process ended with exit code 0" in raised.value.message
    else:
        assert (type(raised.value), raised.value.message, raised.value.hint) == (SpaceError, said.message, said.hint)
