"""A journal: the ids of new objects, appended by one session and read back by the next.

    header     magic 8 | index 16 | age 8 | salt 16
    records    object number 4 | ids 4 | the ids, 32 bytes each | check 16

The check is BLAKE3 keyed with salt and position (salt 16 | offset of the record 8 | zeros 8) over the record, so that
neither a torn tail nor bytes of an older file pass. Reading ends at the first record that does not check: later ones
are misses. All numbers are little-endian and unsigned.
"""

import struct
from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from chunker.identity import ID_BYTES
from chunker.seen.files import Files

SALT_BYTES: Final = 16
_MAGIC: Final = b"seenjrn1"
_HEADER: Final = struct.Struct("<8s16sQ16s")
_RECORD: Final = struct.Struct("<II")
_KEY: Final = struct.Struct("<16sQ8x")
_CHECK: Final = 16


class JournalWriter:
    """A new journal of `size` bytes so far; its folder is left to sync."""

    def __init__(self, files: Files, path: str, *, index: bytes, age: int, salt: bytes) -> None:
        self.age = age
        self._salt = salt
        self.size = _HEADER.size
        self._handle = files.create(path)
        try:
            self._handle.write(_HEADER.pack(_MAGIC, index, age, salt))
        except BaseException:
            self._handle.close()
            raise

    def append(self, object_number: int, joined: bytes) -> None:
        """Write the concatenated ids of an object, in the order of its entries."""
        body = _RECORD.pack(object_number, len(joined) // ID_BYTES) + joined
        record = body + _check(self._salt, self.size, body)
        self._handle.write(record)
        self.size += len(record)

    def sync(self) -> None:
        """Make what was appended durable."""
        self._handle.fsync()

    def close(self) -> None:
        """Let go of the file without syncing; idempotent."""
        self._handle.close()


def is_journal(data: bytes, *, index: bytes, age: int) -> bool:
    """Whether these bytes begin as the journal of this index and age does."""
    return data[: _HEADER.size - SALT_BYTES] == _HEADER.pack(_MAGIC, index, age, b"")[:-SALT_BYTES]


def read_journal(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (object number, concatenated ids) of a journal's bytes, as far as they check."""
    salt = data[_HEADER.size - SALT_BYTES : _HEADER.size]
    offset = _HEADER.size
    while offset + _RECORD.size <= len(data):
        object_number, count = _RECORD.unpack_from(data, offset)
        end = offset + _RECORD.size + count * ID_BYTES
        body = data[offset:end]
        if end + _CHECK > len(data) or data[end : end + _CHECK] != _check(salt, offset, body):
            return
        yield object_number, body[_RECORD.size :]
        offset = end + _CHECK


def _check(salt: bytes, offset: int, body: bytes) -> bytes:
    return blake3(body, key=_KEY.pack(salt, offset)).digest(_CHECK)
