"""The node's stat cache: which chunks the files of the last snapshot had, so that unchanged files are not read.

It only ever saves work. Each row carries a check over key and content, so a flipped bit costs one re-read;
a damaged or foreign file counts as empty. Paths are kept as keyed hashes. A new generation is written beside
the old one and takes its place when the snapshot it belongs to is certain.

The file is SQLite: ``rows(key BLOB PRIMARY KEY, body BLOB)``. The key is the keyed BLAKE3 of the full path
(16 bytes), the body size, mtime_ns, ctime_ns and inode (little-endian, 8 bytes each), the encoded
:class:`Content` and 8 bytes of keyed BLAKE3 over all that. Pieces of long chunk lists are rows too: their key
is the chunk's id (32 bytes), their body the piece and the same check.
"""

import logging
import os
import sqlite3
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from blake3 import blake3

from replicator.errors import FormatError
from replicator.format.codec import Record, decode, encode
from replicator.format.snapshot import ChunkList
from replicator.format.tree import Hole
from replicator.fs import Fs
from replicator.snapshot.walk import Status

APPLICATION_ID: Final = 0x52505343
SCHEMA_VERSION: Final = 1
KEY_SIZE: Final = 16
CHECK_SIZE: Final = 8
BATCH: Final = 1000
RACY_NS: Final = 2_000_000_000
"""A file touched within this of the capture's start may change again without a new time (FAT counts in 2 s)."""
_STAMP: Final = struct.Struct("<QqqQ")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stamp:
    """By what a file is taken to be unchanged."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: Status) -> "Stamp":
        """Return the stamp of a file's state."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Content(Record, frozen=True, kw_only=True):
    """What is known of a file's bytes."""

    chunks: ChunkList
    holes: list[Hole]


@dataclass(frozen=True, slots=True)
class Cached:
    """A file as it was when it was read."""

    stamp: Stamp
    content: Content


class _Rows:
    """Checks and hashes under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def key(self, path: bytes) -> bytes:
        return blake3(path, key=self._key).digest(KEY_SIZE)

    def seal(self, key: bytes, body: bytes) -> bytes:
        return body + self._check(key, body)

    def open(self, key: bytes, sealed: object) -> bytes | None:
        if not isinstance(sealed, bytes):
            return None
        body = sealed[:-CHECK_SIZE]
        return body if sealed[-CHECK_SIZE:] == self._check(key, body) else None

    def _check(self, key: bytes, body: bytes) -> bytes:
        # The length keeps a path's key and a piece's id apart.
        return blake3(bytes([len(key)]) + key + body, key=self._key).digest(CHECK_SIZE)


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
            database.execute("SELECT body FROM rows WHERE key = ?", (b"",)).fetchone()
        except sqlite3.Error as error:
            _log.warning("stat cache %s is not usable and counts as empty: %s", path, error)
            if database is not None:
                database.close()
            return cls(None, key)
        return cls(database, key)

    def lookup(self, path: bytes) -> Cached | None:
        """Return what is known of the file at a full path, None if nothing that can be trusted is."""
        key = self._rows.key(path)
        body = self._get(key)
        if body is None:
            return None
        try:
            stamp = Stamp(*_STAMP.unpack_from(body))
            return Cached(stamp, decode(Content, body[_STAMP.size :]))
        except (struct.error, FormatError) as error:  # written by us with the check, but for another format
            _log.warning("stat cache: a row is not of this format: %s", error)
            return None

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


class StatCacheWriter:
    """The next generation, in a file of its own; nothing sees it before :meth:`commit_as`."""

    def __init__(self, path: str, key: bytes, *, now_ns: int) -> None:
        """Begin a generation at ``path``, replacing a leftover of the same name.

        ``now_ns`` is the moment before the capture's first look at a file. What was touched later than two
        seconds before it is not recorded: it could change again and keep its times.
        """
        self._path = path
        self._rows = _Rows(key)
        self._limit_ns = now_ns - RACY_NS
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

    def record(self, path: bytes, cached: Cached) -> None:
        """Remember a file by its full path, unless its times are too new to be trusted."""
        stamp = cached.stamp
        if max(stamp.mtime_ns, stamp.ctime_ns) > self._limit_ns:
            return
        body = _STAMP.pack(stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode) + encode(cached.content)
        key = self._rows.key(path)
        self._add(key, self._rows.seal(key, body))

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
        self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", self._batch)
        self._batch.clear()


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
