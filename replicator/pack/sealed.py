"""Seal and open the envelope that every object shares (layout: :mod:`replicator.format.container`)."""

from chunker import Compressor, CorruptChunkError, Encoding, decompress
from replicator.crypto.aead import Sealer
from replicator.crypto.derive import object_key
from replicator.errors import IntegrityError
from replicator.format.container import (
    BODY_OFFSET,
    HEADER_SIZE,
    SALT_SIZE,
    TAG_SIZE,
    Header,
    Kind,
    Locator,
    decode_header,
    decode_locator,
    encode_header,
    encode_locator,
)
from replicator.format.sizes import MAX_CHUNK, size_class
from replicator.pack.keys import DomainKeys
from replicator.rng import Rng

_NONCE_LOCATOR = 0
_NONCE_BODY = 1


def seal_object(kind: Kind, body: bytes, keys: DomainKeys, rng: Rng) -> bytes:
    """Return an object without segments (index, references, snapshot), padded to a size class.

    The body is compressed where that helps; one above 4 MiB (chunk ids, which do not compress) is kept as is.

    Raises:
        ValueError: the body does not fit the largest object.
    """
    encoding, stored = Encoding.RAW, body
    if len(body) <= MAX_CHUNK:
        encoding, packed = Compressor().compress(body)
        stored = bytes(packed)
    out = bytearray(size_class(BODY_OFFSET + len(stored) + TAG_SIZE))
    end = write_envelope(out, kind, stored, encoding, len(body), 0, keys, rng)
    out[end:] = rng.bytes(len(out) - end)
    return bytes(out)


def write_envelope(
    out: bytearray | memoryview,
    kind: Kind,
    body: bytes,
    encoding: int,
    raw_length: int,
    segments_length: int,
    keys: DomainKeys,
    rng: Rng,
) -> int:
    """Write header, locator and body at the front of ``out``; return where the segments begin."""
    header = encode_header(Header(epoch=keys.epoch, salt=rng.bytes(SALT_SIZE)))
    sealer = _sealer(header, keys)
    body_length = len(body) + TAG_SIZE
    locator = Locator(
        kind=kind,
        encoding=encoding,
        body_length=body_length,
        raw_length=raw_length,
        segments_length=segments_length,
    )
    out[:HEADER_SIZE] = header
    out[HEADER_SIZE:BODY_OFFSET] = sealer.seal(_NONCE_LOCATOR, encode_locator(locator), header)
    end = BODY_OFFSET + body_length
    with memoryview(out)[BODY_OFFSET:end] as room:
        sealer.seal_into(_NONCE_BODY, body, header, room)
    return end


def _sealer(header: bytes, keys: DomainKeys) -> Sealer:
    decoded = decode_header(header)
    return Sealer(object_key(keys.index_key(decoded.epoch), decoded.salt, keys.tenant, keys.domain))


def open_locator(data: bytes | bytearray | memoryview, size: int, keys: DomainKeys) -> Locator:
    """Return the locator from the first bytes of an object of ``size`` bytes.

    Raises:
        FormatError: not an object.
        IntegrityError: another domain's object, or damaged.
    """
    header = bytes(data[:HEADER_SIZE])
    sealer = _sealer(header, keys)
    return decode_locator(sealer.open(_NONCE_LOCATOR, data[HEADER_SIZE:BODY_OFFSET], header, "object locator"), size)


def open_body(data: bytes | bytearray | memoryview, locator: Locator, keys: DomainKeys) -> bytes:
    """Return the body; ``data`` must hold the object's bytes up to the end of the body.

    Raises:
        IntegrityError: damaged, or not what the locator says.
    """
    header = bytes(data[:HEADER_SIZE])
    sealed = data[BODY_OFFSET : BODY_OFFSET + locator.body_length]
    stored = _sealer(header, keys).open(_NONCE_BODY, sealed, header, "object body")
    if locator.encoding == Encoding.RAW:
        if len(stored) != locator.raw_length:
            raise IntegrityError("object body: its length is not the one its locator names")
        return stored
    try:
        return bytes(decompress(locator.encoding, stored, locator.raw_length))
    except CorruptChunkError as error:
        raise IntegrityError(f"object body: {error}") from error


def open_object(data: bytes, kind: Kind, keys: DomainKeys) -> bytes:
    """Return the body of a whole object that must be of ``kind``.

    Raises:
        FormatError, IntegrityError: not an object of ours, of another kind, or damaged.
    """
    locator = open_locator(data, len(data), keys)
    if locator.kind != kind:
        raise IntegrityError(f"object: a {locator.kind.name.lower()} where a {kind.name.lower()} should be")
    return open_body(data, locator, keys)
