"""The seen-index on disk: chunk id -> object number and entry, in bounded memory whatever its size.

New rows go to a table in memory and to a journal; when the table is full it becomes a run
(:mod:`chunker.seen.run`), merged with the newest runs so that sizes stay geometric. A manifest names the runs; it is
replaced after what it names is durable, and what it no longer names is removed after that. So each step leaves the
old index or the new one, and a journal that is cut short costs its last rows.

The index is a cache, and each doubt is resolved towards a miss: a row that fails its check is not found, a manifest
or fence table that fails its check is refused (SeenIndexError), and rows of forgotten objects are dead from the
moment that :meth:`DiskSeenIndex.forget` returns.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final, Self

import numpy as np

from chunker.dedup import Location
from chunker.errors import ParameterError
from chunker.identity import ID_BYTES, ChunkId
from chunker.seen.errors import SeenIndexError
from chunker.seen.files import Files
from chunker.seen.journal import SALT_BYTES, JournalWriter, is_journal, read_journal
from chunker.seen.manifest import IDENTITY_BYTES, Forgotten, Manifest, RunEntry, decode_manifest, encode_manifest
from chunker.seen.rows import (
    MAX_NUMBER,
    Rows,
    Source,
    entries,
    join_ids,
    merged,
    newest,
    object_numbers,
    pack_place,
    words_of,
    words_of_one,
)
from chunker.seen.run import Run, write_run

TABLE_ROWS: Final = 65_536  # about 10 MiB of a dict
RATIO: Final = 4  # a run is at least so many times its successor: at 10^7 rows four runs, at 4 * 10^7 five
MAX_JOURNALS: Final = 8
MAX_FORGOTTEN: Final = 65_536  # 1 MiB of manifest; beyond it all runs are merged
_JOURNAL_BYTES: Final = 2 * ID_BYTES  # for each row of a table: ids that come again fill a journal, not the table
_PART: Final = 16384  # ids of a batch looked up at a time
_FEW: Final = 16  # below this, one by one is faster than numpy's fixed costs (measured)
_location = partial(tuple.__new__, Location)  # half the time of Location(...), which is half of a batch of hits
_MANIFEST: Final = "manifest"
_NEW_MANIFEST: Final = "manifest.new"


class DiskSeenIndex:
    """An index in a folder of its own; made if it is not there. Threads may share it; one process may write.

    `owner` is 16 bytes for what gives the object numbers their meaning (a catalog, since when): an index of another
    owner is refused, because its locations would be wrong. For the same reason `add` an object after its number is
    durable in the owner's books, and `forget` it before they drop it.

    A reader (`writable=False`) sees the index as it was when opened, and changes nothing.

    Raises:
        SeenIndexError: what lies in the folder cannot be trusted; see :func:`rebuild`.
    """

    def __init__(
        self,
        folder: str,
        files: Files,
        *,
        owner: bytes,
        writable: bool = True,
        table_rows: int = TABLE_ROWS,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if len(owner) != IDENTITY_BYTES:
            raise ParameterError("owner", f"{len(owner)} bytes", f"{IDENTITY_BYTES} bytes")
        if table_rows < 1:
            raise ParameterError("table_rows", table_rows, "positive")
        self._folder = folder
        self._files = files
        self._owner = owner
        self._writable = writable
        self._table_rows = table_rows
        self._random_bytes = random_bytes
        self._lock = threading.RLock()
        self._runs: list[Run] = []
        self._table: dict[bytes, int] = {}
        self._journal: JournalWriter | None = None
        self._journals: list[int] = []
        self._unlisted = False
        self._unusable = ""
        self._gone_damaged = 0
        self._manifest = self._opened()
        self._last_object = self._manifest.last_object
        try:
            self._replay()
            if writable:
                self._clean()
        except BaseException:
            self._close_files()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last_object(self) -> int:
        """The largest object number added so far, -1 for none; after opening, the largest that became durable.

        An owner that adds objects in the order of their numbers adds again what is above it.
        """
        return self._last_object

    @property
    def rows(self) -> int:
        """Rows held, counting those of one id in several runs and of forgotten objects until they are merged."""
        with self._lock:
            return len(self._table) + sum(run.count for run in self._runs)

    @property
    def runs(self) -> int:
        """Files that a look-up may have to read."""
        return len(self._runs)

    @property
    def damaged(self) -> int:
        """Rows met since opening that failed their check; if it is not 0, rebuild."""
        with self._lock:
            return self._gone_damaged + sum(run.damaged for run in self._runs)

    def lookup(self, ids: Sequence[ChunkId]) -> list[Location | None]:
        """The location of each id in the order asked, None where it has not been seen.

        Large batches are fastest, most of all if sorted; a call takes about 20 MiB for 10^5 ids.

        Raises:
            ParameterError: an id is not 32 bytes long.
            SeenIndexError: a file was cut short under us.
        """
        with self._lock:
            self._check_usable()
            answers: list[Location | None] = []
            for start in range(0, len(ids), _PART):
                part = ids[start : start + _PART] if len(ids) > _PART else ids
                joined = join_ids(part)
                answers += self._few(part) if len(part) < _FEW else self._many(part, joined)
            return answers

    def add(self, object_number: int, ids: Sequence[ChunkId]) -> None:
        """Remember the chunks of an object, in the order of its entries; durable after :meth:`sync`.

        A chunk known already is found in this object from now on.

        Raises:
            ParameterError: a number is out of range or an id not 32 bytes long.
            OSError: the disk failed; the index is unusable until it is opened again.
        """
        joined = join_ids(ids)
        self._check_number(object_number)
        if len(ids) > MAX_NUMBER:
            raise ParameterError("number of ids", len(ids), f"at most {MAX_NUMBER}")
        with self._changing("add"):
            journal = self._journal_for_append()
            journal.append(object_number, joined)
            self._insert(object_number, joined)
            if len(self._table) >= self._table_rows or journal.size >= _JOURNAL_BYTES * self._table_rows:
                self._flush()

    def sync(self) -> None:
        """Make all that was added durable.

        Raises:
            OSError: the disk failed; the index is unusable until it is opened again.
        """
        with self._changing("sync"):
            if self._journal is not None:
                self._journal.sync()
                if self._unlisted:
                    self._files.fsync_dir(self._folder)
                    self._unlisted = False

    def forget(self, object_numbers: Collection[int]) -> None:
        """Drop all rows of these objects, durably; what else was added becomes durable too.

        An object may be added again later. A chunk that an older object also held may be found there or not at all.

        Raises:
            ParameterError: a number is out of range.
            OSError: the disk failed; the index is unusable until it is opened again.
        """
        for number in object_numbers:
            self._check_number(number)
        if not object_numbers:
            return
        with self._changing("forget"):
            self.sync()
            self._end_journal()
            gone = set(object_numbers)
            self._table = {chunk: place for chunk, place in self._table.items() if place >> 32 not in gone}
            manifest = self._manifest
            if not self._runs and not self._journals:
                return
            forgotten = manifest.forgotten.plus(gone, manifest.next_age)
            self._publish(replace(manifest, next_age=manifest.next_age + 1, forgotten=forgotten))
            if len(forgotten) > MAX_FORGOTTEN:
                self._flush(everything=True)
            elif len(self._journals) >= MAX_JOURNALS:
                self._flush()

    def compact(self) -> None:
        """Merge all into one run: the fewest bytes and the fastest look-ups.

        Raises:
            OSError: the disk failed; the index is unusable until it is opened again.
        """
        with self._changing("compact"):
            if self._journals or len(self._runs) > 1 or self._manifest.forgotten:
                self._flush(everything=True)

    def verify(self) -> int:
        """Read and check every row of the runs; return how many are damaged now."""
        with self._lock:
            self._check_usable()
            return sum(run.verify() for run in self._runs)

    def close(self) -> None:
        """Close; what was added since the last :meth:`sync` may be lost. Idempotent."""
        with self._lock:
            self._close_files()
            self._unusable = "is closed"

    # --- look-ups

    def _few(self, ids: Sequence[bytes]) -> list[Location | None]:
        answers: list[Location | None] = []
        for chunk in ids:
            place = self._table.get(chunk)
            words = words_of_one(chunk)
            for run in reversed(self._runs):
                if place is not None:
                    break
                place = run.find_one(words)
                if place is not None and not self._manifest.forgotten.lives(place >> 32, run.age):
                    place = None
            answers.append(None if place is None else Location(place >> 32, place & MAX_NUMBER))
        return answers

    def _many(self, ids: Sequence[bytes], joined: bytes) -> list[Location | None]:
        words = words_of(joined)
        found = np.zeros(len(ids), dtype=np.bool_)
        places = np.zeros(len(ids), dtype=np.uint64)
        if self._table:
            get = self._table.get
            for at, place in enumerate(map(get, ids)):
                if place is not None:
                    found[at] = True
                    places[at] = place
        order = np.argsort(words[:, 0], kind="stable")
        for run in reversed(self._runs):
            open_ones = order[~found[order]]
            if not len(open_ones):
                break
            hit, where = run.find(words[open_ones])
            hit[hit] = self._manifest.forgotten.living(where[hit], run.age)
            found[open_ones[hit]] = True
            places[open_ones[hit]] = where[hit]
        which = np.flatnonzero(found)
        known = places[which]
        locations = map(_location, zip(object_numbers(known).tolist(), entries(known).tolist(), strict=True))
        if len(which) == len(ids):
            return list(locations)
        answers: list[Location | None] = [None] * len(ids)
        for at, location in zip(which.tolist(), locations, strict=True):
            answers[at] = location
        return answers

    # --- opening

    def _opened(self) -> Manifest:
        for attempt in (1, 2):
            manifest = self._read_manifest()
            try:
                for entry in manifest.runs:
                    path = self._run_path(entry.age)
                    self._runs.append(Run(path, age=entry.age, seed=entry.seed, count=entry.count))
            except FileNotFoundError as error:
                self._close_files()
                if self._writable or attempt == 2:
                    raise SeenIndexError(self._folder, f"lacks {os.path.basename(error.filename)}") from error
                continue  # a writer merged between our two looks
            except BaseException:
                self._close_files()
                raise
            return manifest
        raise AssertionError

    def _read_manifest(self) -> Manifest:
        path = os.path.join(self._folder, _MANIFEST)
        try:
            data = self._files.read(path)
        except FileNotFoundError:
            empty = Manifest(index=self._random_bytes(IDENTITY_BYTES), owner=self._owner)
            if self._writable:
                self._files.makedirs(self._folder)
                self._write_manifest(empty)
            return empty
        try:
            manifest = decode_manifest(data)
        except ValueError as error:
            raise SeenIndexError(self._folder, str(error)) from error
        if manifest.owner != self._owner:
            raise SeenIndexError(self._folder, "belongs to another catalog, or to an earlier life of this one")
        return manifest

    def _replay(self) -> None:
        """Read back the journals that no run holds yet, and make them one run if they are many."""
        forgotten = self._manifest.forgotten
        for age in sorted(self._ages_of("journal-")):
            if age < self._manifest.journals_from:
                continue
            try:
                data = self._files.read(self._journal_path(age))
            except FileNotFoundError:
                continue  # a writer made it part of a run since: a miss for this reader
            if not is_journal(data, index=self._manifest.index, age=age):
                continue
            self._journals.append(age)
            for object_number, joined in read_journal(data):
                self._last_object = max(self._last_object, object_number)
                if forgotten.lives(object_number, age):
                    self._insert(object_number, joined)
        if self._journals:
            self._manifest = replace(self._manifest, next_age=max(self._manifest.next_age, self._journals[-1] + 1))

    def _clean(self) -> None:
        """Remove what a crash left behind, and flush a table that came back too large or from many journals."""
        known = {os.path.basename(run.path) for run in self._runs} | {_MANIFEST}
        known |= {os.path.basename(self._journal_path(age)) for age in self._journals}
        for name, _ in self._files.list_files(self._folder):
            if name not in known:
                self._files.unlink(os.path.join(self._folder, name))
        if len(self._table) >= self._table_rows or len(self._journals) >= MAX_JOURNALS:
            self._flush()

    def _ages_of(self, prefix: str) -> Iterator[int]:
        for name, _ in self._files.list_files(self._folder):
            number = name.removeprefix(prefix)
            if number != name and number.isascii() and number.isdigit():
                yield int(number)

    # --- changes

    @contextmanager
    def _changing(self, what: str) -> Iterator[None]:
        with self._lock:
            self._check_usable()
            if not self._writable:
                raise SeenIndexError(self._folder, f"was opened for reading only, and cannot {what}")
            try:
                yield
            except BaseException:
                # What the disk holds is unknown until the next look at it; a second try could make it worse.
                self._unusable = f"failed to {what} and must be opened again"
                self._close_files()
                raise

    def _check_usable(self) -> None:
        if self._unusable:
            raise SeenIndexError(self._folder, self._unusable)

    def _check_number(self, number: int) -> None:
        if not 0 <= number <= MAX_NUMBER:
            raise ParameterError("object number", number, f"between 0 and {MAX_NUMBER}")

    def _insert(self, object_number: int, joined: bytes) -> None:
        place = pack_place(object_number, 0)
        table = self._table
        for start in range(0, len(joined), ID_BYTES):
            table[joined[start : start + ID_BYTES]] = place
            place += 1
        self._last_object = max(self._last_object, object_number)

    def _journal_for_append(self) -> JournalWriter:
        if self._journal is None:
            age = self._manifest.next_age
            self._manifest = replace(self._manifest, next_age=age + 1)
            path = self._journal_path(age)
            self._journal = JournalWriter(
                self._files, path, index=self._manifest.index, age=age, salt=self._random_bytes(SALT_BYTES)
            )
            self._journals.append(age)
            self._unlisted = True
        return self._journal

    def _end_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _flush(self, *, everything: bool = False) -> None:
        """Make a run of the table and of the newest runs that are not RATIO times as large as what they join."""
        self._end_journal()
        first = 0 if everything else len(self._runs)
        count = len(self._table)
        while first and self._runs[first - 1].count < RATIO * count:
            first -= 1
            count += self._runs[first].count
        merging = self._runs[first:]
        manifest = self._manifest
        age = manifest.next_age
        seed = int.from_bytes(self._random_bytes(8), "little")
        sources = [Source(iter([self._table_as_rows()] if self._table else []))]
        sources += [Source(self._living_parts(run, manifest.forgotten)) for run in reversed(merging)]
        written = write_run(self._files, self._run_path(age), seed, merged(sources))
        entries_left = manifest.runs[:first]
        if written:
            self._files.fsync_dir(self._folder)
            entries_left += (RunEntry(age, written, seed),)
        oldest = min((entry.age for entry in entries_left), default=age)
        self._publish(
            replace(
                manifest,
                next_age=age + 1,
                journals_from=age + 1,
                last_object=self._last_object,
                runs=entries_left,
                forgotten=manifest.forgotten.since(oldest),
            )
        )
        for run in merging:
            self._gone_damaged += run.damaged
            run.close()
        del self._runs[first:]
        if written:
            self._runs.append(Run(self._run_path(age), age=age, seed=seed, count=written))
        self._table = {}
        gone = [run.path for run in merging] + [self._journal_path(old) for old in self._journals]
        self._journals = []
        self._unlisted = False
        if not written:
            gone.append(self._run_path(age))
        for path in gone:
            with suppress(FileNotFoundError):
                self._files.unlink(path)

    def _table_as_rows(self) -> Rows:
        places = np.fromiter(self._table.values(), np.uint64, len(self._table))
        return newest(Rows(words_of(b"".join(self._table)), places))

    @staticmethod
    def _living_parts(run: Run, forgotten: Forgotten) -> Iterator[Rows]:
        for rows in run.parts():
            living = forgotten.drop(rows, run.age)
            if len(living.places):
                yield living

    def _publish(self, manifest: Manifest) -> None:
        self._write_manifest(manifest)
        self._manifest = manifest

    def _write_manifest(self, manifest: Manifest) -> None:
        path = os.path.join(self._folder, _NEW_MANIFEST)
        with suppress(FileNotFoundError):
            self._files.unlink(path)
        handle = self._files.create(path)
        try:
            handle.write(encode_manifest(manifest))
            handle.fsync()
        finally:
            handle.close()
        self._files.replace(path, os.path.join(self._folder, _MANIFEST))
        self._files.fsync_dir(self._folder)

    def _close_files(self) -> None:
        with suppress(OSError):  # nothing of worth is in the journal's handle: writes are unbuffered
            self._end_journal()
        for run in self._runs:
            run.close()
        self._runs = []

    def _run_path(self, age: int) -> str:
        return os.path.join(self._folder, f"run-{age}")

    def _journal_path(self, age: int) -> str:
        return os.path.join(self._folder, f"journal-{age}")


def rebuild(
    folder: str,
    files: Files,
    *,
    owner: bytes,
    objects: Iterable[tuple[int, Sequence[ChunkId]]],
    table_rows: int = TABLE_ROWS,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> DiskSeenIndex:
    """Drop whatever lies in the folder and make the index anew from objects and their ids, in order of entries.

    A crash on the way leaves an index of the objects so far; give them in the order of their numbers and
    :attr:`DiskSeenIndex.last_object` says where to go on.
    """
    with suppress(FileNotFoundError):
        files.unlink(os.path.join(folder, _MANIFEST))  # durable with the new manifest: the old or that is there
    index = DiskSeenIndex(folder, files, owner=owner, table_rows=table_rows, random_bytes=random_bytes)
    try:
        for object_number, ids in objects:
            index.add(object_number, ids)
        index.compact()
    except BaseException:
        index.close()
        raise
    return index
