"""A run: sorted rows in one immutable file, written once from start to end and read by position.

    header     magic 8 | seed 8
    segments   of SEGMENT rows, the last one shorter:
                 first words of all rows    8 bytes each
                 rest of all rows          40 bytes each: words 1, 2, 3 | location | check
    fences     the first word of every step-th row, 8 bytes each
    footer     magic 8 | seed 8 | rows 8 | step 8 | BLAKE3 of fences and the footer before it, 32

All numbers are little-endian and unsigned, as on the hosts that the cutter runs on; words, location and check are
those of :mod:`chunker.seen.rows`. The fences are held in memory: they say which few hundred bytes of first words to
read for an id. `step` doubles so that there are never more than MAX_FENCES, whatever the size. First words lie apart
from the rest because a miss reads only them.

Footer and fences are checked when a run is opened, each row when it answers or is merged. A damaged first word or
row is a miss.
"""

import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from chunker.seen.errors import SeenIndexError
from chunker.seen.files import Files
from chunker.seen.rows import Mask, Rows, Words, check_of, checks

SEGMENT: Final = 8192  # rows: 384 KiB are read at a time by a merge
MIN_STEP: Final = 64  # rows between fences: 512 bytes of first words to read, 0.125 bytes in memory for a row
MAX_FENCES: Final = 2**19  # 4 MiB
_WORD: Final = 8
_REST: Final = 40
_ROW: Final = _WORD + _REST
_HEADER: Final = struct.Struct("<8sQ")
_FOOTER: Final = struct.Struct("<8sQQQ")
_REST_WORDS: Final = struct.Struct("<5Q")
_DIGEST: Final = 32
_MAGIC: Final = b"seenrun1"
# Reading a gap from the page cache costs less than another system call until it is about this long (measured).
_GAP: Final = 8192
_LOAD: Final = 1 << 20  # bytes at a time
_BatchNumbers = npt.NDArray[np.int64]


def write_run(files: Files, path: str, seed: int, parts: Iterable[Rows]) -> int:
    """Write sorted rows without duplicates to a new durable file; its folder is left to sync. Return how many."""
    handle = files.create(path)
    try:
        handle.write(_HEADER.pack(_MAGIC, seed))
        fences = array("Q")
        step = MIN_STEP
        count = 0
        for segment in _segments(parts):
            first = segment.ids[:, 0]
            rest = np.empty((len(first), _REST // _WORD), dtype="<u8")
            rest[:, :3] = segment.ids[:, 1:]
            rest[:, 3] = segment.places
            rest[:, 4] = checks(seed, segment)
            handle.write(first.astype("<u8").tobytes() + rest.tobytes())
            fences.frombytes(first[::step].tobytes())
            count += len(first)
            while len(fences) > MAX_FENCES and step < SEGMENT:
                fences = fences[::2]
                step *= 2
        listed = np.frombuffer(fences, dtype=np.uint64).astype("<u8").tobytes()
        footer = _FOOTER.pack(_MAGIC, seed, count, step)
        handle.write(listed + footer + blake3(listed + footer).digest())
        handle.fsync()
    finally:
        handle.close()
    return count


def _segments(parts: Iterable[Rows]) -> Iterator[Rows]:
    held: list[Rows] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part.places)
        if count < SEGMENT:
            continue
        rows = _joined(held)
        whole = count - count % SEGMENT
        for start in range(0, whole, SEGMENT):
            yield rows.take(slice(start, start + SEGMENT))
        held = [rows.take(slice(whole, None))]
        count -= whole
    if count:
        yield _joined(held)


def _joined(parts: list[Rows]) -> Rows:
    return Rows(np.concatenate([part.ids for part in parts]), np.concatenate([part.places for part in parts]))


class Run:
    """An open run. `age` orders it among others; `damaged` counts rows that failed their check so far.

    Raises:
        SeenIndexError: the file is not the run that it should be.
        FileNotFoundError: there is none.
    """

    def __init__(self, path: str, *, age: int, seed: int, count: int) -> None:
        self.path = path
        self.age = age
        self.seed = seed
        self.count = count
        self.damaged = 0
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        size = os.fstat(self._fd).st_size
        body = _HEADER.size + self.count * _ROW
        tail = self._read(body, size - body) if size > body else b""
        digest = tail[-_DIGEST:]
        footer = tail[-_DIGEST - _FOOTER.size : -_DIGEST]
        listed = tail[: -_DIGEST - _FOOTER.size]
        if len(footer) != _FOOTER.size or blake3(listed + footer).digest() != digest:
            raise self._broken("is damaged")
        magic, seed, count, step = _FOOTER.unpack(footer)
        if (magic, seed, count, self._read(0, _HEADER.size)) != (
            _MAGIC,
            self.seed,
            self.count,
            _HEADER.pack(_MAGIC, self.seed),
        ):
            raise self._broken("is not the one that its manifest names")
        self._step = int(step)
        self._fences: Words = np.frombuffer(listed, dtype="<u8").astype(np.uint64)
        self._fence_view = self._fences.data  # bisect on numbers of an array is ten times slower

    def close(self) -> None:
        """Let go of the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def parts(self) -> Iterator[Rows]:
        """All rows that pass their check, a segment at a time."""
        for start in range(0, self.count, SEGMENT):
            rows = min(SEGMENT, self.count - start)
            raw = self._read(self._first_offset(start), rows * _ROW)
            rest = np.frombuffer(raw, dtype="<u8", offset=rows * _WORD).reshape(-1, _REST // _WORD)
            ids = np.empty((rows, 4), dtype=np.uint64)
            ids[:, 0] = np.frombuffer(raw, dtype="<u8", count=rows)
            ids[:, 1:] = rest[:, :3]
            found = Rows(ids, rest[:, 3].astype(np.uint64))
            good = checks(self.seed, found) == rest[:, 4]
            bad = rows - int(np.count_nonzero(good))
            self.damaged += bad
            if bad == 0:
                yield found
            elif bad < rows:
                yield found.take(good)

    def verify(self) -> int:
        """Read everything; return how many rows fail their check, not counted in `damaged`."""
        before = self.damaged
        passed = sum(len(rows.places) for rows in self.parts())
        self.damaged = before
        return self.count - passed

    def find(self, ids: Words) -> tuple[Mask, Words]:
        """For ids sorted by first word: which are here, and the locations of all (those not here are 0)."""
        hit = np.zeros(len(ids), dtype=np.bool_)
        places = np.zeros(len(ids), dtype=np.uint64)
        if not self.count or not len(ids):
            return hit, places
        first = np.ascontiguousarray(ids[:, 0])
        position, matched = self._match(first)
        asked = np.flatnonzero(matched)
        again: list[int] = []
        for begin, end, rest in self._rest_of(position[asked]):
            which = asked[begin:end]
            same = (rest[:, :3] == ids[which, 1:]).all(axis=1)
            again += which[~same].tolist()
            rest, which = rest[same], which[same]
            good = checks(self.seed, Rows(ids[which], rest[:, 3])) == rest[:, 4]
            self.damaged += len(good) - int(np.count_nonzero(good))
            hit[which[good]] = True
            places[which[good]] = rest[good, 3]
        for at in again:
            first, second, third, fourth = ids[at].tolist()
            place = self._probe(int(position[at]) + 1, (first, second, third, fourth))
            if place is not None:
                hit[at] = True
                places[at] = place
        return hit, places

    def find_one(self, words: tuple[int, int, int, int]) -> int | None:
        """The location of one id, without the costs of a batch."""
        if not self.count:
            return None
        first = words[0]
        window = max(bisect_left(self._fence_view, first) - 1, 0)
        start = window * self._step
        rows = min(self._step, self.count - start)
        column = memoryview(self._read(self._first_offset(start), rows * _WORD)).cast("Q")
        at = bisect_left(column, first)
        if at < rows and column[at] != first:
            return None
        return self._probe(start + at, words)

    def _probe(self, row: int, words: tuple[int, int, int, int]) -> int | None:
        """Compare rows from a position on, while they share the id's first word."""
        while row < self.count:
            if int.from_bytes(self._read(self._first_offset(row), _WORD), "little") != words[0]:
                return None
            *rest, place, check = _REST_WORDS.unpack(self._read(self._rest_offset(row), _REST))
            if tuple(rest) == words[1:]:
                if check_of(self.seed, words, place) == check:
                    return int(place)
                self.damaged += 1
                return None
            row += 1
        return None

    def _match(self, first: Words) -> tuple[_BatchNumbers, Mask]:
        """The first row whose first word is not below each of the given ones, and whether it is equal."""
        position = np.zeros(len(first), dtype=np.int64)
        matched = np.zeros(len(first), dtype=np.bool_)
        low = np.maximum(np.searchsorted(self._fences, first, side="left") - 1, 0)
        # A word equal to a fence may also end the window before it. More windows of equal words are left to _probe,
        # which walks on from the first.
        high = np.minimum(np.maximum(np.searchsorted(self._fences, first, side="right") - 1, 0), low + 1)
        windows = _unique(np.concatenate([low, high]))
        begin, end = self._spans(windows * self._step, np.minimum((windows + 1) * self._step, self.count), _WORD)
        for some in _groups((end - begin) * _WORD):
            loaded = self._gather(begin[some], end[some], _WORD)
            column = loaded.view("<u8")
            offset = np.concatenate([[0], np.cumsum((end - begin)[some])])
            here = slice(
                int(np.searchsorted(high, begin[some.start] // self._step)),
                int(np.searchsorted(low, (end[some.stop - 1] - 1) // self._step, side="right")),
            )
            at = np.searchsorted(column, first[here])
            inside = np.minimum(at, len(column) - 1)
            span = np.searchsorted(offset, inside, side="right") - 1
            row = begin[some][span] + (inside - offset[span])
            equal = (at < len(column)) & (column[inside] == first[here])
            # One group may end with a word's first window and the next begin with its second.
            position[here] = np.where(matched[here], position[here], row)
            matched[here] |= equal
        return position, matched

    def _rest_of(self, rows: _BatchNumbers) -> Iterator[tuple[int, int, Words]]:
        """Yield (begin, end, their rest) for sorted rows, some at a time."""
        if not len(rows):
            return
        distinct = _unique(rows)
        begin, end = self._spans(distinct, distinct + 1, _REST)
        for some in _groups((end - begin) * _REST):
            loaded = self._gather(begin[some], end[some], _REST)
            table = loaded.view("<u8").reshape(-1, _REST // _WORD)
            first = int(np.searchsorted(rows, begin[some.start]))
            last = int(np.searchsorted(rows, end[some.stop - 1]))
            offset = np.concatenate([[0], np.cumsum((end - begin)[some])])
            span = np.searchsorted(begin[some], rows[first:last], side="right") - 1
            yield first, last, table[offset[span] + rows[first:last] - begin[some][span]].astype(np.uint64)

    def _spans(self, begin: _BatchNumbers, end: _BatchNumbers, width: int) -> tuple[_BatchNumbers, _BatchNumbers]:
        """Join sorted ranges of rows whose gap is small and that lie in one segment."""
        apart = (begin[1:] - end[:-1]) * width > _GAP
        apart |= begin[1:] // SEGMENT != begin[:-1] // SEGMENT
        cut = np.flatnonzero(apart)
        return begin[np.concatenate([[0], cut + 1])], end[np.concatenate([cut, [len(end) - 1]])]

    def _gather(self, begin: _BatchNumbers, end: _BatchNumbers, width: int) -> npt.NDArray[np.uint8]:
        """Read first words (`width` _WORD) or the rest (_REST) of ranges of rows, one after the other."""
        start = begin // SEGMENT * SEGMENT
        offsets = _HEADER.size + start * _ROW + (begin - start) * width
        if width == _REST:
            offsets += np.minimum(SEGMENT, self.count - start) * _WORD
        sizes = (end - begin) * width
        buffer = np.empty(int(sizes.sum()), dtype=np.uint8)
        view = buffer.data
        done = 0
        for offset, size in zip(offsets.tolist(), sizes.tolist(), strict=True):
            if os.preadv(self._fd, [view[done : done + size]], offset) != size:
                raise self._broken("has become shorter")
            done += size
        return buffer

    def _first_offset(self, row: int) -> int:
        segment = row // SEGMENT
        return _HEADER.size + segment * SEGMENT * _ROW + (row - segment * SEGMENT) * _WORD

    def _rest_offset(self, row: int) -> int:
        start = row // SEGMENT * SEGMENT
        rows = min(SEGMENT, self.count - start)
        return _HEADER.size + start * _ROW + rows * _WORD + (row - start) * _REST

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise self._broken("has become shorter")
        return data

    def _broken(self, what: str) -> SeenIndexError:
        return SeenIndexError(os.path.dirname(self.path), f"has a file {os.path.basename(self.path)} that {what}")


def _unique(values: _BatchNumbers) -> _BatchNumbers:
    ordered = np.sort(values)
    distinct: _BatchNumbers = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]
    return distinct


def _groups(sizes: _BatchNumbers) -> Iterator[slice]:
    """Cut a list of sizes into groups of about _LOAD bytes."""
    total = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(total[start - 1]) if start else 0
        stop = max(int(np.searchsorted(total, before + _LOAD, side="right")), start + 1)
        yield slice(start, stop)
        start = stop
