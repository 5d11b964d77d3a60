"""What ready-made stores do with ten million chunk ids: one row for each, with the same seeded rows and queries.

    python bench/seen_options.py --entries 1000000,10000000 --folder /var/tmp/seen [--options sqlite,lmdb] [--json FILE]

Each option is built in one process and queried in another, so that the peak of resident memory is that of its
look-ups. Rows arrive as a backup makes them: in packs of random ids, 100,000 to a commit, sorted within it; the
options named ``-sorted`` get all rows in the order of their ids, which is what a bulk build or a merge can do. Queries
are sorted batches: hits are drawn from all over the build, misses are fresh. Each figure is the median of its
batches, and of rounds that query all options in turn. Rates are given for time on the wall, which others on the
machine share, and for time of this process on the CPU. Files are in the page cache, as after a build. Resident memory
is what opening and looking up add to the process at their peak (``/proc/self/clear_refs``, so Linux only); the
interpreter with numpy is 26 MiB.

Needs numpy; `lmdb` and `borghash` are left out of the table where they are not installed.
"""

import argparse
import gc
import json
import mmap
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import numpy.typing as npt

from chunker import ChunkId
from chunker.seen import DiskSeenIndex
from replicator.fs import PosixFs

SEED = 20261123
ARRIVAL = 100_000
BATCHES = 7
SIZES = (100_000, 500)
RECORD = 40  # id 32, object number u32, entry u32
WINDOW = 64  # records between two entries of the sparse index of a sorted file

Bytes = npt.NDArray[np.uint8]


def ids_of(batch: int) -> Bytes:
    """Return ARRIVAL random ids, the same for the same batch number."""
    return np.random.default_rng([SEED, batch]).integers(0, 256, (ARRIVAL, 32), dtype=np.uint8)


def rows_of(batch: int) -> Iterator[tuple[bytes, int, int]]:
    """Rows of one commit, sorted by id: object numbers rise with time, 64 entries to a pack."""
    raw = ids_of(batch).tobytes()
    rows = [(raw[32 * i : 32 * i + 32], (batch * ARRIVAL + i) // 64, i % 64) for i in range(ARRIVAL)]
    rows.sort()
    return iter(rows)


def sorted_records(entries: int) -> Bytes:
    """Return all rows as sorted records of RECORD bytes (400 MB for 10^7: only builders call it)."""
    records = np.empty((entries, RECORD), dtype=np.uint8)
    place = np.arange(entries, dtype=np.uint64)
    for batch in range(entries // ARRIVAL):
        records[batch * ARRIVAL : (batch + 1) * ARRIVAL, :32] = ids_of(batch)
    records[:, 32:36] = (place // 64).astype(">u4").view(np.uint8).reshape(-1, 4)
    records[:, 36:40] = (place % 64).astype(">u4").view(np.uint8).reshape(-1, 4)
    order = np.argsort(records[:, :8].copy().view(">u8").ravel().astype(np.uint64), kind="stable")
    return records[order]


def queries(entries: int, size: int) -> tuple[list[list[bytes]], list[list[bytes]]]:
    """Return batches of hits and of misses, each sorted."""
    arrivals = entries // ARRIVAL
    wanted = size * BATCHES
    each = -(-wanted // arrivals)
    rng = np.random.default_rng([SEED, 1, entries, size])
    drawn = np.concatenate([ids_of(b)[rng.choice(ARRIVAL, each, replace=False)] for b in range(arrivals)])
    rng.shuffle(drawn)
    fresh = rng.integers(0, 256, (wanted, 32), dtype=np.uint8)
    return _batches(drawn, size), _batches(fresh, size)


def _batches(rows: Bytes, size: int) -> list[list[bytes]]:
    return [sorted(bytes(row) for row in rows[b * size : (b + 1) * size]) for b in range(BATCHES)]


class Option(Protocol):
    """A store under test."""

    def build(self, folder: str, entries: int) -> None: ...
    def open(self, folder: str) -> None: ...
    def lookup(self, ids: Sequence[bytes]) -> Sequence[Any]: ...


class Sqlite:
    """WITHOUT ROWID, 64 MiB of cache, WAL, the 500 ids of an IN list; a commit for each arrival."""

    cache_kib = 65536

    def __init__(self, bulk: bool = False) -> None:
        self.bulk = bulk

    def build(self, folder: str, entries: int) -> None:
        self.open(folder)
        self.db.execute("CREATE TABLE chunks (id BLOB PRIMARY KEY, object_id INTEGER, entry INTEGER) WITHOUT ROWID")
        insert = "INSERT INTO chunks VALUES (?, ?, ?)"
        if self.bulk:
            raw = sorted_records(entries)
            for start in range(0, entries, ARRIVAL):
                part = raw[start : start + ARRIVAL]
                place = part[:, 32:].copy().view(">u4")
                self.db.executemany(
                    insert,
                    ((bytes(r[:32]), int(p[0]), int(p[1])) for r, p in zip(part, place, strict=True)),
                )
                self.db.commit()
        else:
            for batch in range(entries // ARRIVAL):
                self.db.executemany(insert, rows_of(batch))
                self.db.commit()
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()

    def open(self, folder: str) -> None:
        self.db = sqlite3.connect(os.path.join(folder, "seen.db"))
        self.db.execute("PRAGMA page_size=8192")
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.execute(f"PRAGMA cache_size=-{self.cache_kib}")
        self.db.execute("SELECT name FROM sqlite_master").fetchall()

    def lookup(self, ids: Sequence[bytes]) -> Sequence[Any]:
        found: dict[bytes, tuple[int, int]] = {}
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"SELECT id, object_id, entry FROM chunks WHERE id IN ({marks})"  # noqa: S608 - marks only
            for chunk, object_id, entry in self.db.execute(query, part):
                found[chunk] = (object_id, entry)
        return [found.get(chunk) for chunk in ids]


class SmallSqlite(Sqlite):
    """The same with 32 MiB of cache, which leaves room for the interpreter under 64 MiB."""

    cache_kib = 32768


class Lmdb:
    """LMDB; a transaction of sorted rows for each arrival, or appended in order in bulk."""

    def __init__(self, bulk: bool = False) -> None:
        self.bulk = bulk

    def build(self, folder: str, entries: int) -> None:
        self.open(folder)
        if self.bulk:
            raw = sorted_records(entries)
            for start in range(0, entries, ARRIVAL):
                with self.env.begin(write=True) as transaction:
                    for row in raw[start : start + ARRIVAL]:
                        record = row.tobytes()
                        transaction.put(record[:32], record[32:], append=True)
        else:
            for batch in range(entries // ARRIVAL):
                with self.env.begin(write=True) as transaction:
                    for chunk, number, entry in rows_of(batch):
                        transaction.put(chunk, number.to_bytes(4) + entry.to_bytes(4))
        self.env.close()

    def open(self, folder: str) -> None:
        import lmdb  # noqa: PLC0415 - an option may be missing

        self.env = lmdb.open(os.path.join(folder, "lmdb"), map_size=64 << 30, sync=True, readahead=False)

    def lookup(self, ids: Sequence[bytes]) -> Sequence[Any]:
        with self.env.begin() as transaction:
            found = [transaction.get(chunk) for chunk in ids]
        return [None if value is None else (int.from_bytes(value[:4]), int.from_bytes(value[4:])) for value in found]


class Borghash:
    """borghash 0.2: a hash table in memory, written to a file and read back whole."""

    Value: ClassVar[Any] = namedtuple("Value", ["number", "entry"])  # noqa: PYI024 - what its interface takes
    Formats: ClassVar[Any] = namedtuple("Formats", ["number", "entry"])  # noqa: PYI024 - likewise

    def build(self, folder: str, entries: int) -> None:
        from borghash import HashTableNT  # noqa: PLC0415 - an option may be missing

        formats = self.Formats("I", "I")
        table = HashTableNT(key_size=32, value_type=self.Value, value_format=formats)
        for batch in range(entries // ARRIVAL):
            for chunk, number, entry in rows_of(batch):
                table[chunk] = self.Value(number, entry)
        table.write(os.path.join(folder, "table"))

    def open(self, folder: str) -> None:
        from borghash import HashTableNT  # noqa: PLC0415 - an option may be missing

        self.table = HashTableNT.read(os.path.join(folder, "table"))

    def lookup(self, ids: Sequence[bytes]) -> Sequence[Any]:
        get = self.table.get
        return [get(chunk) for chunk in ids]


class SortedFile:
    """Sorted records in one file and a sparse index of 8-byte prefixes; searched by numpy. No checksums."""

    def __init__(self, mapped: bool) -> None:
        self.mapped = mapped

    def build(self, folder: str, entries: int) -> None:
        records = sorted_records(entries)
        records.tofile(os.path.join(folder, "records"))
        records[::WINDOW, :8].tofile(os.path.join(folder, "sparse"))

    def open(self, folder: str) -> None:
        sparse = np.fromfile(os.path.join(folder, "sparse"), dtype=">u8")
        self.sparse = sparse.astype(np.uint64)
        self.fd = os.open(os.path.join(folder, "records"), os.O_RDONLY)
        self.count = os.fstat(self.fd).st_size // RECORD
        if self.mapped:
            whole = mmap.mmap(self.fd, 0, prot=mmap.PROT_READ)
            self.records = np.frombuffer(whole, dtype=np.uint8).reshape(-1, RECORD)

    def lookup(self, ids: Sequence[bytes]) -> Sequence[Any]:
        answers: list[tuple[int, int] | None] = []
        for start in range(0, len(ids), 4096):
            answers += self._part(ids[start : start + 4096])
        return answers

    def _part(self, ids: Sequence[bytes]) -> list[tuple[int, int] | None]:
        wanted = np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 32)
        prefix = wanted[:, :8].copy().view(">u8").ravel().astype(np.uint64)
        window = np.maximum(np.searchsorted(self.sparse, prefix, side="right").astype(np.int64) - 1, 0)
        if self.mapped:
            low = window * WINDOW
            high = np.minimum(low + WINDOW, self.count)
            while True:
                active = low < high
                if not active.any():
                    break
                middle = (low + high) // 2
                at = np.minimum(middle, self.count - 1)
                less = self.records[at, :8].copy().view(">u8").ravel().astype(np.uint64) < prefix
                low = np.where(active & less, middle + 1, low)
                high = np.where(active & ~less, middle, high)
            rows = self.records[np.minimum(low, self.count - 1)]
        else:
            windows = np.unique(window)
            cut = np.flatnonzero(np.diff(windows) > 4) + 1
            parts, first = [], []
            for a, b in pairwise([0, *cut.tolist(), len(windows)]):
                begin, end = int(windows[a]) * WINDOW, min((int(windows[b - 1]) + 1) * WINDOW, self.count)
                parts.append(os.pread(self.fd, (end - begin) * RECORD, begin * RECORD))
                first.append(begin)
            loaded = np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, RECORD)
            prefixes = loaded[:, :8].copy().view(">u8").ravel().astype(np.uint64)
            rows = loaded[np.minimum(np.searchsorted(prefixes, prefix), len(loaded) - 1)]
        same = (rows[:, :32] == wanted).all(axis=1).tolist()
        places = rows[:, 32:].copy().view(">u4").tolist()
        return [(p[0], p[1]) if hit else None for hit, p in zip(same, places, strict=True)]


class Ours:
    """chunker.seen, through its public interface: a call for each pack, then a sync, as a backup does it."""

    owner = bytes(16)

    def build(self, folder: str, entries: int) -> None:
        self.open(folder)
        for batch in range(entries // ARRIVAL):
            raw = ids_of(batch).tobytes()
            for start in range(0, ARRIVAL, 64):
                ids = [ChunkId(raw[32 * i : 32 * i + 32]) for i in range(start, min(start + 64, ARRIVAL))]
                self.index.add((batch * ARRIVAL + start) // 64, ids)
            self.index.sync()
        self.index.close()

    def open(self, folder: str) -> None:
        self.index = DiskSeenIndex(folder, PosixFs(), owner=self.owner)

    def lookup(self, ids: Sequence[bytes]) -> Sequence[Any]:
        return self.index.lookup(cast("Sequence[ChunkId]", ids))


OPTIONS: dict[str, Callable[[], Option]] = {
    "sqlite": Sqlite,
    "sqlite-32MiB": SmallSqlite,
    "sqlite-sorted": lambda: Sqlite(bulk=True),
    "lmdb": Lmdb,
    "lmdb-sorted": lambda: Lmdb(bulk=True),
    "borghash": Borghash,
    "sorted-mmap": lambda: SortedFile(mapped=True),
    "sorted-pread": lambda: SortedFile(mapped=False),
    "chunker.seen": Ours,
}


def reset_peak() -> float:
    """Forget the peak of resident memory so far; return what is resident now, in MiB."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return peak_mib()


def peak_mib() -> float:
    """Return the peak of resident memory since the last reset, in MiB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def build(option: str, entries: int, folder: str) -> dict[str, Any]:
    """Build in this process and return what it cost."""
    before = reset_peak()
    start = time.perf_counter()
    OPTIONS[option]().build(folder, entries)
    seconds = time.perf_counter() - start
    size = sum(
        os.stat(os.path.join(base, name)).st_blocks * 512 for base, _, names in os.walk(folder) for name in names
    )
    return {
        "build_s": round(seconds, 1),
        "build_added_mib": round(peak_mib() - before, 1),
        "disk_bytes_per_entry": round(size / entries, 1),
    }


def query(option: str, entries: int, folder: str) -> dict[str, Any]:
    """Open and query in this process; resident memory is what this adds."""
    made = {size: queries(entries, size) for size in SIZES}
    gc.collect()
    gc.freeze()  # the queries are not the store's to walk through
    before = reset_peak()
    store = OPTIONS[option]()
    start = time.perf_counter()
    store.open(folder)
    result: dict[str, Any] = {"open_s": round(time.perf_counter() - start, 4)}
    for size, (hits, misses) in made.items():
        for kind, batches in (("hit", hits), ("miss", misses)):
            rates, cpu_rates = [], []
            for batch in batches:
                start, cpu_start = time.perf_counter(), time.process_time()
                answers = store.lookup(batch)
                rates.append(size / (time.perf_counter() - start))
                cpu_rates.append(size / (time.process_time() - cpu_start))
                wrong = sum((answer is None) == (kind == "hit") for answer in answers)
                del answers
                if wrong:
                    raise SystemExit(f"{option}: {wrong} of {size} answers are wrong")
            result[f"{kind}_per_s_{size}"] = round(statistics.median(rates))
            result[f"{kind}_per_cpu_s_{size}"] = round(statistics.median(cpu_rates))
    result["added_mib"] = round(peak_mib() - before, 1)
    return result


def phase_of(name: str, option: str, entries: int, folder: str) -> dict[str, Any]:
    """Run one phase in a process of its own; return what it prints, or why it failed."""
    command = [sys.executable, __file__, "--phase", name, "--options", option]
    command += ["--entries", str(entries), "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compare(entries: int, options: list[str], parent: str, rounds: int) -> list[dict[str, Any]]:
    """Build each option once, then query all of them in turn, round after round; return medians of the rounds."""
    folders = {option: tempfile.mkdtemp(prefix="seen-", dir=parent) for option in options}
    try:
        rows: dict[str, dict[str, Any]] = {}
        for option, folder in folders.items():
            rows[option] = {"option": option, "entries": entries} | phase_of("build", option, entries, folder)
        measured: dict[str, list[dict[str, Any]]] = {option: [] for option in options}
        for _ in range(rounds):
            for option, folder in folders.items():
                if "failed" not in rows[option]:
                    measured[option].append({"load": os.getloadavg()[0]} | phase_of("query", option, entries, folder))
        for option, results in measured.items():
            failures = [result["failed"] for result in results if "failed" in result]
            if failures:
                rows[option]["failed"] = failures[0]
            elif results:
                rows[option] |= {
                    key: round(statistics.median(result[key] for result in results), 4) for key in results[0]
                }
            print(json.dumps(rows[option]), flush=True)
        return list(rows.values())
    finally:
        for folder in folders.values():
            shutil.rmtree(folder)


def main() -> None:
    """Compare the options at each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", default="1000000,10000000")
    parser.add_argument("--options", default=",".join(OPTIONS))
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--phase", choices=["build", "query"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        phase = build if arguments.phase == "build" else query
        print(json.dumps(phase(arguments.options, int(arguments.entries), arguments.folder)))
        return
    rows = []
    for entries in map(int, arguments.entries.split(",")):
        rows += compare(entries, arguments.options.split(","), arguments.folder, arguments.rounds)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
