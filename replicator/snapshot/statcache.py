"""The node's stat cache: the directory pieces of the last snapshot and how each entry looked when it was read.

It only ever saves work: a file whose look is the same is not read, and a run of entries that are all the same is not
even written again. Each row carries a check over key and content, so a flipped bit costs one re-read; a damaged or
foreign file counts as empty. Paths are kept as keyed hashes. A new generation is written beside the old one and takes
its place when the snapshot it belongs to is certain.

The file is SQLite: ``rows(key BLOB PRIMARY KEY, body BLOB)``. The key of a directory's n-th piece is the keyed BLAKE3
of the full path, followed for n > 0 by 0x00 and n as four bytes, little-endian (16 bytes). Its body is a flag byte (1:
the piece ends where its names say so, 2: another piece follows), the length of an encoded :class:`_Row` (4 bytes,
little-endian), its encoding as in packs (0: as it is, 1: a zstd frame), the row so encoded, and 8 bytes of keyed BLAKE3
over key and body. Pieces of long chunk lists are rows too: their key is the chunk's id (32 bytes), their body the piece
and the same check.
"""

import logging
import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
from blake3 import blake3

from chunker import Compressor, CorruptChunkError, Encoding, decompress
from replicator.errors import FormatError
from replicator.format.codec import Record, decode_own, encode
from replicator.format.tree import Entry, TreePiece
from replicator.fs import Fs
from replicator.snapshot.walk import Status

APPLICATION_ID: Final = 0x52505343
SCHEMA_VERSION: Final = 2
KEY_SIZE: Final = 16
CHECK_SIZE: Final = 8
BATCH: Final = 1000
RACY_NS: Final = 2_000_000_000
"""A file touched within this of the capture's start may change again without a new time (FAT counts in 2 s)."""
LEVEL: Final = 1
"""Of zstd: rows shrink to half, and the time is hardly seen beside that of the walk."""

PACKED_FROM: Final = 2 << 10
"""Shorter rows, which most directories have, stay as they are: beginning a frame takes longer than reading them."""
MAPPED: Final = 64 << 20
"""Bytes of the last generation that SQLite may map instead of reading page by page."""

_STAMP: Final = struct.Struct("<QqqQIIIQQ")
STAMP_SIZE: Final = _STAMP.size
CONTENT_SIZE: Final = 32
"""The part of a stamp that says whether the bytes are the same: size, times and inode."""
UNTRUSTED: Final = bytes(STAMP_SIZE)
"""The stamp of what is to be looked at again: nothing real has inode 0."""
_ENDED: Final = 1
_FOLLOWED: Final = 2
_LENGTH: Final = struct.Struct("<I")

_log = logging.getLogger(__name__)


def stamp_of(status: Status) -> bytes:
    """Return by what an entry is taken to be as it was: every change to a file or its metadata shows in here.

    Extended attributes show through the time of the last change of status. Device numbers are left out: they differ
    after a reboot, or in every snapshot of a file system.
    """
    folder = status.st_mode & 0o170000 == 0o040000
    return _STAMP.pack(
        0 if folder else status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_mode,
        status.st_uid & 0xFFFFFFFF,
        status.st_gid & 0xFFFFFFFF,
        0 if folder else status.st_nlink,
        status.st_rdev,
    )


class _Row(Record, frozen=True, kw_only=True):
    """A directory piece: its chunk id, its encoding, and a stamp for each entry."""

    id: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    piece: bytes
    stamps: bytes


class KnownPiece:
    """One piece of a directory as it was in the last snapshot."""

    __slots__ = ("body", "ended", "entries", "id", "length", "stamps")

    def __init__(
        self, chunk_id: bytes, length: int, entries: list[Entry], stamps: bytes, body: bytes, *, ended: bool
    ) -> None:
        self.id = chunk_id
        self.length = length
        self.entries = entries
        self.stamps = stamps
        self.body = body
        """What a new generation takes over unread."""
        self.ended = ended
        """Whether it ends where its names say so, and not with its directory."""

    def stamp(self, place: int) -> bytes:
        """Return the stamp of an entry."""
        return self.stamps[place * STAMP_SIZE : (place + 1) * STAMP_SIZE]

    def alike(self, place: int, names: Sequence[bytes], stamps: bytes) -> int:
        """Return how many entries from a place on have these names, in order, and these stamps, joined."""
        entries = self.entries[place : place + len(names)]
        mine = self.stamps[place * STAMP_SIZE : (place + len(entries)) * STAMP_SIZE]
        if mine == stamps[: len(mine)] and [entry.name for entry in entries] == names[: len(entries)]:
            return len(entries)
        for count, (entry, name) in enumerate(zip(entries, names, strict=False)):
            at = count * STAMP_SIZE
            if entry.name != name or mine[at : at + STAMP_SIZE] != stamps[at : at + STAMP_SIZE]:
                return count
        raise AssertionError("they differ somewhere")


class _Rows:
    """Checks and hashes under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def key(self, path: bytes, number: int) -> bytes:
        name = path + b"\0" + number.to_bytes(4, "little") if number else path
        return blake3(name, key=self._key).digest(KEY_SIZE)

    def seal(self, key: bytes, body: bytes) -> bytes:
        return body + self._check(key, body)

    def open(self, key: bytes, sealed: object) -> bytes | None:
        if not isinstance(sealed, bytes):
            return None
        body = sealed[:-CHECK_SIZE]
        return body if sealed[-CHECK_SIZE:] == self._check(key, body) else None

    def _check(self, key: bytes, body: bytes) -> bytes:
        # The length keeps a path's key and a piece's id apart.
        return blake3(b"%c%b%b" % (len(key), key, body), key=self._key).digest(CHECK_SIZE)


class StatCache:
    """The last generation, read only."""

    def __init__(self, database: sqlite3.Connection | None, key: bytes) -> None:
        self._database = database
        self._rows = _Rows(key)

    @classmethod
    def open(cls, path: str, key: bytes) -> "StatCache":
        """Open the generation at ``path``; none, a damaged one or another program's file is an empty one.

        ``key`` is 32 bytes and must be the one it was written with.
        """
        if not os.path.exists(path):
            return cls(None, key)
        database = None
        try:
            database = sqlite3.connect(
                f"file:{quote(path)}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False
            )
            found = (
                database.execute("PRAGMA application_id").fetchone()[0],
                database.execute("PRAGMA user_version").fetchone()[0],
            )
            if found != (APPLICATION_ID, SCHEMA_VERSION):
                raise sqlite3.DatabaseError(f"application and version are {found}")
            database.execute(f"PRAGMA mmap_size = {MAPPED}")
            database.execute("SELECT body FROM rows WHERE key = ?", (b"",)).fetchone()
        except sqlite3.Error as error:
            _log.warning("stat cache %s is not usable and counts as empty: %s", path, error)
            if database is not None:
                database.close()
            return cls(None, key)
        return cls(database, key)

    def pieces(self, path: bytes) -> Iterator[KnownPiece]:
        """Yield the pieces of the directory at a full path, in order, as far as they are known and sound."""
        number = 0
        followed = True
        while followed:
            body = self._get(self._rows.key(path, number))
            if body is None:
                return
            try:
                yield _known_piece(body)
            except (IndexError, struct.error, CorruptChunkError, FormatError) as error:
                # Written by us with the check, but for another format.
                _log.warning("stat cache: a row is not of this format: %s", error)
                return
            followed = bool(body[0] & _FOLLOWED)
            number += 1

    def list_piece(self, chunk_id: bytes) -> bytes | None:
        """Return a piece of a chunk list by its id, None if it is not here."""
        return self._get(chunk_id)

    def close(self) -> None:
        """Close; idempotent."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _get(self, key: bytes) -> bytes | None:
        if self._database is None:
            return None
        try:
            row = self._database.execute("SELECT body FROM rows WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            _log.warning("stat cache is damaged and counts as empty from here on: %s", error)
            self.close()
            return None
        return None if row is None else self._rows.open(key, row[0])


def _known_piece(body: bytes) -> KnownPiece:
    [length] = _LENGTH.unpack_from(body, 1)
    row = decode_own(_Row, bytes(decompress(body[5], body[6:], length)))
    entries = decode_own(TreePiece, row.piece).entries
    if len(row.stamps) != len(entries) * STAMP_SIZE:
        raise FormatError("stamps and entries differ in number")
    return KnownPiece(row.id, len(row.piece), entries, row.stamps, body[1:], ended=bool(body[0] & _ENDED))


class StatCacheWriter:
    """The next generation, in a file of its own; nothing sees it before :meth:`commit_as`."""

    def __init__(self, path: str, key: bytes, *, now_ns: int) -> None:
        """Begin a generation at ``path``, replacing a leftover of the same name.

        ``now_ns`` is the moment before the capture's first look at a file. What was touched later than two
        seconds before it is not trusted: it could change again and keep its times.
        """
        self._path = path
        self._rows = _Rows(key)
        self.limit_ns = now_ns - RACY_NS
        self._compressor = Compressor(LEVEL)
        self._batch: list[tuple[bytes, bytes]] = []
        _remove(path)
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # A new file that nobody else reads needs no journal; the one commit at the end syncs it.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._database.execute("BEGIN")
        self._database.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID")

    def trusted(self, status: Status) -> bool:
        """Return whether a change from now on would show in the times of this state."""
        return max(status.st_mtime_ns, status.st_ctime_ns) <= self.limit_ns

    def folder(self, path: bytes) -> "FolderRows":
        """Return where to record the pieces of the directory at a full path."""
        return FolderRows(self, path)

    def new_body(self, chunk_id: bytes, piece: bytes, stamps: Sequence[bytes]) -> bytes:
        """Return a row's body behind its flags."""
        row = encode(_Row(id=chunk_id, piece=piece, stamps=b"".join(stamps)))
        encoding, stored = self._compressor.compress(row) if len(row) >= PACKED_FROM else (Encoding.RAW, row)
        return b"%b%c%b" % (_LENGTH.pack(len(row)), encoding, bytes(stored))

    def add_row(self, path: bytes, number: int, flags: int, body: bytes) -> None:
        """Record one piece; called by :class:`FolderRows`."""
        key = self._rows.key(path, number)
        self._add(key, self._rows.seal(key, b"%c%b" % (flags, body)))

    def record_piece(self, chunk_id: bytes, data: bytes) -> None:
        """Remember a piece of a chunk list that a recorded file has."""
        self._add(chunk_id, self._rows.seal(chunk_id, data))

    def commit_as(self, path: str, fs: Fs) -> None:
        """Make this the generation at ``path``, in one step; the writer is used up."""
        self._flush()
        fs.commit(self._database, "stat cache")
        self._database.close()
        fs.replace(self._path, path)
        fs.fsync_dir(os.path.dirname(path))

    def abandon(self) -> None:
        """Drop the generation; idempotent, and without effect after :meth:`commit_as`."""
        self._database.close()
        _remove(self._path)

    def _add(self, key: bytes, sealed: bytes) -> None:
        self._batch.append((key, sealed))
        if len(self._batch) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        # In the order of keys, neighbours share a page of the tree.
        self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", sorted(self._batch))
        self._batch.clear()


class FolderRows:
    """Records the pieces of one directory in order; a piece is written when it is known whether one follows."""

    __slots__ = ("_held", "_number", "_path", "_writer")

    def __init__(self, writer: StatCacheWriter, path: bytes) -> None:
        self._writer = writer
        self._path = path
        self._number = 0
        self._held: tuple[int, bytes] | None = None

    def add(self, chunk_id: bytes, piece: bytes, stamps: Sequence[bytes], *, ended: bool) -> None:
        """Record a piece that was just written."""
        self._put(self._writer.new_body(chunk_id, piece, stamps), ended=ended)

    def keep(self, known: KnownPiece) -> None:
        """Record a piece of the last generation again."""
        self._put(known.body, ended=known.ended)

    def finish(self) -> None:
        """Write what is held; no piece follows."""
        if self._held is not None:
            flags, body = self._held
            self._writer.add_row(self._path, self._number, flags, body)
            self._held = None

    def _put(self, body: bytes, *, ended: bool) -> None:
        if self._held is not None:
            flags, held = self._held
            self._writer.add_row(self._path, self._number, flags | _FOLLOWED, held)
            self._number += 1
        self._held = (_ENDED if ended else 0), body


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
