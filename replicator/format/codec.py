"""The one codec of records: msgspec, array-like msgpack, the version first.

A record is one msgpack array: an integer version, then the fields in order. Decoding is strict: the size is
bounded before anything is parsed, unknown or missing fields are refused, and the decoded value must encode to
the very bytes it came from, so that one value has one form and a signature covers one meaning.

What a record *is* (a charter, a claim, ...) is never read from its bytes: it is said by where the bytes came
from, by the context of their signature or by the associated data of their encryption.
"""

from typing import Any, TypeVar

import msgspec

from replicator.errors import FormatError, UnsupportedVersionError

MAX_RECORD = 16 << 20
"""No record is larger than the largest object."""
HASH_SIZE = 32


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True, gc=False, tag=1):
    """Base of all records; the tag is the version and comes first, 1 where a class does not say otherwise."""


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Base of what only occurs inside a record, without a version of its own."""


R = TypeVar("R", bound=Record)

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoders: dict[type[Record], msgspec.msgpack.Decoder[Any]] = {}


def encode(record: Record) -> bytes:
    """Return the canonical bytes of a record.

    They are decoded once before they are handed out: msgspec checks values only then, and a charter with a name
    that is too long must not be signed and sent before anyone finds that nobody can read it.

    Raises:
        FormatError: a field has a value that the format does not allow; it is named.
    """
    name = type(record).__name__
    try:
        data = _encoder.encode(record)
        _decoder(type(record)).decode(data)
    except (msgspec.MsgspecError, UnicodeError, OverflowError) as error:
        raise FormatError(f"{name}: cannot be written: {error}") from error
    return data


def _decoder(kind: type[R]) -> msgspec.msgpack.Decoder[R]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    return decoder


def decode(kind: type[R], data: bytes | bytearray | memoryview, *, limit: int = MAX_RECORD) -> R:
    """Return the record in ``data``, which must be its canonical bytes and nothing more.

    Raises:
        UnsupportedVersionError: the leading version is not one this release knows.
        FormatError: too large, malformed, unknown fields, or not canonical.
    """
    name = kind.__name__
    if len(data) > limit:
        raise FormatError(f"{name}: {len(data)} bytes, at most {limit} are allowed")
    try:
        record = _decoder(kind).decode(data)
    except (msgspec.MsgspecError, UnicodeError) as error:
        _refuse_newer(kind, data)
        raise FormatError(f"{name}: {error}") from error
    if _encoder.encode(record) != data:
        raise FormatError(f"{name}: not in canonical form")
    return record


def decode_own(kind: type[R], data: bytes | memoryview) -> R:
    """Return the record in bytes that this machine wrote for itself and has checked already.

    One value may have several forms here: nothing that is signed, named by its bytes or from elsewhere may come this
    way. It takes half the time of :func:`decode`.

    Raises:
        FormatError: malformed.
    """
    try:
        return _decoder(kind).decode(data)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise FormatError(f"{kind.__name__}: {error}") from error


def check_run(joined: bytes, field: str) -> None:
    """Check a run of names or ids, 32 bytes each: msgspec's own limits cannot say "a multiple of".

    Raises:
        ValueError: not a whole number of them; in a record that is decoded it becomes a FormatError.
    """
    if len(joined) % HASH_SIZE:
        raise ValueError(f"`{field}` is not a whole number of {HASH_SIZE} bytes")


def version_of(data: bytes | bytearray | memoryview) -> int:
    """Return the version that a record begins with, 0 if there is none to be seen."""
    # An array header (fixarray, array16, array32) and a positive fixint.
    head = bytes(data[:6])
    if not head:
        return 0
    skip = 1 if 0x90 <= head[0] <= 0x9F else 3 if head[0] == 0xDC else 5 if head[0] == 0xDD else 0
    return head[skip] if skip and len(head) > skip and head[skip] < 0x80 else 0


def _refuse_newer(kind: type[R], data: bytes | bytearray | memoryview) -> None:
    known = kind.__struct_config__.tag
    found = version_of(data)
    if isinstance(known, int) and found > known:
        raise UnsupportedVersionError(
            f"{kind.__name__}: written as version {found}, this release reads version {known}",
            hint="install a newer release of replicator",
        )
