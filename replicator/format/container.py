"""The outer bytes of every object: 64 bytes in clear, a sealed locator, a sealed body, segments, random fill.

    offset  size  field
         0     8  magic "RPLOBJ" 0x00, version 0x01
         8     1  suite (1 = AES-256-GCM, HKDF-SHA256, HPKE X25519)
         9     1  flags (0; bit 0 reserved: slots lie outside the pack)
        10     2  zero
        12     4  epoch of the index key, little-endian
        16    32  salt, random
        48    16  zero
        64    48  locator: 32 bytes sealed with the object key, nonce 0
       112     n  body, sealed with the object key, nonce 1 (n = body length + 16)
     112+n        segments, each sealed with a content key; then random bytes to the size class

    locator, before sealing
         0     1  kind: 1 data pack, 2 tree pack, 3 index, 4 references, 5 snapshot, 6 forget
         1     1  encoding of the body: 0 as is, 1 zstd
         2     6  zero
         8     8  length of the sealed body (with its tag), little-endian
        16     8  length of the body after decompression, little-endian
        24     8  length of all segments, little-endian

All objects of a tenant look alike: kind, lengths and counts are inside the encryption. Records that a provider
must read itself (charter, keybag envelope) use :data:`RECORD_MAGIC` instead: magic, u32 length, bytes, fill.
"""

import enum
import struct
from dataclasses import dataclass

from replicator.errors import FormatError, UnsupportedVersionError
from replicator.format.sizes import LARGEST, is_class, size_class

FAMILY = b"RPL"
"""What every whole object begins with, in this format and any later one; of a pack's shards only the first does."""
MAGIC = b"RPLOBJ\x00"
VERSION = 1
SUITE = 1
HEADER_SIZE = 64
LOCATOR_SIZE = 32
TAG_SIZE = 16
BODY_OFFSET = HEADER_SIZE + LOCATOR_SIZE + TAG_SIZE
RECORD_MAGIC = b"RPLREC\x00\x01"
SALT_SIZE = 32

_HEADER = struct.Struct("<7sBBBHI32s16s")
_LOCATOR = struct.Struct("<BB6sQQQ")
_ZERO16 = bytes(16)
_ZERO6 = bytes(6)


class Kind(enum.IntEnum):
    """What an object is; known only to holders of the index key."""

    DATA_PACK = 1
    TREE_PACK = 2
    INDEX = 3
    REFERENCES = 4
    SNAPSHOT = 5
    FORGET = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The clear part. ``salt`` makes the object key unique, so its nonces may be constants."""

    epoch: int
    salt: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Locator:
    """Where things lie. ``body_length`` counts the tag; ``raw_length`` is the body decompressed."""

    kind: Kind
    encoding: int
    body_length: int
    raw_length: int
    segments_length: int


def encode_header(header: Header) -> bytes:
    """Return the 64 clear bytes."""
    return _HEADER.pack(MAGIC, VERSION, SUITE, 0, 0, header.epoch, header.salt, _ZERO16)


def decode_header(data: bytes | bytearray | memoryview) -> Header:
    """Read the clear part of an object.

    Raises:
        UnsupportedVersionError: written by a later release.
        FormatError: not an object.
    """
    if len(data) < HEADER_SIZE:
        raise FormatError(f"object: {len(data)} bytes are too few for a header")
    magic, version, suite, flags, zero, epoch, salt, tail = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FormatError("object: wrong magic")
    if version != VERSION or suite != SUITE or flags:
        raise UnsupportedVersionError(
            f"object: version {version}, suite {suite}, flags {flags}; this release reads 1, 1, 0",
            hint="install a newer release of replicator",
        )
    if zero or tail != _ZERO16:
        raise FormatError("object: reserved header bytes are set")
    return Header(epoch=epoch, salt=salt)


def encode_locator(locator: Locator) -> bytes:
    """Return the 32 bytes that are sealed behind the header."""
    return _LOCATOR.pack(
        locator.kind,
        locator.encoding,
        _ZERO6,
        locator.body_length,
        locator.raw_length,
        locator.segments_length,
    )


def decode_locator(data: bytes, object_size: int) -> Locator:
    """Read a locator and check it against the size of its object.

    Raises:
        FormatError: it points outside the object, or the object is of a size that none has.
    """
    kind, encoding, zero, body_length, raw_length, segments_length = _LOCATOR.unpack(data)
    if not is_class(object_size):
        raise FormatError(f"object: {object_size} bytes is not an allowed size")
    if zero != _ZERO6 or encoding not in (0, 1) or kind not in set(Kind):
        raise FormatError(f"object: kind {kind} with encoding {encoding} is not known")
    if body_length < TAG_SIZE or BODY_OFFSET + body_length + segments_length > object_size or raw_length > LARGEST:
        raise FormatError("object: the locator points outside the object")
    return Locator(
        kind=Kind(kind),
        encoding=encoding,
        body_length=body_length,
        raw_length=raw_length,
        segments_length=segments_length,
    )


def wrap_record(body: bytes, fill: bytes) -> bytes:
    """Return an object that holds a record in clear (charter, keybag), padded with ``fill`` to a size class.

    ``fill`` must be at least as long as the padding; :func:`record_fill` says how long that is.
    """
    head = RECORD_MAGIC + len(body).to_bytes(4, "little")
    return b"".join((head, body, fill[: record_fill(len(body))]))


def record_fill(body_length: int) -> int:
    """Return how many fill bytes :func:`wrap_record` needs."""
    used = len(RECORD_MAGIC) + 4 + body_length
    return size_class(used) - used


def unwrap_record(data: bytes) -> bytes:
    """Return the record inside :func:`wrap_record`'s bytes.

    Raises:
        FormatError: not such an object.
    """
    start = len(RECORD_MAGIC) + 4
    if len(data) < start or data[: len(RECORD_MAGIC)] != RECORD_MAGIC or not is_class(len(data)):
        raise FormatError("record object: wrong magic or size")
    length = int.from_bytes(data[len(RECORD_MAGIC) : start], "little")
    if start + length > len(data) or size_class(start + length) != len(data):
        raise FormatError("record object: wrong length")
    return data[start : start + length]
